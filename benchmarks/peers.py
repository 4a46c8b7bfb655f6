"""Environments that hold other people's engines, at the versions of ``constraints.txt``."""

from __future__ import annotations

import re
import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path

CONSTRAINTS = Path(__file__).parents[1] / "constraints.txt"


def environment(folder: Path, packages: Sequence[str]) -> Path:
    """The interpreter of an environment that has these packages; made, once, where it is not there."""
    python = folder / "bin" / "python"
    if not python.is_file():
        print(f"installing {', '.join(map(pinned, packages))} into {folder}", file=sys.stderr)
        venv.create(folder, with_pip=True)
        for package in packages:  # one by one, torch first: resolved together, a larger build of it may be chosen
            words = [str(python), "-m", "pip", "install", "-qq", "-c", str(CONSTRAINTS), pinned(package)]
            subprocess.run(words, check=True)
    return python


def pinned(package: str) -> str:
    """A package with the version that its line in ``constraints.txt`` says."""
    found = re.search(rf"^{package}==\S+$", CONSTRAINTS.read_text(encoding="utf-8"), re.MULTILINE)
    if found is None:
        raise SystemExit(f"constraints.txt pins no {package}")
    return found[0]
