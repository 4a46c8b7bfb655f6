"""A network trained in a target's integers is the network that is deployed: image by image, spike by spike.

    python benchmarks/in_integers.py RECIPE [--from CKPT] [--target loihi] [--samples N] [--data-root DIR] [--work DIR]

Trains (or uses the finished checkpoints in --work), then shows every test image to two programs: the training graph in
torch, and the placed program of `snncompile simulate`. Compared are all answers, all spikes and all potentials; the
float network and what plain quantisation makes of it stand beside them. Exits with 1 where anything differs.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from snncompile.commands.opening import Trained, data_of
from snncompile.compile import compile_integers, encoded, shown
from snncompile.run.cpu import Simulator
from snncompile.run.parts import merged
from snncompile.target import Target
from snncompile.verify import answers

BATCH = 250


@dataclass
class Comparison:
    """What was compared, and how much of it differs."""

    answers: list[int]
    different: dict[str, int]
    compared: dict[str, int]


def main() -> None:
    """Train, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("--from", dest="start", help="a finished checkpoint in reals")
    parser.add_argument("--target", default="loihi")
    parser.add_argument("--samples", type=int, default=0, help="training samples in integers (0: all)")
    parser.add_argument("--data-root")
    parser.add_argument("--work", type=Path, default=Path("benchmark-out"))
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    root = ["--data-root", options.data_root] if options.data_root else []
    reals = Path(options.start) if options.start else options.work / f"{options.recipe}.pt"
    if not reals.exists():
        snncompile("train", options.recipe, "-o", reals, *root)
    out = options.work / f"{options.recipe}-{options.target}.pt"
    if not out.exists():
        recipe = with_samples(reals, options)
        snncompile("train", recipe, "--from", reals, "-o", out, "--resume" if resumable(out) else "--force", *root)
    found = compared(out, options)
    deployed = snncompile("simulate", out, "--target", options.target, "--data", "test", *root)
    plain = snncompile("simulate", reals, "--target", options.target, "--data", "test", *root)
    found.compared["answers of `simulate`"] = len(found.answers)
    found.different["answers of `simulate`"] = int(np.sum(np.array(found.answers) != deployed["answers"]))
    report(reals, out, plain, deployed, found)
    sys.exit(1 if any(found.different.values()) else 0)


def resumable(out: Path) -> bool:
    """Whether an unfinished training lies there."""
    return out.with_name(f"{out.name}.resume").exists()


def with_samples(reals: Path, options: argparse.Namespace) -> Path:
    """The recipe of a checkpoint with its table ``quantise``, as a file."""
    recipe = Trained(reals).recipe.to_dict()
    own = recipe.get("quantise")
    settings: dict[str, Any] = own if isinstance(own, dict) else {}
    recipe["quantise"] = {**settings, "target": options.target, "samples": options.samples}
    path: Path = options.work / f"{options.recipe}-{options.target}.toml"
    lines = []
    for table, entries in recipe.items():
        assert isinstance(entries, dict)
        lines.append(f"[{table}]")
        for key, value in entries.items():
            lines.append(f"{key} = {inline(value)}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def inline(value: object) -> str:
    """A value as TOML."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {json.dumps(entry)}" for key, entry in value.items()) + " }"
    return json.dumps(value)


def compared(path: Path, options: argparse.Namespace) -> Comparison:
    """Torch against the placed program on the whole test split."""
    model = Trained(path)
    data = data_of(model.recipe, "test", options.data_root)
    compiled = compile_integers(model.graph, Target.load(options.target), model.steps)
    placed = compiled.levels["placed"]
    simulator = Simulator(placed, compiled.target)
    found = Comparison([], dict.fromkeys(kinds(), 0), dict.fromkeys(kinds(), 0))
    start = time.monotonic()
    for first in range(0, len(data.x), BATCH):
        x = data.x[first : first + BATCH]
        trained = merged(placed, model.record(x))
        deployed = merged(placed, simulator.run(encoded(placed, shown(placed, x, model.steps))))
        one, other = (answers(model.graph, trace) for trace in (trained, deployed))
        count(found, "answers", one, other)
        for name, spikes in deployed.spikes.items():
            count(found, "spikes", trained.spikes[name], spikes)
        for name, potentials in deployed.potentials.items():
            count(found, "potentials", trained.potentials[name], potentials)
        found.answers += one.tolist()
        print(f"\r{first + len(x)} of {len(data.x)}, {time.monotonic() - start:.0f} s", end="", file=sys.stderr)
    print(file=sys.stderr)
    return found


def kinds() -> tuple[str, ...]:
    """What is compared."""
    return ("answers", "spikes", "potentials")


def count(found: Comparison, kind: str, one: Any, other: Any) -> None:
    """Add a comparison."""
    found.compared[kind] += one.size
    found.different[kind] += int(np.sum(one != other)) if one.shape == other.shape else one.size


def report(reals: Path, out: Path, plain: Any, deployed: Any, found: Comparison) -> None:
    """The two tables."""
    before, after = (Trained(path).checkpoint.metrics for path in (reals, out))
    print("| network | test images | accuracy |\n| --- | ---: | ---: |")
    for name, accuracy in (
        ("float, torch", before["test_accuracy"]),
        ("float network quantised, deployed", plain["accuracy"]),
        ("trained in integers, torch", after["test_accuracy"]),
        ("trained in integers, deployed", deployed["accuracy"]),
    ):
        print(f"| {name} | {deployed['samples']:,} | {accuracy:.2%} |")
    print("\n| compared | values | different |\n| --- | ---: | ---: |")
    for kind, number in found.compared.items():
        print(f"| {kind} | {number:,} | {found.different[kind]:,} |")
    seconds = after["seconds"]
    print(f"\nThe last epoch in integers took {seconds:.0f} s, {after['samples_per_second']:.0f} samples a second.")


def snncompile(*words: object) -> dict[str, Any]:
    """The JSON result of a verb; its log goes to our standard error."""
    command = [sys.executable, "-m", "snncompile", *map(str, words), "--format", "json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


if __name__ == "__main__":
    main()
