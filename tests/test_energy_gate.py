"""The gate: what opens it, what closes it, and what is no verdict."""

from __future__ import annotations

import itertools
import json
import xml.etree.ElementTree as ElementTree
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from snncompile.cost_model import CostModel
from snncompile.energy import count
from snncompile.energy_conventions import Options
from snncompile.energy_gate import Budget, against, lock_text, locked, read_lock, within
from snncompile.errors import Incomparable, ReadError, SheetError
from snncompile.ir.graph import Edge, Graph
from snncompile.ir.ops import Dense, Input, Neuron, Op, Output, Readout
from snncompile.report.energy_ci import annotations, benchmark, junit
from snncompile.report.energy_report import to_json
from snncompile.run.trace import Trace

HOROWITZ = CostModel.load("horowitz45")
NONE = Fraction(0)


def report(
    spikes: int = 3, fc: str = "fc", cost: CostModel = HOROWITZ, options: Options | None = None, zero: float = 0.0
) -> dict[str, Any]:
    """Four pixels, four neurons of which some fire at the first of two steps, one answer: an AC a spike."""
    nodes: dict[str, Op] = {
        "image": Input((4,)),
        "conv": Dense(np.eye(4)),
        "lif": Neuron((4,)),
        fc: Dense(np.ones((1, 4))),
        "readout": Readout((1,)),
        "output": Output(),
    }
    graph = Graph(nodes, [Edge(a, b) for a, b in itertools.pairwise(nodes)])
    fired = np.zeros((2, 2, 4), dtype=bool)
    fired[0, 0, :spikes] = True
    image = np.ones((2, 2, 4))
    image[0, 0, 0] = zero
    counts = count(graph, {"image": image}, Trace({"lif": fired}), options)
    data = {"name": "two", "digest": "of two"}
    return to_json(counts, cost, name="net", level="read", correct=[1, 2], data=data)


def lock_of(content: dict[str, Any], path: Path) -> str:
    path.write_text(lock_text(locked(content)), encoding="utf-8")
    return str(path)


def budget(tmp_path: Path, text: str) -> Budget:
    path = tmp_path / "snncompile.toml"
    path.write_text(text, encoding="utf-8")
    return Budget(str(path))


LOCK = """\
 "layers": {
  "conv": {"mac": 64},
  "fc": {"ac": 3},
  "lif": {"neuron_updates": 16, "spikes_out": 3},
  "readout": {"readout_adds": 4}
 },
"""


def test_a_lock_has_a_layer_a_line_and_reads_back(tmp_path: Path) -> None:
    path = lock_of(report(), tmp_path / "l.json")
    text = Path(path).read_text(encoding="utf-8")
    assert LOCK in text
    assert read_lock(path) == locked(report())
    keys = [line.split('"')[1] for line in text.splitlines() if line.startswith(' "')]
    assert keys == sorted(keys)
    assert lock_text(read_lock(path)) == text


def test_the_same_counts_pass(tmp_path: Path) -> None:
    path = lock_of(report(), tmp_path / "l.json")
    verdict = against(report(), read_lock(path), path, NONE)
    assert verdict.failures == verdict.notes == ()
    assert len(verdict.tested) == 5


def test_one_ac_more_fails_and_names_the_layer(tmp_path: Path) -> None:
    path = lock_of(report(3), tmp_path / "l.json")
    line = Path(path).read_text(encoding="utf-8").splitlines().index('  "fc": {"ac": 3},') + 1
    verdict = against(report(4), read_lock(path), path, NONE)
    layer, population, *totals = verdict.failures
    assert str(population) == f"{path}:{line + 1}: layer lif: 4 spikes out, 3 in the baseline: +1 (+33.3333%)"
    assert str(layer) == f"{path}:{line}: layer fc: 4 ac, 3 in the baseline: +1 (+33.3333%)"
    assert [total.message for total in totals] == [
        "4 ac, 3 in the baseline: +1 (+33.3333%)",
        "4 spikes out, 3 in the baseline: +1 (+33.3333%)",
    ]
    assert verdict.notes == (
        "network and weights are the baseline's: what changed is the program that runs or counts them",
    )
    assert not against(report(4), read_lock(path), path, Fraction(1, 3)).failures
    assert against(report(4), read_lock(path), path, Fraction(33, 100)).failures


def test_one_ac_less_passes_and_says_so(tmp_path: Path) -> None:
    path = lock_of(report(3), tmp_path / "l.json")
    verdict = against(report(2), read_lock(path), path, NONE)
    assert not verdict.failures
    assert "2 counts of layers are below the baseline" in verdict.notes[0]


def test_a_renamed_layer_fails_whatever_may_rise(tmp_path: Path) -> None:
    path = lock_of(report(), tmp_path / "l.json")
    verdict = against(report(fc="head"), read_lock(path), path, Fraction(100))
    assert [str(failure).split(": ", 1)[1] for failure in verdict.failures] == [
        "layer fc: is in the baseline and not in the network; new: head",
        "layer head: is in the network and not in the baseline",
    ]


