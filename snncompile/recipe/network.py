"""What holds for all layers of a network: the table ``[network]`` beside its input and architecture."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from snncompile.recipe.methods import MODERATE, Rule, moderate
from snncompile.sheet import Sheet


@dataclass(frozen=True)
class NetworkOptions:
    """``bias``, ``dense_bias``, ``stem_bias``: whether convolutions, fully connected layers and the first layer have
    one (the first as the others unless ``stem_bias`` is false). ``norm``: batch norm; ``dense_norm``: behind FC too.

    ``order = "pre"``: norm and neurons come before a convolution instead of behind it (PreAct-ResNet): the first layer
    is a bare convolution, and whatever reads a sum of currents gets norm and neurons in front of it. In a block the
    skip starts behind the first neurons, and a convolution in it has no norm.

    ``pool_neurons``: average pools are followed by neurons. ``dropout``: share of what neurons send that is dropped in
    training; one choice for all steps where there is a loop.

    ``weights``: torch's own initial values, normal with variance 2 / fan-in (``he``) or 2 / fan-out (``fan-out``, of
    convolutions), or uniform with rows of length 1 and biases 0 (``unit-rows``). ``norm_gain``: initial gain of norms.
    """

    bias: bool = True
    dense_bias: bool = True
    stem_bias: bool = True
    norm: bool = True
    dense_norm: bool = True
    order: Literal["post", "pre"] = "post"
    pool_neurons: bool = False
    dropout: float = 0.0
    weights: Literal["default", "he", "fan-out", "unit-rows"] = "default"
    norm_gain: float = 1.0


def read_options(sheet: Sheet) -> NetworkOptions:
    """The options among the keys of ``[network]``. Raises SheetError."""
    table = {key: value for key, value in sheet.table("network").items() if key not in ("input", "architecture")}
    return replace(sheet, content={**sheet.content, "network": table}).record("network", NetworkOptions)


def network_ranges(options: NetworkOptions) -> list[Rule]:
    """What the numbers among the options must hold."""
    return [
        ("network.dropout", 0.0 <= options.dropout < 1.0, "from 0 to below 1"),
        ("network.norm_gain", moderate(options.norm_gain), MODERATE),
    ]
