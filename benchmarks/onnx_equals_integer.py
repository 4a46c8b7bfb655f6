"""Random integer networks on onnxruntime against the integer interpreter: spikes, potentials, every state.

    python benchmarks/onnx_equals_integer.py [--neuron-steps 1e7] [--seed 0]

Networks of ``tests/graphs.py``: residuals, feedback, delays, grouped, strided and dilated convolutions, soft and hard
reset, potentials that do not start at zero; pools (sums and maxima) are put before some of them. Each runs on one of
onnxruntime's four optimisation levels, by turns. Prints what was compared; the exit code is 1 at the first mismatch.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from snncompile.backends import onnx, onnxruntime
from snncompile.backends.step_example import history
from snncompile.fixed import FixedPoint
from snncompile.ir.graph import Edge, Graph
from snncompile.ir.ops import By, Input, Neuron, Op, Output, Pool, To
from snncompile.ir.store import Program
from snncompile.run.steps import latency
from snncompile.target import Decay, Target
from tests.graphs import Case, fixed_case

STEPS, SAMPLES = 16, 48
LOIHI = Target.load("loihi")
TARGETS = (LOIHI, replace(LOIHI, decay=Decay(12, "floor")), Target.load("onnx"))


def softened(case: Case, draw: Random) -> Case:
    """The same network with other resets and starting potentials."""
    nodes: dict[str, Op] = dict(case.graph.nodes)
    for name, op in nodes.items():
        if isinstance(op, Neuron) and draw.random() < 0.6:
            amount = FixedPoint.number(draw.randint(-20, 200))
            start = FixedPoint.number(draw.randint(-900, 900), -6)
            nodes[name] = replace(op, reset=draw.choice([By(amount), To(amount)]), initial=start)
    return Case(Graph(nodes, case.graph.edges), case.stimulus)


def pooled(case: Case, draw: Random) -> Case:
    """The same network with a pool, which keeps the size, behind each of its inputs that are maps."""
    nodes: dict[str, Op] = dict(case.graph.nodes)
    edges = list(case.graph.edges)
    for name, op in case.graph.nodes.items():
        if isinstance(op, Input) and len(op.shape) > 1:
            axes = len(op.shape) - 1
            kind = draw.choice(["sum", "max"])
            nodes[f"{name}_pool"] = Pool(kind, (3,) * axes, (1,) * axes, (1,) * axes)
            moved = [e for e in edges if e.source == name and not isinstance(nodes[e.target], Output)]
            edges = [e for e in edges if e not in moved]
            edges += [Edge(f"{name}_pool", e.target, e.delay) for e in moved] + [Edge(name, f"{name}_pool")]
    return Case(Graph(nodes, edges), case.stimulus)


def compared(case: Case, target: Target, level: str, used: Counter[str]) -> int:
    """Neuron-steps compared, all equal; raises ``AssertionError`` naming the tensor."""
    program = Program(case.graph, "fixed", target.name, case.steps)
    step, known = onnx.step_graph(program, target), history(case.graph, case.stimulus, target)
    used.update(operation.kind for operation in step.operations)
    made = onnx.model(program, target, watch=True)
    machine_steps = case.steps + latency(case.graph)
    ran = onnxruntime.Session(made, onnx.told_by(made), level=level, threads=1).run(case.stimulus)
    total = 0
    for port in {*step.hidden, *step.outputs}:
        expected = np.stack([known.shown(port, m) for m in range(machine_steps)], axis=1)
        assert np.array_equal(ran.outputs[port.name], expected), f"{port.name} on {level}\n{case!r}"
        total += expected.size if port.what == "spikes" else 0
    for state in step.states:
        assert np.array_equal(ran.states[state.port.name], known.before(state, machine_steps)), state.port.name
    return total


def main() -> int:
    """Compare until enough is compared."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--neuron-steps", type=float, default=1e7)
    options.add_argument("--seed", type=int, default=0)
    given = options.parse_args()
    begun, total, networks, seed = time.perf_counter(), 0, 0, given.seed
    used: Counter[str] = Counter()
    while total < given.neuron_steps:
        draw = Random(seed)
        case = fixed_case(draw, delays=seed % 2 == 1, steps=STEPS, samples=SAMPLES, populations=6)
        case = pooled(case, draw) if seed % 3 == 1 else case
        case = softened(case, draw) if seed % 3 else case
        total += compared(case, TARGETS[seed // 4 % len(TARGETS)], onnxruntime.LEVELS[seed % 4], used)
        networks, seed = networks + 1, seed + 1
        if networks % 50 == 0:
            print(f"{networks} networks, {total:,} neuron-steps", flush=True)
    seconds = time.perf_counter() - begun
    print(f"{networks} networks, {total:,} neuron-steps, 0 mismatches, states included; {seconds:.0f} s")
    print("operations: " + ", ".join(f"{kind} {count}" for kind, count in sorted(used.items())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
