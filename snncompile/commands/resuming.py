"""``--resume FILE``: what a verb has counted so far is kept in a file, and the same command goes on from it.

The file is an ``.npz`` of plain arrays, not packed and without pickle; ``meta`` (JSON) has the format, what the counts
belong to, how far they reach, and their plain values. It is written beside its place and renamed: now and then, and
where the work is interrupted or fails. Without the option nothing is kept, and an interruption says so.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import threading
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from snncompile import __version__
from snncompile.commands.console import Log, check_place
from snncompile.errors import ReadError
from snncompile.ir.store import UNREADABLE, read_arrays
from snncompile.run.trace import Array
from snncompile.target import Target

FORMAT = "snncompile.resume/1"
EVERY = 30.0  # seconds between two times that the file is written, at least
SHARE = 20  # and so many times what writing it took
REMEDY = "name another file, or remove this one to begin anew"
BELONGS = {
    "work": "other work",
    "snncompile": "another version of snncompile",
    "network": "another network, or to one that was lowered otherwise",
    "target": "another target",
    "level": "another level",
    "device": "another device",
    "steps": "another number of steps",
    "samples": "another number of samples",
    "data": "other data",
    "counting": "another way of counting",
}
"""What counts belong to, and how it is said that it is not this."""


@dataclass(frozen=True)
class Kept:
    """What was counted of the first ``done``: plain values, and arrays by name. ``where``: the file they are from."""

    done: int
    plain: Mapping[str, Any] = field(default_factory=dict)
    arrays: Mapping[str, Array] = field(default_factory=dict)
    where: str = ""

    def array(self, name: str, kind: Any, shape: tuple[int, ...]) -> Array:
        """An array of this type and shape. Raises ``ReadError`` for anything else."""
        found = self.arrays.get(name)
        if found is None or found.dtype != np.dtype(kind) or found.shape != shape:
            told = "nothing" if found is None else f"{found.dtype} {list(found.shape)}"
            self.refuse(f"{name} is {told}, not {np.dtype(kind)} {list(shape)}")
        return found

    def numbers(self, name: str, known: Mapping[str, object]) -> dict[str, int]:
        """A table of counts, each under a name that is ``known``. Raises ``ReadError`` for anything else."""
        found = self.plain.get(name)
        if not isinstance(found, dict) or not found.keys() <= known.keys():
            self.refuse(f"{name} is no table of this network")
        if not all(type(count) is int and count >= 0 for count in found.values()):
            self.refuse(f"{name} holds something that is no count")
        return found

    def refuse(self, why: str) -> NoReturn:
        """Raise ``ReadError``: it is not what was written."""
        raise ReadError("what it keeps is damaged", where=self.where, why=why, remedy=REMEDY)

    def refuse_data(self) -> NoReturn:
        """Raise ``ReadError``: the samples that were counted are not those that are there now."""
        raise _foreign(self.where, "data")


class Resuming:
    """The file of ``--resume`` during one run; ``written``: what else the run writes.

    Raises ``ReadError`` where the file cannot be written or is something else.
    """

    def __init__(self, options: argparse.Namespace, log: Log, written: Iterable[str | None] = ()) -> None:
        self.path, self.log = Path(options.resume) if options.resume else None, log
        self._content: tuple[dict[str, Any], Kept] | None = None
        self._belongs: Mapping[str, Any] = {}
        self._total, self._unit, self._served = 0, "", False
        self._written, self._took, self._saved = time.monotonic(), 0.0, 0
        self._now: Callable[[], Kept] = lambda: Kept(0)
        if self.path is not None:
            check_place(self.path)
            if any(place and Path(place).absolute() == self.path.absolute() for place in written):
                raise ReadError("is the place of a result as well", where=str(self.path), remedy="name another file")
            self._content = _read(self.path)

    @property
    def asked(self) -> bool:
        """Whether the option was given."""
        return self.path is not None

    def begin(self, total: int, unit: str, belongs: Callable[[], Mapping[str, Any]]) -> Kept | None:
        """What the file keeps of this work, None where it is new: ``total`` of a ``unit`` (samples, rungs).

        ``belongs``: values by the keys of ``BELONGS``, digests where they are large; made only where they are needed.
        Raises ``ReadError`` where the file belongs to anything else.
        """
        self._total, self._unit = total, unit
        if self.path is None:
            return None
        self._belongs = {"snncompile": __version__, **belongs()}
        if self._content is None:
            return None
        told, kept = self._content
        if other := next((key for key in BELONGS if told.get(key) != self._belongs.get(key)), ""):
            raise _foreign(kept.where, other)
        if kept.done > total:
            kept.refuse(f"{kept.done} of {total} {unit}")
        self._saved = kept.done
        self.log(f"{kept.done:,} of {total:,} {unit} are in {self.path} already")
        return kept

    @contextmanager
    def keeping(self, now: Callable[[], Kept]) -> Iterator[None]:
        """Keep ``now()`` in ``counted``, at the end of the block, and where it is interrupted or fails, which is told.

        ``now`` must be whole at any moment: one record that is replaced, never one that is changed.
        """
        self._now, self._written = now, time.monotonic()
        try:
            yield
            self._keep()  # until the result is out
        except BaseException as error:
            self._left(isinstance(error, KeyboardInterrupt))
            raise

    def counted(self) -> None:
        """More was counted: write the file, where the last time is long enough ago."""
        if self.asked and time.monotonic() - self._written >= max(EVERY, SHARE * self._took):
            self._save(self._now())

    def finish(self) -> None:
        """The result is out: the file has served."""
        self._served = True
        if self.path is not None:
            self.path.unlink(missing_ok=True)

    def _left(self, interrupted: bool) -> None:
        kept = self._now()
        told = f"{kept.done:,} of {self._total:,} {self._unit}"
        if not self.asked:
            if interrupted:
                left = f"{self._total - kept.done:,} are left"
                self.log(f"{told} were done, {left}; a run begins at the first, with --resume FILE it goes on")
            return
        with suppress(KeyboardInterrupt):  # a second one, which waited for the file
            self._keep()
        if 0 < kept.done == self._saved and not self._served:
            self.log(f"{told} are kept in {self.path}; the same command goes on from there")

    def _keep(self) -> None:
        """Write the file, where it is asked for and says less than was counted."""
        if self.asked and not self._served and (kept := self._now()).done > self._saved:
            self._save(kept)

    def _save(self, kept: Kept) -> None:
        """Write the file. Where that fails the work goes on, for it is worth more than what is kept of it."""
        assert self.path is not None
        start = time.monotonic()
        meta = {"format": FORMAT, "belongs": self._belongs, "done": kept.done, "plain": kept.plain}
        beside = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        with _no_interrupts():
            try:
                with beside.open("wb") as file:
                    content = dict(kept.arrays)
                    np.savez(file, allow_pickle=False, meta=np.array(json.dumps(meta, allow_nan=False)), **content)
                os.replace(beside, self.path)
                self._saved = kept.done
            except OSError as error:
                self.log(f"{self.path} cannot be written: {error.strerror or error}")
            finally:
                beside.unlink(missing_ok=True)
                self._written = time.monotonic()
                self._took = self._written - start


def digest_of_target(target: Target) -> str:
    """The SHA-256 of a target's sheet."""
    from snncompile.backends.bundle import digest

    return digest(target.sheet.path)


