"""An architecture as text: its words, where each begins, and what is said when one is wrong."""

from __future__ import annotations

import re
from dataclasses import dataclass

MOST_FEATURES = 1 << 20
"""Widths beyond this are taken for a slip of the pen (or a hostile file) before anything is allocated."""

MOST_TIMES = 256
"""How often ``3*`` may repeat a layer."""

_TIMES = re.compile(r"(\d+)\*(.*)")
_ZERO = ("padding", "edge")  # numbers that may be 0


@dataclass(frozen=True)
class Item:
    """One word of an architecture: ``word`` begins at character ``start`` of ``text``; ``times`` it is repeated."""

    text: str
    start: int
    word: str
    times: int = 1


class Slip(ValueError):
    """A fault in the architecture, and where it is."""

    def __init__(self, what: str, item: Item, remedy: str = "") -> None:
        super().__init__(what)
        self.what, self.remedy = what, remedy
        before, behind = item.text[: item.start], item.text[item.start + len(item.word) :]
        whole = f"at character {item.start + 1}: {before}>>{item.word}<<{behind}"
        self.place = "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in whole)


def is_size(value: object) -> bool:
    """Whether a value is a size that a network may have."""
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MOST_FEATURES


def items(text: str) -> list[Item]:
    """The words between dashes, brackets kept whole; ``3*`` taken off the front."""
    found = []
    for item in _divided(Item(text, 0, text), "-"):
        end = item.word.rfind(")")
        if end >= 0 and end < len(item.word) - 1:
            raise Slip("expected '-' between two layers", Item(text, item.start + end + 1, item.word[end + 1]))
        times = _TIMES.fullmatch(item.word)
        if not times:
            found.append(item)
            continue
        count = int(times[1][:9])
        if not 1 <= count <= MOST_TIMES:
            raise Slip(f"a layer is repeated 1 to {MOST_TIMES} times", item)
        found.append(Item(text, item.start + len(times[1]) + 1, times[2], count))
    return found


def at_top_level(item: Item, separator: str, *, whole: bool = False) -> list[Item]:
    """The parts of what stands in the brackets of an item (of all of it where ``whole``)."""
    if whole:
        return _divided(item, separator)
    first = item.word.index("(") + 1
    return _divided(Item(item.text, item.start + first, item.word[first:-1]), separator)


def _divided(item: Item, separator: str) -> list[Item]:
    """The parts between separators that stand in no brackets."""
    found, depth, first = [], 0, 0
    for index, letter in enumerate(item.word):
        depth += (letter == "(") - (letter == ")")
        if letter == separator and depth <= 0:
            found.append(Item(item.text, item.start + first, item.word[first:index]))
            first = index + 1
    return [*found, Item(item.text, item.start + first, item.word[first:])]


def numbers_of(match: re.Match[str], item: Item) -> dict[str, int]:
    """The numbers of a layer by name. Raises ``Slip`` where one is out of range."""
    numbers = {
        name: int(digits[:9]) for name, digits in match.groupdict().items() if digits is not None and digits.isdecimal()
    }
    if not all(is_size(number) or (number == 0 and name in _ZERO) for name, number in numbers.items()):
        raise Slip(f"the numbers of a layer go from 1 to {MOST_FEATURES}", item)
    return numbers
