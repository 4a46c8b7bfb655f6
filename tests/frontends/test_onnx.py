"""Foreign ONNX: teachers are read to the same function, anything hostile is refused with one message."""

from __future__ import annotations

import contextlib
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from snncompile.errors import ReadError, UnsupportedNode
from snncompile.frontends.ann import Relu, read_ann
from snncompile.frontends.onnx import load, read_program
from snncompile.ir.ops import Conv, Dense

Array = np.ndarray[Any, np.dtype[Any]]


def model(nodes: list[Any], constants: dict[str, Array], shape: list[Any], out: str = "y") -> Any:
    numbers = [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()]
    given = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)]
    graph = helper.make_graph(
        nodes, "net", given, [helper.make_tensor_value_info(out, TensorProto.FLOAT, None)], numbers
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def node(kind: str, inputs: str, output: str, **attributes: Any) -> Any:
    return helper.make_node(kind, inputs.split(), [output], **attributes)


def written(made: Any, folder: Path) -> Path:
    path = folder / "net.onnx"
    path.write_bytes(made.SerializeToString())
    return path


def residual_network() -> Any:
    rng = np.random.default_rng(0)

    def f(*shape: int) -> Array:
        return rng.standard_normal(shape).astype(np.float32)

    constants = {
        "w1": f(4, 2, 3, 3), "b1": f(4), "g": f(4), "s": f(4), "m": f(4), "v": np.abs(f(4)),
        "w2": f(4, 1, 3, 3), "plus": f(1, 4, 1, 1), "w3": f(16, 10), "b3": f(10), "w4": f(3, 10), "b4": f(1, 3),
        "flat": np.array([0, -1], dtype=np.int64), "w5": f(3, 3),
    }  # fmt: skip
    nodes = [
        node("Conv", "x w1 b1", "c1", pads=[1, 1, 1, 1], strides=[2, 1]),
        node("BatchNormalization", "c1 g s m v", "n1", epsilon=1e-3),
        node("Relu", "n1", "r1"),
        node("Dropout", "r1", "d1"),
        node("Conv", "d1 w2", "c2", pads=[2, 2, 2, 2], dilations=[2, 2], group=4),
        node("Add", "c2 plus", "a2"),
        node("Add", "a2 r1", "sum"),
        node("Relu", "sum", "r2"),
        node("MaxPool", "r2", "p1", kernel_shape=[2, 2], strides=[2, 2], pads=[1, 0, 1, 0]),
        node("AveragePool", "p1", "p2", kernel_shape=[1, 2], strides=[1, 2]),
        node("Identity", "p2", "i"),
        node("Reshape", "i flat", "f"),
        node("MatMul", "f w3", "h"),
        node("Add", "h b3", "hb"),
        node("Relu", "hb", "r3"),
        node("Gemm", "r3 w4 b4", "z", transB=1, alpha=0.5, beta=2.0),
        node("Flatten", "z", "zz"),
        node("MatMul", "zz w5", "y"),
    ]
    return model(nodes, constants, ["batch", 2, 5, 8])


def test_a_teacher_computes_what_onnxruntime_does(tmp_path: Path) -> None:
    import onnxruntime

    made = residual_network()
    network = read_ann(written(made, tmp_path))
    x = np.random.default_rng(1).standard_normal((6, 2, 5, 8)).astype(np.float32)
    session = onnxruntime.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(network.run(x), session.run(None, {"x": x})[0], rtol=1e-4, atol=1e-4)
    kinds = [type(layer.op).__name__ for layer in network.layers]
    assert kinds[:5] == ["Conv", "Norm", "Relu", "Conv", "Sum"]
    weights = network.weights()
    assert [weight.shape for weight, _ in weights.values()] == [(4, 2, 3, 3), (4, 1, 3, 3), (10, 16), (3, 10), (3, 3)]
    first = weights["c1"][1]
    assert first is not None  # the norm behind it is folded in


def test_norms_are_folded_into_the_weights(tmp_path: Path) -> None:
    constants = {"w": np.eye(2, dtype=np.float32), "g": np.float32([2, 3]), "s": np.float32([1, 1]),
                 "m": np.float32([4, 5]), "v": np.float32([1, 4])}  # fmt: skip
    nodes = [
        node("MatMul", "x w", "h"),
        node("BatchNormalization", "h g s m v", "n", epsilon=0.0),
        node("Relu", "n", "y"),
    ]
    network = read_ann(written(model(nodes, constants, [1, 2]), tmp_path))
    weight, bias = network.weights()["h"]
    assert bias is not None
    np.testing.assert_array_equal(weight, [[2, 0], [0, 1.5]])
    np.testing.assert_array_equal(bias, [1 - 8, 1 - 7.5])
    assert isinstance(network.layers[-1].op, Relu)
    assert isinstance(network.layers[0].op, Dense)
    np.testing.assert_array_equal(network.run(np.array([[10.0, 1.0]])), [[13.0, 0.0]])


def test_global_average_and_one_axis(tmp_path: Path) -> None:
    constants = {"w": np.ones((2, 1, 2), dtype=np.float32)}
    nodes = [node("Conv", "x w", "c"), node("GlobalAveragePool", "c", "y")]
    network = read_ann(written(model(nodes, constants, [1, 1, 3]), tmp_path))
    assert isinstance(network.layers[0].op, Conv)
    np.testing.assert_array_equal(network.run(np.array([[[1.0, 2.0, 5.0]]])), [[[5.0], [5.0]]])


def small() -> Any:
    return model([node("Relu", "x", "y")], {"w": np.zeros(4, dtype=np.float32)}, [1, 2])


def claims(made: Any) -> None:
    made.graph.initializer[0].dims[:] = [10**12]


def negative(made: Any) -> None:
    made.graph.initializer[0].dims[:] = [-4]


def of_strings(made: Any) -> None:
    made.graph.initializer[0].data_type = TensorProto.STRING


def of_no_type(made: Any) -> None:
    made.graph.initializer[0].data_type = 999


def external(location: str, length: str = "16") -> Callable[[Any], None]:
    def change(made: Any) -> None:
        tensor = made.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=location)
        tensor.external_data.add(key="length", value=length)

    return change


