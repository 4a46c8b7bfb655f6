"""What counting costs beside the simulation it rides on, both timed in one run: below a tenth.

python benchmarks/energy_overhead.py CKPT --data fashion-mnist:test:256 [--level fixed]
"""

from __future__ import annotations

import argparse
import time
from typing import Any

from snncompile.cli import parser as grammar
from snncompile.commands.energy import chosen_level, runs
from snncompile.commands.opening import chosen_data, open_model
from snncompile.energy import Counter


def main() -> None:
    """Time simulation and counting, batch by batch."""
    own = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    own.add_argument("checkpoint")
    own.add_argument("--data", required=True)
    own.add_argument("--level", default="folded")
    given = own.parse_args()
    options: Any = grammar().parse_args(["energy", given.checkpoint, "--data", given.data, "--level", given.level])
    model = open_model(given.checkpoint)
    data = chosen_data(model, options)
    what = chosen_level(model, options, print)
    started = time.perf_counter()
    counter = Counter(what.graph)
    planned = time.perf_counter() - started
    simulated = counted = 0.0
    started = time.perf_counter()
    for _, stimulus, trace in runs(what, data):
        simulated += time.perf_counter() - started
        started = time.perf_counter()
        counter.count(stimulus, trace)
        counted += time.perf_counter() - started
        started = time.perf_counter()
    print(f"{given.checkpoint}@{given.level}, {len(data.x)} samples of {what.steps} steps")
    print(
        f"simulation {simulated:.2f} s, counting {counted:.2f} s ({counted / simulated:.1%}), plan {planned:.2f} s once"
    )


if __name__ == "__main__":
    main()
