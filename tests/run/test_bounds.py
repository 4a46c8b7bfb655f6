"""The bounds hold: random networks in float32, summed in random order, against float64, both on the same spikes."""

from __future__ import annotations

from dataclasses import fields, replace
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snncompile.ir.graph import Edge, Graph
from snncompile.ir.ops import (
    By,
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
    Scale,
    To,
    number,
    real,
)
from snncompile.ir.shapes import shapes
from snncompile.ir.signals import Analog
from snncompile.run import reference
from snncompile.run.bounds import FLOAT32, FLOAT64, bounds
from snncompile.run.linear import conv
from snncompile.run.trace import Trace
from tests.graphs import Case, read_case

Array = np.ndarray[Any, np.dtype[Any]]
F = np.float32


class Single:
    """A graph in float32: every operation rounded to single precision, every sum in an order of its own."""

    def __init__(self, graph: Graph, seed: int) -> None:
        self.graph, self.extent, self.random = graph, shapes(graph), np.random.default_rng(seed)

    def run(self, stimulus: dict[str, Array], forced: dict[str, Array]) -> dict[str, Array]:
        """Potentials of every population on recorded spikes."""
        sent: dict[str, Array] = {name: values.astype(F) for name, values in stimulus.items()}
        for name in self.graph.names(Neuron):
            op = self.graph.nodes[name]
            assert isinstance(op, Neuron)
            sent[name] = forced[name].astype(F) * F(op.amplitude)
        potentials = {}
        for name in self.graph.order:
            op = self.graph.nodes[name]
            if isinstance(op, Input):
                continue
            parts = [self.late(sent[edge.source], edge.delay) for edge in self.graph.into(name)]
            x = self.total(np.stack(parts, axis=-1))
            if isinstance(op, Neuron):
                potentials[name] = self.neuron(op, x, forced[name])
            elif isinstance(op, Readout):
                sent[name] = potentials[name] = self.readout(op, x)
            else:
                y = self.linear(op, x.reshape(-1, *x.shape[2:]))
                sent[name] = y.reshape(*x.shape[:2], *y.shape[1:])
        return potentials

    def late(self, values: Array, delay: int) -> Array:
        return np.concatenate([np.zeros_like(values[:, :delay]), values[:, : values.shape[1] - delay]], axis=1)

    def total(self, terms: Array) -> Array:
        """The sum over the last axis, term by term in a random order."""
        order = self.random.permutation(terms.shape[-1])
        total = terms[..., order[0]].astype(F)
        for index in order[1:]:
            total = (total + terms[..., index]).astype(F)
        return total

    def linear(self, op: Op, x: Array) -> Array:
        match op:
            case Output():
                return x
            case Flatten():
                return x.reshape(len(x), *(op.shape or (-1,)))
            case Scale():
                return (real(op.factor).astype(F) * x).astype(F)
            case Norm():
                return self.norm(op, x)
            case Dense():
                terms = real(op.weight).astype(F) * x.reshape(len(x), 1, -1)
                return self.biased(self.total(terms), op.bias)
            case Conv():
                return self.biased(self.windows(op, x), op.bias)
            case Pool():
                cells = np.stack(list(self.cells(op, x)), axis=-1)
                if op.kind == "max":
                    return cells.max(axis=-1)
                total = self.total(cells)
                return total / F(np.prod(op.kernel)) if op.kind == "mean" else total
            case _:
                raise AssertionError(op)

    def biased(self, y: Array, bias: Any) -> Array:
        return y if bias is None else y + real(bias).astype(F).reshape(-1, *(1,) * (y.ndim - 2))

    def norm(self, op: Norm, x: Array) -> Array:
        """As torch does it, or as the equation stands."""
        mean, variance, gain, shift = (
            real(value).astype(F).reshape(-1, *(1,) * (x.ndim - 2))
            for value in (op.mean, op.variance, op.gain, op.shift)
        )
        root = np.sqrt(variance + F(op.epsilon))
        if self.random.random() < 0.5:
            scale = gain * (F(1) / root)
            return x * scale + (shift - mean * scale)
        return gain * (x - mean) / root + shift

    def windows(self, op: Conv, x: Array) -> Array:
        """Each weight's product on its own, then their sum."""
        weight = real(op.weight).astype(F)
        parts = []
        for tap in np.ndindex(*weight.shape[1:]):  # a kernel with one tap gives this tap's products, without a sum
            single = np.zeros_like(weight)
            single[(slice(None), *tap)] = weight[(slice(None), *tap)]
            parts.append(conv(x, single, op.stride, op.padding, op.dilation, op.groups, op.spread).astype(F))
        return self.total(np.stack(parts, axis=-1))

    def cells(self, op: Pool, x: Array) -> Any:
        """Each cell of the pooling window on its own."""
        features = x.shape[1]
        for tap in np.ndindex(*op.kernel):
            single = np.zeros((features, 1, *op.kernel), F)
            single[(slice(None), 0, *tap)] = 1
            yield conv(x, single, op.stride, op.padding, (1,) * len(op.kernel), features)

    def neuron(self, op: Neuron, x: Array, fired: Array) -> Array:
        alpha, beta, gain, rest, bias = (real(v).astype(F) for v in (op.alpha, op.beta, op.gain, op.rest, op.bias))
        u = np.zeros_like(x[:, 0])
        w = u + real(op.initial).astype(F)
        v = np.empty_like(x)
        for step in range(x.shape[1]):
            u = (F(1) - alpha) * u + gain * x[:, step]
            v[:, step] = rest + (F(1) - beta) * (w - rest) + u + bias
            s = fired[:, step]
            match op.reset:
                case To(value):
                    w = np.where(s, real(value).astype(F), v[:, step])
                case By(amount):
                    w = v[:, step] - s * real(amount).astype(F)
        assert v.dtype == F
        return v

    def readout(self, op: Readout, x: Array) -> Array:
        total = np.zeros_like(x[:, 0])
        result = np.empty_like(x)
        for step in range(x.shape[1]):
            total = F(op.decay) * total + x[:, step] + real(op.bias).astype(F)
            result[:, step] = total
        assert result.dtype == F
        return result


