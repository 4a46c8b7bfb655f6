"""What a training refuses before its first step, and how it cuts an epoch into batches."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from snncompile.errors import ReadError, SheetError
from snncompile.recipe import TrainingSettings
from snncompile.train.data import Split
from snncompile.train.loop import train
from snncompile.train.methods.tet import Tet
from snncompile.train.processes import Processes
from snncompile.train.splits import batches_of, check_classes
from tests.train.test_loop import silent


@given(
    st.integers(2, 400),
    st.integers(2, 64),
    st.integers(0, 400),
    st.integers(1, 8),
    st.integers(0, 3),
    st.integers(0, 9),
)
def test_every_sample_once_in_even_batches_that_batch_norm_can_norm(
    samples: int, batch: int, part: int, processes: int, epoch: int, seed: int
) -> None:
    settings = TrainingSettings(1, max(batch, 2 * processes), 0.1, seed)
    chosen = min(part or samples, samples)
    batches = batches_of(settings, samples, epoch, part, processes)
    whole = np.concatenate(batches)
    assert len(whole) == len(set(whole.tolist())) == chosen
    sizes = [len(one) for one in batches]
    assert max(sizes) - min(sizes) <= 1
    assert max(sizes) <= settings.batch + (settings.batch + 1) // 2
    if chosen >= 2 * processes:
        assert min(sizes) >= 2 * processes
        for own in (Processes(rank, processes).part(one) for one in batches for rank in range(processes)):
            assert len(own) >= 2


def test_one_sample_is_no_remainder_of_a_batch_of_two(small, tmp_path: Path) -> None:
    """Dense norm of one sample has no variance: torch refuses it."""
    recipe = small(training={"epochs": 1, "batch": 2, "samples": 5}, network={"architecture": "4FC-10FC"})
    assert train(recipe, None, tmp_path / "odd.pt", log=silent).finished


def test_one_sample_is_too_few(small, tmp_path: Path) -> None:
    with pytest.raises(SheetError, match=r"small, training.samples: 1 samples \(batch norm needs two samples"):
        train(small(training={"samples": 1}), None, tmp_path / "one.pt", log=silent)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("outputs", [9, 11])
def test_outputs_are_the_classes_no_fewer_and_no_more(small, tmp_path: Path, outputs: int) -> None:
    """With more, training would go well, and nothing could read its checkpoint."""
    wanted = f"the network has {outputs} outputs, the data have 10 classes; end it with 10FC"
    with pytest.raises(SheetError, match=wanted):
        train(small(network={"architecture": f"4C3S2-{outputs}FC"}), None, tmp_path / "out.pt", log=silent)


def split(labels: list[int] | None, classes: tuple[str, ...], name: str = "train") -> Split:
    y = None if labels is None else np.array(labels, np.int64)
    return Split("some", name, np.zeros((len(labels or ()), 1, 8, 8), np.float32), y, True, classes)


TEN = tuple("0123456789")


@pytest.mark.parametrize(
    ("train_split", "test_split", "message"),
    [
        (split([], TEN), split([1], TEN, "test"), "some:train: holds no samples"),
        (split([1], TEN), split([], TEN, "test"), "some:test: holds no samples"),
        (split([1, -1], TEN), split([1], TEN, "test"), "some:train: holds a label of no class (labels are 0 to 9)"),
        (split([1], TEN), split([1, 10], TEN, "test"), "some:test: holds a label of no class"),
        (split([1], TEN), split([1], ("x", *TEN[1:]), "test"), "some: its splits have other classes ('0' is in one of"),
        (split([1], TEN), split([1], TEN[:9], "test"), "some: its splits have other classes ('9' is in one of"),
        (split([1], TEN), split([1], TEN[::-1], "test"), "some: its splits have other classes (in another order)"),
    ],
)
def test_splits_that_are_refused(small, train_split: Split, test_split: Split, message: str) -> None:
    with pytest.raises(ReadError) as caught:
        check_classes(small(), train_split, test_split)
    assert message in str(caught.value)


def test_weights_that_are_no_numbers_are_no_success(small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loss is of the weights before a step, so the last step of all must be looked at as well."""

    def ruined(course: Tet) -> None:
        with torch.no_grad():
            next(iter(course.network.parameters())).fill_(float("inf"))

    monkeypatch.setattr(Tet, "after_step", ruined)
    recipe = small(training={"epochs": 1, "samples": 64, "batch": 64})
    with pytest.raises(
        ReadError, match=r"small: the weights '.*conv1.weight' hold NaN or infinity after epoch 1; lower"
    ):
        train(recipe, None, tmp_path / "out.pt", log=silent)
    assert not list(tmp_path.iterdir())


