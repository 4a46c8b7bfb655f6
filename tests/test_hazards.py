"""The hazards of Lava, one by one: what it does by itself without a word, and what happens here.

Plain Lava runs once (``tests/plain_lava.py``, in its own interpreter), our programs once or twice. Where a hazard
cannot be shown cheaply the test is of what is done about it, and says why.
"""

from __future__ import annotations

import inspect
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from snncompile.backends import lava, net
from snncompile.compile import compile_graph
from snncompile.errors import GraphError, NotRepresentable, ToolError
from snncompile.fixed import FixedPoint
from snncompile.ir.check import check
from snncompile.ir.graph import Edge, Graph
from snncompile.ir.ops import By, Conv, Dense, Flatten, Input, Neuron, Op, Output, To
from snncompile.ir.signals import Signed, Spike
from snncompile.ir.store import Program, save
from snncompile.passes.balance import balance, streams
from snncompile.passes.legalise import legalise
from snncompile.passes.place import place
from snncompile.passes.quantise_integers import fixed_bias
from snncompile.run import integer, parts
from snncompile.run.parts import after_reset
from snncompile.target import Target
from tests.drawing import Array
from tests.on_lava import Device, Proven, prove

pytestmark = pytest.mark.lava
LOIHI = Target.load("loihi")
SAMPLE, SAMPLES = 6, 4
RANDOM = np.random.default_rng(0)
PLAIN = Path(__file__).with_name("plain_lava.py")


def even(*shape: int) -> Array:
    return 2 * RANDOM.integers(-5, 9, shape)


CHAIN = {"x": RANDOM.integers(0, 2, (3, 24)), "w0": even(4, 3), "vth0": 9, "bias0": np.array([3, 1, 2, 0])}
CHAIN |= {"w1": even(3, 4), "vth1": 11, "bias1": np.array([2, 5, 4])}
RECURRENT = {"x": RANDOM.integers(0, 2, (3, 24)), "w": even(4, 3), "vth": 9, "back": even(4, 4)}
RESIDUAL = {"x": np.array([[1, 0, 1, 1, 0, 0, 1, 0, 1, 1, 1, 0]])}
KERNEL, IMAGE = np.array([[2, 0], [0, -4]]), np.array([[1, 0, 1], [0, 1, 1], [1, 1, 0]])


def neuron(size: int, threshold: int, bias: Any = 0, dv: int = 0) -> Neuron:
    return Neuron(
        (size,),
        alpha=FixedPoint.number(4096, -12),
        beta=FixedPoint.number(dv, -12),
        threshold=FixedPoint.number(threshold),
        bias=FixedPoint(np.asarray(bias)),
        reset=To(FixedPoint.number(0)),
        initial=FixedPoint.number(0),
    )


def chained(ops: dict[str, Op], *more: Edge) -> Graph:
    names = list(ops)
    edges = [Edge(names[i], names[i + 1]) for i in range(len(names) - 1)]
    return Graph(ops | {"out": Output()}, [*edges, Edge(names[-1], "out"), *more])


def biased() -> Graph:
    ops: dict[str, Op] = {"x": Input((3,), Spike()), "w0": Dense(FixedPoint(CHAIN["w0"]))}
    ops |= {"a": neuron(4, 9, CHAIN["bias0"]), "w1": Dense(FixedPoint(CHAIN["w1"])), "b": neuron(3, 11, CHAIN["bias1"])}
    return chained(ops)


def looped() -> Graph:
    graph = chained({"x": Input((3,), Spike()), "w": Dense(FixedPoint(RECURRENT["w"])), "a": neuron(4, 9)})
    return graph.edit(
        {"back": Dense(FixedPoint(RECURRENT["back"]))}, [*graph.edges, Edge("a", "back", 1), Edge("back", "a")]
    )


