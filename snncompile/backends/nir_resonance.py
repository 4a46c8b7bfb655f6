"""Resonators with the primitives of NIR.

``phase``, in reals: two leaky integrators that hear each other one step late, and the condition of firing::

    re = LI(x_re - sine im[t-1]),  im = LI(x_im + sine re[t-1])      each keeps ``cosine`` of itself
    y  = (re >= threshold) + (im >= 0) + (-im > 0)[t-1] > 2.5        nothing was below 0 before the first step

A negative cosine, or one that differs from neuron to neuron, is no time constant: the part then keeps nothing, and
hears itself one step late. A machine rounds each product toward zero, so these are the reals that it comes near to.

``izhikevich``, in the machine's integers, exactly: its reset takes both parts of the state to a value, and a signal
times a spike is no primitive of NIR; LIF resets what it never shows. Taken apart into digits a number can be dropped
digit by digit, and its digits below 2^D are those that the machine's rounding drops. In units of the potential, with
factors k of D bits and K above every product::

    P      = k state                                      state: re or im, an integer
    keep   = 2^-D (2 P - r+ + r-)                         r+, r-: P - K y and -P - K y without the digits of their
                                                          positive part from 2^D on: P / 2^D toward zero, 0 at a spike
    re[t]  = x_re + keep_cos(re) - keep_sin(im)           of the step before; at a spike im was threshold - 1
    im[t]  = x_im + keep_sin(re) + keep_cos(im)           both in LI that keep nothing themselves
    y      = im > threshold - 1/2

Source of both: ``Resonator`` in ``ir/ops.py``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from snncompile.backends.nir_ranges import Ranges, registers
from snncompile.backends.nir_sketch import MOST_BITS, Sketch, Term
from snncompile.errors import NotRepresentable
from snncompile.fixed import Reals, shift_toward_zero
from snncompile.ir.graph import Edge, Graph
from snncompile.ir.ops import Dense, Flatten, Op, Resonator, real
from snncompile.ir.shapes import shapes
from snncompile.target import Target

PARTS = ("re", "im")


@dataclass(frozen=True)
class _Given:
    """A graph in which real and imaginary weights are matrices of their own, and what they lead to."""

    graph: Graph
    parts: tuple[list[Term], list[Term]]


def resonance(graph: Graph, name: str, known: Ranges, target: Target, steps: int) -> tuple[Graph, str | None]:
    """The graph with a resonator in primitives, and the node whose value is the potential that traces show, where it
    is one number (``phase``: the real part).

    Raises ``NotRepresentable`` for a reset in a register that may saturate.
    """
    op = graph.nodes[name]
    assert isinstance(op, Resonator)
    if len(op.shape) != 1:
        raise NotRepresentable("resonates in a form", where=graph.label(name), why="NIR's weights lead to one axis")
    reach = registers(op, known.arrives[name], target, steps)["state"]
    given = _apart(graph, name)
    draw = Sketch(given.graph, name, op.shape)
    if op.kind == "phase":
        shown = _in_reals(draw, op, given)
        return _without_dead_ends(draw.done()), shown
    if not reach[0] <= reach[1]:
        raise NotRepresentable(
            f"its state may reach {reach[0]:,.0f} in {steps} steps",
            where=graph.label(name),
            why=f"{target.name} holds {reach[1]:,.0f}, and what saturates has no form in NIR beside a reset",
        )
    _in_digits(draw, op, given, target, reach[0])
    return _without_dead_ends(draw.done()), None


def _apart(graph: Graph, name: str) -> _Given:
    extent = shapes(graph)
    parts: tuple[list[Term], list[Term]] = ([], [])
    nodes: dict[str, Op] = {}
    edges = [edge for edge in graph.edges if edge.target != name]
    for place, edge in enumerate(graph.into(name)):
        size = int(np.prod(extent[edge.source])) // 2
        stacked, behind = _stacked(graph, edge)
        for index, terms in enumerate(parts):
            rows = slice(index * size, (index + 1) * size)
            word = graph.fresh(f"{name}_{PARTS[index]}_weights" + (f"_{place}" if place else ""))
            nodes[word] = Dense(np.eye(2 * size)[rows] if stacked is None else real(stacked.weight)[rows])
            edges += [Edge(source, word, late) for source, late in behind]
            terms.append((word, 1.0, 0))
    return _Given(graph.edit(nodes, edges), parts)


def _stacked(graph: Graph, edge: Edge) -> tuple[Dense | None, list[tuple[str, int]]]:
    """The weights of both parts, one above the other, that an edge into a resonator comes from; what they read, and
    how many steps late.
    """
    late, name = edge.delay, edge.source
    while isinstance(graph.nodes[name], Flatten) and len(graph.into(name)) == 1:
        (before,) = graph.into(name)
        late, name = late + before.delay, before.source
    op = graph.nodes[name]
    if isinstance(op, Dense):
        return op, [(one.source, one.delay + late) for one in graph.into(name)]
    return None, [(edge.source, edge.delay)]


def _without_dead_ends(graph: Graph) -> Graph:
    """Without the weights that nothing reads any more."""
    while dead := [n for n, op in graph.nodes.items() if isinstance(op, Dense | Flatten) and not graph.out_of(n)]:
        graph = graph.edit(dict.fromkeys(dead))
    return graph


def _in_reals(draw: Sketch, op: Resonator, given: _Given) -> str:
    """``phase``. Returns the node of the real part."""
    cosine, sine = real(op.cosine), real(op.sine)
    kept = float(cosine.flat[0]) if np.all(cosine == cosine.flat[0]) and 0 <= cosine.flat[0] <= 1 else 0.0
    re, im = draw.integral("re", given.parts[0], kept), draw.integral("im", given.parts[1], kept)
    for word, part, other, turn in (("re_turn", re, im, -sine), ("im_turn", im, re, sine)):
        draw.connect(part, [(draw.weighed(word, other, turn), 1.0, 1)])
        if np.any(cosine != kept):
            draw.connect(part, [(draw.weighed(f"{word}_own", part, cosine - kept), 1.0, 1)])
    reached = draw.above("reached", np.nextafter(real(op.threshold), -np.inf), [(re, 1.0, 0)])
    upper = draw.above("upper", np.nextafter(0.0, -1.0), [(im, 1.0, 0)])
    lower = draw.above("lower", 0.0, [(im, -1.0, 0)])
    draw.above("", 2.5, [(reached, 1.0, 0), (upper, 1.0, 0), (lower, 1.0, 1)])
    return re


def _in_digits(draw: Sketch, op: Resonator, given: _Given, target: Target, reach: float) -> None:
    """``izhikevich``. ``reach``: of both parts of the state, in weight units."""
    unit, bits = 2.0**target.potential.fraction_bits, target.decay.bits
    turn = {key: np.rint(real(value) * 2.0**bits) for key, value in (("cosine", op.cosine), ("sine", op.sine))}
    threshold = np.floor(real(op.threshold) * unit)
    re, im = (
        draw.integral(word, [(source, unit, late) for source, _, late in terms], 0.0)
        for word, terms in zip(PARTS, given.parts, strict=True)
    )
    y = draw.above("", threshold - 0.5, [(im, 1.0, 0)])
    size = max(int(reach * unit * float(np.abs(factor).max())).bit_length() + 1 for factor in turn.values())
    if size > MOST_BITS:
        raise NotRepresentable(
            f"its products may have {size} bits", where=draw.name, why=f"{MOST_BITS} are taken apart"
        )

    def keep(state: str, key: str, sign: float) -> list[Term]:
        """A product with the state after the reset, rounded toward zero, for the next step."""
        word = f"{state.removeprefix(f'{draw.name}_')}_{key}"
        product = draw.weighed(word, state, turn[key])
        left = []
        for side, factor in (("plus", 1.0), ("minus", -1.0)):
            gated = draw.sum(f"{word}_{side}", [(product, factor, 0), (y, -(2.0**size), 0)])
            left.append(draw.digits(f"{word}_{side}_digit", gated, size, lowest=bits))
        part = sign * 2.0**-bits
        return [(product, 2.0 * part, 1), (left[0], -part, 1), (left[1], part, 1)]

    def again(key: str) -> Reals:
        """What the product of the state after a reset is."""
        exact = ((threshold - 1.0) * turn[key]).astype(np.int64)
        return shift_toward_zero(exact, bits).astype(np.float64)

    after = {key: draw.weighed(f"reset_{key}", y, again(key)) for key in turn}
    draw.connect(re, [*keep(re, "cosine", 1.0), *keep(im, "sine", -1.0), (after["sine"], -1.0, 1)])
    draw.connect(im, [*keep(re, "sine", 1.0), *keep(im, "cosine", 1.0), (after["cosine"], 1.0, 1)])
