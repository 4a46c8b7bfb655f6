"""ASF: training by accumulated spiking flow.

All steps are simulated without a gradient; kept are, per population, the sums of what arrived (FI) and of what was sent
(FO). Then one differentiable pass over the sums, whose cost does not depend on T. Weights are linear, so ``FI = W FO``
of the population before is exact; a population passes the value FO on and the gradient ::

    dL/dFI = S 1[FI > 0] dL/dFO,    S = sum(FO) / sum(FI) over batch and population, where FI >= FO

S is averaged: at every batch of every fifth epoch ``0.6 S + 0.4 (average so far)``, from 1 on. Behind pools S is taken
over all, and it is 1 where ``sum(FI)`` is below 0.001. That is the authors' code. The rule of their slides,
``slides``, has no mask, no gate and no average; with weights of random sign its ratio is often negative, and it does
not train.

A maximum pool passes the sum of the maxima on and the gradient of the maximum of the sums, as that code does.

Source: Wu, Zhang, Weng, Zhang, Xiong, Zha, Sun, Wu, "Training Spiking Neural Networks with Accumulated Spiking Flow",
AAAI 2021.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from snncompile.errors import ReadError, SheetError
from snncompile.recipe import Recipe
from snncompile.recipe.methods import AsfSettings
from snncompile.run.trace import Array
from snncompile.train.course import Course, right
from snncompile.train.encoders import EVALUATION, encoded
from snncompile.train.losses import squared_loss
from snncompile.train.networks import INPUT, Network
from snncompile.train.neurons import Spiking, whole
from snncompile.train.processes import Processes

ALONE = Processes()
SMALLEST = 1e-3
"""A sum of currents below this has no ratio."""


@dataclass
class Flows:
    """Sums over all steps, [B, ...]: of the input, of what arrived at populations, and of what they (and maximum pools)
    sent.
    """

    given: Tensor
    arrived: dict[str, Tensor] = field(default_factory=dict)
    sent: dict[str, Tensor] = field(default_factory=dict)


@torch.no_grad()
def simulate(network: Network, x: Tensor) -> Flows:
    """All steps, one after the other; nothing of a step is kept but the states and the sums."""
    shown = network.shown(x).timed()
    flows = Flows(shown.sum(dim=0))
    potentials: dict[str, Tensor] = {}
    for t in range(network.steps):
        now = {INPUT: shown[t]}
        for step in network.plan[:-1]:
            module = network.modules_of[step.name]
            arriving = _sum([now[source] for source in step.sources])
            if isinstance(module, Spiking):
                now[step.name], _, potentials[step.name] = module.step(arriving, potentials.get(step.name))
                _add(flows.arrived, step.name, whole(arriving))
            else:
                now[step.name] = module(arriving)
            if isinstance(module, Spiking | nn.MaxPool2d):
                _add(flows.sent, step.name, whole(now[step.name]))
    return flows


def through_sums(network: Network, flows: Flows, ratios: Mapping[str, Tensor], *, gated: bool = True) -> Tensor:
    """The sum of the outputs over the steps [B, classes], with the gradient of the rule; one pass for all steps."""
    signals = {INPUT: flows.given}
    for step in network.plan[:-1]:
        module = network.modules_of[step.name]
        arriving = _sum([signals[source] for source in step.sources])
        if isinstance(module, Spiking):
            passed = ratios[step.name] * (arriving - arriving.detach())
            signals[step.name] = flows.sent[step.name] + (passed * (flows.arrived[step.name] > 0) if gated else passed)
        elif isinstance(module, nn.MaxPool2d):
            largest = module(arriving)
            signals[step.name] = flows.sent[step.name] + (largest - largest.detach())
        else:
            signals[step.name] = _summed(module, arriving, network.steps)
    return _sum([signals[source] for source in network.plan[-1].sources])


def ratio(arrived: Tensor, sent: Tensor, *, masked: bool) -> Tensor:
    """``sum(FO) / sum(FI)``, over the places where FI >= FO if ``masked``; 1 where there is next to no current."""
    return _ratio(*_totals(arrived, sent, masked=masked))


def _totals(arrived: Tensor, sent: Tensor, *, masked: bool) -> tuple[Tensor, Tensor]:
    if masked:
        counted = arrived >= sent
        arrived, sent = arrived * counted, sent * counted
    return arrived.sum(), sent.sum()


def _ratio(current: Tensor, spikes: Tensor) -> Tensor:
    share = spikes / current
    return torch.where(current.abs() < SMALLEST, torch.ones_like(share), share)


def measured(network: Network, flows: Flows, processes: Processes = ALONE, *, masked: bool) -> dict[str, Tensor]:
    """The ratio of every population of one batch, of which each process has a part. Populations behind pools are never
    masked.
    """
    behind = {step.name for step in network.plan if _is_pool(network, step.sources[0])}
    totals = [
        _totals(arrived, flows.sent[name], masked=masked and name not in behind)
        for name, arrived in flows.arrived.items()
    ]
    if processes.count > 1:
        sums = processes.sums([float(one) for pair in totals for one in pair])
        every = torch.tensor(sums, dtype=torch.float64).to(flows.given)
        totals = [(every[index], every[index + 1]) for index in range(0, len(every), 2)]
    return {name: _ratio(*total) for name, total in zip(flows.arrived, totals, strict=True)}


class Asf(Course):
    """Squared error of ``V(T) / (T V_threshold)`` of the output, which integrates and does not fire."""

    network: Network

    @property
    def settings(self) -> AsfSettings:
        """The method's table."""
        assert isinstance(self.recipe.settings, AsfSettings)
        return self.recipe.settings

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe)
        _demand_sums(recipe, self.network)
        self.ratios = {
            name: torch.ones(()) for name, module in self.network.modules_of.items() if isinstance(module, Spiking)
        }

    def step(self, x: Tensor, labels: Tensor) -> tuple[float, int]:
        official = self.settings.rule == "official"
        with self.precision.forward():
            flows = simulate(self.network, x)
        if not official:
            self.ratios = measured(self.network, flows, self.processes, masked=False)
        elif self.epoch % self.settings.refresh == 0:
            kept = self.settings.momentum
            for name, share in measured(self.network, flows, self.processes, masked=True).items():
                self.ratios[name] = (1.0 - kept) * share + kept * self.ratios[name]
        scale = self.network.steps * self.recipe.neuron.threshold
        with self.precision.forward():
            output = whole(through_sums(self.network, flows, self.ratios, gated=official)) / scale
        loss = squared_loss(output, labels)
        parts = self.processes.parts  # the loss is a sum over the batch; what the processes share is a mean
        self.descend(loss * (parts if official else 0.5 * parts))
        return float(loss.detach()) / len(x), right(output, labels)

    def shown(self, x: Array, indices: Array, epoch: int | None) -> Array:
        return encoded(self.recipe, x, indices=indices, epoch=EVALUATION if epoch is None else epoch + 1)

    def extra(self) -> dict[str, object]:
        return {"ratios": {name: float(share) for name, share in self.ratios.items()}}

    def restore(self, content: Mapping[str, Any], where: str) -> None:
        ratios = content.get("ratios")
        numbers = isinstance(ratios, dict) and all(isinstance(share, float) for share in ratios.values())
        if not isinstance(ratios, dict) or not numbers or ratios.keys() != self.ratios.keys():
            raise ReadError("its ratios are damaged", where=where, remedy="train again with --force")
        self.ratios = {name: torch.tensor(share) for name, share in ratios.items()}


