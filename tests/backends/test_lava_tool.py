"""The sidecar's manners, without Lava: finding the interpreter, telling failures, leaving nothing behind."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from multiprocessing import shared_memory
from pathlib import Path

import numpy as np
import pytest

from snncompile.backends import lava
from snncompile.errors import ToolError
from tests.backends.loihi import Net

Fake = Callable[[str], Path]

GOOD = """
import json, sys, numpy as np
with np.load(sys.argv[3]) as stimulus:
    meta = json.dumps({"machine_steps": 9, "steps_per_second": 3.5, "arguments": sys.argv[5:]})
    np.savez(sys.argv[4], **{"a.s": stimulus["x"].astype(np.uint8), "meta": np.array(meta)})
"""
FAMILY = """
import os, signal, sys, time
from multiprocessing import resource_tracker, shared_memory
segment = shared_memory.SharedMemory(create=True, size=64)
resource_tracker.unregister(segment._name, "shared_memory")  # nobody but the sidecar will remove it
open(sys.argv[2] + "/segment", "w").write(segment.name)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork() == 0 or os.fork() == 0:
    time.sleep(600)
"""


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    net = Net(4)
    net.input("x", 3)
    net.neuron("a", 3, phase=1, vth=10)
    net.dense("x", "a", np.full((3, 3), 8))
    return net.save(tmp_path / "bundle")


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    """An interpreter that runs a script of ours; its arguments: itself, the runner, bundle, stimulus, out, options."""
    monkeypatch.setattr(lava, "GRACE", 0.5)

    def install(script: str) -> Path:
        # sys.argv as the script sees it: [script, runner, bundle, stimulus, out, ...]
        (tmp_path / "script.py").write_text(script, encoding="utf-8")
        python = tmp_path / "python"
        python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{tmp_path}/script.py" "$@"\n', encoding="utf-8")
        python.chmod(0o755)
        monkeypatch.setenv(lava.INTERPRETER, str(python))
        return python

    return install


def stimulus(samples: int = 2) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.int64]]]:
    return {"x": np.arange(samples * 12).reshape(samples, 4, 3) % 2}


# --- the interpreter --------------------------------------------------------------------------------------------------


def test_the_named_interpreter_wins(fake: Fake) -> None:
    python = fake("")
    assert lava.find_interpreter() == python


def test_the_environment_of_the_current_folder_is_found_unresolved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(lava.INTERPRETER, raising=False)
    monkeypatch.setattr(lava, "__file__", str(tmp_path / "elsewhere" / "snncompile" / "backends" / "lava.py"))
    monkeypatch.chdir(tmp_path)
    assert lava.find_interpreter() is None
    python = tmp_path / ".venv-lava" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    assert lava.find_interpreter() == python


def test_without_an_interpreter_the_remedy_is_make_lava(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lava, "find_interpreter", lambda: None)
    with pytest.raises(ToolError, match="make lava"):
        lava.run(bundle, stimulus())


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("raise ImportError('no lava here')", "has no Lava that works .*no lava here"),
        ("""print('{"python": "3.10.1", "lava": "0.9.0", "numpy": "1", "scipy": "1"}')""", r"has lava-nc 0\.9\.0"),
    ],
)
def test_an_interpreter_without_the_right_lava_is_refused(fake: Fake, script: str, message: str) -> None:
    with pytest.raises(ToolError, match=message) as caught:
        lava.check_interpreter(fake(script))
    assert "make lava" in caught.value.remedy


def test_an_interpreter_that_is_not_there_is_told(tmp_path: Path, bundle: Path, fake: Fake) -> None:
    missing = fake("").with_name("missing")
    with pytest.raises(ToolError, match="cannot be started"):
        lava.check_interpreter(missing)
    fake("").unlink()
    with pytest.raises(ToolError, match="cannot be started"):
        lava.run(bundle, stimulus())


def test_versions_are_reported(fake: Fake) -> None:
    python = fake("""print('note'); print('{"python": "3.10.1", "lava": "0.10.0", "numpy": "1", "scipy": "2"}')""")
    assert lava.check_interpreter(python)["lava"] == "0.10.0"


# --- a run ------------------------------------------------------------------------------------------------------------


def test_arrays_and_meta_come_back(bundle: Path, fake: Fake) -> None:
    fake(GOOD)
    lines: list[str] = []
    result = lava.run(bundle, stimulus(), potentials=True, timeout=7, log=lines.append)
    np.testing.assert_array_equal(result.arrays["a.s"], stimulus()["x"])
    assert result.meta["arguments"] == ["--potentials", "--timeout", "7"]
    assert "meta" not in result.arrays
    assert len(lines) == 2
    assert "2 samples" in lines[0]
    assert "9 machine steps, 3.5 a second" in lines[1]


def test_the_other_interpreter_gets_one_thread_and_none_of_our_paths(
    bundle: Path, fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    fake("import os, sys; sys.exit(' '.join([os.environ['OMP_NUM_THREADS'], os.environ.get('PYTHONPATH', 'none')]))")
    with pytest.raises(ToolError, match=r"failed with 1 .*1 none"):
        lava.run(bundle, stimulus())


def test_a_refusal_is_told_in_its_own_words(bundle: Path, fake: Fake) -> None:
    fake("import sys; print('noise', 'run_lava: conv1: odd weights', sep=chr(10), file=sys.stderr); sys.exit(2)")
    with pytest.raises(ToolError) as caught:
        lava.run(bundle, stimulus())
    assert str(caught.value) == "lava: conv1: odd weights (Lava cannot run it as it is)"


def test_a_failure_ends_with_the_last_lines(bundle: Path, fake: Fake) -> None:
    fake("raise ValueError('the reason')")
    with pytest.raises(ToolError, match=r"failed with 1 [\s\S]*ValueError: the reason"):
        lava.run(bundle, stimulus())


def test_a_bundle_without_a_program_is_told(tmp_path: Path, fake: Fake) -> None:
    fake(GOOD)
    with pytest.raises(ToolError, match="holds no program"):
        lava.run(tmp_path, stimulus())


def test_the_default_time_grows_with_the_work(bundle: Path) -> None:
    assert lava._patience(bundle, 1000) > lava._patience(bundle, 10) > 100


def test_the_runner_is_emitted_whole_and_alone(tmp_path: Path) -> None:
    lava.emit(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["run_lava.py"]
    runner = (tmp_path / "run_lava.py").read_text(encoding="utf-8")
    assert 'if __name__ == "__main__":' in runner
    assert "snncompile" not in [line.split()[1].split(".")[0] for line in runner.splitlines() if line[:7] == "import "]
    assert "from snncompile" not in runner


# --- leaving nothing behind -------------------------------------------------------------------------------------------


def aftermath(bundle: Path) -> None:
    name = (bundle / "segment").read_text(encoding="utf-8")
    assert name.startswith("psm_")
    assert not (Path("/dev/shm") / name).exists()


def watched(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sessions of the runs that follow."""
    sessions: list[int] = []
    start = lava.Session.__init__

    def note(self: lava.Session, process: lava.subprocess.Popen[bytes]) -> None:
        sessions.append(process.pid)
        start(self, process)

    monkeypatch.setattr(lava.Session, "__init__", note)
    return sessions


