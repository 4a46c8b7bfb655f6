"""A feed-forward network without spikes, read from ONNX: a teacher, or weights to start from.

A neutral record: layers in order, each an op of ``ir/ops`` without state, or one of ``Relu`` and ``Sum``; evaluated
with NumPy, so that torch is not needed to read one. What the layers cannot say is refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from snncompile.errors import GraphError, ReadError, UnsupportedNode
from snncompile.ir.graph import Graph
from snncompile.ir.ops import Conv, Dense, Flatten, Norm, Pool, Shape, real
from snncompile.ir.shapes import shape_of
from snncompile.run.reference import apply_linear

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

Array = NDArray[Any]


@dataclass(frozen=True)
class Relu:
    """``y = max(x, 0)``."""


@dataclass(frozen=True)
class Sum:
    """``y = x1 + x2``."""


@dataclass(frozen=True, eq=False)
class Layer:
    """One layer: what it computes, from which layers, to which shape (without the batch axis)."""

    name: str
    op: Dense | Conv | Norm | Pool | Flatten | Relu | Sum
    sources: tuple[str, ...]
    shape: Shape


@dataclass(frozen=True, eq=False)
class AnnGraph:
    """Layers in the order of computation; ``input`` and ``output`` name the first and last signal."""

    input: str
    shape: Shape
    layers: tuple[Layer, ...]
    output: str

    def run(self, x: Array) -> Array:
        """The output for ``x`` [samples, *shape], in float64."""
        values: dict[str, Array] = {self.input: np.asarray(x, dtype=np.float64)}
        for layer in self.layers:
            first, *rest = (values[source] for source in layer.sources)
            match layer.op:
                case Relu():
                    values[layer.name] = np.maximum(first, 0.0)
                case Sum():
                    values[layer.name] = np.asarray(sum(rest, first))
                case op:
                    values[layer.name] = apply_linear(Graph({layer.name: op}, ()), layer.name, first)
        return values[self.output]

    def weights(self) -> dict[str, tuple[Array, Array | None]]:
        """Weight and bias of every layer that has some, a norm that follows it alone folded in (float64)."""
        found: dict[str, tuple[Array, Array | None]] = {}
        readers: dict[str, list[Layer]] = {}
        for layer in self.layers:
            for source in layer.sources:
                readers.setdefault(source, []).append(layer)
        for layer in self.layers:
            if isinstance(layer.op, Dense | Conv):
                after = readers.get(layer.name, [])
                norm = after[0].op if len(after) == 1 else None
                found[layer.name] = _folded(layer.op, norm if isinstance(norm, Norm) else None)
        return found


def _folded(op: Dense | Conv, norm: Norm | None) -> tuple[Array, Array | None]:
    weight, bias = real(op.weight), None if op.bias is None else real(op.bias)
    if norm is None:
        return weight, bias
    factor = real(norm.gain) / np.sqrt(real(norm.variance) + norm.epsilon)
    shifted = real(norm.shift) + ((0.0 if bias is None else bias) - real(norm.mean)) * factor
    return weight * factor.reshape(-1, *(1,) * (weight.ndim - 1)), shifted


def read_ann(path: Path) -> AnnGraph:
    """A feed-forward network from an ONNX file. Raises ``ReadError``, ``UnsupportedNode`` naming the node."""
    from snncompile.frontends.onnx import load, to_array

    model = load(path)
    return _Reading(model, str(path), {one.name: to_array(one) for one in model.graph.initializer}).network()


class _Reading:
    """The nodes of a model one by one. ``alias``: tensors that are a signal under another name."""

    def __init__(self, model: ModelProto, where: str, constants: dict[str, Array]) -> None:
        self.model, self.where, self.constants = model, where, constants
        self.shapes: dict[str, Shape] = {}
        self.alias: dict[str, str] = {}
        self.layers: dict[str, Layer] = {}

    def network(self) -> AnnGraph:
        inputs = [one for one in self.model.graph.input if one.name not in self.constants]
        if len(inputs) != 1 or len(self.model.graph.output) != 1:
            what = f"has {len(inputs)} inputs and {len(self.model.graph.output)} outputs"
            raise UnsupportedNode(what, where=self.where, why="a teacher has one of each")
        dims = [dim.dim_value for dim in inputs[0].type.tensor_type.shape.dim]
        if len(dims) < 2 or min(dims[1:]) < 1:
            raise UnsupportedNode(
                f"its input has the shape {dims}", where=self.where, why="all but the batch are fixed"
            )
        name = inputs[0].name
        self.shapes[name] = tuple(dims[1:])
        for node in self.model.graph.node:
            self._node(node)
        output = self._signal(self.model.graph.output[0].name, self.where)
        return AnnGraph(name, self.shapes[name], tuple(self.layers.values()), output)

    def _signal(self, tensor: str, where: str) -> str:
        name = self.alias.get(tensor, tensor)
        if name not in self.shapes:
            raise UnsupportedNode(f"reads {tensor[:80]!r}, which is no signal", where=where)
        return name

    def _node(self, node: NodeProto) -> None:
        from snncompile.frontends.onnx import attributes_of

        where = (
            f"{self.where}, node {(node.name or (node.output[0] if node.output else ''))[:80]!r} ({node.op_type[:40]})"
        )
        read = getattr(self, f"_{node.op_type.lower()}", None) if node.op_type in OPERATORS else None
        if read is None or node.domain not in ("", "ai.onnx"):
            raise UnsupportedNode("has no meaning here", where=where, remedy="known: " + ", ".join(OPERATORS))
        try:
            given = attributes_of(node)
            if node.op_type == "Constant":
                self.constants[node.output[0]] = np.asarray(given["value"])
                return
            read(node, given, where)
        except (KeyError, IndexError, ValueError, TypeError, AttributeError) as error:
            raise ReadError("cannot be read", where=where, why=f"{type(error).__name__}: {error}"[:200]) from error
        except GraphError as error:
            raise ReadError("takes another shape than it gets", where=where, why=str(error)[:200]) from error

    def _add_layer(self, node: NodeProto, op: Any, sources: tuple[str, ...], shape: Shape) -> None:
        name = node.output[0]
        self.layers[name] = Layer(name, op, sources, shape)
        self.shapes[name] = shape

    def _one(self, node: NodeProto, op: Any, where: str) -> None:
        """A layer of one signal, whose shape the op gives."""
        source = self._signal(node.input[0], where)
        self._add_layer(node, op, (source,), shape_of(where, op, self.shapes[source]))

    def _numbers(self, name: str, where: str) -> Array:
        if name not in self.constants:
            raise UnsupportedNode(f"its parameter {name[:80]!r} is no constant", where=where)
        with np.errstate(invalid="ignore"):  # said on the next line
            values = np.asarray(self.constants[name], dtype=np.float64)
        if not np.isfinite(values).all():
            raise ReadError(f"its parameter {name[:80]!r} holds numbers that are not finite", where=where)
        return values

    def _constant(self, node: NodeProto, given: Mapping[str, Any], where: str) -> None:
        """Read in ``_node``."""

    def _conv(self, node: NodeProto, given: Mapping[str, Any], where: str) -> None:
        weight = self._numbers(node.input[1], where)
        bias = self._numbers(node.input[2], where) if len(node.input) > 2 and node.input[2] else None
        axes = weight.ndim - 2
        stride, dilation = (tuple(given.get(key, (1,) * axes)) for key in ("strides", "dilations"))
        op = Conv(weight, bias, stride, _padding(given, axes, where), dilation, int(given.get("group", 1)))
        if axes not in (1, 2):
            raise UnsupportedNode(f"has {axes} axes", where=where, why="one or two are known")
        self._one(node, op, where)

    def _gemm(self, node: NodeProto, given: Mapping[str, Any], where: str) -> None:
        if given.get("transA", 0):
            raise UnsupportedNode("transposes its input", where=where)
        weight = self._numbers(node.input[1], where)
        weight = (weight if given.get("transB", 0) else weight.T) * given.get("alpha", 1.0)
        bias = None
        if len(node.input) > 2 and node.input[2]:
            whole = self._numbers(node.input[2], where) * given.get("beta", 1.0)
            bias = np.broadcast_to(whole.reshape(-1), weight.shape[:1])
        self._dense(node, weight, bias, where)

    def _matmul(self, node: NodeProto, given: Mapping[str, Any], where: str) -> None:
        self._dense(node, self._numbers(node.input[1], where).T, None, where)

    def _dense(self, node: NodeProto, weight: Array, bias: Array | None, where: str) -> None:
        source = self._signal(node.input[0], where)
        if weight.ndim != 2 or len(self.shapes[source]) != 1:
            raise UnsupportedNode("is no product of a row of features with a matrix", where=where)
        self._one(node, Dense(weight, bias), where)

    def _batchnormalization(self, node: NodeProto, given: Mapping[str, Any], where: str) -> None:
        if given.get("training_mode", 0):
            raise UnsupportedNode("is in training mode", where=where, remedy="export the network in evaluation mode")
        gain, shift, mean, variance = (self._numbers(name, where) for name in node.input[1:5])
        self._one(node, Norm(mean, variance, gain, shift, float(given.get("epsilon", 1e-5))), where)

    def _relu(self, node: NodeProto, given: Mapping[str, Any], where: str) -> None:
        source = self._signal(node.input[0], where)
        self._add_layer(node, Relu(), (source,), self.shapes[source])

    def _averagepool(self, node: NodeProto, given: Mapping[str, Any], where: str) -> None:
        self._pool(node, "mean", given, where)

    def _maxpool(self, node: NodeProto, given: Mapping[str, Any], where: str) -> None:
        self._pool(node, "max", given, where)

    def _pool(self, node: NodeProto, kind: str, given: Mapping[str, Any], where: str) -> None:
        kernel = tuple(map(int, given["kernel_shape"]))
        padding = _padding(given, len(kernel), where)
        if given.get("ceil_mode", 0) or any(step != 1 for step in given.get("dilations", ())) or len(node.output) > 1:
            raise UnsupportedNode("rounds up, is dilated, or gives indices", where=where)
        if any(padding) and kind == "mean" and not given.get("count_include_pad", 0):
            raise UnsupportedNode("does not count its padding", where=where, why="zeros count in a mean here")
        before = self.layers.get(self._signal(node.input[0], where))
        if any(padding) and kind == "max" and not (before and isinstance(before.op, Relu)):
            raise UnsupportedNode("pads values that may be negative", where=where, why="padding is zeros here")
        stride = tuple(given.get("strides", (1,) * len(kernel)))
        self._one(node, Pool("mean" if kind == "mean" else "max", kernel, stride, padding), where)

    def _globalaveragepool(self, node: NodeProto, given: Mapping[str, Any], where: str) -> None:
        size = self.shapes[self._signal(node.input[0], where)][1:]
        self._one(node, Pool("mean", size, (1,) * len(size), (0,) * len(size)), where)

    def _add(self, node: NodeProto, given: Mapping[str, Any], where: str) -> None:
        constant = [name for name in node.input if name in self.constants]
        if constant:
            self._bias(node, constant[0], where)
            return
        sources = tuple(self._signal(name, where) for name in node.input)
        if len({self.shapes[source] for source in sources}) != 1:
            raise UnsupportedNode("adds signals of different shapes", where=where)
        self._add_layer(node, Sum(), sources, self.shapes[sources[0]])

    def _bias(self, node: NodeProto, constant: str, where: str) -> None:
        """A constant that is added channel by channel to what a layer with weights gives."""
        source = self._signal(next(name for name in node.input if name != constant), where)
        shape, values = self.shapes[source], self._numbers(constant, where)
        flat = values.reshape(-1)
        spread = values.shape[-len(shape) :] if values.ndim >= len(shape) else values.shape
        if flat.size not in (1, shape[0]) or (flat.size > 1 and prod(spread[1:] if len(shape) > 1 else ()) != 1):
            raise UnsupportedNode("adds a constant that is none of its channels'", where=where)
        layer = self.layers.get(source)
        read = sum(source in map(self._known, other.input) for other in self.model.graph.node)
        if layer is not None and isinstance(layer.op, Dense | Conv) and layer.op.bias is None and read == 1:
            op = replace(layer.op, bias=np.broadcast_to(flat, shape[:1]))
            del self.layers[source]
            self._add_layer(node, op, layer.sources, shape)
            return
        same = np.zeros_like(flat) if flat.size > 1 else np.zeros(())
        moved = flat if flat.size > 1 else flat[0]
        self._add_layer(node, Norm(same, same + 1, same + 1, moved, 0.0), (source,), shape)

    def _known(self, tensor: str) -> str:
        return self.alias.get(tensor, tensor)

    def _flatten(self, node: NodeProto, given: Mapping[str, Any], where: str) -> None:
        if given.get("axis", 1) != 1:
            raise UnsupportedNode("flattens the batch as well, or not all axes", where=where)
        self._one(node, Flatten(), where)

    def _reshape(self, node: NodeProto, given: Mapping[str, Any], where: str) -> None:
        wanted = [int(size) for size in self._numbers(node.input[1], where)]
        shape = self.shapes[self._signal(node.input[0], where)]
        if len(wanted) != 2 or wanted[0] > 1 or wanted[1] not in (-1, prod(shape)) or wanted == [-1, -1]:
            raise UnsupportedNode(f"makes the shape {wanted}", where=where, why="only flattening has a meaning here")
        self._one(node, Flatten(), where)

    def _identity(self, node: NodeProto, given: Mapping[str, Any], where: str) -> None:
        if node.input[0] in self.constants:
            self.constants[node.output[0]] = self.constants[node.input[0]]
            return
        self.alias[node.output[0]] = self._signal(node.input[0], where)

    def _dropout(self, node: NodeProto, given: Mapping[str, Any], where: str) -> None:
        training = node.input[2] if len(node.input) > 2 else ""
        if training and np.any(self._numbers(training, where)):
            raise UnsupportedNode("is in training mode", where=where, remedy="export the network in evaluation mode")
        self._identity(node, given, where)


OPERATORS = (
    *("Conv", "Gemm", "MatMul", "BatchNormalization", "Relu", "AveragePool", "MaxPool", "GlobalAveragePool"),
    *("Add", "Flatten", "Reshape", "Identity", "Dropout", "Constant"),
)


def _padding(given: Mapping[str, Any], axes: int, where: str) -> tuple[int, ...]:
    pads = tuple(map(int, given.get("pads", (0,) * 2 * axes)))
    if given.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID") or pads[:axes] != pads[axes:]:
        raise UnsupportedNode("pads one side more than the other", where=where)
    return pads[:axes]
