"""``snncompile train``: a recipe to a checkpoint."""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

from snncompile.commands.console import Log, log_of, result
from snncompile.errors import LoweringError, ReadError
from snncompile.recipe import Recipe
from snncompile.target import Target

if TYPE_CHECKING:
    from snncompile.train.integers import Integers
    from snncompile.train.loop import Options, Outcome


def run(options: argparse.Namespace) -> int:
    """Train; 130 where it was interrupted."""
    recipe = Recipe.load(options.recipe)
    # waiting threads that spin make two busy processes on two cores a hundred times slower, not two times
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from snncompile.train.in_integers import in_force
    from snncompile.train.loop import train_with
    from snncompile.train.processes import leave

    recipe = in_force(recipe, options.quantise)
    log = log_of(options) if _speaks() else _silent
    if recipe.quantise is not None:
        Target.load(recipe.quantise.target)  # a wrong target is said before hours of training
        outcome = _in_integers(recipe, options, log)
    elif options.start:
        remedy = "add --quantise loihi, or a table [quantise] to the recipe"
        raise ReadError("only a training in integers begins with a checkpoint", where="--from", remedy=remedy)
    else:
        outcome = train_with(recipe, _root(options), Path(options.output), _how(options), log)
    if _speaks():
        _told(options, recipe, outcome)
    leave()
    return 0 if outcome.finished else 130


def _how(options: argparse.Namespace) -> Options:
    from snncompile.train.loop import Options

    return Options(
        resume=options.resume,
        force=options.force,
        device=options.device,
        curves=Path(options.tensorboard) if options.tensorboard else None,
        download=options.download,
        compile=options.compile,
        quiet=options.quiet,
    )


def _speaks() -> bool:
    """Whether this is the process that speaks for all."""
    return os.environ.get("RANK", "0") == "0"


def _silent(line: str) -> None:
    """The first process speaks for all."""


def _in_integers(recipe: Recipe, options: argparse.Namespace, log: Log) -> Outcome:
    """From a checkpoint in reals (``--from``, or trained here beside ``out``) to one in integers."""
    from snncompile.train.in_integers import train_in_integers
    from snncompile.train.loop import train_with
    from snncompile.train.resuming import begun, nothing_to_resume, refuse_overwriting

    out, how, start = Path(options.output), _how(options), None
    refuse_overwriting(out, options.resume, options.force)
    if not (options.resume and begun(out)):
        path = Path(options.start) if options.start else out.with_name(f"{out.stem}.reals{out.suffix}")
        if options.resume and (options.start or not begun(path)):
            raise nothing_to_resume(out)
        if not options.start:
            again = replace(how, resume=begun(path) and not options.force)
            reals = train_with(replace(recipe, quantise=None), _root(options), path, again, log)
            if not reals.finished:
                return reals
        start = _quantised(recipe, path, log)
    # the integers are computed on the CPU, by neurons of their own, and their epochs count from 1 again
    curves = how.curves / "integers" if how.curves else None
    own = replace(how, resume=options.resume and start is None, device="cpu", compile=False, curves=curves)
    return train_in_integers(recipe, start, _root(options), out, options=own, log=log)


def _quantised(recipe: Recipe, path: Path, log: Log) -> Integers:
    """A checkpoint in reals as the graph in integers that ``export`` would make of it: where the training begins."""
    import numpy as np

    from snncompile.commands.opening import Trained
    from snncompile.compile import compile_graph, shown
    from snncompile.train.integers import Integers

    model = Trained(path)
    if model.in_integers:
        raise LoweringError("was trained in integers already", where=str(path), remedy="name the one in reals it is of")
    same = ("input", "layers", "method", "options", "neuron", "data")
    other = [key for key in same if getattr(model.recipe, key) != getattr(recipe, key)]
    if other or model.steps != recipe.steps:
        why = f"its {(other or ['steps'])[0]} differ from those of {recipe.name}"
        raise ReadError("holds another network", where=str(path), why=why, remedy="name its recipe")
    assert recipe.quantise is not None
    reals = {name: np.asarray(x, np.float64) for name, x in shown(model.graph, model.sample.x, model.steps).items()}
    compiled = compile_graph(model.graph, Target.load(recipe.quantise.target), reals, log, addends=False)
    teacher = model.checkpoint.teacher
    return replace(Integers.of(compiled.levels["fixed"], compiled.target), teacher=teacher.told() if teacher else {})


def _root(options: argparse.Namespace) -> Path | None:
    return Path(options.data_root) if options.data_root else None


def _told(options: argparse.Namespace, recipe: Recipe, outcome: Outcome) -> None:
    metrics, out = outcome.metrics, outcome.path
    accuracy = metrics.get("test_accuracy")
    text = f"{out}: epoch {metrics.get('epoch', 0)} of {metrics.get('epochs', recipe.training.epochs)}"
    if isinstance(accuracy, int | float):  # of a record that was read, anything may be said
        text += f", test accuracy {accuracy:.2%} (n = {metrics.get('test_samples')})"
    soft = recipe.method == "dsr" or recipe.neuron.reset == "subtract"
    target = recipe.quantise.target if recipe.quantise else "loihi-custom" if soft else "loihi"
    if outcome.finished and recipe.method != "ann":
        name = f"{out.with_suffix('')}-{Path(target).stem}"
        text += f"\nnext: snncompile export {quote(str(out))} --target {quote(target)} -o {quote(name)}"
    result(options, text, {"checkpoint": str(out), "finished": outcome.finished, "metrics": metrics})
