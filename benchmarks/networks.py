"""Every network of the papers: built, counted, trained for one step, folded, compiled, exported and proven.

    python benchmarks/networks.py [NAME ...] [--data-root DIR] [--work DIR] [--samples N] [--steps T] [--table]

For each recipe of the catalogue that a paper has: its parameters; one step of its training method; then, with random
weights and batch norms that hold the statistics of one pass, the rungs of the ladder on a few samples: the graph
against torch, folded, in Loihi's integers (``loihi``, or ``loihi-custom`` where resets are soft), timed and placed, the
fast interpreter, the ONNX step graph on onnxruntime; and the graph as NIR, through the gate of ``export --target nir``:
the file is read again with its metadata and by its numbers alone, and both runs are held against torch. NIR is written
in the profile ``canonical``, which says everything that NIR can say: soft resets as a loop of nodes, feedback over
several populations with ``Delay`` nodes. A loop that is too short for a pipeline, and a layer that no core holds, are
proven without phases or cores and said so; the loop has a second row, for ``--equilibrium``: its feedback arrives
later, ``fixed`` is the mean error of its rates, and below that all is bit-equal again.

Samples are cut to ``--steps`` time steps. What is done is kept in ``--work``, one file a network, and not done again by
the same script with the same options; ``--table`` prints what is there. The exit code is 1 where a rung does not hold.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
import time
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch

from snncompile import sheet
from snncompile.backends.nir_file import write
from snncompile.backends.nir_gate import Gate
from snncompile.backends.nir_lowering import lower, without_norms
from snncompile.backends.nir_nodes import written
from snncompile.backends.nir_profiles import PROFILES
from snncompile.compile import Compiled, compile_graph, shown, to_integers
from snncompile.errors import DoesNotFit, LoopTooShort, NotRepresentable, ReadError
from snncompile.frontends.nir_metadata import pack
from snncompile.frontends.torch import read_module
from snncompile.ir.graph import Graph
from snncompile.ir.ops import By, Neuron, Readout
from snncompile.passes.balance import balance
from snncompile.passes.divide import divide
from snncompile.recipe import Recipe
from snncompile.recipe.methods import AnnSettings, IdsnnSettings
from snncompile.run.trace import Trace
from snncompile.rungs import Rung
from snncompile.target import Target
from snncompile.train.checkpoint import save_checkpoint
from snncompile.train.data import Split, load_for
from snncompile.train.encoders import encoded
from snncompile.train.methods import course_of
from snncompile.train.networks import Network
from snncompile.train.recording import record
from snncompile.train.teachers import teacher_recipe
from snncompile.verify import Ladder

GAIN = 0.6  # of every batch norm: some ten in a hundred neurons then fire
EVENTS = 0.05  # events a pixel of a random frame
STATISTICS = 16  # samples that batch norms take their statistics from; two where an input has more numbers than LARGE
LARGE = 8192
COLUMNS = (
    *("network", "parameters", "step", "T", "spikes", "read", "folded", "fixed", "timed", "fast", "onnx", "nir"),
    *("target", "cores", "seconds"),
)

Array = np.ndarray[Any, np.dtype[Any]]


def papers() -> list[str]:
    """The recipes whose networks are those of a paper: all that are neither small versions nor our own."""
    own = ("digits-", "fashion-lenet-", "nmnist-tet")
    return [name for name in sheet.names("models") if not name.startswith(own) and not name.endswith(("-cpu", "-gpu"))]


def shortened(recipe: Recipe, steps: int) -> Recipe:
    """The recipe with fewer time steps, in one stage."""
    tables: dict[str, Any] = recipe.to_dict()
    tables[recipe.method]["steps"] = min(steps, recipe.steps)
    tables.pop("tit", None)
    return Recipe.from_dict(tables, recipe.name)


def inputs(recipe: Recipe, count: int, root: Path | None) -> Split:
    """Real samples where there are some; else random images, or random events."""
    numbers = np.random.default_rng(1)
    y = numbers.integers(0, recipe.classes, count)
    classes = tuple(map(str, range(recipe.classes)))
    if not recipe.data.static:
        x = np.minimum(numbers.poisson(EVENTS, (count, recipe.steps, *recipe.input)), max(1, recipe.data.most))
        return Split(recipe.data.name, "train", x.astype(np.float32), y, False, classes)
    stands_for = "cifar10-subset" if recipe.data.name.startswith("cifar") else recipe.data.name
    plain = replace(recipe.data, name=stands_for, augment="none")
    try:
        found = load_for(replace(recipe, data=plain), f"train:{count}", root)
        return replace(found, name=recipe.data.name, y=y, classes=classes)
    except ReadError:
        x = numbers.random((count, *recipe.input)).astype(np.float32)
        return Split(recipe.data.name, "train", x, y, True, classes)


def one_step(recipe: Recipe, seen: Split) -> tuple[float, float]:
    """One step of the recipe's method: the loss, and seconds."""
    with tempfile.TemporaryDirectory() as folder:
        teacher = None
        if isinstance(recipe.settings, IdsnnSettings):
            teacher = Path(folder) / "teacher.pt"
            save_checkpoint(teacher, Network(teacher_recipe(recipe)), {"finished": True}, seen)
        course = course_of(recipe, teacher)
    course.network.train()
    assert seen.y is not None
    x = course.shown(seen.x, np.arange(len(seen.x)), 1)
    begun = time.perf_counter()
    loss, _ = course.step(torch.from_numpy(np.ascontiguousarray(x, np.float32)), torch.from_numpy(seen.y))
    return loss, time.perf_counter() - begun


