"""A small network of every family of the papers, with all that is particular to it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from snncompile.recipe import Recipe
from snncompile.train.encoders import encoded
from snncompile.train.networks import Network
from tests.drawing import Array

NAMED = {"name": "small", "summary": "a test", "source": "nobody"}
TRAINING = {"epochs": 1, "batch": 8, "learning_rate": 0.01, "seed": 1}
ASF = {"bias": False, "dense_bias": False, "norm": False, "weights": "he", "pool_neurons": True}
IF_ABOVE = {"decay": 1.0, "threshold": 1.0}
IF_SOFT = {"decay": 1.0, "threshold": 2.0, "fires": ">=", "reset": "subtract"}
SEW = {"decay": 1.0, "fires": ">=", "detach_reset": True, "surrogate": "atan"}
TET = {"steps": 4, "lambda": 0.001, "phi": 1.0}
PREACT = "6C3-Res(6C3-6C3)-Res(8C3S2-8C3)-AP2-10FC"

FAMILIES: dict[str, dict[str, dict[str, Any]]] = {
    "asf": {
        "network": {"input": [1, 8, 8], "architecture": "5C5-P2-6C3-MP2-12FC-10FC", **ASF},
        "neuron": IF_ABOVE,
        "asf": {"steps": 6, "rate": 0.5},
    },
    "asf-signed-leaky": {
        "network": {"input": [2, 8, 8], "architecture": "6C3-8C3-P2-MP2-12FC-10FC", **ASF},
        "neuron": {"decay": 0.9, "threshold": 0.5},
        "asf": {"steps": 5, "signed": True},
    },
    "asf-events": {
        "network": {"input": [2, 14, 14], "architecture": "SP3-6C3-P2-MP2-10FC", **ASF},
        "neuron": IF_ABOVE,
        "asf": {"steps": 5, "encoder": "direct"},
        "data": {"name": "nmnist", "most": 3},
    },
    "ide-convolution": {
        "network": {"input": [1, 8, 8], "architecture": "Loop(6C5S2|6C5)-10FC", "weights": "unit-rows", "dropout": 0.2},
        "neuron": IF_SOFT,
        "ide": {"steps": 6},
    },
    "ide-dense-leaky": {
        "network": {"input": [1, 6, 6], "architecture": "Loop(20FC|20FC)-10FC", "weights": "unit-rows"},
        "neuron": IF_SOFT | {"decay": 0.95},
        "ide": {"steps": 5},
    },
    "ide-deep": {
        "network": {"input": [2, 8, 8], "architecture": "Loop(4C3S2-6C3-8C3S2-6C3|4T3S2)-10FC", "weights": "unit-rows"},
        "neuron": IF_SOFT | {"decay": 0.99},
        "ide": {"steps": 6},
    },
    "dsr-preact": {
        "network": {
            "input": [2, 8, 8],
            "architecture": PREACT,
            "order": "pre",
            "stem_bias": False,
            "pool_neurons": True,
        },
        "neuron": {"threshold": 2.0},
        "dsr": {"steps": 6, "alpha": 0.5, "floor": 0.01},
    },
    "dsr-leaky": {
        "network": {"input": [2, 8, 8], "architecture": PREACT, "order": "pre", "pool_neurons": True},
        "neuron": {"threshold": 0.3},
        "dsr": {"steps": 6, "alpha": 0.3, "floor": 0.0005, "time_constant": 1.0, "time_step": 0.05},
    },
    "dsr-vgg": {
        "network": {"input": [2, 8, 8], "architecture": "6C3-AP2-8C3-AP2-8C3-AP2-GAP3-10FC", "dropout": 0.1},
        "neuron": {"threshold": 1.0},
        "dsr": {"steps": 5},
        "data": {"name": "nmnist", "most": 2},
    },
    "idsnn": {
        "network": {
            "input": [2, 8, 8],
            "architecture": "6C3P3-Res(6C3-6C3)-Res(8C3S2-8C3)-GAP-10FC",
            "bias": False,
            "norm_gain": 0.5,
        },
        "neuron": {"decay": 0.25, "threshold": 0.5, "surrogate": "rectangle", "surrogate_width": 0.5},
        "idsnn": {"steps": 4, "teacher": "nobody"},
    },
    "sew": {
        "network": {"input": [3, 16, 16], "architecture": "6C7S2-MP3S2P1-2*Sew(6C3-6C3)-Sew(8C3S2-8C3)-GAP-10FC"},
        "neuron": SEW,
        "tet": TET,
    },
    "spiking-resnet": {
        "network": {"input": [3, 16, 16], "architecture": "6C7S2-MP3S2P1-Res(6C3-6C3)-Res(8C3S2-8C3)-GAP-10FC"},
        "neuron": {"decay": 0.5},
        "tet": TET,
    },
    "vgg-strided": {
        "network": {"input": [2, 8, 8], "architecture": "6C3-8C3S2-8C3-8C3S2-10FC"},
        "neuron": {"decay": 0.5},
        "tet": TET,
    },
}


def recipe(family: str) -> Recipe:
    """The recipe of a family."""
    tables = FAMILIES[family]
    (method,) = set(tables) - {"network", "neuron", "data"}
    whole = {"recipe": NAMED | {"method": method}, "training": TRAINING, "data": {"name": "digits"}} | tables
    return Recipe.from_dict(whole, "a test")


def samples(of: Recipe, count: int) -> Array:
    """What the network receives: images, drawn spikes, or frames of counts."""
    numbers = np.random.default_rng(4)
    if not of.data.static:
        x = numbers.poisson(0.3, (count, of.steps, *of.input))
        return np.minimum(x, of.data.most).astype(np.float32)
    x = numbers.random((count, *of.input), np.float32)
    if getattr(of.settings, "signed", False):
        x = 2 * x - 1
    return np.asarray(encoded(of, x)).astype(np.float32)


def network(of: Recipe) -> Network:
    """Random weights, norms that have lived: their statistics and gains are not 0 and 1."""
    torch.manual_seed(5)
    made = Network(of)
    for module in made.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.6, 1.4)
            nn.init.uniform_(module.bias, -0.1, 0.6)
            nn.init.uniform_(module.running_mean, -0.3, 0.3)
            nn.init.uniform_(module.running_var, 0.3, 1.2)
    return made.eval()
