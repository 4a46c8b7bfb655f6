"""Networks as NIR and back: to the last bit with the metadata, the same numbers without; what cannot be said is refused
by name.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import h5py
import nir
import numpy as np
import pytest
from hypothesis import given, settings

from snncompile.backends.nir_file import write
from snncompile.backends.nir_lowering import lower, without_norms
from snncompile.backends.nir_nodes import Written, near, written
from snncompile.backends.nir_profiles import PROFILES, Profile, profile_of
from snncompile.errors import LoweringError, NotRepresentable, ReadError
from snncompile.frontends.nir import read
from snncompile.frontends.nir_file import read_net
from snncompile.frontends.nir_metadata import fingerprint, pack, unpack
from snncompile.frontends.nir_options import Options
from snncompile.frontends.nir_record import Node
from snncompile.frontends.nir_time import inverse
from snncompile.ir.graph import Edge, Graph
from snncompile.ir.ops import (
    By,
    Conv,
    Dense,
    Flatten,
    Input,
    Neuron,
    Output,
    Pool,
    Readout,
    Scale,
    SigmaDelta,
    To,
    number,
    real,
)
from snncompile.ir.text import same
from snncompile.run import reference
from snncompile.run.trace import Trace
from tests.graphs import Case, read_cases
from tests.nir_networks import NETWORKS, Torch, conv_net, lif, recurrent, stimulus, two_in_a_loop

CANONICAL = PROFILES["canonical"]


def exported(graph: Graph, path: Path, profile: Profile = CANONICAL, *, soft: bool = True) -> tuple[Graph, Written]:
    """The file of a graph; the lowered graph and what was written down of it."""
    lowered = lower(graph, profile, soft=soft)
    made = written(lowered, profile)
    write(made.net, path, pack(without_norms(graph), made.net, dt=profile.dt, profile=profile.name, steps=12))
    return lowered, made


def alone(path: Path, profile: Profile) -> Graph:
    """What the numbers of a file say, without a look at the metadata."""
    step = "step" if profile.gain == "1" else None
    return read(path, Options(metadata="ignore", dt=profile.dt, semantics="euler", start="zero", r=step)).graph


def run_as(made: Written, graph: Graph, given: dict[str, np.ndarray]) -> Trace:  # type: ignore[type-arg]
    """A graph that bears the names of a file, its trace by those of the network."""
    trace = reference.run(graph, {made.names[name]: x for name, x in given.items()})
    back = {made.names[name]: name for name in made.spikes}
    return Trace(
        {back[name]: array for name, array in trace.spikes.items()},
        {back[name]: array for name, array in trace.potentials.items() if name in back},
    )


# Round trips


@pytest.mark.parametrize("name", NETWORKS)
def test_torch_to_nir_to_here(name: str, tmp_path: Path) -> None:
    """Every spike of a torch loop written by hand, from the file with its metadata and from its numbers alone."""
    graph = NETWORKS[name]()
    x = stimulus(graph)
    spikes = Torch(graph).spikes(x)
    assert all(0 < array.mean() < 0.9 for array in spikes.values())
    _, made = exported(graph, tmp_path / "net.nir")
    assert same(read(tmp_path / "net.nir").graph, without_norms(graph))
    assert made.notes == ()
    nir.read(tmp_path / "net.nir")  # its own type check
    found = run_as(made, alone(tmp_path / "net.nir", CANONICAL), {"input": x})
    for population, array in spikes.items():
        np.testing.assert_array_equal(found.spikes[population], array, err_msg=population)


@settings(max_examples=60, deadline=None)
@given(case=read_cases(rich=True))
def test_random_networks(case: Case, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The graph with the metadata; without them the lowered graph, to the last bit of every potential; its spikes are
    those of the network.
    """
    path = tmp_path_factory.mktemp("random") / "net.nir"
    neurons = {name: op for name, op in case.graph.nodes.items() if isinstance(op, Neuron)}
    start = {name: replace(op, initial=op.rest) for name, op in neurons.items()}  # others are refused
    case = Case(case.graph.edit(start), case.stimulus)
    for profile in (CANONICAL, PROFILES["unit-r"]):
        try:
            lowered, made = exported(case.graph, path, profile)
        except LoweringError:
            continue
        assert same(read(path).graph, without_norms(case.graph))
        expected = reference.run(lowered, case.stimulus)
        found = run_as(made, alone(path, profile), case.stimulus)
        maxima = set(case.graph.names(Pool))  # which are read as what they are, and not as populations
        for name in made.spikes.keys() - maxima:
            np.testing.assert_array_equal(found.spikes[name], expected.spikes[name], err_msg=name)
            np.testing.assert_array_equal(found.potentials[name], expected.potentials[name], err_msg=name)
        before = reference.run(case.graph, case.stimulus)
        assert all(np.array_equal(before.spikes[name], expected.spikes[name]) for name in before.spikes)


