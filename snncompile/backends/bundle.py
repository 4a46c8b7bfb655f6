"""Bundles: what ``export`` leaves behind. Written beside their place and renamed, so that a crash leaves nothing half
done.

    manifest.json    schema, versions, hashes, latency, reset plan, cores, what quantisation did, every rung's verdict
    program.json     the placed graph;  arrays.npz  its arrays
    target.toml      the sheet it was made for
    network/         the form of the network, for counting: weights are ones and zeros
    report.md, report.html, cores.svg
    run_lava.py      runs it in Lava's interpreter, without this package
    network.net      the same for lava-dl's NetX, where that format can say it
    model.onnx       instead of both, where onnxruntime is the device; initial.npz, test_data_set_0/ beside it
    model.nir        instead of all of these and the sheet, where the target is NIR
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
NEEDED = frozenset({"program.json", "arrays.npz", "target.toml"})


@contextlib.contextmanager
def writing(out: Path, *, force: bool) -> Iterator[Path]:
    """A folder to fill, which takes the place of ``out`` at the end; nothing is left where something fails on the way,
    and a bundle that was to be replaced stays.

    Raises ``ReadError`` where ``out`` cannot be written, exists and is no bundle, or is one without ``force``.
    """
    check_free(out, force=force)
    out = out.resolve()  # through links: the folder that they name is replaced, not the link
    beside = out.parent / f".{out.name}.{os.getpid()}"
    old = out.parent / f".{out.name}.{os.getpid()}.old"
    made = [parent for parent in out.parents if not parent.exists()]
    try:
        beside.mkdir(parents=True)
        yield beside
        if out.exists():
            os.rename(out, old)
        os.rename(beside, out)
    except BaseException as error:
        shutil.rmtree(beside, ignore_errors=True)
        if old.exists() and not out.exists():
            os.rename(old, out)
        for parent in made:
            with contextlib.suppress(OSError):
                parent.rmdir()
        if isinstance(error, OSError):
            raise _unwritable(out, error.strerror or str(error)) from error
        raise
    finally:
        shutil.rmtree(old, ignore_errors=True)


def check_free(out: Path, *, force: bool) -> None:
    """Raise ``ReadError`` unless a bundle may be written to ``out``: said before hours of work, not after."""
    if not out.exists():
        _check_writable(out)
    elif not out.is_dir() or any(out.iterdir()):
        if not (out / "manifest.json").is_file() or not (out / "program.json").is_file():
            raise ReadError("is there already and is no bundle", where=str(out), remedy="choose another --output")
        if not force:
            raise ReadError(
                "is there already", where=str(out), remedy="choose another --output, or replace it with --force"
            )
        _check_writable(out)


def _check_writable(out: Path) -> None:
    """The nearest folder that exists above ``out`` must take new entries."""
    above = next(parent for parent in out.absolute().parents if parent.exists())
    if not above.is_dir():
        raise _unwritable(out, f"{above} is no folder")
    if not os.access(above, os.W_OK | os.X_OK):
        raise _unwritable(out, f"no permission to write in {above}")


def _unwritable(out: Path, why: str) -> ReadError:
    return ReadError("cannot be written", where=str(out), why=why, remedy="choose another --output")


def write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write ``manifest.json``, with the hashes of all that lies in the folder."""
    every = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    files = {path.relative_to(folder).as_posix(): digest(path) for path in every}
    whole = {"schema": SCHEMA, **manifest, "files": files}
    text = json.dumps(whole, indent=1, sort_keys=True, allow_nan=False)
    (folder / "manifest.json").write_text(text + "\n", encoding="utf-8")


def check_whole(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Raise ``ReadError`` naming the first file of a bundle that is missing or not what was written."""
    files = manifest.get("files")
    needed = NEEDED - {"target.toml"} | {"model.nir"} if manifest.get("device") == "nir" else NEEDED
    if not isinstance(files, dict) or not files.keys() >= needed:
        raise ReadError("does not say what its files were", where=str(folder / "manifest.json"), remedy="export again")
    for name, expected in sorted(files.items()):
        inside = not Path(name).is_absolute() and ".." not in Path(name).parts
        path = folder / (name if inside else Path(name).name)
        if not path.is_file():
            raise ReadError("is missing", where=str(path), remedy="export again")
        if digest(path) != expected:
            raise ReadError("is not what was exported", where=str(path), why="SHA-256 differs", remedy="export again")


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
