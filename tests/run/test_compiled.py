"""The compiled engine against the definition: every instruction set of this processor, any number of threads."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from math import inf, prod
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from snncompile.fixed import FixedPoint
from snncompile.ir.graph import Edge, Graph
from snncompile.ir.ops import Conv, Dense, Input, Neuron, Op, Output, Pool, Readout, Scale, To
from snncompile.ir.signals import Spike
from snncompile.run import cpu, integer
from snncompile.run.bits import packed
from snncompile.run.cpu import Simulator
from snncompile.run.trace import Trace, first_divergence
from snncompile.target import Target
from tests.run.random_networks import network, sheet

KERNELS = (*cpu.KERNELS, "numpy")
COMPILED = "snncompile.run.compiled"
TARGET = Target.load("onnx")
compiled = pytest.mark.skipif(not cpu.KERNELS, reason="the compiled engine was not built")
number = FixedPoint.number


def check(source: Random, *, loops: bool) -> None:
    """All kernels and NumPy on one network: spikes, potentials, counts of spikes and operations."""
    target = sheet(source)
    case = network(source, target, loops=loops)
    expected = integer.run(case.graph, case.stimulus, target)
    every = case.graph.names(Neuron, Readout)
    counted: list[Any] = []
    with pytest.MonkeyPatch.context() as patch:
        for kernels, products in [(kernels, products) for kernels in KERNELS for products in (inf, 0.0, None)]:
            patch.setenv(cpu.KERNELS_VARIABLE, kernels)
            if cpu.KERNELS:
                patch.setattr(f"{COMPILED}.PRODUCTS", products)
            found = Simulator(case.graph, target, threads=source.randint(1, 3)).run(case.stimulus)
            different = first_divergence(found, expected, every)
            assert different is None, f"{kernels}: {different}\n{case}"
            assert found.potentials.keys() == expected.potentials.keys()
            assert found.meta["spikes"] == {name: int(array.sum()) for name, array in expected.spikes.items()}
            for name, bits in found.packed.items():
                assert bits.of is found.spikes[name]
                lines = expected.spikes[name].reshape(-1, prod(bits.of.shape[2:]))
                assert bits.words.reshape(len(lines), -1).tolist() == packed(lines).tolist(), f"{kernels}: {name}"
                assert bits.number.reshape(-1).tolist() == lines.sum(axis=1).tolist(), f"{kernels}: {name}"
            counted.append(found.meta["operations"])
    assert all(operations == counted[0] for operations in counted), case


@given(st.randoms(use_true_random=False))
def test_layer_after_layer(source: Random) -> None:
    check(source, loops=False)


@given(st.randoms(use_true_random=False))
def test_step_after_step(source: Random) -> None:
    check(source, loops=True)


def multiplied(simulator: Simulator) -> int:
    """How many populations (and steps) of the last run were products of matrices."""
    assert simulator._compiled is not None
    assert simulator._compiled._ready is not None
    count: int = simulator._compiled._ready[1].engine.multiplied
    return count


def ran(graph: Graph, stimulus: dict[str, Any], products: float | None, **more: Any) -> tuple[Trace, int]:
    """A run with products as they are measured (None), never (0) or wherever they may be (infinity)."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(f"{COMPILED}.PRODUCTS", products)
        simulator = Simulator(graph, more.pop("target", TARGET), **{"threads": 1} | more)  # one, as each counts its own
        trace = simulator.run(stimulus)
    return trace, multiplied(simulator) if not simulator.uncarried else 0


@compiled
def test_the_networks_are_multiplied_out_with_all_that_may_be_beside() -> None:
    """Counted, so that the properties above are about products as well."""
    seen: Counter[str] = Counter()
    for seed in range(300):
        source = Random(seed)
        target = sheet(source)
        case = network(source, target, loops=bool(seed % 2))
        trace, products = ran(case.graph, dict(case.stimulus), inf, target=target, threads=1 + seed % 2)
        assert trace.packed.keys() in (set(), trace.spikes.keys())
        seen["packed"] += bool(trace.packed)
        other, none = ran(case.graph, dict(case.stimulus), 0.0, target=target)
        assert none == 0
        assert trace.meta == other.meta, "the same spikes and operations"
        if not products:
            continue
        graph = case.graph
        neurons = [graph.nodes[name] for name in graph.names(Neuron)]
        seen["stepwise" if seed % 2 else "layers"] += 1
        seen["pools"] += bool(graph.names(Pool))
        seen["convolutions"] += bool(graph.names(Conv))
        seen["one to one"] += bool(graph.names(Scale))
        seen["several ways"] += any(len(graph.into(name)) > 1 for name in graph.names(Neuron))
        seen["delays"] += any(edge.delay for edge in graph.edges)
        seen["phases"] += any(isinstance(op, Neuron) and op.phase for op in neurons)
        seen["read-outs"] += bool(graph.names(Readout))
        seen["wide numbers"] += target.potential.bits == 40
    assert min(seen.values()) > 10, seen


