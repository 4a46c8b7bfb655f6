"""Plain text tables: the same characters on a terminal, in a file and in a test."""

from __future__ import annotations

from collections.abc import Collection, Sequence

GAP = "  "


def table(headers: Sequence[str], rows: Sequence[Sequence[str]], *, right: Collection[int] = ()) -> str:
    """Columns as wide as their widest cell, a rule under the headers, one line a row, no newline at the end.

    ``right``: the columns (counted from 0) that end at their right edge, as numbers do. Raises ``ValueError`` where
    a row has another number of cells than the headers.
    """
    for row in rows:
        if len(row) != len(headers):
            raise ValueError(f"{len(row)} cells under {len(headers)} headers: {list(row)}")
    columns = [[header, *(row[index] for row in rows)] for index, header in enumerate(headers)]
    widths = [max(map(len, column)) for column in columns]

    def line(cells: Sequence[str]) -> str:
        padded = (
            cell.rjust(width) if index in right else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return GAP.join(padded).rstrip()

    return "\n".join([line(headers), GAP.join("-" * width for width in widths), *map(line, rows)])
