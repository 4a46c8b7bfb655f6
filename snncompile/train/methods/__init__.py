"""The training methods: each is a ``Course`` in a file of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from snncompile.errors import ReadError
from snncompile.recipe import Recipe
from snncompile.recipe.methods import IdsnnSettings
from snncompile.train.course import Course


def course_of(recipe: Recipe, teacher: Path | None = None) -> Course:
    """The training that a recipe asks for, before its first epoch. ``teacher``: the weights of ``teacher_of``."""
    match recipe.method:
        case "tet":
            from snncompile.train.methods.tet import Tet

            return Tet(recipe)
        case "asf":
            from snncompile.train.methods.asf import Asf

            return Asf(recipe)
        case "idsnn":
            from snncompile.train.methods.idsnn import Idsnn

            if teacher is None:
                raise ReadError("needs the weights of its teacher", where=recipe.name)
            return Idsnn(recipe, teacher)
        case "dsr":
            from snncompile.train.methods.dsr import Dsr

            return Dsr(recipe)
        case "ide":
            from snncompile.train.methods.ide import Ide

            return Ide(recipe)
        case "ann":
            from snncompile.train.methods.ann import Ann

            return Ann(recipe)


def has_teacher(recipe: Recipe) -> bool:
    """Whether a recipe's method learns from a teacher."""
    return isinstance(recipe.settings, IdsnnSettings)


def teacher_path(out: Path) -> Path:
    """Where the teacher of a student at ``out`` is kept, if no file of its weights is named."""
    return out.with_name(f"{out.stem}.teacher{out.suffix}")


def teacher_of(recipe: Recipe, out: Path, teach: Callable[[Recipe, Path], bool]) -> Path | None:
    """The weights of a recipe's teacher, where its method has one: the file that it names, else one beside ``out``.

    ``teach`` trains a recipe into a file, or goes on with it, and says whether it is finished. None: it is not, or
    there is no teacher to have. Raises ReadError where the file named is not there.
    """
    settings = recipe.settings
    if not isinstance(settings, IdsnnSettings):
        return None
    if settings.weights:
        named = Path(settings.weights)
        if not named.is_file():
            raise ReadError("no such file", where=settings.weights, why=f"{recipe.name}, idsnn.weights")
        return named
    from snncompile.train.teachers import teacher_recipe

    path = teacher_path(out)
    return path if teach(teacher_recipe(recipe), path) else None
