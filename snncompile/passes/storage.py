"""What a run of neurons takes of a core: an estimate, fitted to the utilisation tables that compile logs print.

Weights are kept as lists: for a dense layer one list for each source neuron, for a convolution one for each kernel
tap of each input channel. In words of the sheet, with b the bits of the layer's own largest weight::

    dense:       lists * ceil((neurons on the core * (b + 12) + 10) / word)       an index beside each weight
    convolution: lists * (ceil(out channels * b / word) + 1)                      on every core that holds a tile
    one to one:  ceil(neurons * (b + 12) / word)

Lists without weights cost nothing, equal ones are stored once: the taps of a pool that was composed into the weights
(their sources share an incoming axon), or the kernels of several connections that stand for one sum. A convolution
takes one incoming axon (or one for each position, as the sheet says), and its sources an outgoing one for each
position; other connections one for each neuron. ``benchmarks/placement.py`` holds all this against the tables of
``lava-nc/lava-dl``, ``tutorials/lava/lib/dl/netx``: ``mnist``, ``oxford``, ``pilotnet_snn``, ``pilotnet_sdnn`` and
``yolo_kp``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from math import ceil, prod
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from snncompile.fixed import FixedPoint
from snncompile.ir.connections import Connection, connections, is_partial, synapse_of
from snncompile.ir.graph import Graph
from snncompile.ir.ops import Conv, Dense, Readout, Scale, Shape, Slice, Synapse
from snncompile.ir.shapes import shapes
from snncompile.target import Target, Weight

INDEX_BITS = 12
LIST_BITS = 10
WEIGHT_FORMATS = (1, 2, 3, 4, 5, 6, 8)


@dataclass(frozen=True)
class Use:
    """What a slice needs of a core."""

    neurons: int
    synaptic_words: int
    axons_in: int
    axons_out: int
    groups: int = 1


@dataclass(frozen=True)
class Store:
    """The weights of a synapse op as a machine keeps them: ``bits`` a weight, how many ``lists``, a digest of all, and
    for a dense layer which of its neurons [out, lists] read which list.
    """

    op: Synapse
    bits: int
    lists: int
    digest: bytes
    read: NDArray[np.bool_] | None = None


@dataclass(frozen=True)
class Net:
    """The graph and what is asked of it again and again."""

    graph: Graph
    target: Target
    extent: Mapping[str, Shape]
    into: Mapping[str, list[Connection]]
    out_of: Mapping[str, list[Connection]]
    stores: Mapping[str, Store]

    @staticmethod
    def of(graph: Graph, target: Target) -> Net:
        """What placement asks of a graph that ``legalise`` has passed."""
        every = connections(graph)
        into: dict[str, list[Connection]] = {name: [] for name in graph.nodes}
        out_of: dict[str, list[Connection]] = {name: [] for name in graph.nodes}
        for connection in every:
            into[connection.target].append(connection)
            out_of[connection.source].append(connection)
        stores = {c.synapse: store(synapse_of(graph, c), target) for c in every}
        for c in every:  # into how many neurons a number of a read-out is cut is not known before it is in integers
            op = synapse_of(graph, c)
            reader = graph.nodes[c.target]
            if isinstance(op, Dense) and isinstance(reader, Readout) and not is_partial(reader) and not in_integers(op):
                stores[c.synapse] = replace(stores[c.synapse], lists=1, read=None)
        return Net(graph, target, shapes(graph), into, out_of, stores)


_Kept = tuple[int, int, bytes, NDArray[np.bool_] | None]
_KEPT: WeakKeyDictionary[Synapse, tuple[Weight, _Kept]] = WeakKeyDictionary()
"""Ops never change and are asked about at every level: what is known of each that is still there."""


def store(op: Synapse, target: Target) -> Store:
    """How a machine keeps the weights of a synapse op."""
    known = _KEPT.get(op)
    if known is None or known[0] != target.weight:
        known = _KEPT[op] = target.weight, _kept(op, target.weight)
    return Store(op, *known[1])


def _kept(op: Synapse, sheet: Weight) -> _Kept:
    weight = op.factor if isinstance(op, Scale) else op.weight
    whole = isinstance(weight, FixedPoint)
    values: NDArray[Any] = weight.mantissa if isinstance(weight, FixedPoint) else weight
    largest = values // sheet.step if whole else np.array([sheet.least // sheet.step])
    bits = _bits(int(largest.min(initial=0)), int(largest.max(initial=0)))
    digest = sha256(repr((type(op).__name__, values.shape)).encode() + values.tobytes()).digest()
    if isinstance(op, Scale):
        return bits, 1, digest, None
    columns = np.ascontiguousarray(np.moveaxis(values, 0, -1).reshape(-1, len(values)))
    different = {column.tobytes(): column for column in columns if column.any()}
    if isinstance(op, Conv):
        return bits, len(different), digest, None
    read = np.array([column != 0 for column in different.values()], dtype=bool).reshape(len(different), len(values))
    return bits, len(different), digest, read.T


def in_integers(op: Dense) -> bool:
    """Whether its weights are the machine's already."""
    return isinstance(op.weight, FixedPoint)


