"""Networks as the calls to the engine that build and run them, in a file that ``replay.cpp`` runs without Python: for
processors that are not here, and for tools that count instructions.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray

from snncompile.ir.graph import Graph
from snncompile.run import _kernels, compiled, cpu
from snncompile.run.cpu import Simulator
from snncompile.target import Target

Array = NDArray[Any]
MAKE, SIGNAL, EVENTS, POPULATION, CONNECT, RUN = range(6)  # the calls of replay.cpp
ENGINE = _kernels.Engine
SOURCES = Path(compiled.__file__).with_name("kernels")
AVX512 = "-mavx512f -mavx512bw -mavx512dq -mavx512vl -mbmi -mbmi2 -mpopcnt -mprefer-vector-width=512"
X86 = {
    "avx2": "-mavx2 -mbmi -mbmi2 -mpopcnt",
    "avx512": AVX512,
    "vnni": f"{AVX512} -mavx512vnni",
}  # as in CMakeLists.txt
RULES = (
    *("fraction", "decay_bits", "floor", "current", "potential", "current_shift", "potential_shift"),
    *(
        "current_checked",
        "potential_checked",
        "current_wraps",
        "potential_wraps",
        "current_top",
        "potential_top",
        "soft",
    ),
)


class Recorder:
    """Stands in for the engine: hands every call on to it, and writes it down with what came out."""

    def __init__(self, kernels: str, widest: int = 0) -> None:
        self.engine = ENGINE(kernels)
        self.widest = widest or self.engine.widest
        self.stream: list[Array] = []
        self.connections: list[list[int]] = []  # of each population, its connections
        self._write(MAKE)

    def _write(self, *values: Any) -> None:
        self.stream += [np.asarray(value, dtype="<i8").reshape(-1) for value in values]

    def signal(self, height: int, width: int, channels: int) -> int:
        self._write(SIGNAL, height, width, channels)
        return self.engine.signal(height, width, channels)

    def events(self, source: int, *pool: Any) -> int:
        self._write(EVENTS, source, *pool)
        return self.engine.events(source, *pool)

    def population(self, *words: Any) -> int:
        *plain, rules, parameters = words
        self._write(POPULATION, *plain, *(rules[name] for name in RULES))
        for values in parameters:
            self._write(len(values), values.size, values)
        self.connections.append([])
        return self.engine.population(*words)

    def connect(self, population: int, given: dict[str, Any], weights: Array, reach: Array | None) -> None:
        pairs = (given[name] for name in ("kernel", "stride", "padding", "dilation"))
        window = ("form", "source", "first", "channels", "lane", "lanes")
        plain = (given[name] for name in (*window, "events", "delay", "shift", "flush", "matrix"))
        self._write(CONNECT, population, *plain, *pairs, weights.shape, weights)
        self._write(*((0,) if reach is None else (reach.size, reach)))
        self.connections[population].append(len(self.connections[population]))
        self.engine.connect(population, given, weights, reach)

    def run(self, given: Any, kept: Any, *words: Any) -> None:
        self.engine.run(given, kept, *words)
        samples, steps, machine_steps, stepwise, batch, _ = words
        self._write(RUN, samples, steps, machine_steps, stepwise, batch, len(given))
        for signal, spikes, numbers, constant in given:
            values = numbers if spikes is None else spikes
            self._write(signal, spikes is not None, constant, values.size, values)
        self._write(len(kept))
        for population, spikes, potentials, *_ in kept:
            self._write(population, spikes is not None, potentials.size, potentials)
            if spikes is not None:
                self._write(spikes)
        operations = [self.operations(at, place) for at, own in enumerate(self.connections) for place in own]
        self._write(len(self.fired), self.fired, len(operations), operations)

    @property
    def fired(self) -> list[int]:
        return self.engine.fired

    def operations(self, population: int, connection: int) -> int:
        return self.engine.operations(population, connection)


def record(
    graph: Graph,
    target: Target,
    stimulus: Mapping[str, Array],
    *,
    keep: Sequence[str] | None = None,
    widest: int = 0,
) -> Array | None:
    """A network and one run of it as the numbers that ``replay`` reads; None where the engine does not carry it.

    ``widest``: channels of the widest tile of the processor that is meant; default: of this one.
    """
    made: list[Recorder] = []

    def recorder(kernels: str) -> Recorder:
        made.append(Recorder(kernels, widest))
        return made[-1]

    with patch.object(compiled._kernels, "Engine", recorder), patch.dict("os.environ", {cpu.KERNELS_VARIABLE: ""}):
        simulator = Simulator(graph, target, 1)
        simulator.run(stimulus, keep)
    return None if simulator.uncarried else np.concatenate(made[-1].stream)


def build(folder: Path, compiler: str, options: Sequence[str], sets: Mapping[str, str]) -> Path:
    """The program ``replay``; ``sets``: instruction sets beyond the plain one, and the options that they need."""
    common = [compiler, "-std=c++17", "-O3", "-Wno-psabi", "-Wno-ignored-attributes", f"-I{SOURCES}", *options]
    kernels = {f"kernels_{name}.cpp": own for name, own in {"plain": "", **sets}.items()}
    objects = []
    for source in sorted(SOURCES.glob("*.cpp")):
        if source.name == "module.cpp" or (source.name.startswith("kernels_") and source.name not in kernels):
            continue
        objects.append(folder / f"{source.stem}.o")
        words = [*common, *kernels.get(source.name, "").split(), "-c", str(source), "-o", str(objects[-1])]
        subprocess.run(words, check=True)
    program = folder / "replay"
    main = Path(__file__).with_name("replay.cpp")
    subprocess.run([*common, str(main), *map(str, objects), "-pthread", "-o", str(program)], check=True)
    return program
