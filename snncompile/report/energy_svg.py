"""Charts as inline SVG: no script, no network, the page's own colours, readable at the width of a phone."""

from __future__ import annotations

import html
from collections.abc import Sequence

WIDTH, HEIGHT = 400, 240
LEFT, RIGHT, TOP, BOTTOM = 62, 56, 28, 42
MOST_DOTS = 40
BLUE, ORANGE = "var(--blue,#1f6ab5)", "var(--orange,#b5530f)"  # the page's, in light and in dark; else on white


def _svg(content: Sequence[str], title: str, height: float = HEIGHT) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:g}" role="img" width="100%" '
    style = 'style="max-width:32rem" font-family="system-ui,sans-serif" font-size="13" fill="currentColor"'
    return f"{head}{style}><title>{html.escape(title)}</title>" + "".join(content) + "</svg>"


def _label(x: float, y: float, text: str, anchor: str = "middle", colour: str = "currentColor") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">{html.escape(text)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, opacity: float = 0.3) -> str:
    return f'<path d="M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}" stroke="currentColor" stroke-opacity="{opacity}"/>'


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def over_steps(energies: Sequence[float], accuracies: Sequence[float] | None, unit: str = "nJ") -> str:
    """Energy (left axis, from 0) and accuracy (right axis, fractions) of runs of 1, 2, ... steps."""
    steps, top = len(energies), max([*energies, 1e-30])
    right, floor = WIDTH - RIGHT, HEIGHT - BOTTOM

    def x(step: int) -> float:
        return LEFT + 10 + (right - LEFT - 20) * (step / (steps - 1) if steps > 1 else 0.5)

    def curve(heights: Sequence[float], colour: str, dash: str) -> str:
        points = [(x(step), floor - (floor - TOP) * height) for step, height in enumerate(heights)]
        path = "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in points)
        dots = "".join(f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3.5" fill="{colour}"/>' for a, b in points)
        dots = dots if steps <= MOST_DOTS else ""  # they would hide the line
        return f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>{dots}'

    content = [_line(LEFT, floor, right, floor, 0.8), _label(LEFT, TOP - 10, f"energy, {unit}", "start", BLUE)]
    for part in (0, 0.5, 1):
        y = floor - (floor - TOP) * part
        content += [_line(LEFT, y, right, y), _label(LEFT - 6, y + 4, _short(top * part), "end", BLUE)]
    every = -(-steps // (10 if steps < 100 else 6))  # numbers of three digits take more room
    content += [_label(x(step), floor + 17, str(step + 1)) for step in range(0, steps, every)]
    content += [_label((LEFT + right) / 2, HEIGHT - 6, "steps T"), curve([one / top for one in energies], BLUE, "")]
    if accuracies:
        least = min(0.9, *accuracies)
        base = max(0.0, int(least * 10) / 10)
        content.append(_label(right, TOP - 10, "accuracy", "end", ORANGE))
        for part in (0, 0.5, 1):
            y = floor - (floor - TOP) * part
            content.append(_label(right + 6, y + 4, f"{base + (1 - base) * part:.0%}", "start", ORANGE))
        heights = [(one - base) / (1 - base) for one in accuracies]
        content.append(curve(heights, ORANGE, ' stroke-dasharray="6 4"'))
    return _svg(content, "energy and accuracy against the number of steps")


def shares(names: Sequence[str], parts: Sequence[float]) -> str:
    """A bar a layer, as long as its share of the whole."""
    row, content = 24, []
    room = WIDTH - 190
    for index, (name, part) in enumerate(zip(names, parts, strict=True)):
        y = 8 + row * index
        shown = name if len(name) <= 14 else f"{name[:4]}\u2026{name[-9:]}"  # what tells layers apart is at the end
        content.append(_label(124, y + 15, shown, "end"))
        bar = f'<rect x="130" y="{y + 3}" width="{max(1.0, room * part):.1f}" height="16" fill="{BLUE}">'
        content.append(f"{bar}<title>{html.escape(name)}</title></rect>")
        content.append(_label(136 + room * part, y + 15, f"{part:.1%}", "start"))
    return _svg(content, "share of each layer", 16 + row * len(names))


def histogram(values: Sequence[float], low: float, high: float, unit: str = "nJ", bins: int = 24) -> str:
    """How many samples take how much, with the interval of the mean as a band."""
    least, most = min(values), max(values)
    if least == most:  # one bar in the middle, and an axis around it
        least, most = least - (abs(least) / 2 or 0.5), most + (abs(most) / 2 or 0.5)
    span = most - least
    counts = [0] * bins
    for value in values:
        counts[min(bins - 1, int((value - least) / span * bins))] += 1
    right, floor, top = WIDTH - 12, HEIGHT - BOTTOM, max(counts)

    def x(value: float) -> float:
        return LEFT + (right - LEFT) * (value - least) / span

    width = (right - LEFT) / bins
    content = [_line(LEFT, floor, right, floor, 0.8), _label(LEFT, TOP - 10, "samples", "start")]
    for index, count in enumerate(counts):
        height = (floor - TOP) * count / top
        place = f'x="{LEFT + index * width:.1f}" y="{floor - height:.1f}" width="{width - 1:.1f}" height="{height:.1f}"'
        content.append(f'<rect {place} fill="{BLUE}"/>')
    band = max(1.5, x(high) - x(low))
    content.append(
        f'<rect x="{x(low):.1f}" y="{TOP}" width="{band:.1f}" height="{floor - TOP}" fill="{ORANGE}" opacity=".55"/>'
    )
    content += [_label(x(least + span * part), floor + 17, _short(least + span * part)) for part in (0.05, 0.5, 0.95)]
    content += [_label(LEFT - 6, TOP + 6, str(top), "end"), _label((LEFT + right) / 2, HEIGHT - 6, f"{unit} a sample")]
    return _svg(content, "energy of single samples")
