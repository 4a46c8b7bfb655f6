"""Lava as a sidecar: Intel's fixed-point CPU models of Loihi, in an interpreter of their own.

Lava is archived upstream and needs Python 3.10, so nothing here imports it. ``emit`` puts the stand-alone runner
(``lava_runner.py``) into a bundle; ``run`` starts that same file with the other interpreter and reads its trace back.

Lava forks one process a population and a synapse, joins them with shared memory, and waits for ever when one of them
fails. Every run therefore gets a session of its own and an end: on success, failure, time-out or interrupt no process
of the session survives and no shared memory of it stays behind.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snncompile.errors import ToolError

INTERPRETER = "SNNCOMPILE_LAVA_PYTHON"
RUNNER = "run_lava.py"
REMEDY = f"build the environment with `make lava`, or name an interpreter that has Lava with {INTERPRETER}"

GRACE = 5.0
"""Seconds that the runner has to end itself before it is killed."""

_SHARED_MEMORY = Path("/dev/shm")
_PROCESSES = Path("/proc")
_VERSIONS = """
import json, platform, importlib.metadata as packages
import lava.proc.lif.process, numpy, scipy
print(json.dumps({"python": platform.python_version(), "lava": packages.version("lava-nc"),
                  "numpy": numpy.__version__, "scipy": scipy.__version__}))
