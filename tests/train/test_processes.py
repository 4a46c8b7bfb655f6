"""Several processes: what they train together is what the rule says, computed here by one."""

from __future__ import annotations

import copy
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from snncompile.errors import ReadError, ToolError
from snncompile.recipe.methods import TetSettings
from snncompile.train.checkpoint import load_checkpoint
from snncompile.train.data import load_for
from snncompile.train.loop import accuracy
from snncompile.train.methods.tet import tet_loss
from snncompile.train.networks import Network
from snncompile.train.processes import Processes
from snncompile.train.splits import batches_of
from tests.train.test_resuming import same, written


def free_port(wanted: int = 0) -> int:
    """A port that nobody listens on: ``wanted``, which raises OSError where somebody does, or any."""
    with socket.socket() as free:
        free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        free.bind(("127.0.0.1", wanted))
        return int(free.getsockname()[1])


def started(tmp_path: Path, *words: str | Path, port: int = 0) -> list[subprocess.Popen[bytes]]:
    """Two processes, as a launcher starts them; each leaves what it says in a file log0, log1."""
    port = port or free_port()
    running = []
    for rank in range(2):
        env = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        told = os.environ | {key: str(value) for key, value in env.items()} | {"SNNCOMPILE_THREADS": "1"}
        with (tmp_path / f"log{rank}").open("w") as log:
            running.append(subprocess.Popen([sys.executable, *map(str, words)], env=told, stdout=log, stderr=log))
    return running


def together(tmp_path: Path, *words: str | Path) -> list[int]:
    """Run them to their end; the exit codes. Neither they nor the port they met at are left."""
    port = free_port()
    running = started(tmp_path, *words, port=port)
    try:
        codes = [process.wait(timeout=300) for process in running]
    finally:
        for process in running:
            process.kill()
            process.wait()
    assert free_port(port) == port
    return codes


def by_the_rule(recipe, epochs: int) -> Network:  # type: ignore[no-untyped-def]
    """g = sum of n_p g_p / sum of n_p over the parts of a batch; statistics of each part, averaged after an epoch."""
    torch.manual_seed(recipe.training.seed)
    both = [Network(recipe)]
    both.append(copy.deepcopy(both[0]))
    optimiser = torch.optim.SGD(both[0].parameters(), lr=0.1, momentum=0.9)
    split = load_for(recipe, "train")
    settings = recipe.settings
    assert isinstance(settings, TetSettings)
    for epoch in range(epochs):
        for chosen in batches_of(recipe.training, len(split), epoch, 0):
            grads = []
            for rank, network in enumerate(both):
                own = chosen[rank::2]
                network.zero_grad()
                outputs = network(torch.from_numpy(split.batch(own, epoch)))
                tet_loss(outputs, torch.from_numpy(split.y[own]), settings.mix, settings.phi).backward()
                share = len(own) * 2 / len(chosen) / 2
                grads.append([parameter.grad * share for parameter in network.parameters()])
            for parameter, left, right in zip(both[0].parameters(), *grads, strict=True):
                parameter.grad = left + right
            optimiser.step()
            for mine, other in zip(both[0].parameters(), both[1].parameters(), strict=True):
                other.data.copy_(mine.data)
        for mine, other in zip(both[0].buffers(), both[1].buffers(), strict=True):
            if mine.is_floating_point():
                mine.copy_((mine + other) / 2)
                other.copy_(mine)
    return both[0].eval()


TRAINING = {
    "epochs": 2,
    "batch": 99,  # parts of 48 and 49
    "optimiser": "sgd",
    "momentum": 0.9,
    "learning_rate": 0.1,
    "schedule": "constant",
}


