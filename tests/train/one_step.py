"""The gradient of one step of a recipe's method in float64, of one process or of several that share its batch.

    python one_step.py RECIPE [RECIPE ...]

As a script it is one of the processes of a launcher, and leaves the gradients of every recipe beside its file, as
``RECIPE.gradients0`` for the first process. A teacher's weights are in ``RECIPE.teacher``.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from snncompile.recipe import Recipe
from snncompile.train.data import load_for
from snncompile.train.methods import course_of
from snncompile.train.methods.idsnn import Idsnn
from snncompile.train.processes import Processes, end, leave

SAMPLES = 33  # parts of 17 and 16


def gradient(
    recipe: Recipe, teacher: Path | None, chosen: Any, processes: Processes | None = None
) -> dict[str, Tensor]:
    """Every parameter's gradient of the mean loss over the samples ``chosen``, in the last stage of the method."""
    course = course_of(recipe, teacher)
    course.settle(processes or Processes())
    course.begin_epoch(course.total_epochs - 1)
    course.network.double()
    if isinstance(course, Idsnn):
        course.teacher.double()
    split = load_for(recipe, "train")
    own = course.processes.part(chosen)
    x = torch.from_numpy(np.ascontiguousarray(course.shown(split.batch(own), own, 0)))
    course.network.train()
    course.step(x.double(), torch.from_numpy(split.y[own]))
    return {name: parameter.grad for name, parameter in course.network.named_parameters()}


def main() -> None:
    """One of several processes."""
    torch.set_num_threads(1)
    processes = Processes.joined()
    for name in sys.argv[1:]:
        teacher = Path(f"{name}.teacher")
        found = gradient(Recipe.load(name), teacher if teacher.is_file() else None, np.arange(SAMPLES), processes)
        torch.save(found, f"{name}.gradients{processes.rank}")
    leave()
    end(0)


if __name__ == "__main__":
    main()