def _foreign(where: str, key: str) -> ReadError:
    return ReadError(f"belongs to {BELONGS[key]}", where=where, remedy=REMEDY)


def _read(path: Path) -> tuple[dict[str, Any], Kept] | None:
    """What a file says it belongs to, and what it keeps; None where there is no file. Raises ``ReadError``."""
    where, why = str(path), ""
    if not path.exists():
        return None
    try:
        if not path.is_file():
            raise ValueError("it is no file")
        with zipfile.ZipFile(path) as archive:  # so that nothing is larger than the file itself
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                raise ValueError("it is packed")
        arrays = read_arrays(path)
        meta = json.loads(str(arrays.pop("meta")))
        if not isinstance(meta, dict) or meta.get("format") != FORMAT:
            raise ValueError(f"its format is not {FORMAT}")
        done, plain, belongs = (meta.get(key) for key in ("done", "plain", "belongs"))
        if type(done) is int and done > 0 and isinstance(plain, dict) and isinstance(belongs, dict):
            return belongs, Kept(done, plain, arrays, where)
        why = "it does not say what it keeps"
    except (*UNREADABLE, KeyError, MemoryError) as error:
        why = str(error) or type(error).__name__
    raise ReadError("is no file that --resume keeps, or is damaged", where=where, why=why, remedy=REMEDY)


@contextmanager
def _no_interrupts() -> Iterator[None]:
    """Ctrl-C and a request to end wait for the block, then raise ``KeyboardInterrupt``."""
    waiting: list[int] = []
    here = threading.current_thread() is threading.main_thread()
    numbers = [number for number in (signal.SIGINT, signal.SIGTERM) if here and callable(signal.getsignal(number))]
    before = {number: signal.signal(number, lambda number, frame: waiting.append(number)) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if waiting:
        raise KeyboardInterrupt
