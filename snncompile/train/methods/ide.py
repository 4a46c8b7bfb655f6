"""IDE: feedback networks trained at their equilibrium by implicit differentiation.

The network is simulated without a gradient; its (weighted) mean rates come close to an equilibrium ``a = f(a)``, with
f the layers of the loop in which every population is ``clamp(current / threshold, 0, 1)``. With J = df/da at the
measured rates and g = dL/da, the gradient of the parameters inside f is ``x^T df/dparameters`` where ::

    x = J^T x + g

The forward value stays the measured rate. The equation is solved by iterating it; where the residual ``|J^T x + g - x|
/ |g|`` does not fall below the tolerance, by the damped iteration ``x <- x + (J^T x + g - x) / 2``; the better of both
is taken, and its residual told. Norms inside the loop use their running statistics while spikes flow, and learn them
in the one pass of f. Norms in front of it take their statistics from the mean input.

Source: Xiao, Meng, Zhang, Wang, Lin, "Training Feedback Spiking Neural Networks by Implicit Differentiation on the
Equilibrium State", NeurIPS 2021. What its code does otherwise, and wrongly (the ``iter`` solver, which solves another
equation; the weighted mean of frames, which changes the frames), is not done here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from snncompile.errors import SheetError
from snncompile.recipe import Recipe
from snncompile.recipe.methods import IdeSettings
from snncompile.train.course import Course, right
from snncompile.train.feedback import RESTRICTED
from snncompile.train.layers import Signal
from snncompile.train.networks import INPUT, Network
from snncompile.train.neurons import Spiking
from snncompile.train.optimisers import Precision
from snncompile.train.processes import Processes
from snncompile.train.representation import mean_over_time

_Norm = nn.BatchNorm1d | nn.BatchNorm2d
ALONE, WHOLE = Processes(), Precision("float32")


@dataclass(frozen=True)
class Solution:
    """x of ``x = J^T x + g``, its relative residual, and whether damping was needed."""

    x: Tensor
    residual: float
    damped: bool


def solve(
    transposed: Callable[[Tensor], Tensor],
    g: Tensor,
    iterations: int,
    tolerance: float,
    norm: Callable[[Tensor], float] = ALONE.norm,
) -> Solution:
    """Solve ``x = J^T x + g``; ``transposed`` applies J^T. The residual says how well. With the ``norm`` over all
    processes they iterate alike, as one would on the whole batch.
    """
    size = norm(g)
    if size == 0.0:
        return Solution(torch.zeros_like(g), 0.0, damped=False)
    best = Solution(g, float("inf"), damped=False)
    for damped in (False, True):
        x = g
        for _ in range(iterations):
            following = transposed(x) + g
            residual = norm(following - x) / size
            if residual < best.residual:
                best = Solution(x, residual, damped)
            if residual < tolerance:
                return Solution(following, residual, damped)
            x = x + (following - x) * (0.5 if damped else 1.0)
            if not residual < 1e6:  # it runs away
                break
    return best


class Loop:
    """The parts of a network with one loop: layers in front of it, the loop, and layers behind it."""

    def __init__(self, network: Network) -> None:
        self.network = network
        (self.steps,) = network.loops.values()
        inside = {step.name for step in self.steps}
        plan = network.plan
        first, last = plan.index(self.steps[0]), plan.index(self.steps[-1])
        self.front, self.behind = plan[:first], plan[last + 1 : -1]
        (self.back,) = {source for step in self.steps if step.delay for source in step.sources}
        self.decay = network.readout.decay
        self.norms = [module for name in inside if isinstance(module := network.modules_of[name], _Norm)]

    def lead_in(self, x: Tensor) -> tuple[dict[str, Tensor], dict[str, Signal]]:
        """The layers in front of the loop: on the mean input, with a gradient, and at every step, without one."""
        shown = self.network.shown(x)
        means = {INPUT: shown.value if shown.static else mean_over_time(shown.timed(), self.decay)}
        signals = {INPUT: shown}
        for step in self.front:
            module = self.network.modules_of[step.name]
            mean = _sum([means[source] for source in step.sources])
            means[step.name] = module(mean)
            if shown.static:
                signals[step.name] = Signal(means[step.name].detach(), shown.steps, static=True)
                continue
            with torch.no_grad():
                each = Signal.sum([signals[source] for source in step.sources]).value
                value = _normed_as(module, mean, each) if isinstance(module, _Norm) else module(each)
            signals[step.name] = Signal(value, shown.steps, static=False)
        return means, signals

    @torch.no_grad()
    def rate(self, signals: dict[str, Signal], precision: Precision = WHOLE) -> Tensor:
        """Simulate all steps; the (weighted) mean of what the last population of the loop sent."""
        training = [norm.training for norm in self.norms]
        for norm in self.norms:
            norm.eval()
        with precision.forward():
            self.network.run_loop(self.steps, signals, None)
        for norm, was in zip(self.norms, training, strict=True):
            norm.train(was)
        return mean_over_time(signals[self.back].timed(), self.decay)

    def f(self, a: Tensor, means: dict[str, Tensor]) -> Tensor:
        """What the last population of the loop sends in the mean when it receives ``a`` of itself."""
        values = dict(means)
        for step in self.steps:
            module = self.network.modules_of[step.name]
            arriving = _sum([a if step.delay else values[source] for source in step.sources])
            if isinstance(module, Spiking):
                values[step.name] = (arriving / module.threshold).clamp(0.0, 1.0) * module.amplitude
            else:
                values[step.name] = module(arriving)
        return values[self.back]

    def answer(self, a: Tensor) -> Tensor:
        """The layers behind the loop on mean rates: linear, so they give the mean output."""
        values = {self.back: a}
        for step in self.behind:
            values[step.name] = self.network.modules_of[step.name](_sum([values[source] for source in step.sources]))
        return _sum([values[source] for source in self.network.plan[-1].sources])


class Ide(Course):
    """Cross entropy of the answer at the measured rates; the loop's parameters by the implicit gradient.

    In half precision the loop is simulated in it, which is most of the work. The equation of the gradient is not: its
    residual could not come below the roundoff.
    """

    network: Network

    @property
    def settings(self) -> IdeSettings:
        """The method's table."""
        assert isinstance(self.recipe.settings, IdeSettings)
        return self.recipe.settings

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe)
        _demand_one_loop(recipe, self.network)
        self.loop = Loop(self.network)
        self.told: list[tuple[float, bool, float]] = []

    def begin_epoch(self, epoch: int) -> None:
        self.told = []

    def step(self, x: Tensor, labels: Tensor) -> tuple[float, int]:
        for module in self.network.modules():
            if isinstance(module, RESTRICTED):
                module.iterate()
        means, signals = self.loop.lead_in(x)
        rate = self.loop.rate(signals, self.precision).requires_grad_()
        output = self.loop.answer(rate)
        loss = functional.cross_entropy(output, labels)
        (g,) = torch.autograd.grad(loss, rate, retain_graph=True)
        given = rate.detach().requires_grad_()
        settled = self.loop.f(given, means)

        def transposed(vector: Tensor) -> Tensor:
            return torch.autograd.grad(settled, given, vector, retain_graph=True)[0]

        solution = solve(transposed, g, self.settings.iterations, self.settings.tolerance, self.processes.norm)
        gap = float((settled.detach() - given.detach()).abs().mean())
        self.told.append((solution.residual, solution.damped, gap))
        self.descend(loss + (settled * solution.x).sum() - float((settled * solution.x).sum().detach()))
        return float(loss.detach()), right(output, labels)

    def metrics(self) -> dict[str, Any]:
        if not self.told:
            return {}
        residuals, damped, gaps = zip(*self.told, strict=True)
        return {
            "residual": max(residuals),
            "damped_batches": sum(damped),
            "equilibrium_gap": self.processes.sums([sum(gaps) / len(gaps)])[0] / self.processes.count,
        }


def _demand_one_loop(recipe: Recipe, network: Network) -> None:
    where = f"{recipe.name}, network.architecture"
    if len(network.loops) != 1:
        raise SheetError(f"has {len(network.loops)} loops", where=where, why="ide trains networks of one Loop(...)")
    ((first, _),) = network.loops.items()
    for step in network.plan:
        if step.name == first:
            return
        if isinstance(network.modules_of[step.name], Spiking):
            raise SheetError(f"{step.name} fires in front of the loop", where=where, why="f begins at the input")


def _normed_as(norm: _Norm, mean: Tensor, each: Tensor) -> Tensor:
    """Values of all steps normed by the batch statistics of their mean (in training), or by the running ones."""
    if not norm.training:
        given: Tensor = norm(each)
        return given
    axes = (0, *range(2, mean.dim()))
    variance, average = torch.var_mean(mean, dim=axes, correction=0)
    return functional.batch_norm(each, average, variance, norm.weight, norm.bias, False, 0.0, norm.eps)


def _sum(arriving: list[Tensor]) -> Tensor:
    first = arriving[0]
    for other in arriving[1:]:
        first = first + other
    return first
