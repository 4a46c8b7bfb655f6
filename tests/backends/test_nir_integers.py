"""A machine's integers as the reals of NIR: bit for bit where that is said, inside the limit of rounding elsewhere; the
digits, the ranges and the refusals behind it.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snncompile.backends.nir_integers import InReals, in_reals
from snncompile.backends.nir_measured import measured
from snncompile.backends.nir_profiles import PROFILES
from snncompile.backends.nir_sketch import Sketch
from snncompile.errors import Disagreement, NotRepresentable
from snncompile.fixed import FixedPoint
from snncompile.ir.check import check
from snncompile.ir.graph import Edge, Graph
from snncompile.ir.ops import (
    Dense,
    Flatten,
    Input,
    Neuron,
    Op,
    Output,
    Readout,
    Resonator,
    Scale,
    SigmaDelta,
    number,
)
from snncompile.ir.signals import Fixed, Spike
from snncompile.run import integer, reference
from snncompile.run.trace import Trace
from snncompile.target import Target

LOIHI = Target.load("loihi")
CANONICAL = PROFILES["canonical"]
Array = np.ndarray[Any, Any]


def fixed(values: Any, exponent: int = 0) -> FixedPoint:
    return FixedPoint(np.asarray(values), exponent)


def lif(size: int, alpha: int = 4096, beta: int = 0, threshold: int = 40, bias: int = 0) -> Neuron:
    decays = {"alpha": fixed(alpha, -12), "beta": fixed(beta, -12)}
    return Neuron((size,), **decays, threshold=fixed(threshold), bias=fixed(bias))


def sdnn(size: int, kind: Any, threshold: int, bias: Any = 0, shift: int = 6, bits: int = 12) -> SigmaDelta:
    return SigmaDelta((size,), kind, fixed(threshold, bits), fixed(bias, bits), shift)


def rf(size: int, kind: Any, period: float, decay: float, threshold: int) -> Resonator:
    turn = (1 - decay) * 4096
    wave = [fixed(int(turn * of(2 * np.pi / period)), -12) for of in (np.cos, np.sin)]
    return Resonator((size,), wave[0], wave[1], fixed(threshold), kind)


def chain(source: Input, *layers: tuple[str, Op]) -> Graph:
    """Nodes one behind the other, between an input and an output."""
    nodes: dict[str, Op] = {"x": source, **dict(layers), "out": Output()}
    names = list(nodes)
    return Graph(nodes, [Edge(one, other) for one, other in pairwise(names)])


def even(generator: np.random.Generator, *shape: int, most: int = 20) -> FixedPoint:
    return fixed(2 * generator.integers(-most, most + 1, shape))


def stimulus(generator: np.random.Generator, graph: Graph, steps: int, samples: int = 3) -> dict[str, Array]:
    found = {}
    for name in graph.names(Input):
        op = graph.nodes[name]
        assert isinstance(op, Input)
        low, high = (0, 1) if isinstance(op.signal, Spike) else (-op.signal.most, op.signal.most)  # type: ignore[union-attr]
        found[name] = generator.integers(low, high + 1, (samples, steps, *op.shape))
    return found


def run_both(graph: Graph, given_: dict[str, Array]) -> tuple[Trace, Trace, InReals]:
    """Integers, reals by the names of the network, and what was made of it."""
    steps = next(iter(given_.values())).shape[1]
    made = in_reals(graph, LOIHI, steps, CANONICAL)
    check(made.graph, "read")
    machine = integer.run(graph, given_, LOIHI)
    reals = reference.run(made.graph, {name: x.astype(np.float64) for name, x in given_.items()})
    return machine, made.populations(reals, graph), made


def equal_spikes(machine: Trace, reals: Trace) -> None:
    assert machine.spikes.keys() == reals.spikes.keys()
    for name, array in machine.spikes.items():
        np.testing.assert_array_equal(reals.spikes[name], array, err_msg=name)


# Digits


@settings(max_examples=60, deadline=None)
@given(
    bits=st.integers(1, 12),
    lowest=st.integers(0, 6),
    offset=st.integers(-40, 40),
    values=st.lists(st.integers(-5000, 5000), min_size=1, max_size=30),
)
def test_digits_are_the_positive_part_without_its_lowest(
    bits: int, lowest: int, offset: int, values: list[int]
) -> None:
    """``x - digits`` for every integer whose positive part has so many of them."""
    lowest = min(lowest, bits)
    x = np.array([value for value in values if value + offset < 2**bits], dtype=np.float64)
    if not x.size:
        return
    graph = chain(Input((1,), Fixed(24)), ("p", Scale(number(1.0))))
    draw = Sketch(graph, "p", (1,))
    start = draw.sum("x", draw.terms())
    rest = draw.digits("digit", start, bits, lowest=lowest, offset=float(offset))
    draw.sum("", [(rest, 1.0, 0)])
    made = draw.done()
    seen = made.edit({"seen": Readout((1,), "last", decay=0.0)}, [*made.edges, Edge("p", "seen")])
    found = reference.run(seen, {"x": x.reshape(-1, 1, 1)}).potentials["seen"].ravel()
    positive = np.maximum(x + offset, 0)
    np.testing.assert_array_equal(found, x - positive // 2**lowest * 2**lowest)


# Sigma-delta: exact


@st.composite
def graded_graphs(draw: st.DrawFn) -> tuple[Graph, int]:
    """Sigma-delta layers behind an encoder or messages, with delays, a skip, and a sum at the end."""
    seed = draw(st.integers(0, 2**32 - 1))
    generator = np.random.default_rng(seed)
    shift, bits = draw(st.sampled_from([(6, 12), (0, 0), (3, 5)]))
    source = Input((3,), Fixed(draw(st.sampled_from([4, 9, 13]))))
    layers: list[tuple[str, Op]] = []
    if draw(st.booleans()):
        image = Scale(fixed(1, bits))
        layers += [
            ("image", image),
            ("enc", sdnn(3, "delta", draw(st.integers(0, 3)), draw(st.integers(-2, 2)), shift, bits)),
        ]
    width = 3
    for index in range(draw(st.integers(1, 3))):
        size = draw(st.integers(1, 4))
        bias = generator.integers(-4, 5, size)
        layers.append((f"w{index}", Dense(even(generator, size, width))))
        threshold = draw(st.integers(0, 3))
        layers.append((f"s{index}", sdnn(size, "sigma-delta", threshold, bias, shift, bits)))
        width = size
    if draw(st.booleans()):
        layers += [("wl", Dense(even(generator, 2, width))), ("sum", sdnn(2, "sigma", 0))]
    graph = chain(source, *layers)
    late = draw(st.integers(0, 3))
    edges = [Edge(e.source, e.target, late) if e.target == "w0" else e for e in graph.edges]
    if draw(st.booleans()):
        first = graph.nodes["s0"]
        assert isinstance(first, SigmaDelta)
        graph = graph.edit({"skip": Dense(even(generator, first.shape[0], 3))}, edges)
        return Graph(graph.nodes, [*graph.edges, Edge("x", "skip", 1), Edge("skip", "s0")]), seed
    return graph.edit(None, edges), seed


@settings(max_examples=60, deadline=None)
@given(case=graded_graphs(), steps=st.integers(1, 9))
def test_sigma_delta_is_exact(case: tuple[Graph, int], steps: int) -> None:
    """Every change that is told, every message behind it, every sum."""
    graph, seed = case
    machine, reals, made = run_both(graph, stimulus(np.random.default_rng(seed), graph, steps))
    assert made.exact
    equal_spikes(machine, reals)
    if "sum" in graph.nodes:
        np.testing.assert_array_equal(reals.potentials["sum"], machine.potentials["sum"])


def test_changes_that_a_population_hears_from_itself() -> None:
    """A loop: its range grows from step to step, and the digits are those of so many steps."""
    generator = np.random.default_rng(5)
    graph = chain(Input((3,), Fixed(8)), ("w", Dense(even(generator, 4, 3))), ("s", sdnn(4, "sigma-delta", 1, 0, 3, 3)))
    again = graph.edit({"again": Dense(even(generator, 4, 4, most=20))})
    graph = Graph(again.nodes, [*again.edges, Edge("s", "again", 1), Edge("again", "s")])
    machine, reals, made = run_both(graph, stimulus(generator, graph, 5))
    assert made.exact
    assert 0.1 < machine.spikes["s"].mean() < 1
    equal_spikes(machine, reals)
    for many in (16, 60):  # more digits than float64 has, and than any number
        with pytest.raises(NotRepresentable, match=rf"its sum may reach .* in {many} steps"):
            in_reals(graph, LOIHI, many, CANONICAL)


# Resonators


def resonators(kind: Any, generator: np.random.Generator, period: float, decay: float, threshold: int) -> Graph:
    weights = Dense(even(generator, 8, 5))
    return chain(
        Input((5,), Spike()), ("w", weights), ("parts", Flatten((2, 4))), ("rf", rf(4, kind, period, decay, threshold))
    )


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    period=st.floats(2.2, 40),
    decay=st.sampled_from([-0.05, 0.05, 0.2, 0.5]),
    threshold=st.integers(0, 60),
)
def test_a_resonator_that_is_reset_is_exact(seed: int, period: float, decay: float, threshold: int) -> None:
    """Products rounded toward zero and a state that is dropped: the machine's integers, digit by digit."""
    generator = np.random.default_rng(seed)
    graph = resonators("izhikevich", generator, period, decay, threshold)
    machine, reals, made = run_both(graph, stimulus(generator, graph, 25))
    assert made.exact
    equal_spikes(machine, reals)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), period=st.floats(2.2, 40), decay=st.sampled_from([0.05, 0.2]))
