"""Instructions that the kernels need for a synaptic operation: a count, where the clock is too noisy.

    python benchmarks/instructions.py [--networks N,..] [--rate R] [--compiler g++] [--valgrind valgrind]

Needs a C++ compiler, an x86 processor and valgrind, which counts what it emulates: it has no AVX-512, so the kernels
are those of AVX2. The engine is built as a program of its own (``replay.cpp``), a sample of each network runs once and
then three times, and the difference of the counts is that of two runs.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import tempfile
from math import prod
from pathlib import Path

import numpy as np
from recorded import X86, build, record
from simulation_networks import NETWORKS

from snncompile.report.table import table
from snncompile.run.cpu import Simulator
from snncompile.target import Target

KERNELS = "avx2"
WIDEST = 128  # channels of the widest tile of these kernels


def main() -> None:
    """Build, count, print."""
    own = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    own.add_argument("--networks", default="vggsnn-narrow,lenet,recurrent")
    own.add_argument("--rate", type=float, default=0.1)
    own.add_argument("--compiler", default="g++")
    own.add_argument("--valgrind", default="valgrind")
    given = own.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        program = build(Path(scratch), given.compiler, ["-DSNN_X86"], X86)
        for name in given.networks.split(","):
            draw, steps, _ = NETWORKS[name]
            drawn = draw(given.rate, steps, Target.load("onnx"))
            stimulus = {"input": np.array(drawn.stimulus(1))}
            meta = Simulator(drawn.graph(), drawn.target, 1).run(stimulus, keep=()).meta
            stream = record(drawn.graph(), drawn.target, stimulus, keep=["out"], widest=WIDEST)
            assert stream is not None
            stream.tofile(Path(scratch) / "network")
            one, three = (_counted(given.valgrind, program, Path(scratch), rounds) for rounds in (1, 3))
            operations = sum(meta["operations"].values())
            neurons = drawn.steps * sum(prod(drawn.shapes[layer["name"]]) for layer in drawn.layers)
            count = (three - one) // 2
            rows.append((name, f"{count:,}", f"{operations:,}", f"{count / operations:.3f}", f"{count / neurons:.1f}"))
    heads = [f"network ({KERNELS})", "instructions", "synaptic operations", "an operation", "a neuron and step"]
    print(table(heads, rows, right={1, 2, 3, 4}))


def _counted(valgrind: str, program: Path, folder: Path, rounds: int) -> int:
    """Instructions of the whole program for so many runs."""
    out = folder / "callgrind.out"
    words = [valgrind, "--tool=callgrind", f"--callgrind-out-file={out}", str(program), str(folder / "network")]
    subprocess.run([*words, KERNELS, str(rounds)], check=True, capture_output=True)
    found = re.search(r"^summary: (\d+)", out.read_text(encoding="ascii"), re.MULTILINE)
    assert found is not None
    return int(found[1])


if __name__ == "__main__":
    main()
