"""A saved network, and what a refusal must look like."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from snncompile.cli import main
from tests.tiny import checkpoint, nothing_left


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint(tmp_path_factory.mktemp("saved") / "tiny.pt")


@pytest.fixture(scope="session")
def bundled(saved: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The saved network as a bundle: nothing has to be lowered before it is simulated."""
    out = tmp_path_factory.mktemp("bundle") / "out"
    assert main(["export", str(saved), "-o", str(out), "--no-verify", "-q"]) == 0
    return out


@pytest.fixture(autouse=True)
def _without_lava(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lava is started only where a test says so."""
    if not request.node.get_closest_marker("lava"):
        monkeypatch.setenv("SNNCOMPILE_NO_LAVA", "1")


@pytest.fixture
def refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a verb that must fail with ``code`` in one line, the log aside, and leave nothing behind."""

    def run(code: int, *words: object) -> str:
        with nothing_left(tmp_path):
            assert main([*map(str, words), "-q"]) == code
        said = capfd.readouterr()
        assert said.out == ""
        assert said.err.count("\n") == 1, said.err
        assert said.err.startswith(f"snncompile {words[0]}: ")
        return said.err

    return run
