"""Counts depend on spikes alone: not on the grad mode of torch, not on batches, order or level; graded and cached too.

The walk here shares no code with counting: it takes one event after the other to one synapse after the other.
"""

from __future__ import annotations

import contextlib
import itertools
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from snncompile.commands.energy import given as met
from snncompile.compile import compile_graph, encoded, shown
from snncompile.energy import Counter, Counts, concatenate, count
from snncompile.energy_conventions import Options
from snncompile.energy_events import Events, FanOut
from snncompile.energy_skeleton import skeleton
from snncompile.errors import GraphError
from snncompile.frontends.torch import read_module
from snncompile.ir.graph import Edge, Graph
from snncompile.ir.ops import Conv, Dense, Input, Neuron, Op, Output, Pool, Readout, Resonator, SigmaDelta, real
from snncompile.ir.shapes import shapes
from snncompile.ir.signals import Analog, Count, Signal, Spike
from snncompile.ir.store import Program, load, save
from snncompile.run import integer
from snncompile.run.bits import packed
from snncompile.run.cpu import KERNELS, Simulator
from snncompile.run.trace import Packed, Trace, joined
from snncompile.target import Target
from snncompile.train.recording import record
from tests.run.random_networks import network as random_network
from tests.run.random_networks import sheet
from tests.test_energy import Net, arrays_of, assert_same, conv_synapses, places
from tests.tiny import STEPS, images, network, recipe

Array = np.ndarray[Any, np.dtype[Any]]
nets = st.randoms(use_true_random=False).map(Net)

# --- grad mode, batches, order ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained() -> tuple[Any, Graph, Array]:
    module = network(recipe())
    return module, read_module(module), images(9)


MODES = {"grad": torch.enable_grad, "no_grad": torch.no_grad, "inference_mode": torch.inference_mode}


def recorded(trained: tuple[Any, Graph, Array], mode: str, order: list[int], batch: int) -> Counts:
    """Torch's own spikes, recorded in batches under a grad mode, counted batch by batch."""
    module, graph, x = trained
    counter, parts = Counter(graph), []
    with MODES[mode](), contextlib.ExitStack():
        for first in range(0, len(order), batch):
            some = x[order[first : first + batch]]
            parts.append(counter.count(shown(graph, some.astype(np.float64), STEPS), record(module, some)))
    return concatenate(parts)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("batch", [1, 2, 9])
def test_torch_counts_the_same_in_any_mode_batch_and_order(
    trained: tuple[Any, Graph, Array], mode: str, batch: int
) -> None:
    module, graph, x = trained
    with torch.no_grad():
        trace = record(module, x)
    whole = count(graph, shown(graph, x.astype(np.float64), STEPS), trace)
    assert whole.total("ac") > 0
    assert_same(recorded(trained, mode, list(range(9)), batch), whole)
    order = Random(batch).sample(range(9), 9)
    shuffled, expected = recorded(trained, mode, order, batch), arrays_of(whole)
    for key, array in arrays_of(shuffled).items():
        assert np.array_equal(array, expected[key][order]), key
    assert shuffled.stimulus == tuple(whole.stimulus[index] for index in order)
    for layer, other in zip(whole.layers, shuffled.layers, strict=True):
        ends = [one.fired and (one.fired.dead, one.fired.saturated) for one in (layer, other)]
        assert ends[0] == ends[1]


def test_a_gradient_may_be_asked_for_and_no_hook_stays(trained: tuple[Any, Graph, Array]) -> None:
    module, _, x = trained
    with torch.enable_grad():
        for parameter in module.parameters():
            parameter.requires_grad_(True)
        record(module, x[:2])
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in module.modules())


# --- bits ---------------------------------------------------------------------------------------------------------


@given(st.data())
def test_counting_bits_is_multiplying(data: st.DataObject) -> None:
    numbers = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    samples, steps, size = (data.draw(st.integers(1, most)) for most in (3, 4, 200))
    most = data.draw(st.sampled_from([1, 3, 1000, 2**20]))
    fan_out = numbers.integers(0, data.draw(st.sampled_from([1, 2, 1153, 2**20])), size) * data.draw(
        st.sampled_from([1, 7, 128])
    )
    if data.draw(st.booleans()):  # inside, at borders, in corners; or one number for all
        fan_out = numbers.choice(np.array(data.draw(st.sampled_from([[9, 6, 4], [5, 0], [7, 2**20 + 1], [64]]))), size)
    values: Array = numbers.integers(-most, most + 1, (samples, steps, size))
    if data.draw(st.booleans()):
        values = values > 0
    if data.draw(st.booleans()):
        values = np.broadcast_to(values[:, :1], values.shape)
    events, magnitude = Events(values), np.abs(values.astype(object))
    assert events.reached(FanOut(fan_out, (size,))).tolist() == (magnitude @ fan_out.astype(object)).tolist()
    assert events.number.tolist() == magnitude.sum(axis=2).tolist()
    fired = (magnitude > 0).reshape(-1, size)
    ever, always = (int(np.bitwise_count(bits).sum()) for bits in (events.ever, events.always))
    assert (ever, always) == (fired.any(axis=0).sum(), fired.all(axis=0).sum())


