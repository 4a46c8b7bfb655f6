"""How networks are wired: residuals of both kinds, nests, concatenation, several inputs, loops, delays; to Lava."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest

from snncompile.compile import Compiled, compile_graph
from snncompile.errors import LoopTooShort
from snncompile.ir.connections import connections, synapse_of
from snncompile.ir.graph import Edge, Graph
from snncompile.ir.ops import Conv, Dense, Flatten, Input, Neuron, Norm, Op, Output, Pool, Readout
from snncompile.ir.signals import Analog, Spike
from snncompile.run import integer, parts, reference
from snncompile.run.cpu import Simulator
from snncompile.run.trace import first_divergence
from snncompile.target import Target
from snncompile.verify import Ladder
from tests.drawing import Array
from tests.on_lava import Device, prove

LOIHI = Target.load("loihi")
STEPS, SAMPLES = 6, 3
Stimulus = dict[str, Array]


class Net:
    """A graph under construction: ``add(name, op, *sources)``."""

    def __init__(self, seed: int) -> None:
        self.nodes: dict[str, Op] = {}
        self.edges: list[Edge] = []
        self.stimulus: Stimulus = {}
        self.random = np.random.default_rng(seed)

    def add(self, name: str, op: Op, *sources: str | tuple[str, int]) -> str:
        self.nodes[name] = op
        self.join(name, *sources)
        return name

    def join(self, name: str, *sources: str | tuple[str, int]) -> None:
        self.edges += [Edge(s, name) if isinstance(s, str) else Edge(s[0], name, s[1]) for s in sources]

    def given(self, name: str, *shape: int) -> str:
        self.stimulus[name] = self.random.integers(0, 2, (SAMPLES, STEPS, *shape)).astype(float)
        return self.add(name, Input(shape, Spike()))

    def conv(
        self, name: str, source: str | tuple[str, int], into: int, out: int, kernel: int = 3, step: int = 1
    ) -> str:
        weight = self.random.integers(-6, 9, (out, into, kernel, kernel)) / 8
        pad = kernel // 2
        at = self.add(f"{name}_w", Conv(weight, None, (step, step), (pad, pad)), source)
        size = (out,)
        numbers = self.random.integers(-4, 5, (2, out)) / 16
        return self.add(name, Norm(numbers[0], np.ones(size), np.ones(size), numbers[1], 0.0), at)

    def fires(self, name: str, shape: tuple[int, ...], *sources: str | tuple[str, int]) -> str:
        return self.add(name, Neuron(shape, beta=0.5), *sources)

    def dense(self, name: str, source: str | tuple[str, int], into: int, out: int) -> str:
        return self.add(name, Dense(self.random.integers(-6, 9, (out, into)) / 8), source)

    def done(self, *outputs: str) -> tuple[Graph, Stimulus]:
        for name in outputs:
            self.add(f"{name}_output", Output(), name)
        return Graph(self.nodes, self.edges), self.stimulus


MAP = (3, 4, 4)


def spiking_resnet() -> tuple[Graph, Stimulus]:
    """Currents are added before the neuron: identity, then a block with a stride and a convolution on its skip."""
    net = Net(1)
    stem = net.fires("stem", MAP, net.conv("c0", net.given("x", 2, 4, 4), 2, 3))
    a = net.fires("a", MAP, net.conv("c1", stem, 3, 3))
    b = net.fires("b", MAP, net.conv("c2", a, 3, 3), stem)
    c = net.fires("c", (4, 2, 2), net.conv("c3", b, 3, 4, step=2))
    d = net.fires("d", (4, 2, 2), net.conv("c4", c, 4, 4), net.conv("skip", b, 3, 4, 1, 2))
    net.add("mean", Pool("mean", (2, 2), (2, 2)), d)
    net.add("flat", Flatten(), "mean")
    net.add("r", Readout((3,)), net.dense("fc", "flat", 4, 3))
    return net.done("r")


def sew_add(depth: int = 3) -> tuple[Graph, Stimulus]:
    """Spikes are added behind the neuron; every sum feeds the next block, so fan-ins grow with the depth."""
    net = Net(2)
    total = [net.fires("stem", MAP, net.conv("c0", net.given("x", 2, 4, 4), 2, 3))]
    for index in range(depth):
        inner = net.conv(f"u{index}", total[0], 3, 3)
        net.join(f"u{index}_w", *total[1:])
        first = net.fires(f"first{index}", MAP, inner)
        total = [net.fires(f"second{index}", MAP, net.conv(f"v{index}", first, 3, 3)), *total]
    net.add("sum", Pool("mean", (4, 4), (4, 4)), *total)
    net.add("r", Readout((3,)), net.dense("fc", "sum", 3, 3))
    return net.done("r")


def concatenation() -> tuple[Graph, Stimulus]:
    """Channels side by side are two weight matrices into one population."""
    net = Net(3)
    x = net.given("x", 2, 4, 4)
    a = net.fires("a", MAP, net.conv("c0", x, 2, 3))
    b = net.fires("b", (2, 4, 4), net.conv("c2", net.fires("b0", (2, 4, 4), net.conv("c1", x, 2, 2)), 2, 2))
    return net.fires("n", MAP, net.conv("left", a, 3, 3), net.conv("right", b, 2, 3)) and net.done("n", "b")


def several_inputs_and_outputs() -> tuple[Graph, Stimulus]:
    """Two inputs, one of them an image; two outputs, one of them between."""
    net = Net(4)
    x = net.given("x", 2, 4, 4)
    image = net.add("image", Input((1, 4, 4), Analog()))
    net.stimulus["image"] = net.random.integers(-8, 9, (SAMPLES, 1, 1, 4, 4)).repeat(STEPS, 1) / 8.0
    a = net.fires("a", MAP, net.conv("c0", x, 2, 3))
    b = net.fires("b", MAP, net.conv("c2", a, 3, 3), net.conv("c1", image, 1, 3))
    net.add("r", Readout((2,)), net.dense("fc", "b", 48, 2), net.dense("fc2", "a", 48, 2))
    return net.done("r", "a", b)


def same_source_twice() -> tuple[Graph, Stimulus]:
    """One source by several ways: twice the same edge, through a pool, through a sum that holds it already."""
    net = Net(5)
    a = net.fires("a", MAP, net.conv("c0", net.given("x", 2, 4, 4), 2, 3))
    b = net.fires("b", MAP, net.conv("c1", a, 3, 3))
    c = net.fires("c", MAP, net.conv("c2", a, 3, 3), a, a)  # twice without weights
    net.join("c1_w", a)  # twice through the same weights
    inner = net.conv("c3", b, 3, 3)
    net.join("c3_w", a, c, a)
    net.add("pool", Pool("mean", (2, 2), (2, 2)), a, b)
    net.add("p_w", Conv(net.random.integers(-6, 9, (3, 3, 1, 1)) / 8.0), "pool")
    d = net.fires("d", MAP, inner)
    net.fires("e", (3, 2, 2), net.conv("c4", d, 3, 3, step=2), "p_w")
    return net.done("e")


def self_recurrence() -> tuple[Graph, Stimulus]:
    """A population that reads itself one step later, as in a recurrent layer."""
    net = Net(6)
    net.fires("a", (5,), net.dense("w", net.given("x", 4), 4, 5))
    net.join("a", net.dense("back", ("a", 1), 5, 5))
    return net.done(net.fires("b", (3,), net.dense("v", "a", 5, 3)))


def feedback(late: int = 3) -> tuple[Graph, Stimulus]:
    """Over three synapses, ``late`` steps later; and over maps."""
    net = Net(7)
    a = net.fires("a", MAP, net.conv("c0", net.given("x", 2, 4, 4), 2, 3))
    b = net.fires("b", MAP, net.add("c1", Conv(net.random.integers(-6, 9, (3, 3, 3, 3)) / 8, padding=(1, 1)), a))
    c = net.fires("c", MAP, net.add("c2", Conv(net.random.integers(-6, 9, (3, 3, 1, 1)) / 8), b))
    net.join("a", net.add("back", Conv(net.random.integers(-6, 6, (3, 3, 1, 1)) / 8), (c, late)))
    return net.done("c")


def learned_delays() -> tuple[Graph, Stimulus]:
    """Forward synapses of their own integer delays: columns of a matrix, taps of a map."""
    net = Net(8)
    x = net.given("x", 6)
    a = net.fires("a", (5,), *(net.dense(f"w{late}", (x, late), 6, 5) for late in (0, 1, 3)))
    b = net.fires("b", (4,), *(net.dense(f"v{late}", (a, late), 5, 4) for late in (0, 2, 5)))
    net.add("form", Flatten((1, 2, 2)), b)
    net.fires(
        "c",
        (2, 2, 2),
        *(net.add(f"k{late}", Conv(net.random.integers(-6, 9, (2, 1, 1, 1)) / 8), ("form", late)) for late in (0, 2)),
    )
    return net.done("c")


STREAMS = (spiking_resnet, sew_add, concatenation, several_inputs_and_outputs, same_source_twice)
LATE = (self_recurrence, feedback, learned_delays)


def lowered(build: Callable[[], tuple[Graph, Stimulus]]) -> tuple[Compiled, Stimulus]:
    graph, stimulus = build()
    return compile_graph(graph, LOIHI, stimulus), stimulus


@pytest.mark.parametrize("build", [*STREAMS, *LATE])
def test_it_is_exact_down_to_the_machine(build: Callable[[], tuple[Graph, Stimulus]]) -> None:
    """What was read, folded and legal agree in reals; fixed, timed (streamed where it may) and fast in integers."""
    done, stimulus = lowered(build)
    assert done.program.stream is (build in STREAMS)
    ladder = Ladder(done, stimulus, None, None)
    rungs = list(ladder.rungs(with_lava=False))
    assert [rung.verdict for rung in rungs[:-1]] == ["recorded", "same", "measured", "bit-equal", "bit-equal"]
    assert all(spikes.any() for spikes in reference.run(done.levels["read"], stimulus).spikes.values())
    for layer in done.layers:
        assert layer.error < 0.05


@pytest.mark.lava
@pytest.mark.parametrize("group", [STREAMS, LATE])
def test_on_lava(group: tuple[Callable[[], tuple[Graph, Stimulus]], ...]) -> None:
    for build, proven in zip(group, prove([Device.of(*lowered(build)) for build in group], LOIHI), strict=True):
        assert proven.different == 0, build.__name__
        assert proven.spikes > 20, build.__name__


@pytest.mark.parametrize("depth", [2, 6])
def test_a_nest_of_sums_has_one_fan_in_for_each_term(depth: int) -> None:
    done, _ = lowered(lambda: sew_add(depth))
    into = [one for one in connections(done.levels["fixed"]) if one.target == f"first{depth - 1}"]
    assert [one.source for one in into] == [*(f"second{index}" for index in reversed(range(depth - 1))), "stem"]
    weights = [synapse_of(done.levels["fixed"], one).weight.mantissa for one in into]  # type: ignore[union-attr]
    assert all((one == other).all() for one, other in pairwise(weights))


def test_what_arrives_twice_stays_two_connections() -> None:
    done, _ = lowered(same_source_twice)
    found = [(one.source, one.target) for one in connections(done.levels["fixed"])]
    assert found.count(("a", "b")) == 2
    assert found.count(("a", "c")) == 3
    assert found.count(("a", "d")) == 2


@pytest.mark.parametrize("late", [1, 2])
def test_feedback_that_is_faster_than_its_synapses_is_refused(late: int) -> None:
    graph, stimulus = feedback(late)
    with pytest.raises(LoopTooShort) as refused:
        compile_graph(graph, LOIHI, stimulus)
    assert f"has a delay of {late} step" in str(refused.value)
    assert "needs 3" in str(refused.value)
    assert f"arrives {3 - late} step" in str(refused.value)


@pytest.mark.parametrize("late", [3, 4, 9])
def test_slower_feedback_waits_in_relays(late: int) -> None:
    graph, stimulus = feedback(late)
    done = compile_graph(graph, LOIHI, stimulus)
    held = [note for note in done.notes if "c_relay" in note]
    assert len(held) == (late > 3)
    integers = Ladder(done, stimulus, None, None).integers
    fixed = integer.run(done.levels["fixed"], integers, LOIHI)
    there = integer.run(done.levels["placed"], integers, LOIHI)
    assert first_divergence(fixed, there, done.levels["fixed"].order) is None
    fast = parts.merged(done.levels["placed"], Simulator(done.levels["placed"], LOIHI).run(integers))
    assert first_divergence(fixed, fast, done.levels["fixed"].order) is None
