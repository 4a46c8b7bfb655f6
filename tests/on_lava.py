"""Several compiled networks in one run of real Lava, because starting Lava costs more than running it."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from snncompile.backends import lava
from snncompile.compile import Compiled, encoded
from snncompile.ir.graph import Edge, Graph
from snncompile.ir.ops import Neuron, Readout
from snncompile.ir.store import Program, save
from snncompile.run import integer
from snncompile.run.parts import after_reset
from snncompile.run.trace import Trace
from snncompile.target import Target
from tests.drawing import Array


@dataclass(frozen=True)
class Proven:
    """What was compared: values of spikes and potentials, those that differ, spikes."""

    compared: int
    different: int
    spikes: int


@dataclass(frozen=True)
class Device:
    """A graph for the machine, its stimulus in integers and what level ``fixed`` does with that."""

    placed: Graph
    stimulus: dict[str, Array]
    expected: Trace
    steps: int
    stream: bool

    @staticmethod
    def of(done: Compiled, stimulus: dict[str, Array]) -> Device:
        integers = encoded(done.levels["fixed"], stimulus)
        fixed = done.levels["fixed"]
        expected = after_reset(fixed, integer.run(fixed, integers, done.target))
        return Device(done.levels["placed"], integers, expected, done.steps, done.program.stream)


def prove(devices: list[Device], target: Target) -> list[Proven]:
    """Run them side by side, as one disjoint union; they share their steps, samples and whether they stream."""
    (steps,), (stream,) = {one.steps for one in devices}, {one.stream for one in devices}
    nodes, edges, stimulus = {}, [], {}
    for index, one in enumerate(devices):
        nodes |= {f"{index}.{name}": op for name, op in one.placed.nodes.items()}
        edges += [Edge(f"{index}.{e.source}", f"{index}.{e.target}", e.delay) for e in one.placed.edges]
        stimulus |= {f"{index}.{name}": array for name, array in one.stimulus.items()}
    with tempfile.TemporaryDirectory() as folder:
        save(Program(Graph(nodes, edges), "placed", target.name, steps, stream), Path(folder))
        shown = lava.run(Path(folder), stimulus, potentials=True).arrays
    return [_compared(one, shown, f"{index}.") for index, one in enumerate(devices)]


def _compared(one: Device, shown: Mapping[str, Array], prefix: str) -> Proven:
    compared = different = spikes = 0
    for name, op in one.placed.nodes.items():
        if not isinstance(op, Neuron | Readout) or name not in one.expected.potentials:
            continue  # a relay is no population of level fixed
        pairs = [(one.expected.potentials[name], shown[f"{prefix}{name}.v"])]
        if isinstance(op, Neuron):
            pairs.append((one.expected.spikes[name], shown[f"{prefix}{name}.s"]))
            spikes += int(one.expected.spikes[name].sum())
        for here, there in pairs:
            assert here.shape == there.shape
            compared += here.size
            different += int(np.sum(here != there))
    return Proven(compared, different, spikes)
