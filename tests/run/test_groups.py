"""Convolutions of groups: taken apart for the compiled engine, they are what they were, and cost what they have."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from math import inf
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from snncompile.fixed import FixedPoint
from snncompile.ir.graph import Edge, Graph
from snncompile.ir.ops import Conv, Dense, Input, Neuron, Op, Output, Pool, Readout, To
from snncompile.ir.shapes import shape_of
from snncompile.ir.signals import Fixed, Signal, Spike
from snncompile.run import cpu, integer
from snncompile.run.cpu import Simulator
from snncompile.run.groups import Part, fitting, parts
from snncompile.run.trace import first_divergence
from snncompile.run.ways import Grid, Way
from snncompile.target import Target
from tests.graphs import Case
from tests.run.test_operations import brute_force

TARGET = Target.load("onnx")
number = FixedPoint.number
compiled = pytest.mark.skipif(not cpu.KERNELS, reason="the compiled engine was not built")


def lif(shape: tuple[int, ...], threshold: int) -> Neuron:
    one, half = number(4096, -12), number(2048, -12)
    return Neuron(shape, one, half, number(threshold), number(0), reset=To(number(0)), initial=number(0))


def grouped(draw: Random) -> Case:
    """Two convolutions of groups, and what may arrive beside: a dense layer, an identity, the population itself."""
    numbers = np.random.default_rng(draw.getrandbits(32))

    def weights(*shape: int) -> FixedPoint:
        most = draw.choice((3, 127, 127, 2000, 1 << 20))
        return FixedPoint(numbers.integers(-most, most + 1, shape) * draw.choice((1, 1, 4)))

    def conv(source: int, target: int, groups: int, kernel: int, stride: int) -> Conv:
        sides = (target, source // groups, kernel, draw.choice((kernel, 1)))
        dilation, apart = (1, draw.choice((1, 1, 2))), draw.choice(((), (), (2, 1), (2, 3)))
        return Conv(weights(*sides), None, (stride, 1), (draw.choice((0, 1, 2)), 1), dilation, groups, apart)

    groups = draw.choice((1, 2, 3, 4, 7, 33))
    first = groups * draw.choice((1, 1, 2, 5, 16, 31) if groups < 7 else (1, 1, 2))
    middle = groups * draw.choice((1, 1, 2, 3, 16, 32, 33, 48, 64) if groups < 7 else (1, 1, 2, 3))
    size = (draw.randint(4, 5), draw.randint(3, 7))
    steps, samples = draw.randint(1, 4), draw.randint(1, 3)
    signal: Signal = draw.choice((Spike(), Spike(), Fixed(8)))
    most = 1 if isinstance(signal, Spike) else 100
    x = numbers.integers(0 if most == 1 else -most, most + 1, (samples, steps, first, *size))
    x *= numbers.random(x.shape) < draw.choice((0.1, 0.5))
    nodes: dict[str, Op] = {"input": Input((first, *size), signal)}
    if draw.random() < 0.4:
        nodes["pool"] = Pool("sum", (2, 2), (1, 1), (0, 1))
        size = (size[0] - 1, size[1] + 1)
    nodes["one"] = conv(first, middle, groups, draw.choice((1, 2, 3)), draw.choice((1, 1, 2)))
    size = shape_of("one", nodes["one"], (first, *size))[1:]
    nodes["a"] = lif((middle, *size), draw.choice((0, 50, 500)))
    other = draw.choice([at for at in range(1, middle + 1) if middle % at == 0])
    nodes["two"] = Conv(weights(middle, middle // other, 3, 3), None, (1, 1), (1, 1), (1, 1), other)
    nodes["b"] = lif((middle, *size), draw.choice((0, 50, 500)))
    edges = [Edge(*pair) for pair in pairwise(nodes)]
    if draw.random() < 0.3:
        edges.append(Edge("a", "b"))
    if draw.random() < 0.3:
        nodes["back"] = Conv(weights(middle, middle // groups, 1, 3), None, (1, 1), (0, 1), (1, 1), groups)
        edges += [Edge("b", "back", 1), Edge("back", draw.choice("ab"))]
    if draw.random() < 0.3 and middle * size[0] * size[1] < 500:
        nodes["beside"] = Conv(weights(middle, middle, 1, 1), None, (1, 1), (0, 0))
        edges += [Edge("a", "beside"), Edge("beside", "b")]
    nodes["last"], nodes["out"] = Dense(weights(3, middle * size[0] * size[1])), Readout((3,), "sum", number(0))
    nodes["end"] = Output()
    edges += [Edge("b", "last"), Edge("last", "out"), Edge("out", "end")]
    return Case(Graph(nodes, tuple(edges)), {"input": x})


def held(draw: Random, seen: Counter[str]) -> None:
    """Spikes, potentials and operations of every instruction set, by events and by products."""
    case = grouped(draw)
    expected = integer.run(case.graph, case.stimulus, TARGET)
    with pytest.MonkeyPatch.context() as patch:
        for kernels in cpu.KERNELS:
            patch.setenv(cpu.KERNELS_VARIABLE, kernels)
            for products in (0.0, inf, None):
                patch.setattr("snncompile.run.compiled.PRODUCTS", products)
                simulator = Simulator(case.graph, TARGET, threads=draw.randint(1, 3))
                found = simulator.run(case.stimulus)
                assert simulator.uncarried == ""
                different = first_divergence(found, expected, case.graph.names(Neuron, Readout))
                assert different is None, f"{kernels}, {products}: {different}\n{case}"
                looped = any(edge.delay for edge in case.graph.edges)
                if not looped:
                    assert found.meta["operations"] == brute_force(case, found), f"{kernels}, {products}\n{case}"
                assert simulator._compiled is not None
                assert simulator._compiled._ready is not None
                ready = simulator._compiled._ready[1]
                seen["multiplied"] += ready.engine.multiplied > 0
                seen["parts"] += len(ready.labels) > len(simulator._compiled.ways)
                seen["step by step"] += looped


@compiled
@given(st.randoms(use_true_random=False))
def test_every_instruction_set_and_number_of_threads(draw: Random) -> None:
    held(draw, Counter())


@compiled
def test_the_networks_above_are_of_all_kinds() -> None:
    seen: Counter[str] = Counter()
    for seed in range(40):
        held(Random(seed), seen)
    assert min(seen[what] for what in ("multiplied", "parts", "step by step")) > 20, seen


def way(groups: int, source: int, target: int, **more: Any) -> Way:
    weights = np.zeros((1, 9 * source, target), dtype=np.int64)
    return Way("w", "a", "b", 0, weights, Grid(4, 4, source), (3, 3), groups=groups, **more)


@pytest.mark.parametrize(
    ("groups", "source", "target", "tile", "expected"),
    [
        (1, 64, 128, 128, [(0, 64, 0, 128)]),
        (4, 128, 256, 64, [(32 * at, 32, 64 * at, 64) for at in range(4)]),
        (2, 6, 512, 256, [(0, 3, 0, 256), (3, 3, 256, 256)]),
        (4, 64, 192, 32, [(16 * at, 16, 48 * at, 48) for at in range(4)]),
        (20, 20, 60, 32, [(0, 10, 0, 30), (10, 10, 30, 30)]),
    ],
)
def test_parts_are_whole_groups_no_wider_than_a_tile(
    groups: int, source: int, target: int, tile: int, expected: list[tuple[int, ...]]
) -> None:
    found = parts(way(groups, source, target), target, tile)
    assert [(part.first, part.channels, part.lane, part.lanes) for part in found] == expected
    assert sum(part.way.groups for part in found) == groups


@pytest.mark.parametrize(
    ("ways", "channels", "usual", "tile"),
    [
        ([way(4, 256, 256)], 256, 256, 64),
        ([way(2, 256, 512)], 512, 256, 256),
        ([way(4, 192, 192)], 192, 64, 64),
        ([way(4, 256, 256), way(1, 8, 256)], 256, 256, 256),
        ([way(128, 128, 128)], 128, 128, 128),
        ([way(128, 128, 128, pool=Pool("sum", (2, 2), (2, 2)))], 128, 128, 64),
        ([way(3, 30, 30)], 30, 32, 32),
    ],
)
def test_a_tile_is_as_narrow_as_a_group(ways: list[Way], channels: int, usual: int, tile: int) -> None:
    assert fitting(ways, channels, usual) == tile


def test_a_group_of_every_channel_has_a_factor_a_place() -> None:
    weights = np.arange(9 * 5 * 5).reshape(9, 5, 5) * np.eye(5, dtype=np.int64)
    (part,) = parts(Way("w", "a", "b", 0, weights.reshape(1, 45, 5), Grid(4, 4, 5), (3, 3), groups=5), 5, 32)
    assert part == Part(part.way, 0, 5, 0, 5, depthwise=True)
    assert part.way.weights.shape == (1, 9, 5)
    assert part.way.weights[0, 2].tolist() == [50, 56, 62, 68, 74]
