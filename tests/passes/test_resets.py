"""Resets by an amount and to a value, starts from a potential: rewritten, in a process of our own, or refused."""

from __future__ import annotations

import difflib
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snncompile.backends import lava, net
from snncompile.compile import Compiled, compile_graph, encoded, fold
from snncompile.errors import GraphError, NotRepresentable, ToolError
from snncompile.ir.check import check
from snncompile.ir.graph import Edge, Graph
from snncompile.ir.ops import By, Conv, Dense, Input, Neuron, Op, Output, Pool, Readout, Reset, To
from snncompile.ir.signals import Spike
from snncompile.ir.store import Program, save
from snncompile.passes.legalise import legalise
from snncompile.run import integer, parts, reference
from snncompile.run.cpu import Simulator
from snncompile.run.trace import first_divergence
from snncompile.sheet import find
from snncompile.target import Target
from snncompile.verify import Ladder
from tests.drawing import Array
from tests.on_lava import Device, prove

LOIHI, CUSTOM = Target.load("loihi"), Target.load("loihi-custom")


def drawn(source: Random, *, value_only: bool = False) -> tuple[Graph, dict[str, Array]]:
    """Three layers of whole numbers, each with a reset and a start of its own; leaks where they may be."""
    draw = np.random.default_rng(source.randint(0, 2**32 - 1))

    def neuron(shape: tuple[int, ...]) -> Neuron:
        by_channel = (shape[0], *(1,) * (len(shape) - 1))
        size = by_channel if source.randint(0, 2) == 2 else ()
        threshold = draw.integers(3, 9, size).astype(float)
        value = float(source.choice([-3, -1, 1, 0]))
        if value_only:
            return Neuron(shape, threshold=threshold, reset=To(value), initial=value, beta=source.choice([0.0, 0.5]))
        reset: Reset = source.choice([By(threshold), By(2.0), To(value), To(0.0)])
        initial = draw.integers(-2, 3, size).astype(float)
        fires = source.choice([">", ">="])
        return Neuron(
            shape, threshold=threshold, reset=reset, initial=initial, fires=fires, bias=source.choice([0.0, 1.0])
        )

    nodes: dict[str, Op] = {"x": Input((2, 4, 4), Spike()), "c": Conv(draw.integers(-3, 5, (3, 2, 3, 3)) * 1.0)}
    nodes |= {"a": neuron((3, 2, 2)), "p": Pool("sum", (2, 2), (2, 2)), "d": Dense(draw.integers(-3, 5, (4, 3)) * 1.0)}
    nodes |= {"b": neuron((4,)), "e": Dense(draw.integers(-3, 5, (2, 4)) * 1.0), "r": Readout((2,)), "out": Output()}
    names = list(nodes)
    edges = [Edge(names[i], names[i + 1]) for i in range(len(names) - 1)]
    return Graph(nodes, edges), {"x": draw.integers(0, 2, (3, 7, 2, 4, 4)).astype(float)}


@settings(max_examples=25)
@given(st.randoms(use_true_random=False))
def test_the_process_of_our_own_is_exact(source: Random) -> None:
    """Whole numbers lose nothing on the way: reals, integers, phases and streams, and the fast interpreter agree."""
    graph, x = drawn(source)
    done = compile_graph(graph, CUSTOM, x)
    fixed, placed = done.levels["fixed"], done.levels["placed"]
    integers = encoded(fixed, x)
    here = integer.run(fixed, integers, CUSTOM)
    exact = reference.run(done.levels["folded"], x)
    assert first_divergence(exact, parts.merged(fixed, here), graph.order, potentials=False) is None
    for there in (integer.run(placed, integers, CUSTOM, stream=True), Simulator(placed, CUSTOM).run(integers)):
        assert first_divergence(here, there, fixed.order) is None


@settings(max_examples=25)
@given(st.randoms(use_true_random=False))
def test_a_reset_to_a_value_is_one_to_zero_of_a_shifted_potential(source: Random) -> None:
    """On stock neurons, and exact: numbers here are multiples of a power of two."""
    graph, x = drawn(source, value_only=True)
    folded, _ = fold(graph)
    legal = legalise(folded, LOIHI)
    before, after = reference.run(folded, x), parts.merged(legal.graph, reference.run(legal.graph, x))
    assert first_divergence(before, after, graph.order, potentials=False) is None
    for name in ("a", "b"):
        op = graph.nodes[name]
        assert isinstance(op, Neuron)
        assert isinstance(op.reset, To)
        np.testing.assert_array_equal(after.potentials[name], before.potentials[name] - op.reset.value)
        moved = f"{name}: its potential is counted from the value it is reset to"
        assert (moved in legal.notes) is bool(op.reset.value)


def layer(neuron: Neuron) -> Graph:
    nodes: dict[str, Op] = {"x": Input((2,), Spike()), "w": Dense(np.eye(2)), "n": neuron, "out": Output()}
    return Graph(nodes, [Edge("x", "w"), Edge("w", "n"), Edge("n", "out")])


