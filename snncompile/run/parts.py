"""Traces of populations that a machine holds in parts, as those of the populations of the network, and back; and of
read-outs that it holds as several neurons a number.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snncompile.fixed import Reals
from snncompile.ir.graph import Graph
from snncompile.ir.ops import By, Neuron, Readout, Shape, real
from snncompile.run.trace import Trace

Array = NDArray[Any]


def parts(graph: Graph) -> dict[str, list[str]]:
    """The parts of every population that is split, by the population's name."""
    found: dict[str, list[str]] = {}
    for name, op in graph.nodes.items():
        if isinstance(op, Neuron) and op.part is not None:
            found.setdefault(op.part.of, []).append(name)
    return found


def names(graph: Graph) -> list[str]:
    """The nodes in the order of computation, each population that is split under its name, where its first part is."""
    whole = {part: name for name, some in parts(graph).items() for part in some}
    return list(dict.fromkeys(whole.get(name, name) for name in graph.order))


def wholes(graph: Graph) -> dict[str, Shape]:
    """The shape of every neuron population of the network, split or not."""
    split, found = parts(graph), {}
    for name in names(graph):
        op = graph.nodes.get(name)
        if isinstance(op, Neuron):
            found[name] = op.shape
        elif name in split:
            some = [part.shape for key in split[name] if isinstance(part := graph.nodes[key], Neuron)]
            found[name] = (sum(shape[0] for shape in some), *some[0][1:])
    return found


def merged(graph: Graph, trace: Trace, *, sums: bool = True) -> Trace:
    """A trace with the parts of each population put together, channels in their order, and with the numbers of
    read-outs (without ``sums``: with each of their neurons). Parts that a trace does not hold all of stay as they are.
    """
    if sums:
        trace = _with_sums(graph, trace)
    split = parts(graph)
    if not split:
        return trace
    meta = dict(trace.meta)
    if "spikes" in meta:
        meta["spikes"] = _summed(split, meta["spikes"])
    return replace(
        trace, spikes=_merged(graph, split, trace.spikes), potentials=_merged(graph, split, trace.potentials), meta=meta
    )


def _with_sums(graph: Graph, trace: Trace) -> Trace:
    found = dict(trace.potentials)
    for name, op in graph.nodes.items():
        if isinstance(op, Readout) and op.addends > 1 and name in found:
            found[name] = op.summed(found[name])
    return replace(trace, potentials=found)


def divided(graph: Graph, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Arrays [samples, steps, *shape] of whole populations as those of their parts: what ``merged`` puts together."""
    found = dict(arrays)
    for whole, some in parts(graph).items():
        if whole in found:
            array = found.pop(whole)
            found |= {name: array[:, :, _channels(graph, name)] for name in some}
    return found


def thresholds(graph: Graph, name: str) -> Reals | None:
    """The threshold of every neuron of a population, split or not; None for what is no neuron."""
    return values(graph, name, lambda op: real(op.threshold))


def values(graph: Graph, name: str, of: Callable[[Neuron], Array]) -> Array | None:
    """Something of every neuron of a population, split or not; None for what is no neuron."""
    op = graph.nodes.get(name)
    if isinstance(op, Neuron):
        return np.broadcast_to(of(op), op.shape)
    some = parts(graph).get(name)
    if some is None:
        return None
    found = {}
    for part in some:
        own = graph.nodes[part]
        assert isinstance(own, Neuron)
        found[part] = np.broadcast_to(of(own), own.shape)[None, None]
    return np.asarray(_merged(graph, {name: some}, found)[name][0, 0])


def after_reset(graph: Graph, trace: Trace, fraction_bits: int = 6) -> Trace:
    """An integer trace as machines show it: potentials after the reset, split or not.

    ``fraction_bits``: of the potential; 6 on every machine that shows any.
    """

    def kept(op: Neuron) -> Array:
        return np.asarray(isinstance(op.reset, By))

    def amount(op: Neuron) -> Array:
        reset = op.reset.amount if isinstance(op.reset, By) else op.reset.value
        return np.asarray(np.rint(real(reset) * 2**fraction_bits), dtype=np.int64)

    found = dict(trace.potentials)
    for name, spikes in trace.spikes.items():
        soft, by = values(graph, name, kept), values(graph, name, amount)
        if name in found and soft is not None and by is not None:
            found[name] = np.where(spikes, np.where(soft, found[name] - by, by), found[name])
    return replace(trace, potentials=found, meta={**trace.meta, "potential": "after reset"})


def _channels(graph: Graph, name: str) -> list[int]:
    op = graph.nodes[name]
    assert isinstance(op, Neuron)
    assert op.part is not None
    return list(op.part.channels)


def _merged(graph: Graph, split: Mapping[str, list[str]], arrays: Mapping[str, Array]) -> dict[str, Array]:
    found = dict(arrays)
    for whole, some in split.items():
        if not all(name in found for name in some):
            continue
        pieces = [found.pop(name) for name in some]
        count = sum(piece.shape[2] for piece in pieces)
        samples, steps, _, *rest = pieces[0].shape
        found[whole] = np.empty((samples, steps, count, *rest), dtype=np.result_type(*pieces))
        for name, piece in zip(some, pieces, strict=True):
            found[whole][:, :, _channels(graph, name)] = piece
    return found


def _summed(split: Mapping[str, list[str]], counts: Mapping[str, int]) -> dict[str, int]:
    whole = {part: name for name, some in split.items() for part in some}
    found: dict[str, int] = {}
    for name, count in counts.items():
        found[whole.get(name, name)] = found.get(whole.get(name, name), 0) + count
    return found
