"""The loop: it learns, it resumes to the bit, it refuses to overwrite, and it leaves nothing half done."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from snncompile.errors import ReadError, SheetError
from snncompile.recipe import Recipe
from snncompile.train import checkpoint, loop
from snncompile.train.checkpoint import load_checkpoint, save_checkpoint
from snncompile.train.data import Split, load_for
from snncompile.train.loop import accuracy, train
from snncompile.train.networks import Network
from snncompile.train.optimisers import scheduled_rate


def silent(line: str) -> None:
    """Says nothing."""


def stop_after(epoch: int):
    """A log in which the user presses Ctrl-C as an epoch is reported."""

    def log(line: str) -> None:
        if line.startswith(f"epoch {epoch}/"):
            raise KeyboardInterrupt

    return log


def test_a_resumed_training_is_the_uninterrupted_one_bit_for_bit(small, tmp_path: Path) -> None:
    whole, parted = tmp_path / "whole.pt", tmp_path / "parted.pt"
    assert train(small(), None, whole, log=silent).finished
    assert not train(small(), None, parted, log=stop_after(1)).finished
    assert not train(small(), None, parted, resume=True, log=stop_after(2)).finished
    outcome = train(small(), None, parted, resume=True, log=silent)
    assert outcome.finished
    left, right = (torch.load(path, weights_only=True) for path in (whole, parted))
    for name, weights in left["weights"].items():
        assert torch.equal(weights, right["weights"][name]), name
    assert left["metrics"]["test_accuracy"] == right["metrics"]["test_accuracy"]
    records = [json.loads(line) for line in (tmp_path / "parted.pt.metrics.jsonl").read_text().splitlines()]
    assert [record["epoch"] for record in records] == [1, 2, 3]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "parted.pt",
        "parted.pt.metrics.jsonl",
        "whole.pt",
        "whole.pt.metrics.jsonl",
    ]


def test_dropout_is_drawn_again_when_a_training_is_resumed(small, tmp_path: Path) -> None:
    of = small(network={"dropout": 0.3})
    weights = {}
    for name, stops in (("whole", []), ("parted", [1, 2])):
        out = tmp_path / f"{name}.pt"
        for index, epoch in enumerate(stops):
            assert not train(of, None, out, resume=index > 0, log=stop_after(epoch)).finished
        assert train(of, None, out, resume=bool(stops), log=silent).finished
        weights[name] = load_checkpoint(out).weights
    assert all(torch.equal(value, weights["parted"][key]) for key, value in weights["whole"].items())


def test_an_interruption_says_how_to_go_on(small, tmp_path: Path) -> None:
    lines: list[str] = []

    def log(line: str) -> None:
        lines.append(line)
        stop_after(1)(line)

    out = tmp_path / "ckpt.pt"
    assert not train(small(), None, out, log=log).finished
    assert lines[-1] == f"interrupted: 1 epoch is saved in {out}; the same command with --resume goes on"


def test_a_checkpoint_is_not_overwritten(small, tmp_path: Path) -> None:
    out = tmp_path / "ckpt.pt"
    train(small(training={"epochs": 2}), None, out, log=stop_after(1))
    with pytest.raises(ReadError, match="unfinished training; go on with --resume"):
        train(small(training={"epochs": 2}), None, out, log=silent)
    with pytest.raises(ReadError, match="another recipe"):
        train(small(training={"epochs": 2, "seed": 8}), None, out, resume=True, log=silent)
    train(small(training={"epochs": 1}), None, out, force=True, log=silent)
    before = out.read_bytes()
    with pytest.raises(ReadError, match="exists; name another file"):
        train(small(training={"epochs": 1}), None, out, log=silent)
    assert train(small(training={"epochs": 1}), None, out, resume=True, log=silent).finished
    assert out.read_bytes() == before
    with pytest.raises(ReadError, match="is a folder"):
        train(small(), None, tmp_path, log=silent)


def test_an_interruption_while_the_test_split_is_measured_counts_no_epoch(
    small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    def interrupted(network: Network, split: Split, **_: object) -> float:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return 0.0

    lines: list[str] = []
    monkeypatch.setattr(loop, "accuracy", interrupted)
    assert train(small(), None, tmp_path / "ckpt.pt", log=lines.append).metrics["epoch"] == 1
    assert "1 epoch is saved" in lines[-1]


def test_a_crash_between_the_last_two_files_loses_nothing(
    small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, parted = tmp_path / "whole.pt", tmp_path / "parted.pt"
    train(small(), None, whole, log=silent)

    def crash(path: Path, network: Network, metrics: dict[str, object], split: Split) -> None:
        if metrics["finished"]:
            raise KeyboardInterrupt
        save_checkpoint(path, network, metrics, split)

    monkeypatch.setattr(checkpoint, "save_checkpoint", crash)
    assert not train(small(), None, parted, log=silent).finished
    assert not load_checkpoint(parted).metrics["finished"]
    monkeypatch.undo()
    assert train(small(), None, parted, resume=True, log=silent).finished
    left, right = load_checkpoint(whole), load_checkpoint(parted)
    assert right.metrics["finished"]
    assert all(torch.equal(weights, right.weights[name]) for name, weights in left.weights.items())


def test_outputs_and_classes_must_match(small, tmp_path: Path) -> None:
    with pytest.raises(SheetError, match="the network has 9 outputs, the data have 10 classes; end it with 10FC"):
        train(small(network={"architecture": "9FC"}), None, tmp_path / "ckpt.pt", log=silent)


def test_a_place_that_cannot_be_written_is_told_before_the_training(small, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ReadError, match="no folder can be made"):
        train(small(), None, tmp_path / "file" / "ckpt.pt", log=silent)


def test_nothing_to_resume(small, tmp_path: Path) -> None:
    with pytest.raises(ReadError, match=r"ckpt.pt: there is nothing to resume; start without --resume"):
        train(small(), None, tmp_path / "ckpt.pt", resume=True, log=silent)


@pytest.mark.parametrize("damage", ["truncate", "optimiser", "history"])
def test_a_damaged_resume_file(small, tmp_path: Path, damage: str) -> None:
    out = tmp_path / "ckpt.pt"
    train(small(), None, out, log=stop_after(1))
    path = tmp_path / "ckpt.pt.resume"
    if damage == "truncate":
        path.write_bytes(path.read_bytes()[:-500])
    else:
        content = torch.load(path, weights_only=True)
        content[damage] = {} if damage == "optimiser" else "one"
        torch.save(content, path)
    with pytest.raises(ReadError, match=r"ckpt\.pt\.resume"):
        train(small(), None, out, resume=True, log=silent)


SPARSE = torch.zeros(4, 1, 3, 3).to_sparse()


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("history", 0, "loss"), torch.zeros(3)),
        (("history", 0, "loss"), float("nan")),
        (("weights", "modules_of.conv1.weight"), SPARSE),
        (("weights", "modules_of.conv1.weight"), torch.empty(4, 1, 3, 3, device="meta")),
        (("average", "modules_of.conv1.weight"), torch.full((4, 1, 3, 3), float("nan"))),
        (("optimiser", "state"), {99: {}}),
        (("optimiser", "state", 0), []),
        (("optimiser", "state", 0), {}),
        (("optimiser", "state", 0, "step"), -1),
        (("optimiser", "state", 0, "step"), torch.tensor(-1.0)),
        (("optimiser", "state", 0, "step"), torch.zeros(3)),
        (("optimiser", "state", 0, "exp_avg"), torch.zeros(3)),
        (("optimiser", "state", 0, "exp_avg"), SPARSE),
        (("optimiser", "state", 0, "exp_avg"), torch.full((4, 1, 3, 3), float("inf"))),
        (("optimiser", "state", 0, "exp_avg_sq"), torch.full((4, 1, 3, 3), -1.0)),
        (("version",), torch.ones(2)),
        (("version",), True),
        (("format",), torch.ones(2)),
        (("processes",), torch.ones(2)),
    ],
)
def test_a_resume_file_that_lies(small, tmp_path: Path, place: tuple[str | int, ...], value: object) -> None:
    """Said at once, and not by torch in the middle of a step."""
    out, recipe = tmp_path / "ckpt.pt", small(training={"average": 0.9})
    train(recipe, None, out, log=stop_after(1))
    path = tmp_path / "ckpt.pt.resume"
    content = torch.load(path, weights_only=True)
    inner = content
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    torch.save(content, path)
    with pytest.raises(ReadError, match=r"ckpt\.pt\.resume"):
        train(recipe, None, out, resume=True, log=silent)


def test_what_is_said_of_all_parameters_is_what_the_recipe_says(small, tmp_path: Path) -> None:
    whole, parted = tmp_path / "whole.pt", tmp_path / "parted.pt"
    train(small(), None, whole, log=silent)
    train(small(), None, parted, log=stop_after(1))
    path = tmp_path / "parted.pt.resume"
    content = torch.load(path, weights_only=True)
    content["optimiser"]["param_groups"][0] |= {"weight_decay": 0.5, "betas": "x", "capturable": True}
    torch.save(content, path)
    assert train(small(), None, parted, resume=True, log=silent).finished
    assert all(
        torch.equal(one, load_checkpoint(parted).weights[name]) for name, one in load_checkpoint(whole).weights.items()
    )


def test_a_loss_that_is_no_number_stops_the_training(small, tmp_path: Path) -> None:
    recipe = small(tet={"lambda": 1.0, "phi": 1e30})
    with pytest.raises(ReadError, match="the loss is"):
        train(recipe, None, tmp_path / "ckpt.pt", log=silent)


def test_cosine_ends_at_zero(small) -> None:
    settings = small().training
    assert scheduled_rate(settings, 0, 5, 10) == 0.01
    assert scheduled_rate(settings, 5, 5, 10) == pytest.approx(0.005)
    assert scheduled_rate(settings, 10, 5, 10) == pytest.approx(0.0)


def test_digits_are_learned(tmp_path: Path) -> None:
    """A third of the shipped recipe already knows the digits; the whole one is better."""
    recipe = Recipe.load("digits-tet")
    recipe = dataclasses.replace(recipe, training=dataclasses.replace(recipe.training, epochs=4))
    out = tmp_path / "ckpt.pt"
    outcome = train(recipe, None, out, log=silent)
    assert outcome.metrics["test_accuracy"] > 0.93
    network = Network.from_checkpoint(out)
    assert accuracy(network, load_for(recipe, "test")) == outcome.metrics["test_accuracy"]
