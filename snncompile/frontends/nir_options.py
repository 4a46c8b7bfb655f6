"""What a NIR file leaves open, and how a user says it: ``--nir-semantics``, ``--dt`` and ``--nir KEY=VALUE,...``."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from snncompile.ir.signals import Count, Signal, Signed, Spike

CHOICES: dict[str, tuple[str, ...]] = {
    "r": ("written", "step"),
    "current": ("new", "old"),
    "start": ("zero", "reset", "leak"),
    "fires": ("gt", "ge"),
    "reset": ("value", "subtract"),
    "readout": ("sum", "mean", "last"),
    "metadata": ("use", "ignore"),
}
KEYS = (*CHOICES, "loop", "input", "steps")


@dataclass(frozen=True)
class Options:
    """Everything is optional: what is None follows from the file, or is asked for.

    ``semantics``: how the equations become steps: ``euler``; ``exact`` (the input held for a step); ``loihi`` (Euler,
    decays in 1/4096); ``sinabs`` (time constants count steps, soft reset, fires at >=). ``dt``: the length of a step,
    in the file's unit of time. ``r`` of I and IF: ``written``, per unit of time; ``step``, per step. ``current``:
    whether a step of CubaLIF adds the ``new`` current to the potential, or that of the step before. ``loop``: nodes
    that hear the loops they are in one step late. ``start``: the potential at the start of a sample. ``fires``,
    ``reset``: the tie rule and the reset, where they are not NIR's. ``metadata``: whether what this program wrote into
    a file counts. ``readout``: what is made over time of an output that reads weights. ``input``: what the inputs
    carry. ``steps``: the length of a sample of images.
    """

    semantics: str | None = None
    dt: float | None = None
    r: str | None = None
    current: str | None = None
    loop: tuple[str, ...] = ()
    start: str | None = None
    fires: str | None = None
    reset: str | None = None
    metadata: str = "use"
    readout: Literal["sum", "mean", "last"] | None = None
    input: Signal | None = None
    steps: int | None = None

    def against(self, semantics: str, dt: float) -> str:
        """What was chosen besides, or otherwise than, a file whose metadata say all of it."""
        keys = ("r", "current", "start", "fires", "reset", "loop", "input", "readout")
        found = [key for key in keys if getattr(self, key) not in (None, ())]
        found += ["semantics"] * (self.semantics not in (None, semantics))
        found += ["dt"] * (self.dt is not None and abs(self.dt / dt - 1.0) > 1e-6)
        return ", ".join(found)


def parse(semantics: str | None, dt: float | None, words: str | None) -> Options:
    """The options of a command line. Raises ``ValueError`` with what is wrong."""
    found: dict[str, Any] = {}
    for word in (words or "").split(","):
        key, given, value = word.partition("=")
        if not word:
            continue
        if key not in KEYS or not given or key in found:
            raise ValueError(f"{word!r} is none of {', '.join(f'{key}=' for key in KEYS)}")
        found[key] = _value(key, value)
    return replace(Options(), semantics=semantics, dt=dt, **found)


def _value(key: str, value: str) -> Any:
    if key in CHOICES:
        if value not in CHOICES[key]:
            raise ValueError(f"{key}={value}: one of {', '.join(CHOICES[key])}")
        return value
    if key == "loop":
        return tuple(name for name in value.split("+") if name)
    if key == "steps":
        return _count(key, value)
    kind, _, most = value.partition(":")
    match kind:
        case "spike" if not most:
            return Spike()
        case "signed" if not most:
            return Signed()
        case "count":
            return Count(_count(key, most))
        case _:
            raise ValueError(f"{key}={value}: spike, signed or count:MOST")


def _count(key: str, text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text[:12]) < 2**31:
        raise ValueError(f"{key}: {text!r} is no number of 1 or more")
    return int(text)
