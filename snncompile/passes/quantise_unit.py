"""The search for one population's unit: candidates, the error each makes in the potential, the widths it must keep."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil, log2

import numpy as np

from snncompile.errors import NotRepresentable
from snncompile.fixed import FixedPoint, Integers, Reals, round_half_away
from snncompile.ir.graph import Graph
from snncompile.ir.ops import By, Conv, Dense, Neuron, Param, Readout, Scale, Shape, Synapse, To, real
from snncompile.run import linear
from snncompile.run.reference import apply_linear
from snncompile.run.trace import Array
from snncompile.target import Target

OCTAVE = (
    6  # units tried for each doubling, from four times "nothing clipped" (or what wide sums need) to an eighth of it
)
CANDIDATES = 7 * OCTAVE + 1  # the most for one population: a read-out, which tries sixteen times
WORK = (
    6e10  # multiplications spent on one population's search; where it would take more, fewer samples and rows are used
)
ON_GRID = 1e-6  # how far from a whole number of units a value may lie that is taken for one, in units
PROOF_COSTS = 0.05  # the error of a read-out, in deviations of its sum, up to which its range must be proven
READ_OUT_ROOM = 2.0  # the range of a read-out exceeds what calibration saw by this factor, where it is not proven
ROOM = 1.25  # the potential's range exceeds what calibration saw by this factor


@dataclass(frozen=True)
class Incoming:
    """One synapse op into a population: what its source sends on calibration data, in reals and as the machine gets
    it.
    """

    name: str
    synapse: Synapse
    unit: float  # what 1 of the source's integers is worth
    most: int  # the largest magnitude of those integers
    signed: bool  # whether they may be negative
    values: Array  # [samples, steps, *shape]
    coded: Array  # the same as integers (float64)
    delay: int

    @property
    def real_weight(self) -> Reals:
        return real(self.synapse.factor if isinstance(self.synapse, Scale) else self.synapse.weight)


@dataclass(frozen=True)
class Candidate:
    """A unit with what follows from it, and its error in the potential (root mean square, in thresholds)."""

    unit: float
    threshold: int
    bias: FixedPoint
    error: float


def choose_unit(
    name: str,
    op: Neuron | Readout,
    incoming: list[Incoming],
    target: Target,
    potential: Array,
    spikes: Array | None,
    steps: int,
) -> Candidate:
    """The admissible unit with the least error. Raises ``NotRepresentable`` where none is admissible.

    A read-out, whose sum no reset takes back, keeps to units for which no input at all can leave the machine's range,
    unless that costs more than ``PROOF_COSTS`` of error, and twice that of a unit for which calibration stays within
    half of the range: then the range is not proven, and said so.
    """
    given = name, op, incoming, target, potential, spikes, steps
    best, reason = _best(*given, proven=True)
    if isinstance(op, Readout) and (best is None or best.error > PROOF_COSTS):
        other, reason = _best(*given, proven=False)
        if other is not None and (best is None or other.error < best.error / 2):
            best = other
    if best is None:
        raise NotRepresentable(
            f"no scale keeps it inside the machine's widths: {reason}", where=f"{name} ({type(op).__name__})"
        )
    return best


def _best(
    name: str,
    op: Neuron | Readout,
    incoming: list[Incoming],
    target: Target,
    potential: Array,
    spikes: Array | None,
    steps: int,
    *,
    proven: bool,
) -> tuple[Candidate | None, str]:
    """The unit with the least error among those that are admissible; why the last one refused is not."""
    part, rows = _samples(incoming, potential)
    theta = float(np.max(np.abs(real(op.threshold)))) if isinstance(op, Neuron) else 0.0
    norm = theta or float(np.std(potential[:part])) or 1.0
    shape = (op.shape[0], rows[1] - rows[0], *op.shape[2:]) if rows else op.shape
    seen = [_banded(item, rows, op.shape) if rows else item for item in incoming]
    fired = None if spikes is None else _rows_of(spikes[:part], rows)
    wanted = [_currents(item, item.real_weight, item.values[:part], shape) for item in seen]
    best: Candidate | None = None
    reason = ""
    own = _own_units(op, incoming, target, theta)
    for unit in [*own, *_units(op, incoming, target, theta)]:
        weights = [integer_weights(item, unit, target) for item in incoming]
        bias = fixed_bias(real(op.bias) / unit, target)
        broken = _outside(op, incoming, weights, bias, unit, target, potential, steps, proven=proven)
        if broken:
            reason = broken
            continue
        error = np.zeros((1, 1, *shape))
        for item, weight, exact in zip(seen, weights, wanted, strict=True):
            own_rows = weight if weight.shape == item.real_weight.shape else integer_weights(item, unit, target)
            currents = _currents(item, own_rows.astype(np.float64), item.coded[:part], shape)
            error = error + (currents * unit - exact)
        better = bias if rows else _corrected(op, bias, error, unit, target)
        if better is not bias and not _outside(
            op, incoming, weights, better, unit, target, potential, steps, proven=proven
        ):
            bias = better
        error = error + _rows_of(np.broadcast_to(bias.real * unit - real(op.bias), op.shape)[None, None], rows)
        rms = _in_potential(op, np.broadcast_to(error, (part, steps, *shape)), fired) / norm
        if best is None or rms < best.error:
            whole = unit in own and rms == 0.0 and not (bias.mantissa % 2**-bias.exponent).any() and _kept(op, unit)
            best = Candidate(unit, _threshold(op, theta, unit, whole, target), bias, rms)
    return best, reason


def _corrected(op: Neuron | Readout, bias: FixedPoint, error: Array, unit: float, target: Target) -> FixedPoint:
    """The bias less the mean error of the current on calibration data, a number a channel: ``b - E[(W' - W) x]``.

    Where there is a synaptic current, errors build up in it and biases do not: no correction. A population without
    biases keeps none, so that nothing moves in it while nothing arrives. Source: Nagel et al., "Data-Free Quantization
    Through Weight Equalization and Bias Correction", ICCV 2019, section 4.2, with calibration data.
    """
    built_up = isinstance(op, Neuron) and bool(np.any(real(op.alpha) != 1.0))
    if built_up or not np.any(real(op.bias)) or not error.any():
        return bias
    mean = error.mean(axis=(0, 1))
    if mean.ndim > 1:
        mean = mean.reshape(len(mean), -1).mean(axis=1).reshape(-1, *(1,) * (mean.ndim - 1))
    return fixed_bias((real(op.bias) - mean) / unit, target)


def integer_weights(item: Incoming, unit: float, target: Target) -> Integers:
    """``step * round(W q / (unit step))``, clipped to the sheet's range."""
    sheet = target.weight
    scaled = round_half_away(item.real_weight * (item.unit / (unit * sheet.step))) * sheet.step
    return np.clip(scaled, sheet.least, sheet.most)


def integer_decays(op: Neuron, target: Target) -> tuple[int, int]:
    """``alpha`` and ``beta`` in units of the sheet's decay."""
    alpha, beta = (round_half_away(np.max(real(value)) * 2**target.decay.bits) for value in (op.alpha, op.beta))
    return int(alpha), int(beta)


def integer_potential(value: Param, unit: float, target: Target) -> FixedPoint:
    """A potential (a reset, a start) on the grid of the machine's potentials. Raises ``NotRepresentable`` beyond it."""
    fraction = target.potential.fraction_bits
    mantissa = round_half_away(real(value) / unit * 2.0**fraction)
    if np.abs(mantissa).max() >= 2 ** (target.potential.bits - 1):
        raise NotRepresentable(
            f"a potential of {np.abs(mantissa).max() / 2**fraction:.0f} is outside the machine's range",
            where="quantise",
            why=target.cite("potential.bits"),
        )
    if not (mantissa % 2**fraction).any():
        return FixedPoint(mantissa >> fraction)
    return FixedPoint(mantissa, -fraction)


def fixed_bias(bias: Reals, target: Target) -> FixedPoint:
    """A bias (in weight units) as mantissa and the smallest exponent that holds it, both as the sheet has them."""
    grid = bias * 2.0**target.potential.fraction_bits
    largest = float(np.abs(grid).max(initial=0.0))
    exponent = 0
    while exponent < target.bias.exponent_most and largest / 2**exponent > target.bias.mantissa_most:
        exponent += 1
    mantissa = round_half_away(grid / 2**exponent)
    return FixedPoint(mantissa, exponent - target.potential.fraction_bits)


def worst_sum(item: Incoming, weight: Integers) -> float:
    """The largest magnitude that one neuron can receive through a synapse op in one step, in weight units."""
    positive, negative = np.maximum(weight, 0), np.maximum(-weight, 0)
    match item.synapse:
        case Scale():
            one_way = both = float(np.abs(weight).max(initial=0))
        case _:
            axes = tuple(range(1, weight.ndim))
            one_way = float(np.maximum(positive.sum(axis=axes), negative.sum(axis=axes)).max(initial=0))
            both = float((positive + negative).sum(axis=axes).max(initial=0))
    return (both if item.signed else one_way) * item.most


Rows = tuple[int, int]


def _samples(incoming: list[Incoming], potential: Array) -> tuple[int, Rows | None]:
    """How many calibration samples the search can afford; and where it cannot afford one, which rows of the map."""
    shape = potential.shape[2:]
    neurons = float(np.prod(shape))
    work = 1.0
    for item in incoming:
        fan_in = 1.0 if isinstance(item.synapse, Scale) else float(np.prod(item.real_weight.shape[1:]))
        work += fan_in * neurons * potential.shape[1]
    affordable = WORK / (work * CANDIDATES)
    if affordable >= 1 or len(shape) < 2:
        return int(np.clip(affordable, 1, len(potential))), None
    height = max(1, int(affordable * shape[1]))
    first = (shape[1] - height) // 2
    return 1, (first, first + height)


def _rows_of(values: Array, rows: Rows | None) -> Array:
    """The rows of maps [samples, steps, channels, rows, ...]."""
    return values if rows is None else values[:, :, :, rows[0] : rows[1]]


def _banded(item: Incoming, rows: Rows, shape: Shape) -> Incoming:
    """A synapse op that delivers only some rows of its population (of ``shape``), and what it reads for them."""
    first, last = rows
    match item.synapse:
        case Conv() as op:
            low = first * op.stride[0] - op.padding[0]
            high = (last - 1) * op.stride[0] - op.padding[0] + op.dilation[0] * (op.weight.shape[2] - 1) + 1
            conv = replace(op, padding=(0, *op.padding[1:]), spread=())
            values, coded = (_with_zeros(_spread(one, op), low, high) for one in (item.values, item.coded))
            return replace(item, synapse=conv, values=values, coded=coded)
        case Dense():
            chosen = np.arange(np.prod(shape)).reshape(shape)[:, first:last].reshape(-1)
            return replace(item, synapse=Dense(item.real_weight[chosen]))
        case Scale():
            factor = Scale(np.broadcast_to(item.real_weight, shape)[:, first:last])
            values, coded = (
                one.reshape(*one.shape[:2], *shape)[:, :, :, first:last] for one in (item.values, item.coded)
            )
            return replace(item, synapse=factor, values=values, coded=coded)


def _spread(values: Array, op: Conv) -> Array:
    """What a convolution sees of maps [samples, steps, ...], with the zeros that it puts between."""
    flat = linear.spread_out(values.reshape(-1, *values.shape[2:]), op.spread)
    return flat.reshape(*values.shape[:2], *flat.shape[1:])


def _with_zeros(values: Array, low: int, high: int) -> Array:
    """Rows ``low`` to ``high`` of maps, zeros where they lie outside."""
    size = values.shape[3]
    inside = values[:, :, :, max(0, low) : min(size, high)]
    edge = [(0, 0)] * values.ndim
    edge[3] = (max(0, -low), max(0, high - size))
    return np.pad(inside, edge)


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


def _threshold(op: Neuron | Readout, theta: float, unit: float, whole: bool, target: Target) -> int:
    """The threshold in units. ``whole``: currents and biases are whole numbers of units.

    Where the potential is one as well, ``v > theta`` is ``v > floor(theta)``: a threshold just below a whole number,
    which is what ``>=`` became, then keeps its ties. Elsewhere the nearest number errs least.
    """
    if isinstance(op, Readout):
        return target.threshold.most
    nearest = int(round_half_away(theta / unit))
    kept = whole and np.all(real(op.alpha) == 1.0) and np.all(real(op.beta) == 0.0)
    return nearest - 1 if kept and nearest * unit > theta and nearest > target.threshold.least else nearest


def _outside(
    op: Neuron | Readout,
    incoming: list[Incoming],
    weights: list[Integers],
    bias: FixedPoint,
    unit: float,
    target: Target,
    potential: Array,
    steps: int,
    *,
    proven: bool,
) -> str:
    """Which of the machine's widths a unit breaks; empty where none."""
    fraction = target.potential.fraction_bits
    arriving = sum(worst_sum(item, weight) for item, weight in zip(incoming, weights, strict=True))
    alpha = 1.0 if isinstance(op, Readout) else max(1, integer_decays(op, target)[0]) / 2**target.decay.bits
    if arriving > target.sum_most or arriving / alpha >= 2 ** (target.current.bits - 1 - fraction):
        return f"its inputs can add up to {arriving:.0f} ({target.cite('sum.most')})"
    mantissa = bias.mantissa
    if mantissa.max(initial=0) > target.bias.mantissa_most or mantissa.min(initial=0) < target.bias.mantissa_least:
        return f"its bias needs {int(np.abs(mantissa).max())} ({target.cite('bias.mantissa_most')})"
    room = 2 ** (target.potential.bits - 1 - fraction)
    reached = float(np.abs(potential).max(initial=0.0)) / unit
    if isinstance(op, Readout):
        lasting = min(float(steps), 1 / (1 - op.decay)) if op.decay < 1 else float(steps)
        total = lasting * (arriving + float(np.abs(bias.real).max(initial=0.0))) if proven else reached * READ_OUT_ROOM
        return (
            "" if total <= target.threshold.most else f"its sum can reach {total:.0f} ({target.cite('threshold.most')})"
        )
    return "" if reached * ROOM < room else f"its potential reaches {reached:.0f} ({target.cite('potential.bits')})"


def _currents(item: Incoming, weight: Reals, values: Array, shape: Shape) -> Array:
    """What a synapse op delivers to a population of ``shape`` for source values [samples, steps, ...], delay
    included.
    """
    flat = values.reshape(-1, *values.shape[2:])
    match item.synapse:
        case Dense():
            y = linear.dense(flat, weight)
        case Conv() as conv:
            y = linear.conv(flat, weight, conv.stride, conv.padding, conv.dilation, conv.groups, conv.spread)
        case Scale():
            y = apply_linear(Graph({"scale": Scale(weight)}, ()), "scale", flat)
    result = y.reshape(*values.shape[:2], *shape)
    late = min(item.delay, result.shape[1])
    return (
        np.concatenate([np.zeros_like(result[:, :late]), result[:, : result.shape[1] - late]], axis=1)
        if late
        else result
    )


def _in_potential(op: Neuron | Readout, error: Array, spikes: Array | None) -> float:
    """Root mean square of a current's error as it adds up in the potential, between the resets that were recorded."""
    alpha = 1.0 if isinstance(op, Readout) else real(op.alpha)
    beta = 1.0 - op.decay if isinstance(op, Readout) else real(op.beta)
    current = np.zeros_like(error[:, 0])
    held = np.zeros_like(error[:, 0])
    total = 0.0
    for step in range(error.shape[1]):
        current = (1.0 - alpha) * current + error[:, step]
        held = (1.0 - beta) * held + current
        total += float(np.mean(held**2))
        if spikes is not None and isinstance(op, Neuron) and isinstance(op.reset, To):  # else the error stays
            held = np.where(spikes[:, step], 0.0, held)
    return float(np.sqrt(total / error.shape[1]))
