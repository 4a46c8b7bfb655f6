"""Run a compiled program on Lava's fixed-point CPU models: a file that stands alone.

    python run_lava.py BUNDLE STIMULUS.npz OUT.npz [--potentials] [--timeout SECONDS]

``BUNDLE`` holds ``program.json`` and ``arrays.npz``. ``STIMULUS.npz`` holds for every input integers [N, T, *shape].
``OUT.npz`` gets ``NAME.s`` (uint8 [N, T, *shape], spikes) for every neuron population, ``NAME.v`` (int32, Lava's ``v``
after the reset, 64 = one weight unit) for every readout and, on request, every neuron population, and ``meta`` (JSON).
Phases are removed: machine step ``k T + t + phase`` is step t of sample k.

It needs Python 3.10, numpy, scipy and lava-nc 0.10.0, and imports nothing else, so that it can travel with a bundle:
which is why it is one file, longer than the others.

Exit codes: 0; 2 the program or the stimulus cannot be run as it is (one line says why); 3 Lava failed; 4 out of time.
"""

# Lava and scipy come without types.
# mypy: disable-error-code="import-not-found,import-untyped,misc,untyped-decorator"
from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import json
import os
import platform
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lava.magma.runtime.runtime as lava_runtime
import numpy as np
import scipy
from lava.magma.compiler.compiler_graphs import ProcGroupDiGraphs
from lava.magma.core.decorator import implements, requires
from lava.magma.core.model.py.model import PyLoihiProcessModel
from lava.magma.core.model.py.ports import PyInPort
from lava.magma.core.model.py.type import LavaPyType
from lava.magma.core.process.ports.ports import InPort
from lava.magma.core.process.process import AbstractProcess
from lava.magma.core.resources import CPU
from lava.magma.core.run_conditions import RunSteps
from lava.magma.core.run_configs import Loihi2SimCfg
from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol
from lava.proc.conv.models import PyConvModelFixed
from lava.proc.conv.process import Conv
from lava.proc.graded.models import PyGradedVecModelFixed
from lava.proc.graded.process import GradedVec
from lava.proc.io.source import PySendModelFixed, RingBuffer
from lava.proc.lif.models import PyLifResetModelBitAcc
from lava.proc.lif.process import LIFReset
from lava.proc.sparse.models import PyDelaySparseModelBitAcc, PySparseModelBitAcc
from lava.proc.sparse.process import DelaySparse, Sparse
from lava.utils.weightutils import SignMode
from numpy.typing import NDArray
from scipy.sparse import coo_matrix, csr_matrix, diags, identity, kron

Integers = NDArray[np.int64]

UNROLL_MOST = 32_000_000
"""A convolution with more synapses than this runs as Lava's Conv. As a sparse matrix it is faster at every size that
was measured (5 times at 16 million synapses and 4 % of the sources firing), but takes 40 bytes a synapse while it is
built."""

TOGETHER_MOST = 4_000_000
"""Samples that each need a fresh state run side by side, as separate copies of the network in one matrix a connection,
up to so many synapses in all: starting Lava takes longer than most samples do."""

MESSAGE_BITS = 24
"""The width with sign of what Lava's ``GradedVec`` sends; sums that might be wider are not in a program."""

STOCK = ("loihi", "loihi1")
"""Targets whose neurons are Lava's own; a sheet of another name may say that it has more, and gets ``FreeLif``."""


class Refusal(Exception):
    """Lava would not run this program as it is written, or would change a number without a word."""


# --- the program ------------------------------------------------------------------------------------------------------


def graded_bits(signal: Mapping[str, Any]) -> int:
    """The width with sign of what an input sends; 0 for plain spikes."""
    match signal["kind"]:
        case "fixed":
            return int(signal["bits"])
        case "count":
            return int(signal["most"]).bit_length() + 1
        case "signed":
            return 2
        case _:
            return 0


