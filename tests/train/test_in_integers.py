"""Training in a target's integers: what it leaves is what the machine computes, and other machines are refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from snncompile.cli import main
from snncompile.commands.opening import Trained
from snncompile.errors import LoweringError, ReadError
from snncompile.recipe import Recipe
from snncompile.run import integer
from snncompile.target import Target
from snncompile.train.checkpoint import load_checkpoint
from snncompile.train.data import load_for
from snncompile.train.in_integers import train_in_integers
from snncompile.train.integers import Integers
from snncompile.train.loop import train
from snncompile.train.networks import Network
from tests.tiny import changed

LOIHI = Target.load("loihi")
Verb = Callable[..., dict[str, Any]]

RECIPE = """
[recipe]
name = "digits-small"
summary = "a test"
method = "tet"
source = "nobody"

[network]
input = [1, 8, 8]
architecture = "6C3-AP2-Res(6C3-6C3)-AP2-10FC"

[tet]
steps = 3
lambda = 0.05
phi = 1.0

[training]
epochs = 3
batch = 64
learning_rate = 0.01
seed = 5

[data]
name = "digits"

[quantise]
target = "loihi"
epochs = 2
samples = 400
"""


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "small.toml"
    path.write_text(RECIPE, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def reals(recipe: Path) -> Path:
    from dataclasses import replace

    out = recipe.with_name("reals.pt")
    train(replace(Recipe.load(str(recipe)), quantise=None), None, out, log=lambda line: None)
    return out


@pytest.fixture(scope="module")
def trained(recipe: Path, reals: Path) -> Path:
    out = recipe.with_name("integers.pt")
    assert main(["train", str(recipe), "--from", str(reals), "-o", str(out), "-q"]) == 0
    return out


@pytest.fixture(autouse=True)
def _without_lava(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if not request.node.get_closest_marker("lava"):
        monkeypatch.setenv("SNNCOMPILE_NO_LAVA", "1")


@pytest.fixture
def verb(capfd: pytest.CaptureFixture[str]) -> Verb:
    """The JSON result of a verb that ends well."""

    def run(*words: object) -> dict[str, Any]:
        capfd.readouterr()
        assert main([*map(str, words), "--format", "json", "-q"]) == 0
        result: dict[str, Any] = json.loads(capfd.readouterr().out)
        return result

    return run


# --- the deployed network is the trained one --------------------------------------------------------------------------


def test_every_rung_is_bit_equal(trained: Path, verb: Verb) -> None:
    rungs = verb("verify", trained, "--data", "digits:test:40")["rungs"]
    assert [rung["verdict"] for rung in rungs[:6]] == ["recorded"] + ["bit-equal"] * 5
    assert all(rung["compared"] > 10_000 for rung in rungs[1:6])
    assert rungs[3]["against"] == "checkpoint"
    assert "trained in the integers of loihi; accuracy" in rungs[3]["note"]


@pytest.mark.lava
def test_and_so_is_lava(trained: Path, verb: Verb) -> None:
    assert verb("verify", trained, "--data", "digits:test:5")["rungs"][6]["verdict"] == "bit-equal"


def test_answers_of_the_deployed_network_are_those_of_training_image_by_image(trained: Path, verb: Verb) -> None:
    checkpoint = load_checkpoint(trained)
    data = load_for(checkpoint.recipe, "test")
    network = checkpoint.network()
    wanted = network.predict(torch.from_numpy(data.x)).argmax(dim=1).numpy()
    deployed = verb("simulate", trained, "--data", "digits")
    np.testing.assert_array_equal(deployed["answers"], wanted)
    assert deployed["accuracy"] == checkpoint.metrics["test_accuracy"] > 0.6


def test_a_ladder_that_is_not_the_trained_network_falls(trained: Path, tmp_path: Path) -> None:
    """One weight of a checkpoint changed between training and deployment: rung 3 must see it."""
    from snncompile.compile import compile_integers
    from snncompile.verify import Ladder

    def bend(content: dict[str, Any]) -> None:
        content["integers"]["arrays"]["fc1.weight.mantissa"][3] += 2

    bent = Trained(changed(trained, tmp_path / "bent.pt", bend))
    model = Trained(trained)
    x = model.sample.x[:10]
    compiled = compile_integers(bent.graph, LOIHI, model.steps)
    rung = Ladder(compiled, x, None, model.record(x)).fixed()
    assert rung.verdict == "DIFFERENT"
    assert rung.different > 0


def test_every_verb_reads_it(trained: Path, verb: Verb, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    assert verb("export", trained, "--data", "digits:test:10", "-o", bundle)["verified"]
    manifest = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))
    assert [layer["error"] for layer in manifest["quantisation"]] == [0.0] * len(manifest["quantisation"])
    assert all(layer["current"]["proven"] for layer in manifest["quantisation"])
    assert verb("verify", f"{trained}@torch", bundle, "--data", "digits:test:10")["equal"]
    assert verb("verify", f"{trained}@read", f"{trained}@placed", "--data", "digits:test:10")["equal"]
    counted = verb("energy", trained, "--data", "digits:test:10")
    assert counted["level"] == "fixed"
    for level in ("read", "folded", "fixed", "placed"):
        assert "input" in verb("show", trained, "--level", level, "--text")["text"]


def test_the_ann_beside_it_is_the_recipe_s(trained: Path, reals: Path, verb: Verb) -> None:
    one, other = (verb("energy", path, "--data", "digits:test:2", "--level", "fixed") for path in (trained, reals))
    assert one["ann"]["break_even_rate"] == pytest.approx(other["ann"]["break_even_rate"], rel=0.05)


def test_weights_move_and_stay_tied_to_the_recipe_s_topology(trained: Path, reals: Path) -> None:
    start, end = Trained(reals), load_checkpoint(trained)
    assert end.integers is not None
    network = end.integers.network(end.recipe)
    own = sum(synapse.latent.numel() for synapse in network.synapses.values())
    weights = start.checkpoint.network().state_dict()
    skip = 6  # what the pool multiplies with on its way around the block, one number a channel
    assert own - skip == sum(w.numel() for name, w in weights.items() if name.endswith("weight") and w.dim() > 1)


# --- going on, and refusing -------------------------------------------------------------------------------------------


def begun(reals: Path) -> Integers:
    from snncompile.compile import compile_graph, shown

    model = Trained(reals)
    stimulus = {name: x.astype(np.float64) for name, x in shown(model.graph, model.sample.x, model.steps).items()}
    return Integers.of(compile_graph(model.graph, LOIHI, stimulus).levels["fixed"], LOIHI)


def test_a_resumed_training_is_the_uninterrupted_one_bit_for_bit(
    recipe: Path, reals: Path, trained: Path, tmp_path: Path
) -> None:
    def interrupting(line: str) -> None:
        if line.startswith("epoch 1/"):
            raise KeyboardInterrupt

    of, out = Recipe.load(str(recipe)), tmp_path / "parted.pt"
    assert not train_in_integers(of, begun(reals), None, out, log=interrupting).finished
    assert main(["train", str(recipe), "-o", str(out), "--resume", "-q"]) == 0
    one, other = (load_checkpoint(path).integers for path in (out, trained))
    assert one is not None
    assert other is not None
    left, right = (integer.IntegerGraph(end.graph, LOIHI) for end in (one, other))
    assert left.weights.keys() == right.weights.keys()
    for name, weight in left.weights.items():
        np.testing.assert_array_equal(weight, right.weights[name])
    assert not (tmp_path / "parted.pt.resume").exists()


def test_without_a_checkpoint_the_reals_are_trained_first(recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "whole.pt"
    quick = tmp_path / "quick.toml"
    quick.write_text(RECIPE.replace("epochs = 3", "epochs = 1").replace("[quantise]\ntarget", "[quantise]\ntarget"))
    assert main(["train", str(quick), "-o", str(out), "-q"]) == 0
    assert load_checkpoint(tmp_path / "whole.reals.pt").integers is None
    assert load_checkpoint(out).integers is not None


def test_another_target_is_refused_by_what_differs(trained: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", str(trained), "--target", "loihi1", "-q"]) == LoweringError.exit_code
    said = capfd.readouterr().err
    assert "was trained in the integers of loihi, which loihi1 does not compute with" in said
    assert "--quantise loihi1" in said


def test_what_the_integers_settle_cannot_be_asked_for(trained: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", str(trained), "--calibration", "digits", "-q"]) == ReadError.exit_code
    assert "has its integers already" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--quantise", "loihy"], "did you mean loihi"),
        (["--from", "nothing.pt"], "nothing.pt: no such file"),
        (["--from", "TRAINED"], "was trained in integers already"),
    ],
)
def test_wrong_starts_are_refused_before_the_training(
    words: list[str], said: str, recipe: Path, trained: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    given = [str(trained) if word == "TRAINED" else word for word in words]
    assert main(["train", str(recipe), "-o", str(tmp_path / "out.pt"), *given, "-q"]) > 1
    assert said in capfd.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_start_of_another_network_is_refused(reals: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "other.toml"
    other.write_text(RECIPE.replace("6C3-AP2-Res(6C3-6C3)-AP2-10FC", "6C3-AP2-10FC"), encoding="utf-8")
    assert main(["train", str(other), "--from", str(reals), "-o", str(tmp_path / "out.pt"), "-q"]) == 4
    assert "holds another network" in capfd.readouterr().err


@pytest.mark.parametrize(("old", "new"), [("[network]\n", "[network]\nbias = false\n"), ('"tet"', '"ann"')])
def test_a_start_of_other_options_or_method_is_refused(
    old: str, new: str, reals: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The recipe would be told of a network that is not its own."""
    other, text = tmp_path / "other.toml", RECIPE.replace(old, new)
    if new == '"ann"':
        text = text.replace("[tet]\n", "[ann]\n")
        text = "\n".join(line for line in text.splitlines() if not line.startswith(("steps", "lambda", "phi")))
    assert text != RECIPE
    other.write_text(text, encoding="utf-8")
    assert main(["train", str(other), "--from", str(reals), "-o", str(tmp_path / "out.pt"), "-q"]) == 4
    said = capfd.readouterr().err
    assert "holds another network (its options differ" in said or "holds another network (its method differ" in said


