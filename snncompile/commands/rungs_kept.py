"""Rungs of a ladder as plain values: in the JSON of ``verify``, in a manifest, and in the file of ``--resume``."""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING, Any

from snncompile.commands.resuming import Kept, digest_of_target
from snncompile.energy import weights_digest
from snncompile.rungs import Rung

if TYPE_CHECKING:
    from snncompile.commands.imported import Data
    from snncompile.compile import Compiled

TEXTS, COUNTS = ("level", "run_by", "against", "verdict", "note"), ("rung", "compared", "different")


def plain(rung: Rung) -> dict[str, Any]:
    """A rung that was climbed."""
    return {
        "rung": rung.number,
        "level": rung.level,
        "run_by": rung.run_by,
        "against": rung.against,
        "verdict": rung.verdict,
        "compared": rung.compared,
        "different": rung.different,
        "note": rung.note,
        "flips": [str(flip) for flip in rung.flips],
        "distance": dict(rung.distance or {}),
        **({"rate_error": dict(rung.rate_error)} if rung.rate_error is not None else {}),
    }


def kept_rungs(kept: Kept) -> tuple[dict[str, Any], ...]:
    """The rungs in a file of ``--resume``, all of which hold. Raises ``ReadError`` where they are damaged."""
    rungs = kept.plain.get("rungs")
    if not isinstance(rungs, list) or len(rungs) != kept.done or not all(map(_is_rung, rungs)):
        kept.refuse("its rungs are none that were climbed")
    return tuple(rungs)


def _is_rung(found: Any) -> bool:
    if not isinstance(found, dict) or found.keys() - {"rate_error"} != {*TEXTS, *COUNTS, "flips", "distance"}:
        return False
    tables = [found["distance"], found.get("rate_error", {})]
    return (
        all(isinstance(found[key], str) for key in TEXTS)
        and all(type(found[key]) is int and found[key] >= 0 for key in COUNTS)
        and found["verdict"] != "DIFFERENT"
        and isinstance(found["flips"], list)
        and all(isinstance(flip, str) for flip in found["flips"])
        and all(isinstance(table, dict) for table in tables)
        and all(type(share) is float and isfinite(share) for table in tables for share in table.values())
    )


def belongs(compiled: Compiled, data: Data, device: str) -> dict[str, Any]:
    """What the rungs of a ladder belong to; ``device``: what runs the last one, empty where it is left out."""
    return {
        "work": "ladder",
        "network": " ".join(weights_digest(compiled.levels[level]) for level in ("read", "placed")),
        "target": digest_of_target(compiled.target),
        "device": device,
        "steps": compiled.steps,
        "samples": len(data.x),
        "data": data.digest,
    }