@pytest.mark.parametrize(
    ("other", "what"),
    [
        (report() | {"level": "fixed"}, "level is not"),
        (report() | {"data": {"name": "two", "digest": "of others"}}, "data is not"),
        (report(cost=CostModel.load("horowitz45-int8")), "cost model is not"),
        (report(options=Options(zero_skip=True)), "conventions is not"),
    ],
)
def test_other_things_counted_are_no_verdict(tmp_path: Path, other: dict[str, Any], what: str) -> None:
    path = lock_of(report(), tmp_path / "l.json")
    with pytest.raises(Incomparable, match=what) as caught:
        against(other, read_lock(path), path, NONE)
    assert caught.value.exit_code == 9


def test_a_lock_that_was_changed_is_refused(tmp_path: Path) -> None:
    path = Path(lock_of(report(), tmp_path / "l.json"))
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace('"fc": {"ac": 3}', '"fc": {"ac": 9}'), encoding="utf-8")
    with pytest.raises(ReadError, match=r"l\.json: was changed after it was written"):
        read_lock(str(path))
    for content, message in (("{", "is no baseline"), ("[]", "its schema"), ('{"schema": "x"}', "its schema")):
        path.write_text(content, encoding="utf-8")
        with pytest.raises(ReadError, match=message):
            read_lock(str(path))
    with pytest.raises(ReadError, match="make it with --update-baseline"):
        read_lock(str(tmp_path / "absent.json"))


BUDGET = """\
[budget]
max_increase = "0.5%"

[budget.max]
ac = 1
mac = 32
energy_nj = 0.1484

[budget.max.rate]
"l*" = 0.18

[budget.layers."f*"]
ac = 1.5
energy_nj = 0

[budget.min]
accuracy = 1
"""


def test_every_limit_that_does_not_hold_is_named_with_its_line(tmp_path: Path) -> None:
    limits = budget(tmp_path, BUDGET)
    verdict = within(report(), limits)
    assert limits.increase == Fraction(5, 1000)
    # means of two samples: 1.5 AC and 32 MAC, 1.5 * 0.9 + 32 * 4.6 = 148.55 pJ; 3 spikes of 2 * 2 * 4
    path = limits.sheet.label
    assert [str(failure) for failure in verdict.failures] == [
        f"{path}:5: max.ac: 1.5 a sample, 1 allowed",
        f"{path}:7: max.energy_nj: 0.14855 a sample, 0.1484 allowed",
        f"{path}:14: layers.fc.energy_nj: 0.00135 a sample, 0 allowed",
        f"{path}:10: max.rate.lif: fires at 18.7500%, 18.0000% allowed",
    ]
    assert verdict.tested == (
        *("max.ac", "max.mac", "max.energy_nj", "layers.fc.ac", "layers.fc.energy_nj", "max.rate.lif", "min.accuracy"),
    )


def test_an_accuracy_below_its_floor_fails(tmp_path: Path) -> None:
    limits = budget(tmp_path, "[budget.min]\naccuracy = 0.9\n")
    (failure,) = within(report() | {"correct_by_steps": [2, 1]}, limits).failures
    assert (failure.line, failure.message) == (2, "50.0000%, at least 90.0000% asked for")
    (failure,) = within(report() | {"correct_by_steps": None}, limits).failures
    assert failure.message.startswith("no accuracy")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[budged]\n", r"toml:1, budged: unknown key; did you mean budget"),
        ("[budget]\nmaximum = 1\n", r"toml:2, budget\.maximum: unknown key"),
        ("[budget.max]\nacs = 1\n", r"toml:2, budget\.max\.acs: unknown key"),
        ("[budget.max]\nac = -1\n", r"toml:2, budget\.max\.ac: expected a number that is not negative"),
        ("[budget.max]\nac = nan\n", r"toml:2, budget\.max\.ac: expected a number"),
        ('[budget.max]\nac = "9"\n', r"toml:2, budget\.max\.ac: expected a number"),
        ('[budget.layers."f*"]\nrate = 1\n', r"toml:2, budget\.layers\.f\*\.rate: unknown key"),
        ('[budget]\nmax_increase = "-1%"\n', r"toml:2, budget\.max_increase: expected a percentage"),
        ('[budget]\nmax_increase = "one"\n', r"toml:2, budget\.max_increase: expected a percentage"),
        ("budget = 3\n", "expected a table"),
    ],
)
def test_a_wrong_budget_is_refused_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SheetError, match=message):
        within(report(), budget(tmp_path, text))


def test_a_limit_on_no_layer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ReadError, match=r"toml:2: no layer is named 'block\*'; one of conv, lif, fc, readout"):
        within(report(), budget(tmp_path, '[budget.layers."block*"]\nac = 1\n'))
    with pytest.raises(ReadError, match=r"no layer is named 'fc'; one of lif"):
        within(report(), budget(tmp_path, "[budget.max.rate]\nfc = 1\n"))


# --- what machines read -----------------------------------------------------------------------------------------------