def test_there_must_be_something_to_resume(
    reals: Path, recipe: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.pt"
    for words in ([], ["--from", str(reals)]):
        assert main(["train", str(recipe), "-o", str(out), "--resume", *words, "-q"]) == 4
        assert "out.pt: there is nothing to resume; start without --resume" in capfd.readouterr().err
    assert not list(tmp_path.iterdir())


def test_curves_are_written_of_the_integers_as_well(reals: Path, recipe: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX")
    words = ["train", str(recipe), "--from", str(reals), "-o", str(tmp_path / "out.pt"), "-q"]
    assert main([*words, "--tensorboard", str(tmp_path / "curves")]) == 0
    assert list((tmp_path / "curves" / "integers").iterdir())


def test_from_needs_a_target(reals: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    words = ["train", "digits-tet", "--from", str(reals), "-o", str(tmp_path / "out.pt"), "-q"]
    assert main(words) == 4
    assert "add --quantise" in capfd.readouterr().err


@pytest.mark.parametrize("damage", ["sheet", "arrays", "program", "all", "weights", "shape"])
def test_damaged_integers_are_named(trained: Path, tmp_path: Path, damage: str) -> None:
    def bend(content: dict[str, Any]) -> None:
        if damage == "all":
            content["integers"] = 3
        elif damage == "weights":
            content["integers"]["arrays"]["fc1.weight.mantissa"] += 1  # odd: none of the machine's
        elif damage == "shape":
            content["recipe"]["network"]["architecture"] = "9FC"
        else:
            content["integers"][damage] = {"sheet": "[target]", "arrays": {}, "program": {}}[damage]

    path = changed(trained, tmp_path / "bent.pt", bend)
    with pytest.raises(ReadError, match=r"bent\.pt"):
        load_checkpoint(path)


@pytest.mark.parametrize(
    "place",
    [("stream",), ("steps",), ("nodes", "input"), ("nodes", "input", "shape"), ("nodes", "readout", "phase")],
    ids=lambda place: place[-1],
)
def test_integers_of_more_than_plain_values_are_damaged(trained: Path, tmp_path: Path, place: tuple[str, ...]) -> None:
    def bend(content: dict[str, Any]) -> None:
        inner = content["integers"]["program"]
        for key in place[:-1]:
            inner = inner[key]
        inner[place[-1]] = torch.zeros(3)

    path = changed(trained, tmp_path / "bent.pt", bend)
    with pytest.raises(
        ReadError, match=r"bent\.pt: its network of integers is damaged \(its program holds more than plain"
    ):
        load_checkpoint(path)


def test_a_network_of_reals_is_not_made_of_it(trained: Path) -> None:
    with pytest.raises(ReadError, match="was trained in a target's integers"):
        Network.from_checkpoint(trained)


def test_few_levels_cost_less_when_they_are_trained(reals: Path, tmp_path: Path, verb: Verb) -> None:
    """Weights of two bits: what plain quantisation loses, training in these integers brings back."""
    sheet = LOIHI.sheet.path.read_text(encoding="utf-8")
    for wide, narrow in (
        ("{ value = -256", "{ value = -4"),
        ("{ value = 254", "{ value = 2"),
    ):
        sheet = sheet.replace(wide, narrow, 1)
    target, out = tmp_path / "narrow.toml", tmp_path / "narrow.pt"
    target.write_text(sheet, encoding="utf-8")
    recipe = tmp_path / "recipe.toml"
    settings = f'target = "{target}"\nepochs = 16\nlearning_rate = 0.003\n'
    recipe.write_text(RECIPE.partition("[quantise]")[0] + "[quantise]\n" + settings, encoding="utf-8")
    plain = verb("simulate", reals, "--target", target, "--data", "digits")
    verb("train", recipe, "--from", reals, "-o", out)
    own = verb("simulate", out, "--target", target, "--data", "digits")
    assert own["accuracy"] > plain["accuracy"] + 0.01
    graph = Trained(out).graph
    weights = list(integer.IntegerGraph(graph, Target.load(str(target))).weights.values())
    assert max(int(w.max()) for w in weights) <= 2
    assert min(int(w.min()) for w in weights) >= -4
