"""A training between two epochs: what the loop knows of a method."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from snncompile.errors import SheetError
from snncompile.recipe import Recipe, TrainingSettings
from snncompile.run.trace import Array
from snncompile.train import checkpoint
from snncompile.train.data import Split
from snncompile.train.networks import Network
from snncompile.train.optimisers import Precision, optimiser_of, scheduled_rate
from snncompile.train.processes import Backward, Processes


class Trainee(Protocol):
    """A network as the loop sees it: ``Network``, or the one in a machine's integers."""

    training: bool

    def __call__(self, x: Tensor) -> Tensor: ...
    def predict(self, x: Tensor) -> Tensor: ...
    def parameters(self) -> Iterator[nn.Parameter]: ...
    def buffers(self) -> Iterator[Tensor]: ...
    def to(self, device: torch.device) -> Any: ...
    def train(self, mode: bool = True) -> Any: ...
    def eval(self) -> Any: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, weights: Mapping[str, Any]) -> Any: ...


class Course(ABC):
    """A method is a subclass: ``step`` makes one step of the optimiser; the rest it changes where it must.

    ``history`` has a record of each epoch that is done. A method has nothing random that is carried from step to step:
    what it draws is a function of the seed and of where it is, else it goes into ``extra``.
    """

    network: Trainee
    optimiser: torch.optim.Optimizer

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.history: list[dict[str, Any]] = []
        self.processes = Processes()
        torch.manual_seed(recipe.training.seed)
        try:
            self.network = self.build()
        except (MemoryError, RuntimeError) as error:  # torch has no kind of its own for what it cannot allocate
            why, where = str(error).strip().splitlines()[0][:160], f"{recipe.name}, network.architecture"
            raise SheetError("is too large for this machine", where=where, why=why, remedy="fewer channels") from error
        self.optimiser = optimiser_of(self.training, self.network.parameters())
        self.precision = Precision(self.training.precision)
        self.backward = Backward(self.network, self.processes)

    def settle(self, processes: Processes, *, compiled: bool = False) -> None:
        """Work as one of several processes, on the device of this one, with neurons as ``compiled`` kernels or not.

        Raises SheetError where there is nothing to compile: a method that simulates without a gradient.
        """
        self.processes = processes
        self.network.to(processes.device)
        if processes.device.type == "cuda" and isinstance(self.network, nn.Module):
            self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # as its kernels want maps
        if compiled and not (isinstance(self.network, Network) and self.network.compile_neurons()):
            why = "only neurons that the gradient goes through step by step are"
            raise SheetError(f"the neurons of {self.recipe.method} are not compiled", where="--compile", why=why)
        self.precision = Precision(self.training.precision, processes.device)
        self.backward = Backward(self.network, processes)

    # Where it stands

    @property
    def epoch(self) -> int:
        """How many epochs are done."""
        return len(self.history)

    @property
    def total_epochs(self) -> int:
        """How many there are."""
        return self.training.epochs

    @property
    def training(self) -> TrainingSettings:
        """The settings in force."""
        return self.recipe.training

    @property
    def samples(self) -> int:
        """How many samples make an epoch; 0: all there are."""
        return self.training.samples

    @property
    def steps(self) -> int:
        """How many time steps a sample has in the epoch that has begun."""
        return self.recipe.steps

    # What a method does

    def build(self) -> Trainee:
        """The network before the first step."""
        return Network(self.recipe)

    def begin_epoch(self, epoch: int) -> None:  # noqa: B027
        """Called before an epoch (from 0), and on resuming with the last that is done, before the state is read.

        A method of several stages sets its time steps and its optimiser here, as a function of ``epoch`` alone.
        """

    def shown(self, x: Array, indices: Array, epoch: int | None) -> Array:
        """The samples ``indices`` of their split as the network is shown them; ``epoch`` is None for the test split."""
        return x

    def learning_rate(self, step: int, batches: int) -> float:
        """The rate of a step of the epoch that has begun, which has ``batches`` of them."""
        return scheduled_rate(self.training, self.epoch * batches + step, batches, self.total_epochs * batches)

    @abstractmethod
    def step(self, x: Tensor, labels: Tensor) -> tuple[float, int]:
        """One step of the optimiser on a batch; its loss and how many samples were right."""

    def descend(self, loss: Tensor) -> None:
        """The gradient of a loss (a mean over the batch), shared by the processes, and the step of the optimiser."""
        self.optimiser.zero_grad(set_to_none=True)
        self.backward(self.precision.scaled(loss))
        self.precision.step(self.optimiser)

    def after_step(self) -> None:  # noqa: B027
        """Called after every step of the optimiser."""

    def metrics(self) -> dict[str, Any]:
        """What a method adds to the record of an epoch, at its end."""
        return {}

    # What is kept

    def check_weights(self, where: str, weights: Mapping[str, object]) -> None:
        """Refuse weights of another network. Raises ReadError."""
        checkpoint.check_weights(where, self.recipe, weights)

    def extra(self) -> dict[str, object]:
        """What a resume file holds beside recipe, weights, optimiser and history."""
        return {}

    def restore(self, content: Mapping[str, Any], where: str) -> None:  # noqa: B027
        """Take back what ``extra`` gave. Raises ReadError."""

    def save(self, out: Path, split: Split) -> None:
        """Write the checkpoint."""
        assert isinstance(self.network, Network)
        checkpoint.save_checkpoint(out, self.network, self.history[-1], split)


def right(answers: Tensor, labels: Tensor) -> int:
    """How many samples have their largest answer [B, classes] at their label."""
    return int((answers.detach().argmax(dim=1) == labels).sum())
