"""NIR, the interchange format of spiking networks, as a graph of level ``read``.

The format says what a neuron is in continuous time, and leaves open how a step is made of it, how long it is, what
happens at a tie, where a potential starts and where a loop takes its step (``nir_options.py``). What follows from the
file is taken and told; what does not is asked for. A file that this program wrote says all of it in its metadata, and
is read to the last bit; its numbers alone give the same network.

Source: NIR 1.0.8 (``nir/ir``, ``nir/serialization.py``).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from snncompile.errors import GraphError, ReadError
from snncompile.frontends.nir_build import build, read_over_time
from snncompile.frontends.nir_file import OURS, read_net
from snncompile.frontends.nir_flat import Flat, flatten
from snncompile.frontends.nir_maxima import maxima
from snncompile.frontends.nir_metadata import REMEDY, unpack
from snncompile.frontends.nir_neurons import CURRENT, SPIKING, subtracts
from snncompile.frontends.nir_options import Options
from snncompile.frontends.nir_record import Net
from snncompile.frontends.nir_spread import transposed
from snncompile.frontends.nir_time import LEAKY, Time, settle_time
from snncompile.ir.check import check
from snncompile.ir.graph import Graph
from snncompile.target import machines


@dataclass(frozen=True)
class Found:
    """A network and what was found of its time. ``notes``: what was assumed, and from what; ``steps``: of a sample;
    ``integers``: the machine in whose integers it is, where this program wrote it from them.
    """

    graph: Graph
    notes: tuple[str, ...]
    dt: float | None
    semantics: str
    steps: int | None
    integers: str | None = None


def read(path: Path, options: Options | None = None) -> Found:
    """Read a ``.nir``. Raises ``ReadError`` naming the node, ``UnsupportedNode`` for what has no meaning here."""
    options = options or Options()
    net, version = read_net(path)
    where = str(path)
    wrote = (f"written by NIR {version}" if version else "names no version of NIR",)
    if options.metadata == "use" and OURS in net.metadata:
        return _recorded(net, options, where)
    try:
        found = read_record(net, options, where)
        check(found.graph, "read")
    except GraphError as error:
        raise ReadError("its nodes do not fit together", where=where, why=str(error)) from error
    return Found(found.graph, wrote + found.notes, found.dt, found.semantics, found.steps)


def read_record(net: Net, options: Options, where: str) -> Found:
    """The graph of a record, by its numbers alone."""
    flat = flatten(net, where)
    time = settle_time(flat.nodes, options, where)
    _settle_rest(flat, time)
    time.demand(where)
    time.notes += flat.notes
    graph, over = maxima(build(flat, time, where))
    graph, wide = transposed(graph)
    graph = read_over_time(graph, time)
    return Found(graph, tuple(dict.fromkeys(time.notes + over + wide)), time.dt, time.semantics, options.steps)


def _recorded(net: Net, options: Options, where: str) -> Found:
    recorded = unpack(str(net.metadata[OURS]), net, where)
    if said := options.against("euler", recorded.dt):
        raise ReadError(
            f"says itself what it is, and the options say more or other ({said})",
            where=where,
            why=f"its metadata are this program's: euler, dt = {recorded.dt:g}",
            remedy="leave them out, or read the numbers alone: `--nir metadata=ignore`",
        )
    try:
        check(recorded.graph, "read")
    except GraphError as error:
        raise ReadError("its metadata hold a wrong graph", where=where, why=str(error)) from error
    notes: tuple[str, ...] = (f"exported by snncompile (profile {recorded.profile}): read to the last bit",)
    if recorded.integers is not None:
        if recorded.integers not in machines():
            what = f"says that it is in the integers of {recorded.integers[:40]!r}"
            raise ReadError(what, where=where, why="no machine of the catalogue has this name", remedy=REMEDY)
        notes = (*notes, f"in the integers of {recorded.integers}; `--nir metadata=ignore` reads the reals of the file")
    return Found(recorded.graph, notes, recorded.dt, "euler", options.steps or recorded.steps, recorded.integers)


def _settle_rest(flat: Flat, time: Time) -> None:
    """Where potentials start, the order of CubaLIF, ties and resets: asked for, or told."""
    options = time.options
    spiking = [node for node in flat.nodes.values() if node.kind in SPIKING]
    keys = [(node, key) for node in flat.nodes.values() for key in ("v_reset", "v_leak") if node.has(key)]
    away = sorted({key for node, key in keys if np.any(node.reals(key))})
    if away and options.start is None and time.semantics != "sinabs":
        time.open.append((f"where potentials start ({' and '.join(away)} are not 0)", "`--nir start=zero|reset|leak`"))
    currents = any(node.kind in CURRENT for node in flat.nodes.values())
    if currents and time.semantics == "exact" and options.current is not None:
        raise ReadError("exact has no order of current and potential", where="current=", remedy="leave it out")
    if currents and time.semantics != "exact":
        time.notes.append(f"the potential of Cuba neurons adds the {options.current or 'new'} current")
    if spiking or any(node.kind == "Threshold" for node in flat.nodes.values()):
        tie = options.fires or ("ge" if time.semantics == "sinabs" else "gt")
        told = "v >= threshold" if tie == "ge" else "v > threshold"
        if spiking:
            told += ", the threshold is taken off" if subtracts(time) else ", then v := v_reset"
        time.notes.append(told)
    if any(node.kind in LEAKY for node in flat.nodes.values()):
        time.notes.append(f"semantics {time.semantics}")
