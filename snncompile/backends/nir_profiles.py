"""Profiles: what the readers of a ``.nir`` do with it, as data.

NIR says nothing about the step, the tie rule, the place of a loop's delay or what a reader leaves out, so no single
file means the same network to all of them. A profile is a record of what a family of readers understands; ``lower``
brings a network into that form exactly, or refuses it by name. Every field states behaviour of the named versions, read
in their source and held against runs by the gate (``nir_gate.py``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from snncompile.errors import ReadError

EVERY_NODE = frozenset(
    {"Affine", "Linear", "Scale", "Conv1d", "Conv2d", "SumPool2d", "AvgPool2d", "Flatten"}
    | {"I", "IF", "LI", "LIF", "CubaLIF", "Threshold", "Delay"}
)
_TORCH = frozenset({"Affine", "Linear", "Conv2d", "Flatten", "LIF", "CubaLIF"})


@dataclass(frozen=True)
class Profile:
    """``readers``: importers whose runs must equal the network, or nothing is written. ``foreign``: what the others
    make of the file, which is told and not demanded.

    ``nodes``: the primitives they read. ``gain``: ``tau/dt`` (r = tau/dt: an input counts whole) or ``1`` (r = 1: it
    counts dt/tau, and thresholds with it). ``ties``: their comparison of potential and threshold. ``decay``: 1 - dt/tau
    or exp(-1/tau), tau in steps. ``loops``: a delay of one step where a value is needed before it was computed (``met
    early``), with Delay nodes besides (``and Delay``), or not at all. ``long_loops``: a neuron and its weights must not
    be a loop of two nodes. ``free``: parameters that may differ inside a population. ``reset``: what a spike
    does, ``value`` (v_reset counts), ``zero`` or ``subtract``. ``leak``: v_leak counts. ``single``: one input and one
    output. ``vectors``: leaky neurons have one axis. ``memory``: tau must be above dt. ``walk``: nodes run in the order
    of a depth-first walk, or of their names as far as what they read is there.
    """

    name: str
    summary: str
    usage: str
    dtype: Literal["float64", "float32"]
    dt: float
    gain: Literal["tau/dt", "1"]
    ties: Literal[">", ">="]
    nodes: frozenset[str]
    readers: tuple[str, ...] = ()
    foreign: Mapping[str, str] = field(default_factory=dict)
    decay: Literal["euler", "exp"] = "euler"
    loops: Literal["met early", "and Delay", "none"] = "met early"
    long_loops: bool = False
    free: frozenset[str] = frozenset()
    reset: Literal["value", "zero", "subtract"] = "zero"
    leak: bool = False
    single: bool = True
    vectors: bool = False
    memory: bool = False
    walk: Literal["names", "depth first"] = "names"


_FLOAT32 = "keeps thresholds in float32, where the number below a threshold of float64 is the threshold"
_ANY = frozenset({"tau", "v_threshold", "v_reset", "v_leak"})

_EVERY = (
    Profile(
        "canonical",
        "float64, r = tau/dt, threshold one number below where a tie fires: says everything that NIR can say",
        "read it with snncompile, or with SpikingJelly where no node is missing there",
        "float64",
        1e-4,
        "tau/dt",
        ">",
        EVERY_NODE,
        foreign=MappingProxyType(
            {
                "snntorch": _FLOAT32,
                "spikingjelly": "takes >= for >, and reads 9 of the primitives",
                "norse": "leaves r out",
                "sinabs": "takes tau for steps, and subtracts the threshold",
            }
        ),
        loops="and Delay",
        free=_ANY,
        reset="value",
        leak=True,
        single=False,
    ),
    Profile(
        "unit-r",
        "float32, r = 1, thresholds times dt/tau, dt = 2^-10 s: for readers that leave r out",
        "give the reader dt = 2**-10 s",
        "float32",
        2.0**-10,
        "1",
        ">",
        EVERY_NODE,
        foreign=MappingProxyType(
            {
                "snntorch": "has a dt of its own, 1e-4 s",
                "spikingjelly": "takes >= for >",
                "norse": "1.1.0 leaves AvgPool2d, Conv1d, Scale and Delay out",
                "sinabs": "takes tau for steps, and subtracts the threshold",
            }
        ),
        loops="and Delay",
        free=_ANY,
        reset="value",
        leak=True,
        single=False,
    ),
    Profile(
        "snntorch",
        "float32, r = tau/dt with dt = 1e-4 s, which snnTorch 1.0 has built in",
        "snntorch.import_nir.import_from_nir(graph), one sample at a time",
        "float32",
        1e-4,
        "tau/dt",
        ">",
        _TORCH | {"AvgPool2d"},
        readers=("snntorch",),
        foreign=MappingProxyType(
            {
                "spikingjelly": "takes >= for >",
                "norse": "leaves r out",
                "sinabs": "takes tau for steps, and subtracts the threshold",
            }
        ),
        long_loops=True,
        free=frozenset({"tau"}),
    ),
    Profile(
        "spikingjelly",
        "float32, r = tau/dt, thresholds for a reader that fires at >=",
        "spikingjelly.activation_based.nir_exchange.import_from_nir(graph, dt=1e-4), one sample at a time",
        "float32",
        1e-4,
        "tau/dt",
        ">=",
        _TORCH | {"AvgPool2d", "Conv1d", "IF"},
        readers=("spikingjelly",),
        memory=True,
        foreign=MappingProxyType(
            {
                "snntorch": "takes > where this file means >=",
                "norse": "leaves r out",
                "sinabs": "takes tau for steps, and subtracts the threshold",
            }
        ),
    ),
    Profile(
        "norse",
        "as unit-r, without what Norse 1.1.0 does not read: IF for neurons that do not leak, no pools",
        "norse.torch.from_nir(graph, dt=2**-10), one sample at a time",
        "float32",
        2.0**-10,
        "1",
        ">",
        _TORCH | {"IF", "LI"},
        readers=("norse",),
        walk="depth first",
        foreign=MappingProxyType(
            {
                "snntorch": "has a dt of its own, 1e-4 s",
                "spikingjelly": "takes >= for >",
                "sinabs": "takes tau for steps, and subtracts the threshold",
            }
        ),
        free=frozenset({"tau", "v_threshold", "v_leak"}),
        leak=True,
    ),
    Profile(
        "sinabs",
        "float32, r = 1, tau in steps: neurons that subtract their threshold",
        "sinabs.from_nir(graph, batch_size=1)",
        "float32",
        1.0,
        "1",
        ">=",
        frozenset(["Affine", "Conv2d", "Flatten", "IF", "LIF"]),
        readers=("sinabs",),
        walk="depth first",
        foreign=MappingProxyType(
            {
                "snntorch": "has a dt of its own, 1e-4 s, and resets to zero",
                "spikingjelly": "has a dt of its own, 1e-4 s, and resets to v_reset",
                "norse": "leaves r out, and resets to zero",
            }
        ),
        decay="exp",
        loops="none",
        free=frozenset({"tau", "v_threshold"}),
        reset="subtract",
        vectors=True,
    ),
)
PROFILES: Mapping[str, Profile] = MappingProxyType({profile.name: profile for profile in _EVERY})


def profile_of(name: str) -> Profile:
    """The profile of this name. Raises ``ReadError``."""
    if name not in PROFILES:
        raise ReadError(f"no profile is called {name!r}", where="--nir-profile", remedy="one of " + ", ".join(PROFILES))
    return PROFILES[name]
