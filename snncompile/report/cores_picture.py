"""The cores of a placed network as a picture: chips are frames, cores are cells, populations are colours.

How far a cell is filled is how far the scarcest thing of its core is used: neurons, synaptic words or axons. Made from
the manifest alone, as SVG without script: for a page (a picture a chip, which wrap on a narrow screen, and a legend of
text) and as a file of its own.
"""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

CELL, GAP = 14, 2
PITCH = CELL + GAP
MARGIN = 8
HEAD = 18  # the line with a chip's name
MOST_CHIPS = 48
"""Chips beyond these are said and not drawn: a picture of thousands of cells shows nothing."""

COLUMNS = 4  # chips side by side in the file
LINE = 18  # of the legend
ENTRY = 225
WIDTH_OF_NAME = 24

STYLE = """
.chips{display:flex;flex-wrap:wrap;gap:.75rem;margin:.5rem 0}.chips svg{max-width:100%;height:auto}
.legend{display:flex;flex-wrap:wrap;gap:.15rem 1.25rem;list-style:none;padding:0;font-size:.85rem}
.legend i{display:inline-block;width:.8em;height:.8em;margin-right:.4em;border-radius:2px}
"""


@dataclass(frozen=True)
class Cell:
    """A core that is used: what it is filled with, how far (0 to 1), and what a pointer is told."""

    core: int
    colour: str
    used: float
    told: str


@dataclass(frozen=True)
class Entry:
    """A population in the legend."""

    name: str
    colour: str
    cores: int
    used: float

    @property
    def text(self) -> str:
        cores = "1 core" if self.cores == 1 else f"{self.cores} cores"
        return f"{cores}, up to {self.used:.0%}"


