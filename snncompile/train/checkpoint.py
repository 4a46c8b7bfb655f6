"""Checkpoints: dicts of tensors and plain values, loaded with ``weights_only=True``, so that loading runs no code."""

from __future__ import annotations

import io
import os
import pickle
import platform
import re
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
import torch
from torch import Tensor

from snncompile.errors import ReadError
from snncompile.recipe import Recipe
from snncompile.sheet import shown
from snncompile.train.data import Split
from snncompile.train.integer_network import IntegerNetwork
from snncompile.train.integers import Integers
from snncompile.train.networks import Network

FORMAT = "snncompile-checkpoint"
RESUME_FORMAT = "snncompile-resume"
VERSION = 1
_TABLES = ("recipe", "weights", "versions", "metrics", "sample", "data")


@dataclass(frozen=True)
class Teacher:
    """The network that another one learned from: its recipe's name, and the SHA-256 of its weights' file."""

    name: str
    sha256: str

    @classmethod
    def of(cls, metrics: Mapping[str, object], where: str) -> Teacher | None:
        """The teacher that a record of a training names. Raises ReadError where it is damaged."""
        name, sha256 = (metrics.get(key) for key in ("teacher", "teacher_sha256"))
        if name is None and sha256 is None:
            return None
        if not isinstance(name, str) or not isinstance(sha256, str) or not re.fullmatch("[0-9a-f]{64}", sha256):
            raise ReadError("does not say who taught it", where=where, why="table metrics", remedy="train again")
        return cls(name, sha256)

    def to_dict(self) -> dict[str, str]:
        """As a manifest says it."""
        return {"name": self.name, "sha256": self.sha256}

    def told(self) -> dict[str, str]:
        """As a record of a training says it."""
        return {"teacher": self.name, "teacher_sha256": self.sha256}


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A trained network: its recipe and weights, how it got there, and 128 of its training inputs.

    ``sample`` holds ``x`` float32 [n, ...] in the form the network sees and ``y`` int64 [n]; ``data`` says ``name``,
    ``classes``, ``input_shape``, ``static``; ``metrics`` says ``epoch``, ``epochs``, ``finished`` and what was
    measured.
    """

    path: Path
    recipe: Recipe
    weights: dict[str, Tensor]
    versions: dict[str, str]
    metrics: dict[str, Any]
    sample: dict[str, Tensor]
    data: dict[str, Any]
    integers: Integers | None = None
    """Where the network was trained in a target's integers; ``weights`` are empty then."""

    @property
    def teacher(self) -> Teacher | None:
        """Whose answers and weights it learned from (IDSNN). Raises ReadError."""
        return Teacher.of(self.metrics, str(self.path))

    def network(self) -> Network | IntegerNetwork:
        """The network with these weights, in eval mode."""
        if self.integers is not None:
            return self.integers.network(self.recipe).eval()
        network = Network(self.recipe)
        network.load_state_dict(self.weights)
        return network.eval()


def save_checkpoint(path: Path, network: Network, metrics: Mapping[str, object], train: Split) -> None:
    """Writes a checkpoint beside its place and renames it, so that a crash leaves the old one whole."""
    _save(path, network.recipe, metrics, train, {"weights": network.state_dict()})


def save_integers(path: Path, recipe: Recipe, trained: Integers, metrics: Mapping[str, object], train: Split) -> None:
    """The same for a network in a target's integers."""
    _save(path, recipe, metrics, train, {"weights": {}, "integers": trained.to_plain(recipe)})