@dataclass(frozen=True)
class Population:
    """An Input, Neuron, Readout, or Partial: a sum that is sent on at once. ``du`` to ``vth`` are LIFReset's parameters
    (``bias`` per neuron, C order).

    ``reset`` (an amount where ``soft``, else a value) and ``initial`` are potentials in 1/64 weight units; Lava's own
    neurons have none of the three.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    phase: int = 0
    du: int = 4095
    dv: int = 0
    vth: int = 131071
    bias: Integers = field(default_factory=lambda: np.zeros(1, np.int64))
    bias_exponent: int = 6
    graded_bits: int = 0
    soft: bool = False
    reset: int = 0
    initial: int = 0

    @property
    def stock(self) -> bool:
        return not (self.soft or self.reset or self.initial)

    @property
    def size(self) -> int:
        return int(np.prod(self.shape))


@dataclass(frozen=True)
class Connection:
    """A synaptic op between two populations; ``delay`` is programmed on top of the one step of every synapse, and the
    sum of weights is shifted by ``exponent``.
    """

    name: str
    op: Mapping[str, Any]
    source: str
    target: str
    delay: int
    weight: Integers
    exponent: int = 0


@dataclass(frozen=True)
class Program:
    """What ``program.json`` says: steps of a sample, and whether samples follow each other in one run."""

    steps: int
    stream: bool
    populations: Mapping[str, Population]
    connections: tuple[Connection, ...]

    @property
    def last_phase(self) -> int:
        return max(population.phase for population in self.populations.values())


def check(true: bool, where: str, what: str) -> None:
    """Raise ``Refusal`` with ``where: what`` unless ``true``."""
    if not true:
        raise Refusal(f"{where}: {what}")


class Reader:
    """Reads ``program.json`` (schema ``snncompile.program/1``, level ``placed``) with its arrays."""

    def __init__(self, bundle: Path) -> None:
        with open(bundle / "program.json", encoding="utf-8") as file:
            self.text = json.load(file)
        with np.load(bundle / "arrays.npz", allow_pickle=False) as arrays:
            self.arrays = {key: arrays[key] for key in arrays.files}
        self.nodes: dict[str, dict[str, Any]] = self.text["nodes"]
        self.custom = self.text.get("target") not in STOCK
        check(self.text.get("schema") == "snncompile.program/1", "program.json", f"schema {self.text.get('schema')!r}")

    def integers(self, where: str, value: Any, exponent: int) -> Integers:
        """A fixed-point value as integers in units of ``2**exponent``."""
        if not isinstance(value, dict):
            value = {"mantissa": value, "exponent": 0}
        mantissa, own = value.get("mantissa", value), int(value.get("exponent", 0))
        array = self.arrays[mantissa["array"]] if isinstance(mantissa, dict) else np.asarray(mantissa)
        if array.dtype.kind == "f" and (array == np.rint(array)).all():
            array = array.astype(np.int64)
        check(array.dtype.kind in "iu", where, "is not an integer")
        check(own >= exponent, where, f"has an exponent of {own}, the machine's grid is {exponent}")
        return array.astype(np.int64) << (own - exponent)

    def number(self, where: str, value: Any, exponent: int, least: int, most: int) -> int:
        array = self.integers(where, value, exponent)
        check(array.size == 1, where, f"has {array.size} values, Lava has one for a population")
        check(least <= array.item() <= most, where, f"{array.item()} is outside {least}..{most}")
        return int(array.item())

    def bias(self, name: str, op: Mapping[str, Any], size: int) -> tuple[Integers, int]:
        """``bias_mant`` of every neuron and ``bias_exp``; 64 units of the potential are one unit of the weights."""
        where, value = f"{name}.bias", op.get("bias") or 0
        own = int(value["exponent"]) if isinstance(value, dict) else 0
        mantissa = self.integers(where, value, own)
        exponent = own + 6 if mantissa.any() else 6
        check(0 <= exponent <= 7, where, f"has an exponent of {own}, Loihi has -6..1")
        low, high = int(mantissa.min()), int(mantissa.max())
        check(max(-low, high) <= 4095, where, f"{low}..{high} is outside -4095..4095")
        return np.broadcast_to(mantissa, tuple(op["shape"])).reshape(size), exponent

    def population(self, name: str, op: Mapping[str, Any]) -> Population:
        shape = tuple(int(length) for length in op["shape"])
        size = int(np.prod(shape))
        if op["op"] == "Input":
            kind = op["signal"]["kind"]
            check(
                kind in ("spike", "count", "signed", "fixed"), name, f"an input of kind {kind!r} has no spikes to send"
            )
            return Population(name, "Input", shape, graded_bits=graded_bits(op["signal"]))
        bias, exponent = self.bias(name, op, size)
        phase = int(op["phase"])
        check(phase >= 0, f"{name}.phase", f"{phase} is negative")
        if op["op"] == "Readout" and op["kind"] == "partial":
            check(op.get("decay") == 0 and not bias.any(), name, "is more than a sum")
            return Population(name, "Partial", shape, phase, graded_bits=MESSAGE_BITS)
        if op["op"] == "Readout":
            check(op["kind"] in ("mean", "sum", "weighted"), name, f"a readout of kind {op['kind']!r} is no integrator")
            lost = (1 - op.get("decay", 1)) * 4096
            check(lost == int(lost) and 0 <= lost <= 4095, f"{name}.decay", "is no decay of 12 bits")
            return Population(name, "Readout", shape, phase, dv=int(lost), bias=bias, bias_exponent=exponent)
        check(op.get("fires", ">") == ">", f"{name}.fires", "Lava fires above the threshold, not at it")
        for key, only in (("gain", 1), ("amplitude", 1), ("rest", 0)):
            self.number(f"{name}.{key}", op.get(key, only), 0, only, only)
        most = (1 << 23) - 1
        ((how, amount),) = op.get("reset", {"to": 0}).items()
        reset = self.number(f"{name}.reset", amount, -6, -most, most)
        initial = self.number(f"{name}.initial", op.get("initial", 0), -6, -most, most)
        own = how == "by" or reset or initial
        check(not own or self.custom, name, "has no stock neuron: its reset or its start")
        du = self.number(f"{name}.alpha", op["alpha"], -12, 1, 4096) - 1
        dv = self.number(f"{name}.beta", op["beta"], -12, 0, 4095)
        vth = self.number(f"{name}.threshold", op["threshold"], 0, 0, 131071)
        return Population(
            name, "Neuron", shape, phase, du, dv, vth, bias, exponent, soft=how == "by", reset=reset, initial=initial
        )

    def end(self, name: str, edges: Mapping[str, list[tuple[str, int]]]) -> tuple[str, int]:
        """The population that a synaptic op is attached to on one side, through views, and the delay on the way."""
        total, at = 0, name
        while at == name or self.nodes[at]["op"] == "Flatten":
            check(len(edges[at]) == 1, at, f"has {len(edges[at])} edges on the side of {name}, a connection has one")
            at, delay = edges[at][0]
            total += delay
        check(self.nodes[at]["op"] in ("Input", "Neuron", "Readout"), name, f"meets {at}, which is no population")
        return at, total

    def read(self) -> Program:
        into: dict[str, list[tuple[str, int]]] = {name: [] for name in self.nodes}
        out_of: dict[str, list[tuple[str, int]]] = {name: [] for name in self.nodes}
        for source, target, delay in self.text["edges"]:
            into[target].append((source, int(delay)))
            out_of[source].append((target, int(delay)))
        populations: dict[str, Population] = {}
        connections = []
        for name, op in self.nodes.items():
            if op["op"] in ("Input", "Neuron", "Readout"):
                populations[name] = self.population(name, op)
            elif op["op"] in ("Dense", "Conv", "Scale"):
                source, before = self.end(name, into)
                target, after = self.end(name, out_of)
                connections.append(self.connection(name, source, target, before + after - 1))
            else:
                check(op["op"] in ("Flatten", "Output"), name, f"Lava has no {op['op']}")
        for name in populations:
            direct = [source for source, _ in into[name] if self.nodes[source]["op"] in ("Input", "Neuron", "Readout")]
            check(not direct, name, f"is joined to {direct} without a synapse")
        return Program(int(self.text["steps"]), bool(self.text["stream"]), populations, tuple(connections))

    def connection(self, name: str, source: str, target: str, delay: int) -> Connection:
        op = self.nodes[name]
        check(op.get("bias") is None, name, "a bias on a synapse; it belongs to the neurons")
        silent = self.nodes[source]["op"] == "Readout" and self.nodes[source]["kind"] != "partial"
        check(not silent, name, "comes out of a readout, which does not spike")
        check(self.nodes[target]["op"] != "Input", name, "ends in an input")
        field_name = "factor" if op["op"] == "Scale" else "weight"
        halved = isinstance(op[field_name], dict) and op[field_name].get("exponent") == -1
        exponent = -1 if halved and op["op"] != "Conv" else 0  # Lava's convolution shifts nothing
        weight = self.integers(f"{name}.{field_name}", op[field_name], exponent)
        low, high = int(weight.min(initial=0)), int(weight.max(initial=0))
        check(low >= -256 and high <= 254, name, f"weights {low}..{high} are outside -256..254")
        check(not (weight & 1).any(), name, "odd weights, of which Lava drops the last bit")
        at_input = self.nodes[source]["op"] == "Input"
        check(delay >= 0, name, "is reached without delay, a synapse takes one step")
        check(at_input or delay <= 62, name, f"a delay of {delay}, Loihi has at most 62")
        check(at_input or delay == 0 or op["op"] != "Conv", name, f"a delay of {delay}, Loihi's convolution has none")
        return Connection(name, op, source, target, delay, weight, exponent)


def image(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """[C, H, W] of a signal of one or two spatial axes."""
    channels, *sizes = shape
    return (channels, 1, sizes[0]) if len(sizes) == 1 else (channels, sizes[0], sizes[1])


@dataclass(frozen=True)
class Geometry:
    """A convolution with two spatial axes, (y, x) everywhere; shapes are (channels, height, width)."""

    weight: Integers
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int
    spread: tuple[int, int]
    source: tuple[int, int, int]
    target: tuple[int, int, int]

    @classmethod
    def of(cls, connection: Connection, source: Population, target: Population) -> Geometry:
        op, weight = connection.op, connection.weight
        stride, padding, dilation = (
            tuple(int(value) for value in op[key]) for key in ("stride", "padding", "dilation")
        )
        spread = tuple(int(value) for value in op.get("spread") or (1,) * (weight.ndim - 2))
        if weight.ndim == 3:
            weight = weight[:, :, None, :]
            stride, padding, dilation, spread = (1, *stride), (0, *padding), (1, *dilation), (1, *spread)
        start = image(source.shape)
        expected = [weight.shape[0]]
        for axis in (0, 1):
            room = (
                start[1 + axis] * spread[axis] + 2 * padding[axis] - dilation[axis] * (weight.shape[2 + axis] - 1) - 1
            )
            expected.append(room // stride[axis] + 1)
        end = (expected[0], expected[1], expected[2])
        flat = len(target.shape) == 1 and target.size == int(np.prod(end))  # a view: the same numbers in C order
        check(flat or end == image(target.shape), connection.name, f"gives {expected}, not {target.shape}")
        check(start[0] == weight.shape[1] * int(op["groups"]), connection.name, f"has another depth than {start}")
        return cls(weight, stride, padding, dilation, int(op["groups"]), spread, start, end)  # type: ignore[arg-type]

    def cells(self) -> Iterator[tuple[int, int, Integers, Integers]]:
        """For each kernel cell: (ky, kx, output cells, the input cells they read)."""
        for ky in range(self.weight.shape[2]):
            for kx in range(self.weight.shape[3]):
                rows, ys = self._reach(ky, 0)
                columns, xs = self._reach(kx, 1)
                outputs = (rows[:, None] * self.target[2] + columns).ravel()
                yield ky, kx, outputs, (ys[:, None] * self.source[2] + xs).ravel()

    def _reach(self, cell: int, axis: int) -> tuple[Integers, Integers]:
        outputs = np.arange(self.target[1 + axis])
        inputs = outputs * self.stride[axis] - self.padding[axis] + cell * self.dilation[axis]
        apart = self.spread[axis]  # zeros stand between the inputs
        inside = (inputs >= 0) & (inputs < self.source[1 + axis] * apart) & (inputs % apart == 0)
        return outputs[inside], inputs[inside] // apart

    @property
    def synapses(self) -> int:
        cells = self.cells()
        return sum(int(np.count_nonzero(self.weight[:, :, ky, kx])) * outputs.size for ky, kx, outputs, _ in cells)

    def unroll(self) -> csr_matrix:
        """The convolution as a matrix [target cells, source cells], both in C order."""
        (channels, height, width), (features, rows, columns) = self.source, self.target
        per_group = features // self.groups
        out, inside, values = [], [], []
        for ky, kx, outputs, inputs in self.cells():
            feature, channel = np.nonzero(self.weight[:, :, ky, kx])
            value = self.weight[feature, channel, ky, kx]
            channel = channel + feature // per_group * self.weight.shape[1]
            out.append((feature[:, None] * (rows * columns) + outputs).ravel().astype(np.int32))
            inside.append((channel[:, None] * (height * width) + inputs).ravel().astype(np.int32))
            values.append(np.repeat(value, outputs.size).astype(np.int32))
        shape = (features * rows * columns, channels * height * width)
        return coo_matrix((np.concatenate(values), (np.concatenate(out), np.concatenate(inside))), shape).tocsr()


def matrix(connection: Connection, source: Population, target: Population) -> csr_matrix:
    """A Dense or Scale as a matrix [target, source]."""
    if connection.op["op"] == "Scale":
        check(source.size == target.size, connection.name, f"joins {source.size} to {target.size} neurons one to one")
        factor = np.broadcast_to(connection.weight, source.shape).ravel()
        found = csr_matrix(diags(factor.astype(np.int32), dtype=np.int32))
    else:
        found = csr_matrix(connection.weight.astype(np.int32))
    expected = (target.size, source.size)
    check(found.shape == expected, connection.name, f"is {found.shape}, its populations need {expected}")
    found.eliminate_zeros()
    return found


# --- what Lava has not ------------------------------------------------------------------------------------------------


class Recorder(AbstractProcess):
    """Receives the spikes of every population and so also holds the processes of separate networks together."""

    def __init__(self, sizes: list[int], folder: Path) -> None:
        super().__init__(paths=[str(folder / f"{index}.s") for index in range(len(sizes))])
        for index, size in enumerate(sizes):
            setattr(self, f"in_{index}", InPort(shape=(size,)))
            setattr(RecorderModel, f"in_{index}", LavaPyType(PyInPort.VEC_DENSE, np.int32))


@implements(proc=Recorder, protocol=LoihiProtocol)
@requires(CPU)
class RecorderModel(PyLoihiProcessModel):
    """Appends one byte a neuron and step; unbuffered, since Lava ends its processes without flushing files."""

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        self.files = [open(path, "ab", buffering=0) for path in proc_params["paths"]]  # noqa: SIM115 - as long as the process

    def run_spk(self) -> None:
        for index, file in enumerate(self.files):
            file.write(getattr(self, f"in_{index}").recv().astype(np.uint8).tobytes())


class ObservedLifReset(PyLifResetModelBitAcc):
    """Lava's own model; where ``observe`` names a file, ``v`` is appended to it after the step."""

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        path = proc_params.get("observe", None)
        self.file = open(path, "ab", buffering=0) if path else None  # noqa: SIM115 - as long as the process

    def run_spk(self) -> None:
        super().run_spk()
        if self.file is not None:
            self.file.write(self.v.astype("<i4").tobytes())