def test_a_resonator_without_reset_stays_inside_what_rounding_explains(seed: int, period: float, decay: float) -> None:
    """In reals, also with a negative cosine: no part is further from the machine's than the products it rounds."""
    generator = np.random.default_rng(seed)
    graph = resonators("phase", generator, period, decay, 20)
    machine, reals, made = run_both(graph, stimulus(generator, graph, 40))
    assert [reason.split(":")[0] for reason in made.reasons] == ["rf (Resonator)"]
    apart = np.abs(reals.potentials["rf"] - machine.potentials["rf"] / 64).max()
    assert 0 < apart <= made.limits["rf"] < 3
    different = reals.spikes["rf"] != machine.spikes["rf"]
    assert different.mean() < 0.1


def test_a_resonator_with_parameters_of_its_own_per_neuron() -> None:
    """Cosines that differ are no time constant of one integrator: they are factors."""
    generator = np.random.default_rng(8)
    graph = resonators("phase", generator, 7, 0.1, 20)
    op = graph.nodes["rf"]
    assert isinstance(op, Resonator)
    graph = graph.edit({"rf": replace(op, cosine=fixed([3000, -2500, 3500, 0], -12))})
    machine, reals, made = run_both(graph, stimulus(generator, graph, 30))
    assert np.abs(reals.potentials["rf"] - machine.potentials["rf"] / 64).max() <= made.limits["rf"]
    assert machine.spikes["rf"].any()


