"""The papers' notation of an architecture.

The notation, layers joined by ``-``::

    20C5            convolution, 20 channels, 5x5 kernel, padding 2 ("same"), bias; then batch norm and neurons
    64C3S2          the same with stride 2
    P2, AP2         average pooling 2x2 of the spikes, without neurons of its own: both spellings mean this for TET
    Res(16C3-16C3)  spiking residual block: conv, norm, neurons, conv, norm, plus the block's input (through a 1x1
                    convolution and norm where channels or stride change), then neurons on the sum
    Sew(16C3-16C3)  spike-element-wise block (ADD): the same, but neurons follow each norm, that of the 1x1 convolution
                    too, and the block gives the sum of spikes
    200FC           fully connected, bias; then batch norm and neurons
    10FC            the last one is the output: no norm, no neurons, averaged over the steps

``bias = false`` in the table network leaves the biases of convolutions out, ``dense_norm = false`` the norms of FC.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Shape = tuple[int, ...]

MOST_FEATURES = 1 << 20
"""Widths beyond this are taken for a slip of the pen (or a hostile file) before anything is allocated."""

MOST_KERNEL = 99


@dataclass(frozen=True)
class Convolution:
    """``20C5S2``; ``shape`` is what comes out, [channels, height, width]."""

    channels: int
    kernel: int
    stride: int
    shape: Shape


@dataclass(frozen=True)
class AveragePool:
    """``P2`` or ``AP2``: mean over cells of ``kernel`` x ``kernel``, which do not overlap."""

    kernel: int
    shape: Shape


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


Layer = Convolution | AveragePool | FullyConnected | Residual


def is_size(value: object) -> bool:
    """Whether a value is a size that a network may have."""
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MOST_FEATURES


_LAYER = re.compile(r"(?P<channels>\d+)C(?P<kernel>\d+)(?:S(?P<stride>\d+))?|A?P(?P<pool>\d+)|(?P<features>\d+)FC")
_ITEM = re.compile(r"(?:Res|Sew)\([^()]*\)|[^-]*")


class Slip(ValueError):
    """A fault in the architecture, and where it is."""

    def __init__(self, what: str, text: str, start: int, item: str, remedy: str = "") -> None:
        super().__init__(what)
        self.what, self.remedy = what, remedy
        self.place = f"at character {start + 1}: {text[:start]}>>{item}<<{text[start + len(item) :]}"


def parse(text: str, shape: Shape) -> tuple[Layer, ...]:
    """The layers of an architecture on an input [channels, height, width]; each knows the shape it gives."""
    layers: list[Layer] = []
    start = 0
    while start <= len(text):
        match = _ITEM.match(text, start)
        item = match[0] if match else ""
        layers.append(_layer(text, start, item, shape))
        shape = layers[-1].shape
        start += len(item)
        if start < len(text) and text[start] != "-":
            raise Slip("expected '-' between two layers", text, start, text[start])
        start += 1
    if not isinstance(layers[-1], FullyConnected):
        raise Slip("the last layer must be fully connected: the output", text, len(text), "", "end it with 10FC")
    return tuple(layers)


def _layer(text: str, start: int, item: str, shape: Shape) -> Layer:
    if item.startswith(("Res(", "Sew(")) and item.endswith(")"):
        return _residual(text, start, item, shape)
    match = _LAYER.fullmatch(item)
    if not match:
        remedy = "layers are 20C5, 64C3S2, P2, AP2, 200FC, Res(16C3-16C3) and Sew(16C3-16C3), joined by '-'"
        raise Slip(f"{item!r} is not a layer", text, start, item, remedy)
    numbers = {name: int(digits[:9]) for name, digits in match.groupdict().items() if digits}
    if not all(is_size(number) for number in numbers.values()):
        raise Slip(f"the numbers of a layer go from 1 to {MOST_FEATURES}", text, start, item)
    if "features" in numbers:
        return FullyConnected(numbers["features"], (numbers["features"],))
    if len(shape) == 1:
        raise Slip("only FC may follow FC", text, start, item, "what comes out of FC has no height and width")
    if "pool" in numbers:
        size = numbers["pool"]
        if size > min(shape[1:]):
            raise Slip(f"pools {size}x{size} out of {shape[1]}x{shape[2]}", text, start, item)
        return AveragePool(size, (shape[0], shape[1] // size, shape[2] // size))
    if numbers["kernel"] % 2 == 0 or numbers["kernel"] > MOST_KERNEL:
        remedy = f"kernels are odd, so that padding k//2 keeps the size, and at most {MOST_KERNEL}"
        raise Slip(f"kernel {numbers['kernel']}", text, start, item, remedy)
    stride = numbers.get("stride", 1)
    extent = [(size - 1) // stride + 1 for size in shape[1:]]
    return Convolution(numbers["channels"], numbers["kernel"], stride, (numbers["channels"], *extent))


def _residual(text: str, start: int, item: str, shape: Shape) -> Residual:
    at = start + len("Res(")
    convolutions: list[Convolution] = []
    for part in item[len("Res(") : -1].split("-"):
        layer = _layer(text, at, part, shape)
        if not isinstance(layer, Convolution):
            raise Slip("a residual block holds convolutions", text, at, part, "as in Res(16C3-16C3)")
        convolutions.append(layer)
        shape = layer.shape
        at += len(part) + 1
    if len(convolutions) != 2:
        raise Slip("a residual block holds two convolutions", text, start, item, "as in Res(16C3-16C3)")
    first, second = convolutions
    return Residual(first, second, shape, "spikes" if item.startswith("Sew(") else "currents")
