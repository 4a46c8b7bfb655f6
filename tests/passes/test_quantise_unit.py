"""The search for a unit on a part of what a wide layer computes: the same numbers, fewer of them."""

from __future__ import annotations

import numpy as np
import pytest

from snncompile.ir.ops import Conv, Dense, Neuron, Scale, Synapse, number
from snncompile.passes import quantise_unit
from snncompile.passes.quantise_unit import Incoming, _banded, _currents, choose_unit
from snncompile.target import Target

NUMBERS = np.random.default_rng(5)
LOIHI = Target.load("loihi")


def incoming(synapse: Synapse, shape: tuple[int, ...]) -> Incoming:
    values = (NUMBERS.random((2, 3, *shape)) < 0.3).astype(np.float64)
    return Incoming("w", synapse, 1.0, 1, False, values, values, 1)


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
@pytest.mark.parametrize("rows", [(0, 2), (3, 6), (8, 9), (0, 9)])
def test_some_rows_are_those_of_the_whole(
    synapse: Synapse, source: tuple[int, ...], shape: tuple[int, ...], rows: tuple[int, int]
) -> None:
    item = incoming(synapse, source)
    whole = _currents(item, item.real_weight, item.values, shape)
    banded = _banded(item, rows, shape)
    part = _currents(banded, banded.real_weight, banded.values, (shape[0], rows[1] - rows[0], *shape[2:]))
    np.testing.assert_allclose(part, whole[:, :, :, rows[0] : rows[1]], rtol=1e-12, atol=1e-12)


def test_a_layer_too_wide_for_one_sample_is_searched_on_some_of_its_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """A seventh of the work is one row of nine; its unit serves nearly as well as that of the whole map."""
    item = incoming(Conv(NUMBERS.standard_normal((4, 2, 3, 3)), padding=(1, 1)), (2, 9, 7))
    op = Neuron((4, 9, 7), bias=NUMBERS.standard_normal((4, 1, 1)))
    potential = np.ones((2, 3, 4, 9, 7))
    spikes = potential > 2
    args = ("n", op, [item], LOIHI, potential, spikes, 3)
    whole = choose_unit(*args)
    monkeypatch.setattr(quantise_unit, "WORK", 18 * 4 * 9 * 7 * 3 * quantise_unit.CANDIDATES / 7)
    assert quantise_unit._samples([item], potential) == (1, (4, 5))
    part = choose_unit(*args)
    assert 0.5 * whole.unit <= part.unit <= 2 * whole.unit
    assert part.error <= 2 * whole.error
