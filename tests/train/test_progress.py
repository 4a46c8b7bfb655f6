"""The progress line: on a terminal only, and gone afterwards."""

from __future__ import annotations

import io
import os
import sys

import pytest

from snncompile.train.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_on_a_terminal() -> None:
    stream = Terminal()
    with Progress(4, later=4, stream=stream) as progress:
        progress.start -= 60
        progress.last -= 60
        progress.update(2, "epoch 1/2")
    # two of eight took 60 s: six more take 180 s
    assert stream.getvalue() == "\r\x1b[2Kepoch 1/2  [############............] 2/4, 3:00 left\r\x1b[2K"


def test_what_was_done_before_took_no_time() -> None:
    stream = Terminal()
    with Progress(40, stream=stream, before=20) as progress:
        progress.start -= 60
        progress.last -= 60
        progress.update(30, "count")
    # ten took 60 s, and so will ten more
    assert "[##################......] 30/40, 1:00 left" in stream.getvalue()


def test_nothing_elsewhere() -> None:
    stream = io.StringIO()
    with Progress(4, stream=stream) as progress:
        progress.update(4, "epoch 1/2")
    assert stream.getvalue() == ""


@pytest.mark.parametrize("columns", [20, 40, 60, 200])
def test_a_narrow_terminal_gets_one_line_that_fits(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What wraps cannot be taken away again: every redrawing would leave a line behind."""
    monkeypatch.setattr(Progress, "_columns", lambda _: columns)
    stream = Terminal()
    with Progress(100, stream=stream) as progress:
        progress.start -= 60
        progress.last -= 60
        progress.update(50, "epoch 1/300, loss 1.2345")
    (line,) = (part for part in stream.getvalue().split("\r\x1b[2K") if part)
    assert len(line) < columns
    assert ("[####" in line) == (columns >= 67)
    assert ("50/100, 1:00 left" in line) == (columns >= 44)


def test_the_width_is_that_of_its_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    above, below = os.openpty()
    with os.fdopen(above), os.fdopen(below, "w") as stream:
        monkeypatch.setattr(os, "get_terminal_size", lambda number: os.terminal_size((33, 9)) if number == below else 0)
        assert Progress(1, stream=stream)._columns() == 33
    assert Progress(1, stream=Terminal())._columns() == 80


def test_nothing_where_nobody_asked_or_stderr_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Terminal()
    with Progress(4, stream=stream, shown=False) as progress:
        progress.update(4, "epoch 1/2")
    assert stream.getvalue() == ""
    monkeypatch.setattr(sys, "stderr", None)
    with Progress(4) as progress:
        progress.update(4, "epoch 1/2")


def test_a_terminal_that_was_closed_stops_nothing() -> None:
    class Gone(Terminal):
        def write(self, text: str) -> int:
            raise OSError(5, "Input/output error")

    with Progress(4, stream=Gone()) as progress:
        progress.update(4, "epoch 1/2")