def _demand_sums(recipe: Recipe, network: Network) -> None:
    """Raise SheetError where something between the populations is not a sum."""
    for step in network.plan:
        if isinstance(network.modules_of[step.name], nn.BatchNorm1d | nn.BatchNorm2d) or step.delay:
            raise SheetError(
                f"{step.name} has no accumulated flow",
                where=f"{recipe.name}, network.norm",
                why="ASF needs sums between its neurons: no batch norm, no feedback",
                remedy="say norm = false and dense_norm = false",
            )


def _summed(module: nn.Module, arriving: Tensor, steps: int) -> Tensor:
    """What a linear module gives for the sum of its inputs: its bias came at every step."""
    given: Tensor = module(arriving)
    bias: Tensor | None = getattr(module, "bias", None)
    if bias is None or steps == 1:
        return given
    return given + (steps - 1) * bias.reshape(-1, *(1,) * (given.dim() - 2))


def _is_pool(network: Network, name: str) -> bool:
    return name != INPUT and isinstance(network.modules_of[name], nn.AvgPool2d)


def _sum(arriving: list[Tensor]) -> Tensor:
    total = arriving[0]
    for other in arriving[1:]:
        total = total + other
    return total


def _add(sums: dict[str, Tensor], name: str, value: Tensor) -> None:
    sums[name] = sums[name].add_(value) if name in sums else value.clone()
