"""The search for one population's unit: candidates, what each gets wrong, the widths it must keep."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from math import ceil, log2, prod

import numpy as np

from snncompile.errors import NotRepresentable
from snncompile.fixed import FixedPoint, Reals, round_half_away
from snncompile.ir.ops import By, Dense, Neuron, Readout, Scale, real
from snncompile.passes.quantise_integers import (
    Candidate,
    Incoming,
    fixed_bias,
    integer_decays,
    integer_weights,
    worst_sum,
)
from snncompile.passes.quantise_view import Seen, View
from snncompile.passes.storage import INDEX_BITS, LIST_BITS, WEIGHT_FORMATS
from snncompile.run.trace import Array
from snncompile.target import Target

OCTAVE = (
    6  # units tried for each doubling, from four times "nothing clipped" (or what wide sums need) to an eighth of it
)
ON_GRID = 1e-6  # how far from a whole number of units a value may lie that is taken for one, in units
ROOM = 1.25  # the potential's range exceeds what calibration saw by this factor
ENOUGH = 0.01  # an error in the potential for which a read-out needs no more neurons
WORTH = 0.9  # what is left of the error where twice as many neurons are worth it
MOST_ADDENDS = 64
MOST_NUMBERS = 1 << 24  # of a matrix with a row for each neuron of a read-out


def choose_unit(name: str, seen: Seen, target: Target, potential: Array, *, addends: bool = False) -> Candidate:
    """The admissible unit of which the fewest spikes differ, and among those with the least error in the potential.

    Every candidate is tried on a view of the calibration data that the search can afford; the best by spikes and the
    best by the potential are then compared on all of them, so the choice never has more spikes wrong there than the
    potential's would. ``addends`` lets a read-out have several neurons a number. Raises ``NotRepresentable`` where no
    unit is admissible.
    """
    search = _Search(name, seen, target, float(np.abs(potential).max(initial=0.0)), _norm(seen.op, potential))
    search.fewest = fewest_addends(seen.incoming, target) if addends and isinstance(seen.op, Readout) else 1
    part = seen.some()
    view = seen.look() if part is None else part
    found = search.candidates(view)
    if isinstance(seen.op, Readout):
        found = _few_addends(found, MOST_ADDENDS if addends else 1)
    if not found:
        raise NotRepresentable(
            f"no scale keeps it inside the machine's widths: {search.reason}",
            where=f"{name} ({type(seen.op).__name__})",
        )
    by_spikes, by_potential = min(found, key=lambda one: one.lost), min(found, key=lambda one: one.error)
    if part is not None:
        by_spikes, by_potential = search.on_everything([by_spikes, by_potential])
    best = min((by_spikes, by_potential), key=lambda one: one.lost)
    return replace(best, otherwise=by_potential.wrong)


def _norm(op: Neuron | Readout, potential: Array) -> float:
    """What errors are counted in: the threshold; of a read-out, how far its sums are spread."""
    theta = float(np.max(np.abs(real(op.threshold)))) if isinstance(op, Neuron) else 0.0
    return theta or float(np.std(potential)) or 1.0


def _few_addends(found: list[Candidate], most: int) -> list[Candidate]:
    """The candidates of a read-out with as few neurons a number as it needs: twice as many only while the least error
    is not small, and falls.
    """
    best: list[Candidate] = []
    addends = 1
    while addends <= most:
        some = [one for one in found if one.addends <= addends]
        if some:
            least, before = (min((one.error for one in each), default=np.inf) for each in (some, best))
            if not best or least <= WORTH * before:
                best = some
            if least <= ENOUGH:
                break
        addends *= 2
    return best


class _Search:
    """One population's candidates. ``reached``: how far its potential goes on calibration data."""

    def __init__(self, name: str, seen: Seen, target: Target, reached: float, norm: float) -> None:
        self.name, self.seen, self.target, self.reached, self.norm = name, seen, target, reached, norm
        self.op, self.incoming = seen.op, seen.incoming
        self.theta = float(np.max(np.abs(real(self.op.threshold)))) if isinstance(self.op, Neuron) else 0.0
        self.lasting = lasting(self.op, seen.steps, target) if isinstance(self.op, Readout) else 0.0
        self.reason, self.fewest = "", 1

    def candidates(self, view: View) -> list[Candidate]:
        """Every admissible unit, with what it gets wrong on a view."""
        own = _own_units(self.op, self.incoming, self.target, self.theta)
        found: list[Candidate] = []
        for unit in [*own, *_units(self.op, self.incoming, self.target, self.theta)]:
            weights = [integer_weights(item, unit, self.target) for item in self.incoming]
            bias = fixed_bias(real(self.op.bias) / unit, self.target)
            addends = self._addends(weights, bias, unit)
            if not addends:
                continue
            currents = view.currents(weights)
            error = currents * unit - view.wanted
            better = self._corrected(bias, error, unit)
            if better is not bias and self._addends(weights, better, unit) == addends:
                bias = better
            squares = view.squares(error + self._off(view, bias, unit))
            rms = float(np.sqrt(squares / max(1, error.size))) / self.norm
            whole = (
                unit in own and rms == 0.0 and not (bias.mantissa % 2**-bias.exponent).any() and _kept(self.op, unit)
            )
            one = Candidate(unit, self._threshold(unit, whole), bias, rms, compared=_compared(view), addends=addends)
            found.append(replace(one, wrong=view.wrong(self.name, currents, one, self.target)))
            if found[-1].lost == (0, 0.0):
                break
        return found

    def on_everything(self, few: list[Candidate]) -> list[Candidate]:
        """The same candidates, with what they get wrong on all calibration data."""
        wrong, squares, compared, size = [0] * len(few), [0.0] * len(few), 0, 0
        every = [[integer_weights(item, one.unit, self.target) for item in self.incoming] for one in few]
        for view in self.seen.everything():
            compared += _compared(view)
            for index, (one, weights) in enumerate(zip(few, every, strict=True)):
                if index and one is few[0]:
                    wrong[index], squares[index] = wrong[0], squares[0]
                    continue
                currents = view.currents(weights)
                error = currents * one.unit - view.wanted + self._off(view, one.bias, one.unit)
                squares[index] += view.squares(error)
                wrong[index] += view.wrong(self.name, currents, one, self.target)
            size += error.size
        errors = [float(np.sqrt(total / max(1, size))) / self.norm for total in squares]
        return [
            replace(one, wrong=number, error=rms, compared=compared)
            for one, number, rms in zip(few, wrong, errors, strict=True)
        ]

    def _off(self, view: View, bias: FixedPoint, unit: float) -> Reals:
        """What a bias in integers adds over the unquantised one."""
        return view.of_array(bias.real * unit - real(self.op.bias))

    def _corrected(self, bias: FixedPoint, error: Reals, unit: float) -> FixedPoint:
        """The bias less the mean error of the current on calibration data, a number a channel: ``b - E[(W' - W) x]``.

        Where there is a synaptic current, errors build up in it and biases do not: no correction. A population without
        biases keeps none, so that nothing moves in it while nothing arrives. Source: Nagel et al., "Data-Free
        Quantization Through Weight Equalization and Bias Correction", ICCV 2019, section 4.2, with calibration data.
        """
        built_up = isinstance(self.op, Neuron) and bool(np.any(real(self.op.alpha) != 1.0))
        if built_up or not np.any(real(self.op.bias)) or not error.any():
            return bias
        mean = error.mean(axis=(0, 1, 2)).reshape(-1, *(1,) * (len(self.op.shape) - 1))
        return fixed_bias((real(self.op.bias) - mean) / unit, self.target)

    def _threshold(self, unit: float, whole: bool) -> int:
        """The threshold in units. ``whole``: currents and biases are whole numbers of units.

        Where the potential is one as well, ``v > theta`` is ``v > floor(theta)``: a threshold just below a whole
        number, which is what ``>=`` became, then keeps its ties. Elsewhere the nearest number errs least.
        """
        op, sheet = self.op, self.target.threshold
        if isinstance(op, Readout):
            return sheet.most
        nearest = int(round_half_away(self.theta / unit))
        kept = whole and np.all(real(op.alpha) == 1.0) and np.all(real(op.beta) == 0.0)
        return nearest - 1 if kept and nearest * unit > self.theta and nearest > sheet.least else nearest

    def _addends(self, weights: list[Reals], bias: FixedPoint, unit: float) -> int:
        """Neurons a number that keep the machine's widths, of all but read-outs 1; 0 where none do, and why."""
        op, target = self.op, self.target
        fraction = target.potential.fraction_bits
        arriving = sum(worst_sum(item, weight) for item, weight in zip(self.incoming, weights, strict=True))
        alpha = 1.0 if isinstance(op, Readout) else max(1, integer_decays(op, target)[0]) / 2**target.decay.bits
        mantissa, sheet = bias.mantissa, target.bias
        if mantissa.max(initial=0) > sheet.mantissa_most or mantissa.min(initial=0) < sheet.mantissa_least:
            needed = int(np.abs(mantissa).max())
            return self._refused(lambda: f"its bias needs {needed} ({target.cite('bias.mantissa_most')})")
        if isinstance(op, Readout):
            return self._sums_of(weights, float(np.abs(bias.real).max(initial=0.0)))
        if arriving > target.sum_most or arriving / alpha >= 2 ** (target.current.bits - 1 - fraction):
            return self._refused(lambda: f"its inputs can add up to {arriving:.0f} ({target.cite('sum.most')})")
        room, reached = 2 ** (target.potential.bits - 1 - fraction), self.reached / unit
        if reached * ROOM >= room:
            return self._refused(lambda: f"its potential reaches {reached:.0f} ({target.cite('potential.bits')})")
        return 1

    def _sums_of(self, weights: list[Reals], bias: float) -> int:
        """The fewest neurons a number, a power of two, that find room on a core, and of which no sum over a sample can
        leave the range.
        """
        target, most = self.target, most_addends(self.incoming)
        limit = min(target.sum_most, 2 ** (target.current.bits - 1 - target.potential.fraction_bits) - 1)
        limit = min(limit, target.threshold.most / self.lasting - bias)
        arriving = sum(worst_sum(item, weight) for item, weight in zip(self.incoming, weights, strict=True))
        if arriving <= limit and self.fewest == 1:
            return 1
        total = self.lasting * (arriving + bias)
        self._refused(lambda: f"its sum can reach {total:.0f} ({target.cite('threshold.most')})")
        if most == 1:
            return 0
        finest = [addend_sums(item, weight, most) for item, weight in zip(self.incoming, weights, strict=True)]
        addends = max(2, self.fewest)
        while addends <= most:  # runs of channels of a coarser cut are runs of a finer one
            coarser = (
                max(float(one.reshape(len(one), addends, -1).sum(axis=2).max()) for one in sums) for sums in finest
            )
            if sum(coarser) <= limit:
                return addends
            addends *= 2
        return 0

    def _refused(self, why: Callable[[], str]) -> int:
        self.reason = why()
        return 0


