"""Read-outs of several neurons a number: finer weights than one neuron has room for, and sums that are exact."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from snncompile.backends import net
from snncompile.compile import Compiled, compile_graph, encoded
from snncompile.energy import Counter
from snncompile.energy_conventions import Options
from snncompile.errors import GraphError, ReadError
from snncompile.fixed import FixedPoint
from snncompile.frontends.net import read
from snncompile.ir.check import check
from snncompile.ir.graph import Edge, Graph
from snncompile.ir.ops import Conv, Dense, Flatten, Input, Neuron, Op, Output, Readout, number, real
from snncompile.ir.signals import Spike
from snncompile.ir.text import arrays, from_text, same, to_text
from snncompile.passes.place import utilisation
from snncompile.passes.quantise_integers import Incoming
from snncompile.passes.quantise_unit import fewest_addends
from snncompile.run import integer, reference
from snncompile.run.cpu import Simulator
from snncompile.run.parts import merged
from snncompile.run.trace import Trace
from snncompile.target import Target
from snncompile.verify import Ladder, answers
from tests.drawing import Array
from tests.on_lava import Device, prove

LOIHI = Target.load("loihi")
STEPS = 60


def wide(bias: float = 0.05) -> tuple[Graph, dict[str, Array]]:
    """x -> 24 maps of 4 x 4 neurons -> 5 numbers summed over 60 steps, and spikes to show it."""
    numbers = np.random.default_rng(7)
    nodes: dict[str, Op] = {
        "x": Input((2, 6, 6), Spike()),
        "conv": Conv(numbers.standard_normal((24, 2, 3, 3)) / 2),
        "lif": Neuron((24, 4, 4), beta=number(0.5)),
        "flat": Flatten(),
        "out": Dense(numbers.standard_normal((5, 384))),
        "answer": Readout((5,), "sum", bias=np.full(5, bias)),
        "end": Output(),
    }
    names = list(nodes)
    graph = Graph(nodes, [Edge(one, other) for one, other in pairwise(names)])
    return graph, {"x": (numbers.random((6, STEPS, 2, 6, 6)) < 0.3).astype(float)}


def both() -> tuple[Compiled, Compiled, dict[str, Array]]:
    """With several neurons a number, and with one."""
    graph, stimulus = wide()
    several, one = (compile_graph(graph, LOIHI, stimulus, addends=several) for several in (True, False))
    return several, one, stimulus


def readout(done: Compiled) -> Readout:
    op = done.levels["fixed"].nodes["answer"]
    assert isinstance(op, Readout)
    return op


def test_several_neurons_a_number_lose_less() -> None:
    """384 inputs, 60 steps: one neuron has room for weights up to 131071 / 60 / 192 or so, about 11."""
    several, one, _ = both()
    op, single = readout(several), readout(one)
    assert (op.addends, op.shape) == (several.layers[-1].addends, (5 * op.addends,))
    assert (single.addends, single.shape) == (1, (5,))
    assert op.addends > 1
    assert op.unit < single.unit / 1.5
    assert several.layers[-1].error < one.layers[-1].error / 1.5
    assert several.layers[-1].potential.proven
    assert any(f"each of its 5 numbers is the sum of {op.addends} neurons" in note for note in several.notes)


@pytest.mark.parametrize(("maps", "side", "addends"), [(16, 24, 1), (16, 28, 2), (32, 28, 4)])
def test_what_no_core_holds_for_one_neuron_is_cut(maps: int, side: int, addends: int) -> None:
    """A core has 12,000 words, one for each input. Weights of 1 and -1 would have room in one neuron."""
    numbers = np.random.default_rng(7)
    wide = maps * side * side
    nodes: dict[str, Op] = {
        "x": Input((maps, side, side), Spike()),
        "flat": Flatten(),
        "out": Dense(numbers.choice([-1.0, 1.0], (40, wide))),  # no two columns are equal
        "answer": Readout((40,), "sum"),
        "end": Output(),
    }
    graph = Graph(nodes, [Edge(one, other) for one, other in pairwise(list(nodes))])
    stimulus = {"x": (numbers.random((1, 1, maps, side, side)) < 0.05).astype(float)}
    done = compile_graph(graph, LOIHI, stimulus)
    op = done.levels["placed"].nodes["answer"]
    assert isinstance(op, Readout)
    assert (op.addends, op.shape) == (addends, (40 * addends,))
    most = max(use.synaptic_words for _, use in utilisation(done.levels["placed"], LOIHI)["answer"])
    assert wide / addends <= most <= 12000
    rungs = [rung.verdict for rung in Ladder(done, stimulus, None, None).rungs(with_lava=False)]
    assert rungs[-3:-1] == ["bit-equal", "bit-equal"]


def test_equal_columns_are_stored_once_and_need_no_cut() -> None:
    """A pool in the weights: 64 places of each of 512 maps have the same weights."""
    numbers = np.random.default_rng(7)
    weight = np.repeat(numbers.standard_normal((2, 512)), 64, axis=1)
    dense = Dense(weight)
    values = np.zeros((1, 1, 512, 8, 8))
    item = Incoming(("w",), dense, 1.0, 1, False, values, values, 0)
    assert fewest_addends([item], LOIHI) == 1
    assert fewest_addends([replace(item, synapse=Dense(weight + numbers.random(weight.shape)))], LOIHI) == 4


def test_each_source_is_read_by_one_of_the_neurons_of_a_number() -> None:
    several, _, _ = both()
    op, dense = readout(several), several.levels["fixed"].nodes["out"]
    assert isinstance(dense, Dense)
    assert isinstance(dense.weight, FixedPoint)
    by_number = dense.weight.mantissa.reshape(op.addends, 5, 24, 16)
    runs = (by_number != 0).any(axis=(1, 3))  # [addends, channels]
    assert runs.sum(axis=0).tolist() == [1] * 24
    assert np.argmax(runs, axis=0).tolist() == sorted(np.argmax(runs, axis=0).tolist())
    assert np.bincount(np.argmax(runs, axis=0)).tolist() == [24 // op.addends] * op.addends
    assert not real(op.bias)[5:].any()
    assert real(op.bias)[:5].all()
    worst = np.maximum(by_number, 0).sum(axis=(2, 3)).max(), np.maximum(-by_number, 0).sum(axis=(2, 3)).max()
    assert STEPS * max(worst) <= 131071


def test_the_sums_are_exact_and_near_those_of_the_network() -> None:
    several, one, stimulus = both()
    fixed, op = several.levels["fixed"], readout(several)
    trace = integer.run(fixed, encoded(fixed, stimulus), LOIHI)
    shown = merged(fixed, trace)
    total = trace.potentials["answer"].reshape(6, STEPS, op.addends, 5).sum(axis=2)
    np.testing.assert_array_equal(shown.potentials["answer"], total)
    assert merged(fixed, shown).potentials["answer"] is shown.potentials["answer"]  # sums are not summed again
    assert answers(fixed, trace).tolist() == answers(fixed, shown).tolist() == total[:, -1].argmax(axis=1).tolist()
    exact = reference.run(several.levels["folded"], stimulus, forced=trace.spikes).potentials["answer"][:, -1]
    single = integer.run(one.levels["fixed"], encoded(one.levels["fixed"], stimulus), LOIHI, forced=trace.spikes)
    off = [
        np.abs(values[:, -1] * unit / 64 - exact).max()
        for values, unit in ((total, op.unit), (single.potentials["answer"], readout(one).unit))
    ]
    assert off[0] < off[1] / 2


def test_every_neuron_of_a_number_is_compared() -> None:
    several, _, stimulus = both()
    ladder = Ladder(several, stimulus["x"], np.arange(6) % 5, None)
    rungs = list(ladder.rungs(with_lava=False))
    assert [rung.verdict for rung in rungs[-3:-1]] == ["bit-equal", "bit-equal"]
    assert rungs[-2].compared == 6 * STEPS * (2 * 384 + 5 * readout(several).addends)
    assert "after, n = 6" in rungs[-4].note


def test_what_it_costs_is_the_neurons_alone() -> None:
    """Synapses without a weight are none: the same operations, but for the states of more neurons."""
    several, one, stimulus = both()
    found = []
    for done in (several, one):
        fixed = done.levels["fixed"]
        integers = encoded(fixed, stimulus)
        counts = Counter(fixed, Options("recompute", False, "unary")).count(
            integers, Simulator(fixed, LOIHI).run(integers)
        )
        (layer,) = [layer for layer in counts.layers if layer.name == "out"]
        found.append(layer)
    assert found[0].columns["ac"].sum() > 0
    assert found[0].columns["ac"].tolist() == found[1].columns["ac"].tolist()
    assert found[0].synapses == found[1].synapses


def test_network_net_says_of_how_many_outputs_an_answer_is_the_sum(tmp_path: Path) -> None:
    numbers = np.random.default_rng(3)
    graph = Graph(
        {
            "x": Input((40,), Spike()),
            "w": Dense(FixedPoint(2 * numbers.integers(-9, 9, (6, 40)))),
            "answer": Readout((6,), "sum", FixedPoint.number(0), phase=1, addends=3),
            "end": Output(),
        },
        [Edge("x", "w", 1), Edge("w", "answer"), Edge("answer", "end")],
    )
    assert net.export(graph, tmp_path / "network.net", 5) is None
    assert "each of the 2 answers is a sum of 3 outputs, 2 apart" in net.loading(graph, 5)
    back = read(tmp_path / "network.net").graph
    (name,) = back.names(Readout)
    op = back.nodes[name]
    assert isinstance(op, Readout)
    assert (op.shape, op.addends) == ((6,), 3)
    import h5py

    with h5py.File(tmp_path / "network.net", "r+") as file:
        del file["layer/1/addends"]
        file["layer/1/addends"] = 4
    with pytest.raises(ReadError, match="6 neurons are no 4 for each number"):
        read(tmp_path / "network.net")


def test_numbers_that_meet_others_keep_one_neuron() -> None:
    """An output that adds two read-outs adds them neuron by neuron."""
    graph, stimulus = wide()
    more = graph.edit(
        {"out2": graph.nodes["out"], "answer2": graph.nodes["answer"]},
        [*graph.edges, Edge("flat", "out2"), Edge("out2", "answer2"), Edge("answer2", "end")],
    )
    done = compile_graph(more, LOIHI, stimulus)
    assert [readout(done).addends, readout(done).shape] == [1, (5,)]


@pytest.mark.parametrize("addends", [0, 4, -1])
def test_neurons_that_do_not_divide_are_refused(addends: int) -> None:
    graph = Graph(
        {"x": Input((2,), Spike()), "w": Dense(np.eye(6, 2)), "r": Readout((6,), addends=addends), "end": Output()},
        [Edge("x", "w"), Edge("w", "r"), Edge("r", "end")],
    )
    with pytest.raises(GraphError, match="addends_make_numbers"):
        check(graph, "read")


def test_the_text_form_keeps_them() -> None:
    several, _, _ = both()
    fixed = several.levels["fixed"]
    back = from_text(to_text(fixed), arrays(fixed))
    assert same(fixed, back)
    op = back.nodes["answer"]
    assert isinstance(op, Readout)
    assert op.addends == readout(several).addends
    with pytest.raises(GraphError, match="no number of addends"):
        from_text(to_text(fixed).replace(f"addends={op.addends}", "addends='2'"), arrays(fixed))


def test_onnx_gives_the_sums() -> None:
    """The outputs of the step graph are the numbers; its states are the neurons."""
    from snncompile.backends import onnx, onnxruntime
    from snncompile.backends.step_example import history

    several, _, stimulus = both()
    fixed = several.levels["fixed"]
    made = onnx.model(several.logical, LOIHI)
    integers = encoded(fixed, {name: array[:3] for name, array in stimulus.items()})
    (output,) = [one for one in onnx.told_by(made)["outputs"] if one["what"] == "value"]
    assert output["shape"] == [5]
    ran = onnxruntime.Session(made, onnx.told_by(made), threads=1).run(integers)
    known = history(fixed, integers, LOIHI).potentials["answer"]
    sums = np.stack(known, axis=1).reshape(3, STEPS, -1, 5).sum(axis=2)
    np.testing.assert_array_equal(ran.outputs[output["name"]], sums)


@pytest.mark.lava
def test_they_are_bit_equal_on_lava() -> None:
    several, _, stimulus = both()
    (proven,) = prove([Device.of(several, {name: array[:2] for name, array in stimulus.items()})], LOIHI)
    assert proven.different == 0
    assert proven.compared == 2 * STEPS * (2 * 384 + 5 * readout(several).addends)
    assert isinstance(Ladder(several, stimulus["x"][:1], None, None).on_device()[0], Trace)