def untrained(recipe: Recipe, x: Array) -> Network:
    """Random weights, batch norms with the statistics of one pass."""
    torch.manual_seed(1)
    network = Network(recipe)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
            module.momentum = None  # statistics are those of the pass, not a running mixture
            torch.nn.init.constant_(module.weight, GAIN)
    with torch.no_grad():
        network.train()(torch.from_numpy(x))
    return network.eval()


def compiled_for(
    graph: Graph, stimulus: dict[str, Array], *, equilibrium: bool = False
) -> tuple[Compiled, dict[str, str]]:
    """The graph for Loihi; why it is not timed (a loop) or placed (its size), where it is not."""
    soft = any(isinstance(op, Neuron) and isinstance(op.reset, By) for op in graph.nodes.values())
    target = Target.load("loihi-custom" if soft else "loihi")
    steps = next(iter(stimulus.values())).shape[1]
    try:
        return compile_graph(graph, target, stimulus, log, equilibrium=equilibrium), {}
    except (LoopTooShort, DoesNotFit) as error:
        log(str(error))
        levels, layers, notes = to_integers(graph, target, stimulus, log, fits=False, equilibrium=equilibrium)
        lacking = {"cores": f"{error.where}: {error.what}"} if isinstance(error, DoesNotFit) else {}
        try:
            levels["timed"] = balance(divide(levels["fixed"], target).graph, target, steps).graph
        except LoopTooShort as loop:
            lacking["timed"] = loop.what
            levels["timed"] = levels["fixed"]
        levels["placed"] = levels["timed"]
        return Compiled(target, levels, layers, notes, steps), lacking


def as_nir(graph: Graph, stimulus: dict[str, Array], trained: Trace, steps: int) -> str:
    """The network as a file of NIR, read again and run: ``exact``, ``explained``, what differs, or why NIR cannot carry
    it.
    """
    profile = PROFILES["canonical"]
    plain = without_norms(graph)
    try:
        lowered = lower(plain, profile, soft=True)
        made = written(lowered, profile)
    except NotRepresentable as error:
        return f"refused: {error.where}: {error.what} ({error.why})"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.nir"
        write(made.net, path, pack(plain, made.net, dt=profile.dt, profile=profile.name, steps=steps))
        gate = Gate(path, made, profile, (plain, lowered), stimulus, trained, trained=True)
        rows = list(gate.rows(importers=()))
    verdicts = {row.verdict for row in rows}
    for row in rows:
        log(f"nir: {row.reader}: {row.verdict}, {row.compared:,} compared {row.note}")
    if verdicts <= {"same", "explained"}:
        return "explained" if "explained" in verdicts else "exact"
    return "; ".join(f"{row.reader}: {row.verdict} {row.note}" for row in rows)


def later(graph: Graph, stimulus: dict[str, Array], x: Array, trained: Trace) -> dict[str, Any]:
    """The row of a network whose feedback arrives later than trained: its loops are as long as the machine's."""
    compiled, lacking = compiled_for(graph, stimulus, equilibrium=True)
    ladder = Ladder(compiled, x, None, trained)
    rungs = {"timed": ladder.timed(), "fast": ladder.fast(), "onnx": ladder.on_onnxruntime()}
    errors = ladder.rate_errors()
    told: dict[str, Any] = {name: rung.verdict for name, rung in rungs.items()}
    told["fixed"] = f"rates {sum(errors.values()) / len(errors):.4f}"
    told |= {"cores": cores_of(compiled), "held": all(rung.holds for rung in rungs.values())}
    return told | {"target": compiled.target.name} | lacking


def cores_of(compiled: Compiled) -> int | str:
    """How many cores the placed graph takes."""
    nodes = compiled.levels["placed"].nodes.values()
    return len({slice_.core for op in nodes if isinstance(op, Neuron | Readout) for slice_ in op.cores}) or "-"