class Overheard:
    """A port whose values are appended to a file, in 1/64 weight units: Lava's model keeps nothing of what it sends."""

    def __init__(self, port: Any, file: Any) -> None:
        self.port, self.file = port, file

    def send(self, values: Any) -> None:
        self.file.write((64 * values).astype("<i4").tobytes())
        self.port.send(values)


class ObservedGradedVec(PyGradedVecModelFixed):
    """Lava's own model; where ``observe`` names a file, what it sends is appended to it."""

    s_out: Any

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        path = proc_params.get("observe", None)
        self.file = open(path, "ab", buffering=0) if path else None  # noqa: SIM115 - as long as the process

    def run_spk(self) -> None:
        if self.file is not None and not isinstance(self.s_out, Overheard):
            self.s_out = Overheard(self.s_out, self.file)
        super().run_spk()


class FreeLif(LIFReset):
    """LIFReset whose reset is to a value or by an amount, and which starts from a potential. No chip has it: it is for
    the simulator only."""

    def __init__(self, *, soft: bool, reset: int, initial: int, **options: Any) -> None:
        super().__init__(v=initial, **options)
        self.proc_params["free"] = (soft, reset, initial)


class FreeLifModel(ObservedLifReset):
    """Lava's arithmetic; v becomes ``v - reset`` or ``reset`` where it fires, ``initial`` where LIFReset clears it."""

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        self.soft, self.reset, self.initial = proc_params["free"]

    def subthr_dynamics(self, activation_in: Any) -> None:
        if self.time_step % self.reset_interval == self.reset_offset:  # cleared just now
            self.v[:] = self.initial
        super().subthr_dynamics(activation_in)

    def reset_voltage(self, spike_vector: Any) -> None:
        self.v[spike_vector] = self.v[spike_vector] - self.reset if self.soft else self.reset


