"""What the verbs answer: tables and JSON, levels and artifacts, traces that agree and traces that do not."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from snncompile.cli import main
from snncompile.run.trace import Trace
from tests.tiny import SAMPLES, STEPS

DATA = ["--data", "test:6"]


@pytest.fixture(scope="module")
def bundle(saved: Path) -> Path:
    out = saved.parent / "bundle"
    assert main(["export", str(saved), "-o", str(out), "-q", "--no-verify"]) == 0
    return out


@pytest.fixture
def answer(capfd: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """Runs a verb twice: its JSON, after checking that stdout holds nothing else, and its table."""

    def run(*words: object) -> tuple[Any, str]:
        capfd.readouterr()
        assert main([*map(str, words), "--format", "json", "-q"]) == 0
        said = capfd.readouterr()
        assert said.err == "", "quiet"
        found = json.loads(said.out)
        assert main([*map(str, words), "-q"]) == 0
        return found, capfd.readouterr().out

    return run


def disagree(capfd: pytest.CaptureFixture[str], *words: object) -> str:
    assert main(["verify", *map(str, words), "-q"]) == 8
    said = capfd.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    return said.err


def test_the_ladder_in_both_forms(saved: Path, answer: Callable[..., Any]) -> None:
    found, text = answer("verify", saved)
    assert (found["data"], found["samples"]) == ("the checkpoint's sample", SAMPLES)
    assert [rung["rung"] for rung in found["rungs"]] == list(range(7))
    assert [rung["verdict"] for rung in found["rungs"][3:]] == ["measured", "bit-equal", "bit-equal", "left out"]
    assert set(found["rungs"][0]) == {
        *("rung", "level", "run_by", "against", "verdict", "compared", "different", "note", "flips", "distance")
    }
    assert len(text.splitlines()) == 9


@pytest.mark.parametrize("what", ["checkpoint", "bundle"])
def test_simulate(what: str, saved: Path, bundle: Path, tmp_path: Path, answer: Callable[..., Any]) -> None:
    trace = tmp_path / "trace.npz"
    found, text = answer("simulate", saved if what == "checkpoint" else bundle, *DATA, "--trace", trace)
    kept = Trace.load(trace)
    assert found["samples"] == len(found["answers"]) == 6
    assert found["spikes"] == {name: int(array.sum()) for name, array in kept.spikes.items()}
    assert found["rates"] == {name: pytest.approx(array.mean()) for name, array in kept.spikes.items()}
    assert found["answers"] == kept.potentials["readout"][:, -1].argmax(axis=1).tolist()
    assert re.search(rf"accuracy [\d.]+% \({round(found['accuracy'] * 6)} of 6\)", text)
    assert f"6 samples of test:6, {STEPS} steps each, in the integers of loihi" in text


@pytest.mark.parametrize("level", ["read", "folded", "fixed", "timed", "placed"])
def test_show_every_level(level: str, saved: Path, answer: Callable[..., Any]) -> None:
    found, text = answer("show", saved, "--level", level)
    nodes = {node["name"]: node for node in found["nodes"]}
    assert ("norm1" in nodes) is (level == "read")
    assert bool(nodes["lif1"]["phase"]) is (level in ("timed", "placed"))
    assert bool(nodes["lif1"]["cores"]) is (level == "placed")
    assert f"{found['neurons']:,} neurons, {found['weights']:,} weights" in text
    assert answer("show", saved, "--level", level, "--text")[1].count("\n") == len(nodes)


def test_show_a_bundle_and_a_trace(bundle: Path, tmp_path: Path, answer: Callable[..., Any]) -> None:
    found, text = answer("show", bundle)
    assert {node["name"] for node in found["nodes"]} >= {"input", "lif1", "readout", "output"}
    assert f"placed on loihi, {STEPS} steps a sample, one stream" in text
    assert main(["simulate", str(bundle), *DATA, "--trace", str(tmp_path / "t.npz"), "-q"]) == 0
    traced, text = answer("show", tmp_path / "t.npz")
    assert traced["lif1"] == {
        "shape": [6, STEPS, 4, 8, 8],
        "spikes": int(Trace.load(tmp_path / "t.npz").spikes["lif1"].sum()),
        "potentials": True,
    }
    assert traced["readout"]["spikes"] is None
    assert "6x3x4x8x8" in text


def test_a_bundle_has_one_level(bundle: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for verb in ("show", "energy"):
        assert main([verb, str(bundle), "--level", "folded", *(DATA if verb == "energy" else [])]) == 4
        assert "a bundle has no level 'folded'; give the checkpoint" in capfd.readouterr().err
    for verb in ("simulate", "energy", "run", "verify"):
        assert main([verb, str(bundle)]) == 4
        assert "carries no data; name some with --data" in capfd.readouterr().err


@pytest.mark.parametrize("level", ["read", "folded", "fixed"])
def test_energy(level: str, saved: Path, tmp_path: Path, answer: Callable[..., Any]) -> None:
    found, text = answer("energy", saved, "--level", level, *DATA, "-o", tmp_path / "e.json")
    assert found == json.loads((tmp_path / "e.json").read_text(encoding="utf-8"))
    assert (found["level"], found["samples"], found["steps"]) == (level, 6, STEPS)
    assert found["totals"]["ac"] > 0
    assert "tiny.pt" in text
    assert [path.name for path in tmp_path.iterdir()] == ["e.json"]


# --- two artifacts ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("left", "right", "potentials"),
    [
        ("{saved}@torch", "{saved}@read", 0),
        ("{saved}@folded", "{saved}", 0),
        ("{saved}@fixed", "{saved}@timed", 6),
        ("{saved}@placed", "{saved}@cpu", 6),
        ("{saved}@cpu", "{bundle}", 6),
        ("{bundle}@placed", "{bundle}@cpu", 6),
        ("{saved}@fixed", "{trace}", 6),
        ("{trace}", "{trace}", 6),
    ],
)
def test_artifacts_that_agree(
    left: str, right: str, potentials: int, saved: Path, bundle: Path, tmp_path: Path, answer: Callable[..., Any]
) -> None:
    trace = tmp_path / "trace.npz"
    assert main(["simulate", str(bundle), *DATA, "--trace", str(trace), "-q"]) == 0
    names = {"saved": saved, "bundle": bundle, "trace": trace}
    found, text = answer("verify", left.format(**names), right.format(**names), *DATA)
    assert found["equal"] is True
    assert (len(found["populations"]), len(found["potentials"])) == (5, potentials)
    assert found["compared"] == sum(array.size for array in Trace.load(trace).spikes.values())
    assert text == f"equal: {found['compared']:,} spikes of 5 populations, potentials of {potentials}\n"


@pytest.fixture
def traces(bundle: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Callable[..., Path]:
    """A trace of the bundle, changed."""
    original = tmp_path / "original.npz"
    assert main(["simulate", str(bundle), *DATA, "--trace", str(original), "-q"]) == 0
    capfd.readouterr()

    def make(change: Callable[[dict[str, Any]], None]) -> Path:
        with np.load(original) as archive:
            arrays = dict(archive)
        change(arrays)
        np.savez(tmp_path / "changed.npz", **arrays)
        return tmp_path / "changed.npz"

    return make


def test_a_spike_that_differs(bundle: Path, traces: Callable[..., Path], capfd: pytest.CaptureFixture[str]) -> None:
    def flip(arrays: dict[str, Any]) -> None:
        arrays["lif2.s"][3, 2, 4, 1, 1] ^= 1
        arrays["lif3.s"][0, 2, 5] ^= 1

    changed = traces(flip)
    said = disagree(capfd, bundle, changed, *DATA)
    trace = Trace.load(changed.with_name("original.npz"))
    v, s = trace.potentials["lif2"][3, 2, 4, 1, 1], bool(trace.spikes["lif2"][3, 2, 4, 1, 1])
    found = re.search(r"potentials (-?\d+) and (-?\d+), threshold (\d+), margin ([\d.e+]+)", said)
    assert found
    assert f"first lif2[4,1,1], step 2, sample 3: spikes {s} and {not s} (potentials {v} and {v}, " in said
    assert float(found[4]) == pytest.approx(abs(v - int(found[3])), rel=1e-2)
    assert said.endswith(": lif2 1, lif3 1)\n")
    assert "first lif2[4,1,1], step 2, sample 3" in disagree(capfd, changed.with_name("original.npz"), changed)


def test_a_potential_that_differs(bundle: Path, traces: Callable[..., Path], capfd: pytest.CaptureFixture[str]) -> None:
    def charge(arrays: dict[str, Any]) -> None:
        arrays["readout.v"][5, 1, 9] += 1

    said = disagree(capfd, bundle, traces(charge), *DATA)
    assert re.search(r"first readout\[9\], step 1, sample 5: potentials (-?\d+) and (-?\d+) \(spikes .* only\)", said)


def test_traces_of_spikes_alone_claim_no_potentials(traces: Callable[..., Path], answer: Callable[..., Any]) -> None:
    def without(arrays: dict[str, Any]) -> None:
        for name in [name for name in arrays if name.endswith(".v")] + ["lif3.s"]:
            del arrays[name]

    changed = traces(without)
    found, text = answer("verify", changed.with_name("original.npz"), changed)
    assert found["potentials"] == []
    assert found["not_compared"] == ["lif3"]
    assert text.endswith("spikes of 4 populations, potentials of 0\n")


def test_what_only_one_of_two_has_is_said(traces: Callable[..., Path], capfd: pytest.CaptureFixture[str]) -> None:
    changed = traces(lambda arrays: arrays.pop("lif3.s") is None)
    assert main(["verify", str(changed.with_name("original.npz")), str(changed)]) == 0
    assert "only one of the two has lif3\n" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a", "b", "c"], "3 artifacts; give one (its ladder) or two"),
        (["{trace}"], "a trace has no ladder; give what it is compared with"),
        (["{trace}@cpu", "{trace}"], "a trace has no level 'cpu'"),
        (["{saved}@foo", "{saved}"], "a checkpoint has no level 'foo'; torch, read, folded, fixed, timed, placed, cpu"),
        (["{bundle}@fixed", "{bundle}", *DATA], "a bundle has no level 'fixed'; cpu, placed, lava or onnx"),
        (["{trace}", "{saved}"], "spikes of shape [6, 3, 4, 8, 8] against [12, 3, 4, 8, 8]"),
    ],
)
def test_comparisons_that_make_no_sense(
    words: list[str],
    message: str,
    saved: Path,
    bundle: Path,
    traces: Callable[..., Path],
    refused: Callable[..., str],
) -> None:
    trace = traces(lambda arrays: None)
    names = {"saved": saved, "bundle": bundle, "trace": trace}
    assert message in refused(4, "verify", *(word.format(**names) for word in words))


def test_a_path_may_hold_an_at(saved: Path, tmp_path: Path, answer: Callable[..., Any]) -> None:
    path = tmp_path / "me@home" / "net@cpu"
    path.parent.mkdir()
    path.write_bytes(saved.read_bytes())
    assert answer("verify", path, f"{path}@read")[0]["equal"] is True


# --- Lava -------------------------------------------------------------------------------------------------------------


@pytest.mark.lava
def test_run_and_verify_on_lava(
    saved: Path, bundle: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], answer: Callable[..., Any]
) -> None:
    seen = tmp_path / "lava.npz"
    assert main(["run", str(bundle), *DATA, "--trace", str(seen), "--format", "json", "-q"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert found["lava"]["versions"]["lava"].startswith("0.10")
    equal, _ = answer("verify", f"{saved}@fixed", seen, *DATA)
    assert (len(equal["populations"]), len(equal["potentials"])) == (5, 6)
    assert main(["simulate", str(bundle), *DATA, "--format", "json", "-q"]) == 0
    assert json.loads(capfd.readouterr().out)["answers"] == found["answers"]
    with np.load(seen) as archive:
        arrays = dict(archive)
    arrays["block1_lif2.s"][2, 1, 3, 0, 0] ^= 1
    np.savez(tmp_path / "changed.npz", **arrays)
    said = disagree(capfd, bundle, tmp_path / "changed.npz", *DATA)
    assert "first block1_lif2[3,0,0], step 1, sample 2: spikes " in said
    assert ", threshold " in said


@pytest.mark.lava
def test_a_bundle_alone_is_verified_against_lava(bundle: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(bundle), "--data", "test:2"]) == 0
    said = capfd.readouterr()
    assert said.out.startswith("equal: ")
    assert f"comparing {bundle}@cpu with {bundle}@lava\n" in said.err


def test_no_lava_is_said_with_its_code(
    bundle: Path, tmp_path: Path, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("snncompile.backends.lava.find_interpreter", lambda: None)
    assert "there is no interpreter with Lava; build the environment with `make lava`" in refused(
        7, "run", bundle, *DATA
    )
    assert "there is no interpreter with Lava" in refused(7, "verify", bundle, *DATA)