def skipping() -> Graph:
    four = FixedPoint(np.array([[4]]))
    ops: dict[str, Op] = {"x": Input((1,), Spike()), "w": Dense(four), "a": neuron(1, 3, dv=4095)}
    ops |= {"v": Dense(four), "c": neuron(1, 6, dv=4095)}
    graph = chained(ops)
    return graph.edit({"skip": Dense(four)}, [*graph.edges, Edge("x", "skip"), Edge("skip", "c")])


def signed() -> Graph:
    return chained({"x": Input((1,), Signed()), "w": Dense(FixedPoint(np.array([[6]]))), "n": neuron(1, 7)})


def convolved() -> Graph:
    ops: dict[str, Op] = {"x": Input((1, 3, 3), Spike()), "w": Conv(FixedPoint(KERNEL[None, None]))}
    ops |= {"flat": Flatten(), "n": neuron(4, 100)}
    return chained(ops)


def device(graph: Graph, x: Array) -> Device:
    """A graph of level fixed for the machine; ``x`` [samples, steps, *shape]."""
    placed = place(balance(graph, LOIHI, x.shape[1]).graph, LOIHI).graph
    expected = after_reset(graph, integer.run(graph, {"x": x}, LOIHI))
    return Device(placed, {"x": x}, expected, x.shape[1], streams(graph))


def samples(rows: Array) -> Array:
    """[neurons, steps] as [samples, steps of a sample, neurons]."""
    return rows.T.reshape(-1, SAMPLE, len(rows))


