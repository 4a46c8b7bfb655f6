"""Step graphs in onnxruntime against the interpreters that are the definition: spikes, potentials, every state."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snncompile.backends import onnx as backend
from snncompile.backends import onnxruntime as device
from snncompile.backends.step_exactness import exact_in_float32
from snncompile.backends.step_example import history
from snncompile.backends.step_integers import exact_product
from snncompile.compile import compile_graph, encoded, fold
from snncompile.errors import GraphError, LoweringError, NotRepresentable, ReadError
from snncompile.fixed import FixedPoint
from snncompile.frontends.onnx import described, load, read_program
from snncompile.ir.graph import Edge, Graph
from snncompile.ir.ops import By, Conv, Dense, Flatten, Input, Neuron, Op, Output, Pool, Readout, SigmaDelta, To
from snncompile.ir.signals import Analog, Count, Fixed, Spike
from snncompile.ir.store import Program
from snncompile.ir.text import same
from snncompile.passes.balance import balance
from snncompile.run import reference
from snncompile.run.steps import latency
from snncompile.target import Decay, Target
from tests.graphs import Case, fixed_case, read_case

LOIHI = Target.load("loihi")
FLOOR = replace(LOIHI, decay=Decay(12, "floor"), current=replace(LOIHI.current, overflow="saturate"))
Array = np.ndarray[Any, np.dtype[Any]]


def equal_to_the_definition(case: Case, target: Target, levels: tuple[str, ...] = device.LEVELS) -> int:
    """Neuron-steps compared; every output, hidden tensor and final state must be the definition's."""
    program = Program(case.graph, "fixed", target.name, case.steps)
    model = backend.model(program, target, watch=True)
    step, known = backend.step_graph(program, target), history(case.graph, case.stimulus, target)
    told = described(model, "model.onnx")
    machine_steps = case.steps + latency(case.graph)
    compared = 0
    for level in levels:
        ran = device.Session(model, told, level=level, threads=1).run(case.stimulus, late=latency(case.graph), batch=2)
        for port in {*step.hidden, *step.outputs}:
            expected = np.stack([known.shown(port, m) for m in range(machine_steps)], axis=1)
            np.testing.assert_array_equal(ran.outputs[port.name], expected, err_msg=f"{level} {port.name}")
            compared += expected.size
        for state in step.states:
            expected = known.before(state, machine_steps)
            np.testing.assert_array_equal(ran.states[state.port.name], expected, err_msg=f"{level} {state.port.name}")
    return compared


def softer(case: Case, draw: Random) -> Case:
    """The same network with resets by an amount or to a value, and potentials that do not start at zero."""
    nodes: dict[str, Op] = dict(case.graph.nodes)
    for name, op in nodes.items():
        if isinstance(op, Neuron):
            amount = FixedPoint.number(draw.randint(-20, 60))
            start = FixedPoint.number(draw.randint(-90, 90), -6)
            nodes[name] = replace(op, reset=draw.choice([By(amount), To(amount)]), initial=start)
    return Case(Graph(nodes, case.graph.edges), case.stimulus)


@settings(max_examples=40)
@given(st.randoms(use_true_random=False), st.booleans(), st.sampled_from([LOIHI, FLOOR]))
def test_random_networks_equal_the_definition(source: Random, delays: bool, target: Target) -> None:
    case = fixed_case(source, delays=delays)
    assert equal_to_the_definition(case, target, device.LEVELS[:: source.choice([1, 3])]) > 0
    assert equal_to_the_definition(softer(case, source), target, device.LEVELS[-1:]) > 0


@settings(max_examples=15)
@given(st.randoms(use_true_random=False))
def test_phases_clear_populations_where_the_machine_does(source: Random) -> None:
    case = fixed_case(source)
    try:
        timed = balance(case.graph, LOIHI, case.steps).graph
    except LoweringError:
        return
    assert equal_to_the_definition(Case(timed, case.stimulus), LOIHI, device.LEVELS[-1:]) > 0


def chain(*ops: Op, shape: tuple[int, ...], signal: Any) -> Graph:
    nodes: dict[str, Op] = {"x": Input(shape, signal)} | {f"op{index}": op for index, op in enumerate(ops)}
    names = list(nodes)
    return Graph(nodes | {"out": Output()}, [Edge(*pair) for pair in zip(names, [*names[1:], "out"], strict=True)])


