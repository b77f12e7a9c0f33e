"""What stdout is to be written like: how wide, in colour or not, in which characters.

Facts: stdout is a terminal, a pipe or a file. A terminal has a size, which COLUMNS overrides (watch(1) sets it in a
pipe, too); colour is unwanted in a file, and by whoever has set NO_COLOR (no-color.org). Python writes UTF-8 in the C
locale as well (PEP 538 sets LC_CTYPE, PEP 540 the encoding), where a terminal may show garbage. A text from a worker
may hold anything: an escape sequence that clears the screen, half of a surrogate pair, a line break, a right-to-left
mark.
Decision: `look` says once what there is. The locale is the one that we were started with (/proc/self/environ, proc(5)),
before Python has changed it. What the locale can't write is escaped, and `clean` escapes whatever is not printable.
Price: a container in which no locale is set gets bars of ASCII.

Invariant: no text that went through `clean` moves a cursor or takes more than one line.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from typing import IO, Final, NamedTuple

DEFAULT_WIDTH: Final = 80
DEFAULT_HEIGHT: Final = 24

RED: Final = '31'
GREEN: Final = '32'
YELLOW: Final = '33'
DIM: Final = '2'
BOLD: Final = '1'

ALTERNATE: Final = '\033[?1049h\033[?25l\033[?7l'
"""To the alternate screen; the cursor off; no wrapping: a window that has just become narrower cuts lines off."""

BACK: Final = '\033[?7h\033[?25h\033[?1049l'


class Look(NamedTuple):
    """What stdout is."""

    width: int | None
    """Columns; None: as many as you like."""
    height: int
    is_terminal: bool
    colour: bool
    unicode: bool

    def paint(self, text: str, colour: str) -> str:
        """Return the text in this colour (a number, or several with `;`), where there is colour."""
        return f'\033[{colour}m{text}\033[0m' if self.colour and colour and text else text


def look(stream: IO[str] | None, environ: Mapping[str, str] = os.environ) -> Look:
    """Return what this stream is."""
    is_terminal = stream is not None and stream.isatty()
    columns, lines = environ.get('COLUMNS', ''), environ.get('LINES', '')
    width, height = int(columns) if columns.isdecimal() else 0, int(lines) if lines.isdecimal() else 0
    if is_terminal and stream is not None and not (width and height):
        size = os.get_terminal_size(stream.fileno())
        width = width or size.columns or DEFAULT_WIDTH  # a serial line knows no size
        height = height or size.lines
    return Look(
        width=width or None,
        height=height or DEFAULT_HEIGHT,
        is_terminal=is_terminal,
        colour=is_terminal and not environ.get('NO_COLOR') and environ.get('TERM', 'dumb') != 'dumb',
        unicode=(getattr(stream, 'encoding', None) or '').lower().replace('-', '') == 'utf8',
    )


def prepare(stream: object) -> None:
    """Let a stream escape what its locale can't write."""
    import io  # long imported by the interpreter

    if not isinstance(stream, io.TextIOWrapper):
        return  # None: it is closed
    forced = os.environ.get('PYTHONIOENCODING') or os.environ.get('PYTHONUTF8') == '1'
    encoding = None if forced or speaks_utf8(_start_environ()) or stream.encoding.lower() != 'utf-8' else 'ascii'
    stream.reconfigure(encoding=encoding, errors='backslashreplace')


def speaks_utf8(environ: Mapping[str, str]) -> bool:
    """Whether the locale's characters are written as UTF-8 (locale(7): the first of these that is set counts)."""
    locale = environ.get('LC_ALL') or environ.get('LC_CTYPE') or environ.get('LANG') or 'C'
    return 'utf8' in locale.lower().replace('-', '')


def _start_environ() -> Mapping[str, str]:
    try:
        with open('/proc/self/environ', 'rb') as file:
            entries = file.read().decode(errors='replace').split('\0')
    except OSError:
        return os.environ
    return dict(entry.split('=', 1) for entry in entries if '=' in entry)


def silence(stream: IO[str] | None) -> None:
    """Let go what could not be written: the interpreter would try again, and complain."""
    if stream is not None:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)


def clean(text: object) -> str:
    """Return a text as one line of printable characters; what isn't one is escaped as Python writes it."""
    line = ' '.join(str(text).split())
    if line.isprintable():
        return line
    return ''.join(each if each.isprintable() else each.encode('unicode_escape').decode() for each in line)


def width_of(text: str) -> int:
    """Return how many columns a clean text takes: East Asian characters take two, combining ones none."""
    if text.isascii():
        return len(text)
    from unicodedata import combining, east_asian_width

    return sum(0 if combining(each) else 2 if east_asian_width(each) in 'WF' else 1 for each in text)


def cut(text: str, width: int | None, *, unicode: bool) -> str:
    """Return a clean text in at most `width` columns, the last of which tell that something is missing."""
    if width is None or width_of(text) <= width:
        return text
    sign = '…' if unicode else '...'
    room = width - len(sign)
    if room < 0:
        return sign[:width]
    kept = text[:room]
    while width_of(kept) > room:
        kept = kept[:-1]
    return kept + sign


class Live:
    """Lines that are shown again and again in the same place on a terminal; elsewhere each new one is a line more.

    `show` draws them over those it drew before.
    """

    def __init__(self, stream: IO[str] | None) -> None:
        self._stream = stream
        self._shown: Sequence[str] = ()
        self.look: Final = look(stream)

    def show(self, lines: Sequence[str]) -> None:
        if self._stream is None or lines == self._shown:
            return
        if not self.look.is_terminal:
            self._stream.write(''.join(f'{line}\n' for line in lines if line not in self._shown))
        else:
            there = look(self._stream)
            lines = [cut(line, there.width, unicode=there.unicode) for line in lines[: there.height - 1]]
            up = f'\033[{len(self._shown)}F' if self._shown else ''
            self._stream.write(up + ''.join(f'{line}\033[K\n' for line in lines) + '\033[J')
        self._shown = lines
        self._stream.flush()


def stdout() -> Look:
    """Return what stdout is."""
    return look(sys.stdout)
