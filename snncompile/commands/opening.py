"""Opening what a user names: checkpoints, bundles, data."""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from snncompile.backends.bundle import check_whole, digest
from snncompile.commands.console import Log, log_of
from snncompile.commands.exchanged import Exchanged, opened
from snncompile.commands.imported import Data, Imported, by_shape
from snncompile.errors import ReadError
from snncompile.ir.check import check
from snncompile.ir.graph import Graph
from snncompile.ir.store import Program, load
from snncompile.recipe import Recipe
from snncompile.run.stimulus import Given, Inputs
from snncompile.run.trace import Trace
from snncompile.target import Target

if TYPE_CHECKING:
    from snncompile.compile import Compiled
    from snncompile.train.checkpoint import Checkpoint

AGAIN = "train again"


@dataclass(frozen=True)
class Trained:
    """A checkpoint, opened."""

    path: Path

    @cached_property
    def checkpoint(self) -> Checkpoint:
        from snncompile.train.checkpoint import load_checkpoint

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what torch mumbles about foreign pickles; the error says it
            checkpoint = load_checkpoint(self.path)
        classes = checkpoint.data.get("classes")
        if not isinstance(classes, list) or len(classes) != checkpoint.recipe.classes:
            raise ReadError("does not name its classes", where=str(self.path), why="table data", remedy=AGAIN)
        if not all(isinstance(value, str) for value in checkpoint.versions.values()):
            raise ReadError("does not say what made it", where=str(self.path), why="table versions", remedy=AGAIN)
        return checkpoint

    @property
    def recipe(self) -> Recipe:
        return self.checkpoint.recipe

    @property
    def steps(self) -> int:
        return self.recipe.steps

    @cached_property
    def graph(self) -> Graph:
        """The network at level ``read``."""
        from snncompile.frontends.torch import read_module

        return read_module(self.checkpoint.network())

    @property
    def in_integers(self) -> bool:
        """Whether it was trained in a target's integers: read, folded and fixed are one graph then."""
        return self.checkpoint.integers is not None

    @cached_property
    def folded(self) -> Graph:
        """The network at level ``folded``."""
        from snncompile.compile import fold

        return self.graph if self.in_integers else fold(self.graph)[0]

    @cached_property
    def topology(self) -> Graph:
        """The network of the recipe at level ``read``, whatever its weights: pools are pools in it."""
        from snncompile.frontends.torch import read_module
        from snncompile.train.networks import Network

        return read_module(Network(self.recipe).eval()) if self.in_integers else self.graph

    @property
    def title(self) -> str:
        return self.recipe.name

    @property
    def about(self) -> str:
        """What it is, in a line."""
        return f"{self.recipe.name}, {self.recipe.architecture}"

    @property
    def origin(self) -> dict[str, Any]:
        """What a manifest says of the recipe, the classes, the versions it was made with, and its teacher if any."""
        classes = [str(entry) for entry in self.checkpoint.data["classes"]]
        found = {"recipe": self.recipe.to_dict(), "classes": classes, "versions": dict(self.checkpoint.versions)}
        teacher = self.checkpoint.teacher
        return found | ({"teacher": teacher.to_dict()} if teacher else {})

    def data(self, spec: str, root: str | None) -> Data:
        """A data set as the network sees it."""
        return data_of(self.recipe, spec, root)

    @property
    def sample(self) -> Data:
        """The training inputs that the checkpoint carries."""
        x, y = (self.checkpoint.sample[key].numpy() for key in ("x", "y"))
        shape, name = self.recipe.input, "the checkpoint's sample"
        fits = x.shape[1:] in (shape, (self.steps, *shape)) and x.dtype.kind == "f" and y.dtype.kind == "i"
        if not fits or y.shape != x.shape[:1] or not len(x):
            why = f"x is {x.dtype} {list(x.shape)}, y {y.dtype} {list(y.shape)}; the network takes {list(shape)}"
            raise ReadError("its sample is damaged", where=str(self.path), why=why, remedy=AGAIN)
        from snncompile.train.encoders import encoded

        return Data(name, encoded(self.recipe, x), y, tuple(map(str, self.checkpoint.data["classes"])))

    def record(self, x: Given) -> Trace:
        """What torch does with ``x``; the network of a recipe has one input."""
        from snncompile.train.recording import record

        assert not isinstance(x, Inputs)
        return record(self.checkpoint.network(), x)

    def lowered(self, options: argparse.Namespace, log: Log) -> Compiled:
        """The network lowered to the target of the command line."""
        from snncompile.compile import compile_graph, compile_integers, shown

        target = Target.load(options.target)
        target = target.on_board(options.board) if options.board else target
        if (trained := self.checkpoint.integers) is not None:
            trained.demand(target, str(self.path))
            if options.calibration or options.per_channel or options.equilibrium:
                remedy = "leave --calibration, --per-channel and --equilibrium out"
                raise ReadError("has its integers already", where=str(self.path), remedy=remedy)
            return compile_integers(self.graph, target, self.steps, log)
        spec = options.calibration
        calibration = data_of(self.recipe, spec, options.data_root) if spec else self.sample
        stimulus = shown(self.graph, calibration.x, self.steps)
        reals = {name: np.asarray(values, dtype=np.float64) for name, values in stimulus.items()}
        return compile_graph(
            self.graph, target, reals, log, per_channel=options.per_channel, equilibrium=options.equilibrium
        )


