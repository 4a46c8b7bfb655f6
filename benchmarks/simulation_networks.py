"""The networks of ``benchmarks/simulation.py``: random 8-bit weights, thresholds that give every layer one spike rate.

A network is a list of layers; each sums its branches (pool, weights or a factor) and has LIF neurons that halve their
potential every step and go back to 0, or is the read-out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snncompile.fixed import FixedPoint
from snncompile.ir.graph import Edge, Graph
from snncompile.ir.ops import Conv, Dense, Input, Neuron, Op, Output, Pool, Readout, Scale, To
from snncompile.ir.signals import Fixed, Spike
from snncompile.run.cpu import Simulator
from snncompile.target import Target

Array = NDArray[Any]
Shape = tuple[int, ...]
number = FixedPoint.number
BITS = 12  # of the decay factors
SHORTCUT = 64  # what an identity adds for a spike


@dataclass
class Drawn:
    """A network while it is drawn, and after: layers as ``simulation_peer`` reads them, weights, what it is shown."""

    steps: int
    rate: float
    random: np.random.Generator
    target: Target
    shown: Array  # [samples, steps, *shape], or [samples, 1, *shape]: the same at every step
    spikes: bool
    layers: list[dict[str, Any]] = field(default_factory=list)
    weights: dict[str, Array] = field(default_factory=dict)
    shapes: dict[str, Shape] = field(default_factory=dict)
    recorded: dict[str, Array] = field(default_factory=dict)  # spikes of the first sample

    def __post_init__(self) -> None:
        self.shapes["input"] = self.shown.shape[2:]
        first = self.shown[:1]
        self.recorded["input"] = np.repeat(first, self.steps // first.shape[1], axis=1)

    def stimulus(self, samples: int) -> Array:
        """[samples, steps, *shape]: what the network is shown."""
        whole = self.shown[np.arange(samples) % len(self.shown)]
        return np.broadcast_to(whole, (samples, self.steps, *whole.shape[2:]))

    def conv(
        self, source: str, channels: int, kernel: int = 3, stride: int = 1, groups: int = 1, **more: Any
    ) -> dict[str, Any]:
        """A branch: a convolution that keeps the size (kernel 5: that does not pad)."""
        name = f"w{len(self.weights)}"
        shape = (channels, self.shapes[source][0] // groups, kernel, kernel)
        self.weights[name] = self.random.integers(-127, 128, shape)
        padding = {1: 0, 3: 1, 5: 0}[kernel]
        return _branch(source, "conv", weight=name, stride=stride, padding=padding, groups=groups, **more)

    def identity(self, source: str) -> dict[str, Any]:
        """A branch: each neuron from its partner alone."""
        return _branch(source, "identity", factor=SHORTCUT)

    def dense(self, source: str, features: int, *, pool: bool = False) -> dict[str, Any]:
        """A branch: a fully connected layer; a source that is not there yet is the layer itself."""
        name = f"w{len(self.weights)}"
        arriving = prod(self.shapes.get(source, (features,))) // (4 if pool else 1)
        self.weights[name] = self.random.integers(-127, 128, (features, arriving))
        return _branch(source, "dense", weight=name, pool=pool)

    def add(self, name: str, shape: Shape, *branches: dict[str, Any], reads: bool = False) -> str:
        """A layer, its threshold chosen so that it fires at the rate."""
        layer = {"name": name, "branches": list(branches), "threshold": 0, "steps": self.steps}
        self.shapes[name] = shape
        if not reads:
            self._calibrate(layer)
        self.layers.append(layer)
        return name

    def _calibrate(self, layer: dict[str, Any]) -> None:
        """Bisect: a higher threshold, fewer spikes, near enough."""
        name, stimulus = layer["name"], self.arriving(layer)
        low, high = 0, 1 << 22
        while high - low > 1:
            layer["threshold"] = middle = (low + high) // 2
            trace = Simulator(self.alone(layer), self.target, 1).run(stimulus, keep=())
            fired = trace.meta["spikes"][name] / (self.steps * prod(self.shapes[name]))
            low, high = (middle, high) if fired > self.rate else (low, middle)
        layer["threshold"] = high
        self.recorded[name] = Simulator(self.alone(layer), self.target, 1).run(stimulus, keep=[name]).spikes[name]

    def arriving(self, layer: Mapping[str, Any]) -> dict[str, Array]:
        """What was recorded of a layer's sources, the layer itself left out."""
        sources = [branch["source"] for branch in layer["branches"] if branch["source"] != layer["name"]]
        return {source: self.recorded[source] for source in sources}

    def alone(self, layer: Mapping[str, Any]) -> Graph:
        """One layer, its sources as inputs."""
        nodes: dict[str, Op] = {}
        edges: list[Edge] = []
        for branch in layer["branches"]:
            if branch["source"] != layer["name"]:
                nodes[branch["source"]] = self._input(branch["source"])
        self._lay(layer, nodes, edges)
        return _ended(nodes, edges, layer["name"])

    def _input(self, name: str) -> Input:
        spikes = self.spikes or name != "input"
        return Input(self.shapes[name], Spike() if spikes else Fixed(9, signed=False))

    def _lay(self, layer: Mapping[str, Any], nodes: dict[str, Op], edges: list[Edge]) -> None:
        name, shape = layer["name"], self.shapes[layer["name"]]
        one, half = number(1 << BITS, -BITS), number(1 << (BITS - 1), -BITS)
        reset = To(number(0))
        nodes[name] = (
            Neuron(shape, one, half, number(layer["threshold"]), number(0), reset=reset, initial=number(0))
            if layer["threshold"]
            else Readout(shape, "sum", number(0))
        )
        for place, branch in enumerate(layer["branches"]):
            last, delay = branch["source"], int(branch["source"] == name)
            for op_name, op in self._ops(branch, f"{name}.{place}"):
                nodes[op_name] = op
                edges.append(Edge(last, op_name, delay))
                last, delay = op_name, 0
            edges.append(Edge(last, name, delay))

    def _ops(self, branch: Mapping[str, Any], prefix: str) -> list[tuple[str, Op]]:
        ops: list[tuple[str, Op]] = []
        if branch["pool"]:
            ops.append((f"{prefix}.pool", Pool("sum", (2, 2), (2, 2))))
        if branch["kind"] == "identity":
            return [*ops, (f"{prefix}.factor", Scale(number(branch["factor"])))]
        weight = FixedPoint(self.weights[branch["weight"]])
        if branch["kind"] == "dense":
            return [*ops, (f"{prefix}.dense", Dense(weight))]
        stride, padding = (branch["stride"],) * 2, (branch["padding"],) * 2
        return [*ops, (f"{prefix}.conv", Conv(weight, None, stride, padding, (1, 1), branch["groups"]))]

    def graph(self) -> Graph:
        """The whole network."""
        nodes: dict[str, Op] = {"input": self._input("input")}
        edges: list[Edge] = []
        for layer in self.layers:
            self._lay(layer, nodes, edges)
        return _ended(nodes, edges, self.layers[-1]["name"])


