"""Reports and baselines that somebody changed: every place, any value; the answer is a message or the right numbers."""

from __future__ import annotations

import copy
import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from snncompile.cli import main
from snncompile.cost_model import CostModel
from snncompile.energy import count
from snncompile.energy_conventions import digest
from snncompile.energy_form import misfit
from snncompile.energy_gate import against, lock_text, locked, read_lock
from snncompile.errors import Incomparable, ReadError
from snncompile.ir.graph import Edge, Graph
from snncompile.ir.ops import Conv, Dense, Input, Neuron, Op, Output, Readout
from snncompile.report.energy_report import to_json
from snncompile.run.trace import Trace

MISSING = object()


def report() -> dict[str, Any]:
    """A convolution that meets numbers, neurons, an answer; two samples, two steps, as it comes back from a file."""
    nodes: dict[str, Op] = {
        "image": Input((1, 3, 3)),
        "conv": Conv(np.ones((2, 1, 3, 3)), None, (1, 1), (1, 1)),
        "lif": Neuron((2, 3, 3)),
        "fc": Dense(np.ones((2, 18))),
        "readout": Readout((2,)),
        "output": Output(),
    }
    graph = Graph(nodes, [Edge(a, b) for a, b in itertools.pairwise(nodes)])
    fired = np.random.default_rng(0).random((2, 2, 2, 3, 3)) < 0.5
    counts = count(graph, {"image": np.ones((2, 2, 1, 3, 3))}, Trace({"lif": fired}))
    found: dict[str, Any] = json.loads(json.dumps(to_json(counts, CostModel.load("horowitz45"), correct=[1, 2])))
    return found


REPORT = report()
LOCK = {key: value for key, value in locked(REPORT).items() if key != "digest"}


