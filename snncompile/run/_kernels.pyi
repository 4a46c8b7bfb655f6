from typing import Any

from numpy.typing import NDArray

def available() -> list[str]: ...
def met(words: NDArray[Any], masks: NDArray[Any], found: NDArray[Any]) -> None: ...
def ever_and_always(words: NDArray[Any], ever: NDArray[Any], always: NDArray[Any]) -> None: ...

class Engine:
    fired: list[int]
    block: int
    widest: int
    products: float
    visit: float
    multiplied: int
    features: int
    def __init__(self, kernels: str) -> None: ...
    def signal(self, height: int, width: int, channels: int) -> int: ...
    def events(
        self,
        source: int,
        first: int,
        channels: int,
        kernel: tuple[int, int],
        stride: tuple[int, int],
        padding: tuple[int, int],
        spread: tuple[int, int],
        maximum: bool,
        height: int,
        width: int,
    ) -> int: ...
    def population(
        self,
        signal: int,
        tile: int,
        wide: bool,
        readout: bool,
        phase: int,
        rules: dict[str, Any],
        parameters: list[NDArray[Any]],
    ) -> int: ...
    def connect(
        self, population: int, given: dict[str, Any], weights: NDArray[Any], reach: NDArray[Any] | None
    ) -> None: ...
    def run(
        self,
        given: list[tuple[int, NDArray[Any] | None, NDArray[Any] | None, bool]],
        kept: list[tuple[int, NDArray[Any] | None, NDArray[Any] | None, NDArray[Any] | None, NDArray[Any] | None]],
        samples: int,
        steps: int,
        machine_steps: int,
        stepwise: bool,
        batch: int,
        threads: int,
    ) -> None: ...
    def cost(self, population: int, samples: int, steps: int) -> tuple[float, float, float]: ...
    def operations(self, population: int, connection: int) -> int: ...
