"""Samples shared out, by whatever shares them out: the parts put together are one run."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import joblib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from snncompile.errors import GraphError
from snncompile.fixed import FixedPoint
from snncompile.ir.graph import Edge, Graph
from snncompile.ir.ops import Dense, Input, Neuron, Output, Readout, To
from snncompile.ir.signals import Fixed
from snncompile.ir.store import Program
from snncompile.run import cpu, shards
from snncompile.run.cpu import Simulator
from snncompile.run.shards import Part, Pool, Shards, digests_before, digests_of
from snncompile.run.stimulus import Inputs
from snncompile.run.trace import Trace, joined

number = FixedPoint.number
STEPS = 5
KEPT = ("lif", "readout")


def program() -> Program:
    draw = np.random.default_rng(4)
    one, half = number(4096, -12), number(2048, -12)
    nodes = {
        "input": Input((6,), Fixed(8, unit=0.5)),
        "first": Dense(FixedPoint(draw.integers(-60, 60, (9, 6)))),
        "lif": Neuron((9,), one, half, number(900), number(0), reset=To(number(0)), initial=number(0)),
        "second": Dense(FixedPoint(draw.integers(-60, 60, (4, 9)))),
        "readout": Readout((4,), "sum", number(0)),
        "output": Output(),
    }
    names = list(nodes)
    return Program(Graph(nodes, tuple(map(Edge, names, names[1:]))), "fixed", "loihi", STEPS)


def samples(count: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(count).integers(-127, 128, (count, STEPS, 6))


@dataclass(frozen=True)
class Drawn:
    """A source: samples that are made where they are wanted."""

    count: int

    def __len__(self) -> int:
        return self.count

    def batches(self, first: int, last: int, size: int) -> Iterator[np.ndarray[Any, Any]]:
        whole = samples(self.count)
        for at in range(first, last, size):
            yield whole[at : min(at + size, last)]


def together(parts: Iterator[Part]) -> Trace:
    found = list(parts)
    assert all(part.samples == part.trace.samples for part in found)
    return joined([part.trace for part in found])


def equal(found: Trace, expected: Trace) -> None:
    assert found.meta == expected.meta
    for name in KEPT:
        np.testing.assert_array_equal(found.potentials[name], expected.potentials[name])
    np.testing.assert_array_equal(found.spikes["lif"], expected.spikes["lif"])
    assert found.meta["spikes"] == {"lif": int(expected.spikes["lif"].sum())}


@given(st.integers(1, 60), st.integers(1, 5), st.integers(1, 20), st.booleans())
def test_any_cut_is_one_run(count: int, jobs: int, batch: int, made: bool) -> None:
    x = Drawn(count) if made else samples(count)
    work, expected = Shards.of(program(), keep=KEPT), Simulator(program())(samples(count))
    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(2) as pool:
        patch.setattr(shards, "BATCH", batch)
        equal(together(work.here(x)), expected)
        equal(together(work.over(x, jobs, pool)), expected)


@pytest.mark.parametrize("backend", ["loky", "threading", "multiprocessing"])
@pytest.mark.parametrize("x", [samples(50), Drawn(50)], ids=["array", "source"])
def test_the_backend_of_joblib_that_is_chosen_shares_them_out(backend: str, x: Any) -> None:
    with joblib.parallel_config(backend=backend):
        equal(together(Shards.of(program(), keep=KEPT).over(x, 2)), Simulator(program())(samples(50)))


def test_a_backend_that_hands_over_nothing_before_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    parallel = joblib.Parallel

    def older(*words: Any, **options: Any) -> Any:
        if "return_as" in options:
            raise ValueError("Backend does not support return_as=generator")
        return parallel(*words, **options)

    monkeypatch.setattr(joblib, "Parallel", older)
    with joblib.parallel_config(backend="threading"):
        equal(together(Shards.of(program(), keep=KEPT).over(Drawn(50), 2)), Simulator(program())(samples(50)))


def test_processes_of_an_executor() -> None:
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        equal(together(Shards.of(program(), keep=KEPT).over(Drawn(50), 2, pool)), Simulator(program())(samples(50)))


class Counting:
    """A pool that works at once and remembers; some of what it is given may fail."""

    def __init__(self, fails_at: int = -1) -> None:
        self.futures: list[Future[Any]] = []
        self.fails_at = fails_at

    def submit(self, work: Any, /, *arguments: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self.futures.append(future)
        if len(self.futures) - 1 == self.fails_at:
            future.set_exception(GraphError("it failed", where="there"))
        elif self.fails_at < 0 or len(self.futures) <= self.fails_at:
            future.set_result(work(*arguments))
        return future


def test_no_more_is_given_out_than_keeps_them_busy() -> None:
    pool, seen = Counting(), 0
    given_out: Pool = pool
    for part in Shards.of(program()).over(Drawn(64), 2, given_out):
        seen += part.samples
        assert len(pool.futures) * 4 <= seen + 4 * shards.AHEAD * 2
    assert (seen, len(pool.futures)) == (64, 16)


@pytest.mark.parametrize("done", [1, 20, 49])
def test_a_run_goes_on_where_it_was_left(done: int) -> None:
    """What was interrupted is begun at the sample that it had come to, by whatever number of others."""
    work, x, expected = Shards.of(program(), keep=KEPT), Drawn(50), Simulator(program())(samples(50))
    for rest in (work.here(x, done), work.over(x, 2, Counting(), first=done)):
        equal(together(chain(work.here(x, 0, done), rest)), expected)


@given(st.integers(1, 30), st.integers(0, 29), st.integers(1, 9))
def test_parts_say_which_samples_they_are_of(count: int, first: int, batch: int) -> None:
    """A digest a sample, whatever the cut, and whether they are read or at hand; another for another sample."""
    work, first = replace(Shards.of(program(), keep=KEPT), digests=True), min(first, count - 1)
    every = digests_of(samples(count))
    assert len({every[at : at + 32] for at in range(0, len(every), 32)}) == len(np.unique(samples(count), axis=0))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "BATCH", batch)
        for x in (samples(count), Drawn(count)):
            for parts in (work.here(x, first), work.over(x, 2, Counting(), first=first)):
                assert b"".join(part.digests for part in parts) == every[32 * first :]
            assert b"".join(digests_before(x, first)) == every[: 32 * first]
    assert {part.digests for part in Shards.of(program()).here(samples(count))} == {b""}


def test_digests_tell_values_types_shapes_and_inputs_apart() -> None:
    x = np.arange(12, dtype=np.int32).reshape(2, 6)
    alike = [
        x,
        x + 1,
        x.astype(np.int64),
        x.reshape(2, 2, 3),
        Inputs({"a": x}),
        Inputs({"b": x}),
        Inputs({"a": x, "b": x}),
    ]
    assert len({digests_of(each) for each in alike}) == len(alike)
    assert digests_of(np.asfortranarray(x)) == digests_of(x)


def test_without_kernels_nobody_but_who_shares_out_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv(cpu.KERNELS_VARIABLE, raising=False)
    monkeypatch.setattr(cpu, "KERNELS", ())
    monkeypatch.setattr(cpu, "_said", [])
    parts = list(Shards.of(program()).over(Drawn(50), 2, Counting()))
    assert {part.engine for part in parts} == {"NumPy (the compiled engine was not built)"}
    assert capsys.readouterr().err.count("the compiled engine was not built") == 1
    monkeypatch.setattr(cpu, "_said", [])  # another process, that a part was sent to
    shards._shard(Shards.of(program()), Drawn(50), 0, 5, 1)
    assert capsys.readouterr().err == ""


def test_an_error_there_is_one_here_and_the_rest_is_called_off() -> None:
    pool = Counting(fails_at=2)
    with pytest.raises(GraphError, match="it failed"):
        list(Shards.of(program()).over(Drawn(64), 2, pool))
    assert [future.cancelled() for future in pool.futures] == [False] * 3 + [True] * (len(pool.futures) - 3)
    assert len(pool.futures) > 3


def test_reals_are_encoded_and_integers_are_what_arrives() -> None:
    x = samples(20)
    received, reals = Shards.of(program(), keep=KEPT), Shards(*_words(), keep=KEPT, reals=True)
    equal(together(received.here(x)), Simulator(program())(x))
    equal(together(reals.here(x)), Simulator(program())(x * 1.0))
    equal(together(received.here(x * 0.5)), Simulator(program())(x))


def _words() -> tuple[Any, ...]:
    work = Shards.of(program())
    return work.graph, work.target, work.steps


def test_threads_that_are_named_are_those_that_run(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, int]] = []
    simulator = shards.Simulator

    def noting(graph: Any, target: Any, threads: int | None) -> Simulator:
        made = simulator(graph, target, threads)
        seen.append((made.threads, threading.get_ident()))
        return made

    monkeypatch.setattr(shards, "Simulator", noting)
    with ThreadPoolExecutor(2) as pool:
        list(Shards.of(program()).over(Drawn(40), 2, pool, threads=3))
    assert {threads for threads, _ in seen} == {3}
    assert threading.get_ident() not in {thread for _, thread in seen}
