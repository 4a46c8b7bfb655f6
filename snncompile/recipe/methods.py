"""The training methods and what each lets a recipe say: the table that bears the method's name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from snncompile.sheet import Sheet

Rule = tuple[str, bool, str]
"""A key, whether its range holds, and the range in words."""


@dataclass(frozen=True)
class TetSettings:
    """TET, Eq. 12: ``(1 - mix) L_TET + mix L_MSE``; ``mix`` is the paper's (and the file's) lambda."""

    steps: int
    mix: float
    phi: float


Method = Literal["tet"]
Settings = TetSettings
METHODS: tuple[Method, ...] = ("tet",)


def read_settings(sheet: Sheet, method: Method) -> Settings:
    """The table of a method. Raises SheetError."""
    sheet.known("tet", ("steps", "lambda", "phi"))
    return TetSettings(sheet.integer("tet.steps"), sheet.number("tet.lambda"), sheet.number("tet.phi"))


def plain(settings: Settings) -> dict[str, object]:
    """The table, as ``read_settings`` reads it."""
    return {"steps": settings.steps, "lambda": settings.mix, "phi": settings.phi}


def ranges(settings: Settings) -> list[Rule]:
    """What the numbers of a method's table must hold."""
    return [
        ("tet.steps", 1 <= settings.steps <= 1024, "from 1 to 1024"),
        ("tet.lambda", 0.0 <= settings.mix <= 1.0, "from 0 to 1"),
    ]
