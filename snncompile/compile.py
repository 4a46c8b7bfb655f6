"""From a trained graph to a placed program: the order of the passes.

    read     what the frontend gave
      fold_norm   batch normalisation into the weights
      canonical   one form of neuron, biases in the populations
      fuse_pool   mean pools become sums, linear neighbours compose
    folded
      legalise    one synapse between two populations; what the machine lacks is rewritten or refused
      longer_loops   where asked for: feedback arrives later, spikes change, rates hardly
      quantise    the target's integers                                   the one lossy step
    fixed
      divide      sums of which no core holds the synapses, in parts; where the machine can
      balance     phases and delays
    timed
      place       cores
    placed

After every level its grammar is checked, so that a pass that broke the graph is named here and not by a chip.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from snncompile.errors import GraphError, InternalError, LoweringError
from snncompile.ir.check import Level, check
from snncompile.ir.graph import Graph
from snncompile.ir.ops import Norm, Readout, real
from snncompile.ir.store import Program
from snncompile.ir.text import to_text
from snncompile.passes.balance import balance, streams
from snncompile.passes.canonical import canonical
from snncompile.passes.divide import divide, in_parts
from snncompile.passes.fold_norm import fold_norm
from snncompile.passes.fuse_pool import fuse_pool
from snncompile.passes.legalise import legalise
from snncompile.passes.longer_loops import longer_loops
from snncompile.passes.place import place
from snncompile.passes.quantise import Layer, quantise, unchanged
from snncompile.run.stimulus import encoded as encoded  # what the verbs show a compiled network
from snncompile.run.stimulus import shown as shown
from snncompile.run.trace import Array
from snncompile.target import Target

LONGER = "longer_loops"


@dataclass(frozen=True)
class Compiled:
    """Every level of a network on its way to a target. ``layers``: what quantisation did; ``notes``: what passes
    said.
    """

    target: Target
    levels: Mapping[Level, Graph]
    layers: tuple[Layer, ...]
    notes: tuple[str, ...]
    steps: int

    @property
    def later(self) -> tuple[str, ...]:
        """What arrives later than trained; where anything does, the mapping is equilibrium-equivalent."""
        return tuple(note.partition(": ")[2] for note in self.notes if note.startswith(f"{LONGER}: "))

    @property
    def program(self) -> Program:
        """The placed graph with what its machine must know."""
        return Program(
            self.levels["placed"], "placed", self.target.name, self.steps, stream=streams(self.levels["fixed"])
        )

    @property
    def logical(self) -> Program:
        """The integers in logical time: what a machine without a pipeline runs."""
        return Program(self.levels["fixed"], "fixed", self.target.name, self.steps)


def fold(graph: Graph) -> tuple[Graph, tuple[str, ...]]:
    """From ``read`` to ``folded``, which needs no target. Raises ``LoweringError`` with the reasons where a norm
    stays.
    """
    _check(graph, "read", None)
    for name, op in graph.nodes.items():
        if isinstance(op, Norm) and not np.all(real(op.variance) + op.epsilon > 0):
            raise GraphError("its variance is not positive", where=graph.label(name), why="no norm divides by its root")
    notes: list[str] = []
    for rewrite in (fold_norm, canonical, fuse_pool):
        passed = rewrite(graph)
        graph = passed.graph
        notes += [f"{rewrite.__name__}: {note}" for note in passed.notes]
    try:
        check(graph, "folded")
    except GraphError as error:
        if not notes:
            raise InternalError(f"{error}\n{to_text(graph)}") from error
        raise LoweringError("cannot be folded", where="folded", why="; ".join(notes)) from error
    return graph, tuple(notes)


def compile_graph(
    graph: Graph,
    target: Target,
    calibration: Mapping[str, Array],
    log: Callable[[str], None] = lambda line: None,
    *,
    per_channel: bool = False,
    addends: bool = True,
    equilibrium: bool = False,
) -> Compiled:
    """Lower a ``read`` graph to a target; ``calibration``: input name -> reals [samples, steps, *shape].

    ``steps``, the length of a sample, is that of the calibration data. ``per_channel``: scales for ranges of channels.
    ``addends``: read-outs may have several neurons a number, whose sum is made outside the machine. ``equilibrium``:
    feedback may arrive later than trained, where the machine's loops are longer. Raises ``LoweringError`` and its kin.
    """
    levels, layers, notes = to_integers(
        graph, target, calibration, log, per_channel=per_channel, addends=addends, equilibrium=equilibrium
    )
    return _onto_cores(levels, target, layers, notes, next(iter(calibration.values())).shape[1], log)


def to_integers(
    graph: Graph,
    target: Target,
    calibration: Mapping[str, Array],
    log: Callable[[str], None] = lambda line: None,
    *,
    per_channel: bool = False,
    addends: bool = True,
    fits: bool = True,
    equilibrium: bool = False,
) -> tuple[dict[Level, Graph], tuple[Layer, ...], tuple[str, ...]]:
    """The levels from ``read`` to ``fixed``, in logical time; what quantisation did, and what passes said.

    ``fits``: raise ``DoesNotFit`` for a network that no board holds, before its integers are searched.
    """
    levels: dict[Level, Graph] = {"read": graph}
    levels["folded"], notes = fold(graph)
    log("folded: " + _size(levels["folded"]))
    passed = legalise(levels["folded"], target, per_channel=per_channel)
    legal = passed.graph
    notes += tuple(f"legalise: {note}" for note in passed.notes)
    if equilibrium:
        longer = longer_loops(legal, target, in_parts(legal, target))
        legal = longer.graph
        notes += tuple(f"{LONGER}: {note}" for note in longer.notes)
    if fits:
        place(divide(legal, target).graph, target)  # what cannot fit is said now: finding its integers may take long
    quantised = quantise(legal, target, calibration, addends=addends)
    levels["fixed"] = _check(quantised.graph, "fixed", target)
    log("fixed: " + ", ".join(f"{layer.name} {layer.error:.2%}" for layer in quantised.layers) + " error in thresholds")
    notes += tuple(f"quantise: {_told_of(layer, levels)}" for layer in quantised.layers if layer.addends > 1)
    if compared := sum(layer.compared for layer in quantised.layers):
        wrong, otherwise = (sum(getattr(layer, key) for layer in quantised.layers) for key in ("wrong", "otherwise"))
        log(f"fixed: {wrong:,} of {compared:,} spikes differ layer by layer ({otherwise:,} by the potential's scales)")
    return levels, quantised.layers, notes


def _told_of(layer: Layer, levels: Mapping[Level, Graph]) -> str:
    """How the numbers of a read-out are read off its neurons."""
    op = levels["fixed"].nodes[layer.name]
    assert isinstance(op, Readout)
    numbers = op.shape[0] // op.addends
    return (
        f"{layer.name}: each of its {numbers} numbers is the sum of {op.addends} neurons, made outside the machine: of"
        f" neurons c, c + {numbers}, ...; one neuron has no room for such fine weights"
    )


def compile_integers(
    graph: Graph, target: Target, steps: int, log: Callable[[str], None] = lambda line: None
) -> Compiled:
    """Lower a graph that is in the target's integers: it is ``read``, ``folded`` and ``fixed`` at once."""
    check(graph, "fixed", target)
    levels: dict[Level, Graph] = {"read": graph, "folded": graph, "fixed": graph}
    log(f"fixed: in the integers of {target.name} from the start")
    return _onto_cores(levels, target, unchanged(graph, target, steps), (), steps, log)


