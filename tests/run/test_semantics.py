"""Every word of the integer semantics on the compiled engine, for every sheet: run there, not handed on, and exact.

Each word is a network, and the same network without what the word names, which must leave something else: a word that
makes no difference would prove nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from math import prod
from typing import Any, Literal

import numpy as np
import pytest

from snncompile.fixed import FixedPoint
from snncompile.ir.graph import Edge, Graph
from snncompile.ir.ops import By, Conv, Dense, Input, Neuron, Op, Output, Pool, Readout, Scale, To
from snncompile.ir.signals import Count, Fixed, Signal, Signed, Spike
from snncompile.run import cpu, integer
from snncompile.run.cpu import Simulator
from snncompile.run.numpy_layers import Layers
from snncompile.run.trace import first_divergence
from snncompile.target import Target

Array = np.ndarray[Any, np.dtype[Any]]
SHEETS = ("loihi", "loihi-custom", "loihi1", "onnx")
MAP = (3, 6, 6)
STEPS, SAMPLES = 7, 3
number = FixedPoint.number


@dataclass(frozen=True)
class Ran:
    """What is run, and on what."""

    graph: Graph
    stimulus: dict[str, Array]
    target: Target


Word = Callable[[Target], tuple[Ran, Ran]]
WORDS: dict[str, Word] = {}


def word(name: str) -> Callable[[Word], Word]:
    def add(made: Word) -> Word:
        WORDS[name] = made
        return made

    return add


def lif(shape: tuple[int, ...], **changed: Any) -> Neuron:
    """Forgets half of its potential, all of its current."""
    given = {"alpha": number(4096, -12), "beta": number(2048, -12), "threshold": number(60), "reset": To(number(0))}
    return Neuron(shape, **given | {"bias": number(0), "initial": number(0)} | changed)


def weights(*shape: int, most: int = 40, seed: int = 1) -> FixedPoint:
    return FixedPoint(2 * np.random.default_rng(seed).integers(-most, most + 10, shape))


def shown(signal: Signal, shape: tuple[int, ...], share: float = 0.5) -> Array:
    least, most = {Spike: (0, 1), Signed: (-1, 1), Count: (0, 3), Fixed: (-99, 99)}[type(signal)]
    draw = np.random.default_rng(2)
    values = draw.integers(least, most + 1, (SAMPLES, STEPS, *shape))
    return values * (draw.random(values.shape) < share)


def chain(*ops: Op, signal: Signal | None = None, shape: tuple[int, ...] = (9,)) -> Graph:
    """Input -> ops -> output, each called after its place."""
    nodes: dict[str, Op] = {"input": Input(shape, signal or Spike())}
    nodes |= {f"n{at}": op for at, op in enumerate(ops)} | {"output": Output()}
    return Graph(nodes, [Edge(*ends) for ends in pairwise(nodes)])


def readout(**changed: Any) -> Readout:
    return Readout((4,), **{"kind": "sum", "bias": number(0)} | changed)


def layers(most: int = 40, **neuron: Any) -> Graph:
    """Two populations and a read-out; the first has what is changed."""
    first, second = Dense(weights(70, 9, most=most)), Dense(weights(6, 70, seed=3))
    last = Dense(weights(4, 6, seed=4))
    return chain(first, lif((70,), **neuron), second, lif((6,)), last, readout())


def ran(target: Target, graph: Graph, **inputs: Array) -> Ran:
    every = {name: op for name in graph.names(Input) if isinstance(op := graph.nodes[name], Input)}
    return Ran(graph, {name: inputs.get(name, shown(op.signal, op.shape)) for name, op in every.items()}, target)


def of_neurons(with_: dict[str, Any], without: dict[str, Any], most: int = 40) -> Word:
    return lambda target: (ran(target, layers(most, **with_)), ran(target, layers(most, **without)))


KEEPS = {"alpha": number(0, -12), "beta": number(0, -12), "threshold": number(100_000)}


@word("wrap")
def wrap(target: Target) -> tuple[Ran, Ran]:
    """Of the current: what is kept of it grows beyond the register."""
    graph = layers(60_000 << target.current.bits - 24, **KEEPS)
    sheets = [replace(target, current=replace(target.current, overflow=how)) for how in ("wrap", "saturate")]
    return ran(sheets[0], graph), ran(sheets[1], graph)


@word("saturate")
def saturate(target: Target) -> tuple[Ran, Ran]:
    """Of the potential, which nothing resets."""
    graph = layers(15_000 << target.potential.bits - 24, **KEEPS | {"alpha": number(4096, -12)})
    sheets = [replace(target, potential=replace(target.potential, overflow=how)) for how in ("saturate", "wrap")]
    return ran(sheets[0], graph), ran(sheets[1], graph)


@word("truncation")
def truncation(target: Target) -> tuple[Ran, Ran]:
    graph = layers(beta=number(777, -12), alpha=number(1234, -12))
    sheets = [replace(target, decay=replace(target.decay, rounding=how)) for how in ("toward-zero", "floor")]
    return ran(sheets[0], graph), ran(sheets[1], graph)


CHANNELS = np.random.default_rng(5).integers(1, 4096, 70)
WORDS |= {
    "hard reset": of_neurons({"reset": To(number(-7))}, {"reset": By(number(60))}),
    "soft reset": of_neurons({"reset": By(number(45))}, {"reset": To(number(0))}),
    ">": of_neurons({"fires": ">"}, {"fires": ">="}),
    ">=": of_neurons({"fires": ">="}, {"fires": ">"}),
    "per-channel thresholds": of_neurons({"threshold": FixedPoint(CHANNELS // 40)}, {}),
    "per-channel decays": of_neurons(
        {"alpha": FixedPoint(CHANNELS, -12), "beta": FixedPoint(CHANNELS[::-1].copy(), -12)},
        {"alpha": number(2048, -12)},
    ),
    "per-channel resets and starts": of_neurons(
        {"reset": To(FixedPoint(-CHANNELS, -6)), "initial": FixedPoint(CHANNELS, -6)}, {}
    ),
    "synaptic current": of_neurons({"alpha": number(1000, -12)}, {}),
    "biases": of_neurons({"bias": FixedPoint(CHANNELS, -6)}, {}),
}


@word("delays")
def delays(target: Target) -> tuple[Ran, Ran]:
    graph = layers()
    late = [replace(edge, delay=2) if edge.source in ("n1", "input") else edge for edge in graph.edges]
    return ran(target, Graph(graph.nodes, late)), ran(target, graph)


@word("phases")
def phases(target: Target) -> tuple[Ran, Ran]:
    """Of a timed graph, where every synapse takes a step; and one of them more than that."""
    graph, phase = layers(bias=FixedPoint(CHANNELS, -6)), {"n1": 1, "n3": 2, "n5": 3}
    nodes = {name: replace(op, phase=phase[name]) if name in phase else op for name, op in graph.nodes.items()}  # type: ignore[call-overload]
    timed = [replace(edge, delay=1) if edge.target in phase else edge for edge in graph.edges]
    later = [replace(edge, delay=2) if edge.target == "n3" else edge for edge in timed]
    return ran(target, Graph(nodes, later)), ran(target, Graph(nodes, timed))


@word("feedback")
def feedback(target: Target) -> tuple[Ran, Ran]:
    graph = layers()
    nodes: dict[str, Op] = {**graph.nodes, "back": Dense(weights(70, 6, seed=6)), "own": Scale(weights(70, seed=7))}
    ends = (("n3", "back", 1), ("back", "n1", 0), ("n1", "own", 2), ("own", "n1", 0))
    return ran(target, Graph(nodes, [*graph.edges, *(Edge(*end) for end in ends)])), ran(target, graph)


def of_signal(signal: Signal, other: Callable[[Array], Array]) -> Word:
    def made(target: Target) -> tuple[Ran, Ran]:
        graph, x = chain(*(layers().nodes[f"n{at}"] for at in range(6)), signal=signal), shown(signal, (9,))
        return ran(target, graph, input=x), ran(target, graph, input=other(x))

    return made


WORDS["graded counts"] = of_signal(Count(3), lambda x: np.minimum(x, 1))
WORDS["graded integers"] = of_signal(Fixed(8), np.abs)
WORDS["ternary spikes"] = of_signal(Signed(), np.abs)


def maps(*between: Op, last: tuple[int, ...], threshold: int = 60) -> Graph:
    """Spikes of a map -> a population -> what is between -> a population of the shape ``last`` -> read-out."""
    first = Conv(weights(5, 3, 3, 3), None, (1, 1), (1, 1))
    end = Dense(weights(4, prod(last), seed=8)), readout()
    return chain(first, lif((5, 6, 6)), *between, lif(last, threshold=number(threshold)), *end, shape=MAP)


def kernel(out: int, inward: int, *, groups: int = 1, seed: int = 9, **how: Any) -> Conv:
    given = {"stride": (1, 1), "padding": (1, 1), "groups": groups} | how
    return Conv(weights(out, inward // groups, 3, 3, seed=seed), None, **given)


def pools(kind: Literal["sum", "max"]) -> list[Graph]:
    """Before a convolution, a dense layer, a factor, nothing; windows that overlap, borders."""
    plain, over = Pool(kind, (2, 2), (2, 2)), Pool(kind, (3, 2), (2, 1), (1, 0))
    return [
        maps(plain, kernel(6, 5), last=(6, 3, 3)),
        maps(over, kernel(6, 5), last=(6, 3, 5)),
        maps(plain, Dense(weights(7, 45)), last=(7,)),
        maps(plain, Scale(number(31)), last=(5, 3, 3)),
        maps(over, Scale(weights(5, 1, 1)), last=(5, 3, 5)),
        maps(plain, last=(5, 3, 3), threshold=1),
    ]


@pytest.mark.parametrize("at", range(6))
@pytest.mark.parametrize("sheet", SHEETS)
def test_sum_pools(sheet: str, at: int) -> None:
    target = Target.load(sheet)
    holds(ran(target, pools("sum")[at]), ran(target, pools("max")[at]))


@pytest.mark.parametrize("at", range(6))
@pytest.mark.parametrize("sheet", SHEETS)
def test_maxima_of_spikes(sheet: str, at: int) -> None:
    target = Target.load(sheet)
    holds(ran(target, pools("max")[at]), ran(target, pools("sum")[at]))


def test_a_pool_in_front_of_a_large_population_is_no_matrix() -> None:
    """Its matrix would have a thousand million numbers."""
    graph = chain(Pool("sum", (2, 2), (2, 2)), lif((64, 32, 32), threshold=number(1)), shape=(64, 64, 64))
    x = np.random.default_rng(1).random((1, 2, 64, 64, 64)) < 0.3
    holds(Ran(graph, {"input": x}, Target.load("loihi")), None)


@word("residual fan-ins")
def residual(target: Target) -> tuple[Ran, Ran]:
    """An identity beside a convolution, and a convolution that reads the sum of two populations."""
    graph = maps(kernel(5, 5), last=(5, 6, 6))
    nodes: dict[str, Op] = {"again": kernel(5, 5, seed=10), "sum": lif((5, 6, 6)), **graph.nodes}
    ends = (("n1", "n3"), ("n1", "again"), ("n3", "again"), ("again", "sum"), ("sum", "n4"))
    return ran(target, Graph(nodes, [*graph.edges, *(Edge(*end) for end in ends)])), ran(target, graph)


def of_maps(one: tuple[Conv, tuple[int, ...]], other: tuple[Conv, tuple[int, ...]]) -> Word:
    return lambda target: (ran(target, maps(one[0], last=one[1])), ran(target, maps(other[0], last=other[1])))


PLAIN = kernel(10, 5), (10, 6, 6)
WORDS["grouped convolution"] = of_maps((kernel(10, 5, groups=5), (10, 6, 6)), PLAIN)
WORDS["strided convolution"] = of_maps((kernel(10, 5, stride=(2, 3)), (10, 3, 2)), PLAIN)
WORDS["dilated convolution"] = of_maps((kernel(10, 5, dilation=(2, 1), padding=(2, 1)), (10, 6, 6)), PLAIN)
WORDS["transposed convolution"] = of_maps((kernel(10, 5, spread=(2, 3)), (10, 12, 18)), PLAIN)


@word("transposed convolution of graded integers")
def transposed(target: Target) -> tuple[Ran, Ran]:
    graphs = [
        chain(
            kernel(5, 3, **how),
            lif((5, *size)),
            Dense(weights(4, 5 * prod(size))),
            readout(),
            signal=Fixed(8),
            shape=MAP,
        )
        for how, size in (({"spread": (2, 2)}, (12, 12)), ({}, (6, 6)))
    ]
    return ran(target, graphs[0]), ran(target, graphs[1])


def test_a_transposed_convolution_between_large_maps_is_no_matrix() -> None:
    """As in feedback from a small map to a large one; here behind a pool, and in groups."""
    conv = Conv(weights(16, 8, 5, 4, most=3), None, (1, 1), (2, 2), (1, 1), 2, (2, 3))
    graph = chain(Pool("sum", (2, 2), (2, 2)), conv, lif((16, 32, 49)), shape=(16, 32, 32))
    x = np.random.default_rng(1).random((2, 3, 16, 32, 32)) < 0.2
    holds(Ran(graph, {"input": x}, Target.load("onnx")), None)


def of_readouts(one: dict[str, Any], other: dict[str, Any]) -> Word:
    def graph(given: dict[str, Any]) -> Graph:
        made = layers()
        return Graph({**made.nodes, "n5": readout(**given)}, made.edges)

    return lambda target: (ran(target, graph(one)), ran(target, graph(other)))


WORDS["read-outs with a bias"] = of_readouts({"bias": FixedPoint(np.array([3, -5, 0, 9]), -6)}, {})
WORDS["read-outs that leak"] = of_readouts({"kind": "weighted", "decay": 0.75}, {})
WORDS["read-outs of the last step"] = of_readouts({"kind": "last", "decay": 0.0}, {})


def holds(one: Ran, other: Ran | None) -> None:
    """Every instruction set runs it itself and leaves what ``integer`` leaves; without the word that is something
    else.
    """
    expected = integer.run(one.graph, one.stimulus, one.target)
    every = one.graph.names(Neuron, Readout)
    assert all(array.any() for array in expected.spikes.values()), "silent"
    if other is not None:
        without = integer.run(other.graph, other.stimulus, other.target)
        assert any(
            without.potentials[name].shape != expected.potentials[name].shape
            or (without.potentials[name] != expected.potentials[name]).any()
            for name in set(every) & set(without.potentials)
        ), "it makes no difference"
    counted = Layers(one.graph, one.target).run(one.stimulus).meta
    for kernels in cpu.KERNELS:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(cpu.KERNELS_VARIABLE, kernels)
            simulator = Simulator(one.graph, one.target, threads=1)
            found = simulator.run(one.stimulus)
        assert simulator.uncarried == ""
        assert simulator.engine == f"the compiled engine ({kernels}, 1 thread)"
        different = first_divergence(found, expected, every)
        assert different is None, f"{kernels}: {different}"
        assert found.meta == counted


@pytest.mark.skipif(not cpu.KERNELS, reason="the compiled engine was not built")
@pytest.mark.parametrize("sheet", SHEETS)
@pytest.mark.parametrize("name", WORDS)
def test_it_is_run_by_the_compiled_engine(name: str, sheet: str) -> None:
    holds(*WORDS[name](Target.load(sheet)))
