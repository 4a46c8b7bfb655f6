"""The large networks of the papers, exported and proven; and an eighth of each on real Lava, bit for bit.

    python benchmarks/large.py [NAME ...] [--data-root DIR] [--work DIR] [--narrow] [--samples N]

Nobody needs them trained for this: weights are random, batch norms hold the statistics of one pass, so that a few
neurons in a hundred fire as in a trained network. For each network: a checkpoint, then `snncompile export --target
loihi` on one sample, rungs 0 to 5, with seconds and peak memory a stage. With --narrow (and Lava's interpreter) the
same with an eighth of the channels, and Lava as rung 6.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from snncompile.errors import ReadError
from snncompile.recipe import Recipe
from snncompile.train.checkpoint import save_checkpoint
from snncompile.train.data import Split, load_for
from snncompile.train.networks import Network

NAMES = ("cifar10dvs-vggsnn-tet", "cifar10-resnet19-tet", "cifar10-sewresnet18-tet")
GAIN = 0.6  # of every batch norm: some ten in a hundred neurons then fire
EVENTS = 0.05  # share of pixels of a random event frame that hold one


@dataclass(frozen=True)
class Cost:
    """Of a whole export: seconds by the clock, seconds of computing (Lava's too), peak memory in MiB."""

    seconds: float
    computing: float
    memory: float


def narrower(recipe: Recipe, by: int, least: int = 8) -> Recipe:
    """The recipe with a fraction of the channels (``least`` at least), everything else as it is."""
    hidden, _, output = recipe.architecture.rpartition("-")

    def fewer(found: re.Match[str]) -> str:
        return f"{max(least, int(found[1]) // by)}{found[2]}"

    tables: dict[str, Any] = recipe.to_dict()
    tables["network"]["architecture"] = re.sub(r"(\d+)(C|FC)", fewer, hidden) + "-" + output
    tables["recipe"]["name"] += f"-{by}"
    return Recipe.from_dict(tables, recipe.name)


def inputs(recipe: Recipe, count: int, root: Path | None) -> Split:
    """Real images where there are some; else random ones, or random events."""
    numbers = np.random.default_rng(1)
    y = numbers.integers(0, recipe.classes, count)
    classes = tuple(map(str, range(recipe.classes)))
    if not recipe.data.static:
        x = (numbers.random((count, recipe.steps, *recipe.input)) < EVENTS).astype(np.uint8)
        return Split(recipe.data.name, "train", x, y, False, classes)
    try:
        found = load_for(replace(recipe, data=replace(recipe.data, name="cifar10-subset")), f"train:{count}", root)
        return replace(found, name=recipe.data.name)
    except ReadError:
        x = numbers.standard_normal((count, *recipe.input)).astype(np.float32)
        return Split(recipe.data.name, "train", x, y, True, classes)


def untrained(recipe: Recipe, seen: Split) -> Network:
    """Random weights, batch norms with the statistics of one pass over ``seen``."""
    torch.manual_seed(1)
    network = Network(recipe)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
            module.momentum = None  # statistics are those of the pass, not a running mixture
            torch.nn.init.constant_(module.weight, GAIN)
    with torch.no_grad():
        network.train()(torch.from_numpy(np.asarray(seen.x, np.float32)))
    return network.eval()


def checkpoint(recipe: Recipe, path: Path, samples: int, root: Path | None) -> tuple[int, float]:
    """Write a checkpoint whose sample are ``samples`` inputs; parameters, and the share of neurons that fire a step."""
    seen = inputs(recipe, 8, root)
    network = untrained(recipe, seen)
    save_checkpoint(path, network, {"finished": True}, replace(seen, x=seen.x[:samples], y=seen.y[:samples]))
    with torch.no_grad():
        fired = [
            v
            for name, v in network.record(torch.from_numpy(np.asarray(seen.x[:1], np.float32))).items()
            if name[-1] == "s"
        ]
    rate = float(sum(v.sum() for v in fired)) / sum(v.numel() for v in fired)
    return sum(parameter.numel() for parameter in network.parameters()), rate


def exported(path: Path, out: Path, *, lava: bool, timeout: float) -> tuple[Cost, str]:
    """The cost of an export, printed stage by stage, and its result; ``CalledProcessError`` where it fails."""
    shutil.rmtree(out, ignore_errors=True)
    environment = os.environ | ({} if lava else {"SNNCOMPILE_NO_LAVA": "1"})
    command = [sys.executable, "-m", "snncompile", "export", str(path), "--target", "loihi", "-o", str(out)]
    begun = time.perf_counter()
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as running:
        assert running.stderr is not None
        assert running.stdout is not None
        for line in running.stderr:
            now = time.perf_counter() - begun
            print(f"  {now:7.1f} s {peak(running.pid):7.0f} MiB  {line.strip()[:100]}", flush=True)
            if now > timeout:
                running.kill()
        result = running.stdout.read()
        _, status, usage = os.wait4(running.pid, 0)
        running.returncode = os.waitstatus_to_exitcode(status)
    if running.returncode:
        raise subprocess.CalledProcessError(running.returncode, command, result)
    return Cost(time.perf_counter() - begun, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024), result


def peak(pid: int) -> float:
    """The largest resident memory of a process so far, in MiB."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except OSError:
        return 0.0
    found = re.search(r"VmHWM:\s+(\d+)", status)
    return int(found[1]) / 1024 if found else 0.0


def main() -> None:
    """Print a table a network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=list(NAMES), metavar="NAME")
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--work", type=Path, default=Path("benchmark-out"))
    parser.add_argument("--narrow", action="store_true", help="an eighth of the channels, on real Lava as well")
    parser.add_argument("--samples", type=int, default=1)
    parser.add_argument("--timeout", type=float, default=600.0)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    for name in options.names:
        recipe = Recipe.load(name)
        if options.narrow:
            recipe = narrower(recipe, 8)
        path = options.work / f"{recipe.name}.pt"
        parameters, rate = checkpoint(recipe, path, options.samples, options.data_root)
        print(f"{recipe.name}: {parameters:,} parameters, {rate:.1%} of neurons fire a step", flush=True)
        cost, result = exported(path, options.work / recipe.name, lava=options.narrow, timeout=options.timeout)
        print(result)
        told = f"{cost.seconds:.1f} s by the clock, {cost.computing:.1f} s of computing, {cost.memory:.0f} MiB"
        print(f"{recipe.name}: {told}\n", flush=True)


if __name__ == "__main__":
    main()
