"""A graph of level ``read`` in the form that a profile's readers share: the order of the rewritings.

The result is again a graph of the same meaning, one op a NIR node (a soft reset is three); only float64 rounding may
differ where a factor or a norm went into weights. ``nir_nodes.py`` writes it down.
"""

from __future__ import annotations

from snncompile.backends.nir_linear import (
    plain_linear,
    single_edges,
    single_output,
    weights_in_float32,
)
from snncompile.backends.nir_loops import place_delays
from snncompile.backends.nir_maxima import without_maxima
from snncompile.backends.nir_neurons import plain_neuron, plain_readout
from snncompile.backends.nir_profiles import Profile
from snncompile.backends.nir_spread import spread
from snncompile.errors import LoweringError, NotRepresentable
from snncompile.ir.check import check
from snncompile.ir.graph import Graph
from snncompile.ir.ops import Input, Neuron, Norm, Output, Readout, Resonator, SigmaDelta, kind
from snncompile.passes.fold_norm import fold_norm
from snncompile.passes.scales import absorb_scales


def without_norms(graph: Graph) -> Graph:
    """The graph with its batch norms in the weights. Raises ``LoweringError`` where one stays."""
    check(graph, "read")
    passed = fold_norm(graph)
    left = passed.graph.names(Norm)
    if left:
        raise LoweringError("cannot be folded", where=graph.label(left[0]), why="; ".join(passed.notes))
    return passed.graph


def lower(graph: Graph, profile: Profile, *, soft: bool = False) -> Graph:
    """The graph for a profile; ``soft`` admits soft resets as a loop of nodes.

    Raises ``NotRepresentable`` naming the node, what it has, and why the readers cannot have it.
    """
    graph = without_norms(graph)
    _check_ends(graph, profile)
    for name in graph.names(Neuron):
        graph = plain_neuron(graph, name, profile, soft=soft)
    for name in graph.names(Readout):
        graph = plain_readout(graph, name, profile)
    graph = without_maxima(single_edges(graph), profile)
    if "Scale" not in profile.nodes:
        graph = absorb_scales(graph)
    if profile.single:
        graph = single_output(graph)
    graph = plain_linear(spread(graph, profile), profile.nodes)
    graph = place_delays(graph, profile)
    if profile.dtype == "float32":
        graph = weights_in_float32(graph)
    check(graph, "read")
    return graph


def _check_ends(graph: Graph, profile: Profile) -> None:
    for name, op in graph.nodes.items():
        if isinstance(op, SigmaDelta | Resonator):
            raise NotRepresentable("has no node of NIR", where=graph.label(name), why=f"NIR knows no {kind(op)}")
    inputs, outputs = graph.names(Input), graph.names(Output)
    if not inputs:
        raise NotRepresentable("has no input", where="nir", why="NIR makes one of whatever nothing arrives at")
    if profile.single and (len(inputs) > 1 or len(outputs) > 1):
        why = f"the readers of profile {profile.name} take one of each"
        raise NotRepresentable(f"has {len(inputs)} inputs and {len(outputs)} outputs", where="nir", why=why)
