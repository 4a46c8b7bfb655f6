"""Reads a recipe of ``models/*.toml``: a network in the papers' notation and how it is trained.

``architecture.py`` has the notation, ``methods.py`` the table of each training method, ``data.py`` and ``training.py``
the rest. ``bias = false`` in the table network leaves the biases of convolutions out, ``dense_norm = false`` the norms
of FC.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from snncompile.errors import ReadError, SheetError
from snncompile.recipe.architecture import (
    AveragePool,
    Convolution,
    FullyConnected,
    Layer,
    Residual,
    Shape,
    Slip,
    is_size,
    parse,
)
from snncompile.recipe.data import DATA_SETS, EVENT_SETS, DataSettings, read_data
from snncompile.recipe.methods import (
    METHODS,
    TABLES,
    Method,
    Rule,
    Settings,
    deployed_steps,
    ranges,
    read_settings,
    tables,
)
from snncompile.recipe.training import QuantiseSettings, TrainingSettings, quantise_ranges, training_ranges
from snncompile.sheet import Sheet

__all__ = [
    "DATA_SETS",
    "EVENT_SETS",
    "AveragePool",
    "Convolution",
    "DataSettings",
    "FullyConnected",
    "Layer",
    "NeuronSettings",
    "Published",
    "QuantiseSettings",
    "Recipe",
    "Residual",
    "Shape",
    "TrainingSettings",
    "parse",
]


@dataclass(frozen=True)
class NeuronSettings:
    """``v = decay w + gain x``, fires where ``v > threshold`` (or ``>=``), then ``w = 0`` or ``w = v - threshold``.

    ``surrogate_width`` is gamma of TET, Eq. 5 (0.5 and ``rectangle``: IDSNN; 1 and ``atan``: alpha = 2 of SEW).
    ``detach_reset``: whether the gradient ignores the reset. ``gain``: ``one``, or ``one-minus-decay`` (the LIF of ASF's
    slides). ``pool_threshold``: of the neurons that ASF puts behind an average pool.
    """

    decay: float = 0.5
    threshold: float = 1.0
    fires: Literal[">", ">="] = ">"
    reset: Literal["zero", "subtract"] = "zero"
    surrogate: Literal["triangle", "rectangle", "atan"] = "triangle"
    surrogate_width: float = 1.0
    detach_reset: bool = False
    gain: Literal["one", "one-minus-decay"] = "one"
    pool_threshold: float = 0.75


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
    method: Method
    source: str
    input: tuple[int, int, int]
    architecture: str
    layers: tuple[Layer, ...]
    neuron: NeuronSettings
    settings: Settings
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
        content: dict[str, object] = {
            "recipe": {"name": self.name, "summary": self.summary, "method": self.method, "source": self.source},
            "network": {
                "input": list(self.input),
                "architecture": self.architecture,
                "bias": self.bias,
                "dense_norm": self.dense_norm,
            },
            "neuron": asdict(self.neuron),
            **tables(self.method, self.settings),
            "training": asdict(self.training),
            "data": {key: value for key, value in data.items() if value != []},
        }
        if self.quantise:
            content["quantise"] = asdict(self.quantise)
        if self.published:
            unavailable = {"status": "unavailable", "source": self.published.source}
            accuracy = unavailable if self.published.accuracy is None else self.published.accuracy
            content["published"] = asdict(self.published) | {"accuracy": accuracy}
        return content

    @property
    def steps(self) -> int:
        """How many time steps a sample has in the trained network."""
        return deployed_steps(self.settings)

    @property
    def classes(self) -> int:
        """How many outputs the network has."""
        return self.layers[-1].shape[0]


# The file


def _read(sheet: Sheet) -> Recipe:
    sheet.known("", ("recipe", "network", "neuron", *TABLES, "training", "data", "published", "quantise"))
    sheet.known("recipe", ("name", "summary", "method", "source"))
    sheet.known("network", ("input", "architecture", "bias", "dense_norm"))
    named = sheet.text("recipe.method")
    method = next((one for one in METHODS if one == named), None)
    if method is None:
        raise sheet.error("recipe.method", f"{named!r} is not a method here", remedy=f"one of {', '.join(METHODS)}")
    shape = _input(sheet)
    architecture = sheet.text("network.architecture")
    try:
        layers = parse(architecture, shape)
    except Slip as slip:
        raise sheet.error("network.architecture", slip.what, why=slip.place, remedy=slip.remedy) from slip
    recipe = Recipe(
        name=sheet.text("recipe.name"),
        summary=sheet.text("recipe.summary"),
        method=method,
        source=sheet.text("recipe.source"),
        input=shape,
        architecture=architecture,
        layers=layers,
        neuron=sheet.record("neuron", NeuronSettings) if sheet.has("neuron") else NeuronSettings(),
        settings=read_settings(sheet, method),
        training=sheet.record("training", TrainingSettings),
        data=read_data(sheet, shape),
        published=sheet.record("published", Published) if sheet.has("published") else None,
        quantise=sheet.record("quantise", QuantiseSettings) if sheet.has("quantise") else None,
        bias=sheet.flag("network.bias") if sheet.has("network.bias") else True,
        dense_norm=sheet.flag("network.dense_norm") if sheet.has("network.dense_norm") else True,
    )
    _check_ranges(sheet, recipe)
    return recipe


def _input(sheet: Sheet) -> tuple[int, int, int]:
    value = sheet.table("network").get("input")
    if not isinstance(value, list | tuple) or len(value) != 3 or not all(is_size(size) for size in value):
        raise sheet.error("network.input", f"expected [channels, height, width], found {value!r}")
    return (value[0], value[1], value[2])


def _check_ranges(sheet: Sheet, recipe: Recipe) -> None:
    """Every number inside its range, else SheetError."""
    neuron = recipe.neuron
    rules: list[Rule] = [
        ("neuron.decay", 0.0 <= neuron.decay <= 1.0, "from 0 (no memory) to 1 (no leak)"),
        ("neuron.threshold", neuron.threshold > 0.0, "positive"),
        ("neuron.surrogate_width", neuron.surrogate_width > 0.0, "positive"),
        ("neuron.pool_threshold", neuron.pool_threshold > 0.0, "positive"),
        *ranges(recipe.method, recipe.settings),
        *training_ranges(recipe.training),
        *(quantise_ranges(recipe.quantise) if recipe.quantise else ()),
    ]
    for key, holds, wanted in rules:
        if not holds:
            raise sheet.error(key, "out of range", remedy=f"it must be {wanted}")
