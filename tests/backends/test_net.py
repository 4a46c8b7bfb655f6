"""``network.net`` re-read with h5py: every dataset of the schema, and a reason for what it cannot hold."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from snncompile.backends import net
from snncompile.fixed import FixedPoint
from snncompile.ir.graph import Edge, Graph
from snncompile.ir.ops import Conv, Dense, Flatten, Input, Neuron, Op, Output, Readout, Scale
from snncompile.ir.signals import Fixed, Spike


def fixed(values: Any, exponent: int = 0) -> FixedPoint:
    return FixedPoint(np.asarray(values), exponent)


def neuron(*shape: int, phase: int, bias: Any = 0, exponent: int = 0, beta: int = 0) -> Neuron:
    return Neuron(
        shape,
        alpha=fixed(4096, -12),
        beta=fixed(beta, -12),
        threshold=fixed(70),
        bias=fixed(bias, exponent),
        phase=phase,
    )


KERNEL = 2 * np.arange(-36, 36).reshape(4, 2, 3, 3)
WEIGHT = 2 * np.arange(-18, 18).reshape(3, 12)


def chain() -> tuple[dict[str, Op], list[Edge]]:
    """2x6x5 -> conv (stride 3, 2; padding 1, 0) -> 4x2x2 -> conv 1x1 -> 3x2x2 -> dense -> 3 -> readout."""
    nodes: dict[str, Op] = {
        "x": Input((2, 6, 5), Spike()),
        "conv": Conv(fixed(KERNEL), stride=(3, 2), padding=(1, 0)),
        "a": neuron(4, 2, 2, phase=1, bias=[[[5]], [[-6]], [[7]], [[0]]], beta=300),
        "pointwise": Conv(fixed(2 * np.arange(12).reshape(3, 4, 1, 1))),
        "b": neuron(3, 2, 2, phase=2, bias=3, exponent=1),
        "view": Flatten(),
        "dense": Dense(fixed(WEIGHT)),
        "c": neuron(3, phase=3),
        "last": Dense(fixed([[2, -4, 6]])),
        "out": Readout((1,), kind="sum", bias=fixed(9), phase=4),
        "result": Output(),
    }
    synapses = {"conv", "pointwise", "dense", "last"}
    return nodes, [Edge(one, other, int(other in synapses)) for one, other in itertools.pairwise(nodes)]


def read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    with h5py.File(path, "r") as file:
        assert not file.attrs
        file.visititems(lambda name, item: found.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None)
    return found


def test_every_dataset_of_a_chain(tmp_path: Path) -> None:
    path = tmp_path / "network.net"
    assert net.export(Graph(*chain()), path, steps=4) is None
    found = read(path)
    kinds = [found[f"layer/{index}/type"] for index in range(6)]
    assert [kind.tolist() for kind in kinds] == [[b"input"], [b"conv"], [b"conv"], [b"flatten"], [b"dense"], [b"dense"]]
    assert {kind.dtype for kind in kinds} == {np.dtype("S10")}
    shapes = [found[f"layer/{index}/shape"].tolist() for index in range(6)]
    assert shapes == [[2, 6, 5], [4, 2, 2], [3, 2, 2], [12], [3], [1]]
    conv = {name.removeprefix("layer/1/"): value for name, value in found.items() if name.startswith("layer/1/")}
    expected: dict[str, Any] = {
        "inChannels": 2,
        "outChannels": 4,
        "kernelSize": [3, 3],
        "stride": [3, 2],
        "padding": [1, 0],
        "dilation": [1, 1],
        "groups": 1,
        "weight": KERNEL,
        "bias": [5, -6, 7, 0],
        "neuron/iDecay": 4096,
        "neuron/vDecay": 300,
        "neuron/vThMant": 70,
        "neuron/refDelay": 1,
        "neuron/gradedSpike": False,
    }
    assert set(conv) == set(expected) | {"type", "shape", "neuron/type"}
    for key, value in expected.items():
        np.testing.assert_array_equal(conv[key], value, err_msg=key)
    assert conv["weight"].dtype == np.float32
    assert conv["neuron/type"].tolist() == [b"CUBA"]
    assert found["layer/2/bias"].tolist() == [6, 6, 6]
    np.testing.assert_array_equal(found["layer/4/weight"], WEIGHT)
    assert (found["layer/4/inFeatures"], found["layer/4/outFeatures"]) == (12, 3)
    assert "layer/4/bias" not in found
    assert found["layer/5/bias"].tolist() == [9]
    assert (found["layer/5/neuron/vThMant"], found["layer/5/neuron/vDecay"]) == (131071, 0)
    assert found["simulation/tSample"] == 4
    assert [entry.name for entry in tmp_path.iterdir()] == ["network.net"]


def test_a_bias_for_every_neuron_lies_as_netx_wants_it(tmp_path: Path) -> None:
    nodes, edges = chain()
    bias = np.arange(16).reshape(4, 2, 2)
    nodes["a"] = neuron(4, 2, 2, phase=1, bias=bias)
    assert net.export(Graph(nodes, edges), tmp_path / "n", steps=4) is None
    np.testing.assert_array_equal(read(tmp_path / "n")["layer/1/bias"], bias.transpose(2, 1, 0))


def test_one_spatial_axis_is_one_row(tmp_path: Path) -> None:
    nodes: dict[str, Op] = {
        "x": Input((3, 9), Spike()),
        "conv": Conv(fixed(2 * np.arange(36).reshape(4, 3, 3)), stride=(2,), padding=(1,), dilation=(1,)),
        "a": neuron(4, 5, phase=1),
    }
    assert net.export(Graph(nodes, [Edge("x", "conv", 1), Edge("conv", "a")]), tmp_path / "n", steps=4) is None
    found = read(tmp_path / "n")
    assert found["layer/0/shape"].tolist() == [3, 1, 9]
    assert found["layer/1/shape"].tolist() == [4, 1, 5]
    assert found["layer/1/weight"].shape == (4, 3, 1, 3)
    assert [found[f"layer/1/{key}"].tolist() for key in ("stride", "padding", "dilation")] == [[1, 2], [0, 1], [1, 1]]


def test_an_image_into_a_dense_layer_is_flat(tmp_path: Path) -> None:
    nodes: dict[str, Op] = {"x": Input((2, 2, 3), Spike()), "d": Dense(fixed(WEIGHT)), "a": neuron(3, phase=1)}
    assert net.export(Graph(nodes, [Edge("x", "d", 1), Edge("d", "a")]), tmp_path / "n", steps=4) is None
    found = read(tmp_path / "n")
    assert found["layer/0/shape"].tolist() == [12]
    assert found["layer/1/type"].tolist() == [b"dense"]


def test_a_layer_that_hears_itself(tmp_path: Path) -> None:
    graph = altered({"self": Dense(fixed(WEIGHT[:, :3]))}, (Edge("c", "self", 1), Edge("self", "c")))
    assert net.export(graph, tmp_path / "n", steps=4) is None
    found = read(tmp_path / "n")
    assert found["layer/4/type"].tolist() == [b"dense_rec"]
    np.testing.assert_array_equal(found["layer/4/weight_rec"], WEIGHT[:, :3])
    assert "layer/5/weight_rec" not in found
    assert net.loading(graph, 4).endswith("reset_offset=1), a new one for every sample")


def test_the_call_that_loads_it_names_phases_and_payload(tmp_path: Path) -> None:
    nodes, edges = chain()
    assert net.loading(Graph(nodes, edges), 4).endswith("reset_interval=4, reset_offset=1)")
    nodes["x"] = Input((2, 6, 5), Fixed(8))
    assert net.export(Graph(nodes, edges), tmp_path / "n", steps=4) is None
    assert read(tmp_path / "n")["layer/0/messageBits"] == 8
    assert net.loading(Graph(nodes, edges), 4).endswith("reset_offset=1, input_message_bits=8)")


def altered(changes: dict[str, Op], more: tuple[Edge, ...] = ()) -> Graph:
    nodes, edges = chain()
    return Graph(nodes | changes, [*edges, *more])


def delayed(name: str) -> Graph:
    nodes, edges = chain()
    return Graph(nodes, [Edge(e.source, e.target, e.delay + (e.target == name)) for e in edges])


SKIP = (Edge("a", "skip", 2), Edge("skip", "b"))
FLAT: dict[str, Op] = {"x": Input((1, 3, 3), Spike()), "w": Conv(fixed(np.full((1, 1, 2, 2), 2))), "f": Flatten()}
FLAT |= {"n": neuron(4, phase=1), "out": Output()}
REASONS: dict[str, tuple[Graph, str]] = {
    "map in a row": (
        Graph(FLAT, [Edge("x", "w", 1), Edge("w", "f"), Edge("f", "n"), Edge("n", "out")]),
        "n: a convolution into neurons without a map",
    ),
    "residual": (altered({"skip": Conv(fixed(KERNEL[:3, :1]))}, SKIP), "a: feeds more than one layer"),
    "late feedback": (
        altered({"self": Dense(fixed(WEIGHT[:, :3]))}, (Edge("c", "self", 2), Edge("self", "c"))),
        "self: 2 steps of feedback, netx has one",
    ),
    "feedback of each": (
        altered({"self": Scale(fixed(2))}, (Edge("c", "self", 1), Edge("self", "c"))),
        "c: feeds more than one layer",
    ),
    "image that hears itself": (
        altered(
            {"self": Dense(fixed(2 * np.ones((12, 12)))), "shape": Flatten((3, 2, 2))},
            (Edge("b", "self", 1), Edge("self", "shape"), Edge("shape", "b")),
        ),
        "b: feeds itself, which only dense layers do",
    ),
    "two inputs": (altered({"y": Input((3,))}), "2 inputs"),
    "apart": (altered({"z": neuron(3, phase=1)}), "z: not on the one chain"),
    "delay": (delayed("dense"), "dense: a programmed delay"),
    "phase": (altered({"c": neuron(3, phase=4)}), "c: has phase 4, netx counts 3"),
    "one to one": (
        altered({"conv": Scale(fixed(2)), "x": Input((4, 2, 2), Spike())}),
        "conv: the format has no one-to-one",
    ),
    "odd image": (altered({"last": Conv(fixed(np.full((1, 3, 1, 1), 2)))}), "last: a convolution after a dense layer"),
    "bias": (altered({"c": neuron(3, phase=3, bias=4095, exponent=1)}), "c: biases beyond 4095"),
    "fraction": (altered({"c": neuron(3, phase=3, bias=1, exponent=-1)}), "c: a value that is no multiple of 2**0"),
    "zero": (altered({"last": Dense(fixed([[0, 0, 0]]))}), "last: all weights are zero"),
    "least": (altered({"last": Dense(fixed([[-64, -2, 0]]))}), "last: no weight above zero and a least of -64"),
}


@pytest.mark.parametrize("case", REASONS)
def test_what_the_format_cannot_hold_has_a_reason(case: str, tmp_path: Path) -> None:
    graph, reason = REASONS[case]
    assert (net.export(graph, tmp_path / "network.net", steps=4) or "written").startswith(reason)
    assert not list(tmp_path.iterdir())
