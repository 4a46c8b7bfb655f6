"""Reads a trained network of this package's trainer as a graph of level ``read``.

One module becomes one node of the same name; nothing is folded or rounded here. Weights are the float32
values that torch trained, as float64.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torch import Tensor, nn

from snncompile.errors import UnsupportedModule
from snncompile.fixed import Reals
from snncompile.ir.graph import Edge, Graph
from snncompile.ir.ops import Conv, Dense, Flatten, Input, Neuron, Norm, Op, Output, Pool, Shape, To
from snncompile.ir.ops import Readout as ReadoutOp
from snncompile.ir.shapes import shape_of
from snncompile.ir.signals import Analog, Count, Signal, Spike
from snncompile.recipe import Recipe
from snncompile.train.checkpoint import load_checkpoint
from snncompile.train.integer_network import IntegerNetwork
from snncompile.train.networks import INPUT, Network, Readout
from snncompile.train.neurons import LIF

OUTPUT = "output"


def read(path: str | Path) -> Graph:
    """The graph of a checkpoint. Raises ReadError (the file) or UnsupportedModule (a module of it)."""
    return read_module(load_checkpoint(path).network())


def read_module(network: Network | IntegerNetwork) -> Graph:
    """The graph of a network in eval mode, its plan step by step; of a network in integers, the graph that it is.

    Raises:
        UnsupportedModule: a module that has no meaning in the graph, named as in the plan.
    """
    if isinstance(network, IntegerNetwork):
        return network.graph()
    recipe = network.recipe
    nodes: dict[str, Op] = {INPUT: Input(recipe.input, input_signal(recipe))}
    edges: list[Edge] = []
    shapes: dict[str, Shape] = {INPUT: recipe.input}
    for step in network.plan:
        arriving = shapes[step.sources[0]]
        op = _op(step.name, network.modules_of[step.name], arriving)
        nodes[step.name] = op
        shapes[step.name] = shape_of(step.name, op, arriving)
        edges += [Edge(source, step.name) for source in step.sources]
    nodes[OUTPUT] = Output()
    edges.append(Edge(network.plan[-1].name, OUTPUT))
    return Graph(nodes, edges)


def input_signal(recipe: Recipe) -> Signal:
    """What the input carries, as the recipe's data declare it: images are analog, frames hold spikes or counts."""
    if recipe.data.static:
        return Analog()
    return Spike() if recipe.data.most == 1 else Count(recipe.data.most)


def _op(name: str, module: nn.Module, arriving: Shape) -> Op:
    """The op of a module whose input has the shape ``arriving``."""
    match module:
        case nn.Conv2d():
            return _conv(name, module)
        case nn.Linear():
            return Dense(_array(module.weight), _optional(module.bias))
        case nn.BatchNorm1d() | nn.BatchNorm2d():
            return _norm(name, module)
        case nn.AvgPool2d():
            return _pool(name, module)
        case nn.Flatten():
            return Flatten()
        case LIF():
            return Neuron(
                arriving,
                beta=_number(1.0 - module.decay),
                threshold=_number(module.threshold),
                fires=module.fires,
                reset=To(_number(0.0)),
            )
        case Readout():
            return ReadoutOp(arriving, kind="mean")
        case _:
            raise UnsupportedModule(
                f"{type(module).__name__} has no meaning in the graph",
                where=name,
                remedy="convolution, linear, batch norm, average pooling, flatten, LIF and readout are read",
            )


def _conv(name: str, module: nn.Conv2d) -> Conv:
    if isinstance(module.padding, str) or module.padding_mode != "zeros":
        raise UnsupportedModule(
            f"padding {module.padding!r}, {module.padding_mode}", where=name, remedy="pad with zeros"
        )
    return Conv(
        _array(module.weight),
        _optional(module.bias),
        stride=tuple(module.stride),
        padding=tuple(module.padding),
        dilation=tuple(module.dilation),
        groups=module.groups,
    )


def _norm(name: str, module: nn.BatchNorm1d | nn.BatchNorm2d) -> Norm:
    mean, variance = module.running_mean, module.running_var
    if mean is None or variance is None or not module.affine:
        raise UnsupportedModule("batch norm without running statistics or affine part", where=name)
    return Norm(_array(mean), _array(variance), _array(module.weight), _array(module.bias), module.eps)


def _pool(name: str, module: nn.AvgPool2d) -> Pool:
    kernel, stride, padding = (_pair(value) for value in (module.kernel_size, module.stride, module.padding))
    odd = module.ceil_mode or module.divisor_override is not None or (any(padding) and not module.count_include_pad)
    if odd:
        remedy = "no ceil_mode, no divisor_override, padding counted as zeros"
        raise UnsupportedModule("average pooling that is not a plain mean", where=name, remedy=remedy)
    return Pool("mean", kernel, stride, padding)


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else value


def _array(tensor: Tensor) -> Reals:
    array: Reals = tensor.detach().double().numpy()
    return array


def _optional(tensor: Tensor | None) -> Reals | None:
    return None if tensor is None else _array(tensor)


def _number(value: float) -> Reals:
    return np.array(value, dtype=np.float64)
