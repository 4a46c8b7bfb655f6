"""The ops: a small closed union of frozen records, each with its equation.

A node computes one output signal from ``x``, the sum of what its incoming edges deliver. Code dispatches with ``match``
and ``assert_never``, so that a type checker lists every place a new op touches. Shapes leave out batch and time: a
signal of a convolution is ``[channels, height, width]`` (or ``[channels, length]``), of a dense layer ``[features]``.
Parameters are float64 arrays, or ``FixedPoint`` once ``quantise`` has run; they broadcast against the node's shape.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from snncompile.fixed import FixedPoint, Reals
from snncompile.ir.signals import Analog, Signal

Param = Reals | FixedPoint
Shape = tuple[int, ...]
Size = tuple[int, ...]


def real(param: Param) -> Reals:
    """The value of a parameter as float64, whichever form it has."""
    return param.real if isinstance(param, FixedPoint) else param


def _freeze(record: Any) -> None:
    """Turn numbers and lists in parameter fields into read-only float64 arrays."""
    for item in fields(record):
        value = getattr(record, item.name)
        if "Param" in str(item.type) and value is not None and not isinstance(value, FixedPoint):
            array = np.array(value, dtype=np.float64)
            array.setflags(write=False)
            object.__setattr__(record, item.name, array)


def number(value: float) -> Reals:
    """A parameter that is the same everywhere."""
    array = np.array(value, dtype=np.float64)
    array.setflags(write=False)
    return array


@dataclass(frozen=True, eq=False)
class Input:
    """``y[t] = `` what the outside gives at step t. ``signal`` declares what that is."""

    shape: Shape
    signal: Signal = field(default_factory=Analog)


@dataclass(frozen=True, eq=False)
class Output:
    """``y[t] = x[t]``: a signal that the outside reads."""


@dataclass(frozen=True, eq=False)
class Dense:
    """``y = W x + b`` over the flattened ``x``; ``weight`` [out, in], ``bias`` [out] or None."""

    weight: Param
    bias: Param | None = None

    def __post_init__(self) -> None:
        _freeze(self)


@dataclass(frozen=True, eq=False)
class Conv:
    """``y[o, p] = sum_i,k W[o, i, k] x[g(o) i, stride p - padding + dilation k] + b[o]``: correlation, as in torch.

    ``weight`` [out, in / groups, *kernel] with one or two kernel axes, zero padding; ``bias`` [out] or None. Where
    ``spread`` is given, ``x`` is first spread out: each value is followed by ``spread - 1`` zeros, axis by axis. That
    makes a transposed convolution of stride ``spread``, with the kernel reversed and its first two axes exchanged.
    """

    weight: Param
    bias: Param | None = None
    stride: Size = (1, 1)
    padding: Size = (0, 0)
    dilation: Size = (1, 1)
    groups: int = 1
    spread: Size = ()

    def __post_init__(self) -> None:
        _freeze(self)


@dataclass(frozen=True, eq=False)
class Norm:
    """``y = gain (x - mean) / sqrt(variance + epsilon) + shift``, per channel: batch normalisation in inference."""

    mean: Param
    variance: Param
    gain: Param
    shift: Param
    epsilon: float = 1e-5

    def __post_init__(self) -> None:
        _freeze(self)


@dataclass(frozen=True, eq=False)
class Pool:
    """``y[c, p] = sum (or mean over kernel cells, or max) of x[c, stride p - padding + k]``; padding counts as
    zeros.
    """

    kind: Literal["sum", "mean", "max"]
    kernel: Size
    stride: Size
    padding: Size = (0, 0)


@dataclass(frozen=True, eq=False)
class Flatten:
    """``y = x`` as one axis, in C order; in ``shape`` where that is given (``legalise`` puts the rows of a matrix back
    into the form of their population).
    """

    shape: Shape | None = None


@dataclass(frozen=True, eq=False)
class Scale:
    """``y = factor x``: one-to-one synapses; ``factor`` broadcasts against the shape."""

    factor: Param

    def __post_init__(self) -> None:
        _freeze(self)


@dataclass(frozen=True, eq=False)
class To:
    """Hard reset: the potential of a neuron that fired becomes ``value``."""

    value: Param

    def __post_init__(self) -> None:
        _freeze(self)


@dataclass(frozen=True, eq=False)
class By:
    """Soft reset: ``amount`` is taken off the potential of a neuron that fired."""

    amount: Param

    def __post_init__(self) -> None:
        _freeze(self)


Reset = To | By


@dataclass(frozen=True)
class Slice:
    """Neurons ``first .. first + count - 1`` of a population lie on ``core``; counted row by row, channels innermost.

    Where ``channels`` is not 0 they are counted among the channels ``channel .. channel + channels - 1`` alone: a layer
    whose kernels for all channels exceed a core is cut into blocks of channels first.
    """

    core: int
    first: int
    count: int
    channel: int = 0
    channels: int = 0


@dataclass(frozen=True)
class Part:
    """These ``channels`` (entries of the first axis) of the population ``of`` of the network, which ``legalise``
    split.
    """

    of: str
    channels: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Neuron:
    """A population of IF, LIF, CubaLIF or PLIF neurons with hard or soft reset::

        u[t] = (1 - alpha) u[t-1] + gain x[t]                       synaptic current; alpha = 1: none
        v[t] = rest + (1 - beta) (w[t-1] - rest) + u[t] + bias      potential before the reset
        s[t] = v[t] > threshold                                     or >=, where ``fires`` says so
        w[t] = v[t] where s[t] = 0, else the reset                  ``To(value)`` or ``By(amount)``
        y[t] = amplitude s[t],   u[-1] = 0,   w[-1] = initial

    ``gain``, ``amplitude`` and ``rest`` are folded away by the pass ``canonical``. A sample starts (u and w are put
    back) at every step m with ``(m - phase) mod T = 0``. ``unit`` is what 1 of the potential is worth in the trained
    network; ``cores`` is where the population lies; ``part`` says of which population it is a part. Source of the
    form: LIF of Wu et al. 2018 as used by TET, Eq. 1 to 3.
    """

    shape: Shape
    alpha: Param = field(default_factory=lambda: number(1.0))
    beta: Param = field(default_factory=lambda: number(0.0))
    threshold: Param = field(default_factory=lambda: number(1.0))
    bias: Param = field(default_factory=lambda: number(0.0))
    fires: Literal[">", ">="] = ">"
    reset: Reset = field(default_factory=lambda: To(number(0.0)))
    initial: Param = field(default_factory=lambda: number(0.0))
    gain: Param = field(default_factory=lambda: number(1.0))
    amplitude: float = 1.0
    rest: Param = field(default_factory=lambda: number(0.0))
    unit: float = 1.0
    phase: int = 0
    cores: tuple[Slice, ...] = ()
    part: Part | None = None

    def __post_init__(self) -> None:
        _freeze(self)


@dataclass(frozen=True, eq=False)
class Readout:
    """The non-spiking output of the papers: ``a[t] = decay a[t-1] + x[t] + bias``, read at the last step of a sample.

    ``sum``: a[T-1]; ``mean``: a[T-1] / T; ``weighted``: a[T-1] / sum of the weights decay^(T-1-t); ``last``: x[T-1] +
    bias (decay = 0). ``decay`` is 1 for sum and mean. ``unit``, ``phase`` and ``cores`` as in ``Neuron``. Where
    ``addends`` is n, the first axis holds n neurons for each number, and the number is their sum: number c is read off
    neurons c, c + N, ..., c + (n - 1) N of n N; the sum is made outside the machine. Its output signal is a[t]: a
    leaky integrator whose potential other nodes hear is one as well, which interpreters run and no machine has.

    ``partial`` is no output: a[t] = x[t] (decay = 0, no bias) is a part of the sum of one population, which it reaches
    through a weight of one. ``divide`` makes it, on machines whose populations may send integers (graded spikes).
    """

    shape: Shape
    kind: Literal["sum", "mean", "weighted", "last", "partial"] = "mean"
    bias: Param = field(default_factory=lambda: number(0.0))
    decay: float = 1.0
    unit: float = 1.0
    phase: int = 0
    cores: tuple[Slice, ...] = ()
    addends: int = 1

    def __post_init__(self) -> None:
        _freeze(self)

    def summed(self, accumulated: NDArray[Any]) -> NDArray[Any]:
        """The numbers that neurons [..., *shape] stand for: the sums of their addends. Numbers stay as they are."""
        if self.addends == 1 or accumulated.shape[accumulated.ndim - len(self.shape) :] != self.shape:
            return accumulated
        *before, neurons = accumulated.shape[: accumulated.ndim - len(self.shape) + 1]
        apart = accumulated.reshape(*before, self.addends, neurons // self.addends, *self.shape[1:])
        return np.asarray(apart.sum(axis=len(before)))

    def final(self, accumulated: Reals, steps: int) -> Reals:
        """The network's answer from the accumulator of the last step."""
        match self.kind:
            case "mean":
                return accumulated / steps
            case "weighted":
                return accumulated / sum(self.decay**age for age in range(steps))
            case _:
                return accumulated


