"""What counting costs beside the simulation it rides on: user CPU time of both, batch by batch, in one process.

    python benchmarks/energy_overhead.py CKPT=DATA[@LEVEL,...] ...     e.g. digits.pt=digits:test:256@folded,fixed

Levels are ``torch``, ``read``, ``folded``, ``fixed``, ``placed``; all of them where none is named. ``plan`` is what is
done once a network, and stands in the share. The last column is what counting costs a neuron and step, whatever the
simulation takes. Every row is the least of three runs.
"""

from __future__ import annotations

import argparse
import os
import resource
from math import prod
from typing import Any

from snncompile.cli import parser as grammar
from snncompile.commands.energy import Counted, chosen_level, runs
from snncompile.commands.imported import Data
from snncompile.commands.opening import chosen_data, open_model
from snncompile.energy import concatenate
from snncompile.ir.ops import Neuron
from snncompile.report.table import table

LEVELS = "torch,read,folded,fixed,placed"
RUNS = 3


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
            simulated, planned, counted = (
                min(each) for each in zip(*(_timed(what, data) for _ in range(RUNS)), strict=True)
            )
            neurons = sum(prod(op.shape) for op in what.network.nodes.values() if isinstance(op, Neuron))
            each = counted / (len(data.x) * what.steps * neurons)
            seconds = [f"{one:.4f}" for one in (simulated, planned, counted)]
            share = f"{(planned + counted) / simulated:.1%}"
            rows.append([os.path.basename(path), level, str(len(data.x)), *seconds, share, f"{each * 1e9:.2f}"])
    headers = ["network", "level", "samples", "simulation s", "plan s", "counting s", "share", "ns a neuron and step"]
    print(table(headers, rows, right=range(2, 8)))


def _timed(what: Counted, data: Data) -> tuple[float, float, float]:
    """User CPU seconds of the simulation, of what is done once, and of counting."""
    started = _user()
    counter = what.counter()
    planned, simulated, counted, parts = _user() - started, 0.0, 0.0, []
    started = _user()
    for _, stimulus, trace in runs(what, data):
        simulated += _user() - started
        started = _user()
        parts.append(counter.count(stimulus, trace))
        counted += _user() - started
        started = _user()
    started = _user()
    concatenate(parts)
    return simulated, planned, counted + _user() - started


def _user() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_utime


if __name__ == "__main__":
    main()