def test_equal_networks_make_equal_files(tmp_path: Path) -> None:
    exported(conv_net(), tmp_path / "one.nir")
    exported(conv_net(), tmp_path / "two.nir")
    assert (tmp_path / "one.nir").read_bytes() == (tmp_path / "two.nir").read_bytes()


def test_every_decay_of_float32_comes_back(tmp_path: Path) -> None:
    decays = np.random.default_rng(0).uniform(0.01, 0.99, 4000).astype(np.float32).astype(np.float64)
    beta = 1.0 - decays
    found = near(1.0 / beta, lambda r: inverse(r) == beta)
    np.testing.assert_array_equal(inverse(found), beta)


def test_a_number_without_an_inverse_is_told() -> None:
    """One float64 decay in some has no r; the metadata hold it, and a note says so."""
    beta = np.nextafter(0.9, np.arange(2), dtype=np.float64)
    beta = np.concatenate([beta, np.linspace(0.81, 0.99, 200)])
    graph = conv_net().edit({"lif2": lif(10), "lif1": lif(8, 8, 8, beta=np.resize(beta, (8, 8, 8)))})
    made = written(lower(graph, CANONICAL), CANONICAL)
    r = made.net.nodes["lif1"].fields["r"]  # type: ignore[union-attr]
    wrong = int(np.sum(inverse(r) != np.resize(beta, (8, 8, 8))))  # type: ignore[arg-type]
    assert bool(wrong) == bool(made.notes)
    assert all(f"beta of {wrong} neurons is one unit of float64 off" in note for note in made.notes)


# What stands in a file


def test_a_small_file(tmp_path: Path) -> None:
    """Layout and numbers, as any HDF5 library shows them."""
    graph = Graph(
        {"x": Input((2,)), "fc.1": Dense(np.eye(2), [0.5, 0.0]), "n": lif(2, threshold=number(2.0)), "out": Output()},
        [Edge("x", "fc.1"), Edge("fc.1", "n"), Edge("n", "out")],
    )
    exported(graph, tmp_path / "net.nir")
    lines = []
    with h5py.File(tmp_path / "net.nir") as file:

        def show(name: str, item: object) -> None:
            if isinstance(item, h5py.Dataset) and "metadata" not in name:
                value = item[()]
                lines.append(f"{name} {value.tolist() if isinstance(value, np.ndarray) else value}")

        file.visititems(show)
    below = float(np.nextafter(2.0, 0.0))
    assert lines == [
        "node/edges [[b'x', b'fc_1'], [b'fc_1', b'n'], [b'n', b'out']]",
        "node/nodes/fc_1/bias [0.5, 0.0]",
        "node/nodes/fc_1/type b'Affine'",
        "node/nodes/fc_1/weight [[1.0, 0.0], [0.0, 1.0]]",
        "node/nodes/n/r [2.0, 2.0]",
        "node/nodes/n/tau [0.0002, 0.0002]",
        "node/nodes/n/type b'LIF'",
        "node/nodes/n/v_leak [0.0, 0.0]",
        "node/nodes/n/v_reset [0.0, 0.0]",
        f"node/nodes/n/v_threshold [{below}, {below}]",
        "node/nodes/out/shape [2]",
        "node/nodes/out/type b'Output'",
        "node/nodes/x/shape [2]",
        "node/nodes/x/type b'Input'",
        "node/type b'NIRGraph'",
        "version b'1.0.8'",
    ]


def kinds(graph: Graph, profile: str, *, soft: bool = False) -> dict[str, str]:
    net = written(lower(graph, PROFILES[profile], soft=soft), PROFILES[profile]).net
    return {name: node.kind for name, node in net.nodes.items() if isinstance(node, Node)}


def test_a_soft_reset_is_a_loop_of_nodes(tmp_path: Path) -> None:
    graph = conv_net(reset=By(number(0.75)))
    _, made = exported(graph, tmp_path / "net.nir")
    found = kinds(graph, "canonical", soft=True)
    assert [found[name] for name in ("lif2", "lif2_spike", "lif2_reset")] == ["LI", "Threshold", "Scale"]
    scale = made.net.nodes["lif2_reset"]
    assert isinstance(scale, Node)
    np.testing.assert_array_equal(scale.fields["scale"], -0.375)
    back = alone(tmp_path / "net.nir", CANONICAL).nodes["lif2"]
    assert isinstance(back, Neuron)
    assert isinstance(back.reset, By)
    assert real(back.reset.amount) == 0.75


