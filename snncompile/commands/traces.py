"""Traces in files, ``.npz`` or NIR data by their suffix."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from snncompile.errors import ReadError
from snncompile.run.trace import Array, Trace


def is_trace(path: str) -> bool:
    """Whether a file is a trace: an ``.npz``, or NIR data in a ``.nir``."""
    from snncompile.frontends.nir_data import holds_data

    return path.endswith(".npz") or (path.endswith(".nir") and holds_data(Path(path)))


def load_trace(path: str) -> Trace:
    """Read a trace. Raises ``ReadError``."""
    if not path.endswith(".nir"):
        return Trace.load(Path(path))
    from snncompile.backends.nir_data import as_trace
    from snncompile.frontends.nir_data import read_data

    found = as_trace(read_data(Path(path)))
    if not found.spikes and not found.potentials:
        raise ReadError("is no trace", where=path, why="no node has spikes or voltages on a grid of steps")
    return found


def save_trace(path: Path, trace: Trace, dt: float | None, given: Mapping[str, Array]) -> None:
    """Write a trace; as NIR data the stimulus ``given`` goes with it."""
    if path.suffix != ".nir":
        trace.save(path)
        return
    from snncompile.backends.nir_data import write_trace

    write_trace(path, trace, dt or 1.0, given)
