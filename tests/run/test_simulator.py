"""The simulator as it is called: what it chooses, refuses and says, what it counts, and images in, trace out."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import pytest

from snncompile.energy import count
from snncompile.errors import GraphError, ToolError
from snncompile.fixed import FixedPoint
from snncompile.ir.graph import Edge, Graph
from snncompile.ir.ops import Conv, Dense, Input, Neuron, Op, Output, Pool, Readout, To
from snncompile.ir.signals import Fixed, Signal, Spike
from snncompile.ir.store import Program
from snncompile.run import cpu, integer
from snncompile.run.cpu import Simulator
from snncompile.run.trace import Trace, first_divergence
from snncompile.target import Target

TARGET = Target.load("onnx")
STEPS = 5
number = FixedPoint.number
compiled = pytest.mark.skipif(not cpu.KERNELS, reason="the compiled engine was not built")


def network(signal: Signal | None = None) -> Graph:
    """3C3 (padded, stride 2) - sum pool - dense, on two channels of 6 x 6."""
    source = np.random.default_rng(5)

    def neuron(shape: tuple[int, ...]) -> Neuron:
        one, half = number(4096, -12), number(2048, -12)
        return Neuron(shape, one, half, number(60), number(0), reset=To(number(0)), initial=number(0))

    def weights(*shape: int) -> FixedPoint:
        return FixedPoint(source.integers(-60, 100, shape))

    nodes = {
        "input": Input((2, 6, 6), signal or Spike()),
        "conv1": Conv(weights(3, 2, 3, 3), None, (1, 1), (1, 1)),
        "lif1": neuron((3, 6, 6)),
        "pool": Pool("sum", (2, 2), (2, 2)),
        "conv2": Conv(weights(70, 3, 3, 3), None, (2, 2), (1, 1)),
        "lif2": neuron((70, 2, 2)),
        "dense": Dense(weights(4, 280)),
        "readout": Readout((4,), "sum", number(0)),
        "output": Output(),
    }
    names = list(nodes)
    return Graph(nodes, tuple(Edge(one, other) for one, other in pairwise(names)))


def pooled(signal: Signal, kind: Literal["sum", "max"], stride: int, padding: int) -> Graph:
    """An input behind a pool: two populations that read it through the same pool, one through none."""
    source = np.random.default_rng(8)
    pool = Pool(kind, (3, 2), (stride, stride), (padding, padding))
    lif = network().nodes["lif1"]
    assert isinstance(lif, Neuron)
    nodes: dict[str, Op] = {"input": Input((2, 6, 6), signal), "pool": pool}
    height, width = (6 + 2 * padding - 3) // stride + 1, (6 + 2 * padding - 2) // stride + 1
    nodes |= {
        "conv": Conv(FixedPoint(source.integers(-60, 100, (33, 2, 2, 2))), None, (1, 1), (0, 0)),
        "one": replace(lif, shape=(33, height - 1, width - 1)),
        "dense": Dense(FixedPoint(source.integers(-60, 100, (4, 2 * height * width)))),
        "two": replace(lif, shape=(4,)),
        "rest": Dense(FixedPoint(source.integers(-60, 100, (4, 72)))),
        "end": Output(),
    }
    ways = (("input", "pool", "conv", "one"), ("pool", "dense", "two", "end"), ("input", "rest", "two"))
    return Graph(nodes, tuple(Edge(*pair) for way in ways for pair in pairwise(way)))


def spikes(samples: int = 6) -> np.ndarray[Any, Any]:
    return np.random.default_rng(6).random((samples, STEPS, 2, 6, 6)) < 0.3


def equal(found: Trace, expected: Trace) -> None:
    assert first_divergence(found, expected, ("lif1", "lif2", "readout")) is None


@pytest.mark.parametrize("kernels", [*cpu.KERNELS, "numpy"])
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_what_is_named_runs(kernels: str, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cpu.KERNELS_VARIABLE, kernels)
    monkeypatch.setenv(cpu.THREADS_VARIABLE, str(threads))
    simulator = Simulator(network(), TARGET)
    assert (simulator.kernels, simulator.threads, simulator.uncarried) == (kernels, threads, "")
    stimulus = {"input": spikes()}
    equal(simulator.run(stimulus), integer.run(network(), stimulus, TARGET))


def test_a_name_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cpu.KERNELS_VARIABLE, "sse9")
    with pytest.raises(ToolError, match="no kernels 'sse9' here") as found:
        Simulator(network(), TARGET)
    assert found.value.exit_code == 7
    assert "numpy" in str(found.value)


def test_no_threads_are_refused() -> None:
    with pytest.raises(ToolError, match="0 threads run nothing"):
        Simulator(network(), TARGET, threads=0)


def test_without_a_compiler_numpy_runs_and_is_said_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv(cpu.KERNELS_VARIABLE, raising=False)
    monkeypatch.setattr(cpu, "KERNELS", ())
    monkeypatch.setattr(cpu, "_said", [])
    stimulus = {"input": spikes(2)}
    for _ in range(2):
        simulator = Simulator(network(), TARGET)
        assert simulator.kernels == "numpy"
        equal(simulator.run(stimulus), integer.run(network(), stimulus, TARGET))
    assert capsys.readouterr().err.count("the compiled engine was not built") == 1


@compiled
def test_operations_are_the_accumulates_that_energy_counts() -> None:
    graph, stimulus = network(), {"input": spikes()}
    trace = Simulator(graph, TARGET).run(stimulus)
    counted = {layer.name: layer.total("ac") for layer in count(graph, stimulus, trace).layers}
    found = trace.meta["operations"]
    assert set(found) == {"conv1", "conv2", "dense"}
    assert found == {name: counted[name] for name in found}
    assert all(found.values())


def test_nothing_kept_counts_the_same() -> None:
    simulator, stimulus = Simulator(network(), TARGET), {"input": spikes()}
    every, none = simulator.run(stimulus), simulator.run(stimulus, keep=())
    assert (dict(none.spikes), dict(none.potentials)) == ({}, {})
    assert none.meta == every.meta


def test_a_program_takes_frames_and_images() -> None:
    program = Program(network(), "fixed", "onnx", STEPS)
    frames = spikes()
    expected = integer.run(network(), {"input": frames}, TARGET)
    simulator = Simulator(program)
    for given in (frames, frames.astype(np.int64), frames.astype(np.float32)):
        equal(simulator(given), expected)
    image = frames[:, 0]
    still = np.repeat(image[:, None], STEPS, axis=1)
    equal(simulator(image), integer.run(network(), {"input": still}, TARGET))
    assert set(simulator(image, keep=["readout"]).potentials) == {"readout"}


def test_reals_are_encoded_and_integers_are_not() -> None:
    graph = network(Fixed(9, unit=0.25, signed=True))
    values = np.random.default_rng(7).integers(-40, 40, (3, 2, 6, 6))
    frames = np.repeat(values[:, None], STEPS, axis=1)
    expected = integer.run(graph, {"input": frames}, TARGET)
    simulator = Simulator(Program(graph, "fixed", "onnx", STEPS))
    equal(simulator(values), expected)
    equal(simulator(values * 0.25 + 0.05), expected)


@compiled
@pytest.mark.parametrize("still", [True, False])
@pytest.mark.parametrize("kind", ["sum", "max"])
@pytest.mark.parametrize(("stride", "padding"), [(1, 0), (2, 1)])
@pytest.mark.parametrize("kernels", cpu.KERNELS)
def test_graded_inputs_behind_a_pool_run_on_the_engine(
    kernels: str, stride: int, padding: int, kind: Literal["sum", "max"], still: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(cpu.KERNELS_VARIABLE, kernels)
    graph = pooled(Fixed(8), kind, stride, padding)
    values = np.random.default_rng(9).integers(-127, 128, (3, STEPS, 2, 6, 6))
    if still:
        values[:] = values[:, :1]
    simulator = Simulator(graph, TARGET)
    found, expected = simulator.run({"input": values}), integer.run(graph, {"input": values}, TARGET)
    assert simulator.uncarried == ""
    assert first_divergence(found, expected, ("one", "two")) is None
    for name, potentials in expected.potentials.items():
        np.testing.assert_array_equal(found.potentials[name], potentials)


@compiled
def test_sums_of_graded_inputs_beyond_32_bits_run_on_integer() -> None:
    graph = pooled(Fixed(32), "sum", 1, 0)
    values = np.full((1, STEPS, 2, 6, 6), 2**30)
    simulator = Simulator(graph, TARGET)
    found, expected = simulator.run({"input": values}), integer.run(graph, {"input": values}, TARGET)
    assert "32 bits" in simulator.uncarried
    assert first_divergence(found, expected, ("one", "two")) is None


def test_what_it_cannot_be_shown_is_refused() -> None:
    simulator = Simulator(Program(network(), "fixed", "onnx", STEPS))
    with pytest.raises(GraphError, match="fit neither images"):
        simulator(np.zeros((2, 3, 6, 6)))
    with pytest.raises(GraphError, match="which it does not declare"):
        simulator(np.full((1, 2, 6, 6), 3))
    with pytest.raises(ToolError, match="names no target"):
        Simulator(network())
