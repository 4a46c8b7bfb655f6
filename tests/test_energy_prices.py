"""Prices, published conventions, choices of counting: by hand on nets small enough, and by walks on random ones."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from snncompile.cost_model import CostModel
from snncompile.energy import Counter, concatenate, count
from snncompile.energy_compat import also
from snncompile.energy_conventions import Options
from snncompile.energy_prices import activation_bits, rates
from snncompile.energy_statistics import spread
from snncompile.errors import GraphError, ReadError
from snncompile.ir.graph import Edge, Graph
from snncompile.ir.ops import Conv, Dense, Input, Neuron, Op, Output, Pool, Readout
from snncompile.ir.shapes import shapes
from snncompile.ir.signals import Count, Spike
from snncompile.passes.compose import compose
from snncompile.report.energy_report import reprice, to_json, to_text
from snncompile.run import reference
from snncompile.run.trace import Trace

HOROWITZ = CostModel.load("horowitz45")


def chain(*ops: Op) -> Graph:
    names = ["image", *(f"n{index}" for index in range(1, len(ops)))]
    return Graph(dict(zip(names, ops, strict=True)), [Edge(a, b) for a, b in itertools.pairwise(names)])


def report(options: Options | None = None) -> dict[str, Any]:
    """2x2 image through a 3x3 convolution with a bias, 4 neurons, 3 answers; T = 2; 2 spikes at the last step."""
    graph = chain(
        *(Input((1, 2, 2)), Conv(np.ones((1, 1, 3, 3)), np.ones(1), (1, 1), (1, 1)), Neuron((1, 2, 2))),
        *(Dense(np.ones((3, 4))), Readout((3,))),
    )
    fired = np.zeros((1, 2, 1, 2, 2), dtype=bool)
    fired[0, 1, 0, 0] = True
    image = np.array([[0.5, 0.0], [0.0, 0.0]]).reshape(1, 1, 1, 2, 2).repeat(2, axis=1)
    return to_json(count(graph, {"image": image}, Trace({"n2": fired}), options), HOROWITZ)


def layer(content: dict[str, Any], name: str) -> dict[str, int]:
    return next(one["columns"] for one in content["layers"] if one["name"] == name)


# --- choices of counting ----------------------------------------------------------------------------------------------


def test_choices_of_the_first_layer() -> None:
    """The image reaches 16 synapses at each of two steps; its one value that is not zero reaches 4 of them."""
    found = {
        (cached, skip): layer(report(Options("cache" if cached else "recompute", skip)), "n1")["mac"]
        for cached in (False, True)
        for skip in (False, True)
    }
    assert found == {(False, False): 32, (True, False): 16, (False, True): 8, (True, True): 4}


def test_an_input_that_changes_is_computed_again() -> None:
    graph = chain(Input((2,)), Dense(np.ones((3, 2))), Neuron((3,)), Output())
    frames = np.array([[[1, 1], [1, 1], [1, 2], [0, 2]], [[0, 0], [0, 0], [0, 0], [0, 0]]], dtype=float)
    trace = Trace({"n2": np.zeros((2, 4, 3), dtype=bool)})
    counts = count(graph, {"image": frames}, trace, Options("cache"))
    (found,) = (one.columns["mac"] for one in counts.layers if one.name == "n1")
    assert found.tolist() == [[6, 0, 6, 6], [6, 0, 0, 0]]


def test_graded_events_are_one_whatever_they_carry() -> None:
    """Counts of 3, 0, 1, and beside them spikes on the same wires: what meets at a wire is one event."""
    nodes: dict[str, Op] = {
        "many": Input((3,), Count(3)),
        "one": Input((3,), Count(1)),
        "fc": Dense(np.ones((5, 3))),
        "lif": Neuron((5,)),
    }
    graph = Graph(nodes, [Edge("many", "fc"), Edge("one", "fc"), Edge("fc", "lif")])
    stimulus = {"many": np.array([[[3.0, 0.0, 1.0]]]), "one": np.array([[[1.0, 0.0, 0.0]]])}
    trace = Trace({"lif": np.zeros((1, 1, 5), dtype=bool)})
    unary, graded = (count(graph, stimulus, trace, Options(multiplicity=kind)) for kind in ("unary", "graded"))
    assert (unary.total("ac"), graded.total("ac")) == (5 * 5, 2 * 5)


def test_what_is_not_recorded_is_not_skipped() -> None:
    graph = chain(Input((2,)), Dense(np.ones((2, 2))), Dense(np.ones((2, 2))), Neuron((2,)), Output())
    trace = Trace({"n3": np.zeros((1, 1, 2), dtype=bool)})
    with pytest.raises(GraphError, match=r"n2 \(Dense\): which of the numbers that arrive are zero is not recorded"):
        count(graph, {"image": np.zeros((1, 1, 2))}, trace, Options(zero_skip=True))


# --- prices -----------------------------------------------------------------------------------------------------------


def test_prices_with_memory_by_hand() -> None:
    """All memories are below 8 kB here: 10 pJ an access, 0.1 pJ an add, 3.2 pJ a multiply-add."""
    found = reprice(report(), CostModel.load("horowitz45-memory"))
    conv, lif, fc, _ = (one["components_J"] for one in found["layers"])
    assert conv == pytest.approx({"arithmetic": 32 * 3.2e-12, "memory": 32 * 20e-12, "addressing": 0})
    leak_bias_reset = 8 * 3.2 + 8 * 0.1 + 2 * 0.1
    assert lif == pytest.approx(
        {"arithmetic": leak_bias_reset * 1e-12, "memory": (8 * 20 + 8 * 10 + 2 * 10) * 1e-12, "addressing": 0}
    )
    # 2 events reach 3 synapses each: weight, potential read and written, address; the event itself
    events = {"arithmetic": 6 * 0.1e-12, "memory": (6 * 30 + 2 * 10) * 1e-12, "addressing": 6 * 0.1e-12}
    assert fc == pytest.approx(events)
    assert found["left_out"] == {"readout_adds": 6}


def test_memory_costs_by_its_size() -> None:
    memory = CostModel.load("horowitz45-memory").memory
    assert memory is not None
    words = [1, 2048, 5120, 8192, (8192 + (256 << 10)) // 2, 256 << 10, 2 << 20]
    line = 100 + 80 * (8 << 20) / (992 << 10) - 80 * (1 << 20) / (992 << 10)
    assert [memory.access(number) for number in words] == pytest.approx([10, 10, 15, 20, 60, 100, line])
    layer = {"parameters": 8192, "size": 1, "sites": 1}
    for kind, address in (("Conv", 6.4), ("Dense", None)):  # two multiply-adds find the window that an event is in
        found = rates(CostModel.load("horowitz45-memory"), {**layer, "kind": kind})
        assert found["memory"]["ac"] == pytest.approx(40)
        assert found["addressing"].get("spikes_in") == (None if address is None else pytest.approx(address))


def test_loihi_1_is_priced_by_its_own_table() -> None:
    found = reprice(report(), CostModel.load("loihi1"))
    assert "pre-silicon" in found["cost_model"]["title"]
    assert found["energy_per_sample_J"] == pytest.approx((6 * 23.6 + 8 * 81 + 2 * 1.7) * 1e-12)
    assert found["left_out"] == {"mac": 32, "bias_adds": 8, "readout_adds": 6}
    assert (found["ann"]["energy_J"], found["ann"]["ratio"], found["ann"]["break_even_rate"]) == (None, None, None)


def test_a_new_price_list_gives_what_counting_with_it_gives() -> None:
    model = CostModel.load("horowitz45-int8")
    again = reprice(reprice(report(), CostModel.load("horowitz45-memory")), HOROWITZ)
    assert again == report()
    assert reprice(report(), model)["digests"] != report()["digests"]


def test_parts_add_up() -> None:
    for name in ("horowitz45", "horowitz45-memory", "loihi1"):
        found = reprice(report(), CostModel.load(name))
        whole = found["energy_per_sample_J"]
        assert sum(found["energy_by_sample_J"]) / found["samples"] == pytest.approx(whole)
        assert found["energy_by_steps_J"][-1] == pytest.approx(whole)
        assert found["energy_by_steps_J"] == sorted(found["energy_by_steps_J"])


@pytest.mark.parametrize(("steps", "bits"), [(1, 1), (2, 2), (3, 2), (4, 3), (7, 3), (8, 4), (15, 4), (16, 5)])
def test_bits_of_a_rate(steps: int, bits: int) -> None:
    assert activation_bits(steps) == bits


def test_the_break_even_rate_is_where_both_are_equal() -> None:
    """With spikes at that rate (here: scaled as all counts of events are) energies are those of the ANN."""
    found = report()
    even, now = found["ann"]["break_even_rate"], found["ann"]["rate"]
    assert now == pytest.approx(2 / 8)
    fixed = 32 * 4.6
    assert (fixed + even / now * 6 * 0.9) * 1e-12 == pytest.approx(found["ann"]["energy_J"])


# --- published conventions --------------------------------------------------------------------------------------------


def test_published_conventions_by_hand() -> None:
    """Taps 36 and 12; rate 2 / 8 of the only layer that spikes reach; 8 neuron steps; 4 biases of the convolution."""
    rate_flops, tet, syops, neurobench = also(report(), "rate-flops,tet,syops,neurobench")
    assert (rate_flops["ac"], rate_flops["mac"]) == (pytest.approx(0.25 * 2 * 12), 36)
    assert (tet["ac"], tet["mac"]) == (pytest.approx(0.25 * 2 * 12), 36)
    assert (syops["ac"], syops["mac"]) == (pytest.approx(0.25 * 2 * 12 + 8), 2 * (36 + 4))
    assert (neurobench["ac"], neurobench["mac"]) == (6, 8)
    exact = 6 * 0.9 + 32 * 4.6
    assert neurobench["gap"] == pytest.approx((6 * 0.9 + 8 * 4.6) / exact - 1)
    with pytest.raises(ReadError, match="no convention 'syop'; did you mean syops"):
        also(report(), "tet,syop")


def test_a_published_table_is_reproduced_and_its_slip_seen() -> None:
    """Table 3 of fnins.2023.1091097: 18.39 M operations as an ANN, spike rate 0.1366, hence 2.51 M operations.

    84.594 uJ and 2.26 uJ at 4.6 and 0.9 pJ: 37 times less. The table says 0.309 uJ and 273.77 times, because it
    multiplies by the rate once more.
    """
    spiking = {"name": "all", "taps": 18_390_000, "sites": 10_000, "columns": {"ac": 3_000_000, "spikes_in": 1366}}
    content = {"samples": 1, "steps": 1, "layers": [spiking], "totals": {"ac": 3_000_000, "mac": 0}}
    (said,) = also(content, "rate-flops")
    assert f"{said['ac'] / 1e6:.2f}" == "2.51"
    assert f"{18.39e6 * 4.6e-12 * 1e7:.2f}" == "845.94"
    assert f"{said['energy_J'] * 0.1366 * 1e7:.2f}" == "3.09"
    assert said["energy_J"] == pytest.approx(2.26e-6, rel=1e-3)
    assert 84.594e-6 / said["energy_J"] == pytest.approx(37.4, abs=0.05)
    assert said["gap"] == pytest.approx(2.512074 / 3 - 1)


def test_conventions_and_missing_prices_stand_in_the_text() -> None:
    text = to_text({**report(), "also": also(report(), "neurobench")})
    assert "\nexact counts  6.0  32.0  0.15\nneurobench    6.0   8.0  0.04  -72.3%\n" in text
    text = to_text(reprice(report(), CostModel.load("loihi1")))
    (row,) = (line for line in text.splitlines() if line.startswith("n1 "))
    assert row.endswith("not priced")
    assert "Counted, not in the energy: 32 mac, 8 bias adds, 6 readout adds a sample." in text


# --- invariances ------------------------------------------------------------------------------------------------------


def test_order_and_batches_change_nothing() -> None:
    graph = chain(Input((4,)), Dense(np.eye(4)), Neuron((4,)), Dense(np.ones((3, 4))), Readout((3,)))
    numbers = np.random.default_rng(0)
    x, fired = numbers.random((7, 3, 4)), numbers.random((7, 3, 4)) < 0.3
    counter = Counter(graph)

    def found(order: list[int], batch: int) -> dict[str, Any]:
        parts = []
        for first in range(0, 7, batch):
            some = order[first : first + batch]
            parts.append(counter.count({"image": x[some]}, Trace({"n2": fired[some]})))
        return to_json(concatenate(parts), HOROWITZ)

    whole, pieces = found(list(range(7)), 7), found(list(range(7)), 2)
    assert whole == pieces
    shuffled = found([3, 1, 6, 0, 2, 5, 4], 3)
    assert shuffled["totals"] == whole["totals"]
    assert sorted(shuffled["energy_by_sample_J"]) == pytest.approx(sorted(whole["energy_by_sample_J"]))
    ends = [(one["dead"], one["saturated"]) for one in whole["layers"] if "dead" in one]
    assert ends == [(one["dead"], one["saturated"]) for one in shuffled["layers"] if "dead" in one]


@pytest.mark.parametrize(
    ("pool", "conv", "size"),
    [
        (((2, 2), (2, 2), (0, 0)), ((3, 3), (1, 1), (1, 1)), (8, 8)),
        (((2, 3), (2, 3), (0, 0)), ((3, 2), (2, 1), (1, 0)), (8, 9)),
    ],
)
def test_composed_pools_count_as_the_pools_they_are(pool: Any, conv: Any, size: Any) -> None:
    """A pool merged into the kernel behind it, as machines get it, reaches the same synapses from every spike."""
    numbers = np.random.default_rng(1)
    kernel, *geometry = conv
    first: dict[str, Op] = {
        "in": Input((2, *size), Spike()),
        "pool": Pool("mean", *pool),
        "conv": Conv(numbers.integers(-8, 9, (3, 2, *kernel)) / 4, None, *geometry),
    }
    edges = [Edge(a, b) for a, b in itertools.pairwise(first)]
    shape = shapes(Graph(first, edges))["conv"]
    ends: dict[str, Op] = {"lif": Neuron(shape), "out": Output()}
    rest = [Edge("conv", "lif"), Edge("lif", "out")]
    graph = Graph({**first, **ends}, [*edges, *rest])
    composed = compose(first["pool"], first["conv"], (2, *size))
    assert isinstance(composed, Conv)
    merged = Graph({"in": first["in"], "conv": composed, **ends}, [Edge("in", "conv"), *rest])
    stimulus = {"in": (numbers.random((2, 3, 2, *size)) < 0.3).astype(float)}
    trace = reference.run(graph, stimulus)
    before, behind = count(graph, stimulus, trace), count(merged, stimulus, trace)
    for column in ("ac", "mac", "neuron_updates", "spikes_out"):
        assert before.total(column) == behind.total(column), column
    assert before.total("ac") > 0


# --- spread -----------------------------------------------------------------------------------------------------------


def test_spread() -> None:
    numbers = np.random.default_rng(3).normal(10, 2, 400).tolist()
    one = spread(numbers)
    assert one == spread(numbers)
    error = one.deviation / 20
    assert (one.low, one.high) == pytest.approx((one.mean - 1.96 * error, one.mean + 1.96 * error), abs=0.05)
    assert numbers[one.least] == min(numbers)
    assert numbers[one.most] == max(numbers)
    alone = spread([3.0])
    assert (alone.mean, alone.deviation, alone.low, alone.high) == (3, 0, 3, 3)
