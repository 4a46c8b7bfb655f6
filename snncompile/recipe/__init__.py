"""Reads a recipe of ``models/*.toml``: a network in the papers' notation and how it is trained.

``architecture.py`` has the notation, ``network.py`` what holds for all layers, ``neuron.py`` the neurons,
``methods.py`` the table of each training method, ``data.py`` and ``training.py`` the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from snncompile.errors import ReadError, SheetError
from snncompile.recipe.architecture import (
    Convolution,
    FullyConnected,
    Layer,
    Loop,
    Pooling,
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
from snncompile.recipe.network import NetworkOptions, network_ranges, read_options
from snncompile.recipe.neuron import NeuronSettings, neuron_ranges
from snncompile.recipe.training import QuantiseSettings, TrainingSettings, quantise_ranges, training_ranges
from snncompile.sheet import Sheet, shown

__all__ = [
    "DATA_SETS",
    "EVENT_SETS",
    "Convolution",
    "DataSettings",
    "FullyConnected",
    "Layer",
    "Loop",
    "NetworkOptions",
    "NeuronSettings",
    "Pooling",
    "Published",
    "QuantiseSettings",
    "Recipe",
    "Residual",
    "Shape",
    "TrainingSettings",
    "parse",
]


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
    options: NetworkOptions = field(default_factory=NetworkOptions)

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
                **asdict(self.options),
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
    options = [item.name for item in fields(NetworkOptions)]
    sheet.known("network", ("input", "architecture", *options))
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
        options=read_options(sheet),
    )
    _check_ranges(sheet, recipe)
    return recipe


def _input(sheet: Sheet) -> tuple[int, int, int]:
    value = sheet.table("network").get("input")
    if not isinstance(value, list | tuple) or len(value) != 3 or not all(is_size(size) for size in value):
        raise sheet.error("network.input", f"expected [channels, height, width], found {shown(value)}")
    return (value[0], value[1], value[2])


def _check_ranges(sheet: Sheet, recipe: Recipe) -> None:
    """Every number inside its range, else SheetError."""
    rules: list[Rule] = [
        *network_ranges(recipe.options),
        *neuron_ranges(recipe.neuron),
        *ranges(recipe.method, recipe.settings),
        *training_ranges(recipe.training),
        *(quantise_ranges(recipe.quantise) if recipe.quantise else ()),
    ]
    for key, holds, wanted in rules:
        if not holds:
            raise sheet.error(key, "out of range", remedy=f"it must be {wanted}")