JUNIT = """\
<?xml version="1.0" encoding="utf-8"?>
<testsuite name="energy" tests="6" failures="4" errors="0" skipped="0">
  <testcase classname="n&amp;t" name="layer conv"/>
  <testcase classname="n&amp;t" name="layer readout"/>
  <testcase classname="n&amp;t" name="layer fc"><failure message="4 ac, MORE">LOCK:9</failure></testcase>
  <testcase classname="n&amp;t" name="layer lif"><failure message="4 spikes out, MORE">LOCK:10</failure></testcase>
  <testcase classname="n&amp;t" name="total"><failure message="4 ac, MORE">LOCK:18</failure></testcase>
  <testcase classname="n&amp;t" name="total"><failure message="4 spikes out, MORE">LOCK:18</failure></testcase>
</testsuite>
""".replace("MORE", "3 in the baseline: +1 (+33.3333%)")


def test_golden_junit(tmp_path: Path) -> None:
    path = lock_of(report(3), tmp_path / "l.json")
    verdict = against(report(4), read_lock(path), path, NONE)
    assert junit("n&t", verdict.tested, verdict.failures).replace(path, "LOCK") == JUNIT


def test_annotations_are_no_more_than_github_shows(tmp_path: Path) -> None:
    (failure, *_) = within(report(), budget(tmp_path, "[budget.max]\nac = 0\n")).failures
    (line,) = annotations([failure])
    assert line == f"::error file={failure.path},line=2,title=energy::max.ac: 1.5 a sample, 0 allowed"
    many = annotations([failure] * 40)
    assert len(many) == 10
    assert many[-1] == "::error title=energy::31 more limits do not hold: see the log"
    assert annotations([failure] * 10) == [line] * 10


def test_benchmark_json() -> None:
    found = json.loads(json.dumps(benchmark(report())))
    assert found[0] == {"name": "energy (horowitz45)", "unit": "nJ", "value": pytest.approx(0.14855)}
    assert [(one["name"], one["value"]) for one in found[1:]] == [
        ("total AC", 1.5),
        ("total MAC", 32),
        ("conv MAC", 32),
        ("fc AC", 1.5),
    ]


# --- what looks like something else -----------------------------------------------------------------------------------


def test_spikes_that_reach_nothing_are_held_too(tmp_path: Path) -> None:
    """They cost where a list prices them, and no AC shows them."""
    path = lock_of(report(3), tmp_path / "l.json")
    more = report(3)
    for table in (more["layers"][1]["columns"], more["totals"]):
        table["spikes_out"] += 1
    assert [failure.name for failure in against(more, read_lock(path), path, NONE).failures] == ["layer lif", "total"]


def test_lines_are_those_of_layers_whatever_they_are_called(tmp_path: Path) -> None:
    """Also as the keys of the baseline itself."""
    for name in ("totals", "data", "weights", "layers"):
        path = lock_of(report(3, fc=name), tmp_path / "l.json")
        lines = Path(path).read_text(encoding="utf-8").splitlines()
        failures = {
            one.name: one.line or 0 for one in against(report(4, fc=name), read_lock(path), path, NONE).failures
        }
        assert lines[failures[f"layer {name}"] - 1].startswith(f'  "{name}": {{"ac": 3}}')
        assert lines[failures["total"] - 1].startswith(' "totals": ')


def test_a_key_that_stands_twice_is_refused(tmp_path: Path) -> None:
    """The reader of a file and the reader of a review need not take the same one."""
    path = Path(lock_of(report(), tmp_path / "l.json"))
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace('  "fc": {"ac": 3},', '  "fc": {"ac": 9},\n  "fc": {"ac": 3},'), encoding="utf-8")
    with pytest.raises(ReadError, match=r"l\.json: is no baseline \('fc' stands twice in one table\)"):
        read_lock(str(path))


def test_a_limit_at_the_energy_itself_holds(tmp_path: Path) -> None:
    """A sum of floats: 0.14855 nJ is a little more in its last digits, or a little less."""
    one = report()
    for energy in (0.14855e-9, np.nextafter(0.14855e-9, 1), np.nextafter(0.14855e-9, 0)):
        limits = budget(tmp_path, "[budget.max]\nenergy_nj = 0.14855\n")
        assert not within(one | {"energy_per_sample_J": float(energy)}, limits).failures
    assert within(one | {"energy_per_sample_J": 0.148551e-9}, limits).failures


def test_limits_of_layers_with_brackets_have_lines(tmp_path: Path) -> None:
    """``[..]`` of a glob, in the header of a table."""
    limits = budget(tmp_path, '\n[budget.layers."f[a-d]"]\nac = 1\n')
    (failure,) = within(report(), limits).failures
    assert (failure.name, failure.line) == ("layers.fc.ac", 3)


def test_a_case_has_one_name_whether_it_holds_or_not(tmp_path: Path) -> None:
    path = lock_of(report(3), tmp_path / "l.json")
    holds, fails = (against(report(spikes), read_lock(path), path, NONE) for spikes in (3, 4))
    assert holds.tested == fails.tested
    assert {failure.name for failure in fails.failures} < set(fails.tested)


def test_what_xml_has_no_letters_for_is_left_out() -> None:
    ElementTree.fromstring(junit("a\x00\ud800\ufffe\uffff<\U0001f600", ["\x1b"], ()).split("\n", 1)[1])
