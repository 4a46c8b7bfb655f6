"""Transposed convolutions in NIR: a signal that factors and sums spread out, or two convolutions for other readers."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any

import nir
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snncompile.backends import nir_gate, nir_spread
from snncompile.backends.nir_linear import plain_linear, square
from snncompile.backends.nir_lowering import lower
from snncompile.backends.nir_nodes import written
from snncompile.backends.nir_profiles import PROFILES, Profile
from snncompile.backends.nir_spread import spread
from snncompile.errors import InternalError, NotRepresentable
from snncompile.frontends.nir import read
from snncompile.frontends.nir_options import Options
from snncompile.frontends.nir_record import Node
from snncompile.ir.graph import Edge, Graph
from snncompile.ir.ops import Conv, Input, Neuron, Op, Output, Pool, Scale, Shape, real
from snncompile.ir.shapes import shape_of, shapes
from snncompile.ir.signals import Spike
from snncompile.ir.text import same, to_text
from snncompile.run import linear, reference
from tests.backends.test_nir import alone, exported, run_as
from tests.drawing import fits
from tests.nir_networks import lif

CANONICAL = PROFILES["canonical"]


def through(op: Conv, shape: Shape, delay: int = 0) -> Graph:
    """Spikes, a transposed convolution, neurons."""
    nodes: dict[str, Op] = {"input": Input(shape, Spike()), "up": op, "n": lif(*shape_of("up", op, shape))}
    edges = [Edge("input", "up", delay), Edge("up", "n"), Edge("n", "output")]
    return Graph({**nodes, "output": Output()}, edges)


def seen(graph: Graph) -> dict[str, np.ndarray]:  # type: ignore[type-arg]
    op = graph.nodes["input"]
    assert isinstance(op, Input)
    return {"input": np.random.default_rng(0).integers(0, 2, (2, 5, *op.shape)).astype(np.float64)}


def eighths(*shape: int) -> np.ndarray:  # type: ignore[type-arg]
    return np.random.default_rng(prod(shape)).integers(-8, 9, shape) / 8


def up(by: tuple[int, ...] = (2, 2), kernel: int = 3, padding: int = 1) -> Conv:
    axes = len(by)
    weight = eighths(3, 2, *(kernel,) * axes)
    return Conv(weight, eighths(3), (1,) * axes, (padding,) * axes, (1,) * axes, spread=by)


def test_what_stands_in_the_file(tmp_path: Path) -> None:
    """A row of two, spread by two: each place is kept alone, smeared, and kept where it belongs."""
    exported(through(up((1, 2)), (2, 1, 2)), tmp_path / "net.nir")
    net = nir.read(tmp_path / "net.nir")  # its own type check
    kinds = {name: type(node).__name__ for name, node in net.nodes.items()}
    assert kinds == {
        "input": "Input",
        "up_x0_before": "Scale",
        "up_x0_smeared": "SumPool2d",
        "up_x0_after": "Scale",
        "up_x1_before": "Scale",
        "up_x1_smeared": "SumPool2d",
        "up_x1_after": "Scale",
        "up_x": "Scale",
        "up": "Conv2d",
        "n": "LIF",
        "output": "Output",
    }
    before, after = ([net.nodes[f"up_x{at}_{word}"].scale.tolist() for at in (0, 1)] for word in ("before", "after"))
    assert before == [[[[1, 0]], [[1, 0]]], [[[0, 1]], [[0, 1]]]]
    assert after == [[[[1, 0, 0, 0]], [[1, 0, 0, 0]]], [[[0, 0, 1, 0]], [[0, 0, 1, 0]]]]
    smeared = net.nodes["up_x0_smeared"]
    found = [list(getattr(smeared, key)) for key in ("kernel_size", "stride", "padding")]
    assert found == [[1, 3], [1, 1], [0, 2]]
    assert list(net.nodes["up"].input_shape) == [1, 4]
    assert net.nodes["up"].weight.shape == (3, 2, 3, 3)
    assert sorted(edge for edge in net.edges if edge[1] == "up_x") == [("up_x0_after", "up_x"), ("up_x1_after", "up_x")]


@given(st.integers(1, 3), st.integers(1, 5), st.integers(1, 5), st.tuples(st.integers(1, 4), st.integers(1, 4)))
def test_it_is_the_spread_signal_to_the_last_bit(channels: int, height: int, width: int, by: tuple[int, int]) -> None:
    """Of any numbers: nothing but zeros is added to them."""
    shape = (channels, height, width)
    eye = Conv(np.eye(channels).reshape(channels, channels, 1, 1), spread=by)
    nodes = {"input": Input(shape), "up": eye, "output": Output()}
    graph = spread(Graph(nodes, [Edge("input", "up"), Edge("up", "output")]), CANONICAL)
    values = {"input": np.random.default_rng(1).normal(size=(2, *shape))}
    for name in graph.order[1:-1]:
        arriving = sum(values[edge.source] for edge in graph.into(name))
        if name == "up":
            assert np.array_equal(arriving, linear.spread_out(values["input"], by))
        values[name] = reference.apply_linear(graph, name, np.asarray(arriving))


@st.composite
def cases(draw: st.DrawFn) -> tuple[Conv, Shape]:
    """Any transposed convolution of one or two axes, also one that leaves places out again."""
    axes = draw(st.integers(1, 2))

    def sizes(least: int, most: int) -> tuple[int, ...]:
        return tuple(draw(st.integers(least, most)) for _ in range(axes))

    groups = draw(st.sampled_from([1, 2]))
    weight = eighths(2 * draw(st.integers(1, 2)), 2 // groups, *(draw(st.sampled_from([1, 3])),) * axes)
    bias = eighths(len(weight)) if draw(st.booleans()) else None
    by = tuple(max(2, size) if at == 0 else size for at, size in enumerate(sizes(1, 3)))
    op = Conv(weight, bias, sizes(1, 2), sizes(0, 2), sizes(1, 2), groups, by)
    return op, (2, *sizes(1, 5))


@settings(deadline=None)
@given(
    case=cases(),
    profile=st.sampled_from([PROFILES[name] for name in ("canonical", "unit-r", "snntorch", "spikingjelly", "norse")]),
)
def test_any_in_every_profile(
    case: tuple[Conv, Shape], profile: Profile, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The spikes are those of the network: of what is written, and of what is read of its numbers."""
    op, shape = case
    if not fits(op, shape):
        return
    graph, path = through(op, shape), tmp_path_factory.mktemp("spread") / "net.nir"
    x = seen(graph)
    expected = reference.run(graph, x)
    odd = len({side % 2 for side in shapes(graph)["n"][1:]}) > 1
    if "Scale" not in profile.nodes and (odd or f"Conv{len(shape) - 1}d" not in profile.nodes):
        with pytest.raises(NotRepresentable, match=r"is a transposed convolution|is a Conv1d in NIR"):
            exported(graph, path, profile)
        return
    lowered, made = exported(graph, path, profile)
    nir.read(path)
    assert same(read(path).graph, graph)
    assert np.array_equal(reference.run(lowered, x).spikes["n"], expected.spikes["n"])
    back = read(path, nir_gate.alone(profile, made)).graph
    assert np.array_equal(run_as(made, back, x).spikes["n"], expected.spikes["n"])
    if "Scale" in profile.nodes:
        found = back.nodes["up"]
        assert isinstance(found, Conv)
        assert (found.spread, found.stride) == (op.spread, op.stride)
        assert not back.names(Scale)
    if profile is CANONICAL:
        exported(back, path.with_name("again.nir"))
        assert to_text(alone(path.with_name("again.nir"), CANONICAL)) == to_text(back)
        one, two = (nir.read(path.with_name(name)) for name in ("net.nir", "again.nir"))
        assert one.edges == two.edges


