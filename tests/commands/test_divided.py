"""A layer that no core holds, on the command line: what the bundle and the verbs say of its parts."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from snncompile.cli import main
from snncompile.sheet import Sheet

DATA = ("--data", "digits:test:24")


@pytest.fixture(scope="module")
def sheet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Loihi with small cores."""
    return written(tmp_path_factory.mktemp("sheet") / "small.toml", message_bits=24)


def written(path: Path, message_bits: int) -> Path:
    text = Path(Sheet.load("targets", "loihi").path).read_text(encoding="utf-8")
    text = re.sub(r"^synaptic_words = \{ value = \d+", "synaptic_words = { value = 40", text, flags=re.MULTILINE)
    text = re.sub(r"^message_bits = \{ value = \d+", f"message_bits = {{ value = {message_bits}", text, flags=re.M)
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def bundle(saved: Path, sheet: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("divided") / "out"
    assert main(["export", str(saved), "--target", str(sheet), "-o", str(out), "-q"]) == 0
    return out


def told(capfd: pytest.CaptureFixture[str], *words: object) -> Any:
    capfd.readouterr()
    assert main([*map(str, words), "--format", "json", "-q"]) == 0
    return json.loads(capfd.readouterr().out)


def parts_of(manifest: dict[str, Any]) -> list[str]:
    return sorted({entry["population"] for entry in manifest["placement"] if "_partial" in entry["population"]})


def test_the_bundle_says_what_was_cut_and_proves_it(bundle: Path) -> None:
    manifest = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))
    parts = parts_of(manifest)
    assert parts
    assert {rung["level"]: rung["verdict"] for rung in manifest["verification"]["rungs"]}.items() >= {
        "timed": "bit-equal",
        "placed": "bit-equal",
    }.items()
    notes = [note for note in manifest["notes"] if note.startswith("divide: ")]
    assert len(notes) == len({name.partition("_partial")[0] for name in parts})
    assert all("spike.message_bits" in note for note in notes)
    assert not any("_partial" in name for name in manifest["resets"])  # they keep nothing
    assert any(note.startswith("no network.net: ") for note in manifest["notes"])
    report = (bundle / "report.md").read_text(encoding="utf-8")
    assert notes[0].replace("_", "\\_") in report or notes[0] in report
    assert parts[0] in report.replace("\\_", "_")


def test_a_sheet_without_messages_refuses_as_ever(saved: Path, tmp_path: Path, refused: Callable[..., str]) -> None:
    plain = written(tmp_path / "plain.toml", message_bits=0)
    said = refused(6, "export", saved, "--target", plain, "-o", tmp_path / "out")
    assert re.search(
        r"needs \d+ synaptic words on a core, loihi has 40 \(\S*plain.toml:\d+, core.synaptic_words\)", said
    )


def test_a_sheet_is_held_to_what_messages_can_be(saved: Path, tmp_path: Path, refused: Callable[..., str]) -> None:
    wide = written(tmp_path / "wide.toml", message_bits=40)
    assert "spike.message_bits: must be 0 or from 2 to 32, is 40" in refused(
        3, "export", saved, "--target", wide, "-o", tmp_path / "out"
    )
    binary = tmp_path / "binary.toml"
    text = written(tmp_path / "one.toml", message_bits=24).read_text(encoding="utf-8")
    binary.write_text(text.replace("graded = { value = true", "graded = { value = false"), encoding="utf-8")
    assert "spike.message_bits: must be 0" in refused(3, "export", saved, "--target", binary, "-o", tmp_path / "out")


def test_show_lists_the_parts(bundle: Path, saved: Path, sheet: Path, capfd: pytest.CaptureFixture[str]) -> None:
    shown = told(capfd, "show", bundle)
    nodes = {node["name"]: node for node in shown["nodes"]}
    manifest = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))
    for name in parts_of(manifest):
        assert nodes[name]["op"] == "Readout"
        assert nodes[name]["cores"]
        assert nodes[f"{name}_in"]["reads"] == [f"{name}@1"]
    assert any(note.startswith("divide: ") for note in shown["notes"])
    placed = told(capfd, "show", saved, "--target", sheet, "--level", "placed")
    assert placed["nodes"] == shown["nodes"]
    fixed = told(capfd, "show", saved, "--target", sheet, "--level", "fixed")
    assert not any("_partial" in node["name"] for node in fixed["nodes"])


def test_answers_spikes_and_operations_are_those_of_the_uncut_network(
    bundle: Path, saved: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    cut = told(capfd, "simulate", bundle, *DATA)
    whole = told(capfd, "simulate", saved, "--target", "loihi", *DATA)
    for key in ("answers", "spikes", "rates", "accuracy"):
        assert cut.get(key) == whole.get(key), key
    own = {name: number for name, number in cut["operations"].items() if name in whole["operations"]}
    assert own == whole["operations"]
    assert not any("_partial" in name for name in cut["operations"])
    assert told(capfd, "simulate", bundle, *DATA, "--jobs", "2")["answers"] == cut["answers"]
    trace = tmp_path / "trace.npz"
    assert main(["simulate", str(bundle), *DATA, "--trace", str(trace), "-q"]) == 0
    with np.load(trace) as arrays:
        assert not any("_partial" in key for key in arrays.files)


def test_energy_is_that_of_the_uncut_network(bundle: Path, saved: Path, capfd: pytest.CaptureFixture[str]) -> None:
    cut = told(capfd, "energy", bundle, *DATA)
    whole = told(capfd, "energy", saved, "--target", "loihi", "--level", "fixed", *DATA)
    assert not any("_partial" in layer["name"] for layer in cut["layers"])
    own = [layer for layer in cut["layers"] if layer["role"] != "relay"]
    assert own == [layer for layer in whole["layers"] if layer["role"] != "relay"]


@pytest.mark.lava
def test_the_bundle_runs_on_lava(bundle: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run, simulated = told(capfd, "run", bundle, *DATA), told(capfd, "simulate", bundle, *DATA)
    assert run["answers"] == simulated["answers"]
    own = {name: number for name, number in run["spikes"].items() if name in simulated["spikes"]}
    assert own == simulated["spikes"]
    assert not any("_partial" in name for name in run["spikes"])
