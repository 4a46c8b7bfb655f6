"""Files of ``--resume``: those of other work, damaged ones and hostile ones are refused in one line, and left alone."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from snncompile import cli
from snncompile.cli import main
from snncompile.commands import resuming
from tests.commands.cut_runs import ENERGY, SIMULATE, VERIFY, cut, small_batches
from tests.tiny import checkpoint


@pytest.fixture(autouse=True)
def _batches(monkeypatch: pytest.MonkeyPatch) -> None:
    small_batches(monkeypatch)


@pytest.fixture(scope="module")
def begun(saved: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A file for each verb, of two batches or rungs."""
    folder = tmp_path_factory.mktemp("begun")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SNNCOMPILE_NO_LAVA", "1")
        small_batches(patch)
        for words in (SIMULATE, ENERGY, VERIFY):
            with cut(2):
                verb, *rest = words
                assert main([verb, str(saved), *rest, "-q", "--resume", str(folder / verb)]) == 130
    return {verb: folder / verb for verb in ("simulate", "energy", "verify")}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("simulate", "--data", "test:131"), "another number of samples"),
        (("simulate", "--data", "train:130"), "other data"),
        (("simulate", "--data", "test:130", "--calibration", "train:9"), "another network, or to one that was lowered"),
        (("simulate", "--data", "test:130", "-t", "./own.toml"), "another target"),
        (("energy", "--data", "train:130"), "other data"),
        (("energy", "--data", "test:130", "--level", "read"), "another network"),
        (("energy", "--data", "test:130", "--zero-skip"), "another way of counting"),
        (("verify", "--data", "test:9"), "another number of samples"),
        (("verify", "--data", "train:8"), "other data"),
        (("verify", "--data", "test:8", "--device", "onnx"), "another device"),
        (("verify", "--data", "test:8", "--per-channel"), "another network"),
    ],
    ids=lambda value: "-".join(value[1:]) if isinstance(value, tuple) else "",
)
def test_what_belongs_to_something_else_is_refused(
    words: tuple[str, ...],
    told: str,
    begun: dict[str, Path],
    saved: Path,
    tmp_path: Path,
    refused: Callable[..., str],
) -> None:
    verb, *rest = words
    sheet = (Path(cli.__file__).parents[1] / "targets" / "loihi.toml").read_text(encoding="utf-8")
    (tmp_path / "own.toml").write_text(sheet + "# another sheet\n", encoding="utf-8")
    shutil.copy(begun[verb], tmp_path / "r")
    with contextlib.chdir(tmp_path):
        said = refused(4, verb, saved, *rest, "--resume", "r")
    assert said.startswith(f"snncompile {verb}: r: belongs to {told}")
    assert said.endswith("; name another file, or remove this one to begin anew\n")