@pytest.mark.parametrize("kind", ["phase", "izhikevich"])
def test_parts_that_are_not_weights_one_above_the_other(kind: Any) -> None:
    """Complex numbers from outside, and from two matrices that add: each part is picked out of them."""
    generator = np.random.default_rng(9)
    nodes: dict[str, Op] = {"x": Input((2, 4), Spike()), "big": Scale(fixed(40)), "rf": rf(4, kind, 7, 0.2, 25)}
    nodes |= {"again": Dense(even(generator, 8, 8)), "view": Flatten((2, 4)), "out": Output()}
    edges = [Edge("x", "big"), Edge("big", "rf"), Edge("x", "again"), Edge("again", "view", 2), Edge("view", "rf")]
    graph = Graph(nodes, [*edges, Edge("rf", "out")])
    machine, reals, made = run_both(graph, stimulus(generator, graph, 30))
    assert "again" not in made.graph.nodes
    assert machine.spikes["rf"].any()
    if kind == "izhikevich":
        equal_spikes(machine, reals)
    else:
        assert np.abs(reals.potentials["rf"] - machine.potentials["rf"] / 64).max() <= made.limits["rf"]


def test_a_form_of_resonators_is_refused() -> None:
    graph = chain(Input((2, 2, 3), Spike()), ("rf", replace(rf(1, "phase", 7, 0.2, 25), shape=(2, 3))))
    with pytest.raises(NotRepresentable, match=r"rf \(Resonator\): resonates in a form"):
        in_reals(graph, LOIHI, 3, CANONICAL)


def test_a_reset_in_a_register_that_may_saturate_is_refused() -> None:
    graph = resonators("izhikevich", np.random.default_rng(1), 7, 0.0, 20)
    with pytest.raises(NotRepresentable, match=r"rf \(Resonator\): its state may reach .* in 3000 steps \(loihi holds"):
        in_reals(graph, LOIHI, 3000, CANONICAL)


@pytest.mark.parametrize("profile", ["unit-r", "snntorch", "spikingjelly", "norse", "sinabs"])
@pytest.mark.parametrize("op", [sdnn(2, "sigma-delta", 1), rf(1, "phase", 7, 0.1, 9)])
def test_profiles_without_the_primitives_are_refused_by_name(profile: str, op: Op) -> None:
    layers = [("w", Dense(fixed(np.eye(2, dtype=int))))] + [("view", Flatten((2, 1)))] * isinstance(op, Resonator)
    graph = chain(Input((2,), Spike()), *layers, ("p", op))
    with pytest.raises(NotRepresentable, match=rf"p \({type(op).__name__}\): is no primitive of NIR.*{profile}"):
        in_reals(graph, LOIHI, 4, PROFILES[profile])


