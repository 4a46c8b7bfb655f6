"""SDNN and RF layers of ``.net`` files against a NumPy model of Lava's processes, as they stand in its own sources:
with a residue where the graph keeps what has been told, with one network for both parts where it has one matrix."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from snncompile.compile import compile_graph, encoded, shown
from snncompile.energy_counts import Plan
from snncompile.errors import GraphError, LoweringError, ReadError, UnsupportedNode
from snncompile.frontends.net import read
from snncompile.ir.graph import Graph
from snncompile.ir.ops import Resonator, SigmaDelta
from snncompile.ir.shapes import signals
from snncompile.ir.signals import Fixed, Spike
from snncompile.ir.store import Program, load, save
from snncompile.ir.text import arrays, from_text, same, to_text
from snncompile.run import integer, reference
from snncompile.run.bounds import FLOAT64, bounds
from snncompile.run.cpu import Simulator
from snncompile.run.trace import Trace
from snncompile.target import Target
from tests.frontends.test_net import Layers, correlated, dense, even, write

LOIHI = Target.load("loihi")
Array = np.ndarray[Any, Any]


def sdnn(threshold: int, **more: Any) -> dict[str, Any]:
    return {"type": "SDNN", "vThMant": threshold, "activation": "relu", **more}


def rf(kind: str, period: float, decay: float, threshold: int) -> dict[str, Any]:
    turn = (1 - decay) * np.array([np.sin(2 * np.pi / period), np.cos(2 * np.pi / period)])
    sine, cosine = (int(value * 4096) for value in turn)
    return {"type": kind, "sinDecay": sine, "cosDecay": cosine, "vThMant": threshold}


def played(graph: Graph, x: Array) -> Trace:
    stimulus = encoded(graph, shown(graph, x, x.shape[1]))
    slow, fast = integer.run(graph, stimulus, LOIHI), Simulator(graph, LOIHI).run(stimulus)
    assert set(slow.potentials) == set(fast.potentials)
    for name, array in fast.potentials.items():
        np.testing.assert_array_equal(array, slow.potentials[name])
    return slow


def sent(graph: Graph, trace: Trace, name: str) -> Array:
    op = graph.nodes[name]
    assert isinstance(op, SigmaDelta)
    messages: Array = (trace.potentials[name] * trace.spikes[name])[0] >> op.shift
    return messages


def delta(activations: Array, threshold: int) -> Array:
    """Lava's ``Delta``: messages for activations [steps, ...] in units of 2^-12."""
    act = residue = np.zeros_like(activations[0])
    found = []
    for a in activations:
        change = a - act + residue
        out = np.where(np.abs(change) >= threshold << 12, change, 0)
        residue, act = change - out, a
        found.append(out >> 6)
    return np.array(found)


def sigma_delta(received: Array, threshold: int, bias: Array) -> Array:
    return delta(np.maximum(np.cumsum(received, axis=0) + (bias << 12), 0), threshold)


def test_changes_run_through_a_network_of_all_three_kinds(tmp_path: Path) -> None:
    generator = np.random.default_rng(11)
    kernel, weight, last = even(generator, 3, 2, 3, 3, most=12), even(generator, 6, 48, most=9), even(generator, 2, 6)
    biases = generator.integers(-9, 15, 3), generator.integers(-9, 15, 6)
    layers: Layers = [
        {"type": b"input", "shape": [2, 6, 6], "neuron": sdnn(3), "bias": np.float32([2])},
        {"type": b"conv", "shape": [3, 4, 4], "weight": kernel, "bias": biases[0], "neuron": sdnn(5)},
        {"type": b"flatten", "shape": [48]},
        dense(weight, sdnn(7), bias=biases[1]),
        dense(last, sdnn(0, sigma_output=True)),
    ]
    graph = read(write(tmp_path / "n.net", layers)).graph
    kinds = [op.kind for op in graph.nodes.values() if isinstance(op, SigmaDelta)]
    assert kinds == ["delta", "sigma-delta", "sigma-delta", "sigma"]
    assert signals(graph)["sdnn1"] == Fixed(24)
    x = np.cumsum(generator.integers(-9, 10, (1, 20, 2, 6, 6)), axis=1)
    trace = played(graph, x / 64)
    first = delta((x[0] + 2) << 12, 3)
    np.testing.assert_array_equal(sent(graph, trace, "sdnn0"), first)
    second = sigma_delta(np.array([correlated(m, kernel, (1, 1), (0, 0)) for m in first]), 5, biases[0][:, None, None])
    np.testing.assert_array_equal(sent(graph, trace, "sdnn1"), second)
    third = sigma_delta(second.reshape(20, -1) @ weight.T, 7, biases[1])
    np.testing.assert_array_equal(sent(graph, trace, "sdnn3"), third)
    np.testing.assert_array_equal(trace.potentials["sdnn4"][0], np.cumsum(third @ last.T, axis=0))
    quiet = [(m == 0).mean() for m in (first, second, third)]
    assert all(0.05 < share < 0.95 for share in quiet), quiet


