"""A network in a target's integers, as a checkpoint holds it: the graph, and the sheet that it was trained for."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from snncompile.errors import GraphError, LoweringError, ReadError, SheetError
from snncompile.ir.check import check
from snncompile.ir.graph import Graph
from snncompile.ir.ops import Input, Readout
from snncompile.ir.store import Program, from_json, to_json
from snncompile.recipe import Recipe
from snncompile.run.trace import Array
from snncompile.target import Target
from snncompile.train.integer_network import IntegerNetwork

ARITHMETIC = (*("weight", "sum_most", "current", "potential", "decay", "threshold", "bias", "neuron", "spike"),)
"""The parts of a target that decide what a network of integers computes; cores and delays do not."""


@dataclass(frozen=True, eq=False)
class Integers:
    """A graph of level ``fixed`` and the target whose integers it is made of."""

    graph: Graph
    target: Target
    sheet: str
    """The target's sheet, word for word."""
    teacher: Mapping[str, str] = field(default_factory=dict)
    """Who taught the network in reals that it came from: what its record said; empty where nobody did."""

    @classmethod
    def of(cls, graph: Graph, target: Target) -> Integers:
        """A graph for a target of the catalogue or of a file."""
        return cls(graph, target, target.sheet.path.read_text(encoding="utf-8"))

    def network(self, recipe: Recipe) -> IntegerNetwork:
        """As a torch network, with the surrogate of the recipe."""
        neuron = recipe.neuron
        return IntegerNetwork(
            self.graph, self.target, recipe.steps, width=neuron.surrogate_width, detach=neuron.detach_reset
        )

    def demand(self, target: Target, where: str) -> None:
        """Raise ``LoweringError`` where a target computes otherwise than the one that the network was trained for."""
        other = [key for key in ARITHMETIC if getattr(self.target, key) != getattr(target, key)]
        if other:
            key = other[0]
            raise LoweringError(
                f"was trained in the integers of {self.target.name}, which {target.name} does not compute with",
                where=where,
                why=f"{key} is {_told(getattr(self.target, key))} there and {_told(getattr(target, key))} here",
                remedy=f"--target {self.target.name} is what it was trained for; for {target.name}, train it with "
                f"--quantise {target.name}, or lower the checkpoint in reals that it came from",
            )

    def check_fits(self, recipe: Recipe, where: str) -> None:
        """Raise ``ReadError`` where the graph is no network of its recipe, or none of its target's integers."""
        try:
            check(self.graph, "fixed", self.target)
        except GraphError as error:
            raise ReadError("its graph is none of its target's integers", where=where, why=str(error)) from error
        inputs = [op.shape for op in self.graph.nodes.values() if isinstance(op, Input)]
        outputs = [op.shape for op in self.graph.nodes.values() if isinstance(op, Readout)]
        if inputs != [recipe.input] or outputs != [(recipe.classes,)]:
            why = f"inputs {inputs}, read-outs {outputs}; the recipe says {recipe.input} and {recipe.classes}"
            raise ReadError("its graph is not the recipe's network", where=where, why=why)

    def to_plain(self, recipe: Recipe) -> dict[str, object]:
        """Plain values and tensors: the program, its arrays, and the sheet word for word with its SHA-256."""
        plain, arrays = to_json(Program(self.graph, "fixed", self.target.name, recipe.steps))
        return {
            "target": self.target.name,
            "sheet": self.sheet,
            "sheet_sha256": hashlib.sha256(self.sheet.encode()).hexdigest(),
            "program": plain,
            "arrays": {name: torch.from_numpy(_small(array)) for name, array in arrays.items()},
            "teacher": dict(self.teacher),
        }

    @classmethod
    def from_plain(cls, plain: Any, where: str) -> Integers:
        """What ``to_plain`` made. Raises ``ReadError`` where it is something else."""
        if not isinstance(plain, dict):
            raise ReadError("holds no network of integers", where=where)
        sheet, program, arrays = (plain.get(key) for key in ("sheet", "program", "arrays"))
        named = isinstance(arrays, dict) and all(isinstance(array, Tensor) for array in arrays.values())
        if not isinstance(sheet, str) or not isinstance(program, dict) or not isinstance(arrays, dict) or not named:
            raise ReadError("its network of integers is damaged", where=where, remedy="train again")
        try:
            program = json.loads(json.dumps(program, allow_nan=False))  # plain values, as in a file of ours
        except (TypeError, ValueError, RecursionError) as error:
            why = f"its program holds more than plain values: {error}"
            raise ReadError("its network of integers is damaged", where=where, why=why, remedy="train again") from error
        try:
            read = from_json(program, {str(name): array.numpy() for name, array in arrays.items()}, where)
            teacher = plain.get("teacher", {})
            return cls(read.graph, _target(sheet, where), sheet, teacher if isinstance(teacher, dict) else {})
        except (GraphError, SheetError) as error:
            raise ReadError("its network of integers is damaged", where=where, why=str(error)) from error


def _target(text: str, where: str) -> Target:
    """The target of a sheet that travelled with a checkpoint."""
    with tempfile.TemporaryDirectory(prefix="snncompile-") as folder:
        path = Path(folder) / "sheet.toml"
        path.write_text(text, encoding="utf-8")
        target = Target.load(str(path))
    return replace(target, sheet=replace(target.sheet, label=f"the sheet in {where}"))


def _small(array: Array) -> Array:
    """A copy in the smallest integers of 16 bits or more that hold it; reals as they are."""
    if array.dtype.kind != "i" or not array.size:
        return array.copy()
    largest = max(abs(int(array.min())), abs(int(array.max())))
    return array.astype(np.int16 if largest < 2**15 else np.int32 if largest < 2**31 else np.int64)


def _told(value: object) -> str:
    """``Weight(least=-256, ...)`` as ``least=-256, ...``."""
    text = str(value)
    return text.partition("(")[2].removesuffix(")") or text
