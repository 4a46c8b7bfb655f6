"""How far the integers of a network reach, and the files that are written of them, by NIR's own equations."""

from __future__ import annotations

from pathlib import Path

import nir
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snncompile.backends.nir_file import write
from snncompile.backends.nir_gate_integers import bit_by_bit, in_integers
from snncompile.backends.nir_integers import InReals, in_reals
from snncompile.backends.nir_lowering import lower
from snncompile.backends.nir_nodes import Written, written
from snncompile.backends.nir_ranges import ranges, registers
from snncompile.errors import GraphError
from snncompile.frontends.nir import read
from snncompile.frontends.nir_metadata import pack
from snncompile.ir.graph import Graph
from snncompile.ir.ops import Dense, Flatten, Input, Op, Resonator, SigmaDelta
from snncompile.ir.signals import Analog, Fixed, Signal, Spike
from snncompile.ir.text import same
from snncompile.run import integer, reference
from tests.backends.test_nir_integers import (
    CANONICAL,
    LOIHI,
    chain,
    even,
    fixed,
    graded_graphs,
    lif,
    rf,
    sdnn,
    stimulus,
)
from tests.nir_model import Model


@settings(max_examples=40, deadline=None)
@given(case=graded_graphs(), steps=st.integers(1, 9))
def test_ranges_hold_for_every_signal(case: tuple[Graph, int], steps: int) -> None:
    """What a run sends lies in its interval, and so does what it adds up to; bounds are met by the largest inputs."""
    graph, seed = case
    known = ranges(graph, steps)
    given_ = stimulus(np.random.default_rng(seed), graph, steps)
    trace = integer.run(graph, given_, LOIHI)
    for name in graph.names(SigmaDelta):
        op = graph.nodes[name]
        assert isinstance(op, SigmaDelta)
        if op.kind == "sigma":
            sums = trace.potentials[name]
            assert np.all(sums >= known.sent[name].once.low)
            assert np.all(sums <= known.sent[name].once.high)
            continue
        sent = np.where(trace.spikes[name], trace.potentials[name] >> op.shift, 0)
        for values, interval in ((sent, known.sent[name].once), (sent.cumsum(axis=1), known.sent[name].summed)):
            assert np.all(values >= interval.low)
            assert np.all(values <= interval.high)


def test_ranges_of_a_few_numbers() -> None:
    """Golden: weights 4 and -6 on messages of -7 .. 7, three steps."""
    graph = chain(Input((2,), Fixed(4)), ("w", Dense(fixed([[4, -6]]))), ("s", sdnn(1, "sigma-delta", 1, 0, 1, 0)))
    known = ranges(graph, 3)
    arrives = known.arrives["s"]
    assert (arrives.once.low[0], arrives.once.high[0]) == (-70, 70)
    assert (arrives.summed.low[0], arrives.summed.high[0]) == (-210, 210)
    sent = known.sent["s"]
    assert (sent.once.low[0], sent.once.high[0]) == (-106, 105)  # 0 .. 210 known, told in halves, rounded down
    assert (sent.summed.low[0], sent.summed.high[0]) == (-3, 105)
    unit = registers(lif(1, 2048, 0, 10, 3), known.arrives["s"], LOIHI, 3)
    assert unit["current"] == (70 * 1.75, min(LOIHI.sum_most, 2**17 - 1))
    assert unit["potential"] == (3 * (70 * 1.75 + 3), 2**17 - 1)


def test_analog_inputs_have_no_range() -> None:
    with pytest.raises(GraphError, match=r"x \(Input\): has no range"):
        ranges(chain(Input((2,), Analog()), ("a", lif(2))), 3)


# Files


def exported(graph: Graph, path: Path, steps: int) -> tuple[Graph, Written, InReals]:
    made = in_reals(graph, LOIHI, steps, CANONICAL)
    lowered = lower(made.graph, CANONICAL)
    file = written(lowered, CANONICAL)
    write(file.net, path, pack(graph, file.net, dt=1e-4, profile="canonical", steps=steps, integers="loihi"))
    return lowered, file, made


DRAWN: dict[str, tuple[Signal, Op]] = {
    "sigma-delta": (Fixed(6), sdnn(4, "sigma-delta", 1, [0, 1, -1, 2], 2, 3)),
    "izhikevich": (Spike(), rf(2, "izhikevich", 7, 0.2, 20)),
    "phase": (Spike(), rf(2, "phase", 7, 0.25, 20)),
}


@pytest.mark.parametrize("name", DRAWN)
def test_by_the_equations_of_nir(name: str, tmp_path: Path) -> None:
    """The file itself, node by node and step by step, by a model of NIR that knows nothing of this program."""
    generator = np.random.default_rng(3)
    signal, op = DRAWN[name]
    view = [("view", Flatten((2, 2)))] * isinstance(op, Resonator)
    graph = chain(Input((3,), signal), ("w", Dense(even(generator, 4, 3))), *view, ("p", op))
    given_ = stimulus(generator, graph, 12, samples=1)
    lowered, file, made = exported(graph, tmp_path / "net.nir", 12)
    reals = {"x": given_["x"].astype(np.float64)}
    rows = [in_integers(tmp_path / "net.nir", reals, LOIHI, integer.run(graph, given_, LOIHI))]
    rows += list(bit_by_bit(tmp_path / "net.nir", file, CANONICAL, lowered, reals))[:1]
    assert [row.verdict for row in rows] == ["same", "same"]
    assert same(read(tmp_path / "net.nir").graph, graph)
    there = nir.read(tmp_path / "net.nir")
    late = {edge for edge in there.edges if isinstance(there.nodes[edge[1]], nir.Delay)}
    for node in there.nodes.values():
        if isinstance(node, nir.Delay):
            node.delay = node.delay - 1e-4  # the step of the edge into it
    seen = Model(there, 1e-4, late=frozenset(late)).run({"x": reals["x"][0]})
    spikes = seen[file.spikes[made.spikes["p"]]].astype(bool)
    assert 0.02 < spikes.mean() < 0.98
    np.testing.assert_array_equal(spikes, reference.run(lowered, reals).spikes[made.spikes["p"]][0])
    if made.exact:
        np.testing.assert_array_equal(spikes, integer.run(graph, given_, LOIHI).spikes["p"][0])
