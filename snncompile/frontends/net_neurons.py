"""The neurons of a layer of a ``.net``.

LOIHI, CUBA    ``Neuron``: alpha = iDecay / 4096, beta = vDecay / 4096, threshold vThMant and bias in weight units
               (netx: du = iDecay - 1, dv = vDecay, bias_exp = 6)
none           netx accumulates with du = -1 and dv = 4096; that, and a last layer that keeps all (iDecay 4096, vDecay
               0, vThMant 131071), is ``Readout``: the same sums while they stay inside the machine's 24 bits;
               ``addends``, which our export writes, says of how many neurons each number is the sum
SDNN           ``SigmaDelta`` with 6 bits of state and 6 of a message (netx: spike_exp = state_exp = 6), so that 1 of
               threshold and bias is 4096; with ``sigma_output`` the sum alone. Input neurons encode what is given
RF             ``Resonator``: the type says PHASE, or it is the Izhikevich form. netx turns sinDecay and cosDecay into a
               period and a decay and back, and cuts the fraction off both times; so they are here

Source: lava-dl 0.6.0, ``netx/hdf5.py`` (``get_neuron_params``), ``slayer/neuron/rf.py`` (``neuron_params``); Lava 0.10,
``lava/proc/rf/process.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from snncompile.fixed import FixedPoint, Integers
from snncompile.frontends.net_record import LARGEST, Layer
from snncompile.ir.ops import Neuron, Readout, Resonator, Shape, SigmaDelta, Stateful, To

DECAY = 12  # decays are in 4096ths
MESSAGE = 6  # netx's spike_exp
STATE = 6  # netx's state_exp
NEVER = 131071
"""The threshold of a population that never fires: the largest that Loihi holds."""


def kind_of(layer: Layer) -> str:
    """``LIF``, ``SDNN``, ``RF``, or nothing where a layer has no neurons. Raises ``UnsupportedNode``."""
    if not layer.has("neuron/type"):
        return ""
    written = layer.word("neuron/type")
    if written in ("LOIHI", "CUBA"):
        return "LIF"
    if written == "SDNN":
        return "SDNN"
    if written.startswith("RF"):
        return "RF"
    known = "LOIHI, CUBA, SDNN and RF are what netx reads"
    raise layer.lacks(f"neurons of type {written!r} have no meaning here", known)


def population(layer: Layer, shape: Shape, bias: Integers, *, last: bool = False) -> Stateful:
    """The neurons of a layer with real weights; ``last``: nothing reads them, not even they themselves."""
    match kind_of(layer):
        case "LIF":
            neuron = _lif(layer, shape, bias)
            values = tuple(layer.integer(f"neuron/{key}", 0, LARGEST) for key in ("iDecay", "vDecay", "vThMant"))
            if not last or values != (1 << DECAY, 0, NEVER):
                return neuron
            return Readout(shape, "sum", FixedPoint(bias), addends=_addends(layer, shape))
        case "SDNN" if layer.has("neuron/sigma_output"):
            if bias.any():
                raise layer.lacks("biases of a sum that is read out", "netx has none there")
            return SigmaDelta(shape, "sigma", FixedPoint.number(0), FixedPoint.number(0))
        case "SDNN":
            return _sigma_delta(layer, shape, bias)
        case "RF":
            raise layer.fail("its neurons resonate, its weights are real", remedy="store weight/real and weight/imag")
        case _:
            return Readout(shape, "sum", FixedPoint(bias))


def _addends(layer: Layer, shape: Shape) -> int:
    addends = layer.integer("addends", 1, LARGEST, default=1)
    if shape[0] % addends:
        raise layer.fail(f"{shape[0]} neurons are no {addends} for each number")
    return addends


def encoder(layer: Layer, shape: Shape, offset: int) -> tuple[FixedPoint, Stateful]:
    """Input neurons: the factor before them, and they. What they add to the data is ``offset``."""
    bias = np.asarray(offset)
    match kind_of(layer):
        case "LIF":
            # netx writes the image into the bias, which passes the synaptic current by: nothing of it may stay
            # 2 and a shift down: machines of even weights have no 1
            return FixedPoint.number(2, -1), replace(
                _lif(layer, shape, bias), alpha=FixedPoint.number(1 << DECAY, -DECAY)
            )
        case "SDNN":
            neuron = replace(_sigma_delta(layer, shape, bias), kind="delta")
            return FixedPoint.number(1, MESSAGE + STATE), neuron
        case _:
            raise layer.lacks("input neurons that resonate", "netx gives them nothing to read")


def resonator(layer: Layer, shape: Shape) -> Resonator:
    """The neurons of a layer with complex weights."""
    if kind_of(layer) != "RF":
        raise layer.fail("its weights are complex, its neurons are not", "netx has RF neurons there")
    for key in ("bias", "delay"):
        if layer.has(key) and layer.integers(key).any():
            raise layer.lacks(f"a {key} of a complex layer", "netx ignores it")
    most = 1 << DECAY
    sine, cosine = (layer.integer(f"neuron/{key}", -most, most) / most for key in ("sinDecay", "cosDecay"))
    if not sine:
        raise layer.fail("neuron/sinDecay is 0", "netx divides by the frequency")
    decay = 1 - np.sqrt(sine**2 + cosine**2)
    period = 1 / (np.arctan2(sine, cosine) / 2 / np.pi)

    def part(wave: Callable[[float], float]) -> FixedPoint:
        return FixedPoint.number(int((1 - decay) * wave(np.pi * 2 * 1 / period) * most), -DECAY)

    return Resonator(
        shape,
        cosine=part(np.cos),
        sine=part(np.sin),
        threshold=FixedPoint.number(layer.integer("neuron/vThMant", 0, 1 << 18)),
        kind="phase" if "PHASE" in layer.word("neuron/type") else "izhikevich",
    )


def _lif(layer: Layer, shape: Shape, bias: Integers) -> Neuron:
    if layer.integer("neuron/refDelay", 0, LARGEST, default=1) > 1:
        raise layer.lacks("a refractory period of more than one step", "netx ignores it")
    if layer.integer("neuron/gradedSpike", 0, 1, default=0):
        raise layer.lacks("graded spikes of LIF neurons", "netx sends ones")
    current = layer.integer("neuron/iDecay", 0, 1 << DECAY)
    leak = layer.integer("neuron/vDecay", 0, 1 << DECAY)
    return Neuron(
        shape,
        alpha=FixedPoint.number(current, -DECAY),
        beta=FixedPoint.number(leak, -DECAY),
        threshold=FixedPoint.number(layer.integer("neuron/vThMant", 0, 1 << 18)),
        bias=FixedPoint(bias),
        reset=To(FixedPoint.number(0)),
        initial=FixedPoint.number(0),
    )


def _sigma_delta(layer: Layer, shape: Shape, bias: Integers) -> SigmaDelta:
    if layer.has("neuron/activation") and layer.word("neuron/activation") != "relu":
        raise layer.lacks(f"the activation {layer.word('neuron/activation')!r}", "netx takes relu for all")
    threshold = FixedPoint.number(layer.integer("neuron/vThMant", 0, 1 << 18), MESSAGE + STATE)
    return SigmaDelta(shape, "sigma-delta", threshold, FixedPoint(bias, MESSAGE + STATE), STATE)
