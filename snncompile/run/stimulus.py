"""What a network is shown: images or frames, for one input or several, in reals and in its integers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snncompile.errors import GraphError
from snncompile.fixed import round_half_away
from snncompile.ir.graph import Graph
from snncompile.ir.ops import Input
from snncompile.ir.signals import Analog, Fixed, Signal, grid

Array = NDArray[Any]


class Inputs:
    """An array for each input, in the order of the graph: images [samples, *shape] or frames [samples, steps, *shape].

    Counted and cut by samples, as one array is.
    """

    def __init__(self, arrays: Mapping[str, Array]) -> None:
        self.arrays: Mapping[str, Array] = dict(arrays)

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values())))

    def __getitem__(self, samples: slice) -> Inputs:
        return Inputs({name: array[samples] for name, array in self.arrays.items()})

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the first input."""
        return next(iter(self.arrays.values())).shape


Given = Array | Inputs
"""What a network is shown: one array, or one for each of several inputs."""


def encode(signal: Signal, values: Array) -> Array:
    """What an input of the quantised graph receives for real ``values``: units of ``signal.unit``, clipped to its
    bits.
    """
    unit, least, most = grid(signal)
    return np.clip(round_half_away(np.asarray(values, dtype=np.float64) / unit), least, most)


def encoded(graph: Graph, stimulus: Mapping[str, Array]) -> dict[str, Array]:
    """A stimulus in reals as the inputs of a ``fixed`` graph receive it: integers [samples, steps, *shape]."""
    inputs = {name: op for name, op in graph.nodes.items() if isinstance(op, Input)}
    return {name: encode(op.signal, stimulus[name]) for name, op in inputs.items()}


def shown(graph: Graph, x: Given, steps: int) -> dict[str, Array]:
    """Images [samples, *shape], the same at every step, or frames [samples, steps, *shape], as a stimulus; for a graph
    of several inputs either of them for each.

    Raises ``GraphError`` where ``x`` is neither, where the graph has other inputs, or where values are not what an
    input declares.
    """
    inputs = {name: op.shape for name, op in graph.nodes.items() if isinstance(op, Input)}
    if not isinstance(x, Inputs):
        if len(inputs) != 1:
            raise GraphError(f"has {len(inputs)} inputs, one array was given", where="stimulus")
        x = Inputs(dict.fromkeys(inputs, x))
    if set(x.arrays) != set(inputs):
        raise GraphError(f"data for {sorted(x.arrays)}, inputs are {sorted(inputs)}", where="stimulus")
    return {name: _at_every_step(graph, name, x.arrays[name], steps) for name in inputs}


def _at_every_step(graph: Graph, name: str, x: Array, steps: int) -> Array:
    op = graph.nodes[name]
    assert isinstance(op, Input)
    if x.shape[1:] not in (op.shape, (steps, *op.shape)):
        what = f"images {list(op.shape)} nor frames {[steps, *op.shape]}"
        raise GraphError(f"data of shape {list(x.shape)} fit neither {what}", where=name)
    _admitted(graph, name, x)
    return x if x.shape[1:] != op.shape else np.broadcast_to(x[:, None], (len(x), steps, *op.shape))


def _admitted(graph: Graph, name: str, x: Array) -> None:
    """Raise ``GraphError`` where values are none of those that the input declares: the machine would clip them."""
    op = graph.nodes[name]
    assert isinstance(op, Input)
    if isinstance(op.signal, Analog | Fixed):  # numbers of any size: their range is chosen on calibration data
        return
    unit, least, most = grid(op.signal)
    integers = np.asarray(x, dtype=np.float64) / unit
    wrong = x[(integers < least) | (integers > most) | (np.abs(integers - np.rint(integers)) > 1e-6)]
    if wrong.size:
        raise GraphError(
            f"its data hold {wrong.flat[0]:g}, which it does not declare",
            where=graph.label(name),
            why=f"it carries {type(op.signal).__name__.lower()}s: multiples of {unit:g} from {least} to {most}",
        )


def in_units(graph: Graph, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Arrays in reals: integers are what the inputs receive, so each is worth the unit that its input declares."""
    found = {}
    for name, array in arrays.items():
        op = graph.nodes.get(name)
        whole = isinstance(op, Input) and not isinstance(op.signal, Analog) and array.dtype.kind in "biu"
        found[name] = array * grid(op.signal)[0] if isinstance(op, Input) and whole else array
    return found
