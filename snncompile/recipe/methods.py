"""The training methods and what each lets a recipe say: the table that bears the method's name.

``ann`` is no spiking method: it trains the teacher of ``idsnn``, the same layers with rectifiers.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Literal

from snncompile.sheet import Sheet

Rule = tuple[str, bool, str]
"""A key, whether its range holds, and the range in words."""

MOST_STEPS = 1024
LEAST, MOST = 1e-6, 1e6
MODERATE = "from 0.000001 to 1000000"
"""Numbers beyond these are slips of the pen (or a hostile file): their squares would leave float32."""


def moderate(value: float) -> bool:
    """Whether a number that must be positive is one that float32 can compute with."""
    return LEAST <= value <= MOST


@dataclass(frozen=True)
class TitSettings:
    """The second stage of TET (time inheritance training): ``epochs`` more with ``steps``, and an optimiser anew."""

    steps: int
    epochs: int = 50
    learning_rate: float = 1e-4
    optimiser: Literal["adam", "sgd"] = "adam"


@dataclass(frozen=True)
class TetSettings:
    """TET, Eq. 12: ``(1 - mix) L_TET + mix L_MSE``; ``mix`` is the paper's (and the file's) lambda. ``loss = "sdt"``:
    the baseline, the cross entropy of the mean output, ``mix`` and ``phi`` then meaning nothing.
    """

    steps: int
    mix: float = 0.05
    phi: float = 1.0
    loss: Literal["tet", "sdt"] = "tet"
    tit: TitSettings | None = None


@dataclass(frozen=True)
class AsfSettings:
    """ASF. ``rule``: how a layer's ratio of spikes to current is measured, ``official`` (masked, averaged, gated) or
    ``slides``. ``encoder``: ``poisson`` draws a spike of the sign of x with probability ``rate abs(x)``, anew at every
    step (``signed = false``: images are not negative); ``direct`` shows the image.
    """

    steps: int
    rule: Literal["official", "slides"] = "official"
    encoder: Literal["poisson", "direct"] = "poisson"
    rate: float = 1.0
    signed: bool = False
    refresh: int = 5
    momentum: float = 0.4


@dataclass(frozen=True)
class IdsnnSettings:
    """IDSNN. ``teacher``: a recipe of method ``ann``; ``weights``: its trained weights (ours, a torch state dict, or
    ONNX), empty: trained first. ``blocks``: which blocks of the teacher a stage inherits. ``inherit`` and
    ``distillation = 0`` switch the two halves of the method off.
    """

    steps: int
    teacher: str
    weights: str = ""
    blocks: Literal["first", "spread"] = "first"
    inherit: bool = True
    distillation: float = 0.3
    temperature: float = 4.0


@dataclass(frozen=True)
class DsrSettings:
    """DSR. A neuron fires at ``alpha`` times its trained threshold, which starts at ``neuron.threshold`` and stays
    above ``floor``. With ``time_constant`` (tau) and ``time_step`` (dt) the neuron is LIF, else IF.

    ``threshold_gradient``: of LIF, as in the authors' code (``damped``: a factor dt) or that of the map (``map``:
    1/dt). ``map_gain``: the slope of LIF's map, 1 / tau as in the code (``code``) or (1 - decay) / dt (``exact``).
    ``output_gradient``: of LIF's last layer, scaled as in the code (``code``) or not (``exact``). ``weight_gradient``:
    of the weights before LIF, by the plain mean of the spikes as in the code, or by the weighted one that the map is
    of. ``threshold_rate`` multiplies the gradient of the thresholds (0.001 in the code's ImageNet variant).
    """

    steps: int
    alpha: float = 0.5
    floor: float = 0.01
    time_constant: float = 0.0
    time_step: float = 0.0
    threshold_gradient: Literal["damped", "map"] = "damped"
    map_gain: Literal["code", "exact"] = "code"
    output_gradient: Literal["code", "exact"] = "code"
    weight_gradient: Literal["code", "exact"] = "code"
    threshold_rate: float = 1.0

    @property
    def leaky(self) -> bool:
        """Whether the neuron is LIF."""
        return self.time_constant > 0.0

    @property
    def decay(self) -> float:
        """``e^(-dt / tau)``, 1 for IF."""
        return math.exp(-self.time_step / self.time_constant) if self.leaky else 1.0


@dataclass(frozen=True)
class IdeSettings:
    """IDE. The implicit gradient is iterated until its residual is below ``tolerance`` (relative), ``iterations`` times
    at most. ``restrict``: the feedback weight is kept at a spectral norm of 1 at most.
    """

    steps: int
    iterations: int = 30
    tolerance: float = 1e-6
    restrict: bool = True


@dataclass(frozen=True)
class AnnSettings:
    """A network of rectifiers: one step."""

    steps: int = 1


Method = Literal["tet", "asf", "idsnn", "dsr", "ide", "ann"]
Settings = TetSettings | AsfSettings | IdsnnSettings | DsrSettings | IdeSettings | AnnSettings
METHODS: tuple[Method, ...] = ("tet", "asf", "idsnn", "dsr", "ide", "ann")
TABLES = (*METHODS, "tit")
"""The tables that belong to methods."""


def read_settings(sheet: Sheet, method: Method) -> Settings:
    """The table of a method. Raises SheetError."""
    if method != "tet" and sheet.has("tit"):
        raise sheet.error("tit", f"belongs to method tet, the recipe says {method}")
    match method:
        case "tet":
            return _tet(sheet)
        case "asf":
            return sheet.record(method, AsfSettings)
        case "idsnn":
            return sheet.record(method, IdsnnSettings)
        case "dsr":
            return sheet.record(method, DsrSettings)
        case "ide":
            return sheet.record(method, IdeSettings)
        case "ann":
            return sheet.record(method, AnnSettings) if sheet.has(method) else AnnSettings()


def _tet(sheet: Sheet) -> TetSettings:
    sheet.known("tet", ("steps", "lambda", "phi", "loss"))
    found = TetSettings(sheet.integer("tet.steps"))
    if sheet.has("tet.loss"):
        loss = sheet.text("tet.loss")
        if loss not in ("tet", "sdt"):
            raise sheet.error("tet.loss", f"{loss!r} is not a loss here", remedy="tet or sdt")
        found = replace(found, loss="sdt" if loss == "sdt" else "tet")
    if found.loss == "tet" or sheet.has("tet.lambda"):
        found = replace(found, mix=sheet.number("tet.lambda"), phi=sheet.number("tet.phi"))
    return replace(found, tit=sheet.record("tit", TitSettings)) if sheet.has("tit") else found


def tables(method: Method, settings: Settings) -> dict[str, dict[str, object]]:
    """The tables, as ``read_settings`` reads them."""
    if not isinstance(settings, TetSettings):
        return {method: asdict(settings)}
    own: dict[str, object] = {"steps": settings.steps, "loss": settings.loss}
    own |= {"lambda": settings.mix, "phi": settings.phi}
    return {method: own, "tit": asdict(settings.tit)} if settings.tit else {method: own}


def deployed_steps(settings: Settings) -> int:
    """How many steps a sample has in the trained network: those of the last stage."""
    if isinstance(settings, TetSettings) and settings.tit:
        return settings.tit.steps
    return settings.steps


def ranges(method: Method, settings: Settings) -> list[Rule]:
    """What the numbers of a method's table must hold."""
    steps: Rule = (f"{method}.steps", 1 <= settings.steps <= MOST_STEPS, f"from 1 to {MOST_STEPS}")
    return [steps, *((f"{method}.{key}", holds, wanted) for key, holds, wanted in _own_ranges(settings))]


def _own_ranges(settings: Settings) -> list[Rule]:
    match settings:
        case TetSettings(tit=tit):
            mix: Rule = ("lambda", 0.0 <= settings.mix <= 1.0, "from 0 to 1")
            fits = tit is None or (
                1 <= tit.steps <= MOST_STEPS and tit.epochs >= 1 and 0.0 < tit.learning_rate <= 100.0
            )
            return [mix, ("tit", fits, f"1 to {MOST_STEPS} steps, an epoch at least, a positive learning rate")]
        case AsfSettings():
            return [
                ("rate", 0.0 < settings.rate <= 1.0, "above 0, and 1 at most"),
                ("refresh", settings.refresh >= 1, "at least 1"),
                ("momentum", 0.0 <= settings.momentum < 1.0, "from 0 to below 1"),
            ]
        case IdsnnSettings():
            return [
                ("distillation", 0.0 <= settings.distillation <= MOST, f"from 0 to {MOST:.0f}"),
                ("temperature", moderate(settings.temperature), MODERATE),
            ]
        case DsrSettings():
            return [
                ("alpha", LEAST <= settings.alpha <= 1.0, f"from {LEAST:f} to 1"),
                ("floor", moderate(settings.floor), MODERATE),
                (
                    "time_constant",
                    settings.time_constant == 0.0 or moderate(settings.time_constant),
                    f"{MODERATE}, or 0 for IF",
                ),
                ("time_step", (settings.time_step > 0.0) == settings.leaky, "positive exactly where time_constant is"),
                ("time_step", settings.time_step == 0.0 or moderate(settings.time_step), MODERATE),
                (
                    "time_step",
                    not moderate(settings.time_step) or settings.decay < 1.0,
                    "large enough that something leaks",
                ),
                ("threshold_rate", 0.0 <= settings.threshold_rate <= MOST, f"from 0 to {MOST:.0f}"),
                (
                    "weight_gradient",
                    settings.weight_gradient == "code" or settings.output_gradient == "exact",
                    "exact only where output_gradient is",
                ),
            ]
        case IdeSettings():
            return [
                ("iterations", settings.iterations >= 1, "at least 1"),
                ("tolerance", settings.tolerance > 0.0, "positive"),
            ]
        case AnnSettings():
            return [("steps", settings.steps == 1, "1: nothing changes with time")]
