"""The text form: prints, parses, and never executes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from snncompile.errors import GraphError
from snncompile.fixed import FixedPoint
from snncompile.ir.graph import Edge, Graph
from snncompile.ir.ops import By, Conv, Dense, Flatten, Input, Neuron, Norm, Output, Pool, Readout, Scale, Slice
from snncompile.ir.signals import Count, Fixed
from snncompile.ir.text import arrays, digest, from_text, same, to_text
from snncompile.passes.balance import balance
from snncompile.passes.place import place
from snncompile.run import reference
from snncompile.run.trace import first_divergence
from snncompile.target import Target
from tests.graphs import Case, fixed_cases, read_cases

LOIHI = Target.load("loihi")
GOLDEN = """\
input = Input(shape=[2, 4, 4], signal={'kind': 'count', 'most': 3, 'amplitude': 0.5})
conv1 = Conv(weight='float64[4,1,2,2]:799eb99a60dd', bias=[1.0, 2.0, 3.0, 4.0], stride=[2, 2], groups=2) <- input
norm  = Norm(mean=[0.0, 1.0, 2.0, 3.0], variance=1.0, gain=0.5, shift=0.0) <- conv1
lif1  = Neuron(shape=[4, 2, 2], beta=0.25, fires='>=', reset={'by': 0.75}, phase=3, cores=[[7, 0, 16, 0, 0]]) <- norm, back@2
pool  = Pool(kind='mean', kernel=[2, 2], stride=[2, 2]) <- lif1
flat  = Flatten() <- pool
back  = Scale(factor={'mantissa': -3, 'exponent': -2}) <- lif1
fc    = Dense(weight={'mantissa': [[2, -4, 6, 8]], 'exponent': 0}) <- flat
out   = Readout(shape=[1]) <- fc
end   = Output() <- out
"""  # noqa: E501


def golden() -> Graph:
    nodes = {
        "input": Input((2, 4, 4), Count(3, 0.5)),
        "conv1": Conv(np.arange(16.0).reshape(4, 1, 2, 2), [1, 2, 3, 4], (2, 2), groups=2),
        "norm": Norm([0, 1, 2, 3], 1.0, 0.5, 0.0),
        "lif1": Neuron((4, 2, 2), beta=0.25, fires=">=", reset=By(0.75), phase=3, cores=(Slice(7, 0, 16),)),
        "pool": Pool("mean", (2, 2), (2, 2)),
        "flat": Flatten(),
        "back": Scale(FixedPoint.number(-3, -2)),
        "fc": Dense(FixedPoint(np.array([[2, -4, 6, 8]]))),
        "out": Readout((1,)),
        "end": Output(),
    }
    edges = [Edge("input", "conv1"), Edge("conv1", "norm"), Edge("norm", "lif1"), Edge("lif1", "pool")]
    edges += [Edge("pool", "flat"), Edge("lif1", "back"), Edge("back", "lif1", 2), Edge("flat", "fc")]
    return Graph(nodes, [*edges, Edge("fc", "out"), Edge("out", "end")])


def test_what_it_looks_like() -> None:
    assert to_text(golden()) == GOLDEN


def test_the_digest_names_type_shape_and_content() -> None:
    array = np.arange(16.0).reshape(4, 1, 2, 2)
    assert digest(array) == "float64[4,1,2,2]:799eb99a60dd"
    assert len({digest(array), digest(array + 1), digest(array.reshape(16)), digest(array.astype(np.int64))}) == 4


@given(read_cases(), fixed_cases(delays=True))
def test_any_graph_comes_back(one: Case, other: Case) -> None:
    for case in (one, other):
        again = from_text(to_text(case.graph), arrays(case.graph))
        assert same(again, case.graph)
        assert again.nodes.keys() == case.graph.nodes.keys()
        trace, second = (reference.run(graph, case.stimulus) for graph in (case.graph, again))
        assert first_divergence(trace, second, case.graph.order) is None


@given(fixed_cases())
def test_a_placed_graph_comes_back(case: Case) -> None:
    placed = place(balance(case.graph, LOIHI).graph, LOIHI).graph
    assert same(from_text(to_text(placed), arrays(placed)), placed)


def test_a_text_differs_where_the_graph_does() -> None:
    graph = golden()
    changed = graph.edit({"norm": Norm([0, 1, 2, 3.0000000001], 1.0, 0.5, 0.0)})
    assert not same(graph, changed)
    assert not same(graph, graph.edit(None, [*graph.edges[:-1], Edge("out", "end", 1)]))
    assert not same(graph, graph.edit({"input": Input((2, 4, 4), Fixed(8))}))


def test_comments_and_empty_lines_are_passed_over() -> None:
    assert same(from_text(f"# a network\n\n{GOLDEN}\n  # the end\n", arrays(golden())), golden())


# --- what is no graph -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("b = Dense(weight=", "line 2: not a node"),
        ("b Dense()", "line 2: not a node"),
        ("x = Output()", "line 2: a second node is called 'x'"),
        ("b = Bogus()", r"b: no op is called 'Bogus'; known: Input, Output"),
        ("b = Dense(wait=1.0)", r"b \(Dense\): unknown field 'wait'; known: weight, bias"),
        ("b = Dense()", r"b \(Dense\): its fields make no Dense"),
        ("b = Scale(2.0)", "line 2: cannot be parsed .*Name.field=value"),
        ("b = Scale(factor=2.0) <- x@soon", "line 2: 'soon' is no delay"),
        ("b = Scale(factor=2.0) <- x@-1", "line 2: '-1' is no delay"),
        ("b = Scale(factor=2.0) <- x@²", "line 2: '²' is no delay"),
        ("b = Scale(factor=2.0) <- y", "no node 'y'"),
        ("b = Scale(factor=inf)", "line 2: cannot be parsed"),
        ("b = Scale(factor=nan)", "line 2: cannot be parsed"),
        ("b = Scale(factor='float64[9]:abc')", "line 2: the array float64.9.:abc is not at hand"),
        ("b = Scale(factor=['a'])", r"b \(Scale\): its fields make no Scale"),
        ("b = Scale(factor={'mantissa': 1.5, 'exponent': 0})", "line 2: the array 1.5 is not at hand"),
        ("b = Scale(factor={'mantissa': 1})", r"b \(Scale\): its fields make no Scale"),
        ("b = Scale(factor=" + "9" * 400 + ")", r"b \(Scale\): its fields make no Scale"),
        ("b = Scale(factor={'mantissa': " + "9" * 40 + ", 'exponent': 0})", r"b \(Scale\): its fields make no Scale"),
        ("b = Scale(factor={[1]: 2})", "line 2: cannot be parsed"),
        ("b = Pool(kind='median', kernel=[2], stride=[2])", r"b \(Pool\): its fields make no Pool .*kind='median'"),
        ("b = Neuron(shape=[1], fires='<')", r"b \(Neuron\): its fields make no Neuron .*fires='<'"),
        ("b = Neuron(shape=[1], reset={'at': 1.0})", r"b \(Neuron\): its fields make no Neuron"),
        ("b = Neuron(shape=[1], reset={})", r"b \(Neuron\): its fields make no Neuron"),
        ("b = Input(shape=[1], signal={'kind': 'smoke'})", r"b \(Input\): its fields make no Input"),
        ("b = Input(shape=[1], signal={'kind': 'fixed'})", r"b \(Input\): its fields make no Input"),
        ("b = Scale(**{'factor': 1.0})", r"b \(Scale\): unknown field 'None'"),
        ("b = Scale(factor=" + "-" * 100000 + "1.0)", "line 2: cannot be parsed"),
        ("b = Scale(factor=" + "[" * 100000 + "]" * 100000 + ")", "line 2: cannot be parsed"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(line: str, message: str) -> None:
    with pytest.raises(GraphError, match=message):
        from_text(f"x = Input(shape=[1])\n{line}\n")


@pytest.mark.parametrize(
    "expression",
    [
        "__import__('os').system('touch {mark}')",
        "open('{mark}', 'w')",
        "(lambda: open('{mark}', 'w'))()",
        "[open('{mark}', 'w') for _ in [1]]",
        'exec(\'open("{mark}", "w")\')',
        'f\'{{open("{mark}", "w")}}\'',
        "().__class__.__bases__[0].__subclasses__()",
    ],
)
def test_nothing_is_ever_executed(expression: str, tmp_path: Path) -> None:
    mark = tmp_path / "executed"
    hostile = expression.format(mark=mark)
    for line in (f"b = Scale(factor={hostile})", f"b = {hostile}", f"b = Scale(factor=[{hostile}])"):
        with pytest.raises(GraphError):
            from_text(line)
    with pytest.raises(GraphError):
        from_text(f"b = Input(shape=[1], signal={{'kind': {hostile}}})")
    assert not mark.exists()


@given(
    st.text(alphabet="ab=()[]{}'\"<-@,.:1e9*+ #Scalefactor", max_size=60), st.sampled_from(["", "b = Scale(", "b = "])
)
@example("factor=1", "b = Scale(")
def test_any_text_is_a_graph_or_a_graph_error(text: str, head: str) -> None:
    try:
        graph = from_text(head + text)
    except GraphError:
        return
    assert same(from_text(to_text(graph)), graph)
