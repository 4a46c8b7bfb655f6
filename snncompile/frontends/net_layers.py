"""What the layers of a ``.net`` mean: nodes and edges in logical time, integers as they stand in the file.

=============  =========================================================================================================
input          ``Input``; with LIF neurons, which netx drives through their bias: ``Input -> Scale -> Neuron``. Data are
               in the units of the file's affine transform ``weight x + bias`` (64 and 0 where it has none)
dense          ``Dense``, over the flattened signal; one for each delay where rows (netx: ``delay`` [out]) or columns
               ([in]) are delayed, delays beyond 62 are 62
dense_rec      ``Dense`` and a second one from the population to itself, with a delay of 1
conv           ``Conv``; kernels are correlated, as in torch
flatten        nothing: shapes are [channels, height, width] and flat in that order
neurons        LOIHI and CUBA: ``Neuron`` with alpha = iDecay / 4096, beta = vDecay / 4096, threshold vThMant and bias
               in weight units (netx: du = iDecay - 1, dv = vDecay, bias_exp = 6). None: netx accumulates with du = -1
               and dv = 4096; that, and a last layer that keeps all (iDecay 4096, vDecay 0, vThMant 131071), is
               ``Readout``: the same sums while they stay inside the machine's 24 bits
=============  =========================================================================================================

Where netx would change or ignore a value (weights that it clips, delays of convolutions, refractory periods), the file
is refused instead. Source: lava-dl 0.6.0, ``netx/hdf5.py``, ``netx/utils.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snncompile.errors import ReadError, UnsupportedNode
from snncompile.fixed import FixedPoint, Integers
from snncompile.ir.graph import Edge, Graph
from snncompile.ir.ops import Conv, Dense, Input, Neuron, Op, Output, Readout, Scale, Shape, To
from snncompile.ir.signals import Fixed, Signal, Spike

Array = NDArray[Any]
DECAY = 12  # decays are in 4096ths
NEVER = 131071
"""The threshold of a population that never fires: the largest that Loihi holds."""
MOST_DELAY = 62
IMAGE_BITS = 13
"""Biases that netx writes for an image: 12 bits and a sign."""
MOST_COPIES = 1 << 27  # numbers that the matrices of all delays of a layer may hold together
MOST_NEURONS = 1 << 26
MOST_GEOMETRY = 1 << 12  # stride, padding or dilation
LARGEST = 1 << 24  # of any one integer: what a machine of 24 bits can hold


@dataclass(frozen=True)
class Layer:
    """The datasets of ``layer/<index>`` by name; ``where`` names it in messages."""

    where: str
    index: int
    datasets: Mapping[str, Array]

    def fail(self, what: str, why: str = "", remedy: str = "") -> ReadError:
        return ReadError(what, where=self.where, why=why, remedy=remedy)

    def lacks(self, what: str, why: str = "") -> UnsupportedNode:
        return UnsupportedNode(what, where=self.where, why=why)

    def has(self, key: str) -> bool:
        return key in self.datasets

    def need(self, key: str) -> Array:
        if key not in self.datasets:
            raise self.fail(f"has no dataset {key!r}")
        return self.datasets[key]

    def word(self, key: str) -> str:
        value = self.need(key)
        if value.dtype.kind != "U":
            raise self.fail(f"{key} is no word")
        return str(value)

    def integers(self, key: str) -> Integers:
        """A dataset of integers, whatever type holds them. Fractions are refused: netx would drop them."""
        values = self.need(key)
        if values.dtype.kind not in "biuf":
            raise self.fail(f"{key} holds no numbers")
        whole = np.asarray(np.rint(values.astype(np.float64)))
        wrong = whole != values
        if wrong.any():
            raise self.fail(f"{key} holds {values[wrong].flat[0]:g}, which is no integer", "netx would cut it off")
        if np.any(np.abs(whole) > LARGEST):
            raise self.fail(f"{key} holds {np.abs(whole).max():g}", f"the machine's integers end at {LARGEST}")
        return whole.astype(np.int64)

    def integer(self, key: str, least: int, most: int, default: int | None = None) -> int:
        if default is not None and not self.has(key):
            return default
        values = self.integers(key)
        if values.size != 1:
            raise self.fail(f"{key} holds {values.size} numbers, not one", "Loihi's neurons share it")
        value = int(values.item())
        if not least <= value <= most:
            raise self.fail(f"{key} is {value}", f"{least} to {most} are possible")
        return value

    def shape(self) -> Shape:
        """[C, H, W], or [n] where all else is 1."""
        sizes = tuple(int(size) for size in self.integers("shape").ravel())
        if not sizes or len(sizes) > 3 or min(sizes) < 1:
            raise self.fail(f"its shape is {list(sizes)}")
        if prod(sizes) > MOST_NEURONS:
            raise self.fail(f"its shape {list(sizes)} is {prod(sizes):,} neurons", f"{MOST_NEURONS:,} are read")
        return sizes


def build(layers: list[Layer]) -> Graph:
    """The graph of these layers. Raises ``ReadError``, and ``GraphError`` where shapes do not fit each other."""
    if not layers:
        raise ReadError("has no layers", where=".net")
    chain = _Chain()
    for layer in layers:
        chain.add(layer, last=layer is layers[-1])
    return chain.graph()


class _Chain:
    """The network while it grows: ``at`` is the population that the next layer reads."""

    def __init__(self) -> None:
        self.nodes: dict[str, Op] = {}
        self.edges: list[Edge] = []
        self.at = ""
        self.shape: Shape = ()

    def graph(self) -> Graph:
        if not self.at:
            raise ReadError("has no layer that computes", where=".net")
        return Graph({**self.nodes, "output": Output()}, [*self.edges, Edge(self.at, "output")])

    def add(self, layer: Layer, *, last: bool) -> None:
        kind = layer.word("type")
        match kind:
            case "input":
                self._input(layer)
            case "flatten":
                self.shape = (prod(self.shape),) if self.shape else self.shape
            case "dense" | "dense_rec":
                self._dense(layer, recurrent=kind == "dense_rec", last=last)
            case "conv":
                self._conv(layer, last=last)
            case _:
                remedy = f"read the layers before it: snncompile.frontends.net.read(path, layers={layer.index})"
                raise UnsupportedNode(
                    f"layers of type {kind!r} have no meaning here",
                    where=layer.where,
                    why="netx has none",
                    remedy=remedy,
                )

    def _input(self, layer: Layer) -> None:
        if self.at:
            raise layer.fail("a second input")
        shape = layer.shape()
        self.shape = _plain(shape)
        if not layer.has("neuron/type"):
            bits = layer.integer("messageBits", 2, 24, default=1)
            self._source(Spike() if bits == 1 else Fixed(bits))
            return
        weight, offset = layer.integer("weight", 1, LARGEST, default=64), layer.integer("bias", -4095, 4095, default=0)
        self._source(Fixed(IMAGE_BITS, 1 / weight))
        neuron = _neuron(layer, self.shape, np.asarray(offset))
        self.nodes["image"] = Scale(FixedPoint.number(1))
        # the bias passes the synaptic current by; through it, nothing of it may stay
        self._population(layer, "image", self.at, replace(neuron, alpha=FixedPoint.number(1 << DECAY, -DECAY)))

    def _source(self, signal: Signal) -> None:
        self.nodes["input"], self.at = Input(self.shape, signal), "input"

    def _ensure_source(self, layer: Layer, shape: Shape) -> None:
        """Files may begin with synapses; their input then has the shape that these read, and carries spikes."""
        if not self.at:
            if not shape:
                raise layer.fail("what it reads has no shape", remedy="begin the file with a layer of type input")
            self.shape = shape
            self._source(Spike())

    def _dense(self, layer: Layer, *, recurrent: bool, last: bool) -> None:
        shape = layer.shape()
        size = prod(shape)
        weight = _matrix(layer, "weight", size)
        self._ensure_source(layer, (weight.shape[1],))
        if prod(self.shape) != weight.shape[1]:
            raise layer.fail(f"weights {list(weight.shape)} do not take {list(self.shape)}")
        _check_weights(layer, weight)
        before, name = self.at, f"dense{layer.index}"
        delays = _delays(layer, weight)
        for delay, part in delays:
            synapse = name if len(delays) == 1 else f"{name}_after{delay}"
            self.nodes[synapse] = Dense(FixedPoint(part))
            self.edges.append(Edge(before, synapse, delay))
        own = _population(layer, (size,), _bias(layer, (size,)), last=last and not recurrent)
        for position, (delay, _) in enumerate(delays):
            synapse = name if len(delays) == 1 else f"{name}_after{delay}"
            if position:
                self.edges.append(Edge(synapse, self.at))
            else:
                self._population(layer, synapse, "", own)
        if recurrent:
            again = _matrix(layer, "weight_rec", size)
            if again.shape != (size, size):
                raise layer.fail(f"weight_rec {list(again.shape)} does not lead from {size} neurons to themselves")
            if layer.has("delay"):
                raise layer.lacks("delays of a recurrent layer", "netx gives both matrices the same and loses a scale")
            _check_weights(layer, np.hstack([weight, again]))
            self.nodes[f"{name}_again"] = Dense(FixedPoint(again))
            self.edges += [Edge(self.at, f"{name}_again", 1), Edge(f"{name}_again", self.at)]

    def _conv(self, layer: Layer, *, last: bool) -> None:
        weight = layer.integers("weight")
        if weight.ndim == 5 and weight.shape[4] == 1:
            weight = weight[..., 0]
        if weight.ndim != 4 or not weight.size:
            raise layer.fail(f"weights {list(weight.shape)} are no kernels [out, in, height, width]")
        if layer.has("delay") and layer.integers("delay").any():
            raise layer.lacks("delays of a convolution", "netx ignores them")
        shape = layer.shape()
        if len(shape) != 3 or not self.shape:
            raise layer.fail(
                f"its shape is {list(shape)}, what it reads {list(self.shape)}", "a convolution has images"
            )
        geometry = {
            key: _pair(layer, key, default) for key, default in (("stride", 1), ("padding", 0), ("dilation", 1))
        }
        name = f"conv{layer.index}"
        groups = layer.integer("groups", 1, LARGEST, default=1)
        self.nodes[name] = Conv(FixedPoint(weight), None, groups=groups, **geometry)
        self.edges.append(Edge(self.at, name))
        self._population(layer, name, "", _population(layer, shape, _bias(layer, shape), last=last))

    def _population(self, layer: Layer, synapse: str, source: str, op: Neuron | Readout) -> None:
        if source:
            self.edges.append(Edge(source, synapse))
        self.at = f"{'lif' if isinstance(op, Neuron) else 'readout'}{layer.index}"
        self.nodes[self.at] = op
        self.edges.append(Edge(synapse, self.at))
        self.shape = op.shape


def _plain(shape: Shape) -> Shape:
    """[n] where a shape has one axis longer than 1 at most and is no image."""
    return (prod(shape),) if len(shape) < 3 or sorted(shape)[1] == 1 else shape


def _pair(layer: Layer, key: str, default: int) -> Shape:
    values = [int(v) for v in layer.integers(key).ravel()] if layer.has(key) else [default]
    if len(values) not in (1, 2):
        raise layer.fail(f"{key} holds {len(values)} numbers")
    if max(values) > MOST_GEOMETRY:
        raise layer.fail(f"{key} is {max(values)}", f"at most {MOST_GEOMETRY}")
    return (values[0], values[-1])


def _matrix(layer: Layer, key: str, rows: int) -> Integers:
    """[out, in]; flat in the file where lava-dl wrote it so."""
    weight = layer.integers(key)
    if not weight.size or weight.size % rows or (weight.ndim > 1 and weight.shape[0] != rows):
        raise layer.fail(f"{key} {list(weight.shape)} do not lead to {rows} neurons")
    return weight.reshape(rows, -1)


def _check_weights(layer: Layer, weight: Integers) -> None:
    """Refuse what netx's ``optimize_weight_bits`` changes: it scales a matrix to 8 bits, signs included."""
    low, high = int(weight.min()), int(weight.max())
    if low < 0 < high and (low < -256 or high > 254):
        raise layer.fail(f"its weights reach from {low} to {high}", "netx clips them to -256 .. 254")
    if low < 0 < high and max(-low - 1, high) > 127 and np.any(weight % 2):
        raise layer.fail(
            "some of its weights are odd", "netx drops the last bit where a matrix goes beyond -128 .. 127"
        )
    if low < -256 or high > 255:
        raise layer.fail(f"its weights reach from {low} to {high}", "Loihi's have 8 bits and a sign")


