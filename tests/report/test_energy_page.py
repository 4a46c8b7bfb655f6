"""The energy report as Markdown, as a page, as JSON by its published schema: golden on a net of two layers."""

from __future__ import annotations

import itertools
import json
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from snncompile.cost_model import CostModel
from snncompile.energy import count
from snncompile.energy_compat import also
from snncompile.ir.graph import Edge, Graph
from snncompile.ir.ops import Conv, Dense, Input, Neuron, Op, Output, Readout
from snncompile.report.document import Figure, to_html, to_markdown
from snncompile.report.energy_page import MOST_ROWS, energy_page
from snncompile.report.energy_report import ann_sentences, nanojoules, reprice, to_json
from snncompile.report.energy_svg import histogram, over_steps, shares
from snncompile.run.trace import Trace

SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "energy.schema.json").read_text(encoding="utf-8"))


def report(name: str = "tiny") -> dict[str, Any]:
    """3x3 pixels, one convolution, nine neurons of which three fire in the first of two samples, two answers."""
    nodes: dict[str, Op] = {
        "image": Input((1, 3, 3)),
        "conv": Conv(np.ones((1, 1, 3, 3)), np.array([0.5]), (1, 1), (1, 1)),
        "lif": Neuron((1, 3, 3)),
        "fc": Dense(np.ones((2, 9))),
        "readout": Readout((2,)),
        "output": Output(),
    }
    graph = Graph(nodes, [Edge(a, b) for a, b in itertools.pairwise(nodes)])
    spikes = np.zeros((2, 2, 1, 3, 3), dtype=bool)
    spikes[0, 0, 0, 1, 1] = spikes[0, 0, 0, 0, 2] = spikes[0, 1, 0, 2, 0] = True
    counts = count(graph, {"image": np.full((2, 2, 1, 3, 3), 0.25)}, Trace({"lif": spikes}))
    return to_json(counts, CostModel.load("horowitz45"), name=name, level="read", correct=[1, 2])


GOLDEN = """\
# Energy of tiny

tiny (read) at T = 2: 3 AC + 98 MAC = 0.45 nJ a sample, mean of 2.

An estimate at the prices of Horowitz 2014, 45 nm, 32-bit floating point (horowitz45, fp32: AC 0.9 pJ, MAC 4.6 pJ); \
arithmetic only: no memory, addressing, communication or static power.

Counted, not in the energy: 18 neuron updates, 18 bias adds, 4 readout adds a sample.

Accuracy 100.00% on these samples.

## Gate

Gate: 3 limits hold.

## Layers, a sample

| layer | role | spikes in | rate | AC | MAC | traffic | nJ | share |
| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
| conv | encoder |  |  |  | 98 | 196 | 0.45 | 99.4% |
| fc | readout | 1.5 | 8.33% | 3 |  | 10.5 | 0.0027 | 0.6% |
| total |  |  |  | 3 | 98 | 262 | 0.45 | 100.0% |

Traffic: accesses to memory where nothing is kept at hand; it costs only under price lists with memory. Most is taken \
by conv (99.4%), fc (0.6%).

## Energy and accuracy against T

All from one run: what happens at a step causes nothing before it, and the answer is a running sum.

| T | nJ | accuracy |
| ---: | ---: | ---: |
| 1 | 0.23 | 50.00% |
| 2 | 0.45 | 100.00% |

## Spread over samples
"""


def test_golden_markdown() -> None:
    text = to_markdown(energy_page(report(), ["Gate: 3 limits hold."], pictures=False))
    assert text.startswith(GOLDEN)
    assert "The least takes sample 1, the most sample 0 (counted from 0)." in text
    assert "The ANN wins: the spiking network takes 1.47 times its energy. At no rate would it take less" in text
    assert "| lif | encoder | 9 | 1.5 | 8.33% | 6 (66.7%) | 0 (0.0%) |" in text
    assert "![" not in text


