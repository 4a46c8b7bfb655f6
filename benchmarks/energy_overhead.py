"""What counting costs beside the simulation it rides on: CPU time of both, batch by batch, in one process.

    python benchmarks/energy_overhead.py CKPT=DATA[@LEVEL,...] ...     e.g. digits.pt=digits:test:256@folded,fixed

Levels are ``torch``, ``read``, ``folded``, ``fixed``, ``placed``; all of them where none is named. ``once`` is what is
done once a network, and stands in the share; so do the digests of the samples. The digest of the weights is made where
a report or a baseline asks for it, and stands in the second share. The last column is what counting costs a neuron and
step, whatever the simulation takes. Every figure is the least of five runs or more, two seconds' worth.
"""

from __future__ import annotations

import argparse
import os
from math import prod
from time import process_time
from typing import Any

from snncompile.cli import parser as grammar
from snncompile.commands.energy import Counted, chosen_level, runs
from snncompile.commands.imported import Data
from snncompile.commands.opening import chosen_data, open_model
from snncompile.energy import concatenate
from snncompile.ir.ops import Neuron
from snncompile.report.table import table

LEVELS = "torch,read,folded,fixed,placed"
RUNS, SECONDS = 5, 2.0


def main() -> None:
    """Time simulation and counting, batch by batch."""
    own = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    own.add_argument("what", nargs="+", metavar="CKPT=DATA[@LEVEL,...]")
    rows = []
    for word in own.parse_args().what:
        path, _, rest = word.partition("=")
        spec, _, levels = rest.partition("@")
        for level in (levels or LEVELS).split(","):
            options: Any = grammar().parse_args(["energy", path, "--data", spec, "--level", level])
            model = open_model(path, options)
            data = chosen_data(model, options)
            what = chosen_level(model, options, lambda line: None)
            started, timed = process_time(), list[tuple[float, float, float, float]]()
            while len(timed) < RUNS or process_time() - started < SECONDS:
                timed.append(_timed(what, data))
            simulated, once, counted, digest = (min(each) for each in zip(*timed, strict=True))
            neurons = sum(prod(op.shape) for op in what.network.nodes.values() if isinstance(op, Neuron))
            each = counted / (len(data.x) * what.steps * neurons)
            seconds = [f"{one:.4f}" for one in (simulated, once, counted, digest)]
            shares = [f"{cost / simulated:.1%}" for cost in (once + counted, once + counted + digest)]
            rows.append([os.path.basename(path), level, str(len(data.x)), *seconds, *shares, f"{each * 1e9:.2f}"])
    times = ["simulation s", "once s", "counting s", "digest s", "share", "with digest", "ns a neuron and step"]
    print(table(["network", "level", "samples", *times], rows, right=range(2, 10)))


def _timed(what: Counted, data: Data) -> tuple[float, float, float, float]:
    """CPU seconds of the simulation, of what is done once, of counting, and of the digest of the weights."""
    started = process_time()
    counter = what.counter()
    once, simulated, counted, parts = process_time() - started, 0.0, 0.0, []
    started = process_time()
    for _, stimulus, trace in runs(what, data):
        simulated += process_time() - started
        started = process_time()
        parts.append(counter.count(stimulus, trace))
        counted += process_time() - started
        started = process_time()
    started = process_time()
    counts = concatenate(parts)
    assert counts.stimulus_digest
    counted += process_time() - started
    started = process_time()
    assert counts.weights
    return simulated, once, counted, process_time() - started


if __name__ == "__main__":
    main()
