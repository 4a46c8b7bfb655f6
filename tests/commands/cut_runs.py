"""Runs of verbs in small batches that are cut between two of them, for the tests of ``--resume``."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from snncompile.commands import energy as energy_verb
from snncompile.commands.resuming import Resuming
from snncompile.run import shards

BATCH = 40
ENERGY = ("energy", "--data", "test:130")
SIMULATE = ("simulate", "--data", "test:130")
VERIFY = ("verify", "--data", "test:8")
EXPORT = ("export", "--data", "test:8")
BATCHES = 4  # of 130 samples
RUNGS = 7


def small_batches(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(shards, "BATCH", BATCH)
    patch.setattr(energy_verb, "BATCH", BATCH)


@contextlib.contextmanager
def cut(after: int) -> Iterator[None]:
    """What runs inside is interrupted when so many batches or rungs are counted."""
    counted, calls = Resuming.counted, [0]

    def interrupted(self: Resuming) -> None:
        calls[0] += 1
        counted(self)
        if calls[0] == after:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Resuming, "counted", interrupted)
        yield
