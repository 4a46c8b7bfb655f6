"""Prices of counts. Works on the plain values of a report, so that it is priced again without running anything.

Every price is linear: ``joules(layer) = sum over columns of count * rate(layer, column)``, where the rates of a layer
depend on its sizes alone. With memory (Lemaire et al., arXiv:2210.13107, reuse nowhere; for a dense layer th_in * N_out
synapses, where the paper's Eq. 2.4 multiplies by N_in as well)::

    ac          add + address add + read of a weight + read and write of a potential
    mac         multiply-add + read of a weight + read of an input
    spikes_in   read of an event, and 2 address multiply-adds where it goes into windows: not into a full connection
    bias_adds   add + read of a bias, from a memory as large as the population
    neuron_updates   leak + read and write of a potential
    spikes_out  reset + write of an event
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil, log2
from typing import Any

from snncompile.cost_model import CostModel

Plain = Mapping[str, Any]
PICO = 1e-12
EVENTS = ("ac", "one_to_one", "pool_adds", "spikes_in", "spikes_out")  # these grow with the spikes
SIZES = {"sites", "size", "parameters"}  # what memory is priced by
PRICED = ("ac", "mac", "neuron_updates", "bias_adds", "spikes_out")  # what a list may name


def rates(model: CostModel, layer: Plain) -> dict[str, dict[str, float]]:
    """pJ by component (arithmetic, memory, addressing) and column, for a layer of these sizes."""
    found = {"arithmetic": {key: price for key in PRICED if (price := getattr(model, key)) is not None}}
    memory = model.memory
    if memory is None:
        return found
    weight, state = memory.access(layer["parameters"]), memory.access(layer["size"])
    arriving, sent = memory.access(layer["sites"]), memory.access(layer["size"])
    found["memory"] = {
        "ac": weight + 2 * state,
        "mac": weight + arriving,
        "spikes_in": arriving,
        "bias_adds": state,
        "neuron_updates": 2 * state,
        "spikes_out": sent,
    }
    found["addressing"] = {"ac": memory.address_add}
    if layer.get("kind") != "Dense":  # where the first output of a window lies
        found["addressing"]["spikes_in"] = 2 * memory.address_mac
    return found


def joules(model: CostModel, layer: Plain, columns: Mapping[str, int]) -> dict[str, float]:
    """Energy in joules by component of these counts in this layer."""
    return {
        component: sum(columns.get(key, 0) * price for key, price in table.items()) * PICO
        for component, table in rates(model, layer).items()
    }


def left_out(model: CostModel, totals: Mapping[str, int]) -> dict[str, int]:
    """Columns that were counted and that this list does not price; ``ac_nonzero_weight`` and the like are parts."""
    priced = {key for key in PRICED if getattr(model, key) is not None} | ({"spikes_in"} if model.memory else set())
    parts = {"ac_nonzero_weight", "mac_nonzero", "spikes_in", "traffic", *({"spikes_out"} - priced)}
    return {key: number for key, number in totals.items() if number and key not in priced | parts}


def traffic(columns: Mapping[str, int]) -> int:
    """Accesses to memory where nothing is kept at hand: weights, biases, inputs, potentials both ways, events."""
    get = columns.get
    reads = get("ac", 0) + 2 * get("mac", 0) + get("spikes_in", 0) + get("bias_adds", 0)
    return reads + 2 * (get("ac", 0) + get("neuron_updates", 0)) + get("spikes_out", 0)


def priced(counts: Plain, model: CostModel) -> dict[str, Any]:
    """A report with the prices of this list; whatever prices it had before are replaced."""
    samples = counts["samples"]
    layers = []
    for layer in counts["layers"]:
        parts = {key: value / samples for key, value in joules(model, layer, layer["columns"]).items()}
        traffic_ = traffic(layer["columns"])
        layers.append({**layer, "traffic": traffic_, "energy_per_sample_J": sum(parts.values()), "components_J": parts})
    by_sample = [0.0] * samples
    for layer in layers:
        for index, columns in enumerate(of_each(layer, samples)):
            by_sample[index] += sum(joules(model, layer, columns).values())
    whole = sum(layer["energy_per_sample_J"] for layer in layers)
    return {
        **counts,
        "cost_model": described(model),
        "left_out": left_out(model, counts["totals"]),
        "layers": layers,
        "totals": {**counts["totals"], "traffic": sum(layer["traffic"] for layer in layers)},
        "energy_per_sample_J": whole,
        "energy_by_sample_J": by_sample,
        "energy_by_steps_J": _by_steps(layers, counts["steps"], samples, model),
        "ann": _ann(counts, layers, whole, model),
    }


def described(model: CostModel) -> dict[str, Any]:
    """A price list as it stands in a report."""
    prices = {f"{key}_pJ": getattr(model, key) for key in ("ac", "mac")}
    more = {f"{key}_pJ": value for key in PRICED[2:] if (value := getattr(model, key)) is not None}
    names = {key: getattr(model, key) for key in ("name", "title", "precision", "scope")}
    return {**names, **prices, **more, "memory": model.memory is not None}


def of_each(layer: Plain, samples: int) -> list[dict[str, int]]:
    """The columns of every sample: those that are the same for all are shared out exactly."""
    each = layer["by_sample"]
    shared = {key: number // samples for key, number in layer["columns"].items() if key not in each}
    return [{**shared, **{key: each[key][index] for key in each}} for index in range(samples)]


def _by_steps(layers: Sequence[Plain], steps: int, samples: int, model: CostModel) -> list[float]:
    """Energy a sample of runs of 1, 2, ... steps: prefix sums, since no step causes anything before it."""
    found, total = [], 0.0
    for step in range(steps):
        for layer in layers:
            columns = {key: numbers[step] for key, numbers in layer["by_step"].items()}
            total += sum(joules(model, layer, columns).values()) / samples
        found.append(total)
    return found


def _ann(counts: Plain, layers: Sequence[Plain], whole: float, model: CostModel) -> dict[str, Any]:
    """The same topology as an artificial network, dense, under the same list; and the rate at which both are equal."""
    ann = {key: counts["ann"][key] for key in ("of", "mac", "layers")}
    dense = ann["layers"]
    known = model.mac is not None and (model.memory is None or all(layer.keys() >= SIZES for layer in dense))
    energy = sum(sum(joules(model, layer, {"mac": layer["mac"]}).values()) for layer in dense) if known else None
    samples, with_events = counts["samples"], 0.0
    for layer in layers:
        events = {key: number for key, number in layer["columns"].items() if key in EVENTS}
        with_events += sum(joules(model, layer, events).values()) / samples
    rate, _ = mean_rate(counts)
    even = rate * (energy - (whole - with_events)) / with_events if energy is not None and with_events else None
    return {
        **ann,
        "energy_J": energy,
        "ratio": whole / energy if energy else None,
        "rate": rate,
        "break_even_rate": even,
    }


def mean_rate(counts: Plain) -> tuple[float, float]:
    """Events for each element and step that arrive at weights, and spikes for each synapse and inference."""
    fed = [layer for layer in counts["layers"] if "ac" in layer["columns"]]
    places = counts["samples"] * counts["steps"] * sum(layer["sites"] for layer in fed)
    synapses = counts["samples"] * sum(layer["synapses"] for layer in fed)
    events = sum(layer["columns"]["spikes_in"] for layer in fed)
    reached = sum(layer["columns"]["ac"] for layer in fed)
    return (events / places if places else 0.0), (reached / synapses if synapses else 0.0)


def activation_bits(steps: int) -> int:
    """Bits in which a rate over so many steps is written: ceil(log2(T + 1))."""
    return ceil(log2(steps + 1))


def quantised_ann(counts: Plain, model: CostModel) -> dict[str, Any]:
    """The artificial network with activations of ceil(log2(T + 1)) bits (Yan et al., arXiv:2409.08290), in integers.

    ``model``: a list with ``add`` and ``multiply`` of a width. A product of w and b bits is priced as ``multiply * b /
    w``: a multiplier grows with the product of its widths. The first layer meets inputs of full width. The spiking
    network is priced by the same list.
    """
    assert model.add is not None
    assert model.multiply is not None
    assert model.bits is not None
    assert model.mac is not None
    bits = activation_bits(counts["steps"])
    narrow = model.multiply * min(bits, model.bits) / model.bits + model.add
    dense = counts["ann"]["layers"]
    ann = sum(layer["mac"] * (model.mac if layer.get("reads_input") else narrow) for layer in dense) * PICO
    samples = counts["samples"]
    spiking = sum(sum(joules(model, layer, layer["columns"]).values()) for layer in counts["layers"]) / samples
    return {
        "bits": bits,
        "cost_model": model.name,
        "energy_J": ann,
        "spiking_J": spiking,
        "ratio": spiking / ann if ann else None,
    }
