"""Linear ops on integers: the same integers, whichever type multiplies them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from snncompile.run import linear

SUMS = st.sampled_from([2**20, 2**51, 2**52, 2**53, 2**62])


def by_hand(x: np.ndarray, weight: np.ndarray) -> list[list[int]]:
    """The product in Python's own integers."""
    return [[sum(int(w) * int(v) for w, v in zip(row, line, strict=True)) for row in weight] for line in x]


@given(st.integers(0, 2**32 - 1), SUMS)
def test_integers_multiply_exactly_whatever_their_size(seed: int, sums: int) -> None:
    """Near 2^53 float64 would round: the largest weights are odd."""
    numbers = np.random.default_rng(seed)
    weight = numbers.integers(-3, 4, (3, 5)) + np.array([[sums // 8 + 1], [1], [-sums // 16 - 1]])
    x = numbers.integers(-1, 2, (4, 5))
    y = linear.dense(x, weight)
    assert y.dtype == np.int64
    assert y.tolist() == by_hand(x, weight)
    kernel = weight.reshape(3, 5, 1, 1)
    image = linear.conv(x.reshape(4, 5, 1, 1), kernel, (1, 1), (0, 0), (1, 1), 1)
    assert image.dtype == np.int64
    assert image.reshape(4, 3).tolist() == by_hand(x, weight)


@pytest.mark.parametrize(
    ("x", "weight", "exact"),
    [
        (np.array([[1, 1]]), np.array([[2**51, 2**51 - 1]]), True),
        (np.array([[1, 1]]), np.array([[2**51, 2**51]]), False),
        (np.array([[-2, 0]]), np.array([[2**50, 2**50]]), False),
        (np.array([[1.0, 1.0]]), np.array([[1, 1]]), False),
        (np.zeros((1, 0), np.int64), np.zeros((2, 0), np.int64), False),
        (np.array([[-(2**63)]]), np.array([[1]]), False),
    ],
)
def test_float64_serves_only_where_no_sum_can_leave_it(x: np.ndarray, weight: np.ndarray, exact: bool) -> None:
    assert linear.float64_is_exact(x, weight) is exact
