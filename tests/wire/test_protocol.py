"""The lines of the control socket. What a server makes of them is in test_control.py."""

import pytest

from sergeant_linux.wire import protocol
from sergeant_linux.wire.protocol import Lines, TooLong


def taken(lines: Lines) -> list[bytes]:
    found = []
    while (line := lines.next()) is not None:
        found.append(line)
    return found


@pytest.mark.parametrize('size', [1, 2, 3, 100])
def test_lines_are_the_same_however_they_come(size: int) -> None:
    data = b'one\n\ntwo\nthree'
    lines = Lines(5)

    found = []
    for start in range(0, len(data), size):
        lines.feed(data[start : start + size])
        found += taken(lines)

    assert found == [b'one', b'', b'two']
    lines.feed(b'\n')
    assert taken(lines) == [b'three']


@pytest.mark.parametrize('pieces', [[b'123456'], [b'123456\n'], [b'123', b'456\n'], [b'12345', b'6']])
def test_a_line_over_the_bound_is_too_long_whether_it_ends_or_not(pieces: list[bytes]) -> None:
    lines = Lines(5)
    for piece in pieces[:-1]:
        lines.feed(piece)
        assert taken(lines) == []

    lines.feed(pieces[-1])

    with pytest.raises(TooLong, match='^a line of over 5 bytes$'):
        lines.next()


def test_lines_before_one_that_is_too_long_are_taken_first() -> None:
    lines = Lines(5)
    lines.feed(b'12345\n123456\n')

    assert lines.next() == b'12345'
    with pytest.raises(TooLong):
        lines.next()


def test_a_message_is_one_line_of_ascii_whatever_is_in_it() -> None:
    message = {'text': 'a\nb\u2028ä\ud800'}

    line = protocol.encode(message)

    assert line.isascii() and line.count(b'\n') == 1 and line.endswith(b'\n')
    assert protocol.decode(line.rstrip(b'\n')) == message


def test_the_text_of_an_error_is_one_line() -> None:
    assert protocol.error(1, protocol.FAILED, 'one\n  two ')['error']['message'] == 'one two'
