"""Price lists that energy is quoted in: sheets, each figure with its source.

A list prices an accumulate and a multiply-accumulate, and whatever else it names; what it does not name is counted and
left out, and reports say so. A machine's own energy table is a list too, where its maker published one.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

from snncompile import sheet as sheets
from snncompile.sheet import Sheet
from snncompile.target import Energy

JOULE = 1e12  # in pJ


@dataclass(frozen=True)
class Memory:
    """Prices of memory and addressing: an SRAM access in pJ by the size of the SRAM, and what an address costs."""

    word_bits: int
    sram_8k: float
    sram_32k: float
    sram_1m: float
    address_add: float
    address_mac: float

    def access(self, words: int) -> float:
        """pJ of one access to a memory of so many words: linear between published sizes, held below the smallest."""
        size = words * self.word_bits / 8
        points = ((8 << 10, self.sram_8k), (32 << 10, self.sram_32k), (1 << 20, self.sram_1m))
        if size <= points[0][0]:
            return points[0][1]
        (low, least), (high, most) = points[:2] if size <= points[1][0] else points[1:]
        return least + (most - least) * (size - low) / (high - low)


@dataclass(frozen=True)
class CostModel:
    """A price list: energy in pJ of counted operations, and what it covers.

    ``ac`` an accumulate, ``mac`` a multiply-accumulate; None where nobody published a figure. The others are priced
    where the list has them. ``add``, ``multiply``, ``bits``: what a multiplier of another width is scaled from.
    """

    name: str
    title: str
    precision: str
    scope: str
    ac: float | None
    mac: float | None
    sheet: Sheet = field(repr=False, compare=False)
    neuron_updates: float | None = None
    bias_adds: float | None = None
    spikes_out: float | None = None
    add: float | None = None
    multiply: float | None = None
    bits: int | None = None
    memory: Memory | None = None

    @classmethod
    def load(cls, name_or_path: str) -> CostModel:
        """Reads a cost model by name or from any file, or the energy table of a machine's sheet.

        Raises SheetError as ``Target.load`` does, and where a machine's maker published no figure.
        """
        sheet = Sheet.load("targets", name_or_path)
        if not sheet.has("cost_model"):
            return _of_machine(sheet)
        sheet.known("", ["cost_model", "memory"])
        prices = sheet.record("cost_model", _Prices)
        _check_prices(sheet, "cost_model", prices)
        memory = sheet.record("memory", Memory) if sheet.has("memory") else None
        _check_prices(sheet, "memory", memory)
        if prices.ac is None:
            raise sheet.error("cost_model.ac", "unavailable", why="a list without it prices nothing that spikes cause")
        return cls(**dataclasses.asdict(prices), sheet=sheet, memory=memory)

    def source(self, component: str, column: str) -> str:
        """Where a price of ``energy_prices.rates`` stands: file, line and key; of memory, the first of its sizes."""
        machine = {"ac": "synaptic_operation", "neuron_updates": "neuron_active", "spikes_out": "spike_in_tile"}
        match component:
            case "memory":
                return self.cite("memory.sram_8k")
            case "addressing":
                return self.cite("memory.address_add" if column == "ac" else "memory.address_mac")
            case _:
                own = f"cost_model.{column}"
                return self.cite(own if self.sheet.has(own) else f"energy.{machine[column]}")

    def cite(self, key: str) -> str:
        """File, line and key of a price: ``targets/horowitz45.toml:9, cost_model.ac``."""
        return self.sheet.cite(key)


def _check_prices(sheet: Sheet, table: str, prices: _Prices | Memory | Energy | None) -> None:
    """Raise ``SheetError`` for what is no price of an operation: sums over any run must be finite and not negative.

    Parts of an access or of a machine's step may be free; an operation that a list prices is not.
    """
    for key, value in (dataclasses.asdict(prices) if prices else {}).items():
        if not isinstance(value, int | float):
            continue
        if value < 0 or (value == 0 and table == "cost_model"):
            raise sheet.error(f"{table}.{key}", "a price must be positive")
        if value >= JOULE:
            raise sheet.error(f"{table}.{key}", f"a price must be below a joule, found {value:g} pJ")


def _of_machine(sheet: Sheet) -> CostModel:
    """A machine's energy table as a price list. Raises ``SheetError`` where no figure is published."""
    if not sheet.has("energy"):
        raise sheet.error("cost_model", "not a cost model", remedy=f"one of {', '.join(cost_models())}")
    energy, synapse = sheet.record("energy", Energy), "energy.synaptic_operation"
    if energy.synaptic_operation is None:
        raise sheet.error(
            synapse,
            "unavailable: no energy of an operation is published for this machine, and none is made up",
            why=sheet.figure(synapse).source,
            remedy=f"price it as another list: {', '.join(cost_models())}",
        )
    _check_prices(sheet, "energy", energy)
    basis = sheet.figure(synapse).basis
    return CostModel(
        name=sheet.text("target.name"),
        title=f"{sheet.text('target.title')}, {basis}",
        precision="the machine's integers",
        scope="synaptic operations, neuron updates at the price of active ones, spikes inside a tile; hops between"
        " tiles, static power, input and output are left out",
        ac=energy.synaptic_operation,
        mac=None,
        sheet=sheet,
        neuron_updates=energy.neuron_active,
        spikes_out=energy.spike_in_tile,
    )


def cost_models() -> list[str]:
    """Names of the cost models of the catalogue."""
    return [name for name in sheets.names("targets") if Sheet.load("targets", name).has("cost_model")]


@dataclass(frozen=True)
class _Prices:
    name: str
    title: str
    precision: str
    scope: str
    ac: float | None
    mac: float | None
    neuron_updates: float | None = None
    bias_adds: float | None = None
    spikes_out: float | None = None
    add: float | None = None
    multiply: float | None = None
    bits: int | None = None
