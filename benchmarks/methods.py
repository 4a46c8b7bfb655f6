"""The five training methods, each trained here and taken down to a chip's integers: one row a recipe.

    python benchmarks/methods.py [RECIPE ...] [--work DIR] [--data-root DIR] [--samples N] [--counted N]

A row trains its recipe (or goes on with, or uses, what --work holds of it), measures the whole test split in float and
in the integers of its target, proves --samples of the recipe's training images rung by rung, on Lava too where it is
installed, and counts the operations of --counted test samples. Rows are kept in DIR/rows.jsonl, the newest of a recipe
counts; without a recipe on the command line all are made that are not there yet. The table goes to standard output.
Exits with 1 where a rung differs.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from snncompile.recipe import Recipe
from snncompile.recipe.methods import TetSettings
from snncompile.train.data import load_for

ROWS = {
    "fashion-mini-tet-cpu": "loihi",
    "mnist-mini-tit-cpu": "loihi",
    "nmnist-tet": "loihi",
    "cifar10-snn5-tet-cpu": "loihi",
    "mnist-mini-asf-cpu": "loihi",
    "fashion-mini-idsnn-cpu": "loihi",
    "fashion-mini-dsr-cpu": "loihi-custom",
    "fashion-f400-ide-cpu": "loihi-custom",
}
"""The recipes and the machine of each: soft resets need one with a neuron of our own."""

ACCELERATED = {"cifar10-resnet19-tet-gpu": "loihi"}
"""What is trained on an accelerator, and only where it is named."""
TARGETS = ROWS | ACCELERATED

LOSSLESS = (1, 2, 4, 5, 6)


def main() -> None:
    """Make the rows, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="*", choices=[[], *TARGETS], help="these rows anew")
    parser.add_argument("--work", type=Path, default=Path("benchmark-out"))
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--samples", type=int, default=32)
    parser.add_argument("--counted", type=int, default=256)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    for recipe in options.recipes or [name for name in ROWS if name not in rows(options.work)]:
        row = measured(recipe, options)
        with (options.work / "rows.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
    found = [*rows(options.work).values()]
    print(table(found))
    sys.exit(1 if any(row["divergence"] != "none" for row in found) else 0)


def rows(work: Path) -> dict[str, dict[str, Any]]:
    """The newest row of every recipe, in the order of ``TARGETS``."""
    path = work / "rows.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    found = {row["recipe"]: row for row in map(json.loads, lines)}
    return {name: found[name] for name in TARGETS if name in found}


def measured(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """One row."""
    root = ["--data-root", str(options.data_root)] if options.data_root else []
    path, target, recipe = options.work / f"{name}.pt", TARGETS[name], Recipe.load(name)
    again = path.is_file() or path.with_name(f"{path.name}.resume").is_file()
    where = ["--device", "cuda", "--compile"] if name in ACCELERATED and not finished(path) else []
    snncompile("train", name, "-o", path, *(["--resume"] if again else []), *where, *root)
    epochs = [json.loads(line) for line in Path(f"{path}.metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    teacher = path.with_name(f"{path.stem}.teacher.pt.metrics.jsonl")
    taught = [json.loads(line) for line in teacher.read_text().splitlines()] if teacher.is_file() else []
    deployed = answer("simulate", path, "--target", target, "--data", "test", *root)
    proven = answer("export", sampled(path, options), "--target", target, "-o", options.work / name, "--force")
    counted = answer("energy", path, "--data", f"test:{options.counted}", *root)
    return {
        "recipe": name,
        "method": method_of(recipe),
        "data": recipe.data.name,
        "steps": recipe.steps,
        "epochs": len(epochs),
        "seen": len(epochs) * (recipe.training.samples or len(load_for(recipe, "train", options.data_root))),
        "seconds": sum(epoch["seconds"] for epoch in epochs),
        "teacher_seconds": sum(epoch["seconds"] for epoch in taught),
        "teacher_accuracy": taught[-1]["test_accuracy"] if taught else None,
        "float": epochs[-1]["test_accuracy"],
        "tested": epochs[-1]["test_samples"],
        "target": target,
        "integers": deployed["accuracy"],
        "proven": options.samples,
        "rungs": proven["rungs"],
        "divergence": divergence(proven["rungs"]),
        "ac": counted["totals"]["ac"] / counted["samples"],
        "mac": counted["totals"]["mac"] / counted["samples"],
        "counted": options.counted,
    }


def finished(path: Path) -> bool:
    """Whether a training is over: what is left of the row is computed on any machine."""
    return path.is_file() and not path.with_name(f"{path.name}.resume").is_file()


def method_of(recipe: Recipe) -> str:
    """TET's second stage has a name of its own."""
    later = isinstance(recipe.settings, TetSettings) and recipe.settings.tit
    return "TET, TIT" if later else recipe.method.upper()


def sampled(path: Path, options: argparse.Namespace) -> Path:
    """The checkpoint with fewer samples in it: what the ladder runs on."""
    content = torch.load(path, map_location="cpu", weights_only=True)
    content["sample"] = {key: values[: options.samples] for key, values in content["sample"].items()}
    short = path.with_name(f"{path.stem}.short.pt")
    torch.save(content, short)
    return short


def divergence(rungs: list[dict[str, Any]]) -> str:
    """The first rung that differs, of those that must not."""
    wrong = [rung for rung in rungs if rung["rung"] in LOSSLESS and rung["verdict"] == "DIFFERENT"]
    return f"rung {wrong[0]['rung']}: {wrong[0]['note']}" if wrong else "none"


def snncompile(*words: object) -> str:
    """The program itself, on this interpreter; what it prints. Ends where it fails, except on a difference."""
    command = [sys.executable, "-m", "snncompile", *map(str, words)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=os.environ, check=False)
    if done.returncode not in (0, 8):
        sys.exit(f"{' '.join(command)} ended with {done.returncode}")
    return done.stdout


def answer(*words: object) -> dict[str, Any]:
    """The same, its answer as a record."""
    found: dict[str, Any] = json.loads(snncompile(*words, "--format", "json", "--quiet"))
    return found


def table(found: list[dict[str, Any]]) -> str:
    """Markdown."""
    head = ["method", "recipe", "data", "T", "samples seen", "seconds", "float", "integers of", "first divergence"]
    lines = [[*head, "AC", "MAC"], ["---"] * (len(head) + 2)]
    for row in found:
        also = f" (+ {row['teacher_seconds']:.0f} for the teacher)" if row["teacher_seconds"] else ""
        lines.append(
            [
                row["method"],
                f"`{row['recipe']}`",
                row["data"],
                str(row["steps"]),
                f"{row['seen']:,}",
                f"{row['seconds']:.0f}{also}",
                f"{row['float']:.2%}",
                f"{row['integers']:.2%} {row['target']}",
                row["divergence"],
                f"{row['ac']:,.0f}",
                f"{row['mac']:,.0f}",
            ]
        )
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


if __name__ == "__main__":
    main()
