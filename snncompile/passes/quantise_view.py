"""What the search for a unit looks at: some samples and some places of a population, or all of them.

A view lays the synapses into its neurons out as matrix products, once for all candidates. A population of maps
[channels, *size] is seen place by place: arrays are [samples, steps, places, channels], and a population of features
has one place. Numbers of the machine are whole and every sum stays below what the type counts to, so they are exact
in any order.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from typing import Any

import numpy as np

from snncompile.fixed import FixedPoint, Reals
from snncompile.ir.graph import Graph
from snncompile.ir.ops import By, Conv, Dense, Neuron, Param, Readout, Scale, Shape, To, real
from snncompile.ir.shapes import shape_of
from snncompile.passes.quantise_integers import Candidate, Incoming, integer_population
from snncompile.run.integer import IntegerGraph
from snncompile.run.linear import product, spread_out, windows
from snncompile.run.trace import Array
from snncompile.target import Target

WORK = 2e10  # products that the candidates of one population may take, all together
CANDIDATES = 32  # about as many units are tried for one population
POTENTIALS = 1 << 19  # steps of neurons that the search looks at
NUMBERS = 1 << 24  # what a view may hold of its sources
PLACES = 16  # of a map at least, before fewer samples are looked at


@dataclass(frozen=True, eq=False)
class Seen:
    """A population on calibration data: what arrives, and the spikes of the unquantised network (None: a read-out)."""

    op: Neuron | Readout
    incoming: list[Incoming]
    spikes: Array | None
    samples: int
    steps: int

    @property
    def sites(self) -> int:
        """Places of the population's map."""
        return prod(self.op.shape[1:])

    def look(self, samples: Array | None = None, places: Array | None = None) -> View:
        """Some samples and places; None: all."""
        return View(
            self.op,
            self.incoming,
            self.spikes,
            np.arange(self.samples) if samples is None else samples,
            np.arange(self.sites) if places is None else places,
        )

    def some(self) -> View | None:
        """As much as a search can afford, spread over samples and places; None where that is everything."""
        affordable = int(min(WORK / CANDIDATES / self._work, POTENTIALS / self._potentials, NUMBERS / self._numbers))
        if affordable >= self.samples * self.sites:
            return None
        least = self.sites if not self._divisible else min(self.sites, PLACES)
        samples = int(np.clip(affordable // least, 1, self.samples))
        places = self.sites if not self._divisible else int(np.clip(affordable // samples, 1, self.sites))
        if samples * places == self.samples * self.sites:
            return None
        chosen = np.unique(np.linspace(0, self.samples - 1, samples).astype(np.int64))
        return self.look(chosen, np.sort(np.random.default_rng(1).permutation(self.sites)[:places]))

    def everything(self) -> Iterator[View]:
        """All samples and places, some at a time."""
        together = int(np.clip(NUMBERS // (self._numbers * self.sites), 1, self.samples))
        places = self.sites if not self._divisible else int(np.clip(NUMBERS // self._numbers, 1, self.sites))
        for first in range(0, self.samples, together):
            for place in range(0, self.sites, places):
                yield self.look(
                    np.arange(first, min(first + together, self.samples)),
                    np.arange(place, min(place + places, self.sites)),
                )

    @cached_property
    def _divisible(self) -> bool:
        """Whether some places can be computed without the others: no convolution is seen as another shape."""
        return all(
            not isinstance(item.synapse, Conv) or _gives(item) == self.op.shape for item in self.incoming
        ) and bool(self.op.shape[1:])

    @property
    def _fan_in(self) -> int:
        return sum(1 if isinstance(i.synapse, Scale) else prod(i.real_weight.shape[1:]) for i in self.incoming) + 1

    @property
    def _potentials(self) -> int:
        """Steps of neurons at one place of one sample; likewise products, and numbers of the sources."""
        return self.op.shape[0] * self.steps

    @property
    def _work(self) -> int:
        return self._fan_in * self._potentials

    @property
    def _numbers(self) -> int:
        return self._fan_in * self.steps


def _gives(item: Incoming) -> Shape:
    """The shape of what a synapse op gives."""
    return shape_of(item.names[0], item.synapse, item.values.shape[2:])


class View:
    """``samples`` and ``places`` (flat, of the map) of a population."""

    def __init__(
        self, op: Neuron | Readout, incoming: list[Incoming], spikes: Array | None, samples: Array, places: Array
    ) -> None:
        self.op, self.incoming, self.places, self._samples = op, incoming, places, samples
        self.all_places = len(places) == prod(op.shape[1:])
        self.sent = [self._rows(item, item.coded, _holds(item)) for item in incoming]
        arriving = [self._wanted(item, sent) for item, sent in zip(incoming, self.sent, strict=True)]
        self.wanted: Reals = np.asarray(sum(arriving), dtype=np.float64)
        self.fired = None if spikes is None else self._of_population(spikes[samples])

    def currents(self, weights: list[Reals]) -> Reals:
        """What arrives [samples, steps, places, channels] through whole ``weights``, one array for each synapse op."""
        total: Reals | float = 0.0
        for item, sent, weight in zip(self.incoming, self.sent, weights, strict=True):
            axes = tuple(range(1, weight.ndim))
            worst = float(np.abs(weight).sum(axis=axes).max(initial=0.0)) * item.most
            exact = np.dtype(np.float32 if worst < 2**24 else np.float64)
            total = total + self._through(item, sent.astype(exact, copy=False), weight.astype(exact)).astype(np.float64)
        return np.asarray(total)

    def squares(self, error: Reals) -> float:
        """The sum of squares of a current's error as it adds up in the potential, between the resets that were
        recorded.
        """
        op = self.op
        alpha = 1.0 if isinstance(op, Readout) else float(np.max(real(op.alpha)))
        beta = 1.0 - op.decay if isinstance(op, Readout) else float(np.max(real(op.beta)))
        current = held = np.zeros_like(error[:, 0])
        total = 0.0
        for step in range(error.shape[1]):
            current = (1.0 - alpha) * current + error[:, step] if alpha != 1.0 else error[:, step]
            held = (1.0 - beta) * held + current
            total += float(np.vdot(held, held))
            if self.fired is not None and isinstance(op, Neuron) and isinstance(op.reset, To):  # else the error stays
                held = held * ~self.fired[:, step]
        return total

    def wrong(self, name: str, currents: Reals, candidate: Candidate, target: Target) -> int:
        """How many spikes are others in the machine's integers, each neuron reset by the recorded ones."""
        if self.fired is None:
            return 0
        op = integer_population(name, self.op, candidate, target)
        assert isinstance(op, Neuron)
        reset = op.reset.amount if isinstance(op.reset, By) else op.reset.value
        here = replace(
            op,
            shape=self.fired.shape[2:],
            bias=self.of_parameter(op.bias),
            initial=self.of_parameter(op.initial),
            reset=(By if isinstance(op.reset, By) else To)(self.of_parameter(reset)),
        )
        machine = IntegerGraph(Graph({name: here}, ()), target)
        state = machine.rest(name, len(currents))
        found = 0
        for step in range(currents.shape[1]):
            fired = machine.fire(name, currents[:, step].astype(np.int64), state)
            found += int(np.count_nonzero(fired.s != self.fired[:, step]))
            machine.settle(name, fired, self.fired[:, step], state)
        return found

    def of_parameter(self, value: Param) -> Param:
        """A parameter of the population, for the neurons that are seen: [places, channels], or a number as it is."""
        if isinstance(value, FixedPoint):
            return FixedPoint(self.of_array(value.mantissa), value.exponent)
        return self.of_array(value)

    def of_array(self, value: Array) -> Array:
        """What broadcasts against the population, for the neurons that are seen."""
        if value.ndim == 0:
            return value
        shape = self.op.shape
        return np.asarray(np.broadcast_to(value, shape).reshape(shape[0], -1)[:, self.places].T)

    # How sources are laid out

    def _wanted(self, item: Incoming, sent: Array) -> Reals:
        """What arrives through the unquantised weights."""
        weight = item.real_weight
        if item.values is not item.coded:
            return self._through(item, self._rows(item, item.values, np.dtype(np.float64)), weight)
        return self._through(item, sent, weight)

    def _rows(self, item: Incoming, values: Array, dtype: np.dtype[np.floating[Any]]) -> Array:
        """What a source sends, delayed, as the rows that weights meet: [groups, rows, fan-in], of one-to-one synapses
        [samples, steps, places, channels].
        """
        values = values[self._samples]
        if item.delay:
            late = min(item.delay, values.shape[1])
            values = np.concatenate([np.zeros_like(values[:, :late]), values[:, : values.shape[1] - late]], axis=1)
        count = len(values) * values.shape[1]
        match item.synapse:
            case Dense():
                return values.reshape(1, count, -1).astype(dtype)
            case Scale():
                return self._of_population(values.reshape(*values.shape[:2], *self.op.shape)).astype(dtype)
            case Conv() as op:
                flat = spread_out(values.reshape(count, *values.shape[2:]), op.spread)
                kernel = op.weight.shape[2:]
                seen = windows(flat, kernel, op.stride, op.padding, op.dilation)  # [n, in, *place, *kernel]
                size = seen.shape[2 : 2 + len(kernel)]
                places = self.places if _gives(item) == self.op.shape else np.arange(prod(size))
                at: tuple[Any, ...] = np.unravel_index(places, size)
                chosen = seen[(slice(None), slice(None), *at)]  # [n, in, places, *kernel]
                grouped = chosen.reshape(count, op.groups, -1, len(places), prod(kernel))
                rows = np.moveaxis(grouped, (1, 3), (0, 2)).astype(dtype)  # [groups, n, places, in, kernel]
                return rows.reshape(op.groups, count * len(places), -1)

    def _through(self, item: Incoming, sent: Array, weight: Array) -> Array:
        """Rows through weights: [samples, steps, places, channels]."""
        steps = item.values.shape[1]
        match item.synapse:
            case Scale():
                return np.asarray(sent * self.of_array(weight))
            case Dense():
                if self.op.shape[1:]:
                    rows = np.arange(len(weight)).reshape(self.op.shape[0], -1)[:, self.places].T
                    weight = weight[rows.ravel()]
                return _product(sent[0], weight).reshape(-1, steps, len(self.places), self.op.shape[0])
            case Conv() as op:
                each = weight.reshape(op.groups, len(weight) // op.groups, -1)
                found = [_product(rows, own) for rows, own in zip(sent, each, strict=True)]
                flat = found[0] if len(found) == 1 else np.concatenate(found, axis=1)
                if _gives(item) == self.op.shape:
                    return flat.reshape(-1, steps, len(self.places), len(weight))
                by_place = flat.reshape(len(self._samples), steps, -1, len(weight))
                whole = np.moveaxis(by_place, 2, 3).reshape(len(self._samples), steps, *self.op.shape)
                return self._of_population(whole)

    def _of_population(self, values: Array) -> Array:
        """[samples, steps, *shape] as [samples, steps, places, channels]."""
        flat = values.reshape(*values.shape[:2], self.op.shape[0], -1)
        return np.ascontiguousarray(np.moveaxis(flat if self.all_places else flat[..., self.places], 2, 3))


def _holds(item: Incoming) -> np.dtype[np.floating[Any]]:
    """The narrowest type that holds what a source sends."""
    return np.dtype(np.float32 if item.most < 2**24 else np.float64)


def _product(rows: Array, weight: Array) -> Array:
    """``rows @ weight.T`` in the type of the weights; rows that are narrower are widened some at a time."""
    if rows.dtype == weight.dtype:
        return product(rows, weight.T)
    step = max(1, NUMBERS // 4 // max(1, rows.shape[1]))
    parts = [product(rows[first : first + step].astype(weight.dtype), weight.T) for first in range(0, len(rows), step)]
    return np.concatenate(parts) if parts else np.zeros((0, len(weight)), weight.dtype)
