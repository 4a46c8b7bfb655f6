"""A network of ``benchmarks/simulation.py`` on Lava's fixed-point CPU models, in the interpreter that has Lava.

Loihi's weights are even and have no pools before them, so Lava gets a twin: weights and thresholds doubled, a sum over
2 x 2 as a convolution that repeats each weight. Potentials then have a bit more, so that rounding decides a few spikes
differently: the engine runs the twin as well, and every spike of Lava's must be the engine's. Seconds are those that
Lava ran for, without its start, which takes longer than networks of this size do.
"""

from __future__ import annotations

import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray
from simulation_networks import Drawn

from snncompile.backends import lava
from snncompile.compile import compile_integers
from snncompile.fixed import FixedPoint
from snncompile.ir.graph import Edge, Graph
from snncompile.ir.ops import Conv, Dense, Neuron, Op, Pool
from snncompile.ir.store import Program, save
from snncompile.run.cpu import Simulator
from snncompile.run.parts import merged
from snncompile.run.trace import Trace
from snncompile.target import Target

Array = NDArray[Any]
EMIT = lava.emit


def even(graph: Graph) -> Graph:
    """The same network in Loihi's integers: everything doubled, pools in the weights behind them."""
    nodes: dict[str, Op] = {}
    edges = list(graph.edges)
    for name, op in graph.nodes.items():
        match op:
            case Pool():
                before, behind = graph.into(name)[0], next(edge for edge in graph.edges if edge.source == name)
                edges.remove(before)
                edges[edges.index(behind)] = Edge(before.source, behind.target, before.delay + behind.delay)
            case Conv() | Dense():
                pooled = any(isinstance(graph.nodes[edge.source], Pool) for edge in graph.into(name))
                nodes[name] = _doubled(op, graph, name, pooled)
            case Neuron():
                assert isinstance(op.threshold, FixedPoint)
                threshold = FixedPoint(2 * op.threshold.mantissa, op.threshold.exponent)
                nodes[name] = Neuron(
                    op.shape, op.alpha, op.beta, threshold, op.bias, reset=op.reset, initial=op.initial
                )
            case _:
                nodes[name] = op
    return Graph(nodes, tuple(edges))


def _doubled(op: Conv | Dense, graph: Graph, name: str, pooled: bool) -> Conv | Dense:
    assert isinstance(op.weight, FixedPoint)
    weight = 2 * op.weight.mantissa
    if isinstance(op, Dense):
        if pooled:
            size = graph.nodes[graph.into(graph.into(name)[0].source)[0].source].shape  # type: ignore[union-attr]
            weight = weight.reshape(len(weight), size[0], size[1] // 2, size[2] // 2)
            weight = weight.repeat(2, axis=2).repeat(2, axis=3).reshape(len(weight), -1)
        return Dense(FixedPoint(weight, op.weight.exponent))
    if not pooled:
        return Conv(FixedPoint(weight, op.weight.exponent), None, op.stride, op.padding, op.dilation)
    twice = (2 * op.stride[0], 2 * op.stride[1]), (2 * op.padding[0], 2 * op.padding[1])
    return Conv(FixedPoint(weight.repeat(2, axis=2).repeat(2, axis=3), op.weight.exponent), None, *twice, op.dilation)


@dataclass
class OnLava:
    """A drawn network on Lava: ``run()`` gives the seconds a sample.

    ``synapses``: ``sparse``, all convolutions as matrices, or ``conv``, as Lava's own process of a convolution.
    """

    drawn: Drawn
    samples: int
    synapses: str = "sparse"

    def __post_init__(self) -> None:
        target, graph = Target.load("loihi"), even(self.drawn.graph())
        self.compiled = compile_integers(graph, target, self.drawn.steps)
        self.stimulus = {"input": np.array(self.drawn.stimulus(self.samples)).astype(np.int64)}
        self.expected = Simulator(graph, target, 1).run(self.stimulus)

    def __str__(self) -> str:
        return f"lava-{self.synapses}"

    def run(self) -> float:
        """Seconds a sample; every spike is compared."""
        done = self.compiled
        placed = done.levels["placed"]
        with tempfile.TemporaryDirectory() as scratch, patch.object(lava, "emit", self._emit):
            save(Program(placed, "placed", "loihi", done.steps, done.program.stream), Path(scratch))
            found = lava.run(Path(scratch), self.stimulus)
        spikes = {name.removesuffix(".s"): array != 0 for name, array in found.arrays.items() if name.endswith(".s")}
        whole = merged(placed, Trace(spikes, {}, {}))
        for name, expected in self.expected.spikes.items():
            if not np.array_equal(whole.spikes[name], expected):
                raise SystemExit(f"{name}: Lava's spikes are others")
        return float(found.meta["seconds"]["run"]) / self.samples

    def _emit(self, folder: Path) -> None:
        """The runner; with a limit for matrices that none is below, where convolutions are to stay what they are."""
        EMIT(folder)
        if self.synapses == "conv":
            runner = folder / lava.RUNNER
            text, found = re.subn(r"^UNROLL_MOST = \S+", "UNROLL_MOST = -1", runner.read_text(), flags=re.MULTILINE)
            assert found == 1
            runner.write_text(text)
