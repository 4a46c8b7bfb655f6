"""The order of the passes: what is noted, what is refused and in whose name, what data are admitted."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from snncompile import compile as compiling
from snncompile.compile import compile_graph, encoded, fold, shown
from snncompile.errors import DoesNotFit, GraphError, InternalError, LoweringError, NotRepresentable
from snncompile.fixed import FixedPoint
from snncompile.frontends.torch import read_module
from snncompile.ir.check import LEVELS, check
from snncompile.ir.graph import Edge, Graph
from snncompile.ir.ops import By, Dense, Input, Neuron, Norm, Op, Output, Readout, number
from snncompile.ir.signals import Analog, Count, Fixed, Signal, Signed, Spike
from snncompile.ir.text import to_text
from snncompile.passes import Passed
from snncompile.target import Target
from tests.tiny import STEPS, images, network, recipe

LOIHI = Target.load("loihi")
ONES = {"input": np.ones((2, 3, 2))}


def chain(signal: Signal | None = None, **neuron: Any) -> Graph:
    """input -> fc -> lif -> output."""
    nodes: dict[str, Op] = {
        "input": Input((2,), signal or Spike()),
        "fc": Dense(np.array([[1.0, 0.25], [-0.5, 0.75]])),
        "lif": Neuron((2,), **neuron),
        "output": Output(),
    }
    return Graph(nodes, [Edge("input", "fc"), Edge("fc", "lif"), Edge("lif", "output")])


def normed(variance: float = 1.0, *, skip: bool = False) -> Graph:
    """The chain with a norm; ``skip``: its weights are read by somebody else as well."""
    graph = chain()
    nodes = {**graph.nodes, "norm": Norm(np.zeros(2), np.full(2, variance), np.ones(2), np.zeros(2), 0.0)}
    edges = [Edge("input", "fc"), Edge("fc", "norm"), Edge("norm", "lif"), Edge("lif", "output")]
    if skip:
        nodes |= {"other": Neuron((2,)), "other_output": Output()}
        edges += [Edge("fc", "other"), Edge("other", "other_output")]
    return Graph(nodes, edges)


# --- what comes out ---------------------------------------------------------------------------------------------------


def test_every_level_is_what_its_grammar_admits() -> None:
    graph = read_module(network(recipe()))
    log: list[str] = []
    stimulus = {"input": shown(graph, images(4), STEPS)["input"].astype(np.float64)}
    compiled = compile_graph(graph, LOIHI, stimulus, log.append)
    assert tuple(compiled.levels) == LEVELS
    for level, made in compiled.levels.items():
        check(made, level, LOIHI)
    assert compiled.levels["read"] is graph
    assert compiled.steps == STEPS
    program = compiled.program
    assert (program.level, program.target, program.steps, program.stream) == ("placed", "loihi", STEPS, True)
    assert program.graph is compiled.levels["placed"]
    assert {layer.name for layer in compiled.layers} == set(graph.names(Neuron, Readout))
    assert log[0].startswith("folded: ")
    assert log[1].startswith("fixed: lif1 ")
    assert log[1].endswith("% error in thresholds")
    assert re.match(r"fixed: \d+ of [\d,]+ spikes differ layer by layer \(\d+ by the potential's scales\)", log[2])
    assert log[3].startswith("placed: ")
    assert compiled.notes[-1].startswith("place: ")


def test_the_same_network_gives_the_same_program() -> None:
    graph = read_module(network(recipe()))
    stimulus = {"input": shown(graph, images(4), STEPS)["input"].astype(np.float64)}
    one, other = (compile_graph(graph, LOIHI, stimulus) for _ in range(2))
    for level in LEVELS:
        assert to_text(one.levels[level]) == to_text(other.levels[level])


def test_folding_needs_no_target_and_notes_what_it_did() -> None:
    folded, notes = fold(normed())
    check(folded, "folded")
    assert not folded.names(Norm)
    assert notes == ()


# --- refusals ---------------------------------------------------------------------------------------------------------


def test_a_norm_that_stays_is_refused_with_its_reason() -> None:
    ones = np.ones(5000)
    nodes = {"x": Input((5000,)), "norm": Norm(ones, ones, ones, ones), "n": Neuron((5000,)), "out": Output()}
    with pytest.raises(LoweringError) as caught:
        fold(Graph(nodes, [Edge("x", "norm"), Edge("norm", "n"), Edge("n", "out")]))
    said = str(caught.value)
    assert "cannot be folded" in said
    assert "norm (Norm) stays: nothing before it has weights of its own" in said


def test_a_norm_whose_weights_have_another_reader_is_folded() -> None:
    folded, notes = fold(normed(skip=True))
    assert not folded.names(Norm)
    assert not any("stays" in note for note in notes)


@pytest.mark.parametrize("variance", [-1.0, 0.0])
def test_a_norm_without_a_variance_is_the_network_s_fault(variance: float) -> None:
    with pytest.raises(GraphError, match=r"norm \(Norm\): its variance is not positive"):
        fold(normed(variance))


def test_a_fault_of_the_network_is_a_graph_error() -> None:
    graph = chain()
    assert isinstance(graph.nodes["fc"], Dense)
    wrong = graph.edit({"fc": Dense(np.full((2, 2), np.nan))})
    with pytest.raises(GraphError, match=r"fc \(Dense\): 4 of its weight are not finite \[parameters_are_finite\]"):
        compile_graph(wrong, LOIHI, ONES)


@pytest.mark.parametrize(
    ("neuron", "message"),
    [
        ({"reset": By(number(1.0))}, r"soft reset \(targets/loihi.toml:\d+, neuron.soft_reset"),
        ({"initial": number(0.5)}, r"potential.* \(targets/loihi.toml:\d+, neuron.initial_potential"),
    ],
)
def test_neurons_that_the_chip_lacks_are_refused_by_name(neuron: dict[str, Any], message: str) -> None:
    with pytest.raises(NotRepresentable, match=r"loihi: lif \(Neuron\): .*" + message):
        compile_graph(chain(**neuron), LOIHI, ONES)


def test_what_cannot_fit_is_said_before_its_integers_are_sought(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling, "quantise", None)
    small = replace(LOIHI, core=replace(LOIHI.core, neurons=1), chip_cores=1, boards=())
    with pytest.raises(DoesNotFit, match=r"targets/loihi.toml:\d+, c"):
        compile_graph(chain(), small, ONES)


# --- faults of a pass are ours ----------------------------------------------------------------------------------------


def broken(graph: Graph) -> Graph:
    """No level from ``fixed`` on admits a real threshold."""
    op = graph.nodes["lif"]
    assert isinstance(op, Neuron)
    return graph.edit({"lif": replace(op, threshold=number(0.3), alpha=number(0.7))})


@pytest.mark.parametrize(("name", "level"), [("quantise", "fixed"), ("balance", "timed"), ("place", "placed")])
def test_a_pass_that_breaks_the_graph_is_our_fault(name: str, level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    original = getattr(compiling, name)
    made: list[Graph] = []

    def sabotaged(*arguments: Any, **options: Any) -> Any:
        result = original(*arguments, **options)
        if name == "place" and not made and not isinstance(next(iter_threshold(arguments[0])), FixedPoint):
            return result  # placed before it is quantised, to see whether it fits
        made.append(broken(result.graph))
        return replace(result, graph=made[-1])

    monkeypatch.setattr(compiling, name, sabotaged)
    with pytest.raises(InternalError) as caught:
        compile_graph(chain(), LOIHI, ONES)
    said = str(caught.value)
    assert "level " in said
    assert "lif (Neuron): its threshold is real [parameters_are_integers]" in said
    assert said.endswith(to_text(made[-1])), "with the graph as text"


def iter_threshold(graph: Graph) -> Any:
    return (op.threshold for op in graph.nodes.values() if isinstance(op, Neuron))


def test_a_fold_that_leaves_a_norm_without_a_word_is_our_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling, "fold_norm", Passed)

    class Silent:
        __name__ = "fold_norm"

        def __call__(self, graph: Graph) -> Passed:
            return Passed(graph)

    monkeypatch.setattr(compiling, "fold_norm", Silent())
    graph = normed()
    with pytest.raises(InternalError) as caught:
        fold(graph)
    assert "norm (Norm) is left [norms_are_folded]" in str(caught.value)
    assert str(caught.value).endswith(to_text(graph))


# --- data -------------------------------------------------------------------------------------------------------------


def test_images_are_shown_at_every_step_and_frames_as_they_are() -> None:
    graph = chain(Analog())
    image = np.array([[1.0, 2.0], [3.0, 4.0]])
    found = shown(graph, image, 3)["input"]
    assert found.shape == (2, 3, 2)
    assert found[:, 0].tolist() == found[:, 2].tolist() == image.tolist()
    frames = np.arange(12.0).reshape(2, 3, 2)
    assert shown(graph, frames, 3)["input"] is frames


def test_data_of_another_shape_are_refused() -> None:
    message = r"input: data of shape \[2, 4, 2\] fit neither images \[2\] nor frames \[3, 2\]"
    with pytest.raises(GraphError, match=message):
        shown(chain(), np.zeros((2, 4, 2)), 3)
    two = Graph({**chain().nodes, "more": Input((2,))}, chain().edges)
    with pytest.raises(GraphError, match="stimulus: has 2 inputs, one array was given"):
        shown(two, np.zeros((2, 2)), 3)


@pytest.mark.parametrize(
    ("signal", "good", "bad"),
    [
        (Spike(), [0, 1], [2, -1, 0.5]),
        (Spike(0.25), [0, 0.25], [1, 0.5, 0.1]),
        (Count(3), [0, 1, 3], [4, -1, 1.5]),
        (Count(3, 0.1), [0, 0.1, 0.2, 0.3], [0.4, 0.15, -0.1]),
        (Signed(), [-1, 0, 1], [2, 0.5]),
        (Analog(), [0.3, -7, 1e6], []),
        (Fixed(4, 0.5), [0.3, 99], []),
    ],
)
def test_values_that_an_input_does_not_declare_are_refused(signal: Signal, good: list[float], bad: list[float]) -> None:
    """A machine would clip them, and every rung below would be right about the wrong data."""
    graph = chain(signal)
    for value in good:
        assert shown(graph, np.full((1, 2), value), 3)["input"].max() == value
    for value in bad:
        with pytest.raises(GraphError, match=rf"input \(Input\): its data hold {value:g}, which it does not declare"):
            shown(graph, np.array([[0, value]]), 3)


def test_reals_become_the_integers_of_the_input() -> None:
    graph = chain(Fixed(4, 0.5))
    given = {"input": np.array([[[0.24, 0.25], [-0.25, 99.0]]])}
    assert encoded(graph, given)["input"].tolist() == [[[0, 1], [-1, 7]]]
    assert encoded(chain(Spike(0.5)), {"input": np.array([[[0.5, 0.0]]])})["input"].tolist() == [[[1, 0]]]