@given(st.data())
def test_bits_that_were_left_beside_spikes_count_as_the_spikes_do(data: st.DataObject) -> None:
    numbers = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    samples, steps, size = (data.draw(st.integers(1, most)) for most in (3, 4, 200))
    values: Array = numbers.random((samples, steps, size)) < data.draw(st.sampled_from([0.0, 0.3, 1.0]))
    words = packed(values.reshape(-1, size)).reshape(samples, steps, -1)
    left, fan_out = Packed(values, words, values.sum(axis=2)), FanOut(numbers.integers(0, 9, size), (size,))

    def seen(events: Events) -> list[Any]:
        found = events.number, events.reached(fan_out), events.ever, events.always, events.rows
        return [array.tolist() for array in found]

    assert Events(values, left).number is left.number
    assert seen(Events(values, left)) == seen(Events(values))
    assert seen(Events(~values, left)) == seen(Events(~values)), "bits of another array"


@pytest.mark.skipif(not KERNELS, reason="the compiled engine was not built")
@given(st.randoms(use_true_random=False))
def test_a_run_counts_the_same_with_and_without_its_bits(source: Random) -> None:
    target = sheet(source)
    case = random_network(source, target, loops=source.random() < 0.5)
    trace = Simulator(case.graph, target, threads=1).run(case.stimulus)
    counts = [count(case.graph, case.stimulus, of) for of in (trace, replace(trace, packed={}), joined([trace]))]
    for other in counts[1:]:
        assert_same(counts[0], other)
    fired = [[layer.fired and (layer.fired.dead, layer.fired.saturated) for layer in one.layers] for one in counts]
    assert fired[0] == fired[1] == fired[2]


# --- graded, cached, columns ----------------------------------------------------------------------------------------


def synapses_of(op: Op, arriving: tuple[int, ...], out: tuple[int, ...]) -> list[tuple[tuple[int, ...], bool]]:
    """Every synapse: the element it reads, and whether its weight is not zero."""
    if isinstance(op, Conv):
        return list(conv_synapses(op, arriving, out))
    assert isinstance(op, Dense)
    weight = real(op.weight)
    return [
        (index, bool(weight[row, flat] != 0))
        for flat, index in enumerate(places(arriving))
        for row in range(len(weight))
    ]


class Wires:
    """Sources of any kind that add on the wires of one layer: convolution or matrix, delays, weights of zero."""

    def __init__(self, source: Random, signals: list[Signal]) -> None:
        numbers = np.random.default_rng(source.randint(0, 2**32 - 1))
        self.samples, self.steps = source.randint(1, 2), source.randint(1, 4)
        self.shape = source.choice([(2, 4, 3), (1, 5), (6,)])
        axes = len(self.shape) - 1
        if axes:
            kernel = tuple(min(source.choice([1, 2, 3]), n) for n in self.shape[1:])
            weight = numbers.integers(-1, 2, (3, self.shape[0], *kernel)).astype(float)
            pads = tuple(source.choice([0, 1]) for _ in kernel)
            strides = tuple(source.choice([1, 2]) for _ in kernel)
            self.op: Conv | Dense = Conv(weight, None, strides, pads, (1,) * axes)
        else:
            self.op = Dense(numbers.integers(-1, 2, (4, self.shape[0])).astype(float))
        nodes: dict[str, Op] = {}
        edges, self.stimulus = [], dict[str, Array]()
        for index, signal in enumerate(signals):
            name = f"in{index}"
            most = signal.most if isinstance(signal, Count) else 1
            frames = numbers.integers(0, most + 1, (self.samples, self.steps, *self.shape)).astype(float)
            for sample, step in itertools.product(range(self.samples), range(1, self.steps)):
                if source.random() < 0.5:
                    frames[sample, step] = frames[sample, step - 1]  # a frame that stays
            if source.random() < 0.3:
                frames[:] = frames[:, :1]
            self.stimulus[name] = frames
            nodes[name] = Input(self.shape, signal)
            edges.append(Edge(name, "w", source.choice([0, 0, 1])))
        nodes["w"] = self.op
        out = shapes(Graph(nodes, edges))["w"]
        nodes |= {"lif": Neuron(out), "y": Output()}
        self.graph = Graph(nodes, [*edges, Edge("w", "lif"), Edge("lif", "y")])
        self.silent = Trace({"lif": np.zeros((self.samples, self.steps, *out), dtype=bool)})
        self.synapses = synapses_of(self.op, self.shape, out)

    def columns(self, options: Options) -> dict[str, Array]:
        counts = count(self.graph, self.stimulus, self.silent, options)
        return {key: array for layer in counts.layers if layer.name == "w" for key, array in layer.columns.items()}

    def carried(self, sample: int, step: int) -> Array:
        """What every wire carries at a step: late sources are not there yet."""
        total = np.zeros(self.shape, dtype=int)
        for edge in self.graph.into("w"):
            if step >= edge.delay:
                total += self.stimulus[edge.source][sample, step - edge.delay].astype(int)
        return total


