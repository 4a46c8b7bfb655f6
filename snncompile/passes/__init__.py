"""The passes: one file each, Graph -> Graph. ``compile.py`` is their order.

A pass returns ``Passed``: the new graph and, in words, what it did or why it declined.
"""

from __future__ import annotations

from dataclasses import dataclass

from snncompile.ir.graph import Graph


@dataclass(frozen=True)
class Passed:
    """The result of a pass. ``notes`` say what it declined and why, or what its reader should know."""

    graph: Graph
    notes: tuple[str, ...] = ()
