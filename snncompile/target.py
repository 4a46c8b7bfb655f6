"""A machine as its sheet describes it.

What differs between two chips is a sheet in ``targets/``, never a class: the records here only give the sheet's keys a
type. Potentials, currents and thresholds are in weight units unless a field says otherwise.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Literal

from snncompile import sheet as sheets
from snncompile.sheet import Sheet

Overflow = Literal["wrap", "saturate"]
Rounding = Literal["toward-zero", "floor", "nearest-even"]


@dataclass(frozen=True)
class Weight:
    """Synaptic weights: the integers ``least, least + step, ..., most``."""

    least: int
    most: int
    step: int


@dataclass(frozen=True)
class Current:
    """The synaptic current u: its width in bits with sign, and what happens beyond it."""

    bits: int
    overflow: Overflow


@dataclass(frozen=True)
class Potential:
    """The potential v: width in bits with sign, overflow, and the bits below one weight unit (6: units of 1/64)."""

    bits: int
    overflow: Overflow
    fraction_bits: int


@dataclass(frozen=True)
class Decay:
    """Decays are ``mantissa / 2^bits``, mantissa in 0 .. 2^bits - 1; the product is rounded as said."""

    bits: int
    rounding: Rounding


@dataclass(frozen=True)
class Threshold:
    """Thresholds, in weight units."""

    least: int
    most: int


@dataclass(frozen=True)
class Bias:
    """Biases are ``mantissa * 2^exponent`` in units of the potential, exponent in 0 .. exponent_most."""

    mantissa_least: int
    mantissa_most: int
    exponent_most: int


@dataclass(frozen=True)
class NeuronRules:
    """What a neuron of the machine does: its tie rule, its reset, and whether parameters are shared by a population."""

    fires: Literal[">", ">="]
    reset: Literal["zero", "value"]
    per: Literal["population", "channel", "neuron"]
    soft_reset: bool
    initial_potential: bool


@dataclass(frozen=True)
class SpikeRules:
    """What a spike carries. ``input_bits``: width with sign of a graded input value; 1 means binary inputs only.

    ``message_bits``: width with sign of the integers that a population may send another; 0: it sends spikes only.
    """

    input_bits: int
    graded: bool
    message_bits: int = 0

    @property
    def most_message(self) -> int:
        """The largest magnitude that one population may send another; 0 where it sends spikes only."""
        return int(2 ** (self.message_bits - 1)) - 1 if self.message_bits else 0


@dataclass(frozen=True)
class Delay:
    """The largest programmable delay of a synapse, in steps beyond the synapse's own latency, by kind of connection."""

    dense: int
    one_to_one: int
    convolution: int


@dataclass(frozen=True)
class Core:
    """Capacities of one core."""

    neurons: int
    synaptic_words: int
    word_bits: int
    axons_in: int
    axons_out: int
    groups: int
    kernel_axons: Literal["layer", "position"] = "position"
    """What a core that holds a tile of a convolution spends an incoming axon on."""


@dataclass(frozen=True)
class Board:
    """A board of the sheet and how many chips it carries."""

    name: str
    chips: int


@dataclass(frozen=True)
class Energy:
    """Energy of one operation in pJ; None where no figure is published."""

    synaptic_operation: float | None
    neuron_active: float | None
    neuron_idle: float | None
    spike_in_tile: float | None
    hop_east_west: float | None
    hop_north_south: float | None