def test_the_page_needs_nothing_else() -> None:
    page = to_html("Energy", energy_page({**report("<b>"), "also": also(report(), "tet,neurobench")}, ["Gate: <i>"]))
    assert "<script" not in page
    assert "<b>" not in page
    assert "<i>" not in page
    assert not re.search(r'(src|href)="', page)
    assert "http" not in page.replace('xmlns="http://www.w3.org/2000/svg"', "")
    assert page.count("<svg") == 3
    assert '<meta name="viewport"' in page
    for block in energy_page(report()):
        if isinstance(block, Figure):
            ElementTree.fromstring(f"<p>{block.markup}</p>")


@pytest.mark.parametrize("steps", [1, 2, 300])
def test_charts_hold_any_numbers(steps: int) -> None:
    for chart in (
        over_steps([0.0] * steps, None),
        over_steps([float(step) for step in range(steps)], [0.5] * steps),
        over_steps([1e9] * steps, [1.0] * steps),
        histogram([3.0] * steps, 3.0, 3.0),
        shares(["a" * 50, "<&>"], [1.0, 0.0]),
    ):
        ElementTree.fromstring(chart)
        assert "nan" not in chart


def test_long_reports_are_cut_and_say_so() -> None:
    whole = report()
    many = whole["layers"] * (MOST_ROWS * 2)
    text = to_markdown(energy_page({**whole, "layers": many}, ["no"] * 5000, pictures=False))
    assert len(text.encode()) < 1 << 20
    assert "4,600 more in the log." in text
    assert "| 1,200 more in the JSON report |" in text  # of 1600 layers with weights
    assert "| 400 more in the JSON report |" in text  # of 800 populations
    brief = to_markdown(energy_page(whole, ["Gate: 3 limits hold."], brief=True))
    assert "Gate: 3 limits hold." in brief
    assert "## Layers" not in brief


def test_names_that_are_long_leave_the_numbers_in_sight() -> None:
    """In the table they are broken, in the chart both ends stand and the whole is at hand."""
    name = "model.stage1." + "block." * 30 + "conv<1>"
    page = to_html("Energy", energy_page(named(report(), name)))
    assert '<td class="l">model.stage1.' in page
    assert "<td>fc</td>" in page
    assert re.search(r'text-anchor="end"[^>]*>mode\u2026k.conv&lt;1&gt;</text>', page)
    assert page.count(f"<title>model.stage1.{'block.' * 30}conv&lt;1&gt;</title>") == 1


def named(content: dict[str, Any], name: str) -> dict[str, Any]:
    first, *rest = content["layers"]
    return {**content, "layers": [{**first, "name": name}, *rest]}


def test_a_page_says_what_its_chart_leaves_out() -> None:
    whole = report()
    many = [{**whole["layers"][0], "name": f"conv{index}"} for index in range(60)]
    page = to_html("Energy", energy_page({**whole, "layers": many}))
    assert "Share of each layer in the energy: the 40 largest of 60." in page
    assert "largest of" not in to_html("Energy", energy_page(whole))


def test_without_labels_no_column_waits_for_an_accuracy() -> None:
    text = to_markdown(energy_page({**report(), "correct_by_steps": None, "accuracy": None}, pictures=False))
    assert "| T | nJ |\n| ---: | ---: |\n| 1 | 0.23 |" in text
    assert "ccuracy |" not in text


def test_what_takes_nothing_is_not_among_what_takes_most() -> None:
    whole = report()
    silent = [
        {**layer, "energy_per_sample_J": layer["energy_per_sample_J"] * (not index)}
        for index, layer in enumerate(whole["layers"])
    ]
    text = to_markdown(energy_page({**whole, "layers": silent}, pictures=False))
    assert re.search(r"Most is taken by conv \([\d.]+%\)\.", text)


def test_labels_of_many_steps_do_not_touch_and_dots_do_not_hide_the_line() -> None:
    """A letter is at most 8 wide."""
    for steps in (2, 10, 11, 99, 100, 300, 1000):
        chart = over_steps([float(step) for step in range(steps)], None)
        labels = re.findall(r'<text x="([\d.]+)" y="215.0"[^>]*>(\d+)</text>', chart)
        ends = [(float(x) - 4 * len(text), float(x) + 4 * len(text)) for x, text in labels]
        assert len(labels) > 1
        assert all(one[1] < other[0] for one, other in itertools.pairwise(ends)), steps
        assert ("<circle" in chart) == (steps <= 40)


