"""Traces on disk, and where two of them part."""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from snncompile.errors import ReadError
from snncompile.run.bits import packed
from snncompile.run.trace import Packed, Trace, first_divergence, joined


def trace() -> Trace:
    random = np.random.default_rng(0)
    return Trace(
        {"a": random.random((2, 3, 4)) < 0.5, "b": random.random((2, 3, 2, 2)) < 0.5},
        {"a": random.normal(size=(2, 3, 4)), "r": random.integers(-9, 9, (2, 3, 1))},
        {"steps": 3, "potential": "before reset"},
    )


def test_a_trace_comes_back(tmp_path: Path) -> None:
    one = trace()
    one.save(tmp_path / "t.npz")
    other = Trace.load(tmp_path / "t.npz")
    assert other.meta == one.meta
    assert other.samples == 2
    for name in ("a", "b"):
        assert other.spikes[name].dtype == bool
        np.testing.assert_array_equal(other.spikes[name], one.spikes[name])
    assert other.potentials["r"].dtype == np.int64
    assert first_divergence(one, other, ["a", "b", "r"]) is None
    assert [path.name for path in tmp_path.iterdir()] == ["t.npz"]


def test_a_failed_save_leaves_the_old_file(tmp_path: Path) -> None:
    trace().save(tmp_path / "t.npz")
    before = (tmp_path / "t.npz").read_bytes()
    broken = Trace({}, {"a": np.array([object()])})
    with pytest.raises(ValueError, match="Object arrays"):
        broken.save(tmp_path / "t.npz")
    assert (tmp_path / "t.npz").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


def test_a_trace_cut_short_anywhere_is_refused(tmp_path: Path) -> None:
    trace().save(tmp_path / "t.npz")
    content = (tmp_path / "t.npz").read_bytes()
    for length in range(0, len(content), 13):
        (tmp_path / "short.npz").write_bytes(content[:length])
        with pytest.raises(ReadError, match=r"short.npz: is no trace"):
            Trace.load(tmp_path / "short.npz")


@given(data=st.data())
def test_a_damaged_trace_is_refused_or_whole(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Whatever byte is changed: the error is ours, or nothing that counts has changed."""
    path = tmp_path_factory.mktemp("damaged") / "t.npz"
    trace().save(path)
    content = bytearray(path.read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    content[at] ^= data.draw(st.integers(1, 255))
    path.write_bytes(bytes(content))
    try:
        found = Trace.load(path)
    except ReadError:
        return
    for name, array in found.spikes.items():
        if name in trace().spikes:
            np.testing.assert_array_equal(array, trace().spikes[name])


def test_what_is_no_trace_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ReadError, match=r"nothing\.npz: is missing"):
        Trace.load(tmp_path / "nothing.npz")
    np.save(tmp_path / "array.npy", np.zeros(3))
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    np.savez(tmp_path / "pickled.npz", **{"a.s": np.array([{}], dtype=object)})
    np.savez(tmp_path / "meta.npz", **{"a.s": np.zeros((1, 1, 1)), "meta": np.array("{")})
    (tmp_path / "text.npz").write_text("spikes")
    for name in ("array.npy", "other.npz", "pickled.npz", "meta.npz", "text.npz"):
        with pytest.raises(ReadError, match=rf"{name}: is no trace"):
            Trace.load(tmp_path / name)


# --- divergence -------------------------------------------------------------------------------------------------------


def pair() -> tuple[Trace, Trace]:
    def one() -> Trace:
        zeros = {"a": np.zeros((2, 4, 3), dtype=bool), "b": np.zeros((2, 4, 2, 2), dtype=bool)}
        return Trace(zeros, {name: array.astype(float) for name, array in zeros.items()} | {"r": np.zeros((2, 4, 1))})

    return one(), one()


def test_traces_that_agree_do_not_part() -> None:
    assert first_divergence(*pair(), ["a", "b", "r"]) is None


def test_the_earliest_step_comes_first_then_the_order_of_the_graph_then_sample_and_neuron() -> None:
    one, other = pair()
    other.spikes["a"][0, 3, 0] = True  # first in the graph, but late
    other.spikes["b"][1, 2, 1, 1] = True
    other.spikes["b"][1, 2, 0, 1] = True
    other.potentials["r"][0, 2] = 9.0  # the same step, later in the graph
    found = first_divergence(one, other, ["a", "b", "r"])
    assert found is not None
    assert (found.population, found.sample, found.step, found.neuron) == ("b", 1, 2, (0, 1))
    assert str(found) == "b[0,1], step 2, sample 1: spikes False and True"
    found = first_divergence(one, other, ["r", "b", "a"])
    assert found is not None
    assert (found.population, found.what, found.left, found.right) == ("r", "potentials", 0.0, 9.0)


def test_spikes_are_told_before_potentials_and_potentials_only_on_request() -> None:
    one, other = pair()
    other.potentials["a"][0, 1, 2] = 0.5
    assert first_divergence(one, other, ["a", "b"], potentials=False) is None
    found = first_divergence(one, other, ["a", "b"])
    assert found is not None
    assert found.what == "potentials"
    other.spikes["a"][0, 1, 0] = True
    found = first_divergence(one, other, ["a", "b"])
    assert found is not None
    assert found.what == "spikes"


def test_not_a_number_agrees_with_nothing() -> None:
    one, other = pair()
    one.potentials["r"][0, 0], other.potentials["r"][0, 0] = np.nan, np.nan
    assert first_divergence(one, other, ["r"]) is not None


def test_traces_that_cannot_be_compared_are_refused() -> None:
    one, other = pair()
    with pytest.raises(ReadError, match="no population in common"):
        first_divergence(one, other, ["z"])
    longer = Trace({"a": np.zeros((2, 5, 3), dtype=bool)})
    with pytest.raises(ReadError, match=r"a: spikes of shape \[2, 4, 3\] against \[2, 5, 3\]"):
        first_divergence(one, longer, ["a"])


def test_bits_are_of_one_array_which_stays_as_it_is() -> None:
    one = trace()
    words = packed(one.spikes["a"].reshape(6, 4)).reshape(2, 3, 1)
    bits = Packed(one.spikes["a"], words, one.spikes["a"].sum(axis=2))
    for array in (one.spikes["a"], bits.words, bits.number):
        with pytest.raises(ValueError, match="read-only"):
            array[0, 0] = 0
    both = replace(one, packed={"a": bits})
    for other in (pickle.loads(pickle.dumps(both)), copy.deepcopy(both)):
        assert other.packed["a"].of is other.spikes["a"], "where a trace goes, they go with it"
        assert not any(array.flags.writeable for array in (other.spikes["a"], *vars(other.packed["a"]).values()))
    assert not joined([both, both]).packed, "what is put together is another array"
