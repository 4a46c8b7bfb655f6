"""Traces as NIR data: ``NIRGraphData`` with spikes and potentials of every population on the grid of its steps."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snncompile.frontends.nir_data import Gridded, Recorded
from snncompile.frontends.nir_file import OURS
from snncompile.run.trace import Trace

Array = NDArray[Any]
SPIKES, POTENTIAL, GIVEN = "spikes", "voltages", "values"


def write_trace(path: Path, trace: Trace, dt: float, given: Mapping[str, Array]) -> None:
    """Write a trace and the stimulus it answers; beside its place, then renamed. ``nir.read_data`` reads it.

    ``given``: input -> [samples, steps, *shape]. A node's neurons are one axis, in C order; their shapes and what else
    a trace says stand in an attribute of ours. ``dt``: of a step; 1 where a network has no time.
    """
    import h5py

    seen: dict[str, dict[str, Array]] = {name: {_kind(array): array} for name, array in given.items()}
    for name, array in trace.spikes.items():
        seen.setdefault(name, {})[SPIKES] = array.astype(bool)
    for name, array in trace.potentials.items():
        seen.setdefault(name, {})[POTENTIAL] = array
    shapes = {name: list(next(iter(arrays.values())).shape[2:]) for name, arrays in seen.items()}
    said = {"meta": dict(trace.meta), "shapes": shapes, "given": sorted(given)}
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with h5py.File(beside, "w") as file:
            file.attrs["__type__"] = "NIRGraphData"
            file.attrs[OURS] = json.dumps(said, sort_keys=True)
            nodes = file.create_group("nodes")
            for name, arrays in seen.items():
                _write_node(nodes.create_group(name), arrays, dt)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def _kind(array: Array) -> str:
    """Spikes are spikes, whatever type holds them."""
    return SPIKES if np.isin(array, (0, 1)).all() else GIVEN


def _write_node(node: Any, arrays: Mapping[str, Array], dt: float) -> None:
    node.attrs["__type__"] = "NIRNodeData"
    observables = node.create_group("observables")
    for key, array in arrays.items():
        group = observables.create_group(key)
        group.attrs["__type__"], group.attrs["dt"] = "TimeGriddedData", dt
        flat = array.reshape(*array.shape[:2], -1)
        group.create_dataset("data", data=flat.astype(bool) if key == SPIKES else flat, compression="gzip")


def as_trace(recorded: Recorded) -> Trace:
    """The trace that a file holds: shapes as written, or the neurons of a node as one axis."""
    spikes: dict[str, Array] = {}
    potentials: dict[str, Array] = {}
    for name in sorted(recorded.nodes.keys() - set(recorded.given)):
        seen = recorded.nodes[name]
        for key, target in ((SPIKES, spikes), (POTENTIAL, potentials)):
            one = seen.get(key)
            if isinstance(one, Gridded):
                values = one.values.astype(bool) if key == SPIKES else one.values
                shape = recorded.shapes.get(name, values.shape[2:])
                fits = prod(shape) == values.shape[2]
                target[name] = values.reshape(*values.shape[:2], *shape) if fits else values
    return Trace(spikes, potentials, recorded.meta)
