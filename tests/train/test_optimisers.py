"""Optimisers, schedules, half precision, averages, and the curves."""

from __future__ import annotations

import math
import struct
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from snncompile.errors import ReadError, SheetError, ToolError
from snncompile.train.averages import Average
from snncompile.train.checkpoint import load_checkpoint
from snncompile.train.curves import Curves
from snncompile.train.data import load_for
from snncompile.train.loop import Options, accuracy, train, train_with
from snncompile.train.networks import Network
from snncompile.train.optimisers import Precision, optimiser_of, scheduled_rate
from tests.train.test_loop import silent


@pytest.mark.parametrize(
    ("training", "expected"),
    [
        ({"schedule": "constant"}, [1.0] * 6),
        ({"schedule": "cosine"}, [(1 + math.cos(math.pi * step / 6)) / 2 for step in range(6)]),
        ({"schedule": "steps", "milestones": [1, 2], "factor": 0.5}, [1.0, 1.0, 0.5, 0.5, 0.25, 0.25]),
        ({"schedule": "constant", "warm_up": 4}, [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]),
        ({"schedule": "steps", "milestones": [2], "warm_up": 2}, [0.5, 1.0, 1.0, 1.0, 0.1, 0.1]),
    ],
)
def test_schedules(small, training: dict[str, Any], expected: list[float]) -> None:
    settings = small(training=training | {"learning_rate": 1.0}).training
    assert [scheduled_rate(settings, step, 2, 6) for step in range(6)] == pytest.approx(expected)


def test_sgd_with_momentum_and_decay(small) -> None:
    """m = 0.9 m + (g + 0.1 w); w = w - 0.5 m, by hand for two steps."""
    training = {"optimiser": "sgd", "momentum": 0.9, "weight_decay": 0.1, "learning_rate": 0.5}
    weight = torch.nn.Parameter(torch.tensor([2.0], dtype=torch.float64))
    optimiser = optimiser_of(small(training=training).training, [weight])
    w, m = 2.0, 0.0
    for gradient in (1.0, -3.0):
        weight.grad = torch.tensor([gradient], dtype=torch.float64)
        optimiser.step()
        m = 0.9 * m + (gradient + 0.1 * w)
        w = w - 0.5 * m
        assert float(weight.detach()) == pytest.approx(w, rel=1e-12)


@pytest.mark.parametrize(
    ("training", "message"),
    [
        ({"momentum": 0.9}, "training.momentum: out of range; it must be 0 for adam"),
        ({"milestones": [3]}, "training.milestones: out of range"),
        ({"schedule": "steps"}, "training.milestones: out of range"),
        ({"schedule": "steps", "milestones": [0]}, "epochs from 1"),
        ({"schedule": "steps", "milestones": [1.5]}, "expected a list of integers"),
        ({"average": 1.0}, "from 0 .none. to below 1"),
        ({"precision": "int8"}, "'int8' is not known here"),
        ({"warm_up": -1}, "a number of steps"),
    ],
)
def test_settings_that_are_refused(small, training: dict[str, Any], message: str) -> None:
    with pytest.raises(Exception, match=message):
        small(training=training)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"name": "cifar100", "augment": "roll-flip"}, "roll-flip is not for cifar100; crop-flip is"),
        ({"name": "dvs-gesture", "augment": "roll-flip"}, "roll-flip is not for dvs-gesture; roll is"),
        ({"name": "imagenet", "augment": "crop-flip"}, "resized-crop-flip is"),
        ({"name": "nmnist", "frames": "milliseconds"}, "a positive length of a frame"),
        ({"name": "nmnist", "milliseconds": 3.0}, "a positive length of a frame"),
        ({"name": "nmnist", "division": "maximum", "most": 1}, "1 is out of range"),
        ({"name": "digits", "frames": "count"}, "digits has no recordings to cut"),
        ({"name": "cifar10-dv"}, "did you mean cifar10-dvs"),
    ],
)
def test_data_that_are_refused(small, data: dict[str, Any], message: str) -> None:
    with pytest.raises(Exception, match=message):
        small(data=data)


def test_the_average_is_off_by_default_and_else_what_is_kept(small, tmp_path: Path) -> None:
    """After one epoch of n steps: a = d^n w0 + (1 - d) sum d^(n - k) w_k, followed here step by step."""
    assert small().training.average == 0.0
    recipe = small(training={"epochs": 1, "average": 0.75})
    followed: list[dict[str, torch.Tensor]] = []
    update = Average.update

    def recorded(self: Average, network: Any) -> None:
        followed.append({name: value.clone() for name, value in network.state_dict().items()})
        update(self, network)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Average, "update", recorded)
        outcome = train(recipe, None, tmp_path / "ckpt.pt", log=silent)
    torch.manual_seed(recipe.training.seed)
    expected = {name: value.double() for name, value in Network(recipe).state_dict().items()}
    for weights in followed:
        for name, value in weights.items():
            own = expected[name]
            expected[name] = 0.75 * own + 0.25 * value.double() if value.is_floating_point() else value
    found = load_checkpoint(tmp_path / "ckpt.pt")
    for name, value in found.weights.items():
        torch.testing.assert_close(value.double(), expected[name].double(), rtol=1e-5, atol=1e-6)
    assert not torch.equal(found.weights["modules_of.conv1.weight"], followed[-1]["modules_of.conv1.weight"])
    assert outcome.metrics["test_accuracy"] == accuracy(found.network(), load_for(recipe, "test"))


