"""The estimate of `place` against what Intel's compiler printed: words, axons and cores, layer by layer.

    python benchmarks/placement.py

The tables are those that lava-nc/lava-dl keeps in tutorials/lava/lib/dl/netx: mnist/run.ipynb, oxford/run.ipynb,
pilotnet_snn/benchmark.ipynb, pilotnet_sdnn/benchmark.ipynb and yolo_kp/run.ipynb. Shapes, and how large and how dense
the weights are, are those of the .net files beside the notebooks; other weights of that size stand in for them here.
The weights of YOLO-KP are not in the repository: five bits are assumed. The logs of mnist and yolo_kp count shares of
16000 words, the others print 12000.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

import numpy as np

from snncompile.fixed import FixedPoint
from snncompile.ir.graph import Edge, Graph
from snncompile.ir.ops import Conv, Dense, Input, Neuron, Op, Output, Slice, To
from snncompile.ir.shapes import shape_of
from snncompile.ir.signals import Spike
from snncompile.passes.place import place
from snncompile.passes.storage import Net, use
from snncompile.report.table import table
from snncompile.target import Target


@dataclass(frozen=True)
class Layer:
    """A layer and what was printed of it: cores, neurons, words and axons a core (None: the log does not tell)."""

    op: str  # "dense" or "conv"
    out: int
    largest: int  # weight, in units of the sheet's step of 2
    cores: int
    neurons: int
    words: int
    axons_in: int | None
    axons_out: int | None = None
    dense: float = 1.0  # share of weights that are not zero
    kernel: int = 3
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class Network:
    """A network whose compile log is published; images are [channels, x, y]."""

    name: str
    words: int  # of a core, as the log counts
    input: tuple[int, ...]
    layers: tuple[Layer, ...]


def _pilotnet(name: str, largest: tuple[int, ...], words: tuple[int, ...], sparse: float) -> Network:
    """PilotNet with spiking (``snn``) or sigma-delta (``sdnn``) neurons."""
    two = (2, 2)
    return Network(
        name,
        12000,
        (3, 200, 66),
        (
            Layer("conv", 24, largest[0], 25, 3072, words[0], 2, 253, stride=two),
            Layer("conv", 36, largest[1], 13, 2160, words[1], 2, 113, stride=two),
            Layer("conv", 48, largest[2], 3, 2688, words[2], 2, 112, stride=two),
            Layer("conv", 64, largest[3], 3, 2048, words[3], 1, 29, stride=(1, 2), padding=(0, 1)),
            Layer("conv", 64, largest[4], 2, 2048, words[4], 1, 1280),
            Layer("dense", 100, largest[5], 12, 8, words[5], 2560, 8, sparse),
            Layer("dense", 50, largest[6], 1, 50, words[6], 100, 50),
            Layer("dense", 10, largest[7], 1, 10, words[7], 50, 10),
        ),
    )


def _yolo() -> Network:
    """Words and axons are shares of 16000, cores those of the log."""
    down, same = {"stride": (2, 2), "padding": (1, 1)}, {"padding": (1, 1)}
    rows = (
        (16, 224, 54, 224, 3, down),
        (32, 112, 576, 112, 3, down),
        (64, 56, 1728, 56, 3, down),
        (128, 28, 6336, 28, 3, down),
        (256, 56, 12672, 28, 3, same),
        (256, 16, 11520, 56, 3, down),
        (512, 32, 13824, 56, 3, same),
        (256, 14, 10752, 14, 1, {}),
        (512, 32, 13824, 56, 3, same),
    )
    layers = [
        Layer("conv", out, 15, cores, 3584, words, 1, axons, kernel=k, **how)
        for out, cores, words, axons, k, how in rows
    ]
    head = Layer("conv", 48, 15, 4, 2688, 3072, 1, None, kernel=1)
    return Network("yolo_kp", 16000, (3, 448, 448), (*layers, head))


NETWORKS = (
    Network(
        "mnist",
        16000,
        (784,),
        (
            Layer("dense", 128, 65, 3, 50, 12544, 784, 50, 0.9),
            Layer("dense", 64, 127, 1, 64, 2688, 128, 64, 0.96),
            Layer("dense", 10, 127, 1, 10, 256, 64, 10, 0.9),
        ),
    ),
    Network(
        "oxford",
        12000,
        (200,),
        (
            Layer("dense", 256, 96, 3, 85, 5400, 200, 85, 0.98),
            Layer("dense", 200, 62, 2, 100, 8064, 256, 100, 0.78),
        ),
    ),
    _pilotnet("pilotnet_snn", (9, 5, 4, 4, 4, 3, 6, 11), (81, 864, 1620, 2160, 2880, 7253, 1300, 150), 0.27),
    _pilotnet("pilotnet_sdnn", (17, 10, 7, 8, 6, 6, 17, 8), (81, 864, 1620, 2592, 2880, 7253, 1500, 150), 0.39),
    _yolo(),
)


@dataclass(frozen=True)
class Row:
    """A layer: published and ours."""

    network: str
    layer: str
    published: Layer
    words: int
    axons_in: int
    axons_out: int
    cores: int

    @property
    def error(self) -> float:
        """Of the words a core, relative to what was printed."""
        return self.words / self.published.words - 1


def rows(network: Network) -> list[Row]:
    """Our estimate for the slices that were printed, and the cores that `place` takes for the whole."""
    graph = as_graph(network)
    loihi = Target.load("loihi")
    target = replace(loihi, core=replace(loihi.core, synaptic_words=network.words))
    net = Net.of(graph, target)
    placed = place(graph, target).graph
    found = []
    for index, layer in enumerate(network.layers):
        name = f"n{index + 1}"
        op = placed.nodes[name]
        assert isinstance(op, Neuron)
        blocks = layer.op == "conv" and op.shape[0] > channels_of(layer, op)
        part = Slice(0, 0, layer.neurons, 0, channels_of(layer, op) if blocks else 0)
        need = use(net, name, part)
        label = f"{layer.op} {'x'.join(map(str, op.shape))}"
        found.append(Row(network.name, label, layer, need.synaptic_words, need.axons_in, need.axons_out, len(op.cores)))
    return found


def channels_of(layer: Layer, op: Neuron) -> int:
    """The channels of a printed tile: all, or the block that the cores tell."""
    if layer.op == "dense":
        return layer.out
    tiles = -(-prod(op.shape[1:]) * layer.out // layer.neurons)
    blocks = {(256, 56): 2, (256, 16): 4, (512, 32): 8}.get((layer.out, layer.cores), 1)
    assert tiles <= layer.cores
    return layer.out // blocks


def as_graph(network: Network) -> Graph:
    """The network with other weights of the same size and density."""
    numbers = np.random.default_rng(1)
    nodes: dict[str, Op] = {"x": Input(network.input, Spike())}
    edges: list[Edge] = []
    last, shape = "x", network.input
    for index, layer in enumerate(network.layers):
        inward = (prod(shape),) if layer.op == "dense" else (shape[0], layer.kernel, layer.kernel)
        weight = 2 * numbers.integers(-layer.largest, layer.largest + 1, (layer.out, *inward))
        weight[numbers.random(weight.shape) >= layer.dense] = 0
        weight[0].flat[0] = 2 * layer.largest
        values = FixedPoint(weight)
        op: Op = Dense(values) if layer.op == "dense" else Conv(values, None, layer.stride, layer.padding)
        shape = shape_of("layer", op, shape)
        name = f"n{index + 1}"
        nodes |= {f"w{index + 1}": op, name: population(shape)}
        edges += [Edge(last, f"w{index + 1}", 1), Edge(f"w{index + 1}", name)]
        last = name
    nodes["out"] = Output()
    return Graph(nodes, [*edges, Edge(last, "out")])


def population(shape: tuple[int, ...]) -> Neuron:
    """Neurons whose parameters play no part here."""
    zero, one = FixedPoint.number(0), FixedPoint.number(1)
    return Neuron(
        shape, FixedPoint.number(4096, -12), FixedPoint.number(1, -12), one, zero, reset=To(zero), initial=zero
    )


def main() -> None:
    """Print the table and the error."""
    every = [row for network in NETWORKS for row in rows(network)]
    lines = []
    for row in every:
        said = row.published
        lines.append(
            [
                row.network,
                row.layer,
                f"{said.words:,}",
                f"{row.words:,}",
                f"{row.error:+.1%}",
                *(
                    f"{'-' if one is None else one} {other}"
                    for one, other in ((said.axons_in, row.axons_in), (said.axons_out, row.axons_out))
                ),
                f"{said.cores} {row.cores}",
            ]
        )
    headers = ["network", "layer", "words", "ours", "error", "axons in, ours", "axons out, ours", "cores, ours"]
    print(table(headers, lines, right={2, 3, 4, 5, 6, 7}))
    errors = np.abs([row.error for row in every])
    print(
        f"\nwords a core: {np.mean(errors == 0):.0%} of {len(every)} layers exact, mean error {errors.mean():.1%}, "
        f"largest {errors.max():.1%}"
    )
    for network in NETWORKS:
        taken = [(row.published.cores, row.cores) for row in every if row.network == network.name]
        print(f"{network.name}: {sum(one for one, _ in taken)} cores, ours {sum(other for _, other in taken)}")


if __name__ == "__main__":
    main()
