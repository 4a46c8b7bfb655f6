"""A report as headings, paragraphs and tables, written as Markdown or as one HTML page that needs nothing else."""

from __future__ import annotations

import html
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Heading:
    """A heading; level 1 is the title."""

    text: str
    level: int = 2


@dataclass(frozen=True)
class Paragraph:
    """Plain text."""

    text: str


@dataclass(frozen=True)
class Table:
    """``right``: columns of numbers."""

    headers: Sequence[str]
    rows: Sequence[Sequence[str]]
    right: Collection[int] = ()


@dataclass(frozen=True)
class Figure:
    """A picture: ``markup`` as it stands in the page (escaped by whoever drew it), ``file`` beside the Markdown."""

    title: str
    markup: str
    file: str


LONG_NAME = 24  # letters: longer ones in front of a row are broken, so that they do not push its numbers out of sight
Block = Heading | Paragraph | Table | Figure

STYLE = """
:root{color-scheme:light dark;--paper:#ffffff;--ink:#1c1c1c;--line:#dddddd;--shade:#0003;
--blue:#1f6ab5;--orange:#b5530f}
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;
color:var(--ink);background:var(--paper)}
h1,h2{line-height:1.2;overflow-wrap:anywhere}h2{margin-top:2rem}p{overflow-wrap:break-word}figure{margin:1rem 0}
.scroll{overflow-x:auto;background:linear-gradient(90deg,var(--paper) 50%,transparent) 0 0/2rem 100% no-repeat local,
linear-gradient(270deg,var(--paper) 50%,transparent) 100% 0/2rem 100% no-repeat local,
linear-gradient(90deg,var(--shade),transparent) 0 0/.7rem 100% no-repeat,
linear-gradient(270deg,var(--shade),transparent) 100% 0/.7rem 100% no-repeat}
table{border-collapse:collapse;font-size:.9rem;font-variant-numeric:tabular-nums}
th,td{padding:.25rem .7rem;border-bottom:1px solid var(--line);text-align:left;vertical-align:top;white-space:nowrap}
td:last-child:not(.n){white-space:normal;min-width:14rem}
.l{white-space:normal;overflow-wrap:anywhere;min-width:8rem;max-width:18rem}
.n{text-align:right}
@media(max-width:40rem){body{margin:1rem auto}table{font-size:.75rem}th,td{padding:.25rem .35rem}
td:last-child:not(.n){min-width:0}}
@media(prefers-color-scheme:dark){:root{--paper:#161616;--ink:#e8e8e8;--line:#444444;--shade:#fff3;
--blue:#6aaef2;--orange:#f0944d}}
"""


_MARKS = re.compile(r"[\\`*\[\]~$]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")  # an underscore inside a word is none
_FIRST = re.compile(r"[#>+=-]|\d+(?=[.)] )")  # what makes a line a heading, a list or a quotation


def to_markdown(blocks: Sequence[Block]) -> str:
    """GitHub's Markdown."""
    parts = []
    for block in blocks:
        match block:
            case Heading():
                parts.append("#" * block.level + " " + _line(block.text))
            case Paragraph():
                text = _line(block.text)
                first = _FIRST.match(text)
                parts.append(text if first is None else _led(text, first[0]))
            case Figure():
                parts.append(f"![{_line(block.title)}]({block.file})")
            case Table():
                rule = ["---:" if index in block.right else "---" for index in range(len(block.headers))]
                rows = [block.headers, rule, *([_line(cell).replace("|", "\\|") for cell in row] for row in block.rows)]
                parts.append("\n".join("| " + " | ".join(row) + " |" for row in rows))
    return "\n\n".join(parts) + "\n"


def _line(text: str) -> str:
    """Text that stays one line and no mark-up, whatever names are in it."""
    words = " ".join(text.split())
    return _MARKS.sub(r"\\\g<0>", words).replace("&", "&amp;").replace("<", "&lt;")


def _led(text: str, first: str) -> str:
    """A line whose first characters are text."""
    return f"{first}\\{text[len(first) :]}" if first.isdigit() else f"\\{text}"


def to_html(title: str, blocks: Sequence[Block]) -> str:
    """One page, no script, no network, readable on a phone."""
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">'
    body = "\n".join(_html(block) for block in blocks)
    return (
        f'<!doctype html>\n<html lang="en"><head>{head}<title>{html.escape(title)}</title>'
        f"<style>{STYLE}</style></head>\n<body>\n{body}\n</body></html>\n"
    )


def _html(block: Block) -> str:
    match block:
        case Heading():
            return f"<h{block.level}>{html.escape(block.text)}</h{block.level}>"
        case Paragraph():
            return f"<p>{html.escape(block.text)}</p>"
        case Figure():
            return f'<figure aria-label="{html.escape(block.title)}">{block.markup}</figure>'
        case Table():
            rows = "\n".join(f"<tr>{_cells('td', row, block.right)}</tr>" for row in block.rows)
            return (
                f'<div class="scroll"><table><tr>{_cells("th", block.headers, block.right)}</tr>\n{rows}</table></div>'
            )


def _cells(tag: str, row: Sequence[str], right: Collection[int]) -> str:
    cells = []
    for index, cell in enumerate(row):
        kind = ' class="n"' if index in right else ' class="l"' if not index and len(cell) > LONG_NAME else ""
        cells.append(f"<{tag}{kind}>{html.escape(cell)}</{tag}>")
    return "".join(cells)