@pytest.fixture(scope="module")
def hanging(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[subprocess.Popen[str], set[str]]]:
    """H10 and H18: started first, so that waiting for nothing costs no time; with the shared memory it maps."""
    process = subprocess.Popen(
        [str(lava.find_interpreter()), PLAIN, "hang"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
        cwd=tmp_path_factory.mktemp("hang"),
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "running\n"
    segments: set[str] = set()
    yield process, segments
    session = lava.Session(process)  # type: ignore[arg-type]
    session.segments |= segments
    session.end()
    process.stdout.close()


@pytest.fixture(scope="module")
def plain(hanging: object, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Array]:
    """What plain Lava gives: by hazard, [steps, neurons]."""
    out = tmp_path_factory.mktemp("plain") / "out.json"
    numbers: dict[str, Any] = {
        "chain": CHAIN,
        "recurrent": RECURRENT,
        "residual": RESIDUAL,
        "kernel": KERNEL,
        "image": IMAGE,
    }
    text = json.dumps(numbers, default=lambda array: array.tolist())
    subprocess.run(
        [str(lava.find_interpreter()), PLAIN, out], input=text, text=True, check=True, timeout=300, capture_output=True
    )
    return {name: np.array(rows).astype(int) for name, rows in json.loads(out.read_text()).items()}


@pytest.fixture(scope="module")
def ours(plain: object) -> dict[str, Proven]:
    """Our programs on Lava, against the integer interpreter."""
    signs = RANDOM.integers(-1, 2, (SAMPLES, SAMPLE, 1))
    image = np.broadcast_to(IMAGE, (SAMPLES, SAMPLE, 1, 3, 3)).copy()
    skip = np.resize(RESIDUAL["x"], (SAMPLES, SAMPLE, 1))
    streamed = {
        "chain": device(biased(), samples(CHAIN["x"])),
        "residual": device(skipping(), skip),
        "signed": device(signed(), signs),
        "conv": device(convolved(), image),
    }
    found = dict(zip(streamed, prove(list(streamed.values()), LOIHI), strict=True))
    return found | {"loop": prove([device(looped(), samples(RECURRENT["x"]))], LOIHI)[0]}


def exact(proven: Proven) -> bool:
    return proven.different == 0 and proven.compared > 0


def wanted(graph: Graph, x: Array, name: str) -> Array:
    """The spikes that the network means, [steps of all samples, neurons]."""
    spikes = integer.run(graph, {"x": x}, LOIHI).spikes[name]
    return spikes.reshape(-1, spikes.shape[-1]).astype(int)


def test_h01_biases_integrate_while_the_pipeline_is_empty(plain: dict[str, Array], ours: dict[str, Proven]) -> None:
    meant = wanted(biased(), samples(CHAIN["x"]), "b")
    assert (plain["h01"][2:][:SAMPLE] != meant[:SAMPLE]).any(), "the first sample alone, shifted by two synapses"
    assert exact(ours["chain"])


def test_h02_one_reset_step_for_all_layers_is_wrong(plain: dict[str, Array], ours: dict[str, Proven]) -> None:
    meant = wanted(biased(), samples(CHAIN["x"]), "b")
    assert (plain["h02"][2:] != meant).any()
    phases = [op.phase for op in device(biased(), samples(CHAIN["x"])).placed.nodes.values() if isinstance(op, Neuron)]
    assert phases == [1, 2], "each layer has its own"
    assert exact(ours["chain"])


def test_h03_the_offset_of_netx_is_said_for_files_that_begin_with_synapses() -> None:
    """netx needs lava-dl, which is no dependency: its default offset is one step early for the files we write, so the
    call that we tell names the offset. The conformance benchmark runs them.
    """
    assert "reset_interval=6, reset_offset=1" in net.loading(biased(), SAMPLE)


def test_h04_resets_leave_what_is_under_way(plain: dict[str, Array], ours: dict[str, Proven]) -> None:
    meant = wanted(looped(), samples(RECURRENT["x"]), "a")
    shown = plain["h04"][1:][: len(meant)]
    assert (shown[:SAMPLE] == meant[:SAMPLE]).all(), "the first sample starts clean"
    assert (shown[SAMPLE:] != meant[SAMPLE:]).any(), "those behind it do not"
    assert not streams(looped())
    assert exact(ours["loop"])


def test_h05_odd_weights_lose_their_last_bit(plain: dict[str, Array], tmp_path: Path) -> None:
    assert plain["h05"][1].tolist() == [0, 2, -2, -4, 6], "not 1, 3, -1, -3, 7"
    odd = biased().edit({"w0": Dense(FixedPoint(CHAIN["w0"] + 1))})
    with pytest.raises(GraphError, match="are none of the machine's"):
        check(odd, "fixed", LOIHI)
    refused_by_the_runner(odd, tmp_path, "odd weights, of which Lava drops the last bit")


def refused_by_the_runner(graph: Graph, folder: Path, reason: str) -> None:
    x = samples(CHAIN["x"])
    save(Program(place(balance(graph, LOIHI, SAMPLE).graph, LOIHI).graph, "placed", "loihi", SAMPLE), folder)
    with pytest.raises(ToolError, match=reason):
        lava.run(folder, {"x": x})


def test_h06_weight_exponents_mean_something_to_some_synapses_only(
    plain: dict[str, Array], ours: dict[str, Proven]
) -> None:
    assert plain["h06_dense"][1].tolist() == [4]
    assert plain["h06_conv"][1].tolist() == [2]
    scaled = biased().edit({"w0": Dense(FixedPoint(CHAIN["w0"], 1))})
    with pytest.raises(GraphError, match="are none of the machine's"):
        check(scaled, "fixed", LOIHI)
    assert exact(ours["conv"]), "with exponent 0 all kinds agree"


def test_h07_a_negative_spike_becomes_a_positive_one(plain: dict[str, Array], ours: dict[str, Proven]) -> None:
    assert plain["h07"][1].tolist() == [6], "not -6"
    assert exact(ours["signed"])


def test_h08_biases_wrap_at_16_bits(plain: dict[str, Array]) -> None:
    assert not plain["h08"].any(), "40000 a step never reaches a threshold of 100"
    wide = fixed_bias(np.array([40000.0]), LOIHI)
    assert wide.mantissa.max() > LOIHI.bias.mantissa_most
    with pytest.raises(GraphError, match="its bias is outside the machine's range"):
        check(biased().edit({"a": neuron(4, 9, [40000] * 4)}), "fixed", LOIHI)


def test_h09_nothing_checks_a_range(plain: dict[str, Array]) -> None:
    assert plain["h09"].shape == (26, 1), "vth = 5000000, du = 5000, dv = -5: it ran"
    for wrong in (neuron(4, 5_000_000), replace(neuron(4, 9), beta=FixedPoint.number(-5, -13))):
        with pytest.raises(GraphError, match=r"outside the machine's range|is no decay of 12 bits"):
            check(biased().edit({"a": wrong}), "fixed", LOIHI)


def test_h10_a_process_that_fails_is_waited_for_for_ever(
    hanging: tuple[subprocess.Popen[str], set[str]], ours: object, tmp_path: Path
) -> None:
    """What becomes of a run of ours whose process dies is in ``test_lava.py``: an error within a second."""
    assert hanging[0].poll() is None, "all the runs above have come and gone meanwhile"
    half = biased().edit({"a": replace(neuron(4, 9), threshold=FixedPoint.number(3, -1))})
    refused_by_the_runner(half, tmp_path, "the machine's grid is 0")


def test_h11_a_population_has_one_threshold() -> None:
    """An array raises IndexError inside a process, and so hangs as above. Here it becomes two populations."""
    graph = chained({"x": Input((2,), Spike()), "w": Dense(np.eye(2)), "n": Neuron((2,), threshold=[0.5, 2.0])})
    x = {"x": np.ones((2, 4, 2))}
    done = compile_graph(graph, LOIHI, x)
    device_ = Device.of(done, x)
    assert exact(prove([device_], LOIHI)[0])
    whole = parts.merged(done.levels["fixed"], device_.expected).spikes["n"]
    assert whole[0].astype(int).tolist() == [[1, 0], [1, 0], [1, 1], [1, 0]]


@pytest.mark.parametrize("change", [{"reset": By(1.0)}, {"reset": To(0.25)}, {"initial": 0.5}])
def test_h12_stock_neurons_reset_to_zero_only(change: dict[str, Any]) -> None:
    """Lava has no parameter for it, so there is nothing to show: refused by name."""
    graph = chained({"x": Input((2,), Spike()), "w": Dense(np.eye(2)), "n": replace(Neuron((2,)), **change)})
    with pytest.raises(NotRepresentable, match=r"n \(Neuron\): .*targets/loihi.toml:\d+"):
        legalise(graph, LOIHI)


def test_h13_recording_does_not_read_variables() -> None:
    """Reading a variable takes 60 to 95 microseconds a value, minutes for a map; a clock in a test would only flicker.
    Recorders of ours append to files inside the run.
    """
    text = RUNNER.read_text(encoding="utf-8")
    assert "Monitor" not in text
    assert ".data.get(" not in text
    assert "io.sink" not in text


RUNNER = Path(inspect.getfile(lava)).with_name("lava_runner.py")


def test_h14_meeting_the_threshold_is_not_enough(plain: dict[str, Array]) -> None:
    assert not plain["h14"].any(), "a potential of 4 at a threshold of 4"
    graph = chained({"x": Input((1,), Spike()), "w": Dense([[4.0]]), "n": Neuron((1,), threshold=4.0, fires=">=")})
    x = {"x": np.ones((1, 3, 1))}
    done = compile_graph(graph, LOIHI, x)
    assert Device.of(done, x).expected.spikes["n"].all(), (
        "a threshold one step lower says the same; test_ties.py: on Lava"
    )


def test_h15_kernels_are_turned_round(plain: dict[str, Array], ours: dict[str, Proven]) -> None:
    meant = integer.run(convolved(), {"x": IMAGE[None, None, None]}, LOIHI).potentials["n"][0, 0] // 64
    assert (plain["h15"][1] != meant).any()
    back = convolved().edit({"w": Conv(FixedPoint(KERNEL[None, None, ::-1, ::-1]))})
    there = integer.run(back, {"x": IMAGE[None, None, None]}, LOIHI).potentials["n"][0, 0] // 64
    assert (plain["h15"][1].reshape(2, 2) == there.reshape(2, 2)).all(), "a true convolution"
    assert exact(ours["conv"])


def test_h16_skips_arrive_early(plain: dict[str, Array], ours: dict[str, Proven]) -> None:
    x = RESIDUAL["x"].reshape(1, -1, 1)
    meant = wanted(skipping(), x, "c")
    assert meant.any(), "what passed a and what skipped it make c fire together"
    assert (plain["h16"][2:][: len(meant)] != meant).any()
    assert exact(ours["residual"])


OWN = """\
from lava.magma.core.process.process import AbstractProcess
from lava.magma.core.model.py.model import PyLoihiProcessModel
from lava.magma.core.decorator import implements, requires
from lava.magma.core.resources import CPU
from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol

class Own(AbstractProcess):
    pass

@implements(proc=Own, protocol=LoihiProtocol)
@requires(CPU)
class OwnModel(PyLoihiProcessModel):
    tags = ["fixed_pt"]
"""
BYSTANDER = "from pathlib import Path\nPath(__file__).with_name('executed').touch()\n"


def test_h17_modules_beside_a_process_are_executed(tmp_path: Path) -> None:
    theirs, ours_ = tmp_path / "theirs", tmp_path / "ours"
    theirs.mkdir()
    shutil.copyfile(PLAIN, theirs / "main.py")
    (theirs / "own_process.py").write_text(OWN)
    (theirs / "bystander.py").write_text(BYSTANDER)
    command = [str(lava.find_interpreter()), theirs / "main.py", "discover"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True) as process:
        deadline = time.monotonic() + 120
        while not (theirs / "executed").exists() and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.1)
        session = lava.Session(process)
        session.wait(0.3)
        session.end()
    assert (theirs / "executed").exists()
    ours_.mkdir()
    (ours_ / "bystander.py").write_text(BYSTANDER)
    one = device(biased(), samples(CHAIN["x"])[:1])
    save(Program(one.placed, "placed", "loihi", SAMPLE), ours_)
    lava.emit(ours_)
    with (ours_ / "stimulus.npz").open("wb") as file:
        np.savez(file, **one.stimulus)
    command = [str(lava.find_interpreter()), "run_lava.py", ".", "stimulus.npz", "trace.npz"]
    subprocess.run(command, cwd=ours_, check=True, timeout=120, capture_output=True)
    assert (ours_ / "trace.npz").exists()
    assert not (ours_ / "executed").exists()


def test_h18_killing_it_leaves_shared_memory_behind(
    hanging: tuple[subprocess.Popen[str], set[str]], ours: object
) -> None:
    process, segments = hanging
    for member in lava._members(process.pid):
        segments |= lava._mapped(member)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    time.sleep(0.2)
    left = {name for name in segments if (Path("/dev/shm") / name).exists()}
    assert left, "what the killed run leaves"
    session = lava.Session(process)  # type: ignore[arg-type]
    session.segments |= segments
    session.end()
    assert not any((Path("/dev/shm") / name).exists() for name in segments), "and what ours does about it"


def test_h19_the_numbers_that_netx_would_truncate_are_whole(tmp_path: Path) -> None:
    """netx, which casts 5.999 to 5, needs lava-dl: what is written are integers, so a cast changes none."""
    placed = device(biased(), samples(CHAIN["x"])).placed
    assert net.export(placed, tmp_path / "network.net", SAMPLE) is None
    with h5py.File(tmp_path / "network.net") as file:
        for index in ("1", "2"):
            for key in ("weight", "bias"):
                values = file[f"layer/{index}/{key}"][()]
                assert (values == values.astype(int)).all()
                assert values.any()


@pytest.mark.parametrize(("width", "said"), [(256, 0), (257, 1)])
def test_h20_convolutions_wider_than_256_are_said(width: int, said: int) -> None:
    """A warning of Intel's compiler for the chip, which nobody can run without it: the report carries it."""
    graph = chained({"x": Input((1, 1, width), Spike()), "w": Conv(np.ones((1, 1, 1, 1))), "n": Neuron((1, 1, width))})
    notes = [note for note in legalise(graph, LOIHI).notes if "256" in note]
    assert len(notes) == said
