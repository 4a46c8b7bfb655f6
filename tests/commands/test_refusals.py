"""Input that lies and machines that are too small: one message, its code, nothing left."""

from __future__ import annotations

import os
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from snncompile import sheet
from tests.tiny import changed, checkpoint, images

Contents = dict[str, Any]


# --- the checkpoint ---------------------------------------------------------------------------------------------------


class Hostile:
    """Unpickled by anyone who trusts it, it makes a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.mark}",)


@pytest.mark.parametrize("kept", [0, 10, 100, 5000, -1])
def test_a_truncated_checkpoint(kept: int, saved: Path, tmp_path: Path, refused: Callable[..., str]) -> None:
    whole = saved.read_bytes()
    cut = tmp_path / "cut.pt"
    cut.write_bytes(whole[:kept])
    assert re.search(r"cut.pt: .*truncated", refused(4, "export", cut, "-o", tmp_path / "out"))


@pytest.mark.parametrize("form", ["pickle", "torch", "inside"])
def test_code_in_a_checkpoint_never_runs(form: str, saved: Path, tmp_path: Path, refused: Callable[..., str]) -> None:
    path, mark = tmp_path / "hostile.pt", tmp_path / "it-ran"
    if form == "pickle":
        path.write_bytes(pickle.dumps(Hostile(mark)))
    elif form == "torch":
        torch.save(Hostile(mark), path)
    else:
        torch.save(torch.load(saved, weights_only=True) | {"metrics": Hostile(mark)}, path)
    assert "hostile.pt: cannot be loaded as tensors and plain values" in refused(
        4, "export", path, "-o", tmp_path / "out"
    )
    assert not mark.exists()


CONV = "modules_of.conv1.weight"


def nan(content: Contents) -> None:
    content["weights"][CONV][0, 0, 1, 1] = float("nan")


def infinite(content: Contents) -> None:
    content["weights"][CONV][0, 0, 1, 1] = float("inf")


def reshaped(content: Contents) -> None:
    content["weights"][CONV] = torch.zeros(3, 3)


def lacking(content: Contents) -> None:
    del content["weights"][CONV]


def other_recipe(content: Contents) -> None:
    content["recipe"]["network"]["architecture"] = "4C3-10FC"


def small_sample(content: Contents) -> None:
    content["sample"] = {"x": torch.zeros(5, 3, 3), "y": torch.zeros(5, dtype=torch.int64)}


def empty_sample(content: Contents) -> None:
    content["sample"] = {"x": torch.zeros(0, 1, 8, 8), "y": torch.zeros(0, dtype=torch.int64)}


def complex_sample(content: Contents) -> None:
    content["sample"]["x"] = content["sample"]["x"].to(torch.complex64)


def no_classes(content: Contents) -> None:
    content["data"] = {}


def odd_versions(content: Contents) -> None:
    content["versions"] = {"torch": torch.zeros(2)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (nan, f"the weights '{CONV}' hold NaN or infinity"),
        (infinite, f"the weights '{CONV}' hold NaN or infinity"),
        (reshaped, f"the weights '{CONV}' are float32 [3, 3] (its recipe says float32 [4, 1, 3, 3])"),
        (lacking, f"lacks the weights '{CONV}'"),
        (other_recipe, "that its recipe has no place for"),
        (small_sample, "its sample is damaged (x is float32 [5, 3, 3], y int64 [5]; the network takes [1, 8, 8])"),
        (empty_sample, "its sample is damaged"),
        (complex_sample, "its sample is damaged (x is complex64"),
        (no_classes, "does not name its classes"),
        (odd_versions, "does not say what made it"),
    ],
)
def test_a_checkpoint_that_lies(
    change: Callable[[Contents], None], message: str, saved: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    path = changed(saved, tmp_path / "lies.pt", change)
    said = refused(4, "export", path, "-o", tmp_path / "out")
    assert said.startswith(f"snncompile export: {path}: ")
    assert message in said


def test_a_variance_below_zero_is_the_checkpoint_s_fault_not_ours(
    saved: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    def negative(content: Contents) -> None:
        content["weights"]["modules_of.norm1.running_var"][0] = -1.0

    path = changed(saved, tmp_path / "lies.pt", negative)
    assert "norm1 (Norm): its variance is not positive" in refused(5, "export", path, "-o", tmp_path / "out")


@pytest.mark.parametrize("verb", ["export", "simulate", "verify", "energy", "show", "run"])
def test_what_is_not_there(verb: str, tmp_path: Path, refused: Callable[..., str]) -> None:
    output = ["-o", tmp_path / "out"] if verb == "export" else []
    assert "nothing.pt: no such file or folder" in refused(4, verb, tmp_path / "nothing.pt", *output)
    assert "manifest.json: is missing; give a folder that `export` wrote" in refused(4, verb, tmp_path, *output)
    assert "File name too long" in refused(4, verb, "a" * 300, *output)


# --- the data ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("option", ["--data", "--calibration"])
@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": images(4)[:, :, :5]}, "x is [4, 1, 5, 8] (the network takes [N, 1, 8, 8] or [N, T, 1, 8, 8])"),
        ({"x": np.zeros((4, 5, 1, 8, 8))}, "x has 5 steps (the network runs 3)"),
        ({"x": images(0)}, "holds no samples"),
        ({"x": images(4) * np.nan}, "holds something that is not a finite number"),
        ({"x": images(4).astype(float) * 1e300}, "holds numbers that float32 does not"),
        ({"x": np.array(["a"])}, "holds something that is not a finite number"),
        ({"z": images(4)}, "holds z (the samples are called x)"),
        ({"x": images(4), "y": np.zeros(3, int)}, "y is int64 [3]"),
    ],
)
def test_data_of_another_kind(
    arrays: Contents, message: str, option: str, saved: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    data = tmp_path / "data.npz"
    np.savez(data, **arrays)
    said = refused(4, "export", saved, "-o", tmp_path / "out", option, data)
    assert f"{data}: " in said
    assert message in said


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("tset:8", "no such data set"),
        ("digit", "did you mean digits?"),
        ("test:0", "'0' is no count"),
        ("fashion-mnist", "set SNNCOMPILE_DATA or say --data-root"),
        ("./nothing.npz", "No such file"),
    ],
)
def test_data_that_are_not_there(
    data: str, message: str, saved: Path, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SNNCOMPILE_DATA", raising=False)
    for verb in ("simulate", "verify", "energy"):
        assert message in refused(4, verb, saved, "--data", data)


# --- the target -------------------------------------------------------------------------------------------------------


def chip(folder: Path, name: str, *changes: tuple[str, str]) -> Path:
    """Loihi with other figures."""
    text = sheet.find("targets", "loihi").read_text(encoding="utf-8")
    for old, new in changes:
        assert re.search(old, text), old
        text = re.sub(old, new, text, count=1)
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_an_unknown_target_is_said_before_anything_is_read(tmp_path: Path, refused: Callable[..., str]) -> None:
    said = refused(3, "export", tmp_path / "nothing.pt", "-o", tmp_path / "out", "--target", "lohi")
    assert said.startswith("snncompile export: lohi: no such sheet in targets/; did you mean loihi")
    assert "is a cost model, not a machine" in refused(
        3, "export", "nothing.pt", "-o", tmp_path / "out", "-t", "horowitz45"
    )
    assert "./my.toml: no such file" in refused(3, "export", "nothing.pt", "-o", tmp_path / "out", "-t", "./my.toml")


def test_a_wrong_sheet(saved: Path, tmp_path: Path, refused: Callable[..., str]) -> None:
    sheet_ = chip(tmp_path, "mychip.toml", (r"\[chip\]", "[chpi]"))
    said = refused(3, "export", saved, "-o", tmp_path / "out", "--target", sheet_)
    assert re.search(r"mychip.toml:\d+, chpi: unknown key; did you mean chip\?", said)


ALONE = (r"(?s)\[boards\].*?\n\n", "")  # a chip that is on no board with others
SPIKES_ONLY = (r"message_bits = \{ value = 24", "message_bits = { value = 0")  # nothing is cut by its inputs


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            [ALONE, (r"cores = \{ value = 120", "cores = { value = 2")],
            r"needs \d+ cores, .* has 2 \(.*:\d+, chip.cores",
        ),
        (
            [ALONE, (r"neurons = \{ value = 4095", "neurons = { value = 1")],
            r"needs \d+ neurons on a core, .* has 1 \(.*:\d+, core.neurons",
        ),
        (
            [SPIKES_ONLY, (r"axons_in = \{ value = 16000", "axons_in = { value = 7")],
            r"has 7 \(./mychip.toml:\d+, core.axons_in\)",
        ),
    ],
)
def test_a_chip_that_is_too_small(
    changes: list[tuple[str, str]],
    message: str,
    saved: Path,
    tmp_path: Path,
    refused: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Named with the figure's line in the user's own sheet, and before the integers are sought, which takes long."""
    monkeypatch.setattr("snncompile.compile.quantise", None)
    path = chip(tmp_path, "mychip.toml", *changes)
    monkeypatch.chdir(tmp_path)
    assert re.search(message, refused(6, "export", saved, "-o", "out", "--target", f"./{path.name}"))


def test_a_network_that_no_chip_holds(tmp_path: Path, refused: Callable[..., str]) -> None:
    path = checkpoint(tmp_path / "large.pt", "1536C3-4C3-10FC")
    spikes_only = chip(tmp_path, "mychip.toml", SPIKES_ONLY)  # else the sum is made in parts: test_divided.py
    said = refused(6, "export", path, "-o", tmp_path / "out", "--target", spikes_only)
    assert re.search(r"\w+ \(\w+\): needs \d+ .* on a core, loihi has \d+ \(\S*mychip.toml:\d+, core\.", said)
