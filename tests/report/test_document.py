"""Reports: Markdown and HTML that are well formed whatever is in them, and the bundle's report from its manifest."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any
from xml.etree import ElementTree

import pytest

from snncompile.report.bundle_report import bundle_report
from snncompile.report.cores_picture import cores_html, cores_svg
from snncompile.report.document import STYLE, Block, Heading, Paragraph, Table, to_html, to_markdown
from snncompile.report.energy_svg import BLUE, ORANGE
from snncompile.report.table import table

HOSTILE = '<script>alert(1)</script> a|b & "c"\n# d \''
BLOCKS: list[Block] = [
    Heading(HOSTILE, 1),
    Paragraph(HOSTILE),
    Table(["name", "number"], [[HOSTILE, "1"], ["plain", "22"]], {1}),
]
VOID = {"meta", "link", "br", "img"}


class Checked(HTMLParser):
    """Fails on a tag that is not closed where it should be; collects tags, attributes and text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.values: list[str] = []
        self.text = ""
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.values += [value or "" for _, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def luminance(colour: str) -> float:
    """WCAG 2: relative luminance of ``#rrggbb``."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_and_charts_stand_out_from_the_paper(scheme: str) -> None:
    """4.5 to 1, what WCAG 2 asks of text at level AA: the charts write in their colours."""
    light, _, dark = STYLE.partition("prefers-color-scheme:dark")
    colours = dict(re.findall(r"--(\w+):(#[0-9a-f]{6})", light if scheme == "light" else dark))
    paper = luminance(colours["paper"])
    for name in ("ink", "blue", "orange"):
        least, most = sorted((luminance(colours[name]), paper))
        assert (most + 0.05) / (least + 0.05) >= 4.5, name
    for colour in (BLUE, ORANGE):
        name, fallback = colour.removeprefix("var(--").removesuffix(")").split(",")
        assert dict(re.findall(r"--(\w+):(#[0-9a-f]{6})", light))[name] == fallback


def test_html_is_well_formed_and_asks_nobody() -> None:
    page = to_html(HOSTILE, BLOCKS)
    found = Checked(page)
    assert page.startswith("<!doctype html>\n")
    assert set(found.tags) == {
        "html",
        "head",
        "meta",
        "title",
        "style",
        "body",
        "h1",
        "p",
        "div",
        "table",
        "tr",
        "th",
        "td",
    }
    assert found.text.count(HOSTILE) == 4, "title, heading, paragraph and cell say it as it is"
    assert not re.search(r"https?:|//|url\(|@import|src=|href=", page)
    assert 'name="viewport"' in page


def test_markdown_stays_one_line_a_block_and_no_mark_up() -> None:
    said = '&lt;script>alert(1)&lt;/script> a|b &amp; "c" # d \''
    assert to_markdown(BLOCKS) == (
        f"# {said}\n\n{said}\n\n| name | number |\n| --- | ---: |\n| {said.replace('|', chr(92) + '|')} | 1 |\n"
        "| plain | 22 |\n"
    )


def test_tables_of_text() -> None:
    assert table(["name", "n"], [["a", "1"], ["long", "200"]], right={1}) == (
        "name    n\n----  ---\na       1\nlong  200"
    )
    with pytest.raises(ValueError, match="1 cells under 2 headers"):
        table(["a", "b"], [["x"]])


def manifest() -> dict[str, Any]:
    rung = {"run_by": "cpu", "against": "timed", "note": "", "compared": 1234567, "different": 0}
    range_ = {"limit": 100.0, "worst": 25.0, "proven": True}
    layer = {"name": "lif1", "unit": 0.012345, "threshold": 4321, "error": 0.0123, "clipped": 2, "weights": 1000}
    layer |= {"wrong": 3, "compared": 1200, "otherwise": 5}
    share = {"neurons": 0.5, "synaptic_words": 0.25, "axons_in": 0.125, "axons_out": 0.01}
    use = {"neurons": 64, "synaptic_words": 3000, "axons_in": 2000, "axons_out": 160}
    return {
        "source": {"name": "net.pt", "sha256": "0123456789abcdef", "recipe": "net"},
        "versions": {"snncompile": "9.9"},
        "target": {
            **{"name": "loihi", "title": "Intel Loihi 2", "board": "oheo-gulch", "chips": 1, "chip_cores": 120},
            **{"chips_used": 1, "routes_between_chips": 0},
        },
        "steps": 4,
        "latency": 2,
        "stream": True,
        "cores_used": 1,
        "verification": {
            "data": "digits:test:8",
            "samples": 8,
            "rungs": [
                {"rung": 0, "level": "checkpoint", "verdict": "recorded"} | rung | {"against": "", "compared": 0},
                {"rung": 5, "level": "placed", "verdict": "bit-equal"} | rung,
            ],
        },
        "quantisation": [
            layer | {"current": range_, "potential": {"limit": 100.0, "worst": 150.0, "proven": False}},
            layer | {"name": "lif2", "current": {"limit": 1.0, "worst": None, "proven": False}, "potential": range_},
        ],
        "placement": [{"population": "lif1", "core": 0, "share": share} | use],
        "resets": {"lif2": {"interval": 4, "offset": 3}, "lif1": {"interval": 4, "offset": 2}},
        "notes": ["balance: lif3 waits"],
    }


def test_the_report_of_a_bundle() -> None:
    text = to_markdown(bundle_report(manifest()))
    lines = text.splitlines()
    assert lines[0] == "# net on Intel Loihi 2"
    assert "Exported by snncompile 9.9 from net.pt (SHA-256 0123456789ab). 4 steps a sample, latency 2 steps;" in text
    assert "samples follow each other in one stream." in text
    assert "On digits:test:8, 8 samples; each level against the rung above it." in text
    assert "| 0 | checkpoint | cpu | - | recorded | 0 | 0 |  |" in lines
    assert "| 5 | placed | cpu | timed | bit-equal | 1,234,567 | 0 |  |" in lines
    assert (
        "| lif1 | 0.01235 | 4,321 | 1.23% | 3 of 1,200 (5) | exact | 2 of 1,000 | 25% of range, proven |"
        " 150% of range, can overflow |" in lines
    )
    assert (
        "| lif2 | 0.01235 | 4,321 | 1.23% | 3 of 1,200 (5) | exact | 2 of 1,000 | unbounded, can overflow |"
        " 25% of range, proven |" in lines
    )
    assert "| lif1 | 0 | 64 (50.0%) | 3,000 (25.0%) | 2,000 (12.5%) | 160 (1.0%) |" in lines
    assert "1 of the 120 cores of a chip of the board oheo-gulch." in text
    assert "![Cores by population; filled as far as the scarcest thing is used](cores.svg)" in lines
    assert "lif1 at 2, lif2 at 3 (machine steps counted from 1), then every 4 steps." in text
    assert lines[-1] == "balance: lif3 waits"
    headings = [line for line in lines if line.startswith("#")]
    assert headings[1:] == ["## Proof", "## Quantisation", "## Placement", "## Resets", "## Notes"]
    Checked(to_html("net", bundle_report(manifest())))


def test_a_report_says_what_was_not_proven() -> None:
    said = manifest()
    said["verification"] = {"data": "", "samples": 0, "rungs": []}
    said["stream"] = False
    said["notes"] = []
    text = to_markdown(bundle_report(said))
    assert "Not verified: exported with --no-verify." in text
    assert "every sample starts afresh." in text
    assert "## Notes" not in text


def on_chips() -> dict[str, Any]:
    """A population on the last core of one chip and the first of the next."""
    said = manifest()
    (slice_,) = said["placement"]
    said["source"]["recipe"] = HOSTILE
    said["placement"] = [slice_ | {"population": name, "core": core} for name, core in (("a", 2), ("b<", 3), ("b<", 4))]
    said["placement"][2] |= {"synaptic_words": 9000, "share": slice_["share"] | {"synaptic_words": 0.75}}
    said["target"] |= {
        "board": "kapoho-point",
        "chips": 8,
        "chip_cores": 4,
        "chips_used": 2,
        "routes_between_chips": 64,
    }
    said["cores_used"] = 3
    return said


def test_several_chips_and_cores_are_told() -> None:
    text = to_markdown(bundle_report(on_chips()))
    assert "3 cores on 2 of the 8 chips of the board kapoho-point, 4 cores each. 64 times a neuron reaches" in text
    assert "| b&lt; | 3-4 | 64 (50.0%) | 9,000 (75.0%) | 2,000 (12.5%) | 160 (1.0%) |" in text.splitlines()


def test_the_picture_of_the_cores() -> None:
    """A frame a chip, a cell a core: two of four are used on the first; fill is that of the scarcest thing."""
    said = on_chips()
    page, file = cores_html(said), cores_svg(said)
    assert page.count("<svg ") == 2
    assert page.count("<title>") == file.count("<title>") - 1 == 3
    for picture in (page, file):
        assert "chip 0: 2 of 4<" in picture
        assert "chip 1: 1 of 4<" in picture
        assert "core 4: b&lt;, 64 neurons, 75% of synaptic words" in picture
        assert picture.count('height="10.5"') == 1  # 75 % of 14
        assert picture.count('height="7"') == 2
        assert picture.count('fill-opacity=".07"') == 5
    assert "b&lt;: 2 cores, up to 75%" in page
    assert HOSTILE not in file
    root = ElementTree.fromstring(file)
    assert float(root.attrib["width"]) <= 480
    Checked(to_html("net", bundle_report(said)))


def test_chips_beyond_what_a_picture_shows_are_said() -> None:
    said = on_chips()
    (first, *_) = said["placement"]
    said["placement"] = [first | {"core": 4 * chip} for chip in range(50)]
    for picture in (cores_html(said), cores_svg(said)):
        assert picture.count("chip 47:") == 1
        assert "chip 48:" not in picture
        assert "2 more chips are not drawn." in picture


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("block1_conv1", "block1_conv1"),
        ("*conv*", r"\*conv\*"),
        ("__init__", r"\_\_init\_\_"),
        ("[x](http://y)", r"\[x\](http://y)"),
        ("`a` $b$ ~c~", r"\`a\` \$b\$ \~c\~"),
        ("a\\*b", r"a\\\*b"),
        ("# a", r"\# a"),
        ("- a", r"\- a"),
        ("> a", r"\> a"),
        ("12. a", r"12\. a"),
        ("-0.28 points", r"\-0.28 points"),
        ("a\n# b", "a # b"),
        ("<b>&", "&lt;b>&amp;"),
    ],
)
def test_no_name_is_mark_up(name: str, expected: str) -> None:
    assert to_markdown([Paragraph(name)]) == expected + "\n"
