"""NIR by its equations: what a graph of the package ``nir`` does, node by node and step by step, without our graph.

Linear nodes run in torch, in float64; time constants, resistances and weights of the tests are dyadic, so that nothing
is rounded and all that is compared is compared to the last bit.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import nir
import numpy as np
import torch

Array = np.ndarray[Any, Any]


@dataclass
class Model:
    """``dt`` and the semantics are as the reader of the file was told; ``late``: edges that take a step."""

    graph: nir.NIRGraph
    dt: float
    semantics: str = "euler"
    late: frozenset[tuple[str, str]] = frozenset()
    current: str = "new"
    per_step: bool = False

    def run(self, x: dict[str, Array]) -> dict[str, Array]:
        """Input -> [steps, *shape]; what every node sends, [steps, *shape]."""
        steps = len(next(iter(x.values())))
        sent: dict[str, list[Array]] = defaultdict(list)
        states: dict[str, dict[str, Array]] = defaultdict(dict)
        for t in range(steps):
            for name in self._order():
                node = self.graph.nodes[name]
                if isinstance(node, nir.Input):
                    sent[name].append(np.asarray(x[name][t], dtype=np.float64))
                    continue
                arriving = [
                    sent[source][t - 1] * 1.0 if t else np.zeros_like(self._shape_like(source, sent))
                    for source, target in self.graph.edges
                    if target == name and (source, target) in self.late
                ] + [sent[s][t] for s, target in self.graph.edges if target == name and (s, target) not in self.late]
                sent[name].append(self._step(name, node, sum(arriving[1:], arriving[0]), states[name], sent, t))
        return {name: np.stack(values) for name, values in sent.items()}

    def _shape_like(self, source: str, sent: dict[str, list[Array]]) -> Array:
        node = self.graph.nodes[source]
        return np.zeros(tuple(node.output_type["output"])) if not sent[source] else sent[source][0]

    def _order(self) -> list[str]:
        """Every node after what it reads without delay."""
        edges = [edge for edge in self.graph.edges if edge not in self.late]
        order: list[str] = []
        while len(order) < len(self.graph.nodes):
            order += [
                name
                for name in self.graph.nodes
                if name not in order and all(source in order for source, target in edges if target == name)
            ]
        return order

    def _step(
        self, name: str, node: Any, x: Array, state: dict[str, Array], sent: dict[str, list[Array]], t: int
    ) -> Array:
        dt = self.dt
        match node:
            case nir.Output():
                return x
            case nir.Affine():
                return np.asarray(node.weight.astype(np.float64) @ x + node.bias)
            case nir.Linear():
                return np.asarray(node.weight.astype(np.float64) @ x)
            case nir.Scale():
                return np.asarray(node.scale * x)
            case nir.Conv2d() | nir.Conv1d():
                run = torch.nn.functional.conv2d if isinstance(node, nir.Conv2d) else torch.nn.functional.conv1d
                how = {key: _plain(getattr(node, key)) for key in ("stride", "padding", "dilation")}
                weight, bias = (torch.tensor(np.asarray(value, np.float64)) for value in (node.weight, node.bias))
                return run(torch.tensor(x)[None], weight, bias, groups=int(node.groups), **how)[0].numpy()
            case nir.AvgPool2d() | nir.SumPool2d():
                kernel, stride, padding = (_plain(v) for v in (node.kernel_size, node.stride, node.padding))
                mean = torch.nn.functional.avg_pool2d(torch.tensor(x)[None], kernel, stride, padding)[0].numpy()
                return mean * (1 if isinstance(node, nir.AvgPool2d) else int(np.prod(kernel)))
            case nir.Flatten():
                return torch.tensor(x).flatten(int(node.start_dim), int(node.end_dim)).numpy()
            case nir.Threshold():
                return (x > node.threshold).astype(np.float64)
            case nir.Delay():
                back = np.rint(node.delay / dt).astype(int)
                kept = state.setdefault("kept", np.zeros((0, *x.shape)))
                state["kept"] = np.concatenate([kept, x[None]])
                picked = [state["kept"][t - b] if t >= b else 0.0 * x for b in np.unique(back)]
                return np.asarray(
                    sum(np.where(back == b, v, 0.0) for b, v in zip(np.unique(back), picked, strict=True))
                )
            case _:
                return self._neuron(node, x, state)

    def _neuron(self, node: Any, x: Array, state: dict[str, Array]) -> Array:
        dt, one = self.dt, np.zeros(x.shape)
        v = state.get("v", one)
        if isinstance(node, nir.CubaLI | nir.CubaLIF):
            old = state.get("i", one)
            new = state["i"] = old + dt / node.tau_syn * (-old + node.w_in * x)
            drive = new if self.current == "new" else old
            v = v + dt / node.tau_mem * ((node.v_leak - v) + node.r * drive)
        elif isinstance(node, nir.LI | nir.LIF):
            part = dt / node.tau if self.semantics == "euler" else 1 - np.exp(-dt / node.tau)
            v = v + part * ((node.v_leak - v) + node.r * x)
        else:
            v = v + node.r * (1.0 if self.per_step else dt) * x
        if isinstance(node, nir.I | nir.LI | nir.CubaLI):
            state["v"] = v
            return v
        fired = v > node.v_threshold
        state["v"] = np.where(fired, node.v_reset, v)
        return fired.astype(np.float64)


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return value
    return [int(item) for item in np.atleast_1d(value)] if np.size(value) > 1 else int(np.ravel(value)[0])