def test_in_reals_changes_add_up_to_the_network_of_rectifiers(tmp_path: Path) -> None:
    generator = np.random.default_rng(12)
    weight, last = even(generator, 6, 5), even(generator, 2, 6)
    layers: Layers = [
        {"type": b"input", "shape": [5], "neuron": sdnn(0)},
        dense(weight, sdnn(0), bias=generator.integers(-9, 9, 6)),
        dense(last, sdnn(0, sigma_output=True)),
    ]
    graph = read(write(tmp_path / "n.net", layers)).graph
    x = generator.normal(size=(2, 9, 5))
    trace = reference.run(graph, {"input": x})
    hidden = np.maximum(64 * x @ weight.T + 4096 * np.asarray(layers[1]["bias"]), 0)
    np.testing.assert_allclose(trace.potentials["sdnn2"], hidden / 64 @ last.T, rtol=1e-9, atol=1e-6)


def resonate(real: Array, imaginary: Array, sine: int, cosine: int, threshold: int, reset: bool) -> Array:
    """Lava's ``RF`` and ``RF_IZ`` on currents [steps, neurons]."""

    def part(value: Array, factor: int) -> Array:
        product = value * factor
        cut: Array = np.sign(product) * (np.abs(product) >> 12)
        return cut

    most = (1 << 23) - 1
    re = im = np.zeros_like(real[0])
    found = []
    for a, b in zip(real, imaginary, strict=True):
        new_re = np.clip(part(re, cosine) - part(im, sine) + (a << 6), -most, most)
        new_im = np.clip(part(re, sine) + part(im, cosine) + (b << 6), -most, most)
        if reset:
            fired = new_im >= threshold << 6
            re, im = np.where(fired, 0, new_re), np.where(fired, (threshold << 6) - 1, new_im)
        else:
            fired = (new_re >= threshold << 6) & (new_im >= 0) & (im < 0)
            re, im = new_re, new_im
        found.append(fired)
    return np.array(found)


def as_netx_reads(neuron: dict[str, Any]) -> tuple[int, int]:
    """Sine and cosine behind two changes of form: to a period and a decay, and back."""
    sine, cosine = neuron["sinDecay"] / 4096, neuron["cosDecay"] / 4096
    alpha, period = 1 - np.sqrt(sine**2 + cosine**2), 1 / (np.arctan2(sine, cosine) / 2 / np.pi)
    return (
        int((1 - alpha) * np.sin(np.pi * 2 * 1 / period) * 4096),
        int((1 - alpha) * np.cos(np.pi * 2 * 1 / period) * 4096),
    )


@pytest.mark.parametrize("kind", ["RF_PHASE", "RF"])
def test_resonators(kind: str, tmp_path: Path) -> None:
    generator = np.random.default_rng(13)
    weights = {"real": even(generator, 6, 9), "imag": even(generator, 6, 9)}
    again = even(generator, 4, 6), even(generator, 4, 6)
    one, two = rf(kind, 11, 0.05, 40), rf(kind, 6.5, 0.1, 30)
    layers: Layers = [
        {"type": b"input", "shape": [9]},
        {"type": b"dense", "shape": [6], "weight": weights, "neuron": one},
        {"type": b"dense", "shape": [4], "weight": {"real": again[0].ravel(), "imag": again[1].ravel()}, "neuron": two},
    ]
    graph = read(write(tmp_path / "n.net", layers)).graph
    op = graph.nodes["rf1"]
    assert isinstance(op, Resonator)
    assert op.kind == ("phase" if kind == "RF_PHASE" else "izhikevich")
    assert signals(graph)["rf1"] == Spike()
    x = generator.integers(0, 2, (1, 200, 9))
    trace = played(graph, x)
    reset = kind == "RF"
    first = resonate(x[0] @ weights["real"].T, x[0] @ weights["imag"].T, *as_netx_reads(one), 40, reset)
    np.testing.assert_array_equal(trace.spikes["rf1"][0], first)
    heard = first.astype(np.int64)
    second = resonate(heard @ again[0].T, heard @ again[1].T, *as_netx_reads(two), 30, reset)
    np.testing.assert_array_equal(trace.spikes["rf2"][0], second)
    assert 0.02 < first.mean() < 0.9
    assert 0.02 < second.mean() < 0.9


