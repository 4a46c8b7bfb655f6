"""Convolutions of groups, as the compiled engine takes them apart: an event reads the channels of its group alone.

As many whole groups as a tile of the engine has room for are one part: a convolution of its own, from a window of the
source's channels to one of the target's. What lies between the groups of a part are zeros, at most a tile wide. Where
every channel is a group of one, each neuron has a factor for every place of its window, and no zeros are left.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from snncompile.run.ways import Way

NARROWEST = 64  # channels of a tile: what a pixel costs besides its events is paid once for each


@dataclass(frozen=True)
class Part:
    """A window of a way: ``channels`` of its source from ``first`` on, ``lanes`` of its target from ``lane`` on.

    ``way``: with the weights of the window, and as many groups as lie in it: an event of the part goes through
    ``lanes / way.groups`` synapses at every place. ``depthwise``: its weights are [1, ky kx, channel], and it has none
    between channels.
    """

    way: Way
    first: int
    channels: int
    lane: int
    lanes: int
    depthwise: bool = False


def parts(way: Way, channels: int, tile: int) -> list[Part]:
    """A way into a population of so many channels, in parts that are no wider than groups and tiles ask for."""
    inward = way.grid.channels
    if is_depthwise(way, channels):
        square = way.weights.reshape(-1, channels, channels)
        factors = np.ascontiguousarray(square.diagonal(axis1=1, axis2=2))[None]
        return [Part(replace(way, weights=factors, groups=1), 0, channels, 0, channels, depthwise=True)]
    if way.groups == 1:
        return [Part(way, 0, inward, 0, channels)]
    source, target = inward // way.groups, channels // way.groups  # channels of a group
    together = max(1, tile // target)
    places = way.weights.reshape(len(way.weights), -1, inward, channels)
    found = []
    for group in range(0, way.groups, together):
        end = min(way.groups, group + together)
        first, last, lane, stop = group * source, end * source, group * target, end * target
        weights = np.ascontiguousarray(places[:, :, first:last, lane:stop]).reshape(len(places), -1, stop - lane)
        found.append(Part(replace(way, weights=weights, groups=end - group), first, last - first, lane, stop - lane))
    return found


def is_depthwise(way: Way, channels: int) -> bool:
    """Whether every channel is a group of one that reads spikes as they are, by weights that are the same everywhere:
    sums behind a pool are no spikes, and what is spread out lies elsewhere.
    """
    alone = 1 < way.groups == channels == way.grid.channels
    return alone and way.pool is None and way.spread == (1, 1) and len(way.weights) == 1


def fitting(into: Sequence[Way], channels: int, tile: int) -> int:
    """A tile as narrow as the groups of all that arrives; else the one that is usual for so many channels."""
    weighted = [way for way in into if not way.one_to_one]
    if not weighted or tile <= NARROWEST or any(way.groups == 1 or is_depthwise(way, channels) for way in weighted):
        return tile
    each = [channels // way.groups for way in weighted]
    for narrower in (256, 128):
        if narrower <= tile and all(one % narrower == 0 for one in each):
            return narrower
    return NARROWEST


__all__ = ["Part", "fitting", "is_depthwise", "parts"]
