"""Training on an accelerator: that every method does there what it does on the CPU, and how many samples a second.

    python benchmarks/accelerator.py [--equal RECIPE...] [--pace RECIPE...] [--batch N] [--steps N]

``--equal``: the same network, batch and seed on both, in double precision so that what differs is a mistake and not a
rounding: three steps of the optimiser, losses within 1e-9 of each other. ``--pace``: samples a second of whole steps of
training in float32 and bfloat16, with neurons as they are written and as compiled kernels (the time to compile apart).
Data are random. Exit code 1 where a loss differs.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
import traceback
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch

from snncompile.errors import SnncompileError
from snncompile.recipe import Recipe
from snncompile.report.table import table
from snncompile.train.course import Course
from snncompile.train.layers import SharedDropout
from snncompile.train.methods import course_of, has_teacher
from snncompile.train.methods.idsnn import Idsnn
from snncompile.train.networks import Network
from snncompile.train.processes import Processes
from snncompile.train.teachers import teacher_recipe

EQUAL = (
    *("fashion-mini-tet-cpu", "mnist-mini-tit-cpu", "mnist-mini-asf-cpu", "fashion-mini-ann-cpu"),
    *("fashion-mini-idsnn-cpu", "fashion-mini-dsr-cpu", "fashion-f400-ide-cpu", "digits-loop-ide-cpu"),
)
PACE = ("cifar10-resnet19-tet",)


def main() -> int:
    """Both tables."""
    own = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    own.add_argument("--equal", nargs="*", default=EQUAL, metavar="RECIPE")
    own.add_argument("--pace", nargs="*", default=PACE, metavar="RECIPE")
    own.add_argument("--batch", type=int, help="samples of a step of --pace (default: the recipe's)")
    own.add_argument("--steps", type=int, default=10, help="of --pace, in each of three turns")
    own.add_argument("--device", default="cuda", choices=("cuda", "cpu"), help="cpu: to try the script itself")
    given = own.parse_args()
    there = Processes.joined(given.device)
    name = torch.cuda.get_device_name(there.device) if there.device.type == "cuda" else "the CPU"
    print(f"torch {torch.__version__}, {name}", flush=True)
    rows = [_equal(recipe, there) for recipe in given.equal]
    if rows:
        print(table(("recipe", "losses on the CPU", "on the accelerator", "largest gap", "equal"), rows), flush=True)
    for recipe in given.pace:
        paces = [
            _pace(recipe, there, precision, compiled, given)
            for precision in ("float32", "bfloat16")
            for compiled in (False, True)
        ]
        headers = ("recipe", "precision", "neurons", "batch", "samples/s", "first step, s")
        print(table(headers, paces, right=range(3, 6)), flush=True)
    return int(any(row[-1] != "yes" for row in rows))


def _equal(name: str, there: Processes) -> tuple[str, ...]:
    try:
        here, away = _losses(name, Processes()), _losses(name, there)
    except (SnncompileError, RuntimeError) as error:
        traceback.print_exc()
        return name, "", "", "", str(error).splitlines()[0]
    gaps = [abs(one - other) / max(abs(one), 1e-9) for one, other in zip(here, away, strict=True)]
    shown = (" ".join(f"{loss:.6f}" for loss in losses) for losses in (here, away))
    return (name, *shown, f"{max(gaps):.1e}", "yes" if max(gaps) < 1e-6 else "NO")


def _losses(name: str, place: Processes) -> list[float]:
    """The losses of three steps in double precision."""
    recipe = Recipe.load(name)
    course = _course(recipe)
    cast("Network", course.network).double()
    if isinstance(course, Idsnn):
        course.teacher.double()
    for module in cast("Network", course.network).modules():
        if isinstance(module, SharedDropout):
            module.share = 0.0  # each device draws its own
    course.settle(place)
    course.begin_epoch(0)
    course.network.train()
    losses = []
    for step in range(3):
        x, labels, indices = _batch(recipe, min(recipe.training.batch, 32), step)
        shown = torch.from_numpy(np.ascontiguousarray(course.shown(x, indices, 0))).double().to(place.device)
        loss, _ = course.step(shown, labels.to(place.device))
        course.after_step()
        losses.append(loss)
    return losses


def _pace(
    name: str, place: Processes, precision: Literal["float32", "bfloat16"], compiled: bool, given: argparse.Namespace
) -> tuple[str, ...]:
    recipe = Recipe.load(name)
    recipe = replace(recipe, training=replace(recipe.training, precision=precision))
    course = _course(recipe)
    course.settle(place, compiled=compiled)
    course.begin_epoch(0)
    course.network.train()
    batch = given.batch or recipe.training.batch
    x, labels, _ = _batch(recipe, batch, 0)
    shown, labels = torch.from_numpy(x).to(place.device), labels.to(place.device)

    def steps(count: int) -> float:
        start = time.perf_counter()
        for _ in range(count):
            course.step(shown, labels)
        if place.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    first = steps(1)
    steps(3)
    turn = statistics.median(steps(given.steps) for _ in range(3))
    kind = "compiled" if compiled else "as written"
    return name, precision, kind, str(batch), f"{given.steps * batch / turn:.0f}", f"{first:.1f}"


def _course(recipe: Recipe) -> Course:
    if not has_teacher(recipe):
        return course_of(recipe)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "teacher.pt"
        torch.manual_seed(7)
        torch.save(Network(teacher_recipe(recipe)).state_dict(), path)
        return course_of(recipe, path)


def _batch(recipe: Recipe, count: int, seed: int) -> tuple[Any, torch.Tensor, Any]:
    drawn = np.random.default_rng(seed)
    static = recipe.data.static
    x = drawn.random((count, *(() if static else (recipe.steps,)), *recipe.input), np.float32)
    labels = torch.from_numpy(drawn.integers(0, recipe.classes, count))
    return (x if static else (x < 0.1).astype(np.float32)), labels, np.arange(count)


if __name__ == "__main__":
    sys.exit(main())
