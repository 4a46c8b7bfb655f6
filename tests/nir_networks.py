"""Networks for the proofs of the NIR writer: each as a graph and as a torch module that runs it step by step, by hand.

Weights are eighths and decays dyadic, so that ties happen and no sum rounds: every spike must be the same everywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch.nn import functional

from snncompile.ir.graph import Edge, Graph
from snncompile.ir.ops import By, Conv, Dense, Input, Neuron, Norm, Op, Output, Pool, To, number, real
from snncompile.ir.signals import Spike
from tests.drawing import Array

STEPS, SAMPLES = 12, 3


@dataclass
class Torch:
    """Layers by hand on ``torch.nn.functional``, in float64; a dictionary of states is all the memory there is."""

    graph: Graph

    def spikes(self, x: Array) -> dict[str, Array]:
        """Of every population, [samples, steps, *shape], for ``x`` [samples, steps, *shape]."""
        found: dict[str, list[torch.Tensor]] = {}
        w: dict[str, torch.Tensor] = {}
        past: dict[str, torch.Tensor] = {}
        for now in torch.from_numpy(x).double().unbind(1):
            sent: dict[str, torch.Tensor] = {}
            for name in self.graph.order:
                arriving = [
                    past[edge.source] if edge.delay else sent[edge.source]
                    for edge in self.graph.into(name)
                    if not edge.delay or edge.source in past
                ]
                op = self.graph.nodes[name]
                if isinstance(op, Input):
                    sent[name] = now
                elif isinstance(op, Neuron):
                    sent[name] = self._fire(name, op, sum(arriving[1:], arriving[0]), w)
                    found.setdefault(name, []).append(sent[name])
                elif arriving:
                    sent[name] = self._linear(op, sum(arriving[1:], arriving[0]))
            past = sent
        return {name: torch.stack(rows, 1).numpy().astype(bool) for name, rows in found.items()}

    def _fire(self, name: str, op: Neuron, x: torch.Tensor, w: dict[str, torch.Tensor]) -> torch.Tensor:
        def value(param: object) -> torch.Tensor:
            return torch.tensor(np.broadcast_to(real(param), op.shape).copy())  # type: ignore[arg-type]

        v = (1.0 - value(op.beta)) * w.get(name, torch.zeros_like(x)) + x
        s = (v >= value(op.threshold) if op.fires == ">=" else v > value(op.threshold)).double()
        match op.reset:
            case By(amount):
                w[name] = v - s * value(amount)
            case To(reset):
                w[name] = torch.where(s > 0, value(reset), v)
        return s

    def _linear(self, op: Op, x: torch.Tensor) -> torch.Tensor:
        def tensor(values: object) -> torch.Tensor | None:
            return None if values is None else torch.tensor(real(values).copy())  # type: ignore[arg-type]

        match op:
            case Dense():
                return functional.linear(x.flatten(1), tensor(op.weight), tensor(op.bias))  # type: ignore[arg-type]
            case Conv(spread=(_, _) as stride):  # of stride 1 in its own sense: torch's kernel is the other way round
                weight, bias = tensor(op.weight), tensor(op.bias)
                assert weight is not None
                padding = [size - 1 - pad for size, pad in zip(weight.shape[2:], op.padding, strict=True)]
                more = [step - 1 for step in stride]
                turned = weight.flip(2, 3).transpose(0, 1)
                return functional.conv_transpose2d(x, turned, bias, stride, padding, more)
            case Conv():
                weight, bias = tensor(op.weight), tensor(op.bias)
                assert weight is not None
                return functional.conv2d(x, weight, bias, op.stride, op.padding, op.dilation, op.groups)
            case Pool(kind="max"):
                return functional.max_pool2d(x, op.kernel, op.stride, op.padding)
            case Pool():
                return functional.avg_pool2d(x, op.kernel, op.stride, op.padding)
            case Norm():
                parts = (tensor(op.mean), tensor(op.variance), tensor(op.gain), tensor(op.shift))
                return functional.batch_norm(x, *parts, eps=op.epsilon)  # type: ignore[arg-type]
            case _:
                return x


@dataclass
class _Chain:
    """Layers one after the other, and what is added to that."""

    numbers: np.random.Generator
    nodes: dict[str, Op]
    edges: list[Edge]

    def add(self, name: str, op: Op, *sources: str) -> None:
        before = list(self.nodes)[-1] if self.nodes else None
        self.nodes[name] = op
        self.edges += [Edge(source, name) for source in sources or ((before,) if before else ())]

    def eighths(self, *shape: int) -> Array:
        return self.numbers.integers(-8, 9, shape) / 8


def _begin(*shape: int) -> _Chain:
    chain = _Chain(np.random.default_rng(7), {}, [])
    chain.add("input", Input(shape, Spike()))
    return chain


def _end(chain: _Chain) -> Graph:
    chain.add("output", Output())
    return Graph(chain.nodes, chain.edges)


def lif(*shape: int, **other: object) -> Neuron:
    return replace(Neuron(shape, beta=number(0.5), fires=">="), **other)  # type: ignore[arg-type]


def conv_net(**neuron: object) -> Graph:
    """Convolution, mean pool, two dense layers; potentials meet their threshold all the time."""
    chain = _begin(2, 8, 8)
    chain.add("conv", Conv(chain.eighths(8, 2, 3, 3), None, (1, 1), (1, 1), (1, 1)))
    chain.add("lif1", lif(8, 8, 8, **neuron))
    chain.add("pool", Pool("mean", (2, 2), (2, 2)))
    chain.add("fc1", Dense(chain.eighths(10, 128), chain.eighths(10)))
    chain.add("lif2", lif(10, **neuron))
    chain.add("fc2", Dense(chain.eighths(5, 10), chain.eighths(5)))
    return _end(chain)


def per_channel() -> Graph:
    graph = conv_net()
    decays = np.resize([0.5, 0.25, 0.125, 0.0625], (8, 1, 1))
    thresholds = np.resize([1.0, 0.5, 2.0], (8, 1, 1))
    return graph.edit({"lif1": lif(8, 8, 8, beta=decays, threshold=thresholds)})


def decays_per_channel() -> Graph:
    return conv_net().edit({"lif1": lif(8, 8, 8, beta=np.resize([0.5, 0.25, 0.125, 0.0625], (8, 1, 1)))})


def deep_residual(depth: int = 8) -> Graph:
    """``depth`` blocks, each with the signal before it added (an edge of its own)."""
    chain = _begin(2, 6, 6)
    chain.add("conv0", Conv(chain.eighths(4, 2, 3, 3), None, (1, 1), (1, 1), (1, 1)))
    chain.add("lif0", lif(4, 6, 6))
    for block in range(1, depth + 1):
        chain.add(f"conv{block}", Conv(chain.eighths(4, 4, 3, 3), chain.eighths(4), (1, 1), (1, 1), (1, 1)))
        chain.add(f"lif{block}", lif(4, 6, 6, threshold=number(1.5)), f"conv{block}", f"lif{block - 1}")
    chain.add("fc", Dense(chain.eighths(5, 144)))
    return _end(chain)


def recurrent() -> Graph:
    """A population that hears itself a step later, through weights."""
    chain = _begin(6)
    chain.add("fc1", Dense(chain.eighths(12, 6), chain.eighths(12)))
    chain.add("lif1", lif(12))
    chain.add("back", Dense(chain.eighths(12, 12)))
    chain.add("fc2", Dense(chain.eighths(4, 12)), "lif1")
    chain.add("lif2", lif(4, beta=number(0.25)))
    chain.edges.append(Edge("back", "lif1", 1))
    return _end(chain)


def two_in_a_loop() -> Graph:
    """The second population is heard by the first a step later."""
    chain = _begin(6)
    chain.add("fc1", Dense(chain.eighths(8, 6)))
    chain.add("lif1", lif(8))
    chain.add("fc2", Dense(chain.eighths(7, 8)))
    chain.add("lif2", lif(7))
    chain.add("back", Dense(chain.eighths(8, 7)))
    chain.add("fc3", Dense(chain.eighths(3, 7)), "lif2")
    chain.edges.append(Edge("back", "lif1", 1))
    return _end(chain)


def shapes_net() -> Graph:
    """Depthwise, a kernel of 3 x 5, batch norm, a pool with padding."""
    chain = _begin(4, 9, 9)
    chain.add("depthwise", Conv(chain.eighths(4, 1, 3, 3), None, (1, 1), (1, 1), (1, 1), 4))
    powers = 4.0 ** chain.numbers.integers(-1, 2, 4)
    chain.add("norm", Norm(chain.eighths(4), powers, chain.eighths(4) + 0.5, chain.eighths(4), epsilon=0.0))
    chain.add("lif1", lif(4, 9, 9))
    chain.add("wide", Conv(chain.eighths(3, 4, 3, 5), None, (1, 1), (1, 2), (1, 1)))
    chain.add("lif2", lif(3, 9, 9))
    chain.add("pool", Pool("mean", (2, 2), (2, 2), (1, 1)))
    chain.add("fc", Dense(chain.eighths(5, 75)))
    return _end(chain)


def maximum() -> Graph:
    """A maximum over windows that overlap and reach beyond the map."""
    return conv_net().edit({"pool": Pool("max", (3, 3), (2, 2), (1, 1)), "lif1": lif(8, 8, 8, threshold=number(2.0))})


def transposed() -> Graph:
    """Down to 4 x 4 and up again by a transposed convolution."""
    chain = _begin(2, 8, 8)
    chain.add("down", Conv(chain.eighths(4, 2, 3, 3), None, (2, 2), (1, 1), (1, 1)))
    chain.add("lif1", lif(4, 4, 4))
    chain.add("up", Conv(chain.eighths(3, 4, 3, 3), chain.eighths(3), (1, 1), (1, 1), (1, 1), spread=(2, 2)))
    chain.add("lif2", lif(3, 8, 8))
    chain.add("fc", Dense(chain.eighths(5, 192)))
    return _end(chain)


def gentle() -> Graph:
    """Neurons that subtract their threshold and reach it at most once a step: no weight is negative, and a step adds no
    more than a threshold.
    """
    chain = _begin(4)
    fires = {"beta": number(0.0), "reset": By(number(1.0))}
    chain.add("fc1", Dense(chain.numbers.integers(0, 3, (8, 4)) / 8))
    chain.add("lif1", lif(8, **fires))
    chain.add("fc2", Dense(chain.numbers.integers(0, 2, (4, 8)) / 8))
    chain.add("lif2", lif(4, **fires))
    return _end(chain)


NETWORKS: dict[str, Callable[[], Graph]] = {
    "conv": conv_net,
    "residual": deep_residual,
    "recurrent": recurrent,
    "two in a loop": two_in_a_loop,
    "depthwise, 3 x 5, norm, padded pool": shapes_net,
    "maximum, overlapping windows, padding": maximum,
    "transposed convolution": transposed,
    "no leak": lambda: conv_net(beta=number(0.0)),
    "soft reset": lambda: conv_net(reset=By(number(1.0))),
    "soft reset, no leak": lambda: conv_net(reset=By(number(1.0)), beta=number(0.0)),
    "soft reset, one spike a step": gentle,
    "reset to -0.5": lambda: conv_net(reset=To(number(-0.5))),
    "decay per channel": decays_per_channel,
    "decay and threshold per channel": per_channel,
}


def stimulus(graph: Graph, samples: int = SAMPLES, steps: int = STEPS) -> Array:
    """Spikes for the graph's input, [samples, steps, *shape]."""
    op = graph.nodes["input"]
    assert isinstance(op, Input)
    return np.random.default_rng(1).integers(0, 2, (samples, steps, *op.shape)).astype(np.float64)