def test_what_each_profile_makes_of_a_neuron_without_leak() -> None:
    graph = conv_net(beta=number(0.0))
    found = {profile: kinds(graph, profile)["lif2"] for profile in ("canonical", "spikingjelly", "norse", "snntorch")}
    assert found == {"canonical": "IF", "spikingjelly": "IF", "norse": "IF", "snntorch": "LIF"}
    pools = {profile: kinds(graph, profile)["pool"] for profile in ("canonical", "snntorch", "norse")}
    assert pools == {"canonical": "AvgPool2d", "snntorch": "AvgPool2d", "norse": "Conv2d"}


def test_thresholds_are_numbers_next_to_the_tie() -> None:
    """In the type and under the comparison of the readers."""
    one, half = np.float32(1.0), np.float32(0.5)
    expected = {
        ("canonical", ">="): np.nextafter(1.0, 0.0),
        ("canonical", ">"): 1.0,
        ("snntorch", ">="): float(np.nextafter(one, np.float32(0))),
        ("snntorch", ">"): 1.0,
        ("spikingjelly", ">="): 1.0,
        ("spikingjelly", ">"): float(np.nextafter(one, np.float32(2))),
        ("norse", ">="): float(np.nextafter(half, np.float32(0))),  # r = 1: thresholds count dt/tau
        ("norse", ">"): 0.5,
    }
    for (profile, fires), threshold in expected.items():
        op = lower(conv_net(fires=fires), PROFILES[profile]).nodes["lif2"]
        assert isinstance(op, Neuron)
        assert real(op.threshold) == threshold, (profile, fires)


def test_where_delays_stand() -> None:
    """A loop of one population needs no node for its delay; one of two does, where no reader has to guess."""
    assert "Delay" not in kinds(recurrent(), "canonical").values()
    assert kinds(two_in_a_loop(), "canonical")["back_late1"] == "Delay"
    assert "Delay" not in kinds(two_in_a_loop(), "spikingjelly").values()
    assert kinds(recurrent(), "snntorch")["back_pass"] == "Linear"  # longer than the loop that it reads wrongly
    early = recurrent()
    edges = [replace(e, delay=1) if e.source == "lif1" and e.target == "back" else e for e in early.edges]
    edges = [replace(e, delay=0) if e.source == "back" else e for e in edges]
    moved = lower(Graph(early.nodes, edges), PROFILES["spikingjelly"])
    assert [(e.source, e.target) for e in moved.edges if e.delay] == [("back", "lif1")]


def test_an_edge_that_stands_twice_is_a_factor(tmp_path: Path) -> None:
    graph = conv_net()
    graph = Graph(graph.nodes, [*graph.edges, Edge("conv", "lif1")])
    x = stimulus(graph)
    _, made = exported(graph, tmp_path / "net.nir")
    found = run_as(made, alone(tmp_path / "net.nir", CANONICAL), {"input": x})
    assert np.array_equal(found.spikes["lif1"], Torch(graph).spikes(x)["lif1"])
    assert "Scale" in kinds(graph, "canonical").values()
    assert "Scale" not in kinds(graph, "spikingjelly").values()


def test_read_outs(tmp_path: Path) -> None:
    """A mean is a plain output and stands in the metadata; a weighted one is an LI, and its numbers say it."""
    plain = conv_net()
    nodes = {**plain.nodes, "read": Readout((5,), "mean", [0.5, 0, 0, 0, 0.25])}
    edges = [e for e in plain.edges if e.target != "output"] + [Edge("fc2", "read"), Edge("read", "output")]
    graph = Graph(nodes, edges)
    exported(graph, tmp_path / "mean.nir")
    assert same(read(tmp_path / "mean.nir").graph, graph)
    bias = alone(tmp_path / "mean.nir", CANONICAL).nodes["fc2"]
    assert isinstance(bias, Dense)
    fc2 = plain.nodes["fc2"]
    assert isinstance(fc2, Dense)
    np.testing.assert_array_equal(real(bias.bias), real(fc2.bias) + np.array([0.5, 0, 0, 0, 0.25]))  # type: ignore[arg-type]
    weighted = graph.edit({"read": Readout((5,), "weighted", decay=0.75)})
    exported(weighted, tmp_path / "weighted.nir")
    found = alone(tmp_path / "weighted.nir", CANONICAL).nodes["read"]
    assert isinstance(found, Readout)
    assert (found.kind, found.decay) == ("weighted", 0.75)
    with pytest.raises(NotRepresentable, match=r"read .*is a weighted read-out"):
        lower(weighted, PROFILES["snntorch"])


