"""Sizes and time spans as people write them: `64M`, `1min 30s`.

Facts: systemd has settled how both are written. A size is bytes, or a number with K, M, G or T, base 1024 (`MemoryMax=`
in systemd.resource-control(5)); a time span is seconds, or a sum of numbers with units (systemd.time(7)).
Consequence: an operator can copy `MemoryMax=1.5G` or `TimeoutStopSec=1min 30s` from a unit and it means the same here.
Decision: one reader and one writer for each, used by the flags, the environment, the Python class, the help and the
log. Inside the program a size is an int of bytes and a span a float of seconds (`math.inf` for `infinity`); text exists
only at the border.
Price: systemd minds case (in a span `m` is a minute and `M` a month), so `64m` is no size here either; it is refused,
with what is expected, rather than guessed.

Invariant: what a writer writes its reader reads back, as near as the writer rounds.
"""

import math
import re
from typing import Final

_NUMBER: Final = r'([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?![0-9.])'
_SIZE: Final = re.compile(rf'{_NUMBER}\s*([KMGT]?)')
_TERM: Final = re.compile(rf'{_NUMBER}(?:\s*([A-Za-z\u00b5\u03bc]+))?')
_SPAN: Final = re.compile(rf'(?:{_TERM.pattern}\s*)+')

_BYTES: Final = {'': 1, 'K': 1024, 'M': 1024**2, 'G': 1024**3, 'T': 1024**4}

_LARGEST_SIZE: Final = 2**63 - 1
_LONGEST_SPAN: Final = _LARGEST_SIZE / 1e6  # systemd counts microseconds; about 292,000 years

# systemd.time(7), "Parsing time spans". Both signs for micro are in use: U+00B5 and U+03BC.
_SECONDS: Final = {
    unit: seconds
    for units, seconds in (
        ('usec us µs μs', 1e-6),
        ('msec ms', 1e-3),
        ('seconds second sec s', 1.0),
        ('minutes minute min m', 60.0),
        ('hours hour hr h', 3600.0),
        ('days day d', 86400.0),
        ('weeks week w', 604800.0),
        ('months month M', 30.44 * 86400.0),
        ('years year y', 365.25 * 86400.0),
    )
    for unit in units.split()
}


def parse_size(value: object) -> int:
    """Return a size in bytes: `65536`, `'65536'`, `'64K'`, `'1.5G'`. A fraction of a byte is dropped.

    Raises ValueError for anything else, also below 0 and from 2**63 on; TypeError for what is neither text nor an int.
    """
    if isinstance(value, str):
        size = _size_of(value.strip())
    elif isinstance(value, int) and not isinstance(value, bool):
        size = value
    else:
        raise TypeError(f'expected a size (bytes, or text such as 64M), not {value!r:.100}')
    if not 0 <= size <= _LARGEST_SIZE:
        raise ValueError(f'expected a size (bytes, or a number with K, M, G or T, base 1024), not {value!r:.100}')
    return int(size)


def parse_span(value: object) -> float:
    """Return a time span in seconds: `90`, `0.5`, `'90'`, `'1min 30s'`, `'500ms'`, `'infinity'` (`math.inf`).

    A number without a unit is seconds; the terms of a sum are added up (systemd.time(7)). Raises ValueError for
    anything else, also below 0, for NaN, and for a finite span of more than 2**63 microseconds; TypeError for what is
    neither text nor a number.
    """
    if isinstance(value, str):
        span = _span_of(value.strip())
    elif isinstance(value, int | float) and not isinstance(value, bool):
        span = value
    else:
        raise TypeError(f'expected a time span (seconds, or text such as 1min 30s), not {value!r:.100}')
    if not (0 <= span <= _LONGEST_SPAN or span == math.inf):
        raise ValueError(f'expected a time span (seconds, or such as 1min 30s, 500ms, infinity), not {value!r:.100}')
    return float(span)


def _size_of(text: str) -> float:
    """Return the bytes that `text` stands for, NaN when it is no size."""
    match = _SIZE.fullmatch(text)
    return float(match[1]) * _BYTES[match[2]] if match else math.nan


def _span_of(text: str) -> float:
    """Return the seconds that `text` stands for, NaN when it is no time span."""
    if text == 'infinity':
        return math.inf
    if not _SPAN.fullmatch(text):
        return math.nan
    span = sum(float(number) * _SECONDS.get(unit or 's', math.nan) for number, unit in _TERM.findall(text))
    return span if math.isfinite(span) else math.nan


def format_size(size: int) -> str:
    """Return a size in bytes as people read it, to one decimal: `512`, `64M`, `1.5G`."""
    number, suffixes = float(size), 'KMGT'
    suffix = ''
    while round(number, 1) >= 1024 and suffixes:
        number, suffix, suffixes = number / 1024, suffixes[0], suffixes[1:]
    return f'{round(number, 1):.15g}{suffix}'


def format_span(span: float) -> str:
    """Return a time span in seconds as people read it, to the millisecond: `500ms`, `2.5s`, `1min 30s`, `infinity`."""
    if span == math.inf:
        return 'infinity'
    rest = round(span * 1000)
    if 0 < rest < 1000:
        return f'{rest}ms'
    terms = []
    for unit, milliseconds in (('d', 86_400_000), ('h', 3_600_000), ('min', 60_000)):
        count, rest = divmod(rest, milliseconds)
        if count:
            terms.append(f'{count}{unit}')
    if rest or not terms:
        terms.append(f'{rest / 1000:g}s')
    return ' '.join(terms)
