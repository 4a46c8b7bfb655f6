"""``snncompile energy`` as CI runs it: the answers and exit codes of its gate, what it writes, its two-word verbs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from snncompile import cli
from snncompile.cli import main

DATA = ["--data", "test:6"]
ROOT = Path(cli.__file__).parents[1]


@pytest.fixture(scope="module")
def report(saved: Path) -> Path:
    path = saved.parent / "energy.json"
    assert main(["energy", str(saved), *DATA, "-o", str(path), "-q"]) == 0
    return path


def energy(saved: Path, *words: object) -> int:
    return main(["energy", str(saved), *DATA, "-q", *map(str, words)])


def program(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run([sys.executable, *words], text=True, capture_output=True, env=environment, cwd=folder)


def test_a_baseline_is_written_held_and_defended(
    saved: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    lock = tmp_path / "energy.lock.json"
    assert energy(saved, "--baseline", lock) == 4
    assert "make it with --update-baseline" in capfd.readouterr().err
    assert energy(saved, "--baseline", lock, "--update-baseline") == 0
    written = lock.read_bytes()
    assert energy(saved, "--baseline", lock) == 0
    assert capfd.readouterr().err == ""

    assert main(["energy", str(saved), "--data", "test:5", "--baseline", str(lock), "-q"]) == 9
    assert "counts do not compare with the baseline (data, number of samples are not" in capfd.readouterr().err
    assert energy(saved, "--baseline", lock, "--level", "read") == 9
    assert energy(saved, "--baseline", lock, "--zero-skip") == 9
    assert energy(saved, "--baseline", lock, "--cost-model", "horowitz45-int8") == 9
    capfd.readouterr()

    lock.write_bytes(written.replace(b'"ac": ', b'"ac": 9', 1))
    assert energy(saved, "--baseline", lock) == 4
    assert "was changed after it was written" in capfd.readouterr().err
    assert energy(saved, "--baseline", lock, "--update-baseline") == 0
    assert lock.read_bytes() == written
    assert energy(saved, "--update-baseline") == 4
    assert "--update-baseline: no file to write; name it with --baseline F" in capfd.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["energy.lock.json"]


def test_one_synapse_more_closes_the_gate_and_is_named(
    saved: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The committed baseline has one AC less in one layer, sealed as the program seals it."""
    from snncompile.energy_conventions import digest
    from snncompile.energy_gate import lock_text

    lock = tmp_path / "energy.lock.json"
    assert energy(saved, "--baseline", lock, "--update-baseline") == 0
    content = json.loads(lock.read_text(encoding="utf-8"))
    del content["digest"]
    content["layers"]["conv2"]["ac"] -= 1
    lock.write_text(lock_text({**content, "digest": digest(content)}), encoding="utf-8")
    capfd.readouterr()
    assert energy(saved, "--baseline", lock) == 1
    said = capfd.readouterr().err
    assert re.search(r"lock\.json:\d+: layer conv2: [\d,]+ ac, [\d,]+ in the baseline: \+1 \(", said)
    assert said.startswith("snncompile energy: energy gate: 1 of ")


