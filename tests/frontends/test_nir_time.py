"""What a step of a ``.nir`` is: the dialects of r told apart, the semantics, and what is asked for."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import nir
import numpy as np
import pytest

from snncompile.errors import ReadError, UnsupportedNode
from snncompile.frontends.nir import read
from snncompile.frontends.nir_options import Options, parse
from snncompile.frontends.nir_time import shortest
from snncompile.ir.ops import By, Neuron, To
from snncompile.ir.signals import Count, Spike
from snncompile.run import reference

ONES = np.ones(3)


def saved(path: Path, *middle: Any) -> Path:
    nodes = {"input": nir.Input(np.array([3]))} | {f"n{i}": node for i, node in enumerate(middle)}
    nodes["output"] = nir.Output(np.array([3]))
    names = list(nodes)
    graph = nir.NIRGraph(nodes=nodes, edges=list(pairwise(names)))
    nir.write(path, graph)
    return path


def lif(tau: Any, r: Any, dtype: str = "float64", **more: Any) -> nir.LIF:
    values = {"tau": tau, "r": r, "v_leak": 0.0, "v_threshold": 1.0, "v_reset": 0.0} | more
    return nir.LIF(**{key: np.broadcast_to(np.asarray(value, dtype), 3).copy() for key, value in values.items()})


def neuron(path: Path, options: Options | None = None, name: str = "n0") -> Neuron:
    op = read(path, options).graph.nodes[name]
    assert isinstance(op, Neuron)
    return op


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_tau_over_r_is_the_step(tmp_path: Path, dtype: str) -> None:
    """Two populations with different decays and one dt, in float32 as exporters write them."""
    dt, decays = 1e-4, (0.9, np.array([0.5, 0.8, 0.95]))
    path = saved(tmp_path / "n.nir", *(lif(dt / (1 - b), 1 / (1 - b), dtype) for b in decays))
    found = read(path)
    assert found.dt == dt
    for name, decay in zip(("n0", "n1"), decays, strict=True):
        op = found.graph.nodes[name]
        assert isinstance(op, Neuron)
        np.testing.assert_allclose(op.beta, 1 - decay, rtol=2e-7 if dtype == "float32" else 1e-15)  # type: ignore[arg-type]
        assert op.gain == 1.0
    assert read(path, Options(dt=dt)).dt == dt
    for semantics in (None, "euler", "exact", "loihi"):
        with pytest.raises(ReadError, match=r"its r = tau/dt says dt = 0.0001, --dt says 0.001; --dt 0.0001"):
            read(path, Options(semantics, dt=1e-3))
    assert neuron(path, Options("euler", dt=2e-4, r="written")).beta == pytest.approx(0.2)


def test_decays_of_float32_come_back_to_the_last_bit(tmp_path: Path) -> None:
    """r = 1 / beta in float64 and back, for decays 1 - beta that a framework holds in float32."""
    decays = np.random.default_rng(1).random(100_000, dtype=np.float32).astype(np.float64)
    r = 1.0 / (1.0 - decays)
    path = tmp_path / "n.nir"
    values = {"tau": r * 1e-4, "r": r, "v_leak": 0 * r, "v_threshold": 0 * r + 1}
    nir.write(path, nir.NIRGraph.from_list(nir.LIF(**values)))
    np.testing.assert_array_equal(1.0 - neuron(path, name="lif").beta, decays)  # type: ignore[operator]


def test_r_of_one_says_nothing(tmp_path: Path) -> None:
    path = saved(tmp_path / "n.nir", lif(4e-4, 1.0))
    with pytest.raises(ReadError) as caught:
        read(path)
    said = str(caught.value)
    assert "r = 1: nothing in the file says how its equations become steps" in said
    assert "r = 1: nothing in the file says the length of a step" in said
    assert said.endswith("say --nir-semantics euler|exact|loihi|sinabs --dt DT")
    with pytest.raises(ReadError, match=r"say --dt DT$"):
        read(path, Options("euler"))
    with pytest.raises(ReadError, match=r"say --nir-semantics euler\|exact\|loihi\|sinabs$"):
        read(path, Options(dt=1e-4))
    euler, exact = neuron(path, Options("euler", 1e-4)), neuron(path, Options("exact", 1e-4))
    assert (euler.beta, euler.gain) == (0.25, 0.25)
    assert (exact.beta, exact.gain) == (-np.expm1(-0.25), -np.expm1(-0.25))
    assert "dialect r = 1" in read(path, Options("euler", 1e-4)).notes


def test_a_resistance_is_one_where_tau_over_r_differs(tmp_path: Path) -> None:
    path = saved(tmp_path / "n.nir", lif(4e-4, np.array([1.0, 2.0, 3.0])))
    with pytest.raises(ReadError, match="r is a resistance: nothing says"):
        read(path)
    op = neuron(path, Options("euler", 1e-4))
    np.testing.assert_array_equal(op.gain, np.array([0.25, 0.5, 0.75]))  # type: ignore[arg-type]


def test_loihi_holds_decays_in_twelve_bits(tmp_path: Path) -> None:
    for r, gain in ((1.0, 0.3), (1 / 0.3, 1.0)):  # the input is not rounded
        op = neuron(saved(tmp_path / "n.nir", lif(1e-4 / 0.3, r)), Options("loihi", 1e-4))
        assert op.beta == round(0.3 * 4096) / 4096
        assert op.gain == pytest.approx(gain)


def test_sinabs_counts_in_steps(tmp_path: Path) -> None:
    path = saved(tmp_path / "n.nir", lif(4.0, 1.0, v_threshold=2.0, v_reset=0.5), nir.IF(r=ONES, v_threshold=ONES))
    found = read(path, Options("sinabs"))
    op, last = found.graph.nodes["n0"], found.graph.nodes["n1"]
    assert isinstance(op, Neuron)
    assert isinstance(op.reset, By)
    assert isinstance(last, Neuron)
    assert (op.beta, op.gain, op.fires, op.reset.amount) == (-np.expm1(-0.25), 1.0, ">=", 2.0)
    assert (last.beta, last.gain, last.fires) == (0.0, 1.0, ">=")
    assert any("one spike a step at most" in note for note in found.notes)
    assert any("no floor" in note for note in found.notes)
    with pytest.raises(ReadError, match="sinabs has no --dt"):
        read(path, Options("sinabs", 1e-3))
    with pytest.raises(ReadError, match=r"n0 \(LIF\): its v_leak is not 0 \(sinabs refuses it\)"):
        read(saved(tmp_path / "m.nir", lif(4.0, 1.0, v_leak=0.1)), Options("sinabs"))
    values = dict.fromkeys(("tau_syn", "tau_mem", "r", "v_leak", "v_threshold"), ONES)
    with pytest.raises(UnsupportedNode, match=r"n0 \(CubaLIF\): sinabs has none"):
        read(saved(tmp_path / "c.nir", nir.CubaLIF(**values)), Options("sinabs"))


def test_integrators_say_their_step_or_are_asked(tmp_path: Path) -> None:
    def fires(r: Any) -> nir.IF:
        return nir.IF(r=r * ONES, v_threshold=ONES)

    found = read(saved(tmp_path / "n.nir", fires(1e3)))
    assert found.dt == 1e-3
    assert "r = 1/dt: a step is 0.001" in found.notes
    one = saved(tmp_path / "one.nir", fires(1.0))
    with pytest.raises(
        ReadError, match=r"per step, or per unit of time \(readers differ\); say `--nir r=step` or --dt"
    ):
        read(one)
    with pytest.raises(ReadError, match=r"\(dt is 0.001\).*say `--nir r=step` or `--nir r=written`"):
        read(one, Options(dt=1e-3))
    assert neuron(one, Options(dt=1e-3, r="written")).gain == 1e-3
    assert neuron(one, Options(r="step")).gain == neuron(one, Options(dt=1.0)).gain == 1.0
    with pytest.raises(ReadError, match="leaves open: the length of a step"):
        read(saved(tmp_path / "m.nir", fires(np.array([1.0, 2.0, 5.0]))))
    mixed = saved(tmp_path / "mixed.nir", lif(4e-4, 4.0), fires(1e4))
    assert neuron(mixed, name="n1").gain == 1.0


def test_delays_are_whole_steps(tmp_path: Path) -> None:
    late = nir.Delay(np.full(3, 3e-4))
    path = saved(tmp_path / "n.nir", lif(4e-4, 4.0, "float32"), late)
    assert [edge.delay for edge in read(path).graph.edges] == [0, 3]
    with pytest.raises(ReadError, match=r"n1 \(Delay\): its delay 0.0003 is no whole number of steps \(dt = 0.0002\)"):
        read(path, Options("euler", 2e-4, r="written"))
    with pytest.raises(ReadError, match=r"leaves open: the length of a step, in which delays are counted"):
        read(saved(tmp_path / "m.nir", late, nir.Threshold(ONES)))
    with pytest.raises(ReadError, match="its delay is -1"):
        read(saved(tmp_path / "m.nir", nir.Delay(-ONES), nir.Threshold(ONES)), Options(dt=1.0))


def test_a_step_that_overshoots_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "n.nir", lif(2e-4, 1.0))
    with pytest.raises(
        ReadError, match=r"leaks in less than a step \(dt = 0.001, tau = 0.0002: a step would overshoot\)"
    ):
        read(path, Options("euler", 1e-3))
    assert neuron(path, Options("exact", 1e-3)).beta == -np.expm1(-5.0)


def test_where_potentials_start_is_asked(tmp_path: Path) -> None:
    path = saved(tmp_path / "n.nir", lif(4e-4, 4.0, v_reset=-0.5))
    with pytest.raises(ReadError, match=r"where potentials start \(v_reset are not 0\).*say `--nir start=zero"):
        read(path)
    assert neuron(path, Options(start="zero")).initial == 0.0
    assert neuron(path, Options(start="reset")).initial == -0.5


def test_ties_and_resets_of_other_frameworks(tmp_path: Path) -> None:
    path = saved(tmp_path / "n.nir", lif(4e-4, 4.0, v_threshold=0.5))
    plain, other = neuron(path), neuron(path, Options(fires="ge", reset="subtract"))
    assert isinstance(plain.reset, To)
    assert isinstance(other.reset, By)
    assert (plain.fires, plain.reset.value) == (">", 0.0)
    assert (other.fires, other.reset.amount) == (">=", 0.5)


@pytest.mark.parametrize("equal", [False, True])
def test_exact_cuba_is_the_solution_of_its_equations(tmp_path: Path, equal: bool) -> None:
    """The potentials, against the matrix exponential of the two equations with the input held."""
    dt, syn, mem, r, w_in, leak = 1e-3, 4e-3, 4e-3 if equal else 9e-3, 1.5, 0.7, 0.2
    values = {"tau_syn": syn, "tau_mem": mem, "r": r, "v_leak": leak, "v_threshold": 50.0, "w_in": w_in}
    path = saved(tmp_path / "n.nir", nir.CubaLIF(**{key: value * ONES for key, value in values.items()}))
    found = read(path, Options("exact", dt, r="written", start="zero"))
    x = np.random.default_rng(2).normal(size=(1, 30, 3))
    trace = reference.run(found.graph, {"input": x})
    rates = np.array([[-1 / syn, 0, w_in / syn, 0], [r / mem, -1 / mem, 0, leak / mem], [0] * 4, [0] * 4])
    step = _exponential(rates * dt)
    state = np.zeros((3, 4))
    for t in range(30):
        state[:, 2], state[:, 3] = x[0, t], 1.0
        state = state @ step.T
        np.testing.assert_allclose(trace.potentials["n0"][0, t], state[:, 1], rtol=0, atol=1e-14)
    with pytest.raises(ReadError, match="exact has no order of current and potential"):
        read(path, Options("exact", dt, r="written", start="zero", current="old"))


def _exponential(matrix: Any) -> Any:
    """Its power series."""
    term = total = np.eye(len(matrix))
    for k in range(1, 30):
        term = term @ matrix / k
        total = total + term
    return total


def test_the_shortest_number_that_is_meant() -> None:
    assert shortest(float(np.float32(1e-4))) == 1e-4
    assert shortest(float(np.float32(2.5e-3))) == 2.5e-3
    assert shortest(1 / 3) == pytest.approx(1 / 3, rel=1e-6)


def test_the_words_of_the_command_line() -> None:
    found = parse("euler", 1e-3, "r=step,loop=a+b,start=reset,input=count:3,steps=7,metadata=ignore,readout=mean")
    assert found == Options("euler", 1e-3, "step", None, ("a", "b"), "reset", None, None, "ignore", "mean", Count(3), 7)
    assert parse(None, None, "input=spike").input == Spike()
    for words, said in (
        ("r=maybe", "r=maybe: one of written, step"),
        ("speed=3", "'speed=3' is none of r="),
        ("r", "'r' is none of"),
        ("r=step,r=step", "is none of"),
        ("steps=0", "steps: '0' is no number of 1 or more"),
        ("input=real", "input=real: spike, signed or count:MOST"),
        ("input=count:x", "is no number"),
    ):
        with pytest.raises(ValueError, match=said):
            parse(None, None, words)
