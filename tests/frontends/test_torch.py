"""A trained torch network read as a graph computes what torch computes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from snncompile.errors import ReadError, UnsupportedModule
from snncompile.frontends.torch import read, read_module
from snncompile.ir.ops import Input, Neuron, Norm, Pool, Readout, kind
from snncompile.ir.shapes import shapes
from snncompile.ir.signals import Analog, Count, Signal, Spike
from snncompile.recipe import Recipe
from snncompile.run import reference
from snncompile.train.checkpoint import save_checkpoint
from snncompile.train.data import Split
from snncompile.train.networks import Network

BLOCKS = "4C3-Res(4C3-4C3)-Res(6C3S2-8C3)-AP2-12FC-10FC"


def network_of(architecture: str, **data: object) -> Network:
    """An untrained network in float64 whose norms have lived: their statistics and gains are not 0 and 1."""
    tables = {
        "recipe": {"name": "small", "summary": "a test", "method": "tet", "source": "nobody"},
        "network": {"input": [2, 8, 8], "architecture": architecture},
        "neuron": {"decay": 0.75, "threshold": 0.5},
        "tet": {"steps": 3, "lambda": 0.05, "phi": 1.0},
        "training": {"epochs": 1, "batch": 8, "learning_rate": 0.01, "seed": 1},
        "data": {"name": "digits"} | data,
    }
    torch.manual_seed(5)
    network = Network(Recipe.from_dict(tables, "a test")).double()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
    for _ in range(3):
        network(2 * torch.rand(32, 2, 8, 8, dtype=torch.float64))
    return network.eval()


@pytest.mark.parametrize("architecture", [BLOCKS, "6C5S2-AP2-10FC", "10FC"])
def test_the_graph_computes_what_torch_computes(architecture: str) -> None:
    network = network_of(architecture)
    graph = read_module(network)
    x = 2 * torch.rand(4, 2, 8, 8, dtype=torch.float64)
    recorded = {name: value.numpy() for name, value in network.record(x).items()}
    trace = reference.run(graph, {"input": np.repeat(x.numpy()[:, None], 3, axis=1)})
    populations = [name for name, op in graph.nodes.items() if isinstance(op, Neuron)]
    assert {f"{name}.s" for name in populations} | {f"{name}.v" for name in [*populations, "readout"]} == set(recorded)
    for name in populations:
        assert np.array_equal(trace.spikes[name], recorded[f"{name}.s"] > 0), name
        assert 0 < recorded[f"{name}.s"].mean() < 1, f"{name} is no test"
    for name in [*populations, "readout"]:
        np.testing.assert_allclose(trace.potentials[name], recorded[f"{name}.v"], rtol=0, atol=1e-12)


def test_nodes_are_named_as_the_modules(tmp_path: Path) -> None:
    graph = read_module(network_of(BLOCKS))
    assert [(name, kind(graph.nodes[name])) for name in list(graph.nodes)[:5]] == [
        ("input", "Input"),
        ("conv1", "Conv"),
        ("norm1", "Norm"),
        ("lif1", "Neuron"),
        ("block1_conv1", "Conv"),
    ]
    assert [edge.source for edge in graph.into("block1_lif2")] == ["block1_norm2", "lif1"]
    assert [edge.source for edge in graph.into("block2_lif2")] == ["block2_norm2", "block2_skip_norm"]
    assert [edge.source for edge in graph.into("output")] == ["readout"]
    pool, neuron, readout, norm = (graph.nodes[name] for name in ("pool1", "lif1", "readout", "norm1"))
    assert isinstance(pool, Pool)
    assert (pool.kind, pool.kernel, pool.stride) == ("mean", (2, 2), (2, 2))
    assert isinstance(neuron, Neuron)
    assert (neuron.shape, neuron.beta, neuron.threshold, neuron.fires) == ((4, 8, 8), 0.25, 0.5, ">")
    assert isinstance(readout, Readout)
    assert readout.kind == "mean"
    assert isinstance(norm, Norm)
    assert norm.epsilon == 1e-5
    assert shapes(graph)["block2_lif2"] == (8, 4, 4)


@pytest.mark.parametrize(
    ("data", "signal"),
    [
        ({}, Analog()),
        ({"name": "nmnist"}, Spike()),
        ({"name": "nmnist", "most": 3}, Count(3)),
    ],
)
def test_the_input_is_declared_by_the_recipe(data: dict[str, object], signal: Signal) -> None:
    op = read_module(network_of("10FC", **data)).nodes["input"]
    assert isinstance(op, Input)
    assert op.signal == signal


def test_weights_are_the_trained_float32_ones(tmp_path: Path) -> None:
    network = network_of("3C3-10FC").float()
    x = np.random.default_rng(0).random((4, 2, 8, 8), np.float32)
    save_checkpoint(tmp_path / "ckpt.pt", network, {}, Split("digits", "train", x, np.arange(4), True, ()))
    conv = read(tmp_path / "ckpt.pt").nodes["conv1"]
    weight = network.modules_of["conv1"].weight.detach().numpy()
    assert np.array_equal(conv.weight, weight.astype(np.float64))
    with pytest.raises(ReadError, match="no such file"):
        read(tmp_path / "other.pt")


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("lif1", nn.ReLU()),
        ("norm1", nn.BatchNorm2d(3, affine=False)),
        ("norm1", nn.BatchNorm2d(3, track_running_stats=False)),
        ("conv1", nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular")),
        ("conv1", nn.Conv2d(2, 3, 3, padding="same")),
        ("pool1", nn.AvgPool2d(3, ceil_mode=True)),
        ("pool1", nn.AvgPool2d(2, padding=1, count_include_pad=False)),
    ],
)
def test_modules_without_a_meaning_are_named(name: str, module: nn.Module) -> None:
    network = network_of("3C3-AP2-10FC")
    network.modules_of[name] = module
    with pytest.raises(UnsupportedModule) as caught:
        read_module(network)
    assert caught.value.where == name
