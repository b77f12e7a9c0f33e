"""The three helpers as the supervisor knows them: undertaker, meter, limiter."""

import json
import os
import socket
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from typing import Final

from sergeant_linux.forkserver.estate import Estate
from sergeant_linux.helpers import DISMISSED
from sergeant_linux.helpers.helper import Helper, Household

FAREWELL: Final = 1.0
"""Seconds that the undertaker may take to leave once it is dismissed."""


class Undertaker(Helper):
    """Ends what is left of the pool when the supervisor was killed."""

    title = 'undertaker'
    module = 'sergeant_linux.helpers.undertaker'
    replace_after = 0.1

    def __init__(self, estate: Estate, household: Household) -> None:
        super().__init__(household)
        self._estate = estate

    def given(self) -> tuple[Sequence[str], Sequence[int]]:
        me = os.pidfd_open(os.getpid())
        try:
            return [self._estate.pool, *self._estate.folders], [me, self._estate.sessions.reader()]
        except OSError:
            os.close(me)
            raise

    def close(self) -> None:
        """Send it away and wait for its end: there is nothing left to bury."""
        if self.process is not None and self._control is not None:
            with suppress(OSError):
                self._control.send(DISMISSED, socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT)
            self.process.exited(FAREWELL)
        super().close()


class Meter(Helper):
    """Takes the costly measures of memory. It is there while somebody may ask; who asks is `answered`, or `dropped`."""

    title = 'meter'
    module = 'sergeant_linux.helpers.meter'

    def __init__(self, household: Household) -> None:
        super().__init__(household)
        self.answered: Callable[[int, int | None, float], None] = lambda life, measured, now: None
        self.dropped: Callable[[Collection[int], float], None] = lambda lives, now: None
        self._asked: set[int] = set()
        self._is_needed = False
        self._rests_until = 0.0

    def is_wanted(self) -> bool:
        return self._is_needed

    def need(self, *, is_needed: bool) -> None:
        """Whether there is something to measure."""
        self._is_needed = is_needed
        if is_needed:
            self.want()
        else:
            self.recall()

    def ask(self, life: int, pid: int, measure: str, now: float) -> bool:
        """Ask for the memory of a life, unless that was asked already; False when it can't be asked now."""
        if life not in self._asked:
            if not self.say(json.dumps([life, pid, measure]).encode()):
                return False
            if not self._asked:
                self.expect(max(now, self._rests_until) + self.patience)
            self._asked.add(life)
        return True

    def hear(self, data: bytes, now: float) -> None:
        life, measured, rest = json.loads(data)
        self._asked.discard(life)
        self._rests_until = now + rest
        self.expect(self._rests_until + self.patience if self._asked else None)
        self.answered(life, measured, now)

    def lost(self, now: float) -> None:
        asked, self._asked, self._rests_until = self._asked, set(), 0.0
        self.dropped(asked, now)


class Limiter(Helper):
    """Writes limits that take pages away. What was not confirmed is written again by the next one."""

    title = 'limiter'
    module = 'sergeant_linux.helpers.limiter'
    patience = 60.0

    def __init__(self, household: Household) -> None:
        super().__init__(household)
        self._files: dict[str, str] = {}

    def is_wanted(self) -> bool:
        return bool(self._files)

    def has(self, file: str) -> bool:
        """Whether it may be writing this file, so that nobody else should."""
        return file in self._files

    def write(self, files: Mapping[str, str]) -> None:
        """Have each value written to its file. What it was given before, and has not written, is replaced or kept."""
        if files:
            self._files.update(files)
            self.recall()
            self.want()

    def given(self) -> tuple[Sequence[str], Sequence[int]]:
        files = os.memfd_create('sergeant-limits', os.MFD_CLOEXEC)
        with open(os.dup(files), 'w', encoding='utf-8', errors='surrogateescape') as text:
            json.dump(self._files, text)
        return (), [files]

    def begun(self, now: float) -> None:
        self.expect(now + self.patience)

    def hear(self, data: bytes, now: float) -> None:
        self._files.pop(data.decode('utf-8', 'surrogateescape'), None)
        self.expect(now + self.patience)
