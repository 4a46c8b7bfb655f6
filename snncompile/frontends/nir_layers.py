"""NIR's nodes without state as ops: weights, convolutions, pools, views.

Affine, Linear   ``Dense``        a bias of zeros is none
Conv1d, Conv2d   ``Conv``         'same' as torch pads: the odd cell behind, by a kernel with zeros in front
SumPool2d, AvgPool2d   ``Pool``
Scale            ``Scale``
Flatten          ``Flatten``      dimensions leave out the batch, as NIR means it; a file that counts it is known by
                                  what the next node takes
"""

from __future__ import annotations

from collections.abc import Iterable
from math import prod

import numpy as np

from snncompile.errors import UnsupportedNode
from snncompile.fixed import Reals
from snncompile.frontends.nir_record import Node
from snncompile.ir.ops import Conv, Dense, Flatten, Op, Pool, Scale, Shape, real

MOST_KERNEL = 1 << 24  # numbers
LINEAR = ("Affine", "Linear", "Conv1d", "Conv2d", "SumPool2d", "AvgPool2d", "Scale", "Flatten")


def layer(node: Node, arriving: Shape, wanted: Iterable[Shape], notes: list[str]) -> Op:
    """The op of a node that receives ``arriving``; ``wanted``: the shapes that the next nodes say they take."""
    match node.kind:
        case "Affine" | "Linear":
            return _dense(node, arriving, notes)
        case "Conv1d" | "Conv2d":
            return _conv(node, arriving)
        case "SumPool2d" | "AvgPool2d":
            kernel, stride, padding = (_axes(node, key, 2) for key in ("kernel_size", "stride", "padding"))
            return Pool("sum" if node.kind == "SumPool2d" else "mean", kernel, stride, padding)
        case "Scale":
            return Scale(compact(fitted(node, "scale", arriving), arriving))
        case "Flatten":
            return _flatten(node, arriving, list(wanted), notes)
        case _:
            raise UnsupportedNode("has no meaning here", where=node.where)


def fitted(node: Node, key: str, shape: Shape, default: float | None = None) -> Reals:
    """A parameter that has one value, or one for each channel, or one for each neuron."""
    values = node.reals(key, default)
    plain = values.size == 1 or values.shape == shape
    channels = values.ndim == len(shape) and all(n in (1, m) for n, m in zip(values.shape, shape, strict=True))
    if not plain and not channels:
        raise node.fail(f"its {key} is {list(values.shape)}, what arrives {list(shape)}", "one value a neuron")
    return values.reshape(()) if values.size == 1 else values


def compact(values: Reals, shape: Shape) -> Reals:
    """One number where all are equal, one a channel where that says the same."""
    if values.size and np.all(values == values.flat[0]):
        return np.asarray(values.flat[0])
    if values.ndim == len(shape) and prod(values.shape) == values.shape[0] == shape[0]:
        return values
    full = np.broadcast_to(values, shape)
    by_channel = full.reshape(shape[0], -1)
    if len(shape) > 1 and np.all(by_channel == by_channel[:, :1]):
        return by_channel[:, 0].reshape(-1, *(1,) * (len(shape) - 1))
    return np.array(full)


def takes(node: Node) -> Shape | None:
    """The shape that a node says it takes; None where it takes any."""
    match node.kind:
        case "Affine" | "Linear":
            weight = node.need("weight")
            return weight.shape[-1:] if not isinstance(weight, str) and weight.ndim == 2 else None
        case "Input" | "Output" if node.has("shape"):
            return node.shape()
        case "Scale" | "Threshold" | "I" | "IF" | "LI" | "LIF" | "CubaLI" | "CubaLIF" | "Delay":
            fields = [value.shape for key, value in node.fields.items() if not isinstance(value, str)]
            sizes = [shape for shape in fields if prod(shape) > 1]
            return max(sizes, key=lambda shape: (prod(shape), len(shape))) if sizes else None
        case _:
            return None


def _dense(node: Node, arriving: Shape, notes: list[str]) -> Dense:
    weight = node.reals("weight")
    if weight.ndim != 2 or not weight.size:
        raise UnsupportedNode(
            f"weights {list(weight.shape)} are no matrix", where=node.where, remedy="one node a matrix: [out, in]"
        )
    if prod(arriving) == weight.shape[1] and arriving != weight.shape[1:]:
        if sum(size > 1 for size in arriving) > 1:
            why = "NIR's Affine and Linear take one axis"
            raise node.fail(
                f"weights {list(weight.shape)} do not take {list(arriving)}", why, "put a Flatten before it"
            )
        notes.append(f"{node.where} takes {list(arriving)} as one axis")
    elif prod(arriving) != weight.shape[1]:
        raise node.fail(f"weights {list(weight.shape)} do not take {list(arriving)}")
    return Dense(weight, _bias(node, weight.shape[0]))


def _bias(node: Node, size: int) -> Reals | None:
    if node.kind == "Linear" or not node.has("bias"):
        return None
    bias = node.reals("bias")
    if bias.size not in (1, size):
        raise node.fail(f"its bias is {list(bias.shape)}, its weights give {size} channels")
    return np.broadcast_to(bias.ravel(), (size,)) if np.any(bias) else None