def _delays(layer: Layer, weight: Integers) -> list[tuple[int, Integers]]:
    """A matrix for every delay: netx delays the rows of a matrix where there are as many, else its columns."""
    if not layer.has("delay"):
        return [(0, weight)]
    delay = layer.integers("delay")
    if np.any(delay < 0):
        raise layer.fail(f"a delay of {delay.min()}")
    delay = np.minimum(delay, MOST_DELAY).ravel()
    if delay.size == 1:
        return [(int(delay.item()), weight)]
    if delay.size == weight.shape[0]:
        late = delay[:, None]
    elif delay.size == weight.shape[1]:
        late = delay[None, :]
    else:
        raise layer.fail(f"{delay.size} delays for weights {list(weight.shape)}", "one for each row or column")
    distinct = np.unique(delay)
    if distinct.size * weight.size > MOST_COPIES:
        raise layer.fail(f"{distinct.size} different delays of {weight.size:,} weights", "more than can be held")
    parts = [(int(one), np.where(late == one, weight, 0)) for one in distinct]
    return [(one, part) for one, part in parts if part.any()] or [(0, weight)]


def _bias(layer: Layer, shape: Shape) -> Integers:
    """Biases to broadcast against [n] or [C, H, W]; one for every neuron of an image lies (x, y, channel)."""
    if not layer.has("bias"):
        return np.zeros((), dtype=np.int64)
    bias = layer.integers("bias")
    if bias.size == 1:
        return bias.reshape(())
    if bias.shape == (shape[0],):
        return bias.reshape(-1, *(1,) * (len(shape) - 1))
    if bias.shape == shape[::-1]:
        return bias.transpose()
    raise layer.fail(f"biases {list(bias.shape)} for neurons {list(shape)}")


