"""IDSNN: a spiking network that starts from the weights of a larger ordinary one, and learns from its answers.

Copied are convolutions and the norms behind them, by the modulus rule ::

    W_student[o, i] = W_teacher[o mod O, i mod I],    gain, shift, mean, variance likewise

and block by block: block j of a stage takes the teacher's block j (``first``; the last one where it has fewer), or the
one at the same share of the stage's depth (``spread``). Not copied: fully connected layers, and the 1x1 convolutions of
skips. The loss is ``CE + distillation * tau^2 KL(teacher || student)`` of the mean output.

Source: the authors' code (``fei015/IDSNN``); its paper names the divergence the other way round.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from snncompile.errors import ReadError, SheetError
from snncompile.recipe import Convolution, Recipe, Residual
from snncompile.recipe.methods import IdsnnSettings
from snncompile.train.checkpoint import Teacher
from snncompile.train.course import Course, right
from snncompile.train.losses import distillation_loss
from snncompile.train.networks import Network
from snncompile.train.neurons import whole
from snncompile.train.teachers import digest, read_teacher, teacher_recipe

Unit = tuple[str, ...]
"""The modules of one convolution or block that are copied."""


def wrapped(values: Tensor, shape: torch.Size) -> Tensor:
    """``values`` repeated, or cut, along its first axes to ``shape``: the entry at index i is that at i mod size.

    Kernel axes must agree. Raises ValueError.
    """
    if values.dim() != len(shape) or values.shape[2:] != shape[2:]:
        raise ValueError(f"{list(values.shape)} does not wrap to {list(shape)}")
    for axis in range(min(2, values.dim())):
        values = values.index_select(axis, torch.arange(shape[axis]) % values.shape[axis])
    return values


def stages(recipe: Recipe) -> list[tuple[str, list[Unit]]]:
    """The convolutions and blocks of a recipe, those of one kind and shape after another being a stage."""
    found: list[tuple[str, list[Unit]]] = []
    counts = {"conv": 0, "block": 0}
    last: tuple[str, tuple[int, ...]] | None = None
    for layer in recipe.layers:
        if not isinstance(layer, Convolution | Residual):
            last = None
            continue
        kind = "conv" if isinstance(layer, Convolution) else "block"
        counts[kind] += 1
        number = counts[kind]
        unit: Unit = (f"conv{number}", f"norm{number}")
        if kind == "block":
            unit = tuple(f"block{number}_{part}" for part in ("conv1", "norm1", "conv2", "norm2"))
        if last == (kind, layer.shape):
            found[-1][1].append(unit)
        else:
            found.append((kind, [unit]))
        last = (kind, layer.shape)
    return found


def counterparts(student: Recipe, teacher: Recipe, blocks: str) -> dict[str, str]:
    """Which module of the teacher each module of the student starts from. Raises SheetError where stages differ."""
    one, other = stages(student), stages(teacher)
    if [kind for kind, _ in one] != [kind for kind, _ in other]:
        what = f"{student.name} has {len(one)} stages, its teacher {len(other)}, or others"
        raise SheetError(what, where=f"{student.name}, idsnn.teacher", why="stage takes from stage")
    pairs: dict[str, str] = {}
    for (_, own), (_, theirs) in zip(one, other, strict=True):
        for place, unit in enumerate(own):
            pairs |= zip(unit, theirs[_chosen(place, len(own), len(theirs), blocks)], strict=True)
    return pairs


def _chosen(place: int, own: int, theirs: int, blocks: str) -> int:
    if blocks == "first" or own == 1:
        return min(place, theirs - 1)
    return (2 * place * (theirs - 1) + own - 1) // (2 * (own - 1))  # nearest, halves up


@torch.no_grad()
def inherit(student: Network, teacher: Network, blocks: str) -> list[str]:
    """Copy what the method copies; the keys of the student's state that were written."""
    pairs = counterparts(student.recipe, teacher.recipe, blocks)
    theirs, own = teacher.state_dict(), student.state_dict()
    written = []
    for name, other in pairs.items():
        for key, value in own.items():
            module, _, tensor = key.removeprefix("modules_of.").partition(".")
            source = theirs.get(f"modules_of.{other}.{tensor}")
            if module == name and source is not None:
                try:
                    value.copy_(wrapped(source, value.shape) if value.dim() else source)
                except ValueError as error:
                    where = f"{student.recipe.name}, idsnn.teacher"
                    raise SheetError(f"{name} cannot start from {other}", where=where, why=str(error)) from error
                written.append(key)
    return written


class Idsnn(Course):
    """Cross entropy and distillation of the mean output, from the teacher's weights on."""

    network: Network

    def __init__(self, recipe: Recipe, weights: Path) -> None:
        super().__init__(recipe)
        taught_by = teacher_recipe(recipe)
        self.teacher = read_teacher(taught_by, weights)
        self.known_as = Teacher(taught_by.name, digest(weights))
        if self.settings.inherit:
            inherit(self.network, self.teacher, self.settings.blocks)

    @property
    def settings(self) -> IdsnnSettings:
        """The method's table."""
        assert isinstance(self.recipe.settings, IdsnnSettings)
        return self.recipe.settings

    def step(self, x: Tensor, labels: Tensor) -> tuple[float, int]:
        own = self.settings
        with self.precision.forward():
            output = self.network.predict(x)
            loss = functional.cross_entropy(whole(output), labels)
            if own.distillation:
                with torch.no_grad():
                    wanted = self.teacher.to(x.device).predict(x)
                taught = distillation_loss(whole(output), whole(wanted), own.temperature)
                loss = loss + own.distillation * taught
        self.descend(loss)
        return float(loss.detach()), right(output, labels)

    def metrics(self) -> dict[str, Any]:
        return dict(self.known_as.told())

    def extra(self) -> dict[str, object]:
        return {"teacher": {"teacher": self.known_as.name, "sha256": self.known_as.sha256}}

    def restore(self, content: Mapping[str, Any], where: str) -> None:
        if content.get("teacher") != self.extra()["teacher"]:
            remedy = "give it the teacher that it began with, or start again with --force"
            raise ReadError("was begun with another teacher", where=where, remedy=remedy)
