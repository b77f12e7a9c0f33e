"""The last events of a pool, for those who ask after the fact, and for those who listen.

Facts: a log goes where nobody at a terminal looks, and what happened a minute ago is what an operator wants to know.
What is in a record may be a worker's own words: 64 KiB of them, which are six times as long where JSON has no letter
for them (ASCII), or what JSON can't say at all.
Consequence: each line of the log is also kept here, as a record with a number of its own, in a ring that is bounded in
records and in bytes of what they are as JSON; the number shows a listener, and who asks, what it has missed.
Decision: a record that is too long has its texts cut, with a mark; the ring is half as long as one answer may be, so
that no answer can be too long.
Price: one encoding for each record.

Invariant: nothing here grows with the life of a pool; all records together can always be told; a listener that raises
is no reason to end a pool.
"""

import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final

from sergeant_linux.wire import protocol
from sergeant_linux.wire.gate import cut

LENGTH: Final = 1000
"""How many events are kept, at most."""

MOST_BYTES: Final = protocol.MAX_ANSWER // 2
"""How long all of them are together, at most, as they are told."""

MOST_EVENT_BYTES: Final = 64 * 1024
"""How long one of them is, at most."""

_CUTS: Final = (4000, 1000, 200)
"""Characters that a text in an event that is too long may have: the first that make it short enough."""

_DEPTH: Final = 8

TROUBLE: Final = ('warning', 'error', 'critical')

Event = dict[str, Any]
"""`seq`, `time` (ISO 8601, UTC, milliseconds), `level`, `event`, `message`, `fields`."""

Listener = Callable[[Event], None]


def utc(seconds: float) -> str:
    """Return a time of the wall clock as ISO 8601 in UTC, to the millisecond."""
    whole, milliseconds = divmod(int(seconds * 1000), 1000)
    return f'{time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole))}.{milliseconds:03}Z'


class Recent:
    """The ring, and who listens."""

    def __init__(self) -> None:
        self._events: deque[tuple[Event, int]] = deque()  # each with its length
        self._bytes = 0
        self._listeners: list[Listener] = []
        self._count = 0
        self.last_trouble: Event | None = None

    def add(self, level: str, event: str, message: str, fields: Mapping[str, object]) -> None:
        """Keep one event, and tell it to those who listen."""
        self._count += 1
        told, length = _bounded({
            'seq': self._count,
            'time': utc(time.time()),
            'level': level,
            'event': event,
            'message': message,
            'fields': dict(fields),
        })
        self._keep(told, length)
        if level in TROUBLE:
            self.last_trouble = told
        for listener in list(self._listeners):
            with suppress(Exception):
                listener(told)

    def _keep(self, event: Event, length: int) -> None:
        self._events.append((event, length))
        self._bytes += length
        while len(self._events) > LENGTH or self._bytes > MOST_BYTES:
            self._bytes -= self._events.popleft()[1]

    def last(self, count: int) -> list[Event]:
        """Return the last events, at most so many, the oldest first."""
        return [event for event, _ in list(self._events)[-count:]] if count > 0 else []

    def listen(self, listener: Listener) -> None:
        """Tell this one every event from now on."""
        self._listeners.append(listener)

    def leave(self, listener: Listener) -> None:
        """Tell this one no more."""
        with suppress(ValueError):
            self._listeners.remove(listener)


def _bounded(event: Event) -> tuple[Event, int]:
    """Return an event as it is or, where it is too long or JSON can't say it, cut; and its length in bytes."""
    length = _length(event)
    for limit in _CUTS:
        if length is not None and length <= MOST_EVENT_BYTES:
            return event, length
        event = {**event, 'message': cut(event['message'], limit), 'fields': _fields_cut(event['fields'], limit)}
        length = _length(event)
    if length is None or length > MOST_EVENT_BYTES:  # too many fields, or too many values in them
        event = {**event, 'fields': {'cut': cut(_text_of(event['fields']), _CUTS[0])}}
        length = _length(event)
    assert length is not None
    return event, length


def _length(event: Event) -> int | None:
    """Return how many bytes an event is when it is told; None when it can't be."""
    try:
        return len(protocol.encode(event))
    except (TypeError, ValueError, RecursionError):
        return None


def _fields_cut(fields: Mapping[str, object], limit: int) -> dict[str, object]:
    plain = {}
    for name, value in fields.items():
        value = _cut(value, limit)
        plain[name] = value if _length({'value': value}) is not None else cut(_text_of(value), limit)
    return plain


def _cut(value: object, limit: int, depth: int = 0) -> object:
    """Return a value with its texts cut."""
    if isinstance(value, str):
        return cut(value, limit)
    if depth == _DEPTH and isinstance(value, Mapping | list | tuple):
        return cut(_text_of(value), limit)
    if isinstance(value, Mapping):
        names = [cut(key, limit) if isinstance(key, str) else key for key in value]
        return dict(zip(names, (_cut(item, limit, depth + 1) for item in value.values()), strict=True))
    if isinstance(value, list | tuple):
        return [_cut(item, limit, depth + 1) for item in value]
    return value


def _text_of(value: object) -> str:
    try:
        return repr(value)
    except RecursionError:
        return f'<{type(value).__name__}, too deep to be shown>'
