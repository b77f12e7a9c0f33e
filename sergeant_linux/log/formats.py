"""The shapes of a log record: the ancestor's text, JSON, and an entry of systemd's journal.

Facts: each record carries an `event` and `fields` beside its message, some the ancestor's extras. A line of text has
no place for them. The journal adds the time, the process and its unit by itself, and knows of a message what kind it
is by its MESSAGE_ID (systemd.journal-fields(7)).

Invariant: whatever a record holds, its line is valid, and its entry too.
"""

import json
import logging
import math
import re
from collections.abc import Iterator, Mapping
from typing import Final

from sergeant_linux.log.catalog import MESSAGES
from sergeant_linux.log.recent import utc

PREFIX: Final = 'SERGEANT_'
"""What our own fields in the journal begin with."""

_DEEPEST: Final = 16
_BARE: Final = logging.Formatter('%(message)s')
_NO_NAME: Final = re.compile('[^A-Z0-9_]')


class TextFormatter(logging.Formatter):
    """The ancestor's lines, word for word."""

    def __init__(self) -> None:
        super().__init__(
            fmt='%(asctime)s %(name)-12s %(process)d %(levelname)-8s %(message)s',
            datefmt='%Y-%m-%d %H:%M:%S',
        )


class JsonFormatter(logging.Formatter):
    """One JSON object a line, in ASCII; whatever a record holds, the line is valid.

    Keys: `time` (ISO 8601, UTC, milliseconds), `level`, `logger`, `process` (the supervisor's pid; `pid` is left to the
    workers), `message`; where the record has them (`extra={'event': …, 'fields': {…}}`), `event` and what is in
    `fields`, and the ancestor's extras `supervisor` and `summary`; `traceback` for an exception.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without its end."""
        told: dict[str, object] = {
            'time': utc(record.created),
            'level': record.levelname.lower(),
            'logger': record.name,
            'process': record.process,
            'message': record.getMessage(),
        }
        extras = record.__dict__
        if 'event' in extras:
            told['event'] = extras['event']
        if isinstance(fields := extras.get('fields'), Mapping):
            told.update(fields)
        told.update({key: extras[key] for key in ('supervisor', 'summary') if key in extras})
        if record.exc_info:
            told['traceback'] = self.formatException(record.exc_info)
        return as_json(told)


class JournalLineFormatter(logging.Formatter):
    """Lines for the journal's stream: the bare message, each line of it with its priority (sd-daemon(3))."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the lines, without the end of the last one."""
        return '\n'.join(f'<{priority(record)}>{line}' for line in _text(record).split('\n'))


def journal_entry(record: logging.LogRecord, identifier: str) -> Iterator[tuple[str, str]]:
    """Yield the fields of an entry: MESSAGE, PRIORITY, SYSLOG_IDENTIFIER, LOGGER, MESSAGE_ID where the event has one,
    SERGEANT_EVENT, and each of the record's fields and extras as SERGEANT_NAME; None is left out, and what is in a
    field has the field's name before its own."""
    extras = record.__dict__
    yield 'MESSAGE', _text(record)
    yield 'PRIORITY', str(priority(record))
    yield 'SYSLOG_IDENTIFIER', identifier
    yield 'LOGGER', record.name
    event = extras.get('event')
    if isinstance(event, str):
        if event in MESSAGES:
            yield 'MESSAGE_ID', MESSAGES[event].id
        yield f'{PREFIX}EVENT', event
    for name in ('fields', 'supervisor'):
        if isinstance(told := extras.get(name), Mapping):
            yield from _flat(PREFIX, told)
    if extras.get('summary'):
        yield f'{PREFIX}SUMMARY', as_json(extras['summary'])


def priority(record: logging.LogRecord) -> int:
    """Return a record's level as syslog(3) has it."""
    for level, number in ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6)):
        if record.levelno >= level:
            return number
    return 7


def _text(record: logging.LogRecord) -> str:
    """Return the message, and below it the traceback of an exception."""
    return _BARE.format(record)


def _flat(prefix: str, told: Mapping[object, object]) -> Iterator[tuple[str, str]]:
    for key, value in told.items():
        name = prefix + _NO_NAME.sub('_', str(key).upper())
        if isinstance(value, Mapping):
            yield from _flat(f'{name}_', value)
        elif value is not None:
            yield name, value if isinstance(value, str) else as_json(value)


def as_json(value: object) -> str:
    """Return any value as JSON, in ASCII."""
    return json.dumps(_plain(value), allow_nan=False)


def _plain(value: object, outer: tuple[object, ...] = ()) -> object:
    """Return the value as JSON can have it: NaN and the infinities as null, what JSON has no word for as its repr."""
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, int) and value.bit_length() <= 64:
        return value
    if len(outer) > _DEEPEST or any(value is each for each in outer):
        return safe_repr(value)
    inner = (*outer, value)
    if isinstance(value, Mapping):
        return {key if isinstance(key, str) else safe_repr(key): _plain(each, inner) for key, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(each, inner) for each in value]
    return safe_repr(value)


def safe_repr(value: object) -> str:
    """Return the value's repr, or what can be said of it where that raises."""
    try:
        return repr(value)
    except Exception:
        return f'<{type(value).__name__} without a repr>'
