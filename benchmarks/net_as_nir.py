"""lava-dl's own networks as NIR: what is exact, and what is not by how much.

    python benchmarks/net_as_nir.py [--wheel lava_dl-0.6.0-py3-none-any.whl] [--only CASE ...]

Every ``.net`` of the conformance suite (``benchmarks/conformance.py`` says where they come from), on the inputs that
upstream recorded, by the commands that users have: ``export --target nir``, whose gate reads the file again and runs
it; ``simulate`` of the ``.net`` and of the ``model.nir`` that came of it, which must have the same spikes.
``ntidigits`` is written again without its last layer, an average that netx does not read. Exit code 1 where a command
fails, where the two simulations differ, or where a network that is said to be exact is not.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from conformance import WHEEL, downloaded, image_first, kernel, put, unpacked

from snncompile.cli import main as snncompile
from snncompile.frontends.net import read
from snncompile.ir.ops import Stateful
from snncompile.report.table import table
from snncompile.run.trace import Array

HEADERS = (
    "network",
    "neurons",
    "nodes",
    "steps",
    "exact",
    "compared",
    "differ",
    "equal inputs",
    "potential, limit",
)


@dataclass(frozen=True)
class Case:
    """A file and what it is shown: frames [samples, steps, ...]."""

    net: Path
    x: Array


def written(path: Path, layers: list[dict[str, Any]]) -> Path:
    """A ``.net`` with these layers."""
    with h5py.File(path, "w") as file:
        for index, layer in enumerate(layers):
            put(file.create_group(f"layer/{index}"), layer)
    return path


def still(image: Array, steps: int) -> Array:
    """An image (x, y, channel), shown so many steps."""
    return np.broadcast_to(image.transpose(2, 1, 0), (1, steps, *image.shape[::-1]))


def tiny(folder: Path, place: Path) -> Case:
    """An image into LIF neurons, two convolutions, biases."""
    return Case(folder / "tiny.net", still((np.load(folder / "gts/tinynet/input_bias.npy") - 34) / 36, 64))


def pilotnet_lif(folder: Path, place: Path) -> Case:
    """A camera image, 9 layers."""
    own = folder / "gts/pilotnet_lif"
    return Case(own / "network.net", still((np.load(own / "image.npy") - 36) / 40, 17))


def ntidigits(folder: Path, place: Path) -> Case:
    """Spikes of a cochlea, synaptic currents, a delay for every neuron; 500 of 3,000 steps."""
    own = folder / "gts/ntidigits"
    shutil.copyfile(own / "ntidigits.net", place / "ntidigits.net")
    with h5py.File(place / "ntidigits.net", "r+") as file:
        del file["layer/5"]
    return Case(place / "ntidigits.net", np.load(own / "input.npy").T[None, :500])


def dense(folder: Path, place: Path) -> Case:
    """200-256."""
    own = folder / "gts/dense"
    neuron = {"type": b"CUBA", "iDecay": 4096, "vDecay": 415, "vThMant": 6}
    layer = {"type": b"dense", "shape": [256], "weight": np.load(own / "weight.npy"), "neuron": neuron}
    path = written(place / "dense.net", [{"type": b"input", "shape": [200]}, layer])
    return Case(path, np.load(own / "in.npy").T[None])


def complex_dense(folder: Path, place: Path) -> Case:
    """200-256 with complex weights, to resonators without a reset."""
    weight = tuple(np.load(folder / f"gts/complex_dense/weight_{part}.npy") for part in ("r", "img"))
    return _resonating(folder, place, "RF_PHASE", weight, 11)


def complex_reset(folder: Path, place: Path) -> Case:
    """Resonators that are reset, each of which hears one input in both parts."""
    one = np.eye(200, dtype=np.int64)
    return _resonating(folder, place, "RF", (one, one), 7)


def _resonating(folder: Path, place: Path, kind: str, weight: tuple[Array, ...], period: int) -> Case:
    sine, cosine = (int(0.95 * wave(np.pi * 2 / period) * 4096) for wave in (np.sin, np.cos))
    neuron = {"type": kind.encode(), "sinDecay": sine, "cosDecay": cosine, "vThMant": 25 if kind == "RF_PHASE" else 1}
    weights = dict(zip(("real", "imag"), weight, strict=True))
    layer = {"type": b"dense", "shape": [len(weight[0])], "weight": weights, "neuron": neuron}
    x = np.load(folder / "gts/complex_dense/in.npy").T[None].astype(np.int64)
    return Case(written(place / f"{kind}.net", [layer]), x)


def pilotnet_sdnn(folder: Path, place: Path) -> Case:
    """An image that stands still, encoded, through 9 layers of changes."""
    own = folder / "gts/pilotnet_sdnn"
    return Case(own / "network.net", still(np.load(own / "input.npy")[..., 0] / 64, 9))


def square_sdnn(folder: Path, place: Path) -> Case:
    """The first 33 columns of what its encoder recorded, as the numbers that it encodes."""
    own = folder / "gts/pilotnet_sdnn"
    given = image_first(np.load(own / "act0.npy")[:33, :33])[None]
    return Case(own / "square_network.net", np.clip(given, -4095, 4095) / 64)


def tinynet_sdnn(folder: Path, place: Path) -> Case:
    """A wave, encoded; a convolution with biases; a sum."""
    own = folder / "gts/tinynet_sdnn"
    neuron = {"type": b"SDNN", "vThMant": 20}
    conv = {"type": b"conv", "shape": [24, 6, 6], "stride": 2, "weight": kernel(np.load(own / "layer1_kernel.npy"))}
    layers = [
        {"type": b"input", "shape": [3, 16, 16], "neuron": neuron},
        conv | {"bias": np.load(own / "layer1_bias.npy"), "neuron": neuron},
        {"type": b"flatten", "shape": [864]},
        {"type": b"dense", "shape": [100], "weight": np.load(own / "layer2_weight.npy")}
        | {"neuron": neuron | {"sigma_output": True}},
    ]
    wave = np.sin(2 * np.pi * np.arange(15) / 15)
    x = image_first((np.load(own / "input_bias.npy")[..., None] * wave).astype(int))
    return Case(written(place / "tinynet_sdnn.net", layers), x[None] / 64)


CASES: dict[str, Callable[[Path, Path], Case]] = {
    "tiny": tiny,
    "pilotnet_lif": pilotnet_lif,
    "ntidigits": ntidigits,
    "dense": dense,
    "complex_dense": complex_dense,
    "complex_dense, reset": complex_reset,
    "pilotnet_sdnn": pilotnet_sdnn,
    "pilotnet_sdnn, square": square_sdnn,
    "tinynet_sdnn": tinynet_sdnn,
}


def told(*words: object) -> dict[str, Any]:
    """What a command says in JSON."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        code = snncompile([*map(str, words), "-q", "--format", "json"])
    if code:
        raise SystemExit(f"{' '.join(map(str, words))}: exit code {code}")
    found: dict[str, Any] = json.loads(said.getvalue())
    return found


