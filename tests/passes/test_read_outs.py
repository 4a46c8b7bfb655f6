"""The range of a read-out: proven for every input where that costs little, else taken from calibration and said so."""

from __future__ import annotations

import numpy as np
import pytest

from snncompile.compile import compile_graph, encoded
from snncompile.fixed import FixedPoint
from snncompile.ir.graph import Edge, Graph
from snncompile.ir.ops import Dense, Input, Output, Readout, real
from snncompile.ir.signals import Spike
from snncompile.run import integer, reference
from snncompile.target import Target

LOIHI = Target.load("loihi")


def wide(inputs: int, readout: Readout) -> Graph:
    weight = np.random.default_rng(1).normal(0.0, 1.0, (2, inputs))
    nodes = {"x": Input((inputs,), Spike()), "fc": Dense(weight), "r": readout, "out": Output()}
    return Graph(nodes, [Edge("x", "fc"), Edge("fc", "r"), Edge("r", "out")])


@pytest.mark.parametrize(("inputs", "steps", "proven"), [(40, 4, True), (3000, 40, False)])
def test_a_range_is_proven_or_said_not_to_be(inputs: int, steps: int, proven: bool) -> None:
    x = {"x": np.random.default_rng(2).random((4, steps, inputs)) < 0.05}
    graph = wide(inputs, Readout((2,)))
    done = compile_graph(graph, LOIHI, {"x": x["x"].astype(np.float64)})
    (layer,) = done.layers
    assert layer.potential.proven == proven
    assert layer.error < 0.05
    fixed = integer.run(done.levels["fixed"], encoded(done.levels["fixed"], x), LOIHI)
    sums = fixed.potentials["r"] / 64
    assert np.abs(sums).max() * 2 <= 131071
    exact = reference.run(graph, {"x": x["x"].astype(np.float64)}).potentials["r"]
    np.testing.assert_allclose(sums * layer.unit, exact, atol=0.05 * np.abs(exact).max())


def test_a_weighted_read_out_forgets_by_the_machines_decay() -> None:
    """Sums by hand: decay 0.95 is 3891 / 4096, and what is kept is rounded toward zero."""
    graph = wide(3, Readout((2,), "weighted", decay=0.95))
    x = np.ones((1, 5, 3))
    done = compile_graph(graph, LOIHI, {"x": x})
    fixed = done.levels["fixed"]
    op, fc = fixed.nodes["r"], fixed.nodes["fc"]
    assert isinstance(op, Readout)
    assert isinstance(fc, Dense)
    assert isinstance(fc.weight, FixedPoint)
    assert op.decay == 3891 / 4096
    assert done.layers[0].decay == pytest.approx(abs(0.95 - 3891 / 4096))
    arriving = fc.weight.mantissa.sum(axis=1) * 64
    expected, held = [], np.zeros(2, dtype=np.int64)
    for _ in range(5):
        product = held * 3891
        held = np.sign(product) * (np.abs(product) // 4096) + arriving
        expected.append(held)
    found = integer.run(fixed, {"x": x.astype(np.int64)}, LOIHI).potentials["r"][0]
    assert np.array_equal(found, np.stack(expected))
    assert float(real(fc.weight).max()) <= 254
