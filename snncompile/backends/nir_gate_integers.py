"""The gate of a ``.nir`` that was written from integers: what it says of them, and files with populations drawn digit
by digit, which only this package reads and which are exact or wrong: they are compared bit by bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snncompile import __version__
from snncompile.backends.nir_gate import ALONE, IMPORTERS, Row, alone, fired, installed, maxima, observed
from snncompile.backends.nir_nodes import Written
from snncompile.backends.nir_profiles import PROFILES, Profile
from snncompile.frontends.nir import read
from snncompile.frontends.nir_record import Node
from snncompile.ir.graph import Graph
from snncompile.run import integer, reference
from snncompile.run.trace import Trace, first_divergence
from snncompile.target import Target

Array = NDArray[Any]


def in_integers(path: Path, stimulus: Mapping[str, Array], target: Target, machine: Trace) -> Row:
    """The file with its metadata, run in integers, against what the machine's did."""
    graph = read(path).graph
    given = {name: np.asarray(array, dtype=np.int64) for name, array in stimulus.items()}
    return _judged(f"snncompile, integers of {target.name}", machine, integer.run(graph, given, target), graph.order)


def bit_by_bit(
    path: Path, made: Written, profile: Profile, lowered: Graph, stimulus: Mapping[str, Array]
) -> Iterator[Row]:
    """The numbers of the file alone against the graph that was written; importers miss primitives of it."""
    graph = observed(lowered)
    found = observed(read(path, alone(profile, made)).graph)
    expected = reference.run(graph, stimulus)
    there = reference.run(found, {made.names[name]: array for name, array in stimulus.items()})
    word = {name: made.names.get(name, name) for name in graph.nodes}
    word |= {f"{name}.value": f"{made.names[name]}.value" for name in made.names}
    sent, over = fired(found, there), {name for name in expected.spikes if word[name] in maxima(found)}
    renamed = Trace(
        {name: sent[word[name]] for name in expected.spikes},
        {name: there.potentials[word[name]] for name in expected.potentials if name not in over},
    )
    expected = Trace(expected.spikes, {name: expected.potentials[name] for name in renamed.potentials})
    yield _judged(ALONE, expected, renamed, graph.order)
    yield from _not_run(made)


def _judged(reader: str, expected: Trace, found: Trace, order: Sequence[str]) -> Row:
    compared = different = 0
    pairs = [(expected.spikes[name], found.spikes[name]) for name in expected.spikes]
    pairs += [(expected.potentials[name], found.potentials[name]) for name in expected.potentials]
    for one, other in pairs:
        compared, different = compared + one.size, different + int(np.sum(one != other))
    note = str(first_divergence(expected, found, order) or "")
    return Row(reader, __version__, "DIFFERENT" if different else "same", compared, different, note)


def _not_run(made: Written) -> Iterator[Row]:
    kinds = {node.kind for node in made.net.nodes.values() if isinstance(node, Node)} - {"Input", "Output"}
    versions = installed()
    for importer in IMPORTERS:
        missing = ", ".join(sorted(kinds - PROFILES[importer].nodes))
        if importer not in versions:
            yield Row(importer, "", "not installed")
        else:
            yield Row(importer, versions[importer], "unreadable", note=f"not run: it reads no {missing}")