"""


@dataclass(frozen=True, eq=False)
class LavaResult:
    """The trace of a run, phases removed.

    ``arrays``: ``NAME.s`` uint8 [N, T, *shape], the spikes of every neuron population; ``NAME.v`` int32, the potential
    after the reset in 1/64 weight units, for readouts and where potentials were asked for. ``meta``: versions, steps,
    phases, seconds, steps a second, and which of Lava's processes each synaptic op became.
    """

    arrays: Mapping[str, NDArray[Any]]
    meta: Mapping[str, Any]


def find_interpreter() -> Path | None:
    """The Python that has Lava: what ``SNNCOMPILE_LAVA_PYTHON`` names, else ``.venv-lava`` of the checkout or here."""
    named = os.environ.get(INTERPRETER)
    if named:
        return Path(shutil.which(named) or named).expanduser()
    for root in (Path(__file__).resolve().parents[2], Path.cwd()):
        python = root / ".venv-lava" / "bin" / "python"  # not resolved: the link is what makes it an environment
        if python.exists():
            return python
    return None


def check_interpreter(path: Path) -> dict[str, str]:
    """Import Lava there; its versions (python, lava, numpy, scipy). Raises ``ToolError`` where that fails."""
    try:
        done = subprocess.run(
            [path, "-c", _VERSIONS], capture_output=True, text=True, timeout=120, env=_environment(), check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ToolError("cannot be started", where=str(path), why=str(error), remedy=REMEDY) from error
    if done.returncode != 0:
        raise ToolError("has no Lava that works", where=str(path), why=_last(done.stderr, 1), remedy=REMEDY)
    versions: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    if not versions["lava"].startswith("0.10."):
        raise ToolError(
            f"has lava-nc {versions['lava']}", where=str(path), why="the arithmetic of 0.10 is pinned", remedy=REMEDY
        )
    return versions


def emit(folder: Path) -> None:
    """Put ``run_lava.py``, which runs the bundle in ``folder`` without this package, into it."""
    beside = folder / f".{RUNNER}.{os.getpid()}"
    shutil.copyfile(Path(__file__).with_name("lava_runner.py"), beside)
    os.replace(beside, folder / RUNNER)


def run(
    bundle: Path,
    stimulus: Mapping[str, NDArray[np.int64]],
    *,
    potentials: bool = False,
    timeout: float | None = None,
    together: int | None = None,
    log: Callable[[str], None] | None = None,
) -> LavaResult:
    """Run the program in ``bundle`` (``program.json``, ``arrays.npz``) on Lava.

    ``stimulus`` holds integers [N, T, *shape] for every input. ``timeout`` is in seconds; by default it is far above
    what the work should take. ``together`` bounds the synapses of samples that run side by side because each needs a
    fresh state (1: one after the other). ``log`` gets one line before and one after. Raises ``ToolError`` when there is
    no interpreter, when Lava would not run the program as it is written, when it fails, and when time is up.
    """
    python = find_interpreter()
    if python is None:
        raise ToolError("there is no interpreter with Lava", where="lava", remedy=REMEDY)
    samples = max((len(values) for values in stimulus.values()), default=1)
    limit = _patience(bundle, samples) if timeout is None else timeout
    say = log or (lambda line: None)
    say(f"lava: {samples} samples with {python}, at most {limit:.0f} s")
    with tempfile.TemporaryDirectory(prefix="snncompile-") as name:
        folder = Path(name)
        emit(folder)
        with (folder / "stimulus.npz").open("wb") as file:
            np.savez(file, allow_pickle=False, **stimulus)
        options = ["--potentials"] if potentials else []
        options += ["--together", str(together)] if together is not None else []
        paths = [bundle.resolve(), folder / "stimulus.npz", folder / "trace.npz"]
        _execute([python, folder / RUNNER, *paths, *options, "--timeout", str(limit)], folder, limit)
        with np.load(folder / "trace.npz", allow_pickle=False) as trace:
            arrays = {key: trace[key] for key in trace.files}
    meta = json.loads(str(arrays.pop("meta")))
    say(f"lava: {meta['machine_steps']} machine steps, {meta['steps_per_second']} a second")
    return LavaResult(arrays, meta)


def _patience(bundle: Path, samples: int) -> float:
    """Seconds that no healthy run needs: ten times the slowest measured start, and as much again for each step."""
    try:
        program = json.loads((bundle / "program.json").read_text(encoding="utf-8"))
        steps, nodes, starts = int(program["steps"]), len(program["nodes"]), 1 if program["stream"] else samples
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ToolError("holds no program", where=str(bundle), why=f"{type(error).__name__}: {error}") from error
    return 120 + 30.0 * starts + (samples * steps + nodes) * (2 + 0.1 * nodes)


def _environment() -> dict[str, str]:
    """The other interpreter's environment: one thread a process, and nothing of this interpreter's paths."""
    threads = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
    kept = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
    return kept | dict.fromkeys(threads, "1") | {"PYTHONDONTWRITEBYTECODE": "1"}


def _last(text: str, lines: int) -> str:
    return "\n".join([line for line in text.splitlines() if line.strip()][-lines:])


def _execute(command: list[Any], folder: Path, limit: float) -> None:
    """Run the runner to its end, whatever that is; raise ``ToolError`` unless it succeeded."""
    errors = folder / "stderr.txt"
    environment = _environment() | {"TMPDIR": str(folder)}  # what a killed run leaves goes with our folder
    with errors.open("wb") as stderr:
        try:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=stderr, stderr=stderr, env=environment, start_new_session=True
            )
        except OSError as error:
            raise ToolError("cannot be started", where=str(command[0]), why=str(error), remedy=REMEDY) from error
    session = Session(process)
    try:
        ended = session.wait(limit + GRACE)  # the runner ends itself first, and more gently
    finally:
        session.end()
    text = errors.read_text(encoding="utf-8", errors="replace")
    match process.returncode if ended else 4:
        case 0:
            return
        case 2:
            raise ToolError(_last(text, 1).removeprefix("run_lava: "), where="lava", why="Lava cannot run it as it is")
        case 4:
            raise ToolError(f"no end after {limit:.0f} s", where="lava", why=_last(text, 8), remedy="give it more time")
        case code:
            raise ToolError(f"the runner failed with {code}", where="lava", why=_last(text, 12))


class Session:
    """A process with everything it starts: members of its session, and the shared memory they map."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.segments: set[str] = set()

    def wait(self, limit: float) -> bool:
        """Until the process ends or ``limit`` seconds are over (False), noting the shared memory on the way."""
        deadline = time.monotonic() + limit
        while time.monotonic() < deadline:
            try:
                self.process.wait(timeout=0.2)
                return True
            except subprocess.TimeoutExpired:
                self.segments |= _mapped(self.process.pid)
        return False

    def end(self) -> None:
        """Stop what still runs, first politely, and free the shared memory that is left."""
        if self.process.poll() is None:
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(timeout=GRACE)
        deadline = time.monotonic() + 10
        patience = time.monotonic() + 1  # the resource tracker of multiprocessing leaves a moment after its master
        while (members := _members(self.process.pid)) and time.monotonic() < deadline:
            if self.process.poll() is None or time.monotonic() > patience:
                for member in members:
                    self.segments |= _mapped(member)
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self.process.pid, signal.SIGKILL)
            time.sleep(0.05)
        self.process.kill()
        self.process.wait()
        for name in self.segments:
            (_SHARED_MEMORY / name).unlink(missing_ok=True)
        if members:
            raise ToolError(f"processes {sorted(members)} do not end", where="lava")


def _members(session: int) -> set[int]:
    """The living processes of a session."""
    found = set()
    for entry in _PROCESSES.glob("[0-9]*"):
        try:
            state, _, _, own = (entry / "stat").read_text().rpartition(")")[2].split()[:4]
        except (OSError, ValueError):  # it has just ended
            continue
        if int(own) == session and state not in "ZX":
            found.add(int(entry.name))
    return found


def _mapped(process: int) -> set[str]:
    """The names of the segments of Python's shared memory that a process maps."""
    try:
        lines = (_PROCESSES / str(process) / "maps").read_text().splitlines()
    except OSError:  # it has just ended
        return set()
    paths = (Path(line.split(maxsplit=5)[5]) for line in lines if "/psm_" in line)
    return {path.name.removesuffix(" (deleted)") for path in paths if path.parent == _SHARED_MEMORY}
