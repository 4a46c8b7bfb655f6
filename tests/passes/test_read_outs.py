"""The range of a read-out, proven for every input; and how it forgets."""

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


@pytest.mark.parametrize(("inputs", "steps", "several"), [(40, 4, False), (3000, 40, True)])
@pytest.mark.parametrize("decay", [1.0, 0.95])
def test_no_input_takes_a_read_out_out_of_its_range(inputs: int, steps: int, several: bool, decay: float) -> None:
    """Where one neuron a number would have to be coarse, several share it; the input that adds most is tried."""
    generator = np.random.default_rng(2)
    x = {"x": generator.random((4, steps, inputs)) < 0.05}
    graph = wide(inputs, Readout((2,), "mean" if decay == 1.0 else "weighted", decay=decay))
    done = compile_graph(graph, LOIHI, {"x": x["x"].astype(np.float64)})
    (layer,) = done.layers
    fixed = done.levels["fixed"]
    op, fc = fixed.nodes["r"], fixed.nodes["fc"]
    assert isinstance(op, Readout)
    assert isinstance(fc, Dense)
    assert (op.addends > 1) == several
    assert layer.potential.proven
    sums = op.summed(integer.run(fixed, encoded(fixed, x), LOIHI).potentials["r"]) / 64
    exact = reference.run(graph, {"x": x["x"].astype(np.float64)}).potentials["r"]
    rounding = steps * op.addends * (decay != 1.0) + (x["x"].sum(axis=2).max() * steps) * 1.0
    assert np.abs(sums - exact / layer.unit).max() <= rounding + np.abs(exact / layer.unit).max() * 2**-12 * steps
    for sign in (1, -1):
        worst = (sign * real(fc.weight)[0] > 0)[None, None].repeat(steps, axis=1)
        most = integer.run(fixed, {"x": worst.astype(np.int64)}, LOIHI).potentials["r"]
        assert np.abs(most).max() < 131071 << 6, "below what a neuron that never fires may hold"


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