def _bits(least: int, most: int) -> int:
    """Bits with sign that hold every integer from ``least`` to ``most``, as the machine has them."""
    needed = max(least + 1 if least >= 0 else -least - 1, most, 0).bit_length() + 1
    return next((bits for bits in WEIGHT_FORMATS if bits >= needed), needed)


def use(net: Net, name: str, part: Slice) -> Use:
    """What a slice of a population needs."""
    words: dict[bytes, int] = {}  # equal weights are stored once
    axons_in = 0
    for connection in net.into[name]:
        kept = net.stores[connection.synapse]
        lists = _lists(kept, net.extent[name], part)
        words[kept.digest] = _words(kept, lists, part, net.target)
        axons_in += _axons_in(net, connection, part)
    axons_out = sum(_axons_out(net, connection, part) for connection in net.out_of[name])
    return Use(part.count, sum(words.values()), axons_in, axons_out)


def _lists(kept: Store, shape: Shape, part: Slice) -> int:
    """The lists that a slice reads."""
    if kept.read is None or len(shape) > 1:  # neurons of a map are counted in another order than the rows
        return kept.lists
    return int(np.count_nonzero(kept.read[part.first : part.first + part.count].any(axis=0)))


def _words(kept: Store, lists: int, part: Slice, target: Target) -> int:
    word = target.core.word_bits
    match kept.op:
        case Conv() as op:
            out = op.weight.shape[0]
            held = part.channels or out
            groups = ceil(op.groups * held / out)
            return lists * groups * (ceil(held / groups * kept.bits / word) + 1)
        case Dense():
            return lists * ceil((part.count * (kept.bits + INDEX_BITS) + LIST_BITS) / word)
        case Scale():
            return ceil(part.count * (kept.bits + INDEX_BITS) / word)


def _axons_in(net: Net, connection: Connection, part: Slice) -> int:
    """Incoming axons of a slice through one connection."""
    source, kept = net.extent[connection.source], net.stores[connection.synapse]
    match kept.op:
        case Conv() as op if len(net.extent[connection.target]) > 1:
            if net.target.core.kernel_axons == "layer":
                return 1
            begin, end = field_of(op, net.extent[connection.target], part)
            return max(0, min(source[1] - 1, end) - max(0, begin) + 1) * prod(source[2:])
        case Scale():
            return part.count
        case _:  # the toolchain gives every slice the axons of its whole layer; an addend is a layer of its own
            reader = net.graph.nodes[connection.target]
            cut = isinstance(reader, Readout) and reader.addends > 1
            return _lists(kept, net.extent[connection.target], part) if cut else kept.lists


def _axons_out(net: Net, connection: Connection, part: Slice) -> int:
    """Outgoing axons of a slice through one connection."""
    if isinstance(net.stores[connection.synapse].op, Conv) and len(net.extent[connection.source]) > 1:
        channels = part.channels or net.extent[connection.source][0]
        return ceil(part.count / channels)
    return part.count


def row_of(shape: Shape, part: Slice) -> int:
    """How many neurons of a slice's channels stand in a row."""
    return (part.channels or shape[0]) * prod(shape[2:])


def field_of(op: Conv, target: Shape, part: Slice) -> tuple[int, int]:
    """The first and last source row (before clipping to the map) that a slice of a convolution's targets reads."""
    row = row_of(target, part)
    low, high = part.first // row, (part.first + part.count - 1) // row
    reach = op.dilation[0] * (op.weight.shape[2] - 1)
    first, last = low * op.stride[0] - op.padding[0], high * op.stride[0] - op.padding[0] + reach
    apart = op.spread[0] if op.spread else 1
    return -(-first // apart), last // apart
