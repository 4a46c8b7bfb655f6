"""Checkpoints: what is in them, and every way in which one may be wrong."""

from __future__ import annotations

import os
import re
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from snncompile.errors import ReadError
from snncompile.train import checkpoint
from snncompile.train.checkpoint import load_checkpoint
from snncompile.train.data import load_for
from snncompile.train.networks import Network


@pytest.fixture
def saved(small, tmp_path: Path) -> Path:
    torch.manual_seed(0)
    recipe = small()
    path = tmp_path / "ckpt.pt"
    metrics = {"epoch": 1, "epochs": 3, "finished": False}
    checkpoint.save_checkpoint(path, Network(recipe), metrics, load_for(recipe, "train"))
    return path


def test_content(saved: Path) -> None:
    found = load_checkpoint(saved)
    assert found.recipe.name == "small"
    assert found.sample["x"].shape == (128, 1, 8, 8)
    assert found.sample["x"].dtype == torch.float32
    assert found.sample["y"].dtype == torch.int64
    assert found.sample["y"].unique().numel() == 10
    assert (found.data["name"], found.data["input_shape"], found.data["static"]) == ("digits", [1, 8, 8], True)
    assert not found.metrics["finished"]
    assert not found.network().training


Damage = Callable[[dict[str, Any]], None]


def put(table: str, name: str, value: object) -> Damage:
    def damage(content: dict[str, Any]) -> None:
        content[table][name] = value

    return damage


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda c: c.pop("weights"), "lacks the table 'weights'"),
        (lambda c: c.update(format="other"), "is no snncompile-checkpoint (format is 'other')"),
        (lambda c: c.update(version=2), "has version 2 (this program reads 1)"),
        (lambda c: c["weights"].pop("modules_of.fc1.bias"), "lacks the weights 'modules_of.fc1.bias'"),
        (put("weights", "extra", torch.zeros(1)), "weights 'extra' that its recipe has no place for"),
        (put("weights", "modules_of.fc1.bias", torch.zeros(11)), "the weights 'modules_of.fc1.bias' are float32 [11]"),
        (put("weights", "modules_of.fc1.bias", torch.zeros(10).double()), "are float64 [10]"),
        (put("weights", "modules_of.fc1.bias", torch.full((10,), torch.nan)), "hold NaN or infinity"),
        (put("weights", "modules_of.norm1.running_var", torch.full((4,), torch.inf)), "'modules_of.norm1.running_var'"),
        (put("sample", "x", None), "its sample is damaged"),
        (put("recipe", "tet", {"steps": 0, "lambda": 0.05, "phi": 1.0}), "recipe, tet.steps: out of range"),
        (put("recipe", "network", {"input": [1, 8, 8], "architecture": "1048576C99-10FC"}), "the weights"),
    ],
)
def test_damage_is_named(saved: Path, damage: Damage, message: str) -> None:
    content = torch.load(saved, weights_only=True)
    damage(content)
    torch.save(content, saved)
    with pytest.raises(ReadError, match=re.escape(message)) as caught:
        load_checkpoint(saved)
    assert caught.value.where.startswith(str(saved))


@pytest.mark.parametrize("length", [0, 1, 100, 2000, -200])
def test_truncated(saved: Path, length: int) -> None:
    saved.write_bytes(saved.read_bytes()[:length])
    with pytest.raises(ReadError, match="cannot be loaded") as caught:
        load_checkpoint(saved)
    assert "\n" not in str(caught.value)


def test_a_weight_that_is_not_as_it_was_written(saved: Path) -> None:
    """Another number, as good as any: only the checksum knows."""
    whole = bytearray(saved.read_bytes())
    bias = load_checkpoint(saved).weights["modules_of.fc1.bias"].numpy().tobytes()
    whole[whole.index(bias) + 1] ^= 1
    saved.write_bytes(whole)
    with pytest.raises(ReadError, match=r"is damaged .*the checksum of .* is not that of its bytes"):
        load_checkpoint(saved)


class _Hostile:
    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.victim),)


def test_a_hostile_pickle_runs_nothing(tmp_path: Path) -> None:
    victim, path = tmp_path / "made", tmp_path / "ckpt.pt"
    torch.save({"format": checkpoint.FORMAT, "version": 1, "weights": _Hostile(victim)}, path)
    with pytest.raises(ReadError, match="cannot be loaded as tensors and plain values") as refused:
        load_checkpoint(path)
    assert not victim.exists()
    assert "weights_only" not in str(refused.value)  # torch advises to load it with less care: we do not pass that on


def test_a_bare_tensor_is_no_checkpoint(tmp_path: Path) -> None:
    torch.save(torch.zeros(3), tmp_path / "ckpt.pt")
    with pytest.raises(ReadError, match="is no snncompile-checkpoint"):
        load_checkpoint(tmp_path / "ckpt.pt")


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(ReadError, match="no such file"):
        Network.from_checkpoint(tmp_path / "ckpt.pt")


def test_a_full_disk_is_said_in_the_system_s_words_and_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A limit on the size of files breaks off in the middle of one, as a full disk does."""
    path = tmp_path / "ckpt.pt"
    checkpoint.write(path, {"one": torch.zeros(3)})
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(ReadError, match=r"ckpt.pt: cannot be written \(File too large\)"):
            checkpoint.write(path, {"one": torch.zeros(9999)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_the_same_content_is_the_same_bytes_wherever_it_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the name of the file nor the number of the process is inside."""
    content = {"one": torch.arange(5), "two": [1.0, "x"]}
    checkpoint.write(tmp_path / "a.pt", content)
    monkeypatch.setattr(os, "getpid", lambda: 1)
    checkpoint.write(tmp_path / "b.pt", content)
    assert (tmp_path / "a.pt").read_bytes() == (tmp_path / "b.pt").read_bytes()


@pytest.mark.parametrize(
    "sample",
    [
        {"x": torch.zeros(()), "y": torch.zeros(())},
        {"x": torch.zeros(2, 1, 8, 8).to_sparse(), "y": torch.zeros(2, dtype=torch.int64)},
        {"x": torch.empty(2, 1, 8, 8, device="meta"), "y": torch.zeros(2, dtype=torch.int64)},
    ],
)
def test_a_sample_that_is_no_plain_tensor(saved: Path, sample: dict[str, torch.Tensor]) -> None:
    torch.save(torch.load(saved, weights_only=True) | {"sample": sample}, saved)
    with pytest.raises(ReadError, match="its sample is damaged"):
        load_checkpoint(saved)


@pytest.mark.parametrize("table", ["recipe", "network", "training"])
def test_keys_that_are_no_words(saved: Path, table: str) -> None:
    content = torch.load(saved, weights_only=True)
    content["recipe"][table] |= {7: 7}
    torch.save(content, saved)
    with pytest.raises(ReadError, match=rf"recipe, {table}.7: unknown key; one of"):
        load_checkpoint(saved)
