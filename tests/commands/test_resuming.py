"""``--resume FILE``: a run that is cut anywhere, as often as one likes, leaves what an uninterrupted one leaves."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest

from snncompile import cli
from snncompile.cli import main
from snncompile.commands import energy as energy_verb
from snncompile.commands import resuming, simulate
from snncompile.commands.resuming import Resuming
from snncompile.errors import Disagreement, ReadError
from snncompile.run import cpu, shards
from snncompile.verify import Ladder
from tests.commands.cut_runs import BATCH, BATCHES, ENERGY, RUNGS, SIMULATE, VERIFY, cut, small_batches
from tests.tiny import nothing_left
from tests.train.test_resuming import listen_to_interrupts

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _batches(monkeypatch: pytest.MonkeyPatch) -> None:
    small_batches(monkeypatch)


def ran(capfd: Capture, code: int, *words: object) -> tuple[str, str]:
    """What a verb says: the result, and the log."""
    assert main([*map(str, words)]) == code
    said = capfd.readouterr()
    return said.out, said.err


def held(folder: Path) -> dict[str, bytes]:
    """Every file of a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("after", range(1, BATCHES + 1))
@pytest.mark.parametrize("jobs", [1, 2])
def test_a_simulation_cut_at_any_batch(jobs: int, after: int, bundled: Path, tmp_path: Path, capfd: Capture) -> None:
    verb, *words = SIMULATE
    command = (verb, bundled, *words, "--format", "json")
    whole, _ = ran(capfd, 0, *command)
    file = tmp_path / "r.npz"
    with cut(after):
        nothing, log = ran(capfd, 130, *command, "--resume", file)
    done = min(BATCH * after, 130)
    assert nothing == ""
    assert f"{done} of 130 samples are kept in {file}; the same command goes on from there" in log
    with joblib.parallel_config(backend="threading"):
        rest, log = ran(capfd, 0, *command, "--resume", file, "--jobs", jobs)
    assert f"{done} of 130 samples are in {file} already" in log
    assert f"\n{130 - done} samples in " in log
    assert rest == whole
    assert list(tmp_path.iterdir()) == [], "a finished run removes the file"