def cyclic(made: Any) -> None:
    made.graph.node.extend([node("Relu", "b", "a"), node("Relu", "a", "b")])


def dangling(made: Any) -> None:
    made.graph.node.add().CopyFrom(node("Relu", "nowhere", "a"))


def twice(made: Any) -> None:
    made.graph.node.add().CopyFrom(node("Relu", "x", "y"))


def no_output(made: Any) -> None:
    made.graph.output[0].name = "other"


def nested(made: Any) -> None:
    inner = made.graph
    for _ in range(12):
        one = inner.node.add()
        one.CopyFrom(helper.make_node("If", ["x"], [f"o{id(one)}"]))
        attribute = one.attribute.add(name="then_branch", type=onnx.AttributeProto.GRAPH)
        inner = attribute.g


def sparse(made: Any) -> None:
    made.graph.sparse_initializer.add()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (claims, "say 1000000000000 numbers, it holds 16 bytes"),
        (negative, "no dimensions"),
        (of_strings, "has the type 8"),
        (of_no_type, "has the type 999"),
        (external("../secret"), "outside its folder"),
        (external("/etc/passwd"), "outside its folder"),
        (external("link"), "outside its folder"),
        (external("missing"), "not what it says"),
        (external("numbers", "999999999999"), "not what it says"),
        (external("numbers", "many"), "cannot be read"),
        (external("."), "not what it says"),
        (cyclic, "a cycle, or nodes out of order"),
        (dangling, "nothing gives it"),
        (twice, "a second time"),
        (no_output, "given by nothing"),
        (nested, "nested too deeply"),
        (sparse, "sparse"),
    ],
)
def test_hostile_files_are_refused_with_one_message_and_little_memory(
    tmp_path: Path, change: Callable[[Any], None], message: str
) -> None:
    folder = tmp_path / "inside"
    folder.mkdir()
    (tmp_path / "secret").write_bytes(bytes(16))
    (folder / "link").symlink_to(tmp_path / "secret")
    (folder / "numbers").write_bytes(bytes(8))
    made = small()
    change(made)
    path = written(made, folder)
    tracemalloc.start()
    try:
        with pytest.raises(ReadError, match=message) as caught:
            load(path)
        assert tracemalloc.get_traced_memory()[1] < 20e6
    finally:
        tracemalloc.stop()
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


def test_external_data_of_the_folder_are_read_once(tmp_path: Path) -> None:
    (tmp_path / "numbers").write_bytes(np.arange(4, dtype=np.float32).tobytes())
    made = small()
    external("numbers")(made)
    again = load(written(made, tmp_path))
    np.testing.assert_array_equal(numpy_helper.to_array(again.graph.initializer[0]), np.arange(4))
    for index in range(3):  # the same bytes again and again: a file that grows in memory
        made.graph.initializer.add().CopyFrom(made.graph.initializer[0])
        made.graph.initializer[-1].name = f"again{index}"
    with pytest.raises(ReadError, match="not what it says"):
        load(written(made, tmp_path))


