"""``.nir`` files that the package ``nir`` wrote, against NIR's equations node by node (``tests/nir_model.py``)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import nir
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from snncompile.compile import fold
from snncompile.errors import ReadError
from snncompile.frontends.nir import Found, read
from snncompile.frontends.nir_file import read_net
from snncompile.frontends.nir_metadata import pack
from snncompile.frontends.nir_options import Options
from snncompile.ir.ops import By, Conv, Input, Neuron, Readout
from snncompile.ir.signals import Spike
from snncompile.ir.text import to_text
from snncompile.run import reference
from snncompile.run.trace import Trace
from tests.nir_model import Array, Model

DT = 2.0**-13
Nodes = dict[str, Any]
Edges = list[tuple[str, str]]


def chain(*named: tuple[str, Any]) -> tuple[Nodes, Edges]:
    names = [name for name, _ in named]
    return dict(named), list(pairwise(names))


def write(path: Path, nodes: Nodes, edges: Edges, **more: Any) -> nir.NIRGraph:
    graph = nir.NIRGraph(nodes=nodes, edges=edges, **more)
    nir.write(path, graph)
    return graph


def lif(shape: Any, *, decay: float = 0.5, dt: float = DT, r: float | None = None, **more: Any) -> nir.LIF:
    """In the canonical dialect r = tau / dt unless ``r`` says otherwise."""
    tau = dt / (1 - decay)
    values = {"v_leak": 0.0, "v_threshold": 1.0, "v_reset": 0.0, "tau": tau, "r": tau / dt if r is None else r} | more
    return nir.LIF(**{key: np.broadcast_to(np.float64(value), shape).copy() for key, value in values.items()})


def affine(generator: np.random.Generator, out: int, inward: int, most: int = 8) -> nir.Affine:
    """Weights in eighths."""
    weight = generator.integers(-most, most + 1, (out, inward)) / 8
    return nir.Affine(weight.astype(np.float32), (generator.integers(-2, 3, out) / 8).astype(np.float32))


def conv(generator: np.random.Generator, *shape: int, bias: bool = True, **how: Any) -> Any:
    made = {"input_shape": None, "stride": 1, "padding": 0, "dilation": 1, "groups": 1} | how
    weight = (generator.integers(-8, 9, shape) / 8).astype(np.float32)
    offset = (generator.integers(-2, 3, shape[0]) / 8 * bias).astype(np.float32)
    return (nir.Conv2d if len(shape) == 4 else nir.Conv1d)(weight=weight, bias=offset, **made)


def spikes(generator: np.random.Generator, steps: int, *shape: int) -> Array:
    return generator.integers(0, 2, (steps, *shape)).astype(np.float64)


def played(found: Found, x: dict[str, Array]) -> Trace:
    """The graph as read, and folded: the same spikes."""
    stimulus = {name: values[None] for name, values in x.items()}
    trace = reference.run(found.graph, stimulus)
    folded = reference.run(fold(found.graph)[0], stimulus)
    for name, array in trace.spikes.items():
        np.testing.assert_array_equal(folded.spikes[name], array)
    return trace


def equal(model: Model, found: Found, x: dict[str, Array], *, least: float = 0.02) -> Trace:
    """Every population fires as the equations say; ``least``: how often, so that something is compared."""
    expected, trace = model.run(x), played(found, x)
    assert trace.spikes
    for name, array in trace.spikes.items():
        np.testing.assert_array_equal(array[0], expected[name].astype(bool), err_msg=name)
        assert least < array.mean() < 1 - least / 2, f"{name} fires {array.mean():.2%}"
    return trace


Saved = Callable[..., nir.NIRGraph]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "net.nir"


def test_a_convolutional_network_in_the_canonical_dialect(path: Path) -> None:
    generator = np.random.default_rng(1)
    graph = write(
        path,
        *chain(
            ("input", nir.Input(np.array([2, 6, 6]))),
            ("conv", conv(generator, 4, 2, 3, 3, padding=1)),
            ("lif", lif((4, 6, 6))),
            ("pool", nir.AvgPool2d(np.array([2, 2]), np.array([2, 2]), np.array([0, 0]))),
            ("flatten", nir.Flatten(np.array([4, 3, 3]), 0, -1)),
            ("fc", affine(generator, 5, 36)),
            ("last", lif((5,), decay=0.75, v_threshold=0.5)),
            ("output", nir.Output(np.array([5]))),
        ),
    )
    found = read(path)
    assert found.dt == pytest.approx(DT, rel=1e-6)
    assert "r = tau/dt: a step is 0.00012207, of Euler" in found.notes
    equal(Model(graph, DT), found, {"input": spikes(generator, 40, 2, 6, 6)})
    neuron = found.graph.nodes["lif"]
    assert isinstance(neuron, Neuron)
    assert (neuron.beta, neuron.gain, neuron.threshold, neuron.fires) == (0.5, 1.0, 1.0, ">")


@pytest.mark.parametrize("start", ["zero", "reset", "leak"])
def test_every_parameter_of_lif(path: Path, start: str) -> None:
    """Of every neuron its own, and as written: r is a resistance."""
    generator = np.random.default_rng(2)
    shape = (3, 4, 2)
    node = nir.LIF(
        tau=DT * 2.0 ** generator.integers(1, 4, shape),
        r=generator.integers(1, 9, shape) / 2,
        v_leak=generator.integers(-2, 3, shape) / 8,
        v_threshold=generator.integers(2, 9, shape) / 8,
        v_reset=generator.integers(-4, 2, shape) / 8,
    )
    graph = write(
        path, *chain(("input", nir.Input(np.array(shape))), ("lif", node), ("output", nir.Output(np.array(shape))))
    )
    found = read(path, Options("euler", DT, start=start))
    neuron = found.graph.nodes["lif"]
    assert isinstance(neuron, Neuron)
    begin = {"zero": np.zeros(shape), "reset": node.v_reset, "leak": node.v_leak}[start]
    np.testing.assert_array_equal(np.broadcast_to(neuron.initial, shape), begin)  # type: ignore[arg-type]
    if start == "zero":
        equal(Model(graph, DT), found, {"input": spikes(generator, 60, *shape)})


@pytest.mark.parametrize("current", ["new", "old"])
def test_cuba_adds_the_current_that_was_asked_for(path: Path, current: str) -> None:
    generator = np.random.default_rng(3)
    shape = (7,)
    node = nir.CubaLIF(
        tau_syn=DT * 2.0 ** generator.integers(0, 3, shape),
        tau_mem=DT * 2.0 ** generator.integers(1, 4, shape),
        r=np.full(shape, 4.0),
        v_leak=np.full(shape, 0.125),
        v_threshold=np.full(shape, 0.75),
        v_reset=np.full(shape, -0.25),
        w_in=generator.integers(1, 5, shape) / 2,
    )
    graph = write(
        path, *chain(("input", nir.Input(np.array(shape))), ("cuba", node), ("output", nir.Output(np.array(shape))))
    )
    found = read(path, Options("euler", DT, current=current, start="zero"))
    equal(Model(graph, DT, current=current), found, {"input": spikes(generator, 60, *shape)})
    assert any(f"adds the {current} current" in note for note in found.notes)


def test_if_per_step_and_per_time(path: Path) -> None:
    generator = np.random.default_rng(4)
    ones = np.ones(5)
    graph = write(
        path,
        *chain(
            ("input", nir.Input(np.array([5]))),
            ("if", nir.IF(r=ones, v_threshold=3 * ones, v_reset=-ones)),
            ("output", nir.Output(np.array([5]))),
        ),
    )
    x = {"input": spikes(generator, 50, 5)}
    equal(Model(graph, DT, per_step=True), read(path, Options(r="step", start="zero")), x)
    equal(Model(graph, 0.5), read(path, Options(dt=0.5, r="written", start="zero")), {"input": 4 * x["input"]})


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
def test_convolutions_as_torch_runs_them(path: Path) -> None:
    """Kernels that are not square, groups, 'same' with even kernels and gaps, strides, one axis and two."""
    generator = np.random.default_rng(5)
    for index, (shape, arriving, how) in enumerate(
        [
            ((4, 2, 3, 5), (2, 9, 8), {"padding": (1, 2), "stride": (2, 1)}),
            ((6, 1, 3, 3), (3, 7, 7), {"groups": 3, "padding": 1}),
            ((4, 2, 2, 4), (2, 6, 5), {"padding": "same"}),
            ((2, 2, 4, 3), (2, 9, 9), {"padding": "same", "dilation": (3, 2)}),
            ((2, 2, 3, 2), (2, 9, 9), {"padding": "valid", "dilation": (2, 1)}),
            ((3, 2, 4), (2, 11), {"padding": "same"}),
            ((3, 1, 3), (3, 11), {"groups": 3, "stride": 2, "padding": 2}),
        ]
    ):
        size = arriving[1:] if len(arriving) == 3 else arriving[1]
        node = conv(generator, *shape, input_shape=size, **how)
        file = path.with_name(f"{index}.nir")
        nodes, edges = chain(("input", nir.Input(np.array(arriving))), ("conv", node), ("output", nir.Output(None)))
        graph = nir.NIRGraph(nodes=nodes, edges=edges, type_check=False)
        graph.nodes["output"].output_type = {"output": np.array([0])}
        x = {"input": spikes(generator, 2, *arriving)}
        sent = Model(graph, DT).run(x)["conv"]
        graph.nodes["output"].output_type = {"output": np.array(sent.shape[1:])}
        nir.write(file, graph)
        found = read(file)
        op = found.graph.nodes["conv"]
        assert isinstance(op, Conv)
        for step in range(2):
            np.testing.assert_array_equal(
                reference.apply_linear(found.graph, "conv", x["input"][step][None])[0], sent[step]
            )


def test_pools_scales_and_views(path: Path) -> None:
    generator = np.random.default_rng(6)
    scale = generator.integers(-4, 5, (2, 4, 5)) / 4
    graph = write(
        path,
        *chain(
            ("input", nir.Input(np.array([2, 8, 9]))),
            ("sum", nir.SumPool2d(np.array([2, 3]), np.array([2, 2]), np.array([0, 1]))),
            ("scale", nir.Scale(scale)),
            ("mean", nir.AvgPool2d(np.array([2, 2]), np.array([1, 1]), np.array([1, 0]))),
            ("rows", nir.Flatten(np.array([2, 5, 4]), 1, 2)),
            ("lif", lif((2, 20))),
            ("output", nir.Output(np.array([2, 20]))),
        ),
    )
    equal(Model(graph, DT), read(path), {"input": spikes(generator, 30, 2, 8, 9)})


def test_a_flatten_that_counts_the_batch_is_known_by_what_follows(path: Path) -> None:
    generator = np.random.default_rng(7)
    nodes, edges = chain(
        ("input", nir.Input(np.array([2, 3, 3]))),
        ("flatten", nir.Flatten(np.array([2, 3, 3]), 1, -1)),
        ("fc", affine(generator, 4, 18)),
        ("lif", lif((4,))),
        ("output", nir.Output(np.array([4]))),
    )
    nir.write(path, nir.NIRGraph(nodes=nodes, edges=edges, type_check=False))
    found = read(path)
    assert any("flatten" in note and "its start_dim 1 counts the batch" in note for note in found.notes)
    nodes["flatten"] = nir.Flatten(np.array([2, 3, 3]), 0, -1)
    graph = nir.NIRGraph(nodes=nodes, edges=edges)
    equal(Model(graph, DT), found, {"input": spikes(generator, 40, 2, 3, 3)})


def test_a_loop_of_one_population_and_delays(path: Path) -> None:
    """Feedback through weights with a bias, and delays that differ from neuron to neuron, to the last bit."""
    generator = np.random.default_rng(8)
    nodes = {
        "input": nir.Input(np.array([6])),
        "fc": affine(generator, 6, 6),
        "late": nir.Delay(np.array([0, 1, 2, 2, 0, 5]) * DT),
        "lif": lif((6,), v_threshold=0.5),
        "back": affine(generator, 6, 6),
        "output": nir.Output(np.array([6])),
    }
    edges = [("input", "fc"), ("fc", "late"), ("late", "lif"), ("lif", "back"), ("back", "lif"), ("lif", "output")]
    graph = write(path, nodes, edges)
    found = read(path, Options(dt=DT))
    equal(Model(graph, DT, late=frozenset({("back", "lif")})), found, {"input": spikes(generator, 60, 6)})
    assert "the loop back -> lif -> back reaches lif one step late" in found.notes


def test_a_delay_in_a_loop_is_its_delay(path: Path) -> None:
    generator = np.random.default_rng(9)
    nodes = {
        "input": nir.Input(np.array([4])),
        "lif": lif((4,), v_threshold=0.5),
        "late": nir.Delay(np.full(4, DT)),
        "back": affine(generator, 4, 4, 3),
        "output": nir.Output(np.array([4])),
    }
    edges = [("input", "lif"), ("lif", "late"), ("late", "back"), ("back", "lif"), ("lif", "output")]
    write(path, nodes, edges)
    found = read(path, Options(dt=DT))
    del nodes["late"]
    graph = nir.NIRGraph(nodes=nodes, edges=[("input", "lif"), ("lif", "back"), ("back", "lif"), ("lif", "output")])
    equal(Model(graph, DT, late=frozenset({("lif", "back")})), found, {"input": spikes(generator, 60, 4)})
    assert not any("loop" in note for note in found.notes)


@pytest.mark.parametrize("into", ["one", "two"])
def test_a_loop_of_two_populations_takes_its_step_where_it_is_told(path: Path, into: str) -> None:
    generator = np.random.default_rng(10)
    nodes = {
        "input": nir.Input(np.array([4])),
        "one": lif((4,), v_threshold=0.5),
        "there": affine(generator, 4, 4),
        "two": lif((4,), v_threshold=0.25),
        "back": affine(generator, 4, 4),
        "output": nir.Output(np.array([4])),
    }
    edges = [("input", "one"), ("one", "there"), ("there", "two"), ("two", "back"), ("back", "one"), ("two", "output")]
    graph = write(path, nodes, edges)
    late = frozenset({("back", "one") if into == "one" else ("there", "two")})
    equal(Model(graph, DT, late=late), read(path, Options(dt=DT, loop=(into,))), {"input": spikes(generator, 80, 4)})


def test_a_loop_that_leaves_its_step_open_is_refused(path: Path) -> None:
    generator = np.random.default_rng(20)
    cells = {"one": lif((4,)), "there": affine(generator, 4, 4), "two": lif((4,)), "back": affine(generator, 4, 4)}
    nodes = {"input": nir.Input(np.array([4])), **cells, "output": nir.Output(np.array([4]))}
    edges = [("input", "one"), ("one", "there"), ("there", "two"), ("two", "back"), ("back", "one"), ("two", "output")]
    write(path, nodes, edges)
    with pytest.raises(ReadError, match=r"where the loop through one, two takes its step.*--nir loop=one"):
        read(path)
    with pytest.raises(ReadError, match="no node 'three' "):
        read(path, Options(loop=("three",)))
    write(path, nodes, [edge for edge in edges if edge != ("back", "one")])
    with pytest.raises(ReadError, match="has no loop without a delay"):
        read(path, Options(loop=("one",)))


def test_nested_graphs_are_one_graph(path: Path) -> None:
    """A recurrent cell in a graph of its own, in a graph of its own."""
    generator = np.random.default_rng(11)
    cell = {
        "input": nir.Input(np.array([5])),
        "lif": lif((5,), v_threshold=0.5),
        "w": nir.Linear(affine(generator, 5, 5).weight),
        "output": nir.Output(np.array([5])),
    }
    inner = nir.NIRGraph(nodes=cell, edges=[("input", "lif"), ("lif", "w"), ("w", "lif"), ("lif", "output")])
    ends = {"input": nir.Input(np.array([5])), "output": nir.Output(np.array([5]))}
    outer = nir.NIRGraph(nodes={**ends, "cell": inner}, edges=[("input", "cell"), ("cell", "output")])
    fc = affine(generator, 5, 3)
    nodes = {"input": nir.Input(np.array([3])), "fc": fc, "net": outer, "output": nir.Output(np.array([5]))}
    write(path, nodes, [("input", "fc"), ("fc", "net"), ("net", "output")])
    found = read(path)
    assert set(found.graph.nodes) == {"input", "fc", "net.cell.lif", "net.cell.w", "output"}
    flat = nir.NIRGraph(
        nodes={"input": nir.Input(np.array([3])), "fc": fc, "net.cell.lif": cell["lif"], "net.cell.w": cell["w"]}
        | {"output": nir.Output(np.array([5]))},
        edges=[
            *(("input", "fc"), ("fc", "net.cell.lif"), ("net.cell.lif", "net.cell.w")),
            *(("net.cell.w", "net.cell.lif"), ("net.cell.lif", "output")),
        ],
    )
    late = frozenset({("net.cell.w", "net.cell.lif")})
    equal(Model(flat, DT, late=late), found, {"input": spikes(generator, 60, 3)})


def test_edges_add_and_several_inputs_and_outputs(path: Path) -> None:
    generator = np.random.default_rng(12)
    nodes = {
        "left": nir.Input(np.array([4])),
        "right": nir.Input(np.array([3])),
        "fc": affine(generator, 4, 3),
        "one": lif((4,)),
        "two": lif((4,), v_threshold=0.5),
        "first": nir.Output(np.array([4])),
        "second": nir.Output(np.array([4])),
    }
    edges = [("left", "one"), ("right", "fc"), ("fc", "one"), ("one", "two"), ("left", "two")]
    graph = write(path, nodes, [*edges, ("one", "first"), ("two", "second")])
    x = {"left": spikes(generator, 50, 4), "right": spikes(generator, 50, 3)}
    equal(Model(graph, DT), read(path), x)


def test_an_edge_that_stands_twice_counts_twice(path: Path) -> None:
    generator = np.random.default_rng(13)
    ends = {"input": nir.Input(np.array([4])), "output": nir.Output(np.array([4]))}
    nodes = {**ends, "lif": lif((4,), v_threshold=1.5)}
    graph = nir.NIRGraph(nodes=nodes, edges=[("input", "lif"), ("input", "lif"), ("lif", "output")], type_check=False)
    nir.write(path, graph)
    found = read(path)
    equal(Model(graph, DT), found, {"input": spikes(generator, 50, 4)})
    assert any("the edge input -> lif stands 2 times and counts so often" in note for note in found.notes)


@pytest.mark.parametrize("back", [None, "scale", "weights"])
def test_a_potential_and_its_threshold_are_a_neuron(path: Path, back: str | None) -> None:
    """LI -> Threshold has no reset; a Scale back makes it a soft one; other weights back are recurrent synapses."""
    generator = np.random.default_rng(14)
    nodes: Nodes = {
        "input": nir.Input(np.array([5])),
        "fc": affine(generator, 5, 5),
        "li": nir.LI(tau=np.full(5, 4 * DT), r=np.full(5, 4.0), v_leak=np.zeros(5)),
        "fires": nir.Threshold(np.array([0.5, 1.0, 1.5, 0.25, 0.75])),
        "output": nir.Output(np.array([5])),
    }
    edges = [("input", "fc"), ("fc", "li"), ("li", "fires"), ("fires", "output")]
    late: frozenset[tuple[str, str]] = frozenset()
    if back:
        amounts = np.array([0.5, 1.0, 2.0, 0.25, 1.5])
        nodes["back"] = nir.Scale(-0.75 * amounts) if back == "scale" else affine(generator, 5, 5)
        edges += [("fires", "back"), ("back", "li")]
        late = frozenset({("back", "li")})
    graph = write(path, nodes, edges)
    found = read(path)
    expected = Model(graph, DT, late=late).run(x := {"input": spikes(generator, 80, 5)})["fires"]
    trace = played(found, x)
    np.testing.assert_array_equal(trace.spikes["li"][0], expected.astype(bool))
    assert 0.02 < expected.mean() < 0.9
    neuron = found.graph.nodes["li"]
    assert isinstance(neuron, Neuron)
    assert isinstance(neuron.reset, By)
    assert set(found.graph.nodes) == {"input", "fc", "li", "output"} | ({"back"} if back == "weights" else set())
    if back == "scale":
        np.testing.assert_array_equal(neuron.reset.amount, amounts)


def test_a_threshold_alone_keeps_nothing(path: Path) -> None:
    generator = np.random.default_rng(15)
    graph = write(
        path,
        *chain(
            ("input", nir.Input(np.array([5]))),
            ("fc", affine(generator, 6, 5)),
            ("step", nir.Threshold(np.full(6, 0.5))),
            ("output", nir.Output(np.array([6]))),
        ),
    )
    equal(Model(graph, DT), read(path), {"input": spikes(generator, 40, 5)})


@pytest.mark.parametrize("leaky", [True, False])
def test_a_potential_at_the_end_is_a_readout(path: Path, leaky: bool) -> None:
    generator = np.random.default_rng(16)
    last: Any = nir.I(r=np.full(3, 1 / DT))
    if leaky:
        last = nir.LI(tau=np.full(3, 4 * DT), r=np.full(3, 2.0), v_leak=np.full(3, 0.5))
    graph = write(
        path,
        *chain(
            ("input", nir.Input(np.array([5]))),
            ("fc", affine(generator, 4, 5)),
            ("lif", lif((4,))),
            ("w", affine(generator, 3, 4)),
            ("last", last),
            ("output", nir.Output(np.array([3]))),
        ),
    )
    found = read(path, Options("euler", DT, start="zero"))
    x = {"input": spikes(generator, 50, 5)}
    trace = equal(Model(graph, DT), found, x)
    np.testing.assert_array_equal(trace.potentials["last"][0], Model(graph, DT).run(x)["last"])
    op = found.graph.nodes["last"]
    assert isinstance(op, Readout)
    assert (op.kind, op.decay) == (("weighted", 0.75) if leaky else ("sum", 1.0))


def test_an_integrator_in_front_of_neurons_is_their_current(path: Path) -> None:
    """LI -> weights -> LIF, as some write CubaLIF; with a bias between them the value is analog, and refused."""
    generator = np.random.default_rng(18)
    nodes: Nodes = {
        "input": nir.Input(np.array([5])),
        "fc": affine(generator, 4, 5),
        "li": nir.LI(tau=np.full(4, 2 * DT), r=np.array([1.0, 2.0, 4.0, 0.5]), v_leak=np.zeros(4)),
        "w": nir.Linear(affine(generator, 3, 4).weight),
        "lif": lif((3,), v_threshold=0.5),
        "output": nir.Output(np.array([3])),
    }
    edges = list(pairwise(nodes))
    graph = write(path, nodes, edges)
    options = Options("euler", DT, r="written")
    found = read(path, options)
    neuron = found.graph.nodes["lif"]
    assert isinstance(neuron, Neuron)
    assert neuron.alpha == 0.5
    equal(Model(graph, DT), found, {"input": spikes(generator, 60, 5)})


def test_a_potential_that_goes_on_is_read_as_it_is(path: Path) -> None:
    """LI and I in front of weights that add a bias, of a skip, of each other: analog values that populations hear."""
    generator = np.random.default_rng(31)
    r = np.array([1.0, 2.0, 4.0, 0.5])
    nodes: Nodes = {
        "input": nir.Input(np.array([5])),
        "before": affine(generator, 4, 5),
        "li": nir.LI(tau=np.full(4, 2 * DT), r=r, v_leak=np.full(4, 0.25)),
        "w": affine(generator, 3, 4),
        "i": nir.I(r=np.full(3, 0.25 / DT)),
        "lif": lif((3,), v_threshold=0.5),
        "skip": affine(generator, 3, 5),
        "output": nir.Output(np.array([3])),
    }
    edges = [*pairwise([name for name in nodes if name != "skip"]), ("input", "skip"), ("skip", "lif")]
    graph = write(path, nodes, edges)
    found = read(path, Options("euler", DT, r="written", start="zero"))
    held = [found.graph.nodes[name] for name in ("li", "i")]
    assert [(op.kind, op.decay) for op in held if isinstance(op, Readout)] == [("weighted", 0.5), ("sum", 1.0)]
    equal(Model(graph, DT), found, {"input": spikes(generator, 60, 5)})


def test_coupled_integrators_resonate(path: Path) -> None:
    """A loop of two LI through Delay nodes, with no population in it; its threshold is one."""
    generator = np.random.default_rng(32)
    leak = {"tau": np.full(2, 4 * DT), "r": np.full(2, 4.0), "v_leak": np.zeros(2)}
    turn = {"back": -0.5, "forth": 0.5}
    nodes: Nodes = {
        "input": nir.Input(np.array([3])),
        "w": nir.Linear(affine(generator, 2, 3).weight),
        "re": nir.LI(**leak),
        "im": nir.LI(**leak),
        **{name: nir.Scale(np.full(2, factor)) for name, factor in turn.items()},
        **{f"{name}_late": nir.Delay(np.full(2, DT)) for name in turn},
        "fires": nir.Threshold(np.full(2, 0.75)),
        "output": nir.Output(np.array([2])),
    }
    edges = [("input", "w"), ("w", "re"), ("re", "fires"), ("fires", "output")]
    edges += [("re", "forth"), ("forth", "forth_late"), ("forth_late", "im")]
    edges += [("im", "back"), ("back", "back_late"), ("back_late", "re")]
    write(path, nodes, edges)
    found = read(path, Options())
    x = spikes(generator, 40, 3)
    re = im = np.zeros(2)
    expected = []
    for now in x:
        given = nodes["w"].weight.astype(np.float64) @ now
        re, im = 0.75 * re - 0.5 * im + given, 0.75 * im + 0.5 * re
        expected.append(re > 0.75)
    assert 0.1 < np.mean(expected) < 0.9
    np.testing.assert_array_equal(played(found, {"input": x}).spikes["fires"][0], expected)


@pytest.mark.parametrize("readout", [None, "sum", "last"])
def test_weights_at_the_end_are_read_as_is_said(path: Path, readout: Any) -> None:
    generator = np.random.default_rng(19)
    ends = {"input": nir.Input(np.array([5])), "output": nir.Output(np.array([3]))}
    nodes = {"input": ends["input"], "lif": lif((5,), v_threshold=0.5), "fc": affine(generator, 3, 5), **ends}
    graph = write(path, nodes, [("input", "lif"), ("lif", "fc"), ("fc", "output")])
    found = read(path, Options(readout=readout))
    x = {"input": spikes(generator, 30, 5)}
    trace, sent = equal(Model(graph, DT), found, x), Model(graph, DT).run(x)["output"]
    assert set(trace.potentials) == {"lif"} | ({"output_readout"} if readout else set())
    if readout:
        expected = sent if readout == "last" else np.cumsum(sent, axis=0)
        np.testing.assert_array_equal(trace.potentials["output_readout"][0], expected)


def test_scalars_and_what_older_files_lack(path: Path) -> None:
    """Parameters of one number, a v_reset that is missing, no type check, no Input and no Output."""
    import h5py

    generator = np.random.default_rng(17)
    graph = write(
        path,
        *chain(
            ("input", nir.Input(np.array([5]))),
            ("fc", affine(generator, 4, 5)),
            ("lif", lif((4,), v_threshold=0.5)),
            ("output", nir.Output(np.array([4]))),
        ),
    )
    with h5py.File(path, "a") as file:
        node = file["node/nodes/lif"]
        for key in ("tau", "r", "v_leak", "v_threshold"):
            value = node[key][()].flat[0]
            del node[key]
            node[key] = value if key != "r" else np.array([value])
        del node["v_reset"], file["node/nodes/input"], file["node/nodes/output"], file["node/edges"], file["version"]
        file["version"] = "0.1"
        file["node"].create_dataset("edges", data=[("fc", "lif")], dtype=h5py.string_dtype())
    found = read(path)
    assert found.notes[0] == "written by NIR 0.1"
    trace = reference.run(found.graph, {"input_fc": (x := spikes(generator, 40, 5))[None]})
    np.testing.assert_array_equal(trace.spikes["lif"][0], Model(graph, DT).run({"input": x})["lif"].astype(bool))


@given(st.data())
def test_random_chains_fire_as_their_equations_say(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Layers, neurons and dialects drawn at random; every spike and every sum in dyadic numbers."""
    generator = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    pick = data.draw
    unit = pick(st.booleans(), "r = 1")
    shape: tuple[int, ...] = (2, 5, 4)
    nodes: Nodes = {"input": nir.Input(np.array(shape))}
    edges: Edges = []

    def add(name: str, node: Any) -> str:
        edges.append((list(nodes)[-1], name))
        nodes[name] = node
        return name

    for index in range(pick(st.integers(1, 3), "layers")):
        if len(shape) == 3 and pick(st.booleans(), "conv"):
            kernel, padding = pick(st.sampled_from([(3, 3), (1, 1)]), "kernel"), pick(st.integers(0, 1), "padding")
            if min(size + 2 * padding - kernel[0] + 1 for size in shape[1:]) < 1:
                continue
            out = pick(st.integers(1, 3), "channels")
            add(f"conv{index}", conv(generator, out, shape[0], *kernel, padding=padding))
            shape = (out, *(size + 2 * padding - kernel[0] + 1 for size in shape[1:]))
        else:
            if len(shape) == 3:
                add(f"flat{index}", nir.Flatten(np.array(shape), 0, -1))
            add(f"fc{index}", affine(generator, 4, int(np.prod(shape))))
            shape = (4,)
        decay = pick(st.sampled_from([0.5, 0.75]), "decay")
        r = 1.0 if unit else None
        add(f"lif{index}", lif(shape, decay=decay, r=r, v_threshold=pick(st.sampled_from([0.25, 0.5]), "threshold")))
        if pick(st.booleans(), "again"):
            nodes[f"again{index}"] = nir.Scale(generator.integers(-4, 5, shape) / 4)
            edges += [(f"lif{index}", f"again{index}"), (f"again{index}", f"lif{index}")]
            add_to = nodes.pop(f"lif{index}")
            nodes[f"lif{index}"] = add_to  # the next layer reads the neurons
    if len(nodes) == 1:
        return
    edges.append((list(nodes)[-1], "output"))
    nodes["output"] = nir.Output(np.array(shape))
    file = tmp_path_factory.mktemp("random") / "net.nir"
    graph = write(file, nodes, edges)
    late = frozenset((source, target) for source, target in edges if source.startswith("again"))
    found = read(file, Options("euler", DT) if unit else None)
    expected = Model(graph, DT, late=late).run(x := {"input": spikes(generator, 12, 2, 5, 4)})
    for name, array in played(found, x).spikes.items():
        np.testing.assert_array_equal(array[0], expected[name].astype(bool), err_msg=name)