def test_a_network_that_no_memory_holds(small, tmp_path: Path) -> None:
    """2^40 weights of 4 bytes; an input of 2^60 places has more numbers than torch can count."""
    for network in ({"architecture": "1048576FC-1048576FC-10FC"}, {"input": [1 << 20, 1 << 20, 1 << 20]}):
        with pytest.raises(SheetError, match=r"small, network.architecture: is too large for this machine \(.*; fewer"):
            train(small(network={"architecture": "10FC"} | network), None, tmp_path / "out.pt", log=silent)


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")])
def test_a_step_that_no_memory_holds(small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def greedy(*_: object) -> None:
        raise error

    monkeypatch.setattr(Tet, "step", greedy)
    with pytest.raises(ReadError, match=r"small: a step needs more memory than there is \(.+\); lower training.batch"):
        train(small(), None, tmp_path / "out.pt", log=silent)


# One training a place


def test_two_trainings_into_one_place(small, tmp_path: Path) -> None:
    out, said = tmp_path / "out.pt", []

    def second(line: str) -> None:
        if line.startswith("epoch 1/"):
            for resume in (False, True):
                with pytest.raises(ReadError, match=r"out.pt: another process trains into it; wait") as caught:
                    train(small(), None, out, resume=resume, force=not resume, log=silent)
                said.append(str(caught.value))
            assert train(small(), None, tmp_path / "other.pt", log=silent).finished

    assert train(small(), None, out, log=second).finished
    assert len(said) == 2
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_lock_that_a_killed_training_left_holds_nobody(small, tmp_path: Path) -> None:
    (tmp_path / ".out.pt.lock").write_bytes(b"")
    assert train(small(), None, tmp_path / "out.pt", log=silent).finished
    assert not (tmp_path / ".out.pt.lock").exists()


def test_a_checkpoint_that_another_training_finished_meanwhile_is_kept(
    small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.pt"
    monkeypatch.setattr(Processes, "joined", classmethod(lambda cls, _: (out.write_bytes(b"theirs"), cls())[1]))
    with pytest.raises(ReadError, match=r"out.pt: exists"):
        train(small(), None, out, log=silent)
    assert out.read_bytes() == b"theirs"


def test_a_name_that_no_file_beside_it_could_have_is_told_before_the_training(small, tmp_path: Path) -> None:
    said: list[str] = []
    with pytest.raises(
        ReadError, match=r"is too long a name \(with what stands beside it \d+ bytes, a name has 255 at"
    ):
        train(small(), None, tmp_path / ("é" * 120 + ".pt"), log=said.append)
    assert said == []
    assert not list(tmp_path.iterdir())


def test_a_folder_that_takes_no_files(small) -> None:
    """The superuser has permission everywhere; this folder has no room for anybody."""
    with pytest.raises(ReadError, match=r"/proc: cannot be written to \(.+\); name another folder with -o"):
        train(small(), None, Path("/proc/out.pt"), log=silent)


def test_a_device_is_not_replaced(small, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ReadError, match=r"pipe: is no plain file; name a file"):
        train(small(), None, tmp_path / "pipe", force=True, log=silent)
    assert (tmp_path / "pipe").is_fifo()
