"""Real Lava, bit for bit against the equations (``loihi.py``); one run serves many small nets side by side."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from snncompile.backends import lava
from snncompile.errors import ToolError
from tests.backends.loihi import Net, fixed, simulate

pytestmark = pytest.mark.lava
Integers = NDArray[np.int64]
Case = Callable[[Net, str, np.random.Generator], None]
SAMPLES = 3


@pytest.fixture(scope="module")
def python() -> Path:
    found = lava.find_interpreter()
    assert found is not None, "no interpreter with Lava: run `make lava`, or set SNNCOMPILE_NO_LAVA=1 to do without"
    lava.check_interpreter(found)
    return found


def even(random: np.random.Generator, *shape: int, most: int = 40) -> Integers:
    return 2 * random.integers(-most, most + 1, shape)


def chain(net: Net, p: str, random: np.random.Generator) -> None:
    net.input(f"{p}x", 6)
    net.neuron(f"{p}a", 7, phase=1, vth=50, bias=random.integers(-20, 60, 7))
    net.neuron(f"{p}b", 5, phase=2, vth=60, bias=31, dv=700)
    net.neuron(f"{p}c", 4, phase=3, vth=40, bias=11, du=1500)
    net.readout(f"{p}out", 3, phase=4, kind="sum", bias=[1, -2, 3])
    for source, target, shape in (("x", "a", (7, 6)), ("a", "b", (5, 7)), ("b", "c", (4, 5)), ("c", "out", (3, 4))):
        net.dense(p + source, p + target, even(random, *shape))
    net.output(f"{p}out")


def residual(net: Net, p: str, random: np.random.Generator) -> None:
    net.input(f"{p}x", 6)
    net.neuron(f"{p}a", 6, phase=1, vth=30, bias=9)
    net.neuron(f"{p}b", 6, phase=2, vth=30, bias=8)
    net.neuron(f"{p}c", 6, phase=3, vth=60, bias=7)
    net.dense(f"{p}x", f"{p}a", even(random, 6, 6))
    net.dense(f"{p}a", f"{p}b", even(random, 6, 6))
    net.dense(f"{p}b", f"{p}c", even(random, 6, 6))
    net.scale(f"{p}a", f"{p}c", 50, delay=1)
    net.dense(f"{p}x", f"{p}c", even(random, 6, 6), delay=2)


def convolutions(net: Net, p: str, random: np.random.Generator) -> None:
    net.input(f"{p}x", 2, 6, 5)
    net.neuron(f"{p}a", 4, 6, 5, phase=1, vth=60, bias=random.integers(-5, 30, (4, 1, 1)))
    net.neuron(f"{p}b", 6, 3, 2, phase=2, vth=80, bias=5)
    net.neuron(f"{p}c", 2, 3, 2, phase=3, vth=40)
    net.neuron(f"{p}d", 5, phase=4, vth=30)
    net.conv(f"{p}x", f"{p}a", even(random, 4, 2, 3, 3), (1, 1), (1, 1))
    net.conv(f"{p}a", f"{p}b", even(random, 6, 2, 3, 2), (2, 2), (1, 0), groups=2)
    net.conv(f"{p}b", f"{p}c", even(random, 2, 6, 3, 1), (1, 1), (2, 0), dilation=(2, 1))
    net.dense(f"{p}c", f"{p}d", even(random, 5, 12), flatten=True)


def one_axis(net: Net, p: str, random: np.random.Generator) -> None:
    net.input(f"{p}x", 3, 9)
    net.neuron(f"{p}a", 4, 5, phase=1, vth=50, bias=6)
    net.conv(f"{p}x", f"{p}a", even(random, 4, 3, 3), (2,), (1,))


def graded(net: Net, p: str, random: np.random.Generator) -> None:
    net.input(f"{p}x", 1, 5, 5, bits=8)
    net.neuron(f"{p}a", 3, 5, 5, phase=1, vth=4000, bias=-20)
    net.neuron(f"{p}b", 4, phase=2, vth=900)
    net.conv(f"{p}x", f"{p}a", even(random, 3, 1, 3, 3), (1, 1), (1, 1))
    net.dense(f"{p}x", f"{p}b", even(random, 4, 25), delay=1, flatten=True)
    net.dense(f"{p}a", f"{p}b", even(random, 4, 75), flatten=True)


def delayed_injection(net: Net, p: str, random: np.random.Generator) -> None:
    net.input(f"{p}x", 1, 4, 4)
    net.neuron(f"{p}a", 2, 4, 4, phase=1, vth=20, bias=4)
    net.neuron(f"{p}b", 2, 4, 4, phase=3, vth=70, bias=12)
    net.conv(f"{p}x", f"{p}a", even(random, 2, 1, 3, 3), (1, 1), (1, 1))
    net.conv(f"{p}x", f"{p}b", even(random, 2, 1, 3, 3), (1, 1), (1, 1), delay=2)
    net.scale(f"{p}a", f"{p}b", np.array([[[40]], [[-30]]]), delay=1)


def relay(net: Net, p: str, random: np.random.Generator) -> None:
    net.input(f"{p}x", 5)
    net.neuron(f"{p}a", 5, phase=1, vth=1, dv=4095)
    net.neuron(f"{p}b", 5, phase=2, vth=1, dv=4095)
    net.scale(f"{p}x", f"{p}a", 2)
    net.scale(f"{p}a", f"{p}b", 2)


def extremes(net: Net, p: str, random: np.random.Generator) -> None:
    """Ends of every range; signs all alike; nothing at all; current that wraps and potential that saturates."""
    net.input(f"{p}x", 8)
    net.input(f"{p}g", 8, bits=8)
    for name, weight in (
        ("both", np.where(np.arange(8) % 2, -256, 254)[None]),
        ("excite", np.full((1, 8), 254)),
        ("inhibit", np.full((2, 8), -256)),
        ("zero", np.zeros((3, 8))),
        ("rows", np.vstack([np.zeros((2, 8)), np.full((1, 8), 2), np.zeros((1, 8))])),
    ):
        net.neuron(p + name, len(weight), phase=1, vth=300, bias=3, dv=64, du=2048)
        net.dense(f"{p}x", p + name, weight)
    net.neuron(f"{p}late", 3, phase=3, vth=300)
    net.dense(f"{p}zero", f"{p}late", np.zeros((3, 3)), delay=1)
    net.neuron(f"{p}wrap", 2, phase=1, vth=131071, du=100)
    net.dense(f"{p}g", f"{p}wrap", [[254] * 8, [-256] * 8])
    net.readout(f"{p}full", 1, phase=1)
    net.dense(f"{p}g", f"{p}full", [[60, -60] * 4])
    net.neuron(f"{p}alone", 2, phase=2, vth=0, bias=[4095, -4095], e=1, du=0, dv=1)
    net.neuron(f"{p}fine", 2, 1, phase=0, vth=1, bias=[[40], [17]], e=-6)


def loop(net: Net, p: str, random: np.random.Generator) -> None:
    net.input(f"{p}x", 4)
    net.neuron(f"{p}a", 4, phase=1, vth=60, dv=200)
    net.neuron(f"{p}b", 4, phase=2, vth=50, dv=100)
    net.dense(f"{p}x", f"{p}a", even(random, 4, 4))
    net.dense(f"{p}a", f"{p}a", even(random, 4, 4))
    net.dense(f"{p}a", f"{p}b", even(random, 4, 4))
    net.dense(f"{p}b", f"{p}a", even(random, 4, 4), delay=1)


def leaky_buffer(net: Net, p: str, random: np.random.Generator) -> None:
    """Spikes still on their way when the sample ends: the next sample must not see them."""
    net.input(f"{p}x", 3)
    net.neuron(f"{p}a", 3, phase=1, vth=10)
    net.neuron(f"{p}b", 3, phase=2, vth=10)
    net.scale(f"{p}x", f"{p}a", 20)
    net.dense(f"{p}a", f"{p}b", [[30, -2, 4], [4, 30, -6], [2, 2, 24]], delay=4)


STREAMED: dict[str, Case] = {
    case.__name__: case
    for case in (chain, residual, convolutions, one_axis, graded, delayed_injection, relay, extremes)
}  # fmt: skip
FRESH: dict[str, Case] = {case.__name__: case for case in (loop, leaky_buffer, chain)}
Traces = tuple[dict[str, Integers], lava.LavaResult]


def build(cases: dict[str, Case], *, stream: bool, steps: int) -> Net:
    random = np.random.default_rng(7)
    net = Net(steps, stream)
    for name, case in cases.items():
        case(net, f"{name}.", random)
    return net


def stimulate(net: Net, samples: int = SAMPLES) -> dict[str, Integers]:
    random = np.random.default_rng(11)
    stimulus = {}
    for name, op in net.nodes.items():
        if op["op"] == "Input":
            low, high = (-127, 128) if op["signal"]["kind"] == "fixed" else (0, 2)
            stimulus[name] = random.integers(low, high, (samples, net.steps, *op["shape"]))
    for name in stimulus.keys() & {"extremes.g"}:
        stimulus[name][:] = np.where(np.arange(8) % 2, 127, -127)
        stimulus[name][0] = 127
    return stimulus


def both(net: Net, folder: Path) -> Traces:
    stimulus = stimulate(net)
    return simulate(net, stimulus), lava.run(net.save(folder), stimulus, potentials=True, timeout=120)


@pytest.fixture(scope="module")
def streamed(python: Path, tmp_path_factory: pytest.TempPathFactory) -> Traces:
    return both(build(STREAMED, stream=True, steps=5), tmp_path_factory.mktemp("streamed"))


@pytest.fixture(scope="module")
def fresh(python: Path, tmp_path_factory: pytest.TempPathFactory) -> Traces:
    return both(build(FRESH, stream=False, steps=6), tmp_path_factory.mktemp("fresh"))


def agree(traces: Traces, case: str) -> None:
    expected, result = traces
    names = [key for key in result.arrays if key.startswith(f"{case}.")]
    assert names
    for key in names:
        np.testing.assert_array_equal(result.arrays[key], expected[key], err_msg=key)
    assert sum(int(result.arrays[key].sum()) for key in names if key.endswith(".s")) > 0, "a silent net tests nothing"


@pytest.mark.parametrize("case", STREAMED)
def test_samples_in_one_run_are_bit_equal(streamed: Traces, case: str) -> None:
    agree(streamed, case)


@pytest.mark.parametrize("case", FRESH)
def test_a_fresh_runtime_for_each_sample_is_bit_equal(fresh: Traces, case: str) -> None:
    agree(fresh, case)


def test_samples_side_by_side_are_those_one_after_the_other(python: Path, tmp_path: Path) -> None:
    """Copies of a network share nothing: three samples in one run of Lava, and in a run each."""
    net = build({"loop": loop, "leaky_buffer": leaky_buffer}, stream=False, steps=4)
    stimulus = stimulate(net)
    folder = net.save(tmp_path)
    beside, alone = (lava.run(folder, stimulus, potentials=True, together=most) for most in (None, 1))
    assert [result.meta["runs"] for result in (beside, alone)] == [1, SAMPLES]
    assert alone.meta["machine_steps"] == SAMPLES * beside.meta["machine_steps"]
    for key, values in alone.arrays.items():
        np.testing.assert_array_equal(beside.arrays[key], values, err_msg=key)
    assert any(values.any() for key, values in alone.arrays.items() if key.endswith(".s"))


def test_every_population_is_recorded_with_its_type_and_shape(streamed: Traces) -> None:
    arrays = streamed[1].arrays
    assert arrays["convolutions.b.s"].shape == (SAMPLES, 5, 6, 3, 2)
    assert {array.dtype for key, array in arrays.items() if key.endswith(".s")} == {np.dtype("uint8")}
    assert {array.dtype for key, array in arrays.items() if key.endswith(".v")} == {np.dtype("int32")}
    assert "chain.out.v" in arrays
    assert "chain.out.s" not in arrays


def test_meta_names_versions_phases_and_synapses(streamed: Traces) -> None:
    meta = streamed[1].meta
    assert meta["versions"]["lava"] == "0.10.0"
    assert (meta["steps"], meta["samples"], meta["machine_steps"]) == (5, SAMPLES, 5 * SAMPLES + 4)
    assert meta["phases"]["residual.c"] == 3
    by_process = {note["process"] for note in meta["synapses"].values()}
    assert by_process == {"Sparse", "DelaySparse"}
    bits = {name.split("-")[0]: note["message_bits"] for name, note in meta["synapses"].items()}
    assert {name for name, used in bits.items() if used} == {"graded.x", "extremes.g"}
    assert meta["steps_per_second"] > 0


def test_current_wraps_and_potential_saturates(streamed: Traces) -> None:
    """The first sample drives 8 * 254 * 127 = 258064 weight units: beyond the 131072 that 24 bits hold."""
    arrays = streamed[1].arrays
    assert arrays["extremes.wrap.v"][0, 0, 0] == (258064 << 6) - (1 << 24)
    assert arrays["extremes.full.v"][1:].min() == 1 - (1 << 23)


# --- why every population has its own reset ---------------------------------------------------------------------------


def layers(random: np.random.Generator) -> list[tuple[Integers, Integers, int]]:
    sizes = (6, 8, 7, 5)
    pairs = itertools.pairwise(sizes)
    return [(even(random, after, before), random.integers(5, 40, after), 60) for before, after in pairs]


def logical(stack: list[tuple[Integers, Integers, int]], x: Integers) -> list[Integers]:
    """The network as trained: every layer computes step t in step t, every sample starts at zero."""
    found = []
    for weight, bias, vth in stack:
        spikes = np.zeros((*x.shape[:2], len(bias)), np.int64)
        v = np.zeros((len(x), len(bias)), np.int64)
        for step in range(x.shape[1]):
            v = v + x[:, step] @ weight.T + bias
            spikes[:, step] = v > vth
            v = np.where(spikes[:, step], 0, v)
        found.append(spikes)
        x = spikes
    return found


def test_a_common_reset_is_wrong_and_phases_are_right(python: Path, tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    stack = layers(random)
    net = Net(5)
    net.input("x", 6)
    for prefix, phased in (("right", True), ("common", False)):
        source = "x"
        for index, (weight, bias, vth) in enumerate(stack):
            name = net.neuron(f"{prefix}{index}", len(bias), phase=index + 1 if phased else 0, vth=vth, bias=bias)
            net.dense(source, name, weight)
            source = name
    x = random.integers(0, 2, (4, 5, 6))
    arrays = lava.run(net.save(tmp_path), {"x": x}, timeout=120).arrays
    wrong = 0
    for index, expected in enumerate(logical(stack, x)):
        np.testing.assert_array_equal(arrays[f"right{index}.s"], expected)
        late = arrays[f"common{index}.s"].reshape(20, -1)[index + 1 :]
        wrong += int((late != expected.reshape(20, -1)[: len(late)]).sum())
    assert wrong > 0


# --- the runner on its own --------------------------------------------------------------------------------------------


def test_lavas_own_convolution_is_bit_equal(python: Path, tmp_path: Path) -> None:
    """As a user runs it: ``run_lava.py`` in the bundle, without this package."""
    net = build({"convolutions": convolutions, "graded": graded, "one_axis": one_axis}, stream=True, steps=4)
    stimulus = stimulate(net)
    lava.emit(net.save(tmp_path))
    np.savez(tmp_path / "x.npz", **stimulus)
    command = [python, "run_lava.py", ".", "x.npz", "out.npz", "--potentials", "--unroll", "0", "--timeout", "60"]
    subprocess.run(command, cwd=tmp_path, check=True, timeout=90)
    expected = simulate(net, stimulus)
    with np.load(tmp_path / "out.npz", allow_pickle=False) as trace:
        notes = json.loads(str(trace["meta"]))["synapses"]
        assert {note["process"] for name, note in notes.items() if "conv" in name.split("-")[2]} == {"Conv"}
        for key in set(trace.files) - {"meta"}:
            np.testing.assert_array_equal(trace[key], expected[key], err_msg=key)
    assert not list(tmp_path.glob(".*"))


Mend = Callable[[Net], Any]


def node(name: str, **fields: Any) -> Mend:
    return lambda net: net.nodes[name].update(fields)


def weight(value: int) -> Mend:
    return lambda net: net.arrays["x-a-dense0.weight"].__setitem__((0, 0), value)


REFUSED: dict[str, tuple[Mend, str]] = {
    "odd": (weight(3), "odd weights"),
    "large": (weight(256), "-256..254"),
    "small": (weight(-258), "-256..254"),
    "bias": (node("a", bias=fixed(4096)), "a.bias: 4096..4096 is outside -4095..4095"),
    "bias exponent": (node("a", bias=fixed(1, 2)), "exponent of 2"),
    "threshold": (node("a", threshold=fixed(131072)), "a.threshold: 131072 is outside 0..131071"),
    "fraction": (node("a", threshold=2.5), "a.threshold: is not an integer"),
    "off the grid": (node("a", threshold=fixed(5, -1)), "a.threshold: has an exponent of -1"),
    "decay": (node("a", beta=fixed(4096, -12)), "a.beta: 4096 is outside 0..4095"),
    "no current": (node("a", alpha=fixed(0, -12)), "a.alpha: 0 is outside 1..4096"),
    "per neuron": (lambda net: net.nodes["a"].update(threshold=fixed(net.keep("t", [1, 2, 3]))), "has 3 values"),
    "delay": (lambda net: net.edges.append([*net.edges.pop(2)[:2], 64]), "a delay of 63, Loihi has at most 62"),
    "at once": (lambda net: net.edges.append([*net.edges.pop(2)[:2], 0]), "is reached without delay"),
    "soft reset": (node("a", reset={"by": 1.0}), "has no stock neuron"),
    "ties": (node("a", fires=">="), "fires above"),
    "kind": (node("x", signal={"kind": "analog"}), "'analog' has no spikes"),
    "op": (node("x-a-dense0", op="Pool"), "Lava has no Pool"),
    "fan-out": (lambda net: net.edges.append(["x-a-dense0", "b", 0]), "has 2 edges"),
    "no synapse": (lambda net: net.edges.append(["a", "b", 1]), "without a synapse"),
}


def small() -> Net:
    net = Net(4)
    net.input("x", 3)
    net.neuron("a", 3, phase=1, vth=10)
    net.neuron("b", 3, phase=2, vth=10)
    net.dense("x", "a", np.full((3, 3), 8))
    net.dense("a", "b", np.full((3, 3), 8))
    return net


@pytest.fixture(scope="module")
def refusals(python: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("refused")
    lava.emit(folder)
    for name, (spoil, _) in REFUSED.items():
        net = small()
        spoil(net)
        net.save(folder / name)
    script = (
        "import sys, json, pathlib, run_lava\n"
        "def reason(name):\n"
        "    try: run_lava.Reader(pathlib.Path(name)).read()\n"
        "    except run_lava.Refusal as refusal: return str(refusal)\n"
        "print(json.dumps({name: reason(name) for name in sys.argv[1:]}))\n"
    )
    done = subprocess.run([python, "-c", script, *REFUSED], cwd=folder, capture_output=True, check=True, timeout=60)
    reasons: dict[str, str] = json.loads(done.stdout)
    return reasons


@pytest.mark.parametrize("case", REFUSED)
def test_what_lava_would_silently_change_is_refused(refusals: dict[str, str], case: str) -> None:
    assert REFUSED[case][1] in (refusals[case] or "accepted")


def test_a_refusal_is_one_line_with_the_reason(python: Path, tmp_path: Path) -> None:
    x = np.full((1, 4, 3), 2)
    with pytest.raises(ToolError, match=r"x: a stimulus of 0\.\.2, not within 0\.\.1") as caught:
        lava.run(small().save(tmp_path), {"x": x}, timeout=60)
    assert "\n" not in str(caught.value)


# --- an end in every case ---------------------------------------------------------------------------------------------


class Witness:
    """Sees which session a run had and which shared memory it mapped, and may act once it is up."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, act: Callable[[set[int]], None] = lambda members: None) -> None:
        self.sessions: set[int] = set()
        self.segments: set[str] = set()
        mapped = lava._mapped
        self.acted = False

        def witness(process: int) -> set[str]:
            found = mapped(process)
            self.segments |= found
            self.sessions.add(os.getsid(process))
            members = lava._members(os.getsid(process))
            if found and len(members) > 6 and not self.acted:
                self.acted = True
                act(members)
            return found

        monkeypatch.setattr(lava, "_mapped", witness)

    def nothing_left(self) -> None:
        assert self.segments
        assert not [name for name in self.segments if (Path("/dev/shm") / name).exists()]
        assert not [session for session in self.sessions if lava._members(session)]


