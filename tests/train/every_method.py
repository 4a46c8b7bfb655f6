"""A small recipe of every training method, on the digits that travel with the package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from snncompile.recipe import Recipe
from tests.train.test_resuming import written

TRAINING = {"epochs": 2, "batch": 99, "optimiser": "sgd", "momentum": 0.9, "learning_rate": 0.05, "seed": 7}
IF_SOFT = {"decay": 1.0, "threshold": 0.5, "fires": ">=", "reset": "subtract"}
TET = {"steps": 2, "lambda": 0.05, "phi": 1.0}
SUMS = {"bias": False, "dense_bias": False, "weights": "he", "pool_neurons": True}

METHODS: dict[str, dict[str, Any]] = {
    "tet": {"network": {"architecture": "4C3S2-10FC"}, "tet": TET},
    "sdt": {"network": {"architecture": "4C3S2-10FC"}, "tet": TET | {"loss": "sdt"}},
    "tit": {
        "network": {"architecture": "4C3S2-10FC"},
        "tet": TET,
        "tit": {"steps": 3, "epochs": 1, "learning_rate": 0.001},
    },
    "asf": {
        "network": {"architecture": "8C3-10FC", **SUMS},
        "neuron": {"decay": 1.0, "threshold": 1.0},
        "asf": {"steps": 8, "refresh": 1},
        "training": {"learning_rate": 0.0002},
    },
    "asf-slides": {
        "network": {"architecture": "4C3S2-P2-10FC", **SUMS},
        "neuron": {"decay": 0.9, "threshold": 1.0},
        "asf": {"steps": 4, "rule": "slides"},
        "training": {"learning_rate": 0.0002},
    },
    "idsnn": {
        "network": {"architecture": "4C3S2-10FC"},
        "neuron": {"decay": 0.25, "threshold": 0.5, "surrogate": "rectangle", "surrogate_width": 0.5},
        "idsnn": {"steps": 2, "distillation": 0.5},
    },
    "ann": {"network": {"architecture": "8C3S2-10FC"}, "ann": {"steps": 1}},
    "dsr-if": {"network": {"architecture": "4C3S2-10FC"}, "neuron": {"threshold": 0.2}, "dsr": {"steps": 4}},
    "dsr-lif": {
        "network": {"architecture": "4C3S2-10FC"},
        "neuron": {"threshold": 0.01},
        "dsr": {"steps": 4, "alpha": 0.3, "time_constant": 1.0, "time_step": 0.05},
    },
    "ide-if": {
        "network": {"architecture": "Loop(6C3S2|6C3)-10FC", "weights": "unit-rows"},
        "neuron": IF_SOFT,
        "ide": {"steps": 6},
    },
    "ide-lif": {
        "network": {"architecture": "Loop(4C3S2-6C3-4C3S2|4T3S2)-10FC", "weights": "unit-rows"},
        "neuron": IF_SOFT | {"decay": 0.95},
        "ide": {"steps": 6},
    },
}


def recipe_of(name: str, folder: Path, *, norm: bool = True, **changes: dict[str, Any]) -> Recipe:
    """The recipe of ``METHODS``; the teacher's is written into ``folder``. ``changes`` replaces entries of tables."""
    found = METHODS[name]
    method = next(table for table in found if table not in ("network", "neuron", "tit", "training"))
    tables: dict[str, dict[str, Any]] = {
        "recipe": {"name": f"small-{name}", "summary": "a test", "method": method, "source": "nobody"},
        "network": {"input": [1, 8, 8], "norm": norm, "dense_norm": norm},
        "training": dict(TRAINING),
        "data": {"name": "digits"},
    }
    if method == "asf":
        tables["network"] |= {"norm": False, "dense_norm": False}
    for table, entries in [*found.items(), *changes.items()]:
        tables.setdefault(table, {}).update(entries)
    if method == "idsnn":
        teacher = recipe_of("ann", folder, norm=norm, training={"epochs": 1})
        tables["idsnn"]["teacher"] = str(written(teacher, folder / "teacher.toml"))
    return Recipe.from_dict(tables, "a test")