def test_it_is_read_back(tmp_path: Path) -> None:
    graph = through(up((2, 3)), (2, 2, 2), delay=1)
    exported(graph, tmp_path / "net.nir")
    found = read(tmp_path / "net.nir", Options(metadata="ignore", start="zero"))
    assert "up: reads a signal that is spread out, a transposed convolution" in found.notes
    lines = to_text(found.graph).splitlines()
    assert [line.split(" ")[0] for line in lines] == ["input", "up", "n", "output"]
    assert lines[1].endswith("padding=[1, 1], spread=[2, 3]) <- input@1")


def moved(nodes: dict[str, Any]) -> None:
    nodes["up_x1_after"].scale = np.roll(nodes["up_x1_after"].scale, 1, axis=-1)


def doubled(nodes: dict[str, Any]) -> None:
    nodes["up_x1_after"].scale = 2 * nodes["up_x1_after"].scale


def narrower(nodes: dict[str, Any]) -> None:
    for name in ("up_x0_smeared", "up_x1_smeared"):
        nodes[name].kernel_size, nodes[name].padding = np.array([1, 1]), np.array([0, 1])


def twice(nodes: dict[str, Any]) -> None:
    for word in ("before", "after"):
        nodes[f"up_x1_{word}"].scale = nodes[f"up_x0_{word}"].scale