# Refusals


REFUSED = [
    ("canonical", conv_net(initial=number(0.5)), "lif1 .*starts at another potential"),
    ("canonical", conv_net(reset=By(number(1.0))), "lif1 .*reset by subtraction.*--soft-reset graph"),
    ("canonical", conv_net(beta=number(1.5)), "lif1 .*beta is outside 0 .. 1"),
    ("canonical", conv_net(bias=np.arange(512.0).reshape(8, 8, 8)).edit({"lif2": lif(10)}), "bias differs inside"),
    ("snntorch", NETWORKS["reset to -0.5"](), "lif1 .*reset to -0.5.*leave v_reset out"),
    ("snntorch", NETWORKS["decay and threshold per channel"](), "lif1 .*v_threshold differs.*one v_threshold"),
    ("spikingjelly", NETWORKS["decay per channel"](), "lif1 .*tau differs from neuron to neuron"),
    ("spikingjelly", conv_net(beta=number(1.0)), "lif1 .*forgets within a step"),
    ("norse", NETWORKS["soft reset"](), "lif1 .*reset by subtraction.*read no Threshold"),
    ("sinabs", conv_net(), r"lif1 .*leaky population of shape \[8, 8, 8\]"),
    ("sinabs", conv_net(beta=number(0.0)), "lif1 .*reset to a value.*subtract the threshold"),
    ("sinabs", conv_net(beta=number(0.0), reset=By(number(0.5))), "another amount than its threshold"),
    ("sinabs", recurrent(), "lif1|back -> lif1"),
]


@pytest.mark.parametrize(("profile", "graph", "message"), REFUSED, ids=[f"{p}: {m[:30]}" for p, _, m in REFUSED])
def test_what_readers_cannot_say_is_refused(profile: str, graph: Graph, message: str) -> None:
    with pytest.raises(NotRepresentable, match=message):
        written(lower(graph, PROFILES[profile]), PROFILES[profile])


def test_kernels_that_no_zeros_make_square() -> None:
    graph = Graph(
        {"input": Input((2, 8, 8)), "conv": Conv(np.ones((1, 2, 3, 2)), None, (1, 1), (1, 0), (1, 1)), "out": Output()},
        [Edge("input", "conv"), Edge("conv", "out")],
    )
    with pytest.raises(NotRepresentable, match="its kernel 3 x 2 cannot be made square"):
        lower(graph, CANONICAL)
    wide = Conv(np.ones((1, 2, 3, 2)), None, (1, 2), (1, 0), (1, 1))  # the stride leaves a column over
    lowered = lower(graph.edit({"conv": wide}), CANONICAL).nodes["conv"]
    assert isinstance(lowered, Conv)
    assert lowered.weight.shape == (1, 2, 3, 3)


def test_other_neurons_and_several_ends() -> None:
    nodes = {"x": Input((2,)), "sd": SigmaDelta((2,)), "out": Output()}
    with pytest.raises(NotRepresentable, match=r"sd \(SigmaDelta\): has no node of NIR"):
        lower(Graph(nodes, [Edge("x", "sd"), Edge("sd", "out")]), CANONICAL)
    graph = conv_net()
    two = Graph({**graph.nodes, "more": Output()}, [*graph.edges, Edge("lif1", "more")])
    assert lower(two, CANONICAL)
    with pytest.raises(NotRepresentable, match=r"1 inputs and 2 outputs"):
        lower(two, PROFILES["snntorch"])
    with pytest.raises(ReadError, match=r"no profile is called 'nengo'.*canonical"):
        profile_of("nengo")


def test_delays_that_readers_do_not_have() -> None:
    graph = conv_net()
    late = Graph(graph.nodes, [replace(e, delay=2) if e.source == "lif1" else e for e in graph.edges])
    assert "Delay" in kinds(late, "canonical").values()
    with pytest.raises(NotRepresentable, match=r"lif1 -> pool: has a delay of 2 steps"):
        lower(late, PROFILES["spikingjelly"])


def test_a_walk_that_would_delay_a_branch_is_refused() -> None:
    """Norse runs nodes in the order of a depth-first walk: what joins two branches of weights runs too early."""
    nodes = {
        "input": Input((3,)),
        "a": lif(3),
        "w1": Dense(np.eye(3)),
        "w2": Dense(np.ones((3, 3))),
        "b": lif(3),
        "output": Output(),
    }
    ways = [("input", "a"), ("a", "w1"), ("a", "w2"), ("w1", "b"), ("w2", "b"), ("b", "output")]
    graph = Graph(nodes, [Edge(*way) for way in ways])
    assert written(lower(graph, PROFILES["spikingjelly"]), PROFILES["spikingjelly"]).late == frozenset()
    with pytest.raises(NotRepresentable, match=r"would be read one step late: .*w2 -> .*b"):
        written(lower(graph, PROFILES["norse"]), PROFILES["norse"])


