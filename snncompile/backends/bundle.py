"""Bundles: what ``export`` leaves behind. Written beside their place and renamed, so that a crash leaves nothing half
done.

    manifest.json    schema, versions, hashes, latency, reset plan, cores, what quantisation did, the verdict of every
    rung program.json     the placed graph;  arrays.npz  its arrays
    target.toml      the sheet it was made for
    report.md, report.html
    run_lava.py      runs it in Lava's interpreter, without this package
    network.net      the same for lava-dl's NetX, where that format can say it
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from snncompile.errors import ReadError

SCHEMA = "snncompile.bundle/1"


@contextlib.contextmanager
def writing(out: Path, *, force: bool) -> Iterator[Path]:
    """A folder to fill, which takes the place of ``out`` at the end; nothing is left where something fails on the way.

    Raises ``ReadError`` where ``out`` exists and is no bundle, or is one and ``force`` was not given.
    """
    check_free(out, force=force)
    beside = out.parent / f".{out.name}.{os.getpid()}"
    old = out.parent / f".{out.name}.{os.getpid()}.old"
    made = [parent for parent in out.absolute().parents if not parent.exists()]
    beside.mkdir(parents=True)
    try:
        yield beside
        if out.exists():
            os.rename(out, old)
        os.rename(beside, out)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        for parent in made:
            with contextlib.suppress(OSError):
                parent.rmdir()
        raise
    finally:
        if old.exists():
            shutil.rmtree(old)


def check_free(out: Path, *, force: bool) -> None:
    """Raise ``ReadError`` unless a bundle may be written to ``out``."""
    if not out.exists():
        return
    if not (out / "manifest.json").is_file() or not (out / "program.json").is_file():
        if out.is_dir() and not any(out.iterdir()):
            out.rmdir()
            return
        raise ReadError("is there already and is no bundle", where=str(out), remedy="choose another --output")
    if not force:
        raise ReadError(
            "is there already", where=str(out), remedy="choose another --output, or replace it with --force"
        )


def write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write ``manifest.json``, with the hashes of all that lies in the folder."""
    files = {path.name: digest(path) for path in sorted(folder.iterdir()) if path.is_file()}
    whole = {"schema": SCHEMA, **manifest, "files": files}
    text = json.dumps(whole, indent=1, sort_keys=True, allow_nan=False)
    (folder / "manifest.json").write_text(text + "\n", encoding="utf-8")


def check_whole(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Raise ``ReadError`` naming the first file of a bundle that is missing or not what was written."""
    for name, expected in sorted(manifest.get("files", {}).items()):
        path = folder / Path(name).name
        if not path.is_file():
            raise ReadError("is missing", where=str(path), remedy="export again")
        if digest(path) != expected:
            raise ReadError("is not what was exported", where=str(path), why="SHA-256 differs", remedy="export again")


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
