"""A second, slow account of the machine, written from the equations alone, and a writer of bundles.

Synapse: ``a[m] = sum of W s[m - 1 - d]``. Neuron, with ``tz(x) = sign(x) (abs(x) >> 12)`` and M = 2**23::

    u, v = 0, 0                                        where (m - phase) mod steps = 0
    u = tz(u (4096 - (du + 1))) + (a << 6)             one wrap into (-M, M]
    v = clip(tz(v (4096 - dv)) + u + (bias << e), -(M - 1), M - 1)
    s = v > vth << 6;  v = 0 where s
"""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]
M = 1 << 23


def tz(values: Integers) -> Integers:
    return np.sign(values) * (np.abs(values) >> 12)


def fixed(mantissa: Any, exponent: int = 0) -> dict[str, Any]:
    return {"mantissa": mantissa, "exponent": exponent}


@dataclass
class Net:
    """A placed program under construction: nodes as they stand in ``program.json``, and what the model needs."""

    steps: int
    stream: bool = True
    nodes: dict[str, Any] = field(default_factory=dict)
    edges: list[list[Any]] = field(default_factory=list)
    arrays: dict[str, Integers] = field(default_factory=dict)
    links: list[tuple[str, str, int, Integers]] = field(default_factory=list)

    def keep(self, key: str, values: Any) -> Any:
        if np.ndim(values) == 0:
            return int(values)
        self.arrays[key] = np.asarray(values, dtype=np.int64)
        return {"array": key}

    def input(self, name: str, *shape: int, bits: int = 0) -> str:
        signal = {"kind": "fixed", "bits": bits, "unit": 1.0} if bits else {"kind": "spike", "amplitude": 1.0}
        self.nodes[name] = {"op": "Input", "shape": list(shape), "signal": signal}
        return name

    def neuron(
        self, name: str, *shape: int, phase: int, vth: int, bias: Any = 0, e: int = 0, du: int = 4095, dv: int = 0
    ) -> str:
        self.nodes[name] = {
            "op": "Neuron",
            "shape": list(shape),
            "alpha": fixed(du + 1, -12),
            "beta": fixed(dv, -12),
            "threshold": fixed(vth),
            "bias": fixed(self.keep(f"{name}.bias", bias), e),
            "fires": ">",
            "reset": {"to": 0.0},
            "initial": 0.0,
            "gain": 1.0,
            "amplitude": 1.0,
            "rest": 0.0,
            "unit": 1.0,
            "phase": phase,
            "cores": [],
        }
        return name

    def readout(self, name: str, *shape: int, phase: int, kind: str = "mean", bias: Any = 0) -> str:
        bias_value = fixed(self.keep(f"{name}.bias", bias))
        self.nodes[name] = {"op": "Readout", "shape": list(shape), "kind": kind, "bias": bias_value, "decay": 1.0}
        self.nodes[name] |= {"unit": 1.0, "phase": phase, "cores": []}
        return name

    def _synapse(self, name: str, op: dict[str, Any], source: str, target: str, delay: int, matrix: Integers) -> None:
        self.nodes[name] = op
        self.edges += [[source, name, delay + 1], [name, target, 0]]
        self.links.append((source, target, delay, matrix))

    def dense(self, source: str, target: str, weight: Any, delay: int = 0, flatten: bool = False) -> None:
        name = f"{source}-{target}-dense{len(self.links)}"
        matrix = np.asarray(weight, dtype=np.int64)
        op = {"op": "Dense", "weight": fixed(self.keep(f"{name}.weight", matrix)), "bias": None}
        self._synapse(name, op, source, target, delay, matrix)
        if flatten:
            self.nodes[f"{name}.view"] = {"op": "Flatten"}
            self.edges[-2:] = [[source, f"{name}.view", 0], [f"{name}.view", name, delay + 1], [name, target, 0]]

    def scale(self, source: str, target: str, factor: Any, delay: int = 0) -> None:
        name = f"{source}-{target}-scale{len(self.links)}"
        shape = self.nodes[source]["shape"]
        op = {"op": "Scale", "factor": fixed(self.keep(f"{name}.factor", factor))}
        matrix = np.diag(np.broadcast_to(np.asarray(factor, dtype=np.int64), shape).ravel())
        self._synapse(name, op, source, target, delay, matrix)

    def conv(
        self, source: str, target: str, weight: Any, stride: Any, padding: Any, dilation: Any = None, groups: int = 1,
        delay: int = 0,
    ) -> None:  # fmt: skip
        name = f"{source}-{target}-conv{len(self.links)}"
        weight = np.asarray(weight, dtype=np.int64)
        dilation = dilation or [1] * len(stride)
        op = {"op": "Conv", "weight": fixed(self.keep(f"{name}.weight", weight)), "bias": None, "groups": groups}
        op |= {"stride": list(stride), "padding": list(padding), "dilation": list(dilation)}
        shapes = self.nodes[source]["shape"], self.nodes[target]["shape"]
        matrix = correlation(weight, *shapes, stride, padding, dilation, groups)
        self._synapse(name, op, source, target, delay, matrix)

    def output(self, source: str) -> None:
        self.nodes[f"{source}-out"] = {"op": "Output"}
        self.edges.append([source, f"{source}-out", 0])

    def plain(self) -> dict[str, Any]:
        head = {"schema": "snncompile.program/1", "target": "loihi", "level": "placed"}
        return head | {"steps": self.steps, "stream": self.stream, "nodes": self.nodes, "edges": self.edges}

    def save(self, folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "program.json").write_text(json.dumps(self.plain()), encoding="utf-8")
        np.savez(folder / "arrays.npz", allow_pickle=False, **self.arrays)
        return folder


