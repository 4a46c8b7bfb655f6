"""What published conventions say of the same run, so that a number in a paper can be reproduced and its gap seen.

None of them follows spikes. Each works on a layer's means, as its paper or tool does::

    rate-flops   AC = rate * T * taps, analog layers once; 0.9 and 4.6 pJ (Rathi & Roy, DIET-SNN)
    tet          AC = s * T * taps with one mean rate s of the whole network, the encoding layer's MAC once (Deng et
                 al., TET, ICLR 2022: energy against the length of the simulation)
    syops        AC = rate * T * (taps + biases) and one for each neuron and step; analog layers at every step, biases
                 included (the published formula; its tool also counts pools and norms, which are folded here)
    neurobench   effective AC: synapses whose weight is not zero that events reach; effective MAC: products whose value
                 and weight are not zero; neither biases nor neurons

``taps`` are synapses as if there were no borders: padding is counted as if it were there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from snncompile.errors import ReadError
from snncompile.sheet import suggestion

Plain = Mapping[str, Any]
AC, MAC = 0.9, 4.6  # pJ, fp32 of Horowitz 2014: what these papers use


@dataclass(frozen=True)
class Said:
    """Means a sample under one convention; ``ac`` and ``mac`` are no whole numbers."""

    name: str
    ac: float
    mac: float | None

    @property
    def energy(self) -> float | None:
        """Joules at 0.9 and 4.6 pJ; None where the counts do not hold what the convention asks for."""
        return None if self.mac is None else (self.ac * AC + self.mac * MAC) * 1e-12


def _rate(layer: Plain, report: Plain) -> float:
    places = report["samples"] * report["steps"] * layer["sites"]
    return float(layer["columns"]["spikes_in"] / places) if places else 0.0


def _weighted(report: Plain) -> list[Plain]:
    return [layer for layer in report["layers"] if layer["taps"]]


def _rate_flops(report: Plain) -> Said:
    ac = mac = 0.0
    for layer in _weighted(report):
        if "ac" in layer["columns"]:
            ac += _rate(layer, report) * report["steps"] * layer["taps"]
        else:
            mac += layer["taps"]
    return Said("rate-flops", ac, mac)


def _tet(report: Plain) -> Said:
    populations = [layer for layer in report["layers"] if "dead" in layer]
    places = report["samples"] * report["steps"] * sum(layer["size"] for layer in populations)
    mean = sum(layer["columns"]["spikes_out"] for layer in populations) / places if places else 0.0
    additions = sum(layer["taps"] for layer in _weighted(report) if "ac" in layer["columns"])
    mac = sum(layer["taps"] for layer in _weighted(report) if "mac" in layer["columns"])
    return Said("tet", mean * report["steps"] * additions, mac)


def _syops(report: Plain) -> Said:
    steps = report["steps"]
    ac = mac = 0.0
    for layer in report["layers"]:
        if "dead" in layer:
            ac += steps * layer["size"]
        elif layer["taps"]:
            operations = layer["taps"] + (layer["size"] if layer["biased"] else 0)
            if "ac" in layer["columns"]:
                ac += _rate(layer, report) * steps * operations
            else:
                mac += steps * operations
    return Said("syops", ac, mac)


def _neurobench(report: Plain) -> Said:
    samples = report["samples"]
    layers = _weighted(report)
    known = all("mac_nonzero" in layer["columns"] for layer in layers if "mac" in layer["columns"])
    ac = sum(layer["columns"].get("ac_nonzero_weight", 0) for layer in layers) / samples
    mac = sum(layer["columns"].get("mac_nonzero", 0) for layer in layers) / samples
    return Said("neurobench", ac, mac if known else None)


MODELS: Mapping[str, Callable[[Plain], Said]] = {
    "rate-flops": _rate_flops,
    "tet": _tet,
    "syops": _syops,
    "neurobench": _neurobench,
}


def also(report: Plain, names: str) -> list[dict[str, Any]]:
    """What the named conventions say (``rate-flops,tet``), and how far from the exact count at the same prices.

    ``gap``: their energy over that of the exact counts at 0.9 and 4.6 pJ, minus 1. Raises ``ReadError``.
    """
    found = []
    totals, samples = report["totals"], report["samples"]
    exact = (totals["ac"] * AC + totals["mac"] * MAC) * 1e-12 / samples
    for name in (part.strip() for part in names.split(",")):
        if name not in MODELS:
            raise ReadError(f"no convention {name!r}", where="--also", remedy=suggestion(name, MODELS))
        said = MODELS[name](report)
        gap = said.energy / exact - 1 if exact and said.energy is not None else None
        found.append({"name": name, "ac": said.ac, "mac": said.mac, "energy_J": said.energy, "gap": gap})
    return found