def test_time_out_ends_the_family_and_frees_its_memory(
    bundle: Path, fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake(FAMILY + "time.sleep(600)")
    sessions = watched(monkeypatch)
    others = shared_memory.SharedMemory(create=True, size=64)
    try:
        with pytest.raises(ToolError, match="no end after 1 s"):
            lava.run(bundle, stimulus(), timeout=1)
        assert (Path("/dev/shm") / others.name).exists(), "the memory of others is not ours to free"
    finally:
        others.close()
        others.unlink()
    assert sessions
    assert not lava._members(sessions[0])
    aftermath(bundle)


@pytest.mark.parametrize("code", [0, 3])
def test_children_left_by_a_runner_that_ended_are_ended(
    bundle: Path, fake: Fake, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    fake(FAMILY + f"time.sleep(0.5)\n{GOOD}\nos._exit({code})")
    sessions = watched(monkeypatch)
    if code:
        with pytest.raises(ToolError, match="failed with 3"):
            lava.run(bundle, stimulus())
    else:
        lava.run(bundle, stimulus())
    assert not lava._members(sessions[0])
    aftermath(bundle)


def test_an_interrupt_ends_the_family(bundle: Path, fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    fake(FAMILY + "time.sleep(600)")
    sessions = watched(monkeypatch)

    def interrupted(self: lava.Session, limit: float) -> bool:
        while not (bundle / "segment").exists() or len(lava._members(self.process.pid)) < 3:
            time.sleep(0.02)
        raise KeyboardInterrupt

    monkeypatch.setattr(lava.Session, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        lava.run(bundle, stimulus())
    assert not lava._members(sessions[0])
    aftermath(bundle)
