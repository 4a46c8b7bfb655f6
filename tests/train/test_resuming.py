"""Going on after an interruption: every optimiser, schedule and average, to the bit; and real signals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from snncompile.errors import ReadError
from snncompile.recipe import Recipe
from snncompile.train.checkpoint import load_checkpoint
from snncompile.train.loop import train
from tests.train.test_loop import silent, stop_after

MOMENTUM = {"optimiser": "sgd", "momentum": 0.9, "weight_decay": 0.0005, "learning_rate": 0.1}


def same(left: Path, right: Path) -> bool:
    """Whether two checkpoints hold the same weights, bit for bit."""
    one, other = (load_checkpoint(path).weights for path in (left, right))
    assert one.keys() == other.keys()
    return all(torch.equal(weights, other[name]) for name, weights in one.items())


@pytest.mark.parametrize(
    "training",
    [
        {},
        {"weight_decay": 0.001, "schedule": "constant"},
        MOMENTUM,
        {"optimiser": "sgd", "learning_rate": 0.1},
        MOMENTUM | {"schedule": "steps", "milestones": [1, 2], "factor": 0.5},
        MOMENTUM | {"warm_up": 20, "average": 0.9},
        {"average": 0.99, "schedule": "steps", "milestones": [2]},
        {"precision": "bfloat16", "average": 0.9},
        {"precision": "float16", "learning_rate": 0.001},
    ],
    ids=lambda training: "-".join(map(str, training.values())) or "adam",
)
def test_every_training_is_resumed_to_the_bit(small, tmp_path: Path, training: dict[str, Any]) -> None:
    whole, parted = tmp_path / "whole.pt", tmp_path / "parted.pt"
    recipe = small(training=training, data={"augment": "crop-flip"})
    assert train(recipe, None, whole, log=silent).finished
    assert not train(recipe, None, parted, log=stop_after(1)).finished
    assert not same(whole, parted)
    assert not train(recipe, None, parted, resume=True, log=stop_after(2)).finished
    assert train(recipe, None, parted, resume=True, log=silent).finished
    assert same(whole, parted)
    left, right = (load_checkpoint(path).metrics for path in (whole, parted))
    timed = ("seconds", "samples_per_second")
    assert {k: v for k, v in left.items() if k not in timed} == {k: v for k, v in right.items() if k not in timed}


def written(recipe: Recipe, path: Path) -> Path:
    """A recipe as a file."""
    lines = []
    for table, entries in recipe.to_dict().items():
        lines.append(f"[{table}]")
        for key, value in entries.items():  # type: ignore[attr-defined]
            shown = str(value).lower() if isinstance(value, bool) else repr(value).replace("()", "[]")
            lines.append(f"{key} = {shown}")
    path.write_text("\n".join(lines) + "\n")
    assert Recipe.load(str(path)) == recipe
    return path


def listen_to_interrupts() -> None:
    """A shell that starts the tests in the background has them ignore SIGINT, and what they start inherits that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_cleanly_wherever_it_strikes(small, tmp_path: Path, sent: signal.Signals) -> None:
    recipe = small(training={"epochs": 12, "batch": 16})
    file = written(recipe, tmp_path / "small.toml")
    whole, parted = tmp_path / "whole.pt", tmp_path / "parted.pt"
    train(recipe, None, whole, log=silent)
    command = [sys.executable, "-m", "snncompile", "train", str(file), "-o", str(parted)]
    struck = subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, preexec_fn=listen_to_interrupts
    )
    deadline = time.monotonic() + 120
    while not (tmp_path / "parted.pt.metrics.jsonl").is_file() and time.monotonic() < deadline:
        time.sleep(0.01)
    struck.send_signal(sent)
    _, log = struck.communicate(timeout=60)
    assert struck.returncode == 130, log
    assert "interrupted" in log
    assert "Traceback" not in log
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
    assert not load_checkpoint(parted).metrics["finished"]
    subprocess.run([*command, "--resume", "--quiet"], check=True, env=os.environ, stdout=subprocess.DEVNULL)
    assert same(whole, parted)


def test_another_number_of_processes_does_not_go_on(small, tmp_path: Path) -> None:
    out = tmp_path / "ckpt.pt"
    train(small(), None, out, log=stop_after(1))
    path = tmp_path / "ckpt.pt.resume"
    content = torch.load(path, weights_only=True)
    torch.save(content | {"processes": 4}, path)
    with pytest.raises(ReadError, match=r"another number of processes than 1.*go on with as many: 4"):
        train(small(), None, out, resume=True, log=silent)


@pytest.mark.parametrize("damage", ["average", "precision"])
def test_a_damaged_average_or_scale(small, tmp_path: Path, damage: str) -> None:
    out, recipe = tmp_path / "ckpt.pt", small(training={"average": 0.9, "precision": "float16"})
    train(recipe, None, out, log=stop_after(1))
    path = tmp_path / "ckpt.pt.resume"
    content = torch.load(path, weights_only=True)
    torch.save(content | {damage: {"foreign": torch.zeros(1)}}, path)
    with pytest.raises(ReadError, match=r"damaged \(.*\); train again with --force"):
        train(recipe, None, out, resume=True, log=silent)
