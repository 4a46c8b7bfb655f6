"""NIR data: read as the package ``nir`` writes them, written as it reads them, and refused where they lie."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import nir
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from snncompile.backends.nir_data import as_trace, write_trace
from snncompile.errors import ReadError
from snncompile.frontends.nir_data import holds_data, read_data, read_input
from snncompile.run.trace import Trace
from snncompile.train.data import load

Array = np.ndarray[Any, Any]


def saved(path: Path, **nodes: Any) -> Path:
    """Node -> observables, one without a name being its spikes."""
    seen = {name: one if isinstance(one, dict) else {"spikes": one} for name, one in nodes.items()}
    nir.write_data(path, nir.NIRGraphData({name: nir.NIRNodeData(one) for name, one in seen.items()}))
    return path


def drawn(*shape: int, seed: int = 1) -> Array:
    return np.random.default_rng(seed).integers(0, 2, shape).astype(bool)


def test_a_grid_is_read_as_it_stands(tmp_path: Path) -> None:
    values = np.random.default_rng(1).normal(size=(3, 7, 8))
    path = saved(tmp_path / "x.nir", stimulus=nir.TimeGriddedData(values, 1e-3))
    np.testing.assert_array_equal(read_input(path, "input", 1e-3, None), values)
    split = load(str(path), shape=(2, 2, 2))
    np.testing.assert_array_equal(split.x, values.reshape(3, 7, 2, 2, 2).astype(np.float32))
    assert not split.static
    assert len(load(f"{path}:2", shape=(2, 2, 2))) == 2
    with pytest.raises(ReadError, match=r"its steps are 0.001, those of the network 0.0001"):
        read_input(path, "input", 1e-4, None)


@given(data=st.data())
def test_events_are_the_grid_that_they_came_from(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Steps times dt and back, whatever dt is: 3 times 1e-4 over 1e-4 is less than 3."""
    samples, steps, neurons = (data.draw(st.integers(1, most)) for most in (3, 60, 5))
    dt = data.draw(st.sampled_from([1e-4, 1e-3, 0.1, 1.0, 1 / 3, 2.0**-13]))
    grid = drawn(samples, steps, neurons, seed=data.draw(st.integers(0, 99)))
    shift = data.draw(st.sampled_from([0.0, 0.5])) * dt
    events = nir.TimeGriddedData(grid, dt).to_event(steps * neurons, shift)
    path = saved(tmp_path_factory.mktemp("events") / "x.nir", input=events)
    np.testing.assert_array_equal(read_input(path, "input", dt, None), grid)
    np.testing.assert_array_equal(read_input(path, "input", None, steps), grid)


def test_events_with_values_add(tmp_path: Path) -> None:
    idx, time = np.array([[0, 0, 1, -1]]), np.array([[0.0, 0.4, 2.9, np.inf]])
    values = nir.ValuedEventData(idx=idx, time=time, value=np.array([[1.5, 2.0, -1.0, np.inf]]), n_neurons=2, t_max=3.0)
    found = read_input(saved(tmp_path / "x.nir", input=values), "input", 1.0, None)
    np.testing.assert_array_equal(found, [[[3.5, 0.0], [0.0, 0.0], [0.0, -1.0]]])
    plain = nir.EventData(idx=idx, time=time, n_neurons=2, t_max=3.0)
    found = read_input(saved(tmp_path / "y.nir", input=plain), "input", 1.0, None)
    np.testing.assert_array_equal(found, [[[2.0, 0.0], [0.0, 0.0], [0.0, 1.0]]])


def test_which_node_is_meant(tmp_path: Path) -> None:
    one, other = (nir.TimeGriddedData(drawn(2, 3, 4, seed=seed), 1.0) for seed in (1, 2))
    path = saved(tmp_path / "x.nir", left=one, input=other)
    np.testing.assert_array_equal(read_input(path, "input", None, None), other.data)
    np.testing.assert_array_equal(read_input(path, "left", None, None), one.data)
    with pytest.raises(ReadError, match=r"has the nodes input, left \(one, or one called x"):
        read_input(path, "x", None, None)
    twice = saved(tmp_path / "y.nir", input={"a": one, "b": other})
    with pytest.raises(ReadError, match="has the observables a, b"):
        read_input(twice, "input", None, None)


