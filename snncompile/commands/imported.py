"""A network from a file that holds a machine's integers already: ``network.net``, or a ``.nir`` that was written from
them.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from snncompile.commands.console import Log
from snncompile.commands.several import Together, frame_steps, load_several, several_batches
from snncompile.errors import GraphError, NotRepresentable, ReadError
from snncompile.frontends.net import read
from snncompile.ir.graph import Graph
from snncompile.ir.ops import Input
from snncompile.ir.store import Program
from snncompile.run.stimulus import Array, Given, Inputs
from snncompile.run.trace import Trace
from snncompile.target import Target

if TYPE_CHECKING:
    from snncompile.compile import Compiled
    from snncompile.train.set_batches import NirBatches, SetBatches
    from snncompile.train.streamed import Streamed

    Batches = SetBatches | NirBatches | Streamed | Together


@dataclass(frozen=True)
class Data:
    """Inputs as the network sees them, with labels where there are any."""

    name: str
    x: Given
    labels: Array | None
    classes: tuple[str, ...]

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the inputs as the network sees them, and of their labels."""
        content = hashlib.sha256()
        given = self.x.arrays if isinstance(self.x, Inputs) else {"x": self.x}
        arrays: Mapping[str, Array | None] = {**given, "labels": self.labels}
        for key, array in arrays.items():
            if array is not None:
                content.update(f"{key} {array.dtype} {array.shape}".encode() + np.ascontiguousarray(array).tobytes())
        return content.hexdigest()


class Imported:
    """A file in integers. ``steps`` is the length of a sample: that of the data, where they are frames.

    ``program``: what a file of another form than ``.net`` holds; ``form``: the name of that form.
    """

    in_integers = True

    def __init__(self, path: Path, program: Program | None = None, form: str = "lava-dl's network exchange") -> None:
        self.path, self._given, self.form = path, program, form
        self.steps = self._whole.steps

    @cached_property
    def _whole(self) -> Program:
        return self._given or read(self.path)

    @property
    def graph(self) -> Graph:
        return self._whole.graph

    @property
    def folded(self) -> Graph:
        return self.graph

    @property
    def topology(self) -> Graph:
        return self.graph

    @property
    def program(self) -> Program:
        """The graph in logical time, which any interpreter runs."""
        return Program(self.graph, "fixed", self._whole.target, self.steps, self._whole.stream)

    @property
    def title(self) -> str:
        return self.path.stem

    @property
    def about(self) -> str:
        """What it is, in a line."""
        return f"{self.path.name}, {self.form}"

    @property
    def origin(self) -> dict[str, Any]:
        """What a manifest says of the recipe, the classes and the versions it was made with."""
        return {"recipe": {}, "classes": [], "versions": {}}

    @property
    def sample(self) -> Data:
        raise ReadError("carries no data", where=str(self.path), remedy="name some with --data")

    def data(self, spec: str, root: str | None) -> Data:
        """Data of the shape that the network takes; the steps of frames are the steps of a sample."""
        found = by_shape(self.graph, spec, root)
        inputs = {name: op.shape for name, op in self.graph.nodes.items() if isinstance(op, Input)}
        x = found.x if isinstance(found.x, Inputs) else Inputs(dict.fromkeys(inputs, found.x))
        self.steps = frame_steps(x, inputs) or self.steps
        return found

    def batches(self, spec: str, root: str | None) -> Batches | None:
        """``data``, batch by batch; None where they are read whole."""
        found = by_batches(self.graph, spec, root)
        if found is not None:
            self.steps = found.steps or self.steps
        return found

    def record(self, x: Given) -> Trace | None:
        """Nothing: no training framework is behind it."""
        return None

    def lowered(self, options: argparse.Namespace, log: Log) -> Compiled:
        """The network on the target of the command line. Raises ``NotRepresentable`` where its integers are others."""
        from snncompile.compile import compile_integers
        from snncompile.passes.legalise import legalise

        target = Target.load(options.target)
        target = target.on_board(options.board) if options.board else target
        if options.calibration or options.per_channel or options.equilibrium:
            remedy = "leave --calibration, --per-channel and --equilibrium out"
            raise ReadError("has its integers already", where=str(self.path), remedy=remedy)
        legalise(self.graph, target)  # what the machine lacks is refused by name; there is nothing to rewrite
        try:
            return compile_integers(self.graph, target, self.steps, log)
        except GraphError as error:
            remedy = "`snncompile simulate` runs it as it stands"
            raise NotRepresentable(
                f"its integers are none of {target.name}", where=str(self.path), why=str(error), remedy=remedy
            ) from error


def by_shape(graph: Graph, spec: str, root: str | None, steps: int | None = None, dt: float | None = None) -> Data:
    """Data for a graph that no recipe describes: files, or data sets of its shape as they are; for several inputs a
    file that holds an array for each. ``dt``: the length of a step, which NIR data must have too.
    """
    from snncompile.train.data import load

    inputs = {name: op.shape for name, op in graph.nodes.items() if isinstance(op, Input)}
    if len(inputs) != 1:
        return Data(spec, *load_several(spec, inputs, steps, dt), ())
    ((node, shape),) = inputs.items()
    found = load(spec, Path(root) if root else None, shape=shape, steps=steps, dt=dt, node=node)
    if not len(found.x):
        raise ReadError("holds no samples", where=spec)
    return Data(spec, np.asarray(found.x), found.y, found.classes)


def by_batches(
    graph: Graph, spec: str, root: str | None, steps: int | None = None, dt: float | None = None
) -> Batches | None:
    """``by_shape``, batch by batch; None where data are not as they should be: reading them whole says what is
    wrong.
    """
    from snncompile.train.set_batches import nir_batches, set_batches
    from snncompile.train.streamed import streamed

    inputs = {name: op.shape for name, op in graph.nodes.items() if isinstance(op, Input)}
    if len(inputs) != 1:
        return several_batches(spec, inputs, steps, dt)
    ((node, shape),) = inputs.items()
    if (found := set_batches(spec, root, None, shape, steps)) is not None:
        return found
    return nir_batches(spec, node, shape, steps, dt) or streamed(spec, shape, steps)
