"""A recipe as a torch network, kept as a plan that frontends/torch.py reads off step by step."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from snncompile.errors import ReadError
from snncompile.recipe import Recipe
from snncompile.train.layers import Readout, SharedDropout, Signal
from snncompile.train.neurons import Spiking, whole
from snncompile.train.plan import INPUT, Builder, Step, loops

__all__ = ["INPUT", "Network", "Readout", "Step"]

Trace = dict[str, list[Tensor]]


class Network(nn.Module):
    """A spiking network: ``plan`` says what reads what, ``modules_of`` holds the modules by those names.

    The last step is the readout. Input is images [B, C, H, W], shown at every step, or frames [B, T, C, H, W].

    Layers work on all steps at once, time merged into the batch, the steps outermost. Images are the same at every
    step, so what comes before the first neurons is computed once and repeated after. That changes no value and no batch
    statistic; only the running variance differs, by the n / (n - 1) of an unbiased estimate over n instead of T n
    values. Layers inside a loop (a step that reads what was sent one step ago) work step by step, without gradients:
    such networks are trained at their equilibrium.
    """

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.recipe = recipe
        self.steps = recipe.steps
        self.modules_of = nn.ModuleDict()
        self.plan: tuple[Step, ...] = tuple(Builder(recipe, self.modules_of).steps)
        self.loops = loops(self.plan)

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
        """The (weighted) mean of the output over the steps, [B, classes]."""
        answer: Tensor = self.readout(self(x))
        return answer

    def compile_neurons(self) -> bool:
        """Run the populations as compiled kernels from now on; False where the method has others, or none."""
        own = [module for module in self.modules_of.values() if type(module) is Spiking]
        if self.recipe.method not in ("tet", "idsnn") or not own:
            return False
        for module in own:
            module.compiled = True
        return True

    @property
    def readout(self) -> Readout:
        """The last step's module."""
        module = self.modules_of[self.plan[-1].name]
        assert isinstance(module, Readout)
        return module

    @torch.no_grad()
    def record(self, x: Tensor) -> dict[str, Tensor]:
        """What happens in eval mode: ``NAME.s`` and ``NAME.v`` of all neurons, [B, T, ...] (v before the reset), and
        ``.v`` of the readout: the outputs added up so far, [B, T, classes]."""
        training = self.training
        trace: Trace = {}
        try:
            self.eval()
            sums = self.readout.sums(self._run(x, trace))
        finally:
            self.train(training)
        found = {name: torch.cat(parts).transpose(0, 1) for name, parts in trace.items()}
        return found | {f"{self.plan[-1].name}.v": sums}

    def shown(self, x: Tensor) -> Signal:
        """The input as a signal: images once, frames [B, T, ...] with time merged into the batch. Raises ReadError."""
        shape = self.recipe.input
        if tuple(x.shape[1:]) == shape:
            return Signal(x, self.steps, static=True)
        if tuple(x.shape[1:]) == (self.steps, *shape):
            return Signal(x.transpose(0, 1).flatten(0, 1), self.steps, static=False)
        raise ReadError(
            f"has shape {list(x.shape)}",
            where="the network's input",
            why=f"{self.recipe.name} takes images [B, {', '.join(map(str, shape))}] or frames of {self.steps} steps",
        )

    def _run(self, x: Tensor, trace: Trace | None) -> Tensor:
        signals = {INPUT: self.shown(x)}
        done: set[str] = set()
        for step in self.plan[:-1]:
            if step.name in done:
                continue
            loop = self.loops.get(step.name)
            if loop:
                self.run_loop(loop, signals, trace)
                done.update(one.name for one in loop)
            else:
                signals[step.name] = self._step(step, Signal.sum([signals[source] for source in step.sources]), trace)
        outputs = Signal.sum([signals[source] for source in self.plan[-1].sources])
        return outputs.timed().transpose(0, 1)

    def _step(self, step: Step, arriving: Signal, trace: Trace | None) -> Signal:
        """All steps of time at once."""
        module = self.modules_of[step.name]
        if isinstance(module, Spiking):
            sent, potentials = module.integrate(arriving.timed())
            _note(trace, step.name, sent, potentials)
            return Signal(sent.flatten(0, 1), self.steps, static=False)
        if isinstance(module, SharedDropout):
            return module.on(arriving)
        return Signal(module(arriving.value), self.steps, arriving.static)

    def run_loop(self, loop: tuple[Step, ...], signals: dict[str, Signal], trace: Trace | None) -> None:
        """The steps of a loop, one step of time after the other; their signals are added to ``signals``."""
        inside = {step.name for step in loop}
        before = {source: signals[source].timed() for step in loop for source in step.sources if source not in inside}
        after: dict[str, Tensor] = {}  # potentials behind the reset
        last: dict[str, Tensor] = {}  # what was sent at the step before
        sent: dict[str, list[Tensor]] = {step.name: [] for step in loop}
        with torch.no_grad():
            for t in range(self.steps):
                now: dict[str, Tensor] = {}
                for step in loop:
                    given = last if step.delay else now
                    arriving = [given.get(source) if source in inside else before[source][t] for source in step.sources]
                    present = [value for value in arriving if value is not None]
                    if not present:
                        continue  # nothing has been sent yet, and weights without bias make nothing of nothing
                    value, module = sum(present[1:], present[0]), self.modules_of[step.name]
                    if isinstance(module, Spiking):
                        value = whole(value)
                        spikes, v, rest = (torch.empty_like(value) for _ in range(3))
                        module.advance(value, after.get(step.name), v, spikes, rest)
                        after[step.name] = rest
                        value = spikes * module.amplitude
                        _note(trace, step.name, spikes[None], v[None])
                    else:
                        if isinstance(module, SharedDropout) and not sent[step.name]:
                            module.mask(value)
                        value = module(value)
                    now[step.name] = value
                    sent[step.name].append(value)
                last = now
        for name, values in sent.items():
            if len(values) == self.steps:
                signals[name] = Signal(torch.cat(values), self.steps, static=False)


def _note(trace: Trace | None, name: str, sent: Tensor, potentials: Tensor) -> None:
    if trace is not None:
        trace.setdefault(f"{name}.s", []).append((sent != 0).to(sent.dtype))
        trace.setdefault(f"{name}.v", []).append(potentials)
