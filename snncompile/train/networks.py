"""A recipe as a torch network, kept as a plan that frontends/torch.py reads off step by step."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch
from torch import Tensor, nn

from snncompile.errors import ReadError
from snncompile.recipe import AveragePool, Convolution, FullyConnected, Recipe, Residual, Shape
from snncompile.train.neurons import LIF

INPUT = "input"


@dataclass(frozen=True)
class Step:
    """The module ``name`` works on the sum of what ``sources`` gave; ``input`` is the network's input."""

    name: str
    sources: tuple[str, ...]


class Readout(nn.Module):
    """The non-spiking output: the mean over the steps of [B, T, classes]."""

    def forward(self, outputs: Tensor) -> Tensor:
        return outputs.mean(dim=1)


@dataclass
class _Signal:
    """Values on the way: [T * B, ...] with the steps outermost, or [B, ...] while they are the same at every step."""

    value: Tensor
    static: bool


class Network(nn.Module):
    """A feed-forward spiking network: ``plan`` says what reads what, ``modules_of`` holds the modules by those names.

    The last step is the readout. Input is images [B, C, H, W], shown at every step, or frames [B, T, C, H, W].

    Images are the same at every step, so what comes before the first neurons is computed once and repeated after. That
    changes no value and no batch statistic; only the running variance differs, by the n / (n - 1) of an unbiased
    estimate over n instead of T n values.
    """

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.recipe = recipe
        self.steps = recipe.steps
        self.modules_of = nn.ModuleDict()
        self.plan: tuple[Step, ...] = tuple(_Builder(recipe, self.modules_of).steps)

    @classmethod
    def from_checkpoint(cls, path: str | Path) -> Network:
        """The trained network of a checkpoint, in eval mode. Raises ReadError."""
        from snncompile.train.checkpoint import load_checkpoint

        network = load_checkpoint(path).network()
        if not isinstance(network, cls):
            raise ReadError(
                "was trained in a target's integers", where=str(path), remedy="load_checkpoint(...).network()"
            )
        return network

    def forward(self, x: Tensor) -> Tensor:
        """The output at every step, [B, T, classes]."""
        return self._run(x, None)

    def predict(self, x: Tensor) -> Tensor:
        """The mean of the output over the steps, [B, classes]."""
        answer: Tensor = self.modules_of[self.plan[-1].name](self(x))
        return answer

    @torch.no_grad()
    def record(self, x: Tensor) -> dict[str, Tensor]:
        """What happens in eval mode: ``NAME.s`` and ``NAME.v`` of every LIF, [B, T, ...] (v before the reset), and
        ``.v`` of the readout: the outputs added up so far, [B, T, classes]."""
        training = self.training
        trace: dict[str, Tensor] = {}
        try:
            self.eval()
            trace[f"{self.plan[-1].name}.v"] = self._run(x, trace).cumsum(dim=1)
        finally:
            self.train(training)
        return trace

    def _run(self, x: Tensor, trace: dict[str, Tensor] | None) -> Tensor:
        signals = {INPUT: self._shown(x)}
        for step in self.plan[:-1]:
            module = self.modules_of[step.name]
            arriving = self._added([signals[source] for source in step.sources])
            if not isinstance(module, LIF):
                signals[step.name] = _Signal(module(arriving.value), arriving.static)
                continue
            timed = self._timed(arriving)
            spikes, potentials = module.integrate(timed)
            if trace is not None:
                trace[f"{step.name}.s"] = spikes.transpose(0, 1)
                trace[f"{step.name}.v"] = potentials.transpose(0, 1)
            signals[step.name] = _Signal(spikes.flatten(0, 1), static=False)
        outputs = self._added([signals[source] for source in self.plan[-1].sources])
        return self._timed(outputs).transpose(0, 1)

    def _timed(self, signal: _Signal) -> Tensor:
        """[T, B, ...]; what is the same at every step is not copied."""
        value = signal.value
        if signal.static:
            return value.expand(self.steps, *value.shape)
        return value.reshape(self.steps, -1, *value.shape[1:])

    def _shown(self, x: Tensor) -> _Signal:
        shape = self.recipe.input
        if tuple(x.shape[1:]) == shape:
            return _Signal(x, static=True)
        if tuple(x.shape[1:]) == (self.steps, *shape):
            return _Signal(x.transpose(0, 1).flatten(0, 1), static=False)
        raise ReadError(
            f"has shape {list(x.shape)}",
            where="the network's input",
            why=f"{self.recipe.name} takes images [B, {', '.join(map(str, shape))}] or frames of {self.steps} steps",
        )

    def _added(self, arriving: list[_Signal]) -> _Signal:
        if len(arriving) == 1:
            return arriving[0]
        if all(signal.static for signal in arriving):
            return _Signal(sum((signal.value for signal in arriving[1:]), arriving[0].value), static=True)
        values = [self._timed(signal).flatten(0, 1) for signal in arriving]
        return _Signal(sum(values[1:], values[0]), static=False)


