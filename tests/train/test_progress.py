"""The progress line: on a terminal only, and gone afterwards."""

from __future__ import annotations

import io

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
