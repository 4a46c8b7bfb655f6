"""An interpreter of importers that is none: it answers in the words of ``nir_runner.py``, as told by a JSON beside it.

``answers.json``: ``versions``, and for every importer what it sends, ``[node, sample, step, neuron]`` being one spike
that it has the other way round; or ``error``; or ``dies``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

answers = json.loads((Path(__file__).parent / "answers.json").read_text())
words = sys.argv[2:]  # behind the path of the real runner
if words[0] == "versions":
    print(json.dumps(answers["versions"]))
    sys.exit(0)
importer, stimulus, trace = words[0], Path(words[2]), Path(words[3])
told = answers[importer]
if told == "dies":
    print("Traceback\nMemoryError: out of it", file=sys.stderr)
    sys.exit(1)
if isinstance(told, dict):
    np.savez(trace, error=np.array(json.dumps([told["stage"], "ValueError", told["error"]])))
    sys.exit(0)
with np.load(Path(__file__).parent / "right.npz") as right:
    found = {key: right[key] for key in right.files}
for node, sample, step, neuron in told:
    flat = found[f"node.{node}"][sample, step].reshape(-1)
    flat[neuron] = 1 - flat[neuron]
np.savez(trace, **found)