@dataclass(frozen=True, eq=False)
class SigmaDelta:
    """A population that sends changes: sums what arrives, and tells what its receivers do not know yet::

        a[t] = max(0, sigma[t] + bias),   sigma[t] = sigma[t-1] + x[t]      ``sigma-delta``
        a[t] = x[t] + bias                                                 ``delta``: encodes what the outside gives
        v[t] = a[t] - e[t-1]                                               e: what has been told,  e[-1] = 0
        y[t] = v[t] / 2^shift  where |v[t]| >= threshold,  else 0           rounded down in integers
        e[t] = e[t-1] + v[t]   where it was told,          else e[t-1]
        y[t] = sigma[t]                                                    ``sigma``: a read-out, of the sum alone

    ``threshold``, ``bias`` and all states are in units of a weight times what the source sends. It sends graded
    values. Source: Lava 0.10, ``lava/proc/sdn/models.py`` (``Delta``, ``Sigma``, ``SigmaDelta`` without
    ``cum_error``); its ``residue`` is ``a - e``. Lava's ``spike_exp`` s and ``state_exp`` r give a bias B and threshold
    V there the values B 2^(s + r) and V 2^(s + r) here, ``x`` of ``delta`` a factor 2^(s + r), and ``shift`` = r.
    """

    shape: Shape
    kind: Literal["sigma-delta", "delta", "sigma"] = "sigma-delta"
    threshold: Param = field(default_factory=lambda: number(0.0))
    bias: Param = field(default_factory=lambda: number(0.0))
    shift: int = 0

    def __post_init__(self) -> None:
        _freeze(self)