def rough(case: Case, seed: int) -> Case:
    """The same network with numbers that do round: each parameter times a random factor, on the grid of float32."""
    random = np.random.default_rng(seed)

    def roughened(value: Any) -> Any:
        array = real(value)
        return (array * random.uniform(0.7, 1.4, array.shape)).astype(F).astype(np.float64)

    nodes: dict[str, Op] = {}
    for name, op in case.graph.nodes.items():
        changes: dict[str, Any] = {}
        for item in fields(op):
            value = getattr(op, item.name)
            if item.name in ("alpha", "beta"):
                changes[item.name] = np.minimum(roughened(value), 1.0)
            elif isinstance(value, To):
                changes[item.name] = To(roughened(value.value))
            elif isinstance(value, By):
                changes[item.name] = By(roughened(value.amount))
            elif isinstance(value, np.ndarray):
                changes[item.name] = roughened(value)
        nodes[name] = replace(op, **changes)
    stimulus = {
        name: roughened(values) if isinstance(nodes[name].signal, Analog) else values  # type: ignore[union-attr]
        for name, values in case.stimulus.items()
    }
    return Case(Graph(nodes, case.graph.edges), stimulus)


def compared(case: Case, forced: dict[str, Array], seed: int) -> float:
    """Every potential in float32 lies inside its bound around float64; the largest share of a bound that is used."""
    stimulus = {name: values.astype(np.float64) for name, values in case.stimulus.items()}
    exact = reference.run(case.graph, stimulus, forced=forced)
    limit = bounds(case.graph, stimulus, Trace(forced, exact.potentials), FLOAT32 + FLOAT64)
    single = Single(case.graph, seed).run(stimulus, forced)
    assert limit.keys() == exact.potentials.keys() == single.keys()
    used = 0.0
    for name, bound in limit.items():
        error = np.abs(single[name].astype(np.float64) - exact.potentials[name])
        assert bound.shape == error.shape
        assert (error <= bound).all(), f"{name}: {error.max()} beyond {bound.max()}"
        used = max(used, float((error / np.maximum(bound, 1e-300)).max()))
    return used


@settings(max_examples=60)
@given(st.randoms(use_true_random=False), st.integers(0, 2**32 - 1), st.booleans())
def test_the_bounds_hold(source: Random, seed: int, own: bool) -> None:
    """On the network's own spikes, and on random ones."""
    case = rough(read_case(source), seed)
    trace = reference.run(case.graph, {name: values.astype(np.float64) for name, values in case.stimulus.items()})
    random = np.random.default_rng(seed)
    forced = {name: spikes if own else random.random(spikes.shape) < 0.3 for name, spikes in trace.spikes.items()}
    compared(case, forced, seed)


