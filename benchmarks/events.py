"""N-MNIST end to end: real recordings, from training to a stream of samples on real Lava.

    python benchmarks/events.py [--recordings 8] [--data-root DIR] [--work DIR]

Trains `nmnist-tet` (or uses the finished checkpoint in --work), exports it for Loihi with its proof on the first test
recordings, which run as one stream through Lava (each population cleared at its own phase), runs the bundle on Lava
again sample by sample from a fresh state, and compares the two, spike by spike. Then every test recording is simulated.
Exit code 1 where anything differs.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from snncompile.backends import lava
from snncompile.commands.opening import Bundle
from snncompile.compile import encoded, shown


def main() -> int:
    """Print the ladder, the comparison and the accuracy."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recordings", type=int, default=8)
    parser.add_argument("--data-root")
    parser.add_argument("--work", type=Path, default=Path("benchmark-out"))
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    root = ["--data-root", options.data_root] if options.data_root else []
    path, out = options.work / "nmnist-tet.pt", options.work / "nmnist-tet-loihi"
    trained = snncompile("train", "nmnist-tet", "-o", path, "--resume" if path.exists() else "--force", *root)
    data = f"test:{options.recordings}"
    rungs = snncompile("export", path, "--data", data, "-t", "loihi", "-o", out, "--force", *root)["rungs"]
    print(
        "| rung | run by | against | verdict | compared | different | |\n| --- | --- | --- | --- | ---: | ---: | --- |"
    )
    for rung in rungs:
        cells = [rung[key] for key in ("level", "run_by", "against", "verdict")]
        cells += [f"{rung['compared']:,}", f"{rung['different']:,}", rung["note"]]
        print("| " + " | ".join(cells) + " |")
    compared, different = fresh(out, data, options.data_root)
    print(f"\nOne stream against a fresh state for each recording, on Lava: {different} of {compared:,} spikes differ.")
    found = snncompile("simulate", path, "--target", "loihi", "--data", "test", *root)
    before = trained["metrics"]["test_accuracy"]
    print(f"Accuracy on {found['samples']} test recordings: {before:.2%} in torch, {found['accuracy']:.2%} deployed.")
    return 1 if different or rungs[-1]["verdict"] != "bit-equal" else 0


def fresh(out: Path, data: str, root: str | None) -> tuple[int, int]:
    """Spikes of the stream and of every recording alone, on Lava: compared, different."""
    bundle = Bundle(out)
    program = bundle.program
    stimulus = encoded(program.graph, shown(program.graph, bundle.data(data, root).x, program.steps))
    stream = lava.run(out, stimulus).arrays
    compared = different = 0
    with tempfile.TemporaryDirectory() as folder:
        for name in ("program.json", "arrays.npz"):
            (Path(folder) / name).write_bytes((out / name).read_bytes())
        for index in range(len(next(iter(stimulus.values())))):
            one = lava.run(Path(folder), {name: array[index : index + 1] for name, array in stimulus.items()}).arrays
            for key, array in one.items():
                compared += array.size
                different += int(np.sum(array != stream[key][index : index + 1]))
    return compared, different


def snncompile(*words: object) -> dict[str, Any]:
    """The JSON result of a verb; its log goes to our standard error."""
    command = [sys.executable, "-m", "snncompile", *map(str, words), "--format", "json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


if __name__ == "__main__":
    sys.exit(main())
