"""What goes wrong in the middle of a run is an error like every other, with one thread and with several."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import threading
from typing import Any

import numpy as np
import pytest

from snncompile.errors import ToolError
from snncompile.fixed import FixedPoint
from snncompile.ir.graph import Edge, Graph
from snncompile.ir.ops import Conv, Dense, Input, Neuron, Op, Output, Pool, To
from snncompile.ir.signals import Spike
from snncompile.run import compiled, cpu, integer
from snncompile.run.cpu import Simulator
from snncompile.target import Target

TARGET = Target.load("onnx")
number = FixedPoint.number
pytestmark = pytest.mark.skipif(not cpu.KERNELS, reason="the compiled engine was not built")


def lif(shape: tuple[int, ...]) -> Neuron:
    one, half = number(4096, -12), number(2048, -12)
    return Neuron(shape, one, half, number(0), number(0), reset=To(number(0)), initial=number(0))


def chain(**nodes: Op) -> Graph:
    names = list(nodes)
    return Graph(nodes, tuple(map(Edge, names, names[1:])))


def everywhere(*shape: int) -> np.ndarray[Any, Any]:
    """Spikes of every neuron at every step but the first: what is the same at all would be no list of events."""
    x = np.ones(shape, dtype=np.bool_)
    x[:, 0] = False
    return x


def wide(size: int, window: int) -> Graph:
    """Every spike is in so many windows of a pool: lists of events far larger than what is given."""
    return chain(
        input=Input((1, size, size), Spike()),
        pool=Pool("sum", (window, window), (1, 1), (window // 2, window // 2)),
        conv=Conv(FixedPoint(np.ones((1, 1, 1, 1), dtype=np.int64)), None, (1, 1), (0, 0)),
        lif=lif((1, size, size)),
        output=Output(),
    )


@pytest.mark.parametrize("threads", [1, 3])
def test_no_memory_is_an_error_and_the_next_run_is_whole(threads: int) -> None:
    """In a process of its own, which may hold little more than it does before the run."""
    words = [sys.executable, __file__, "memory", str(threads)]
    found = subprocess.run(words, capture_output=True, text=True, timeout=300, env=os.environ | {"PYTHONPATH": "."})
    assert found.returncode == 0, found.stderr
    said, after = found.stdout.splitlines()
    assert "the memory of this machine does not hold it" in said
    assert after == "equal"


def short_of_memory(threads: int) -> None:
    compiled.PRODUCTS = 0.0  # never: products have no lists
    simulator = Simulator(graph := wide(9, 3), TARGET, threads)
    small = {"input": np.random.default_rng(0).random((4, 2, 1, 9, 9)) < 0.5}
    simulator.run(small)
    large = Simulator(wide(250, 9), TARGET, threads)
    stimulus = {"input": everywhere(64, 10, 1, 250, 250)}  # ten thousand million bytes of lists
    with open("/proc/self/statm", encoding="ascii") as file:
        held = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + (1 << 29), resource.RLIM_INFINITY))
    try:
        large.run(stimulus, keep=())
    except ToolError as error:
        print(error)
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    few = {"input": stimulus["input"][:1, :1]}
    found, expected = large.run(few, keep=("lif",)), integer.run(large.graph, few, TARGET)
    whole = np.array_equal(found.potentials["lif"], expected.potentials["lif"])
    again, first = simulator.run(small), integer.run(graph, small, TARGET)
    print("equal" if whole and np.array_equal(again.spikes["lif"], first.spikes["lif"]) else "different")


def long_layers() -> tuple[Graph, np.ndarray[Any, Any]]:
    """One batch of one sample, whose first layer alone takes many seconds."""
    weights = FixedPoint(np.full((512, 64, 5, 5), 3, dtype=np.int64))
    graph = chain(
        input=Input((64, 64, 64), Spike()),
        conv=Conv(weights, None, (1, 1), (2, 2)),
        lif=lif((512, 64, 64)),
        dense=Dense(FixedPoint(np.ones((1, 512 * 64 * 64), dtype=np.int64))),
        last=lif((1,)),
        output=Output(),
    )
    return graph, everywhere(1, 150, 64, 64, 64)


def long_loop() -> tuple[Graph, np.ndarray[Any, Any]]:
    """One sample of very many steps that go one by one."""
    full = FixedPoint(np.full((2048, 2048), 3, dtype=np.int64))
    nodes: dict[str, Op] = {
        "input": Input((2048,), Spike()),
        "dense": Dense(full),
        "lif": lif((2048,)),
        "back": Dense(full),
        "output": Output(),
    }
    ends = (("input", "dense", 0), ("dense", "lif", 0), ("lif", "back", 1), ("back", "lif", 0), ("lif", "output", 0))
    return Graph(nodes, tuple(Edge(*end) for end in ends)), everywhere(1, 20_000, 2048)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("long", [long_layers, long_loop])
def test_an_interrupt_ends_a_batch_that_runs(long: Any, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    graph, x = long()
    simulator = Simulator(graph, TARGET, threads)
    simulator.run({"input": x[:, :1]}, keep=())
    stop = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    batch = compiled._Ready._batch

    def last_before_the_engine(ready: compiled._Ready, samples: int, threads: int) -> int:
        stop.start()
        return batch(ready, samples, threads)

    monkeypatch.setattr(compiled._Ready, "_batch", last_before_the_engine)
    with pytest.raises(KeyboardInterrupt):
        simulator.run({"input": x}, keep=())
    stop.join()
    neurons = graph.nodes[graph.names(Neuron)[-1]].shape
    all_of_them = (x.shape[1] - 1) * int(np.prod(neurons))  # but at the first step, which shows nothing
    fired = simulator._compiled._ready[1].engine.fired  # empty, should the signal have come before the first step
    assert sum(fired[-1:]) < all_of_them, "it went on to the end"
    few = {"input": x[:, :2]}
    monkeypatch.undo()
    if long is long_loop:
        found, expected = simulator.run(few), integer.run(graph, few, TARGET)
        np.testing.assert_array_equal(found.potentials["lif"], expected.potentials["lif"])


if __name__ == "__main__":
    short_of_memory(int(sys.argv[2]))