def test_a_trace_is_read_by_nir_and_comes_back(tmp_path: Path) -> None:
    spikes = {"lif": drawn(2, 5, 3, 2), "out": drawn(2, 5, 4)}
    potentials = {"lif": np.arange(60).reshape(2, 5, 3, 2), "sum": np.random.default_rng(3).normal(size=(2, 5, 4))}
    given_ = {"input": drawn(2, 5, 1, 2, 3).astype(np.float32)}
    path = tmp_path / "t.nir"
    write_trace(path, Trace(spikes, potentials, {"potential": "before reset"}), 1e-3, given_)
    found = nir.read_data(path)
    assert set(found.nodes) == {"input", "lif", "out", "sum"}
    lif = found.nodes["lif"].observables
    assert (lif["spikes"].data.dtype, lif["spikes"].dt) == (bool, 1e-3)
    np.testing.assert_array_equal(lif["spikes"].data, spikes["lif"].reshape(2, 5, 6))
    back = as_trace(read_data(path))
    assert back.meta == {"potential": "before reset"}
    assert (set(back.spikes), set(back.potentials)) == ({"lif", "out"}, {"lif", "sum"})
    for name, array in {**potentials, **spikes}.items():
        there = back.spikes[name] if name in spikes else back.potentials[name]
        np.testing.assert_array_equal(there, array)
    np.testing.assert_array_equal(read_input(path, "input", 1e-3, None), given_["input"].reshape(2, 5, 6))
    assert holds_data(path)
    assert [one.name for one in tmp_path.iterdir()] == ["t.nir"]


def test_a_trace_of_another_tool_has_neurons_on_one_axis(tmp_path: Path) -> None:
    path = saved(tmp_path / "t.nir", lif={"spikes": nir.TimeGriddedData(drawn(2, 3, 6), 1.0)})
    assert as_trace(read_data(path)).spikes["lif"].shape == (2, 3, 6)


def attribute(place: str, key: str, value: Any) -> Callable[[Any], None]:
    return lambda file: file[place].attrs.__setitem__(key, value)


def dataset(place: str, value: Any, **how: Any) -> Callable[[Any], None]:
    def change(file: Any) -> None:
        del file[place]
        file.create_dataset(place, data=value, **how)

    return change


def claim(file: Any) -> None:
    del file["nodes/grid/observables/spikes/data"]
    file["nodes/grid/observables/spikes"].create_dataset("data", (2, 2**20, 2**20), "f8")


GRID, EVENTS = "nodes/grid/observables/spikes", "nodes/events/observables/spikes"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (attribute(GRID, "dt", 0.0), r"grid.spikes: dt is no number above 0"),
        (attribute(GRID, "dt", "fast"), r"grid.spikes: dt is no number above 0"),
        (attribute(GRID, "__type__", "Video"), r"grid.spikes: is a 'Video'"),
        (attribute("nodes/grid", "__type__", "Video"), r"grid: is a 'Video'"),
        (attribute("/", "__type__", "Video"), r"holds no NIR data"),
        (dataset(f"{GRID}/data", np.ones((2, 3))), r"grid.spikes: data is no array of 3 axes"),
        (dataset(f"{GRID}/data", np.full((2, 3, 4), np.nan)), r"data holds 24 values that are no numbers"),
        (claim, r"data claims the shape"),
        (lambda file: file["nodes"].__delitem__("grid/observables"), r"grid: has no group 'observables'"),
        (lambda file: file.__delitem__("nodes"), r"has no group 'nodes'"),
        (dataset(f"{EVENTS}/time", np.ones((2, 3))), r"idx, time and value do not belong together"),
        (dataset(f"{EVENTS}/idx", np.ones((2, 4))), r"idx, time and value do not belong together"),
        (dataset(f"{EVENTS}/time", np.full((2, 4), np.nan)), r"an event has a time or a value that is no number"),
        (attribute(EVENTS, "n_neurons", 2.5), r"n_neurons is 2.5"),
        (attribute("/", "snncompile", "{"), r"is no file of NIR data, or a damaged one"),
        (attribute("/", "snncompile", "[3]"), r"is no file of NIR data, or a damaged one"),
    ],
)
def test_files_that_lie(tmp_path: Path, change: Callable[[Any], None], said: str) -> None:
    events = nir.EventData(np.zeros((2, 4), int), np.zeros((2, 4)), 3, 5.0)
    path = saved(tmp_path / "x.nir", grid=nir.TimeGriddedData(drawn(2, 3, 4), 1.0), events=events)
    read_data(path)
    with h5py.File(path, "a") as file:
        change(file)
    with pytest.raises(ReadError, match=said):
        read_data(path)


@pytest.mark.parametrize(
    ("idx", "time", "duration", "dt", "said"),
    [
        ([[3]], [[0.0]], 5.0, 1.0, r"an event of neuron 3 \(it has 3\)"),
        ([[0]], [[5.0]], 5.0, 1.0, r"an event at 5 \(the recording goes from 0 to 5\)"),
        ([[0]], [[-1.0]], 5.0, 1.0, r"an event at -1"),
        ([[0]], [[0.0]], 1e9, 1e-4, r"makes 1 samples of 1e\+13 steps and 3 neurons"),
        ([[0]], [[0.0]], 5.0, None, r"holds events, and nothing says how long a step is"),
    ],
)
def test_events_that_lie(tmp_path: Path, idx: Any, time: Any, duration: float, dt: float | None, said: str) -> None:
    events = nir.EventData(np.array(idx), np.array(time), 3, duration)
    with pytest.raises(ReadError, match=said):
        read_input(saved(tmp_path / "x.nir", input=events), "input", dt, None)
