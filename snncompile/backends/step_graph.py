"""One step of a network as a list of standard tensor operations: states in, states out; plain records, no framework.

``lower`` writes what ``run/integer`` or ``run/reference`` computes at one step, operation by operation. Tensors are
named after what they are: ``NAME`` (an input), ``NAME.s`` spikes, ``NAME.v`` potential before the reset (read-outs: the
sum), ``NAME.u`` synaptic current and ``NAME.w`` potential after the reset (states), ``NAME.past`` the last values that
delayed edges deliver (a state, newest first), ``step`` the machine step, where populations have phases.

A product of integers is exact on every processor because of how it is chosen, for activations ``a`` and weights ``w``:

    uint8 x int8    0 <= a <= 127, -128 <= w <= 127     two products fit the 16 bits in which some processors add pairs
    int8 x int8     -128 <= a <= 127, abs(w) <= 64      so they do where signed activations are shifted to 0 .. 255
    float32         every partial sum below 2^24        float32 adds such integers without rounding, in any order
    int64           anything                            over the patches of the input
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snncompile.ir.ops import Shape

Array = NDArray[Any]
Range = tuple[int, int] | None  # the least and largest integer that a tensor can hold, 0 included; None: no bound known


@dataclass(frozen=True)
class Operation:
    """A node: the name of a standard operation, its tensors, its attributes."""

    kind: str
    inputs: tuple[str, ...]
    output: str
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Port:
    """A tensor that enters or leaves; ``shape`` without the batch axis. ``single``: no batch axis at all."""

    name: str
    dtype: str
    shape: Shape
    single: bool = False
    of: str = ""
    what: str = ""  # what of the node ``of`` it is: input, spikes, potentials, value, u, w, past, step


@dataclass(eq=False)
class StateOf:
    """A state: what enters, what it is before the first step of a sample, and the name it leaves by."""

    port: Port
    initial: Array
    after: str = ""


@dataclass
class StepGraph:
    """One step of a network; ``hidden`` are tensors that are computed anyway and can be looked at. ``weights``: which
    constant holds the weights of a node, and the factor that was taken out of it.
    """

    operations: list[Operation] = field(default_factory=list)
    constants: dict[str, Array] = field(default_factory=dict)
    inputs: list[Port] = field(default_factory=list)
    states: list[StateOf] = field(default_factory=list)
    outputs: list[Port] = field(default_factory=list)
    hidden: list[Port] = field(default_factory=list)
    weights: dict[str, tuple[str, int]] = field(default_factory=dict)


@dataclass(frozen=True)
class Value:
    """A tensor on its way: its type, its shape without the batch axis, and the integers it can hold."""

    name: str
    dtype: str
    shape: Shape
    range: Range = None


class Writer:
    """Adds operations to a step graph, with names that follow from their place."""

    def __init__(self) -> None:
        self.graph = StepGraph()
        self._taken: set[str] = set()
        self._known: dict[tuple[str, Shape, bytes], str] = {}

    def fresh(self, wish: str) -> str:
        """A name that no tensor has."""
        name, count = wish, 1
        while name in self._taken:
            count += 1
            name = f"{wish}.{count}"
        self._taken.add(name)
        return name

    def constant(self, values: Array | np.generic, wish: str = "constant") -> str:
        """The name of a constant; equal ones are stored once."""
        array = np.asarray(values)
        array = np.ascontiguousarray(array).reshape(array.shape)
        key = str(array.dtype), array.shape, array.tobytes()
        if key not in self._known:
            self._known[key] = self.fresh(wish)
            self.graph.constants[self._known[key]] = array
        return self._known[key]

    def add(self, kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        """An operation whose result is called ``output``, or nearly so."""
        name = self.fresh(output)
        self.graph.operations.append(Operation(kind, tuple(inputs), name, attributes))
        return name

    def cast(self, value: Value, dtype: str) -> Value:
        """The same numbers in another type."""
        if value.dtype == dtype:
            return value
        name = self.add("Cast", [value.name], f"{value.name}.{dtype}", to=dtype)
        return Value(name, dtype, value.shape, value.range)

    def spread(self, value: Value, apart: Shape) -> Value:
        """Maps with ``apart - 1`` zeros behind each value, axis by axis: ``linear.spread_out``."""
        if all(step == 1 for step in apart):
            return value
        channels, *size = value.shape
        single = self.reshape(value, (channels, *(length for n in size for length in (n, 1))))
        behind = [0, 0, *(zeros for step in apart for zeros in (0, step - 1))]
        edge = self.constant(np.array([0] * len(behind) + behind, dtype=np.int64))
        nothing = self.constant(np.zeros((), dtype=value.dtype))
        wide = (channels, *(length for n, step in zip(size, apart, strict=True) for length in (n, step)))
        padded = Value(
            self.add("Pad", [single.name, edge, nothing], f"{value.name}.apart"), value.dtype, wide, value.range
        )
        return self.reshape(padded, (channels, *(n * step for n, step in zip(size, apart, strict=True))))

    def reshape(self, value: Value, shape: Shape) -> Value:
        """The same numbers in another shape; the batch axis stays."""
        if value.shape == shape:
            return value
        target = self.constant(np.array([-1, *shape], dtype=np.int64), "shape")
        name = self.add("Reshape", [value.name, target], f"{value.name}.view")
        return Value(name, value.dtype, shape, value.range)
