"""Programs on disk: what is written comes back, and what is damaged is refused."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from snncompile.errors import ReadError
from snncompile.ir.store import Program, load, save, to_json
from snncompile.ir.text import same
from snncompile.passes.balance import balance
from snncompile.passes.place import place
from snncompile.run import integer
from snncompile.run.trace import first_divergence
from snncompile.target import Target
from tests.graphs import Case, fixed_cases, read_cases
from tests.ir.test_text import golden

LOIHI = Target.load("loihi")


@given(read_cases(), fixed_cases())
def test_any_program_comes_back(tmp_path_factory: pytest.TempPathFactory, one: Case, other: Case) -> None:
    folder = tmp_path_factory.mktemp("program")
    save(Program(one.graph, "read", "", one.steps, stream=False), folder)
    again = load(folder)
    assert same(again.graph, one.graph)
    assert (again.level, again.target, again.steps, again.stream) == ("read", "", one.steps, False)
    placed = place(balance(other.graph, LOIHI).graph, LOIHI).graph
    save(Program(placed, "placed", "loihi", other.steps), folder)
    again = load(folder)
    assert same(again.graph, placed)
    assert (again.level, again.target, again.steps, again.stream) == ("placed", "loihi", other.steps, True)
    traces = [integer.run(graph, other.stimulus, LOIHI) for graph in (placed, again.graph)]
    assert first_divergence(traces[0], traces[1], placed.order) is None


def test_what_stands_in_the_file() -> None:
    plain, arrays = to_json(Program(golden(), "read", "loihi", 4))
    assert plain["schema"] == "snncompile.program/1"
    assert {key: plain[key] for key in ("target", "level", "steps", "stream")} == {
        "target": "loihi",
        "level": "read",
        "steps": 4,
        "stream": True,
    }
    assert plain["nodes"]["conv1"]["weight"] == {"array": "conv1.weight"}
    assert plain["nodes"]["fc"]["weight"] == {"mantissa": {"array": "fc.weight.mantissa"}, "exponent": 0}
    assert plain["nodes"]["lif1"]["reset"] == {"by": 0.75}
    assert plain["nodes"]["lif1"]["cores"] == [[7, 0, 16, 0, 0]]
    assert ["back", "lif1", 2] in plain["edges"]
    assert arrays["fc.weight.mantissa"].dtype == np.int64
    json.dumps(plain, allow_nan=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save(Program(golden(), "read", "loihi", 4), tmp_path)
    return tmp_path


def test_what_is_missing_is_named(folder: Path) -> None:
    (folder / "arrays.npz").unlink()
    with pytest.raises(ReadError, match=r"arrays.npz: is missing; give a folder that `export` wrote"):
        load(folder)
    with pytest.raises(ReadError, match=r"program.json: is missing"):
        load(folder / "nowhere")


def test_files_cut_short_are_refused(folder: Path) -> None:
    for name in ("program.json", "arrays.npz"):
        content = (folder / name).read_bytes()
        for length in range(0, len(content) - 2, 41):
            (folder / name).write_bytes(content[:length])
            with pytest.raises(ReadError):
                load(folder)
        (folder / name).write_bytes(content)
    assert same(load(folder).graph, golden())


@given(data=st.data())
def test_a_damaged_program_is_our_error_or_a_program(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    save(Program(golden(), "read", "loihi", 4), folder)
    path = folder / data.draw(st.sampled_from(["program.json", "arrays.npz"]))
    content = bytearray(path.read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    content[at] = data.draw(st.integers(0, 255))
    path.write_bytes(bytes(content))
    with contextlib.suppress(ReadError):
        load(folder)


def changed(folder: Path, change: Any) -> None:
    plain = json.loads((folder / "program.json").read_text())
    change(plain)
    (folder / "program.json").write_text(json.dumps(plain))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda plain: plain.update(schema="other/9"), "its schema is 'other/9', not 'snncompile.program/1'"),
        (lambda plain: plain.pop("steps"), "it is no program .KeyError: 'steps'"),
        (lambda plain: plain["nodes"]["fc"]["weight"]["mantissa"].update(array="x"), "the array 'x' is missing"),
        (lambda plain: plain["nodes"]["fc"].update(op="Fc"), "it holds a wrong graph .fc: no op is called 'Fc'"),
        (lambda plain: plain["nodes"]["fc"].pop("op"), "it is no program"),
        (lambda plain: plain["edges"].append(["fc", "gone", 0]), "it holds a wrong graph .*no node 'gone'"),
        (lambda plain: plain["edges"].append(["fc", "out", -1]), "it holds a wrong graph .*negative delay -1"),
        (lambda plain: plain["edges"].append(["fc"]), "it is no program"),
        (lambda plain: plain["nodes"]["lif1"].update(fires="<"), "it holds a wrong graph .*fires='<'"),
        (lambda plain: plain["nodes"]["lif1"].update(bias={"__import__": "os"}), "it is no program|a wrong graph"),
        (lambda plain: plain["nodes"]["lif1"].update(beta="0.5"), "it is no program|a wrong graph"),
        (lambda plain: plain.update(nodes=[1]), "it is no program"),
        (lambda plain: plain["nodes"]["lif1"].update(shape=-1), "shape=-1 is no list of integers"),
        (lambda plain: plain["nodes"]["lif1"].update(shape=None), "shape=None is no list of integers"),
        (lambda plain: plain["nodes"]["conv1"].update(stride=[1.5, 1]), "is no list of integers"),
        (lambda plain: plain["nodes"]["lif1"].update(phase=1.5), "phase=1.5 is no integer"),
        (lambda plain: plain["nodes"]["lif1"].update(amplitude="1"), "amplitude='1' is no finite number"),
        (lambda plain: plain["nodes"]["lif1"].update(unit=float("inf")), "unit=inf is no finite number"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told(folder: Path, change: Any, message: str) -> None:
    changed(folder, change)
    with pytest.raises(ReadError, match=message):
        load(folder)


@pytest.mark.parametrize("text", ["[1]", "null", "3", "{}", "", "[" * 100000, "{\x00"])
def test_json_of_something_else_is_refused(folder: Path, text: str) -> None:
    (folder / "program.json").write_text(text)
    with pytest.raises(ReadError):
        load(folder)


def test_pickles_are_not_loaded(folder: Path) -> None:
    np.savez(folder / "arrays.npz", **{"conv1.weight": np.array([{}], dtype=object)})
    with pytest.raises(ReadError, match="cannot be read"):
        load(folder)
