"""What the layers of a ``.net`` mean: nodes and edges in logical time, integers as they stand in the file.

input          ``Input``. With neurons, ``Input -> Scale -> neurons``: netx drives LIF through their bias, SDNN encode;
               data are in the units of the file's transform ``weight x + bias`` (64 and 0 where it has none)
dense          ``Dense``, over the flattened signal; one for each delay where rows (netx: ``delay`` [out]) or columns
               ([in]) are delayed, delays beyond 62 are 62
  complex      one ``Dense`` to both parts, the real one first, and a view of them as [2, n]
dense_rec      ``Dense`` and a second one from the population to itself, with a delay of 1
conv           ``Conv``; kernels are correlated, as in torch
flatten        nothing: shapes are [channels, height, width] and flat in that order
neurons        ``net_neurons.py``

Where netx would change or ignore a value (weights that it clips, delays of convolutions, refractory periods), the file
is refused instead. Source: lava-dl 0.6.0, ``netx/hdf5.py``, ``netx/utils.py``.
"""

from __future__ import annotations

from math import prod

import numpy as np

from snncompile.errors import ReadError, UnsupportedNode
from snncompile.fixed import FixedPoint, Integers
from snncompile.frontends.net_neurons import encoder, kind_of, population, resonator
from snncompile.frontends.net_record import LARGEST, Layer
from snncompile.ir.graph import Edge, Graph
from snncompile.ir.ops import (
    Conv,
    Dense,
    Flatten,
    Input,
    Neuron,
    Op,
    Output,
    Readout,
    Resonator,
    Scale,
    Shape,
    SigmaDelta,
    Stateful,
)
from snncompile.ir.signals import Fixed, Signal, Spike

MOST_DELAY = 62
IMAGE_BITS = 13
"""Biases that netx writes for an image: 12 bits and a sign."""
MESSAGE_BITS = 24
"""What a graded message may be wide where a file does not say it."""
MOST_COPIES = 1 << 27  # numbers that the matrices of all delays of a layer may hold together
MOST_GEOMETRY = 1 << 12  # stride, padding or dilation


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
        factor, neurons = encoder(layer, self.shape, offset)
        self.nodes["image"] = Scale(factor)
        self.edges.append(Edge(self.at, "image"))
        self._settle(layer, "image", neurons)

    def _source(self, signal: Signal) -> None:
        self.nodes["input"], self.at = Input(self.shape, signal), "input"

    def _begin(self, layer: Layer, shape: Shape) -> None:
        """What the first synapses read: files may begin with them; SDNN hears numbers, all others spikes."""
        if not self.at:
            self.shape = shape
            self._source(Spike())
        source = self.nodes[self.at]
        if isinstance(source, Input) and source.signal == Spike() and kind_of(layer) == "SDNN":
            self._source(Fixed(MESSAGE_BITS))

    def _dense(self, layer: Layer, *, recurrent: bool, last: bool) -> None:
        size = prod(layer.shape())
        if layer.has("weight/real"):
            self._complex(layer, size, recurrent=recurrent)
            return
        weight = _matrix(layer, "weight", size)
        self._reads(layer, weight)
        _check_weights(layer, weight)
        before, name = self.at, f"dense{layer.index}"
        delays = _delays(layer, weight)
        synapses = [name if len(delays) == 1 else f"{name}_after{delay}" for delay, _ in delays]
        for synapse, (delay, part) in zip(synapses, delays, strict=True):
            self.nodes[synapse] = Dense(_weights(part))
            self.edges.append(Edge(before, synapse, delay))
        self._settle(layer, synapses[0], population(layer, (size,), _bias(layer, (size,)), last=last and not recurrent))
        self.edges += [Edge(synapse, self.at) for synapse in synapses[1:]]
        if recurrent:
            self._again(layer, weight, size)

    def _reads(self, layer: Layer, weight: Integers) -> None:
        self._begin(layer, (weight.shape[1],))
        if prod(self.shape) != weight.shape[1]:
            raise layer.fail(f"weights {list(weight.shape)} do not take {list(self.shape)}")

    def _again(self, layer: Layer, weight: Integers, size: int) -> None:
        """The synapses from a population to itself."""
        again = _matrix(layer, "weight_rec", size)
        if again.shape != (size, size):
            raise layer.fail(f"weight_rec {list(again.shape)} does not lead from {size} neurons to themselves")
        if layer.has("delay"):
            raise layer.lacks("delays of a recurrent layer", "netx gives both matrices the same and loses a scale")
        _check_weights(layer, np.hstack([weight, again]))
        name = f"dense{layer.index}_again"
        self.nodes[name] = Dense(_weights(again))
        self.edges += [Edge(self.at, name, 1), Edge(name, self.at)]

    def _complex(self, layer: Layer, size: int, *, recurrent: bool) -> None:
        if recurrent:
            raise layer.lacks("complex weights of a recurrent layer", "netx reads none")
        parts = [_matrix(layer, key, size) for key in ("weight/real", "weight/imag")]
        if parts[0].shape != parts[1].shape:
            raise layer.fail(f"real weights {list(parts[0].shape)}, imaginary {list(parts[1].shape)}")
        self._reads(layer, parts[0])
        for part in parts:
            _check_weights(layer, part)
        name = f"dense{layer.index}"
        self.nodes[name] = Dense(FixedPoint(np.concatenate(parts)))
        self.nodes[f"{name}_parts"] = Flatten((2, size))
        self.edges += [Edge(self.at, name), Edge(name, f"{name}_parts")]
        self._settle(layer, f"{name}_parts", resonator(layer, (size,)))

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
        self._begin(layer, self.shape)
        name = f"conv{layer.index}"
        groups = layer.integer("groups", 1, LARGEST, default=1)
        self.nodes[name] = Conv(FixedPoint(weight), None, groups=groups, **geometry)
        self.edges.append(Edge(self.at, name))
        self._settle(layer, name, population(layer, shape, _bias(layer, shape), last=last))

    def _settle(self, layer: Layer, synapse: str, op: Stateful) -> None:
        """The population behind a synapse, which the next layer reads."""
        self.at = f"{_NAMES[type(op)]}{layer.index}"
        self.nodes[self.at] = op
        self.edges.append(Edge(synapse, self.at))
        self.shape = op.shape


_NAMES: dict[type[Stateful], str] = {Neuron: "lif", Readout: "readout", SigmaDelta: "sdnn", Resonator: "rf"}


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


def _weights(integers: Integers) -> FixedPoint:
    """Small odd weights are doubled and shifted down again behind the sum, which machines of even weights can do."""
    odd = bool(np.any(integers % 2)) and integers.min() >= -128 and integers.max() <= 127
    return FixedPoint(2 * integers, -1) if odd else FixedPoint(integers)


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
