"""Populations cut into core slices, greedily, against the sheet's capacities, on the smallest board that holds them.

A slice is a run of neurons, row by row with channels innermost, as long as a core can hold: neurons, synaptic words,
incoming and outgoing axons (``storage`` estimates them). Where the kernels of all channels exceed a core, channels are
cut into blocks first. Slices of a population follow each other on fresh cores (the toolchain's own partitioner also
starts with cores of one layer each), populations follow each other in the order of their phases, so that relays lie by
what they hold, and core numbers run over the chips of a board: core ``n`` lies on chip ``n // cores of a chip``. Exact:
no number of the network changes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import ceil, prod

from snncompile.errors import DoesNotFit
from snncompile.ir.connections import Connection
from snncompile.ir.graph import Graph
from snncompile.ir.ops import Conv, Neuron, Op, Readout, Scale, Slice
from snncompile.passes import Passed
from snncompile.passes.storage import Net, Use, field_of, row_of, use
from snncompile.run.steps import phase_of
from snncompile.target import Board, Target

CAPACITIES = ("neurons", "synaptic_words", "axons_in", "axons_out")


@dataclass(frozen=True)
class Chips:
    """Where a placed network lies: the board, how many of its chips and cores it takes, and what crosses chips.

    ``routes``: (chip, chip) -> neurons of the one whose spikes the other receives; an upper bound where blocks of
    channels meet.
    """

    board: Board
    chips: int
    cores: int
    routes: Mapping[tuple[int, int], int]

    @property
    def crossing(self) -> int:
        """Pairs of a neuron and another chip that receives its spikes."""
        return sum(self.routes.values())


def place(graph: Graph, target: Target) -> Passed:
    """Give every population its cores. Raises ``DoesNotFit`` naming what is too small and its line in the sheet."""
    net = Net.of(graph, target)
    placed: dict[str, Op] = {}
    taken: dict[str, int] = {}
    free = 0
    for name in _populations(graph):
        op = graph.nodes[name]
        assert isinstance(op, Neuron | Readout)
        slices = _cut(net, name)
        placed[name] = replace(op, cores=tuple(replace(part, core=free + part.core) for part in slices))
        taken[name] = len(slices)
        free += len(slices)
    if free > target.most_cores:
        largest = max(taken, key=lambda name: taken[name])
        what, line = _largest_board(target)
        raise DoesNotFit(
            f"needs {free} cores, {what} has {target.most_cores}",
            where=target.name,
            why=f"{line}; {largest} alone takes {taken[largest]}",
            remedy="make the network smaller",
        )
    done = graph.edit(placed)
    return Passed(done, (told(_chips(net, done), target),))


def chips_of(graph: Graph, target: Target) -> Chips:
    """Where a placed graph lies."""
    return _chips(Net.of(graph, target), graph)


def utilisation(graph: Graph, target: Target) -> dict[str, list[tuple[Slice, Use]]]:
    """What every slice of a placed graph needs."""
    net = Net.of(graph, target)
    return {name: [(part, use(net, name, part)) for part in _slices(graph, name)] for name in _populations(graph)}


def _populations(graph: Graph) -> list[str]:
    """By phase, then in the order of computation."""
    return sorted(graph.names(Neuron, Readout), key=lambda name: phase_of(graph, name))


def _slices(graph: Graph, name: str) -> tuple[Slice, ...]:
    op = graph.nodes[name]
    return op.cores if isinstance(op, Neuron | Readout) else ()


def _largest_board(target: Target) -> tuple[str, str]:
    """The words for the largest board, and its line in the sheet."""
    if not target.boards:
        return "a chip", target.cite("chip.cores")
    largest = target.boards[-1]
    what = f"{largest.name} with {largest.chips} chip{'s' if largest.chips > 1 else ''}"
    return what, f"{target.cite(f'boards.{largest.name}')}; {target.cite('chip.cores')}"


def told(lies: Chips, target: Target) -> str:
    """Where a network lies, in a line."""
    board, chips = lies.board, lies.chips
    if board.chips == 1:
        return f"{lies.cores} of {target.chip_cores} cores" + (f", board {board.name}" if board.name else "")
    cores = "1 core" if lies.cores == 1 else f"{lies.cores} cores"
    text = f"{cores} on {chips} of {board.chips} chips of {target.chip_cores} cores, board {board.name}"
    return text if chips == 1 else f"{text}; {lies.crossing} routes from a neuron to another chip"


# Cutting


def _cut(net: Net, name: str) -> tuple[Slice, ...]:
    """The slices of one population, cores counted from 0."""
    op, target = net.graph.nodes[name], net.target
    assert isinstance(op, Neuron | Readout)
    slices: list[Slice] = []
    if prod(op.shape) > target.core.neurons * target.most_cores:  # said at once, not after a hundred thousand cores
        raise _does_not_fit(net, name, Slice(0, 0, prod(op.shape)))
    for channel, channels in _blocks(net, name):
        first, size = 0, (channels or op.shape[0]) * prod(op.shape[1:])
        while first < size:
            whole = Slice(len(slices), first, size - first, channel, channels)

            def fits(count: int, whole: Slice = whole) -> bool:
                return not _excess(use(net, name, replace(whole, count=count)), target)

            count = _largest(fits, min(whole.count, target.core.neurons))
            if count == 0:
                raise _does_not_fit(net, name, replace(whole, count=1))
            slices.append(replace(whole, count=count))
            if len(slices) > target.most_cores:
                raise _does_not_fit(net, name, replace(whole, first=0, count=size))
            first += count
    return tuple(slices)


def _blocks(net: Net, name: str) -> list[tuple[int, int]]:
    """Channel blocks (first channel, channels) of a population: one of all channels where their kernels fit a core."""
    op = net.graph.nodes[name]
    assert isinstance(op, Neuron | Readout)
    channels = op.shape[0]
    kernels = any(isinstance(net.stores[connection.synapse].op, Conv) for connection in net.into[name])
    each = channels
    while kernels and each > 1:
        need = use(net, name, Slice(0, 0, 1, 0, 0 if each == channels else each))
        if need.synaptic_words <= net.target.core.synaptic_words:
            break
        each = ceil(each / 2)
    if each == channels:
        return [(0, 0)]
    return [(first, min(each, channels - first)) for first in range(0, channels, each)]


def _largest(fits: Callable[[int], bool], most: int) -> int:
    """The largest count that fits, by bisection (needs grow with the count); 0 where not even 1 does."""
    if fits(most):
        return most
    low, high = 0, most
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def _excess(need: Use, target: Target) -> list[str]:
    """The capacities of a core that a slice exceeds."""
    return [key for key in CAPACITIES if getattr(need, key) > getattr(target.core, key)]


def _does_not_fit(net: Net, name: str, part: Slice) -> DoesNotFit:
    need, target = use(net, name, part), net.target
    key = (_excess(need, target) or ["neurons"])[0]
    what = key.replace("_", " ")
    return DoesNotFit(
        f"needs {getattr(need, key)} {what} on a core, {target.name} has {getattr(target.core, key)}",
        where=net.graph.label(name),
        why=target.cite(f"core.{key}"),
        remedy="make the layer smaller: fewer inputs a neuron, or fewer neurons",
    )


# Chips


def _chips(net: Net, graph: Graph) -> Chips:
    target = net.target
    cores = sum(len(_slices(graph, name)) for name in _populations(graph))
    chips = max(1, ceil(cores / target.chip_cores))
    board = next((board for board in target.boards if board.chips >= chips), Board("", 1))
    routes: Counter[tuple[int, int]] = Counter()
    if chips > 1:
        for name in _populations(graph):
            for connection in net.out_of[name]:
                for part in _slices(graph, name):
                    _count_routes(net, graph, connection, part, routes)
    return Chips(board, chips, cores, dict(sorted(routes.items())))


def _count_routes(
    net: Net, graph: Graph, connection: Connection, part: Slice, routes: Counter[tuple[int, int]]
) -> None:
    """Add the neurons of a slice that each other chip listens to through one connection."""
    each = net.target.chip_cores
    home = part.core // each
    heard: dict[int, list[tuple[int, int]]] = {}
    for other in _slices(graph, connection.target):
        if other.core // each != home:
            low, high = _heard(net, connection, part, other)
            if low < high:
                heard.setdefault(other.core // each, []).append((low, high))
    for chip, runs in heard.items():
        end = part.first
        for low, high in sorted(runs):
            if high > end:
                routes[home, chip] += high - max(low, end)
                end = high


def _heard(net: Net, connection: Connection, part: Slice, other: Slice) -> tuple[int, int]:
    """The run of a slice's neurons that a slice of the targets listens to."""
    source, target = net.extent[connection.source], net.extent[connection.target]
    first, last = part.first, part.first + part.count
    match net.stores[connection.synapse].op:
        case Conv() as op if len(target) > 1:
            begin, end = field_of(op, target, other)
            row = row_of(source, part)
            return max(first, begin * row), min(last, (end + 1) * row)
        case Scale() if (other.channel, other.channels) == (part.channel, part.channels):
            return max(first, other.first), min(last, other.first + other.count)
        case _:
            return first, last