events = st.lists(st.sampled_from([Spike(), Count(3), Count(1)]), min_size=1, max_size=3)


@given(st.randoms(use_true_random=False), events)
def test_graded_events_are_those_of_the_walk(source: Random, signals: list[Signal]) -> None:
    wires = Wires(source, signals)
    found = wires.columns(Options(multiplicity="graded"))
    for sample, step in itertools.product(range(wires.samples), range(wires.steps)):
        carried = wires.carried(sample, step)
        met = {index for index in places(wires.shape) if carried[index] != 0}
        reached = [present for index, present in wires.synapses if index in met]
        expected = (len(met), len(reached), sum(reached))
        assert tuple(int(found[key][sample, step]) for key in ("spikes_in", "ac", "ac_nonzero_weight")) == expected


@given(st.randoms(use_true_random=False), events)
def test_unary_events_are_those_of_the_walk(source: Random, signals: list[Signal]) -> None:
    """Sent events count at the step at which they are sent, each by itself."""
    wires = Wires(source, signals)
    found = wires.columns(Options())
    for sample, step in itertools.product(range(wires.samples), range(wires.steps)):
        every = present = sent = 0
        for frames in wires.stimulus.values():
            for index in places(wires.shape):
                many = int(frames[(sample, step, *index)])
                sent += many
                for read, there in wires.synapses:
                    every += many * (read == index)
                    present += many * (read == index and there)
        expected = (sent, every, present)
        assert tuple(int(found[key][sample, step]) for key in ("spikes_in", "ac", "ac_nonzero_weight")) == expected


@given(st.randoms(use_true_random=False), st.booleans(), st.booleans())
def test_the_first_layer_is_that_of_the_walk(source: Random, cached: bool, skipping: bool) -> None:
    wires = Wires(source, [Analog()])
    found = wires.columns(Options("cache" if cached else "recompute", skipping))
    frames = wires.stimulus["in0"]
    for sample, step in itertools.product(range(wires.samples), range(wires.steps)):
        shown_before = cached and step and np.array_equal(frames[sample, step], frames[sample, step - 1])
        products = [(bool(frames[(sample, step, *index)]), there) for index, there in wires.synapses]
        every = 0 if shown_before else sum(value or not skipping for value, _ in products)
        nonzero = 0 if shown_before else sum(value and there for value, there in products)
        assert (int(found["mac"][sample, step]), int(found["mac_nonzero"][sample, step])) == (every, nonzero)
    assert "ac" not in found


@given(nets)
def test_nonzero_columns_are_parts_of_the_structural_ones(net: Net) -> None:
    """And where no weight is zero they are the same."""
    counts = net.counts()
    full = net.graph.edit(
        {
            name: type(op)(np.ones(op.weight.shape), None, *geometry(op))
            for name, op in net.graph.nodes.items()
            if isinstance(op, Dense | Conv)
        }
    )
    whole = count(full, net.stimulus, Trace(net.spikes))
    for layer, other in zip(counts.layers, whole.layers, strict=True):
        if "ac" in layer.columns:
            assert (layer.columns["ac_nonzero_weight"] <= layer.columns["ac"]).all()
            assert np.array_equal(other.columns["ac_nonzero_weight"], other.columns["ac"])
            assert np.array_equal(other.columns["ac"], layer.columns["ac"])


def geometry(op: Dense | Conv) -> tuple[Any, ...]:
    return () if isinstance(op, Dense) else (op.stride, op.padding, op.dilation, op.groups)


