"""A table fits its width: it leaves out, it cuts, and it lines up what is wide."""

import pytest

from sergeant_linux.cli.table import Cell, Column, lay_out
from sergeant_linux.cli.terminal import Look, clean, cut, width_of

COLUMNS = [Column('ID', right=True), Column('WHAT', 1), Column('COUNT', 3, right=True), Column('TEXT', 2, least=6)]
ROWS = [
    [Cell('7'), Cell('running'), Cell('12'), Cell('a text of some length')],
    [Cell('12'), Cell('dead'), Cell('1'), Cell('')],
]


def there(width: int | None, *, colour: bool = False, unicode: bool = True) -> Look:
    return Look(width, 24, is_terminal=True, colour=colour, unicode=unicode)


@pytest.mark.parametrize(('width', 'lines'), [
    (None, ['ID  WHAT     COUNT  TEXT', ' 7  running     12  a text of some length', '12  dead         1']),
    (41, ['ID  WHAT     COUNT  TEXT', ' 7  running     12  a text of some length', '12  dead         1']),
    (30, ['ID  WHAT     COUNT  TEXT', ' 7  running     12  a text of…', '12  dead         1']),
    (24, ['ID  WHAT     TEXT', ' 7  running  a text of …', '12  dead']),
    (16, ['ID  WHAT', ' 7  running', '12  dead']),
    (10, ['ID', ' 7', '12']),
    (1, ['ID', ' 7', '12']),
])
def test_what_is_missed_least_is_left_out_first(width: int | None, lines: list[str]) -> None:
    assert lay_out(COLUMNS, ROWS, there(width)) == lines


def test_a_column_without_an_entry_is_no_column() -> None:
    rows = [[Cell(''), Cell('on'), Cell(''), Cell('')]]
    assert lay_out(COLUMNS, rows, there(80)) == ['ID  WHAT', '    on']


def test_colours_take_no_room() -> None:
    rows = [[Cell('1'), Cell('dead', '31'), Cell('22', '32'), Cell('')]]
    assert lay_out(COLUMNS, rows, there(80, colour=True))[1] == ' 1  \033[31mdead\033[0m     \033[32m22\033[0m'


def test_east_asian_characters_take_two_columns_and_combining_ones_none() -> None:
    assert [width_of(text) for text in ('abc', '漢字', 'e\u0301')] == [3, 4, 1]
    rows = [[Cell('1'), Cell('漢字'), Cell('9'), Cell('')], [Cell('2'), Cell('dead'), Cell('9'), Cell('')]]
    assert lay_out(COLUMNS, rows, there(80)) == ['ID  WHAT  COUNT', ' 1  漢字      9', ' 2  dead      9']


@pytest.mark.parametrize(('text', 'width', 'unicode', 'left'), [
    ('abcdef', 6, True, 'abcdef'), ('abcdefg', 6, True, 'abcde…'), ('abcdefg', 6, False, 'abc...'),
    ('漢字漢字', 6, True, '漢字…'), ('漢字漢字', 4, True, '漢…'), ('abc', 2, False, '..'), ('abc', 0, True, ''),
])
def test_a_text_that_is_cut_says_so(text: str, width: int, unicode: bool, left: str) -> None:
    assert cut(text, width, unicode=unicode) == left


@pytest.mark.parametrize(('text', 'line'), [
    ('a b', 'a b'), (' a\n\tb\x85c ', 'a b c'), ('\x1b[31mred', r'\x1b[31mred'), ('\x00\x7f', r'\x00\x7f'),
    ('\u202eabc\u2066', r'\u202eabc\u2066'), ('\udc80', r'\udc80'), ('é漢', 'é漢'), (None, 'None'), (3, '3'),
])
def test_a_text_becomes_one_line_of_printable_characters(text: object, line: str) -> None:
    assert clean(text) == line
    assert clean(text).isprintable()
