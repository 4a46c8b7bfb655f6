"""NIR data, ``NIRGraphData``: what nodes of a network showed, on a grid of steps or as events.

Layout, as ``write_data`` of NIR 1.0.8 writes it: groups that say what they are in an attribute ``__type__``, nodes in
``nodes``, what was seen of a node in ``observables``, each ``TimeGriddedData`` ``[samples, steps, neurons]`` with its
``dt``, or ``EventData`` (``ValuedEventData``): times and neurons ``[samples, events]``, padded with -1 and infinity.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snncompile.errors import ReadError
from snncompile.frontends.hdf5 import MOST_NUMBERS, File, opened
from snncompile.frontends.nir_file import DEEPEST, MOST_NODES, OURS

Array = NDArray[Any]
CLOSE = 1e-6
REMEDY = "nir.write_data writes it"


@dataclass(frozen=True, eq=False)
class Gridded:
    """``values`` [samples, steps, neurons], a step every ``dt``."""

    values: Array
    dt: float


@dataclass(frozen=True, eq=False)
class Events:
    """``neuron``, ``time`` and ``value`` [samples, events]; a neuron of -1 is none."""

    neuron: Array
    time: Array
    value: Array
    neurons: int
    duration: float


Observable = Gridded | Events
Observables = Mapping[str, Observable]


@dataclass(frozen=True, eq=False)
class Recorded:
    """Node -> name -> what was seen of it. Where this program wrote the file: ``meta`` of the trace, ``shapes`` of the
    populations, and the inputs, whose values were ``given``.
    """

    nodes: Mapping[str, Observables]
    meta: Mapping[str, Any] = field(default_factory=dict)
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    given: tuple[str, ...] = ()


def holds_data(path: Path) -> bool:
    """Whether a file is NIR data; False where it is anything else, readable or not."""
    if not path.is_file():
        return False
    try:
        with opened(path, "HDF5 file") as file:
            return _kind(file.root) == "NIRGraphData"
    except ReadError:
        return False


def read_data(path: Path) -> Recorded:
    """All that a file holds. Raises ``ReadError``."""
    where = str(path)
    with opened(path, "file of NIR data") as file:
        _check_kind(file, where)
        found: dict[str, Observables] = {}
        _graph(file, file.root, "", where, found, 0, partial(_observable, file))
        said = json.loads(str(file.root.attrs.get(OURS, "{}")))
        shapes = {str(name): tuple(map(int, shape)) for name, shape in dict(said.get("shapes", {})).items()}
        return Recorded(found, dict(said.get("meta", {})), shapes, tuple(map(str, said.get("given", ()))))


def _check_kind(file: File, where: str) -> None:
    if _kind(file.root) != "NIRGraphData":
        why = "its root is no NIRGraphData" + (": it is a network" if "node" in file.root else "")
        raise ReadError("holds no NIR data", where=where, why=why)


def read_input(path: Path, node: str, dt: float | None, steps: int | None) -> Array:
    """What is shown to a network: ``[samples, steps, neurons]``; events that share a step and a neuron add.

    It is that of the only node in the file, or of the one called ``node``. ``dt``: the step of the network; without
    one, a sample is cut into ``steps``. A grid of dt = 1 counts steps. Raises ``ReadError``.
    """
    return seen_input(path, node, dt, steps).samples(0, None)


@dataclass(frozen=True)
class Seen:
    """What is shown to a network, read and put on the grid of its steps where it is asked for.

    ``group``: the observable's place in the file, which holds so many ``samples``; ``dt``: the length of a step.
    """

    path: Path
    group: str
    length: int
    dt: float
    where: str

    def __len__(self) -> int:
        return self.length

    def samples(self, first: int, last: int | None) -> Array:
        """Samples [first, last) as ``[samples, steps, neurons]``; no others are read. Raises ``ReadError``."""
        rows = slice(first, self.length if last is None else min(last, self.length))
        with opened(self.path, "file of NIR data") as file:
            group = file.inside(file.root, self.group, self.where)
            if not hasattr(group, "keys"):
                raise ReadError("is no longer what it was", where=self.where)
            seen = _observable(file, group, self.where, rows)
        return seen.values if isinstance(seen, Gridded) else on_grid(seen, self.dt, self.where)


@dataclass(frozen=True)
class _Found:
    """An observable that is not read yet: its place, its samples, the ``dt`` of a grid, the ``duration`` of events."""

    group: str
    length: int
    dt: float | None
    duration: float


def _found(file: File, group: Any, where: str) -> _Found:
    """Where an observable is; an empty part of it is read, so that what is no observable is refused."""
    name = str(group.name).lstrip("/")
    match _observable(file, group, where, slice(0, 0)):
        case Gridded(dt=dt):
            return _Found(name, int(group["data"].shape[0]), dt, 0.0)
        case Events(duration=duration):
            return _Found(name, int(group["idx"].shape[0]), None, duration)


def seen_input(path: Path, node: str, dt: float | None, steps: int | None) -> Seen:
    """``read_input``, before anything is read or on a grid, which may be far larger than events are."""
    where = str(path)
    nodes: dict[str, Mapping[str, _Found]] = {}
    with opened(path, "file of NIR data") as file:
        _check_kind(file, where)
        _graph(file, file.root, "", where, nodes, 0, partial(_found, file))
    name = _only(nodes, node, where, "nodes")
    what = _only(nodes[name], "spikes", f"{where}: {name}", "observables")
    seen, place = nodes[name][what], f"{where}: {name}.{what}"
    if seen.dt is not None:
        if dt is not None and seen.dt != 1.0 and abs(seen.dt / dt - 1.0) > CLOSE:
            raise ReadError(f"its steps are {seen.dt:g}, those of the network {dt:g}", where=place)
        return Seen(path, seen.group, seen.length, seen.dt, place)
    if dt is None and steps is not None:
        dt = seen.duration / steps
    if dt is None:
        remedy = "put them on a grid: to_time_gridded"
        raise ReadError("holds events, and nothing says how long a step is", where=place, remedy=remedy)
    return Seen(path, seen.group, seen.length, dt, place)


def on_grid(events: Events, dt: float, where: str) -> Array:
    """Events in steps of ``dt``: step k holds what happens from k dt on, before (k + 1) dt."""
    steps = int(_step(np.asarray(events.duration / dt), up=True))
    samples = len(events.neuron)
    if not 0 < samples * steps * events.neurons <= MOST_NUMBERS:
        what = f"{samples} samples of {events.duration / dt:g} steps and {events.neurons} neurons"
        raise ReadError(f"makes {what}", where=where, why=f"1 to {MOST_NUMBERS:,} values are read")
    grid = np.zeros((samples, steps, events.neurons))
    sample, event = np.nonzero(events.neuron >= 0)
    neuron, time = events.neuron[sample, event], events.time[sample, event]
    if neuron.size and neuron.max() >= events.neurons:
        raise ReadError(f"an event of neuron {neuron.max()}", where=where, why=f"it has {events.neurons}")
    wrong = ~((time >= 0) & (time < events.duration))
    if wrong.any():
        what = f"an event at {time[wrong][0]:g}"
        raise ReadError(what, where=where, why=f"the recording goes from 0 to {events.duration:g}")
    step = np.minimum(_step(time / dt), steps - 1)
    np.add.at(grid, (sample, step, neuron), events.value[sample, event])
    return grid


def _step(steps: Array, *, up: bool = False) -> Array:
    """Whole steps: 2.9999999996 is 3, which a division of times makes of it; else rounded down, or up."""
    whole = np.rint(steps)
    near = np.abs(steps - whole) <= CLOSE * np.maximum(1.0, steps)
    return np.asarray(np.where(near, whole, np.ceil(steps) if up else np.floor(steps)).astype(np.int64))


def _only(found: Mapping[str, Any], wanted: str, where: str, what: str) -> str:
    if len(found) == 1:
        return next(iter(found))
    if wanted in found:
        return wanted
    shown = ", ".join(found) or "none"
    raise ReadError(f"has the {what} {shown}", where=where, why=f"one, or one called {wanted}, is shown to a network")


def _kind(group: Any) -> str:
    return str(group.attrs.get("__type__", ""))


def _groups(file: File, group: Any, key: str, where: str) -> dict[str, Any]:
    inner = file.inside(group, key, where)
    if inner is None or not hasattr(inner, "keys") or len(inner) > MOST_NODES:
        raise ReadError(f"has no group {key!r}", where=where, remedy=REMEDY)
    members = {str(name): file.inside(inner, str(name), where) for name in inner}
    if any(not hasattr(member, "keys") for member in members.values()):
        raise ReadError(f"{key!r} holds something that is no group", where=where, remedy=REMEDY)
    return members


def _graph(
    file: File,
    group: Any,
    prefix: str,
    where: str,
    found: dict[str, Any],
    depth: int,
    read: Callable[[Any, str], Any],
) -> None:
    """What ``read`` makes of every observable, into ``found``: node -> name -> that."""
    if depth > DEEPEST or len(found) > MOST_NODES:
        raise ReadError(f"its graphs are nested more than {DEEPEST} deep, or hold too many nodes", where=where)
    for name, member in _groups(file, group, "nodes", where).items():
        place = f"{where}: {prefix}{name}"
        match _kind(member):
            case "NIRGraphData":
                _graph(file, member, f"{prefix}{name}.", where, found, depth + 1, read)
            case "NIRNodeData":
                seen = _groups(file, member, "observables", place)
                found[f"{prefix}{name}"] = {key: read(one, f"{place}.{key}") for key, one in seen.items()}
            case kind:
                raise ReadError(f"is a {kind[:40]!r}", where=place, why="NIRNodeData or NIRGraphData", remedy=REMEDY)


def _observable(file: File, group: Any, where: str, rows: slice | None = None) -> Observable:
    """All samples, or those of these rows."""
    kind = _kind(group)
    if kind == "TimeGriddedData":
        values = _array(file, group, "data", where, 3, rows)
        return Gridded(values, _above_zero(group, "dt", where))
    if kind not in ("EventData", "ValuedEventData"):
        raise ReadError(f"is a {kind[:40]!r}", where=where, why="TimeGriddedData, EventData or ValuedEventData")
    neuron = _array(file, group, "idx", where, 2, rows)
    time = _array(file, group, "time", where, 2, rows, infinite=True)
    value = (
        _array(file, group, "value", where, 2, rows, infinite=True)
        if kind == "ValuedEventData"
        else np.ones(neuron.shape)
    )
    if neuron.dtype.kind not in "iu" or not neuron.shape == time.shape == value.shape:
        raise ReadError("idx, time and value do not belong together", where=where, why="one of each an event")
    real = neuron >= 0
    if not (np.isfinite(time[real]).all() and np.isfinite(value[real]).all()):
        raise ReadError("an event has a time or a value that is no number", where=where)
    neurons = _above_zero(group, "n_neurons", where)
    if neurons != int(neurons):
        raise ReadError(f"n_neurons is {neurons:g}", where=where)
    return Events(neuron.astype(np.int64), time, value, int(neurons), _above_zero(group, "t_max", where))


def _array(
    file: File, group: Any, key: str, where: str, axes: int, rows: slice | None = None, *, infinite: bool = False
) -> Array:
    import h5py

    dataset = file.inside(group, key, where)
    if not isinstance(dataset, h5py.Dataset) or dataset.shape is None or len(dataset.shape) != axes:
        raise ReadError(f"{key} is no array of {axes} axes", where=where, remedy=REMEDY)
    return file.numbers(dataset, key, where, finite=not infinite, rows=rows)


def _above_zero(group: Any, key: str, where: str) -> float:
    try:
        value = float(group.attrs[key])
    except (KeyError, TypeError, ValueError):
        value = 0.0
    if not (isfinite(value) and value > 0):
        raise ReadError(f"{key} is no number above 0", where=where, remedy=REMEDY)
    return value
