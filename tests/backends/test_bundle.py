"""Bundles: what is in them, that they are the same every time, and that a changed one is refused."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from snncompile import __version__
from snncompile.backends import lava
from snncompile.backends.bundle import check_free, check_whole, digest, write_manifest, writing
from snncompile.cli import main
from snncompile.compile import encoded, shown
from snncompile.errors import ReadError
from snncompile.ir.ops import Neuron
from snncompile.ir.store import load
from snncompile.report.bundle_report import bundle_report
from snncompile.report.document import to_html, to_markdown
from snncompile.run.cpu import Simulator
from snncompile.target import Target
from snncompile.verify import after_reset
from tests.tiny import STEPS, checkpoint, images, standing

FILES = [
    *("arrays.npz", "cores.svg", "manifest.json", "network/arrays.npz", "network/program.json", "program.json"),
    *("report.html", "report.md", "run_lava.py", "target.toml"),
]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint(tmp_path_factory.mktemp("saved") / "tiny.pt")


@pytest.fixture(scope="module")
def exported(saved: Path) -> Path:
    """Proven without Lava; nobody changes it."""
    out = saved.parent / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SNNCOMPILE_NO_LAVA", "1")
        assert main(["export", str(saved), "-o", str(out), "-q"]) == 0
    return out


@pytest.fixture
def bundle(exported: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(exported, tmp_path / "bundle"))


def manifest_of(bundle: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))
    return content


# --- what is in it ----------------------------------------------------------------------------------------------------


def test_the_files_and_what_the_manifest_says(exported: Path, saved: Path) -> None:
    assert sorted(str(path.relative_to(exported)) for path in exported.rglob("*") if path.is_file()) == FILES
    manifest = manifest_of(exported)
    assert sorted(manifest) == [
        *(
            "ann_mac",
            "classes",
            "cores_used",
            "device",
            "files",
            "inputs",
            "latency",
            "notes",
            "placement",
            "quantisation",
            "recipe",
        ),
        *("resets", "schema", "source", "spike_exact", "steps", "stream", "target", "verification", "versions"),
    ]
    assert manifest["schema"] == "snncompile.bundle/1"
    assert manifest["files"] == {name: digest(exported / name) for name in FILES if name != "manifest.json"}
    assert manifest["source"]["name"] == "tiny.pt"
    assert manifest["source"]["sha256"] == digest(saved)
    assert manifest["source"]["recipe"] == "tiny"
    assert manifest["classes"] == list("0123456789")
    assert manifest["target"]["name"] == "loihi"
    assert manifest["versions"]["snncompile"] == __version__
    assert {"python", "numpy", "networkx", "torch"} < manifest["versions"].keys()
    assert (manifest["steps"], manifest["stream"]) == (STEPS, True)
    # six populations in a row, each a step behind what it reads; the residual one waits for its longest way
    phases = {name: plan["offset"] - 1 for name, plan in manifest["resets"].items()}
    assert phases == {"lif1": 1, "block1_lif1": 2, "block1_lif2": 3, "lif2": 4, "lif3": 5, "readout": 6}
    assert manifest["latency"] == 6
    assert {plan["interval"] for plan in manifest["resets"].values()} == {STEPS}
    assert [rung["verdict"] for rung in manifest["verification"]["rungs"]][-3:] == [
        "bit-equal",
        "bit-equal",
        "left out",
    ]
    assert manifest["verification"]["data"] == "the checkpoint's sample"
    assert manifest["inputs"]["input"]["shape"] == [1, 8, 8]
    assert manifest["inputs"]["input"]["signal"] == "fixed"
    assert any(note.startswith("no network.net: ") for note in manifest["notes"])


def test_reports_are_made_from_the_manifest_alone(exported: Path) -> None:
    blocks = bundle_report(manifest_of(exported))
    assert (exported / "report.md").read_text(encoding="utf-8") == to_markdown(blocks)
    assert (exported / "report.html").read_text(encoding="utf-8") == to_html("tiny", blocks)


def test_the_sheet_travels_with_the_bundle(exported: Path) -> None:
    ours, theirs = Target.load(str(exported / "target.toml")), Target.load("loihi")
    assert ours == theirs


def test_a_second_export_is_the_same_to_the_byte(
    exported: Path, bundle: Path, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SNNCOMPILE_NO_LAVA", "1")
    before = standing(bundle)
    assert main(["export", str(saved), "-o", str(bundle), "-q"]) == 4
    (bundle / "report.md").write_text("older")
    assert main(["export", str(saved), "-o", str(bundle), "-q", "--force"]) == 0
    assert standing(bundle) == before
    assert sorted(path.name for path in bundle.parent.iterdir()) == ["bundle"]


def test_unproven_is_said_everywhere(saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(saved), "-o", str(tmp_path / "out"), "--no-verify", "-q"]) == 0
    assert capsys.readouterr().out.endswith("\nNOT VERIFIED (--no-verify)\n")
    assert manifest_of(tmp_path / "out")["verification"]["rungs"] == []
    assert "Not verified: exported with --no-verify." in (tmp_path / "out" / "report.md").read_text(encoding="utf-8")


def test_a_chain_gets_a_network_net(tmp_path: Path) -> None:
    saved = checkpoint(tmp_path / "chain.pt", "16FC-10FC")
    assert main(["export", str(saved), "-o", str(tmp_path / "out"), "--no-verify", "-q"]) == 0
    manifest = manifest_of(tmp_path / "out")
    named = "network.net" in manifest["files"]
    assert named is (tmp_path / "out" / "network.net").exists()
    assert named or any(note.startswith("no network.net: ") for note in manifest["notes"])


# --- one that was changed ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["run", "simulate", "verify", "energy", "show"])
@pytest.mark.parametrize("name", ["arrays.npz", "program.json", "target.toml", "run_lava.py"])
def test_a_changed_file_is_refused_by_every_verb(
    verb: str, name: str, bundle: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    content = bytearray((bundle / name).read_bytes())
    content[len(content) // 2] ^= 1
    (bundle / name).write_bytes(content)
    data = [] if verb == "show" else ["--data", "test:2"]
    assert main([verb, str(bundle), *data, "-q"]) == 4
    said = capfd.readouterr()
    assert said.err == (
        f"snncompile {verb}: {bundle / name}: is not what was exported (SHA-256 differs); export again\n"
    )
    assert said.out == ""


def lacking(manifest: dict[str, Any]) -> None:
    del manifest["files"]


def emptied(manifest: dict[str, Any]) -> None:
    manifest["files"] = {}


def listed(manifest: dict[str, Any]) -> None:
    manifest["files"] = ["arrays.npz"]


def outside(manifest: dict[str, Any]) -> None:
    manifest["files"]["../../../etc/passwd"] = "0"


def foreign(manifest: dict[str, Any]) -> None:
    manifest["schema"] = "something/1"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lacking, "does not say what its files were"),
        (emptied, "does not say what its files were"),
        (listed, "does not say what its files were"),
        (outside, f"{os.sep}bundle{os.sep}passwd: is missing"),
        (foreign, "is no manifest of a bundle"),
    ],
)
def test_a_manifest_that_lies(
    change: Callable[[dict[str, Any]], None], message: str, bundle: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    manifest = manifest_of(bundle)
    change(manifest)
    (bundle / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    assert main(["show", str(bundle)]) == 4
    assert message in capfd.readouterr().err


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '"x"', "\0"])
def test_a_manifest_that_is_none(content: str, bundle: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (bundle / "manifest.json").write_text(content, encoding="utf-8")
    assert main(["show", str(bundle)]) == 4
    assert re.search(r"manifest.json: (cannot be read|is no manifest)", capfd.readouterr().err)


def test_a_bundle_whose_hashes_were_made_to_fit_must_still_be_a_program(
    bundle: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A weight that the chip does not have, under a hash that somebody has computed anew."""
    with np.load(bundle / "arrays.npz") as archive:
        arrays = dict(archive)
    arrays["conv1.weight.mantissa"].flat[0] = 1001
    with (bundle / "arrays.npz").open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)
    manifest = manifest_of(bundle)
    manifest["files"]["arrays.npz"] = digest(bundle / "arrays.npz")
    (bundle / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    assert main(["simulate", str(bundle), "--data", "test:2", "-q"]) == 5
    assert "conv1 (Conv): 1 weights are none of the machine's [weights_fit]" in capfd.readouterr().err


# --- writing ----------------------------------------------------------------------------------------------------------


def filled(folder: Path, text: str = "x") -> None:
    for name in ("program.json", "arrays.npz", "target.toml"):
        (folder / name).write_text(text)
    write_manifest(folder, {"steps": 1})


def test_a_folder_takes_its_place_at_the_end(tmp_path: Path) -> None:
    out = tmp_path / "a" / "b"
    with writing(out, force=False) as folder:
        assert folder.parent == out.parent
        assert not out.exists()
        filled(folder)
    assert sorted(path.name for path in out.parent.iterdir()) == ["b"]
    check_whole(out, manifest_of(out))
    assert manifest_of(out)["steps"] == 1


def test_an_empty_folder_is_a_place_and_stays_one_when_the_export_fails(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(KeyboardInterrupt), writing(out, force=False):
        raise KeyboardInterrupt
    assert list(tmp_path.rglob("*")) == [out]
    with writing(out, force=False) as folder:
        filled(folder)
    assert (out / "manifest.json").exists()


def test_a_link_is_followed(tmp_path: Path) -> None:
    """What the link names is replaced; the link stays."""
    with writing(tmp_path / "real", force=False) as folder:
        filled(folder, "one")
    (tmp_path / "link").symlink_to("real")
    with writing(tmp_path / "link", force=True) as folder:
        filled(folder, "two")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / "arrays.npz").read_text() == "two"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "real"]


