"""Training in a target's integers: from a ``fixed`` graph, in the target's arithmetic, to a checkpoint that is it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from snncompile.errors import LoweringError, ReadError
from snncompile.recipe import QuantiseSettings, Recipe, TrainingSettings
from snncompile.recipe.methods import TetSettings
from snncompile.run.trace import Array
from snncompile.train import checkpoint
from snncompile.train.course import Course, right
from snncompile.train.data import Split
from snncompile.train.encoders import EVALUATION, encoded
from snncompile.train.integer_network import IntegerNetwork
from snncompile.train.integers import Integers
from snncompile.train.loop import Log, Options, Outcome, already, follow, resume_path, set_threads
from snncompile.train.losses import sdt_loss, tet_loss
from snncompile.train.resuming import nothing_to_resume

AS_IS = Options()


class IntegerCourse(Course):
    """A training in integers between two epochs. ``start``: the quantised network that it begins with.

    Whatever method trained the reals, the gradient here goes back through the target's arithmetic in time. The loss is
    TET's where the recipe says so, else the cross entropy of the mean output.
    """

    network: IntegerNetwork

    def __init__(self, recipe: Recipe, start: Integers) -> None:
        if recipe.quantise is None:
            raise LoweringError("names no target", where=recipe.name, remedy="say --quantise loihi")
        self.start, self.settings = start, recipe.quantise
        super().__init__(recipe)

    @property
    def training(self) -> TrainingSettings:
        """The recipe's, with the epochs and the rate of its table ``quantise``."""
        own = self.settings
        return replace(
            self.recipe.training,
            epochs=own.epochs,
            learning_rate=own.learning_rate,
            evaluate_every=own.epochs,
            optimiser="adam",
            momentum=0.0,
            weight_decay=0.0,
            schedule="cosine",
            milestones=(),
            warm_up=0,
            average=0.0,  # the mean of integers is none
            precision="float32",
        )

    def step(self, x: Tensor, labels: Tensor) -> tuple[float, int]:
        outputs, own = self.network(x), self.recipe.settings
        tet = own if isinstance(own, TetSettings) else None
        loss = tet_loss(outputs, labels, tet.mix, tet.phi) if tet else sdt_loss(outputs, labels)
        self.descend(loss)
        return float(loss.detach()), right(outputs.mean(dim=1), labels)

    def shown(self, x: Array, indices: Array, epoch: int | None) -> Array:
        return encoded(self.recipe, x, indices=indices, epoch=EVALUATION if epoch is None else epoch + 1)

    @property
    def samples(self) -> int:
        return self.settings.samples

    def build(self) -> IntegerNetwork:
        return self.start.network(self.recipe)

    def after_step(self) -> None:
        self.network.constrain()

    def check_weights(self, where: str, weights: Mapping[str, object]) -> None:
        expected = self.network.state_dict()
        for name in sorted(expected.keys() | weights.keys()):
            found, wanted = weights.get(name), expected.get(name)
            fits = checkpoint.is_plain(found) and wanted is not None and found.shape == wanted.shape
            if not fits or not isinstance(found, Tensor) or not torch.isfinite(found).all():
                raise ReadError(f"the weights {name!r} are damaged", where=where, remedy="train again with --force")

    def metrics(self) -> dict[str, Any]:
        return dict(self.start.teacher)

    def extra(self) -> dict[str, object]:
        return {"integers": self.start.to_plain(self.recipe)}

    def save(self, out: Path, split: Split) -> None:
        trained = replace(self.start, graph=self.network.graph())
        checkpoint.save_integers(out, self.recipe, trained, self.history[-1], split)


def train_in_integers(
    recipe: Recipe,
    start: Integers | None,
    data_root: Path | None,
    out: Path,
    *,
    options: Options = AS_IS,
    log: Log,
) -> Outcome:
    """Fine-tune a quantised network in its target's integers and leave a checkpoint at ``out``, as ``loop.train`` does.

    ``start`` may be None where ``options.resume`` finds an unfinished training: it holds its own.
    """
    set_threads()
    if options.resume and (done := already(recipe, out, log)):
        return done
    if options.resume and resume_path(out).is_file():
        content = checkpoint.read(resume_path(out), checkpoint.RESUME_FORMAT)
        start = Integers.from_plain(content.get("integers"), str(resume_path(out)))
    if start is None:
        raise nothing_to_resume(out)
    return follow(IntegerCourse(recipe, start), data_root, out, options, log)


def in_force(recipe: Recipe, target: str | None) -> Recipe:
    """The recipe with the target of the command line, where that names one."""
    if target is None:
        return recipe
    settings = recipe.quantise or QuantiseSettings(target)
    return replace(recipe, quantise=replace(settings, target=target))
