"""Training steps a second, ours against SpikingJelly's multi-step mode (torch backend), on the same network.

    python benchmarks/throughput.py RECIPE... [--peers DIR] [--threads N] [--rounds N] [--compile]

Installs SpikingJelly and its torch into an environment of its own (``--peers``, kept; else temporary). Both sides get
the same weights, the same random batch, TET's loss and Adam, and must agree on the loss of the first step. Then they
take turns, a few steps each, in processes of their own; medians of the turns are compared. With ``--compile`` the same
network with compiled neurons (``train --compile``) takes its turn too; what its first step takes longer is told apart.
Recipes: TET networks of convolutions, pools and fully connected layers. Exit code 1 where ours is slower.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peers import environment
from torch import nn

from snncompile.recipe import Recipe
from snncompile.recipe.methods import TetSettings
from snncompile.report.table import table
from snncompile.train.loop import set_threads
from snncompile.train.losses import tet_loss
from snncompile.train.networks import Network
from snncompile.train.neurons import Spiking


@dataclass(frozen=True)
class Seconds:
    """Median seconds of a step of training; ``making``: what the first step with kernels took longer."""

    ours: float
    theirs: float
    compiled: float | None = None
    making: float | None = None


def main() -> int:
    """Install, take turns, compare, print."""
    own = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    own.add_argument("recipes", nargs="+")
    own.add_argument("--peers", type=Path, help="the environment with SpikingJelly, made where it is not there")
    own.add_argument("--threads", type=int, default=1)
    own.add_argument("--rounds", type=int, default=11)
    own.add_argument("--steps", type=int, default=3, help="of training in a turn")
    own.add_argument("--compile", action="store_true", help="measure compiled neurons as well")
    given = own.parse_args()
    set_threads()
    torch.set_num_threads(given.threads)
    rows, slower = [], False
    with tempfile.TemporaryDirectory() as scratch:
        python = environment(given.peers or Path(scratch) / "peers", ("torch", "spikingjelly"))
        for name in given.recipes:
            took = _compared(Recipe.load(name), python, Path(scratch), given)
            batch = Recipe.load(name).training.batch
            ratio = took.theirs / took.ours
            slower |= ratio < 1.0
            row = [name, str(batch), f"{batch / took.ours:.1f}", f"{batch / took.theirs:.1f}", f"{ratio:.2f}"]
            if took.compiled is not None:
                row += [f"{batch / took.compiled:.1f}", f"{took.ours / took.compiled:.2f}", f"{took.making:.0f}"]
            rows.append(row)
    headers = ["network", "batch", "ours, samples/s", "SpikingJelly, samples/s", "ratio"]
    headers += ["compiled, samples/s", "compiled to ours", "compiling, s"] if given.compile else []
    print(table(headers, rows))
    return int(slower)


def _trainer(network: Network, recipe: Recipe, x: torch.Tensor, labels: torch.Tensor) -> Callable[[], float]:
    """A step of training, which gives its loss."""
    settings = recipe.settings
    assert isinstance(settings, TetSettings), "the benchmark knows TET's networks"
    optimiser = torch.optim.Adam(network.parameters(), lr=recipe.training.learning_rate)

    def step() -> float:
        loss = tet_loss(network(x), labels, settings.mix, settings.phi)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        return float(loss.detach())

    return step


def _turn(step: Callable[[], float], steps: int) -> float:
    """Seconds of a step, in the mean over a turn."""
    start = time.perf_counter()
    for _ in range(steps):
        step()
    return (time.perf_counter() - start) / steps


def _compared(recipe: Recipe, python: Path, scratch: Path, given: argparse.Namespace) -> Seconds:
    """Median seconds of a step of training, ours and theirs."""
    settings, training = recipe.settings, recipe.training
    assert isinstance(settings, TetSettings), "the benchmark knows TET's networks"
    torch.manual_seed(0)
    network = Network(recipe).train()
    static = recipe.data.static
    shape = recipe.input if static else (recipe.steps, *recipe.input)
    x = torch.rand(training.batch, *shape)
    x = x if static else (x < 0.1).float()
    labels = torch.randint(recipe.classes, (training.batch,))
    file = scratch / "same.pt"
    shown = x if static else x.transpose(0, 1).contiguous()
    weights = [parameter.detach() for parameter in network.parameters()]
    torch.save({"weights": weights, "x": shown, "labels": labels}, file)
    told = {
        "layers": _layers(network),
        "steps": recipe.steps,
        "static": static,
        "file": str(file),
        "threads": given.threads,
        "rate": training.learning_rate,
        "mix": settings.mix,
        "phi": settings.phi,
    }
    fused = copy.deepcopy(network)
    if given.compile:
        fused.compile_neurons()
    step, compiled = _trainer(network, recipe, x, labels), _trainer(fused, recipe, x, labels)
    environment = os.environ | {"OMP_NUM_THREADS": str(given.threads), "OMP_WAIT_POLICY": "PASSIVE"}
    words = [str(python), str(Path(__file__).with_name("throughput_peer.py"))]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) as peer:
        theirs_first = _answer(peer, json.dumps(told))
        first = step()
        if abs(first - theirs_first) > 1e-3 * abs(first):
            raise SystemExit(
                f"{recipe.name}: the first loss is {first} here, {theirs_first} there: not the same network"
            )
        making = _turn(compiled, 1) if given.compile else 0.0
        mine, theirs, kernels = [], [], []
        for _ in range(given.rounds):
            mine.append(_turn(step, given.steps))
            theirs.append(_answer(peer, str(given.steps)) / given.steps)
            kernels += [_turn(compiled, given.steps)] if given.compile else []
        assert peer.stdin is not None
        peer.stdin.close()
    ours = statistics.median(mine), statistics.median(theirs)
    if not given.compile:
        return Seconds(*ours)
    return Seconds(*ours, statistics.median(kernels), making - statistics.median(kernels))


def _answer(peer: subprocess.Popen[str], line: str) -> float:
    assert peer.stdin is not None
    assert peer.stdout is not None
    peer.stdin.write(line + "\n")
    peer.stdin.flush()
    return float(json.loads(peer.stdout.readline()))


def _layers(network: Network) -> list[list[Any]]:
    """The network, a layer an entry, in an order that a chain of modules computes."""
    layers: list[list[Any]] = []
    for step in network.plan[:-1]:
        match module := network.modules_of[step.name]:
            case Spiking():
                layers.append(["lif"])
            case nn.Conv2d():
                layers.append(
                    ["conv", module.in_channels, module.out_channels, module.kernel_size[0], module.stride[0]]
                )
            case nn.BatchNorm2d():
                layers.append(["norm2", module.num_features])
            case nn.BatchNorm1d():
                layers.append(["norm1", module.num_features])
            case nn.AvgPool2d():
                layers.append(["pool", module.kernel_size])
            case nn.Flatten():
                layers.append(["flatten"])
            case nn.Linear():
                layers.append(["linear", module.in_features, module.out_features])
            case _:
                raise SystemExit(f"{step.name}: the benchmark has no {type(module).__name__}")
    return layers


if __name__ == "__main__":
    sys.exit(main())