# LIF


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    alpha=st.sampled_from([4096, 4095, 2048, 700, 0]),
    beta=st.sampled_from([0, 100, 1024, 4096]),
    bias=st.integers(-5, 9),
)
def test_what_rounds_is_measured_and_stays_inside_its_limit(seed: int, alpha: int, beta: int, bias: int) -> None:
    """``measured`` raises where a potential, given equal inputs and resets, lies further off than rounding takes it."""
    generator = np.random.default_rng(seed)
    graph = chain(
        Input((6,), Spike()),
        ("w", Dense(even(generator, 5, 6))),
        ("a", lif(5, alpha, beta, 40, bias)),
        ("v", Dense(even(generator, 4, 5))),
        ("b", lif(4, 4096, beta, 30)),
        ("u", Dense(even(generator, 3, 4))),
        ("sum", Readout((3,), "sum", fixed(0))),
    )
    given_ = stimulus(generator, graph, 30)
    made = in_reals(graph, LOIHI, 30, CANONICAL)
    rounds, overflows = (any(word in reason for reason in made.reasons) for word in ("rounds", "may reach"))
    assert rounds == (alpha not in (4096, 0) or beta not in (0, 4096))
    assert made.exact == (not rounds and not overflows)
    machine = integer.run(graph, given_, LOIHI)
    reals = {name: x.astype(np.float64) for name, x in given_.items()}
    free, found = measured(graph, made, reals, LOIHI, machine)
    assert [one.population for one in found] == ["a", "b", "sum"]
    for one in found[:2]:
        assert one.different == int((free.spikes[one.population] != machine.spikes[one.population]).sum())
        assert bool(one.first) == bool(one.different)
        assert one.limit == (None if made.exact else made.limits[one.population])
    assert made.exact == (found[0].largest is None)


def test_a_limit_that_is_passed_is_a_disagreement() -> None:
    """What rounding does not explain is no measurement but an error."""
    generator = np.random.default_rng(2)
    graph = chain(Input((6,), Spike()), ("w", Dense(even(generator, 5, 6))), ("a", lif(5, 4096, 300)))
    given_ = stimulus(generator, graph, 20)
    made, machine = in_reals(graph, LOIHI, 20, CANONICAL), integer.run(graph, given_, LOIHI)
    reals = {"x": given_["x"].astype(np.float64)}
    _, (found,) = measured(graph, made, reals, LOIHI, machine)
    assert found.largest is not None
    with pytest.raises(Disagreement, match="further from the machine than rounding"):
        measured(graph, replace(made, limits={"a": found.largest / 2}), reals, LOIHI, machine)
    if found.different or found.given:
        return
    wrong = Trace({"a": ~machine.spikes["a"]}, machine.potentials)
    with pytest.raises(Disagreement, match="is said to be exact"):
        measured(graph, replace(made, reasons=()), reals, LOIHI, wrong)


def test_a_register_that_may_overflow_is_a_reason_and_has_no_limit() -> None:
    """A neuron that only sums up: exact as long as the sum is proven to stay inside, and said otherwise."""
    graph = chain(Input((6,), Fixed(13)), ("w", Dense(fixed(np.full((2, 6), 254)))), ("a", lif(2, threshold=100000)))
    few = in_reals(graph, LOIHI, 1, CANONICAL)
    assert any("its current may reach 6,240,780 in 1 steps; loihi holds" in reason for reason in few.reasons)
    assert few.limits == {}
    small = chain(Input((6,), Spike()), ("w", Dense(fixed(np.full((2, 6), 254)))), ("a", lif(2, threshold=100000)))
    assert in_reals(small, LOIHI, 80, CANONICAL).exact
    assert "its potential may reach 132,588 in 87 steps" in in_reals(small, LOIHI, 87, CANONICAL).reasons[0]


def test_factors_of_one_go() -> None:
    """Readers of other frameworks know no Scale; a machine's factor of 1 is none."""
    graph = chain(Input((2,), Fixed(13)), ("image", Scale(fixed(2, -1))), ("a", lif(2)))
    made = in_reals(graph, LOIHI, 3, CANONICAL)
    assert list(made.graph.nodes) == ["x", "a", "out"]
    assert made.graph.edges == (Edge("a", "out"), Edge("x", "a"))
