"""ONNX: a network as one file that any runtime executes, one step a call, states in and out.

Opset 18, operators of ``ai.onnx`` alone, a dynamic batch axis. What a file is, is said in its ``metadata_props``:
``snncompile`` (JSON: form, level, states with their initial values, what each tensor shows) and ``snncompile.program``
(the graph itself, its weights by the names of the tensors that hold them), so that ``frontends/onnx.py`` gives the same
graph back and can prove that the numbers in the file are the graph's. ``scan`` wraps the same step in a ``Scan`` over
any number of steps. Files: ``model.onnx``, ``initial.npz`` (the states at the start of a sample) and
``test_data_set_0`` (what a runtime must give for one step, in the layout of ONNX's backend tests).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from snncompile import __version__
from snncompile.backends.step_graph import Operation, Port, StepGraph
from snncompile.backends.step_integers import Integers
from snncompile.backends.step_lowering import lower
from snncompile.backends.step_reals import Reals
from snncompile.errors import NotRepresentable, ReadError
from snncompile.frontends.onnx import SCHEMA, fingerprint, reference
from snncompile.frontends.onnx import described as metadata
from snncompile.ir.ops import Neuron, Readout
from snncompile.ir.store import Program, to_json
from snncompile.ir.text import to_text
from snncompile.run.steps import phase_of
from snncompile.target import Target

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, ValueInfoProto

Array = NDArray[Any]
OPSET, IR_VERSION = 18, 8
MOST_BYTES = 2**31 - 2**20
"""A protobuf message ends at 2 GiB."""
NOT_GUARANTEED = "float32: spikes compared, not bit-guaranteed"
EXACT = "exact: every number is an integer or a dyadic fraction that float32 holds"
INTEGERS = "exact: integers"


def step_graph(program: Program, target: Target | None) -> StepGraph:
    """One step of a program: in ``target``'s integers, or in reals where there is none.

    Raises ``GraphError`` for numbers that are none of the target's, ``NotRepresentable`` for an op without operations.
    """
    arithmetic = Reals(program.graph) if target is None else Integers(program.graph, target)
    return lower(program.graph, arithmetic, program.steps)


def model(program: Program, target: Target | None, *, watch: bool = False, scan: bool = False) -> ModelProto:
    """The program as an ONNX model. ``watch``: spikes and potentials of every population leave as well.

    Inputs [batch, *shape] by the names of the network's inputs, then the states; outputs the observed populations, then
    the states behind the step. With ``scan`` inputs and outputs are [steps, batch, *shape].
    """
    from onnx import checker, helper, numpy_helper

    step = step_graph(program, target)
    if watch:
        step.outputs += [port for port in step.hidden if port not in step.outputs]
    held = sum(array.nbytes for array in step.constants.values())
    if held > MOST_BYTES:
        raise NotRepresentable(f"needs {held} bytes of weights, a file holds {MOST_BYTES}", where="onnx")
    before, behind = [state.port for state in step.states], _leaving(step)
    body = _body(step, "step/") if scan else _body(step, "")
    inputs = [_info(port, scan=scan) for port in step.inputs] + [_info(port) for port in before]
    outputs = [_info(port, scan=scan) for port in step.outputs] + [_info(port) for port in behind]
    graph = helper.make_graph(
        [_scan(step, body)] if scan else body,
        "network",
        inputs,
        outputs,
        [numpy_helper.from_array(array, name) for name, array in step.constants.items()],
    )
    made = helper.make_model(
        graph,
        producer_name="snncompile",
        producer_version=__version__,
        ir_version=IR_VERSION,
        opset_imports=[helper.make_opsetid("", OPSET)],
    )
    told = {
        "snncompile": json.dumps(described(program, target, step, made, scan=scan), sort_keys=True),
        "snncompile.program": json.dumps(_carried(program, step)),
    }
    if target is not None:
        told["snncompile.target"] = target.sheet.path.read_text(encoding="utf-8")
    helper.set_model_props(made, told)
    checker.check_model(made, full_check=True)
    return made


def described(
    program: Program, target: Target | None, step: StepGraph, made: ModelProto, *, scan: bool = False
) -> dict[str, Any]:
    """What the metadata of ``made`` says: plain values."""

    def port(one: Port) -> dict[str, Any]:
        entry: dict[str, Any] = {"name": one.name, "dtype": one.dtype, "shape": list(one.shape)}
        return entry | {"of": one.of, "what": one.what} | ({"batch": False} if one.single else {})

    return {
        "schema": SCHEMA,
        "snncompile": __version__,
        "form": "float" if target is None else "integer",
        "guarantee": guarantee(program) if target is None else INTEGERS,
        "level": program.level,
        "target": program.target,
        "steps": program.steps,
        "dt": "one step a call; a sample has `steps` of them",
        "loop": "scan" if scan else "step",
        "inputs": [port(one) for one in step.inputs],
        "outputs": [port(one) for one in step.outputs],
        "hidden": [port(one) for one in step.hidden],
        "states": [port(one.port) | {"next": one.after, "initial": _plain(one.initial)} for one in step.states],
        "phases": {name: phase_of(program.graph, name) for name in program.graph.names(Neuron, Readout)},
        "reset": {
            name: type(op.reset).__name__.lower() for name, op in program.graph.nodes.items() if isinstance(op, Neuron)
        },
        "sample": "give the initial states again" if not _phased(step) else "cleared by `step`, every `steps` calls",
        "sha256": {
            "graph": hashlib.sha256(to_text(program.graph).encode()).hexdigest(),
            "operations": fingerprint(made.graph),
        },
    }


def _phased(step: StepGraph) -> bool:
    return any(state.port.single for state in step.states)


def _plain(initial: Array) -> Any:
    """One number where all are the same, else nested lists."""
    return initial.flat[0].item() if initial.size and np.all(initial == initial.flat[0]) else initial.tolist()


def guarantee(program: Program) -> str:
    """Whether float32 rounds nowhere in a sample: every input a declared integer, every number a multiple of a power
    of two, and no potential or current that takes more than 24 bits of it.
    """
    from snncompile.backends.step_exactness import exact_in_float32

    return EXACT if exact_in_float32(program) else NOT_GUARANTEED


# From records to protobuf


def _leaving(step: StepGraph) -> list[Port]:
    return [replace(state.port, name=state.after) for state in step.states]


def _info(port: Port, *, scan: bool = False) -> ValueInfoProto:
    from onnx import helper

    shape: list[int | str] = list(port.shape) if port.single else ["batch", *port.shape]
    dtype = helper.np_dtype_to_tensor_dtype(np.dtype(port.dtype))
    return helper.make_tensor_value_info(port.name, dtype, ["steps", *shape] if scan else shape)


def _body(step: StepGraph, prefix: str) -> list[NodeProto]:
    from onnx import helper

    def renamed(name: str) -> str:
        return name if name in step.constants else prefix + name

    def node(one: Operation) -> NodeProto:
        attributes: dict[str, Any] = {
            key: list(value) if isinstance(value, tuple) else value for key, value in one.attributes.items()
        }
        if one.kind == "Cast":
            attributes["to"] = helper.np_dtype_to_tensor_dtype(np.dtype(attributes["to"]))
        name = renamed(one.output)
        return helper.make_node(one.kind, list(map(renamed, one.inputs)), [name], name=name, **attributes)

    return [node(one) for one in step.operations]


def _scan(step: StepGraph, body: list[NodeProto]) -> NodeProto:
    """The step in a loop over the first axis of the inputs."""
    from onnx import helper

    def inside(port: Port) -> ValueInfoProto:
        return _info(replace(port, name=f"step/{port.name}"))

    before = [state.port for state in step.states]
    graph = helper.make_graph(
        body,
        "step",
        [inside(port) for port in (*before, *step.inputs)],
        [inside(port) for port in (*_leaving(step), *step.outputs)],
    )
    return helper.make_node(
        "Scan",
        [port.name for port in (*before, *step.inputs)],
        [port.name for port in (*_leaving(step), *step.outputs)],
        name="steps",
        body=graph,
        num_scan_inputs=len(step.inputs),
    )


# The graph in the metadata


def _carried(program: Program, step: StepGraph) -> dict[str, Any]:
    """The program as ``ir/store`` writes it; its arrays by the tensors that hold them, or packed where none does."""
    plain, arrays = to_json(program)
    named = {name: reference(name, array, step.weights, step.constants) for name, array in arrays.items()}
    return plain | {"arrays": named}


# Files


def save(program: Program, target: Target | None, folder: Path, *, scan: bool = False) -> dict[str, Any]:
    """Write ``model.onnx``, ``initial.npz`` and ``test_data_set_0`` into an existing folder; what the metadata says."""
    made = model(program, target, scan=scan)
    (folder / "model.onnx").write_bytes(made.SerializeToString())
    step = step_graph(program, target)
    told = described(program, target, step, made, scan=scan)
    with (folder / "initial.npz").open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **{state.port.name: state.initial for state in step.states})
    _save_example(program, target, made, folder / "test_data_set_0", scan=scan)
    return told


def _save_example(program: Program, target: Target | None, made: ModelProto, folder: Path, *, scan: bool) -> None:
    """What a runtime must give for one step (with ``scan`` for a whole sample): computed by the interpreter in
    integers, or by the reference implementation of ONNX for the float form.
    """
    from onnx import numpy_helper
    from onnx.reference import ReferenceEvaluator

    from snncompile.backends.step_example import example

    given, expected = example(program, target, step_graph(program, target), scan=scan)
    if expected is None:
        names = [one.name for one in made.graph.output]
        found: list[Any] = list(ReferenceEvaluator(made).run(None, given))
        expected = dict(zip(names, found, strict=True))
    folder.mkdir()
    for kind, ports, arrays in (("input", made.graph.input, given), ("output", made.graph.output, expected)):
        for index, port in enumerate(ports):
            tensor = numpy_helper.from_array(np.asarray(arrays[port.name]), port.name)
            (folder / f"{kind}_{index}.pb").write_bytes(tensor.SerializeToString())


def told_by(made: ModelProto) -> dict[str, Any]:
    """What the metadata of a model of ours says."""
    return metadata(made, "model.onnx")


def demand_same(made: ModelProto, program: Program, target: Target | None) -> None:
    """Raise ``ReadError`` unless a model is, operation by operation and number by number, what ``program`` becomes."""
    again = model(program, target, scan=made.graph.node[0].op_type == "Scan")
    if fingerprint(again.graph) != fingerprint(made.graph):
        raise ReadError("its operations are not what its graph becomes", where="model.onnx", remedy="export it again")
