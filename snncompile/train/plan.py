"""From the layers of a recipe to a plan: modules by name, and which reads which."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod, sqrt

import torch
from torch import nn

from snncompile.recipe import Convolution, FullyConnected, Loop, Pooling, Recipe, Residual, Shape
from snncompile.recipe.methods import IdeSettings
from snncompile.train.feedback import RestrictedConv2d, RestrictedConvTranspose2d, RestrictedLinear
from snncompile.train.layers import Readout, Repeat, SharedDropout
from snncompile.train.populations import Role, fires_at_the_output, population, readout_of

INPUT = "input"

Sources = tuple[str, ...]
"""What a layer reads is the sum of these."""


@dataclass(frozen=True)
class Step:
    """The module ``name`` works on the sum of what ``sources`` gave, ``delay`` steps ago; ``input`` is the network's
    input.
    """

    name: str
    sources: Sources
    delay: int = 0


def loops(plan: tuple[Step, ...]) -> dict[str, tuple[Step, ...]]:
    """Every loop of a plan by its first step: from the one that reads with a delay to the last that it reads."""
    found = {}
    for index, step in enumerate(plan):
        if step.delay:
            last = max(place for place, other in enumerate(plan) if other.name in step.sources)
            found[step.name] = plan[index : last + 1]
    return found


class Builder:
    """Turns the layers of a recipe into steps and modules; names count per kind and say where they belong."""

    def __init__(self, recipe: Recipe, modules: nn.ModuleDict) -> None:
        self.recipe, self.options, self.modules = recipe, recipe.options, modules
        self.steps: list[Step] = []
        self.counts: dict[str, int] = {}
        self.looped = any(isinstance(layer, Loop) for layer in recipe.layers)
        self.bare = False  # whether what was built last gives currents that still want norm and neurons (order "pre")
        last: Sources = (INPUT,)
        shape: Shape = tuple(recipe.input)
        for index, layer in enumerate(recipe.layers):
            match layer:
                case Convolution():
                    last = self._convolution(last, shape, layer)
                case Pooling():
                    last = self._pool(last, shape, layer)
                case Residual():
                    last = self._block(last, shape, layer, f"block{self._next('block')}")
                case Loop():
                    last = self._loop(last, shape, layer)
                case FullyConnected():
                    last = self._connect(last, shape, layer, output=index == len(recipe.layers) - 1)
            shape = layer.shape
        self._add("readout", Readout(*readout_of(recipe)), *last)

    def _next(self, kind: str) -> int:
        self.counts[kind] = self.counts.get(kind, 0) + 1
        return self.counts[kind]

    def _add(self, name: str, module: nn.Module, *sources: str, delay: int = 0) -> str:
        self.modules[name] = module
        self.steps.append(Step(name, sources, delay))
        return name

    def _fire(self, name: str, *sources: str, role: Role = "hidden") -> str:
        fired = self._add(name, population(self.recipe, role), *sources)
        if not self.options.dropout or role != "hidden":
            return fired
        share = self.options.dropout
        return self._add(f"{name}_drop", SharedDropout(share) if self.looped else nn.Dropout(share), fired)

    def _norm(self, name: str, shape: Shape, last: Sources) -> Sources:
        """Batch norm, where the network has it; the sources as they are, where not."""
        if not (self.options.norm if len(shape) > 1 else self.options.norm and self.options.dense_norm):
            return last
        norm = nn.BatchNorm2d(shape[0]) if len(shape) > 1 else nn.BatchNorm1d(shape[0])
        nn.init.constant_(norm.weight, self.options.norm_gain)
        return (self._add(name, norm, *last),)

    def _weights(self, name: str, shape: Shape, layer: Convolution, last: Sources, *, bias: bool) -> str:
        if layer.transposed:
            conv: nn.Module = nn.ConvTranspose2d(
                shape[0], layer.channels, layer.kernel, layer.stride, layer.pad, layer.stride - 1, bias=bias
            )
        else:
            conv = nn.Conv2d(shape[0], layer.channels, layer.kernel, layer.stride, layer.pad, bias=bias)
        return self._add(name, initial(conv, self.options.weights), *last)

    def _stage(self, names: tuple[str, str, str], last: Sources, shape: Shape, layer: Convolution) -> Sources:
        """Weights, norm, neurons."""
        weights, norm, fired = names
        bias = self.options.bias and (self.options.stem_bias or last != (INPUT,))
        normed = self._norm(norm, layer.shape, (self._weights(weights, shape, layer, last, bias=bias),))
        return (self._fire(fired, *normed),) if fired else normed

    def _convolution(self, last: Sources, shape: Shape, layer: Convolution) -> Sources:
        number = self._next("stage")
        if self.options.order == "post":
            return self._stage((f"conv{number}", f"norm{number}", f"lif{number}"), last, shape, layer)
        ready = self._ready(last, shape)
        bias = self.options.bias and (self.options.stem_bias or last != (INPUT,))
        self.bare = True
        return (self._weights(f"conv{number}", shape, layer, ready, bias=bias),)

    def _ready(self, last: Sources, shape: Shape, name: str = "") -> Sources:
        """What a layer may read: norm and neurons on currents that have none yet (order "pre")."""
        if not self.bare:
            return last
        self.bare = False
        prefix, number = (f"{name}_", 1) if name else ("", self._next("ready"))
        normed = self._norm(f"{prefix}norm{number}" if name else f"pre_norm{number}", shape, last)
        return (self._fire(f"{prefix}lif{number}" if name else f"pre_lif{number}", *normed),)

    def _pool(self, last: Sources, shape: Shape, layer: Pooling) -> Sources:
        number = self._next("pool")
        made = (self._add(f"pool{number}", _pooling(layer), *self._ready(last, shape)),)
        if self.options.pool_neurons and layer.kind == "mean":
            return (self._fire(f"pool{number}_lif", *made, role="pool"),)
        return made

    def _block(self, last: Sources, shape: Shape, layer: Residual, name: str) -> Sources:
        """Currents are added before the last neurons; spikes after them, so that what comes out is read as a sum."""
        if self.options.order == "pre":
            return self._pre_block(last, shape, layer, name)
        first, second = layer.first, layer.second
        middle = self._stage((f"{name}_conv1", f"{name}_norm1", f"{name}_lif1"), last, shape, first)
        added = self._stage((f"{name}_conv2", f"{name}_norm2", ""), middle, first.shape, second)
        skip = last
        if shape != layer.shape:
            fired = f"{name}_skip_lif" if layer.adds == "spikes" else ""
            skip = self._stage((f"{name}_skip", f"{name}_skip_norm", fired), last, shape, _narrow(layer))
        if layer.adds == "spikes":
            return (self._fire(f"{name}_lif2", *added), *skip)
        return (self._fire(f"{name}_lif2", *added, *skip),)

    def _pre_block(self, last: Sources, shape: Shape, layer: Residual, name: str) -> Sources:
        bias = self.options.bias
        ready = self._ready(last, shape, name)
        middle = (self._weights(f"{name}_conv1", shape, layer.first, ready, bias=bias),)
        middle = (self._fire(f"{name}_lif2", *self._norm(f"{name}_norm2", layer.first.shape, middle)),)
        added = self._weights(f"{name}_conv2", layer.first.shape, layer.second, middle, bias=bias)
        skip = ready
        if shape != layer.shape:
            skip = (self._weights(f"{name}_skip", shape, _narrow(layer), ready, bias=bias),)
        self.bare = True
        return (added, *skip)

    def _loop(self, last: Sources, shape: Shape, layer: Loop) -> Sources:
        """Layers, the first of which also reads what the last sent one step before."""
        number = self._next("loop")
        back, first = f"feedback{number}", layer.layers[0]
        current, shape = self._currents(self._ready(last, shape), shape, first), first.shape
        inner = f"lif{self.counts['stage']}"
        place = len(self.steps)
        last = (self._fire(inner, *current, back),)
        for part in layer.layers[1:]:
            current, shape = self._currents(last, shape, part), part.shape
            last = (self._fire(f"lif{self.counts['stage']}", *current),)
        self._feedback(back, layer.back, shape, last, place)
        return last

    def _currents(self, last: Sources, shape: Shape, layer: Convolution | FullyConnected) -> Sources:
        """Weights and norm of a layer inside a loop."""
        if isinstance(layer, FullyConnected):
            return self._dense(last, shape, layer)
        number = self._next("stage")
        return self._stage((f"conv{number}", f"norm{number}", ""), last, shape, layer)

    def _feedback(
        self, name: str, layer: Convolution | FullyConnected, shape: Shape, last: Sources, place: int
    ) -> None:
        """The weights back: no bias, no norm; they stand in front of the neurons that read them."""
        settings = self.recipe.settings
        restrict = isinstance(settings, IdeSettings) and settings.restrict
        module: nn.Module
        match layer:
            case FullyConnected():
                module = RestrictedLinear(prod(shape), layer.features, restrict=restrict)
            case Convolution(transposed=True):
                sizes = shape[0], layer.channels, layer.kernel, layer.stride
                module = RestrictedConvTranspose2d(*sizes, restrict=restrict)
            case Convolution():
                sizes = shape[0], layer.channels, layer.kernel, layer.stride
                module = RestrictedConv2d(*sizes, restrict=restrict)
        self.modules[name] = module
        self.steps.insert(place, Step(name, last, 1))

    def _dense(self, last: Sources, shape: Shape, layer: FullyConnected) -> Sources:
        """Weights and norm of a hidden layer."""
        last = self._linear(last, shape, layer)
        return self._norm(f"norm{self._next('stage')}", layer.shape, last)

    def _linear(self, last: Sources, shape: Shape, layer: FullyConnected) -> Sources:
        if len(shape) > 1:
            last = (self._add("flatten", nn.Flatten(), *last),)
        linear = nn.Linear(prod(shape), layer.features, bias=self.options.dense_bias)
        return (self._add(f"fc{self._next('fc')}", initial(linear, self.options.weights), *last),)

    def _connect(self, last: Sources, shape: Shape, layer: FullyConnected, *, output: bool) -> Sources:
        last = self._ready(last, shape)
        if output and not fires_at_the_output(self.recipe):
            return self._linear(last, shape, layer)
        last = self._dense(last, shape, layer)
        return (self._fire(f"lif{self.counts['stage']}", *last, role="output" if output else "hidden"),)


def _narrow(layer: Residual) -> Convolution:
    """The 1x1 convolution of a skip whose block changes channels or size."""
    return Convolution(layer.second.channels, 1, layer.first.stride * layer.second.stride, layer.shape)


@torch.no_grad()
def initial(module: nn.Module, weights: str) -> nn.Module:
    """A layer with the initial values that ``NetworkOptions.weights`` names."""
    assert isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear)
    weight = module.weight
    if weights == "he":
        nn.init.normal_(weight, 0.0, sqrt(2.0 / weight[0].numel()))
    elif weights == "fan-out" and not isinstance(module, nn.Linear):
        nn.init.kaiming_normal_(weight, mode="fan_out", nonlinearity="relu")
    elif weights == "unit-rows":
        nn.init.uniform_(weight, -1.0, 1.0)
        row = (0, 2, 3) if isinstance(module, nn.ConvTranspose2d) else tuple(range(1, weight.ndim))  # all of one output
        weight.div_(weight.square().sum(dim=row, keepdim=True).sqrt())
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    return module


def _pooling(layer: Pooling) -> nn.Module:
    match layer.kind:
        case "mean":
            return nn.AvgPool2d(layer.kernel, layer.stride, layer.padding)
        case "sum":
            return nn.AvgPool2d(layer.kernel, layer.stride, layer.padding, divisor_override=1)
        case "max":
            return nn.MaxPool2d(layer.kernel, layer.stride, layer.padding)
        case "repeat":
            return Repeat(layer.kernel)
