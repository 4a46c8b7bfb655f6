"""Opening what a user names: checkpoints, bundles, data."""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from snncompile.commands.console import Log
from snncompile.errors import ReadError
from snncompile.ir.graph import Graph
from snncompile.ir.store import Program, load
from snncompile.recipe import Recipe
from snncompile.run.trace import Array, Trace
from snncompile.target import Target

if TYPE_CHECKING:
    from snncompile.compile import Compiled
    from snncompile.train.checkpoint import Checkpoint


@dataclass(frozen=True)
class Data:
    """Inputs as the network sees them, with labels where there are any."""

    name: str
    x: Array
    labels: Array | None
    classes: tuple[str, ...]


@dataclass(frozen=True)
class Trained:
    """A checkpoint, opened."""

    path: Path

    @cached_property
    def checkpoint(self) -> Checkpoint:
        from snncompile.train.checkpoint import load_checkpoint

        return load_checkpoint(self.path)

    @property
    def recipe(self) -> Recipe:
        return self.checkpoint.recipe

    @property
    def steps(self) -> int:
        return self.recipe.tet.steps

    @cached_property
    def graph(self) -> Graph:
        """The network at level ``read``."""
        from snncompile.frontends.torch import read_module

        return read_module(self.checkpoint.network())

    @property
    def sample(self) -> Data:
        """The training inputs that the checkpoint carries."""
        kept = self.checkpoint.sample
        classes = tuple(map(str, self.checkpoint.data["classes"]))
        return Data("the checkpoint's sample", kept["x"].numpy(), kept["y"].numpy(), classes)

    def record(self, x: Array) -> Trace:
        """What torch does with ``x``."""
        from snncompile.train.recording import record

        return record(self.checkpoint.network(), x)

    def lowered(self, options: argparse.Namespace, log: Log) -> Compiled:
        """The network lowered to the target of the command line."""
        from snncompile.compile import compile_graph, shown

        target = Target.load(options.target)
        spec = options.calibration
        calibration = data_of(self.recipe, spec, options.data_root) if spec else self.sample
        stimulus = shown(self.graph, calibration.x, self.steps)
        reals = {name: np.asarray(values, dtype=np.float64) for name, values in stimulus.items()}
        return compile_graph(self.graph, target, reals, log)


@dataclass(frozen=True)
class Bundle:
    """A folder that ``export`` wrote, opened."""

    path: Path

    @cached_property
    def manifest(self) -> dict[str, Any]:
        where = self.path / "manifest.json"
        try:
            content = json.loads(where.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise ReadError("is missing", where=str(where), remedy="give a folder that `export` wrote") from error
        except (OSError, ValueError) as error:
            raise ReadError("cannot be read", where=str(where), why=str(error)) from error
        if not isinstance(content, dict) or not str(content.get("schema", "")).startswith("snncompile.bundle/"):
            raise ReadError("is no manifest of a bundle", where=str(where))
        return content

    @cached_property
    def program(self) -> Program:
        return load(self.path)

    @property
    def target(self) -> Target:
        """The sheet that the bundle was made for, as it travels with the bundle."""
        return Target.load(str(self.path / "target.toml"))

    @property
    def recipe(self) -> Recipe:
        return Recipe.from_dict(self.manifest.get("recipe", {}), str(self.path / "manifest.json"))


def open_model(path: str) -> Trained | Bundle:
    """A checkpoint (a file) or a bundle (a folder). Raises ``ReadError`` where there is neither."""
    place = Path(path)
    if place.is_dir():
        return Bundle(place)
    if not place.is_file():
        raise ReadError("no such file or folder", where=path)
    return Trained(place)


def data_of(recipe: Recipe, spec: str, root: str | None) -> Data:
    """A data set as the network of a recipe sees it."""
    from snncompile.train.data import load_for

    split = load_for(recipe, spec, Path(root) if root else None)
    return Data(spec, split.x, split.y, split.classes)


def chosen_data(model: Trained | Bundle, options: argparse.Namespace) -> Data:
    """The data of the command line; without any, the sample that a checkpoint carries."""
    if options.data:
        return data_of(model.recipe, options.data, options.data_root)
    if isinstance(model, Trained):
        return model.sample
    raise ReadError("carries no data", where=str(model.path), remedy="name some with --data")
