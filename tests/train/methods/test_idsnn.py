"""IDSNN: the modulus rule, which blocks and which keys are inherited, teachers of three kinds, the distillation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from snncompile.errors import ReadError, SheetError
from snncompile.recipe import Recipe
from snncompile.recipe.methods import TetSettings
from snncompile.train.checkpoint import save_checkpoint
from snncompile.train.data import load_for
from snncompile.train.methods.idsnn import Idsnn, counterparts, inherit, wrapped
from snncompile.train.networks import Network
from snncompile.train.teachers import read_teacher, teacher_recipe

STUDENT = "4C3P3-2*Res(4C3-4C3)-Res(6C3S2-6C3)-Res(6C3-6C3)-GAP-10FC"
TEACHER = "4C3-3*Res(4C3-4C3)-Res(8C3S2-8C3)-3*Res(8C3-8C3)-GAP-10FC"


def recipe(architecture: str, method: str, name: str, settings: dict[str, Any]) -> Recipe:
    tables: dict[str, dict[str, Any]] = {
        "recipe": {"name": name, "summary": "a test", "method": method, "source": "nobody"},
        "network": {"input": [1, 8, 8], "architecture": architecture, "bias": False},
        method: settings,
        "neuron": {
            "decay": 0.25,
            "threshold": 0.5,
            "surrogate": "rectangle",
            "surrogate_width": 0.5,
            "detach_reset": True,
        },
        "training": {"epochs": 1, "batch": 16, "learning_rate": 0.05, "seed": 3},
        "data": {"name": "digits"},
    }
    return Recipe.from_dict(tables, "a test")


@pytest.fixture
def teacher() -> Recipe:
    return recipe(TEACHER, "ann", "teacher", {"steps": 1})


@pytest.fixture
def student(teacher: Recipe, tmp_path: Path) -> Recipe:
    return recipe(STUDENT, "idsnn", "student", {"steps": 4, "teacher": str(sheet(teacher, tmp_path))})


def sheet(of: Recipe, folder: Path) -> Path:
    """A recipe as a file."""
    import json

    path = folder / f"{of.name}.toml"
    lines = []
    for table, entries in of.to_dict().items():
        assert isinstance(entries, dict)
        lines.append(f"[{table}]")
        lines += [f"{key} = {json.dumps(value)}" for key, value in entries.items()]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def random_network(of: Recipe, seed: int = 1) -> Network:
    torch.manual_seed(seed)
    network = Network(of).eval()
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if "running_var" in name:
                value.copy_(torch.rand_like(value) + 0.5)
            elif value.is_floating_point():
                value.copy_(torch.randn_like(value) * 0.3)
    return network


@pytest.mark.parametrize(
    ("theirs", "own"), [((8, 6), (5, 4)), ((4, 3), (10, 7)), ((6, 6), (6, 6)), ((3, 8), (7, 5)), ((5, 1), (5, 3))]
)
def test_copy_rule_index_by_index(theirs: tuple[int, int], own: tuple[int, int]) -> None:
    weight = torch.randn(*theirs, 3, 3)
    copied = wrapped(weight, torch.Size((*own, 3, 3)))
    for o in range(own[0]):
        for i in range(own[1]):
            assert torch.equal(copied[o, i], weight[o % theirs[0], i % theirs[1]])


def test_other_kernels_do_not_wrap() -> None:
    with pytest.raises(ValueError, match="does not wrap"):
        wrapped(torch.zeros(4, 4, 3, 3), torch.Size((4, 4, 5, 5)))


def resnet(blocks: tuple[int, int, int, int]) -> str:
    stages = []
    for channels, count, stride in zip((8, 16, 32, 64), blocks, ("", "S2", "S2", "S2"), strict=True):
        stages += [f"Res({channels}C3{stride}-{channels}C3)", *[f"Res({channels}C3-{channels}C3)"] * (count - 1)]
    return "-".join(["8C3", *stages, "GAP", "10FC"])


@pytest.mark.parametrize(
    ("how", "expected"), [("first", [1, 2, 4, 5, 8, 9, 14, 15]), ("spread", [1, 3, 4, 7, 8, 13, 14, 16])]
)
def test_blocks_of_a_resnet34_in_a_resnet18(how: str, expected: list[int]) -> None:
    """Stages of 3, 4, 6, 3 blocks to 2, 2, 2, 2: blocks 1,2 of each, or 1,3 / 1,4 / 1,6 / 1,3."""
    large = recipe(resnet((3, 4, 6, 3)), "ann", "large", {"steps": 1})
    small = recipe(resnet((2, 2, 2, 2)), "idsnn", "small", {"steps": 4, "teacher": "large"})
    pairs = counterparts(small, large, how)
    assert [int(pairs[f"block{n}_conv1"].removeprefix("block").split("_")[0]) for n in range(1, 9)] == expected
    assert pairs["conv1"] == "conv1"


def test_what_is_written_and_what_is_not(student: Recipe, teacher: Recipe) -> None:
    theirs, own = random_network(teacher, 1), random_network(student, 2)
    before = {name: value.clone() for name, value in own.state_dict().items()}
    written = inherit(own, theirs, "first")
    units = ["conv1", "norm1"] + [
        f"block{n}_{part}" for n in range(1, 5) for part in ("conv1", "norm1", "conv2", "norm2")
    ]
    expected = {
        f"modules_of.{unit}.{tensor}"
        for unit in units
        for tensor in (
            ("weight",) if "conv" in unit else ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
        )
    }
    assert set(written) == expected
    for name, value in own.state_dict().items():
        if name not in expected:  # skips and the output
            assert torch.equal(value, before[name]), name
    source = theirs.state_dict()["modules_of.block4_conv1.weight"]  # the first block of the second stage has channels
    assert torch.equal(own.state_dict()["modules_of.block3_conv1.weight"], source[:6, :4])
    norm = theirs.state_dict()["modules_of.block5_norm2.running_var"]
    assert torch.equal(own.state_dict()["modules_of.block4_norm2.running_var"], norm[:6])


def test_stages_must_correspond(teacher: Recipe) -> None:
    other = recipe("4C3-Res(4C3-4C3)-GAP-10FC", "idsnn", "small", {"steps": 4, "teacher": "teacher"})
    with pytest.raises(SheetError, match="has 2 stages, its teacher 3"):
        counterparts(other, teacher, "first")


# Teachers


def test_a_teacher_of_other_data_or_method_is_refused(student: Recipe, teacher: Recipe, tmp_path: Path) -> None:
    assert teacher_recipe(student).name == "teacher"
    spiking = sheet(recipe(TEACHER, "tet", "spiking", {"steps": 2, "lambda": 0.05, "phi": 1.0}), tmp_path)
    wrong = recipe(STUDENT, "idsnn", "student", {"steps": 4, "teacher": str(spiking)})
    with pytest.raises(SheetError, match="spiking is no teacher"):
        teacher_recipe(wrong)


def test_a_state_dict_of_other_names_is_read_in_its_order(teacher: Recipe, tmp_path: Path) -> None:
    network = random_network(teacher)
    foreign = {
        f"module.layer{index}": value
        for index, value in enumerate(network.state_dict().values())
        if value.is_floating_point()
    }
    torch.save({"epoch": 3, "state_dict": foreign}, tmp_path / "foreign.pth")
    found = read_teacher(teacher, tmp_path / "foreign.pth")
    x = torch.rand(3, 1, 8, 8)
    assert torch.equal(found.predict(x), network.predict(x))
    assert not any(parameter.requires_grad for parameter in found.parameters())


def test_a_state_dict_of_another_network_is_refused(teacher: Recipe, tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(3)}, tmp_path / "few.pth")
    with pytest.raises(ReadError, match="holds 1 tensors, the teacher's recipe"):
        read_teacher(teacher, tmp_path / "few.pth")
    for change in ({"method": "tet"}, {"options": replace(teacher.options, norm=False)}):
        other = replace(teacher, **change)
        if other.method == "tet":
            other = replace(other, settings=TetSettings(2))
        save_checkpoint(tmp_path / "other.pt", Network(other), {}, load_for(other, "train"))
        with pytest.raises(ReadError, match=r"other.pt: holds teacher, another network \(its (method|options) differ"):
            read_teacher(teacher, tmp_path / "other.pt")
    state = random_network(teacher).state_dict()
    state["modules_of.conv1.weight"] = torch.zeros(5, 1, 3, 3)
    torch.save(state, tmp_path / "wide.pth")
    with pytest.raises(ReadError, match=r"is \[5, 1, 3, 3\], the recipe's"):
        read_teacher(teacher, tmp_path / "wide.pth")


@pytest.mark.parametrize("folded", [True, False])
def test_a_teacher_from_onnx_computes_what_its_file_does(teacher: Recipe, tmp_path: Path, folded: bool) -> None:
    network = random_network(teacher)
    path = tmp_path / "teacher.onnx"
    write_onnx(network, path, folded=folded)
    found = read_teacher(teacher, path)
    x = torch.rand(4, 1, 8, 8)
    torch.testing.assert_close(found.predict(x), network.predict(x), rtol=1e-4, atol=1e-4)
    other = recipe(TEACHER.replace("GAP", "MP4"), "ann", "other", {"steps": 1})
    with pytest.raises(ReadError, match=r"has no layer left|computes something else"):
        read_teacher(other, path)


def write_onnx(network: Network, path: Path, *, folded: bool) -> None:
    """The network as ONNX, node by node; ``folded``: its norms in the convolutions."""
    onnx = pytest.importorskip("onnx")
    helper, numbers = onnx.helper, onnx.numpy_helper
    nodes, constants = [], []
    signal = {"input": "x"}

    def constant(name: str, value: Any) -> str:
        constants.append(numbers.from_array(np.asarray(value, dtype=np.float32), name))
        return name

    for step in network.plan[:-1]:
        module, sources, out = network.modules_of[step.name], [signal[source] for source in step.sources], step.name
        if len(sources) > 1:
            nodes.append(helper.make_node("Add", sources, [f"{out}_sum"]))
            sources = [f"{out}_sum"]
        given = sources[0]
        match module:
            case torch.nn.Conv2d():
                weight = constant(f"{out}_w", module.weight.detach())
                sizes = {
                    "strides": list(module.stride),
                    "pads": list(module.padding) * 2,
                    "kernel_shape": list(module.kernel_size),
                }
                nodes.append(helper.make_node("Conv", [given, weight], [out], **sizes))
            case torch.nn.BatchNorm2d():
                values = [module.weight, module.bias, module.running_mean, module.running_var]
                if folded:
                    factor = (module.weight / (module.running_var + module.eps).sqrt()).detach()
                    conv = next(node for node in nodes if node.output[0] == given)
                    old = next(one for one in constants if one.name == conv.input[1])
                    constants.remove(old)
                    constant(conv.input[1], numbers.to_array(old) * factor.numpy().reshape(-1, 1, 1, 1))
                    conv.input.append(constant(f"{out}_b", (module.bias - module.running_mean * factor).detach()))
                    signal[step.name] = given
                    continue
                names = [constant(f"{out}_{index}", value.detach()) for index, value in enumerate(values)]
                nodes.append(helper.make_node("BatchNormalization", [given, *names], [out], epsilon=module.eps))
            case torch.nn.ReLU():
                nodes.append(helper.make_node("Relu", [given], [out]))
            case torch.nn.AvgPool2d():
                nodes.append(helper.make_node("GlobalAveragePool", [given], [out]))
            case torch.nn.Flatten():
                nodes.append(helper.make_node("Flatten", [given], [out]))
            case torch.nn.Linear():
                names = [constant(f"{out}_w", module.weight.detach()), constant(f"{out}_b", module.bias.detach())]
                nodes.append(helper.make_node("Gemm", [given, *names], [out], transB=1))
        signal[step.name] = out
    last = signal[network.plan[-1].sources[0]]
    float32 = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "teacher",
        [helper.make_tensor_value_info("x", float32, ["n", *network.recipe.input])],
        [helper.make_tensor_value_info(last, float32, ["n", 10])],
        constants,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)


# Training


def test_a_course_begins_with_what_it_inherits_and_learns_from_the_teacher(
    student: Recipe, teacher: Recipe, tmp_path: Path
) -> None:
    torch.save(random_network(teacher).state_dict(), tmp_path / "teacher.pt")
    course = Idsnn(student, tmp_path / "teacher.pt")
    inherited = course.teacher.state_dict()["modules_of.conv1.weight"]
    assert torch.equal(course.network.state_dict()["modules_of.conv1.weight"], inherited)
    before = {name: value.clone() for name, value in course.teacher.state_dict().items()}
    course.network.train()
    loss, _ = course.step(torch.rand(16, 1, 8, 8), torch.arange(16) % 10)
    assert loss > 0
    assert all(torch.equal(value, before[name]) for name, value in course.teacher.state_dict().items())
    assert course.metrics()["teacher"] == "teacher"
    again = Idsnn(student, tmp_path / "teacher.pt")
    again.restore(course.extra(), "a file")
    torch.save(random_network(teacher, 9).state_dict(), tmp_path / "other.pt")
    with pytest.raises(ReadError, match="begun with another teacher"):
        Idsnn(student, tmp_path / "other.pt").restore(course.extra(), "a file")
