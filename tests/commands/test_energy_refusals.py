"""``snncompile energy`` in hostile hands: names that are empty, odd or taken, readers that leave, limits on nothing.

A gate that is not there must not look like one that is open.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from snncompile import cli
from snncompile.cli import main
from snncompile.report.energy_ci import SUMMARY_BYTES

DATA = ["--data", "test:6", "-q"]
CLOSED = "[budget.max]\nac = 1\n"


def program(*words: object) -> list[str]:
    return [sys.executable, "-m", "snncompile", *map(str, words)]


ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(cli.__file__).parents[1]), "PYTHONDONTWRITEBYTECODE": "1"}


@pytest.fixture
def budget(tmp_path: Path) -> Callable[[str], Path]:
    def write(text: str) -> Path:
        path = tmp_path / "snncompile.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.mark.parametrize(
    "option",
    ["--budget", "--baseline", "--data", "--html", "--markdown", "--junit", "--benchmark", "-o", "--also", "--resume"],
)
def test_an_empty_name_is_no_missing_option(option: str, saved: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """``--budget "$BUDGET"`` where the variable is not set."""
    with pytest.raises(SystemExit) as caught:
        main(["energy", str(saved), *DATA, option, ""])
    said = capfd.readouterr()
    assert (caught.value.code, said.out) == (2, "")
    assert "an empty name" in said.err


@pytest.mark.parametrize(
    ("code", "text", "message"),
    [
        (3, "[budget]\n", "budget: sets no limit; leave it out, or set one"),
        (3, "[budget.max]\n", "budget.max: sets no limit"),
        (3, "[budget.max.rate]\n", "budget.max.rate: sets no limit"),
        (3, "[budget.layers]\n", "budget.layers: sets no limit"),
        (3, "[budget.layers.conv1]\n", "budget.layers.conv1: sets no limit"),
        (3, "[budget.max.ac]\nvalue = 1\n", "toml:1, budget.max.ac: expected a number that is not negative, found {"),
        (3, "[budget.max.rate.lif1]\nvalue = 1\n", "budget.max.rate.lif1: expected a number"),
        (3, "[budget.min.accuracy]\nvalue = 1\n", "budget.min.accuracy: expected a number"),
        (3, "[budget.min]\naccuracy = 97\n", "toml:2, budget.min.accuracy: expected a share from 0 to 1, found 97"),
        (3, '[budget.max.rate]\n"lif*" = 30\n', "toml:2, budget.max.rate.lif*: expected a share from 0 to 1"),
        (3, '[budget]\nmax_increase = "1%"\n', "budget.max_increase: limits nothing (max_increase is of a baseline)"),
        (3, '[budget]\nmax_increase = "1e999999999%"\n', "budget.max_increase: expected a percentage"),
        (3, f"[budget.max]\nac = {'9' * 5000}\n", "toml: not TOML"),
        (3, f"[budget.max]\nac = {'[' * 5000}\n", "toml: not TOML"),
        (
            4,
            "[budget.layers.conv1]\nac = 1\n",
            "toml:2: no layer that is named 'conv1' has AC; these have: block1_conv1",
        ),
    ],
)
def test_what_limits_nothing_is_no_budget(
    code: int,
    text: str,
    message: str,
    saved: Path,
    budget: Callable[[str], Path],
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert main(["energy", str(saved), *DATA, "--budget", str(budget(text))]) == code
    said = capfd.readouterr()
    assert (said.out, said.err.count("\n")) == ("", 1)
    assert message in said.err


def test_a_wrong_limit_is_said_before_the_work(
    budget: Callable[[str], Path], capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["energy", "absent.pt", *DATA, "--budget", str(budget("[budget.max]\nac = -1\n"))]) == 3
    assert "expected a number that is not negative" in capfd.readouterr().err


@pytest.mark.parametrize("form", ["table", "json"])
def test_a_reader_that_leaves_does_not_open_the_gate(form: str, saved: Path, budget: Callable[[str], Path]) -> None:
    """``snncompile energy ... | true`` under ``pipefail``."""
    read, write = os.pipe()
    os.close(read)
    words = program("energy", saved, *DATA, "--budget", budget(CLOSED), "--format", form)
    done = subprocess.run(words, stdout=write, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
    os.close(write)
    assert done.returncode == 1, done.stderr
    assert "1 of 1 limits do not hold" in done.stderr


def test_a_closed_log_changes_neither_the_verdict_nor_the_results(
    saved: Path, budget: Callable[[str], Path], tmp_path: Path
) -> None:
    words = program("energy", saved, "--data", "test:6", "--format", "json", "--html", tmp_path / "x.html")
    line = ["sh", "-c", 'exec "$@" 2>&-', "sh", *words]
    for more, code in ((["--budget", str(budget(CLOSED))], 1), ([], 0)):
        done = subprocess.run([*line, *more], stdout=subprocess.PIPE, text=True, env=ENVIRONMENT)
        assert done.returncode == code
        assert json.loads(done.stdout)["samples"] == 6, "no line of the log is among the results"


def test_no_report_takes_the_place_of_another_file(
    saved: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    network, lock = tmp_path / "net.pt", tmp_path / "l.json"
    network.write_bytes(saved.read_bytes())
    (tmp_path / "link").symlink_to(network)
    os.mkfifo(tmp_path / "fifo")
    for words, message in (
        (["-o", network], "--output cannot be written here (it is the network); name another file"),
        (["--html", tmp_path / "link"], "--html cannot be written here (it is the network)"),
        (["--html", lock, "--junit", lock], "--junit cannot be written here (it is the file of --html)"),
        (["-o", lock, "--baseline", lock, "--update-baseline"], "(it is the file of --baseline)"),
        (["-o", tmp_path / "fifo"], "cannot be written (it is no plain file, and would be replaced by one)"),
    ):
        before = sorted(tmp_path.iterdir())
        assert main(["energy", str(network), *DATA, *map(str, words)]) == 4
        said = capfd.readouterr()
        assert (said.out, said.err.count("\n")) == ("", 1)
        assert message in said.err
        assert sorted(tmp_path.iterdir()) == before
    assert network.read_bytes() == saved.read_bytes()


def test_a_link_stays_a_link(saved: Path, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder/report.json")
    for _ in range(2):
        assert main(["energy", str(saved), *DATA, "-o", str(tmp_path / "link")]) == 0
        assert (tmp_path / "link").is_symlink()
        assert json.loads((tmp_path / "folder" / "report.json").read_text(encoding="utf-8"))["samples"] == 6


@pytest.mark.parametrize(
    "name",
    ["zwei W\u00f6rter \u0441\u043b\u043e\u0439.pt", os.fsdecode(b"b\xff.pt"), "a\x1b[31m`*b.pt", "n" * 252 + ".pt"],
)
def test_any_name_of_a_network_is_written(
    name: str, saved: Path, tmp_path: Path, budget: Callable[[str], Path], capfd: pytest.CaptureFixture[str]
) -> None:
    network = tmp_path / name
    network.write_bytes(saved.read_bytes())
    reports = {key: tmp_path / f"r.{key}" for key in ("output", "markdown", "html", "junit", "benchmark")}
    options = [word for key, place in reports.items() for word in (f"--{key}", str(place))]
    words = ["energy", str(network), *DATA, "--budget", str(budget(CLOSED)), *options]
    assert main(words) == 1
    said = capfd.readouterr()
    assert "\x1b" not in said.out + said.err
    assert all(place.stat().st_size for place in reports.values())
    assert main(["energy", "reprice", str(reports["output"])]) == 0
    long = tmp_path / ("n" * 255)
    assert main(["energy", "reprice", str(reports["output"]), "-o", str(long)]) == 0
    assert long.is_file()


def test_a_terminal_without_letters_gets_their_codes(saved: Path, tmp_path: Path) -> None:
    network = tmp_path / "\u0441.pt"
    network.write_bytes(saved.read_bytes())
    words = program("energy", network, *DATA)
    done = subprocess.run(words, capture_output=True, env=ENVIRONMENT | {"PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(b"\\u0441.pt (folded)")


def test_the_job_summary_keeps_its_limit_with_what_stood_there(
    saved: Path, tmp_path: Path, budget: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """GitHub drops the whole summary of a step beyond it."""
    summary = tmp_path / "summary.md"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    limits = ["--budget", str(budget("[budget.max]\nac = 1e9\n"))]
    for stood, whole in ((0, True), (SUMMARY_BYTES - 2000, False)):
        summary.write_bytes(b"x" * stood)
        assert main(["energy", str(saved), *DATA, *limits]) == 0
        text = summary.read_text(encoding="utf-8")[stood:]
        assert "Gate: 1 limits hold." in text
        assert ("## Layers" in text) == whole
        assert len(summary.read_bytes()) < SUMMARY_BYTES


def test_torch_is_asked_of_checkpoints_alone(tmp_path: Path, saved: Path, capfd: pytest.CaptureFixture[str]) -> None:
    net = tmp_path / "net"
    assert main(["export", str(saved), "--target", "nir", *DATA, "-o", str(net), "--no-verify"]) == 0
    assert main(["energy", str(net / "model.nir"), "--data", "digits:test:6", "-q", "--level", "torch"]) == 4
    assert "model.nir: torch runs checkpoints alone; leave --level out" in capfd.readouterr().err
