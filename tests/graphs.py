"""Random networks for the tests: one builder a level, drawn from anything that behaves like ``random.Random``.

Structure is drawn from the source itself, so that hypothesis can shrink it; bulk numbers come from a generator that the
source seeds. The same builders serve hypothesis (``fixed_cases``, ``read_cases``) and plain seeds.
"""

from __future__ import annotations

from math import prod
from random import Random

import numpy as np
from hypothesis import strategies as st

from snncompile.fixed import FixedPoint
from snncompile.ir.graph import Edge, Graph
from snncompile.ir.ops import (
    By,
    Conv,
    Dense,
    Flatten,
    Input,
    Neuron,
    Norm,
    Op,
    Output,
    Pool,
    Readout,
    Scale,
    Shape,
    To,
)
from snncompile.ir.shapes import shape_of
from snncompile.ir.signals import Analog, Fixed, Spike
from tests.drawing import Array, Case, Drawing, fits

__all__ = ["Array", "Case", "Drawing", "fits", "fixed_case", "fixed_cases", "read_case", "read_cases", "union"]

# --- integers for Loihi -----------------------------------------------------------------------------------------------


def fixed_case(
    source: Random, *, steps: int = 0, samples: int = 0, populations: int = 4, delays: bool = False, prefix: str = ""
) -> Case:
    """A network of level ``fixed`` for Loihi: single synapses of even weights between populations.

    ``delays`` adds logical delays and feedback, each loop slow enough for the machine. Biases may make neurons fire
    before anything arrives; sums may wrap and potentials saturate; read-outs keep their range.
    """
    draw = Drawing(source)
    steps, samples = steps or source.randint(1, 6), samples or source.randint(1, 3)
    stimulus = {}
    names: list[str] = []
    for index in range(draw.pick(1, 1, 2)):
        bits = draw.pick(0, 0, 2, 5, 8)
        name = f"{prefix}input{index}"
        shape = draw.pick((3,), (2, 4), (1, 3, 3), (2, 4, 3), (3, 6, 6))
        draw.add(name, Input(shape, Fixed(bits) if bits else Spike()))
        most = 2 ** (bits - 1) - 1 if bits else 1
        stimulus[name] = draw.numbers.integers(-most if bits else 0, most + 1, (samples, steps, *shape))
        names.append(name)
    for index in range(source.randint(1, populations)):
        names.append(_fixed_population(draw, f"{prefix}p{index}", names, delays))
    if delays:
        _feedback(draw, [name for name in names if isinstance(draw.nodes[name], Neuron)])
    if draw.maybe(2):
        _fixed_readout(draw, f"{prefix}out", draw.pick(*reversed(names)), steps)
    for name in names[-1 - draw.pick(0, 1, 2) :]:
        draw.add(f"{name}_output", Output(), name)
    return draw.case(stimulus)


def _fixed_population(draw: Drawing, name: str, earlier: list[str], delays: bool) -> str:
    first = earlier[-1] if not draw.maybe(4) else draw.pick(*earlier)
    synapses = [(first, _first_synapse(draw, draw.shapes[first]))]
    shape = shape_of("first", synapses[0][1], draw.shapes[first])
    for _ in range(draw.pick(0, 0, 1, 2)):
        other = draw.pick(*reversed(earlier))
        synapse = _further_synapse(draw, draw.shapes[other], shape)
        if synapse is not None:
            synapses.append((other, synapse))
    draw.add(name, _fixed_neuron(draw, shape, sum(_typical(draw, *synapse) for synapse in synapses)))
    for index, (other, op) in enumerate(synapses):
        late = draw.pick(0, 0, 1, 2) if delays else 0
        last = draw.add(f"{name}_{type(op).__name__.lower()}{index}", op, (other, late))
        if draw.shapes[last] != shape:
            last = draw.add(f"{last}_flat", Flatten(), last)
        draw.edges.append(Edge(last, name))
    return name


def _even(draw: Drawing, *shape: int) -> FixedPoint:
    low, high = draw.pick((-4, 4), (-30, 40), (-128, 127))
    return FixedPoint(2 * draw.numbers.integers(low, high + 1, shape))


def _first_synapse(draw: Drawing, shape: Shape) -> Op:
    if len(shape) > 1 and draw.maybe(2):
        for _ in range(8):
            op = _fixed_conv(draw, shape, draw.pick(1, 2, 3, 4))
            if fits(op, shape):
                return op
    if draw.maybe(4):
        return Scale(_even(draw, *draw.pick((), shape, (shape[0], *(1,) * (len(shape) - 1)))))
    return Dense(_even(draw, draw.source.randint(1, 5), prod(shape)))


