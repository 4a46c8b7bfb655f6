"""Curves for TensorBoard, through tensorboardX where that is installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from snncompile.errors import ToolError


class Curves:
    """One point an epoch of every number in its record; nothing without a folder."""

    def __init__(self, writer: Any = None) -> None:
        self.writer = writer

    @classmethod
    def at(cls, folder: Path | None) -> Curves:
        """Curves written to a folder. Raises ToolError where tensorboardX is not installed."""
        if folder is None:
            return cls()
        try:
            from tensorboardX import SummaryWriter
        except ImportError as error:
            remedy = "pip install 'snncompile[curves]', or leave --tensorboard out"
            raise ToolError("tensorboardX is not installed", where=str(folder), remedy=remedy) from error
        return cls(SummaryWriter(str(folder)))

    def add(self, record: dict[str, Any]) -> None:
        """The record of an epoch."""
        if self.writer is None:
            return
        for name, value in record.items():
            if isinstance(value, int | float) and not isinstance(value, bool) and name not in ("epoch", "epochs"):
                self.writer.add_scalar(name, value, record["epoch"])
        self.writer.flush()

    def __enter__(self) -> Curves:
        return self

    def __exit__(self, *_: object) -> None:
        if self.writer is not None:
            self.writer.close()
