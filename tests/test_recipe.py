"""Recipes: the notation, the shipped files, and that every complaint names file, line and key."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from snncompile import sheet
from snncompile.errors import ReadError, SheetError
from snncompile.recipe import Convolution, FullyConnected, Pooling, Recipe, Residual, parse

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
    ],
)
def test_refusals_name_the_key(tmp_path: Path, old: str, new: str, key: str, remedy: str) -> None:
    assert TEXT.count(old) == 1
    with pytest.raises(SheetError) as caught:
        read(tmp_path, TEXT.replace(old, new))
    assert caught.value.where.endswith(f", {key}")
    assert remedy in caught.value.remedy


def test_a_damaged_recipe_of_a_checkpoint_is_a_read_error() -> None:
    tables = Recipe.load("digits-tet").to_dict()
    tables["tet"] = {"steps": "four", "lambda": 0.05, "phi": 1.0}
    with pytest.raises(ReadError, match=re.escape("ckpt.pt, recipe, tet.steps: expected an integer")):
        Recipe.from_dict(tables, "ckpt.pt")
