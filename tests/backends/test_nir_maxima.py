"""A maximum over spikes goes out as a sum and a comparison and comes back as a maximum; what is none is refused."""

from __future__ import annotations

from pathlib import Path

import nir
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snncompile.backends import nir_gate
from snncompile.backends.nir_file import write
from snncompile.backends.nir_lowering import lower
from snncompile.backends.nir_nodes import written
from snncompile.backends.nir_profiles import PROFILES, Profile
from snncompile.cli import main
from snncompile.errors import NotRepresentable
from snncompile.frontends.nir import read
from snncompile.frontends.nir_file import read_net
from snncompile.frontends.nir_options import Options
from snncompile.frontends.nir_record import Node
from snncompile.ir.graph import Edge, Graph
from snncompile.ir.ops import Conv, Dense, Input, Neuron, Op, Output, Pool, Scale
from snncompile.ir.signals import Count, Signal, Signed, Spike
from snncompile.ir.text import to_text
from snncompile.run import reference
from tests.backends.test_nir import alone, exported, run_as
from tests.graphs import fits
from tests.nir_networks import lif

CANONICAL = PROFILES["canonical"]
GEOMETRY = ("kind", "kernel", "stride", "padding")


def over(pool: Pool, *, size: tuple[int, int] = (5, 6), between: dict[str, Op] | None = None, delay: int = 0) -> Graph:
    """Spikes of two channels, what is ``between``, a maximum, weights, neurons."""
    nodes: dict[str, Op] = {
        "input": Input((2, *size), Spike()),
        "first": lif(2, *size),
        **(between or {}),
        "pool": pool,
    }
    edges = [Edge(a, b) for a, b in zip(nodes, list(nodes)[1:], strict=False)]
    edges[-1] = Edge(edges[-1].source, "pool", delay)
    nodes["weigh"] = Conv(np.arange(-4.0, 2.0).reshape(3, 2, 1, 1) / 4)
    height, width = (
        (n + 2 * p - k) // s + 1 for n, p, k, s in zip(size, pool.padding, pool.kernel, pool.stride, strict=True)
    )
    nodes |= {"last": lif(3, height, width), "output": Output()}
    edges += [Edge("pool", "weigh"), Edge("weigh", "last"), Edge("last", "output")]
    return Graph(nodes, edges)


def seen(graph: Graph, *, rate: float = 0.3) -> dict[str, np.ndarray]:  # type: ignore[type-arg]
    op = graph.nodes["input"]
    assert isinstance(op, Input)
    return {"input": (np.random.default_rng(0).random((3, 6, *op.shape)) < rate).astype(np.float64)}


def kinds(path: Path) -> dict[str, str]:
    nodes = read_net(path)[0].nodes
    return {name: node.kind for name, node in nodes.items() if isinstance(node, Node)}


def test_what_stands_in_the_file(tmp_path: Path) -> None:
    graph = over(Pool("max", (3, 2), (2, 1), (1, 0)))
    exported(graph, tmp_path / "net.nir")
    net = nir.read(tmp_path / "net.nir")  # its own type check
    assert {name: kind for name, kind in kinds(tmp_path / "net.nir").items() if "pool" in name} == {
        "pool_sum": "SumPool2d",
        "pool": "Threshold",
    }
    total, fires = net.nodes["pool_sum"], net.nodes["pool"]
    found = [list(getattr(total, key)) for key in ("kernel_size", "stride", "padding")]
    assert found == [[3, 2], [2, 1], [1, 0]]
    assert fires.threshold.shape == (2, 3, 5)
    assert np.all(fires.threshold == 0.5)
    assert [edge for edge in net.edges if "pool" in "".join(edge)] == [
        ("first", "pool_sum"),
        ("pool_sum", "pool"),
        ("pool", "weigh"),
    ]


def test_it_is_read_back(tmp_path: Path) -> None:
    exported(over(Pool("max", (3, 2), (2, 1), (1, 0)), delay=2), tmp_path / "net.nir")
    found = read(tmp_path / "net.nir", Options(metadata="ignore", start="zero"))
    assert "pool: a sum of spikes, compared with less than one, is their maximum" in found.notes
    below = float(np.nextafter(1.0, 0.0))
    assert to_text(found.graph).splitlines() == [
        "input  = Input(shape=[2, 5, 6])",
        f"first  = Neuron(shape=[2, 5, 6], beta=0.5, threshold={below}) <- input",
        "pool   = Pool(kind='max', kernel=[3, 2], stride=[2, 1], padding=[1, 0]) <- first@2",
        "weigh  = Conv(weight=[[[[-1.0]], [[-0.75]]], [[[-0.5]], [[-0.25]]], [[[0.0]], [[0.25]]]]) <- pool",
        f"last   = Neuron(shape=[3, 3, 5], beta=0.5, threshold={below}) <- weigh",
        "output = Output() <- last",
    ]