def integers(threshold: int, *shape: int) -> Neuron:
    return Neuron(
        shape,
        alpha=FixedPoint.number(3000, -12),
        beta=FixedPoint.number(700, -12),
        threshold=FixedPoint.number(threshold),
        bias=FixedPoint.number(-3, -6),
        reset=By(FixedPoint.number(threshold)),
        initial=FixedPoint.number(0),
    )


WIDE = Conv(FixedPoint(np.full((2, 2, 3, 3), 250)), None, (2, 1), (1, 2), (1, 2), 1)


@pytest.mark.parametrize(
    ("ops", "signal", "kinds"),
    [
        ([Pool("sum", (2, 2), (2, 1), (1, 0)), Pool("max", (2, 2), (1, 1), (1, 1))], Spike(), {"MaxPool"}),
        ([Pool("max", (2, 2), (2, 2), (1, 1))], Fixed(20), {"ReduceMax"}),
        ([Pool("max", (3, 2), (1, 2), (1, 1))], Fixed(8), {"MaxPool", "Max"}),
        ([Pool("max", (2, 2), (2, 2), (2, 1))], Fixed(8), {"ReduceMax"}),
        ([Pool("sum", (3, 3), (1, 1))], Count(200), {"MatMul"}),
        ([WIDE], Fixed(8), {"Conv"}),
        ([WIDE], Analog(), {"MatMul"}),
        ([WIDE, Flatten(), Dense(FixedPoint(np.arange(-7, 8)[:, None].repeat(48, 1)))], Spike(), {"MatMul"}),
        ([Conv(FixedPoint(np.full((4, 1, 2, 2), -128)), None, (1, 1), (0, 0), (2, 2), 2)], Spike(), {"ConvInteger"}),
    ],
)  # fmt: skip
def test_each_way_to_multiply_is_exact_at_its_largest(ops: list[Op], signal: Any, kinds: set[str]) -> None:
    graph = chain(*ops, shape=(2, 7, 6), signal=signal)
    most = {Fixed(8): 127, Fixed(20): 2**19 - 1, Count(200): 200, Analog(): 2**30}.get(signal, 1)
    values = np.random.default_rng(0).choice([most, most, 0 if most in (1, 200) else -most], (2, 3, 2, 7, 6))
    program = Program(graph, "fixed", "loihi", 3)
    used = {operation.kind for operation in backend.step_graph(program, LOIHI).operations}
    assert kinds <= used, used
    assert equal_to_the_definition(Case(graph, {"x": values}), LOIHI) > 0


def test_one_dimension_groups_and_counts_above_127() -> None:
    conv = Conv(FixedPoint(2 * np.arange(-6, 6).reshape(4, 1, 3)), None, (2,), (1,), (2,), 2)
    graph = chain(conv, integers(40, 4, 4), shape=(2, 9), signal=Count(255))
    values = np.random.default_rng(1).integers(0, 256, (3, 5, 2, 9))
    assert equal_to_the_definition(Case(graph, {"x": values}), LOIHI) > 0


def test_products_are_chosen_so_that_no_processor_saturates() -> None:
    full = np.array([[-128, 127]])
    assert exact_product(full, (0, 1))[0] == "uint8"
    assert exact_product(full, (0, 127))[0] == "uint8"
    assert exact_product(full, (0, 128))[0] == "float32"
    assert exact_product(full, (-128, 127))[0] == "float32"
    assert exact_product(np.array([[-64, 64]]), (-128, 127))[0] == "int8"
    assert exact_product(np.array([[2**20, 1]]), (-128, 127))[0] == "int64"
    assert exact_product(full, None)[0] == "int64"
    how, small, factor = exact_product(np.array([[-256, 254, 0]]), (0, 1))
    assert (how, small.tolist(), factor) == ("uint8", [[-128, 127, 0]], 2)


@settings(max_examples=25)
@given(st.randoms(use_true_random=False))
def test_reals_spike_as_the_reference_and_are_exact_where_that_is_said(source: Random) -> None:
    case = read_case(source)
    graphs = [case.graph]
    with contextlib.suppress(LoweringError):
        graphs.append(fold(case.graph)[0])
    for graph in graphs:
        program = Program(graph, "folded", "", case.steps)
        model = backend.model(program, None)
        told = described(model, "model.onnx")
        found, expected = device.trace(model, told, case.stimulus), reference.run(graph, case.stimulus)
        for name, spikes in expected.spikes.items():
            np.testing.assert_array_equal(found.spikes[name], spikes, err_msg=name)
        assert told["guarantee"] == (backend.EXACT if exact_in_float32(program) else backend.NOT_GUARANTEED)
        if exact_in_float32(program):
            for name, potentials in expected.potentials.items():
                np.testing.assert_array_equal(found.potentials[name], potentials, err_msg=name)