@dataclass(frozen=True)
class Bundle:
    """A folder that ``export`` wrote, opened and whole: every file is the one that was written."""

    path: Path

    def __post_init__(self) -> None:
        check_whole(self.path, self.manifest)

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
        program = load(self.path)
        if program.level in ("read", "folded"):
            raise ReadError("is in reals", where=str(self.path), remedy="`snncompile run` executes it")
        check(program.graph, "placed", self.target)
        return program

    @cached_property
    def network(self) -> Graph:
        """The form of the network that the bundle was made from, for counting."""
        return load(self.path / "network").graph

    @property
    def teacher(self) -> dict[str, Any] | None:
        """Who taught the network, where somebody did."""
        source = self.manifest.get("source")
        found = source.get("teacher") if isinstance(source, dict) else None
        return found if isinstance(found, dict) and {"name", "sha256"} <= found.keys() else None

    @property
    def target(self) -> Target:
        """The sheet that the bundle was made for, as it travels with the bundle."""
        return Target.load(str(self.path / "target.toml"))

    @property
    def recipe(self) -> Recipe:
        return Recipe.from_dict(self.manifest.get("recipe", {}), str(self.path / "manifest.json"))

    def data(self, spec: str, root: str | None) -> Data:
        """A data set as the network sees it: by its recipe, or by its shape where it has none."""
        if self.manifest.get("recipe"):
            return data_of(self.recipe, spec, root)
        program = load(self.path)  # of any level: data are as the outside gives them
        return by_shape(program.graph, spec, root, program.steps)


def source_of(model: Trained | Imported | Exchanged) -> dict[str, Any]:
    """What a manifest says of the file that was exported."""
    origin = model.origin
    found = {"name": model.path.name, "sha256": digest(model.path), "recipe": model.title}
    return found | {key: origin[key] for key in ("versions", "teacher") if key in origin}


def taught_by(teacher: Mapping[str, Any]) -> str:
    """The teacher of a network, in a line."""
    return f"taught by {teacher['name']}, SHA-256 {teacher['sha256']}"


def open_model(path: str, options: argparse.Namespace) -> Trained | Imported | Exchanged | Bundle:
    """A checkpoint, a ``.net`` or a ``.nir`` (a file), or a bundle (a folder). Raises ``ReadError`` for anything else.

    ``options``: of the command line; they say what a ``.nir`` leaves open.
    """
    place = Path(path)
    if place.suffix == ".nir" and place.is_file():
        return opened(place, options, log_of(options))
    words = [word for word in ("nir_semantics", "dt", "nir") if getattr(options, word, None) is not None]
    if words and not isinstance(getattr(options, "artifact", ""), list):  # of two artifacts the other may be one
        what = f"--{words[0].replace('_', '-')} belongs to a .nir"
        raise ReadError(what, where=path, remedy="leave it out")
    if place.is_dir():
        return Bundle(place)
    if not place.is_file():
        raise ReadError("no such file or folder", where=path)
    return Imported(place) if place.suffix == ".net" else Trained(place)


def data_of(recipe: Recipe, spec: str, root: str | None) -> Data:
    """A data set as the network of a recipe sees it."""
    from snncompile.train.data import load_for
    from snncompile.train.encoders import encoded

    with np.errstate(over="ignore"):  # said below, with the name of the data
        split = load_for(recipe, spec, Path(root) if root else None)
        x = np.asarray(split.x)
    if not len(x):
        raise ReadError("holds no samples", where=spec)
    if not np.isfinite(x).all():
        raise ReadError("holds numbers that float32 does not", where=spec, why="the network was trained in float32")
    return Data(spec, encoded(recipe, x), split.y, split.classes)


def chosen_data(model: Trained | Imported | Exchanged | Bundle, options: argparse.Namespace) -> Data:
    """The data of the command line; without any, the sample that a checkpoint carries."""
    if options.data:
        return model.data(options.data, options.data_root)
    if not isinstance(model, Bundle):
        return model.sample
    raise ReadError("carries no data", where=str(model.path), remedy="name some with --data")