def test_another_model_verb_or_version(
    begun: dict[str, Path],
    saved: Path,
    tmp_path: Path,
    refused: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    other = checkpoint(tmp_path / "other.pt", decay=0.25)
    for verb, file in begun.items():
        shutil.copy(file, tmp_path / "r")
        words = (verb, "--data", VERIFY[2] if verb == "verify" else SIMULATE[2], "--resume", tmp_path / "r")
        assert "r: belongs to another network" in refused(4, verb, other, *words[1:])
    assert "belongs to other work" in refused(4, "energy", saved, *ENERGY[1:], "--resume", begun["simulate"])
    monkeypatch.setattr(resuming, "__version__", "9")
    assert "belongs to another version" in refused(4, "energy", saved, *ENERGY[1:], "--resume", begun["energy"])


def rewritten(file: Path, to: Path, change: Callable[[dict[str, Any], dict[str, Any]], object]) -> Path:
    """A copy whose ``meta`` and arrays are changed."""
    with np.load(file) as archive:
        arrays = {key: archive[key] for key in archive.files}
    meta = json.loads(str(arrays.pop("meta")))
    change(meta, arrays)
    with to.open("wb") as out:
        np.savez(out, meta=np.array(json.dumps(meta)), **arrays)
    return to


def _wrong_type(meta: dict[str, Any], arrays: dict[str, Any]) -> None:
    key = sorted(arrays)[0]
    arrays[key] = arrays[key].astype(np.float32)


def _too_short(meta: dict[str, Any], arrays: dict[str, Any]) -> None:
    key = sorted(arrays)[0]
    arrays[key] = arrays[key][:-1]


NOT_OURS = "is no file that --resume keeps, or is damaged"
DAMAGED = "what it keeps is damaged"
META: dict[str, tuple[Callable[[dict[str, Any], dict[str, Any]], object], str]] = {
    "format": (lambda meta, _: meta.update(format="snncompile.resume/0"), NOT_OURS),
    "no format": (lambda meta, _: meta.pop("format"), NOT_OURS),
    "done of nothing": (lambda meta, _: meta.update(done=0), NOT_OURS),
    "done of a truth": (lambda meta, _: meta.update(done=True), NOT_OURS),
    "done of text": (lambda meta, _: meta.update(done="80"), NOT_OURS),
    "done beyond": (lambda meta, _: meta.update(done=10**30), DAMAGED),
    "plain": (lambda meta, _: meta.update(plain=[1]), NOT_OURS),
    "belongs": (lambda meta, _: meta.update(belongs=None), NOT_OURS),
    "belongs to nothing": (lambda meta, _: meta.update(belongs={}), "belongs to other work"),
}
CONTENT: dict[str, tuple[str, Callable[[dict[str, Any], dict[str, Any]], object], str]] = {
    "type": ("simulate", _wrong_type, DAMAGED),
    "short": ("simulate", _too_short, DAMAGED),
    "none": ("simulate", lambda _, arrays: arrays.clear(), DAMAGED),
    "a part of a batch": ("simulate", lambda meta, _: meta.update(done=79), DAMAGED),
    "seen": ("simulate", lambda meta, _: meta["plain"].update(seen="0" * 64), "belongs to other data"),
    "seen is a table": ("simulate", lambda meta, _: meta["plain"].update(seen={}), "belongs to other data"),
    "spikes": ("simulate", lambda meta, _: meta["plain"].update(spikes=3), DAMAGED),
    "no spikes": ("simulate", lambda meta, _: meta["plain"].update(spikes={}), DAMAGED),
    "foreign": ("simulate", lambda meta, _: meta["plain"]["spikes"].update(nobody=1), DAMAGED),
    "negative": ("simulate", lambda meta, _: meta["plain"]["operations"].update(conv1=-1), DAMAGED),
    "operations": ("simulate", lambda meta, _: meta["plain"].update(operations="x"), DAMAGED),
    "energy type": ("energy", _wrong_type, DAMAGED),
    "energy short": ("energy", _too_short, DAMAGED),
    "energy none": ("energy", lambda _, arrays: arrays.clear(), DAMAGED),
    "energy without answers": ("energy", lambda _, arrays: arrays.pop("answers"), DAMAGED),
    "energy within a batch": ("energy", lambda meta, _: meta.update(done=41), DAMAGED),
    "rungs": ("verify", lambda meta, _: meta["plain"].update(rungs=2), DAMAGED),
    "too few rungs": ("verify", lambda meta, _: meta["plain"]["rungs"].pop(), DAMAGED),
    "a rung that does not hold": (
        "verify",
        lambda meta, _: meta["plain"]["rungs"][1].update(verdict="DIFFERENT"),
        DAMAGED,
    ),
    "half a rung": ("verify", lambda meta, _: meta["plain"]["rungs"][1].pop("note"), DAMAGED),
    "no rung": ("verify", lambda meta, _: meta["plain"].update(rungs=[1, 2]), DAMAGED),
    "no number": ("verify", lambda meta, _: meta["plain"]["rungs"][1].update(distance={"a": float("nan")}), DAMAGED),
}


@pytest.mark.parametrize("name", META)
def test_a_head_that_is_wrong(
    name: str, begun: dict[str, Path], bundled: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    change, told = META[name]
    file = rewritten(begun["simulate"], tmp_path / "r", change)
    said = refused(4, "simulate", bundled, *SIMULATE[1:], "--resume", file)
    assert said.startswith(f"snncompile simulate: {file}: {told}")


@pytest.mark.parametrize("name", CONTENT)
def test_content_that_is_wrong(
    name: str, begun: dict[str, Path], saved: Path, bundled: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    verb, change, told = CONTENT[name]
    file = rewritten(begun[verb], tmp_path / "r", change)
    words = {"simulate": SIMULATE, "energy": ENERGY, "verify": VERIFY}[verb]
    said = refused(4, verb, bundled if verb == "simulate" else saved, *words[1:], "--resume", file)
    assert said.startswith(f"snncompile {verb}: {file}: {told}")


class Opened:
    """Runs when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("unpickled",)


def _objects() -> bytes:
    content = io.BytesIO()
    np.savez(content, meta=np.array([Opened()], dtype=object))
    return content.getvalue()


def _packed() -> bytes:
    content = io.BytesIO()
    np.savez_compressed(content, meta=np.zeros(10_000_000))
    return content.getvalue()


def _large() -> bytes:
    """An array that says it holds 16 TiB."""
    content = io.BytesIO()
    np.savez(content, meta=np.zeros(100_000_000_000_000 % 7))
    old, new = b"'shape': (%d,)" % (100_000_000_000_000 % 7), b"'shape': (2199023255552,)"
    raw = content.getvalue()
    assert raw.count(old) == 1
    return raw.replace(old + b" " * (len(new) - len(old)), new)


@pytest.mark.parametrize(
    "content",
    [b"", b"hello", b"PK\x03\x04", pickle.dumps({"done": 1}), _objects(), _packed(), _large()],
    ids=["empty", "text", "begin", "pickle", "objects", "packed", "large"],
)
def test_files_of_another_kind_are_refused_and_left_alone(
    content: bytes, saved: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    (tmp_path / "r").write_bytes(content)
    with contextlib.chdir(tmp_path):
        assert f"r: {NOT_OURS} (" in refused(4, "simulate", saved, *SIMULATE[1:], "--resume", "r")


def test_a_checkpoint_a_report_and_a_folder_are_refused(
    saved: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    assert NOT_OURS in refused(4, "energy", saved, *ENERGY[1:], "--resume", saved)
    np.savez(tmp_path / "x.npz", x=np.zeros(3))
    assert f"{NOT_OURS} ('meta')" in refused(4, "energy", saved, *ENERGY[1:], "--resume", tmp_path / "x.npz")
    assert "it is a folder" in refused(4, "verify", saved, *VERIFY[1:], "--resume", tmp_path)
    assert "is no folder" in refused(4, "simulate", saved, *SIMULATE[1:], "--resume", tmp_path / "none" / "r")


@pytest.mark.parametrize("verb", ["simulate", "energy", "verify"])
def test_a_file_that_ends_too_early_anywhere(
    verb: str, begun: dict[str, Path], saved: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    content, words = begun[verb].read_bytes(), {"simulate": SIMULATE, "energy": ENERGY, "verify": VERIFY}[verb]
    for size in range(1, len(content), max(1, len(content) // 8)):
        (tmp_path / "r").write_bytes(content[:size])
        assert NOT_OURS in refused(4, verb, saved, *words[1:], "--resume", tmp_path / "r")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("energy", "MODEL", "-o", "./r"), "r: is the place of a result as well; name another file"),
        (("energy", "MODEL", "--baseline", "r", "--update-baseline"), "r: is the place of a result as well"),
        (("simulate", "MODEL", "--data", "test:4", "--trace", "t.npz"), "--trace and --resume exclude each other"),
        (("verify", "MODEL@read", "MODEL@folded"), "--resume belongs to the ladder of one model"),
        (("export", "MODEL", "-o", "out", "--target", "nir"), "--resume belongs to the ladder of a machine"),
        (("export", "MODEL", "-o", "out", "--no-verify"), "--resume belongs to the ladder of a machine"),
    ],
)
def test_where_there_is_nothing_to_resume(
    words: tuple[str, ...], told: str, saved: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    with contextlib.chdir(tmp_path):
        said = refused(4, *(word.replace("MODEL", str(saved)) for word in words), "--resume", "r")
    assert told in said
