"""One synapse between two populations, and refusals by name with the line of the sheet."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given

from snncompile.compile import fold
from snncompile.errors import LoweringError, NotRepresentable
from snncompile.ir.connections import connections
from snncompile.ir.graph import Edge, Graph
from snncompile.ir.ops import By, Conv, Dense, Flatten, Input, Neuron, Norm, Op, Output, Pool, Readout, Scale, To
from snncompile.ir.shapes import shapes
from snncompile.ir.signals import Analog, Count, Spike
from snncompile.ir.text import from_text, same, to_text
from snncompile.passes.legalise import legalise
from snncompile.run import reference
from snncompile.run.trace import first_divergence
from snncompile.target import Target
from tests.graphs import Case, read_cases

LOIHI = Target.load("loihi")
BEFORE = """\
x    = Input(shape=[1, 2, 2], signal={'kind': 'spike', 'amplitude': 1.0})
w    = Conv(weight=[[[[2.0]]]]) <- x
a    = Neuron(shape=[1, 2, 2]) <- w
pool = Pool(kind='sum', kernel=[2, 2], stride=[2, 2]) <- a, w
flat = Flatten() <- pool
fc   = Dense(weight=[[1.0], [3.0]]) <- flat
b    = Neuron(shape=[2]) <- fc
out  = Output() <- b
"""
AFTER = """\
x         = Input(shape=[1, 2, 2], signal={'kind': 'spike', 'amplitude': 1.0})
fc_from_x = Dense(weight=[[2.0, 2.0, 2.0, 2.0], [6.0, 6.0, 6.0, 6.0]]) <- x
w         = Conv(weight=[[[[2.0]]]]) <- x
a         = Neuron(shape=[1, 2, 2]) <- w
fc        = Dense(weight=[[1.0, 1.0, 1.0, 1.0], [3.0, 3.0, 3.0, 3.0]]) <- a
b         = Neuron(shape=[2]) <- fc, fc_from_x
out       = Output() <- b
"""


def test_before_and_after() -> None:
    legal = legalise(from_text(BEFORE), LOIHI).graph
    assert sorted(to_text(legal).splitlines()) == sorted(AFTER.splitlines())
    assert same(legalise(legal, LOIHI).graph, legal)


@given(read_cases(plain=True))
def test_spikes_and_potentials_stay_on_random_networks(case: Case) -> None:
    try:
        folded, _ = fold(case.graph)
    except LoweringError:  # a norm over a signal without weights stays
        assume(False)
    legal = legalise(folded, LOIHI).graph
    assert {connection.synapse for connection in connections(legal)} <= set(legal.nodes)
    shapes(legal)
    before, after = (reference.run(graph, case.stimulus) for graph in (folded, legal))
    assert first_divergence(before, after, case.graph.order) is None
    assert same(legalise(legal, LOIHI).graph, legal)


def test_a_matrix_takes_the_form_of_its_population() -> None:
    """34 x 34 pixels pooled twice leave a row over (N-MNIST), and a padded convolution must not see it."""
    nodes: dict[str, Op] = {"x": Input((1, 5, 5), Spike()), "pool": Pool("sum", (2, 2), (2, 2))}
    nodes |= {"conv": Conv(np.arange(9.0).reshape(1, 1, 3, 3), padding=(1, 1)), "n": Neuron((1, 2, 2), threshold=9.0)}
    edges = [Edge("x", "pool"), Edge("pool", "conv"), Edge("conv", "n"), Edge("n", "out")]
    graph = Graph(nodes | {"out": Output()}, edges)
    legal = legalise(graph, LOIHI).graph
    assert isinstance(legal.nodes["conv"], Dense)
    assert to_text(legal).splitlines()[2].split(" = ")[1] == "Flatten(shape=[1, 2, 2]) <- conv"
    x = {"x": np.random.default_rng(0).integers(0, 2, (3, 4, 1, 5, 5))}
    assert first_divergence(reference.run(graph, x), reference.run(legal, x), graph.order) is None


@pytest.mark.parametrize("factor", [0.25, np.arange(1.0, 5.0) / 4, np.arange(1.0, 17.0) / 4])
def test_a_pool_may_end_in_neurons(factor: Any) -> None:
    """With a factor that is one number, one a channel, or one a neuron behind a flatten."""
    chain: dict[str, Op] = {"x": Input((4, 4, 4), Spike()), "pool": Pool("sum", (2, 2), (2, 2))}
    size: tuple[int, ...] = (4, 2, 2)
    if np.size(factor) == 16:
        chain["flat"], size = Flatten(), (16,)
    chain["scale"] = Scale(factor.reshape(4, 1, 1) if np.size(factor) == 4 else factor)
    chain |= {"n": Neuron(size), "out": Output()}
    names = list(chain)
    graph = Graph(chain, [Edge(names[i], names[i + 1]) for i in range(len(names) - 1)])
    x = {"x": np.random.default_rng(0).integers(0, 2, (3, 4, 4, 4, 4))}
    legal = legalise(graph, LOIHI).graph
    assert first_divergence(reference.run(graph, x), reference.run(legal, x), graph.order) is None


# --- refusals ---------------------------------------------------------------------------------------------------------


def chain(*ops: Op, shape: tuple[int, ...] = (2,), signal: Any = None) -> Graph:
    nodes: dict[str, Op] = {"x": Input(shape, signal or Spike())}
    nodes |= {f"op{index}": op for index, op in enumerate(ops)} | {"out": Output()}
    names = list(nodes)
    return Graph(nodes, [Edge(names[i], names[i + 1]) for i in range(len(names) - 1)])


EYE = Dense(np.eye(2))
MAX = Pool("max", (2,), (2,), (0,))


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        (chain(EYE, Neuron((2,), reset=By(1.0))), r"op1 \(Neuron\): soft reset \(targets/loihi.toml:\d+, neuron"),
        (chain(EYE, Neuron((2,), reset=To(0.5))), r"starts from another potential than its reset \(targets/loihi"),
        (chain(EYE, Neuron((2,), initial=0.5)), r"starts from another potential than its reset \(targets/loihi"),
        (chain(EYE, Neuron((2,), fires=">=")), r"it fires at >=, the machine at > \(targets/loihi.toml:\d+"),
        (chain(EYE, Flatten((1, 2)), Neuron((1, 2), threshold=[1.0, 2.0])), r"differs inside a channel \(targets/"),
        (chain(EYE, Neuron((2,), threshold=-1.0)), r"its threshold -1 lies below 0 \(targets/loihi.toml:\d+"),
        (chain(EYE, Neuron((2,), alpha=0.0)), r"alpha must lie in \(0, 1\]"),
        (chain(EYE, Neuron((2,), beta=1.5)), r"beta must lie in \[0, 1\]"),
        (chain(MAX, Neuron((2, 1)), shape=(2, 2), signal=Analog()), r"op0 \(Pool\): a maximum of anything but"),
        (chain(MAX, Neuron((2, 1)), shape=(2, 2), signal=Count(2)), r"op0 \(Pool\): a maximum of anything but"),
        (chain(Norm(0.0, 1.0, 1.0, 0.0), Neuron((2,))), r"op0 \(Norm\): a norm that is not folded"),
        (chain(EYE, Readout((2,), "last", decay=0.0)), r"the read-out 'last' needs an accumulator"),
        (chain(Dense(np.eye(2), [1.0, 2.0]), Neuron((2,))), r"op0 \(Dense\): its bias is not constant"),
        (chain(EYE), r"out \(Output\): reads a signal that no population holds"),
    ],
)  # fmt: skip
def test_it_refuses_by_name(graph: Graph, message: str) -> None:
    with pytest.raises(NotRepresentable, match=message):
        legalise(graph, LOIHI)


def test_all_faults_are_told_at_once() -> None:
    graph = chain(EYE, Neuron((2,), reset=By(1.0), initial=1.0), Dense(np.eye(2)), Neuron((2,), threshold=-1.0))
    with pytest.raises(NotRepresentable) as error:
        legalise(graph, LOIHI)
    lines = str(error.value).splitlines()
    assert len(lines) == 4
    assert "op1" in lines[1]
    assert "op1" in lines[2]
    assert "op3" in lines[3]


def test_binary_machines_refuse_numbers() -> None:
    binary = replace(LOIHI, spike=replace(LOIHI.spike, graded=False))
    graph = chain(EYE, Neuron((2,)), signal=Analog())
    legalise(graph, LOIHI)
    with pytest.raises(NotRepresentable, match=r"the input is analog, the machine receives binary spikes \(targets/"):
        legalise(graph, binary)
