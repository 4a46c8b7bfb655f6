"""Places that are taken or closed, and work that breaks off: one message, its code, nothing left, nothing lost."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from snncompile import cli
from snncompile.backends import bundle as bundles
from snncompile.backends import lava
from snncompile.cli import main
from tests.tiny import nothing_left


def test_places_that_are_taken(saved: Path, tmp_path: Path, refused: Callable[..., str]) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "mine").write_text("keep me")
    (tmp_path / "file").write_text("keep me")
    for out in ("folder", "file"):
        for force in ([], ["--force"]):
            said = refused(4, "export", saved, "-o", tmp_path / out, *force)
            assert f"{out}: is there already and is no bundle; choose another --output" in said
    assert f"{tmp_path / 'file'} is no folder" in refused(4, "export", saved, "-o", tmp_path / "file" / "a" / "out")
    for verb, option in (("simulate", "--trace"), ("energy", "-o")):
        assert "cannot be written (it is a folder)" in refused(4, verb, saved, option, tmp_path)
        assert "is no folder" in refused(4, verb, saved, option, tmp_path / "a" / "b")


def test_no_permission_is_said_before_the_work(
    saved: Path, tmp_path: Path, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The superuser may write anywhere, so the system's answer is given for it."""
    monkeypatch.setattr(os, "access", lambda *_: False)
    monkeypatch.setattr("snncompile.compile.compile_graph", None)
    for verb, option in (("export", "-o"), ("simulate", "--trace"), ("energy", "-o")):
        said = refused(4, verb, saved, option, tmp_path / "out")
        assert f"{tmp_path / 'out'}: cannot be written (no permission to write in {tmp_path})" in said


@pytest.mark.parametrize("kind", [KeyboardInterrupt, OSError, MemoryError])
@pytest.mark.parametrize("there", [False, True])
def test_what_breaks_off_in_the_middle_leaves_nothing(
    kind: type[BaseException],
    there: bool,
    saved: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "made" / "on the way" / "out"
    if there:
        assert main(["export", str(saved), "-o", str(out), "-q", "--no-verify"]) == 0
        capfd.readouterr()

    def emit(folder: Path) -> None:
        assert (folder / "program.json").exists(), "half of the bundle is written"
        raise kind(28, "No space left on device")

    monkeypatch.setattr(lava, "emit", emit)
    with nothing_left(tmp_path):
        code = main(["export", str(saved), "-o", str(out), "--force", "-q", "--no-verify"])
    said = capfd.readouterr()
    expected = {
        KeyboardInterrupt: (130, "interrupted; nothing was left half written"),
        OSError: (4, f"{out}: cannot be written (No space left on device)"),
        MemoryError: (70, "internal error: MemoryError"),
    }
    assert code == expected[kind][0]
    assert said.err.startswith(f"snncompile export: {expected[kind][1]}")
    assert said.out == ""


@pytest.mark.parametrize("at", [1, 2])
def test_a_replaced_bundle_comes_back_when_the_last_step_fails(
    at: int,
    saved: Path,
    tmp_path: Path,
    refused: Callable[..., str],
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Between the two renames no bundle has the name; failing there must not lose the old one."""
    out = tmp_path / "out"
    assert main(["export", str(saved), "-o", str(out), "-q", "--no-verify"]) == 0
    capfd.readouterr()
    rename, calls = os.rename, []

    def failing(source: Path, target: Path) -> None:
        calls.append(source)
        if len(calls) == at:
            raise OSError(5, "Input/output error")
        rename(source, target)

    monkeypatch.setattr(bundles.os, "rename", failing)
    assert "(Input/output error)" in refused(4, "export", saved, "-o", out, "--force", "--no-verify")
    assert len(calls) >= at


def test_an_export_that_is_ended_leaves_nothing(saved: Path, tmp_path: Path) -> None:
    """A real process, ended from outside while half of its bundle is written."""
    code = f"""
import os, signal, sys
from snncompile.backends import lava
from snncompile.cli import main

def emit(folder):
    print(*sorted(path.name for path in folder.parent.iterdir()), flush=True)
    os.kill(os.getpid(), signal.SIGTERM)
    signal.pause()

lava.emit = emit
sys.exit(main(["export", {str(saved)!r}, "-o", {str(tmp_path / "a" / "out")!r}, "-q", "--no-verify"]))
"""
    environment = os.environ | {"PYTHONPATH": str(Path(cli.__file__).parents[1]), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 130
    assert done.stdout.startswith(".out.")
    assert done.stderr == "snncompile export: interrupted; nothing was left half written\n"
    assert list(tmp_path.iterdir()) == []
