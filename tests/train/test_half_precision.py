"""Half precision, of every method: products in half the bits; neurons, means, sums and weights in all of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from snncompile.train.checkpoint import load_checkpoint, save_checkpoint
from snncompile.train.course import Course
from snncompile.train.data import load_for
from snncompile.train.feedback import RestrictedConv2d
from snncompile.train.layers import Readout
from snncompile.train.loop import train
from snncompile.train.methods import course_of
from snncompile.train.networks import Network
from snncompile.train.neurons import Spiking
from snncompile.train.representation import mean_over_time
from snncompile.train.teachers import teacher_recipe
from tests.train.every_method import METHODS, recipe_of
from tests.train.test_loop import silent

HALF = {"bfloat16": torch.bfloat16, "float16": torch.float16}
RATES: dict[str, dict[str, Any]] = {
    "asf": {"optimiser": "adam", "momentum": 0.0, "learning_rate": 0.01},
    **{name: {"learning_rate": 0.1} for name in ("idsnn", "dsr-lif", "ide-lif")},
}
ONE_STAGE = [name for name in METHODS if name != "tit"]


def course_in(name: str, precision: str, tmp_path: Path) -> tuple[Course, Tensor, Tensor]:
    """A method before its first step, and a batch."""
    recipe = recipe_of(name, tmp_path, training={"precision": precision})
    split, teacher = load_for(recipe, "train"), None
    if recipe.method == "idsnn":
        teacher = tmp_path / "teacher.pt"
        torch.manual_seed(1)
        save_checkpoint(teacher, Network(teacher_recipe(recipe)), {"finished": True}, split)
    course, chosen = course_of(recipe, teacher), np.arange(32)
    course.network.train()
    x = np.ascontiguousarray(course.shown(split.batch(chosen), chosen, 0), np.float32)
    return course, torch.from_numpy(x), torch.from_numpy(split.y[chosen])


@pytest.mark.parametrize("precision", HALF)
@pytest.mark.parametrize("name", ONE_STAGE)
def test_products_are_computed_in_half_and_neurons_whole(
    name: str, precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    course, x, labels = course_in(name, precision, tmp_path)
    assert isinstance(course.network, Network)
    products: set[torch.dtype] = set()
    potentials: set[torch.dtype] = set()

    def note(module: nn.Module, given: Any, sent: Tensor) -> None:
        products.add(sent.dtype)

    for module in course.network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            module.register_forward_hook(note)
    advance = Spiking.advance

    def watched(self: Spiking, x: Tensor, before: Tensor | None, v: Tensor, s: Tensor, after: Tensor) -> None:
        potentials.update({x.dtype, v.dtype, s.dtype, after.dtype})
        advance(self, x, before, v, s, after)

    monkeypatch.setattr(Spiking, "advance", watched)
    before = {key: value.detach().clone() for key, value in course.network.named_parameters()}
    for _ in range(16):  # a scaled gradient that overflows is left out, and the scale halved
        loss, _ = course.step(x, labels)
        assert np.isfinite(loss)
    whole = {torch.float32} if name.startswith("ide") else set()  # ide simulates in half, and solves in whole numbers
    assert products == {HALF[precision]} | whole
    assert potentials == (set() if name == "ann" else {torch.float32})
    moved = {key for key, value in course.network.named_parameters() if not torch.equal(value.detach(), before[key])}
    assert {key for key in before if key.endswith("conv1.weight")} <= moved
    assert {value.dtype for value in course.network.parameters()} == {torch.float32}


@pytest.mark.parametrize("name", ONE_STAGE)
def test_the_loss_is_that_of_whole_numbers_but_for_the_rounding_of_products(name: str, tmp_path: Path) -> None:
    """A spike may flip, so no bound is proven: a twentieth of the loss is far more than 2^-8 does."""
    losses = []
    for precision in ("float32", "bfloat16"):
        course, x, labels = course_in(name, precision, tmp_path)
        losses.append(course.step(x, labels)[0])
    assert losses[0] != losses[1]
    assert losses[1] == pytest.approx(losses[0], rel=0.05)


@pytest.mark.parametrize("name", ["asf", "idsnn", "dsr-lif", "ide-lif"])
def test_every_method_learns_in_half_precision(name: str, tmp_path: Path) -> None:
    """As far as in single precision; the very bits again when it is done again."""
    found = {}
    for run, precision in (("whole", "float32"), ("half", "bfloat16"), ("again", "bfloat16")):
        (tmp_path / run).mkdir()
        recipe = recipe_of(name, tmp_path / run, training=RATES[name] | {"precision": precision})
        found[run] = train(recipe, None, tmp_path / run / "out.pt", log=silent).metrics
    assert found["whole"]["test_accuracy"] > 0.4
    assert found["half"]["test_accuracy"] > 0.8 * found["whole"]["test_accuracy"]
    assert found["half"]["loss"] != found["whole"]["loss"]
    one, other = (load_checkpoint(tmp_path / run / "out.pt").weights for run in ("half", "again"))
    assert all(torch.equal(value, other[key]) for key, value in one.items())


# What is no product by its meaning is whole in either precision


def computed(compute: Callable[[Tensor], Tensor], x: Tensor, *, half: bool) -> tuple[Tensor, ...]:
    """What is computed of x, and a gradient of it; the backward pass of a training is outside of the context, too."""
    given = x.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        found = compute(given)
    weights = torch.linspace(-1, 1, found.numel()).reshape(found.shape)
    (gradient,) = torch.autograd.grad((found * weights).sum(), given)
    return found.detach(), gradient


@pytest.mark.parametrize("name", ["tet", "dsr-if", "dsr-lif", "ide-lif"])
def test_neurons_are_the_same_in_either_precision(name: str, tmp_path: Path) -> None:
    network = Network(recipe_of(name, tmp_path))
    x = torch.rand(4, 3, 5, generator=torch.Generator().manual_seed(1)) * 2
    for module in network.modules():
        if isinstance(module, Spiking):
            assert all(map(torch.equal, computed(module, x, half=True), computed(module, x, half=False)))


@pytest.mark.parametrize(
    "compute",
    [
        Readout("weighted", 0.95),
        Readout("mean"),
        lambda x: mean_over_time(x, 0.95),
        lambda x: mean_over_time(x, 1.0),
        RestrictedConv2d(3, 3, 1).restriction,
    ],
    ids=["weighted", "mean", "mean over time", "plain", "restriction"],
)
def test_means_and_restrictions_are_the_same_in_either_precision(compute: Callable[[Tensor], Tensor]) -> None:
    x = torch.rand(3, 3, 1, 1, generator=torch.Generator().manual_seed(1)) + 0.1
    found = computed(compute, x, half=True)
    assert all(map(torch.equal, found, computed(compute, x, half=False)))
    assert found[0].dtype == torch.float32