def _population(layer: Layer, shape: Shape, bias: Integers, *, last: bool) -> Neuron | Readout:
    if not layer.has("neuron/type"):
        return Readout(shape, "sum", FixedPoint(bias))
    neuron = _neuron(layer, shape, bias)
    values = tuple(layer.integer(f"neuron/{key}", 0, LARGEST) for key in ("iDecay", "vDecay", "vThMant"))
    return Readout(shape, "sum", FixedPoint(bias)) if last and values == (1 << DECAY, 0, NEVER) else neuron


def _neuron(layer: Layer, shape: Shape, bias: Integers) -> Neuron:
    kind = layer.word("neuron/type")
    if kind not in ("LOIHI", "CUBA"):
        raise layer.lacks(f"neurons of type {kind!r} have no meaning here", "LOIHI and CUBA are LIF")
    if layer.integer("neuron/refDelay", 0, LARGEST, default=1) > 1:
        raise layer.lacks("a refractory period of more than one step", "netx ignores it")
    if layer.integer("neuron/gradedSpike", 0, 1, default=0):
        raise layer.lacks("graded spikes of LIF neurons", "netx sends ones")
    current = layer.integer("neuron/iDecay", 0, 1 << DECAY)
    leak = layer.integer("neuron/vDecay", 0, 1 << DECAY)
    return Neuron(
        shape,
        alpha=FixedPoint.number(current, -DECAY),
        beta=FixedPoint.number(leak, -DECAY),
        threshold=FixedPoint.number(layer.integer("neuron/vThMant", 0, 1 << 18)),
        bias=FixedPoint(bias),
        reset=To(FixedPoint.number(0)),
        initial=FixedPoint.number(0),
    )
