"""Runs a ``.nir`` in the importer of another framework: a stand-alone file, for whatever interpreter has it.

    python nir_runner.py versions
    python nir_runner.py IMPORTER model.nir stimulus.npz trace.npz --dt DT --nodes NAME[,NAME]

``stimulus.npz`` holds ``x`` [samples, steps, *shape]; every sample runs alone (batch 1), step by step, in a network
imported afresh, so that nothing of the sample before is left. ``trace.npz`` holds what each named node sent, [samples,
steps, *shape], or ``error``: the exception, and whether it came while importing or while running. It imports numpy,
torch, nir and the importer, and nothing of snncompile.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

IMPORTERS = ("snntorch", "spikingjelly", "norse", "sinabs")


def snntorch(graph: Any, dt: float) -> Any:
    """A network of snnTorch; its dt is fixed at 1e-4 s."""
    from snntorch.import_nir import import_from_nir

    return import_from_nir(graph)


def spikingjelly(graph: Any, dt: float) -> Any:
    """A network of SpikingJelly."""
    from spikingjelly.activation_based.nir_exchange import import_from_nir

    return import_from_nir(graph, dt=dt)


def norse(graph: Any, dt: float) -> Any:
    """A network of Norse."""
    from norse.torch.utils.import_nir import from_nir

    return from_nir(graph, dt=dt)


def sinabs(graph: Any, dt: float) -> Any:
    """A network of sinabs; it has no dt."""
    from sinabs.nir import from_nir

    return from_nir(graph, batch_size=1)


LOADERS: dict[str, Callable[[Any, float], Any]] = {
    "snntorch": snntorch,
    "spikingjelly": spikingjelly,
    "norse": norse,
    "sinabs": sinabs,
}


def versions() -> dict[str, str]:
    """What is installed here: nir and the importers, by their versions."""
    found = {}
    for name in ("nir", "nirtorch", *IMPORTERS):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def watch(network: Any, names: list[str]) -> dict[str, Any]:
    """What the nodes sent last, by name; filled whenever the network runs."""
    seen: dict[str, Any] = {}
    modules = dict(network.named_modules())

    def hook(name: str) -> Callable[[Any, Any, Any], None]:
        def keep(module: Any, given: Any, sent: Any) -> None:
            seen[name] = (sent[0] if isinstance(sent, tuple) else sent).detach()

        return keep

    for name in names:
        if name not in modules:
            raise LookupError(f"no module is called {name}")
        modules[name].register_forward_hook(hook(name))
    return seen


def run_sample(importer: str, network: Any, x: Any, seen: dict[str, Any]) -> dict[str, Any]:
    """One sample [steps, *shape] through a fresh network: what each node sent, [steps, *shape]."""
    import torch

    with torch.no_grad():
        if importer == "sinabs":  # takes all steps at once, in the place of a batch
            network(x)
            return {name: value.numpy().copy() for name, value in seen.items()}
        rows: dict[str, list[Any]] = {}
        state = None
        for now in x:
            seen.clear()
            given = now[None]
            found = network(given) if state is None else network(given, state)
            state = found[1] if isinstance(found, tuple) else None
            for name, value in seen.items():
                rows.setdefault(name, []).append(value.numpy().copy())
        return {name: np.stack(values) for name, values in rows.items()}


def run(importer: str, model: Path, x: Any, dt: float, names: list[str]) -> dict[str, Any]:
    """Every sample; arrays by node, or ``error`` with the stage at which it came."""
    import nir
    import torch

    torch.set_num_threads(1)
    kept: dict[str, list[Any]] = {name: [] for name in names}
    for sample in x:
        stage = "import"
        try:
            network = LOADERS[importer](nir.read(model), dt)
            seen = watch(network, names)
            stage = "run"
            rows = run_sample(importer, network, torch.from_numpy(sample.astype(np.float32)), seen)
            for name in names:
                kept[name].append(rows[name].reshape(len(sample), -1))
        except Exception as error:  # whatever another package raises is what is to be told
            return {"error": np.array(json.dumps([stage, type(error).__name__, str(error)[:500]]))}
    return {f"node.{name}": np.stack(values) for name, values in kept.items()}


def main() -> int:
    """Run one importer, or tell the versions."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("importer", choices=("versions", *IMPORTERS))
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--dt", type=float, default=1e-4)
    parser.add_argument("--nodes", default="")
    options = parser.parse_args()
    if options.importer == "versions":
        print(json.dumps(versions()))
        return 0
    model, stimulus, trace = options.files
    importlib.import_module(options.importer)
    with np.load(stimulus, allow_pickle=False) as given:
        x = given["x"]
    found = run(options.importer, model, x, options.dt, options.nodes.split(","))
    found["versions"] = np.array(json.dumps(versions()))
    with trace.open("wb") as file:
        np.savez(file, **found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
