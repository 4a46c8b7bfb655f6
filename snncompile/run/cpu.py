"""The fast interpreter: equal to ``integer`` bit for bit, for whole test sets.

The compiled engine (``run/compiled.py``, ``run/kernels``) where it was built, NumPy (``run/numpy_layers.py``) where no
compiler was at hand. The environment variable ``SNNCOMPILE_CPU_KERNELS`` names an instruction set (``amx``, ``vnni``,
``avx512``, ``avx2``, ``neon``, ``plain``) or ``numpy``, ``SNNCOMPILE_THREADS`` a number of threads.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snncompile.errors import ToolError
from snncompile.ir.graph import Graph
from snncompile.ir.ops import Input, Resonator, SigmaDelta
from snncompile.ir.store import Program
from snncompile.run import numpy_layers
from snncompile.run.integer import IntegerGraph
from snncompile.run.partial import in_range, partial_sums, sent_by, undivided
from snncompile.run.steps import check_stimulus
from snncompile.run.stimulus import Given, Inputs, encoded, in_units, shown
from snncompile.run.trace import Trace
from snncompile.run.ways import Uncarried
from snncompile.target import Target

try:
    from snncompile.run import _kernels
except ImportError:  # the package was installed without a compiler
    KERNELS: tuple[str, ...] = ()
else:
    KERNELS = tuple(_kernels.available())

Array = NDArray[Any]
KERNELS_VARIABLE = "SNNCOMPILE_CPU_KERNELS"
THREADS_VARIABLE = "SNNCOMPILE_THREADS"
_said: list[str] = []


def chosen_kernels() -> str:
    """The instruction set that runs: the best of this processor, or what the environment names; ``numpy``: none.

    Raises ``ToolError`` for a name that this processor, or this installation, does not have.
    """
    named = os.environ.get(KERNELS_VARIABLE, "")
    if not named:
        if not KERNELS and not _said:
            _said.append("said")
            print(
                "snncompile: the compiled engine was not built, simulation runs on NumPy (install a C++17 compiler, "
                "then the package again)",
                file=sys.stderr,
            )
        return KERNELS[0] if KERNELS else "numpy"
    if named not in (*KERNELS, "numpy"):
        raise ToolError(
            f"no kernels {named!r} here", where=KERNELS_VARIABLE, remedy=f"one of {', '.join((*KERNELS, 'numpy'))}"
        )
    return named


def say_nothing() -> None:
    """Here it is not said that the engine was not built: who shares work out has said it."""
    _said.append("elsewhere")


def chosen_threads(threads: int | None) -> int:
    """The number of threads: as given, as ``SNNCOMPILE_THREADS`` says, or the cores this process may use."""
    if threads is None:
        named = os.environ.get(THREADS_VARIABLE, "")
        threads = int(named) if named.isdecimal() and int(named) else len(os.sched_getaffinity(0))
    if threads < 1:
        raise ToolError(f"{threads} threads run nothing", where="threads", remedy="1 or more")
    return threads


class Simulator:
    """Runs one graph in a target's integers again and again: ``Simulator(graph, target).run(stimulus) -> Trace``, or
    ``Simulator(program)(x) -> Trace``.

    A ``Program`` brings its steps and the name of its target; a sheet of one's own is given as ``target``.

    Neurons and read-outs, with all their parameters, delays, phases and loops, run on the compiled engine. Populations
    that are not LIF (``SigmaDelta``, ``Resonator``), read-outs that feed populations, maxima over sums or behind other
    ops, and numbers that 64 bits do not hold run on ``run/integer`` itself.
    """

    def __init__(self, graph: Graph | Program, target: Target | None = None, threads: int | None = None) -> None:
        self.steps: int | None = None
        if isinstance(graph, Program):
            target, self.steps, graph = target or Target.load(graph.target), graph.steps, graph.graph
        if target is None:
            raise ToolError("a graph alone names no target", where="Simulator", remedy="give the target's sheet")
        self.graph, self.target = graph, target
        self.kernels, self.threads = chosen_kernels(), chosen_threads(threads)
        self.uncarried = ""  # why the compiled engine was left out, where it was
        # partial sums are made where they are read, as long as they stay in the machine's range
        self.whole = undivided(graph) if partial_sums(graph) and in_range(graph, target) else graph
        self._compiled: Any = None
        self._layers: numpy_layers.Layers | None = None
        if self.kernels == "numpy":
            return
        from snncompile.run.compiled import Compiled

        if graph.names(SigmaDelta, Resonator):
            self.uncarried = "its populations are not all LIF"
            return
        try:
            self._compiled = Compiled(IntegerGraph(self.whole, target), self.kernels)
        except Uncarried as reason:
            self.uncarried = str(reason)

    @property
    def engine(self) -> str:
        """What runs, or ran last, and why it is not the compiled engine where it is not."""
        if self.uncarried:
            return f"run/integer, which is slow ({self.uncarried})"
        threads = f"{self.threads} thread{'s' * (self.threads > 1)}"
        if self.kernels != "numpy":
            return f"the compiled engine ({self.kernels}, {threads})"
        return f"NumPy ({f'{KERNELS_VARIABLE} names it' if KERNELS else 'the compiled engine was not built'})"

    def __call__(self, x: Given, keep: Collection[str] | None = None) -> Trace:
        """``run`` on images [samples, *shape], the same at every step, or frames [samples, steps, *shape].

        Reals are encoded as the inputs declare; integers and booleans are what the inputs receive. For several inputs
        ``Inputs`` holds an array for each. Images need a ``Program``, which says for how many steps they are shown.
        Raises ``GraphError`` where the shape or a value is not what an input declares.
        """
        arrays = x.arrays if isinstance(x, Inputs) else dict.fromkeys(self.graph.names(Input), np.asarray(x))
        steps = self.steps or next(iter(arrays.values())).shape[1]
        stimulus = shown(self.graph, Inputs(in_units(self.graph, arrays)), steps)
        return self.run(encoded(self.graph, stimulus), keep)

    def run(self, stimulus: Mapping[str, Array], keep: Collection[str] | None = None) -> Trace:
        """The trace of ``keep`` (default: all populations); ``stimulus``: input name -> integers [samples, steps,
        *shape].

        ``meta["spikes"]`` counts the spikes of every neuron population, kept or not; ``meta["operations"]`` the events
        that went through the weights of each node times the synapses each went through, the same numbers on every
        engine (left out where what arrives is no event: read-outs, maxima of sums or changes feed a population).
        Memory grows with what is kept, not with the number of samples. A trace holds no partial sums (``Readout``):
        the population that they belong to reads them at once, which is the same to the last bit.
        """
        if self.whole is not self.graph and not self._declared(stimulus):
            return numpy_layers.Layers(self.graph, self.target).run(stimulus, keep)
        if self._compiled is not None:
            try:
                trace: Trace = self._compiled.run(stimulus, keep, self.threads)
            except Uncarried as reason:
                self.uncarried = str(reason)
            else:
                self.uncarried = ""
                return trace
        if self._layers is None:
            self._layers = numpy_layers.Layers(self.whole, self.target)
        return self._layers.run(stimulus, keep)

    def _declared(self, stimulus: Mapping[str, Array]) -> bool:
        """Whether the inputs carry the integers that they declare: that partial sums stay in range rests on them."""
        check_stimulus(self.graph, stimulus)
        declared = {name: sent_by(self.graph.nodes[name]) for name in stimulus}
        return all(
            values.dtype.kind in "biu" and declared[name][0] <= values.min() and values.max() <= declared[name][1]
            for name, values in stimulus.items()
        )
