"""A line on stderr that says how far the work is; nothing where stderr is no terminal."""

from __future__ import annotations

import sys
import time
from typing import TextIO


class Progress:
    """Redraws one line, five times a second at most.

    ``later`` more are to come after these ``total``: they count for the time left, not for the bar; ``before`` were
    done before, in no time. Leaving the ``with`` block takes the line away, so that something else can be printed.
    """

    def __init__(self, total: int, later: int = 0, stream: TextIO | None = None, before: int = 0) -> None:
        self.total, self.later, self.stream, self.before = total, later, stream or sys.stderr, before
        self.shown = self.stream.isatty()
        self.start = self.last = time.monotonic()

    def update(self, done: int, text: str) -> None:
        """``done`` of ``total`` are done; the time left follows from the pace so far."""
        now = time.monotonic()
        if not self.shown or (now - self.last < 0.2 and done < self.total):
            return
        self.last = now
        left = (now - self.start) / max(done - self.before, 1) * (self.total - done + self.later)
        bar = ("#" * (24 * done // self.total)).ljust(24, ".")
        self.stream.write(f"\r\x1b[2K{text}  [{bar}] {done}/{self.total}, {_clock(left)} left")
        self.stream.flush()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self.shown:
            self.stream.write("\r\x1b[2K")
            self.stream.flush()


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"
