"""Teachers of IDSNN: a larger network of rectifiers whose weights come from a checkpoint of ours, from a torch state
dict, or from ONNX.

The teacher's own recipe (method ``ann``) says which layers it has. A foreign file is read into it: a state dict by its
names where they are ours, else tensor by tensor in its order (torchvision's ResNets are in that of a recipe); an ONNX
file layer by layer, each to the first of the same form that is free, norms that were folded becoming a bias. What has
been read from ONNX must then compute what the file computes.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from snncompile.errors import ReadError, SheetError
from snncompile.frontends.ann import AnnGraph, Layer, read_ann
from snncompile.ir.ops import Conv, Dense, Norm, real
from snncompile.recipe import Recipe
from snncompile.recipe.methods import AnnSettings, IdsnnSettings
from snncompile.train.networks import Network

WRAPPERS = ("state_dict", "model_state", "model", "net", "weights")
"""Names under which programs keep the weights in what they save."""
TOLERANCE = 1e-3
"""How far an ONNX teacher may be from its file, relative to the largest output: float32 against float64."""


def teacher_recipe(recipe: Recipe) -> Recipe:
    """The recipe of a student's teacher. Raises SheetError where it is none, or does not see the same data."""
    settings = recipe.settings
    assert isinstance(settings, IdsnnSettings)
    found = Recipe.load(settings.teacher)
    where = f"{recipe.name}, idsnn.teacher"
    if not isinstance(found.settings, AnnSettings):
        raise SheetError(f"{found.name} is no teacher", where=where, why="a teacher's method is ann")
    for key in ("input", "classes"):
        one, other = getattr(found, key), getattr(recipe, key)
        if one != other:
            raise SheetError(f"its {key} is {one}, the student's {other}", where=where)
    if found.data != recipe.data:
        raise SheetError(f"{found.name} is taught on other data", where=where, remedy="make the tables [data] equal")
    return found


def read_teacher(recipe: Recipe, path: Path) -> Network:
    """The network of a teacher's recipe with the weights of a file, frozen and in eval mode. Raises ReadError."""
    network = Network(recipe)
    if path.suffix == ".onnx":
        _from_onnx(network, read_ann(path), str(path))
    else:
        _from_torch(network, path)
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    return network.eval()


def digest(path: Path) -> str:
    """Which file it was."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


# torch


def _from_torch(network: Network, path: Path) -> None:
    from snncompile.train import checkpoint

    content = checkpoint.loaded(path)
    if not isinstance(content, dict):
        raise ReadError("holds no weights by name", where=str(path), remedy="save a state dict")
    if content.get("format") == checkpoint.FORMAT:
        found = checkpoint.load_checkpoint(path)
        for key in ("method", "layers", "options"):
            if getattr(found.recipe, key) != getattr(network.recipe, key):
                why = f"its {key} {'differ' if key != 'method' else 'differs'} from the teacher's recipe"
                raise ReadError(f"holds {found.recipe.name}, another network", where=str(path), why=why)
        if found.integers is not None:
            raise ReadError("was trained in integers", where=str(path), why="a teacher's weights are reals")
        network.load_state_dict(found.weights)
        return
    network.load_state_dict(_by_name_or_order(network.state_dict(), _tensors(content), str(path)))


def _tensors(content: dict[str, object]) -> dict[str, Tensor]:
    """The weights in what was saved, without the prefix of torch's data parallel modules and without counters."""
    for name in WRAPPERS:
        inner = content.get(name)
        if isinstance(inner, dict):
            content = inner
            break
    return {
        str(name).removeprefix("module."): value
        for name, value in content.items()
        if isinstance(value, Tensor) and not str(name).endswith("num_batches_tracked")
    }


def _by_name_or_order(own: dict[str, Tensor], found: dict[str, Tensor], where: str) -> dict[str, Tensor]:
    wanted = {name: value for name, value in own.items() if not name.endswith("num_batches_tracked")}
    by_name = wanted.keys() == found.keys()
    pairs = [(name, name) for name in wanted] if by_name else list(zip(wanted, found, strict=False))
    if len(found) != len(wanted):
        raise ReadError(f"holds {len(found)} tensors, the teacher's recipe {len(wanted)}", where=where)
    for name, other in pairs:
        if found[other].shape != wanted[name].shape:
            shapes = f"{list(found[other].shape)}, the recipe's {name!r} {list(wanted[name].shape)}"
            raise ReadError(f"its tensor {other!r} is {shapes}", where=where)
        if not torch.isfinite(found[other]).all():
            raise ReadError(f"its tensor {other!r} holds NaN or infinity", where=where)
    return own | {name: found[other] for name, other in pairs}


