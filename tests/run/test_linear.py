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
    ("x", "weight", "held"),
    [
        (np.array([[1, 1]]), np.array([[2**22, 2**22 - 1]]), np.float32),
        (np.array([[1, 1]]), np.array([[2**22, 2**22]]), np.float64),
        (np.array([[2**23, 0]]), np.array([[0, 0]]), np.float64),
        (np.array([[0, 0]]), np.array([[2**23, 0]]), np.float64),
        (np.array([[1, 1]]), np.array([[2**51, 2**51 - 1]]), np.float64),
        (np.array([[1, 1]]), np.array([[2**51, 2**51]]), None),
        (np.array([[-2, 0]]), np.array([[2**50, 2**50]]), None),
        (np.array([[1.0, 1.0]]), np.array([[1, 1]]), None),
        (np.zeros((1, 0), np.int64), np.zeros((2, 0), np.int64), None),
        (np.array([[-(2**63)]]), np.array([[1]]), None),
    ],
)
def test_a_type_serves_only_where_no_sum_can_leave_it(
    x: np.ndarray, weight: np.ndarray, held: type[np.floating] | None
) -> None:
    assert linear.exact_type(x, weight) is held
    assert linear.exact_type(x, weight, linear.largest_sum(weight)) is held


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("count", [1, 7])
def test_a_convolution_patch_by_patch_is_the_whole(monkeypatch: pytest.MonkeyPatch, groups: int, count: int) -> None:
    numbers = np.random.default_rng(3)
    x, weight = numbers.integers(-9, 9, (count, 4, 6, 5)), numbers.integers(-9, 9, (6, 4 // groups, 3, 2))
    arguments = (x, weight, (2, 1), (1, 0), (1, 2), groups)
    whole = linear.conv(*arguments)
    monkeypatch.setattr(linear, "PATCH_NUMBERS", 2 * 24 // groups * 9)
    np.testing.assert_array_equal(linear.conv(*arguments), whole)
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (0, 0)))
    for out in range(6):
        first = out // (6 // groups) * (4 // groups)
        window = padded[:, first : first + 4 // groups, 2:5, 1:4:2]  # of the place (1, 1)
        assert whole[:, out, 1, 1].tolist() == (window * weight[out]).sum(axis=(1, 2, 3)).tolist()


def test_flags_of_the_processor_are_no_evidence() -> None:
    # OpenBLAS's AVX-512 kernels raise them of lanes that they throw away; here they are raised for good
    x, weight = np.array([[np.inf, -np.inf]]), np.ones((2, 2))
    assert np.isnan(linear.product(x, weight)).all()
    assert np.isnan(linear.dense(x, weight)).all()
    assert np.isnan(linear.conv(x[:, :, None], weight[:, :, None], (1,), (0,), (1,), 1)).all()
