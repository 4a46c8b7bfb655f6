"""The search for a unit on a part of what a wide layer computes: the same numbers, fewer of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from snncompile.ir.graph import Edge, Graph
from snncompile.ir.ops import Conv, Dense, Input, Neuron, Scale, Synapse, number
from snncompile.ir.signals import Spike
from snncompile.passes import quantise_view
from snncompile.passes.quantise_integers import Incoming
from snncompile.passes.quantise_unit import choose_unit
from snncompile.passes.quantise_view import Seen
from snncompile.run import linear
from snncompile.run.reference import apply_linear, run
from snncompile.run.trace import Array
from snncompile.target import Target

NUMBERS = np.random.default_rng(5)
LOIHI = Target.load("loihi")


def incoming(synapse: Synapse, shape: tuple[int, ...]) -> Incoming:
    values = NUMBERS.random((2, 3, *shape)) < 0.3
    return Incoming(("w",), synapse, 1.0, 1, False, values, values, 1)


@pytest.mark.parametrize(
    ("synapse", "source", "shape"),
    [
        (Conv(NUMBERS.standard_normal((4, 2, 3, 3)), padding=(1, 1)), (2, 9, 7), (4, 9, 7)),
        (Conv(NUMBERS.standard_normal((4, 2, 6, 6)), stride=(2, 2), padding=(2, 2)), (2, 18, 14), (4, 9, 7)),
        (Conv(NUMBERS.standard_normal((4, 2, 3, 3)), padding=(2, 2), dilation=(2, 2)), (2, 9, 7), (4, 9, 7)),
        (Conv(NUMBERS.standard_normal((4, 1, 3)), None, (1,), (1,), (1,), 2), (2, 9), (4, 9)),
        (Dense(NUMBERS.standard_normal((4 * 9 * 7, 5))), (5,), (4, 9, 7)),
        (Scale(NUMBERS.standard_normal((4, 1, 1))), (4, 9, 7), (4, 9, 7)),
        (Scale(number(0.5)), (4, 9, 7), (4, 9, 7)),
    ],
)
@pytest.mark.parametrize("places", [[0], [0, 3, 8], "all"])
@pytest.mark.parametrize("samples", [[1], [0, 1]])
def test_some_places_are_those_of_the_whole(
    synapse: Synapse, source: tuple[int, ...], shape: tuple[int, ...], places: list[int] | str, samples: list[int]
) -> None:
    """Against the definition: the op on all of a sample, a step late."""
    item = incoming(synapse, source)
    seen = Seen(Neuron(shape), [item], item.values[:, :, :1], 2, 3)
    if isinstance(places, str):
        places = list(range(seen.sites))
    given = item.values.reshape(6, *source).astype(float)
    whole = apply_linear(Graph({"w": synapse}, ()), "w", given).reshape(2, 3, shape[0], -1)
    late = np.concatenate([np.zeros_like(whole[:, :1]), whole[:, :-1]], axis=1)
    spikes = NUMBERS.random((2, 3, *shape)) < 0.5
    view = Seen(Neuron(shape), [item], spikes, 2, 3).look(np.array(samples), np.array(places))
    np.testing.assert_allclose(view.wanted, np.moveaxis(late[samples][..., places], 2, 3), rtol=1e-12, atol=1e-12)
    assert view.fired is not None
    fired = spikes.reshape(2, 3, shape[0], -1)[samples][..., places]
    np.testing.assert_array_equal(view.fired, np.moveaxis(fired, 2, 3))


@pytest.mark.parametrize("large", [1, 2**21])
def test_currents_of_whole_weights_are_exact(large: int) -> None:
    """Also where float32 would lose the last bits of the sum."""
    weight = large * NUMBERS.integers(-9, 9, (4, 2, 3, 3))
    item = incoming(Conv(weight.astype(float), padding=(1, 1)), (2, 9, 7))
    view = Seen(Neuron((4, 9, 7)), [item], item.values[:, :, :1].repeat(4, 2), 2, 3).look()
    given = item.values.reshape(6, 2, 9, 7).astype(np.int64)
    exact = linear.conv(given, weight, (1, 1), (1, 1), (1, 1), 1).reshape(2, 3, 4, 63)
    np.testing.assert_array_equal(view.currents([weight.astype(float)])[:, 1:], np.moveaxis(exact, 2, 3)[:, :-1])


def small_map() -> tuple[Seen, Array]:
    """A convolution on two samples, and the potentials of its neurons."""
    synapse, op = (
        Conv(NUMBERS.standard_normal((4, 2, 3, 3)), padding=(1, 1)),
        Neuron((4, 9, 7), bias=np.full((4, 1, 1), 0.1)),
    )
    item = replace(incoming(synapse, (2, 9, 7)), delay=0)
    edges = [Edge("x", "w"), Edge("w", "n")]
    trace = run(Graph({"x": Input((2, 9, 7), Spike()), "w": synapse, "n": op}, edges), {"x": item.values})
    return Seen(op, [item], trace.spikes["n"], 2, 3), trace.potentials["n"]


def test_a_layer_too_wide_for_all_its_samples_is_searched_on_some_places(monkeypatch: pytest.MonkeyPatch) -> None:
    """A seventh of the work; the unit serves nearly as well, and what is told of it is true of all the data."""
    seen, potential = small_map()
    whole = choose_unit("n", seen, LOIHI, potential)
    monkeypatch.setattr(quantise_view, "WORK", 19 * 4 * 9 * 7 * 3 * 2 * quantise_view.CANDIDATES / 7)
    some = seen.some()
    assert some is not None
    assert some.wanted.shape == (1, 3, 18, 4)
    assert sum(view.wanted.size for view in seen.everything()) == potential.size
    part = choose_unit("n", seen, LOIHI, potential)
    assert part.compared == whole.compared == potential.size
    assert part.wrong <= part.otherwise
    assert part.error <= 2 * whole.error + 0.01


def test_all_the_data_some_at_a_time_are_all_the_data(monkeypatch: pytest.MonkeyPatch) -> None:
    seen, potential = small_map()
    monkeypatch.setattr(quantise_view, "WORK", 1.0)
    few = choose_unit("n", seen, LOIHI, potential)
    monkeypatch.setattr(quantise_view, "NUMBERS", 19 * 3 * 5)
    assert len(list(seen.everything())) == 2 * 13
    again = choose_unit("n", seen, LOIHI, potential)
    assert (again.unit, again.wrong, again.compared) == (few.unit, few.wrong, few.compared)
    assert again.error == pytest.approx(few.error, rel=1e-12)