def test_metadata_of_ours_count_as_long_as_they_are_of_these_numbers(path: Path) -> None:
    """To the last bit and with what the numbers cannot say; other options, and other numbers, are refused."""
    import h5py

    generator = np.random.default_rng(21)
    nodes, edges = chain(
        ("input", nir.Input(np.array([4]))),
        ("fc", affine(generator, 3, 4)),
        ("lif", lif((3,), decay=0.9)),
        ("output", nir.Output(np.array([3]))),
    )
    write(path, nodes, edges)
    plain, net = read(path), read_net(path)[0]
    meant = plain.graph.edit({"input": Input((4,), Spike()), "lif": replace(plain.graph.nodes["lif"], fires=">=")})  # type: ignore[type-var]
    with h5py.File(path, "a") as file:
        file["node/metadata/snncompile"] = pack(meant, net, dt=DT, profile="canonical", steps=5)
    found = read(path)
    assert to_text(found.graph) == to_text(meant)
    assert (found.dt, found.steps, found.semantics) == (DT, 5, "euler")
    assert to_text(read(path, Options("euler", DT)).graph) == to_text(meant)
    assert to_text(read(path, Options(metadata="ignore")).graph) == to_text(plain.graph)
    for options, said in (
        (Options(dt=1.0), r"\(dt\)"),
        (Options("exact"), r"\(semantics\)"),
        (Options(fires="gt", start="zero"), r"\(start, fires\)"),
    ):
        with pytest.raises(ReadError, match=f"the options say more or other {said}.*--nir metadata=ignore"):
            read(path, options)
    with h5py.File(path, "a") as file:
        file["node/nodes/fc/weight"][0, 0] += 1
    with pytest.raises(ReadError, match="its metadata are those of other numbers"):
        read(path)
    assert read(path, Options(metadata="ignore")).graph
