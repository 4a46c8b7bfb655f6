"""Reads a trained network of this package's trainer as a graph of level ``read``.

One module becomes one node of the same name; nothing is folded or rounded here. Weights are the float32 values that
torch trained, as float64. Dropout, which does nothing in eval mode, leaves no node.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torch import Tensor, nn

from snncompile.errors import UnsupportedModule
from snncompile.fixed import Reals
from snncompile.ir.graph import Edge, Graph
from snncompile.ir.ops import By, Conv, Dense, Flatten, Input, Neuron, Norm, Op, Output, Pool, Reset, Shape, To
from snncompile.ir.ops import Readout as ReadoutOp
from snncompile.ir.shapes import shape_of, signals
from snncompile.ir.signals import Analog, Count, Signal, Signed, Spike
from snncompile.recipe import Recipe
from snncompile.recipe.methods import AsfSettings
from snncompile.train.checkpoint import load_checkpoint
from snncompile.train.encoders import draws
from snncompile.train.feedback import RESTRICTED
from snncompile.train.integer_network import IntegerNetwork
from snncompile.train.layers import Readout, Repeat, SharedDropout
from snncompile.train.networks import INPUT, Network, Step
from snncompile.train.neurons import Spiking

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
    instead: dict[str, tuple[str, ...]] = {}  # what stands for a step that leaves no node
    waiting = [*network.plan]
    while waiting:
        step = waiting.pop(0)
        sources = tuple(one for source in step.sources for one in instead.get(source, (source,)))
        module = network.modules_of[step.name]
        if isinstance(module, nn.Dropout | SharedDropout):
            instead[step.name] = sources
            continue
        known = [shapes[source] for source in sources if source in shapes]
        if not known:  # it reads what comes later, one step of time ago
            waiting.insert(_place_behind(waiting, step.sources), step)
            continue
        op = _op(step.name, module, known[0])
        nodes[step.name] = op
        shapes[step.name] = shape_of(step.name, op, known[0])
        edges += [Edge(source, step.name, step.delay) for source in sources]
    nodes[OUTPUT] = Output()
    edges.append(Edge(network.plan[-1].name, OUTPUT))
    return _checked(_as_planned(nodes, edges, [step.name for step in network.plan]))


def _place_behind(waiting: list[Step], sources: tuple[str, ...]) -> int:
    return 1 + max(index for index, step in enumerate(waiting) if step.name in sources)


def _as_planned(nodes: dict[str, Op], edges: list[Edge], order: list[str]) -> Graph:
    """Nodes and edges in the order of the plan, whichever was read first."""
    rank = {name: index for index, name in enumerate([INPUT, *order, OUTPUT])}
    ordered = {name: nodes[name] for name in sorted(nodes, key=rank.__getitem__)}
    return Graph(ordered, sorted(edges, key=lambda edge: rank[edge.target]))


def _checked(graph: Graph) -> Graph:
    """Refuse what the graph would compute otherwise than torch."""
    carried: dict[str, Signal] | None = None
    for name in graph.names(Pool):
        op = graph.nodes[name]
        assert isinstance(op, Pool)
        if op.kind == "max" and any(op.padding):
            carried = carried or signals(graph)
            if any(isinstance(carried[edge.source], Analog | Signed) for edge in graph.into(name)):
                why = "torch's padding never wins, and here it is zero"
                raise UnsupportedModule("a padded maximum over negative values", where=name, why=why)
    return graph


def input_signal(recipe: Recipe) -> Signal:
    """What the input carries, as recipe and data declare it: images are analog, or spikes where they are drawn as such;
    frames hold spikes or counts.
    """
    if draws(recipe):
        settings = recipe.settings
        return Signed() if isinstance(settings, AsfSettings) and settings.signed else Spike()
    if not recipe.data.counts:  # images, and frames that were divided by their largest count
        return Analog()
    return Spike() if recipe.data.most == 1 else Count(recipe.data.most)


def _op(name: str, module: nn.Module, arriving: Shape) -> Op:
    """The op of a module whose input has the shape ``arriving``."""
    match module:
        case nn.Conv2d():
            return _conv(name, module)
        case nn.ConvTranspose2d():
            return _transposed(name, module)
        case nn.Linear():
            return Dense(_weight(module), _optional(module.bias))
        case nn.BatchNorm1d() | nn.BatchNorm2d():
            return _norm(name, module)
        case nn.AvgPool2d():
            return _average(name, module)
        case nn.MaxPool2d():
            return _maximum(name, module)
        case Repeat():
            return _repeat(module, arriving[0])
        case nn.Flatten():
            return Flatten()
        case Spiking():
            return _neuron(module, arriving)
        case Readout():
            return ReadoutOp(arriving, module.kind, decay=module.decay)
        case nn.ReLU():
            remedy = "a network of rectifiers teaches others; compile what it taught"
            raise UnsupportedModule("ReLU is no spiking neuron", where=name, remedy=remedy)
        case _:
            raise UnsupportedModule(
                f"{type(module).__name__} has no meaning in the graph",
                where=name,
                remedy="convolution, linear, batch norm, pooling, flatten, dropout, neurons and readout are read",
            )


def _neuron(module: Spiking, arriving: Shape) -> Neuron:
    reset: Reset = By(_number(module.amount)) if module.reset == "subtract" else To(_number(0.0))
    return Neuron(
        arriving,
        beta=_number(1.0 - module.decay),
        threshold=_number(module.threshold),
        fires=module.fires,
        reset=reset,
        initial=_number(module.initial),
        gain=_number(module.gain),
        amplitude=module.amplitude,
    )


def _conv(name: str, module: nn.Conv2d) -> Conv:
    if isinstance(module.padding, str) or module.padding_mode != "zeros":
        raise UnsupportedModule(
            f"padding {module.padding!r}, {module.padding_mode}", where=name, remedy="pad with zeros"
        )
    return Conv(
        _weight(module),
        _optional(module.bias),
        stride=tuple(module.stride),
        padding=tuple(module.padding),
        dilation=tuple(module.dilation),
        groups=module.groups,
    )


def _transposed(name: str, module: nn.ConvTranspose2d) -> Conv:
    """As the convolution that it is, of a signal with zeros between.

    Torch's has ``k - 1 - padding`` zeros before the first value, and as many and the output padding behind the last.
    The op's padding is the same on both sides and each value has its zeros behind it, so that what differs becomes taps
    of zero, before or behind the kernel.
    """
    if module.groups != 1 or tuple(module.dilation) != (1, 1):
        remedy = "one group, no dilation"
        raise UnsupportedModule("a transposed convolution in groups or with dilation", where=name, remedy=remedy)
    weight = _weight(module).transpose(1, 0, 2, 3)[:, :, ::-1, ::-1]
    pads: list[tuple[int, int]] = [(0, 0), (0, 0)]
    padding: list[int] = []
    for axis in (0, 1):
        kernel, apart = int(module.kernel_size[axis]), int(module.stride[axis])
        cut, more = int(_entry(module.padding, axis)), int(module.output_padding[axis])
        before, behind = kernel - 1 - cut, kernel - 1 - cut + more - (apart - 1)
        if before < 0:
            raise UnsupportedModule(f"padding {cut} beyond a kernel of {kernel}", where=name)
        pads.append((max(0, behind - before), max(0, before - behind)))
        padding.append(max(before, behind))
    return Conv(np.pad(weight, pads), _optional(module.bias), padding=tuple(padding), spread=tuple(module.stride))


def _norm(name: str, module: nn.BatchNorm1d | nn.BatchNorm2d) -> Norm:
    mean, variance = module.running_mean, module.running_var
    if mean is None or variance is None or not module.affine:
        raise UnsupportedModule("batch norm without running statistics or affine part", where=name)
    return Norm(_array(mean), _array(variance), _array(module.weight), _array(module.bias), module.eps)


def _average(name: str, module: nn.AvgPool2d) -> Pool:
    kernel, stride, padding = (_pair(value) for value in (module.kernel_size, module.stride, module.padding))
    divisor = module.divisor_override
    if module.ceil_mode or divisor not in (None, 1) or (any(padding) and not module.count_include_pad):
        remedy = "no ceil_mode, no divisor but 1, padding counted as zeros"
        raise UnsupportedModule("average pooling that is neither a plain mean nor a sum", where=name, remedy=remedy)
    return Pool("mean" if divisor is None else "sum", kernel, stride, padding)


def _maximum(name: str, module: nn.MaxPool2d) -> Pool:
    if module.ceil_mode or module.return_indices or _pair(module.dilation) != (1, 1):
        remedy = "no ceil_mode, no dilation, no indices"
        raise UnsupportedModule("max pooling that is not plain", where=name, remedy=remedy)
    return Pool("max", _pair(module.kernel_size), _pair(module.stride), _pair(module.padding))


def _repeat(module: Repeat, channels: int) -> Conv:
    """One place as many: a kernel of ones, channel by channel, that meets it once at every place."""
    ones = np.ones((channels, 1, *module.size))
    return Conv(ones, None, padding=tuple(size - 1 for size in module.size), groups=channels)


def _pair(value: int | tuple[int, ...]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def _entry(value: int | str | tuple[int, ...], axis: int) -> int:
    assert not isinstance(value, str)
    return value if isinstance(value, int) else value[axis]


def _weight(module: nn.Conv2d | nn.ConvTranspose2d | nn.Linear) -> Reals:
    """The weights in use: those of a feedback are restricted."""
    return _array(module.frozen() if isinstance(module, RESTRICTED) else module.weight)


def _array(tensor: Tensor) -> Reals:
    array: Reals = tensor.detach().double().numpy()
    return array


def _optional(tensor: Tensor | None) -> Reals | None:
    return None if tensor is None else _array(tensor)


def _number(value: float) -> Reals:
    return np.array(value, dtype=np.float64)
