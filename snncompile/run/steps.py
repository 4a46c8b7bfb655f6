"""Time: what both interpreters share. Steps, delays, phases, samples; not a word of arithmetic."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snncompile.errors import GraphError, InternalError
from snncompile.ir.graph import Graph
from snncompile.ir.ops import STATEFUL, Input, Neuron, Output, Readout, Resonator, SigmaDelta, Stateful
from snncompile.ir.shapes import shapes
from snncompile.run.trace import Trace

Array = NDArray[Any]
Watch = Callable[[int, Mapping[str, Array]], None]


@dataclass
class State:
    """The state of a population: synaptic current ``u`` and potential after the reset ``w`` (read-outs: the sum).

    Others: the sum and what has been told (``SigmaDelta``), real and imaginary part (``Resonator``).
    """

    u: Array
    w: Array


@dataclass(frozen=True)
class Fired:
    """What a neuron did in one step: potential before the reset and spikes."""

    v: Array
    s: Array


@dataclass(frozen=True)
class Arithmetic:
    """What an interpreter brings: the ops on arrays [batch, *shape] of its number type.

    ``linear(name, x)`` for every op without state; ``fire(name, x, state)`` the potential before the reset and the
    spikes; ``settle(name, fired, s, state)`` puts the state behind a step in which ``s`` counts as the spikes;
    ``emit(name, fired, s)`` what it sends; ``integrate(name, x, state)`` the next sum of a read-out, and
    ``tell(name, sum)`` what it sends of that; ``rest(name, batch)`` the state at the start of a sample.
    """

    dtype: type
    linear: Callable[[str, Array], Array]
    fire: Callable[[str, Array, State], Fired]
    settle: Callable[[str, Fired, Array, State], None]
    emit: Callable[[str, Fired, Array], Array]
    integrate: Callable[[str, Array, State], Array]
    tell: Callable[[str, Array], Array]
    rest: Callable[[str, int], State]


def phase_of(graph: Graph, name: str) -> int:
    """The step at which the population's logical step 0 happens."""
    op = graph.nodes[name]
    return op.phase if isinstance(op, Neuron | Readout) else 0


def latency(graph: Graph) -> int:
    """The largest phase: how many steps after a sample's end its last answer is there."""
    return max((phase_of(graph, name) for name in graph.nodes), default=0)


def drive(
    graph: Graph,
    stimulus: Mapping[str, Array],
    arithmetic: Arithmetic,
    *,
    stream: bool = False,
    forced: Mapping[str, Array] | None = None,
    watch: Watch | None = None,
) -> Trace:
    """Run ``stimulus`` (input name -> [samples, steps, *shape]) through the graph.

    Without ``stream`` every sample starts from fresh state and empty delays, all samples side by side; with it they
    follow each other in one run of ``samples * steps + latency`` machine steps, cleared only as the phases say.
    ``forced`` gives recorded spikes [samples, steps, *shape] that stand in for what the named neurons send and for
    their resets (teacher forcing; not with ``stream``), while the trace holds what they computed themselves.
    ``watch`` is called after every machine step, with its number and what every node sent, [batch, *shape].
    """
    if stream and forced:
        raise InternalError("teacher forcing needs samples side by side")
    samples, steps = check_stimulus(graph, stimulus)
    extent = shapes(graph)
    batch, late = (1 if stream else samples), latency(graph)
    machine_steps = (samples if stream else 1) * steps + late
    deepest = max((edge.delay for edge in graph.edges), default=0)
    sent: list[dict[str, Array]] = []  # the values of the last steps, newest last
    states = {name: arithmetic.rest(name, batch) for name in graph.names(*STATEFUL)}
    record = _Recorder(graph, extent, samples, steps, stream)
    for m in range(machine_steps):
        now: dict[str, Array] = {}
        for name in graph.order:
            op = graph.nodes[name]
            if isinstance(op, Input):
                now[name] = _given(stimulus[name], m, steps, stream).astype(arithmetic.dtype)
                continue
            arriving: Array | None = None
            for edge in graph.into(name):
                value = now if edge.delay == 0 else sent[-edge.delay] if edge.delay <= len(sent) else None
                if value is not None:
                    arriving = value[edge.source] if arriving is None else arriving + value[edge.source]
            if not isinstance(op, Stateful):
                if arriving is None:
                    arriving = np.zeros((batch, *extent[graph.into(name)[0].source]), dtype=arithmetic.dtype)
                now[name] = arriving if isinstance(op, Output) else arithmetic.linear(name, arriving)
                continue
            x: Array = np.zeros((batch, *_taken(op)), dtype=arithmetic.dtype) if arriving is None else arriving
            begin = phase_of(graph, name)
            if (m - begin) % steps == 0:
                states[name] = arithmetic.rest(name, batch)
            if isinstance(op, Readout) or (isinstance(op, SigmaDelta) and op.kind == "sigma"):
                total = states[name].w = arithmetic.integrate(name, x, states[name])
                now[name] = arithmetic.tell(name, total)
                record.write(name, m, None, total)
                continue
            fired = arithmetic.fire(name, x, states[name])
            spikes = _forced(forced, name, m - begin, fired.s)
            arithmetic.settle(name, fired, spikes, states[name])
            now[name] = arithmetic.emit(name, fired, spikes)
            record.write(name, m, fired.s, fired.v)
        if watch is not None:
            watch(m, now)
        sent.append(now)
        del sent[: max(0, len(sent) - deepest)]
    return record.trace({"steps": steps, "latency": late, "potential": "before reset"})