def correlation(
    weight: Integers, source: Any, target: Any, stride: Any, padding: Any, dilation: Any, groups: int
) -> Integers:
    """``y[o, p] = sum_i,k W[o, i, k] x[g(o) i, stride p - padding + dilation k]`` as a matrix, cell by cell."""
    matrix = np.zeros((*target, *source), np.int64)
    features, depth, *kernel = weight.shape
    for feature, place in itertools.product(range(features), itertools.product(*map(range, target[1:]))):
        for channel, cell in itertools.product(range(depth), itertools.product(*map(range, kernel))):
            read = [stride[a] * place[a] - padding[a] + dilation[a] * cell[a] for a in range(len(kernel))]
            if all(0 <= read[a] < source[1 + a] for a in range(len(kernel))):
                inside = channel + feature // (features // groups) * depth
                matrix[(feature, *place, inside, *read)] = weight[(feature, channel, *cell)]
    return matrix.reshape(int(np.prod(target)), int(np.prod(source)))


def simulate(net: Net, stimulus: dict[str, Integers]) -> dict[str, Integers]:
    """``NAME.s`` and ``NAME.v`` [N, T, *shape] of every population, phases removed."""
    samples = len(next(iter(stimulus.values())))
    spans = [slice(0, samples)] if net.stream else [slice(k, k + 1) for k in range(samples)]
    parts = [_run(net, {name: values[span] for name, values in stimulus.items()}) for span in spans]
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


def _run(net: Net, stimulus: dict[str, Integers]) -> dict[str, Integers]:
    samples = len(next(iter(stimulus.values())))
    neurons = {name: op for name, op in net.nodes.items() if op["op"] in ("Neuron", "Readout")}
    total = samples * net.steps + max(op["phase"] for op in neurons.values())
    sent = {
        name: np.zeros((total, int(np.prod(op["shape"]))), np.int64) for name, op in net.nodes.items() if "shape" in op
    }
    for name, values in stimulus.items():
        sent[name][: samples * net.steps] = values.reshape(samples * net.steps, -1)
    potential = {name: np.zeros_like(sent[name]) for name in neurons}
    state = {name: [np.zeros(sent[name].shape[1], np.int64)] * 2 for name in neurons}
    for step in range(total):
        for name, op in neurons.items():
            current = np.zeros(sent[name].shape[1], np.int64)
            for source, target, delay, matrix in net.links:
                if target == name and step - 1 - delay >= 0:
                    current += matrix @ sent[source][step - 1 - delay]
            state[name], sent[name][step] = _neuron(net, name, op, step, state[name], current)
            potential[name][step] = state[name][1]
    trace = {}
    for name, op in neurons.items():
        window = slice(op["phase"], op["phase"] + samples * net.steps)
        shape = (samples, net.steps, *op["shape"])
        trace[f"{name}.s"], trace[f"{name}.v"] = (
            sent[name][window].reshape(shape),
            potential[name][window].reshape(shape),
        )
    return trace


def _neuron(
    net: Net, name: str, op: Any, step: int, state: list[Integers], current: Integers
) -> tuple[list[Integers], Integers]:
    u, v = state
    if (step - op["phase"]) % net.steps == 0:
        u, v = np.zeros_like(u), np.zeros_like(v)
    du, dv, vth = 4095, 0, 131071
    if op["op"] == "Neuron":
        du, dv, vth = op["alpha"]["mantissa"] - 1, op["beta"]["mantissa"], op["threshold"]["mantissa"]
    mantissa = net.arrays.get(f"{name}.bias", op["bias"]["mantissa"])
    bias = np.broadcast_to(mantissa, op["shape"]).ravel() * 2 ** (op["bias"]["exponent"] + 6)
    u = tz(u * (4096 - (du + 1))) + (current << 6)
    u = np.where(u > M, u - 2 * M, np.where(u <= -M, u + 2 * M, u))
    v = np.clip(tz(v * (4096 - dv)) + u + bias.astype(np.int64), -(M - 1), M - 1)
    fired = v > vth << 6
    return [u, np.where(fired, 0, v)], fired.astype(np.int64)
