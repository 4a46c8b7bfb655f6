"""Boards on the command line: the one that is named, and the message where the sheet has none of that name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from snncompile.cli import main


def test_a_bundle_lies_on_the_board_that_was_named(
    saved: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["export", str(saved), "-o", str(out), "--board", "kapoho-point", "--no-verify", "-q"]) == 0
    machine = json.loads((out / "manifest.json").read_text())["target"]
    assert (machine["board"], machine["chips"], machine["chips_used"]) == ("kapoho-point", 8, 1)
    assert machine["routes_between_chips"] == 0
    assert "of a chip of the board kapoho-point." in (out / "report.md").read_text()
    assert (out / "cores.svg").read_text().startswith("<svg ")
    assert "<svg " in (out / "report.html").read_text()
    capfd.readouterr()
    assert main(["show", str(out), "-q"]) == 0
    assert "on 1 of 8 chips of 120 cores, board kapoho-point" in capfd.readouterr().out


def test_an_unknown_board_is_refused_with_the_line_of_the_sheet(saved: Path, refused: Callable[..., str]) -> None:
    said = refused(3, "export", saved, "-o", "out", "--board", "kapoho", "--no-verify")
    assert "boards: no board 'kapoho'; did you mean kapoho-point?" in said
    assert "targets/loihi.toml:" in said
