"""Maxima and transposed convolutions that are recognised in the numbers of a file: whatever stands there, what is made
of it computes the same. Graphs that are nearly such a form are drawn by changing a written one at random.
"""

from __future__ import annotations

from dataclasses import replace
from random import Random

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from snncompile.backends.nir_maxima import without_maxima
from snncompile.backends.nir_profiles import PROFILES
from snncompile.backends.nir_spread import spread
from snncompile.errors import GraphError
from snncompile.frontends.nir_maxima import maxima
from snncompile.frontends.nir_spread import transposed
from snncompile.ir.graph import Edge, Graph
from snncompile.ir.ops import By, Conv, Input, Neuron, Op, Output, Pool, Scale, To, real
from snncompile.ir.shapes import shapes
from snncompile.ir.signals import Spike
from snncompile.run import reference

CANONICAL = PROFILES["canonical"]


def written(source: Random) -> Graph:
    """Spikes, maxima of maxima, neurons, a transposed convolution, neurons; maxima and spread as they are written."""
    size = source.choice([(2, 3), (3, 3), (4, 2)])
    weight = np.random.default_rng(source.randint(0, 99)).integers(-8, 9, (2, 2, 3, 3)) / 8
    nodes: dict[str, Op] = {
        "input": Input((2, *size), Spike()),
        "first": Neuron((2, *size), beta=0.5),
        "inner": Pool("max", (2, 2), (1, 1), (1, 1)),
        "outer": Pool("max", (2, 2), (1, 1)),
        "second": Neuron((2, *size), beta=0.5, threshold=0.5),
        "up": Conv(weight, None, (1, 1), (1, 1), spread=source.choice([(1, 2), (2, 1), (2, 3), (3, 2)])),
    }
    edges = [Edge(a, b, source.choice([0, 0, 1])) for a, b in zip(nodes, list(nodes)[1:], strict=False)]
    if source.random() < 0.3:
        edges.append(Edge("input", "up"))
    shape = shapes(Graph(nodes, edges))["up"]
    nodes |= {"third": Neuron(shape, beta=0.5, threshold=0.5), "output": Output()}
    graph = Graph(nodes, [*edges, Edge("up", "third"), Edge("third", "output")])
    made = spread(without_maxima(graph, CANONICAL), CANONICAL)
    ops = {name: op for name, op in made.nodes.items() if isinstance(op, Neuron)}
    return made.edit({name: replace(op, reset=To(np.zeros(()))) for name, op in ops.items()})  # as Threshold is read


def changed(source: Random, graph: Graph) -> Graph:
    """One node or edge is another one."""
    name = source.choice([one for one, op in graph.nodes.items() if isinstance(op, Scale | Pool | Neuron)])
    op, edges = graph.nodes[name], list(graph.edges)
    at = source.randrange(len(edges))
    match source.choice(["op", "op", "op", "delay", "twice", "more", "gone", "renamed"]):
        case "delay":
            edges[at] = replace(edges[at], delay=1)
        case "twice":
            edges.append(edges[at])
        case "gone":
            if len(graph.into(edges[at].target)) > 1:
                del edges[at]
        case "more":
            return graph.edit({"more": Output()}, [*edges, Edge(name, "more")])
        case "renamed":  # the order of nodes and their names say nothing
            names = list(graph.nodes)
            source.shuffle(names)
            return Graph({one: graph.nodes[one] for one in names}, source.sample(edges, len(edges)))
        case _:
            return graph.edit({name: another(source, op, shapes(graph)[name])})
    return graph.edit({}, edges)


def another(source: Random, op: Op, shape: tuple[int, ...]) -> Op:
    """The op with other numbers."""
    match op:
        case Scale():
            factor = np.array(np.broadcast_to(real(op.factor), shape))
            place = tuple(source.randrange(size) for size in shape)
            factor[place] = source.choice([0.0, 1.0, 2.0, -1.0])
            return Scale(source.choice([factor, np.roll(factor, 1, -1), np.roll(factor, 1, -2), np.ones(shape)]))
        case Pool():
            return replace(op, kind=source.choice(["sum", "mean"]))
        case Neuron():
            fields = source.choice(
                [
                    {"threshold": np.asarray(source.choice([-0.5, 0.0, 0.5, 0.999, 1.0, 1.5]))},
                    {"threshold": np.linspace(0.0, 1.0, shape[-1])},
                    {"fires": ">=", "threshold": np.asarray(source.choice([0.0, 0.5, 1.0]))},
                    {"bias": np.asarray(0.25)},
                    {"alpha": np.asarray(0.5)},
                    {"beta": np.asarray(0.5)},
                    {"amplitude": 0.5},
                    {"gain": np.asarray(0.5)},
                    {"initial": np.asarray(1.0)},
                    {"reset": source.choice([By(0.0), By(1.0), To(0.0), To(0.5)])},
                ]
            )
            return replace(op, **fields)
        case _:
            raise AssertionError(op)


@given(st.randoms(use_true_random=False), st.integers(0, 3), st.floats(0.05, 0.6))
def test_what_is_recognised_computes_what_stood_there(source: Random, changes: int, rate: float) -> None:
    graph = written(source)
    for _ in range(changes):
        graph = changed(source, graph)
    try:
        expected = {"input": reference.run(graph, stimulus(graph, rate)).spikes}
    except GraphError:  # a change made it no graph
        return
    pooled, _ = maxima(graph)
    found, _ = transposed(pooled)
    spikes = reference.run(found, stimulus(found, rate)).spikes
    assert {"third"} <= spikes.keys() <= expected["input"].keys()
    for name, array in spikes.items():
        assert np.array_equal(array, expected["input"][name]), name


def stimulus(graph: Graph, rate: float) -> dict[str, np.ndarray]:  # type: ignore[type-arg]
    shape = shapes(graph)["input"]
    return {"input": (np.random.default_rng(7).random((2, 6, *shape)) < rate).astype(float)}


def test_the_written_form_is_recognised_in_any_order() -> None:
    for seed in range(20):
        source = Random(seed)
        graph = written(source)
        names, edges = list(graph.nodes), list(graph.edges)
        source.shuffle(names)
        shuffled = Graph({one: graph.nodes[one] for one in names}, source.sample(edges, len(edges)))
        found, _ = transposed(maxima(shuffled)[0])
        assert not found.names(Scale)
        assert [op.kind for op in found.nodes.values() if isinstance(op, Pool)] == ["max", "max"]