class ColumnSparse(PySparseModelBitAcc):
    """Lava's own model, which picks the columns of the spikes; its weights, once set, are stored by column."""

    weights: Any

    def run_spk(self) -> None:
        super().run_spk()
        if self.time_step == 1:
            self.weights = self.weights.tocsc()


class MemoDelaySparse(PyDelaySparseModelBitAcc):
    """Lava's own model, which builds the matrix of all its delays anew in every step; here it is built once."""

    built: Any = None

    def get_delay_wgts_mat(self, weights: Any, delays: Any, max_delay: int) -> Any:
        if self.built is None:
            self.built = super().get_delay_wgts_mat(weights, delays, max_delay).tocsr()
        return self.built


MODELS = {
    RingBuffer: PySendModelFixed,
    Sparse: ColumnSparse,
    DelaySparse: MemoDelaySparse,
    Conv: PyConvModelFixed,
    LIFReset: ObservedLifReset,
    GradedVec: ObservedGradedVec,
    FreeLif: FreeLifModel,
    Recorder: RecorderModel,
}


def models(proc: Any) -> list[Any]:
    """The model of a process, by table: Lava would execute every Python file beside the one that defines it."""
    return [MODELS[type(proc)]]


# --- the machine ------------------------------------------------------------------------------------------------------