def row(name: str, case: Case, place: Path) -> list[str]:
    """One network: exported, read again, simulated twice."""
    np.savez(place / "x.npz", x=case.x)
    data = ("--data", place / "x.npz")
    told("export", case.net, "--target", "nir", *data, "-o", place / "out")
    ours, theirs = (told("simulate", artifact, *data) for artifact in (case.net, place / "out/model.nir"))
    if ours["spikes"] != theirs["spikes"] or ours.get("answers") != theirs.get("answers"):
        raise SystemExit(f"{name}: model.nir is another network than {case.net.name}")
    graph = read(case.net).graph
    neurons = sum(prod(op.shape) for op in graph.nodes.values() if isinstance(op, Stateful))
    manifest = json.loads((place / "out/manifest.json").read_text(encoding="utf-8"))
    with h5py.File(place / "out/model.nir", "r") as file:
        nodes = len(file["node/nodes"])
    found = manifest["difference"]["populations"]
    spiking = [one for one in found if one["population"] in ours["spikes"]]
    compared, different = (sum(one[key] for one in spiking) for key in ("compared", "different"))
    if manifest["spike_exact"] and different:
        raise SystemExit(f"{name}: is said to be exact, {different} spikes differ")
    given = sum(one["given"] or 0 for one in spiking)
    worst = max(spiking, key=lambda one: one["largest"] or 0.0)
    apart = f"{worst['largest']:.3g}, {_number(worst['limit'])}" if worst["largest"] is not None else ""
    share = f"{different:,} ({different / compared:.2%})" if different else "0"
    steps = f"{case.x.shape[1]:,}"
    exact = "yes" if manifest["spike_exact"] else "no"
    equal = "" if manifest["spike_exact"] else f"{given:,}"
    return [name, f"{neurons:,}", f"{nodes:,}", steps, exact, f"{compared:,}", share, equal, apart]


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.3g}"


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description="lava-dl's networks as NIR")
    parser.add_argument("--wheel", type=Path, help=f"the wheel of {WHEEL} (default: downloaded)")
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES), metavar="CASE")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory(prefix="net-as-nir-") as name:
        folder = unpacked(options.wheel or downloaded(Path(name)), Path(name))
        for case in options.only:
            place = Path(name) / case.replace(", ", "_")
            place.mkdir()
            start = time.monotonic()
            rows.append(row(case, CASES[case](folder, place), place))
            print(f"{case}: {time.monotonic() - start:.1f} s", file=sys.stderr)
    print(table(HEADERS, rows, right={1, 2, 3, 5, 6, 7, 8}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