def lasting(op: Readout, steps: int, target: Target) -> float:
    """How many steps' worth of input a read-out can hold: ``sum of decay^age``, with the decay that the machine has."""
    kept = float(round_half_away(op.decay * 2.0**target.decay.bits)) / 2.0**target.decay.bits
    return min(float(steps), 1.0 / (1.0 - kept)) if kept < 1.0 else float(steps)


def most_addends(incoming: list[Incoming]) -> int:
    """How many neurons a number of a read-out may be the sum of, a power of two: each reads some channels of every
    source.
    """
    if not all(isinstance(item.synapse, Dense) for item in incoming):
        return 1
    channels = [item.values.shape[2] for item in incoming]
    room = [MOST_NUMBERS // item.real_weight.size for item in incoming]
    return int(2 ** (max(1, min([MOST_ADDENDS, *channels, *room])).bit_length() - 1))


def fewest_addends(incoming: list[Incoming], target: Target) -> int:
    """How many neurons a number of a read-out must be the sum of, a power of two, so that what one of them reads finds
    room on a core: a list of weights and an axon for each source, equal ones once (``storage.py``). As many as there
    may be where even that is too few: placement says so then.
    """
    most = most_addends(incoming)
    words = ceil((WEIGHT_FORMATS[-1] + INDEX_BITS + LIST_BITS) / target.core.word_bits)
    room = min(target.core.synaptic_words // words, target.core.axons_in)
    addends = 1
    while addends < most and max(sum(every) for every in zip(*_lists(incoming, addends), strict=True)) > room:
        addends *= 2
    return addends


def _lists(incoming: list[Incoming], addends: int) -> Iterator[list[int]]:
    """For every source, how many different columns of weights each addend reads; the columns where they are few."""
    for item in incoming:
        columns = item.real_weight.T
        own = addend_of(item, addends) if addends > 1 else np.zeros(len(columns), dtype=np.int64)
        parts = [columns[own == index] for index in range(addends)]
        yield [len({column.tobytes() for column in np.ascontiguousarray(part) if column.any()}) for part in parts]


def addend_of(item: Incoming, addends: int) -> Array:
    """Which of a read-out's addends reads each source neuron [in], in the order of the weights' columns: runs of
    whole channels, so that equal columns (a pool in the weights) stay together.
    """
    channels, *size = item.values.shape[2:]
    return np.repeat(np.arange(channels) * addends // channels, prod(size))


def addend_sums(item: Incoming, weight: Reals, addends: int) -> tuple[Reals, Reals]:
    """The most that each neuron of a read-out can receive in one step, [rows, addends]: upward and downward; the same
    twice where the source is signed.
    """
    first = np.searchsorted(addend_of(item, addends), np.arange(addends))
    up = np.add.reduceat(np.maximum(weight, 0.0), first, axis=1) * item.most
    down = np.add.reduceat(np.maximum(-weight, 0.0), first, axis=1) * item.most
    return (up + down, up + down) if item.signed else (up, down)


def worst_addend(item: Incoming, weight: Reals, addends: int) -> float:
    """``worst_sum`` of the neuron of a read-out that can receive most, where each number is a sum of ``addends``."""
    if addends == 1:
        return worst_sum(item, weight)
    return max(float(sums.max(initial=0.0)) for sums in addend_sums(item, weight, addends))


def _compared(view: View) -> int:
    return 0 if view.fired is None else int(view.fired.size)


def _units(op: Neuron | Readout, incoming: list[Incoming], target: Target, theta: float) -> list[float]:
    """Candidate units, largest first; the threshold is a whole number of each."""
    largest = max((float(np.abs(item.real_weight).max(initial=0.0)) * item.unit for item in incoming), default=0.0)
    coarse = largest / target.weight.most
    if coarse == 0.0:  # no weights at all: only the bias matters
        coarse = max(theta, float(np.abs(real(op.bias)).max(initial=0.0)), 1.0) / 4096
    worst = sum(worst_sum(item, integer_weights(item, coarse, target)) for item in incoming)
    too_far = max(0, ceil(log2(max(1.0, worst / target.sum_most))))  # octaves more until the widest sums fit
    coarsest = (4 if isinstance(op, Readout) else 2) + too_far
    grid = coarse * 2.0 ** (np.arange(coarsest * OCTAVE, -3 * OCTAVE - 1, -1) / OCTAVE)
    if not theta:
        return [float(unit) for unit in grid]
    steps = np.clip(round_half_away(theta / grid), max(1, target.threshold.least), target.threshold.most)
    return [theta / int(count) for count in np.unique(steps)]


def _own_units(op: Neuron | Readout, incoming: list[Incoming], target: Target, theta: float) -> list[float]:
    """The units of a network that was made of the machine's integers: the largest that weights, threshold and biases
    are whole numbers of, then the largest that weights and threshold are, where there are such.
    """
    found: list[float] = []
    bias = np.unique(real(op.bias))
    values = [replace(item, synapse=Scale(np.unique(item.real_weight))) for item in incoming]
    largest = max((float(np.abs(item.real_weight).max(initial=0.0)) * item.unit for item in incoming), default=0.0)
    for levels in range(1, -target.weight.least // target.weight.step + 1) if largest else ():
        unit = largest / (levels * target.weight.step)
        if abs(theta / unit - round(theta / unit)) > ON_GRID or theta / unit > target.threshold.most:
            continue
        off = [np.abs(integer_weights(item, unit, target) * unit - item.real_weight * item.unit) for item in values]
        if max(float(array.max(initial=0.0)) for array in off) > ON_GRID * unit:
            continue
        if np.abs(bias / unit - np.rint(bias / unit)).max() <= ON_GRID:
            return [unit, *found]
        found = found or [unit]
    return found


def _kept(op: Neuron | Readout, unit: float) -> bool:
    """Whether resets and the start leave the potential on whole numbers of units."""
    if isinstance(op, Readout):
        return True
    values = [real(op.initial), real(op.reset.amount if isinstance(op.reset, By) else op.reset.value)]
    return all(float(np.abs(value / unit - np.rint(value / unit)).max()) <= ON_GRID for value in values)
