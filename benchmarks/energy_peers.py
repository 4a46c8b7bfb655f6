"""Agreement with the counters of others where conventions meet: sinabs' fan-out maps, NeuroBench's effective MACs.

    python benchmarks/energy_peers.py CKPT --data digits:test:32 [--peers DIR]

Installs both with ``pip install --no-deps`` into a folder of their own (torch stays the one that is here) and asks them
about every weighted layer of the network, layer by layer, on the very inputs that were recorded: sinabs for the events
times its map of fan-outs, NeuroBench for its effective operations. Prints a row a layer; a difference is exit code 1.
Sinabs' package is opened without its ``__init__``, which wants plotting libraries that counting does not.
"""

from __future__ import annotations

import argparse
import importlib
import subprocess
import sys
import tempfile
import types
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from snncompile.cli import parser as grammar
from snncompile.commands.energy import chosen_level, runs
from snncompile.commands.opening import chosen_data, open_model
from snncompile.energy import count
from snncompile.ir.graph import Graph
from snncompile.ir.ops import Conv, Dense, Flatten, Input, Neuron, Pool, real
from snncompile.report.table import table
from snncompile.run.trace import Trace

VERSIONS = ("sinabs==3.1.3", "neurobench==2.3.0")


def main() -> int:
    """Install, run, compare, print."""
    own = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    own.add_argument("checkpoint")
    own.add_argument("--data", required=True)
    own.add_argument("--peers", type=Path, help="where they are installed, or will be (default: a temporary folder)")
    given = own.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        sinabs, neurobench = _peers(given.peers or Path(scratch))
        words = ["energy", given.checkpoint, "--data", given.data, "--level", "read"]
        options: Any = grammar().parse_args(words)
        model = open_model(given.checkpoint, options)
        what = chosen_level(model, options, print)
        rows: dict[str, list[int]] = {}
        for _, stimulus, trace in runs(what, chosen_data(model, options)):
            columns = {one.name: one for one in count(what.graph, stimulus, trace).layers}
            for name in what.graph.names(Conv, Dense):
                arriving = _arriving(what.graph, name, stimulus, trace)
                layer, counted = _torch(what.graph, name), columns[name]
                if arriving is None or layer is None:
                    continue
                ours = ("ac", "ac_nonzero_weight") if "ac" in counted.columns else ("mac_nonzero", "mac_nonzero")
                found = [counted.total(key) for key in ours]
                theirs = [_fan_out(sinabs, layer, arriving), int(neurobench.single_layer_MACs(arriving, layer)[0])]
                rows[name] = [a + b for a, b in zip(rows.get(name, [0] * 4), found + theirs, strict=True)]
    print(
        table(
            ["layer", "synapses", "sinabs", "weights not 0", "NeuroBench"],
            [[name, f"{a:,}", f"{c:,}", f"{b:,}", f"{d:,}"] for name, (a, b, c, d) in rows.items()],
            right=range(1, 5),
        )
    )
    return 0 if rows and all(b == d and a == c for a, b, c, d in rows.values()) else 1


def _peers(folder: Path) -> tuple[Any, Any]:
    if not (folder / "sinabs").is_dir():
        command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(folder), *VERSIONS]
        subprocess.run(command, check=True)
    sys.path.append(str(folder))
    bare = types.ModuleType("sinabs")
    bare.__path__ = [str(folder / "sinabs")]
    sys.modules["sinabs"] = bare
    return importlib.import_module("sinabs.hooks"), importlib.import_module("neurobench.metrics.utils.layers.macs")


def _arriving(graph: Graph, name: str, stimulus: dict[str, Any], trace: Trace) -> torch.Tensor | None:
    """What arrives at a layer, [samples * steps, ...]; None behind pools and sums, where conventions part."""
    (edge, *more) = graph.into(name)
    if more or edge.delay:
        return None
    match graph.nodes[edge.source]:
        case Input():
            values = stimulus[edge.source]
        case Neuron():
            values = trace.spikes[edge.source]
        case Flatten():
            before = _arriving(graph, edge.source, stimulus, trace)
            return None if before is None else before.flatten(1)
        case Pool() | _:
            return None
    return torch.from_numpy(np.ascontiguousarray(values.reshape(-1, *values.shape[2:]), dtype=np.float32))


def _torch(graph: Graph, name: str) -> nn.Module | None:
    """The layer as torch has it."""
    op: Any = graph.nodes[name]
    weight = torch.from_numpy(np.ascontiguousarray(real(op.weight), dtype=np.float32))
    layer: nn.Module
    if isinstance(op, Dense):
        layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    elif len(op.stride) == 2:
        inward = weight.shape[1] * op.groups
        shape = (op.stride, op.padding, op.dilation, op.groups)
        layer = nn.Conv2d(inward, weight.shape[0], tuple(weight.shape[2:]), *shape, bias=False)
    else:
        return None
    layer.weight.data = weight
    return layer


def _fan_out(sinabs: Any, layer: Any, arriving: torch.Tensor) -> int:
    """Sinabs' count of events times fan-out; where numbers arrive, each that is not zero is an event."""
    events = (arriving != 0).double()
    if isinstance(layer, nn.Linear):
        return int(events.sum() * layer.out_features)
    with torch.no_grad():
        out = layer(arriving[:1]).shape[1:]
        fan_out = sinabs.conv_connection_map(layer, arriving.shape[1:], out)
    return int((events * fan_out.double()).sum())


if __name__ == "__main__":
    raise SystemExit(main())
