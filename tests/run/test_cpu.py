"""The fast interpreter against the definition, bit for bit, at every level it runs."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from snncompile.errors import GraphError, NotRepresentable
from snncompile.fixed import FixedPoint
from snncompile.ir.graph import Edge, Graph
from snncompile.ir.ops import Conv, Dense, Input, Neuron, Op, Output, Readout, Scale, To
from snncompile.ir.signals import Fixed, Spike
from snncompile.passes.balance import balance
from snncompile.passes.place import place
from snncompile.run import cpu, integer, numpy_layers
from snncompile.run.cpu import Simulator
from snncompile.run.numpy_layers import Layers
from snncompile.run.trace import Trace
from snncompile.target import Target
from tests.graphs import Case, fixed_case

Array = np.ndarray[Any, np.dtype[Any]]
LOIHI = Target.load("loihi")


def cases(**options: Any) -> st.SearchStrategy[Case]:
    return st.randoms(use_true_random=False).map(lambda source: fixed_case(source, **options))


def agree(found: Trace, expected: Trace, kept: set[str]) -> None:
    assert found.spikes.keys() == expected.spikes.keys() & kept
    assert found.potentials.keys() == expected.potentials.keys() & kept
    for name, spikes in found.spikes.items():
        assert spikes.dtype == np.bool_
        np.testing.assert_array_equal(spikes, expected.spikes[name], err_msg=name)
    for name, potentials in found.potentials.items():
        assert potentials.dtype == np.int64
        np.testing.assert_array_equal(potentials, expected.potentials[name], err_msg=name)
    assert found.meta["spikes"] == {name: int(array.sum()) for name, array in expected.spikes.items()}
    assert found.meta["potential"] == expected.meta["potential"] == "before reset"


def lowered(case: Case) -> tuple[Graph, Graph] | None:
    try:
        timed = balance(case.graph, LOIHI, case.steps).graph
    except NotRepresentable:  # its biases would disturb a delay
        return None
    return timed, place(timed, LOIHI).graph


@given(cases(delays=False), st.randoms(use_true_random=False))
def test_every_level_and_every_choice_of_what_is_kept(case: Case, source: Random) -> None:
    expected = integer.run(case.graph, case.stimulus, LOIHI)
    every = case.graph.names(Neuron, Readout)
    kept = {name for name in every if source.randint(0, 1)}
    agree(Simulator(case.graph, LOIHI).run(case.stimulus), expected, set(every))
    found = Simulator(case.graph, LOIHI).run(case.stimulus, keep=kept)
    agree(found, expected, kept)
    assert list(found.potentials) == [name for name in every if name in kept], "in the order of the graph, always"
    timed, placed = lowered(case) or (case.graph, case.graph)
    for graph in (timed, placed):
        found = Simulator(graph, LOIHI).run(case.stimulus)
        whole = integer.run(graph, case.stimulus, LOIHI)
        agree(found, whole, set(graph.names(Neuron, Readout)))
        for name in every:  # phases and delays are gone
            np.testing.assert_array_equal(found.potentials[name], expected.potentials[name], err_msg=name)


@given(cases(delays=True))
def test_delays_and_loops(case: Case) -> None:
    for graph in (case.graph, *(lowered(case) or ())):
        expected = integer.run(graph, case.stimulus, LOIHI)
        agree(Simulator(graph, LOIHI).run(case.stimulus), expected, set(graph.names(Neuron, Readout)))


def test_the_cases_hold_what_they_should() -> None:
    """Several inputs, graded ones, loops, skips, convolutions: counted, so that they are not only hoped for."""
    seen: Counter[str] = Counter()
    for seed in range(150):
        graph = fixed_case(Random(seed), delays=True).graph
        inputs = [graph.nodes[name] for name in graph.names(Input)]
        seen["several inputs"] += len(inputs) > 1
        seen["graded"] += any(isinstance(op, Input) and isinstance(op.signal, Fixed) for op in inputs)
        seen["loops"] += Layers(graph, LOIHI)._stepwise
        seen["convolutions"] += bool(graph.names(Conv))
        seen["read-outs"] += bool(graph.names(Readout))
        seen["skips"] += any(len(graph.into(name)) > 1 for name in graph.names(Neuron))
    assert min(seen.values()) > 10, seen


@given(cases(delays=False), st.integers(1, 40))
def test_batches_make_no_difference(case: Case, numbers: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(numpy_layers, "BATCH_NUMBERS", numbers)
        if cpu.KERNELS:
            patch.setattr("snncompile.run.compiled.BATCH_BYTES", numbers)
        found = [Layers(case.graph, LOIHI).run(case.stimulus), Simulator(case.graph, LOIHI).run(case.stimulus)]
    for trace in found:
        agree(trace, integer.run(case.graph, case.stimulus, LOIHI), set(case.graph.names(Neuron, Readout)))


def wide(weights: Array, bits: int, **neuron: Any) -> Graph:
    """An input of so many bits that meets large weights."""
    nodes: dict[str, Op] = {
        "input": Input((weights.shape[1],), Fixed(bits) if bits else Spike()),
        "fc": Dense(FixedPoint(weights)),
        "lif": Neuron(
            (weights.shape[0],),
            alpha=FixedPoint.number(4096, -12),
            beta=FixedPoint.number(0, -12),
            threshold=FixedPoint.number(131071),
            bias=FixedPoint.number(0),
            reset=To(FixedPoint.number(0)),
            initial=FixedPoint.number(0),
            **neuron,
        ),
        "output": Output(),
    }
    return Graph(nodes, [Edge("input", "fc"), Edge("fc", "lif"), Edge("lif", "output")])


@pytest.mark.parametrize(("bits", "dtype"), [(0, np.float32), (8, np.float32), (17, np.float64), (48, np.int64)])
def test_sums_are_exact_in_the_type_that_is_proven_to_hold_them(bits: int, dtype: type) -> None:
    """The largest values that the input declares, with weights of one sign after the other."""
    weights = np.array([[254, -256, 254], [2, 2, 2]])
    graph = wide(weights, bits)
    layers = Layers(graph, LOIHI)
    assert layers._lines["lif"][0].weight.dtype == dtype
    most = 2 ** (bits - 1) - 1 if bits else 1
    values = np.array([[most, -most, most], [most, 1 - most, most], [1, 0, -1]])
    stimulus = {"input": (values if bits else np.abs(values) > 0).astype(np.int64)[None]}
    expected = integer.run(graph, stimulus, LOIHI)
    for simulator in (layers, Simulator(graph, LOIHI)):
        agree(simulator.run(stimulus), expected, {"lif"})


def test_an_image_shown_at_every_step_is_summed_once_and_one_that_moves_is_not() -> None:
    graph = wide(np.array([[2, -4], [6, 8]]), 4)
    still = np.array([[[3, -2]] * 4, [[1, 5]] * 4])
    moving = still.copy()
    moving[1, 2] = [0, 7]
    for values in (still, moving, np.concatenate([still, moving])):
        agree(Simulator(graph, LOIHI).run({"input": values}), integer.run(graph, {"input": values}, LOIHI), {"lif"})


def test_a_simulator_may_run_again_and_remembers_nothing() -> None:
    case = fixed_case(Random(7))
    simulator = Simulator(case.graph, LOIHI)
    one, other = simulator.run(case.stimulus), simulator.run(case.stimulus)
    assert one.meta == other.meta
    for name, potentials in one.potentials.items():
        np.testing.assert_array_equal(potentials, other.potentials[name])


def test_a_stimulus_that_does_not_fit_is_refused() -> None:
    graph = wide(np.array([[2, -4]]), 4)
    for stimulus in (
        {},
        {"other": np.zeros((1, 1, 2))},
        {"input": np.zeros((1, 1, 3))},
        {"input": np.zeros((0, 1, 2))},
    ):
        with pytest.raises(GraphError):
            Simulator(graph, LOIHI).run(stimulus)


def test_a_readout_that_feeds_a_population_is_what_integer_says() -> None:
    graph = wide(np.array([[2, -4]]), 4)
    nodes = {**graph.nodes, "sum": Readout((1,), "sum", FixedPoint.number(0)), "more": Scale(FixedPoint.number(2))}
    lif = graph.nodes["lif"]
    assert isinstance(lif, Neuron)
    nodes |= {"behind": replace(lif), "end": Output()}
    edges = [Edge("input", "fc"), Edge("fc", "sum"), Edge("sum", "more"), Edge("more", "behind"), Edge("behind", "end")]
    del nodes["lif"], nodes["output"]
    given_ = {"input": np.array([[[3, -2], [1, 0]]])}
    whole = Graph(nodes, edges)
    agree(Simulator(whole, LOIHI).run(given_), integer.run(whole, given_, LOIHI), {"sum", "behind"})
