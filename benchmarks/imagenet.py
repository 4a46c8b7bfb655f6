"""SEW-ResNet-34 and Spiking-ResNet-34 at the size of ImageNet: compiled, placed, proven on the integer rungs.

    python benchmarks/imagenet.py [sew] [spiking] [--size 224] [--steps 4] [--blocks 3,4,6,3]

The networks of Fang et al., "Deep Residual Learning in Spiking Neural Networks", NeurIPS 2021 (ADD), and the one it is
compared with, written down as graphs: a 7x7 convolution with stride 2, a maximum of 3x3 over spikes, four stages of
basic blocks, an average, 1000 classes; integrate-and-fire neurons, four steps. Weights are random, every batch norm
holds the statistics of what arrives at it, so that neurons fire as in a trained network; the image is random. Printed
are seconds of computing and peak memory behind each stage, and the ladder.
"""

from __future__ import annotations

import argparse
import resource
import time
from dataclasses import replace

import numpy as np

from snncompile.commands.verify import rung_rows
from snncompile.compile import compile_graph
from snncompile.ir.graph import Edge, Graph
from snncompile.ir.ops import (
    Conv,
    Dense,
    Flatten,
    Input,
    Neuron,
    Norm,
    Op,
    Output,
    Pool,
    Readout,
    number,
)
from snncompile.passes.place import chips_of
from snncompile.run.reference import apply_linear
from snncompile.run.trace import Array
from snncompile.target import Target
from snncompile.verify import Ladder

GAIN, SHIFT = 0.6, 0.0  # of every norm: some ten in a hundred neurons then fire