def endless(folder: Path) -> tuple[Path, dict[str, Integers]]:
    return small().save(folder), {"x": np.ones((20_000, 4, 3), np.int64)}


def test_time_out_leaves_nothing_behind(python: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    witness = Witness(monkeypatch)
    with pytest.raises(ToolError, match="no end after 3 s"):
        lava.run(*endless(tmp_path), timeout=3)
    witness.nothing_left()


def test_a_process_that_dies_ends_the_run(python: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    witness = Witness(monkeypatch, lambda members: os.kill(max(members), signal.SIGKILL))
    with pytest.raises(ToolError, match="ended before its time"):
        lava.run(*endless(tmp_path), timeout=60)
    witness.nothing_left()


def test_a_runner_that_is_killed_leaves_nothing(python: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    witness = Witness(monkeypatch, lambda members: os.kill(min(members), signal.SIGKILL))
    with pytest.raises(ToolError, match="the runner failed with -9"):
        lava.run(*endless(tmp_path), timeout=60)
    witness.nothing_left()


def test_an_exception_in_a_model_is_told(python: Path, tmp_path: Path) -> None:
    bundle, stimulus = endless(tmp_path)
    lava.emit(bundle)
    np.savez(bundle / "x.npz", **stimulus)
    script = (
        "import run_lava\n"
        "class Broken(run_lava.ObservedLifReset):\n"
        "    def run_spk(self):\n"
        "        if self.time_step == 5: raise ValueError('the fifth step')\n"
        "        super().run_spk()\n"
        "run_lava.MODELS[run_lava.LIFReset] = Broken\n"
        "run_lava.main(['.', 'x.npz', 'out.npz', '--timeout', '30'])\n"
    )
    done = subprocess.run([python, "-c", script], cwd=bundle, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 3
    assert "ValueError: the fifth step" in done.stderr
    assert not (bundle / "out.npz").exists()
