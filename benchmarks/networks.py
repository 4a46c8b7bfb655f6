"""Every network of the papers: built, counted, trained for one step, folded, compiled, exported and proven.

    python benchmarks/networks.py [NAME ...] [--data-root DIR] [--work DIR] [--samples N] [--steps T] [--table]

For each recipe of the catalogue that a paper has: its parameters; one step of its training method; then, with random
weights and batch norms that hold the statistics of one pass, the rungs of the ladder on a few samples: the graph
against torch, folded, in Loihi's integers (``loihi``, or ``loihi-custom`` where resets are soft), timed and placed, the
fast interpreter, and the ONNX step graph on onnxruntime. A loop that is too short for a pipeline, and a layer that no
core holds, are proven without phases or cores and said so. Samples are cut to ``--steps`` time steps. What is done is
kept in ``--work``, one file a network, and not done again; ``--table`` prints what is there. The exit code is 1 where a
rung does not hold.
"""

from __future__ import annotations

import argparse
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
from snncompile.compile import Compiled, compile_graph, shown, to_integers
from snncompile.errors import DoesNotFit, LoopTooShort, ReadError
from snncompile.frontends.torch import read_module
from snncompile.ir.graph import Graph
from snncompile.ir.ops import By, Neuron, Readout
from snncompile.passes.balance import balance
from snncompile.recipe import Recipe
from snncompile.recipe.methods import AnnSettings, IdsnnSettings
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
    *("network", "parameters", "step", "T", "spikes", "read", "folded", "fixed", "timed", "fast", "onnx", "target"),
    *("cores", "seconds"),
)

Array = np.ndarray[Any, np.dtype[Any]]


def papers() -> list[str]:
    """The recipes whose networks are those of a paper: all that are neither small versions nor our own."""
    own = ("digits-", "fashion-lenet-", "nmnist-tet")
    return [name for name in sheet.names("models") if not name.startswith(own) and not name.endswith("-cpu")]


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


def compiled_for(graph: Graph, stimulus: dict[str, Array]) -> tuple[Compiled, dict[str, str]]:
    """The graph for Loihi; why it is not timed (a loop) or placed (its size), where it is not."""
    soft = any(isinstance(op, Neuron) and isinstance(op.reset, By) for op in graph.nodes.values())
    target = Target.load("loihi-custom" if soft else "loihi")
    steps = next(iter(stimulus.values())).shape[1]
    try:
        return compile_graph(graph, target, stimulus, log), {}
    except (LoopTooShort, DoesNotFit) as error:
        log(str(error))
        levels, layers, notes = to_integers(graph, target, stimulus, log, fits=False)
        long_enough = isinstance(error, DoesNotFit)
        try:
            levels["timed"] = balance(levels["fixed"], target, steps).graph
        except LoopTooShort as loop:
            long_enough, error = False, loop
            levels["timed"] = levels["fixed"]
        levels["placed"] = levels["timed"]
        return Compiled(target, levels, layers, notes, steps), {"cores" if long_enough else "timed": error.what}


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
    placed = compiled.levels["placed"]
    cores = {slice_.core for op in placed.nodes.values() if isinstance(op, Neuron | Readout) for slice_ in op.cores}
    spikes = sum(int(array.sum()) for array in trained.spikes.values())
    held = all(rung.holds for rung in rungs.values()) and spikes > 0
    told |= {"cores": len(cores) or "-", "held": held, "spikes": f"{spikes:,}", "target": compiled.target.name}
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
        shown_ = {**row, "parameters": f"{row['parameters']:,}"}
        lines.append("| " + " | ".join(str(shown_.get(column, "")) for column in COLUMNS) + " |")
    return "\n".join(lines)


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
    names = options.names or papers()
    for name in names if not options.table else ():
        path = options.work / f"{name}.json"
        if path.is_file() and not options.again:
            continue
        print(name, file=sys.stderr, flush=True)
        beside = path.with_suffix(".new")
        beside.write_text(json.dumps(measured(name, options)), encoding="utf-8")
        beside.replace(path)
    done = [options.work / f"{name}.json" for name in names if (options.work / f"{name}.json").is_file()]
    rows = [json.loads(path.read_text(encoding="utf-8")) for path in done]
    print(table(rows))
    return 0 if all(row["held"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