def inside(nodes: dict[str, Any]) -> None:
    nodes["up_x1_before"].scale[0] = 0.0


@pytest.mark.parametrize("change", [moved, doubled, narrower, twice, inside])
def test_what_is_nearly_one_is_read_as_it_stands(change: Callable[[dict[str, Any]], None], tmp_path: Path) -> None:
    """And computes what its factors and sums compute."""
    exported(through(up((1, 2)), (2, 1, 2)), tmp_path / "net.nir")
    net = nir.read(tmp_path / "net.nir")
    change(net.nodes)
    nir.write(tmp_path / "other.nir", nir.NIRGraph(nodes=net.nodes, edges=net.edges))
    graph = alone(tmp_path / "other.nir", CANONICAL)
    assert len(graph.names(Scale)) == 5
    (x,) = seen(graph).values()
    signal = np.zeros((*x.shape[:-1], 4))
    for at in (0, 1):
        before, after = (net.nodes[f"up_x{at}_{word}"].scale for word in ("before", "after"))
        pad = int(net.nodes[f"up_x{at}_smeared"].padding[1])
        wide = np.pad(before * x, [(0, 0)] * (x.ndim - 1) + [(pad, pad)])
        size = int(net.nodes[f"up_x{at}_smeared"].kernel_size[1])
        signal += after * np.lib.stride_tricks.sliding_window_view(wide, size, axis=-1).sum(-1)
    read_ = graph.edit({"look": Neuron((2, 1, 4), beta=1.0, threshold=0.5)}, [*graph.edges, Edge("up_x", "look")])
    assert np.array_equal(reference.run(read_, {"input": x}).spikes["look"], signal > 0.5)


def test_a_way_that_others_read_stays(tmp_path: Path) -> None:
    exported(through(up((1, 2)), (2, 1, 2)), tmp_path / "net.nir")
    net = nir.read(tmp_path / "net.nir")
    nodes, edges = {**net.nodes, "more": nir.Output(np.array([2, 1, 4]))}, [*net.edges, ("up_x0_smeared", "more")]
    nir.write(tmp_path / "other.nir", nir.NIRGraph(nodes=nodes, edges=edges))
    assert len(alone(tmp_path / "other.nir", CANONICAL).names(Scale)) == 5


def test_feedback_through_one(tmp_path: Path) -> None:
    """As the networks of IDE have it: down, and up again to the neurons before, a step later."""
    nodes = {
        "input": Input((2, 4, 4), Spike()),
        "first": lif(2, 4, 4),
        "down": Conv(eighths(2, 2, 3, 3), None, (2, 2), (1, 1)),
        "second": lif(2, 2, 2),
        "up": Conv(eighths(2, 2, 3, 3), None, (1, 1), (1, 1), spread=(2, 2)),
        "output": Output(),
    }
    ways = [("input", "first"), ("first", "down"), ("down", "second"), ("second", "output"), ("up", "first")]
    graph = Graph(nodes, [*(Edge(*way) for way in ways), Edge("second", "up", 1)])
    x = seen(graph)
    expected = reference.run(graph, x)
    without = reference.run(Graph(nodes, graph.edges[:-2]).edit({"up": None}), x)
    assert not np.array_equal(expected.spikes["first"], without.spikes["first"])
    _, made = exported(graph, tmp_path / "net.nir")
    delays = [name for name, node in made.net.nodes.items() if isinstance(node, Node) and node.kind == "Delay"]
    assert delays == ["second_late1"]  # one, for all that spreads the signal
    found = run_as(made, alone(tmp_path / "net.nir", CANONICAL), x)
    assert all(np.array_equal(found.spikes[name], expected.spikes[name]) for name in ("first", "second"))


