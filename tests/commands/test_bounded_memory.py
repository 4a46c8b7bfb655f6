"""What a simulation holds in memory does not grow with its data: whatever the network was read from, whatever they are.

Each case is a process of its own that simulates 300 samples, then a file of 128 MiB.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import nir
import numpy as np
import pytest

from snncompile.train.set_batches import set_batches
from tests.frontends.test_net import cuba, dense, even, write

STEPS, INPUTS = 20, 250
FRAME = STEPS * INPUTS
LARGE = 1 << 27  # bytes of the samples as they are read, float32
SAMPLES = LARGE // (4 * FRAME)
MORE = LARGE // 4  # bytes that the whole file may take more than the small one
Array = np.ndarray[Any, np.dtype[Any]]


def network(folder: Path) -> Path:
    """A ``.net`` of one population and a read-out."""
    draw = np.random.default_rng(1)
    return write(folder / "a.net", [dense(even(draw, 8, INPUTS), cuba(threshold=900)), dense(even(draw, 3, 8), None)])


def exchanged(folder: Path) -> Path:
    """The like as a ``.nir``, in reals."""
    ones, draw = np.ones(8), np.random.default_rng(1)
    nodes = {
        "input": nir.Input(np.array([INPUTS])),
        "fc": nir.Linear(draw.normal(size=(8, INPUTS)).astype(np.float32)),
        "lif": nir.LIF(tau=2e-4 * ones, r=2 * ones, v_leak=0 * ones, v_threshold=30 * ones, v_reset=0 * ones),
        "output": nir.Output(np.array([8])),
    }
    nir.write(folder / "a.nir", nir.NIRGraph(nodes=nodes, edges=list(pairwise(nodes))))
    return folder / "a.nir"


def plain(folder: Path, samples: int) -> None:
    """Zeros that take no room on the disk."""
    header = {"descr": "<f4", "fortran_order": False, "shape": (samples, STEPS, INPUTS)}
    with (folder / "x.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        file.truncate(file.tell() + samples * FRAME * 4)


def packed(folder: Path, samples: int) -> None:
    np.savez_compressed(folder / "x.npz", x=np.zeros((samples, STEPS, INPUTS), np.float32))


def grid(folder: Path, samples: int) -> None:
    """NIR data, as its package lays them out; packed, so that pieces have to be unpacked."""
    seen = nir.TimeGriddedData(np.zeros((1, STEPS, INPUTS), np.float32), 1e-4)
    nir.write_data(folder / "x.nir", nir.NIRGraphData({"input": nir.NIRNodeData({"spikes": seen})}))
    some = np.random.default_rng(0).random((64, STEPS, INPUTS)) < 0.05
    with h5py.File(folder / "x.nir", "r+") as file:
        group = file["nodes/input/observables/spikes"]
        del group["data"]
        group.create_dataset("data", (samples, STEPS, INPUTS), "f4", chunks=(64, STEPS, INPUTS), compression="gzip")
        for first in range(0, samples - 64, 64):
            group["data"][first : first + 64] = some


def frames(folder: Path, samples: int) -> None:
    """Recordings that somebody has cut, as a data set."""
    (folder / "cifar10-dvs").mkdir()
    x = np.zeros((samples * FRAME * 4 // (10 * 2 * 64 * 64), 10, 2, 64, 64), np.uint8)
    np.savez_compressed(folder / "cifar10-dvs" / "test.npz", x=x, y=np.zeros(len(x), np.int64))


FILES = {plain: "x.npy", packed: "x.npz", grid: "x.nir", frames: ""}


@pytest.mark.parametrize(
    ("model", "data"),
    [(network, plain), (network, packed), (network, grid), (exchanged, plain), (exchanged, grid), (None, frames)],
)
def test_what_is_held_does_not_grow_with_the_data(
    model: Callable[[Path], Path] | None, data: Callable[[Path, int], None], tmp_path: Path
) -> None:
    places = []
    for name, samples in (("small", 300), ("large", SAMPLES)):
        (tmp_path / name).mkdir()
        data(tmp_path / name, samples)
        places.append(str(tmp_path / name / FILES[data]))
    words = [str(model(tmp_path)) if model else "", *places]
    command = [sys.executable, "-m", "tests.commands.test_bounded_memory", *words]
    found = subprocess.run(command, capture_output=True, text=True, timeout=600, env=os.environ | {"PYTHONPATH": "."})
    assert found.returncode == 0, found.stderr
    small, large = map(int, found.stdout.splitlines()[-1].split())
    assert large - small < MORE, f"{small >> 20} MiB, then {large >> 20} MiB"


def most_held() -> int:
    """Bytes that this process held at most; what ``getrusage`` tells counts the parent's as well."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def once(model: str, place: str) -> None:
    from snncompile.cli import main

    if model:
        assert main(["simulate", model, "--data", place, "-q"]) == 0
        return
    found = set_batches("cifar10-dvs:test", place, None, (2, 64, 64), 10)
    assert found is not None
    assert sum(len(part) for part in found.batches(0, len(found), 16)) == len(found)


if __name__ == "__main__":
    held = []
    for place_ in sys.argv[2:]:
        once(sys.argv[1], place_)
        held.append(most_held())
    print(*held)