def test_the_padding_of_a_maximum_is_zero_in_reals_as_well() -> None:
    graph = chain(Pool("max", (2, 2), (1, 2), (1, 1)), Neuron((2, 8, 4)), shape=(2, 7, 6), signal=Analog())
    x = -1.0 - np.random.default_rng(0).integers(0, 9, (3, 2, 2, 7, 6)) / 8
    model = backend.model(Program(graph, "folded", "", 2), None)
    for level in device.LEVELS:
        found = device.trace(model, backend.told_by(model), {"x": x}, level=level)
        expected = reference.run(graph, {"x": x})
        np.testing.assert_array_equal(found.potentials["op1"], expected.potentials["op1"], err_msg=level)


def test_only_dyadic_numbers_are_called_exact() -> None:
    def program(weight: float, steps: int) -> Program:
        neuron = Neuron((1,), beta=np.float64(0.5))
        return Program(chain(Dense(np.array([[weight]])), neuron, shape=(1,), signal=Spike()), "folded", "", steps)

    assert exact_in_float32(program(0.75, 4))
    assert not exact_in_float32(program(0.7, 4))
    assert not exact_in_float32(program(0.75, 30))  # each step halves the grid


@pytest.mark.parametrize("delays", [False, True])
def test_a_scan_is_the_same_step_again_and_again(delays: bool) -> None:
    import onnxruntime

    case = fixed_case(Random(4), delays=delays, steps=5, samples=3)
    program = Program(case.graph, "fixed", "loihi", case.steps)
    model, step = backend.model(program, LOIHI, scan=True), backend.step_graph(program, LOIHI)
    known = history(case.graph, case.stimulus, LOIHI)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    given_ = {port.name: np.moveaxis(case.stimulus[port.of], 1, 0).astype(port.dtype) for port in step.inputs}
    given_ |= {state.port.name: np.repeat(state.initial[None], 3, axis=0) for state in step.states}
    names = [one.name for one in session.get_outputs()]
    found = dict(zip(names, session.run(None, given_), strict=True))
    for port in step.outputs:
        expected = np.stack([known.shown(port, m) for m in range(case.steps)])
        np.testing.assert_array_equal(found[port.name], expected)
    for state in step.states:
        np.testing.assert_array_equal(found[state.after], known.before(state, case.steps))
    assert [node.op_type for node in model.graph.node] == ["Scan"]


@pytest.mark.parametrize("scan", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_files_carry_their_graph_and_an_example(tmp_path: Path, seed: int, scan: bool) -> None:
    import onnxruntime
    from onnx import TensorProto, numpy_helper

    case = fixed_case(Random(seed), delays=seed % 2 == 1) if seed < 4 else read_case(Random(seed))
    target = LOIHI if seed < 4 else None
    program = Program(case.graph, "fixed" if target else "folded", "loihi" if target else "", case.steps)
    told = backend.save(program, target, tmp_path, scan=scan)
    again = read_program(tmp_path / "model.onnx")
    assert same(again.graph, case.graph)
    assert (again.level, again.target, again.steps) == (program.level, program.target, program.steps)
    model = load(tmp_path / "model.onnx")
    assert described(model, "") == told
    backend.demand_same(model, again, target)
    assert {node.domain for node in model.graph.node} == {""}
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 18)]

    def tensors(kind: str) -> list[Array]:
        paths = [tmp_path / f"test_data_set_0/{kind}_{index}.pb" for index in range(len(getattr(model.graph, kind)))]
        return [numpy_helper.to_array(TensorProto.FromString(path.read_bytes())) for path in paths]

    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    fed = dict(zip([one.name for one in session.get_inputs()], tensors("input"), strict=True))
    for found, expected in zip(session.run(None, fed), tensors("output"), strict=True):
        assert found.dtype == expected.dtype
        np.testing.assert_allclose(found, expected, rtol=0 if target else 1e-6)
    with np.load(tmp_path / "initial.npz", allow_pickle=False) as start:
        assert set(start.files) == {entry["name"] for entry in told["states"]}


