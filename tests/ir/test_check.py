"""The grammar of the levels: what each refuses, all of it at once, and what the passes make of random networks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given

from snncompile.errors import GraphError
from snncompile.fixed import FixedPoint
from snncompile.ir.check import LEVELS, Level, check
from snncompile.ir.graph import Edge, Graph
from snncompile.ir.ops import Dense, Input, Neuron, Norm, Op, Output, Pool, Readout, Scale, Slice
from snncompile.ir.signals import Spike
from snncompile.passes.balance import balance
from snncompile.passes.place import place
from snncompile.target import Target
from tests.graphs import Case, fixed_cases, read_cases
from tests.passes.test_balance import neuron

LOIHI = Target.load("loihi")


def chain(*ops: Op, shape: tuple[int, ...] = (2,), delay: int = 0) -> Graph:
    nodes: dict[str, Op] = {"x": Input(shape, Spike())}
    nodes |= {f"op{index}": op for index, op in enumerate(ops)} | {"out": Output()}
    names = list(nodes)
    return Graph(nodes, [Edge(names[i], names[i + 1], 0 if i else delay) for i in range(len(names) - 1)])


def weights(value: int = 2, exponent: int = 0) -> Dense:
    return Dense(FixedPoint(np.full((2, 2), value), exponent))


FINE = neuron(2, threshold=3)


def placed(*slices: Slice) -> Graph:
    return chain(weights(), replace(FINE, phase=1, cores=slices), delay=1)


@pytest.mark.parametrize(
    ("level", "graph", "message"),
    [
        ("read", Graph({"o": Output()}, []), "the graph has no input"),
        ("read", Graph({"x": Input((1,))}, []), "the graph has no output"),
        ("read", chain(Dense(np.eye(3))), r"op0 \(Dense\): weights \[3, 3\] do not take \[2\] \[shapes_agree\]"),
        ("read", chain(Dense(np.eye(2) * np.nan)), r"op0 \(Dense\): 4 of its weight are not finite"),
        ("read", chain(Neuron((2,), threshold=np.inf)), r"op0 \(Neuron\): 1 of its threshold are not finite"),
        ("folded", chain(Norm(0.0, 1.0, 1.0, 0.0)), r"op0 \(Norm\) is left \[norms_are_folded\]"),
        ("folded", chain(Pool("mean", (1,), (1,), (0,)), shape=(2, 2)), r"op0 \(Pool\) is a mean"),
        ("folded", chain(Neuron((2,), fires=">=")), r"op0 \(Neuron\) is not in the canonical form"),
        ("folded", chain(Neuron((2,), rest=0.5)), r"op0 \(Neuron\) is not in the canonical form"),
        ("fixed", chain(Dense(np.eye(2)), FINE), r"op0 \(Dense\): its weight is real \[parameters_are_integers\]"),
        ("fixed", chain(FINE), "x reaches op0 without weights"),
        ("fixed", chain(weights(), weights(), FINE), "op0 and op1 follow each other|op1 and op0 follow each other"),
        ("fixed", chain(weights(3), FINE), r"op0 \(Dense\): 4 weights are none of the machine's"),
        ("fixed", chain(weights(256), FINE), r"op0 \(Dense\): 4 weights are none of the machine's"),
        ("fixed", chain(weights(2, 1), FINE), r"op0 \(Dense\): 0 weights are none of the machine's"),
        ("fixed", chain(weights(), neuron(2, threshold=131072)), r"op1 \(Neuron\): its threshold .*outside"),
        ("fixed", chain(weights(), neuron(2, threshold=-1)), r"op1 \(Neuron\): its threshold .*outside"),
        ("fixed", chain(weights(), neuron(2, threshold=1, bias=5000)), r"op1 \(Neuron\): its bias is outside"),
        ("timed", chain(weights(), FINE), r"op0 \(Dense\): a delay of -1 is not on the machine \[delays_fit\]"),
        ("timed", chain(weights(), replace(FINE, phase=2), delay=1), r"op0 \(Dense\) delivers before its target"),
        ("placed", placed(), r"op1 \(Neuron\): its cores hold 0 of 2 neurons"),
        ("placed", placed(Slice(0, 0, 1)), r"op1 \(Neuron\): its cores hold 1 of 2 neurons"),
        ("placed", placed(Slice(0, 1, 1), Slice(1, 0, 1)), r"op1 \(Neuron\): slice .* is out of place"),
        ("placed", placed(Slice(120 * 1152, 0, 2)), r"op1 \(Neuron\): slice .* is out of place"),
    ],
)  # fmt: skip
def test_each_rule_names_what_breaks_it(level: Level, graph: Graph, message: str) -> None:
    with pytest.raises(GraphError, match=message) as error:
        check(graph, level, LOIHI)
    assert error.value.where == f"level {level}"


def test_all_faults_of_a_level_are_told_at_once() -> None:
    graph = chain(Norm(0.0, 1.0, 1.0, 0.0), Neuron((2,), fires=">="), Scale(1.0), Neuron((2,), gain=2.0))
    with pytest.raises(GraphError, match="3 faults:") as error:
        check(graph, "folded")
    assert [line.split()[0] for line in str(error.value).splitlines()[1:]] == ["op0", "op1", "op3"]


def test_levels_from_fixed_on_need_a_target() -> None:
    with pytest.raises(GraphError, match="needs a target"):
        check(chain(weights(), FINE), "fixed")


@given(read_cases(), fixed_cases())
def test_random_networks_are_what_their_level_admits(read: Case, fixed: Case) -> None:
    check(read.graph, "read")
    timed = balance(fixed.graph, LOIHI).graph
    stages: dict[Level, Any] = {"fixed": fixed.graph, "timed": timed, "placed": place(timed, LOIHI).graph}
    for level, graph in stages.items():
        for lower in LEVELS[: LEVELS.index(level) + 1]:
            check(graph, lower, LOIHI)


def test_a_readout_is_checked_like_its_population() -> None:
    graph = chain(weights(), Readout((2,), bias=FixedPoint.number(5000)))
    with pytest.raises(GraphError, match=r"op1 \(Readout\): its bias is outside"):
        check(graph, "fixed", LOIHI)