class Builder:
    """A graph that grows layer by layer."""

    def __init__(self, size: int) -> None:
        self.nodes: dict[str, Op] = {"image": Input((3, size, size))}
        self.edges: list[Edge] = []
        self.numbers = np.random.default_rng(1)

    def add(self, name: str, op: Op, *sources: str) -> str:
        """A node that reads the sum of its sources."""
        self.nodes[name] = op
        self.edges += [Edge(source, name) for source in sources]
        return name

    def conv(self, name: str, inward: int, out: int, kernel: int, stride: int, *sources: str) -> str:
        """A convolution without bias, and its norm."""
        weight = self.numbers.standard_normal((out, inward, kernel, kernel)) / np.sqrt(inward * kernel**2)
        half = (kernel // 2, kernel // 2)
        self.add(name, Conv(weight, None, (stride, stride), half), *sources)
        zeros, ones = np.zeros(out), np.ones(out)
        return self.add(f"{name}_norm", Norm(zeros, ones, GAIN * ones, SHIFT + zeros), name)

    def fire(self, name: str, shape: tuple[int, ...], *sources: str) -> str:
        """Integrate-and-fire neurons."""
        return self.add(name, Neuron(shape, threshold=number(1.0), fires=">="), *sources)


def resnet(kind: str, size: int, blocks: list[int]) -> Graph:
    """``kind``: ``sew`` adds spikes behind the neurons, ``spiking`` currents before them."""
    made, side = Builder(size), -(-size // 2)
    stem = made.conv("stem", 3, 64, 7, 2, "image")
    made.fire("stem_lif", (64, side, side), stem)
    made.add("pool", Pool("max", (3, 3), (2, 2), (1, 1)), "stem_lif")
    side, inward = -(-side // 2), 64
    terms = ["pool"]  # what is added up to make the input of the next block
    for stage, count in enumerate(blocks):
        out = 64 * 2**stage
        for index in range(count):
            name, stride = f"s{stage + 1}b{index + 1}", 2 if stage and not index else 1
            side = -(-side // stride)
            shape = (out, side, side)
            first = made.fire(f"{name}_lif1", shape, made.conv(f"{name}_conv1", inward, out, 3, stride, *terms))
            second = made.conv(f"{name}_conv2", out, out, 3, 1, first)
            skip = terms
            if stride > 1 or inward != out:
                skip = [made.conv(f"{name}_down", inward, out, 1, stride, *terms)]
            if kind == "sew":
                if skip is not terms:
                    skip = [made.fire(f"{name}_lif3", shape, *skip)]
                terms = [*skip, made.fire(f"{name}_lif2", shape, second)]
            else:
                terms = [made.fire(f"{name}_lif2", shape, second, *skip)]
            inward = out
    made.add("average", Pool("mean", (side, side), (side, side)), *terms)
    made.add("flat", Flatten(), "average")
    made.add("classes", Dense(made.numbers.standard_normal((1000, inward)) / np.sqrt(inward)), "flat")
    made.add("answer", Readout((1000,)), "classes")
    made.add("out", Output(), "answer")
    return Graph(made.nodes, made.edges)


def with_statistics(graph: Graph, image: Array, steps: int) -> tuple[Graph, float]:
    """Every norm with mean and variance of what arrives at it; and the share of neurons that fire a step."""
    sent: dict[str, Array] = {"image": np.broadcast_to(image, (steps, *image.shape))}
    readers = {name: len(graph.out_of(name)) for name in graph.nodes}
    fired = neurons = 0
    for name in graph.order:
        op = graph.nodes[name]
        if isinstance(op, Input):
            continue
        x = np.asarray(sum(sent[edge.source] for edge in graph.into(name)))
        for edge in graph.into(name):
            readers[edge.source] -= 1
            if not readers[edge.source]:
                del sent[edge.source]
        match op:
            case Norm():
                mean, variance = x.mean(axis=(0, 2, 3)), x.var(axis=(0, 2, 3))
                graph = graph.edit({name: replace(op, mean=mean, variance=variance)})
                sent[name] = apply_linear(graph, name, x)
            case Neuron():
                spikes, v = np.zeros(x.shape, dtype=bool), np.zeros(x.shape[1:])
                for step in range(steps):
                    v = v + x[step]
                    spikes[step] = v >= 1.0
                    v = np.where(spikes[step], 0.0, v)
                fired, neurons = fired + int(spikes.sum()), neurons + spikes.size
                sent[name] = spikes.astype(np.float64)
            case Readout() | Output():
                sent[name] = x
            case _:
                sent[name] = apply_linear(graph, name, x)
    return graph, fired / neurons


def smooth(size: int) -> Array:
    """A random image [3, size, size] with structure at several scales."""
    numbers = np.random.default_rng(2)
    image = np.zeros((3, size, size))
    for cell in (size // 7, size // 28, 1):
        coarse = numbers.standard_normal((3, -(-size // cell), -(-size // cell)))
        image += np.kron(coarse, np.ones((1, cell, cell)))[:, :size, :size]
    return image


def main() -> None:
    """A ladder for each network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", default=["sew", "spiking"], metavar="sew|spiking")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--blocks", default="3,4,6,3")
    options = parser.parse_args()
    target = Target.load("loihi")
    for kind in options.kinds:
        image = smooth(options.size)
        blocks = [int(count) for count in options.blocks.split(",")]
        graph, rate = with_statistics(resnet(kind, options.size, blocks), image, options.steps)
        neurons = sum(int(np.prod(op.shape)) for op in graph.nodes.values() if isinstance(op, Neuron))
        print(f"{kind}: {neurons:,} neurons, {rate:.1%} of them fire a step", flush=True)
        begun, clock = time.process_time(), time.perf_counter()

        def log(line: str, begun: float = begun) -> None:
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            print(f"  {time.process_time() - begun:7.1f} s {peak:7.0f} MiB  {line[:160]}", flush=True)

        frames = np.broadcast_to(image, (1, options.steps, *image.shape))
        compiled = compile_graph(graph, target, {"image": frames}, log)
        lies = chips_of(compiled.levels["placed"], target)
        print(f"{kind}: {lies.cores:,} cores on {lies.chips} chips, board {lies.board.name}", flush=True)
        rungs = []
        for rung in Ladder(compiled, image[None], None, None).rungs(with_lava=False):
            rung.demand()
            log(f"rung {rung.number} {rung.level}: {rung.verdict}")
            rungs.append(vars(rung) | {"rung": rung.number})
        print(rung_rows(rungs))
        computing, passed = time.process_time() - begun, time.perf_counter() - clock
        print(f"{kind}: {computing:.0f} s of computing, {passed:.0f} s by the clock\n", flush=True)


if __name__ == "__main__":
    main()
