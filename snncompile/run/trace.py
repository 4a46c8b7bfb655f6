"""What a run leaves behind, and where two runs part."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snncompile.errors import ReadError
from snncompile.fixed import Integers
from snncompile.ir.store import UNREADABLE, read_arrays
from snncompile.run.bits import Bits

Array = NDArray[Any]


@dataclass(frozen=True)
class Packed:
    """Spikes once more, a bit each: the array they are ``of``, bool [samples, steps, *shape], its ``words`` [samples,
    steps, words] as ``bits.packed`` makes them, and their ``number`` [samples, steps]. From here on they are read-only.
    """

    of: Array
    words: Bits
    number: Integers

    def __post_init__(self) -> None:
        for array in (self.of, self.words, self.number):
            array.setflags(write=False)

    def __reduce__(self) -> tuple[type[Packed], tuple[Array, Bits, Integers]]:
        """As it was made: arrays that come from elsewhere can be written to until then."""
        return Packed, (self.of, self.words, self.number)


@dataclass(frozen=True)
class Trace:
    """Spikes and potentials of populations, phases removed, each array [samples, steps, *shape].

    ``spikes``: bool, for neurons. ``potentials``: for neurons ``v`` before the reset (after it where
    ``meta["potential"]`` says ``after reset``, as machines show it), for read-outs the accumulator. Reals in the
    network's units from ``reference``; integers in units of the target's grid from ``integer``, ``cpu`` and machines.
    ``packed``: spikes that whoever ran them left as bits as well, which hold for the array that they are of.
    """

    spikes: Mapping[str, Array]
    potentials: Mapping[str, Array] = field(default_factory=dict)
    meta: Mapping[str, Any] = field(default_factory=dict)
    packed: Mapping[str, Packed] = field(default_factory=dict)

    @property
    def samples(self) -> int:
        every = [*self.spikes.values(), *self.potentials.values()]
        return len(every[0]) if every else 0

    def save(self, path: Path) -> None:
        """Write an ``.npz``: ``NAME.s``, ``NAME.v`` and ``meta`` (JSON); beside its place, then renamed."""
        content: dict[str, Array] = {f"{name}.s": array.astype(np.uint8) for name, array in self.spikes.items()}
        content |= {f"{name}.v": array for name, array in self.potentials.items()}
        content["meta"] = np.array(json.dumps(dict(self.meta), sort_keys=True))
        beside = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            with beside.open("wb") as file:
                np.savez_compressed(file, allow_pickle=False, **content)
            os.replace(beside, path)
        finally:
            beside.unlink(missing_ok=True)

    @staticmethod
    def load(path: Path) -> Trace:
        """Read a trace. Raises ``ReadError``."""
        try:
            content = read_arrays(path)
            meta = json.loads(str(content.pop("meta", "{}")))
        except FileNotFoundError as error:
            raise ReadError("is missing", where=str(path)) from error
        except UNREADABLE as error:
            raise ReadError("is no trace", where=str(path), why=str(error)) from error
        spikes = {key[:-2]: array.astype(bool) for key, array in content.items() if key.endswith(".s")}
        potentials = {key[:-2]: array for key, array in content.items() if key.endswith(".v")}
        if not spikes and not potentials:
            raise ReadError("is no trace", where=str(path), why="it holds neither NAME.s nor NAME.v")
        return Trace(spikes, potentials, meta)


def joined(traces: Sequence[Trace]) -> Trace:
    """Traces of consecutive samples as one; spikes and operations that were counted are added."""
    meta = dict(traces[0].meta)
    for what in {"spikes", "operations"} & meta.keys():
        meta[what] = {name: sum(trace.meta[what][name] for trace in traces) for name in meta[what]}
    return Trace(
        {name: np.concatenate([trace.spikes[name] for trace in traces]) for name in traces[0].spikes},
        {name: np.concatenate([trace.potentials[name] for trace in traces]) for name in traces[0].potentials},
        meta,
    )


@dataclass(frozen=True)
class Divergence:
    """The first place where two traces differ: the earliest step, in it the first population in the order of the graph,
    then sample and neuron."""

    population: str
    sample: int
    step: int
    neuron: tuple[int, ...]
    what: str  # "spikes" or "potentials"
    left: Any
    right: Any

    def __str__(self) -> str:
        index = ",".join(map(str, self.neuron))
        where = f"{self.population}[{index}], step {self.step}, sample {self.sample}"
        return f"{where}: {self.what} {self.left} and {self.right}"


def first_divergence(left: Trace, right: Trace, order: Iterable[str], *, potentials: bool = True) -> Divergence | None:
    """Where two traces part first, over the populations that both hold; None where they agree to the last bit.

    Raises ``ReadError`` where the arrays have different shapes, or where the traces share nothing.
    """
    best: Divergence | None = None
    compared = 0
    for name in order:
        kinds = [("spikes", left.spikes, right.spikes)]
        if potentials:
            kinds.append(("potentials", left.potentials, right.potentials))
        for what, one, other in kinds:
            if name not in one or name not in other:
                continue
            compared += 1
            found = _first(name, what, one[name], other[name])
            if found is not None and (best is None or found.step < best.step):
                best = found
    if not compared:
        raise ReadError("the two traces have no population in common", where="traces")
    return best


def _first(name: str, what: str, one: Array, other: Array) -> Divergence | None:
    if one.shape != other.shape:
        raise ReadError(f"{what} of shape {list(one.shape)} against {list(other.shape)}", where=name)
    different = one != other
    if not different.any():
        return None
    by_step = different.reshape(*different.shape[:2], -1).any(axis=(0, 2))
    step = int(np.argmax(by_step))
    sample, *neuron = (int(index) for index in np.argwhere(different[:, step])[0])
    place = (sample, step, *neuron)
    return Divergence(name, sample, step, tuple(neuron), what, one[place].item(), other[place].item())
