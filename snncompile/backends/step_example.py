"""What a step graph must give, from the interpreter that is the definition: every state, every output."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snncompile.backends.step_graph import Port, StateOf, StepGraph
from snncompile.ir.graph import Graph
from snncompile.ir.ops import Input, Readout
from snncompile.ir.signals import Analog, grid
from snncompile.ir.store import Program
from snncompile.run.integer import IntegerGraph
from snncompile.run.steps import Arithmetic, Fired, State, drive, latency
from snncompile.target import Target

Array = NDArray[Any]
BATCH = 2  # samples of an example


@dataclass
class History:
    """All that a graph did, each a list over machine steps of arrays [samples, *shape]: what nodes sent (``value``),
    states behind each step (``u``, ``w``), spikes and potentials.
    """

    graph: Graph
    value: dict[str, list[Array]] = field(default_factory=dict)
    u: dict[str, list[Array]] = field(default_factory=dict)
    w: dict[str, list[Array]] = field(default_factory=dict)
    spikes: dict[str, list[Array]] = field(default_factory=dict)
    potentials: dict[str, list[Array]] = field(default_factory=dict)

    def sent(self, name: str, m: int) -> Array:
        """What a node sent at a machine step; zeros before the first."""
        values = self.value[name]
        return values[m] if m >= 0 else np.zeros_like(values[0])

    def before(self, state: StateOf, m: int) -> Array:
        """A state as machine step ``m`` finds it, before any reset."""
        port = state.port
        if port.what == "step":
            return np.asarray(m, dtype=np.int64)
        if port.what == "past":
            ago = range(1, port.shape[0] + 1)
            return np.stack([self.sent(port.of, m - back) for back in ago], axis=1).astype(port.dtype)
        kept = self.u[port.of] if port.what == "u" else self.w[port.of]
        samples = len(kept[0])
        return kept[m - 1] if m else np.broadcast_to(state.initial, (samples, *port.shape))

    def shown(self, port: Port, m: int) -> Array:
        """An output at a machine step."""
        if port.what in ("spikes", "potentials"):
            kept = self.spikes if port.what == "spikes" else self.potentials
            return kept[port.of][m]
        edges = self.graph.into(port.of)
        total = np.asarray(sum(self.sent(edge.source, m - edge.delay) for edge in edges))
        source = self.graph.nodes[edges[0].source]
        alone = isinstance(source, Readout) and len(edges) == 1 and not edges[0].delay
        return (source.summed(total) if isinstance(source, Readout) and alone else total).astype(port.dtype)


def history(graph: Graph, stimulus: Mapping[str, Array], target: Target) -> History:
    """Run the definition (``run/integer``), samples side by side, and keep all it did."""
    machine, kept = IntegerGraph(graph, target), History(graph)

    def note(where: dict[str, list[Array]], name: str, array: Array) -> Array:
        where.setdefault(name, []).append(array.copy())
        return array

    def fire(name: str, x: Array, state: State) -> Fired:
        fired = machine.fire(name, x, state)
        note(kept.spikes, name, fired.s)
        note(kept.potentials, name, fired.v)
        return fired

    def settle(name: str, fired: Fired, s: Array, state: State) -> None:
        machine.settle(name, fired, s, state)
        note(kept.u, name, state.u)
        note(kept.w, name, state.w)

    def integrate(name: str, x: Array, state: State) -> Array:
        total = machine.integrate(name, x, state)
        for where in (kept.potentials, kept.w, kept.value):
            note(where, name, total)
        return total

    def noted(function: Callable[..., Array]) -> Callable[..., Array]:
        return lambda name, *rest: note(kept.value, name, function(name, *rest))

    steps = next(iter(stimulus.values())).shape[1]
    for name, values in stimulus.items():
        late = np.zeros_like(values[:, 0])
        kept.value[name] = [values[:, m] if m < steps else late for m in range(steps + latency(graph))]
    brought = noted(machine.linear), fire, settle, noted(machine.emit), integrate, machine.tell, machine.rest
    drive(graph, stimulus, Arithmetic(np.int64, *brought))
    return kept


def example(
    program: Program, target: Target | None, step: StepGraph, *, scan: bool
) -> tuple[dict[str, Array], dict[str, Array] | None]:
    """Inputs and outputs of a call, by name: the last step of a sample, or with ``scan`` all of them.

    In reals the outputs are left to the reference implementation of ONNX (None), and the call is the first.
    """
    graph = program.graph
    stimulus = {name: _drawn(graph, name, program.steps) for name in graph.names(Input)}
    if target is None:
        given = {port.name: _sequence(stimulus[port.of], scan).astype(port.dtype) for port in step.inputs}
        return given | {state.port.name: _rest(state) for state in step.states}, None
    known = history(graph, stimulus, target)
    last = program.steps + latency(graph) - 1
    first = 0 if scan else last
    given = {port.name: _over(known.value[port.of][first : last + 1], port, scan) for port in step.inputs}
    given |= {state.port.name: known.before(state, first) for state in step.states}
    expected = {
        port.name: _over([known.shown(port, m) for m in range(first, last + 1)], port, scan) for port in step.outputs
    }
    return given, expected | {state.after: known.before(state, last + 1) for state in step.states}


def _over(values: list[Array], port: Port, scan: bool) -> Array:
    return (np.stack(values) if scan else values[0]).astype(port.dtype)


def _sequence(values: Array, scan: bool) -> Array:
    return np.moveaxis(values, 1, 0) if scan else values[:, 0]


def _rest(state: StateOf) -> Array:
    return state.initial if state.port.single else np.repeat(state.initial[None], BATCH, axis=0)


def _drawn(graph: Graph, name: str, steps: int) -> Array:
    """Values that an input declares, the same in every export."""
    op = graph.nodes[name]
    assert isinstance(op, Input)
    numbers = np.random.default_rng(0)
    shape = (BATCH, steps, *op.shape)
    if isinstance(op.signal, Analog):
        return numbers.integers(-8, 9, shape) / 8
    _, least, most = grid(op.signal)
    return numbers.integers(least, most + 1, shape)
