"""ONNX files, read with suspicion: what a file claims is checked before a byte of it is believed.

``load`` gives any model whose tensors are all there; ``described`` and ``read_program`` what we wrote ourselves, the
graph to the last bit; ``ann.read_ann`` a feed-forward network of anyone's. Refused with one ``ReadError`` each:
what is no ONNX file or a part of one, tensors whose data are not what their dimensions say, data outside the folder of
the file, nodes that read what nothing before them gives (a cycle, or nothing at all).
"""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from snncompile.errors import ReadError, ToolError
from snncompile.ir.store import Program, from_json

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto, TensorProto

Array = NDArray[Any]
SCHEMA = "snncompile.onnx/1"
MOST_BYTES = 2**31
MOST_PACKED = 2**28
DEEPEST = 8  # graphs in graphs
REMEDY = "export it again"
_FIELDS = {"float32": "float_data", "float64": "double_data", "int64": "int64_data", "uint64": "uint64_data"}


def load(path: Path) -> ModelProto:
    """A model whose every tensor is at hand and as large as it says. Raises ``ReadError`` for anything else."""
    where = str(path)
    try:
        from onnx import ModelProto
    except ImportError as error:
        raise ToolError("is not installed", where=str(error.name), remedy="install onnx") from error
    try:
        if path.stat().st_size > MOST_BYTES:
            raise ReadError(f"is larger than {MOST_BYTES} bytes", where=where, why="no ONNX file is")
        content = path.read_bytes()
    except OSError as error:
        raise ReadError("cannot be read", where=where, why=error.strerror or str(error)) from error
    model = ModelProto()
    try:
        model.ParseFromString(content)
    except Exception as error:  # DecodeError, which has no typed name
        raise ReadError("is no ONNX file, or a part of one", where=where) from error
    if not model.ir_version or not model.opset_import or not model.graph.node:
        raise ReadError("is no ONNX file, or a part of one", where=where, why="it holds no graph of a known version")
    read: dict[Path, int] = {}
    for tensor in _tensors(model.graph, where):
        _check_tensor(tensor, path, read)
    _check_order(model.graph, frozenset(), where)
    return model


def described(model: ModelProto, where: str) -> dict[str, Any]:
    """What the metadata of a file of ours says. Raises ``ReadError`` where it is none, or was changed since."""
    told = _metadata(model, "snncompile", where)
    if told.get("schema") != SCHEMA:
        raise ReadError(f"its schema is {told.get('schema')!r}, not {SCHEMA!r}", where=where)
    if told.get("sha256", {}).get("operations") != fingerprint(model.graph):
        raise ReadError("its operations or numbers are not those that were exported", where=where, remedy=REMEDY)
    return told


def read_program(path: Path) -> Program:
    """The program that a file of ours was made from, to the last bit; its weights are those of the file's tensors.

    Raises ``ReadError``.
    """
    where = str(path)
    model = load(path)
    described(model, where)
    plain = _metadata(model, "snncompile.program", where)
    held = {tensor.name: tensor for tensor in model.graph.initializer}
    try:
        arrays = {name: _array(entry, held) for name, entry in plain["arrays"].items()}
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, zlib.error) as error:
        why = f"{type(error).__name__}: {error}"
        raise ReadError("its program cannot be read", where=where, why=why, remedy=REMEDY) from error
    return from_json(plain, arrays, where)


def fingerprint(graph: GraphProto) -> str:
    """SHA-256 of all that is executed: operations, numbers, what enters and leaves."""
    return hashlib.sha256(graph.SerializeToString(deterministic=True)).hexdigest()


def reference(name: str, array: Array, weights: Mapping[str, tuple[str, int]], constants: Mapping[str, Array]) -> Any:
    """How a program in the metadata names an array: by the tensor of the file that holds it but for a factor (a matrix
    transposed), or packed where none does. ``weights``: node -> (tensor, factor).
    """
    node, at, _ = name.rpartition(".weight")
    if at and node in weights:
        tensor, times = weights[node]
        if np.array_equal(_restored(constants[tensor], array.ndim, times, str(array.dtype)), array):
            return {"tensor": tensor, "times": times, "axes": array.ndim, "dtype": str(array.dtype)}
    packed = base64.b64encode(zlib.compress(np.ascontiguousarray(array).tobytes(), 6)).decode()
    return {"packed": packed, "dtype": str(array.dtype), "shape": list(array.shape)}


def _restored(held: Array, axes: int, times: int, dtype: str) -> Array:
    whole: Array = (held.T if axes == 2 else held).astype(dtype) * np.array(times, dtype=dtype)
    return whole


def _array(entry: Mapping[str, Any], held: Mapping[str, TensorProto]) -> Array:
    dtype = str(entry["dtype"])
    if dtype not in ("int64", "float64"):
        raise ValueError(f"no parameter is {dtype}")
    if "tensor" in entry:
        return _restored(to_array(held[entry["tensor"]]), int(entry["axes"]), int(entry["times"]), dtype)
    shape = tuple(map(int, entry["shape"]))
    expected = prod(shape) * np.dtype(dtype).itemsize
    if not 0 <= expected <= MOST_PACKED:
        raise ValueError(f"{expected} bytes are packed")
    unpacker = zlib.decompressobj()
    content = unpacker.decompress(base64.b64decode(entry["packed"]), expected + 1)
    if len(content) != expected:
        raise ValueError(f"{len(content)} bytes for {expected}")
    return np.frombuffer(content, dtype=dtype).reshape(shape)


