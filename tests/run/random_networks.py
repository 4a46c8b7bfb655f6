"""Random networks of integers with everything that ``integer`` means, whether or not a machine has it."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from random import Random

from snncompile.fixed import FixedPoint
from snncompile.ir.graph import Edge
from snncompile.ir.ops import By, Conv, Dense, Flatten, Input, Neuron, Op, Output, Pool, Readout, Scale, Shape, To
from snncompile.ir.shapes import shape_of
from snncompile.ir.signals import Count, Fixed, Signed, Spike
from snncompile.target import Target
from tests.drawing import Array, Case, Drawing, fits

CHANNELS = (1, 2, 3, 5, 2, 3, 33, 70, 130)


def sheet(source: Random) -> Target:
    """A machine: one of the catalogue, or its arithmetic changed."""
    draw = Drawing(source)
    target = Target.load(draw.pick("loihi", "loihi-custom", "onnx"))
    if not draw.maybe(2):
        return target
    bits, fraction = draw.pick(24, 12, 9, 16, 40), draw.pick(6, 0, 3)
    return replace(
        target,
        current=replace(target.current, bits=draw.pick(24, bits), overflow=draw.pick("wrap", "saturate")),
        potential=replace(target.potential, bits=bits, overflow=draw.pick("saturate", "wrap"), fraction_bits=fraction),
        decay=replace(target.decay, rounding=draw.pick("toward-zero", "floor"), bits=draw.pick(12, 12, 4, 20)),
    )


def network(source: Random, target: Target, *, loops: bool = False) -> Case:
    """A few populations, what connects them drawn freely; with ``loops`` delays, phases and feedback as well."""
    draw = Drawing(source)
    steps, samples = source.randint(1, 6), source.randint(1, 4)
    stimulus, names = {}, []
    for index in range(draw.pick(1, 1, 2)):
        shape = draw.pick((3,), (70,), (2, 5, 4), (3, 6), (1, 6, 6), (33, 2, 3), (2, 2, 2, 2))
        draw.add(name := f"input{index}", Input(shape, _signal(draw)))
        stimulus[name] = _given(draw, draw.nodes[name], (samples, steps, *shape))
        names.append(name)
    for index in range(source.randint(1, 4)):
        names.append(_population(draw, f"p{index}", names, target, loops))
    neurons = [name for name in names if isinstance(draw.nodes[name], Neuron)]
    for index in range(draw.pick(1, 2) if loops else 0):
        at = source.randint(0, len(neurons) - 1)
        start, end = neurons[source.randint(at, len(neurons) - 1)], neurons[at]
        _connect(draw, f"back{index}", [start], draw.shapes[end], end, draw.pick(1, 2, 3))
    if draw.maybe(2):
        weight = draw.numbers.integers(-9, 10, (3, prod(draw.shapes[names[-1]])))
        last = draw.add("out_dense", Dense(FixedPoint(weight)), names[-1])
        bias = FixedPoint(draw.numbers.integers(-5, 6, draw.pick((), (3,))))
        forgets = draw.pick(0, 0, 1, 1 << target.decay.bits - 2, 3 << target.decay.bits - 3)
        kept = 1.0 - forgets / (1 << target.decay.bits)
        kind = "sum" if kept == 1.0 else "weighted"
        draw.add("out", Readout((3,), kind, bias, kept, phase=draw.pick(0, 1) if loops else 0), last)
    draw.add("end", Output(), names[-1])
    return draw.case(stimulus)


def fed_back(source: Random, target: Target) -> Case:
    """Dense layers that feed themselves, and now and then those before them: samples and channels beyond what steps go
    through together, and more events than 16-bit sums hold.
    """
    draw = Drawing(source)
    steps, samples = source.randint(1, 6), draw.pick(1, 3, 8, 17, 33, 70)
    width = draw.pick(3, 64, 70, 400)
    draw.add("input", Input((width,), Spike()))
    given = draw.numbers.random((samples, steps, width)) < draw.pick(0.05, 0.4, 1.0)
    low, high = draw.pick((-128, 127), (-4, 4), (0, 127), (-256, 254), (-1000, 1000))
    even = draw.pick(1, 1, 4)  # all weights are multiples: what they are divided by

    def feed(name: str, start: str, end: str, channels: int, late: int) -> None:
        values = draw.numbers.integers(low, high + 1, (channels, draw.shapes[start][0])) * even
        draw.add(name, Dense(FixedPoint(values)), (start, late))
        draw.edges.append(Edge(name, end))

    last = "input"
    for index in range(source.randint(1, 3)):
        name, channels = f"p{index}", draw.pick(5, 20, 32, 40, 64, 70, 130, 256, 300)
        draw.add(name, _neuron(draw, (channels,), target, loops=True))
        feed(f"{name}_into", last, name, channels, draw.pick(0, 0, 1))
        feed(f"{name}_own", name, name, channels, draw.pick(1, 1, 2))
        last = name
    if draw.maybe(2):
        feed("back", last, "p0", draw.shapes["p0"][0], draw.pick(1, 2))
    draw.add("out", Readout((7,), "sum", FixedPoint.number(draw.pick(0, 5))))
    feed("out_into", last, "out", 7, 0)
    draw.add("end", Output(), "out")
    return draw.case({"input": given})


def _signal(draw: Drawing) -> Spike | Count | Signed | Fixed:
    return draw.pick(Spike(), Spike(), Fixed(8), Signed(), Count(3))


def _given(draw: Drawing, op: Op, size: tuple[int, ...]) -> Array:
    assert isinstance(op, Input)
    least, most = {Spike: (0, 1), Fixed: (-127, 127), Signed: (-1, 1), Count: (0, 3)}[type(op.signal)]
    values = draw.numbers.integers(least, most + 1, size)
    values *= draw.numbers.random(size) < draw.pick(0.3, 1.0, 0.05)
    if draw.maybe(3):
        values[:] = values[:, :1]
    return values


def _weights(draw: Drawing, *shape: int) -> FixedPoint:
    low, high = draw.pick((-128, 127), (-4, 4), (-256, 254), (-30_000, 30_000), (-3, 200), (-2_000_000, 2_000_000))
    values = draw.numbers.integers(low, high + 1, shape)
    return FixedPoint(values * (2 if draw.maybe(3) else 1))


def _population(draw: Drawing, name: str, earlier: list[str], target: Target, loops: bool) -> str:
    first = draw.pick(*reversed(earlier))
    alike = [other for other in earlier if draw.shapes[other] == draw.shapes[first]]
    sources = [first] if not draw.maybe(4) else list(dict.fromkeys([first, draw.pick(*alike)]))
    shape = _start(draw, name, sources, loops)
    draw.add(name, _neuron(draw, shape, target, loops))
    draw.edges.append(Edge(f"{name}_last", name))
    for index in range(draw.pick(0, 0, 1, 2)):
        _connect(draw, f"{name}_more{index}", [draw.pick(*earlier)], shape, name, draw.pick(0, 1) if loops else 0)
    return name


def _start(draw: Drawing, name: str, sources: list[str], loops: bool) -> Shape:
    """The ops that decide a population's shape; the last is called ``NAME_last``."""
    late = draw.pick(0, 0, 1, 2) if loops else 0
    ends: list[tuple[str, int]] = [(source, late) for source in sources]
    spikes = all(isinstance(draw.nodes[source], Neuron) for source in sources)
    shape = draw.shapes[sources[0]]
    if len(shape) in (2, 3) and draw.maybe(2):
        axes = len(shape) - 1
        kind = "max" if spikes and len(sources) == 1 and draw.maybe(2) else "sum"
        pool = Pool(
            kind,
            tuple(draw.pick(2, 1, 3) for _ in range(axes)),
            tuple(draw.pick(2, 1, 3) for _ in range(axes)),
            tuple(draw.pick(0, 0, 1) for _ in range(axes)),
        )
        if fits(pool, shape):
            ends = [(draw.add(f"{name}_pool", pool, *ends), 0)]
            shape = draw.shapes[f"{name}_pool"]
    if len(shape) in (2, 3) and not draw.maybe(3):
        for _ in range(4):
            conv = _conv(draw, shape, draw.pick(*CHANNELS))
            if fits(conv, shape):
                draw.add(f"{name}_last", conv, *ends)
                return draw.shapes[f"{name}_last"]
    if draw.maybe(4):
        factor = _weights(draw, *draw.pick((), shape, (shape[0], *(1,) * (len(shape) - 1))))
        draw.add(f"{name}_last", Scale(factor), *ends)
        return shape
    if draw.maybe(8):
        ends = [(draw.add(f"{name}_scale", Scale(_weights(draw)), *ends), 0)]
    out = draw.pick(*CHANNELS, 12)
    if out == 12:  # rows of a matrix that are a map
        draw.add(f"{name}_rows", Dense(_weights(draw, 12, prod(shape))), *ends)
        draw.add(f"{name}_last", Flatten(draw.pick((3, 2, 2), (2, 6), (1, 3, 4))), f"{name}_rows")
    else:
        draw.add(f"{name}_last", Dense(_weights(draw, out, prod(shape))), *ends)
    return draw.shapes[f"{name}_last"]