def test_bounds_are_narrow() -> None:
    """Of potentials, a thousandth at most, in these networks; where large terms cancel, nothing can promise it."""
    for seed in range(60):
        case = rough(read_case(Random(seed)), seed)
        stimulus = {name: values.astype(np.float64) for name, values in case.stimulus.items()}
        exact = reference.run(case.graph, stimulus)
        for name, bound in bounds(case.graph, stimulus, exact, FLOAT32 + FLOAT64).items():
            assert bound.max() < 1e-3 * (1 + np.abs(exact.potentials[name]).max()), f"{seed}, {name}: {bound.max()}"


def test_the_bounds_are_no_guess() -> None:
    """Some rounding comes within a tenth of its bound: a bound much wider would explain too much."""
    shares = [compared(case, {}, seed) for seed, case in enumerate(map(single_sum, range(40)))]
    assert 0.1 < max(shares) <= 1.0


def single_sum(seed: int) -> Case:
    """Two products and a potential, which is as short as rounding gets."""
    random = np.random.default_rng(seed)
    nodes: dict[str, Op] = {
        "input": Input((2,)),
        "fc": Dense(random.uniform(0.5, 1, (50, 2)).astype(F).astype(float)),
        "readout": Readout((50,)),
        "output": Output(),
    }
    edges = [Edge("input", "fc"), Edge("fc", "readout"), Edge("readout", "output")]
    return Case(Graph(nodes, edges), {"input": random.uniform(0.5, 1, (20, 1, 2)).astype(F).astype(float)})


def test_two_sums_by_hand() -> None:
    """``gamma(n + 2) (sum abs(w) abs(x) + abs(b))`` behind the weights, then the population's own roundings."""
    nodes: dict[str, Op] = {
        "input": Input((2,)),
        "fc": Dense(np.array([[3.0, -4.0]]), np.array([-1.0])),
        "lif": Neuron((1,), beta=0.5, bias=number(-0.5)),
        "output": Output(),
    }
    edges = [Edge("input", "fc"), Edge("fc", "lif"), Edge("lif", "output")]
    graph = Graph(nodes, edges)
    stimulus = {"input": np.array([[[2.0, -1.0], [1.0, 1.0]]])}
    trace = reference.run(graph, stimulus, forced={"lif": np.zeros((1, 2, 1), bool)})
    assert trace.potentials["lif"].ravel().tolist() == [8.5, 1.75]
    r = FLOAT64
    found = bounds(graph, stimulus, Trace({"lif": np.zeros((1, 2, 1), bool)}, trace.potentials), r)["lif"].ravel() / r
    fc = [4 * (3 * 2 + 4 * 1 + 1), 4 * (3 + 4 + 1)]
    first = fc[0] + 3 * 11 + 6 * (11 + 0.5)
    second = 0.5 * first + fc[1] + 3 * 8 + 6 * (0.5 * 8.5 + 8 + 0.5)
    assert found == pytest.approx([first, second], rel=1e-9)


def test_a_spike_takes_the_error_with_it() -> None:
    """Behind a hard reset the past is forgotten; a soft one keeps it."""
    for reset, forgets in ((To(number(0.0)), True), (By(number(1.0)), False)):
        nodes: dict[str, Op] = {
            "lif": Neuron((1,), bias=number(0.7), reset=reset),
            "output": Output(),
            "input": Input((1,)),
        }
        graph = Graph(nodes, [Edge("lif", "output")])
        spikes = {"lif": np.array([[[False], [True], [False]]])}
        trace = Trace(spikes, reference.run(graph, {"input": np.zeros((1, 3, 1))}, forced=spikes).potentials)
        found = bounds(graph, {"input": np.zeros((1, 3, 1))}, trace, FLOAT32)["lif"].ravel()
        assert found[1] > found[0] > 0
        assert bool(found[2] == found[0]) is forgets
        assert forgets or found[2] > found[1]


def test_a_loop_is_bounded_wherever_its_delay_stands() -> None:
    """In front of its weights or behind them: they come after the population that hears them late."""
    found = []
    for there, back in ((1, 0), (0, 1)):
        nodes: dict[str, Op] = {
            "input": Input((2,)),
            "lif": Neuron((2,), beta=0.5, threshold=number(0.5)),
            "again": Dense(np.array([[0.3, -0.7], [0.1, 0.9]])),
            "output": Output(),
        }
        edges = [Edge("input", "lif"), Edge("lif", "again", there), Edge("again", "lif", back), Edge("lif", "output")]
        graph, stimulus = Graph(nodes, edges), {"input": np.random.default_rng(7).random((1, 9, 2))}
        found.append(bounds(graph, stimulus, reference.run(graph, stimulus), FLOAT64)["lif"])
    np.testing.assert_array_equal(*found)
    assert np.all(np.diff(found[0][0, :, 0]) != 0.0)
