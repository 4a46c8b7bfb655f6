"""Simulating a file: batch by batch, by one process or several, with the answers of the whole array in memory."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from snncompile.cli import main
from snncompile.commands import simulate
from snncompile.run import cpu, shards
from snncompile.train import streamed as streams
from snncompile.train.data import load
from snncompile.train.streamed import streamed
from tests.tiny import STEPS

SHAPE = (1, 8, 8)
SAMPLES = 37


@pytest.fixture
def digits() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    found = load(f"digits:test:{SAMPLES}")
    assert isinstance(found.x, np.ndarray)
    assert found.y is not None
    return found.x, found.y


@pytest.fixture
def files(tmp_path: Path, digits: Any) -> dict[str, Path]:
    """The same samples in every form that is streamed."""
    x, y = digits
    np.save(tmp_path / "x.npy", x)
    np.savez(tmp_path / "stored.npz", x=x, y=y)
    np.savez_compressed(tmp_path / "packed.npz", y=y, x=x.astype(np.float64))
    frames = np.repeat(x[:, None], STEPS, axis=1)
    np.savez(tmp_path / "frames.npz", x=frames, y=y)
    return {path.stem: path for path in tmp_path.iterdir()}


def simulated(capfd: pytest.CaptureFixture[str], *words: object) -> dict[str, Any]:
    capfd.readouterr()
    assert main(["simulate", *map(str, words), "--format", "json", "-q"]) == 0
    found: dict[str, Any] = json.loads(capfd.readouterr().out)
    return found


@pytest.mark.parametrize("name", ["x", "stored", "packed", "frames"])
def test_a_streamed_file_answers_as_the_data_set(
    name: str,
    saved: Path,
    files: dict[str, Path],
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expected = simulated(capfd, saved, "--data", f"digits:test:{SAMPLES}")
    monkeypatch.setattr(shards, "BATCH", 10)
    monkeypatch.setattr(simulate, "chosen_data", lambda *_: pytest.fail("the file was read whole"))
    found = simulated(capfd, saved, "--data", files[name])
    assert found["samples"] == SAMPLES
    assert (found["spikes"], found["answers"]) == (expected["spikes"], expected["answers"])
    assert found.get("accuracy") == (None if name == "x" else expected["accuracy"])
    counted = simulated(capfd, saved, "--data", f"{files[name]}:5")
    assert counted["answers"] == expected["answers"][:5]


@pytest.mark.parametrize("name", ["stored", "packed"])
@pytest.mark.parametrize("jobs", [2, 3])
def test_processes_change_nothing(
    jobs: int, name: str, saved: Path, files: dict[str, Path], capfd: pytest.CaptureFixture[str]
) -> None:
    one = simulated(capfd, saved, "--data", files[name])
    assert simulated(capfd, saved, "--data", files[name], "--jobs", jobs) == one


def test_processes_change_nothing_of_a_data_set(saved: Path, capfd: pytest.CaptureFixture[str]) -> None:
    one = simulated(capfd, saved, "--data", f"digits:test:{SAMPLES}")
    assert simulated(capfd, saved, "--data", f"digits:test:{SAMPLES}", "-j", 2) == one


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_data_set_is_made_batch_by_batch(
    jobs: int, saved: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = simulated(capfd, saved, "--data", f"digits:test:{SAMPLES}")
    trace = Path(saved.parent / "whole.npz")
    whole = simulated(capfd, saved, "--data", f"digits:test:{SAMPLES}", "--trace", trace)  # keeps, so reads, everything
    trace.unlink()
    assert (found["answers"], found["spikes"], found["accuracy"]) == (
        whole["answers"],
        whole["spikes"],
        whole["accuracy"],
    )
    monkeypatch.setattr(shards, "BATCH", 10)
    monkeypatch.setattr(simulate, "chosen_data", lambda *_: pytest.fail("the set was read whole"))
    assert simulated(capfd, saved, "--data", f"digits:test:{SAMPLES}", "--jobs", jobs) == found


def test_no_more_than_a_batch_is_read(files: dict[str, Path], digits: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    read = streams._read

    def noting(file: Any, size: int, path: Path) -> bytes:
        sizes.append(size)
        return read(file, size, path)

    monkeypatch.setattr(streams, "_read", noting)
    found = streamed(str(files["packed"]), SHAPE, STEPS)
    assert found is not None
    parts = list(found.batches(3, SAMPLES, 8))
    np.testing.assert_array_equal(np.concatenate(parts), digits[0][3:])
    assert max(sizes) == 8 * 64 * 8


def test_what_is_not_streamed(tmp_path: Path, digits: Any) -> None:
    x, y = digits
    cases: dict[str, Any] = {
        "shape": {"x": x[:, :, :4]},
        "empty": {"x": x[:0]},
        "text": {"x": np.array(["a"])},
        "labels": {"x": x, "y": y[:3]},
        "columns": {"x": np.asfortranarray(x)},
        "other": {"z": x},
    }
    for name, arrays in cases.items():
        np.savez(tmp_path / f"{name}.npz", **arrays)
        assert streamed(str(tmp_path / f"{name}.npz"), SHAPE, STEPS) is None, name
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04 and no more")
    for spec in ("broken.npz", "missing.npy", "broken.npz:0"):
        assert streamed(str(tmp_path / spec), SHAPE, STEPS) is None, spec


def test_a_file_that_ends_or_holds_no_number_is_refused(
    saved: Path, tmp_path: Path, digits: Any, refused: Callable[..., str]
) -> None:
    x = digits[0].copy()
    np.save(tmp_path / "short.npy", x)
    content = (tmp_path / "short.npy").read_bytes()
    (tmp_path / "short.npy").write_bytes(content[:-40])
    assert "ends too early" in refused(4, "simulate", saved, "--data", tmp_path / "short.npy")
    x[30, 0, 0, 0] = np.nan
    np.save(tmp_path / "nan.npy", x)
    assert "not a finite number" in refused(4, "simulate", saved, "--data", tmp_path / "nan.npy")


def test_jobs_and_trace_exclude_each_other(saved: Path, tmp_path: Path, refused: Callable[..., str]) -> None:
    words = ("--data", "test:4", "--jobs", "2", "--trace", tmp_path / "t.npz")
    assert "exclude each other" in refused(4, "simulate", saved, *words)


def test_without_joblib(saved: Path, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "joblib", None)
    assert "snncompile[jobs]" in refused(7, "simulate", saved, "--data", "test:4", "--jobs", "2")


def test_an_interrupt_ends_it(
    saved: Path, files: dict[str, Path], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "BATCH", 10)
    runs: list[int] = []

    def interrupted(self: Any, stimulus: Any, keep: Any = None) -> Any:
        runs.append(1)
        if len(runs) == 2:
            raise KeyboardInterrupt
        return run(self, stimulus, keep)

    run = shards.Simulator.run
    monkeypatch.setattr(shards.Simulator, "run", interrupted)
    assert main(["simulate", str(saved), "--data", str(files["stored"])]) == 130
    said = capfd.readouterr()
    assert said.out == ""
    *_, left, last = said.err.splitlines()
    assert left.startswith(
        f"10 of {SAMPLES} samples were done, {SAMPLES - 10} are left; a run begins at the first, with --resume"
    )
    assert "interrupted; nothing was left half written" in last


def test_what_runs_is_said_once(
    saved: Path, files: dict[str, Path], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "BATCH", 10)
    monkeypatch.setenv(cpu.THREADS_VARIABLE, "2")
    for kernels in [*cpu.KERNELS, "numpy"]:
        monkeypatch.setenv(cpu.KERNELS_VARIABLE, kernels)
        assert main(["simulate", str(saved), "--data", str(files["stored"])]) == 0
        said = [line for line in capfd.readouterr().err.splitlines() if line.startswith("runs on")]
        engine = f"the compiled engine ({kernels}, 2 threads)"
        assert said == ["runs on " + (engine if kernels in cpu.KERNELS else f"NumPy ({_numpy()})")]


def _numpy() -> str:
    return f"{cpu.KERNELS_VARIABLE} names it" if cpu.KERNELS else "the compiled engine was not built"


@pytest.mark.skipif(not cpu.KERNELS, reason="NumPy is interrupted between its own calls")
def test_ctrl_c_ends_a_run_that_goes_on(
    saved: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real signal, in the middle of a batch of many samples."""
    np.save(tmp_path / "many.npy", np.random.default_rng(0).random((300_000, *SHAPE)) < 0.5)
    monkeypatch.setattr(shards, "BATCH", 300_000)
    run = shards.Simulator.run

    def later(self: Any, stimulus: Any, keep: Any = None) -> Any:
        stop = threading.Timer(0.02, os.kill, (os.getpid(), signal.SIGINT))
        stop.start()
        found = run(self, stimulus, keep)
        pytest.fail("it ran to its end")
        return found

    monkeypatch.setattr(shards.Simulator, "run", later)
    monkeypatch.setattr(shards, "encoded", lambda graph, given: {name: x.astype(np.int8) for name, x in given.items()})
    assert main(["simulate", str(saved), "--data", str(tmp_path / "many.npy"), "-q"]) == 130
    said = capfd.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert "interrupted" in said.err
