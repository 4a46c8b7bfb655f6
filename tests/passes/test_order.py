"""All passes in their order on random networks: the machine's spikes are those of level ``fixed``, to the last bit."""

from __future__ import annotations

from hypothesis import assume, given

from snncompile.compile import compile_graph, encoded
from snncompile.errors import LoweringError
from snncompile.run import integer, reference
from snncompile.run.cpu import Simulator
from snncompile.run.trace import first_divergence
from snncompile.target import Target
from tests.graphs import Case, read_cases

LOIHI = Target.load("loihi")


@given(read_cases(plain=True))
def test_from_read_to_placed(case: Case) -> None:
    try:
        done = compile_graph(case.graph, LOIHI, case.stimulus)
    except LoweringError as declined:
        assert "cannot be folded (fold_norm" in str(declined)  # noqa: PT017 - a norm over a signal without weights
        assume(False)
    read = reference.run(case.graph, case.stimulus)
    folded = reference.run(done.levels["folded"], case.stimulus)
    assert first_divergence(read, folded, case.graph.order, potentials=False) is None
    integers = encoded(done.levels["fixed"], case.stimulus)
    fixed = integer.run(done.levels["fixed"], integers, LOIHI)
    for level in ("timed", "placed"):
        for stream in (False, True):
            there = integer.run(done.levels[level], integers, LOIHI, stream=stream)
            assert first_divergence(fixed, there, case.graph.order) is None
    assert first_divergence(fixed, Simulator(done.levels["placed"], LOIHI).run(integers), case.graph.order) is None