def test_two_processes_train_what_the_rule_says(small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = small(training=TRAINING, data={"augment": "crop-flip"})
    file, out = written(recipe, tmp_path / "small.toml"), tmp_path / "two.pt"
    assert together(tmp_path, "-m", "snncompile", "train", file, "-o", out) == [0, 0], (tmp_path / "log0").read_text()
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        expected = by_the_rule(recipe, 2)
    finally:
        torch.set_num_threads(threads)
    found = load_checkpoint(out)
    for name, weights in expected.state_dict().items():
        assert torch.equal(found.weights[name], weights), name
    assert found.metrics["test_accuracy"] == accuracy(expected, load_for(recipe, "test"))
    assert (tmp_path / "log1").read_text() == ""
    assert "2 processes, 1 thread each" in (tmp_path / "log0").read_text()


KEEPING = """
import shutil, sys
from snncompile.cli import main
from snncompile.train import loop
from snncompile.train.resuming import resume_path
old = loop.save
def save(course, average, out, split):
    old(course, average, out, split)
    if course.epoch == 1:
        shutil.copy(resume_path(out), sys.argv[1])
loop.save = save
sys.exit(main(sys.argv[2:]))
"""


ENDING = """
import atexit, sys
from snncompile.train import processes
class Torn:
    def __del__(self):
        print("taken down")
torn = Torn()
atexit.register(print, "registered")
processes._met.extend(map(int, sys.argv[1:]))
print("said")
processes.end(3)
"""


@pytest.mark.parametrize(
    ("met", "code", "said"), [(["2"], 3, "said registered"), ([], 0, "said registered taken down")]
)
def test_one_that_has_met_others_ends_without_taking_down_its_interpreter(met: list[str], code: int, said: str) -> None:
    """Threads of torch may still hold what is Python's, and would abort it."""
    done = subprocess.run(
        [sys.executable, "-c", ENDING, *met], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stdout.split(), done.stderr) == (code, said.split(), "")


def test_two_processes_resume_to_the_bit(small, tmp_path: Path) -> None:
    whole, parted, kept = tmp_path / "whole.pt", tmp_path / "parted.pt", tmp_path / "parted.pt.resume"
    file = written(small(training=TRAINING | {"average": 0.9}), tmp_path / "small.toml")
    (tmp_path / "keeping.py").write_text(KEEPING)
    assert together(tmp_path, tmp_path / "keeping.py", kept, "train", file, "-o", whole) == [0, 0]
    assert kept.is_file()
    resumed = together(tmp_path, "-m", "snncompile", "train", file, "-o", parted, "--resume")
    assert resumed == [0, 0], (tmp_path / "log0").read_text()
    assert same(whole, parted)


def test_one_that_is_killed_takes_the_other_with_it_in_words(small, tmp_path: Path) -> None:
    out = tmp_path / "two.pt"
    file = written(small(training=TRAINING | {"epochs": 500}), tmp_path / "small.toml")
    first, second = started(tmp_path, "-m", "snncompile", "train", file, "-o", out)
    deadline = time.monotonic() + 120
    while not out.is_file() and time.monotonic() < deadline:
        time.sleep(0.01)
    second.kill()
    assert first.wait(timeout=120) == 7, (tmp_path / "log0").read_text()
    said = (tmp_path / "log0").read_text()
    assert "another process has stopped" in said
    assert "go on with --resume" in said
    assert "Traceback" not in said
    second.wait()


def test_a_batch_is_parted_evenly_and_wholly() -> None:
    chosen = np.arange(10)
    parts = [Processes(rank, 3).part(chosen) for rank in range(3)]
    assert sorted(np.concatenate(parts).tolist()) == chosen.tolist()
    assert [len(part) for part in parts] == [4, 3, 3]


def test_an_environment_that_makes_no_sense(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "two")
    with pytest.raises(ReadError, match="WORLD_SIZE: 'two' is no number; start several processes with torchrun"):
        Processes.joined()


@pytest.mark.parametrize(
    ("rank", "count", "message"),
    [
        ("3", "", "RANK: 3 is none of 1 processes (WORLD_SIZE); start several processes with torchrun; to train alone"),
        ("2", "2", "RANK: 2 is none of 2 processes"),
        ("0", "0", "RANK: 0 is none of 0 processes"),
    ],
)
def test_a_process_beyond_the_others(rank: str, count: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would train for hours without a word, and write nothing."""
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", count)
    with pytest.raises(ReadError) as caught:
        Processes.joined()
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("address", [{}, {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "x"}])
def test_processes_that_nobody_told_where_to_meet(address: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", **address}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(
        ToolError, match=r"training together: the processes cannot meet \(.*\); start them with torchrun"
    ):
        Processes.joined()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is an accelerator here")
def test_an_accelerator_that_is_not_there() -> None:
    with pytest.raises(ReadError, match="torch finds no accelerator"):
        Processes.joined("cuda")
    assert Processes.joined("auto").device.type == "cpu"
