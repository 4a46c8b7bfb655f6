"""A network from a ``.nir``, opened: in reals, so that its integers are chosen on data as those of a checkpoint are."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from snncompile.commands.console import Log
from snncompile.commands.imported import Data, Imported, by_batches, by_shape
from snncompile.commands.several import frame_steps
from snncompile.errors import NotRepresentable, ReadError
from snncompile.frontends.nir import read
from snncompile.frontends.nir_options import Options, parse
from snncompile.ir.graph import Graph
from snncompile.ir.ops import Input, Output, Stateful
from snncompile.ir.store import Program
from snncompile.run.stimulus import Given, Inputs
from snncompile.run.trace import Trace
from snncompile.target import Target

if TYPE_CHECKING:
    from snncompile.commands.imported import Batches
    from snncompile.compile import Compiled

CALIBRATION = 256
"""Samples of ``--data`` that integers are chosen on where no ``--calibration`` is named."""


class Exchanged:
    """A ``.nir`` file. ``steps`` is the length of a sample: that of the data, where they are frames."""

    in_integers = False

    def __init__(self, path: Path, options: argparse.Namespace, log: Log) -> None:
        self.path = path
        self.found = read(path, chosen(options))
        for note in self.found.notes:
            log(f"{path.name}: {note}")
        self.steps = self.found.steps or 0

    @property
    def graph(self) -> Graph:
        """The network at level ``read``."""
        return self.found.graph

    @cached_property
    def folded(self) -> Graph:
        """The network at level ``folded``."""
        from snncompile.compile import fold

        return fold(self.graph)[0]

    @property
    def topology(self) -> Graph:
        return self.graph

    @property
    def title(self) -> str:
        return self.path.stem

    @property
    def about(self) -> str:
        """What it is, in a line."""
        step = f", steps of {self.found.dt:g}" if self.found.dt else ""
        return f"{self.path.name}, NIR, {self.found.semantics}{step}"

    @property
    def origin(self) -> dict[str, Any]:
        """What a manifest says of the recipe, the classes and the versions it was made with."""
        return {"recipe": {}, "classes": [], "versions": {}}

    @property
    def sample(self) -> Data:
        raise ReadError("carries no data", where=str(self.path), remedy="name some with --data")

    def data(self, spec: str, root: str | None) -> Data:
        """Data of the shape that the network takes; the steps of frames are the steps of a sample."""
        found = self._shown(spec, root)
        self.steps = self._steps(found, spec)
        return found

    def batches(self, spec: str, root: str | None) -> Batches | None:
        """``data``, batch by batch; None where they are read whole."""
        found = by_batches(self.graph, spec, root, self.found.steps, self.found.dt)
        if found is not None:
            self.steps = found.steps or self._steps_of_images(spec)
        return found

    def _shown(self, spec: str, root: str | None) -> Data:
        return by_shape(self.graph, spec, root, self.found.steps, self.found.dt)

    def _steps(self, data: Data, spec: str) -> int:
        inputs = {name: op.shape for name, op in self.graph.nodes.items() if isinstance(op, Input)}
        x = data.x if isinstance(data.x, Inputs) else Inputs(dict.fromkeys(inputs, data.x))
        if (steps := frame_steps(x, inputs)) is not None:
            return steps
        return self._steps_of_images(spec)

    def _steps_of_images(self, spec: str) -> int:
        if not self.found.steps:
            why = "a file of NIR does not say how long they are shown"
            raise ReadError("are images", where=spec, why=why, remedy="--nir steps=T, or frames [N, T, ...]")
        return self.found.steps

    def _check_outputs(self) -> None:
        """A machine shows what a population holds, and nothing in between."""
        for name in self.graph.names(Output):
            for edge in self.graph.into(name):
                if not isinstance(self.graph.nodes[edge.source], Stateful):
                    raise NotRepresentable(
                        f"reads {self.graph.label(edge.source)}, which no population holds",
                        where=self.graph.label(name),
                        remedy="say what is made of it over time: --nir readout=sum (mean, last)",
                    )

    def record(self, x: Given) -> Trace | None:
        """Nothing: the training framework is not here."""
        return None

    def _first(self, spec: str, root: str | None) -> tuple[Given, int]:
        """The first samples of data, and the steps of each; no others are read where that can be."""
        found = by_batches(self.graph, spec, root, self.found.steps, self.found.dt)
        if found is None:
            data = self._shown(spec, root)
            return data.x[:CALIBRATION], self._steps(data, spec)
        few = min(CALIBRATION, len(found))
        parts: Iterator[Given] = found.batches(0, few, few)
        return next(parts), found.steps or self._steps_of_images(spec)

    def lowered(self, options: argparse.Namespace, log: Log) -> Compiled:
        """The network lowered to the target of the command line, its integers chosen on data."""
        from snncompile.compile import compile_graph, shown

        self._check_outputs()
        target = Target.load(options.target)
        target = target.on_board(options.board) if options.board else target
        spec = options.calibration or getattr(options, "data", None)
        if not spec:
            remedy = "name data to choose its integers on: --calibration or --data"
            raise ReadError("is in reals", where=str(self.path), remedy=remedy)
        if options.calibration:
            data = self._shown(spec, options.data_root)
            x, steps = data.x, self._steps(data, spec)
        else:
            x, steps = self._first(spec, options.data_root)
            log(f"integers are chosen on the first {len(x)} samples of {spec} (--calibration names others)")
        stimulus = shown(self.graph, x, steps)
        reals = {name: np.asarray(values, dtype=np.float64) for name, values in stimulus.items()}
        compiled = compile_graph(self.graph, target, reals, log, per_channel=options.per_channel)
        return replace(compiled, notes=(*(f"read: {note}" for note in self.found.notes), *compiled.notes))


def opened(path: Path, options: argparse.Namespace, log: Log) -> Exchanged | Imported:
    """A ``.nir``: in reals, or in the integers that this program wrote it from."""
    model = Exchanged(path, options, log)
    found = model.found
    if found.integers is None:
        return model
    late = any(edge.delay for edge in found.graph.edges)
    program = Program(found.graph, "fixed", found.integers, max(1, model.steps), stream=not late)
    return Imported(path, program, f"NIR, in the integers of {found.integers}")


def chosen(options: argparse.Namespace) -> Options:
    """What the command line says of a ``.nir``."""
    return parse(*(getattr(options, key, None) for key in ("nir_semantics", "dt", "nir")))