def _save(
    path: Path, recipe: Recipe, metrics: Mapping[str, object], train: Split, network: Mapping[str, object]
) -> None:
    chosen = np.sort(np.random.default_rng(recipe.training.seed).permutation(len(train))[:128])
    assert train.y is not None, "training data have labels"
    write(
        path,
        {
            "format": FORMAT,
            "version": VERSION,
            "recipe": recipe.to_dict(),
            "versions": versions(),
            "metrics": dict(metrics),
            "sample": {
                "x": torch.from_numpy(train.x[chosen]).to(torch.float32),
                "y": torch.from_numpy(train.y[chosen]),
            },
            "data": {
                "name": train.name,
                "classes": list(train.classes),
                "input_shape": list(recipe.input),
                "static": train.static,
                "digest": train.digest,
            },
            **network,
        },
    )


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Reads and checks a checkpoint. Raises ReadError: unreadable, truncated, foreign, hostile, or wrong weights."""
    content = read(Path(path), FORMAT)
    where = str(path)
    for name in _TABLES:
        if not isinstance(content.get(name), dict):
            raise ReadError(f"lacks the table {name!r}", where=where, remedy="train again")
    recipe = Recipe.from_dict(content["recipe"], where)
    integers = None
    if "integers" in content:
        integers = Integers.from_plain(content["integers"], where)
        integers.check_fits(recipe, where)
    else:
        check_weights(where, recipe, content["weights"])
    sample = content["sample"]
    x, y = sample.get("x"), sample.get("y")
    whole = is_plain(x) and is_plain(y) and x.dim() and y.dim() and len(x) == len(y)
    if not whole or not torch.isfinite(x).all():
        raise ReadError("its sample is damaged", where=where, why="x and y are tensors of one length")
    tables = {name: content[name] for name in _TABLES if name != "recipe"}
    return Checkpoint(path=Path(path), recipe=recipe, **tables, integers=integers)


def check_weights(where: str, recipe: Recipe, weights: Mapping[str, object]) -> None:
    """Refuses weights that are missing, surplus, of another shape or type, or not finite, naming the tensor."""
    with torch.device("meta"):
        expected = Network(recipe).state_dict()
    for name in sorted(expected.keys() | weights.keys(), key=str):
        wanted, found = expected.get(name), weights.get(name)
        if wanted is None:
            raise ReadError(f"has weights {name!r} that its recipe has no place for", where=where)
        if not is_plain(found):
            raise ReadError(f"lacks the weights {name!r}", where=where)
        if found.shape != wanted.shape or found.dtype != wanted.dtype:
            shown = f"{found.dtype} {list(found.shape)}".removeprefix("torch.")
            why = f"its recipe says {wanted.dtype} {list(wanted.shape)}".replace("torch.", "")
            raise ReadError(f"the weights {name!r} are {shown}", where=where, why=why)
        if not torch.isfinite(found).all():
            raise ReadError(
                f"the weights {name!r} hold NaN or infinity", where=where, remedy="train again, more slowly"
            )


def is_plain(value: object) -> TypeGuard[Tensor]:
    """Whether a value is a tensor that holds its numbers: sparse ones and those without content have other rules."""
    return isinstance(value, Tensor) and value.layout is torch.strided and not value.is_meta


def read(path: Path, form: str) -> dict[str, Any]:
    """The content of a file written by ``write`` whose format is ``form``. Raises ReadError."""
    where = str(path)
    content = loaded(path)
    _check_bytes(path)
    found = content.get("format") if isinstance(content, dict) else None
    if not isinstance(content, dict) or not isinstance(found, str) or found != form:
        raise ReadError(f"is no {form}", where=where, why=f"format is {shown(found)}")
    version = content.get("version")
    if type(version) is not int or version != VERSION:
        raise ReadError(f"has version {shown(version)}", where=where, why=f"this program reads {VERSION}")
    return content


def _check_bytes(path: Path) -> None:
    """Raise ReadError where a file's bytes are not those that were written: torch does not look at its checksums."""
    try:
        with zipfile.ZipFile(path) as archive:
            wrong = archive.testzip()
        why = "" if wrong is None else f"the checksum of {wrong} is not that of its bytes"
    except (OSError, ValueError, RuntimeError, zlib.error, zipfile.BadZipFile) as error:
        why = str(error).strip() or type(error).__name__
    if why:
        raise ReadError("is damaged", where=str(path), why=why, remedy="copy it again, or train again")


def loaded(path: Path) -> Any:
    """What a file of torch holds, as long as that is tensors and plain values. Raises ReadError."""
    where = str(path)
    if not path.is_file():
        raise ReadError("no such file", where=where)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:  # torch's own words advise to load it with less care
        why = "it holds more than tensors and plain values, or is damaged; reading that could run code"
        remedy = "train it again with snncompile train"
        raise ReadError("cannot be loaded as tensors and plain values", where=where, why=why, remedy=remedy) from error
    except Exception as error:  # damaged zip archives and hostile pickles raise a dozen different kinds
        why = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        remedy = "it may be truncated, or not from snncompile train"
        raise ReadError("cannot be loaded as tensors and plain values", where=where, why=why, remedy=remedy) from error


def write(path: Path, content: Mapping[str, object]) -> None:
    """``torch.save`` beside its place, then renamed; tensors lie on the CPU, so that any machine can read them.

    Made in memory: torch has no words for a full disk, and puts the name of a file that it writes itself inside it.
    """
    beside, made = path.with_name(f".{path.name}.{os.getpid()}"), io.BytesIO()
    torch.save(_on_cpu(dict(content)), made)
    try:
        beside.write_bytes(made.getbuffer())
        os.replace(beside, path)
    except OSError as error:
        raise ReadError("cannot be written", where=str(path), why=error.strerror or str(error)) from error
    finally:
        beside.unlink(missing_ok=True)


def _on_cpu(value: Any) -> Any:
    match value:
        case Tensor():
            return value.detach().cpu().contiguous()
        case dict():
            return {key: _on_cpu(item) for key, item in value.items()}
        case list():
            return [_on_cpu(item) for item in value]
        case tuple():
            return tuple(_on_cpu(item) for item in value)
        case _:
            return value


def versions() -> dict[str, str]:
    """What made the checkpoint."""
    try:
        own = metadata.version("snncompile")
    except metadata.PackageNotFoundError:
        own = "not installed"
    found = {"snncompile": own, "torch": str(torch.__version__), "numpy": np.__version__}
    return found | {"python": platform.python_version()}