def test_resonators_saturate(tmp_path: Path) -> None:
    neuron = rf("RF_PHASE", 400, 0.0, 1000)
    big = np.full((1, 700), 254)
    layers: Layers = [{"type": b"dense", "shape": [1], "weight": {"real": big, "imag": big}, "neuron": neuron}]
    graph = read(write(tmp_path / "n.net", layers)).graph
    x = np.ones((1, 60, 700), dtype=np.int64)
    current = x[0] @ big.T
    trace = played(graph, x)
    assert int(trace.potentials["rf0"].max()) == (1 << 23) - 1
    np.testing.assert_array_equal(
        trace.spikes["rf0"][0], resonate(current, current, *as_netx_reads(neuron), 1000, False)
    )


def other(tmp_path: Path) -> tuple[Graph, Graph]:
    one: Layers = [dense(np.array([[2, 4, -6]]), sdnn(1))]
    weights = {"real": np.full((2, 3), 2), "imag": np.full((2, 3), 4)}
    two: Layers = [{"type": b"dense", "shape": [2], "weight": weights, "neuron": rf("RF", 9, 0.1, 5)}]
    return read(write(tmp_path / "a.net", one)).graph, read(write(tmp_path / "b.net", two)).graph


def test_they_are_printed_and_stored_and_refused_by_name_where_machines_have_none(tmp_path: Path) -> None:
    for graph, name in zip(other(tmp_path), ("sdnn0", "rf0"), strict=True):
        assert same(from_text(to_text(graph), arrays(graph)), graph)
        save(Program(graph, "fixed", "loihi", 5), tmp_path)
        assert same(load(tmp_path).graph, graph)
        with pytest.raises(LoweringError, match=rf"{name} \(.*stock neurons are LIF"):
            compile_graph(graph, LOIHI, {"input": np.ones((1, 2, 3))})
        with pytest.raises(GraphError, match=rf"{name} \(.*operations are not counted"):
            Plan(graph)
        trace = reference.run(graph, {"input": np.ones((1, 2, 3))})
        with pytest.raises(GraphError, match=rf"{name} \(.*no rounding bound"):
            bounds(graph, {"input": np.ones((1, 2, 3))}, trace, FLOAT64)


COMPLEX: dict[str, Any] = {
    "type": b"dense",
    "shape": [2],
    "weight": {"real": np.full((2, 3), 2), "imag": np.full((2, 3), 4)},
    "neuron": rf("RF", 9, 0.1, 5),
}
REAL: dict[str, Any] = {"type": b"dense", "shape": [2], "weight": np.full((2, 3), 2)}
FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "real weights": (REAL | {"neuron": COMPLEX["neuron"]}, "its neurons resonate, its weights are real"),
    "complex weights": (COMPLEX | {"neuron": sdnn(1)}, "its weights are complex, its neurons are not"),
    "half": (COMPLEX | {"weight": {"real": np.full((2, 3), 2)}}, "has no dataset 'weight/imag'"),
    "two sizes": (
        COMPLEX | {"weight": {"real": np.full((2, 3), 2), "imag": np.full((2, 4), 2)}},
        "real weights [2, 3], imaginary [2, 4]",
    ),
    "no turn": (COMPLEX | {"neuron": COMPLEX["neuron"] | {"sinDecay": 0}}, "neuron/sinDecay is 0"),
    "too much": (COMPLEX | {"neuron": COMPLEX["neuron"] | {"cosDecay": 9999}}, "neuron/cosDecay is 9999"),
    "threshold": (REAL | {"neuron": sdnn(-1)}, "neuron/vThMant is -1"),
}
UNSUPPORTED: dict[str, tuple[dict[str, Any], str]] = {
    "bias": (COMPLEX | {"bias": [1, 2]}, "a bias of a complex layer"),
    "delay": (COMPLEX | {"delay": [1, 2]}, "a delay of a complex layer"),
    "feedback": (COMPLEX | {"type": b"dense_rec"}, "complex weights of a recurrent layer"),
    "activation": (REAL | {"neuron": sdnn(1) | {"activation": "sigmoid"}}, "the activation 'sigmoid'"),
    "biased sum": (REAL | {"neuron": sdnn(1, sigma_output=True), "bias": [1, 2]}, "biases of a sum"),
    "input": ({"type": b"input", "shape": [3], "neuron": COMPLEX["neuron"]}, "input neurons that resonate"),
}


@pytest.mark.parametrize("case", [*FAULTS, *UNSUPPORTED])
def test_what_makes_no_such_layer_is_named(case: str, tmp_path: Path) -> None:
    layer, message = {**FAULTS, **UNSUPPORTED}[case]
    with pytest.raises(ReadError) as caught:
        read(write(tmp_path / "n.net", [layer]))
    assert message in str(caught.value)
    assert isinstance(caught.value, UnsupportedNode) == (case in UNSUPPORTED)
