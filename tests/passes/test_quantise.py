"""Integers for the machine: the unit that errs least, widths that no input can break, inputs that keep their grid."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import assume, given

from snncompile.compile import encoded, fold
from snncompile.errors import LoweringError, NotRepresentable
from snncompile.fixed import FixedPoint
from snncompile.ir.check import check
from snncompile.ir.graph import Edge, Graph
from snncompile.ir.ops import Conv, Dense, Input, Neuron, Op, Output, Readout, real
from snncompile.ir.signals import Analog, Count, Fixed, Signal, Signed, Spike
from snncompile.passes.canonical import canonical
from snncompile.passes.legalise import legalise
from snncompile.passes.quantise import Quantised, encode, quantise
from snncompile.run import integer, reference
from snncompile.target import Target
from tests.graphs import Array, Case, read_cases

LOIHI = Target.load("loihi")
HALF = 131071  # the largest sum of weights times spikes


def layer(
    weight: Any, signal: Signal, *, neuron: Neuron | Readout | None = None, op: type[Dense | Conv] = Dense
) -> Graph:
    """x -> weights -> population."""
    weight = np.asarray(weight, dtype=float)
    shape = (weight.shape[1],) if op is Dense else (weight.shape[1] * 1, 5, 5)
    population = neuron or Neuron((weight.shape[0],) if op is Dense else (weight.shape[0], 3, 3))
    nodes: dict[str, Op] = {"x": Input(shape, signal), "w": op(weight), "n": population, "out": Output()}
    return Graph(nodes, [Edge("x", "w"), Edge("w", "n"), Edge("n", "out")])


def mantissa(value: Any) -> Array:
    assert isinstance(value, FixedPoint)
    return value.mantissa


def weights(done: Quantised, name: str = "w") -> Array:
    op = done.graph.nodes[name]
    assert isinstance(op, Dense | Conv)
    return mantissa(op.weight)


@given(read_cases(plain=True))
def test_what_comes_out_is_the_machine_s_and_stays_in_its_widths(case: Case) -> None:
    try:
        folded, _ = fold(case.graph)
        legal = legalise(folded, LOIHI).graph
        done = quantise(legal, LOIHI, case.stimulus)
    except LoweringError:
        assume(False)
    check(done.graph, "fixed", LOIHI)
    trace = integer.run(done.graph, encoded(done.graph, case.stimulus), LOIHI)
    for one in done.layers:
        assert one.current.proven
        if one.potential.proven and one.potential.worst is not None:
            assert np.abs(trace.potentials[one.name]).max() <= (one.potential.worst + 1e-9) * 64


def test_weights_are_even_and_in_range() -> None:
    random = np.random.default_rng(0)
    graph = layer(random.normal(size=(20, 50)), Spike())
    found = weights(quantise(graph, LOIHI, {"x": random.integers(0, 2, (4, 6, 50))}))
    assert not (found % 2).any()
    assert found.min() >= -256
    assert found.max() <= 254
    assert np.unique(found).size > 100


def lost_of(graph: Graph, unit: float, stimulus: Array) -> tuple[int, float]:
    """What a unit gets wrong, told anew: the spikes that differ and the error in the potential. Rounded weights, biases
    that take up their mean error and are rounded, the exact network's spikes for resets.
    """
    op, neuron = graph.nodes["w"], graph.nodes["n"]
    assert isinstance(op, Dense)
    assert isinstance(neuron, Neuron)
    whole = np.clip(2 * np.floor(np.abs(op.weight) / unit / 2 + 0.5) * np.sign(op.weight), -256, 254)
    rounded = whole * unit
    wanted = neuron.bias - (stimulus @ (rounded - op.weight).T).mean(axis=(0, 1))
    grains = np.sign(wanted) * np.floor(np.abs(wanted) / unit * 64 + 0.5)
    bias = grains / 64 * unit
    v, off, total = 0.0 * (stimulus[:, 0] @ op.weight.T), 0.0, 0.0
    held, wrong = np.zeros(v.shape), 0
    for t in range(stimulus.shape[1]):
        v = (1 - neuron.beta) * v + stimulus[:, t] @ op.weight.T + neuron.bias
        off = (1 - neuron.beta) * off + stimulus[:, t] @ (rounded - op.weight).T + bias - neuron.bias
        held = np.trunc(held * (1 - neuron.beta)).astype(np.int64) + (64 * stimulus[:, t] @ whole.T + grains).astype(
            int
        )
        total += np.mean(off**2)
        fired = v > neuron.threshold
        wrong += int(((held > 64 * round(float(neuron.threshold) / unit)) != fired).sum())
        off, v, held = (np.where(fired, 0, one) for one in (off, v, held))
    return wrong, float(np.sqrt(total / stimulus.shape[1]))


@pytest.mark.parametrize(("beta", "lost"), [(0.5, 0.0), (0.3, 1229 / 4096 - 0.3), (0.9997, 4095 / 4096 - 0.9997)])
def test_the_error_of_rounded_decays_is_reported(beta: float, lost: float) -> None:
    graph = layer([[1.0, -0.5]], Spike(), neuron=Neuron((1,), beta=beta))
    (one,) = quantise(graph, LOIHI, {"x": np.ones((1, 3, 2))}).layers
    assert one.decay == pytest.approx(abs(lost), abs=1e-15)


def test_biases_take_up_the_mean_error_of_their_weights() -> None:
    """Five levels of weights: what they get wrong on average, a channel at a time, is not left in the potential."""
    random = np.random.default_rng(4)
    narrow = replace(LOIHI, weight=replace(LOIHI.weight, least=-4, most=4))
    weight, x = random.normal(size=(7, 60)) / 8, (random.random((40, 5, 60)) < 0.5).astype(float)

    def drift(bias: Any) -> Array:
        still = Readout((7,), bias=np.asarray(bias, dtype=float))
        done = quantise(layer(weight, Spike(), neuron=still), narrow, {"x": x})
        end = integer.run(done.graph, encoded(done.graph, {"x": x}), narrow).potentials["n"][:, -1] / 64
        exact = reference.run(layer(weight, Spike(), neuron=still), {"x": x}).potentials["n"][:, -1]
        return np.asarray(np.abs((end * done.layers[0].unit - exact).mean(axis=0)))

    assert drift(np.full(7, 0.01)).max() < 0.02
    assert drift(0.0).max() > 0.2  # without biases nothing is added: silence stays silence


@pytest.mark.parametrize("outlier", [1.0, 5.0, 40.0])
def test_no_other_unit_loses_less(outlier: float) -> None:
    """Against units that the search may try, and against what max-abs scaling would give: spikes first, then the
    potential; and how many spikes the choice by the potential alone would lose is told.
    """
    random = np.random.default_rng(int(outlier))
    weight = random.normal(size=(6, 30)) / 6
    weight[0, 0] = outlier / 6
    graph = layer(weight, Spike(), neuron=Neuron((6,), beta=0.5, bias=np.full(6, 0.0625)))
    stimulus = random.integers(0, 2, (8, 6, 30))
    done = quantise(graph, LOIHI, {"x": stimulus})
    (one,) = done.layers
    assert one.compared == 8 * 6 * 6
    assert (one.wrong, one.error) == pytest.approx(lost_of(graph, one.unit, stimulus), rel=1e-6)
    largest = float(np.abs(weight).max())
    counts = {round(254 / largest * 2 ** (step / 6)) for step in range(-12, 19)}
    others = [lost_of(graph, 1 / count, stimulus) for count in counts]
    assert len(others) > 20
    fewest, least = min(others), min(others, key=lambda lost: lost[1])
    assert one.wrong <= fewest[0]
    assert one.wrong < fewest[0] or one.error <= fewest[1] * (1 + 1e-6)
    assert one.wrong <= one.otherwise == least[0]


def test_spikes_decide_where_the_potential_would_choose_another_unit() -> None:
    """The least error in the potential has four spikes wrong here, another unit one."""
    random = np.random.default_rng(40)
    weight = random.normal(size=(6, 30)) / 6
    weight[0, 0] = 40.0 / 6
    graph = layer(weight, Spike(), neuron=Neuron((6,), beta=0.5, bias=np.full(6, 0.0625)))
    stimulus = random.integers(0, 2, (8, 6, 30))
    done = quantise(graph, LOIHI, {"x": stimulus})
    exact = reference.run(graph, {"x": stimulus}).spikes
    own = integer.run(done.graph, {"x": stimulus}, LOIHI, forced=exact).spikes["n"]
    (one,) = done.layers
    assert (one.wrong, one.otherwise) == (1, 4)
    assert int((own != exact["n"]).sum()) == 1


def test_the_threshold_is_a_whole_number_of_units() -> None:
    random = np.random.default_rng(3)
    done = quantise(layer(random.normal(size=(3, 5)), Spike()), LOIHI, {"x": random.integers(0, 2, (4, 6, 5))})
    (one,) = done.layers
    neuron = done.graph.nodes["n"]
    assert isinstance(neuron, Neuron)
    assert mantissa(neuron.threshold) * one.unit == pytest.approx(1.0, abs=1e-12)
    assert neuron.unit == one.unit


# --- inputs -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("levels", [1, 2, 16, 100, 127])
def test_inputs_on_a_grid_are_exact(levels: int) -> None:
    random = np.random.default_rng(levels)
    x = random.integers(-levels, levels + 1, (3, 4, 5)) / levels * 0.7
    x.flat[0] = 0.7
    signal = quantise(layer(np.eye(5), Analog()), LOIHI, {"x": x}).graph.nodes["x"].signal  # type: ignore[union-attr]
    assert isinstance(signal, Fixed)
    assert signal.bits <= 8
    np.testing.assert_allclose(encode(signal, x) * signal.unit, x, atol=1e-12)


def test_inputs_off_any_grid_are_rounded_to_the_machine_s_bits() -> None:
    x = np.random.default_rng(0).uniform(-1, 1, (3, 4, 50))
    signal = quantise(layer(np.eye(50), Analog()), LOIHI, {"x": x}).graph.nodes["x"].signal  # type: ignore[union-attr]
    assert isinstance(signal, Fixed)
    assert signal.bits == 8
    assert np.abs(encode(signal, x) * signal.unit - x).max() <= signal.unit / 2 + 1e-12
    assert np.abs(encode(signal, 100 * x)).max() == 127


@pytest.mark.parametrize(
    ("signal", "values", "sent"),
    [
        (Spike(), [0.0, 1.0], [0, 1]),
        (Spike(0.25), [0.0, 0.25], [0, 1]),
        (Signed(), [-1.0, 0.0, 1.0], [-1, 0, 1]),
        (Count(3), [0.0, 1.0, 3.0], [0, 1, 3]),
        (Count(4, 0.25), [0.0, 0.25, 1.0], [0, 1, 4]),
        (Fixed(5, 2.0), [-30.0, 0.0, 30.0], [-15, 0, 15]),
    ],
)
def test_declared_inputs_are_exact(signal: Signal, values: list[float], sent: list[int]) -> None:
    """The machine's sums are the network's, in units."""
    x = np.array(values).reshape(1, -1, 1)
    graph = layer([[0.5]], signal, neuron=Neuron((1,), beta=0.0, threshold=100.0))
    done = quantise(graph, LOIHI, {"x": x})
    own = encoded(done.graph, {"x": x})
    assert own["x"].ravel().tolist() == sent
    found = integer.run(done.graph, own, LOIHI).potentials["n"].ravel() / 64 * done.layers[0].unit
    np.testing.assert_allclose(found, np.cumsum(x.ravel() * 0.5), rtol=1e-12)


def test_counts_beyond_the_machine_s_bits_become_coarser() -> None:
    x = np.random.default_rng(0).integers(0, 1001, (4, 3, 2)).astype(float)
    signal = quantise(layer(np.eye(2), Count(1000)), LOIHI, {"x": x}).graph.nodes["x"].signal  # type: ignore[union-attr]
    assert isinstance(signal, Fixed)
    assert signal.bits <= LOIHI.spike.input_bits


# --- worst cases ------------------------------------------------------------------------------------------------------


def sharp(done: Quantised, inputs: Array) -> float:
    """The largest current that an input makes, in weight units."""
    op = done.graph.nodes["n"]
    assert isinstance(op, Neuron)
    still = op.__class__(op.shape, threshold=FixedPoint.number(HALF), alpha=op.alpha, beta=FixedPoint.number(4095, -12))
    still = replace(op, threshold=still.threshold, beta=still.beta, bias=FixedPoint.number(0))
    return float(np.abs(integer.run(done.graph.edit({"n": still}), {"x": inputs}, LOIHI).potentials["n"]).max() / 64)


@pytest.mark.parametrize(
    ("signal", "most", "signed"), [(Spike(), 1, False), (Signed(), 1, True), (Fixed(8), 127, True), (Fixed(3), 3, True)]
)
def test_the_worst_input_reaches_the_proven_bound_and_none_exceeds_it(signal: Signal, most: int, signed: bool) -> None:
    random = np.random.default_rng(most)
    weight = random.normal(size=(4, 12))
    calibration = random.integers(-most if signed else 0, most + 1, (3, 2, 12)).astype(float)
    done = quantise(layer(weight, signal, neuron=Neuron((4,), threshold=10.0 * most)), LOIHI, {"x": calibration})
    (one,) = done.layers
    assert one.current.worst is not None
    found = weights(done)
    worst = []
    for row in found:  # adversaries: every row with its own signs, up and down
        for sign in (1, -1):
            x = np.where(row * sign > 0, most, -most if signed else 0)
            worst.append(sharp(done, x.reshape(1, 1, -1)))
    assert max(worst) == one.current.worst
    for _ in range(20):
        x = random.integers(-most if signed else 0, most + 1, (1, 1, 12))
        assert sharp(done, x) <= one.current.worst


def test_a_convolution_s_worst_case_counts_all_its_taps() -> None:
    random = np.random.default_rng(0)
    graph = layer(random.normal(size=(2, 1, 3, 3)), Fixed(8), neuron=Neuron((2, 3, 3), threshold=500.0), op=Conv)
    done = quantise(graph, LOIHI, {"x": random.integers(-127, 128, (2, 2, 1, 5, 5)).astype(float)})
    assert done.layers[0].current.worst == np.abs(weights(done)).sum(axis=(1, 2, 3)).max() * 127
    worst = max(
        sharp(done, np.where(np.pad(kernel[0] * sign, 1) >= 0, 127, -127).reshape(1, 1, 1, 5, 5))
        for kernel in weights(done)
        for sign in (1, -1)
    )
    assert worst == done.layers[0].current.worst


@pytest.mark.parametrize("alpha", [1.0, 0.3, 0.0123])
def test_a_current_that_builds_up_is_bounded_with_the_machine_s_decay(alpha: float) -> None:
    graph = layer([[1.0, 1.0]], Spike(), neuron=Neuron((1,), alpha=alpha, threshold=1000.0))
    done = quantise(graph, LOIHI, {"x": np.ones((1, 3, 2))})
    steps = 1500
    still = replace(done.graph.nodes["n"], threshold=FixedPoint.number(HALF), beta=FixedPoint.number(4095, -12))  # type: ignore[type-var]
    run = integer.run(done.graph.edit({"n": still}), {"x": np.ones((1, steps, 2), dtype=int)}, LOIHI)
    reached = run.potentials["n"].max() / 64
    worst = done.layers[0].current.worst
    assert worst is not None
    assert reached <= worst * 4096 / 4095 + 1  # what beta = 4095 leaves over
    assert reached >= 0.97 * worst


def test_sums_that_could_overflow_make_inputs_coarser() -> None:
    """400 inputs of eight bits could make the current wrap, whatever little the calibration data show."""
    random = np.random.default_rng(0)
    graph = layer(random.normal(size=(2, 400)), Analog(), neuron=Neuron((2,), threshold=100.0))
    x = random.uniform(-1e-3, 1e-3, (1, 1, 400))
    x[..., 0] = 1.0
    done = quantise(graph, LOIHI, {"x": x})
    signal = done.graph.nodes["x"].signal  # type: ignore[union-attr]
    assert signal.bits < 8
    assert np.abs(weights(done)).sum(axis=1).max() * signal.most <= HALF


def test_inputs_are_as_wide_as_costs_the_least_error() -> None:
    """Images of one sign: wide inputs leave the weights little room, narrow ones are coarse."""
    random = np.random.default_rng(3)
    graph = layer(random.normal(size=(4, 120)), Analog(), neuron=Neuron((4,), threshold=1.0, beta=0.5))
    x = {"x": random.uniform(0, 1, (8, 3, 120))}
    done = quantise(graph, LOIHI, x)
    signal = done.graph.nodes["x"].signal  # type: ignore[union-attr]
    assert not signal.signed
    assert np.maximum(weights(done), 0).sum(axis=1).max() * signal.most <= HALF
    lost = {}
    for bits in range(2, 9):
        narrow = replace(LOIHI, spike=replace(LOIHI.spike, input_bits=bits))
        (one,) = quantise(graph, narrow, x).layers
        lost[bits] = one.wrong, one.error
    (one,) = done.layers
    assert (one.wrong, one.error) == min(lost.values())
    assert 2 < signal.bits < 8


# --- refusals ---------------------------------------------------------------------------------------------------------


def test_what_no_unit_can_hold_is_refused_with_the_reason() -> None:
    graph = layer(np.ones((1, 20000)), Fixed(8), neuron=Neuron((1,), threshold=1e-3))
    with pytest.raises(NotRepresentable, match=r"n \(Neuron\): no scale keeps it.*inputs can add up.*loihi.toml:\d+"):
        quantise(graph, LOIHI, {"x": np.zeros((1, 1, 20000))})


def test_a_decay_below_the_machine_s_bits_is_refused() -> None:
    graph = layer([[1.0]], Spike(), neuron=Neuron((1,), beta=1.0))
    with pytest.raises(NotRepresentable, match=r"n \(Neuron\): its decays .* have no form in 12 bits"):
        quantise(graph, LOIHI, {"x": np.ones((1, 1, 1))})


def test_a_network_of_the_machine_s_own_integers_is_exact() -> None:
    """Nothing is lost where nothing needs to be: the unit of the weights is among those that are tried."""
    random = np.random.default_rng(5)
    weight = 2 * random.integers(-128, 128, (5, 8)) / 512
    neuron = Neuron((5,), beta=0.5, threshold=0.5, bias=random.integers(-64, 64, 5) / 512)
    stimulus = random.integers(0, 2, (6, 5, 8)).astype(float)
    done = quantise(layer(weight, Spike(), neuron=neuron), LOIHI, {"x": stimulus})
    assert done.layers[0].error == 0.0
    assert done.layers[0].unit == 1 / 512
    np.testing.assert_array_equal(real(FixedPoint(weights(done))) / 512, weight)


@pytest.mark.parametrize("fires", [">", ">="])
def test_ties_of_a_network_of_integers_are_kept(fires: Literal[">", ">="]) -> None:
    """Integrate and fire on whole numbers meets its threshold exactly again and again."""
    weight = np.array([[2.0, 4.0, -2.0]]) / 64
    graph = canonical(layer(weight, Spike(), neuron=Neuron((1,), threshold=8 / 64, fires=fires))).graph
    x = np.random.default_rng(0).integers(0, 2, (8, 20, 3)).astype(float)
    done = quantise(graph, LOIHI, {"x": x})
    exact = reference.run(graph, {"x": x})
    ties = exact.potentials["n"] == 8 / 64
    assert ties.sum() > 5
    found = integer.run(done.graph, encoded(done.graph, {"x": x}), LOIHI)
    np.testing.assert_array_equal(found.spikes["n"], exact.spikes["n"])
    assert exact.spikes["n"][ties].all() == (fires == ">=")


def test_the_terms_of_a_sum_that_one_kernel_reads_are_rounded_as_one() -> None:
    """Two populations through equal weights: the same integers, a worst case of both, the spikes of both together."""
    random = np.random.default_rng(9)
    weight = random.normal(size=(5, 12)) / 3
    nodes: dict[str, Op] = {"n": Neuron((5,), beta=0.5), "out": Output()}
    edges = [Edge("n", "out")]
    for term in ("a", "b"):
        nodes |= {
            f"x_{term}": Input((12,), Spike()),
            f"in_{term}": Dense(np.eye(12)),
            term: Neuron((12,), threshold=0.5),
        }
        nodes[f"w_{term}"] = Dense(weight)
        names = [f"x_{term}", f"in_{term}", term, f"w_{term}", "n"]
        edges += [Edge(one, other) for one, other in pairwise(names)]
    graph = Graph(nodes, edges)
    stimulus = {f"x_{term}": random.integers(0, 2, (8, 6, 12)) for term in ("a", "b")}
    done = quantise(graph, LOIHI, stimulus)
    np.testing.assert_array_equal(weights(done, "w_a"), weights(done, "w_b"))
    one = next(layer for layer in done.layers if layer.name == "n")
    whole = weights(done, "w_a")
    assert one.current.worst == 2 * max(np.maximum(whole, 0).sum(axis=1).max(), np.maximum(-whole, 0).sum(axis=1).max())
    exact = reference.run(graph, stimulus).spikes
    forced = integer.run(done.graph, encoded(done.graph, stimulus), LOIHI, forced=exact).spikes
    assert one.wrong == int((forced["n"] != exact["n"]).sum())
