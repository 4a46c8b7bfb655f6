"""Step graphs on onnxruntime: the device of ONNX bundles."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from snncompile.errors import ReadError, ToolError
from snncompile.run.trace import Trace, joined

if TYPE_CHECKING:
    from onnx import ModelProto

Array = NDArray[Any]
LEVELS = ("ORT_DISABLE_ALL", "ORT_ENABLE_BASIC", "ORT_ENABLE_EXTENDED", "ORT_ENABLE_ALL")
BATCH = 64
BATCH_NUMBERS = 1 << 26  # values of all populations, all steps, that one batch of samples may show
REMEDY = "install onnx and onnxruntime (pip install 'snncompile[onnx]')"


@dataclass(frozen=True)
class Ran:
    """What a run gave: outputs [samples, machine steps, *shape] and the states behind the last step, by tensor name."""

    outputs: Mapping[str, Array]
    states: Mapping[str, Array]


def demand() -> dict[str, str]:
    """The versions of onnx and onnxruntime. Raises ``ToolError`` where they are missing."""
    try:
        import onnx
        import onnxruntime
    except ImportError as error:
        raise ToolError("is not installed", where=str(error.name), remedy=REMEDY) from error
    return {"onnx": onnx.__version__, "onnxruntime": onnxruntime.__version__}


class Session:
    """A step graph ready to run. ``level``: what onnxruntime may rewrite; ``threads``: 0 for all of the processor."""

    def __init__(
        self, model: ModelProto, told: Mapping[str, Any], *, level: str = LEVELS[-1], threads: int = 0
    ) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(
                model.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime's errors have no common class
            raise ToolError(
                "onnxruntime does not take it", where="model.onnx", why=str(error).splitlines()[0]
            ) from error
        self.told = told
        self.outputs = [one.name for one in self._session.get_outputs()]

    def run(self, stimulus: Mapping[str, Array], *, late: int = 0, batch: int = BATCH) -> Ran:
        """Run ``stimulus`` (input name -> [samples, steps, *shape]) and ``late`` steps of zeros behind it."""
        samples = len(next(iter(stimulus.values())))
        parts = [
            self._batch({name: array[first : first + batch] for name, array in stimulus.items()}, late)
            for first in range(0, samples, batch)
        ]
        shared = {entry["name"] for entry in self.told["states"] if not entry.get("batch", True)}
        return Ran(
            {name: np.concatenate([part.outputs[name] for part in parts]) for name in parts[0].outputs},
            {
                name: parts[0].states[name] if name in shared else np.concatenate([part.states[name] for part in parts])
                for name in parts[0].states
            },
        )

    def _batch(self, stimulus: Mapping[str, Array], late: int) -> Ran:
        samples, steps = next(iter(stimulus.values())).shape[:2]
        states = {entry["name"]: _initial(entry, samples) for entry in self.told["states"]}
        after = {entry["next"]: entry["name"] for entry in self.told["states"]}
        seen: dict[str, list[Array]] = {name: [] for name in self.outputs if name not in after}
        for m in range(steps + late):
            given = {
                entry["name"]: _given(stimulus[entry["of"]], m).astype(entry["dtype"]) for entry in self.told["inputs"]
            }
            for name, array in zip(self.outputs, self._session.run(None, given | states), strict=True):
                if name in after:
                    states[after[name]] = array
                else:
                    seen[name].append(array)
        return Ran({name: np.stack(arrays, axis=1) for name, arrays in seen.items()}, states)


def _given(array: Array, m: int) -> Array:
    return array[:, m] if m < array.shape[1] else np.zeros_like(array[:, 0])


def _initial(entry: Mapping[str, Any], samples: int) -> Array:
    start = np.broadcast_to(np.asarray(entry["initial"], dtype=entry["dtype"]), entry["shape"])
    return start if not entry.get("batch", True) else np.repeat(start[None], samples, axis=0)


def trace(
    model: ModelProto,
    told: Mapping[str, Any],
    stimulus: Mapping[str, Array],
    *,
    keep: Collection[str] | None = None,
    level: str = LEVELS[-1],
    progress: Callable[[int], None] = lambda done: None,
) -> Trace:
    """Spikes and potentials (before the reset) of the populations ``keep`` (default: all), phases removed.

    Tensors that are no outputs of the file become some: the operations that are executed are those of the file.
    """
    parts = []
    for part in batches(model, told, stimulus, keep=keep, level=level):
        parts.append(part)
        progress(sum(one.samples for one in parts))
    return joined(parts)


def batches(
    model: ModelProto,
    told: Mapping[str, Any],
    stimulus: Mapping[str, Array],
    *,
    keep: Collection[str] | None = None,
    level: str = LEVELS[-1],
    potentials: bool = True,
) -> Iterator[Trace]:
    """``trace`` a batch of samples at a time, so that memory does not grow with their number.

    Without ``potentials`` only populations that do not spike (read-outs) show theirs.
    """
    spiking = {entry["of"] for entry in told["hidden"] if entry["what"] == "spikes"}
    wanted = [
        entry
        for entry in told["hidden"]
        if (keep is None or entry["of"] in keep)
        and (potentials or entry["what"] == "spikes" or entry["of"] not in spiking)
    ]
    session = Session(_watched(model, told, wanted), told, level=level)
    samples, steps = next(iter(stimulus.values())).shape[:2]
    phases = told["phases"]
    late = max(phases.values(), default=0)
    numbers = (steps + late) * sum(int(np.prod(entry["shape"])) for entry in wanted)
    batch = int(np.clip(BATCH_NUMBERS // max(1, numbers), 1, BATCH))
    meta = {"steps": steps, "latency": late, "potential": "before reset", "versions": demand()}
    for first in range(0, samples, batch):
        ran = session.run({name: array[first : first + batch] for name, array in stimulus.items()}, late=late)
        shown: dict[str, dict[str, Array]] = {"spikes": {}, "potentials": {}}
        for entry in wanted:
            begin = phases.get(entry["of"], 0)
            shown[entry["what"]][entry["of"]] = ran.outputs[entry["name"]][:, begin : begin + steps]
        yield Trace(shown["spikes"], shown["potentials"], meta)


def _watched(model: ModelProto, told: Mapping[str, Any], wanted: Sequence[Mapping[str, Any]]) -> ModelProto:
    """A copy whose outputs hold what is to be kept."""
    from onnx import ModelProto, helper

    if told["loop"] != "step":
        raise ReadError("is a loop over steps", where="model.onnx", remedy="export it without --scan to look inside")
    watched = ModelProto()
    watched.CopyFrom(model)
    known = {one.name for one in watched.graph.output}
    for entry in wanted:
        if entry["name"] not in known:
            dtype = helper.np_dtype_to_tensor_dtype(np.dtype(entry["dtype"]))
            watched.graph.output.append(helper.make_tensor_value_info(entry["name"], dtype, ["batch", *entry["shape"]]))
    return watched


def open_step(path: Path) -> tuple[ModelProto, dict[str, Any]]:
    """A step graph that we wrote, and what its metadata says. Raises ``ReadError``."""
    from snncompile.frontends.onnx import described, load

    demand()
    model = load(path)
    return model, described(model, str(path))
