"""The last events of a pool, for those who ask after the fact, and for those who listen.

Facts: a log goes where nobody at a terminal looks, and what happened a minute ago is what an operator wants to know.
Consequence: each line of the log is also kept here, as a record with a number of its own, in a ring of bounded length;
the number shows a listener what it has missed.

Invariant: nothing here grows with the life of a pool; a listener that raises is no reason to end a pool.
"""

import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final

LENGTH: Final = 1000
"""How many events are kept."""

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
        self._events: deque[Event] = deque(maxlen=LENGTH)
        self._listeners: list[Listener] = []
        self._count = 0
        self.last_trouble: Event | None = None

    def add(self, level: str, event: str, message: str, fields: Mapping[str, object]) -> None:
        """Keep one event, and tell it to those who listen."""
        self._count += 1
        told = {
            'seq': self._count,
            'time': utc(time.time()),
            'level': level,
            'event': event,
            'message': message,
            'fields': dict(fields),
        }
        self._events.append(told)
        if level in TROUBLE:
            self.last_trouble = told
        for listener in list(self._listeners):
            with suppress(Exception):
                listener(told)

    def last(self, count: int) -> list[Event]:
        """Return the last events, at most so many, the oldest first."""
        return list(self._events)[-count:] if count > 0 else []

    def listen(self, listener: Listener) -> None:
        """Tell this one every event from now on."""
        self._listeners.append(listener)

    def leave(self, listener: Listener) -> None:
        """Tell this one no more."""
        with suppress(ValueError):
            self._listeners.remove(listener)