def test_numbers_that_were_changed_are_noticed(tmp_path: Path) -> None:
    case = fixed_case(Random(3))
    program = Program(case.graph, "fixed", "loihi", case.steps)
    model = backend.model(program, LOIHI)
    tensor = next(one for one in model.graph.initializer if one.name.endswith(".weight"))
    tensor.raw_data = bytes([tensor.raw_data[0] ^ 2]) + tensor.raw_data[1:]
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ReadError, match="not those that were exported"):
        read_program(path)
    for entry in model.metadata_props:  # and where the hash was changed with them
        if entry.key == "snncompile":
            from snncompile.frontends.onnx import fingerprint

            told = json.loads(entry.value)
            told["sha256"]["operations"] = fingerprint(model.graph)
            entry.value = json.dumps(told)
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ReadError, match="not what its graph"):
        backend.demand_same(load(path), program, LOIHI)


def test_a_network_with_soft_resets_is_lowered_to_the_sheet_and_equal() -> None:
    numbers = np.random.default_rng(2)
    neuron = Neuron((4, 6, 6), beta=np.float64(0.25), reset=By(np.float64(0.8)), initial=np.float64(0.125))
    layers = [Conv(numbers.normal(size=(4, 2, 3, 3)) / 3, None, (1, 1), (1, 1)), neuron, Pool("mean", (2, 2), (2, 2))]
    last = [Dense(numbers.normal(size=(5, 36)) * 2), Neuron((5,), reset=To(np.float64(-0.5)))]
    graph = chain(*layers, *last, shape=(2, 6, 6), signal=Analog())
    x = {"x": numbers.normal(size=(3, 4, 2, 6, 6))}
    target = Target.load("onnx")
    compiled = compile_graph(graph, target, x)
    assert latency(compiled.levels["placed"]) == 0
    found = compiled.logical.graph
    assert [type(op.reset) for op in found.nodes.values() if isinstance(op, Neuron)] == [By, To]
    assert equal_to_the_definition(Case(found, encoded(found, x)), target) > 0
    above = reference.run(compiled.levels["folded"], x).spikes
    below = history(found, encoded(found, x), target).spikes
    for name in above:  # 8 bits keep most of a network's spikes
        assert 0.01 < above[name].mean() < 0.9
        assert np.mean(above[name] != np.stack(below[name], axis=1)) < 0.05


@pytest.mark.parametrize(
    ("every_array", "message"),
    [
        ({"packed": "", "dtype": "int64", "shape": [10**12]}, "8000000000000 bytes are packed"),
        ({"packed": "eJwDAAAAAAE=", "dtype": "int64", "shape": [3]}, "0 bytes for 24"),
        ({"tensor": "fc.weight", "times": 10**40, "axes": 2, "dtype": "int64"}, "its program cannot be read"),
        ({"tensor": "none", "dtype": "int64"}, "KeyError"),
        ({"packed": "", "dtype": "object", "shape": [1]}, "no parameter is object"),
        (3, "its program cannot be read"),
    ],
)
def test_metadata_that_lie_are_refused(tmp_path: Path, every_array: Any, message: str) -> None:
    nodes = {"x": Input((40,), Spike()), "fc": Dense(FixedPoint(np.arange(-40, 40).reshape(2, 40))), "out": Output()}
    graph = Graph(nodes, [Edge("x", "fc"), Edge("fc", "out")])
    model = backend.model(Program(graph, "fixed", "loihi", 2), LOIHI)
    for entry in model.metadata_props:
        if entry.key == "snncompile.program":
            plain = json.loads(entry.value)
            plain["arrays"] = dict.fromkeys(plain["arrays"], every_array)
            entry.value = json.dumps(plain)
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ReadError, match=message):
        read_program(tmp_path / "model.onnx")


def test_what_has_no_step_is_refused() -> None:
    graph = chain(SigmaDelta((3,)), shape=(3,), signal=Spike())
    for target in (LOIHI, None):
        with pytest.raises(NotRepresentable, match="SigmaDelta"):
            backend.model(Program(graph, "fixed", "loihi", 2), target)
    with pytest.raises(GraphError, match="no integer of loihi"):
        backend.model(Program(chain(Dense(np.array([[0.3]])), shape=(1,), signal=Spike()), "fixed", "loihi", 2), LOIHI)


def test_readouts_alone_and_populations_that_nothing_reaches() -> None:
    nodes: dict[str, Op] = {
        "x": Input((2,)),
        "sum": Readout((2,)),
        "alone": replace(integers(5, 2), bias=FixedPoint.number(2)),
    }
    graph = Graph(nodes | {"a": Output(), "b": Output()}, [Edge("x", "sum"), Edge("sum", "a", 2), Edge("alone", "b")])
    case = Case(graph, {"x": np.arange(12).reshape(1, 6, 2) - 5})
    assert equal_to_the_definition(case, LOIHI) > 0