def test_the_shift_in_numbers() -> None:
    neuron = Neuron((2,), threshold=1.0, beta=0.25, bias=0.5, reset=To(-2.0), initial=-2.0)
    moved = legalise(layer(neuron), LOIHI).graph.nodes["n"]
    assert isinstance(moved, Neuron)
    assert isinstance(moved.reset, To)
    found = (moved.threshold, moved.bias, moved.reset.value, moved.initial, moved.beta)
    assert [float(value) for value in found] == [3.0, 1.0, 0.0, 0.0, 0.25]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"reset": By(1.0)}, r"soft reset \(targets/loihi.toml:\d+, neuron.soft_reset is false\)"),
        ({"initial": 0.5}, r"it starts from another potential than its reset \(targets/loihi.toml:\d+, neuron.initial"),
        ({"reset": To(-1.0)}, r"it starts from another potential than its reset"),
        ({"reset": To(2.0), "initial": 2.0}, r"its threshold -1 lies below 0"),
    ],
)
def test_stock_neurons_refuse(change: dict[str, Any], said: str) -> None:
    with pytest.raises(NotRepresentable, match=said):
        legalise(layer(Neuron((2,), **change)), LOIHI)


def test_what_is_no_stock_neuron_is_said() -> None:
    done = compile_graph(layer(Neuron((2,), reset=By(1.0))), CUSTOM, {"x": np.ones((1, 3, 2))})
    (said,) = (note for note in done.notes if "no stock neuron" in note)
    assert said.startswith("legalise: n: no stock neuron of the chip, runs on the simulator only")
    with pytest.raises(GraphError, match=r"n \(Neuron\): its reset or its start is none of the machine's"):
        check(done.levels["fixed"], "fixed", LOIHI)
    plain = compile_graph(layer(Neuron((2,))), CUSTOM, {"x": np.ones((1, 3, 2))})
    assert not any("no stock neuron" in note for note in plain.notes)


@pytest.mark.parametrize("change", [{"reset": By(1.0)}, {"reset": To(0.25)}, {"initial": 0.5}])
def test_network_net_cannot_say_it(change: dict[str, Any], tmp_path: Path) -> None:
    done = compile_graph(layer(Neuron((2,), **change)), CUSTOM, {"x": np.ones((1, 3, 2))})
    reason = net.export(done.levels["placed"], tmp_path / "network.net", 3)
    assert reason == "n: is reset otherwise than to zero, or starts elsewhere, which the format cannot say"
    assert not list(tmp_path.iterdir())


def test_the_sheets_differ_in_neurons_only() -> None:
    """Figures of the chip are kept in one sheet; the other is a copy, and a figure that moves moves in both."""
    one, other = (find("targets", name).read_text(encoding="utf-8").splitlines() for name in ("loihi", "loihi-custom"))
    changed = [line for line in difflib.ndiff(one, other) if line[0] in "+-" and not line[2:].startswith("#")]
    keys = {line[2:].split(" =")[0] for line in changed}
    assert keys == {"name", "title", "summary", "reset", "soft_reset", "initial_potential"}


def test_a_start_beyond_the_machine_s_range_is_refused() -> None:
    graph = layer(Neuron((2,), threshold=0.01, initial=-1e6))
    with pytest.raises(NotRepresentable, match="potential"):
        compile_graph(graph, CUSTOM, {"x": np.ones((1, 3, 2))})


@pytest.mark.lava
def test_on_lava() -> None:
    """Eight networks of resets and starts, spikes and potentials, as one stream of samples."""
    cases = [drawn(Random(seed)) for seed in range(8)]
    devices = [Device.of(compile_graph(graph, CUSTOM, x), x) for graph, x in cases]
    for proven in prove(devices, CUSTOM):
        assert proven.different == 0
        assert proven.spikes > 20


@pytest.mark.lava
def test_with_feedback_on_lava() -> None:
    """Side by side, each sample from a fresh state; starts before the first step are the same as well."""
    devices = []
    for seed in (0, 2, 3, 4):
        graph, x = drawn(Random(seed))
        back = Dense(np.random.default_rng(seed).integers(-3, 4, (4, 4)) * 1.0)
        graph = graph.edit({"back": back}, [*graph.edges, Edge("b", "back", 2), Edge("back", "b")])
        devices.append(Device.of(compile_graph(graph, CUSTOM, x), x))
    assert not any(one.stream for one in devices)
    assert all(proven.different == 0 and proven.spikes > 20 for proven in prove(devices, CUSTOM))


@pytest.mark.lava
def test_the_ladder_with_a_soft_reset() -> None:
    graph, x = drawn(Random(3))
    done: Compiled = compile_graph(graph, CUSTOM, x)
    rungs = list(Ladder(done, x["x"], None, None).rungs(with_lava=True))
    assert [rung.verdict for rung in rungs] == ["recorded", "same", "measured", "bit-equal", "bit-equal", "bit-equal"]
    assert rungs[2].different == 0


@pytest.mark.lava
def test_the_runner_refuses_it_under_the_name_of_a_chip(tmp_path: Path) -> None:
    done = compile_graph(layer(Neuron((2,), reset=By(1.0))), CUSTOM, {"x": np.ones((1, 3, 2))})
    save(Program(done.levels["placed"], "placed", "loihi", 3), tmp_path)
    with pytest.raises(ToolError, match="has no stock neuron"):
        lava.run(tmp_path, {"x": np.ones((1, 3, 2), dtype=np.int64)})
    save(Program(done.levels["placed"], "placed", CUSTOM.name, 3), tmp_path)
    assert lava.run(tmp_path, {"x": np.ones((1, 3, 2), dtype=np.int64)}).meta["not_stock"] == ["n"]