class Machine:
    """The processes of a program with the stimulus of the samples of one run.

    Samples that stream follow each other; others run side by side, each in a copy of the network: population k of copy
    i lies at ``i size .. (i + 1) size - 1``, and weights are block-diagonal.
    """

    def __init__(
        self, program: Program, stimulus: Mapping[str, Integers], observed: set[str], folder: Path, unroll: int
    ) -> None:
        self.program, self.stimulus, self.unroll = program, stimulus, unroll
        self.samples = next(iter(stimulus.values())).shape[0] if stimulus else 1
        self.copies = 1 if program.stream else self.samples
        self.machine_steps = self.samples // self.copies * program.steps + program.last_phase
        self.spiking = {name: one for name, one in program.populations.items() if one.kind != "Input"}
        self.notes: dict[str, dict[str, Any]] = {}
        self.sources: dict[tuple[str, int], RingBuffer] = {}
        self.neurons = {name: self._neuron(one, folder, name in observed) for name, one in self.spiking.items()}
        synapses = [self._connect(connection) for connection in program.connections]
        self.recorder = Recorder([one.size * self.copies for one in self.spiking.values()], folder)
        for index, neuron in enumerate(self.neurons.values()):
            neuron.s_out.connect(getattr(self.recorder, f"in_{index}"))
        self.processes = len(self.sources) + len(self.neurons) + len(synapses) + 1

    def _neuron(self, population: Population, folder: Path, observed: bool) -> Any:
        neuron = self._process(population)
        if observed:
            index = list(self.spiking).index(population.name)
            neuron.proc_params["observe"] = str(folder / f"{index}.v")
        return neuron

    def _process(self, population: Population) -> Any:
        if population.kind == "Partial":
            return GradedVec(shape=(population.size * self.copies,), vth=0, exp=0)
        options: dict[str, Any] = {
            "shape": (population.size * self.copies,),
            "du": population.du,
            "dv": population.dv,
            "vth": population.vth,
            "bias_mant": np.tile(population.bias, self.copies),
            "bias_exp": population.bias_exponent,
            "reset_interval": self.program.steps,
            "reset_offset": population.phase + 1,
        }
        if population.stock:
            return LIFReset(**options)
        return FreeLif(soft=population.soft, reset=population.reset, initial=population.initial, **options)

    def _source(self, population: Population, delay: int) -> RingBuffer:
        """What an input sends, injected ``delay`` steps late: Loihi delays synapses, and convolutions not at all."""
        if (population.name, delay) not in self.sources:
            data = np.zeros((population.size * self.copies, self.machine_steps), np.int32)
            by_copy = self.stimulus[population.name].reshape(self.copies, -1, population.size)
            values = by_copy.transpose(0, 2, 1).reshape(population.size * self.copies, -1)
            length = min(values.shape[1], self.machine_steps - delay)
            data[:, delay : delay + length] = values[:, :length]
            self.sources[population.name, delay] = RingBuffer(data=data)
        return self.sources[population.name, delay]

    def _connect(self, connection: Connection) -> Any:
        source, target = (self.program.populations[name] for name in (connection.source, connection.target))
        at_input = source.kind == "Input"
        port = self._source(source, connection.delay).s_out if at_input else self.neurons[source.name].s_out
        delay = 0 if at_input else connection.delay
        into = self.neurons[target.name].a_in
        note: dict[str, Any] = {"message_bits": source.graded_bits, "delay": delay}
        self.notes[connection.name] = note
        if connection.op["op"] == "Conv":
            geometry = Geometry.of(connection, source, target)
            note["synapses"] = geometry.synapses
            if note["synapses"] > self.unroll and max(geometry.spread) == 1:  # Lava has no transposed convolution
                note["process"] = "Conv"
                return self._conv(geometry, source.graded_bits, port, into)
            weights = geometry.unroll()
        else:
            weights = matrix(connection, source, target)
        note["synapses"] = int(weights.nnz)
        if self.copies > 1:
            weights = csr_matrix(kron(identity(self.copies, dtype=np.int32, format="csr"), weights))
        options = {"weights": weights, "num_message_bits": source.graded_bits, "sign_mode": SignMode.MIXED}
        options["weight_exp"] = connection.exponent
        if delay and weights.nnz:
            note["process"] = "DelaySparse"
            delays = weights.astype(np.int64)
            delays.data[:] = delay
            synapse = DelaySparse(delays=delays, max_delay=delay, **options)
        else:
            note["process"] = "Sparse"
            synapse = Sparse(**options)
        port.connect(synapse.s_in)
        synapse.a_out.connect(into)
        return synapse

    def _conv(self, geometry: Geometry, graded_bits: int, port: Any, into: Any) -> Conv:
        """Lava's Conv: axes (x, y, channel), true convolution, so both kernel axes are turned round."""
        conv = Conv(
            weight=geometry.weight[:, :, ::-1, ::-1].transpose(0, 3, 2, 1).copy(),
            input_shape=geometry.source[::-1],
            stride=geometry.stride[::-1],
            padding=geometry.padding[::-1],
            dilation=geometry.dilation[::-1],
            groups=geometry.groups,
            num_message_bits=graded_bits,
        )
        port.reshape(new_shape=geometry.source).transpose(axes=(2, 1, 0)).connect(conv.s_in)
        conv.a_out.transpose(axes=(2, 1, 0)).flatten().connect(into)
        return conv

    def run(self) -> tuple[float, float]:
        """Run it all; (seconds to start, seconds to run)."""
        begin = time.perf_counter()
        with WATCH.over(self.recorder):
            self.recorder.create_runtime(run_cfg=Loihi2SimCfg(select_tag="fixed_pt"))
            started = time.perf_counter()
            self.recorder.run(condition=RunSteps(num_steps=self.machine_steps))
            ended = time.perf_counter()
        self.recorder.stop()
        return started - begin, ended - started


