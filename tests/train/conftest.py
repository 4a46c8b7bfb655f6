"""A recipe that trains in seconds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from snncompile.recipe import Recipe

MakeRecipe = Callable[..., Recipe]


@pytest.fixture
def small() -> MakeRecipe:
    """Makes a small recipe on the shipped digits; keywords replace entries of tables: ``training={"epochs": 1}``."""

    def make(**changes: dict[str, Any]) -> Recipe:
        tables: dict[str, dict[str, Any]] = {
            "recipe": {"name": "small", "summary": "a test", "method": "tet", "source": "nobody"},
            "network": {"input": [1, 8, 8], "architecture": "4C3S2-10FC"},
            "tet": {"steps": 2, "lambda": 0.05, "phi": 1.0},
            "training": {"epochs": 3, "batch": 128, "learning_rate": 0.01, "seed": 7},
            "data": {"name": "digits"},
        }
        for table, entries in changes.items():
            tables.setdefault(table, {}).update(entries)
        return Recipe.from_dict(tables, "a test")

    return make
