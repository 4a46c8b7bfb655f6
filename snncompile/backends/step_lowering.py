"""Time in a step graph: what enters, what leaves, delays, phases; the counterpart of ``run/steps``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from snncompile.backends.step_graph import Port, Range, StateOf, StepGraph, Value, Writer
from snncompile.ir.graph import Edge, Graph
from snncompile.ir.ops import Input, Neuron, Op, Output, Readout, Shape
from snncompile.ir.shapes import shapes
from snncompile.run.steps import latency

Array = NDArray[Any]


class Arithmetic(Protocol):
    """What integers and reals bring: see ``Integers``."""

    state: str
    write: Writer

    def carried(self, op: Op) -> tuple[str, Range]: ...

    def sum(self, values: list[Value], wish: str) -> Value: ...

    def linear(self, name: str, op: Op, x: Value) -> Value: ...

    def initial(self, name: str) -> tuple[Array | None, Array]: ...

    def neuron(self, name: str, op: Neuron, x: Value, u: str | None, w: str) -> tuple[str, str, str, str]: ...

    def sent(self, name: str, op: Neuron, s: str) -> Value: ...

    def readout(self, name: str, op: Readout, x: Value, w: str) -> str: ...


def lower(graph: Graph, arithmetic: Arithmetic, steps: int) -> StepGraph:
    """One step of ``graph``; ``steps``: the length of a sample, which matters where populations have phases."""
    return _Lowering(graph, arithmetic, steps).done()


class _Lowering:
    def __init__(self, graph: Graph, arithmetic: Arithmetic, steps: int) -> None:
        self.graph, self.by, self.steps = graph, arithmetic, steps
        self.extent = shapes(graph)
        self.write = arithmetic.write
        self.made = arithmetic.write.graph
        self.values: dict[str, Value] = {}
        self.past: dict[str, StateOf] = {}
        self.restarts: dict[int, str] = {}
        self.leaving: list[Callable[[], None]] = []

    def done(self) -> StepGraph:
        for name in self.graph.names(Input):
            self._input(name)
        self._time()
        for name in self.graph.nodes:
            depth = max((edge.delay for edge in self.graph.out_of(name)), default=0)
            if depth:
                self._remember(name, depth)
        for name in self.graph.order:
            op = self.graph.nodes[name]
            if not isinstance(op, Input):
                self._node(name, op)
        for leave in self.leaving:
            leave()
        return self.made

    def _input(self, name: str) -> None:
        op = self.graph.nodes[name]
        dtype, limits = self.by.carried(op)
        port = Port(self.write.fresh(name), dtype, self.extent[name], of=name, what="input")
        self.made.inputs.append(port)
        self.values[name] = Value(port.name, dtype, port.shape, limits)

    def _time(self) -> None:
        """The machine step, and the condition under which each phase starts a sample anew."""
        if not latency(self.graph):
            return
        port = Port(self.write.fresh("step"), "int64", (), single=True, what="step")
        now = self._state(port, np.zeros((), dtype=np.int64))
        add, constant = self.write.add, self.write.constant
        one, length = constant(np.int64(1)), constant(np.int64(self.steps))
        phases = {op.phase for op in self.graph.nodes.values() if isinstance(op, Neuron | Readout)}
        for phase in sorted(phases):
            since = add("Sub", [now.port.name, constant(np.int64(phase))], f"step.since{phase}")
            within = add("Mod", [since, length], f"step.within{phase}")
            self.restarts[phase] = add("Equal", [within, constant(np.int64(0))], f"step.first{phase}")
        now.after = add("Add", [now.port.name, one], "step.next")

    def _state(self, port: Port, initial: Array) -> StateOf:
        state = StateOf(port, initial)
        self.made.states.append(state)
        return state

    def _remember(self, name: str, depth: int) -> None:
        """A buffer of the last values of a node, newest first."""
        dtype, _ = self.by.carried(self.graph.nodes[name])
        shape = (depth, *self.extent[name])
        port = Port(self.write.fresh(f"{name}.past"), dtype, shape, of=name, what="past")
        state = self._state(port, np.zeros(shape, dtype=dtype))
        self.past[name] = state

        def leave() -> None:
            write = self.write
            front = write.constant(np.array([1], dtype=np.int64))
            newest = write.cast(self.values[name], dtype).name
            kept = [write.add("Unsqueeze", [newest, front], f"{port.name}.newest")]
            if depth > 1:
                bounds = [write.constant(np.array([at], dtype=np.int64)) for at in (0, depth - 1)]
                kept.append(write.add("Slice", [port.name, *bounds, front], f"{port.name}.older"))
            state.after = write.add("Concat", kept, f"{port.name}.next", axis=1)

        self.leaving.append(leave)

    def _delivered(self, edge: Edge) -> Value:
        if not edge.delay:
            return self.values[edge.source]
        dtype, limits = self.by.carried(self.graph.nodes[edge.source])
        age = self.write.constant(np.int64(edge.delay - 1))
        port = self.past[edge.source].port
        name = self.write.add("Gather", [port.name, age], f"{edge.source}.ago{edge.delay}", axis=1)
        return Value(name, dtype, self.extent[edge.source], limits)

    def _node(self, name: str, op: Op) -> None:
        arriving = [self._delivered(edge) for edge in self.graph.into(name)]
        match op:
            case Output():
                self._observe(name)
            case Neuron() | Readout():
                x = self.by.sum(arriving, name) if arriving else self._nothing(op.shape)
                self._population(name, op, x)
            case _:
                self.values[name] = self.by.linear(name, op, self.by.sum(arriving, name))

    def _nothing(self, shape: Shape) -> Value:
        """A population that nothing reaches."""
        zeros = np.zeros((1, *shape), dtype=self.by.state)
        return Value(self.write.constant(zeros), self.by.state, shape, (0, 0))

    def _population(self, name: str, op: Neuron | Readout, x: Value) -> None:
        u_start, w_start = self.by.initial(name)
        held = None if u_start is None else self._enter(name, "u", u_start, op.phase)
        state, w = self._enter(name, "w", w_start, op.phase)
        if isinstance(op, Readout):
            v = self.by.readout(name, op, x, w)
            state.after = self.write.add("Identity", [v], f"{name}.w.next")
            self.values[name] = Value(v, self.by.state, op.shape, self.by.carried(op)[1])
        else:
            u_next, state.after, v, s = self.by.neuron(name, op, x, held and held[1], w)
            if held is not None:
                held[0].after = u_next
            self.made.hidden.append(Port(s, "bool", op.shape, of=name, what="spikes"))
            self.values[name] = self.by.sent(name, op, s)
        self.made.hidden.append(Port(v, self.by.state, op.shape, of=name, what="potentials"))

    def _enter(self, name: str, what: str, initial: Array, phase: int) -> tuple[StateOf, str]:
        """A state as this step finds it: put back at the start of a sample."""
        wish = self.write.fresh(f"{name}.{what}")
        state = self._state(Port(wish, str(initial.dtype), initial.shape, of=name, what=what), initial)
        if phase not in self.restarts:
            return state, state.port.name
        rest = self.write.constant(initial if np.any(initial) else np.zeros((), dtype=initial.dtype))
        return state, self.write.add("Where", [self.restarts[phase], rest, state.port.name], f"{wish}.begun")

    def _observe(self, name: str) -> None:
        """What an output reads: the tensors of populations as they are, anything else under the output's name."""
        edges = self.graph.into(name)
        source = self.graph.nodes[edges[0].source] if len(edges) == 1 else None
        if isinstance(source, Readout) and source.addends > 1 and not edges[0].delay:
            self._observe_sums(name, source, self.values[edges[0].source])
            return
        seen = [port for port in self.made.hidden if len(edges) == 1 and port.of == edges[0].source]
        if seen and not edges[0].delay:
            port = seen[0]  # spikes, or the sum of a read-out
        else:
            value = self.by.sum([self._delivered(edge) for edge in edges], name)
            port = Port(self.write.add("Identity", [value.name], name), value.dtype, value.shape, of=name, what="value")
        if port not in self.made.outputs:
            self.made.outputs.append(port)

    def _observe_sums(self, name: str, op: Readout, value: Value) -> None:
        """The numbers of a read-out that has several neurons for each."""
        write, shape = self.write, (op.shape[0] // op.addends, *op.shape[1:])
        apart = write.constant(np.array([0, op.addends, *shape], dtype=np.int64))  # 0: the batch, as it is
        split = write.add("Reshape", [value.name, apart], f"{name}.addends")
        first = write.constant(np.array([1], dtype=np.int64))
        total = write.add("ReduceSum", [split, first], name, keepdims=0)
        self.made.outputs.append(Port(total, value.dtype, shape, of=name, what="value"))
