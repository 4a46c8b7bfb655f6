"""Run by ``benchmarks/simulation.py --memory N``: a stored network over N samples in a process that holds nothing else.

    python benchmarks/simulation_memory.py FOLDER RATE N [THREADS]

Spikes are drawn batch by batch, nothing is kept. Prints the most memory that the process ever held (VmHWM).
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from snncompile.ir.ops import Input
from snncompile.ir.store import load
from snncompile.run.cpu import Simulator

BATCH = 64


def main() -> None:
    """Simulate and tell."""
    folder, rate, samples = Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
    program = load(folder)
    simulator = Simulator(program, threads=int(sys.argv[4]) if len(sys.argv) > 4 else 1)
    (shape,) = (op.shape for op in program.graph.nodes.values() if isinstance(op, Input))
    random = np.random.default_rng(1)
    for done in range(0, samples, BATCH):
        frames = random.random((min(BATCH, samples - done), program.steps, *shape), dtype=np.float32) < rate
        simulator.run({"input": frames}, keep=())
        if done in (0, samples // 2 // BATCH * BATCH) or done + BATCH >= samples:
            print(f"{done + len(frames)} samples, {most_held()} MB at most", flush=True)


def most_held() -> int:
    """The largest resident size of this program so far, in MB; what was before ``exec`` does not count."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    (line,) = (line for line in lines if line.startswith("VmHWM"))
    return int(line.split()[1]) // 1024


if __name__ == "__main__":
    main()