class _Builder:
    """Turns the layers of a recipe into steps and modules; names count per kind and say where they belong."""

    def __init__(self, recipe: Recipe, modules: nn.ModuleDict) -> None:
        self.recipe, self.modules = recipe, modules
        self.steps: list[Step] = []
        self.counts: dict[str, int] = {}
        last: tuple[str, ...] = (INPUT,)  # what a layer reads is their sum
        shape = tuple(recipe.input)
        for index, layer in enumerate(recipe.layers):
            match layer:
                case Convolution():
                    number = self._next("stage")
                    last = self._stage(f"lif{number}", last, shape[0], layer, f"conv{number}", f"norm{number}")
                case AveragePool():
                    last = (self._add(f"pool{self._next('pool')}", nn.AvgPool2d(layer.kernel), *last),)
                case Residual():
                    last = self._block(last, shape, layer, f"block{self._next('block')}")
                case FullyConnected():
                    last = self._connect(last, shape, layer, output=index == len(recipe.layers) - 1)
            shape = layer.shape
        self._add("readout", Readout(), *last)

    def _next(self, kind: str) -> int:
        self.counts[kind] = self.counts.get(kind, 0) + 1
        return self.counts[kind]

    def _add(self, name: str, module: nn.Module, *sources: str) -> str:
        self.modules[name] = module
        self.steps.append(Step(name, sources))
        return name

    def _fire(self, name: str, *sources: str) -> str:
        neuron = self.recipe.neuron
        lif = LIF(neuron.decay, neuron.threshold, neuron.fires, neuron.surrogate_width, neuron.detach_reset)
        return self._add(name, lif, *sources)

    def _convolve(self, sources: tuple[str, ...], channels: int, layer: Convolution, name: str, norm: str) -> str:
        width = layer.kernel // 2
        conv = nn.Conv2d(channels, layer.channels, layer.kernel, layer.stride, width, bias=self.recipe.bias)
        return self._add(norm, nn.BatchNorm2d(layer.channels), self._add(name, conv, *sources))

    def _stage(
        self, fired: str, sources: tuple[str, ...], channels: int, layer: Convolution, name: str, norm: str
    ) -> tuple[str, ...]:
        return (self._fire(fired, self._convolve(sources, channels, layer, name, norm)),)

    def _block(self, sources: tuple[str, ...], shape: Shape, layer: Residual, name: str) -> tuple[str, ...]:
        """Currents are added before the last neurons; spikes after them, so that what comes out is read as a sum."""
        first, second = layer.first, layer.second
        middle = self._stage(f"{name}_lif1", sources, shape[0], first, f"{name}_conv1", f"{name}_norm1")
        last = self._convolve(middle, first.channels, second, f"{name}_conv2", f"{name}_norm2")
        skip = sources
        if shape != layer.shape:
            narrow = Convolution(second.channels, 1, first.stride * second.stride, layer.shape)
            skip = (self._convolve(sources, shape[0], narrow, f"{name}_skip", f"{name}_skip_norm"),)
            if layer.adds == "spikes":
                skip = (self._fire(f"{name}_skip_lif", *skip),)
        if layer.adds == "spikes":
            return (self._fire(f"{name}_lif2", last), *skip)
        return (self._fire(f"{name}_lif2", last, *skip),)

    def _connect(
        self, sources: tuple[str, ...], shape: Shape, layer: FullyConnected, *, output: bool
    ) -> tuple[str, ...]:
        if len(shape) > 1:
            sources = (self._add("flatten", nn.Flatten(), *sources),)
        number = self._next("fc")
        last = self._add(f"fc{number}", nn.Linear(prod(shape), layer.features), *sources)
        if output:
            return (last,)
        stage = self._next("stage")
        if self.recipe.dense_norm:
            last = self._add(f"norm{stage}", nn.BatchNorm1d(layer.features), last)
        return (self._fire(f"lif{stage}", last),)
