"""The training methods: each is a ``Course`` in a file of its own."""

from __future__ import annotations

from pathlib import Path

from snncompile.recipe import Recipe
from snncompile.train.course import Course


def course_of(recipe: Recipe, data_root: Path | None, out: Path) -> Course:
    """The training that a recipe asks for, before its first epoch.

    What a method trains first (a teacher) it trains on the data in ``data_root`` and leaves beside ``out``.
    """
    match recipe.method:
        case "tet":
            from snncompile.train.methods.tet import TetCourse

            return TetCourse(recipe)
