"""What a network of several inputs is shown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

Array = NDArray[Any]


class Inputs:
    """An array for each input, in the order of the graph: images [samples, *shape] or frames [samples, steps, *shape].

    Counted and cut by samples, as one array is.
    """

    def __init__(self, arrays: Mapping[str, Array]) -> None:
        self.arrays: Mapping[str, Array] = dict(arrays)

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values())))

    def __getitem__(self, samples: slice) -> Inputs:
        return Inputs({name: array[samples] for name, array in self.arrays.items()})

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the first input."""
        return next(iter(self.arrays.values())).shape


Given = Array | Inputs
"""What a network is shown: one array, or one for each of several inputs."""
