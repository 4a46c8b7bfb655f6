"""A network in a machine's integers as reals of the same meaning, where NIR can say it.

NIR's neurons compute in reals. A machine's are the same as long as nothing is rounded and nothing leaves a register: a
decay of all or nothing, and worst sums over a sample inside the range. Everything else is refused by name.
"""

from __future__ import annotations

import numpy as np

from snncompile.errors import GraphError, NotRepresentable
from snncompile.ir.graph import Graph
from snncompile.ir.ops import Neuron, Readout, real
from snncompile.passes.quantise import Layer, unchanged
from snncompile.target import Target


def check_exact(graph: Graph, target: Target, steps: int) -> None:
    """Raise ``NotRepresentable`` unless the integers of a ``fixed`` graph are what reals compute in ``steps``."""
    for name in graph.names(Neuron):
        op = graph.nodes[name]
        assert isinstance(op, Neuron)
        for what, param in (("beta", op.beta), ("alpha", op.alpha)):
            decay = real(param)
            if np.any((decay != 0) & (decay != 1)):
                raise NotRepresentable(
                    f"its {what} {decay.flat[0]:g} is rounded at every step",
                    where=graph.label(name),
                    why=f"{target.name} rounds products with a decay {target.decay.rounding}; NIR's neurons are reals",
                    remedy="only neurons without a leak are the same in both",
                )
    try:
        layers = unchanged(graph, target, steps)
    except (GraphError, ValueError) as error:
        raise NotRepresentable("has no proven range", where="nir", why=str(error)) from error
    for layer in layers:
        _check_range(graph, layer, target, steps)


def _check_range(graph: Graph, layer: Layer, target: Target, steps: int) -> None:
    """Raise where a register may saturate or wrap around."""
    op = graph.nodes[layer.name]
    ranges = {"potential": layer.potential} if isinstance(op, Readout) else {"current": layer.current}
    for what, found in (ranges | {"potential": layer.potential}).items():
        if not found.proven:
            raise NotRepresentable(
                f"its {what} may reach {found.worst:,.0f} in {steps} steps",
                where=graph.label(layer.name),
                why=f"{target.name} holds {found.limit:,.0f}, and what lies beyond is no sum of reals",
            )