def _onto_cores(
    levels: dict[Level, Graph],
    target: Target,
    layers: tuple[Layer, ...],
    notes: tuple[str, ...],
    steps: int,
    log: Callable[[str], None],
) -> Compiled:
    """From ``fixed`` to ``placed``."""
    divided = divide(levels["fixed"], target)
    balanced = balance(divided.graph, target, steps)
    levels["timed"] = _check(balanced.graph, "timed", target)
    placed = place(levels["timed"], target)
    levels["placed"] = _check(placed.graph, "placed", target)
    notes += tuple(f"divide: {note}" for note in divided.notes)
    notes += tuple(f"balance: {note}" for note in balanced.notes) + tuple(f"place: {note}" for note in placed.notes)
    log("placed: " + ", ".join(placed.notes))
    return Compiled(target, levels, layers, notes, steps)


def _check(graph: Graph, level: Level, target: Target | None) -> Graph:
    """The graph, if it is what its level admits. A fault in what a pass made is ours, not the user's."""
    try:
        check(graph, level, target)
    except GraphError as error:
        if level == "read":
            raise
        raise InternalError(f"{error}\n{to_text(graph)}") from error
    return graph


def _size(graph: Graph) -> str:
    return f"{len(graph.nodes)} nodes, {len(graph.edges)} edges"
