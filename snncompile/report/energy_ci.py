"""What machines read: JUnit XML, GitHub's annotations, and the JSON of github-action-benchmark."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, Protocol

SUMMARY_BYTES = 1 << 20  # beyond it GitHub drops the whole summary
ANNOTATIONS = 10  # of one kind, a step


class Failed(Protocol):
    """A limit that does not hold."""

    @property
    def name(self) -> str: ...
    @property
    def message(self) -> str: ...
    @property
    def path(self) -> str: ...
    @property
    def line(self) -> int | None: ...


def junit(name: str, tested: Sequence[str], failures: Sequence[Failed]) -> str:
    """A test suite: one case a limit; failures in cases of their own, so that none hides another."""
    broken = {failure.name for failure in failures}
    cases = [f'  <testcase classname="{_text(name)}" name="{_text(one)}"/>' for one in tested if one not in broken]
    for failure in failures:
        where = f"{failure.path}:{failure.line}" if failure.line else failure.path
        cases.append(
            f'  <testcase classname="{_text(name)}" name="{_text(failure.name)}">'
            f'<failure message="{_text(failure.message)}">{_text(where)}</failure></testcase>'
        )
    head = f'<testsuite name="energy" tests="{len(cases)}" failures="{len(failures)}" errors="0" skipped="0">'
    return '<?xml version="1.0" encoding="utf-8"?>\n' + "\n".join([head, *cases, "</testsuite>"]) + "\n"


def _text(text: str) -> str:
    """Escaped, between tags or quotes, and without characters that XML does not have."""
    return escape(
        "".join(char for char in text if " " <= char < "\ud800" or "\ue000" <= char < "\ufffe" or char > "\uffff")
    )


def annotations(failures: Sequence[Failed]) -> list[str]:
    """GitHub's error commands, no more than it shows; the last one says how many there are besides."""
    shown = failures if len(failures) <= ANNOTATIONS else failures[: ANNOTATIONS - 1]
    lines = []
    for failure in shown:
        place = f"file={_property(failure.path)}" + (f",line={failure.line}" if failure.line else "")
        lines.append(f"::error {place},title=energy::{_data(f'{failure.name}: {failure.message}')}")
    if len(shown) < len(failures):
        lines.append(f"::error title=energy::{len(failures) - len(shown)} more limits do not hold: see the log")
    return lines


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def benchmark(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """``customSmallerIsBetter`` of github-action-benchmark: means a sample, in all and of every layer with weights."""
    samples, model = report["samples"], report["cost_model"]["name"]
    found: list[dict[str, Any]] = [
        {"name": f"energy ({model})", "unit": "nJ", "value": report["energy_per_sample_J"] * 1e9},
        *(
            {"name": f"total {key.upper()}", "unit": "operations", "value": report["totals"][key] / samples}
            for key in ("ac", "mac")
        ),
    ]
    for layer in report["layers"]:
        for key in ("ac", "mac"):
            if key in layer["columns"]:
                value = layer["columns"][key] / samples
                found.append({"name": f"{layer['name']} {key.upper()}", "unit": "operations", "value": value})
    return found
