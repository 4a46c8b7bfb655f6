"""Runs ``network.net`` on lava-dl's own netx, step by step: for the interpreter that has Lava and lava-dl.

    python netx_runner.py FOLDER

FOLDER holds ``network.net``, ``stimulus.npy`` (int [samples, steps, *shape]) and ``how.json``: the arguments of
``netx.hdf5.Network``, the latency, and whether samples follow each other in one run. Leaves ``found.npz``: ``i.v`` and
``i.s``, potentials and spikes of layer i, [runs, machine steps, *shape] with shape [channels, height, width].
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from lava.lib.dl.netx import hdf5
from lava.magma.core.run_conditions import RunSteps
from lava.magma.core.run_configs import Loihi2SimCfg
from lava.proc import io


def channels_first(array: Any) -> Any:
    """Lava's (x, y, channel), with whatever follows, as [channel, y, x]."""
    return array.transpose(2, 1, 0, *range(3, array.ndim)) if array.ndim > 2 else array


def run(folder: Path, how: dict[str, Any], values: Any) -> list[dict[str, Any]]:
    """One run; ``values`` [machine steps, *shape]. Potentials and spikes of every layer, steps first."""
    network = hdf5.Network(net_config=str(folder / "network.net"), **how["arguments"])
    given = np.moveaxis(values, 0, -1)
    given = given.transpose(2, 1, 0, 3) if given.ndim == 4 else given
    source = io.source.RingBuffer(data=given.astype(np.int32))
    source.s_out.connect(network.inp)
    steps, sinks = len(values), []
    for layer in network.layers:
        sink = io.sink.RingBuffer(shape=layer.neuron.s_out.shape, buffer=steps)
        layer.neuron.s_out.connect(sink.a_in)
        sinks.append(sink)
    potentials: list[list[Any]] = [[] for _ in network.layers]
    for _ in range(steps):
        network.run(condition=RunSteps(num_steps=1), run_cfg=Loihi2SimCfg(select_tag="fixed_pt"))
        for index, layer in enumerate(network.layers):
            potentials[index].append(channels_first(layer.neuron.v.get()))
    found = []
    for index, sink in enumerate(sinks):
        data = sink.data.get()
        spikes = np.moveaxis(data.transpose(2, 1, 0, 3) if data.ndim == 4 else data, -1, 0)
        found.append({"v": np.stack(potentials[index]).astype(np.int64), "s": spikes != 0})
    network.stop()
    return found


def main() -> None:
    """Run all samples and write what was found."""
    folder = Path(sys.argv[1])
    how = json.loads((folder / "how.json").read_text(encoding="utf-8"))
    stimulus = np.load(folder / "stimulus.npy", allow_pickle=False)
    runs = [stimulus.reshape(-1, *stimulus.shape[2:])] if how["stream"] else list(stimulus)
    after = [(0, how["latency"]), *[(0, 0)] * (stimulus.ndim - 2)]
    found = [run(folder, how, np.pad(values, after)) for values in runs]
    arrays = {
        f"{index}.{what}": np.stack([one[index][what] for one in found])
        for index in range(len(found[0]))
        for what in ("v", "s")
    }
    np.savez(folder / "found.npz", **arrays)


if __name__ == "__main__":
    main()