def test_two_signals_into_one() -> None:
    """What arrives from several nodes is added before it is spread."""
    graph = through(up(), (2, 2, 2))
    more = graph.edit({"other": lif(2, 2, 2)}, [*graph.edges, Edge("input", "other"), Edge("other", "up")])
    x = seen(more)
    made = lower(more, CANONICAL)
    assert np.array_equal(reference.run(made, x).spikes["n"], reference.run(more, x).spikes["n"])


def test_readers_without_factors_get_two_convolutions() -> None:
    """The map as channels of one place, and back as a kernel of all places."""
    graph = through(up(), (2, 3, 3))
    profile = PROFILES["snntorch"]
    net = written(lower(graph, profile), profile).net
    kinds = {name: node.kind for name, node in net.nodes.items() if isinstance(node, Node)}
    assert [kinds[name] for name in ("up_places", "up")] == ["Conv2d", "Conv2d"]
    first, second = (net.nodes[name].fields for name in ("up_places", "up"))  # type: ignore[union-attr]
    assert first["weight"].shape == (18, 2, 3, 3)
    assert second["weight"].shape == (3, 18, 6, 6)
    assert list(second["padding"]) == [5, 5]


def test_sizes_have_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the numbers that would be written: of the factors, or of the weights between all places."""
    graph = through(up(), (2, 3, 3))
    factors = 3 * (2 * 9 + 2 * 18) + 3 * (2 * 18 + 2 * 36)
    weights = 18 * (2 * 9 + 3 * 36)
    for profile, numbers, remedy in (
        ("canonical", factors, "fewer channels or a smaller map"),
        ("snntorch", weights, "--nir-profile canonical"),
    ):
        monkeypatch.setattr(nir_spread, "MOST_WEIGHTS", numbers)
        assert lower(graph, PROFILES[profile])
        monkeypatch.setattr(nir_spread, "MOST_WEIGHTS", numbers - 1)
        message = rf"up \(Conv\): is a transposed convolution \(NIR has no such node, .* would be {numbers:,} numbers"
        with pytest.raises(NotRepresentable, match=message) as caught:
            lower(graph, PROFILES[profile])
        assert caught.value.remedy == remedy


def test_pools_of_one_axis_are_kernels_and_count() -> None:
    op = up((2,))
    made = spread(through(op, (2, 4)), CANONICAL)
    assert isinstance(made.nodes["up_x0_smeared"], Pool)
    kernels = [
        real(one.weight).size for one in plain_linear(made, CANONICAL.nodes).nodes.values() if isinstance(one, Conv)
    ]
    assert kernels == [3 * 2 * 3, *[2 * 2 * 5] * 4]
    factors = sum(prod(shapes(made)[name]) for name, one in made.nodes.items() if isinstance(one, Scale))
    counted = nir_spread._Spread(through(op, (2, 4)), "up", op, (2, 4))._numbers([0])
    assert counted == factors - prod(shapes(made)["up_x"]) + 4 * 2 * 2 * 5


def test_maps_of_odd_and_even_sides_have_no_square_kernel() -> None:
    graph = through(up((2, 1)), (2, 3, 5))
    assert lower(graph, CANONICAL)
    with pytest.raises(
        NotRepresentable, match=r"up \(Conv\): is a transposed .*a map of 6 x 5 .*--nir-profile canonical"
    ):
        lower(graph, PROFILES["snntorch"])


def test_none_is_left() -> None:
    """A spread that was forgotten would be another network."""
    with pytest.raises(InternalError, match="up is left"):
        square("up", up(), (2, 3, 3))
    plain = square("up", Conv(np.ones((1, 1, 3, 3)), spread=(1, 1)), (1, 4, 4))
    assert plain.spread == ()