@pytest.mark.parametrize("engine", ["numpy", "best"])
def test_one_cut_where_samples_are_shared_out(
    engine: str, bundled: Path, tmp_path: Path, capfd: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Begun by two, ended by one that has another engine and other threads."""
    verb, *words = SIMULATE
    whole, _ = ran(capfd, 0, verb, bundled, *words)
    with joblib.parallel_config(backend="threading"), cut(3):
        ran(capfd, 130, verb, bundled, *words, "--resume", tmp_path / "r", "--jobs", 2)
    monkeypatch.setenv(cpu.THREADS_VARIABLE, "2")
    if engine == "numpy":
        monkeypatch.setenv(cpu.KERNELS_VARIABLE, "numpy")
    assert ran(capfd, 0, verb, bundled, *words, "--resume", tmp_path / "r")[0] == whole


@pytest.mark.parametrize(
    ("more", "after"),
    [
        *(((), batch) for batch in range(1, BATCHES + 1)),
        *((("--level", "fixed", "--static-input", "cache"), batch) for batch in range(1, BATCHES + 1)),
        (("--level", "torch", "--zero-skip"), 3),
        (("--level", "placed", "--multiplicity", "graded"), 2),
    ],
    ids=lambda value: "-".join(value) or "folded" if isinstance(value, tuple) else str(value),
)
def test_counts_of_energy_cut_at_any_batch(
    more: tuple[str, ...], after: int, saved: Path, tmp_path: Path, capfd: Capture
) -> None:
    """With options that change what is counted; in reals, in integers, by torch."""
    verb, *words = ENERGY
    command = (verb, saved, *words, *more)
    (tmp_path / "whole").mkdir()
    (tmp_path / "parted").mkdir()
    whole, _ = ran(capfd, 0, *command, "-o", tmp_path / "whole" / "e.json")
    parted = (*command, "-o", tmp_path / "parted" / "e.json", "--resume", tmp_path / "parted" / "r")
    with cut(after):
        nothing, _ = ran(capfd, 130, *parted)
    assert nothing == ""
    assert [path.name for path in (tmp_path / "parted").iterdir()] == ["r"]
    rest, log = ran(capfd, 0, *parted)
    assert f"{min(BATCH * after, 130)} of 130 samples are in" in log
    assert rest == whole
    assert held(tmp_path / "parted") == held(tmp_path / "whole")


def test_a_gate_that_is_closed_says_so_after_a_cut_as_well(saved: Path, tmp_path: Path, capfd: Capture) -> None:
    verb, *words = ENERGY
    (tmp_path / "b.toml").write_text("[budget.max]\nac = 1\n")
    command = (verb, saved, *words, "-q", "--budget", tmp_path / "b.toml")
    whole = ran(capfd, 1, *command)
    with cut(2):
        ran(capfd, 130, *command, "--resume", tmp_path / "r")
    assert ran(capfd, 1, *command, "--resume", tmp_path / "r") == whole
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("after", range(1, RUNGS + 1))
@pytest.mark.parametrize("verb", ["verify", "export"])
def test_a_ladder_cut_at_any_rung(verb: str, after: int, saved: Path, tmp_path: Path, capfd: Capture) -> None:
    (tmp_path / "whole").mkdir()
    (tmp_path / "parted").mkdir()
    words = ["--data", "test:8", "--format", "json"]
    out = ["-o", "out"] if verb == "export" else []
    with contextlib.chdir(tmp_path / "whole"):
        whole, _ = ran(capfd, 0, verb, saved, *words, *out)
    with contextlib.chdir(tmp_path / "parted"):
        with cut(after):
            nothing, log = ran(capfd, 130, verb, saved, *words, *out, "--resume", "r")
        assert nothing == ""
        assert f"{after} of {RUNGS} rungs are kept in r" in log
        rest, log = ran(capfd, 0, verb, saved, *words, *out, "--resume", "r")
    assert log.count("\nrung ") == RUNGS - after, "those that were climbed are not climbed again"
    assert rest == whole
    assert held(tmp_path / "parted") == held(tmp_path / "whole")


def test_a_verdict_that_comes_after_a_cut(
    saved: Path, tmp_path: Path, capfd: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    verb, *words = VERIFY
    timed = Ladder.timed
    monkeypatch.setattr(Ladder, "timed", lambda self: timed(self).__class__(4, "timed", "x", "y", "DIFFERENT", 9, 1))
    whole = ran(capfd, Disagreement.exit_code, verb, saved, *words, "-q")
    with cut(2):
        ran(capfd, 130, verb, saved, *words, "-q", "--resume", tmp_path / "r")
    assert ran(capfd, Disagreement.exit_code, verb, saved, *words, "-q", "--resume", tmp_path / "r") == whole
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("words", [SIMULATE, ENERGY], ids=["simulate", "energy"])
def test_a_run_that_is_cut_again_and_again(words: tuple[str, ...], saved: Path, tmp_path: Path, capfd: Capture) -> None:
    verb, *rest = words
    command = (verb, saved, *rest)
    whole, _ = ran(capfd, 0, *command)
    for batch in range(1, BATCHES):
        with cut(1):
            _, log = ran(capfd, 130, *command, "--resume", tmp_path / "r")
        assert f"{BATCH * batch} of 130 samples are kept" in log
    assert ran(capfd, 0, *command, "--resume", tmp_path / "r")[0] == whole


def test_a_cut_before_anything_is_counted_keeps_nothing(
    bundled: Path, tmp_path: Path, capfd: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    verb, *words = SIMULATE

    def at_once(self: Any, stimulus: Any, keep: Any = None) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(shards.Simulator, "run", at_once)
    with nothing_left(tmp_path):
        assert "are kept" not in ran(capfd, 130, verb, bundled, *words, "--resume", tmp_path / "r")[1]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (SIMULATE, "40 of 130 samples were done, 90 are left"),
        (ENERGY, "40 of 130 samples were done, 90 are left"),
        (VERIFY, "1 of 7 rungs were done, 6 are left"),
    ],
    ids=["simulate", "energy", "verify"],
)
def test_without_the_option_an_interruption_names_it(
    words: tuple[str, ...], told: str, saved: Path, tmp_path: Path, capfd: Capture
) -> None:
    verb, *rest = words
    with contextlib.chdir(tmp_path), nothing_left(tmp_path), cut(1):
        _, log = ran(capfd, 130, verb, saved, *rest)
    assert log.endswith(
        f"{told}; a run begins at the first, with --resume FILE it goes on\n"
        f"snncompile {verb}: interrupted; nothing was left half written\n"
    )


def test_the_file_is_written_now_and_then(
    bundled: Path, tmp_path: Path, capfd: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that what ends without a word loses little: at once where nothing is waited for, else at the end alone."""
    verb, *words = SIMULATE
    seen: list[int] = []
    save = Resuming._save

    def noted(self: Resuming, kept: resuming.Kept) -> None:
        save(self, kept)
        seen.append(kept.done)

    monkeypatch.setattr(Resuming, "_save", noted)
    ran(capfd, 0, verb, bundled, *words, "--resume", tmp_path / "r")
    assert seen == [130]
    monkeypatch.setattr(resuming, "EVERY", 0.0)
    monkeypatch.setattr(resuming, "SHARE", 0)
    ran(capfd, 0, verb, bundled, *words, "--resume", tmp_path / "r")
    assert seen == [130, 40, 80, 120, 130]


# What goes wrong while the file is written, or after


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_waits_until_the_file_is_written(
    sent: signal.Signals, bundled: Path, tmp_path: Path, capfd: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first interrupt has it written, a second one comes in the middle of that."""
    verb, *words = SIMULATE
    whole, _ = ran(capfd, 0, verb, bundled, *words)
    savez = np.savez

    def struck(file: Any, **content: Any) -> None:
        os.kill(os.getpid(), sent)
        savez(file, **content)

    with cut(2), pytest.MonkeyPatch.context() as patch:
        patch.setattr(np, "savez", struck)
        _, log = ran(capfd, 130, verb, bundled, *words, "--resume", tmp_path / "r")
    assert "80 of 130 samples are kept" in log
    assert [path.name for path in tmp_path.iterdir()] == ["r"]
    monkeypatch.setattr(resuming, "EVERY", 0.0)
    monkeypatch.setattr(resuming, "SHARE", 0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(np, "savez", struck)
        _, log = ran(capfd, 130, verb, bundled, *words, "--resume", tmp_path / "r")
    assert "120 of 130 samples are kept" in log, "struck while it was written now and then"
    assert ran(capfd, 0, verb, bundled, *words, "--resume", tmp_path / "r")[0] == whole


def test_a_disk_that_is_full_does_not_end_the_work(
    bundled: Path, tmp_path: Path, capfd: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    verb, *words = SIMULATE
    whole, _ = ran(capfd, 0, verb, bundled, *words)

    def full(file: Any, **content: Any) -> None:
        file.write(b"PK")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    found, log = ran(capfd, 0, verb, bundled, *words, "--resume", tmp_path / "r")
    assert found == whole
    assert f"{tmp_path / 'r'} cannot be written: No space left on device\n" in log
    with cut(1):
        assert "are kept" not in ran(capfd, 130, verb, bundled, *words, "--resume", tmp_path / "r")[1]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("words", [SIMULATE, ENERGY, VERIFY], ids=["simulate", "energy", "verify"])
def test_what_is_counted_to_the_end_is_kept_until_the_result_is_out(
    words: tuple[str, ...], saved: Path, tmp_path: Path, capfd: Capture
) -> None:
    verb, *rest = words
    whole, _ = ran(capfd, 0, verb, saved, *rest)
    module = sys.modules[f"snncompile.commands.{verb}"]

    def full(*_: object) -> None:
        raise ReadError("cannot be written")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "result", full)
        ran(capfd, 4, verb, saved, *rest, "--resume", tmp_path / "r")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Resuming, "counted", lambda self: pytest.fail("something was counted again"))
        assert ran(capfd, 0, verb, saved, *rest, "--resume", tmp_path / "r")[0] == whole


def test_an_error_keeps_what_was_counted_before_it(bundled: Path, tmp_path: Path, capfd: Capture) -> None:
    """The rest of a file that could not be read is read when it is mended; labels are those of now."""
    x, file = np.random.default_rng(0).random((130, 1, 8, 8)).astype(np.float32), tmp_path / "x.npz"
    np.savez(file, x=x, y=np.zeros(130, int))
    words = ("simulate", bundled, "--data", file, "--resume", tmp_path / "r")
    broken = x.copy()
    broken[100, 0, 3, 3] = np.nan
    np.savez(file, x=broken, y=np.zeros(130, int))
    assert "80 of 130 samples are kept" in ran(capfd, 4, *words)[1]
    np.savez(file, x=x, y=np.ones(130, int))
    found, log = ran(capfd, 0, *words)
    assert "80 of 130 samples are in" in log
    assert found == ran(capfd, 0, *words[:4])[0]


# Real processes, real signals


STRUCK = """
import signal, sys
from snncompile.cli import main
from snncompile.commands import energy
from snncompile.commands.resuming import Resuming
from snncompile.run import shards
from snncompile.run.cpu import Simulator

shards.BATCH = energy.BATCH = 40
run, calls, of = Simulator.run, [], int(sys.argv[1])

def waits(self, *words):
    calls.append(1)
    if len(calls) == of:
        print("here", flush=True)
        signal.pause()
    return run(self, *words)

Simulator.run = waits
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    "words",
    [(3, *SIMULATE), (3, *ENERGY, "--level", "fixed"), (1, *VERIFY)],
    ids=["simulate", "energy", "verify"],
)
def test_a_real_signal_in_the_middle_of_a_batch(
    words: tuple[Any, ...], sent: signal.Signals, saved: Path, bundled: Path, tmp_path: Path, capfd: Capture
) -> None:
    at, verb, *rest = words
    command = [verb, str(bundled if verb == "simulate" else saved), *rest, "--format", "json"]
    whole, _ = ran(capfd, 0, *command)
    resume = ["--resume", str(tmp_path / "r")]
    environment = os.environ | {"PYTHONPATH": str(Path(cli.__file__).parents[1]), "PYTHONDONTWRITEBYTECODE": "1"}
    for _ in range(2 if verb == "simulate" else 1):  # and once more, in a batch of the second run
        struck = subprocess.Popen(
            [sys.executable, "-c", STRUCK, str(at), *command, *resume],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            preexec_fn=listen_to_interrupts,
        )
        assert struck.stdout is not None
        assert struck.stdout.readline() == "here\n"
        struck.send_signal(sent)
        out, log = struck.communicate(timeout=60)
        assert struck.returncode == 130, log
        assert out == ""
        assert "Traceback" not in log
        assert log.endswith(f"snncompile {verb}: interrupted; nothing was left half written\n")
        assert [path.name for path in tmp_path.iterdir()] == ["r"]
        at = 2
    assert ran(capfd, 0, *command, *resume)[0] == whole
    assert list(tmp_path.iterdir()) == []


def test_the_verb_that_simulates_hands_on_the_option() -> None:
    """The grammar: one option, of one name, where work may be long; not where nothing is kept."""
    for verb in ("simulate", "energy", "verify", "export"):
        words = [verb, "m", "--resume", "f", *(("-o", "out") if verb == "export" else ())]
        assert cli.parser().parse_args(words).resume == "f"
    with pytest.raises(SystemExit):
        cli.parser().parse_args(["run", "b", "--resume", "f"])
    assert simulate.Resuming is energy_verb.Resuming