def proven(recipe: Recipe, seen: Array, samples: int) -> dict[str, Any]:
    """The rungs of a network on the first ``samples`` of ``seen``, as they hold."""
    network, x = untrained(recipe, seen), seen[:samples]
    graph = read_module(network)
    stimulus = {name: np.asarray(v, np.float64) for name, v in shown(graph, x, recipe.steps).items()}
    log("built, recording what torch does")
    trained = record(network, x)
    compiled, lacking = compiled_for(graph, stimulus)
    ladder = Ladder(compiled, x, None, trained)
    rungs: dict[str, Rung] = {}
    for name, climb in (
        ("read", ladder.read),
        ("folded", ladder.folded),
        ("fixed", ladder.fixed),
        *(() if "timed" in lacking else (("timed", ladder.timed),)),
        ("fast", ladder.fast),
        ("onnx", ladder.on_onnxruntime),
    ):
        rungs[name] = climb()
        log(f"{name}: {rungs[name].verdict} {rungs[name].note[:120]}")
    told: dict[str, Any] = {name: rung.verdict for name, rung in rungs.items()}
    fixed = rungs["fixed"]
    told["fixed"] = f"{fixed.different / max(1, fixed.compared):.2%}"
    told["nir"] = as_nir(graph, stimulus, trained, recipe.steps)
    spikes = sum(int(array.sum()) for array in trained.spikes.values())
    held = all(rung.holds for rung in rungs.values()) and spikes > 0 and "DIFFERENT" not in told["nir"]
    told |= {"cores": cores_of(compiled), "held": held, "spikes": f"{spikes:,}", "target": compiled.target.name}
    if "timed" in lacking:
        told["later"] = later(graph, stimulus, x, trained)
        told["held"] = held and told["later"]["held"]
    return told | lacking


def measured(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """All that is said of one network."""
    whole = Recipe.load(name)
    recipe = shortened(whole, options.steps)
    begun = time.perf_counter()
    with torch.device("meta"):
        parameters = sum(parameter.numel() for parameter in Network(whole).parameters())
    enough = STATISTICS if prod(recipe.input) <= LARGE else 2
    seen = inputs(recipe, max(enough, options.samples), options.data_root)
    loss, seconds = one_step(recipe, seen)
    log(f"{parameters:,} parameters; one step of {recipe.method}: loss {loss:.4f}, {seconds:.1f} s")
    if not np.isfinite(loss):
        raise SystemExit(f"{name}: the loss is {loss}")
    row: dict[str, Any] = {"network": name, "parameters": parameters, "step": f"{loss:.3f}, {seconds:.1f} s"}
    row["T"] = f"{recipe.steps} of {whole.steps}"
    if isinstance(recipe.settings, AnnSettings):
        row |= {"held": True, "read": "a teacher: not compiled"}
    else:
        row |= proven(recipe, np.asarray(encoded(recipe, seen.x), np.float32), options.samples)
    return row | {"seconds": f"{time.perf_counter() - begun:.0f}"}


def log(line: str) -> None:
    """A line on stderr, with the time."""
    print(f"  {time.strftime('%H:%M:%S')} {line[:160]}", file=sys.stderr, flush=True)


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as a table in Markdown."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    for row in rows:
        shown_ = [{**row, "parameters": f"{row['parameters']:,}"}]
        if "later" in row:
            shown_.append({**row["later"], "network": "the same, `--equilibrium`"})
        lines += ["| " + " | ".join(str(one.get(column, "")) for column in COLUMNS) + " |" for one in shown_]
    return "\n".join(lines)


def version(options: argparse.Namespace) -> str:
    """What rows of one table share: this script and what it was asked."""
    text = Path(__file__).read_text(encoding="utf-8") + f"{options.samples} {options.steps}"
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def kept(path: Path, script: str) -> dict[str, Any] | None:
    """The row of a network that this script has done with these options."""
    if not path.is_file():
        return None
    row: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return row if row.get("script") == script else None


def main() -> int:
    """Do what is not done yet, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--work", type=Path, default=Path("benchmark-out") / "networks")
    parser.add_argument("--samples", type=int, default=1)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--again", action="store_true", help="do what is done already")
    parser.add_argument("--table", action="store_true", help="print what is done, and do nothing")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    names, script = options.names or papers(), version(options)
    for name in names if not options.table else ():
        path = options.work / f"{name}.json"
        if kept(path, script) and not options.again:
            continue
        print(name, file=sys.stderr, flush=True)
        beside = path.with_suffix(".new")
        beside.write_text(json.dumps(measured(name, options) | {"script": script}), encoding="utf-8")
        beside.replace(path)
    rows = [row for name in names if (row := kept(options.work / f"{name}.json", script))]
    print(table(rows))
    return 0 if all(row["held"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
