"""Rows of bits: packing and counting, compiled and not, against arrays of truths."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from snncompile.run import bits

Array = np.ndarray[Any, np.dtype[Any]]
WAYS = [False, True] if bits.COMPILED else [False]


@st.composite
def truths(draw: st.DrawFn) -> tuple[Array, Array]:
    """Rows and masks of one length: a few words, or more than are looked at together."""
    size = draw(st.one_of(st.integers(1, 200), st.sampled_from([64 * 128, 64 * 128 + 1, 20000])))
    rows, masks = draw(st.integers(1, 40)), draw(st.integers(0, 4))
    numbers, rate = np.random.default_rng(draw(st.integers(0, 2**32 - 1))), draw(st.sampled_from([0.0, 0.02, 0.5, 1.0]))
    return numbers.random((rows, size)) < rate, numbers.random((masks, size)) < 0.5


@given(truths())
def test_packed_rows_hold_every_element_and_nothing_else(drawn: tuple[Array, Array]) -> None:
    rows, _ = drawn
    words = bits.packed(rows)
    assert words.dtype == np.uint64
    size = rows.shape[1]
    assert words.shape == (len(rows), -(-size // 64))
    every = np.unpackbits(words.view(np.uint8), axis=1)
    np.testing.assert_array_equal(every[:, :size], rows)
    assert not every[:, size:].any()
    assert bits.ones(words) == rows.sum()


@pytest.mark.parametrize("compiled", WAYS)
@given(drawn=truths())
def test_what_rows_and_masks_have_in_common(compiled: bool, drawn: tuple[Array, Array]) -> None:
    rows, masks = drawn
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bits, "COMPILED", compiled)
        found = bits.met(bits.packed(rows), bits.packed(masks))
        ever, always = bits.ever_and_always(bits.packed(rows))
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, masks.astype(np.int64) @ rows.T.astype(np.int64))
    np.testing.assert_array_equal(ever, bits.packed(rows.any(axis=0)[None])[0])
    np.testing.assert_array_equal(always, bits.packed(rows.all(axis=0)[None])[0])


@pytest.mark.parametrize("compiled", WAYS)
def test_many_rows_are_counted_a_part_at_a_time(compiled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bits, "COMPILED", compiled)
    monkeypatch.setattr(bits, "CHUNK_WORDS", 12)
    rows = np.random.default_rng(0).random((29, 130)) < 0.3
    masks = np.random.default_rng(1).random((2, 130)) < 0.5
    np.testing.assert_array_equal(bits.met(bits.packed(rows), bits.packed(masks)), masks.astype(int) @ rows.T)


@pytest.mark.skipif(not bits.COMPILED, reason="the compiled engine was not built")
def test_arrays_that_do_not_fit_are_refused() -> None:
    rows = np.zeros((5, 2), dtype=np.uint64)
    for mask_words, numbers in [(3, 10), (1, 10), (2, 9), (2, 11)]:
        with pytest.raises(ValueError, match="masks as long as the words"):
            bits._kernels.met(rows, np.zeros((2, mask_words), dtype=np.uint64), np.zeros(numbers, dtype=np.int64))
    for ever, always in [(3, 2), (2, 3), (1, 2), (2, 1)]:
        with pytest.raises(ValueError, match="rows as long as the words"):
            bits._kernels.ever_and_always(rows, *(np.zeros(size, dtype=np.uint64) for size in (ever, always)))
