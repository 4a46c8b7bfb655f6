"""``network.net``: the HDF5 file of lava-dl, for chains of convolutions, dense and recurrent layers.

The format (``lava-nc/lava-dl``: ``netx/hdf5.py``, ``slayer/block/base.py``) is a numbered list of layers ``layer/<i>``,
each a synapse with its neurons; a dense layer may hear itself one step later. It has no residual additions, no
one-to-one synapses, no feedback over several layers, and no word on time.
What its reader must be told besides, ``loading`` writes as a call: the neurons of layer k have to be cleared at phase
k + 1, which netx does only with ``reset_offset=1`` where the file starts with synapses, as ours do.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snncompile.fixed import Integers, as_fixed
from snncompile.ir.connections import Connection, connections, populations, synapse_of
from snncompile.ir.graph import Graph
from snncompile.ir.ops import By, Conv, Dense, Input, Neuron, Param, Readout, Shape, real
from snncompile.ir.signals import Spike, grid

Layer = Mapping[str, Any]
NEVER = 131071
"""The threshold of a read-out: the largest that Loihi holds."""


class _NoSuchLayer(Exception):
    """The format cannot say this; the message is the reason."""


def export(graph: Graph, path: Path, steps: int) -> str | None:
    """Write a placed graph as ``path``; None, or the reason why the format cannot hold it (nothing is written then).

    The file holds per layer ``type``, ``shape``, ``weight`` (float32 of even integers), ``bias`` (weight units) and the
    neurons: ``iDecay`` = 4096 alpha, ``vDecay`` = 4096 beta, ``vThMant``. A read-out is a layer of neurons that never
    fire, read by their potential; ``addends`` says of how many of them each answer is the sum (netx does not read it).
    ``steps`` is the length of a sample.
    """
    import h5py

    try:
        layers = _layers(graph)
    except _NoSuchLayer as reason:
        return str(reason)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with h5py.File(beside, "w") as file:
            for index, layer in enumerate(layers):
                for key, value in layer.items():
                    file[f"layer/{index}/{key}"] = value
            file["simulation/Ts"] = 1
            file["simulation/tSample"] = steps
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
    return None


def loading(graph: Graph, steps: int) -> str:
    """The call with which netx reads the file so that it means the same: shapes and phases are not in it."""
    first = next(op for op in graph.nodes.values() if isinstance(op, Input))
    _, least, most = grid(first.signal)
    graded = "" if (least, most) == (0, 1) else f", input_message_bits={most.bit_length() + 1}"
    each = "" if streams(graph) else ", a new one for every sample"
    for op in graph.nodes.values():
        if isinstance(op, Readout) and op.addends > 1:
            each += f"; each of the {op.shape[0] // op.addends} answers is a sum of {op.addends} outputs"
            each += f", {op.shape[0] // op.addends} apart"
    return f'netx.hdf5.Network(net_config="network.net", reset_interval={steps}, reset_offset=1{graded})' + each


def streams(graph: Graph) -> bool:
    """Whether samples may follow each other in one run: nothing is heard again, which no reset clears."""
    return all(connection.source != connection.target for connection in connections(graph))


def _layers(graph: Graph) -> list[Layer]:
    chain, again = _chain(graph)
    source = graph.nodes[chain[0].source]
    assert isinstance(source, Input)
    starts_flat = isinstance(synapse_of(graph, chain[0]), Dense)
    shape: Shape = (int(np.prod(source.shape)),) if starts_flat else _image(source.shape)
    graded = {} if isinstance(source.signal, Spike) else {"messageBits": grid(source.signal)[2].bit_length() + 1}
    layers: list[Layer] = [{"type": _text("input"), "shape": np.array(shape), **graded}]
    for connection in chain:
        target = graph.nodes[connection.target]
        assert isinstance(target, Neuron | Readout)
        match synapse_of(graph, connection):
            case Conv() as conv:
                if connection.target in again:
                    raise _NoSuchLayer(f"{connection.target}: feeds itself, which only dense layers do in the format")
                layers.append(_convolution(connection, conv, shape, target))
                shape = _image(target.shape)
            case Dense() as dense:
                if len(shape) > 1:
                    layers.append({"type": _text("flatten"), "shape": np.array([np.prod(shape)])})
                layers.append(_dense(connection, dense, target, again.get(connection.target)))
                shape = (int(np.prod(target.shape)),)
            case _:
                raise _NoSuchLayer(f"{connection.synapse}: the format has no one-to-one synapses")
    return layers


def _chain(graph: Graph) -> tuple[list[Connection], dict[str, Dense]]:
    """The connections from the input to the end, each starting where the one before ends; and by which weights a
    population hears itself.
    """
    waiting: dict[str, Connection] = {}
    again: dict[str, Dense] = {}
    for connection in connections(graph):
        synapse = synapse_of(graph, connection)
        if connection.source == connection.target and connection.source not in again and isinstance(synapse, Dense):
            if connection.delay != 1:
                raise _NoSuchLayer(f"{connection.synapse}: {connection.delay} steps of feedback, netx has one")
            again[connection.source] = synapse
            continue
        if connection.source in waiting:
            raise _NoSuchLayer(f"{connection.source}: feeds more than one layer, the format is a chain")
        waiting[connection.source] = connection
    inputs = graph.names(Input)
    if len(inputs) != 1:
        raise _NoSuchLayer(f"{len(inputs)} inputs, the format has one")
    chain: list[Connection] = []
    at = inputs[0]
    while at in waiting:
        connection = waiting.pop(at)
        if connection.delay != 1:
            raise _NoSuchLayer(f"{connection.synapse}: a programmed delay, which netx realises for no convolution")
        chain.append(connection)
        at = connection.target
    left = set(populations(graph)) - {inputs[0]} - {connection.target for connection in chain}
    if waiting or left or not chain:
        raise _NoSuchLayer(f"{', '.join(sorted(left or waiting))}: not on the one chain that the format is")
    for index, connection in enumerate(chain):
        phase = getattr(graph.nodes[connection.target], "phase", None)
        if phase != index + 1:
            raise _NoSuchLayer(f"{connection.target}: has phase {phase}, netx counts {index + 1}")
    return chain, again


def _image(shape: Shape) -> Shape:
    """[C, H, W]; a signal of one spatial axis is one row."""
    return (shape[0], 1, shape[1]) if len(shape) == 2 else shape


def _convolution(connection: Connection, conv: Conv, source: Shape, target: Neuron | Readout) -> Layer:
    if max(conv.spread, default=1) > 1:
        raise _NoSuchLayer(f"{connection.synapse}: the format has no transposed convolution")
    if len(source) != 3:
        raise _NoSuchLayer(f"{connection.synapse}: a convolution after a dense layer has no image to read")
    weight = _whole(connection.synapse, conv.weight)
    one_axis = weight.ndim == 3
    weight = weight[:, :, None, :] if one_axis else weight
    lead = {"stride": (1,), "padding": (0,), "dilation": (1,)} if one_axis else {}
    geometry = {key: np.array((*lead.get(key, ()), *getattr(conv, key))) for key in ("stride", "padding", "dilation")}
    shape = _image(target.shape)
    if len(shape) != 3:
        raise _NoSuchLayer(f"{connection.target}: a convolution into neurons without a map")
    return {
        "type": _text("conv"),
        "shape": np.array(shape),
        "inChannels": source[0],
        "outChannels": shape[0],
        "kernelSize": np.array(weight.shape[2:]),
        **geometry,
        "groups": conv.groups,
        "weight": weight.astype(np.float32),
        **_bias(connection.target, target, per_channel=True),
        **_neuron(connection.target, target),
    }


def _dense(connection: Connection, dense: Dense, target: Neuron | Readout, again: Dense | None) -> Layer:
    weight = _whole(connection.synapse, dense.weight)
    heard = np.zeros((0, 0)) if again is None else _whole(connection.target, again.weight)
    every = np.concatenate([weight.ravel(), heard.ravel()])  # netx scales the two as one
    low, high = int(every.min()), int(every.max())
    if low == high == 0:
        raise _NoSuchLayer(f"{connection.synapse}: all weights are zero, which netx cannot scale")
    if high <= 0 and -low & (-low - 1) == 0:
        raise _NoSuchLayer(f"{connection.synapse}: no weight above zero and a least of {low}, which netx clips")
    return {
        "type": _text("dense" if again is None else "dense_rec"),
        "shape": np.array([weight.shape[0]]),
        "inFeatures": weight.shape[1],
        "outFeatures": weight.shape[0],
        "weight": weight.astype(np.float32),
        **({} if again is None else {"weight_rec": heard.astype(np.float32)}),
        **_bias(connection.target, target, per_channel=False),
        **_neuron(connection.target, target),
        **({"addends": target.addends} if isinstance(target, Readout) and target.addends > 1 else {}),
    }


def _neuron(name: str, target: Neuron | Readout) -> Layer:
    """``neuron/*``: du = iDecay - 1, dv = vDecay, and an exponent of 6 for biases are netx's; a read-out keeps all."""
    current, leak, threshold = 4096, 0, NEVER
    if isinstance(target, Readout):
        leak = int(_whole(name, np.asarray(1.0 - target.decay), -12))
    if isinstance(target, Neuron):
        if isinstance(target.reset, By) or np.any(real(target.reset.value)) or np.any(real(target.initial)):
            raise _NoSuchLayer(
                f"{name}: is reset otherwise than to zero, or starts elsewhere, which the format cannot say"
            )
        current = int(_whole(name, target.alpha, -12))
        leak = int(_whole(name, target.beta, -12))
        threshold = int(_whole(name, target.threshold))
    return {
        "neuron/type": _text("CUBA"),
        "neuron/iDecay": current,
        "neuron/vDecay": leak,
        "neuron/vThMant": threshold,
        "neuron/refDelay": 1,
        "neuron/gradedSpike": False,
    }


def _bias(name: str, target: Neuron | Readout, *, per_channel: bool) -> Layer:
    """``bias`` [out], in weight units; one value a neuron lies (x, y, channel), as everything in netx."""
    bias = _whole(name, target.bias)
    if not bias.any():
        return {}
    if int(np.abs(bias).max()) > 4095:
        raise _NoSuchLayer(f"{name}: biases beyond 4095 need an exponent, which the format has not")
    if per_channel and bias.size == 1:
        return {"bias": np.full(target.shape[0], bias.item(), np.float32)}
    if per_channel and bias.size == bias.shape[0] == target.shape[0]:
        return {"bias": bias.ravel().astype(np.float32)}
    full = np.broadcast_to(bias, target.shape).astype(np.float32)
    return {"bias": full.reshape(_image(target.shape)).transpose() if per_channel else full.ravel()}


def _whole(name: str, param: Param, exponent: int = 0) -> Integers:
    try:
        return as_fixed(real(param), exponent).mantissa
    except ValueError:
        raise _NoSuchLayer(f"{name}: a value that is no multiple of 2**{exponent}, the grid of the format") from None


def _text(word: str) -> NDArray[Any]:
    return np.array([word], dtype="S10")
