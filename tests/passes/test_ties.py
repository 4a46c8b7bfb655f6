"""``>=`` on whole numbers: the machine fires above its threshold only, and every tie is still kept."""

from __future__ import annotations

from itertools import pairwise
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snncompile.compile import compile_graph, encoded
from snncompile.ir.graph import Edge, Graph
from snncompile.ir.ops import Conv, Dense, Input, Neuron, Op, Output, Pool, Readout
from snncompile.ir.shapes import shape_of
from snncompile.ir.signals import Count, Spike
from snncompile.run import integer, parts, reference
from snncompile.run.trace import first_divergence
from snncompile.target import Target
from snncompile.verify import Ladder
from tests.graphs import Array

LOIHI = Target.load("loihi")


def lattice(source: Random) -> tuple[Graph, dict[str, Array]]:
    """Integrate and fire in whole numbers of one unit a layer: a skip, a pool, thresholds apart, biases in halves."""
    draw = np.random.default_rng(source.randint(0, 2**32 - 1))
    unit = source.choice([1.0, 0.125, 0.375])  # float64 is exact

    def neuron(shape: tuple[int, ...]) -> Neuron:
        apart = source.randint(0, 2) == 2
        size = (shape[0], *(1,) * (len(shape) - 1)) if apart else ()
        bias: Any = draw.integers(-4, 5, (shape[0], *(1,) * (len(shape) - 1))) / source.choice([1, 2, 4])
        fires = source.choice([">=", ">=", ">"])
        return Neuron(shape, threshold=draw.integers(1, 12, size) * unit, bias=bias * unit, fires=fires)

    nodes: dict[str, Op] = {"x": Input((2, 4, 4), source.choice([Spike(), Count(3)]))}
    nodes["c1"] = Conv(draw.integers(-6, 9, (3, 2, 3, 3)) * unit, padding=(1, 1))
    nodes["n1"] = neuron((3, 4, 4))
    nodes["c2"] = Conv(draw.integers(-6, 9, (3, 3, 3, 3)) * unit, padding=(1, 1))
    nodes["skip"] = Conv(draw.integers(0, 3, (3, 2, 1, 1)) * unit)
    nodes["n2"] = neuron((3, 4, 4))
    nodes["pool"] = Pool(source.choice(["sum", "max"]), (2, 2), (2, 2))
    nodes["fc"] = Dense(draw.integers(-6, 9, (4, 12)) * unit)
    nodes["n3"] = neuron((4,))
    nodes["out"] = Dense(draw.integers(-6, 9, (3, 4)) * unit)
    nodes |= {"r": Readout((3,), "sum"), "o": Output()}
    chain = ["x", "c1", "n1", "c2", "n2", "pool", "fc", "n3", "out", "r", "o"]
    edges = [Edge(one, other) for one, other in pairwise(chain)]
    edges += [Edge("x", "skip"), Edge("skip", "n2")]
    most = 1 if isinstance(nodes["x"].signal, Spike) else 3  # type: ignore[union-attr]
    assert shape_of("c1", nodes["c1"], (2, 4, 4)) == (3, 4, 4)
    return Graph(nodes, edges), {"x": draw.integers(0, most + 1, (3, 8, 2, 4, 4)).astype(float)}


@settings(max_examples=15)
@given(st.randoms(use_true_random=False))
def test_rung_3_loses_nothing_of_whole_numbers(source: Random) -> None:
    graph, x = lattice(source)
    done = compile_graph(graph, LOIHI, x)
    fixed = done.levels["fixed"]
    found = parts.merged(fixed, integer.run(fixed, encoded(fixed, x), LOIHI))
    folded = reference.run(done.levels["folded"], x)
    assert first_divergence(folded, found, graph.order, potentials=False) is None
    assert all(layer.error == 0.0 for layer in done.layers)
    np.testing.assert_array_equal(found.potentials["r"] / 64 * done.layers[-1].unit, folded.potentials["r"])


def test_the_networks_do_meet_their_thresholds() -> None:
    """Otherwise the test above would show nothing."""
    ties = 0
    for seed in range(20):
        graph, x = lattice(Random(seed))
        trace = reference.run(graph, x)
        for name in ("n1", "n2", "n3"):
            op = graph.nodes[name]
            assert isinstance(op, Neuron)
            ties += int((trace.potentials[name] == op.threshold).sum()) if op.fires == ">=" else 0
    assert ties > 500


@pytest.mark.lava
def test_ties_on_lava() -> None:
    seed = next(seed for seed in range(50) if _ties(seed) > 40)
    graph, x = lattice(Random(seed))
    ladder = Ladder(compile_graph(graph, LOIHI, x), x["x"], None, None)
    rungs = list(ladder.rungs(with_lava=True))
    assert [rung.verdict for rung in rungs] == ["recorded", "same", "measured", "bit-equal", "bit-equal", "bit-equal"]
    assert rungs[2].different == 0


def _ties(seed: int) -> int:
    graph, x = lattice(Random(seed))
    op = graph.nodes["n2"]
    assert isinstance(op, Neuron)
    return int((reference.run(graph, x).potentials["n2"] == op.threshold).sum()) if op.fires == ">=" else 0