def _metadata(model: ModelProto, key: str, where: str) -> dict[str, Any]:
    texts = [entry.value for entry in model.metadata_props if entry.key == key]
    if not texts:
        raise ReadError(f"has no {key!r} in its metadata", where=where, why="it is no file of snncompile")
    try:
        content = json.loads(texts[0])
    except (ValueError, RecursionError) as error:
        raise ReadError(f"its metadata {key!r} is damaged", where=where, why=str(error), remedy=REMEDY) from error
    if not isinstance(content, dict):
        raise ReadError(f"its metadata {key!r} is damaged", where=where, remedy=REMEDY)
    return content


def to_array(tensor: TensorProto) -> Array:
    """The numbers of a tensor that ``load`` has checked."""
    from onnx import numpy_helper

    array: Array = numpy_helper.to_array(tensor)
    return array


def attributes_of(node: NodeProto) -> dict[str, Any]:
    """The attributes of a node as plain values; tensors as arrays."""
    from onnx import AttributeProto, helper

    tensors = AttributeProto.TENSOR
    return {
        one.name: to_array(one.t) if one.type == tensors else helper.get_attribute_value(one) for one in node.attribute
    }


# What a file claims


def _tensors(graph: GraphProto, where: str, depth: int = 0) -> Iterator[TensorProto]:
    """Every tensor of a graph and of the graphs in it."""
    if depth > DEEPEST:
        raise ReadError("its graphs are nested too deeply", where=where)
    if graph.sparse_initializer:
        raise ReadError("holds sparse tensors", where=where, remedy="store them dense")
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("sparse_tensor") or attribute.sparse_tensors:
                raise ReadError("holds sparse tensors", where=where, remedy="store them dense")
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for inner in [attribute.g] if attribute.HasField("g") else attribute.graphs:
                yield from _tensors(inner, where, depth + 1)


def _check_tensor(tensor: TensorProto, path: Path, read: dict[Path, int]) -> None:
    """Raise ``ReadError`` unless the data of a tensor are there and fill its dimensions exactly."""
    from onnx import TensorProto, helper

    where = f"{path}, tensor {tensor.name[:80]!r}"
    known = TensorProto.DataType.values()
    if tensor.data_type not in known or tensor.data_type in (TensorProto.UNDEFINED, TensorProto.STRING):
        raise ReadError(f"has the type {tensor.data_type}", where=where, why="no numbers have it")
    dtype = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.data_type))
    if any(size < 0 for size in tensor.dims) or tensor.HasField("segment"):
        raise ReadError("has no dimensions that a tensor can have", where=where)
    count = prod(tensor.dims)
    if tensor.data_location == TensorProto.EXTERNAL or tensor.external_data:
        _fetch(tensor, count * dtype.itemsize, path, where, read)
        return
    given = len(tensor.raw_data)
    if given == count * dtype.itemsize:
        return
    values = len(getattr(tensor, _FIELDS.get(str(dtype), "int32_data")))
    if given or values != count:
        found = f"{given} bytes" if given else f"{values} numbers"
        raise ReadError(f"its dimensions {list(tensor.dims)[:8]} say {count} numbers, it holds {found}", where=where)


def _fetch(tensor: TensorProto, size: int, path: Path, where: str, read: dict[Path, int]) -> None:
    """Bring external data in: from a plain file of the folder, no byte of it twice."""
    from onnx import TensorProto

    told = {entry.key: entry.value for entry in tensor.external_data}
    folder = path.resolve().parent
    try:
        place = (folder / told["location"]).resolve()
        offset, length = int(told.get("offset", "0")), int(told.get("length", str(size)))
        if not place.is_relative_to(folder):
            raise ReadError("names data outside its folder", where=where, why=told["location"][:200])
        room = place.stat().st_size if place.is_file() else -1
        read[place] = read.get(place, 0) + length
        if offset < 0 or length != size or offset + length > room or read[place] > room:
            raise ReadError("its external data are not what it says", where=where, why=f"{told['location'][:200]}")
        with place.open("rb") as file:
            file.seek(offset)
            tensor.raw_data = file.read(length)
    except (KeyError, ValueError, OSError) as error:
        raise ReadError("its external data cannot be read", where=where, why=str(error)[:200]) from error
    tensor.ClearField("external_data")
    tensor.data_location = TensorProto.DEFAULT


def _check_order(graph: GraphProto, outer: frozenset[str], where: str) -> None:
    """Raise ``ReadError`` where a node reads what nothing before it gives: ONNX graphs are in order and acyclic."""
    known = set(outer) | {one.name for one in (*graph.input, *graph.initializer)} | {""}
    made = {name for node in graph.node for name in node.output}
    for node in graph.node:
        label = f"{where}, node {(node.name or node.output[0] if node.output else node.name)[:80]!r}"
        for name in node.input:
            if name not in known:
                why = "it comes later: a cycle, or nodes out of order" if name in made else "nothing gives it"
                raise ReadError(f"reads {name[:80]!r}", where=label, why=why)
        for attribute in node.attribute:
            for inner in [attribute.g] if attribute.HasField("g") else attribute.graphs:
                _check_order(inner, frozenset(known), label)
        for name in node.output:
            if name and name in known:
                raise ReadError(f"gives {name[:80]!r} a second time", where=label)
            known.add(name)
    for port in graph.output:
        if port.name not in known:
            raise ReadError(f"its output {port.name[:80]!r} is given by nothing", where=where)
