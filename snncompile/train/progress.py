"""A line on stderr that says how far the work is; nothing where stderr is no terminal."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from typing import TextIO


class Progress:
    """Redraws one line, five times a second at most.

    ``later`` more are to come after these ``total``: they count for the time left, not for the bar; ``before`` were
    done before, in no time. Leaving the ``with`` block takes the line away, so that something else can be printed. With
    ``shown`` false nothing is drawn.
    """

    def __init__(
        self, total: int, later: int = 0, stream: TextIO | None = None, before: int = 0, *, shown: bool = True
    ) -> None:
        self.total, self.later, self.stream, self.before = total, later, stream or sys.stderr, before
        self.shown = shown and self.stream is not None and self.stream.isatty()  # None: it was closed before we came
        self.start = self.last = time.monotonic()

    def update(self, done: int, text: str) -> None:
        """``done`` of ``total`` are done; the time left follows from the pace so far."""
        now = time.monotonic()
        if not self.shown or (now - self.last < 0.2 and done < self.total):
            return
        self.last = now
        left = (now - self.start) / max(done - self.before, 1) * (self.total - done + self.later)
        bar = ("#" * (24 * done // self.total)).ljust(24, ".")
        told = f"{done}/{self.total}, {_clock(left)} left"
        line, columns = f"{text}  [{bar}] {told}", self._columns()
        if len(line) >= columns:  # a line that wraps could not be taken away again
            line = f"{text}  {told}"[: columns - 1]
        self._write(f"\r\x1b[2K{line}")

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self.shown:
            self._write("\r\x1b[2K")

    def _columns(self) -> int:
        try:
            return os.get_terminal_size(self.stream.fileno()).columns or 80
        except (OSError, ValueError):  # nobody knows
            return 80

    def _write(self, text: str) -> None:
        with contextlib.suppress(OSError):  # that the terminal was closed is no reason to stop
            self.stream.write(text)
            self.stream.flush()


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"
