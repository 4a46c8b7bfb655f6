"""Integers with a scale: rounding, saturation, wrap and decay against plain Python integers."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from snncompile.fixed import FixedPoint, as_fixed, decay, overflow, round_half_away, saturate, shift_toward_zero, wrap

M = 1 << 23
words = st.integers(-(2**40), 2**40)


def array(value: int) -> np.ndarray:
    return np.array([value], dtype=np.int64)


@pytest.mark.parametrize(
    ("value", "rounded"), [(0.5, 1), (-0.5, -1), (1.5, 2), (2.5, 3), (-2.5, -3), (0.49, 0), (-1.2, -1), (0.0, 0)]
)
def test_halves_go_away_from_zero(value: float, rounded: int) -> None:
    assert round_half_away(value) == rounded


@given(words, st.integers(0, 20))
def test_shift_toward_zero_drops_the_fraction_on_both_sides(value: int, bits: int) -> None:
    assert shift_toward_zero(array(value), bits)[0] == int(Fraction(value, 2**bits))


@given(st.integers(-M, M), st.integers(0, 4096))
def test_decay_rounds_as_the_sheet_says(value: int, lost: int) -> None:
    exact = Fraction(value * (4096 - lost), 4096)
    assert decay(array(value), array(lost), 12, "toward-zero")[0] == int(exact)
    assert decay(array(value), array(lost), 12, "floor")[0] == exact.__floor__()


@given(st.integers(-3 * M, 3 * M))
def test_wrap_is_one_turn_and_keeps_the_top(value: int) -> None:
    turned = value - 2 * M if value > M else value + 2 * M if value <= -M else value
    assert wrap(array(value), 24)[0] == turned


@pytest.mark.parametrize(("value", "wrapped"), [(M, M), (M + 1, -M + 1), (-M, M), (-M + 1, -M + 1), (3 * M + 1, M + 1)])
def test_wrap_at_its_ends(value: int, wrapped: int) -> None:
    assert wrap(array(value), 24)[0] == wrapped
    assert overflow(array(value), 24, "wrap")[0] == wrapped


@given(words)
def test_saturation_is_symmetric(value: int) -> None:
    assert saturate(array(value), 24)[0] == max(-(M - 1), min(M - 1, value))
    assert overflow(array(value), 24, "saturate")[0] == -saturate(array(-value), 24)[0]


@given(st.integers(-(2**40), 2**40), st.integers(-12, 7), st.integers(0, 8))
def test_a_value_on_a_grid_floors(mantissa: int, exponent: int, fraction: int) -> None:
    expected = (Fraction(mantissa) * Fraction(2) ** (exponent + fraction)).__floor__()
    assert FixedPoint.number(mantissa, exponent).on_grid(fraction) == expected


@given(st.integers(-(2**50), 2**50), st.integers(-30, 10))
def test_reals_on_a_grid_come_back(mantissa: int, exponent: int) -> None:
    number = FixedPoint.number(mantissa, exponent)
    assert as_fixed(number.real, exponent).mantissa == mantissa


@pytest.mark.parametrize("value", [0.3, 1 / 3, np.inf, -np.inf, np.nan, 1e300, [0.5, 0.25, 0.1]])
def test_what_is_on_no_grid_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"not a multiple of 2\*\*-6"):
        as_fixed(value, -6)


def test_mantissas_are_copied_and_read_only() -> None:
    given_ = np.arange(3)
    fixed = FixedPoint(given_)
    given_[0] = 7
    assert fixed.mantissa.tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match="read-only"):
        fixed.mantissa[0] = 1
