"""Scales chosen by spikes against scales chosen by the potential, with fewer and fewer bits: the table in the docs.

    python benchmarks/scales.py CKPT [--data test] [--calibration train:256] [--data-root DIR]

For each width of weights a network is quantised twice on the calibration data: with the search as it is (the fewest
spikes that differ, teacher-forced), and with the error in the potential alone, which it was before. Spikes that differ
are counted layer by layer, each layer given the unquantised network's spikes, on the calibration data and on the data.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from snncompile.commands.imported import Data
from snncompile.commands.opening import Trained, data_of
from snncompile.compile import Compiled, compile_graph, encoded, shown
from snncompile.ir.ops import Readout
from snncompile.passes.quantise_integers import Candidate
from snncompile.run import integer, parts, reference
from snncompile.run.cpu import Simulator
from snncompile.target import Target
from snncompile.verify import answers

BITS = {8: (-256, 254), 4: (-16, 14), 3: (-8, 6), 2: (-4, 2)}
BATCH, FORCED = 250, 1000
HEADER = "| weights | scales by | calibration: spikes that differ | data: spikes that differ | accuracy |"


@contextmanager
def by_potential() -> Iterator[None]:
    """The search with the error in the potential as its only objective."""
    kept = Candidate.lost
    Candidate.lost = property(lambda one: (0, one.error))  # type: ignore[assignment,method-assign]
    try:
        yield
    finally:
        Candidate.lost = kept  # type: ignore[method-assign]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--data", default="test")
    parser.add_argument("--calibration", default="train:256")
    parser.add_argument("--data-root")
    options = parser.parse_args()
    model = Trained(options.checkpoint)
    data = data_of(model.recipe, options.data, options.data_root)
    calibration = data_of(model.recipe, options.calibration, options.data_root)
    given = shown(model.graph, calibration.x, model.steps)
    stimulus = {name: np.asarray(x, np.float64) for name, x in given.items()}
    print("\n".join([HEADER, "| --- | --- | ---: | ---: | ---: |"]))
    loihi = Target.load("loihi")
    for bits, (least, most) in BITS.items():
        target = replace(loihi, weight=replace(loihi.weight, least=least, most=most))
        spikes = compile_graph(model.graph, target, stimulus)
        with by_potential():
            potential = compile_graph(model.graph, target, stimulus)
        for what, done in (("spikes", spikes), ("potential", potential)):
            print(f"| {bits} bits | {what} | " + " | ".join(cells(done, data, model.steps)) + " |", flush=True)


def cells(done: Compiled, data: Data, steps: int) -> list[str]:
    """What differs on the calibration data and on the data, and the accuracy."""
    fixed = done.levels["fixed"]
    simulator, kept = Simulator(fixed, done.target), fixed.names(Readout)
    wrong = right = compared = 0
    for first in range(0, len(data.x), BATCH):
        given = shown(fixed, data.x[first : first + BATCH], steps)
        found = answers(fixed, simulator.run(encoded(fixed, given), keep=kept))
        assert data.labels is not None
        right += int((found == data.labels[first : first + BATCH]).sum())
        if first < FORCED:
            reals = {name: np.asarray(x, np.float64) for name, x in given.items()}
            exact = reference.run(done.levels["folded"], reals).spikes
            own = integer.run(fixed, encoded(fixed, given), done.target, forced=parts.divided(fixed, exact))
            spikes = parts.merged(fixed, own).spikes
            wrong += sum(int((spikes[name] != exact[name]).sum()) for name in exact)
            compared += sum(array.size for array in exact.values())
    lost = [sum(getattr(layer, key) for layer in done.layers) for key in ("wrong", "compared")]
    return [f"{lost[0]:,} of {lost[1]:,}", f"{wrong:,} of {compared:,}", f"{right / len(data.x):.2%}"]


if __name__ == "__main__":
    main()
