"""``.net`` files, written here in the schema of lava-dl, against a NumPy model of Lava's fixed-point equations."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from snncompile.backends import net as exporter
from snncompile.compile import encoded, shown
from snncompile.errors import GraphError, ReadError, UnsupportedNode
from snncompile.fixed import FixedPoint
from snncompile.frontends.net import read
from snncompile.ir.check import check
from snncompile.ir.graph import Edge, Graph
from snncompile.ir.ops import Dense, Input, Neuron, Output, Readout
from snncompile.ir.signals import Fixed, Spike
from snncompile.run import integer
from snncompile.run.cpu import Simulator
from snncompile.run.trace import Trace
from snncompile.target import Target

LOIHI = Target.load("loihi")
Array = np.ndarray[Any, Any]
Layers = list[dict[str, Any]]


def write(path: Path, layers: Layers, **more: Any) -> Path:
    with h5py.File(path, "w") as file:
        for index, layer in enumerate(layers):
            _put(file.create_group(f"layer/{index}"), layer)
        _put(file, more)
    return path


def _put(group: Any, content: Mapping[str, Any]) -> None:
    for key, value in content.items():
        if isinstance(value, Mapping):
            _put(group.create_group(key), value)
        else:
            group[key] = np.array([value], "S10") if isinstance(value, bytes) and key == "type" else value


def cuba(i: int = 4096, v: int = 1024, threshold: int = 40) -> dict[str, Any]:
    """As lava-dl writes it: numbers of training beside those of the machine, which nobody reads."""
    return {"type": "LOIHI", "iDecay": i, "vDecay": v, "vThMant": threshold, "refDelay": 1, "wgtExp": 0, "theta": 2560}


def dense(weight: Array, neuron: dict[str, Any] | None, **more: Any) -> dict[str, Any]:
    shapes = {"shape": [len(weight), 1, 1], "inFeatures": weight.shape[1], "outFeatures": len(weight)}
    layer = {"type": b"dense", **shapes, "weight": weight.astype(np.float32), **more}
    return layer if neuron is None else layer | {"neuron": neuron}


def even(generator: np.random.Generator, *shape: int, most: int = 30) -> Array:
    return 2 * generator.integers(-most, most + 1, shape)


def spikes(generator: np.random.Generator, *shape: int) -> Array:
    return generator.integers(0, 2, shape)


class Lif:
    """One population of Lava's ``fixed_pt`` LIF, neuron by neuron in Python's integers."""

    def __init__(self, size: int, neuron: Mapping[str, Any], bias: Array | int = 0) -> None:
        self.du, self.dv = neuron["iDecay"] - 1, neuron["vDecay"]
        self.threshold = neuron["vThMant"] << 6
        self.bias = [int(b) << 6 for b in np.broadcast_to(bias, (size,))]
        self.u, self.v = [0] * size, [0] * size

    @staticmethod
    def _toward_zero(value: int) -> int:
        return (abs(value) >> 12) * (1 if value >= 0 else -1)

    def step(self, received: Array) -> tuple[Array, Array]:
        """Potentials before the reset and spikes."""
        seen, fired = [], []
        for n, a in enumerate(int(value) for value in received.ravel()):
            x = self._toward_zero(self.u[n] * (4096 - (self.du + 1))) + (a << 6)
            half = 1 << 23
            self.u[n] = x - 2 * half if x > half else x + 2 * half if x <= -half else x
            v = self._toward_zero(self.v[n] * (4096 - self.dv)) + self.u[n] + self.bias[n]
            v = max(-half + 1, min(half - 1, v))
            seen.append(v)
            fired.append(v > self.threshold)
            self.v[n] = 0 if fired[-1] else v
        return np.array(seen), np.array(fired)


def played(path: Path, x: Array, layers: int | None = None) -> Trace:
    """The trace on both interpreters, which agree."""
    graph = read(path, layers).graph
    stimulus = encoded(graph, shown(graph, x, x.shape[1]))
    slow, fast = integer.run(graph, stimulus, LOIHI), Simulator(graph, LOIHI).run(stimulus)
    for name, array in fast.potentials.items():
        np.testing.assert_array_equal(array, slow.potentials[name])
    return slow


def expect(trace: Trace, name: str, currents: list[Array], neuron: Mapping[str, Any], bias: Array | int = 0) -> Array:
    """Compare a population with the model on these currents; its spikes [steps, neurons]."""
    model = Lif(currents[0].size, neuron, bias)
    found = [model.step(current) for current in currents]
    potentials = trace.potentials[name][0]
    np.testing.assert_array_equal(potentials.reshape(len(found), -1), np.array([v for v, _ in found]))
    fired = np.array([s for _, s in found])
    np.testing.assert_array_equal(trace.spikes[name][0].reshape(len(found), -1), fired)
    assert 0.02 < fired.mean() < 0.9
    return fired


def late(x: Array, delay: int) -> Array:
    return np.concatenate([np.zeros_like(x[:delay]), x[: len(x) - delay]])


def test_dense_layers_with_currents_leaks_and_biases(tmp_path: Path) -> None:
    generator = np.random.default_rng(1)
    one, two, bias = even(generator, 7, 5), even(generator, 4, 7), generator.integers(-9, 30, 7)
    first, second = cuba(1500, 300), cuba(4096, 0, 60)
    layers = [
        {"type": b"input", "shape": [5, 1, 1]},
        dense(one, first, bias=bias.astype(np.float32)),
        dense(two.ravel()[None].reshape(4, 7), second),
    ]
    layers[2]["weight"] = two.astype(np.float32).ravel()  # flat, as lava-dl writes some
    path = write(tmp_path / "n.net", layers, simulation={"Ts": 1, "tSample": 40})
    program = read(path)
    assert (program.level, program.target, program.steps, program.stream) == ("fixed", "loihi", 40, True)
    x = spikes(generator, 40, 5)
    trace = played(path, x[None])
    fired = expect(trace, "lif1", list(x @ one.T), first, bias)
    expect(trace, "lif2", list(fired @ two.T), second)


def test_weights_at_their_limits_wrap_and_saturate_as_lavas_do(tmp_path: Path) -> None:
    weight = np.array([[254] * 300, [-256] * 300])
    neuron = cuba(0, 0, 131071)
    path = write(tmp_path / "n.net", [dense(weight, neuron), dense(np.array([[2, 0]]), cuba())])
    x = np.ones((40, 300), dtype=np.int64)
    model, trace = Lif(2, neuron), played(path, x[None])
    found = [model.step(current)[0] for current in x @ weight.T]
    np.testing.assert_array_equal(trace.potentials["lif0"][0], found)
    assert int(np.abs(trace.potentials["lif0"]).max()) == (1 << 23) - 1


@pytest.mark.parametrize("by", ["rows", "columns", "all"])
def test_delays(by: str, tmp_path: Path) -> None:
    generator = np.random.default_rng(2)
    weight, neuron = even(generator, 6, 4), cuba(2000, 400)
    delay = {"rows": [0, 3, 3, 70, 1, 0], "columns": [5, 0, 99, 2], "all": 4}[by]
    path = write(tmp_path / "n.net", [dense(weight, neuron, delay=np.array(delay, np.float32))])
    program = read(path)
    assert not program.stream
    assert max(edge.delay for edge in program.graph.edges) == (4 if by == "all" else 62)
    x = spikes(generator, 90, 4)
    capped = np.minimum(delay, 62)
    if by == "rows":
        currents = np.stack([late(x, d) @ row for d, row in zip(capped, weight, strict=True)], axis=1)
    elif by == "columns":
        currents = np.stack([late(x[:, i], d) for i, d in enumerate(capped)], axis=1) @ weight.T
    else:
        currents = late(x, 4) @ weight.T
    expect(played(path, x[None]), "lif0", list(currents), neuron)


def test_a_recurrent_layer_hears_itself_one_step_later(tmp_path: Path) -> None:
    generator = np.random.default_rng(3)
    weight, again, neuron = even(generator, 6, 4), even(generator, 6, 6), cuba(3000, 500)
    layer = dense(weight, neuron, weight_rec=again.astype(np.float32)) | {"type": b"dense_rec"}
    path = write(tmp_path / "n.net", [layer])
    x = spikes(generator, 50, 4)
    trace, model, before = played(path, x[None]), Lif(6, neuron), np.zeros(6, dtype=np.int64)
    for step in range(50):
        v, s = model.step(weight @ x[step] + again @ before)
        np.testing.assert_array_equal(trace.potentials["lif0"][0, step], v)
        before = s.astype(np.int64)
    assert trace.spikes["lif0"].any()


def correlated(x: Array, weight: Array, stride: tuple[int, int], padding: tuple[int, int]) -> Array:
    """[C, H, W] to [O, H', W'] by the four loops of the definition."""
    x = np.pad(x, [(0, 0), (padding[0],) * 2, (padding[1],) * 2])
    out, _, high, wide = weight.shape
    rows, columns = (x.shape[1] - high) // stride[0] + 1, (x.shape[2] - wide) // stride[1] + 1
    y = np.zeros((out, rows, columns), dtype=np.int64)
    for row in range(rows):
        for column in range(columns):
            part = x[:, row * stride[0] : row * stride[0] + high, column * stride[1] : column * stride[1] + wide]
            y[:, row, column] = (weight * part).sum(axis=(1, 2, 3))
    return y


@pytest.mark.parametrize("everywhere", [False, True], ids=["bias a channel", "bias a neuron"])
def test_images_convolutions_and_a_dense_layer_behind(everywhere: bool, tmp_path: Path) -> None:
    generator = np.random.default_rng(4)
    kernel, weight = even(generator, 3, 2, 3, 2), even(generator, 4, 3 * 3 * 5)
    image, first, second, third = generator.random((2, 6, 9)), cuba(threshold=30), cuba(2500, 700), cuba(4096, 200, 50)
    bias = generator.integers(-5, 20, (5, 3, 3) if everywhere else 3)  # (x, y, channel), as everything in netx
    layers: Layers = [
        {"type": b"input", "shape": [2, 6, 9], "weight": np.float32([36]), "bias": np.float32([4]), "neuron": first},
        {
            "type": b"conv",
            "shape": [3, 3, 5],
            "inChannels": 2,
            "outChannels": 3,
            "kernelSize": [3, 2],
            "stride": [2, 2],
            "padding": [1, 1],
            "dilation": [1, 1],
            "groups": 1,
            "weight": kernel.astype(np.float32)[..., None],
            "bias": bias.astype(np.float32),
            "neuron": second,
        },
        {"type": b"flatten", "shape": [45, 1, 1]},
        dense(weight, third),
    ]
    path = write(tmp_path / "n.net", layers)
    steps = 25
    trace = played(path, np.repeat(image[None, None], steps, axis=1))
    inner = [np.floor(36 * image + 0.5).astype(np.int64).ravel() + 4] * steps
    # netx writes the image into bias_mant; through weights of 1 and no memory of the current it is the same
    fired = expect(trace, "lif0", [0 * current for current in inner], first, inner[0])
    currents = [correlated(s.reshape(2, 6, 9), kernel, (2, 2), (1, 1)) for s in fired]
    wide = bias.transpose(2, 1, 0) if everywhere else np.broadcast_to(bias[:, None, None], (3, 3, 5))
    fired = expect(trace, "lif1", currents, second, wide.ravel())
    expect(trace, "lif3", list(fired @ weight.T), third)


def test_a_layer_without_neurons_accumulates(tmp_path: Path) -> None:
    generator = np.random.default_rng(5)
    weight = even(generator, 3, 4)
    x = spikes(generator, 20, 4)
    for neuron in (None, cuba(4096, 0, 131071)):
        path = write(tmp_path / "n.net", [dense(weight, neuron)])
        assert isinstance(read(path).graph.nodes["readout0"], Readout)
        trace = played(path, x[None])
        np.testing.assert_array_equal(trace.potentials["readout0"][0], 64 * np.cumsum(x @ weight.T, axis=0))


def test_what_is_exported_is_read_again(tmp_path: Path) -> None:
    generator = np.random.default_rng(6)
    kernel, weight = even(generator, 3, 2, 3, 3), even(generator, 5, 48)
    layers: Layers = [
        {"type": b"input", "shape": [2, 6, 6], "messageBits": 8},
        {"type": b"conv", "shape": [3, 4, 4], "weight": kernel, "bias": [3, -2, 9], "neuron": cuba(3000, 100, 90)},
        {"type": b"flatten", "shape": [48]},
        dense(weight, cuba(), bias=generator.integers(-4, 9, 5)),
        dense(even(generator, 2, 5), None),
    ]
    first = read(write(tmp_path / "a.net", layers)).graph
    assert isinstance(first.nodes["input"], Input)
    assert first.nodes["input"].signal == Fixed(8)
    timed = machine(first)
    assert exporter.export(timed, tmp_path / "b.net", steps=12) is None
    again = read(tmp_path / "b.net")
    assert again.steps == 12
    x = {"input": generator.integers(-9, 10, (3, 12, 2, 6, 6))}
    one, other = (integer.run(graph, x, LOIHI) for graph in (first, again.graph))
    assert set(one.potentials) == set(other.potentials)
    for name, array in one.potentials.items():
        np.testing.assert_array_equal(array, other.potentials[name])
    assert exporter.export(machine(again.graph), tmp_path / "c.net", steps=12) is None
    assert contents(tmp_path / "b.net") == contents(tmp_path / "c.net")


def machine(graph: Graph) -> Graph:
    """The graph with a machine's phases."""
    from snncompile.passes.balance import balance

    return balance(graph, LOIHI).graph