def _taken(op: Stateful) -> tuple[int, ...]:
    """The shape of what a population receives."""
    return (2, *op.shape) if isinstance(op, Resonator) else op.shape


def check_stimulus(graph: Graph, stimulus: Mapping[str, Array]) -> tuple[int, int]:
    """Samples and steps of a stimulus. Raises ``GraphError`` where it does not fit the graph's inputs."""
    inputs = {name: op for name, op in graph.nodes.items() if isinstance(op, Input)}
    if set(stimulus) != set(inputs):
        raise GraphError(f"stimulus for {sorted(stimulus)}, inputs are {sorted(inputs)}", where="stimulus")
    found: set[tuple[int, int]] = set()
    for name, op in inputs.items():
        array = stimulus[name]
        if array.ndim < 2 or array.shape[2:] != op.shape:
            raise GraphError(
                f"stimulus of shape {list(array.shape)}, needs [samples, steps, {', '.join(map(str, op.shape))}]",
                where=name,
            )
        found.add((array.shape[0], array.shape[1]))
    if len(found) != 1:
        raise GraphError(f"inputs differ in samples and steps: {sorted(found)}", where="stimulus")
    samples, steps = found.pop()
    if samples < 1 or steps < 1:
        raise GraphError("the stimulus is empty", where="stimulus")
    return samples, steps


def _given(array: Array, m: int, steps: int, stream: bool) -> Array:
    """What an input gives at machine step ``m``; zero after the end."""
    if stream:
        sample, step = divmod(m, steps)
        return array[sample : sample + 1, step] if sample < len(array) else np.zeros_like(array[:1, 0])
    return array[:, m] if m < steps else np.zeros_like(array[:, 0])


def _forced(forced: Mapping[str, Array] | None, name: str, step: int, own: Array) -> Array:
    if forced is None or name not in forced or not 0 <= step < forced[name].shape[1]:
        return own
    return np.asarray(forced[name][:, step], dtype=bool)


class _Recorder:
    """Puts what happens at a machine step where it belongs: sample, logical step."""

    def __init__(
        self, graph: Graph, extent: Mapping[str, tuple[int, ...]], samples: int, steps: int, stream: bool
    ) -> None:
        self.samples, self.steps, self.stream = samples, steps, stream
        self.phases = {name: phase_of(graph, name) for name in graph.nodes}
        self.extent = extent
        self.spikes: dict[str, Array] = {}
        self.potentials: dict[str, Array] = {}

    def write(self, name: str, m: int, s: Array | None, v: Array) -> None:
        sample, step = divmod(m - self.phases[name], self.steps)
        if not 0 <= sample < (self.samples if self.stream else 1):
            return
        where: tuple[Any, ...] = (sample, step) if self.stream else (slice(None), step)
        whole = (self.samples, self.steps, *self.extent[name])
        if s is not None:
            self.spikes.setdefault(name, np.zeros(whole, dtype=bool))[where] = s[0] if self.stream else s
        self.potentials.setdefault(name, np.zeros(whole, dtype=v.dtype))[where] = v[0] if self.stream else v

    def trace(self, meta: Mapping[str, Any]) -> Trace:
        return Trace(self.spikes, self.potentials, meta)
