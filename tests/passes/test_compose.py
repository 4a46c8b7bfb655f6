"""Two linear ops as one: the composed op does what the two do, one after the other."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from snncompile.errors import NotRepresentable
from snncompile.ir.graph import Graph
from snncompile.ir.ops import Conv, Dense, Flatten, Pool, Scale, Shape
from snncompile.ir.shapes import shape_of
from snncompile.passes import compose as module
from snncompile.passes.compose import Linear, compose
from snncompile.run.reference import apply_linear
from tests.graphs import Array, fits


def applied(op: Linear, x: Array) -> Array:
    return apply_linear(Graph({"op": op}, ()), "op", x)


def drawn(source: Random, shape: Shape, flat: bool) -> Linear:
    """A linear op that takes ``shape``; ``flat``: what may follow a flatten."""
    numbers = np.random.default_rng(source.randint(0, 2**32 - 1))
    axes, channels = len(shape) - 1, shape[0]

    def each(*choices: int) -> tuple[int, ...]:
        return tuple(choices[source.randint(0, len(choices) - 1)] for _ in range(axes))

    for _ in range(10):
        kind = source.randint(0, 2 if flat or not axes else 5)
        if kind == 0:
            op: Linear = Dense(numbers.integers(-8, 9, (3, int(np.prod(shape)))) / 8)
        elif kind == 1:
            sizes = [(), (channels, *(1,) * axes), shape]
            op = Scale(numbers.integers(-8, 9, sizes[source.randint(0, 2)]) / 8)
        elif kind == 2:
            op = Flatten()
        elif kind == 3:
            pad = each(0, 0, 1)
            op = Pool(("sum", "mean")[source.randint(0, 1)], tuple(max(2, k) for k in each(1, 2)), each(2, 1, 3), pad)
        else:
            features = (2, 4, 1)[source.randint(0, 2)]
            groups = channels if features % channels == 0 and source.randint(0, 1) else 1
            weight = numbers.integers(-8, 9, (features, channels // groups, *each(3, 2, 1))) / 8
            op = Conv(weight, None, each(1, 2, 3), each(0, 1, 2), each(1, 2), groups)
        if fits(op, shape):
            return op
    return Flatten()


@given(st.randoms(use_true_random=False), st.sampled_from([(2, 5, 6), (4, 4, 4), (1, 7, 5), (2, 9), (6,)]))
def test_a_chain_composes_to_what_it_does(source: Random, shape: Shape) -> None:
    """Numbers are small multiples of powers of two, so equality is exact."""
    x = np.random.default_rng(0).integers(-8, 9, (3, *shape)) / 8
    expected, form, one, flat = x, shape, None, False
    for _ in range(source.randint(2, 4)):
        op = drawn(source, form, flat)
        one = op if one is None else compose(one, op, shape, form)
        flat |= isinstance(op, Flatten | Dense)
        expected, form = applied(op, expected), shape_of("op", op, form)
    assert one is not None
    result = applied(one, x)
    np.testing.assert_array_equal(result.reshape(len(x), -1), expected.reshape(len(x), -1))


def test_a_pool_before_a_convolution_is_one_convolution() -> None:
    composed = compose(Pool("mean", (2, 2), (2, 2)), Conv(np.ones((3, 2, 3, 3)), None, (1, 1), (1, 1)), (2, 8, 8))
    assert isinstance(composed, Conv)
    assert composed.weight.shape == (3, 2, 6, 6)
    assert (composed.stride, composed.padding, composed.groups) == ((2, 2), (2, 2), 1)
    assert (composed.weight == 0.25).all()


def test_depthwise_stays_depthwise() -> None:
    composed = compose(Pool("sum", (2, 2), (2, 2)), Pool("sum", (2, 2), (2, 2)), (3, 8, 8))
    assert isinstance(composed, Conv)
    assert composed.groups == 3
    np.testing.assert_array_equal(composed.weight, np.ones((3, 1, 4, 4)))


def test_a_pool_that_drops_a_row_and_a_padded_convolution_become_a_matrix() -> None:
    """Rows that the pool drops must not come back: the padding of the convolution reads zeros there."""
    pool, conv = Pool("sum", (2, 2), (2, 2)), Conv(np.ones((1, 1, 3, 3)), None, (1, 1), (1, 1))
    x = np.zeros((1, 1, 7, 7))
    x[..., 6] = 1.0
    composed = compose(pool, conv, (1, 7, 7))
    assert isinstance(composed, Dense)
    assert not applied(composed, x).any()
    assert isinstance(compose(pool, conv, (1, 6, 6)), Conv)


def test_a_maximum_does_not_compose() -> None:
    with pytest.raises(NotRepresentable, match="a maximum is not linear"):
        compose(Pool("max", (2, 2), (2, 2)), Conv(np.ones((1, 1, 1, 1))), (1, 4, 4))


def test_a_matrix_that_is_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MATRIX_NUMBERS", 100)
    with pytest.raises(NotRepresentable, match="its matrix would hold"):
        compose(Pool("sum", (2, 2), (2, 2)), Conv(np.ones((1, 1, 3, 3)), None, (1, 1), (1, 1)), (1, 7, 7))
