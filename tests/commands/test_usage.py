"""How the command line is spoken to: help, wrong words, streams that are closed, and what it never loads."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from snncompile import __version__, cli
from snncompile.cli import main
from snncompile.errors import BudgetExceeded, InternalError
from snncompile.sheet import find

HEAVY = ("numpy", "torch", "networkx", "h5py")


def python(*words: str, **options: object) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(Path(cli.__file__).parents[1]), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, *words]
    return subprocess.run(command, text=True, capture_output=True, env=environment, timeout=120, **options)  # type: ignore[call-overload, no-any-return]


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    with pytest.raises(SystemExit) as caught:
        main(list(words))
    said = capsys.readouterr()
    assert (caught.value.code, said.out) == (2, "")
    assert said.err.count("\n") == 1, "one line"
    return said.err


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["export", "--help"]])
def test_help_loads_nothing_heavy(words: list[str]) -> None:
    """What is loaded, not the time, is tested: times on busy machines say little."""
    code = f"""
import sys
from snncompile.cli import main
try:
    main({words!r})
finally:
    print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)
"""
    done = python("-c", code)
    assert (done.returncode, done.stderr) == (0, "[]\n")


def test_the_module_runs_as_a_program() -> None:
    done = python("-m", "snncompile", "--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"snncompile {__version__}\n", "")


def test_help_names_every_verb_and_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    said = capsys.readouterr().out
    assert caught.value.code == 0
    for verb in ("train", "export", "run", "simulate", "verify", "energy", "show", "targets", "models"):
        assert f"    {verb} " in said
    for code in ("0 done", "1 energy", "2 wrong usage", "3 a sheet", "4 a file", "5 the\ngraph", "6 cannot", "7 Lava"):
        assert code in said
    assert "8 verification" in said
    assert "70 our fault; 130 interrupted" in said


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "the following arguments are required: VERB; see `snncompile --help`"),
        (["exprot", "x"], "no 'exprot'; one of train, export"),
        (["exprot", "x"], "did you mean export?"),
        (["export", "x"], "the following arguments are required: -o/--output; see `snncompile export --help`"),
        (["export", "x", "-o", "y", "--frce"], "unrecognized arguments: --frce; did you mean --force?"),
        (["export", "x", "-o", "y", "--targt=loihi"], "did you mean --target?"),
        (["show", "x", "y"], "unrecognized arguments: y; see `snncompile show --help`"),
        (
            ["show", "x", "--level", "plced"],
            "no 'plced'; one of read, folded, fixed, timed, placed; did you mean placed",
        ),
        (["targets", "--format", "jsn"], "argument --format: no 'jsn'; one of table, json; did you mean json?"),
        (["run", "x", "--timeout", "nan"], "argument --timeout: 'nan' is no number of seconds above 0"),
        (["run", "x", "--timeout", "-1"], "argument --timeout: '-1' is no number of seconds above 0"),
        (["run", "x", "--timeout", "soon"], "argument --timeout: 'soon' is no number of seconds above 0"),
    ],
)
def test_wrong_words_are_named_with_the_closest_right_one(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in refused(capsys, *words)


def raising(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    """The verb ``targets`` fails with ``error``."""
    import snncompile.commands.targets as verb

    def run(_: object) -> int:
        raise error

    monkeypatch.setattr(verb, "run", run)


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (KeyboardInterrupt(), 130, "snncompile targets: interrupted; nothing was left half written\n"),
        (OSError(28, "No space left on device"), 4, "snncompile targets: No space left on device\n"),
        (PermissionError(13, "Permission denied", "/a/b"), 4, "snncompile targets: /a/b: Permission denied\n"),
        (BrokenPipeError(), 0, ""),
        (BudgetExceeded("too dear", where="net"), 1, "snncompile targets: net: too dear\n"),
        (InternalError("graph\n  text"), 70, "snncompile targets: internal error: graph\n  text\nthis is our fault: "),
        (KeyError("x"), 70, "snncompile targets: internal error: KeyError: 'x'\nthis is our fault: please report"),
    ],
)
def test_every_way_to_fail_has_its_code_and_words(
    error: BaseException, code: int, message: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    raising(error, monkeypatch)
    monkeypatch.setattr(cli, "let_go_of_output", lambda: None)
    assert main(["targets"]) == code
    said = capfd.readouterr()
    assert said.out == ""
    assert said.err.startswith(message)
    assert "Traceback" not in said.err
    assert bool(said.err) == bool(message)


def test_debug_shows_where_an_error_came_from(monkeypatch: pytest.MonkeyPatch) -> None:
    raising(KeyError("x"), monkeypatch)
    with pytest.raises(KeyError):
        main(["targets", "--debug"])


def test_a_request_to_end_is_an_interruption() -> None:
    """SIGTERM unwinds as Ctrl-C does, so that what cleans up gets its turn."""
    code = """
import os, signal, sys
import snncompile.commands.targets as verb
from snncompile.cli import main

def run(options):
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        signal.pause()
    finally:
        print("cleaned up", file=sys.stderr)

verb.run = run
sys.exit(main(["targets"]))
"""
    done = python("-c", code)
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr == "cleaned up\nsnncompile targets: interrupted; nothing was left half written\n"


@pytest.mark.parametrize(
    ("redirection", "code", "message"),
    [
        ("| head -n 1 | wc -l", 0, ""),
        ("| true", 0, ""),
        (">&-", 0, ""),
        ("> /dev/full", 4, "snncompile targets: No space left on device\n"),
        ("2>&-", 0, ""),
    ],
)
def test_outputs_that_end_early(redirection: str, code: int, message: str) -> None:
    """A reader that has seen enough and a closed output are no failures; a full disk is."""
    command = f"set -o pipefail; {sys.executable} -m snncompile targets loihi {redirection}"
    environment = os.environ | {"PYTHONPATH": str(Path(cli.__file__).parents[1]), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, env=environment, timeout=120)
    assert (done.returncode, done.stderr) == (code, message)


def test_a_letter_that_the_output_lacks_is_escaped(tmp_path: Path) -> None:
    """In the result, whose encoding may be anything, and in the log: what a file says steers no terminal."""
    sheet, text = tmp_path / "e.toml", find("models", "digits-tet").read_text(encoding="utf-8")
    sheet.write_text(text.replace('"digits-tet"', '"chiffres-é"'), encoding="utf-8")
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    words = [sys.executable, "-m", "snncompile", "models"]
    done = subprocess.run([*words, sheet], capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "chiffres-\\xe9" in done.stdout
    done = subprocess.run([*words, "\x1b[2Jno\nsuch"], capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 3
    assert done.stderr.startswith("snncompile models: \\x1b[2Jno")


@pytest.mark.parametrize("words", [["targets"], ["targets", "loihi1"], ["models"], ["models", "digits-tet"]])
def test_catalogues_as_tables_and_json(words: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 0
    table = capfd.readouterr()
    assert len(table.out.splitlines()) > 3
    assert main([*words, "--format", "json", "-q"]) == 0
    found = capfd.readouterr()
    assert json.loads(found.out)
    assert table.err == found.err == ""


def test_catalogues_name_what_is_closest(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["targets", "loih"]) == 3
    assert main(["models", "digits-tt"]) == 3
    said = capfd.readouterr()
    assert said.out == ""
    assert "snncompile targets: loih: no such sheet in targets/; did you mean loihi" in said.err
    assert "snncompile models: digits-tt: no such sheet in models/; did you mean digits-tet" in said.err