def test_the_rate_of_a_step_is_what_the_schedule_says(small, tmp_path: Path) -> None:
    training = {"schedule": "steps", "milestones": [1], "factor": 0.5, "evaluate_every": 9}
    train(small(training=training), None, tmp_path / "ckpt.pt", log=silent)
    import json

    lines = (tmp_path / "ckpt.pt.metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["learning_rate"] for line in lines] == [0.01, 0.005, 0.005]


def test_half_precision_learns_and_its_weights_are_whole(small, tmp_path: Path) -> None:
    recipe = small(training={"precision": "bfloat16"})
    whole, half = (
        train(small(), None, tmp_path / "a.pt", log=silent),
        train(recipe, None, tmp_path / "b.pt", log=silent),
    )
    left, right = (load_checkpoint(tmp_path / name).weights for name in ("a.pt", "b.pt"))
    assert {value.dtype for value in right.values()} == {torch.float32, torch.int64}
    assert not torch.equal(left["modules_of.fc1.weight"], right["modules_of.fc1.weight"])
    assert half.metrics["test_accuracy"] > 0.6 * whole.metrics["test_accuracy"]


def test_a_gradient_that_overflows_is_left_out() -> None:
    weight = torch.nn.Parameter(torch.ones(1))
    precision, optimiser = Precision("float16"), torch.optim.SGD([weight], lr=1.0)
    scale = precision.state()["scale"]
    precision.scaled((weight * torch.inf).sum()).backward()
    precision.step(optimiser)
    assert float(weight.detach()) == 1.0
    assert precision.state()["scale"] == scale / 2


def records(path: Path) -> list[bytes]:
    """The records of an event file: a length, its checksum, so many bytes, their checksum."""
    whole, place, found = path.read_bytes(), 0, []
    while place < len(whole):
        (length,) = struct.unpack_from("<Q", whole, place)
        found.append(whole[place + 12 : place + 12 + length])
        place += 16 + length
    return found


def test_curves_for_tensorboard(small, tmp_path: Path) -> None:
    out, folder = tmp_path / "ckpt.pt", tmp_path / "curves"
    outcome = train_with(small(), None, out, Options(curves=folder), silent)
    (file,) = folder.iterdir()
    content = records(file)
    for name in (b"loss", b"train_accuracy", b"test_accuracy", b"learning_rate"):
        assert sum(b"\n" + bytes([len(name)]) + name in record for record in content) == 3, name
    last = struct.pack("<f", outcome.metrics["test_accuracy"])
    assert any(last in record and b"test_accuracy" in record for record in content)


def test_without_tensorboardx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(ToolError, match=r"tensorboardX is not installed; pip install 'snncompile\[curves\]'"):
        Curves.at(tmp_path)


def test_curves_that_cannot_be_written(small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In words, not as the traceback of the thread that writes; whatever else fails in a thread is told as ever."""
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ReadError, match=r"file: curves cannot be written \(Not a directory\); name another folder"):
        train_with(small(), None, tmp_path / "a.pt", Options(curves=tmp_path / "file"), silent)

    class Full:
        def add_scalar(self, *_: object) -> None:
            pass

        def flush(self) -> None:
            raise OSError(28, "No space left on device")

        close = flush

    told: list[object] = []
    monkeypatch.setattr(threading, "excepthook", lambda failed: told.append(failed.exc_type))
    with Curves(Full(), tmp_path / "curves") as curves:
        for failure in (OSError, ZeroDivisionError):
            thread = threading.Thread(target=_raising, args=(failure,))
            thread.start()
            thread.join()
        with pytest.raises(ReadError, match=r"curves: curves cannot be written \(No space left on device\)"):
            curves.add({"epoch": 1, "loss": 1.0})
    assert told == [ZeroDivisionError]


def _raising(failure: type[Exception]) -> None:
    raise failure


def test_a_batch_that_cannot_be_shared(small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from snncompile.train import loop
    from snncompile.train.processes import Processes

    monkeypatch.setattr(loop.Processes, "joined", lambda device: Processes(0, 65))
    with pytest.raises(SheetError, match="65 processes share a batch, and batch norm needs two samples in each"):
        train(small(), None, tmp_path / "ckpt.pt", log=silent)
