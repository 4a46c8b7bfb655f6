"""Counts of ``snncompile energy`` in the file of ``--resume``: columns, who fired, answers, digests of samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from snncompile.commands.resuming import Kept, digest_of_target
from snncompile.energy import Counts, concatenate, weights_digest
from snncompile.energy_conventions import Options
from snncompile.energy_layers import Layer
from snncompile.run.trace import Array

if TYPE_CHECKING:
    from snncompile.commands.energy import Counted

BYTES = 32  # of a SHA-256


@dataclass(frozen=True)
class Batches:
    """The batches that were counted, and the answers in them after 1, 2, ... steps, where these are judged."""

    counts: tuple[Counts, ...] = ()
    answers: tuple[Array, ...] = ()
    done: int = 0

    def after(self, counts: Counts, answers: Sequence[Array]) -> Batches:
        """With the next batch."""
        return Batches((*self.counts, counts), (*self.answers, *answers), self.done + counts.samples)

    def kept(self) -> Kept:
        """For the file."""
        if not self.counts:
            return Kept(0)
        whole = concatenate(self.counts)
        arrays: dict[str, Array] = {
            "stimulus": np.frombuffer(bytes.fromhex("".join(whole.stimulus)), np.uint8).reshape(-1, BYTES)
        }
        if self.answers:
            arrays["answers"] = np.concatenate(self.answers)
        for at, layer in enumerate(whole.layers):
            arrays |= {f"{at}.{key}": column for key, column in layer.columns.items()}
            if layer.fired is not None:
                arrays |= {f"{at}.ever": layer.fired.ever, f"{at}.always": layer.fired.always}
        return Kept(self.done, {}, arrays)

    @staticmethod
    def of(kept: Kept, like: Counts, judged: bool) -> Batches:
        """What a file keeps; ``like``: counts of any sample of the same run, which tell what else there is to a layer.

        Raises ``ReadError`` where the file is damaged.
        """
        stimulus = kept.array("stimulus", np.uint8, (kept.done, BYTES))
        layers = tuple(_layer(kept, at, layer) for at, layer in enumerate(like.layers))
        answers = (kept.array("answers", np.int64, (kept.done, like.steps)),) if judged else ()
        told = tuple(row.tobytes().hex() for row in stimulus)
        return Batches((replace(like, layers=layers, samples=kept.done, stimulus=told),), answers, kept.done)


def _layer(kept: Kept, at: int, like: Layer) -> Layer:
    columns = {
        key: kept.array(f"{at}.{key}", column.dtype, (kept.done, *column.shape[1:]))
        for key, column in like.columns.items()
    }
    fired = like.fired
    if fired is not None:
        ever, always = (kept.array(f"{at}.{key}", np.uint64, fired.ever.shape) for key in ("ever", "always"))
        fired = replace(fired, ever=ever, always=always)
    return replace(like, columns=columns, fired=fired)


def belongs(what: Counted, options: Options, samples: int, data: str) -> dict[str, Any]:
    """What the counts belong to."""
    graphs = (what.network,) if what.graph is what.network else (what.network, what.graph)
    return {
        "work": "energy",
        "network": " ".join(map(weights_digest, graphs)),
        "target": digest_of_target(what.target) if what.target is not None else "",
        "level": what.level,
        "steps": what.steps,
        "samples": samples,
        "data": data,
        "counting": asdict(options),
    }