# --- an end in every case ---------------------------------------------------------------------------------------------


class Watch:
    """Ends the run when a process of it dies or time is up: Lava by itself would wait for ever, and leak its memory."""

    def __init__(self) -> None:
        self.recorder: Any = None
        self.running = False
        self.deadline = float("inf")
        self.lock = threading.RLock()
        self.main = os.getpid()

    def begin(self, timeout: float | None) -> None:
        if timeout is not None:
            self.deadline = time.monotonic() + timeout
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        threading.Thread(target=self._look, name="watch", daemon=True).start()

    def _on_signal(self, number: int, frame: Any) -> None:
        if os.getpid() != self.main:
            os._exit(128 + number)
        self.end(128 + number, f"ended by signal {number}")

    @contextlib.contextmanager
    def over(self, recorder: Recorder) -> Iterator[None]:
        """While this is open, no process of the run may end."""
        self.recorder, self.running = recorder, True
        yield
        with self.lock:
            self.running = False

    def _look(self) -> None:
        while True:
            time.sleep(0.2)
            if time.monotonic() > self.deadline:
                self.end(4, "out of time")
            with self.lock, contextlib.suppress(ValueError):  # an actor is being closed: the main thread ends the run
                if self.running and any(actor.exitcode is not None for actor in self._actors):
                    self.end(3, "a process of the run ended before its time")

    @property
    def _actors(self) -> list[Any]:
        """The processes of the run that have been started."""
        infrastructure = getattr(self.recorder and self.recorder.runtime, "_messaging_infrastructure", None)
        return list(infrastructure.actors) if infrastructure else []

    def end(self, code: int, why: str) -> None:
        """Kill the processes of the run, free its shared memory and leave at once."""
        with self.lock:
            print(f"run_lava: {why}", file=sys.stderr, flush=True)
            for actor in self._actors:
                with contextlib.suppress(ValueError):  # already joined and closed
                    actor.kill()
            with contextlib.suppress(Exception):  # not started yet, or already gone
                self.recorder.runtime._messaging_infrastructure.smm._manager.shutdown()
            os._exit(code)