def test_all_limits_that_do_not_hold_are_said_everywhere(
    saved: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    budget = tmp_path / "snncompile.toml"
    budget.write_text('[budget.max]\nac = 1\n\n[budget.max.rate]\n"*" = 0\n\n[budget.min]\naccuracy = 1\n')
    places = {key: tmp_path / f"r.{key}" for key in ("markdown", "html", "junit", "benchmark")}
    summary = tmp_path / "summary.md"
    summary.write_text("what stood there before\n", encoding="utf-8")
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    options = [word for key, place in places.items() for word in (f"--{key}", place)]
    assert energy(saved, "--budget", budget, "--baseline", tmp_path / "l.json", "--update-baseline", *options) == 1
    said = capfd.readouterr()
    # the limit on AC, five populations that fire, the accuracy of random weights
    assert "7 of 7 limits do not hold" in said.err
    lines = [line for line in said.err.splitlines() if line.startswith("  ")]
    assert [re.search(r"toml:(\d+): ", line)[1] for line in lines] == ["2", *["5"] * 5, "8"]  # type: ignore[index]
    assert len([line for line in said.err.splitlines() if line.startswith("::error file=")]) == 7
    assert said.out.startswith("tiny.pt (folded) at T = 3")
    assert not (tmp_path / "l.json").exists()
    assert summary.read_text(encoding="utf-8").startswith("what stood there before\n# Energy of tiny.pt")
    assert 'failures="7"' in places["junit"].read_text(encoding="utf-8")
    assert "Gate: 7 of 7 limits exceeded." in places["markdown"].read_text(encoding="utf-8")
    assert "<svg" in places["html"].read_text(encoding="utf-8")
    assert json.loads(places["benchmark"].read_text(encoding="utf-8"))[0]["unit"] == "nJ"


@pytest.mark.parametrize(
    ("code", "message", "words"),
    [
        (3, "absent.toml: cannot be read", ["--budget", "absent.toml"]),
        (3, "did you mean horowitz45", ["--cost-model", "horowitz54"]),
        (3, "unavailable: no energy of an operation is published for this machine", ["--cost-model", "loihi"]),
        (4, "no convention 'flops'", ["--also", "flops"]),
        (4, "cannot be written", ["--html", "absent/x.html"]),
        (4, "cannot be written", ["--junit", "."]),
    ],
)
def test_wrong_input_is_one_message(
    saved: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    code: int,
    message: str,
    words: list[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert energy(saved, *words) == code
    said = capfd.readouterr()
    assert (said.out, said.err.count("\n")) == ("", 1)
    assert message in said.err
    assert list(tmp_path.iterdir()) == []


def test_torch_and_the_levels_in_reals_count_the_same(saved: Path, report: Path, tmp_path: Path) -> None:
    folded = json.loads(report.read_text(encoding="utf-8"))
    for level in ("torch", "read"):
        path = tmp_path / f"{level}.json"
        assert energy(saved, "--level", level, "-o", path) == 0
        found = json.loads(path.read_text(encoding="utf-8"))
        assert (found["level"], found["totals"]) == (level, folded["totals"])
        assert found["correct_by_steps"] == folded["correct_by_steps"]


def test_a_report_is_priced_again_without_torch(report: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from snncompile.cli import main\n"
        f"code = main(['energy', 'reprice', {str(report)!r}, '--cost-model', 'loihi1', '-o', 'again.json'])\n"
        "assert 'torch' not in sys.modules, 'torch'\n"
        "sys.exit(code)"
    )
    done = program("-c", code, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Intel Loihi 1, pre-silicon simulation" in done.stdout
    before, after = (json.loads(path.read_text(encoding="utf-8")) for path in (report, tmp_path / "again.json"))
    assert before["totals"] == after["totals"]
    assert before["energy_per_sample_J"] < after["energy_per_sample_J"]


def test_differences_are_exact(report: Path, saved: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["energy", "diff", str(report), str(report)]) == 0
    assert "Every count is the same." in capfd.readouterr().out
    content: dict[str, Any] = json.loads(report.read_text(encoding="utf-8"))
    (layer,) = (layer for layer in content["layers"] if layer["name"] == "conv2")
    for table in (content["totals"], content["roles"][layer["role"]], layer["columns"]):
        table["ac"] += 2
    for key in ("by_step", "by_sample"):
        layer[key]["ac"][0] += 2
    other = tmp_path / "other.json"
    other.write_text(json.dumps(content), encoding="utf-8")
    assert main(["energy", "diff", str(report), str(other), "--format", "json"]) == 0
    found = json.loads(capfd.readouterr().out)["differences"]
    assert [(one["layer"], one["column"], one["right"] - one["left"]) for one in found] == [
        ("conv2", "ac", 2),
        ("total", "ac", 2),
    ]
    content["layers"][0]["name"] = "renamed"
    other.write_text(json.dumps(content), encoding="utf-8")
    assert main(["energy", "diff", str(report), str(other)]) == 0
    said = capfd.readouterr().out
    assert re.search(r"^renamed +mac +absent", said, re.MULTILINE)
    content["digests"]["conventions"] = "others"
    other.write_text(json.dumps(content), encoding="utf-8")
    assert main(["energy", "diff", str(report), str(other)]) == 9


def test_an_explanation_adds_up(report: Path, capfd: pytest.CaptureFixture[str]) -> None:
    content: dict[str, Any] = json.loads(report.read_text(encoding="utf-8"))
    for name, price in (("conv1", 4.6), ("conv2", 0.9)):
        assert main(["energy", "explain", str(report), name]) == 0
        said = capfd.readouterr().out
        (layer,) = (one for one in content["layers"] if one["name"] == name)
        count = layer["columns"]["mac" if name == "conv1" else "ac"]
        assert f"{count:,} {'mac' if name == 'conv1' else 'ac'} x {price:g} pJ" in said
        assert f"{layer['energy_per_sample_J'] * 1e9:,.4f} nJ a sample" in said
        assert "targets/horowitz45.toml:" in said
    assert main(["energy", "explain", str(report), "conv3"]) == 4
    assert "no layer 'conv3'; did you mean conv" in capfd.readouterr().err


def test_files_named_like_verbs_are_reached(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "diff").write_text("no checkpoint")
    assert main(["energy", "./diff"]) == 4
    assert "diff" in capfd.readouterr().err
    for words in (["reprice", "diff"], ["diff", "diff", "diff"], ["explain", "diff", "fc1"]):
        assert main(["energy", *words]) == 4
        said = capfd.readouterr().err
        assert said.startswith(f"snncompile energy {words[0]}: diff: is no energy report")


def test_the_workflow_of_the_docs_runs(saved: Path, tmp_path: Path) -> None:
    """Its only step of our own, as the shell script it is: it passes, fails, gives no verdict."""
    workflow = (ROOT / "docs" / "energy-gate.yml").read_text(encoding="utf-8")
    (script,) = re.findall(r"run: \|\n((?: {10}.*\n)+)", workflow)
    folder = tmp_path / "bin"
    folder.mkdir()
    tool = folder / "snncompile"
    tool.write_text(f'#!/bin/sh\nexec {sys.executable} -m snncompile "$@"\n', encoding="utf-8")
    tool.chmod(0o755)
    work = tmp_path / "work"
    work.mkdir()
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "PATH": f"{folder}:{os.environ['PATH']}",
        "CHECKPOINT": str(saved),
        "DATA": "test:6",
        "GITHUB_ACTIONS": "true",
        "GITHUB_STEP_SUMMARY": str(work / "summary.md"),
    }
    script = "\n".join(line[10:] for line in script.splitlines())

    def step(limits: str, code: int, **more: str) -> subprocess.CompletedProcess[str]:
        (work / "snncompile.toml").write_text(limits, encoding="utf-8")
        words = ["bash", "-e", "-c", script]
        done = subprocess.run(words, cwd=work, env=environment | more, text=True, capture_output=True)
        assert done.returncode == code, done.stderr
        return done

    assert energy(saved, "--baseline", work / "energy.lock.json", "--update-baseline") == 0
    step("[budget.max]\nmac = 1_000_000\n", 0)
    reports = {"energy.json", "energy.html", "energy.xml", "energy-benchmark.json"}
    inputs = {"snncompile.toml", "energy.lock.json"}
    assert {path.name for path in work.iterdir()} == {*reports, *inputs, "summary.md"}
    # what the other steps name is what this one writes
    (kept,) = re.findall(r"^ +path: (\S+)$", workflow, re.MULTILINE)
    assert reports <= {path.name for path in work.glob(kept)}
    (recorded,) = re.findall(r"output-file-path: (\S+)", workflow)
    assert recorded in reports
    assert json.loads((work / recorded).read_text(encoding="utf-8"))
    # history is recorded where that step can run: on a push, which the workflow listens to
    assert re.search(r"^on:\n  pull_request:\n  push:\n    branches: \[main\]$", workflow, re.MULTILINE)
    assert workflow.count("if: github.event_name == 'push'") == 1
    for name in reports:
        (work / name).unlink()
    said = step("[budget.max]\nmac = 1\n", 1).stderr
    assert "::error file=snncompile.toml,line=2,title=energy::max.mac" in said
    assert reports <= {path.name for path in work.iterdir()}
    assert "max.mac" in (work / "summary.md").read_text(encoding="utf-8")
    assert "do not compare" in step("[budget.max]\nmac = 1_000_000\n", 9, DATA="test:5").stderr


def test_a_bundle_counts_what_its_checkpoint_counts(saved: Path, tmp_path: Path) -> None:
    """The levels in integers and the bundle, which has no checkpoint beside it: the same spikes, the same counts."""
    found = {}
    for level in ("fixed", "timed", "placed"):
        assert energy(saved, "--level", level, "-o", tmp_path / f"{level}.json") == 0
        found[level] = json.loads((tmp_path / f"{level}.json").read_text(encoding="utf-8"))
    bundle = tmp_path / "bundle"
    assert main(["export", str(saved), "--data", "test:6", "-o", str(bundle), "--no-verify", "-q"]) == 0
    assert main(["energy", str(bundle), *DATA, "-q", "-o", str(tmp_path / "bundle.json")]) == 0
    found["bundle"] = json.loads((tmp_path / "bundle.json").read_text(encoding="utf-8"))
    for other in ("timed", "placed", "bundle"):
        assert found[other]["totals"] == found["fixed"]["totals"]
        assert found[other]["correct_by_steps"] == found["fixed"]["correct_by_steps"]
        for key in ("layers", "ann"):
            assert found[other][key] == found["fixed"][key], other
    assert main(["energy", str(bundle), *DATA, "-q", "--level", "fixed"]) == 4


def test_a_layer_of_its_own_renamed_closes_the_gate(
    saved: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The baseline knows a layer by another name, sealed as the program seals it."""
    from snncompile.energy_conventions import digest
    from snncompile.energy_gate import lock_text

    lock = tmp_path / "energy.lock.json"
    assert energy(saved, "--baseline", lock, "--update-baseline") == 0
    content = json.loads(lock.read_text(encoding="utf-8"))
    del content["digest"]
    content["layers"]["head"] = content["layers"].pop("fc2")
    lock.write_text(lock_text({**content, "digest": digest(content)}), encoding="utf-8")
    capfd.readouterr()
    assert energy(saved, "--baseline", lock) == 1
    said = capfd.readouterr().err
    assert "layer head: is in the baseline and not in the network; new: fc2" in said
    assert "layer fc2: is in the network and not in the baseline" in said
