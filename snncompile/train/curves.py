"""Curves for TensorBoard, through tensorboardX where that is installed."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path
from typing import Any

from snncompile.errors import ReadError, ToolError


class Curves:
    """One point an epoch of every number in its record; nothing without a folder."""

    def __init__(self, writer: Any = None, folder: Path | None = None) -> None:
        self.writer, self.folder = writer, folder
        self.failed = False
        self._before = threading.excepthook

    @classmethod
    def at(cls, folder: Path | None) -> Curves:
        """Curves written to a folder. Raises ToolError where tensorboardX is not installed, ReadError where nothing can
        be written."""
        if folder is None:
            return cls()
        try:
            from tensorboardX import SummaryWriter
        except ImportError as error:
            remedy = "pip install 'snncompile[curves]', or leave --tensorboard out"
            raise ToolError("tensorboardX is not installed", where=str(folder), remedy=remedy) from error
        try:
            return cls(SummaryWriter(str(folder)), folder)
        except OSError as error:
            raise _unwritten(folder, error) from error

    def add(self, record: dict[str, Any]) -> None:
        """The record of an epoch. Raises ReadError where it cannot be written."""
        if self.writer is None or self.folder is None:
            return
        for name, value in record.items():
            if isinstance(value, int | float) and not isinstance(value, bool) and name not in ("epoch", "epochs"):
                self.writer.add_scalar(name, value, record["epoch"])
        try:
            self.writer.flush()
        except OSError as error:
            self.failed = True
            raise _unwritten(self.folder, error) from error

    def __enter__(self) -> Curves:
        if self.writer is not None:
            threading.excepthook = self._heard
        return self

    def __exit__(self, *_: object) -> None:
        if self.writer is not None:
            # the curves may lack their last points; the training and its checkpoint do not
            with contextlib.suppress(OSError):
                self.writer.close()
                if not self.failed:  # else its thread may still come to its end, and fail again
                    threading.excepthook = self._before

    def _heard(self, failed: threading.ExceptHookArgs) -> None:
        """The thread that writes fails as ``flush`` does, which tells it: once is enough."""
        if isinstance(failed.exc_value, OSError):
            self.failed = True
        else:
            self._before(failed)


def _unwritten(folder: Path, error: OSError) -> ReadError:
    why, remedy = error.strerror or str(error), "name another folder, or leave --tensorboard out"
    return ReadError("curves cannot be written", where=str(folder), why=why, remedy=remedy)