def _branch(source: str, kind: str, **more: Any) -> dict[str, Any]:
    usual = {"pool": False, "weight": "", "factor": 0, "stride": 1, "padding": 0, "groups": 1}
    return {"source": source, "kind": kind} | usual | more


def _ended(nodes: dict[str, Op], edges: list[Edge], last: str) -> Graph:
    return Graph(nodes | {"end": Output()}, (*edges, Edge(last, "end")))


def _spikes(shape: Shape, steps: int, rate: float, target: Target) -> Drawn:
    random = np.random.default_rng(0)
    shown = random.random((4, steps, *shape)) < rate
    return Drawn(steps, rate, random, target, shown, spikes=True)


def vggsnn(rate: float, steps: int, target: Target, narrower: int = 1) -> Drawn:
    """64C3-128C3-P2-256C3-256C3-P2-512C3-512C3-P2-512C3-512C3-P2-10 on 48 x 48 x 2 events (TET's DVS-CIFAR10);
    ``narrower``: with such a part of the channels.
    """
    drawn = _spikes((2, 48, 48), steps, rate, target)
    last, size = "input", 48
    for place, channels in enumerate((64, 128, 256, 256, 512, 512, 512, 512)):
        pool = place in (2, 4, 6)
        size //= 2 if pool else 1
        channels //= narrower
        last = drawn.add(f"n{place}", (channels, size, size), drawn.conv(last, channels, pool=pool))
    drawn.add("out", (10,), drawn.dense(last, 10, pool=True), reads=True)
    return drawn