def places(content: Any, before: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    inside = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in inside:
        yield (*before, key)
        yield from places(value, (*before, key))


@st.composite
def changed(draw: st.DrawFn, content: dict[str, Any]) -> dict[str, Any]:
    found = copy.deepcopy(content)
    *before, last = draw(st.sampled_from(list(places(content))))
    at: Any = found
    for key in before:
        at = at[key]
    value = draw(st.sampled_from([MISSING, None, True, "x", -1, 0, 10**30, float("inf"), float("nan"), [], [1], {}]))
    if value is MISSING:
        del at[last]
    else:
        at[last] = value
    return found


@given(changed(REPORT))
def test_a_changed_report_is_priced_or_refused(
    tmp_path_factory: pytest.TempPathFactory, content: dict[str, Any]
) -> None:
    path = tmp_path_factory.mktemp("changed") / "report.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    whole = path.with_name("whole.json")
    whole.write_text(json.dumps(REPORT), encoding="utf-8")
    words = ["--cost-model", "horowitz45-memory", "--also", "rate-flops,tet,syops,neurobench"]
    html = ["--html", str(path.with_name("r.html"))]
    assert main(["energy", "reprice", str(path), *words, *html]) in (0, 3, 4)
    assert main(["energy", "diff", str(path), str(whole)]) in (0, 4, 9)
    assert main(["energy", "explain", str(path), "fc"]) in (0, 3, 4)


@given(changed(LOCK))
def test_a_baseline_changed_and_sealed_again_is_compared_or_refused(
    tmp_path_factory: pytest.TempPathFactory, content: dict[str, Any]
) -> None:
    path = tmp_path_factory.mktemp("sealed") / "l.json"
    try:
        sealed = {**content, "digest": digest(content)}
    except ValueError:  # no digest of what is no number
        sealed = {**content, "digest": ""}
    path.write_text(json.dumps(sealed, indent=1), encoding="utf-8")
    try:
        verdict = against(REPORT, read_lock(str(path)), str(path), 0)  # type: ignore[arg-type]
    except (ReadError, Incomparable):
        return
    same = content["layers"] == LOCK["layers"] and content["totals"] == LOCK["totals"]
    assert verdict.tested
    assert not (same and verdict.failures)


def test_what_is_wrong_is_said_with_its_place(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "r.json"
    for change, message in (
        ({"layers": 3}, "layers: expected a list, found 3"),
        ({"ann": {}}, "it lacks ann.of"),
        ({"samples": 3}, "energy_by_sample_J: 2 of 3 numbers"),
        ({"steps": 0}, "no sample or no step was run"),
        ({"accuracy": "x" * 99}, "accuracy: expected a finite number, found 'xxx"),
    ):
        path.write_text(json.dumps({**REPORT, **change}), encoding="utf-8")
        assert main(["energy", "explain", str(path), "fc"]) == 4
        assert f"is no whole energy report ({message}" in capfd.readouterr().err
    path.write_text(lock_text(locked(REPORT)), encoding="utf-8")
    assert read_lock(str(path))["totals"]["ac"] == REPORT["totals"]["ac"]
    short = {"schema": LOCK["schema"]}
    path.write_text(json.dumps({**short, "digest": digest(short)}), encoding="utf-8")
    with pytest.raises(ReadError, match="is no whole baseline \\(it lacks name\\)"):
        read_lock(str(path))


@pytest.mark.parametrize(
    ("value", "form", "fault"),
    [
        (3, int, None),
        (True, int, ": expected a whole number from 0, found True"),
        (-1, int, ": expected a whole number from 0, found -1"),
        (float("nan"), float, ": expected a finite number, found nan"),
        ({"a": [1, 2.5]}, {str: [int]}, "a[1]: expected a whole number from 0, found 2.5"),
        (None, (float, None), None),
        ("x", (float, None), ": expected a finite number, found 'x'"),
        ({}, {"a?": int}, None),
        ({"a": ""}, {"a?": int}, "a: expected a whole number from 0, found ''"),
        ({}, {"a": {"b": str}}, "it lacks a"),
        ({"a": {}}, {"a": {"b": str}}, "it lacks a.b"),
        ([], {"a": int}, ": expected a table, found []"),
    ],
)
def test_forms(value: Any, form: Any, fault: str | None) -> None:
    assert misfit(value, form) == fault


def at(content: Any, place: str, value: Any) -> Any:
    """The report with another value at ``layers.0.columns.mac``."""
    found = copy.deepcopy(content)
    *before, last = [int(part) if part.isdigit() else part for part in place.split(".")]
    table: Any = found
    for key in before:
        table = table[key]
    table[last] = value
    return found


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("totals.ac", 1, r"totals.ac is 1, what it goes with \d+"),
        ("roles.readout.ac", 1, "roles.readout.ac is 1"),
        ("layers.0.by_step.mac.0", 7, "conv.by_step.mac is"),
        ("layers.0.by_sample.mac.0", 7, "conv.by_sample.mac is"),
        ("layers.0.by_step.ac", [1, 2], "conv: its series are of other counts than its columns"),
        ("layers.1.name", "conv", "2 layers are called conv"),
        ("ann.mac", 1, "ann.mac is 1"),
        ("energy_per_sample_J", 1e-9, "energy_per_sample_J is 1e-09, layers say"),
        ("energy_by_steps_J.1", 1e-9, "energy_by_steps_J say 1e-09"),
        ("energy_by_sample_J.0", 1e-3, "energy_by_sample_J say 0.0005"),
        ("accuracy", 0.5, "accuracy is not what correct_by_steps says"),
        ("correct_by_steps.0", 99, "accuracy is not what correct_by_steps says"),
        ("totals.ac", 10**400, "totals.ac: expected a whole number from 0, found a number beyond int64"),
        ("layers.0.parameters", 1 << 63, "found a number beyond int64"),
    ],
)
def test_a_report_that_contradicts_itself_is_refused(
    place: str, value: Any, message: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "r.json"
    path.write_text(json.dumps(at(REPORT, place, value)), encoding="utf-8")
    assert main(["energy", "reprice", str(path)]) == 4
    said = capfd.readouterr()
    assert re.search(message, said.err)
    assert (said.out, said.err.count("\n")) == ("", 1)


def test_a_key_that_stands_twice_and_a_folder_are_no_reports(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "r.json"
    path.write_text(json.dumps(REPORT).replace('"samples": 2', '"samples": 1, "samples": 2', 1), encoding="utf-8")
    assert main(["energy", "reprice", str(path)]) == 4
    assert "r.json: is no energy report ('samples' stands twice in one table)" in capfd.readouterr().err
    assert main(["energy", "reprice", str(tmp_path)]) == 4
    assert f"{tmp_path}: cannot be read (Is a directory)" in capfd.readouterr().err


def test_a_difference_in_any_count_is_one(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A weight that became zero changes no AC, and is seen."""
    paths = [tmp_path / "a.json", tmp_path / "b.json"]
    other = copy.deepcopy(REPORT)
    fc = other["layers"][2]
    for table in (fc["columns"], other["totals"], other["roles"]["readout"]):
        table["ac_nonzero_weight"] -= 1
    fc["by_step"]["ac_nonzero_weight"][0] -= 1
    for path, content in zip(paths, (REPORT, other), strict=True):
        path.write_text(json.dumps(content), encoding="utf-8")
    assert main(["energy", "diff", *map(str, paths), "--format", "json"]) == 0
    found = json.loads(capfd.readouterr().out)["differences"]
    assert [(one["layer"], one["column"], one["right"] - one["left"]) for one in found] == [
        ("fc", "ac_nonzero_weight", -1),
        ("total", "ac_nonzero_weight", -1),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ac = { value = 1e308, S }", "cost_model.ac: a price must be below a joule, found 1e+308 pJ"),
        ("ac = { value = -1.0, S }", "cost_model.ac: a price must be positive"),
        (
            "ac = { value = 1.0, S }\n[memory]\nsram_8k = { value = -1.0, S }",
            "memory.sram_8k: a price must be positive",
        ),
    ],
)
def test_a_price_beyond_reason_is_refused(
    text: str, message: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "r.json").write_text(json.dumps(REPORT), encoding="utf-8")
    memory = "\n".join(f"{key} = {{ value = 32, S }}" for key in ("word_bits", "sram_32k", "sram_1m"))
    more = memory + "\naddress_add = { value = 0.0, S }\naddress_mac = { value = 0.0, S }" if "memory" in text else ""
    head = '[cost_model]\nname = "x"\ntitle = "x"\nprecision = "x"\nscope = "x"\nmac = { value = 1.0, S }\n'
    sheet = tmp_path / "p.toml"
    sheet.write_text(f"{head}{text}\n{more}\n".replace("S }", 'source = "us" }'), encoding="utf-8")
    assert main(["energy", "reprice", str(tmp_path / "r.json"), "--cost-model", str(sheet)]) == 3
    assert message in capfd.readouterr().err