def _conv(draw: Drawing, shape: Shape, features: int) -> Conv:
    axes = len(shape) - 1
    groups = draw.pick(1, 1, shape[0]) if features % shape[0] == 0 else 1
    return Conv(
        _weights(draw, features, shape[0] // groups, *(draw.pick(3, 1, 2) for _ in range(axes))),
        None,
        *(tuple(draw.pick(*choices) for _ in range(axes)) for choices in ((1, 1, 2), (1, 0, 2), (1, 1, 2))),
        groups,
        tuple(draw.pick(1, 2) for _ in range(axes)) if draw.maybe(4) else (),
    )


def _connect(draw: Drawing, name: str, sources: list[str], shape: Shape, end: str, late: int) -> None:
    """One more way into a population: an identity, a factor, a convolution that fits, or a matrix."""
    own = draw.shapes[sources[0]]
    ends = [(source, late) for source in sources]
    if own == shape and draw.maybe(3):
        draw.edges.append(Edge(sources[0], end, late))
        return
    if own == shape and draw.maybe(2):
        op: Op = Scale(_weights(draw, *draw.pick((), shape)))
    else:
        op = Dense(_weights(draw, prod(shape), prod(own)))
        if len(own) == len(shape) and len(own) in (2, 3):
            for _ in range(6):
                conv = _conv(draw, own, shape[0])
                if fits(conv, own) and shape_of("conv", conv, own) == shape:
                    op = conv
                    break
    last = draw.add(name, op, *ends)
    if draw.shapes[last] != shape:
        last = draw.add(f"{name}_shaped", Flatten(shape), last)
    draw.edges.append(Edge(last, end))


def _neuron(draw: Drawing, shape: Shape, target: Target, loops: bool) -> Neuron:
    bits, fraction = target.decay.bits, target.potential.fraction_bits
    channel = (shape[0], *(1,) * (len(shape) - 1))

    def parameter(low: int, high: int, exponent: int, plain: int | None = None) -> FixedPoint:
        size = draw.pick((), (), channel, shape)
        if plain is not None and draw.maybe(2):
            return FixedPoint.number(plain, exponent)
        return FixedPoint(draw.numbers.integers(low, high + 1, size), exponent)

    one = 1 << bits
    high = draw.pick(300, 30, 100_000)
    reset = draw.pick(
        To(FixedPoint.number(0)), To(parameter(-high, high // 2, -fraction)), By(parameter(0, high, -fraction))
    )
    return Neuron(
        shape,
        alpha=draw.pick(FixedPoint.number(one, -bits), parameter(0, one, -bits), FixedPoint.number(one // 2, -bits)),
        beta=draw.pick(FixedPoint.number(one // 2, -bits), parameter(0, one, -bits), FixedPoint.number(0, -bits)),
        threshold=parameter(-2 if draw.maybe(4) else 0, high, 0),
        bias=parameter(-high, high, -fraction, plain=0),
        fires=draw.pick(">", ">="),
        reset=reset,
        initial=parameter(-high, high, -fraction, plain=0),
        phase=draw.pick(0, 0, 1, 2) if loops else 0,
    )