@dataclass(frozen=True, eq=False)
class Resonator:
    """A population of resonate-and-fire neurons; ``x`` is complex: [2, *shape], real part first::

        re[t] = cosine re[t-1] - sine im[t-1] + Re x[t]
        im[t] = sine re[t-1] + cosine im[t-1] + Im x[t]
        y[t] = re[t] >= threshold and im[t] >= 0 and im[t-1] < 0     ``phase``: no reset
        y[t] = im[t] >= threshold, then re = 0, im = just below it   ``izhikevich``

    ``cosine`` and ``sine`` hold the decay as well: (1 - alpha) cos(2 pi / period) and sin. In integers each product is
    rounded toward zero, both parts saturate, and just below is one unit. Source: Lava 0.10,
    ``lava/proc/rf/models.py`` and ``rf_iz/models.py``.
    """

    shape: Shape
    cosine: Param
    sine: Param
    threshold: Param = field(default_factory=lambda: number(1.0))
    kind: Literal["phase", "izhikevich"] = "phase"

    def __post_init__(self) -> None:
        _freeze(self)


Op = Input | Output | Dense | Conv | Norm | Pool | Flatten | Scale | Neuron | Readout | SigmaDelta | Resonator
OPS: tuple[type[Op], ...] = (
    Input,
    Output,
    Dense,
    Conv,
    Norm,
    Pool,
    Flatten,
    Scale,
    Neuron,
    Readout,
    SigmaDelta,
    Resonator,
)
Synapse = Dense | Conv | Scale
Population = Input | Neuron | Readout
Stateful = Neuron | Readout | SigmaDelta | Resonator
STATEFUL: tuple[type[Stateful], ...] = (Neuron, Readout, SigmaDelta, Resonator)


def kind(op: Op) -> str:
    """The name of an op as it is printed: ``Conv``."""
    return type(op).__name__