def _fixed_conv(draw: Drawing, shape: Shape, features: int) -> Conv:
    axes = len(shape) - 1
    groups = draw.pick(1, 1, shape[0]) if features % shape[0] == 0 else 1
    kernel = tuple(draw.pick(1, 3, 2) for _ in range(axes))
    return Conv(
        _even(draw, features, shape[0] // groups, *kernel),
        None,
        tuple(draw.pick(1, 1, 2) for _ in range(axes)),
        tuple(draw.pick(0, 1, 1) for _ in range(axes)),
        tuple(draw.pick(1, 1, 2) for _ in range(axes)),
        groups,
        tuple(draw.pick(1, 2, 3) for _ in range(axes)) if draw.maybe(8) else (),
    )


def _further_synapse(draw: Drawing, source: Shape, target: Shape) -> Op | None:
    """Another synapse that ends in ``target``: one to one, dense, or a convolution that happens to fit."""
    if (source == target or (prod(source),) == target) and draw.maybe(2):
        return Scale(_even(draw))
    if len(target) == 1:
        return Dense(_even(draw, target[0], prod(source)))
    if len(source) == len(target):
        for _ in range(8):
            op = _fixed_conv(draw, source, target[0])
            if fits(op, source) and shape_of("conv", op, source) == target:
                return op
    return Scale(_even(draw)) if source == target else None


def _typical(draw: Drawing, source: str, op: Op) -> float:
    """About what arrives through a synapse in one step."""
    before = draw.nodes[source]
    most = before.signal.most if isinstance(before, Input) and isinstance(before.signal, Fixed) else 1
    weight = op.factor if isinstance(op, Scale) else op.weight  # type: ignore[union-attr]
    fan_in = 1 if isinstance(op, Scale) else prod(weight.shape[1:])
    return most * float(np.abs(weight.mantissa).mean()) * fan_in**0.5 + 1


def _fixed_neuron(draw: Drawing, shape: Shape, typical: float) -> Neuron:
    threshold = min(int(typical * draw.pick(0.5, 1.0, 0.0, 2.0)), 131071)
    beta = draw.pick(0, 2048, 700, 4095, 1)
    return Neuron(
        shape,
        alpha=FixedPoint.number(draw.pick(4096, 4096, 2048, 1300, 1), -12),
        beta=FixedPoint.number(beta, -12),
        threshold=FixedPoint.number(threshold),
        bias=_fixed_bias(draw, shape, threshold),
        reset=To(FixedPoint.number(0)),
        initial=FixedPoint.number(0),
    )


def _fixed_bias(draw: Drawing, shape: Shape, threshold: int) -> FixedPoint:
    """None, one, one a channel or one a neuron; from a fraction of the threshold to more than it."""
    size = draw.pick(None, (), (shape[0], *(1,) * (len(shape) - 1)), shape)
    if size is None:
        return FixedPoint.number(0)
    high = (threshold + 2) * draw.pick(0.4, 1.5, 0.05)
    values = draw.numbers.uniform(-0.5 * high, high, size)
    exponent = draw.pick(-6, 0, 1, -3)
    while exponent < 1 and np.abs(values).max() / 2.0**exponent > 4095:
        exponent += 1
    return FixedPoint(np.clip(np.rint(values / 2.0**exponent), -4095, 4095).astype(np.int64), exponent)


def _feedback(draw: Drawing, neurons: list[str]) -> None:
    """Loops; a delay of as many steps as there are populations is slow enough for every loop."""
    for index in range(draw.pick(1, 2)):
        at = draw.source.randint(0, len(neurons) - 1)
        start, end = neurons[draw.source.randint(at, len(neurons) - 1)], neurons[at]
        op = _further_synapse(draw, draw.shapes[start], draw.shapes[end])
        if op is None:
            continue
        late = draw.pick(1, 2) if start == end else len(neurons) + draw.pick(0, 1)
        last = draw.add(f"{start}_back{index}", op, (start, late))
        if draw.shapes[last] != draw.shapes[end]:
            last = draw.add(f"{last}_flat", Flatten(), last)
        draw.edges.append(Edge(last, end))


def _fixed_readout(draw: Drawing, name: str, source: str, steps: int) -> None:
    """Its sum stays far inside the range over all steps."""
    classes = draw.pick(1, 3)
    weight = 2 * draw.numbers.integers(-4, 5, (classes, prod(draw.shapes[source])))
    bias = draw.numbers.integers(-50, 51, draw.pick((), (classes,)))
    draw.add(f"{name}_dense", Dense(FixedPoint(weight)), source)
    kind = draw.pick("mean", "sum", "weighted")
    decay = draw.pick(3890, 4095, 2048, 1) / 4096 if kind == "weighted" else 1.0
    draw.add(name, Readout((classes,), kind, FixedPoint(bias, draw.pick(0, -3, -6)), decay), f"{name}_dense")
    draw.add(f"{name}_output", Output(), name)


def union(cases: list[Case]) -> Case:
    """The disjoint union of cases of equal steps and samples, whose node names differ."""
    nodes = {name: op for case in cases for name, op in case.graph.nodes.items()}
    edges = [edge for case in cases for edge in case.graph.edges]
    return Case(Graph(nodes, edges), {name: array for case in cases for name, array in case.stimulus.items()})


# --- reals, of numbers that add and multiply without rounding ---------------------------------------------------------


def read_case(source: Random, *, plain: bool = False, rich: bool = False, steps: int = 0, samples: int = 0) -> Case:
    """A network of level ``read`` whose numbers are all small multiples of powers of two, so that float64 is exact.

    ``plain`` keeps to neurons that Loihi has: no synaptic current's bias, reset to zero, no rest, no amplitude;
    ``rich`` adds what is rewritten for it: parameters that differ from channel to channel, maxima over spikes.
    """
    draw = Drawing(source, rich=rich)
    steps, samples = steps or source.randint(1, 4), samples or source.randint(1, 3)
    shape = draw.pick((4,), (2, 4, 4), (1, 5, 5), (3, 6, 6), (2, 7))
    signal = draw.pick(Analog(), Spike())
    draw.add("input", Input(shape, signal))
    spikes = isinstance(signal, Spike)
    given = draw.numbers.integers(0, 2, (samples, steps, *shape)) if spikes else _dyadic(draw, samples, steps, *shape)
    names = ["input"]
    for index in range(source.randint(1, 4)):
        names.append(_read_layer(draw, index, names, plain))
    if draw.maybe(2):
        last = draw.add("fc", Dense(_dyadic(draw, 3, prod(draw.shapes[names[-1]]))), names[-1])
        draw.add("readout", draw.pick(Readout((3,)), Readout((3,), "weighted", decay=0.5)), last)
        draw.add("readout_output", Output(), "readout")
    for name in names[-1 - draw.pick(0, 1) :]:
        if name != "input":
            draw.add(f"{name}_output", Output(), name)
    return draw.case({"input": given})


def _dyadic(draw: Drawing, *shape: int) -> Array:
    return draw.numbers.integers(-8, 9, shape) / 8


def _read_layer(draw: Drawing, index: int, earlier: list[str], plain: bool) -> str:
    """[pool] weights [norm] [pool] neuron, and what skips to it."""
    name = f"n{index}"
    start = earlier[-1] if not draw.maybe(4) else draw.pick(*earlier)
    if draw.rich and isinstance(draw.nodes[start], Neuron) and draw.maybe(2):
        start = _pooled(draw, f"{name}_max", start, "max")
    at = _pooled(draw, f"{name}_pool", start) if draw.maybe(3) else start
    if at == start or not draw.maybe(4):  # a pool may also end in neurons, and follow weights
        at = _weights(draw, name, at)
        at = _pooled(draw, f"{name}_sub", at) if draw.maybe(6) else at
    shape = draw.shapes[at]
    ends = [at]
    for skip in range(draw.pick(0, 1, 2)):
        other = draw.pick(*earlier)
        end = _skip(draw, f"{name}_skip{skip}", other, shape)
        if end is not None:
            ends.append(end)
    if draw.maybe(3):
        ends = [draw.add(f"{name}_sum_norm", _norm(draw, shape[0]), *ends)]
    draw.add(name, _read_neuron(draw, shape, plain), *dict.fromkeys(ends))
    return name


def _pooled(draw: Drawing, name: str, source: str, kind: str = "") -> str:
    axes = len(draw.shapes[source]) - 1
    if not axes:
        return source
    kernel = tuple(draw.pick(2, 2, 1) for _ in range(axes))
    pad = tuple(draw.pick(0, 0, 1) if k == 2 else 0 for k in kernel)
    op = Pool(kind or draw.pick("mean", "mean", "sum"), kernel, tuple(draw.pick(2, 1, 3) for _ in range(axes)), pad)
    return draw.add(name, op, source) if fits(op, draw.shapes[source]) else source


def _norm(draw: Drawing, channels: int) -> Norm:
    """A standard deviation that is a power of two, so that folding divides exactly."""
    size = (channels,)
    return Norm(
        _dyadic(draw, *size),
        4.0 ** draw.numbers.integers(-1, 2, size),
        _dyadic(draw, *size) + 0.5,
        _dyadic(draw, *size),
        epsilon=0.0,
    )


def _weights(draw: Drawing, name: str, source: str) -> str:
    shape = draw.shapes[source]
    op: Op | None = None
    if len(shape) > 1 and not draw.maybe(3):
        axes = len(shape) - 1
        features = draw.pick(2, 1, 3, 4)
        groups = draw.pick(1, shape[0]) if features % shape[0] == 0 else 1
        sizes = (tuple(draw.pick(*choices) for _ in range(axes)) for choices in ((1, 2), (1, 0), (1, 2)))
        weight = _dyadic(draw, features, shape[0] // groups, *(draw.pick(3, 1, 2) for _ in range(axes)))
        bias = _dyadic(draw, features) if draw.maybe(2) else None
        spread = tuple(draw.pick(1, 2, 3) for _ in range(axes)) if draw.maybe(5) else ()
        conv = Conv(weight, bias, *sizes, groups, spread)
        op = conv if fits(conv, shape) else None
    if op is None:
        features = draw.source.randint(1, 5)
        bias = _dyadic(draw, features) if draw.maybe(2) else None
        op = Dense(_dyadic(draw, features, prod(shape)), bias)
        if len(shape) > 1 and draw.maybe(2):
            source = draw.add(f"{name}_flat", Flatten(), source)
    at = draw.add(f"{name}_{'conv' if isinstance(op, Conv) else 'fc'}", op, source)
    return draw.add(f"{name}_norm", _norm(draw, draw.shapes[at][0]), at) if draw.maybe(2) else at


def _skip(draw: Drawing, name: str, source: str, shape: Shape) -> str | None:
    """The end of an identity or 1x1-convolution skip that fits ``shape``."""
    own = draw.shapes[source]
    if own == shape and not draw.maybe(3):
        return source
    if len(own) == len(shape) > 1 and own[1:] == shape[1:]:
        axes = len(own) - 1
        weight = _dyadic(draw, shape[0], own[0], *(1,) * axes)
        at = draw.add(name, Conv(weight, None, (1,) * axes, (0,) * axes, (1,) * axes), source)
        return draw.add(f"{name}_norm", _norm(draw, shape[0]), at) if draw.maybe(2) else at
    return None


def _read_neuron(draw: Drawing, shape: Shape, plain: bool) -> Neuron:
    channel = (shape[0], *(1,) * (len(shape) - 1))
    apart = draw.rich and draw.maybe(2)
    common = {
        "beta": draw.numbers.choice([0.0, 0.5], channel) if apart and draw.maybe(3) else draw.pick(0.0, 0.5, 0.25),
        "threshold": draw.numbers.choice([1.0, 0.5], channel) if apart else draw.pick(1.0, 0.5, 0.25),
        "fires": draw.pick(">", ">="),
        "bias": _dyadic(draw, *channel) if draw.maybe(3) else 0.0,
    }
    if plain:
        return Neuron(shape, **common)
    return Neuron(
        shape,
        **common,
        alpha=draw.pick(1.0, 1.0, 0.5),
        reset=draw.pick(To(0.0), To(-0.25), By(0.5)),
        initial=draw.pick(0.0, 0.25),
        gain=draw.pick(1.0, 2.0, _dyadic(draw, *channel)),
        amplitude=draw.pick(1.0, 0.5, 2.0),
        rest=draw.pick(0.0, 0.0, -0.5),
    )


# --- hypothesis -------------------------------------------------------------------------------------------------------


def fixed_cases(*, delays: bool = False) -> st.SearchStrategy[Case]:
    return st.randoms(use_true_random=False).map(lambda source: fixed_case(source, delays=delays))


def read_cases(*, plain: bool = False, rich: bool = False) -> st.SearchStrategy[Case]:
    return st.randoms(use_true_random=False).map(lambda source: read_case(source, plain=plain, rich=rich))
