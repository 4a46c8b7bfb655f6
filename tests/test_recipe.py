"""Recipes: the notation, the shipped files, and that every complaint names file, line and key."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from snncompile import sheet
from snncompile.errors import ReadError, SheetError
from snncompile.recipe import Convolution, FullyConnected, Loop, Pooling, Recipe, Residual, parse

TEXT = """\
[recipe]
name = "small"
summary = "a test"
method = "tet"
source = "nobody"

[network]
input = [1, 8, 8]
architecture = "4C3-AP2-10FC"

[tet]
steps = 2
lambda = 0.05
phi = 1.0

[training]
epochs = 1
batch = 16
learning_rate = 0.01
seed = 7

[data]
name = "digits"
"""


def read(tmp_path: Path, text: str) -> Recipe:
    path = tmp_path / "small.toml"
    path.write_text(text, encoding="utf-8")
    return Recipe.load(str(path))


def test_notation() -> None:
    layers = parse("20C5S2-P2-Res(20C3-40C3S2)-AP3-200FC-10FC", (1, 28, 28))
    added = parse("Sew(4C3-4C3)-10FC", (1, 8, 8))[0]
    assert added == Residual(Convolution(4, 3, 1, (4, 8, 8)), Convolution(4, 3, 1, (4, 8, 8)), (4, 8, 8), "spikes")
    assert layers == (
        Convolution(20, 5, 2, (20, 14, 14)),
        Pooling("mean", (2, 2), (2, 2), (20, 7, 7)),
        Residual(Convolution(20, 3, 1, (20, 7, 7)), Convolution(40, 3, 2, (40, 4, 4)), (40, 4, 4)),
        Pooling("mean", (3, 3), (3, 3), (40, 1, 1)),
        FullyConnected(200, (200,)),
        FullyConnected(10, (10,)),
    )


def test_notation_of_pools_padding_and_repeats() -> None:
    layers = parse("8C7S2-MP3S2P1-8C3P3-SP3-GAP2-2*Res(8C3-8C3)-GAP-GAP7-10FC", (3, 32, 32))
    assert layers[:5] == (
        Convolution(8, 7, 2, (8, 16, 16)),
        Pooling("max", (3, 3), (2, 2), (8, 8, 8), 1),
        Convolution(8, 3, 1, (8, 12, 12), 3),
        Pooling("sum", (3, 3), (3, 3), (8, 4, 4)),
        Pooling("mean", (2, 2), (2, 2), (8, 2, 2)),
    )
    assert layers[5] == layers[6] == Residual(*[Convolution(8, 3, 1, (8, 2, 2))] * 2, (8, 2, 2))
    assert layers[7:] == (
        Pooling("mean", (2, 2), (2, 2), (8, 1, 1)),
        Pooling("repeat", (7, 7), (1, 1), (8, 7, 7)),
        FullyConnected(10, (10,)),
    )
    assert parse("GAP-10FC", (2, 4, 6))[0] == Pooling("mean", (4, 6), (4, 6), (2, 1, 1))


def test_notation_of_loops() -> None:
    deep, dense = (parse(f"{text}-10FC", (3, 32, 32))[0] for text in ("Loop(8C3S2-6C3S2|8T3S2)", "Loop(9FC|9FC)"))
    layers = Convolution(8, 3, 2, (8, 16, 16)), Convolution(6, 3, 2, (6, 8, 8))
    back = Convolution(8, 3, 2, (8, 16, 16), transposed=True)
    assert deep == Loop(layers, back, (6, 8, 8))
    assert dense == Loop((FullyConnected(9, (9,)),), FullyConnected(9, (9,)), (9,))


@pytest.mark.parametrize("name", sheet.names("models"))
def test_shipped_recipes_survive_a_checkpoint(name: str) -> None:
    recipe = Recipe.load(name)
    assert recipe.name == name
    assert recipe.classes == {"cifar100": 100, "imagenet": 1000}.get(recipe.data.name, 10)
    assert Recipe.from_dict(recipe.to_dict(), "ckpt.pt") == recipe


def test_defaults_are_those_of_tet(tmp_path: Path) -> None:
    neuron = read(tmp_path, TEXT).neuron
    assert (neuron.decay, neuron.threshold, neuron.fires, neuron.detach_reset) == (0.5, 1.0, ">", False)


@pytest.mark.parametrize(
    ("architecture", "what", "place"),
    [
        ("4C3-C5-10FC", "'C5' is not a layer", "at character 5: 4C3->>C5<<-10FC"),
        ("4C3--10FC", "'' is not a layer", "at character 5: 4C3->><<-10FC"),
        ("4C4-10FC", "kernel 4", "at character 1: >>4C4<<-10FC"),
        ("4C3-10FC-AP2-10FC", "only FC may follow FC", "at character 10: 4C3-10FC->>AP2<<-10FC"),
        ("AP9-10FC", "pools 9x9 out of 8x8", "at character 1"),
        ("4C3-AP2", "the last layer must be fully connected", "at character 8"),
        ("0C3-10FC", "the numbers of a layer", "at character 1"),
        ("Res(4C3)-10FC", "two convolutions", "at character 1"),
        ("Res(4C3-AP2)-10FC", "holds convolutions", "at character 9: Res(4C3->>AP2<<)-10FC"),
        ("Res(4C3-4C3)10FC", "expected '-'", "at character 13"),
        ("Res(4C3-4C3-10FC", "is not a layer", "at character 1"),
        ("Sew(4C3-6FC)-10FC", "holds convolutions", "at character 9: Sew(4C3->>6FC<<)-10FC"),
        ("", "'' is not a layer", "at character 1"),
        ("0*4C3-10FC", "repeated 1 to 256 times", "at character 1: >>0*4C3<<-10FC"),
        ("4C3-2*4C4-10FC", "kernel 4", "at character 7: 4C3-2*>>4C4<<-10FC"),
        ("GAP3-10FC", "8x8 are no 3x3 cells of one size", "at character 1"),
        ("4C3P99999-10FC", "a kernel of 3 with padding 99999", "at character 1"),
        ("MP3P2-10FC", "pools 3x3 out of 8x8", "at character 1"),
        ("4T3S2P1-10FC", "a transposed convolution with a padding", "at character 1"),
        ("Res(4C3-4T3)-10FC", "holds convolutions", "at character 9"),
        ("Loop(4C3)-10FC", "layers, a bar, and the one layer back", "at character 1"),
        ("Loop(4C3S2|4C3S2)-10FC", "what comes back and what it is added to differ", "at character 12"),
        ("Loop(4C3-AP2|4C3)-10FC", "holds convolutions and FC", "at character 10"),
        ("Loop(4C3|5C3)-10FC", "[5, 8, 8] and [4, 8, 8]", "at character 10"),
    ],
)
def test_notation_refuses(tmp_path: Path, architecture: str, what: str, place: str) -> None:
    with pytest.raises(SheetError, match=re.escape(what)) as caught:
        read(tmp_path, TEXT.replace("4C3-AP2-10FC", architecture))
    assert place in caught.value.why
    assert caught.value.where.endswith("small.toml:9, network.architecture")


@pytest.mark.parametrize(
    ("old", "new", "key", "remedy"),
    [
        ("seed = 7", "sead = 7", "training.sead", "did you mean seed?"),
        ("[tet]", "[tett]", "tett", "did you mean tet?"),
        ("steps = 2", "steps = 0", "tet.steps", "from 1 to 1024"),
        ("steps = 2", "steps = 2.5", "tet.steps", ""),
        ("lambda = 0.05", "lambda = 1.5", "tet.lambda", "from 0 to 1"),
        ("batch = 16", "batch = 1", "training.batch", "at least 2"),
        ("learning_rate = 0.01", "learning_rate = nan", "training.learning_rate", ""),
        ('"digits"', '"digit"', "data.name", "did you mean digits?"),
        ('"digits"', '"digits"\nmost = 3', "data.most", ""),
        ('"digits"', '"digits"\nmean = [0.1]', "data.std", ""),
        ('"digits"', '"digits"\nmean = [0.1, 0.2]\nstd = [1, 1]', "data.mean", ""),
        ('method = "tet"', 'method = "hebb"', "recipe.method", "one of tet"),
        ("input = [1, 8, 8]", "input = [1, 8]", "network.input", ""),
        ("[tet]", "[neuron]\ndecay = 1.5\n[tet]", "neuron.decay", "from 0"),
        ("[tet]", '[neuron]\nfires = "="\n[tet]', "neuron.fires", "one of >, >="),
        ("phi = 1.0\n", "", "tet.phi", ""),
        ("input = [1", "dropout = 1.0\ninput = [1", "network.dropout", "from 0 to below 1"),
        ("input = [1", "norm_gain = 0.0\ninput = [1", "network.norm_gain", "from 0.000001"),
        ("input = [1", "norm_gain = 1e39\ninput = [1", "network.norm_gain", "to 1000000"),
        ("[tet]", "[neuron]\nthreshold = 1e300\n[tet]", "neuron.threshold", "to 1000000"),
        ("[tet]", "[neuron]\nsurrogate_width = 1e-200\n[tet]", "neuron.surrogate_width", "from 0.000001"),
        ("[tet]", "[neuron]\npool_threshold = 0.0\n[tet]", "neuron.pool_threshold", "from 0.000001"),
        ("epochs = 1", f"epochs = {10**400}", "training.epochs", ""),
        ("learning_rate = 0.01", f"learning_rate = {10**400}", "training.learning_rate", ""),
        ('"digits"', '"digits"\nmean = [0.1]\nstd = [1e-46]', "data.std", "from 0.000001"),
        ('"digits"', '"digits"\nmean = [1e39]\nstd = [1.0]', "data.std", "no mean beyond 1000000"),
        ('"digits"', '"digits"\nmilliseconds = 1e-300', "data.milliseconds", ""),
        ("input = [1", 'order = "prae"\ninput = [1', "network.order", "one of post, pre"),
        ("input = [1", "biass = true\ninput = [1", "network.biass", "did you mean bias?"),
    ],
)
def test_refusals_name_the_key(tmp_path: Path, old: str, new: str, key: str, remedy: str) -> None:
    assert TEXT.count(old) == 1
    with pytest.raises(SheetError) as caught:
        read(tmp_path, TEXT.replace(old, new))
    assert caught.value.where.endswith(f", {key}")
    assert remedy in caught.value.remedy


@pytest.mark.parametrize(
    ("entries", "key"),
    [
        ({"time_constant": 1e-6, "time_step": -1e6}, "time_step"),
        ({"time_constant": 1.0, "time_step": -1e308}, "time_step"),
        ({"time_constant": 1e-30, "time_step": 1.0}, "time_constant"),
        ({"time_constant": 1e6, "time_step": 1e-6}, None),
        ({"time_constant": 1e6, "time_step": 1e-12}, "time_step"),
        ({"floor": 1e-300}, "floor"),
        ({"alpha": 1e-300}, "alpha"),
        ({"threshold_rate": 1e300}, "threshold_rate"),
    ],
)
def test_neurons_of_dsr_that_float32_cannot_hold(entries: dict[str, float], key: str | None) -> None:
    tables = Recipe.load("fashion-mini-dsr-cpu").to_dict()
    tables["dsr"] = {"steps": 2} | entries
    if key is None:
        assert Recipe.from_dict(tables, "ckpt.pt").settings.decay < 1.0  # type: ignore[union-attr]
        return
    with pytest.raises(ReadError, match=rf"dsr.{key}: out of range"):
        Recipe.from_dict(tables, "ckpt.pt")


def test_a_damaged_recipe_of_a_checkpoint_is_a_read_error() -> None:
    tables = Recipe.load("digits-tet").to_dict()
    tables["tet"] = {"steps": "four", "lambda": 0.05, "phi": 1.0}
    with pytest.raises(ReadError, match=re.escape("ckpt.pt, recipe, tet.steps: expected an integer")):
        Recipe.from_dict(tables, "ckpt.pt")
