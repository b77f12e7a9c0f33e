"""Figures in few columns, for screens: a span as `3h07m`, a count as `1.2M`. What is unknown is `-`."""

from typing import Final

UNKNOWN: Final = '-'

_UNITS: Final = (('d', 86400, 'h', 3600), ('h', 3600, 'm', 60), ('m', 60, 's', 1))


def span(seconds: float | None) -> str:
    """Return a span in at most six columns: `0.4s`, `42s`, `5m09s`, `3h07m`, `12d4h`."""
    if seconds is None:
        return UNKNOWN
    if seconds < 9.95:
        return f'{seconds:.1f}s'
    whole = round(seconds)
    for unit, size, smaller, smaller_size in _UNITS:
        if whole >= size:
            count, rest = divmod(whole, size)
            rest //= smaller_size
            if count >= 100:
                return f'{count}{unit}'
            return f'{count}{unit}{rest}{smaller}' if unit == 'd' else f'{count}{unit}{rest:02}{smaller}'
    return f'{whole}s'


def size(count: float | None) -> str:
    """Return bytes in at most six columns, base 1024, as the options take them: `512`, `64M`, `1.5G`."""
    return UNKNOWN if count is None else _short(count, 1024)


def count(number: float | None) -> str:
    """Return a count in at most six columns: `512`, `99999`, `1.2M`."""
    if number is None:
        return UNKNOWN
    return f'{number:.0f}' if number < 100_000 else _short(number, 1000)


def rate(number: float | None) -> str:
    """Return how often a second: `0.25`, `12.5`, `340`."""
    if number is None:
        return UNKNOWN
    if number >= 100:
        return count(number)
    return f'{number:.2f}' if number < 10 else f'{number:.1f}'


def _short(number: float, base: int) -> str:
    for suffix in ('', 'K', 'M', 'G', 'T'):
        if round(number, 1) < base or suffix == 'T':
            return f'{number:.0f}{suffix}' if number >= 100 else f'{round(number, 1):g}{suffix}'
        number /= base
    raise AssertionError('unreachable')
