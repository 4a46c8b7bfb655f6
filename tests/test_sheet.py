"""The sheet reader: what it reads, and that every complaint names file, line and key."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from snncompile import sheet as sheets
from snncompile.errors import SheetError
from snncompile.sheet import Figure, Sheet

TEXT = '''\
title = "a sheet"

[core]
# neurons = 1
neurons = { value = 4095, unit = "neurons", source = "a log" }
ratio = 0.5
fast = true
whole = 3

[notes]
story = """
neurons = 7
[fake]
"""
"quoted" = 1
a.b = 2

[price]
secret = { status = "unavailable", source = "a table without it" }
'''

Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write_sheet(text: str) -> Path:
        path = tmp_path / "my.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write_sheet


@pytest.fixture
def sheet(write: Write) -> Sheet:
    return Sheet.read(write(TEXT), label="my.toml")


def test_values(sheet: Sheet) -> None:
    assert sheet.text("title") == "a sheet"
    assert sheet.integer("core.neurons") == 4095
    assert sheet.number("core.ratio") == 0.5
    assert sheet.number("core.whole") == 3.0
    assert sheet.flag("core.fast") is True
    assert sheet.table("notes")["a"] == {"b": 2}
    assert sheet.figure("core.neurons") == Figure(4095, "neurons", "a log")
    assert sheet.has("core.ratio")
    assert not sheet.has("core.nothing")
    assert not sheet.has("title.nothing")


@pytest.mark.parametrize(
    ("key", "line"),
    [
        ("title", 1),
        ("core", 3),
        ("core.neurons", 5),
        ("core.neurons.value", 5),
        ("core.missing", 3),
        ("notes.story", 11),
        ("notes.quoted", 15),
        ("notes.a.b", 16),
        ("price.secret", 19),
    ],
)
def test_lines(sheet: Sheet, key: str, line: int) -> None:
    assert sheet.line(key) == line
    assert sheet.cite(key) == f"my.toml:{line}, {key}"


def test_a_key_without_a_line_is_cited_without_one(sheet: Sheet) -> None:
    assert sheet.cite("nowhere") == "my.toml, nowhere"
    assert sheet.line("fake") is None


@pytest.mark.parametrize(
    ("read", "message"),
    [
        (lambda s: s.integer("core.ratio"), "my.toml:6, core.ratio: expected an integer, found 0.5"),
        (lambda s: s.integer("core.fast"), "my.toml:7, core.fast: expected an integer, found True"),
        (lambda s: s.number("core.fast"), "my.toml:7, core.fast: expected a finite number, found True"),
        (lambda s: s.number("title"), "my.toml:1, title: expected a finite number, found 'a sheet'"),
        (lambda s: s.text("core.whole"), "my.toml:8, core.whole: expected a string, found 3"),
        (lambda s: s.flag("core.whole"), "my.toml:8, core.whole: expected true or false, found 3"),
        (lambda s: s.table("core.whole"), "my.toml:8, core.whole: expected a table, found 3"),
        (lambda s: s.text("notes.a"), "my.toml:10, notes.a: expected a single value, found {'b': 2}"),
        (lambda s: s.integer("core.axons"), "my.toml:3, core.axons: missing key"),
        (
            lambda s: s.number("price.secret"),
            "my.toml:19, price.secret: unavailable: no figure is published (a table without it)",
        ),
    ],
)
def test_wrong_type_or_missing_names_line_and_key(sheet: Sheet, read: Callable[[Sheet], object], message: str) -> None:
    with pytest.raises(SheetError) as caught:
        read(sheet)
    assert str(caught.value) == message


@pytest.mark.parametrize("number", ["nan", "inf", "-inf", "1" + "0" * 400, str(2**63), str(-(2**63) - 1)])
def test_a_number_is_finite(write: Write, number: str) -> None:
    with pytest.raises(SheetError, match="expected a finite number"):
        Sheet.read(write(f"x = {number}\n")).number("x")
    with pytest.raises(SheetError, match="expected a list of finite numbers") as caught:
        Sheet.read(write(f"x = [{number}]\n")).numbers("x", float)
    assert len(str(caught.value)) < 250


@dataclass(frozen=True)
class Example:
    neurons: int
    ratio: float
    fast: bool
    whole: int = 1
    name: str = "unnamed"
    mode: Literal["wrap", "saturate"] = "wrap"
    price: float | None = None


def test_record(sheet: Sheet) -> None:
    assert sheet.record("core", Example) == Example(neurons=4095, ratio=0.5, fast=True, whole=3)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("neuron = 1", r"x\.toml:5, t\.neuron: unknown key; did you mean neurons\?"),
        ("zzz = 1", r"x\.toml:5, t\.zzz: unknown key; one of neurons, ratio"),
        ('mode = "warp"', r"x\.toml:5, t\.mode: 'warp' is not known here; one of wrap, saturate"),
        ("price = [1]", r"x\.toml:5, t\.price: expected a single value"),
        ('price = { value = 1, sources = "s" }', r"t\.price\.sources: unknown key; did you mean source\?"),
        ("price = { value = 1, status = 'unavailable' }", "either a value or a status"),
        ("price = { status = 'secret', source = 's' }", "status 'secret' is not known"),
        ("price = { value = 1, basis = 'rumour' }", "basis 'rumour' is not known; one of published"),
    ],
)
def test_record_refuses(write: Write, line: str, message: str) -> None:
    path = write(f"[t]\nneurons = 1\nratio = 0.5\nfast = true\n{line}\n")
    with pytest.raises(SheetError, match=message):
        Sheet.read(path, label="x.toml").record("t", Example)


def test_record_reads_an_unavailable_figure_as_none(write: Write) -> None:
    path = write("[t]\nneurons = 1\nratio = 1\nfast = true\nprice = { status = 'unavailable', source = 's' }\n")
    assert Sheet.read(path).record("t", Example).price is None


@pytest.mark.parametrize(
    "line",
    [
        "neurons = 1",
        "neurons = { value = 1 }",
        "neurons = { value = 1, source = '' }",
        "neurons = { value = 1, source = '  ' }",
        "neurons = { status = 'unavailable' }",
        "fast = true",
        "mode = 'wrap'",
        "list = [1, 2]",
    ],
)
def test_a_sourced_sheet_refuses_a_figure_without_source(write: Write, line: str) -> None:
    path = write(f"[core]\n{line}\n")
    with pytest.raises(SheetError, match=r"x\.toml:2, core\.\w+: a figure without a source"):
        Sheet.read(path, label="x.toml", sourced=True)
    Sheet.read(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a = \n", "not TOML"),
        (b"a = '\xff'\n", "cannot be read"),
        (b"a = " + b"9" * 5000, "not TOML"),
        (b"a = " + b"[" * 5000, "not TOML"),
    ],
)
def test_unreadable(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "bad.toml"
    path.write_bytes(content)
    with pytest.raises(SheetError, match=message):
        Sheet.read(path)
    with pytest.raises(SheetError, match="cannot be read"):
        Sheet.read(tmp_path)


def test_find_by_name_and_by_path(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    assert sheets.find("targets", "loihi").name == "loihi.toml"
    path = write(TEXT)
    assert sheets.find("targets", str(path)) == path
    monkeypatch.chdir(path.parent)
    assert sheets.find("models", "./my.toml").read_text() == TEXT
    assert sheets.find("models", "my.toml").read_text() == TEXT


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("lohi", r"lohi: no such sheet in targets/; did you mean loihi.*\?, or give the path of a \.toml file"),
        ("zzz", "zzz: no such sheet in targets/; one of .*loihi"),
        ("", "empty name"),
        ("./nowhere.toml", r"\./nowhere\.toml: no such file; the catalogue has .*loihi"),
        ("../targets/loihi", "no such file"),
    ],
)
def test_find_refuses(name: str, message: str) -> None:
    with pytest.raises(SheetError, match=message):
        sheets.find("targets", name)


def test_the_package_is_looked_at_before_the_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside = tmp_path / "snncompile" / "_catalogue" / "targets"
    outside = tmp_path / "targets"
    inside.mkdir(parents=True)
    outside.mkdir()
    (inside / "first.toml").write_text("")
    (outside / "second.toml").write_text("")
    monkeypatch.setattr(sheets, "__file__", str(tmp_path / "snncompile" / "sheet.py"))
    assert sheets.names("targets") == ["first"]
    (inside / "first.toml").unlink()
    inside.rmdir()
    assert sheets.names("targets") == ["second"]
