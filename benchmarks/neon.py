"""The engine's NEON kernels, compiled for aarch64 on any machine and held against ``run/integer`` in an emulator.

    python benchmarks/neon.py [--networks N] [--compiler aarch64-linux-gnu-g++] [--emulator qemu-aarch64]

Needs a cross compiler and qemu (Debian: g++-aarch64-linux-gnu, qemu-user). Random networks of the tests, half of them
with loops, delays and phases, a quarter dense layers that feed themselves, are run here, where they must equal
``run/integer``, and are run again there: every potential, spike and count must be the same. Exit code 1 where one is
not.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from random import Random

import numpy as np
from recorded import build, record

sys.path.insert(0, str(Path(__file__).parents[1]))
from snncompile.run import integer
from snncompile.run.cpu import Simulator
from tests.run.random_networks import fed_back, network, sheet

WIDEST = 128  # channels of the widest tile of kernels_neon.cpp


def main() -> int:
    """Record, compile, replay."""
    own = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    own.add_argument("--networks", type=int, default=1000)
    own.add_argument("--compiler", default="aarch64-linux-gnu-g++")
    own.add_argument("--emulator", default="qemu-aarch64")
    given = own.parse_args()
    streams = []
    for seed in range(given.networks):
        source = Random(seed)
        target = sheet(source)
        case = fed_back(source, target) if seed % 4 == 3 else network(source, target, loops=seed % 2 == 1)
        found, expected = (
            Simulator(case.graph, target, 1).run(case.stimulus),
            integer.run(case.graph, case.stimulus, target),
        )
        for name, potentials in expected.potentials.items():
            if not np.array_equal(found.potentials[name], potentials):
                raise SystemExit(f"network {seed}: {name} differs from run/integer on this machine already")
        stream = record(case.graph, target, case.stimulus, widest=WIDEST)
        if stream is not None:
            streams.append(stream)
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "networks"
        np.concatenate(streams).tofile(file)
        program = build(Path(scratch), given.compiler, ["-DSNN_NEON", "-static"], {"neon": ""})
        return subprocess.run([given.emulator, str(program), str(file)], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