@dataclass(frozen=True)
class Picture:
    """The cells of every chip in use, and the legend."""

    chips: Mapping[int, list[Cell]]
    legend: list[Entry]
    chip_cores: int
    board: str

    @classmethod
    def of(cls, manifest: Mapping[str, Any]) -> Picture:
        """The picture of a bundle's placement."""
        target, slices = manifest["target"], manifest["placement"]
        names = list(dict.fromkeys(entry["population"] for entry in slices))
        colours = {name: _colour(index) for index, name in enumerate(names)}
        chips: dict[int, list[Cell]] = {}
        for entry in slices:
            share = entry["share"]
            scarcest = max(share, key=lambda key: share[key])
            told = f"core {entry['core']}: {entry['population']}, {entry['neurons']:,} neurons, "
            told += f"{share[scarcest]:.0%} of {scarcest.replace('_', ' ')}"
            cell = Cell(entry["core"], colours[entry["population"]], share[scarcest], told)
            chips.setdefault(entry["core"] // target["chip_cores"], []).append(cell)
        legend = []
        for name in names:
            own = [entry for entry in slices if entry["population"] == name]
            used = max(max(entry["share"].values()) for entry in own)
            legend.append(Entry(name, colours[name], len(own), used))
        return cls(chips, legend, target["chip_cores"], target["board"])

    @property
    def columns(self) -> int:
        """Cores in a row of a chip: a little wider than high."""
        columns = 1
        while columns * columns * 5 < self.chip_cores * 6:
            columns += 1
        return columns

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of a chip."""
        rows = -(-self.chip_cores // self.columns)
        return 2 * MARGIN + self.columns * PITCH - GAP, HEAD + MARGIN + rows * PITCH - GAP

    @property
    def left_out(self) -> str:
        """What is said of chips that are not drawn."""
        more = len(self.chips) - MOST_CHIPS
        return f"{more} more {'chip is' if more == 1 else 'chips are'} not drawn." if more > 0 else ""


def cores_html(manifest: Mapping[str, Any]) -> str:
    """For a page: an SVG a chip, which wrap, and the legend as text beside colours."""
    picture = Picture.of(manifest)
    width, height = picture.size
    drawn = list(picture.chips)[:MOST_CHIPS]
    frames = "\n".join(
        f'<svg role="img" aria-label="cores of chip {chip}" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}">{_chip(picture, chip, "currentColor")}</svg>'
        for chip in drawn
    )
    legend = "\n".join(
        f'<li><i style="background:{entry.colour}"></i>{html.escape(entry.name)}: {entry.text}</li>'
        for entry in picture.legend
    )
    rest = f"<p>{picture.left_out}</p>" if picture.left_out else ""
    return f'<style>{STYLE}</style><div class="chips">\n{frames}\n</div>{rest}\n<ul class="legend">\n{legend}\n</ul>'


def cores_svg(manifest: Mapping[str, Any]) -> str:
    """A file of its own: chips in rows, the legend below, on white."""
    picture = Picture.of(manifest)
    width, height = picture.size
    drawn = list(picture.chips)[:MOST_CHIPS]
    columns = min(COLUMNS, len(drawn))
    whole = max(columns * (width + MARGIN), 2 * ENTRY) + MARGIN
    parts = []
    for index, chip in enumerate(drawn):
        x, y = MARGIN + index % columns * (width + MARGIN), MARGIN + index // columns * (height + MARGIN)
        parts.append(f'<g transform="translate({x} {y})">{_chip(picture, chip, "#222")}</g>')
    below = MARGIN + -(-len(drawn) // columns) * (height + MARGIN) + LINE
    side = max(1, (whole - MARGIN) // ENTRY)
    for index, entry in enumerate(picture.legend):
        x, y = MARGIN + index % side * ENTRY, below + index // side * LINE
        name = entry.name if len(entry.name) <= WIDTH_OF_NAME else entry.name[: WIDTH_OF_NAME - 1] + "…"
        parts.append(f'<rect x="{x}" y="{y - 10}" width="11" height="11" rx="2" fill="{entry.colour}"/>')
        parts.append(f'<text x="{x + 16}" y="{y}">{html.escape(name)}: {entry.cores}, {entry.used:.0%}</text>')
    end = below + -(-len(picture.legend) // side) * LINE
    if picture.left_out:
        parts.append(f'<text x="{MARGIN}" y="{end}">{picture.left_out}</text>')
        end += LINE
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{whole}" height="{end}" viewBox="0 0 {whole} {end}" '
        f'font-family="system-ui,sans-serif" font-size="11" fill="#222">\n'
        f"<title>Cores of {html.escape(str(manifest['source']['recipe']))}</title>\n"
        f'<rect width="{whole}" height="{end}" fill="#fff"/>\n{body}\n</svg>\n'
    )


def _chip(picture: Picture, chip: int, ink: str) -> str:
    """A frame with the chip's number, and all its cores: used ones filled from below."""
    width, height = picture.size
    cells = {cell.core % picture.chip_cores: cell for cell in picture.chips[chip]}
    parts = [
        f'<rect x=".5" y=".5" width="{width - 1}" height="{height - 1}" rx="4" fill="none" stroke="{ink}" '
        'stroke-opacity=".5"/>',
        f'<text x="{MARGIN}" y="13" font-size="11" fill="{ink}">'
        f"chip {chip}: {len(cells)} of {picture.chip_cores}</text>",
    ]
    for place in range(picture.chip_cores):
        x = MARGIN + place % picture.columns * PITCH
        y = HEAD + place // picture.columns * PITCH
        parts.append(_cell(x, y, cells.get(place), ink))
    return "".join(parts)


def _cell(x: int, y: int, cell: Cell | None, ink: str) -> str:
    frame = f'<rect x="{x}" y="{y}" width="{CELL}" height="{CELL}" rx="1"'
    if cell is None:
        return f'{frame} fill="{ink}" fill-opacity=".07"/>'
    filled = max(1.0, round(CELL * min(1.0, cell.used), 1))
    return (
        f"<g><title>{html.escape(cell.told)}</title>"
        f'{frame} fill="{cell.colour}" fill-opacity=".3"/>'
        f'<rect x="{x}" y="{y + CELL - filled:g}" width="{CELL}" height="{filled:g}" rx="1" fill="{cell.colour}"/></g>'
    )


def _colour(index: int) -> str:
    """Neighbours in the legend are far apart on the wheel of hues, and darker and lighter by turns."""
    return f"hsl({index * 137.5 % 360:.0f},60%,{(45, 58)[index % 2]}%)"