# ONNX


@torch.no_grad()
def _from_onnx(network: Network, graph: AnnGraph, where: str) -> None:
    free = [layer for layer in graph.layers if isinstance(layer.op, Dense | Conv)]
    readers: dict[str, list[Layer]] = {}
    for layer in graph.layers:
        for source in layer.sources:
            readers.setdefault(source, []).append(layer)
    for step in network.plan:
        module = network.modules_of[step.name]
        if isinstance(module, nn.Conv2d | nn.Linear):
            layer = _take(free, module, step.name, where)
            after = readers.get(layer.name, [])
            norm = after[0].op if len(after) == 1 else None
            _fill(module, _norm_behind(network, step.name), layer, norm if isinstance(norm, Norm) else None, where)
    if free:
        raise ReadError(f"has a layer {free[0].name!r} that the teacher's recipe lacks", where=where)
    _demand_equal(network, graph, where)


def _take(free: list[Layer], module: nn.Conv2d | nn.Linear, name: str, where: str) -> Layer:
    for layer in free:
        assert isinstance(layer.op, Dense | Conv)
        if tuple(layer.op.weight.shape) == tuple(module.weight.shape):
            free.remove(layer)
            return layer
    raise ReadError(f"has no layer left of the form {list(module.weight.shape)} of {name!r}", where=where)


def _norm_behind(network: Network, name: str) -> nn.BatchNorm1d | nn.BatchNorm2d | None:
    for step in network.plan:
        module = network.modules_of[step.name]
        if step.sources == (name,) and isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            return module
    return None


def _fill(
    module: nn.Conv2d | nn.Linear,
    behind: nn.BatchNorm1d | nn.BatchNorm2d | None,
    layer: Layer,
    norm: Norm | None,
    where: str,
) -> None:
    """Weights of one layer; a norm of the file into ours, a bias that has no place into our norm's shift."""
    op = layer.op
    assert isinstance(op, Dense | Conv)
    module.weight.copy_(torch.from_numpy(real(op.weight).copy()))
    bias = torch.zeros(len(module.weight)) if op.bias is None else torch.from_numpy(real(op.bias).copy()).float()
    if module.bias is not None:
        module.bias.copy_(bias)
        bias = torch.zeros_like(bias)
    if behind is None:
        if norm is not None or bias.any():
            what = "a norm" if norm is not None else "a bias"
            raise ReadError(f"has {what} behind {layer.name!r}, the teacher's recipe none", where=where)
        return
    gain, shift, mean, variance = behind.weight, behind.bias, behind.running_mean, behind.running_var
    assert mean is not None
    assert variance is not None
    if norm is None:
        gain.fill_(1.0)
        mean.zero_()
        variance.fill_(1.0 - behind.eps)
        shift.copy_(bias)
        return
    for target, values in ((gain, norm.gain), (shift, norm.shift), (mean, norm.mean), (variance, norm.variance)):
        target.copy_(torch.from_numpy(np.broadcast_to(real(values), tuple(target.shape)).copy()))
    variance.add_(norm.epsilon - behind.eps)
    mean.sub_(bias)


def _demand_equal(network: Network, graph: AnnGraph, where: str) -> None:
    """Raise ReadError where the network does not compute what the file does."""
    x = np.random.default_rng(0).standard_normal((2, *network.recipe.input)).astype(np.float32)
    if tuple(graph.shape) != network.recipe.input:
        raise ReadError(f"takes {list(graph.shape)}, the teacher's recipe {list(network.recipe.input)}", where=where)
    theirs, ours = graph.run(x), network.eval().predict(torch.from_numpy(x)).double().numpy()
    if theirs.shape != ours.shape or np.abs(theirs - ours).max() > TOLERANCE * max(1e-6, np.abs(theirs).max()):
        why = "its layers fit, but they are connected otherwise"
        raise ReadError("computes something else than the teacher's recipe", where=where, why=why)
