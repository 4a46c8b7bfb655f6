"""A small network of every family of the papers, down the whole ladder: the spikes of torch, then bit for bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from snncompile.backends.nir_file import write
from snncompile.backends.nir_gate import Gate
from snncompile.backends.nir_lowering import lower, without_norms
from snncompile.backends.nir_nodes import written
from snncompile.backends.nir_profiles import PROFILES
from snncompile.compile import Compiled, compile_graph, fold, shown
from snncompile.errors import LoopTooShort, NotRepresentable, UnsupportedModule
from snncompile.frontends.nir_metadata import pack
from snncompile.frontends.torch import read_module
from snncompile.ir.connections import connections
from snncompile.ir.ops import By, Conv, Dense, Input, Neuron, Pool, Readout, Scale
from snncompile.ir.signals import Analog, Count, Signal, Signed, Spike
from snncompile.passes.legalise import legalise
from snncompile.recipe import Recipe
from snncompile.target import Target
from snncompile.train.networks import Network, Step
from snncompile.train.recording import record
from snncompile.verify import Ladder
from tests.families import FAMILIES, network, recipe, samples
from tests.on_lava import Device, prove

SOFT = {name for name, tables in FAMILIES.items() if "ide" in tables or "dsr" in tables}
ONE_STEP_LOOPS = {"ide-deep"}  # realised only where a synapse takes no time


def target_of(family: str) -> Target:
    return Target.load("onnx" if family in ONE_STEP_LOOPS else "loihi-custom" if family in SOFT else "loihi")


def lowered(family: str) -> tuple[Network, np.ndarray, Compiled]:
    of = recipe(family)
    made, x = network(of), samples(of, 3)
    graph = read_module(made)
    stimulus = {name: np.asarray(values, dtype=np.float64) for name, values in shown(graph, x, of.steps).items()}
    return made, x, compile_graph(graph, target_of(family), stimulus)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_rung(family: str) -> None:
    made, x, compiled = lowered(family)
    trained = record(made, x)
    for name, spikes in trained.spikes.items():
        assert 0 < spikes.mean() < 1, f"{name} is no test"
    verdicts = {}
    for rung in Ladder(compiled, x, None, trained).rungs(with_lava=False, onnx=True):
        rung.demand()
        verdicts[rung.run_by, rung.level] = rung.verdict
    assert verdicts == {
        ("torch", "checkpoint"): "recorded",
        ("reference", "read"): "same",
        ("reference", "folded"): "same",
        ("integer", "fixed"): "measured",
        ("integer", "timed"): "bit-equal",
        ("cpu", "placed"): "bit-equal",
        ("onnxruntime", "device"): "bit-equal",
    }


@pytest.mark.parametrize("family", FAMILIES)
def test_as_nir(family: str, tmp_path: Path) -> None:
    """Every spike of torch, from the file with its metadata and from its numbers alone."""
    of = recipe(family)
    made, x = network(of), samples(of, 3)
    graph = without_norms(read_module(made))
    stimulus = {name: np.asarray(values, np.float64) for name, values in shown(graph, x, of.steps).items()}
    profile = PROFILES["canonical"]
    lower_ = lower(graph, profile, soft=True)
    file = written(lower_, profile)
    write(file.net, tmp_path / "n.nir", pack(graph, file.net, dt=profile.dt, profile=profile.name, steps=of.steps))
    gate = Gate(tmp_path / "n.nir", file, profile, (graph, lower_), stimulus, record(made, x), trained=True)
    assert [row.verdict for row in gate.rows(importers=())] == ["same", "same"]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_answer_of_torch_is_the_graph_s(family: str) -> None:
    made, x, compiled = lowered(family)
    graph = compiled.levels["read"]
    (name,) = graph.names(Readout)
    op = graph.nodes[name]
    assert isinstance(op, Readout)
    answer = made.predict(torch.from_numpy(x)).detach().numpy()
    sums = record(made, x).potentials[name]
    np.testing.assert_allclose(op.final(sums[:, -1], made.steps), answer, rtol=1e-5, atol=1e-6)


@pytest.mark.lava
@pytest.mark.parametrize("family", ["asf", "dsr-leaky", "ide-convolution"])
def test_on_lava(family: str) -> None:
    """Pool neurons and a maximum; soft resets and a weighted read-out; feedback within one step."""
    _, x, compiled = lowered(family)
    stimulus = {
        name: np.asarray(v, np.float64) for name, v in shown(compiled.levels["read"], x, compiled.steps).items()
    }
    (proven,) = prove([Device.of(compiled, stimulus)], compiled.target)
    assert proven.different == 0
    assert proven.compared > 1000
    assert proven.spikes > 50


# --- ASF --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "signal"),
    [("asf", Spike()), ("asf-signed-leaky", Signed()), ("asf-events", Count(3)), ("idsnn", Analog())],
)
def test_the_input_declares_what_it_carries(family: str, signal: Signal) -> None:
    op = read_module(network(recipe(family))).nodes["input"]
    assert isinstance(op, Input)
    assert op.signal == signal


def test_asf_pools_have_neurons_of_their_own_and_nothing_has_a_bias() -> None:
    made = network(recipe("asf"))
    graph = read_module(made)
    assert [step.name for step in made.plan] == [
        *("conv1", "lif1", "pool1", "pool1_lif", "conv2", "lif2", "pool2"),
        *("flatten", "fc1", "lif3", "fc2", "readout"),
    ]
    pool, after, most = (graph.nodes[name] for name in ("pool1", "pool1_lif", "pool2"))
    assert isinstance(pool, Pool)
    assert isinstance(most, Pool)
    assert isinstance(after, Neuron)
    assert (pool.kind, most.kind) == ("mean", "max")
    assert (float(after.threshold), float(after.beta), after.fires) == (0.75, 0.0, ">")
    assert all(op.bias is None for op in graph.nodes.values() if isinstance(op, Dense | Conv))


def test_pool_neurons_of_asf_count_as_published() -> None:
    """k of 4 inputs that fire at every step give 3, 6, 6, 12 spikes in 12 steps for k = 1 to 4."""
    of = recipe("asf")
    neuron = network(of).modules_of["pool1_lif"]
    means = torch.tensor([0.25, 0.5, 0.75, 1.0]).expand(12, 4)
    assert neuron(means).sum(dim=0).tolist() == [3, 6, 6, 12]


# --- IDE --------------------------------------------------------------------------------------------------------------


def test_a_loop_is_the_published_update() -> None:
    """Step 1 u = F x + b; later u = lam (u - V s) + W s[t-1] + F x + b; s = u >= V."""
    of = recipe("ide-dense-leaky")
    made = network(of).double()
    x = torch.rand(3, 1, 6, 6, dtype=torch.float64)
    with torch.no_grad():
        arriving = made.modules_of["norm1"](made.modules_of["fc1"](x.flatten(1)))
        back = made.modules_of["feedback1"].frozen()
        u, s = arriving, (arriving >= 2.0).double()
        spikes = [s]
        for _ in range(of.steps - 1):
            u = 0.95 * (u - 2.0 * s) + s @ back.T + arriving
            s = (u >= 2.0).double()
            spikes.append(s)
    assert torch.equal(made.record(x)["lif1.s"], torch.stack(spikes, dim=1))


def test_the_feedback_is_one_step_late_and_nothing_else_is() -> None:
    made = network(recipe("ide-deep"))
    plan = {step.name: step for step in made.plan}
    assert plan["feedback1"] == Step("feedback1", ("lif4",), 1)
    assert plan["lif1"].sources == ("norm1", "feedback1")
    graph = read_module(made)
    assert [(edge.source, edge.target) for edge in graph.edges if edge.delay] == [("lif4", "feedback1")]
    conv = graph.nodes["feedback1"]
    assert isinstance(conv, Conv)
    assert conv.spread == (2, 2)
    assert list(graph.nodes)[:5] == ["input", "conv1", "norm1", "feedback1", "lif1"]


def test_a_deep_loop_is_too_short_for_a_pipeline() -> None:
    graph = read_module(network(recipe("ide-deep")))
    x = {"input": np.repeat(samples(recipe("ide-deep"), 2)[:, None].astype(np.float64), 6, axis=1)}
    with pytest.raises(LoopTooShort, match="has a delay of 1 step and needs 4"):
        compile_graph(graph, Target.load("loihi-custom"), x)


@pytest.mark.parametrize("family", ["dsr-preact", "ide-convolution"])
def test_soft_resets_are_refused_where_no_chip_has_them(family: str) -> None:
    graph, _ = fold(read_module(network(recipe(family))))
    with pytest.raises(NotRepresentable, match="soft reset"):
        legalise(graph, Target.load("loihi"))


# --- DSR --------------------------------------------------------------------------------------------------------------


def test_norm_and_neurons_come_first_and_the_skip_leaves_behind_the_neurons() -> None:
    made = network(recipe("dsr-preact"))
    plan = {step.name: step.sources for step in made.plan}
    assert [step.name for step in made.plan][:6] == [
        *("conv1", "block1_norm1", "block1_lif1", "block1_conv1", "block1_norm2", "block1_lif2"),
    ]
    assert made.modules_of["conv1"].bias is None
    assert made.modules_of["block1_conv1"].bias is not None
    assert plan["block2_norm1"] == ("block1_conv2", "block1_lif1")
    assert plan["block2_skip"] == ("block2_lif1",)
    assert plan["pre_norm1"] == ("block2_conv2", "block2_skip")
    assert plan["pool1"] == ("pre_lif1",)
    assert plan["flatten"] == ("pool1_lif",)
    assert [step.name for step in made.plan][-5:] == ["flatten", "fc1", "norm2", "lif2", "readout"]


def test_gains_amplitudes_and_norms_are_folded_into_weights() -> None:
    graph, notes = fold(read_module(network(recipe("dsr-leaky"))))
    assert notes == ()
    neurons = [op for op in graph.nodes.values() if isinstance(op, Neuron)]
    assert all(op.amplitude == 1.0 and float(op.gain) == 1.0 for op in neurons)
    for op in neurons:  # fires at alpha of what its reset takes off
        assert isinstance(op.reset, By)
        np.testing.assert_allclose(op.threshold, 0.3 * float(op.reset.amount), rtol=1e-6)
    legal = legalise(graph, Target.load("loihi-custom")).graph
    (skip,) = [one for one in connections(legal) if (one.source, one.target) == ("block1_lif1", "block2_lif1")]
    factor = legal.nodes[skip.synapse]
    assert isinstance(factor, Scale)
    norm, sent = network(recipe("dsr-leaky")).modules_of["block2_norm1"], neurons[0].reset.amount / 0.05
    expected = norm.weight / torch.sqrt(norm.running_var + norm.eps) * float(sent) * (1 - np.exp(-0.05))
    np.testing.assert_allclose(factor.factor.ravel(), expected.detach().numpy(), rtol=1e-5)


def test_a_repeated_place_leaves_a_matrix_with_its_columns_added() -> None:
    made = network(recipe("dsr-vgg"))
    legal = legalise(fold(read_module(made))[0], Target.load("loihi-custom")).graph
    fc, norm = made.modules_of["fc1"], made.modules_of["norm4"]
    gain = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    expected = fc.weight.double().reshape(10, 8, 9).sum(dim=2) * gain.double()[:, None]
    found = legal.nodes["fc1"]
    assert isinstance(found, Dense)
    amplitude = made.modules_of["lif3"].amplitude
    pooled = np.asarray(found.weight).reshape(10, 8, 4)[:, :, 0]  # the average pool in front of it has four places
    np.testing.assert_allclose(pooled * 4, expected.detach().numpy() * amplitude, rtol=1e-5, atol=1e-7)


# --- teachers ---------------------------------------------------------------------------------------------------------


def test_a_teacher_is_trained_and_never_compiled() -> None:
    tables = {
        "recipe": {"name": "teacher", "summary": "a test", "method": "ann", "source": "nobody"},
        "network": {"input": [1, 8, 8], "architecture": "4C3-Res(4C3-4C3)-Res(6C3S2-6C3)-GAP-10FC", "bias": False},
        "training": {"epochs": 1, "batch": 8, "learning_rate": 0.01, "seed": 1},
        "data": {"name": "digits"},
    }
    teacher = network(Recipe.from_dict(tables, "a test"))
    plain = torch.nn.functional
    x, of = torch.rand(4, 1, 8, 8), teacher.modules_of
    with torch.no_grad():
        y = plain.relu(of["norm1"](of["conv1"](x)))
        middle = plain.relu(of["block1_norm1"](of["block1_conv1"](y)))
        y = plain.relu(of["block1_norm2"](of["block1_conv2"](middle)) + y)
        middle = plain.relu(of["block2_norm1"](of["block2_conv1"](y)))
        y = plain.relu(of["block2_norm2"](of["block2_conv2"](middle)) + of["block2_skip_norm"](of["block2_skip"](y)))
        expected = of["fc1"](y.mean(dim=(2, 3)))
        torch.testing.assert_close(teacher.predict(x), expected)
    with pytest.raises(UnsupportedModule, match="ReLU is no spiking neuron"):
        read_module(teacher)


def test_a_padded_maximum_over_negative_values_is_refused() -> None:
    of = recipe("asf-signed-leaky").to_dict()
    of["network"] = {"input": [2, 8, 8], "architecture": "MP3S2P1-10FC"}
    with pytest.raises(UnsupportedModule, match="a padded maximum over negative values"):
        read_module(network(Recipe.from_dict(of, "a test")))


def test_dropout_of_a_loop_is_the_same_at_every_step() -> None:
    made = network(recipe("ide-convolution"))
    x = torch.rand(5, 1, 8, 8)
    once = made(x)
    made.train()
    for module in made.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    dropped = made(x)
    mask = made.modules_of["lif1_drop"].kept
    assert mask is not None
    assert set(mask.unique().tolist()) == {0.0, 1.25}
    assert not torch.equal(once, dropped)
