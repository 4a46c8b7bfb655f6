"""Dense layers that feed themselves, step by step, against the definition: their kernels are of their own."""

from __future__ import annotations

import os
from collections import Counter
from math import inf
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from snncompile.fixed import FixedPoint
from snncompile.ir.graph import Edge, Graph
from snncompile.ir.ops import Dense, Input, Neuron, Output, Readout, To
from snncompile.ir.signals import Spike
from snncompile.run import cpu, integer
from snncompile.run.cpu import Simulator
from snncompile.run.trace import Trace, first_divergence
from snncompile.target import Target
from tests.run.random_networks import fed_back, sheet

pytestmark = pytest.mark.skipif(not cpu.KERNELS, reason="the compiled engine was not built")
PRODUCTS = "snncompile.run.compiled.PRODUCTS"
number = FixedPoint.number


def features(simulator: Simulator) -> int:
    """How many populations of the last run took their steps as features."""
    assert simulator._compiled is not None
    assert simulator._compiled._ready is not None
    count: int = simulator._compiled._ready[1].engine.features
    return count


@given(st.randoms(use_true_random=False))
def test_every_kernel_leaves_what_the_definition_does(source: Random) -> None:
    target = sheet(source)
    case = fed_back(source, target)
    expected = integer.run(case.graph, case.stimulus, target)
    every = case.graph.names(Neuron, Readout)
    keep = source.choice((None, every[:1], ("out",)))
    kept = every if keep is None else keep
    counts = []
    with pytest.MonkeyPatch.context() as patch:
        for kernels, products in [(kernels, products) for kernels in cpu.KERNELS for products in (inf, 0.0, None)]:
            patch.setenv(cpu.KERNELS_VARIABLE, kernels)
            patch.setattr(PRODUCTS, products)
            found = Simulator(case.graph, target, threads=source.randint(1, 3)).run(case.stimulus, keep)
            part = Trace(
                {name: array for name, array in expected.spikes.items() if name in kept},
                {name: array for name, array in expected.potentials.items() if name in kept},
                {},
            )
            different = first_divergence(found, part, tuple(kept))
            assert different is None, f"{kernels}, {products}: {different}\n{case}"
            assert found.meta["spikes"] == {name: int(array.sum()) for name, array in expected.spikes.items()}
            counts.append(found.meta["operations"])
    assert counts == counts[:1] * len(counts)


def test_such_networks_are_features_with_all_that_may_be_beside() -> None:
    """Counted, so that the property above is about these kernels."""
    seen: Counter[str] = Counter()
    for seed in range(150):
        source = Random(seed)
        target = sheet(source)
        case = fed_back(source, target)
        simulator = Simulator(case.graph, target, threads=1)
        trace = simulator.run(case.stimulus, keep=())
        if simulator.uncarried or not features(simulator):
            seen["others"] += 1
            continue
        neurons = [case.graph.nodes[name] for name in case.graph.names(Neuron)]
        samples, _, width = case.stimulus["input"].shape
        seen["one sample"] += samples == 1
        seen["several groups"] += samples > 64
        seen["many events"] += width == 400 and trace.meta["operations"]["p0_into"] > 255 * samples
        seen["phases"] += any(isinstance(op, Neuron) and op.phase for op in neurons)
        seen["late"] += any(edge.delay > 1 for edge in case.graph.edges)
        seen["back"] += "back" in case.graph.nodes
        seen["several tiles"] += any(case.graph.nodes[name].shape == (300,) for name in case.graph.names(Neuron))  # type: ignore[union-attr]
    assert min(seen.values()) > 4, seen


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_threads_that_are_kept_are_made_anew_in_a_process_that_is_forked() -> None:
    target = Target.load("onnx")
    case = fed_back(Random(5), target)
    simulator = Simulator(case.graph, target, threads=2)
    before = simulator.run(case.stimulus, keep=("out",)).potentials["out"]
    assert np.array_equal(before, simulator.run(case.stimulus, keep=("out",)).potentials["out"])
    child = os.fork()
    if not child:  # no test framework in here
        try:
            after = simulator.run(case.stimulus, keep=("out",)).potentials["out"]
            del simulator
            os._exit(0 if np.array_equal(before, after) else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize("kernels", cpu.KERNELS)
@pytest.mark.parametrize("products", [0.0, inf])
def test_the_most_events_of_the_largest_weights(kernels: str, products: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """300 events of weights -128 and 127, through two connections: below, at and beyond what 16 bits hold of them."""
    monkeypatch.setenv(cpu.KERNELS_VARIABLE, kernels)
    monkeypatch.setattr(PRODUCTS, products)
    target, one = Target.load("onnx"), number(4096, -12)
    lif = Neuron((130,), one, one, number(-1_000_000), number(0), reset=To(number(0)), initial=number(0))
    weights = np.full((130, 170), -128)
    weights[::2] = 127
    nodes = {
        "input": Input((170,), Spike()),
        "into": Dense(FixedPoint(weights)),
        "lif": lif,
        "own": Dense(FixedPoint(weights[:, :130])),
        "end": Output(),
    }
    edges = [Edge("input", "into"), Edge("into", "lif"), Edge("lif", "own", 1), Edge("own", "lif"), Edge("lif", "end")]
    graph = Graph(nodes, edges)
    given = np.zeros((33, 4, 170), dtype=bool)
    for sample, count in enumerate(np.linspace(0, 170, 33).astype(int)):
        given[sample, 1:, :count] = True
    given[-1, :, :125] = True  # with the 130 of its own: 255
    simulator = Simulator(graph, target, 1)
    found = simulator.run({"input": given})
    assert features(simulator) == 1
    assert found.potentials["lif"].min() == (-128 * 300) << target.potential.fraction_bits
    assert found.potentials["lif"].max() == (127 * 300) << target.potential.fraction_bits
    assert first_divergence(found, integer.run(graph, {"input": given}, target), ("lif",)) is None