def chain(shape: tuple[int, ...], *ops: Op, neurons: tuple[int, ...], threshold: int = 0) -> Graph:
    """Spikes -> ops -> neurons that forget everything."""
    one = number(4096, -12)
    lif = Neuron(neurons, one, one, number(threshold), number(0), reset=To(number(0)), initial=number(0))
    nodes: dict[str, Op] = {"input": Input(shape, Spike())} | {f"op{at}": op for at, op in enumerate(ops)}
    nodes |= {"lif": lif, "output": Output()}
    return Graph(nodes, [Edge(*pair) for pair in pairwise(nodes)])


@compiled
@pytest.mark.parametrize("kernels", cpu.KERNELS)
def test_the_largest_counts_meet_the_largest_weights(kernels: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """127 spikes in a window, weights of -128 and 127, side by side: no narrow sum on the way is left."""
    monkeypatch.setenv(cpu.KERNELS_VARIABLE, kernels)
    pool, weights = Pool("sum", (1, 127), (1, 127)), np.full((3, 70, 1, 1), -128)
    weights[1] = 127
    weights[2, ::2] = 127
    graph = chain((70, 2, 254), pool, Conv(FixedPoint(weights), None, (1, 1), (0, 0)), neurons=(3, 2, 2))
    stimulus = {"input": np.ones((2, 3, 70, 2, 254), dtype=bool)}
    stimulus["input"][:, 1] = False  # what is the same at every step is an image
    found, products = ran(graph, stimulus, inf)
    assert products == 1
    assert found.potentials["lif"].min() == (-127 * 128 * 70) << TARGET.potential.fraction_bits
    assert first_divergence(found, integer.run(graph, stimulus, TARGET), ("lif",)) is None


@compiled
@pytest.mark.parametrize(
    ("shape", "ops", "neurons"),
    [
        ((70,), [Dense(FixedPoint(np.full((3, 70), 129)))], (3,)),
        ((70,), [Dense(FixedPoint(np.full((3, 70), -129)))], (3,)),
        ((1, 1, 256), [Pool("sum", (1, 128), (1, 128)), Conv(FixedPoint(np.full((3, 1, 1, 1), 5)), None)], (3, 1, 2)),
    ],
)
def test_what_bytes_do_not_hold_is_not_multiplied(
    shape: tuple[int, ...], ops: list[Op], neurons: tuple[int, ...]
) -> None:
    graph = chain(shape, *ops, neurons=neurons)
    stimulus = {"input": np.ones((2, 3, *shape), dtype=bool)}
    stimulus["input"][:, 1] = False
    found, products = ran(graph, stimulus, inf)
    assert products == 0
    assert first_divergence(found, integer.run(graph, stimulus, TARGET), ("lif",)) is None


@compiled
def test_the_share_of_spikes_decides() -> None:
    """One network: its events where spikes are few, products where they are many."""
    weights = np.random.default_rng(0).integers(-127, 128, (64, 64, 3, 3))
    graph = chain((64, 20, 20), Conv(FixedPoint(weights), None, (1, 1), (1, 1)), neurons=(64, 20, 20), threshold=900)
    draw = np.random.default_rng(1).random((2, 4, 64, 20, 20))
    took = []
    for rate in (0.0005, 0.5):
        stimulus = {"input": draw < rate}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(f"{COMPILED}.PRODUCTS", 10.0)
            simulator = Simulator(graph, TARGET, threads=1)
            found = simulator.run(stimulus)
        took.append(multiplied(simulator))
        assert first_divergence(found, integer.run(graph, stimulus, TARGET), ("lif",)) is None
    assert took == [0, 1]


@compiled
@pytest.mark.parametrize("kernels", cpu.KERNELS)
@pytest.mark.parametrize("shape", [(8, 3, 30), (9, 8, 8), (64, 5, 13), (65, 1, 63), (130, 3, 43)])
def test_maps_of_spikes_are_taken_in_bit_by_bit(
    shape: tuple[int, int, int], kernels: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neurons that fire where their partner did: around whole words of channels, and of pixels."""
    monkeypatch.setenv(cpu.KERNELS_VARIABLE, kernels)
    stimulus = {"input": np.random.default_rng(0).random((2, 3, *shape)) < 0.3}
    for products in (0.0, None):
        found, _ = ran(chain(shape, Scale(number(3)), neurons=shape), stimulus, products)
        assert np.array_equal(found.spikes["lif"], stimulus["input"])
        assert found.meta["operations"] == {"op0": int(stimulus["input"].sum())}
