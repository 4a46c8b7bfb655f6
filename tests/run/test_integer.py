"""The integer meaning against sequences worked out by hand and a scalar model on Python's own integers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from snncompile.errors import GraphError, InternalError
from snncompile.fixed import FixedPoint
from snncompile.ir.graph import Edge, Graph
from snncompile.ir.ops import By, Conv, Dense, Input, Neuron, Norm, Op, Output, Pool, Readout, Scale, To
from snncompile.ir.signals import Fixed, Spike
from snncompile.run import integer
from snncompile.run.cpu import Simulator
from snncompile.run.trace import first_divergence
from snncompile.target import Target
from tests.graphs import Array, Case, fixed_cases

LOIHI = Target.load("loihi")
M = 1 << 23


def neuron(
    *, alpha: int = 4096, beta: int = 0, threshold: int = 1, bias: int = 0, exponent: int = 0, n: int = 1
) -> Neuron:
    return Neuron(
        (n,),
        alpha=FixedPoint.number(alpha, -12),
        beta=FixedPoint.number(beta, -12),
        threshold=FixedPoint.number(threshold),
        bias=FixedPoint.number(bias, exponent),
        reset=To(FixedPoint.number(0)),
        initial=FixedPoint.number(0),
    )


def single(op: Neuron | Readout, weight: int = 2) -> Graph:
    nodes: dict[str, Op] = {"x": Input((1,), Fixed(20)), "w": Scale(FixedPoint.number(weight)), "n": op}
    return Graph(nodes | {"out": Output()}, [Edge("x", "w"), Edge("w", "n"), Edge("n", "out")])


def run(op: Neuron | Readout, given_: list[int], weight: int = 2) -> tuple[list[int], list[int]]:
    """Spikes and potentials (in 1/64) of one neuron."""
    x = np.array(given_).reshape(1, -1, 1)
    trace = integer.run(single(op, weight), {"x": x}, LOIHI)
    spikes = trace.spikes["n"].ravel().tolist() if "n" in trace.spikes else []
    return [int(s) for s in spikes], trace.potentials["n"].ravel().tolist()


# --- by hand ----------------------------------------------------------------------------------------------------------


def test_the_threshold_is_strict_and_the_reset_is_to_zero() -> None:
    assert run(neuron(threshold=4), [1, 1, 1, 0, 1]) == ([0, 0, 1, 0, 0], [128, 256, 384, 0, 128])


def test_decays_truncate_toward_zero_on_both_sides() -> None:
    # 2 * 64 = 128; 128 * 2048 / 4096 = 64; 32, 16, 8, 4, 2, 1, 0; and -1/2 becomes 0 as well
    ones = [128, 64, 32, 16, 8, 4, 2, 1, 0, 0]
    assert run(neuron(beta=2048, threshold=100), [1] + [0] * 9)[1] == ones
    assert run(neuron(beta=2048, threshold=100), [-1] + [0] * 9)[1] == [-v for v in ones]


def test_a_current_builds_up_and_goes_through() -> None:
    # u = 128, 64 + 128 = 192, 96, 48 and v adds them up; the reset leaves u alone
    assert run(neuron(alpha=2048, threshold=4), [1, 1, 0, 0]) == ([0, 1, 0, 0], [128, 320, 96, 144])


@pytest.mark.parametrize(
    ("bias", "exponent", "each"), [(3, 0, 192), (3, 1, 384), (3, -6, 3), (-5, -3, -40), (-1, -6, -1), (4095, 1, 524160)]
)
def test_biases_are_mantissa_and_exponent(bias: int, exponent: int, each: int) -> None:
    op = neuron(bias=bias, exponent=exponent, threshold=131071)
    assert run(op, [0, 0, 0])[1] == [each, 2 * each, 3 * each]


def test_a_bias_below_the_grid_is_floored() -> None:
    assert run(neuron(bias=-1, exponent=-7, threshold=9), [0, 0])[1] == [-1, -2]
    assert run(neuron(bias=1, exponent=-7, threshold=9), [0, 0])[1] == [0, 0]


def test_a_current_beyond_24_bits_wraps_once() -> None:
    # 65536 * 2 = 131072 weight units = 2^23 exactly, which is kept; one more unit turns over
    assert run(neuron(threshold=131071), [65536])[1] == [M - 1]  # the potential saturates below
    assert run(neuron(threshold=131071), [65537])[1] == [M + 128 - 2 * M]
    assert run(neuron(threshold=131071), [-65536])[1] == [M - 1]  # -M turns over to +M


def test_a_potential_beyond_24_bits_saturates() -> None:
    assert run(neuron(threshold=131071), [60000, 60000, 0]) == ([0, 1, 0], [7680000, M - 1, 0])
    assert run(neuron(threshold=131071), [-60000, -60000, 1])[1] == [-7680000, -(M - 1), -(M - 1) + 128]


def test_a_decay_of_one_forgets_at_once() -> None:
    assert run(neuron(beta=4095, threshold=200), [40, 0, 0])[1] == [5120, 1, 0]


def test_a_readout_adds_up_and_starts_anew() -> None:
    op = Readout((1,), "sum", FixedPoint.number(3))
    assert run(op, [1, 0, -2])[1] == [320, 512, 448]
    trace = integer.run(single(op), {"x": np.array([[[1], [0]], [[5], [1]]])}, LOIHI, stream=True)
    assert trace.potentials["n"].ravel().tolist() == [320, 512, 832, 1152]


def test_soft_resets_take_their_amount_off() -> None:
    op = Neuron((1,), threshold=4.0, reset=By(3.0))
    assert run(op, [3, 0, 0]) == ([1, 0, 0], [384, 192, 192])


# --- a scalar model ---------------------------------------------------------------------------------------------------


def truncated(value: int) -> int:
    return value >> 12 if value >= 0 else -(-value >> 12)


def scalar(parameters: dict[str, int], currents: list[int]) -> tuple[list[int], list[int]]:
    """Lava's equations, one neuron, one step after the other, on Python's integers."""
    u = v = 0
    bias = parameters["bias"] * 2 ** (parameters["exponent"] + 6)
    spikes, potentials = [], []
    for a in currents:
        u = truncated(u * (4096 - parameters["alpha"])) + a * 64
        if u > M:
            u -= 2 * M
        elif u <= -M:
            u += 2 * M
        v = truncated(v * (4096 - parameters["beta"])) + u + bias
        v = M - 1 if v > M - 1 else -(M - 1) if v < -(M - 1) else v
        potentials.append(v)
        spikes.append(int(v > parameters["threshold"] * 64))
        v = 0 if spikes[-1] else v
    return spikes, potentials


PARAMETERS = st.fixed_dictionaries(
    {
        "alpha": st.one_of(st.sampled_from([1, 4095, 4096]), st.integers(1, 4096)),
        "beta": st.one_of(st.sampled_from([0, 1, 4095]), st.integers(0, 4095)),
        "threshold": st.one_of(st.sampled_from([0, 131071]), st.integers(0, 131071)),
        "bias": st.integers(-4095, 4095),
        "exponent": st.integers(-6, 1),
    }
)
CURRENTS = st.lists(st.one_of(st.integers(-50, 50), st.integers(-60000, 60000), st.just(0)), min_size=1, max_size=12)


@given(PARAMETERS, CURRENTS, st.sampled_from([2, -256, 254]))
def test_one_neuron_follows_the_scalar_model(parameters: dict[str, int], inputs: list[int], weight: int) -> None:
    assert run(neuron(**parameters), inputs, weight) == scalar(parameters, [weight * x for x in inputs])


# --- whole graphs -----------------------------------------------------------------------------------------------------


@given(fixed_cases(delays=True))
def test_the_fast_interpreter_agrees(case: Case) -> None:
    expected = integer.run(case.graph, case.stimulus, LOIHI)
    fast = Simulator(case.graph, LOIHI).run(case.stimulus)
    assert first_divergence(expected, fast, case.graph.order) is None


@given(fixed_cases())
def test_samples_side_by_side_or_in_a_row(case: Case) -> None:
    one = integer.run(case.graph, case.stimulus, LOIHI)
    other = integer.run(case.graph, case.stimulus, LOIHI, stream=True)
    assert first_divergence(one, other, case.graph.order) is None


@given(fixed_cases(delays=True), st.integers(0, 2**32 - 1))
def test_forced_spikes_drive_what_follows_and_the_reset(case: Case, seed: int) -> None:
    """With its own spikes forced on every population, a run is what it was; with others, each population computes what
    it would behind those.
    """
    free = integer.run(case.graph, case.stimulus, LOIHI)
    again = integer.run(case.graph, case.stimulus, LOIHI, forced=free.spikes)
    assert first_divergence(free, again, case.graph.order) is None
    random = np.random.default_rng(seed)
    forced = {name: random.random(s.shape) < 0.5 for name, s in free.spikes.items()}
    taught = integer.run(case.graph, case.stimulus, LOIHI, forced=forced)
    for name in free.spikes:
        alone = integer.run(case.graph, case.stimulus, LOIHI, forced={k: forced[k] for k in forced if k != name})
        first = np.argmax(np.any(taught.spikes[name] != forced[name], axis=(0, *range(2, forced[name].ndim))))
        np.testing.assert_array_equal(alone.potentials[name][:, : first + 1], taught.potentials[name][:, : first + 1])


# --- refusals ---------------------------------------------------------------------------------------------------------


def refused(op: Op, message: str, x: Any = 1) -> None:
    nodes: dict[str, Op] = {"x": Input((1,), Spike()), "op": op, "n": Neuron((1,)), "out": Output()}
    graph = Graph(nodes, [Edge("x", "op"), Edge("op", "n"), Edge("n", "out")])
    with pytest.raises(GraphError, match=message):
        integer.run(graph, {"x": np.full((1, 1, 1), x)}, LOIHI)


def test_reals_are_no_integers() -> None:
    refused(Scale(0.3), r"op \(Scale\): its weight is no integer of loihi.*quantise the graph first")
    refused(Dense([[1.0]], [0.5]), r"op \(Dense\): biases of synapses are not on the machine")
    refused(Norm(0.0, 1.0, 1.0, 0.0), r"op \(Norm\): has no integer form")
    refused(Pool("mean", (), (), ()), r"op \(Pool\)")
    refused(Scale(2.0), r"x: its stimulus is no integer of loihi; encode it first", x=0.5)


@pytest.mark.parametrize(
    ("op", "what"),
    [
        (Neuron((1,), beta=1 / 3), "its beta is no integer"),
        (Neuron((1,), threshold=0.01), "its threshold is no integer"),
        (Neuron((1,), bias=np.inf), "its bias is no integer"),
        (Neuron((1,), gain=2.0), "gain, amplitude and rest must be folded first"),
        (Neuron((1,), amplitude=0.5), "gain, amplitude and rest must be folded first"),
        (Readout((1,), "weighted", decay=0.95), "its decay is no integer"),
    ],
)
def test_populations_off_the_grid_are_named(op: Neuron | Readout, what: str) -> None:
    with pytest.raises(GraphError, match=rf"n \({type(op).__name__}\): {what}"):
        integer.run(single(op), {"x": np.ones((1, 1, 1), dtype=int)}, LOIHI)


def stimulus(shape: tuple[int, ...]) -> dict[str, Array]:
    return {"x": np.ones(shape, dtype=int)}


@pytest.mark.parametrize(
    ("given_", "message"),
    [
        ({}, r"stimulus for \[\], inputs are \['x'\]"),
        ({"y": np.ones((1, 1, 1), dtype=int)}, r"stimulus for \['y'\]"),
        (stimulus((1, 2, 3)), r"x: stimulus of shape \[1, 2, 3\], needs \[samples, steps, 1\]"),
        (stimulus((1,)), "needs"),
        (stimulus((0, 2, 1)), "the stimulus is empty"),
        (stimulus((2, 0, 1)), "the stimulus is empty"),
    ],
)
def test_a_stimulus_that_does_not_fit_is_refused(given_: dict[str, Array], message: str) -> None:
    with pytest.raises(GraphError, match=message):
        integer.run(single(neuron()), given_, LOIHI)


def test_teacher_forcing_in_a_row_is_a_mistake_of_ours() -> None:
    with pytest.raises(InternalError, match="side by side"):
        integer.run(single(neuron()), stimulus((2, 2, 1)), LOIHI, stream=True, forced={"n": np.ones((2, 2, 1))})


def test_sheets_with_other_rules_are_followed() -> None:
    """Floor instead of truncation, saturation instead of wrap: the sheet decides, not the code."""
    floor = replace(LOIHI, decay=replace(LOIHI.decay, rounding="floor"))
    x = {"x": np.array([-1, 0, 0, 0, 0, 0, 0, 0, 0]).reshape(1, -1, 1)}
    graph = single(neuron(beta=2048, threshold=100))
    assert integer.run(graph, x, floor).potentials["n"].ravel().tolist()[-2:] == [-1, -1]
    clipped = replace(LOIHI, current=replace(LOIHI.current, overflow="saturate"))
    large = {"x": np.array([65537]).reshape(1, 1, 1)}
    assert integer.run(single(neuron(threshold=131071)), large, clipped).potentials["n"].item() == M - 1


def test_convolutions_run_in_integers() -> None:
    """Weights beyond what float32 holds: nothing may pass through reals."""
    weight = FixedPoint(np.array([[[[254, -256]]]]))
    nodes: dict[str, Op] = {"x": Input((1, 1, 3), Fixed(40)), "c": Conv(weight), "n": Readout((1, 1, 2), "sum")}
    graph = Graph(nodes | {"out": Output()}, [Edge("x", "c"), Edge("c", "n"), Edge("n", "out")])
    x = np.array([2**16 + 1, 2**16, 2**16 - 1]).reshape(1, 1, 1, 1, 3)
    wide = integer.run(graph, {"x": x}, LOIHI).potentials["n"].ravel().tolist()
    assert wide == [(254 * (2**16 + 1) - 256 * 2**16) * 64, (254 * 2**16 - 256 * (2**16 - 1)) * 64]
