"""A table that fits a width.

Facts: a terminal has 80 columns or 200, and a line that wraps makes a table unreadable.
Decision: each column says how easily it is missed. As long as the table is too wide, the one that is missed least is
left out; a column that may be cut is first cut to what it needs at least, and gets the room that is left in the end. A
column without a single entry is no column.
Price: what is shown depends on what it is: a long state may cost a column.

Invariant: with at least one column that is never left out and fits, no line is wider than asked.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from sergeant_linux.cli.terminal import Look, cut, width_of

GAP: Final = 2
"""Columns between two columns."""


class Column(NamedTuple):
    """One column: its title, and how it yields."""

    title: str
    rank: int = 0
    """The higher, the sooner it is left out; 0: never."""
    right: bool = False
    """Flush right, as numbers are."""
    least: int | None = None
    """May be cut to so many columns; None: not at all."""


class Cell(NamedTuple):
    """A clean text and its colour (`terminal.RED`), '' for none."""

    text: str
    colour: str = ''


def lay_out(columns: Sequence[Column], rows: Sequence[Sequence[Cell]], look: Look) -> list[str]:
    """Return the lines of the table, its titles first, in columns that fit `look.width`."""
    needs = [max(map(width_of, (column.title, *(row[i].text for row in rows)))) for i, column in enumerate(columns)]
    used = [i for i, column in enumerate(columns) if column.rank == 0 or any(row[i].text for row in rows)]
    shown = _fitting(columns, used, needs, look.width)
    widths = _widths(columns, shown, needs, look.width)
    titles = [Cell(column.title, '2') for column in columns]
    return [
        _line([(row[i], widths[i], columns[i].right) for i in shown], look)
        for row in (titles, *rows)
    ]


def _fitting(columns: Sequence[Column], used: list[int], needs: Sequence[int], width: int | None) -> list[int]:
    shown = list(used)
    while width is not None and _total([_least(columns[i], needs[i]) for i in shown]) > width:
        missable = [i for i in shown if columns[i].rank]
        if not missable:
            break
        shown.remove(max(missable, key=lambda i: columns[i].rank))
    return shown


def _widths(
    columns: Sequence[Column], shown: Sequence[int], needs: Sequence[int], width: int | None
) -> dict[int, int]:
    if width is None:
        return {i: needs[i] for i in shown}
    widths = {i: _least(columns[i], needs[i]) for i in shown}
    for i in shown:
        widths[i] = min(needs[i], widths[i] + max(width - _total(list(widths.values())), 0))
    return widths


def _least(column: Column, need: int) -> int:
    return need if column.least is None else min(need, max(column.least, len(column.title)))


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + GAP * max(len(widths) - 1, 0)


def _line(cells: Sequence[tuple[Cell, int, bool]], look: Look) -> str:
    parts = []
    for cell, width, right in cells:
        text = cut(cell.text, width, unicode=look.unicode)
        space = ' ' * (width - width_of(text))
        painted = look.paint(text, cell.colour)
        parts.append(space + painted if right else painted + space)
    return (' ' * GAP).join(parts).rstrip()
