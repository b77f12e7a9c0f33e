"""The flight recorder, as the supervisor knows it: what went into the core, on its way to a file of bounded size.

Facts: the recorder may be slow (a full disk, a busy one), stopped, or gone, and the loop waits for nobody.
Consequence: what the recorder doesn't take at once waits here, up to `MOST_WAITING` bytes; over that, all of it is
dropped, and the record begins anew, with the state of the pool, as soon as there is room. It also begins anew after
half of `SIZE`, which is a new file; so there is always half of `SIZE` to look at, and not much more than all of it.
Price: each event costs the loop its line of JSON, some tens of microseconds; each beginning a look at every slot.

Invariant: nothing here blocks before the end; every file begins with a line from which a replay may begin.
"""

import logging
import socket
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from random import Random
from typing import Final

from sergeant_linux.core.commands import Command
from sergeant_linux.core.events import Event
from sergeant_linux.core.flight import beginning, line
from sergeant_linux.core.pool import Pool
from sergeant_linux.helpers.helper import Helper, Household
from sergeant_linux.helpers.recorder import BEGINS, GOES_ON, LONGEST_PIECE

SIZE: Final = 8 * 1024**2
"""Bytes of both files together."""

MOST_WAITING: Final = 1024**2
"""Bytes."""

RETRY: Final = 0.05
"""Seconds after which it is tried again to hand over what waits."""

FAREWELL: Final = 1.0
"""Seconds that the recorder may take to write the last of it."""


class FlightRecorder(Helper):
    """Keeps the record of one pool, if a file was asked for."""

    title = 'recorder'
    module = 'sergeant_linux.helpers.recorder'

    def __init__(self, path: str | None, pool: Pool, chance: Random, household: Household) -> None:
        """path: the file, None: there is no record. chance: the pool's."""
        super().__init__(household)
        self._path = path
        self._pool = pool
        self._chance = chance
        self._waiting: deque[bytes] = deque()
        self._bytes_waiting = 0
        self._room = 0
        self._has_begun = False
        self._retry_at: float | None = None

    def is_wanted(self) -> bool:
        return self._path is not None

    def given(self) -> tuple[Sequence[str], Sequence[int]]:
        return [self._path or ''], ()

    def begun(self, now: float) -> None:
        self._begin(now)
        self._hand_over(now)

    def hear(self, data: bytes, now: float) -> None:
        message = f'the flight record can not be written: {data.decode(errors="replace")}'
        self._note(logging.WARNING, message, 'flight-record-failed')

    def lost(self, now: float) -> None:
        self._forget()

    def take(self, event: Event, now: float, commands: Sequence[Command]) -> None:
        """The pool has taken this in, and has decided this."""
        if not self.at_work:
            return
        if self._has_begun and self._room > 0:
            self._put(GOES_ON, line(event, now, commands))
        elif self._has_begun or not self._waiting:
            self._begin(now)
        self._hand_over(now)

    def next_deadline(self) -> float | None:
        dues = [due for due in (super().next_deadline(), self._retry_at) if due is not None]
        return min(dues, default=None)

    def elapse(self, now: float) -> None:
        super().elapse(now)
        if self._retry_at is not None and self._retry_at <= now:
            self._hand_over(now)

    def close(self) -> None:
        """Have the last of it written."""
        if self.process is not None and self._control is not None and self.at_work:
            self._control.settimeout(FAREWELL)
            with suppress(OSError):
                while self._waiting:
                    self._control.send(self._waiting[0], socket.MSG_NOSIGNAL)
                    self._waiting.popleft()
                self._control.shutdown(socket.SHUT_WR)
                self.process.exited(FAREWELL)
        super().close()

    # Inside.

    def _begin(self, now: float) -> None:
        """Let the record begin here."""
        text = beginning(self._pool, self._chance, now)
        self._has_begun, self._room = True, max(SIZE // 2, 4 * len(text))
        self._put(BEGINS, text)

    def _put(self, mark: bytes, text: str) -> None:
        data = text.encode('ascii')
        self._room -= len(data)
        for start in range(0, len(data), LONGEST_PIECE):
            self._waiting.append((mark if start == 0 else GOES_ON) + data[start : start + LONGEST_PIECE])
        self._bytes_waiting += len(data)
        if self._bytes_waiting > max(MOST_WAITING, 2 * len(data)):
            self._forget()

    def _hand_over(self, now: float) -> None:
        while self._waiting and self.say(self._waiting[0]):
            self._bytes_waiting -= len(self._waiting.popleft()) - 1
        self._retry_at = now + RETRY if self._waiting else None

    def _forget(self) -> None:
        self._waiting.clear()
        self._bytes_waiting, self._has_begun, self._retry_at = 0, False, None