def _conv(node: Node, arriving: Shape) -> Conv:
    axes = 1 if node.kind == "Conv1d" else 2
    weight = node.reals("weight")
    if weight.ndim != axes + 2 or not weight.size:
        raise node.fail(f"weights {list(weight.shape)} are no kernels", f"[out, in / groups, {axes} axes]")
    (groups,) = _one(node, "groups", 1)
    if groups < 1 or weight.shape[0] % groups:
        raise node.fail(f"{groups} groups of {weight.shape[0]} channels")
    stride, dilation = _axes(node, "stride", axes, 1), _axes(node, "dilation", axes, 1)
    if min(stride) < 1 or min(dilation) < 1:
        raise node.fail(f"stride {list(stride)}, dilation {list(dilation)}")
    if len(arriving) != axes + 1 or arriving[0] != weight.shape[1] * groups:
        raise node.fail(f"weights {list(weight.shape)} in {groups} groups do not take {list(arriving)}")
    said = node.integers("input_shape") if node.has("input_shape") else ()
    if said and said != arriving[1:]:
        raise node.fail(f"its input_shape is {list(said)}, what arrives {list(arriving[1:])}")
    padding = node.fields.get("padding", np.zeros(()))
    if not isinstance(padding, str):
        return Conv(weight, _bias(node, len(weight)), stride, _axes(node, "padding", axes, 0), dilation, groups)
    if padding not in ("same", "valid"):
        raise node.fail(f"its padding is {padding[:40]!r}", "numbers, 'same' or 'valid'")
    pad = (0,) * axes
    if padding == "same":
        if max(stride) > 1:
            raise node.fail(
                f"padding 'same' with a stride of {list(stride)}", "torch refuses it, NIR's shapes ignore it"
            )
        weight, pad, dilation = _same(node, weight, dilation)
    return Conv(weight, _bias(node, len(weight)), stride, pad, dilation, groups)


def _same(node: Node, weight: Reals, dilation: Shape) -> tuple[Reals, Shape, Shape]:
    """Kernel, padding and dilation whose output is as large as the input.

    torch pads ``dilation (k - 1)`` cells in all, the odd one behind. Padding on both sides alike is as good where the
    kernel, its gaps filled with zeros, has one zero more in front.
    """
    pad, gaps = [], list(dilation)
    for axis, step in enumerate(dilation, start=2):
        total = step * (weight.shape[axis] - 1)
        if total % 2:
            if weight.size // weight.shape[axis] * (total + 2) > MOST_KERNEL:
                raise node.fail(f"its kernel reaches over {total + 1:,} cells", "an even one under 'same'")
            spread = np.zeros((*weight.shape[:axis], total + 2, *weight.shape[axis + 1 :]))
            spread[(slice(None),) * axis + (slice(1, None, step),)] = weight
            weight, gaps[axis - 2] = spread, 1
        pad.append((total + 1) // 2)
    return weight, tuple(pad), tuple(gaps)


def _flatten(node: Node, arriving: Shape, wanted: list[Shape], notes: list[str]) -> Flatten:
    (start,), (end,) = _one(node, "start_dim", 1), _one(node, "end_dim", -1)
    one_axis = (prod(arriving),)
    shape = _flattened(arriving, start, end)
    counting = _flattened(arriving, start - 1, end - 1 if end > 0 else end) if start > 0 else None
    if counting is not None and (shape is None or (shape not in wanted and counting in wanted)):
        notes.append(f"{node.where}: its start_dim {start} counts the batch")
        shape = counting
    if shape is None:
        raise node.fail(f"start_dim {start} and end_dim {end} are no axes of {list(arriving)}")
    if node.has("input_type"):
        said = node.shape("input_type")
        if said not in (arriving, (1, *arriving)):
            raise node.fail(f"its input_type is {list(said)}, what arrives {list(arriving)}")
    return Flatten() if shape == one_axis else Flatten(shape)


def _flattened(shape: Shape, start: int, end: int) -> Shape | None:
    axes = len(shape)
    first, last = start + axes * (start < 0), end + axes * (end < 0)
    if not 0 <= first <= last < axes:
        return None
    return (*shape[:first], prod(shape[first : last + 1]), *shape[last + 1 :])


def window_sum(op: Op) -> Pool | None:
    """The sum over windows that an op is: a pool, or the Conv1d of ones that stands for one, as NIR has none of one
    axis; None where it is another op.
    """
    match op:
        case Pool(kind="sum"):
            return op
        case Conv(weight=weight, bias=None, dilation=(1,), groups=1) if weight.shape[0] == weight.shape[1]:
            ones = np.eye(weight.shape[0])[..., None]
            plain = max(op.spread, default=1) == 1 and bool(np.all(real(weight) == ones))
            return Pool("sum", weight.shape[2:], op.stride, op.padding) if plain else None
        case _:
            return None


def _axes(node: Node, key: str, axes: int, default: int | None = None) -> Shape:
    """One number an axis; one number means all axes."""
    values = node.integers(key, default)
    if len(values) not in (1, axes):
        raise node.fail(f"its {key} is {list(values)}", f"{axes} axes")
    return values * axes if len(values) == 1 else values


def _one(node: Node, key: str, default: int) -> Shape:
    values = node.integers(key, default)
    if len(values) != 1:
        raise node.fail(f"its {key} is {list(values)}", "one number")
    return values