# The metadata


def test_metadata_are_bound_to_their_numbers(tmp_path: Path) -> None:
    exported(conv_net(), tmp_path / "net.nir")
    with h5py.File(tmp_path / "net.nir", "r+") as file:
        file["node/nodes/fc2/bias"][0] += 1.0
    with pytest.raises(ReadError, match=r"metadata are those of other numbers.*metadata=ignore"):
        read(tmp_path / "net.nir")
    assert alone(tmp_path / "net.nir", CANONICAL)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text[: len(text) // 2], "damaged"),
        (lambda text: "[]", "schema None"),
        (lambda text: text.replace("snncompile.nir/1", "snncompile.nir/9"), "schema 'snncompile.nir/9'"),
        (lambda text: text.replace('"dt": 0.0001', '"dt": -1'), "damaged"),
        (lambda text: text.replace('"Dense"', '"Danse"', 1), "wrong graph|damaged|no op"),
    ],
)
def test_damaged_metadata_are_refused(change: object, message: str, tmp_path: Path) -> None:
    exported(conv_net(), tmp_path / "net.nir")
    net, _ = read_net(tmp_path / "net.nir")
    text = str(net.metadata["snncompile"])
    with pytest.raises(ReadError, match=message):
        unpack(change(text), net, "net.nir")  # type: ignore[operator]


def test_the_fingerprint_sees_every_number(tmp_path: Path) -> None:
    made = written(lower(conv_net(), CANONICAL), CANONICAL)
    before = fingerprint(made.net)
    for name, node in made.net.nodes.items():
        assert isinstance(node, Node)
        for key, value in node.fields.items():
            if isinstance(value, np.ndarray) and value.dtype.kind == "f":
                other = value.copy()
                other.flat[-1] = np.nextafter(other.flat[-1], np.inf)
                nodes = {**made.net.nodes, name: replace(node, fields={**node.fields, key: other})}
                assert fingerprint(replace(made.net, nodes=nodes)) != before, (name, key)


def test_weights_are_held_once(tmp_path: Path) -> None:
    """An array that stands in a field of the file is named, not packed again."""
    exported(conv_net(), tmp_path / "net.nir")
    text = str(read_net(tmp_path / "net.nir")[0].metadata["snncompile"])
    assert '"fc1.weight": {"field": "fc1.weight"}' in text
    assert '"conv.weight": {"field": "conv.weight"}' in text


def test_forms_that_have_no_place() -> None:
    graph = conv_net()
    nodes = {**graph.nodes, "form": Flatten((2, 64))}
    edges = [e for e in graph.edges if e.target != "fc1"] + [Edge("pool", "form"), Edge("form", "fc1")]
    with pytest.raises(NotRepresentable, match=r"form .*gives a vector a form"):
        lower(Graph(nodes, edges), CANONICAL)
    inside = Scale(np.arange(512.0).reshape(8, 8, 8))
    nodes = {**graph.nodes, "factor": inside}
    edges = [e for e in graph.edges if e.target != "lif1"] + [Edge("conv", "factor"), Edge("factor", "lif1")]
    assert lower(Graph(nodes, edges), CANONICAL)
    with pytest.raises(NotRepresentable, match=r"factor .*factors differ inside a channel"):
        lower(Graph(nodes, edges), PROFILES["spikingjelly"])


def test_a_shifted_resting_potential_is_exact(tmp_path: Path) -> None:
    """Readers that leave v_leak out get threshold and reset counted from it."""
    graph = conv_net(rest=number(-0.5), initial=number(-0.5), reset=To(number(-0.5)))
    op = lower(graph, PROFILES["snntorch"]).nodes["lif2"]
    assert isinstance(op, Neuron)
    assert isinstance(op.reset, To)
    assert (real(op.rest), real(op.reset.value)) == (0.0, 0.0)
    assert real(op.threshold) == np.nextafter(np.float32(1.5), np.float32(0))
    x = stimulus(graph)
    one, other = reference.run(graph, {"input": x}), reference.run(lower(graph, PROFILES["snntorch"]), {"input": x})
    assert all(np.array_equal(one.spikes[name], other.spikes[name]) for name in one.spikes)