def reporting(*args: Any, **kwargs: Any) -> None:
    """What a process of the run executes; Lava keeps an exception to itself and waits."""
    try:
        LAVA_TARGET(*args, **kwargs)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        raise


LAVA_TARGET = lava_runtime.target_fn
WATCH = Watch()


# --- in and out -------------------------------------------------------------------------------------------------------


def read_stimulus(path: Path, program: Program) -> dict[str, Integers]:
    """Integers [N, steps, *shape] for every input, 0 or 1 where it spikes, within its bits where it is graded."""
    with np.load(path, allow_pickle=False) as file:
        found = {key: file[key] for key in file.files}
    stimulus: dict[str, Integers] = {}
    for name, population in program.populations.items():
        if population.kind != "Input":
            continue
        check(name in found, name, f"has no stimulus in {path.name}")
        values = found[name]
        check(values.dtype.kind in "iub", name, f"a stimulus of {values.dtype}, not of integers")
        shape = (program.steps, *population.shape)
        check(values.ndim > 1 and values.shape[1:] == shape, name, f"a stimulus {values.shape}, not [N, *{shape}]")
        most = 2 ** (population.graded_bits - 1) - 1 if population.graded_bits else 1
        least = -most if population.graded_bits else 0
        low, high = int(values.min(initial=0)), int(values.max(initial=0))
        check(least <= low and high <= most, name, f"a stimulus of {low}..{high}, not within {least}..{most}")
        stimulus[name] = values.astype(np.int64)
    lengths = {values.shape[0] for values in stimulus.values()}
    check(len(lengths) <= 1, path.name, f"different numbers of samples: {sorted(lengths)}")
    check(lengths != {0}, path.name, "no samples")
    return stimulus


