"""``snncompile models``: the catalogue of recipes."""

from __future__ import annotations

import argparse

from snncompile import sheet as sheets
from snncompile.commands.console import result
from snncompile.recipe import Recipe
from snncompile.report.table import table


def run(options: argparse.Namespace) -> int:
    """The list, or one recipe whole."""
    if options.name:
        path = sheets.find("models", options.name)
        recipe = Recipe.load(options.name)
        result(options, path.read_text(encoding="utf-8").rstrip(), recipe.to_dict())
        return 0
    recipes = [Recipe.load(name) for name in sheets.names("models")]
    rows = [[one.name, one.method, one.data.name, str(one.steps), one.architecture, one.summary] for one in recipes]
    text = table(["name", "method", "data", "T", "architecture", ""], rows, right={3})
    result(options, text, [one.to_dict() for one in recipes])
    return 0
