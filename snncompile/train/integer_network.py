"""A torch network built from a graph of level ``fixed``: the machine's exact integers forward, gradients behind them.

Any legal graph will do: its synapses, populations, delays and loops become modules one by one. Layer after layer over
all steps at once where the graph has no loop, else step by step. Equal to ``run/integer.py`` bit for bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import networkx as nx
import torch
from torch import Tensor, nn

from snncompile.errors import GraphError, LoweringError, ReadError
from snncompile.ir.connections import Connection, connections
from snncompile.ir.graph import Graph
from snncompile.ir.ops import By, Conv, Dense, Flatten, Input, Neuron, Op, Output, Readout, Scale
from snncompile.ir.shapes import shapes
from snncompile.ir.signals import grid
from snncompile.run.integer import IntegerGraph
from snncompile.target import Target
from snncompile.train.integer_neuron import FLOAT32_HOLDS, Cell, Parameters, leave
from snncompile.train.integer_synapse import Bias, Synapse


@dataclass
class _Sent:
    """What a population sends: [T, B, ...], or [B, ...] while it is the same at every step."""

    value: Tensor
    static: bool


@dataclass(frozen=True)
class Played:
    """One pass. ``spikes`` and ``potentials`` (before the reset, on the machine's grid) [T, B, ...] by population;
    ``outputs`` [T, B, ...] by read-out: what is added at every step, in the units of the trained network.

    Gradients go through ``outputs`` and ``spikes``.
    """

    spikes: dict[str, Tensor]
    potentials: dict[str, Tensor]
    outputs: dict[str, Tensor]


class IntegerNetwork(nn.Module):
    """The network of a ``fixed`` graph in a target's integers. ``width`` and ``detach``: the surrogate's, as in
    ``LIF``.
    """

    def __init__(self, graph: Graph, target: Target, steps: int, *, width: float = 1.0, detach: bool = False) -> None:
        super().__init__()
        known = (Input, Output, Dense, Conv, Scale, Flatten, Neuron, Readout)
        foreign = [graph.label(name) for name, op in graph.nodes.items() if not isinstance(op, known)]
        if foreign:
            why = "only spiking neurons with a threshold, and sums, have gradients here"
            raise LoweringError("cannot be trained in integers", where=", ".join(foreign), why=why)
        self.structure, self.target, self.steps = graph, target, steps
        self.width, self.detach = width, detach
        machine, extent = IntegerGraph(graph, target), shapes(graph)
        self.lines = connections(graph)
        self.arriving = {name: [line for line in self.lines if line.target == name] for name in graph.nodes}
        self.own = {name: _parameters(graph.nodes[name], machine, name) for name in graph.names(Neuron)}
        self.extent, self._forgets = extent, machine.forgets
        self._synapses, self._biases = nn.ModuleList(), nn.ModuleList()
        self.synapses: dict[str, Synapse] = {}
        self.biases: dict[str, Bias] = {}
        for line in self.lines:
            op = graph.nodes[line.synapse]
            assert isinstance(op, Dense | Conv | Scale)
            before = extent[graph.into(line.synapse)[0].source]
            source = extent[line.source] if isinstance(op, Dense) else before
            self.synapses[line.synapse] = Synapse(op, machine.weights[line.synapse], source, target)
            self._synapses.append(self.synapses[line.synapse])
        for name in graph.names(Neuron, Readout):
            op = graph.nodes[name]
            assert isinstance(op, Neuron | Readout)
            on_grid = machine.neurons[name]["bias"] if isinstance(op, Neuron) else machine.readouts[name]
            exponent = getattr(op.bias, "exponent", 0) + target.potential.fraction_bits
            self.biases[name] = Bias(on_grid, exponent, target)
            self._biases.append(self.biases[name])
        flow: nx.DiGraph[str] = nx.DiGraph((line.source, line.target) for line in self.lines)
        self.loops = not nx.is_directed_acyclic_graph(flow)

    def graph(self) -> Graph:
        """The graph with the integers that were trained."""
        changed: dict[str, Op | None] = {}
        for name, synapse in self.synapses.items():
            number, op = synapse.number(), self.structure.nodes[name]
            assert isinstance(op, Dense | Conv | Scale)
            changed[name] = replace(op, factor=number) if isinstance(op, Scale) else replace(op, weight=number)
        for name, bias in self.biases.items():
            op = self.structure.nodes[name]
            assert isinstance(op, Neuron | Readout)
            changed[name] = replace(op, bias=bias.number())
        return self.structure.edit(changed)

    # What users call

    def forward(self, x: Tensor) -> Tensor:
        """The output at every step [B, T, classes], for images [B, ...] or frames [B, T, ...] in reals."""
        return self.play(self.encoded(x)).outputs[self._readout()].transpose(0, 1)

    @torch.no_grad()
    def predict(self, x: Tensor) -> Tensor:
        """The sums of the output over the steps, integers [B, classes]."""
        name = self._readout()
        return self.play(self.encoded(x)).potentials[name][-1]

    @torch.no_grad()
    def record(self, x: Tensor) -> dict[str, Tensor]:
        """``NAME.s`` of every neuron population and integer ``NAME.v`` of all, [B, T, ...]; v before the reset."""
        played = self.play(self.encoded(x))
        trace = {f"{name}.s": spikes.transpose(0, 1) for name, spikes in played.spikes.items()}
        return trace | {f"{name}.v": v.transpose(0, 1).to(torch.int64) for name, v in played.potentials.items()}

    def encoded(self, x: Tensor) -> dict[str, Tensor]:
        """A stimulus as the (only) input receives it: integers [B, ...] or [B, T, ...], as ``quantise.encode``."""
        names = self.structure.names(Input)
        if len(names) != 1:
            raise GraphError(f"has {len(names)} inputs, one array was given", where="stimulus")
        op = self.structure.nodes[names[0]]
        assert isinstance(op, Input)
        if tuple(x.shape[1:]) not in (op.shape, (self.steps, *op.shape)):
            why = f"it takes images {list(op.shape)} or frames {[self.steps, *op.shape]}"
            raise ReadError(f"has shape {list(x.shape)}", where="the network's input", why=why)
        unit, least, most = grid(op.signal)
        scaled = x.double() / unit
        integers = torch.sign(scaled) * torch.floor(scaled.abs() + 0.5)  # halves away from zero
        return {names[0]: torch.clamp(integers, least, most)}

    def play(self, stimulus: Mapping[str, Tensor]) -> Played:
        """Run integers: input name -> [B, *shape], the same at every step, or [B, T, *shape]."""
        sent: dict[str, _Sent] = {}
        for name, values in stimulus.items():
            static = values.dim() - 1 == len(self.extent[name])
            sent[name] = _Sent((values if static else values.transpose(0, 1)).to(torch.float32), static)
        weights = {name: synapse() for name, synapse in self.synapses.items()}
        for name in self.biases:  # the type that holds the sum of all magnitudes holds every sum, in any order
            if self._reach(name, weights)[1] >= FLOAT32_HOLDS:
                weights |= {line.synapse: weights[line.synapse].double() for line in self.arriving[name]}
        biases = {name: bias() for name, bias in self.biases.items()}
        cells = {name: self._cell(name, weights, biases) for name in self.own}
        played = Played({}, {}, {})
        if self.loops:
            self._step_by_step(sent, weights, biases, cells, played)
        else:
            self._layer_by_layer(sent, weights, biases, cells, played)
        return played

    def _readout(self) -> str:
        names = self.structure.names(Readout)
        if len(names) != 1:
            raise GraphError(f"has {len(names)} read-outs", where="the network", remedy="play it instead")
        return names[0]

    # What the machine does

    @torch.no_grad()
    def worst(self, name: str, weights: Mapping[str, Tensor]) -> float:
        """The largest magnitude that a neuron of a population can receive in one step, in weight units."""
        return self._reach(name, weights)[0]

    @torch.no_grad()
    def _reach(self, name: str, weights: Mapping[str, Tensor]) -> tuple[float, float]:
        """The largest magnitude that can arrive in one step, and the largest that a partial sum can have."""
        total = partial = 0.0
        for line in self.arriving[name]:
            one_way, both = self.synapses[line.synapse].worst(weights[line.synapse])
            most, signed = self._range(line.source)
            total += float((both if signed else one_way).max()) * most
            partial += float(both.max()) * most
        return total, partial

    def _range(self, source: str) -> tuple[int, bool]:
        op = self.structure.nodes[source]
        _, least, most = grid(op.signal) if isinstance(op, Input) else (1.0, 0, 1)
        return most, least < 0

    def _cell(self, name: str, weights: Mapping[str, Tensor], biases: Mapping[str, Tensor]) -> Cell:
        largest = float(biases[name].detach().abs().max())
        arriving = self.worst(name, weights)
        return Cell(self.own[name], self.target, self.steps, arriving, largest, width=self.width, detach=self.detach)

    def _delivered(self, line: Connection, weight: Tensor, values: Tensor) -> Tensor:
        """What a connection brings for [N, ...]: sums of integers."""
        arriving = self.synapses[line.synapse].apply_to(values.to(weight.dtype), weight)
        return arriving.reshape(-1, *self.extent[line.target])

    def _layer_by_layer(
        self,
        sent: dict[str, _Sent],
        weights: Mapping[str, Tensor],
        biases: Mapping[str, Tensor],
        cells: Mapping[str, Cell],
        played: Played,
    ) -> None:
        batch = next(iter(sent.values())).value.shape[0 if next(iter(sent.values())).static else 1]
        flow: nx.DiGraph[str] = nx.DiGraph((line.source, line.target) for line in self.lines)
        flow.add_nodes_from(self.biases)
        for name in nx.topological_sort(flow):
            if name in sent:
                continue
            total: Tensor | None = None
            for line in self.arriving[name]:
                brought = self._over_time(line, weights[line.synapse], sent[line.source])
                total = brought if total is None else total + brought
            if total is None:
                total = torch.zeros(self.steps, batch, *self.extent[name])
            if name in cells:
                spikes, potentials, _, _ = cells[name].integrate(total, biases[name], (None, None))
                played.spikes[name], played.potentials[name] = spikes, potentials
                sent[name] = _Sent(spikes.to(torch.float32), static=False)
            else:
                self._read_out(name, total, biases[name], played)

    def _over_time(self, line: Connection, weight: Tensor, sent: _Sent) -> Tensor:
        """What a connection brings at every step [T, B, ...], its delay included."""
        value = sent.value
        if sent.static:
            brought = self._delivered(line, weight, value)
            brought = brought.expand(self.steps, *brought.shape)
        else:
            brought = self._delivered(line, weight, value.flatten(0, 1))
            brought = brought.reshape(*value.shape[:2], *brought.shape[1:])
        late = min(line.delay, self.steps)
        if late:
            brought = torch.cat([torch.zeros_like(brought[:late]), brought[: self.steps - late]])
        return brought

    def _step_by_step(
        self,
        sent: dict[str, _Sent],
        weights: Mapping[str, Tensor],
        biases: Mapping[str, Tensor],
        cells: Mapping[str, Cell],
        played: Played,
    ) -> None:
        """Every population of a step after what it reads without delay; states go from step to step."""
        steps: dict[str, list[Tensor]] = {
            name: list(one.value.expand(self.steps, *one.value.shape) if one.static else one.value)
            for name, one in sent.items()
        }
        batch = next(iter(steps.values()))[0].shape[0]
        steps |= {name: [] for name in self.biases}
        potentials: dict[str, list[Tensor]] = {name: [] for name in cells}
        states: dict[str, tuple[Tensor | None, Tensor | None]] = dict.fromkeys(cells, (None, None))
        order = self.structure.names(Neuron, Readout)
        for t in range(self.steps):
            for name in order:
                total = torch.zeros(batch, *self.extent[name])
                for line in self.arriving[name]:
                    if t >= line.delay:
                        values = steps[line.source][t - line.delay]
                        total = total + self._delivered(line, weights[line.synapse], values)
                if name not in cells:
                    steps[name].append(total)
                    continue
                s, v, u, w = cells[name].integrate(total[None], biases[name], states[name])
                states[name] = u, w
                steps[name].append(s[0].to(torch.float32))
                potentials[name].append(v[0])
        for name in order:
            if name in cells:
                played.spikes[name], played.potentials[name] = torch.stack(steps[name]), torch.stack(potentials[name])
            else:
                self._read_out(name, torch.stack(steps[name]), biases[name], played)

    def _read_out(self, name: str, x: Tensor, bias: Tensor, played: Played) -> None:
        """``a[t] = saturate(decay(a[t-1]) + overflow(2^F x[t]) + bias)``, and what every step adds, in real units."""
        op, sheet = self.structure.nodes[name], self.target
        assert isinstance(op, Readout)
        scale = 2.0**sheet.potential.fraction_bits
        with torch.no_grad():
            held = torch.zeros(x.shape[1:], dtype=torch.float64)
            sums = []
            for step in x.detach().double():
                held = (
                    self._kept(name, held)
                    + leave(step * scale, sheet.current.bits, sheet.current.overflow)
                    + bias.double()
                )
                held = leave(held, sheet.potential.bits, "saturate")
                sums.append(held)
        played.potentials[name] = torch.stack(sums)
        played.outputs[name] = (x + bias / scale).to(torch.float32) * op.unit

    def _kept(self, name: str, sums: Tensor) -> Tensor:
        """``fixed.decay`` of a read-out's sums."""
        lost, whole = int(self._forgets[name]), 2**self.target.decay.bits
        if not lost:
            return sums
        products = sums * (whole - lost) / whole
        return torch.floor(products) if self.target.decay.rounding != "toward-zero" else torch.trunc(products)

    # What training may not do

    @torch.no_grad()
    def constrain(self) -> None:
        """Bring the latent numbers back to what the machine can hold, whatever the input: after every step.

        Weights and biases into their ranges; and where the currents of a population could leave the machine's (the
        condition that ``quantise`` puts on its units), the rows that reach farthest shrink.
        """
        for synapse in self.synapses.values():
            synapse.latent.clamp_(synapse.sheet.least / synapse.scale, synapse.sheet.most / synapse.scale)
        for bias in self.biases.values():
            bias.latent.clamp_(bias.least / bias.scale, bias.most / bias.scale)
        for name in self.biases:
            limit = self._limit(name)
            for _ in range(20):
                weights = {line.synapse: self.synapses[line.synapse].integers() for line in self.arriving[name]}
                arriving = self.worst(name, weights)
                if arriving <= limit:
                    break
                for line in self.arriving[name]:
                    self._shrink(line, weights[line.synapse], 0.98 * limit / arriving)

    def _limit(self, name: str) -> float:
        """How much may arrive at a neuron in one step, in weight units."""
        sheet, op = self.target, self.structure.nodes[name]
        fraction = sheet.potential.fraction_bits
        room = 2.0 ** (sheet.current.bits - 1 - fraction) - 1
        if isinstance(op, Readout):
            largest = float(self.biases[name]().detach().abs().max()) / 2.0**fraction
            return float(min(sheet.sum_most, room, sheet.threshold.most / self.steps - largest))
        alpha = max(1, int(self.own[name].alpha.min())) / 2**sheet.decay.bits
        return float(min(sheet.sum_most, room * alpha))

    def _shrink(self, line: Connection, weight: Tensor, share: float) -> None:
        """Scale the rows of a synapse whose worst sum is more than ``share`` of the largest one's."""
        synapse = self.synapses[line.synapse]
        one_way, both = synapse.worst(weight)
        rows = both if self._range(line.source)[1] else one_way
        factor = torch.clamp(share * rows.max() / torch.clamp(rows, min=1e-9), max=1.0).to(synapse.latent.dtype)
        shape = synapse.latent.shape if isinstance(synapse.op, Scale) else (-1, *(1,) * (synapse.latent.dim() - 1))
        synapse.latent.mul_(factor.reshape(shape))


def _parameters(op: Op, machine: IntegerGraph, name: str) -> Parameters:
    assert isinstance(op, Neuron)
    own = machine.neurons[name]
    return Parameters(
        alpha=own["alpha"],
        beta=own["beta"],
        threshold=own["threshold"],
        reset=own["reset"],
        initial=own["initial"],
        fires=op.fires,
        soft=isinstance(op.reset, By),
    )
