"""A lowered graph as the nodes of NIR, number by number.

    LIF, LI     r = 1 / beta, so that 1 / r is beta again to the last bit where float64 has such a number; tau = r dt
    CubaLIF     the same, and w_in = 1 / alpha, tau_syn = w_in dt
    IF, I       r = 1 / dt
    soft reset  LI -> Threshold -> Scale -> LI,  Scale = -(1 - beta) amount; its edge back is the loop's delay of a step

With unit gain r = 1 and tau = dt / beta. Parameters have the full shape of their population: readers take no others.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from snncompile.backends.nir_loops import Pair, as_read, implied
from snncompile.backends.nir_profiles import Profile
from snncompile.backends.nir_sketch import is_compared
from snncompile.errors import InternalError, NotRepresentable
from snncompile.fixed import Reals
from snncompile.frontends.nir_record import Net, Node, Value
from snncompile.frontends.nir_time import inverse
from snncompile.ir.graph import Edge, Graph
from snncompile.ir.ops import By, Conv, Dense, Flatten, Input, Neuron, Op, Output, Pool, Readout, Scale, Shape, To, real
from snncompile.ir.shapes import shapes


@dataclass(frozen=True)
class Written:
    """The records of a file. ``names``: op -> node; ``spikes``: population -> the node whose output is its spikes;
    ``late``: the edges that deliver a step late without a node that says so; ``notes``: which numbers no float64 gives
    back exactly.
    """

    net: Net
    names: Mapping[str, str]
    spikes: Mapping[str, str]
    late: frozenset[Pair]
    notes: tuple[str, ...] = ()


def written(graph: Graph, profile: Profile) -> Written:
    """A graph that ``lower`` made as the records of a file. Raises ``NotRepresentable`` where the readers would put a
    delay elsewhere.
    """
    plain = _Writer(graph, profile, _names(graph, "")).write()
    if not profile.single or not _misread(plain, profile):
        return plain
    ordered = _Writer(graph, profile, _names(graph, "n")).write()
    wrong = _misread(ordered, profile)
    if wrong:
        why = f"the readers of profile {profile.name} run nodes in another order, and take it from the step before"
        raise NotRepresentable(f"would be read one step late: {wrong}", where="nir", why=why)
    return ordered


def _misread(made: Written, profile: Profile) -> str:
    """The first edge that the readers delay though the network does not, or the other way round; empty where none."""
    start = next(name for name, node in made.net.nodes.items() if isinstance(node, Node) and node.kind == "Input")
    found = as_read(tuple(made.net.nodes), made.net.edges, start, profile.walk)
    if found is None:
        return "a loop that nothing enters"
    different = sorted(found ^ made.late)
    return " -> ".join(different[0]) if different else ""


def _names(graph: Graph, prefix: str) -> dict[str, str]:
    """Names that HDF5, torch and Python admit; with a prefix in the order of computation."""
    found: dict[str, str] = {}
    for index, name in enumerate(graph.order):
        word = re.sub(r"[^A-Za-z0-9_]", "_", name)
        if not word or word[0].isdigit() or keyword.iskeyword(word):
            word = f"_{word}"
        word = f"{prefix}{index:04d}_{word}" if prefix else word
        while word in found.values():
            word += "_"
        found[name] = word
    return found


@dataclass
class _Writer:
    graph: Graph
    profile: Profile
    names: Mapping[str, str]
    nodes: dict[str, Node] = field(default_factory=dict)
    edges: list[Pair] = field(default_factory=list)
    sends: dict[str, str] = field(default_factory=dict)  # op -> the node that sends its output
    late: set[Pair] = field(default_factory=set)
    held: set[Pair] = field(default_factory=set)  # edges of the graph that are written
    notes: list[str] = field(default_factory=list)

    def write(self) -> Written:
        self.extent = shapes(self.graph)
        for name in self.graph.order:
            self._node(name, self.graph.nodes[name])
        silent = implied(self.graph) if self.profile.loops == "and Delay" else frozenset(self.graph.edges)
        place = {name: index for index, name in enumerate(self.graph.order)}
        for edge in sorted(self.graph.edges, key=lambda edge: (place[edge.source], place[edge.target])):
            self._edge(edge, silent)
        spikes = {name: self.sends[name] for name in self.graph.names(Neuron)}
        net = Net(self.nodes, tuple(self.edges))
        return Written(net, dict(self.names), spikes, frozenset(self.late), tuple(self.notes))

    def _edge(self, edge: Edge, silent: frozenset[Edge]) -> None:
        source, target = self.sends[edge.source], self.names[edge.target]
        if edge.delay and edge not in silent:
            late = f"{source}_late{edge.delay}"
            if late not in self.nodes:
                steps = np.full(self.extent[edge.source], edge.delay * self.profile.dt)
                self._add(late, "Delay", {"delay": steps}, edge.source)
                self.edges.append((source, late))
            source = late
        elif edge.delay:
            self.late.add((source, target))
        if (source, target) in self.held:
            why = "a file holds each edge once, and no delay with it"
            raise NotRepresentable("two edges of different delays", where=f"{edge.source} -> {edge.target}", why=why)
        self.held.add((source, target))
        self.edges.append((source, target))

    def _add(self, name: str, kind: str, fields: Mapping[str, Value], of: str) -> None:
        if kind not in self.profile.nodes | {"Input", "Output"}:
            why = f"the readers of profile {self.profile.name} read no {kind}"
            raise NotRepresentable(f"is a {kind} in NIR", where=self.graph.label(of), why=why)
        if name in self.nodes:
            raise NotRepresentable(f"two nodes are called {name}", where=self.graph.label(of), remedy="rename one")
        self.nodes[name] = Node(kind, fields, name)

    def _node(self, name: str, op: Op) -> None:
        word = self.sends[name] = self.names[name]
        shape = self.extent[name]
        edges = self.graph.into(name)
        arriving = self.extent[edges[0].source] if edges else shape
        match op:
            case Input() | Output():
                self._add(word, type(op).__name__, {"shape": np.asarray(shape, dtype=np.int64)}, name)
            case Dense():
                self._dense(name, op)
            case Conv():
                self._conv(name, op, arriving)
            case Pool():
                sizes = {"kernel_size": op.kernel, "stride": op.stride, "padding": op.padding}
                kind = "SumPool2d" if op.kind == "sum" else "AvgPool2d"
                self._add(word, kind, {key: np.asarray(size, dtype=np.int64) for key, size in sizes.items()}, name)
            case Flatten():
                ends = {"start_dim": np.asarray(0), "end_dim": np.asarray(-1)}
                self._add(word, "Flatten", {"input_type": np.asarray(arriving, dtype=np.int64), **ends}, name)
            case Scale():
                self._add(word, "Scale", {"scale": np.array(np.broadcast_to(real(op.factor), shape))}, name)
            case Neuron():
                self._neuron(name, op)
            case Readout() if op.decay == 1:
                self._add(word, "I", {"r": self._whole(op.shape)}, name)
            case Readout():
                beta = np.full(op.shape, 1.0 - op.decay)
                self._add(word, "LI", self._leaky(name, beta, beta * 0.0) | {"v_leak": beta * 0.0}, name)
            case _:
                raise InternalError(f"{self.graph.label(name)} is left")

    def _typed(self, values: Reals) -> Value:
        return np.array(values, dtype=self.profile.dtype)

    def _dense(self, name: str, op: Dense) -> None:
        weight = {"weight": self._typed(real(op.weight))}
        if op.bias is None and "Linear" in self.profile.nodes:
            self._add(self.names[name], "Linear", weight, name)
            return
        self._add(self.names[name], "Affine", weight | {"bias": self._bias(op)}, name)

    def _bias(self, op: Dense | Conv) -> Value:
        """NIR cannot write a missing bias."""
        return self._typed(np.zeros(op.weight.shape[0]) if op.bias is None else real(op.bias))

    def _conv(self, name: str, op: Conv, arriving: Shape) -> None:
        axes = len(arriving) - 1
        sizes = {"stride": op.stride, "padding": op.padding, "dilation": op.dilation, "input_shape": arriving[1:]}
        fields: dict[str, Value] = {"weight": self._typed(real(op.weight)), "bias": self._bias(op)}
        for key, size in sizes.items():
            fields[key] = np.asarray(size if axes > 1 else size[0], dtype=np.int64)
        self._add(self.names[name], f"Conv{axes}d", fields | {"groups": np.asarray(1)}, name)

    def _neuron(self, name: str, op: Neuron) -> None:
        word = self.names[name]
        beta, alpha = self._full(op, op.beta), self._full(op, op.alpha)
        rest = {"v_leak": self._full(op, op.rest)}
        subtracts = isinstance(op.reset, By) and self.profile.reset != "subtract"
        reset = self._full(op, op.reset.value) if isinstance(op.reset, To) else np.zeros(op.shape)
        fires = {"v_threshold": self._full(op, op.threshold), "v_reset": reset}
        if is_compared(op) and "Threshold" in self.profile.nodes:
            self._add(word, "Threshold", {"threshold": self._full(op, op.threshold)}, name)
        elif subtracts:
            self._soft(name, op, beta, rest)
        elif np.any(alpha != 1.0):
            self._add(word, "CubaLIF", self._cuba(name, alpha, beta) | rest | fires, name)
        elif not np.any(beta):
            self._add(word, "IF", {"r": self._whole(op.shape)} | fires, name)
        else:
            self._add(word, "LIF", self._leaky(name, beta, real(op.gain)) | rest | fires, name)

    def _full(self, op: Neuron, param: object) -> Reals:
        return np.array(np.broadcast_to(real(param), op.shape))  # type: ignore[arg-type]

    def _whole(self, shape: Shape) -> Reals:
        """The r of an integrator whose inputs count whole."""
        return np.full(shape, 1.0 if self.profile.gain == "1" else 1.0 / self.profile.dt)

    def _leaky(self, name: str, beta: Reals, gain: Reals) -> dict[str, Value]:
        dt = self.profile.dt
        if self.profile.decay == "exp":
            with np.errstate(divide="ignore"):
                tau = np.where(beta == 1.0, 0.0, -1.0 / np.log1p(-beta))
            return {"tau": tau, "r": np.ones_like(beta)}
        tau = near(dt / beta, lambda tau: 1.0 - dt / tau == 1.0 - beta)
        if self.profile.gain == "1":
            return {"tau": near(dt / beta, lambda tau: dt / tau == beta), "r": np.ones_like(beta)}
        return {"tau": tau, "r": self._inverse(name, "beta", beta)}

    def _inverse(self, name: str, what: str, decay: Reals) -> Reals:
        found = near(1.0 / decay, lambda r: inverse(r) == decay)
        wrong = int(np.sum(inverse(found) != decay))
        if wrong:
            self.notes.append(
                f"{name}: {what} of {wrong} neurons is one unit of float64 off in the numbers (no float64 has it "
                "as its inverse), exact in the metadata"
            )
        return found

    def _cuba(self, name: str, alpha: Reals, beta: Reals) -> dict[str, Value]:
        dt = self.profile.dt
        r, w_in = self._inverse(name, "beta", beta), self._inverse(name, "alpha", alpha)
        tau_mem = near(dt / beta, lambda tau: 1.0 - dt / tau == 1.0 - beta)
        tau_syn = near(dt / alpha, lambda tau: 1.0 - dt / tau == 1.0 - alpha)
        return {"tau_mem": tau_mem, "tau_syn": tau_syn, "r": r, "w_in": w_in}

    def _soft(self, name: str, op: Neuron, beta: Reals, rest: Mapping[str, Value]) -> None:
        assert isinstance(op.reset, By)
        word, amount = self.names[name], self._full(op, op.reset.amount)
        if np.any(beta):
            self._add(word, "LI", self._leaky(name, beta, real(op.gain)) | dict(rest), name)
        else:
            self._add(word, "I", {"r": self._whole(op.shape)}, name)
        kept, gain = 1.0 - beta, np.broadcast_to(real(op.gain), op.shape)
        with np.errstate(divide="ignore", invalid="ignore"):
            back = near(-(kept * amount) / gain, lambda back: -(back * gain) / kept == amount)
            wrong = int(np.sum(-(back * gain) / kept != amount))
        if wrong and np.all(kept > 0):
            self.notes.append(f"{name}: the reset of {wrong} neurons is one unit of float64 off in the numbers")
        self.sends[name], reset = f"{word}_spike", f"{word}_reset"
        self._add(self.sends[name], "Threshold", {"threshold": self._full(op, op.threshold)}, name)
        self._add(reset, "Scale", {"scale": back}, name)
        self.edges += [(word, self.sends[name]), (self.sends[name], reset), (reset, word)]


def near(first: Reals, holds: Callable[[Reals], Any]) -> Reals:
    """``first``, or element by element the nearest number within four units of it for which ``holds``."""
    found, settled = np.array(first), np.asarray(holds(first), dtype=bool)
    low = high = found
    for _ in range(4):
        low, high = np.nextafter(low, -np.inf), np.nextafter(high, np.inf)
        for other in (low, high):
            better = ~settled & holds(other)
            found, settled = np.where(better, other, found), settled | np.asarray(better)
    return np.asarray(found)