@given(nets, st.sampled_from(["unary", "graded"]), st.booleans())
def test_choices_do_not_depend_on_batches(net: Net, multiplicity: Any, cached: bool) -> None:
    options = Options("cache" if cached else "recompute", False, multiplicity)
    whole = count(net.graph, net.stimulus, Trace(net.spikes), options)
    parts = [
        count(
            net.graph,
            {name: array[n : n + 1] for name, array in net.stimulus.items()},
            Trace({name: array[n : n + 1] for name, array in net.spikes.items()}),
            options,
        )
        for n in range(net.samples)
    ]
    together = concatenate(parts)
    assert_same(together, whole)
    assert together.stimulus == whole.stimulus


# --- levels, bundles, what is not counted --------------------------------------------------------------------------


@given(nets)
def test_the_form_of_a_network_counts_as_the_network(net: Net) -> None:
    assert_same(count(skeleton(net.graph), net.stimulus, Trace(net.spikes)), net.counts())


def overlapping(kind: Any = "mean") -> Graph:
    """Windows that overlap, with borders, on both sides of weights; two inputs, one of them numbers."""
    numbers = np.random.default_rng(4)
    nodes: dict[str, Op] = {
        "events": Input((1, 7, 7), Spike()),
        "numbers": Input((1, 7, 7), Spike()),
        "conv1": Conv(numbers.normal(0.3, 1.0, (2, 1, 3, 3)), numbers.normal(size=2), (1, 1), (1, 1)),
        "lif1": Neuron((2, 7, 7), beta=0.5),
        "pool": Pool(kind, (3, 3), (2, 2), (1, 1)),
        "conv2": Conv(numbers.normal(0.3, 1.0, (3, 2, 3, 3)), numbers.normal(size=3), (1, 1), (1, 1)),
        "lif2": Neuron((3, 4, 4), np.ones((3, 1, 1)), threshold=np.array([0.5, 1.0, 0.5]).reshape(3, 1, 1)),
        "fc": Dense(numbers.normal(size=(3, 48))),
        "readout": Readout((3,)),
        "output": Output(),
    }
    names = [name for name in nodes if name != "numbers"]
    return Graph(nodes, [*(Edge(a, b) for a, b in itertools.pairwise(names)), Edge("numbers", "conv1")])


@pytest.mark.parametrize("kind", ["mean", "sum", "max"])
def test_every_level_and_a_bundle_count_the_same_spikes_the_same(kind: Any, tmp_path: Path) -> None:
    """Populations in parts (two thresholds), relays and neurons that stand for a maximum included."""
    read, loihi = overlapping(kind), Target.load("loihi")
    numbers = np.random.default_rng(6)
    stimulus = {name: numbers.integers(0, 2, (2, 4, 1, 7, 7)).astype(float) for name in ("events", "numbers")}
    compiled = compile_graph(read, loihi, stimulus)
    fixed = compiled.levels["fixed"]
    trace = integer.run(fixed, encoded(fixed, stimulus), loihi)
    assert any(isinstance(op, Neuron) and op.part for op in fixed.nodes.values())
    expected = count(read, met(read, stimulus), trace, machine=fixed)
    assert expected.total("ac") > 0
    network = arrays_of(expected)
    beside = {layer.name for layer in expected.layers if layer.role == "relay"}
    assert beside == ({"pool", "pool_any"} if kind == "max" else set())
    for level in ("timed", "placed"):
        graph = compiled.levels[level]
        shown_by = Simulator(graph, loihi).run(encoded(graph, stimulus))
        save(Program(skeleton(read), "read", "loihi", 4), tmp_path)
        for of in (read, load(tmp_path).graph):
            found = arrays_of(count(of, met(of, stimulus), shown_by, machine=graph))
            assert found.keys() >= network.keys()
            for key, array in network.items():
                assert np.array_equal(found[key], array), (level, key)


def test_a_graph_that_is_no_lowered_form_is_refused() -> None:
    read = overlapping()
    with pytest.raises(GraphError, match=r"lif2 \(Neuron\): is no population of the machine's graph"):
        Counter(read, machine=read.edit({"lif2": None}))


UNCOUNTED: dict[str, Op] = {
    "SigmaDelta": SigmaDelta((3,)),
    "Resonator": Resonator((3,), np.full(3, 0.9), np.full(3, 0.1)),
}


@pytest.mark.parametrize("name", UNCOUNTED)
def test_an_op_that_no_convention_counts_is_named(name: str) -> None:
    shape = (2, 3) if name == "Resonator" else (3,)
    nodes: dict[str, Op] = {"in": Input(shape, Spike()), "odd": UNCOUNTED[name], "y": Output()}
    graph = Graph(nodes, [Edge(a, b) for a, b in itertools.pairwise(nodes)])
    with pytest.raises(GraphError, match=rf"odd \({name}\): its operations are not counted") as caught:
        count(graph, {"in": np.zeros((1, 1, *shape))}, Trace({}))
    assert caught.value.exit_code == 5