def collect(machine: Machine, observed: set[str], folder: Path) -> dict[str, NDArray[Any]]:
    """The recorded files as a trace with the phases taken off."""
    steps, samples = machine.program.steps, machine.samples
    trace: dict[str, NDArray[Any]] = {}
    for index, (name, population) in enumerate(machine.spiking.items()):
        window = slice(population.phase, population.phase + samples // machine.copies * steps)
        shape = (samples, steps, *population.shape)
        for what, kind in (("s", "u1"), ("v", "<i4")):
            if (what == "s" and population.kind != "Neuron") or (what == "v" and name not in observed):
                continue
            raw = np.fromfile(folder / f"{index}.{what}", kind).reshape(machine.machine_steps, machine.copies, -1)
            trace[f"{name}.{what}"] = raw[window].swapaxes(0, 1).reshape(shape).astype(kind.lstrip("<"))
    return trace


def copies(program: Program, unroll: int, most: int) -> int:
    """How many samples run side by side where each needs a fresh state. Lava's own convolution has no copies."""
    total = 0
    for connection in program.connections:
        source, target = (program.populations[name] for name in (connection.source, connection.target))
        if connection.op["op"] == "Conv":
            synapses = Geometry.of(connection, source, target).synapses
            if synapses > unroll:
                return 1
        else:
            synapses = int(np.count_nonzero(connection.weight)) if connection.op["op"] == "Dense" else source.size
        total += synapses * (connection.delay + 1)  # a delay multiplies the rows of the matrix
    return max(1, most // max(1, total))


def run(
    program: Program, stimulus: Mapping[str, Integers], potentials: bool, unroll: int, together: int
) -> dict[str, NDArray[Any]]:
    """All samples one after the other, or each on its own where state would pass from one to the next."""
    spiking = [one for one in program.populations.values() if one.kind != "Input"]
    check(bool(spiking), "program", "has no neurons")
    observed = {one.name for one in spiking if potentials or one.kind == "Readout"}
    count = next(iter(stimulus.values())).shape[0] if stimulus else 1
    each = count if program.stream else min(count, copies(program, unroll, together))
    spans = [slice(k, k + each) for k in range(0, count, each)]
    traces, started, ran, machine_steps = [], 0.0, 0.0, 0
    for span in spans:
        part = {name: values[span] for name, values in stimulus.items()}
        with tempfile.TemporaryDirectory(prefix="snncompile-lava-") as folder:
            machine = Machine(program, part, observed, Path(folder), unroll)
            seconds = machine.run()
            traces.append(collect(machine, observed, Path(folder)))
        started, ran, machine_steps = started + seconds[0], ran + seconds[1], machine_steps + machine.machine_steps
    whole = {key: np.concatenate([trace[key] for trace in traces]) for key in traces[0]}
    meta = {
        "versions": versions(),
        "steps": program.steps,
        "samples": count,
        "stream": program.stream,
        "machine_steps": machine_steps,
        "runs": len(spans),
        "phases": {one.name: one.phase for one in spiking},
        "processes": machine.processes,
        "synapses": machine.notes,
        "not_stock": [one.name for one in spiking if not one.stock],
        "seconds": {"start": round(started, 3), "run": round(ran, 3)},
        "steps_per_second": round(machine_steps / ran, 2),
    }
    return {**whole, "meta": np.array(json.dumps(meta))}


def versions() -> dict[str, str]:
    """What the run was made with."""
    found = {"python": platform.python_version(), "numpy": np.__version__, "scipy": scipy.__version__}
    return {**found, "lava": importlib.metadata.version("lava-nc")}


def write(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write beside ``path`` and rename, so that a crash leaves nothing half written."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(beside, "wb") as file:
            np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Run a compiled program on Lava's fixed-point CPU models.")
    parser.add_argument("bundle", type=Path, help="folder with program.json and arrays.npz")
    parser.add_argument("stimulus", type=Path, help="npz: integers [N, T, *shape] for every input")
    parser.add_argument("out", type=Path, help="npz to write")
    parser.add_argument("--potentials", action="store_true", help="record the potentials of every population")
    parser.add_argument("--timeout", type=float, help="give up after so many seconds")
    parser.add_argument("--unroll", type=int, default=UNROLL_MOST, help="most synapses of a convolution to unroll")
    parser.add_argument("--together", type=int, default=TOGETHER_MOST, help="most synapses of samples side by side")
    given = parser.parse_args(arguments)
    WATCH.begin(given.timeout)
    lava_runtime.target_fn = reporting
    ProcGroupDiGraphs._find_proc_models = staticmethod(models)
    try:
        program = Reader(given.bundle).read()
        stimulus = read_stimulus(given.stimulus, program)
        write(given.out, run(program, stimulus, given.potentials, given.unroll, given.together))
    except Refusal as refusal:
        WATCH.end(2, str(refusal))
    except Exception:
        traceback.print_exc()
        WATCH.end(3, "failed")


if __name__ == "__main__":
    main()
