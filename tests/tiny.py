"""A network that takes no training: random weights and batch statistics, saved as the trainer saves one.

It has what a trained one has: convolutions with batch norm, a residual block, average pools, full connections. The
statistics are drawn so that every population fires, and not always.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from snncompile.recipe import Recipe
from snncompile.train.checkpoint import save_checkpoint
from snncompile.train.data import load_for
from snncompile.train.networks import Network

STEPS = 3
SAMPLES = 12


def recipe(architecture: str = "4C3-Res(4C3-4C3)-AP2-6C3-AP2-8FC-10FC", **neuron: Any) -> Recipe:
    tables: dict[str, dict[str, Any]] = {
        "recipe": {"name": "tiny", "summary": "a test", "method": "tet", "source": "nobody"},
        "network": {"input": [1, 8, 8], "architecture": architecture},
        "neuron": {"decay": 0.5, "threshold": 1.0} | neuron,
        "tet": {"steps": STEPS, "lambda": 0.05, "phi": 1.0},
        "training": {"epochs": 1, "batch": 32, "learning_rate": 0.01, "seed": 7},
        "data": {"name": "digits"},
    }
    return Recipe.from_dict(tables, "a test")


def network(of: Recipe) -> Network:
    """The same random network every time."""
    generator = torch.Generator().manual_seed(3)
    made = Network(of).eval()

    def drawn(values: torch.Tensor, low: float, high: float) -> None:
        values.copy_(torch.rand(values.shape, generator=generator) * (high - low) + low)

    with torch.no_grad():
        for module in made.modules_of.values():
            if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
                reach = 2.0 / module.weight[0].numel() ** 0.5
                drawn(module.weight, -reach, reach)
                if module.bias is not None:
                    drawn(module.bias, -0.2, 0.2)
            elif isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
                assert module.running_mean is not None
                assert module.running_var is not None
                drawn(module.running_mean, -0.3, 0.3)
                drawn(module.running_var, 0.2, 1.0)
                drawn(module.weight, 0.8, 1.6)
                drawn(module.bias, 0.0, 0.6)
    return made


def checkpoint(path: Path, architecture: str | None = None, **neuron: Any) -> Path:
    """Save it, with a dozen digits as its sample."""
    of = recipe(**neuron) if architecture is None else recipe(architecture, **neuron)
    train = load_for(of, "train")
    assert train.y is not None
    save_checkpoint(path, network(of), {"epoch": 1}, replace(train, x=train.x[:SAMPLES], y=train.y[:SAMPLES]))
    return path


def changed(path: Path, target: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """A copy of a checkpoint, changed."""
    content = copy.deepcopy(torch.load(path, weights_only=True))
    change(content)
    torch.save(content, target)
    return target


@contextmanager
def nothing_left(folder: Path) -> Iterator[None]:
    """What stands in a folder is the same before and after, to the byte."""
    before = standing(folder)
    yield
    assert standing(folder) == before


def standing(folder: Path) -> dict[str, bytes]:
    """Everything in a folder by its path."""
    return {str(path): path.read_bytes() if path.is_file() else b"" for path in sorted(folder.rglob("*"))}


def images(count: int) -> np.ndarray[Any, np.dtype[Any]]:
    return np.random.default_rng(5).integers(0, 17, (count, 1, 8, 8)).astype(np.float32) / 16