@st.composite
def pools(draw: st.DrawFn) -> Pool:
    """Any window, overlapping or with gaps, that may reach beyond the map."""
    kernel = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    stride = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    padding = tuple(draw(st.integers(0, size - 1)) for size in kernel)
    return Pool("max", kernel, stride, padding)


PROFILES_THAT_HAVE_IT = [PROFILES[name] for name in ("canonical", "unit-r", "snntorch", "spikingjelly", "norse")]


@settings(deadline=None)
@given(
    pool=pools(),
    profile=st.sampled_from(PROFILES_THAT_HAVE_IT),
    rate=st.floats(0.05, 0.5),
    worth=st.sampled_from([1.0, 0.5, 3.0]),
)
def test_any_window_in_every_profile(
    pool: Pool, profile: Profile, rate: float, worth: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The spikes behind it are those of the network: of what is written, and of what is read of its numbers."""
    if not fits(pool, (2, 5, 6)):
        return
    between = {} if worth == 1.0 else {"worth": Scale(worth)}
    graph = over(pool, between=between)
    x = seen(graph, rate=rate)
    expected = reference.run(graph, x)
    path = tmp_path_factory.mktemp("maximum") / "net.nir"
    try:
        lowered, made = exported(graph, path, profile)
    except NotRepresentable:  # a window that is a kernel, of an odd and an even side
        if profile.name != "norse" or pool.kernel[0] % 2 == pool.kernel[1] % 2:
            raise
        return
    nir.read(path)
    back = read(path, nir_gate.alone(profile, made)).graph
    runs = [reference.run(lowered, x), run_as(made, back, x)]
    for name in ("first", "last"):
        assert all(np.array_equal(run.spikes[name], expected.spikes[name]) for run in runs)
    if "Threshold" in profile.nodes:
        found = back.nodes["pool"]
        assert isinstance(found, Pool)
        assert [getattr(found, key) for key in GEOMETRY] == [getattr(pool, key) for key in GEOMETRY]
    if profile is CANONICAL:
        exported(back, path.with_name("again.nir"), profile)
        again = alone(path.with_name("again.nir"), profile)
        assert to_text(again) == to_text(back)
        nets = [read_net(one)[0] for one in (path, path.with_name("again.nir"))]
        assert nets[0].edges == nets[1].edges
        assert kinds(path) == kinds(path.with_name("again.nir"))


def test_what_a_spike_is_worth_goes_behind(tmp_path: Path) -> None:
    """max(a s) = a max(s): the sum stays one of spikes, and is read as one."""
    graph = over(Pool("max", (2, 2), (2, 2)), between={"worth": Scale(np.asarray(0.25))})
    lowered, _ = exported(graph, tmp_path / "net.nir")
    assert "worth" not in lowered.nodes
    assert [edge.source for edge in lowered.into("pool_sum")] == ["first"]
    assert [edge.target for edge in lowered.out_of("pool")] == ["pool_worth"]
    back = alone(tmp_path / "net.nir", CANONICAL)
    assert isinstance(back.nodes["pool"], Pool)
    shared = graph.edit({"skip": Output()}, [*graph.edges, Edge("worth", "skip")])
    assert "worth" in lower(shared, CANONICAL).nodes  # another node hears it


def test_a_maximum_of_a_maximum(tmp_path: Path) -> None:
    graph = over(Pool("max", (2, 2), (1, 1)), between={"inner": Pool("max", (2, 2), (1, 1), (1, 1))}, size=(4, 4))
    nodes = {**graph.nodes, "last": lif(3, 4, 4)}
    graph = Graph(nodes, graph.edges)
    x = seen(graph)
    exported(graph, tmp_path / "net.nir")
    back = alone(tmp_path / "net.nir", CANONICAL)
    assert [back.nodes[name].kind for name in ("inner", "pool")] == ["max", "max"]  # type: ignore[union-attr]
    assert np.array_equal(reference.run(back, x).spikes["last"], reference.run(graph, x).spikes["last"])


def test_a_maximum_at_an_output(tmp_path: Path) -> None:
    graph = over(Pool("max", (2, 2), (2, 2)))
    graph = graph.edit({"weigh": None, "last": None}, [*graph.edges, Edge("pool", "output")])
    exported(graph, tmp_path / "net.nir")
    back = alone(tmp_path / "net.nir", CANONICAL)
    assert [type(back.nodes[name]) for name in ("first", "pool", "output")] == [Neuron, Pool, Output]


def test_a_file_that_ends_in_a_maximum_is_read_out_as_its_message_says(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    thresholded(tmp_path / "net.nir", 0.5)
    np.savez(tmp_path / "x.npz", x=np.random.default_rng(0).random((2, 5, 1, 4, 4)).astype(np.float32) * 2)
    words = [str(tmp_path / "net.nir"), "--data", str(tmp_path / "x.npz"), "-q"]
    assert main(["simulate", *words]) == 6
    assert "reads any (Pool), which no population holds; say what is made of it over time: --nir readout=sum" in (
        capfd.readouterr().err
    )
    for verb in ("simulate", "verify", "energy"):
        assert main([verb, *words, "--nir", "readout=sum"]) == 0, capfd.readouterr().err


def test_of_one_axis(tmp_path: Path) -> None:
    """NIR has no pool of one axis: the sum is a Conv1d of ones, and read as the sum that it is."""
    nodes = {"input": Input((2, 9), Spike()), "first": lif(2, 9), "pool": Pool("max", (3,), (2,), (1,))}
    edges = [Edge("input", "first"), Edge("first", "pool"), Edge("pool", "last"), Edge("last", "output")]
    graph = Graph({**nodes, "last": lif(2, 5), "output": Output()}, edges)
    exported(graph, tmp_path / "net.nir")
    assert kinds(tmp_path / "net.nir")["pool_sum"] == "Conv1d"
    back, x = alone(tmp_path / "net.nir", CANONICAL), seen(graph)
    found = back.nodes["pool"]
    assert isinstance(found, Pool)
    assert (found.kind, found.kernel, found.stride, found.padding) == ("max", (3,), (2,), (1,))
    assert np.array_equal(reference.run(back, x).spikes["last"], reference.run(graph, x).spikes["last"])
    mixed = written(lower(graph, CANONICAL), CANONICAL).net
    weight = mixed.nodes["pool_sum"].fields["weight"]  # type: ignore[union-attr]
    weight[0, 1, 0] = 1.0  # type: ignore[index]
    write(mixed, tmp_path / "other.nir")
    assert "pool_sum" in alone(tmp_path / "other.nir", CANONICAL).nodes


# What is no sum


def fed(signal: Signal) -> Graph:
    nodes = {
        "input": Input((1, 4, 4), signal),
        "pool": Pool("max", (2, 2), (2, 2)),
        "n": lif(1, 2, 2),
        "output": Output(),
    }
    return Graph(nodes, [Edge("input", "pool"), Edge("pool", "n"), Edge("n", "output")])


def inside(graph: Graph, factor: object) -> Graph:
    return graph.edit({"worth": Scale(factor)})  # type: ignore[arg-type]


SCALED = over(Pool("max", (2, 2), (2, 2)), size=(4, 4), between={"worth": Scale(np.asarray(0.5))})
TWICE = over(Pool("max", (2, 2), (2, 2)))
NO_SUM = {
    "ternary": fed(Signed()),
    "graded": fed(Count(3)),
    "a factor below zero": inside(SCALED, np.asarray(-1.0)),
    "a factor a neuron": inside(SCALED, np.arange(1.0, 33.0).reshape(2, 4, 4)),
    "weights": over(Pool("max", (2, 2), (2, 2)), between={"w": Conv(np.eye(2).reshape(2, 2, 1, 1))}),
    "a mean": over(Pool("max", (2, 2), (1, 1)), between={"w": Pool("mean", (1, 1), (1, 1))}),
    "two populations": Graph(TWICE.nodes, [*TWICE.edges, Edge("input", "pool")]),
}


@pytest.mark.parametrize("name", NO_SUM)
def test_over_anything_but_spikes_it_is_refused(name: str) -> None:
    message = r"pool \(Pool\): takes a maximum of anything but the spikes of one population \(NIR has no such node"
    with pytest.raises(NotRepresentable, match=message):
        lower(NO_SUM[name], CANONICAL)


def test_spikes_of_an_input_are_spikes() -> None:
    lowered = lower(fed(Spike(0.5)), CANONICAL)
    assert [type(lowered.nodes[name]) for name in ("pool_sum", "pool", "pool_worth")] == [Pool, Neuron, Scale]
    op = lowered.nodes["pool"]
    assert isinstance(op, Neuron)
    assert op.threshold == 0.25


def test_readers_that_fire_several_times_are_refused() -> None:
    graph = over(Pool("max", (2, 2), (2, 2))).edit({"first": lif(2, 5, 6, beta=np.zeros(()))})
    with pytest.raises(
        NotRepresentable, match=r"pool \(Pool\): takes a maximum .*sinabs read no Threshold, and subtract"
    ):
        lower(fed(Spike()).edit({"n": None}, [Edge("input", "pool"), Edge("pool", "output")]), PROFILES["sinabs"])
    with pytest.raises(NotRepresentable):
        lower(graph, PROFILES["sinabs"])


# What is read as a maximum, and what is not


def thresholded(path: Path, threshold: float, **more: object) -> Graph:
    """A file of the package ``nir``: spikes, a sum over windows, a Threshold."""
    ones = np.ones((1, 4, 4))
    nodes = {
        "input": nir.Input(np.array([1, 4, 4])),
        "n": nir.LIF(tau=2e-4 * ones, r=2 * ones, v_leak=0 * ones, v_threshold=ones, v_reset=0 * ones),
        "sum": nir.SumPool2d(np.array([2, 2]), np.array([1, 1]), np.array([0, 0])),
        "any": nir.Threshold(np.full((1, 3, 3), threshold)),
        "output": nir.Output(np.array([1, 3, 3])),
        **more,
    }
    edges = [("input", "n"), ("n", "sum"), ("sum", "any"), ("any", "output")]
    if "other" in nodes:
        edges += [("sum", "other"), ("other", "output")]
    nir.write(path, nir.NIRGraph(nodes=nodes, edges=edges))
    return read(path).graph


@pytest.mark.parametrize(
    ("threshold", "kind"), [(0.0, "max"), (0.99, "max"), (1.0, "sum"), (-0.5, "sum"), (2.5, "sum")]
)
def test_a_threshold_below_one_spike(threshold: float, kind: str, tmp_path: Path) -> None:
    """Files of others as well; any other threshold counts spikes, and stays what it is."""
    graph = thresholded(tmp_path / "net.nir", threshold)
    assert [op.kind for op in graph.nodes.values() if isinstance(op, Pool)] == [kind]
    assert ("any" in graph.names(Neuron)) == (kind == "sum")
    x = {"input": np.random.default_rng(2).integers(0, 2, (4, 8, 1, 4, 4)) * 1.5}
    sums = np.lib.stride_tricks.sliding_window_view(reference.run(graph, x).spikes["n"], (2, 2), axis=(3, 4)).sum(
        (-1, -2)
    )
    shown = Graph(
        {**graph.nodes, "look": Neuron((1, 3, 3), beta=1.0, threshold=0.5)}, [*graph.edges, Edge("any", "look")]
    )
    assert np.array_equal(reference.run(shown, x).spikes["look"], sums > threshold)


def test_a_sum_that_something_else_reads_stays(tmp_path: Path) -> None:
    graph = thresholded(tmp_path / "net.nir", 0.5, other=nir.Scale(np.ones((1, 3, 3))))
    assert [op.kind for op in graph.nodes.values() if isinstance(op, Pool)] == ["sum"]


@pytest.mark.parametrize("around", [1, 2, 3])
def test_a_loop_keeps_a_population(around: int, tmp_path: Path) -> None:
    """Thresholds that hear nothing but sums of each other's spikes: all but one are maxima."""
    nodes = {"input": nir.Input(np.array([1, 3, 3])), "output": nir.Output(np.array([1, 3, 3]))}
    edges = [("any0", "output"), ("input", "output")]
    for at in range(around):
        nodes[f"sum{at}"] = nir.SumPool2d(np.array([3, 3]), np.array([1, 1]), np.array([1, 1]))
        nodes[f"any{at}"] = nir.Threshold(np.full((1, 3, 3), 0.5))
        nodes[f"late{at}"] = nir.Delay(np.full((1, 3, 3), 1e-4))
        edges += [
            (f"any{at - 1 if at else around - 1}", f"late{at}"),
            (f"late{at}", f"sum{at}"),
            (f"sum{at}", f"any{at}"),
        ]
    nir.write(tmp_path / "net.nir", nir.NIRGraph(nodes=nodes, edges=edges, type_check=False))
    graph = read(tmp_path / "net.nir", Options(semantics="euler", dt=1e-4)).graph
    assert len(graph.names(Neuron)) == 1
    assert sum(isinstance(op, Pool) and op.kind == "max" for op in graph.nodes.values()) == around - 1
    assert all(not array.any() for array in reference.run(graph, {"input": np.zeros((1, 4, 1, 3, 3))}).spikes.values())


def test_dense_layers_read_it(tmp_path: Path) -> None:
    """What follows a maximum in the networks of the papers: a vector."""
    graph = over(Pool("max", (2, 2), (2, 2)), size=(4, 4))
    nodes = {**graph.nodes, "weigh": Dense(np.eye(8)[:3]), "last": lif(3)}
    exported(Graph(nodes, graph.edges), tmp_path / "net.nir")
    assert isinstance(alone(tmp_path / "net.nir", CANONICAL).nodes["pool"], Pool)
