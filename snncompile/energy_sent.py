"""What the sources of a run sent, checked against what they declare: the events that counting follows."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from itertools import product
from math import isclose, prod
from typing import Any, assert_never

import numpy as np
from numpy.typing import NDArray

from snncompile.energy_events import Events
from snncompile.errors import GraphError
from snncompile.fixed import Integers
from snncompile.ir.graph import Graph
from snncompile.ir.ops import Flatten, Input, Neuron, Pool, Scale, real
from snncompile.ir.signals import Analog, Count, Fixed, Signed, Spike, is_event
from snncompile.run import linear
from snncompile.run.trace import Trace

Array = NDArray[Any]


class Sent:
    """What every source of events sent: unit events [samples, steps, *shape] of inputs, neurons and maxima over them.

    ``stimulus``: input name -> [samples, steps, *shape]. Raises ``GraphError`` where an input carries what it does not
    declare, or the trace lacks a population.
    """

    def __init__(self, graph: Graph, stimulus: Mapping[str, Array], trace: Trace) -> None:
        self.graph = graph
        samples, steps = next(iter(stimulus.values())).shape[:2]
        self.samples, self.steps = int(samples), int(steps)
        self._stimulus = {name: _held(values) for name, values in stimulus.items()}
        self._known: dict[str, tuple[Array, float]] = {}
        self._events: dict[str, Events] = {}
        self._nonzero: dict[str, Events] = {}
        self._packed = trace.packed
        for name in graph.names(Input):
            op = graph.nodes[name]
            assert isinstance(op, Input)
            values = _audited(graph.label(name), op, self._stimulus[name])
            if values is not None:
                self._known[name] = values
        for name in graph.names(Neuron):
            op = graph.nodes[name]
            assert isinstance(op, Neuron)
            self._known[name] = _recorded(graph, name, trace, (self.samples, self.steps)), op.amplitude

    def sends_events(self, name: str) -> bool:
        """Whether a source sends events."""
        op = self.graph.nodes[name]
        if isinstance(op, Pool) and op.kind == "max" and name not in self._known and self._all_events(name):
            values, unit = self._arriving(name)
            self._known[name] = _largest(values, op), unit
        return name in self._known

    def events(self, name: str) -> Events | None:
        """The events of a source, packed; None where it sends something else."""
        if not self.sends_events(name):
            return None
        if name not in self._events:
            self._events[name] = Events(self._known[name][0], self._packed.get(name))
        return self._events[name]

    def nonzero(self, name: str) -> Events:
        """Where an input is not zero."""
        if name not in self._nonzero:
            self._nonzero[name] = Events(_truths(self._stimulus[name]))
        return self._nonzero[name]

    def changed(self, name: str) -> Integers:
        """Whether an input differs from the step before, as 0 or 1; the first step always does: [samples, steps]."""
        values = self._stimulus[name]
        found = np.ones((self.samples, self.steps), dtype=np.int64)
        if self.steps > 1 and values.strides[1] == 0:
            found[:, 1:] = 0
        else:
            flat = values.reshape(self.samples, self.steps, -1)
            found[:, 1:] = (flat[:, 1:] != flat[:, :-1]).any(axis=2)
        return found

    def present(self, name: str) -> Array:
        """Where events arrive at a node, one or many, of any worth and sign: bool [N, T, *shape].

        Nothing but events must arrive there.
        """
        parts = [self._late(self._present(edge.source), edge.delay) for edge in self.graph.into(name)]
        return np.asarray(np.logical_or.reduce(parts))

    def _present(self, name: str) -> Array:
        """Where a node sends events."""
        op = self.graph.nodes[name]
        if self.sends_events(name):
            return np.asarray(self._known[name][0] != 0)
        arriving = self.present(name)
        match op:
            case Flatten():
                return arriving.reshape(self.samples, self.steps, *(op.shape or (-1,)))
            case Pool():
                return _largest(arriving, op)
            case Scale():
                return np.asarray(arriving & (real(op.factor) != 0))
            case _:
                return arriving

    def digests(self) -> tuple[str, ...]:
        """SHA-256 of what every sample shows, the same in any batch: a step that is shown again is read once."""
        parts, sha256 = [self._shown(name) for name in sorted(self._stimulus)], hashlib.sha256
        whole = parts[0] if len(parts) == 1 else [b"".join(part) for part in zip(*parts, strict=True)]
        return tuple([sha256(part).hexdigest() for part in whole])

    def _shown(self, name: str) -> list[bytes]:
        """What every sample shows at an input; events are the same bytes whatever type they come in."""
        values, op = self._stimulus[name], self.graph.nodes[name]
        assert isinstance(op, Input)
        if isinstance(op.signal, Spike):
            events = self.events(name)
            assert events is not None
            rows, of = events.rows, "events"
        else:
            rows = np.ascontiguousarray(_once(values)).reshape(self.samples, -1, prod(op.shape))
            of = values.dtype.str
        head = f"{name} {of} {values.shape[1:]} {op.signal}".encode()
        octets, size = rows.tobytes(), rows.nbytes // self.samples
        places, one = range(0, len(octets), size), size // rows.shape[1]
        held = head + b" held"
        if rows.shape[1] == 1:
            return [held + octets[at : at + one] for at in places]
        once = (rows[:, 1] == rows[:, 0]).all(axis=1)  # two steps tell most samples apart
        once[once] = (rows[once] == rows[once, :1]).all(axis=(1, 2))
        return [
            held + octets[at : at + one] if same else head + octets[at : at + size]
            for at, same in zip(places, once.tolist(), strict=True)
        ]

    def _all_events(self, name: str) -> bool:
        """Whether nothing but events arrives at a node."""
        return all(
            self._all_events(edge.source)
            if isinstance(self.graph.nodes[edge.source], Flatten | Pool | Scale)
            else edge.source in self._known
            for edge in self.graph.into(name)
        )

    def _arriving(self, name: str) -> tuple[Array, float]:
        """The sum of what arrives, in unit events, and what one is worth: only maxima need to know."""
        parts = [(*self._value(edge.source), edge.delay) for edge in self.graph.into(name)]
        units = [unit for _, unit, _ in parts]
        if not all(isclose(unit, units[0], rel_tol=1e-12) for unit in units):
            raise GraphError(
                f"events worth {units} meet",
                where=self.graph.label(name),
                why="their sum is no number of events",
                remedy="give the populations that it reads one amplitude",
            )
        late = [self._late(values, delay) for values, _, delay in parts]
        if len(late) == 1:
            return late[0], units[0]
        return np.asarray(sum(values.astype(np.int64) for values in late)), units[0]

    def _late(self, values: Array, delay: int) -> Array:
        if not delay:
            return values
        late = np.zeros(values.shape, dtype=values.dtype)
        late[:, delay:] = values[:, : max(0, self.steps - delay)]
        return late

    def _value(self, name: str) -> tuple[Array, float]:
        """What a node on the way to a maximum sends, in events of one worth."""
        op = self.graph.nodes[name]
        if self.sends_events(name):
            return self._known[name]
        values, unit = self._arriving(name)
        match op:
            case Flatten():
                return values.reshape(self.samples, self.steps, *(op.shape or (-1,))), unit
            case Pool():
                planes = values.reshape(-1, *values.shape[2:]).astype(np.int64)
                total = linear.pool(planes, "sum", op.kernel, op.stride, op.padding)
                worth = unit / prod(op.kernel) if op.kind == "mean" else unit
                return total.reshape(self.samples, self.steps, *total.shape[1:]), worth
            case Scale() if np.unique(real(op.factor)).size == 1 and real(op.factor).flat[0] > 0:
                return values, unit * float(real(op.factor).flat[0])
            case _:
                raise GraphError(
                    "cannot be counted here",
                    where=self.graph.label(name),
                    why="only one positive factor for all keeps events events",
                )


def _held(values: Array) -> Array:
    """The stimulus, as one step shown again and again where all steps are the same: that is looked at once."""
    if values.shape[1] == 1 or values.strides[1] == 0:
        return values
    if (values[0, 1] == values[0, 0]).all() and (values[:, 1:] == values[:, :1]).all():
        return np.broadcast_to(values[:, :1], values.shape)
    return values


def _once(values: Array) -> Array:
    """A stimulus without the steps that are shown again."""
    return values[:, :1] if values.shape[1] > 1 and values.strides[1] == 0 else values


def _truths(values: Array) -> Array:
    """Where values are not zero, shown again where they are."""
    return np.broadcast_to(_once(values) != 0, values.shape)


def _largest(values: Array, op: Pool) -> Array:
    """The maximum of each window of ``values`` [samples, steps, channels, *size]; padding counts as zeros."""
    edge = [(0, 0)] * 3 + [(pad, pad) for pad in op.padding]
    padded = np.pad(values, edge) if any(op.padding) else values
    place = [
        (n + 2 * pad - k) // step + 1
        for n, pad, k, step in zip(values.shape[3:], op.padding, op.kernel, op.stride, strict=True)
    ]
    found: Array | None = None
    for tap in product(*map(range, op.kernel)):
        taken = [
            slice(first, first + (n - 1) * step + 1, step) for first, n, step in zip(tap, place, op.stride, strict=True)
        ]
        one = padded[(slice(None), slice(None), slice(None), *taken)]
        found = one.copy() if found is None else np.maximum(found, one, out=found)
    assert found is not None
    return found


def _audited(label: str, op: Input, values: Array) -> tuple[Array, float] | None:
    """An input's events, or None for numbers; ``GraphError`` where the values are not what the input declares."""
    signal, seen = op.signal, _once(values)
    match signal:
        case Analog():
            _finite(label, seen)
            return None
        case Spike(amplitude):
            unit, least, most = amplitude, 0, 1
        case Count(most, amplitude):
            unit, least = amplitude, 0
        case Signed():
            unit, least, most = 1.0, -1, 1
        case Fixed():
            unit, least, most = 1.0, -signal.most if signal.signed else 0, signal.most
        case _ as never:
            assert_never(never)
    # compared in the precision the values are given in: 0.1 as float32 is what it is, and no integer
    held = seen.dtype if seen.dtype.kind == "f" else np.dtype(np.float64)
    one = np.asarray(unit).astype(held).astype(seen.dtype)
    if isinstance(signal, Spike) and one == np.asarray(unit).astype(held):
        events = seen == one
        if np.count_nonzero(events) + np.count_nonzero(seen == 0) == seen.size:
            return np.broadcast_to(events, values.shape), unit
    _finite(label, seen)
    numbers = np.rint(np.asarray(seen, dtype=np.float64) / unit).astype(np.int64)
    wrong = ((numbers * unit).astype(held) != seen) | (numbers < least) | (numbers > most)
    if wrong.any():
        place = tuple(int(index) for index in np.argwhere(wrong)[0])
        raise GraphError(
            f"declares {signal} and carries {seen[place].item()!r} (sample {place[0]}, step {place[1]},"
            f" element {list(place[2:])})",
            where=label,
            why="the declaration decides between AC and MAC",
            remedy="declare what it carries, or mend the data",
        )
    return (np.broadcast_to(numbers, values.shape), unit) if is_event(signal) else None


def _finite(label: str, values: Array) -> None:
    """Raise ``GraphError`` where a value is infinite or no number."""
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise GraphError("carries values that are not finite", where=label)


def _recorded(graph: Graph, name: str, trace: Trace, run: tuple[int, int]) -> Array:
    op, label = graph.nodes[name], graph.label(name)
    assert isinstance(op, Neuron)
    if name not in trace.spikes:
        raise GraphError("the trace holds no spikes of it", where=label, remedy="record every population")
    spikes = trace.spikes[name]
    if spikes.shape != (*run, *op.shape):
        raise GraphError(
            f"the trace holds spikes of shape {list(spikes.shape)}, the stimulus asks for {[*run, *op.shape]}",
            where=label,
            remedy="count with the stimulus that was run",
        )
    if spikes.dtype != np.bool_:
        if not np.isin(spikes, (0, 1)).all():
            raise GraphError("the trace holds something other than 0 and 1", where=label)
        return spikes.astype(np.bool_)
    return spikes