def contents(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    with h5py.File(path, "r") as file:
        file.visititems(
            lambda name, item: found.update({name: item[()].tolist()}) if isinstance(item, h5py.Dataset) else None
        )
    return found


def test_odd_weights_become_even_ones_that_are_halved(tmp_path: Path) -> None:
    for weight, exponent in (([[3, -1, 127]], -1), ([[2, -4, 6]], 0), ([[255, 1, 2]], 0)):
        graph = read(write(tmp_path / "n.net", [dense(np.array(weight), cuba())])).graph
        op = graph.nodes["dense0"]
        assert isinstance(op, Dense)
        assert isinstance(op.weight, FixedPoint)
        assert op.weight.exponent == exponent
        np.testing.assert_array_equal(op.weight.real, weight)
    with pytest.raises(GraphError, match=r"dense0 \(Dense\): 2 weights are none of the machine's"):
        check(graph, "fixed", LOIHI)


def test_files_that_begin_with_synapses_have_an_input_of_spikes(tmp_path: Path) -> None:
    graph = read(write(tmp_path / "n.net", [dense(np.array([[2, 4, -6]]), cuba())])).graph
    assert list(graph.nodes) == ["input", "dense0", "lif0", "output"]
    assert graph.nodes["input"].signal == Spike()  # type: ignore[union-attr]
    assert graph.edges[-1] == Edge("lif0", "output")
    assert isinstance(graph.nodes["output"], Output)
    assert isinstance(graph.nodes["lif0"], Neuron)


# what is damaged, hostile, or nothing that we have a meaning for

GOOD: Layers = [{"type": b"input", "shape": [4]}, dense(np.array([[2, 4, -6, 8], [2, 2, 2, 2]]), cuba())]
CONV: dict[str, Any] = {"type": b"conv", "shape": [1, 2, 2], "weight": np.full((1, 1, 1, 1), 2), "neuron": cuba()}
IMAGE: Layers = [{"type": b"input", "shape": [1, 2, 2]}, CONV]


def changed(base: Layers, **changes: Any) -> Layers:
    last = {key: value for key, value in (base[-1] | changes).items() if value is not None}
    return [*base[:-1], last]


FAULTS: dict[str, tuple[Layers, str]] = {
    "no type": (changed(GOOD, type=None), "layer/1: has no dataset 'type'"),
    "no weight": (changed(GOOD, weight=None), "layer/1: has no dataset 'weight'"),
    "no shape": (changed(GOOD, shape=None), "layer/1: has no dataset 'shape'"),
    "no threshold": (changed(GOOD, neuron={"type": "LOIHI", "iDecay": 1, "vDecay": 1}), "neuron/vThMant"),
    "wrong rows": (changed(GOOD, weight=np.ones((3, 4))), "weight [3, 4] do not lead to 2 neurons"),
    "wrong columns": (changed(GOOD, weight=np.ones((2, 3))), "weights [2, 3] do not take [4]"),
    "no numbers": (changed(GOOD, weight=np.full((2, 4), np.nan)), "weight holds 8 values that are no numbers"),
    "infinite": (changed(GOOD, bias=np.array([np.inf, 1])), "bias holds 1 values that are no numbers"),
    "fractions": (changed(GOOD, weight=np.full((2, 4), 5.5)), "weight holds 5.5, which is no integer"),
    "clipped": (changed(GOOD, weight=np.array([[300, -2, 2, 2]] * 2)), "netx clips them"),
    "odd": (changed(GOOD, weight=np.array([[201, -2, 2, 2]] * 2)), "some of its weights are odd"),
    "words for weights": (changed(GOOD, weight=b"weights"), "weight holds no numbers"),
    "a number for a word": (changed(GOOD, type=3), "type is no word"),
    "decay": (changed(GOOD, neuron=cuba(4097)), "neuron/iDecay is 4097 (0 to 4096 are possible)"),
    "threshold": (changed(GOOD, neuron=cuba(threshold=-1)), "neuron/vThMant is -1"),
    "thresholds": (changed(GOOD, neuron=cuba() | {"vThMant": [1, 2]}), "neuron/vThMant holds 2 numbers, not one"),
    "delay before": (changed(GOOD, delay=[-1, 0]), "a delay of -1"),
    "delays": (changed(GOOD, delay=[1, 2, 3]), "3 delays for weights [2, 4]"),
    "biases": (changed(GOOD, bias=[1, 2, 3]), "biases [3] for neurons [2]"),
    "huge population": (changed(GOOD[:1], shape=[1 << 20, 1 << 20, 1 << 20]), "neurons"),
    "no size": (changed(GOOD[:1], shape=[0]), "its shape is [0]"),
    "a second input": ([*GOOD, GOOD[0]], "a second input"),
    "nothing": (changed([GOOD[0], {"type": b"flatten"}], type=b"dense", shape=[2]), "has no dataset 'weight'"),
    "kernel": (changed(IMAGE, weight=np.ones((1, 2, 1, 1))), "do not take [1, 2, 2]"),
    "image": (changed(IMAGE, shape=[1, 3, 2]), "gets [1, 2, 2]"),
    "stride": (changed(IMAGE, stride=[0, 1]), "start at 1"),
    "padding": (changed(IMAGE, padding=[1 << 20, 1]), "padding is 1048576"),
    "groups": (changed(IMAGE, groups=0), "groups is 0"),
    "flat kernel": (changed(IMAGE, weight=np.ones((1, 1))), "are no kernels"),
    "image from dense": ([*GOOD, CONV], "do not take [2]"),
}
UNSUPPORTED: dict[str, tuple[Layers, str]] = {
    "pool": ([*GOOD, {"type": b"pool", "shape": [1]}], "layers of type 'pool' have no meaning here"),
    "average": ([*GOOD, {"type": b"average", "shape": [1]}], "read(path, layers=2)"),
    "neuron": (changed(GOOD, neuron=cuba() | {"type": "ALIF"}), "neurons of type 'ALIF' have no meaning here"),
    "refractory": (changed(GOOD, neuron=cuba() | {"refDelay": 3}), "refractory period"),
    "graded": (changed(GOOD, neuron=cuba() | {"gradedSpike": True}), "graded spikes of LIF neurons"),
    "late image": (changed(IMAGE, delay=[3]), "delays of a convolution"),
    "late feedback": (
        changed(GOOD, type=b"dense_rec", weight_rec=np.ones((2, 2)), delay=[1, 2]),
        "delays of a recurrent layer",
    ),
}


@pytest.mark.parametrize("case", FAULTS)
def test_a_wrong_file_has_one_error(case: str, tmp_path: Path) -> None:
    layers, message = FAULTS[case]
    refused(write(tmp_path / "n.net", layers), message)


@pytest.mark.parametrize("case", UNSUPPORTED)
def test_what_has_no_meaning_is_named(case: str, tmp_path: Path) -> None:
    layers, message = UNSUPPORTED[case]
    assert isinstance(refused(write(tmp_path / "n.net", layers), message), UnsupportedNode)


def refused(path: Path, message: str) -> ReadError:
    """Reading fails with this message, and leaves no file open."""
    with pytest.raises(ReadError) as caught:
        read(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
    assert "Traceback" not in str(caught.value)
    held = [
        os.readlink(f"/proc/self/fd/{entry}")
        for entry in os.listdir("/proc/self/fd")
        if entry.isdecimal() and os.path.exists(f"/proc/self/fd/{entry}")
    ]
    assert str(path.resolve()) not in held
    return caught.value


def _claim(file: Any) -> None:
    file.create_dataset("layer/0/weight", shape=(50_000, 50_000), dtype="f4", chunks=(100, 100))


def _zeros(file: Any) -> None:
    file.create_dataset("layer/0/weight", shape=(1 << 14, 1 << 14), dtype="f4", chunks=True, compression="gzip")


def _outside(file: Any) -> None:
    file["layer/0/weight"] = h5py.ExternalLink("/etc/passwd", "weight")


def _soft(file: Any) -> None:
    file["layer/0/weight"] = h5py.SoftLink("/layer/0/shape")


def _raw(file: Any) -> None:
    file.create_dataset("layer/0/weight", shape=(2, 4), dtype="u1", external=[("/etc/passwd", 0, 8)])


def _virtual(file: Any) -> None:
    layout = h5py.VirtualLayout((2, 4), "f4")
    layout[:] = h5py.VirtualSource("/etc/passwd", "weight", (2, 4))
    file.create_virtual_dataset("layer/0/weight", layout)


def _ragged(file: Any) -> None:
    file.create_dataset("layer/0/weight", shape=(2,), dtype=h5py.vlen_dtype(np.float32))


def _empty(file: Any) -> None:
    file["layer/0/weight"] = h5py.Empty("f4")


def _words(file: Any) -> None:
    file["layer/0/shape2"] = 1
    del file["layer/0/type"]
    file["layer/0/type"] = np.array([b"dense", b"conv"])


def _gap(file: Any) -> None:
    file.move("layer/0", "layer/7")


def _flat(file: Any) -> None:
    del file["layer"]
    file["layer"] = 3


HOSTILE: dict[str, tuple[Callable[[Any], None], str]] = {
    "a claim of 10 GB": (_claim, "weight claims the shape [50000, 50000]"),
    "zeros of nothing": (_zeros, "weight claims the shape [16384, 16384]"),
    "a link to another file": (_outside, "weight is a link to somewhere else"),
    "a link inside": (_soft, "weight is a link to somewhere else"),
    "bytes of another file": (_raw, "weight lies in another file"),
    "a view of another file": (_virtual, "weight lies in another file"),
    "ragged": (_ragged, "weight holds object, not numbers"),
    "empty": (_empty, "weight is empty"),
    "two words": (_words, "type is no single word"),
    "a gap": (_gap, "layer/0: is missing"),
    "no group": (_flat, "has no group 'layer'"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_file_has_one_error(case: str, tmp_path: Path) -> None:
    change, message = HOSTILE[case]
    path = write(tmp_path / "n.net", [{"type": b"dense", "shape": [2], "neuron": cuba()}])
    with h5py.File(path, "a") as file:
        change(file)
    refused(path, message)


def test_a_truncated_file_is_damaged_wherever_it_ends(tmp_path: Path) -> None:
    whole = write(tmp_path / "n.net", GOOD).read_bytes()
    for end in (0, 7, 100, len(whole) // 2, len(whole) - 1):
        (tmp_path / "t.net").write_bytes(whole[:end])
        refused(tmp_path / "t.net", "is no .net, or a damaged one")


def test_flipped_bytes_never_end_in_anything_else(tmp_path: Path) -> None:
    whole = write(tmp_path / "n.net", GOOD).read_bytes()
    generator = np.random.default_rng(7)
    for _ in range(150):
        damaged = bytearray(whole)
        for place in generator.integers(0, len(whole), 3):
            damaged[place] = int(generator.integers(0, 256))
        (tmp_path / "t.net").write_bytes(damaged)
        try:
            read(tmp_path / "t.net")
        except ReadError:
            continue


def test_no_file_and_a_folder(tmp_path: Path) -> None:
    refused(tmp_path / "none.net", "no such file")
    refused(tmp_path, "no such file")


def test_feedback_is_exported_and_read_again(tmp_path: Path) -> None:
    generator = np.random.default_rng(8)
    layer = dense(even(generator, 6, 4), cuba(3000, 500), weight_rec=even(generator, 6, 6)) | {"type": b"dense_rec"}
    first = read(
        write(tmp_path / "a.net", [{"type": b"input", "shape": [4]}, layer, dense(even(generator, 2, 6), None)])
    )
    assert exporter.export(machine(first.graph), tmp_path / "b.net", steps=9) is None
    again = read(tmp_path / "b.net")
    assert not again.stream
    x = {"input": spikes(generator, 2, 9, 4)}
    one, other = (integer.run(program.graph, x, LOIHI) for program in (first, again))
    for name, array in one.potentials.items():
        np.testing.assert_array_equal(array, other.potentials[name])