def test_parents_that_others_use_meanwhile_stay(tmp_path: Path) -> None:
    def fail() -> None:
        with writing(tmp_path / "a" / "b" / "out", force=False):
            (tmp_path / "a" / "theirs").write_text("keep me")
            raise MemoryError

    with pytest.raises(MemoryError):
        fail()
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == ["a", "a/theirs"]


@pytest.mark.parametrize("force", [False, True])
def test_only_a_bundle_is_replaced(force: bool, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("keep me")
    with pytest.raises(ReadError, match="is there already and is no bundle"):
        check_free(tmp_path, force=force)
    filled(tmp_path)
    if force:
        check_free(tmp_path, force=True)
    else:
        with pytest.raises(ReadError, match="replace it with --force"):
            check_free(tmp_path, force=False)


# --- without this package ---------------------------------------------------------------------------------------------


@pytest.mark.lava
def test_the_bundle_runs_in_lava_s_interpreter_alone(bundle: Path, tmp_path: Path) -> None:
    """As the documentation says: the folder, an interpreter with Lava, a stimulus. This package cannot be imported."""
    python = lava.find_interpreter()
    assert python is not None
    program = load(bundle)
    stimulus = encoded(program.graph, shown(program.graph, images(3), program.steps))
    np.savez(tmp_path / "stimulus.npz", **stimulus)
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
    command = [str(python), str(bundle / "run_lava.py"), str(bundle), "stimulus.npz", "trace.npz", "--potentials"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    expected = after_reset(program.graph, Simulator(program.graph, Target.load("loihi")).run(stimulus))
    with np.load(tmp_path / "trace.npz", allow_pickle=False) as trace:
        assert json.loads(str(trace["meta"]))["versions"]["lava"].startswith("0.10")
        for name, potentials in expected.potentials.items():
            np.testing.assert_array_equal(trace[f"{name}.v"], potentials, err_msg=name)
        for name in program.graph.names(Neuron):
            np.testing.assert_array_equal(trace[f"{name}.s"], expected.spikes[name], err_msg=name)
            assert trace[f"{name}.s"].any(), "silence tests nothing"