def vggsnn_narrow(rate: float, steps: int, target: Target) -> Drawn:
    """VGGSNN with an eighth of the channels: what Lava runs in minutes."""
    return vggsnn(rate, steps, target, 8)


def resnet19(rate: float, steps: int, target: Target) -> Drawn:
    """ResNet-19 on 32 x 32 images: 128 x 3 blocks, 256 x 3, 512 x 2, 256, 10; the image is the same at every step."""
    random = np.random.default_rng(0)
    shown = random.integers(0, 256, (4, 1, 3, 32, 32))
    drawn = Drawn(steps, rate, random, target, shown, spikes=False)
    last, size, before = drawn.add("stem", (128, 32, 32), drawn.conv("input", 128)), 32, 128
    for stage, (channels, blocks) in enumerate(((128, 3), (256, 3), (512, 2))):
        for block in range(blocks):
            stride = 2 if stage and not block else 1
            size, name = size // stride, f"b{stage}{block}"
            first = drawn.add(f"{name}a", (channels, size, size), drawn.conv(last, channels, stride=stride))
            same = stride == 1 and channels == before
            skip = drawn.identity(last) if same else drawn.conv(last, channels, 1, stride)
            last = drawn.add(f"{name}b", (channels, size, size), drawn.conv(first, channels), skip)
            before = channels
    last = drawn.add("hidden", (256,), drawn.dense(last, 256, pool=True))
    drawn.add("out", (10,), drawn.dense(last, 10), reads=True)
    return drawn


def lenet(rate: float, steps: int, target: Target) -> Drawn:
    """20C5-P2-50C5-P2-200-10 on 28 x 28 spikes."""
    drawn = _spikes((1, 28, 28), steps, rate, target)
    first = drawn.add("n0", (20, 24, 24), drawn.conv("input", 20, 5))
    second = drawn.add("n1", (50, 8, 8), drawn.conv(first, 50, 5, pool=True))
    third = drawn.add("n2", (200,), drawn.dense(second, 200, pool=True))
    drawn.add("out", (10,), drawn.dense(third, 10), reads=True)
    return drawn


def recurrent(rate: float, steps: int, target: Target) -> Drawn:
    """700-256-256-20, both hidden layers feed themselves one step late (as for spoken digits)."""
    drawn = _spikes((700,), steps, rate, target)
    first = drawn.add("n0", (256,), drawn.dense("input", 256), drawn.dense("n0", 256))
    second = drawn.add("n1", (256,), drawn.dense(first, 256), drawn.dense("n1", 256))
    drawn.add("out", (20,), drawn.dense(second, 20), reads=True)
    return drawn


NETWORKS: Mapping[str, tuple[Callable[[float, int, Target], Drawn], int, int]] = {
    "resnet19": (resnet19, 4, 2),
    "vggsnn": (vggsnn, 10, 2),
    "vggsnn-narrow": (vggsnn_narrow, 10, 16),
    "lenet": (lenet, 8, 64),
    "recurrent": (recurrent, 100, 64),
}
"""Name -> how it is drawn, its steps, samples of a run."""