def test_samples_that_are_all_the_same_stand_in_the_middle() -> None:
    chart = histogram([18.84] * 20, 18.84, 18.84)
    labels = [float(text) for text in re.findall(r'y="215.0"[^>]*>([\d.]+)</text>', chart)]
    assert labels == sorted(labels)
    assert labels[1] == 18.8


@pytest.mark.parametrize(
    ("joules", "shown"), [(0.0, "0.00"), (2.7e-12, "0.0027"), (1e-15, "1e-06"), (5e-12, "0.01"), (1.23e-6, "1,230.00")]
)
def test_little_is_not_nothing(joules: float, shown: str) -> None:
    assert nanojoules(joules) == shown


def test_a_network_that_takes_less_at_any_rate_is_told_so() -> None:
    """A rate beyond 100 % is none, and 1.0 times less says nothing."""
    whole = report()
    ann = {**whole["ann"], "energy_J": whole["energy_per_sample_J"] / 0.97, "ratio": 0.97, "rate": 0.2}
    sentence = ann_sentences({**whole, "ann": {**ann, "break_even_rate": 5.11}})[0]
    assert sentence.endswith("The spiking network takes 0.970 of that. It takes less at every rate up to 100 %.")
    sentence = ann_sentences({**whole, "ann": {**ann, "ratio": 0.5, "break_even_rate": 0.61}})[0]
    assert sentence.endswith(
        "takes 0.500 of that, 2.0 times less. Both would be equal at a rate of 61.00%; it is 20.00%."
    )


# --- the published schema ---------------------------------------------------------------------------------------------

TYPES = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None)}


def fits(value: Any, kind: str) -> bool:
    if kind in ("integer", "number"):
        return not isinstance(value, bool) and isinstance(value, int if kind == "integer" else int | float)
    return isinstance(value, TYPES[kind])


def faults(value: Any, schema: dict[str, Any], place: str = "") -> list[str]:
    """What JSON Schema's words that are used here say against a value."""
    if "$ref" in schema:
        return faults(value, SCHEMA["$defs"][schema["$ref"].rsplit("/", 1)[1]], place)
    known = {"type", "properties", "required", "additionalProperties", "items", "minimum", "enum", "const"}
    assert set(schema) <= known | {"$schema", "$id", "$defs", "title", "description"}, place
    found = []
    kinds = schema.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if kinds and not any(fits(value, kind) for kind in kinds):
        return [f"{place}: {value!r} is no {kinds}"]
    if ("const" in schema and value != schema["const"]) or value not in schema.get("enum", [value]):
        found.append(f"{place}: {value!r}")
    if "minimum" in schema and value < schema["minimum"]:
        found.append(f"{place}: {value!r} is below {schema['minimum']}")
    if isinstance(value, dict):
        found += [f"{place}.{key} is missing" for key in schema.get("required", ()) if key not in value]
        for key, inside in value.items():
            more = schema.get("properties", {}).get(key, schema.get("additionalProperties", {}))
            found += [f"{place}.{key} is unknown"] if more is False else faults(inside, more, f"{place}.{key}")
    if isinstance(value, list) and "items" in schema:
        found += [
            fault for index, one in enumerate(value) for fault in faults(one, schema["items"], f"{place}[{index}]")
        ]
    return found


def test_reports_are_what_the_schema_says() -> None:
    whole = json.loads(json.dumps({**report(), "also": also(report(), "tet,rate-flops,syops,neurobench")}))
    assert faults(whole, SCHEMA) == []
    for name in ("horowitz45-memory", "loihi1", "seneca"):
        assert faults(json.loads(json.dumps(reprice(report(), CostModel.load(name)))), SCHEMA) == []
    assert faults({**whole, "samples": 2.5}, SCHEMA) == [".samples: 2.5 is no ['integer']"]
    assert faults({**whole, "more": 1}, SCHEMA) == [".more is unknown"]
    del whole["layers"][0]["columns"]
    assert faults(whole, SCHEMA) == [".layers[0].columns is missing"]
