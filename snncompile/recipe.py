"""Reads a recipe of ``models/*.toml``: a network in the papers' notation and how it is trained.

The notation, layers joined by ``-``::

    20C5            convolution, 20 channels, 5x5 kernel, padding 2 ("same"), bias; then batch norm and neurons
    64C3S2          the same with stride 2
    P2, AP2         average pooling 2x2 of the spikes, without neurons of its own: both spellings mean this for TET
    Res(16C3-16C3)  spiking residual block: conv, norm, neurons, conv, norm, plus the block's input (through a 1x1
                    convolution and norm where channels or stride change), then neurons on the sum
    Sew(16C3-16C3)  spike-element-wise block (ADD): the same, but neurons follow each norm, that of the 1x1 convolution
                    too, and the block gives the sum of spikes
    200FC           fully connected, bias; then batch norm and neurons
    10FC            the last one is the output: no norm, no neurons, averaged over the steps

``bias = false`` in the table network leaves the biases of convolutions out, ``dense_norm = false`` the norms of FC.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import isfinite
from pathlib import Path
from typing import Literal

from snncompile.errors import ReadError, SheetError
from snncompile.sheet import Sheet

Shape = tuple[int, ...]

MOST_FEATURES = 1 << 20
"""Widths beyond this are taken for a slip of the pen (or a hostile file) before anything is allocated."""

MOST_KERNEL = 99

DATA_SETS = ("digits", "mnist", "fashion-mnist", "cifar10", "cifar10-subset", "nmnist", "cifar10-dvs")
EVENT_SETS = ("nmnist", "cifar10-dvs")
"""Data sets that come as event frames, one frame a step; the others are images shown at every step."""


@dataclass(frozen=True)
class Convolution:
    """``20C5S2``; ``shape`` is what comes out, [channels, height, width]."""

    channels: int
    kernel: int
    stride: int
    shape: Shape


@dataclass(frozen=True)
class AveragePool:
    """``P2`` or ``AP2``: mean over cells of ``kernel`` x ``kernel``, which do not overlap."""

    kernel: int
    shape: Shape


@dataclass(frozen=True)
class FullyConnected:
    """``200FC``; ``shape`` is [features]."""

    features: int
    shape: Shape


@dataclass(frozen=True)
class Residual:
    """``Res(16C3-16C3)``, or ``Sew(16C3-16C3)``, which adds spikes instead of currents."""

    first: Convolution
    second: Convolution
    shape: Shape
    adds: Literal["currents", "spikes"] = "currents"


Layer = Convolution | AveragePool | FullyConnected | Residual


@dataclass(frozen=True)
class NeuronSettings:
    """``v = decay w + x``, fires where ``v > threshold`` (or ``>=``), then ``w = 0``.

    ``surrogate_width`` is gamma of TET, Eq. 5. ``detach_reset``: whether the gradient ignores the reset.
    """

    decay: float = 0.5
    threshold: float = 1.0
    fires: Literal[">", ">="] = ">"
    reset: Literal["zero"] = "zero"
    surrogate: Literal["triangle"] = "triangle"
    surrogate_width: float = 1.0
    detach_reset: bool = False


@dataclass(frozen=True)
class TetSettings:
    """TET, Eq. 12: ``(1 - mix) L_TET + mix L_MSE``; ``mix`` is the paper's (and the file's) lambda."""

    steps: int
    mix: float
    phi: float


@dataclass(frozen=True)
class TrainingSettings:
    """Optimisation. ``evaluate_every`` epochs (and after the last) the test split is measured."""

    epochs: int
    batch: int
    learning_rate: float
    seed: int
    optimiser: Literal["adam"] = "adam"
    schedule: Literal["cosine", "constant"] = "cosine"
    evaluate_every: int = 1


@dataclass(frozen=True)
class DataSettings:
    """Which data, and how the network sees them.

    Images are scaled to [0, 1], then ``(x - mean) / std`` per channel where given. Event frames hold counts, clipped
    at ``most`` (1: spikes; 0 for images).
    """

    name: str
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    most: int = 0

    @property
    def static(self) -> bool:
        """Whether one image is shown at every step."""
        return self.name not in EVENT_SETS


@dataclass(frozen=True)
class QuantiseSettings:
    """Training in a target's integers, after the training in reals: ``epochs`` of ``samples`` each (0: all).

    ``learning_rate`` is in shares of the machine's largest weight; ``target`` a name of the catalogue or a sheet.
    """

    target: str
    epochs: int = 1
    learning_rate: float = 0.0001
    samples: int = 0


@dataclass(frozen=True)
class Published:
    """The figure somebody published, which this recipe can be held against; None where nobody published one."""

    accuracy: float | None
    data: str
    source: str
    note: str = ""


@dataclass(frozen=True)
class Recipe:
    """A network and its training; ``layers`` is the parsed ``architecture``."""

    name: str
    summary: str
    method: Literal["tet"]
    source: str
    input: tuple[int, int, int]
    architecture: str
    layers: tuple[Layer, ...]
    neuron: NeuronSettings
    tet: TetSettings
    training: TrainingSettings
    data: DataSettings
    published: Published | None = None
    quantise: QuantiseSettings | None = None
    bias: bool = True
    dense_norm: bool = True

    @classmethod
    def load(cls, name_or_path: str) -> Recipe:
        """Reads a recipe of the catalogue, or any ``.toml`` file. Raises SheetError naming file, line and key."""
        return _read(Sheet.load("models", name_or_path))

    @classmethod
    def from_dict(cls, tables: Mapping[str, object], where: str) -> Recipe:
        """Reads the tables back that ``to_dict`` gave. Raises ReadError naming ``where`` and the key."""
        try:
            return _read(Sheet(path=Path(where), label=f"{where}, recipe", content=tables, lines={}))
        except SheetError as error:
            raise ReadError(error.what, where=error.where, why=error.why, remedy=error.remedy) from error

    def to_dict(self) -> dict[str, object]:
        """The tables of the file, as plain values."""
        data = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self.data).items()}
        tables: dict[str, object] = {
            "recipe": {"name": self.name, "summary": self.summary, "method": self.method, "source": self.source},
            "network": {
                "input": list(self.input),
                "architecture": self.architecture,
                "bias": self.bias,
                "dense_norm": self.dense_norm,
            },
            "neuron": asdict(self.neuron),
            "tet": {"steps": self.tet.steps, "lambda": self.tet.mix, "phi": self.tet.phi},
            "training": asdict(self.training),
            "data": {key: value for key, value in data.items() if value != []},
        }
        if self.quantise:
            tables["quantise"] = asdict(self.quantise)
        if self.published:
            unavailable = {"status": "unavailable", "source": self.published.source}
            accuracy = unavailable if self.published.accuracy is None else self.published.accuracy
            tables["published"] = asdict(self.published) | {"accuracy": accuracy}
        return tables

    @property
    def classes(self) -> int:
        """How many outputs the network has."""
        return self.layers[-1].shape[0]


# The file


def _read(sheet: Sheet) -> Recipe:
    sheet.known("", ("recipe", "network", "neuron", "tet", "training", "data", "published", "quantise"))
    sheet.known("recipe", ("name", "summary", "method", "source"))
    sheet.known("network", ("input", "architecture", "bias", "dense_norm"))
    sheet.known("tet", ("steps", "lambda", "phi"))
    method = sheet.text("recipe.method")
    if method != "tet":
        raise sheet.error("recipe.method", f"{method!r} is not a method here", remedy='the method is "tet"')
    shape = _input(sheet)
    architecture = sheet.text("network.architecture")
    try:
        layers = parse(architecture, shape)
    except _Slip as slip:
        raise sheet.error("network.architecture", slip.what, why=slip.place, remedy=slip.remedy) from slip
    recipe = Recipe(
        name=sheet.text("recipe.name"),
        summary=sheet.text("recipe.summary"),
        method="tet",
        source=sheet.text("recipe.source"),
        input=shape,
        architecture=architecture,
        layers=layers,
        neuron=sheet.record("neuron", NeuronSettings) if sheet.has("neuron") else NeuronSettings(),
        tet=TetSettings(sheet.integer("tet.steps"), sheet.number("tet.lambda"), sheet.number("tet.phi")),
        training=sheet.record("training", TrainingSettings),
        data=_data(sheet, shape),
        published=sheet.record("published", Published) if sheet.has("published") else None,
        quantise=sheet.record("quantise", QuantiseSettings) if sheet.has("quantise") else None,
        bias=sheet.flag("network.bias") if sheet.has("network.bias") else True,
        dense_norm=sheet.flag("network.dense_norm") if sheet.has("network.dense_norm") else True,
    )
    _check_ranges(sheet, recipe)
    return recipe


def _input(sheet: Sheet) -> tuple[int, int, int]:
    value = sheet.table("network").get("input")
    if not isinstance(value, list | tuple) or len(value) != 3 or not all(_is_size(size) for size in value):
        raise sheet.error("network.input", f"expected [channels, height, width], found {value!r}")
    return (value[0], value[1], value[2])


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MOST_FEATURES


def _data(sheet: Sheet, shape: Shape) -> DataSettings:
    sheet.known("data", ("name", "mean", "std", "most"))
    name = sheet.text("data.name")
    if name not in DATA_SETS:
        close = difflib.get_close_matches(name, DATA_SETS, n=1)
        remedy = f"did you mean {close[0]}?" if close else f"one of {', '.join(DATA_SETS)}"
        raise sheet.error("data.name", f"no data set {name!r}", remedy=remedy)
    most = sheet.integer("data.most") if sheet.has("data.most") else int(name in EVENT_SETS)
    if (name in EVENT_SETS) != (1 <= most <= 255):
        raise sheet.error("data.most", f"{most} is out of range", why="1 to 255 for event frames, 0 for images")
    mean, std = (_per_channel(sheet, f"data.{key}", shape[0]) for key in ("mean", "std"))
    if len(mean) != len(std) or min(std, default=1.0) <= 0.0:
        raise sheet.error("data.std", "mean and std go together, and std is positive")
    if mean and most:
        raise sheet.error("data.mean", "event counts are not normalised", why="they would stop being events")
    return DataSettings(name, mean, std, most)


def _per_channel(sheet: Sheet, key: str, channels: int) -> tuple[float, ...]:
    value = sheet.table("data").get(key.rpartition(".")[2], [])
    numbers = isinstance(value, list | tuple) and all(
        isinstance(item, int | float) and not isinstance(item, bool) and isfinite(item) for item in value
    )
    if not isinstance(value, list | tuple) or not numbers or len(value) not in (0, channels):
        raise sheet.error(key, f"expected {channels} numbers, one a channel, found {value!r}")
    return tuple(float(item) for item in value)


def _check_ranges(sheet: Sheet, recipe: Recipe) -> None:
    """Every number inside its range, else SheetError."""
    neuron, tet, training = recipe.neuron, recipe.tet, recipe.training
    rules = [
        ("neuron.decay", 0.0 <= neuron.decay <= 1.0, "from 0 (no memory) to 1 (no leak)"),
        ("neuron.threshold", neuron.threshold > 0.0, "positive"),
        ("neuron.surrogate_width", neuron.surrogate_width > 0.0, "positive"),
        ("tet.steps", 1 <= tet.steps <= 1024, "from 1 to 1024"),
        ("tet.lambda", 0.0 <= tet.mix <= 1.0, "from 0 to 1"),
        ("training.epochs", training.epochs >= 1, "at least 1"),
        ("training.batch", training.batch >= 2, "at least 2: batch norm needs two samples"),
        ("training.learning_rate", 0.0 < training.learning_rate <= 100.0, "positive, and 100 at most"),
        ("training.seed", 0 <= training.seed < 2**32, "from 0 to 2^32 - 1"),
        ("training.evaluate_every", training.evaluate_every >= 1, "at least 1"),
    ]
    if (quantise := recipe.quantise) is not None:
        rules += [
            ("quantise.epochs", quantise.epochs >= 1, "at least 1"),
            ("quantise.learning_rate", 0.0 < quantise.learning_rate <= 1.0, "positive, and 1 at most"),
            ("quantise.samples", quantise.samples >= 0, "a number of samples, or 0 for all"),
        ]
    for key, holds, wanted in rules:
        if not holds:
            raise sheet.error(key, "out of range", remedy=f"it must be {wanted}")


# The notation

_LAYER = re.compile(r"(?P<channels>\d+)C(?P<kernel>\d+)(?:S(?P<stride>\d+))?|A?P(?P<pool>\d+)|(?P<features>\d+)FC")
_ITEM = re.compile(r"(?:Res|Sew)\([^()]*\)|[^-]*")


class _Slip(ValueError):
    """A fault in the architecture, and where it is."""

    def __init__(self, what: str, text: str, start: int, item: str, remedy: str = "") -> None:
        super().__init__(what)
        self.what, self.remedy = what, remedy
        self.place = f"at character {start + 1}: {text[:start]}>>{item}<<{text[start + len(item) :]}"


def parse(text: str, shape: Shape) -> tuple[Layer, ...]:
    """The layers of an architecture on an input [channels, height, width]; each knows the shape it gives."""
    layers: list[Layer] = []
    start = 0
    while start <= len(text):
        match = _ITEM.match(text, start)
        item = match[0] if match else ""
        layers.append(_layer(text, start, item, shape))
        shape = layers[-1].shape
        start += len(item)
        if start < len(text) and text[start] != "-":
            raise _Slip("expected '-' between two layers", text, start, text[start])
        start += 1
    if not isinstance(layers[-1], FullyConnected):
        raise _Slip("the last layer must be fully connected: the output", text, len(text), "", "end it with 10FC")
    return tuple(layers)


def _layer(text: str, start: int, item: str, shape: Shape) -> Layer:
    if item.startswith(("Res(", "Sew(")) and item.endswith(")"):
        return _residual(text, start, item, shape)
    match = _LAYER.fullmatch(item)
    if not match:
        remedy = "layers are 20C5, 64C3S2, P2, AP2, 200FC, Res(16C3-16C3) and Sew(16C3-16C3), joined by '-'"
        raise _Slip(f"{item!r} is not a layer", text, start, item, remedy)
    numbers = {name: int(digits[:9]) for name, digits in match.groupdict().items() if digits}
    if not all(_is_size(number) for number in numbers.values()):
        raise _Slip(f"the numbers of a layer go from 1 to {MOST_FEATURES}", text, start, item)
    if "features" in numbers:
        return FullyConnected(numbers["features"], (numbers["features"],))
    if len(shape) == 1:
        raise _Slip("only FC may follow FC", text, start, item, "what comes out of FC has no height and width")
    if "pool" in numbers:
        size = numbers["pool"]
        if size > min(shape[1:]):
            raise _Slip(f"pools {size}x{size} out of {shape[1]}x{shape[2]}", text, start, item)
        return AveragePool(size, (shape[0], shape[1] // size, shape[2] // size))
    if numbers["kernel"] % 2 == 0 or numbers["kernel"] > MOST_KERNEL:
        remedy = f"kernels are odd, so that padding k//2 keeps the size, and at most {MOST_KERNEL}"
        raise _Slip(f"kernel {numbers['kernel']}", text, start, item, remedy)
    stride = numbers.get("stride", 1)
    extent = [(size - 1) // stride + 1 for size in shape[1:]]
    return Convolution(numbers["channels"], numbers["kernel"], stride, (numbers["channels"], *extent))


def _residual(text: str, start: int, item: str, shape: Shape) -> Residual:
    at = start + len("Res(")
    convolutions: list[Convolution] = []
    for part in item[len("Res(") : -1].split("-"):
        layer = _layer(text, at, part, shape)
        if not isinstance(layer, Convolution):
            raise _Slip("a residual block holds convolutions", text, at, part, "as in Res(16C3-16C3)")
        convolutions.append(layer)
        shape = layer.shape
        at += len(part) + 1
    if len(convolutions) != 2:
        raise _Slip("a residual block holds two convolutions", text, start, item, "as in Res(16C3-16C3)")
    first, second = convolutions
    return Residual(first, second, shape, "spikes" if item.startswith("Sew(") else "currents")