@dataclass(frozen=True)
class Target:
    """A machine. ``interpreter`` names who can execute its programs here."""

    name: str
    title: str
    summary: str
    interpreter: Literal["lava", "cpu", "onnx"]
    weight: Weight
    sum_most: int
    """Largest absolute sum of weight times spike that one neuron may receive in one step, in weight units."""
    current: Current
    potential: Potential
    decay: Decay
    threshold: Threshold
    bias: Bias
    neuron: NeuronRules
    spike: SpikeRules
    synapse_latency: int
    """Steps from a spike to its arrival at the next population."""
    delay: Delay
    core: Core
    chip_cores: int
    boards: tuple[Board, ...]
    """Smallest first; empty: a single chip."""
    energy: Energy
    sheet: Sheet = field(repr=False, compare=False)

    @classmethod
    def load(cls, name_or_path: str) -> Target:
        """Reads a machine by its name in the catalogue or from any file (``./mychip.toml``).

        Raises:
            SheetError: unknown name, missing or unknown key, wrong type, impossible range, figure without a source.
        """
        sheet = Sheet.load("targets", name_or_path)
        if sheet.has("cost_model"):
            raise sheet.error("cost_model", "is a cost model, not a machine", remedy=f"one of {', '.join(machines())}")
        sheet.known("", _TABLES)
        target = cls(
            **dataclasses.asdict(sheet.record("target", _Title)),
            weight=sheet.record("weight", Weight),
            sum_most=sheet.record("sum", _Sum).most,
            current=sheet.record("current", Current),
            potential=sheet.record("potential", Potential),
            decay=sheet.record("decay", Decay),
            threshold=sheet.record("threshold", Threshold),
            bias=sheet.record("bias", Bias),
            neuron=sheet.record("neuron", NeuronRules),
            spike=sheet.record("spike", SpikeRules),
            synapse_latency=sheet.record("synapse", _Synapse).latency,
            delay=sheet.record("delay", Delay),
            core=sheet.record("core", Core),
            chip_cores=sheet.record("chip", _Chip).cores,
            boards=_boards(sheet),
            energy=sheet.record("energy", Energy),
            sheet=sheet,
        )
        _check(target)
        return target

    def cite(self, key: str) -> str:
        """File, line and key of a figure: ``targets/loihi.toml:41, core.neurons``."""
        return self.sheet.cite(key)

    def on_board(self, name: str) -> Target:
        """The machine as one of its boards alone. Raises ``SheetError`` where the sheet has no such board."""
        known = [board.name for board in self.boards]
        if name not in known:
            raise self.sheet.error("boards", f"no board {name!r}", remedy=sheets.suggestion(name, known))
        return dataclasses.replace(self, boards=tuple(board for board in self.boards if board.name == name))

    @property
    def most_cores(self) -> int:
        """Cores of the largest board."""
        return self.chip_cores * max((board.chips for board in self.boards), default=1)


def machines() -> list[str]:
    """Names of the machines of the catalogue."""
    return [name for name in sheets.names("targets") if not Sheet.load("targets", name).has("cost_model")]


@dataclass(frozen=True)
class _Title:
    name: str
    title: str
    summary: str
    interpreter: Literal["lava", "cpu", "onnx"]


@dataclass(frozen=True)
class _Sum:
    most: int


@dataclass(frozen=True)
class _Synapse:
    latency: int


@dataclass(frozen=True)
class _Chip:
    cores: int


_TABLES = (
    *("target", "weight", "sum", "current", "potential", "decay", "threshold", "bias"),
    *("neuron", "spike", "synapse", "delay", "core", "chip", "boards", "energy"),
)

_POSITIVE = (
    *("weight.step", "sum.most", "current.bits", "potential.bits", "decay.bits", "spike.input_bits", "chip.cores"),
    *("core.neurons", "core.synaptic_words", "core.word_bits", "core.axons_in", "core.axons_out", "core.groups"),
)

_NOT_NEGATIVE = (
    *("potential.fraction_bits", "bias.exponent_most", "synapse.latency"),
    *("delay.dense", "delay.one_to_one", "delay.convolution"),
)


def _boards(sheet: Sheet) -> tuple[Board, ...]:
    """The boards of a sheet, smallest first; a sheet need not have any."""
    if not sheet.has("boards"):
        return ()
    found = [Board(name, sheet.integer(f"boards.{name}")) for name in sheet.table("boards")]
    for board in found:
        if board.chips < 1:
            raise sheet.error(f"boards.{board.name}", f"must be positive, is {board.chips}")
    return tuple(sorted(found, key=lambda board: board.chips))


def _check(target: Target) -> None:
    """Refuses figures that no machine can have."""
    sheet = target.sheet
    for key in _POSITIVE:
        if sheet.integer(key) <= 0:
            raise sheet.error(key, f"must be positive, is {sheet.integer(key)}")
    for key in _NOT_NEGATIVE:
        if sheet.integer(key) < 0:
            raise sheet.error(key, f"must not be negative, is {sheet.integer(key)}")
    if (bits := target.spike.message_bits) and not 2 <= bits <= 32:
        raise sheet.error("spike.message_bits", f"must be 0 or from 2 to 32, is {bits}")
    if bits and not target.spike.graded:
        raise sheet.error("spike.message_bits", "must be 0", why="spike.graded is false: there are no integers to send")
    for least, most in (("weight.least", "weight.most"), ("threshold.least", "threshold.most")):
        if sheet.integer(least) >= sheet.integer(most):
            raise sheet.error(most, f"must be above {least}", why=f"{sheet.integer(most)} <= {sheet.integer(least)}")
    if sheet.integer("bias.mantissa_least") > sheet.integer("bias.mantissa_most"):
        raise sheet.error("bias.mantissa_most", "must not be below bias.mantissa_least")
    if (target.weight.most - target.weight.least) % target.weight.step:
        raise sheet.error("weight.step", "does not lead from weight.least to weight.most")
