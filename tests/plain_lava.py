"""Lava by itself, as a script for the interpreter that has it: what it does without a word where this package acts.

    python plain_lava.py OUT.json       every demonstration, in one run
    python plain_lava.py hang           a floating-point threshold: never ends
    python plain_lava.py discover       a process of one's own, in this folder: what else is executed

Results are lists [steps][neurons]; ``tests/test_hazards.py`` says what they should be.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from lava.magma.core.run_conditions import RunSteps
from lava.magma.core.run_configs import Loihi2SimCfg
from lava.proc.conv.process import Conv
from lava.proc.dense.process import Dense
from lava.proc.io.sink import RingBuffer as Sink
from lava.proc.io.source import RingBuffer as Source
from lava.proc.lif.process import LIF, LIFReset

STEPS = 26  # four samples of six steps, and two synapses
SAMPLE = 6


def given(rows: Any) -> Source:
    """A source of [neurons, steps], zero after its end."""
    data = np.zeros((len(rows), STEPS), np.int32)
    data[:, : min(STEPS, len(rows[0]))] = np.asarray(rows)[:, :STEPS]
    return Source(data=data)


def dense(source: Any, weights: Any, **options: Any) -> Any:
    """The output of synapses behind an output."""
    synapse = Dense(weights=np.asarray(weights), **options)
    source.connect(synapse.s_in)
    return synapse.a_out


def lif(current: Any, *, kind: type = LIF, **options: Any) -> Any:
    """The spikes of neurons behind a current."""
    neuron = kind(shape=current.shape, **({"du": 4095, "dv": 0} | options))
    current.connect(neuron.a_in)
    return neuron.s_out


def chain(numbers: dict[str, Any], *, common: bool = False) -> Any:
    """Two layers with biases: without resets, or with the same reset for both (H1, H2)."""
    options: dict[str, Any] = {"bias_exp": 6}
    kind: type = LIF
    if common:
        kind, options = LIFReset, options | {"reset_interval": SAMPLE, "reset_offset": 1}
    layer = given(numbers["x"]).s_out
    for index in range(2):
        weights, vth, bias = (numbers[f"{what}{index}"] for what in ("w", "vth", "bias"))
        layer = lif(dense(layer, weights), kind=kind, vth=vth, bias_mant=np.asarray(bias), **options)
    return layer


def recurrent(numbers: dict[str, Any]) -> Any:
    """A layer that reads itself; samples as a stream with resets at its own phase (H4)."""
    current = Dense(weights=np.asarray(numbers["w"]))
    given(numbers["x"]).s_out.connect(current.s_in)
    neuron = LIFReset(
        shape=(len(numbers["w"]),), vth=numbers["vth"], du=4095, dv=0, reset_interval=SAMPLE, reset_offset=2
    )
    current.a_out.connect(neuron.a_in)
    back = Dense(weights=np.asarray(numbers["back"]))
    neuron.s_out.connect(back.s_in)
    back.a_out.connect(neuron.a_in)
    return neuron.s_out


def residual(numbers: dict[str, Any]) -> Any:
    """x -> a -> c, and x -> c as it stands (H16)."""
    x = given(numbers["x"]).s_out
    a = lif(dense(x, [[4]]), vth=3, dv=4095)
    neuron = LIF(shape=(1,), vth=6, du=4095, dv=4095)
    dense(a, [[4]]).connect(neuron.a_in)
    dense(x, [[4]]).connect(neuron.a_in)
    return neuron.s_out


def flipped(kernel: Any, x: Any) -> Any:
    """A convolution with torch's kernel, axes turned but not reversed (H15)."""
    image = Source(data=np.repeat(np.asarray(x)[:, :, None, None], STEPS, axis=3))
    conv = Conv(weight=np.asarray(kernel)[None, :, :, None], input_shape=(*np.shape(x), 1))
    image.s_out.connect(conv.s_in)
    return conv.a_out.flatten()


def demonstrations(numbers: dict[str, Any]) -> dict[str, Any]:
    """The outputs by name."""
    one = [[1] * STEPS]
    minus = [[-1] * STEPS]
    shifted = {"weight_exp": 1}
    conv = Conv(weight=np.array([[[[2]]]]), input_shape=(1, 1, 1), weight_exp=1)
    Source(data=np.ones((1, 1, 1, STEPS), np.int32)).s_out.connect(conv.s_in)
    quiet = dense(given(one).s_out, [[0]])
    return {
        "h01": chain(numbers["chain"]),
        "h02": chain(numbers["chain"], common=True),
        "h04": recurrent(numbers["recurrent"]),
        "h05": dense(given(one).s_out, [[1], [3], [-1], [-3], [7]]),
        "h06_dense": dense(given(one).s_out, [[2]], **shifted),
        "h06_conv": conv.a_out.flatten(),
        "h07": dense(given(minus).s_out, [[6]]),
        "h08": lif(quiet, vth=100, bias_mant=40000, bias_exp=6),
        "h09": lif(dense(given(one).s_out, [[2]]), vth=5_000_000, du=5000, dv=-5),
        "h14": lif(dense(given(one).s_out, [[4]]), vth=4, dv=4095),
        "h15": flipped(numbers["kernel"], numbers["image"]),
        "h16": residual(numbers["residual"]),
    }


def run(outputs: dict[str, Any]) -> dict[str, Any]:
    """All of them, each with a sink of its own; synapses without weights join them to one run, which starts once."""
    anchor = LIF(shape=(1,))
    sinks = {}
    for name, port in outputs.items():
        sinks[name] = Sink(shape=port.shape, buffer=STEPS)
        port.connect(sinks[name].a_in)
        dense(port, np.zeros((1, port.shape[0]), np.int32)).connect(anchor.a_in)
    anchor.run(condition=RunSteps(num_steps=STEPS), run_cfg=Loihi2SimCfg(select_tag="fixed_pt"))
    found = {name: sink.data.get().T.tolist() for name, sink in sinks.items()}
    anchor.stop()
    return found


def hang() -> None:
    """H10: the process fails, Lava waits."""
    spikes = lif(dense(given([[1] * STEPS]).s_out, [[2]]), vth=1.5)
    sink = Sink(shape=(1,), buffer=STEPS)
    spikes.connect(sink.a_in)
    print("running", flush=True)
    sink.run(condition=RunSteps(num_steps=2), run_cfg=Loihi2SimCfg(select_tag="fixed_pt"))
    sink.stop()


def discover() -> None:
    """H17: a process defined in a module beside others."""
    sys.path.insert(0, str(Path(__file__).parent))
    from own_process import Own  # type: ignore[import-not-found]

    Own().run(condition=RunSteps(num_steps=1), run_cfg=Loihi2SimCfg(select_tag="fixed_pt"))


if __name__ == "__main__":
    if sys.argv[1] == "hang":
        hang()
    elif sys.argv[1] == "discover":
        discover()
    else:
        path = Path(sys.argv[1])
        path.write_text(json.dumps(run(demonstrations(json.loads(sys.stdin.read())))))
