"""What is counted, and how: the columns and the conventions, which go into every report.

Two reports compare only where their conventions are the same, so each choice is named and all of them have a digest.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

Column = Literal[
    "ac",  # additions that events cause, one a synapse inside the borders: the headline
    "ac_nonzero_weight",  # of these, the ones at synapses whose weight is not zero
    "mac",  # multiplications with additions, where numbers meet weights: the headline
    "mac_nonzero",  # of these, the ones whose value and weight are not zero; absent where the values are not recorded
    "one_to_one",  # additions without weights: identity skips, one-to-one synapses
    "pool_adds",  # additions of pools that are not folded into the weights behind them
    "neuron_updates",  # neurons times steps
    "bias_adds",  # neurons with a bias times steps
    "readout_adds",  # accumulations of read-outs
    "spikes_in",  # events that arrive, whatever they reach
    "spikes_out",  # spikes of a population
]
TOTALS: tuple[Column, ...] = (
    *("ac", "ac_nonzero_weight", "mac", "mac_nonzero", "one_to_one", "pool_adds"),
    *("neuron_updates", "bias_adds", "readout_adds", "spikes_out"),
)  # what reports add up
Role = Literal["encoder", "network", "relay", "readout"]
ROLES: tuple[Role, ...] = ("encoder", "network", "relay", "readout")


@dataclass(frozen=True)
class Options:
    """Choices of counting that a user has.

    ``static_input``: ``recompute`` multiplies the input anew at every step, ``cache`` only where it differs from the
    step before. ``zero_skip``: a value of zero is not multiplied. ``multiplicity``: of a sum of k spikes, ``unary``
    sees k events, ``graded`` one event that carries k.
    """

    static_input: Literal["recompute", "cache"] = "recompute"
    zero_skip: bool = False
    multiplicity: Literal["unary", "graded"] = "unary"


STATIC_INPUT = {
    "recompute": "recompute: the first layer meets its input anew at every step",
    "cache": "cache: the first layer meets its input where it differs from the step before",
}
ZERO_SKIP = {
    False: "no: a MAC is counted for an analog value of zero as well",
    True: "yes: no MAC is counted for an analog value of zero",
}
MULTIPLICITY = {
    "unary": "unary: a count of k is k events, sources that add are counted one by one",
    "graded": "graded: events that meet on a wire at a step are one event, whatever it carries, also where they cancel",
}

_FIXED = MappingProxyType(
    {
        "schema": "snncompile.conventions/1",
        "operation": "the declared signal decides: events cause AC, analog and fixed signals MAC; values are checked",
        "network": "the synapses are those of the network as trained, on every level, whatever kernels a machine has",
        "synapses": "structural: every one inside the borders; ac_nonzero_weight leaves out trained weights of zero",
        "fan_out": "exact at borders, for stride, dilation, groups and kernels of any shape",
        "linear_ops": "pools, factors and flattens between events and weights are folded: events are followed through,"
        " and end at a factor of zero",
        "norm": "folded into the weights before it; one that cannot be folded is one MAC an element and step",
        "max_pool": "0 AC; its own spikes are the events of what follows",
        "delay": "an event counts at the step at which it is sent",
        "headline": "ac and mac; which other columns are priced stands in the cost model",
        "roles": "encoder: weights that meet numbers of an input, and the neurons behind them; relay: neurons that only"
        " other neurons reach, one to one, and what only a machine has; readout: read-outs and the weights before them",
        "ann": "every weighted layer once, all synapses inside the borders, MAC; of the network as trained where it is"
        " at hand (pools merged into larger kernels for a machine would flatter the spiking network)",
    }
)


def conventions(options: Options) -> dict[str, str]:
    """Every convention by name, the chosen ones among them."""
    chosen = {
        "static_input": STATIC_INPUT[options.static_input],
        "zero_skip": ZERO_SKIP[options.zero_skip],
        "multiplicity": MULTIPLICITY[options.multiplicity],
    }
    return {**_FIXED, **chosen}


def digest(content: Mapping[str, object]) -> str:
    """SHA-256 of plain values, the same for the same values in any order of keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, allow_nan=False).encode()).hexdigest()
