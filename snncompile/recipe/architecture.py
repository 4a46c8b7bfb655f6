"""The papers' notation of an architecture.

The notation, layers joined by ``-``::

    20C5            convolution, 20 channels, 5x5 kernel, padding 2 ("same"), bias; then batch norm and neurons
    64C3S2          the same with stride 2;   64C3P3 with a padding of 3
    96T3S2          transposed convolution: the map grows by the stride
    P2, AP2         average pooling 2x2 of the spikes;   AP3S2P1: 3x3, stride 2, padding 1
    MP2, SP3        maximum, sum
    GAP             average of the whole map;   GAP7: averages on 7x7 places (a map of one place is repeated)
    Res(16C3-16C3)  spiking residual block: conv, norm, neurons, conv, norm, plus the block's input (through a 1x1
                    convolution and norm where channels or stride change), then neurons on the sum
    Sew(16C3-16C3)  spike-element-wise block (ADD): the same, but neurons follow each norm, that of the 1x1 convolution
                    too, and the block gives the sum of spikes
    3*Res(8C3-8C3)  the same layer three times
    Loop(8C5|8C5)   layers, and behind the bar one that feeds their spikes back to the neurons of the first of them, one
                    step later, without bias, norm or neurons of its own
    200FC           fully connected, bias; then batch norm and neurons
    10FC            the last one is the output: no norm, no neurons, averaged over the steps

``NetworkOptions`` says what holds for the whole network.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal

from snncompile.recipe.notation import MOST_FEATURES, Item, Slip, at_top_level, is_size, items, numbers_of

__all__ = [
    "MOST_FEATURES",
    "Convolution",
    "FullyConnected",
    "Layer",
    "Loop",
    "Pooling",
    "Residual",
    "Shape",
    "Slip",
    "is_size",
    "parse",
]

Shape = tuple[int, ...]

MOST_KERNEL = 99

REMEDY = "layers are 20C5, 64C3S2, P2, MP2, GAP, 200FC, Res(16C3-16C3), Sew(16C3-16C3) and Loop(8C5|8C5), joined by '-'"


@dataclass(frozen=True)
class Convolution:
    """``20C5S2P2``; ``shape`` is what comes out, [channels, height, width].

    ``transposed``: ``96T3S2``, with an output padding of stride - 1, so that the map grows by the stride.
    """

    channels: int
    kernel: int
    stride: int
    shape: Shape
    padding: int = -1
    transposed: bool = False

    @property
    def pad(self) -> int:
        """Zeros on each side: half of the kernel, unless the notation says how many."""
        return self.kernel // 2 if self.padding < 0 else self.padding


@dataclass(frozen=True)
class Pooling:
    """``P2``, ``AP3S2P1``, ``MP2``, ``SP3`` or ``GAP``: over cells of ``kernel`` [height, width].

    ``kind = "repeat"``: one place becomes ``kernel`` equal ones (``GAP7`` of a map of one place).
    """

    kind: Literal["mean", "max", "sum", "repeat"]
    kernel: tuple[int, int]
    stride: tuple[int, int]
    shape: Shape
    padding: int = 0


@dataclass(frozen=True)
class FullyConnected:
    """``200FC``; ``shape`` is [features]."""

    features: int
    shape: Shape


@dataclass(frozen=True)
class Residual:
    """``Res(16C3-16C3)``, or ``Sew(16C3-16C3)``, which adds spikes instead of currents."""

    first: Convolution
    second: Convolution
    shape: Shape
    adds: Literal["currents", "spikes"] = "currents"


@dataclass(frozen=True)
class Loop:
    """``Loop(layers|back)``: the spikes of the last of ``layers`` reach the first of them through ``back``."""

    layers: tuple[Convolution | FullyConnected, ...]
    back: Convolution | FullyConnected
    shape: Shape


Layer = Convolution | Pooling | FullyConnected | Residual | Loop

_LAYER = re.compile(
    r"(?P<channels>\d+)(?P<direction>[CT])(?P<kernel>\d+)(?:S(?P<stride>\d+))?(?:P(?P<padding>\d+))?"
    r"|(?P<kind>[AMS]?)P(?P<pool>\d+)(?:S(?P<by>\d+))?(?:P(?P<edge>\d+))?"
    r"|GAP(?P<places>\d*)"
    r"|(?P<features>\d+)FC"
)
_KINDS: dict[str, Literal["mean", "max", "sum"]] = {"": "mean", "A": "mean", "M": "max", "S": "sum"}


def parse(text: str, shape: Shape) -> tuple[Layer, ...]:
    """The layers of an architecture on an input [channels, height, width]; each knows the shape it gives."""
    layers: list[Layer] = []
    for item in items(text):
        for _ in range(item.times):
            layers.append(_layer(item, shape))
            shape = layers[-1].shape
    if not isinstance(layers[-1], FullyConnected):
        raise Slip("the last layer must be fully connected: the output", Item(text, len(text), ""), "end it with 10FC")
    return tuple(layers)


def _layer(item: Item, shape: Shape) -> Layer:
    for name, block in (("Res", _residual), ("Sew", _residual), ("Loop", _loop)):
        if item.word.startswith(f"{name}(") and item.word.endswith(")"):
            return block(item, shape)
    return _plain(item, shape)


def _plain(item: Item, shape: Shape) -> Convolution | Pooling | FullyConnected:
    match = _LAYER.fullmatch(item.word)
    if not match:
        raise Slip(f"{item.word!r} is not a layer", item, REMEDY)
    numbers = numbers_of(match, item)
    if "features" in numbers:
        return FullyConnected(numbers["features"], (numbers["features"],))
    if len(shape) == 1:
        raise Slip("only FC may follow FC", item, "what comes out of FC has no height and width")
    if "kernel" not in numbers:
        return (
            _global_pool(item, numbers, shape) if match["kind"] is None else _pool(item, match["kind"], numbers, shape)
        )
    return _convolution(item, numbers, shape, transposed=match["direction"] == "T")


def _convolution(item: Item, numbers: dict[str, int], shape: Shape, *, transposed: bool) -> Convolution:
    kernel, stride = numbers["kernel"], numbers.get("stride", 1)
    if kernel % 2 == 0 or kernel > MOST_KERNEL:
        remedy = f"kernels are odd, so that padding k//2 keeps the size, and at most {MOST_KERNEL}"
        raise Slip(f"kernel {kernel}", item, remedy)
    if transposed:
        if "padding" in numbers:
            raise Slip("a transposed convolution with a padding of its own", item, "leave P out: the map grows by S")
        extent = [size * stride for size in shape[1:]]
        return Convolution(numbers["channels"], kernel, stride, (numbers["channels"], *extent), transposed=True)
    made = Convolution(numbers["channels"], kernel, stride, shape, numbers.get("padding", -1))
    if made.pad > MOST_KERNEL or min(shape[1:]) + 2 * made.pad < kernel:
        raise Slip(f"a kernel of {kernel} with padding {made.pad} on {shape[1]}x{shape[2]}", item)
    extent = [(size + 2 * made.pad - kernel) // stride + 1 for size in shape[1:]]
    return replace(made, shape=(made.channels, *extent))


def _pool(item: Item, kind: str, numbers: dict[str, int], shape: Shape) -> Pooling:
    size, edge = numbers["pool"], numbers.get("edge", 0)
    stride = numbers.get("by", size)
    if size > min(shape[1:]) + 2 * edge or 2 * edge > size:
        raise Slip(f"pools {size}x{size} out of {shape[1]}x{shape[2]}", item)
    extent = [(length + 2 * edge - size) // stride + 1 for length in shape[1:]]
    return Pooling(_KINDS[kind], (size, size), (stride, stride), (shape[0], *extent), edge)


def _global_pool(item: Item, numbers: dict[str, int], shape: Shape) -> Pooling:
    places = numbers.get("places", 1)
    height, width = shape[1:]
    if (height, width) == (1, 1) and places > 1:
        return Pooling("repeat", (places, places), (1, 1), (shape[0], places, places))
    if height % places or width % places:
        raise Slip(f"{height}x{width} are no {places}x{places} cells of one size", item, "choose a divisor, or 1")
    cell = (height // places, width // places)
    return Pooling("mean", cell, cell, (shape[0], places, places))


def _residual(item: Item, shape: Shape) -> Residual:
    convolutions: list[Convolution] = []
    for part in at_top_level(item, "-"):
        layer = _plain(part, shape)
        if not isinstance(layer, Convolution) or layer.transposed:
            raise Slip("a residual block holds convolutions", part, "as in Res(16C3-16C3)")
        convolutions.append(layer)
        shape = layer.shape
    if len(convolutions) != 2:
        raise Slip("a residual block holds two convolutions", item, "as in Res(16C3-16C3)")
    first, second = convolutions
    return Residual(first, second, shape, "spikes" if item.word.startswith("Sew(") else "currents")


def _loop(item: Item, shape: Shape) -> Loop:
    halves = at_top_level(item, "|")
    if len(halves) != 2:
        raise Slip("a loop has layers, a bar, and the one layer back", item, "as in Loop(64C5S2|64C5)")
    layers: list[Convolution | FullyConnected] = []
    for part in at_top_level(halves[0], "-", whole=True):
        layers.append(_in_loop(part, shape))
        shape = layers[-1].shape
    back = _in_loop(halves[1], shape)
    if back.shape != layers[0].shape:
        ends = " and ".join(str(list(one)) for one in (back.shape, layers[0].shape))
        raise Slip(f"what comes back and what it is added to differ: {ends}", halves[1])
    return Loop(tuple(layers), back, shape)


def _in_loop(item: Item, shape: Shape) -> Convolution | FullyConnected:
    layer = _plain(item, shape)
    if isinstance(layer, Pooling):
        raise Slip("a loop holds convolutions and FC", item, "pool in front of it or behind it")
    return layer
