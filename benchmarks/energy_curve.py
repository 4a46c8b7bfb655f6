"""Energy and accuracy against the number of steps, all from one run: the figure in docs/energy.md (TET's Fig. 4B).

    python benchmarks/energy_curve.py CKPT --data fashion-mnist:test:256 -o docs/energy-fashion.svg [--report FILE]

Runs ``snncompile energy`` and draws its report. The table that belongs to the figure is printed.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from snncompile.cli import main as snncompile
from snncompile.report.energy_svg import HEIGHT, WIDTH, over_steps
from snncompile.report.table import table


def main() -> None:
    """Count, draw, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("--data", required=True)
    parser.add_argument("--report", type=Path, help="where the JSON report stays")
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = options.report or Path(folder) / "energy.json"
        code = snncompile(["energy", options.checkpoint, "--data", options.data, "-o", str(path), "-q"])
        if code:
            raise SystemExit(code)
        report = json.loads(path.read_text(encoding="utf-8"))
    energies = [joules * 1e9 for joules in report["energy_by_steps_J"]]
    accuracies = [number / report["samples"] for number in report["correct_by_steps"]]
    picture = over_steps(energies, accuracies).replace("currentColor", "#222")
    head, rest = picture.split(">", 1)
    ground = f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>'
    options.output.write_text(f"{head}>{ground}{rest}\n", encoding="utf-8")
    rows = [
        [str(step + 1), f"{energy:,.1f}", f"{accuracy:.2%}"]
        for step, (energy, accuracy) in enumerate(zip(energies, accuracies, strict=True))
    ]
    print(table(["T", "nJ a sample", "accuracy"], rows, right=range(3)))


if __name__ == "__main__":
    main()