@pytest.mark.parametrize("content", [b"", b"\x00", b"PK\x03\x04 something else", bytes(range(256)) * 9, b"\x08\x08"])
def test_what_is_no_onnx_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(content)
    with pytest.raises(ReadError, match="no ONNX file"):
        load(path)
    with pytest.raises(ReadError, match="cannot be read"):
        load(tmp_path)


def test_numbers_that_are_none_are_refused(tmp_path: Path) -> None:
    constants = {"w": np.full((2, 2), np.nan, dtype=np.float32)}
    with pytest.raises(ReadError, match="not finite"):
        read_ann(written(model([node("MatMul", "x w", "y")], constants, [1, 2]), tmp_path))


def test_a_constant_is_added_channel_by_channel(tmp_path: Path) -> None:
    constants = {"one": np.float32([1.5]), "each": np.float32([[[1]], [[2]]])}
    network = read_ann(
        written(model([node("Add", "x one", "h"), node("Add", "each h", "y")], constants, [1, 2, 1, 2]), tmp_path)
    )
    np.testing.assert_array_equal(network.run(np.zeros((1, 2, 1, 2))), [[[[2.5, 2.5]], [[3.5, 3.5]]]])
    huge = read_ann(written(model([node("Add", "x one", "y")], constants, [1, 10**15]), tmp_path))
    assert huge.layers[0].shape == (10**15,)


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    whole = residual_network().SerializeToString()
    path = tmp_path / "net.onnx"
    for length in range(0, len(whole), 97):
        path.write_bytes(whole[:length])
        with pytest.raises(ReadError):
            read_ann(path)


def test_bytes_that_were_flipped_are_read_or_refused(tmp_path: Path) -> None:
    whole = residual_network().SerializeToString()
    numbers, path = np.random.default_rng(0), tmp_path / "net.onnx"
    for _ in range(300):
        damaged = bytearray(whole)
        for place in numbers.integers(0, len(whole), 3):
            damaged[place] = numbers.integers(0, 256)
        path.write_bytes(damaged)
        with contextlib.suppress(ReadError):
            read_ann(path)


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([node("Softmax", "x", "y")], r"Softmax\): has no meaning here; known: Conv"),
        ([helper.make_node("Relu", ["x"], ["y"], domain="com.example")], "has no meaning here"),
        ([node("MaxPool", "x", "y", kernel_shape=[2, 2], ceil_mode=1)], "rounds up"),
        ([node("MaxPool", "x", "y", kernel_shape=[2, 2], pads=[1, 1, 1, 1])], "may be negative"),
        ([node("AveragePool", "x", "y", kernel_shape=[2, 2], pads=[1, 1, 1, 1])], "does not count its padding"),
        ([node("Conv", "x w", "y", pads=[1, 0, 0, 0])], "one side more"),
        ([node("Conv", "x w", "y", auto_pad="SAME_UPPER")], "one side more"),
        ([node("Conv", "x x", "y")], "is no constant"),
        ([node("Conv", "x w", "y", group=3)], "another shape than it gets"),
        ([node("Gemm", "x w", "y", transA=1)], "transposes its input"),
        ([node("Flatten", "x", "y", axis=0)], "flattens the batch"),
        ([node("Reshape", "x two", "y")], "only flattening"),
        ([node("MatMul", "x m", "y")], "no product of a row"),
        ([node("BatchNormalization", "x v v v v", "y", training_mode=1)], "training mode"),
        ([node("Dropout", "x v v", "y")], "training mode"),
        ([node("Add", "x m", "y")], "none of its channels"),
        ([node("Relu", "w", "y")], "is no signal"),
    ],
)
def test_what_layers_cannot_say_is_refused_by_name(tmp_path: Path, nodes: list[Any], message: str) -> None:
    constants = {
        "w": np.zeros((4, 2, 3, 3), np.float32),
        "v": np.ones(2, np.float32),
        "m": np.ones((5, 7), np.float32),
        "two": np.array([1, 2, 25]),
    }
    with pytest.raises(ReadError, match=message) as caught:
        read_ann(written(model(nodes, constants, [1, 2, 5, 5]), tmp_path))
    assert isinstance(caught.value, UnsupportedNode) or "another shape" in message


def test_a_foreign_file_is_no_step_graph(tmp_path: Path) -> None:
    with pytest.raises(ReadError, match="no file of snncompile"):
        read_program(written(residual_network(), tmp_path))
