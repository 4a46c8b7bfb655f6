"""Accuracy before and after deployment, on a whole test set: the table in the README.

    python benchmarks/accuracy.py [RECIPE ...] [--data-root DIR] [--work DIR]

For each recipe: train (or go on, or use the finished checkpoint in --work), evaluate the float network in torch and the
target's integers in `snncompile simulate` on every test image, and print one row of Markdown. A recipe whose data are
not there is left out, and said to be.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

RECIPES = ("digits-tet", "fashion-lenet-tet")
HEADER = "| recipe | test images | float | deployed | difference | training |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="*", default=list(RECIPES), metavar="RECIPE")
    parser.add_argument("--data-root")
    parser.add_argument("--target", default="loihi")
    parser.add_argument("--work", type=Path, default=Path("benchmark-out"))
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    rows = [row for recipe in options.recipes if (row := measured(recipe, options))]
    print("\n".join([HEADER, "|" + " --- |" + " ---: |" * 5, *rows]))


def measured(recipe: str, options: argparse.Namespace) -> str | None:
    """One row of the table."""
    checkpoint = options.work / f"{recipe}.pt"
    root = ["--data-root", options.data_root] if options.data_root else []
    try:
        trained = snncompile("train", recipe, "-o", checkpoint, "--resume" if checkpoint.exists() else "--force", *root)
    except subprocess.CalledProcessError:
        print(f"{recipe}: left out", file=sys.stderr)
        return None
    history = [json.loads(line) for line in Path(f"{checkpoint}.metrics.jsonl").read_text().splitlines()]
    trained_for = sum(epoch["seconds"] for epoch in history)
    simulated = snncompile("simulate", checkpoint, "--target", options.target, "--data", "test", *root)
    before, after, n = trained["metrics"]["test_accuracy"], simulated["accuracy"], simulated["samples"]
    return (
        f"| {recipe} | {n:,} | {before:.2%} | {after:.2%} | {100 * (after - before):+.2f} points "
        f"| {trained_for / 60:.1f} min |"
    )


def snncompile(*words: object) -> dict[str, Any]:
    """The JSON result of a verb; its log goes to our standard error."""
    command = [sys.executable, "-m", "snncompile", *map(str, words), "--format", "json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


if __name__ == "__main__":
    main()
