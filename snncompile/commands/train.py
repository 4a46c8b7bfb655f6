"""``snncompile train``: a recipe to a checkpoint."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from snncompile.commands.console import log_of, result
from snncompile.recipe import Recipe


def run(options: argparse.Namespace) -> int:
    """Train; 130 where it was interrupted."""
    recipe = Recipe.load(options.recipe)
    # waiting threads that spin make two busy processes on two cores a hundred times slower, not two times
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from snncompile.train.loop import train

    root = Path(options.data_root) if options.data_root else None
    out = Path(options.output)
    outcome = train(recipe, root, out, resume=options.resume, force=options.force, log=log_of(options))
    metrics = outcome.metrics
    accuracy = metrics.get("test_accuracy")
    text = f"{out}: epoch {metrics.get('epoch', 0)} of {recipe.training.epochs}"
    if accuracy is not None:
        text += f", test accuracy {accuracy:.2%} (n = {metrics.get('test_samples')})"
    if outcome.finished:
        text += f"\nnext: snncompile export {out} --target loihi -o {out.with_suffix('')}-loihi"
    result(options, text, {"checkpoint": str(out), "finished": outcome.finished, "metrics": metrics})
    return 0 if outcome.finished else 130
