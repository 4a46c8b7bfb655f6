"""Loops made longer where that is asked for: what is later, that the result can be balanced, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from snncompile.compile import compile_graph
from snncompile.errors import LoopTooShort, NotRepresentable
from snncompile.frontends.torch import read_module
from snncompile.ir.connections import connections
from snncompile.ir.graph import Graph
from snncompile.ir.ops import Neuron
from snncompile.passes.longer_loops import longer_loops
from snncompile.recipe import Recipe
from snncompile.target import Target
from snncompile.train.networks import Network
from snncompile.verify import Ladder
from tests.tiny import network as drawn

FREE = Target.load("loihi-custom")
STEPS = 12


def recipe(architecture: str, reset: str = "subtract") -> Recipe:
    tables: dict[str, dict[str, object]] = {
        "recipe": {"name": "loop", "summary": "a test", "method": "ide", "source": "nobody"},
        "network": {"input": [1, 8, 8], "architecture": architecture},
        "neuron": {"decay": 1.0, "threshold": 2.0, "fires": ">=", "reset": reset},
        "ide": {"steps": STEPS},
        "training": {"epochs": 1, "batch": 16, "learning_rate": 0.05, "seed": 3},
        "data": {"name": "digits"},
    }
    return Recipe.from_dict(tables, "a test")


def network(architecture: str, reset: str = "subtract") -> Network:
    return drawn(recipe(architecture, reset))


def delays(graph: Graph) -> dict[str, int]:
    return {one.synapse: one.delay for one in connections(graph)}


def images() -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float64]]]:
    x = np.random.default_rng(1).random((6, 1, 1, 8, 8))
    return {"input": np.broadcast_to(x, (6, STEPS, 1, 8, 8)).copy()}


THREE = "Loop(4C3-6C3S2-6C3|4T3S2)-10FC"


def test_every_synapse_of_the_loop_gets_the_step_that_it_takes() -> None:
    graph = read_module(network(THREE))
    with pytest.raises(LoopTooShort, match="has a delay of 1 step and needs 3"):
        compile_graph(graph, FREE, images())
    compiled = compile_graph(graph, FREE, images(), equilibrium=True)
    assert delays(compiled.levels["fixed"]) == {"conv1": 0, "feedback1": 1, "conv2": 1, "conv3": 1, "fc1": 0}
    assert compiled.later == (
        "conv2 arrives 1 step later than trained",
        "conv3 arrives 1 step later than trained",
    )
    phases = {name: op.phase for name, op in compiled.levels["timed"].nodes.items() if isinstance(op, Neuron)}
    assert len(set(phases.values())) == 1  # so that no bias fires into the sample while the pipeline fills


def test_the_ladder_says_what_it_is_and_measures_it() -> None:
    net = network(THREE)
    compiled = compile_graph(read_module(net), FREE, images(), equilibrium=True)
    rungs = list(Ladder(compiled, images(), None, None).rungs(with_lava=False))
    fixed = next(rung for rung in rungs if rung.level == "fixed")
    assert "EQUILIBRIUM-EQUIVALENT, not spike-exact" in fixed.note
    assert fixed.rate_error is not None
    assert set(fixed.rate_error) == {"lif1", "lif2", "lif3"}
    assert all(0.0 < error < 0.5 for error in fixed.rate_error.values())
    assert [rung.verdict for rung in rungs if rung.level in ("timed", "placed")] == ["bit-equal", "bit-equal"]


@pytest.mark.parametrize("architecture", ["Loop(8FC|8FC)-10FC", "4C3-10FC"])
def test_what_is_long_enough_stays_as_it_is(architecture: str) -> None:
    compiled = compile_graph(read_module(network(architecture)), FREE, images(), equilibrium=True)
    assert compiled.later == ()
    again = compile_graph(read_module(network(architecture)), FREE, images())
    assert delays(again.levels["fixed"]) == delays(compiled.levels["fixed"])


def test_a_second_time_changes_nothing() -> None:
    fixed = compile_graph(read_module(network(THREE)), FREE, images(), equilibrium=True).levels["fixed"]
    passed = longer_loops(fixed, FREE)
    assert passed.graph is fixed
    assert passed.notes == ()


def test_neurons_that_forget_are_refused() -> None:
    with pytest.raises(NotRepresentable, match="too short, and forgets its potential when it fires"):
        compile_graph(read_module(network(THREE, "zero")), FREE, images(), equilibrium=True)
