"""Who keeps our helper processes at work: one that ends is replaced, and no worker is concerned.

Facts: the undertaker and the meter may be killed by anybody, as any process may; a pool without an undertaker leaves
something behind should its supervisor be killed, one without a meter measures nothing.
Consequence: each has a keeper, which sees its end through the poller, tells of it, and starts the next one after a
moment; when no process can be made, later.
"""

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from sergeant_linux.containment.leaves import Leaves
from sergeant_linux.engine.memory import FoundOut, MeterWatch
from sergeant_linux.helpers.undertaker import Undertaker
from sergeant_linux.kernel.poller import Handler, Poller
from sergeant_linux.log.words import Journal

REPLACE_UNDERTAKER_AFTER: Final = 0.1
REPLACE_METER_AFTER: Final = 1.0
"""Seconds."""


class Keeper:
    """What both have in common: when the next one is to be started."""

    title: str
    """What it is called in the log."""

    def __init__(self, poller: Poller[Handler], journal: Journal, retry: float) -> None:
        """retry: seconds to wait when no process can be made."""
        self._poller = poller
        self._journal = journal
        self._retry = retry
        self._due: float | None = None

    def next_start(self) -> float | None:
        """Return when `elapse` is due; None while it is at work."""
        return self._due

    def elapse(self, now: float) -> None:
        """Start the next one when it is time."""
        if self._due is not None and self._due <= now:
            self._due = None
            try:
                self.start()
            except OSError as error:
                message = f'the {self.title} could not be started: {error}'
                self._journal.note(logging.ERROR, message, f'{self.title}-failed')
                self._due = now + self._retry

    def start(self) -> None:
        """Start it and watch it. Raises OSError when no process can be made."""
        raise NotImplementedError

    def _ended(self, which: str, after: float, **fields: object) -> None:
        self._due = time.monotonic() + after
        message = f'the {which} has ended: replacing it, no worker is concerned'
        self._journal.note(logging.WARNING, message, f'{self.title}-exit', **fields)


class UndertakerKeeper(Keeper):
    """Keeps an undertaker at work. `leaves`: what it is to bury; None without cgroups."""

    title = 'undertaker'

    def __init__(self, undertaker: Undertaker, poller: Poller[Handler], journal: Journal, retry: float) -> None:
        super().__init__(poller, journal, retry)
        self._undertaker = undertaker
        self.leaves: Leaves | None = None

    def start(self) -> None:
        self._undertaker.start(self.leaves)
        self.watch()

    def watch(self) -> None:
        """Watch the one that was started."""
        assert self._undertaker.process is not None
        self._poller.register(self._undertaker.process, self.on_exit)

    def on_exit(self, events: int) -> None:
        """It may have ended."""
        process = self._undertaker.process
        if process is None or not process.exited():
            return
        with suppress(ChildProcessError):
            process.reap()
        self._poller.unregister(process)
        self._undertaker.forget()
        self._ended(f'undertaker({process.pid})', REPLACE_UNDERTAKER_AFTER, pid=process.pid)


class MeterKeeper(Keeper):
    """Keeps a meter at work. `found` is called with what it has found."""

    title = 'meter'

    def __init__(
        self,
        meter: MeterWatch,
        found: Callable[[list[FoundOut]], None],
        poller: Poller[Handler],
        journal: Journal,
        retry: float,
    ) -> None:
        super().__init__(poller, journal, retry)
        self._meter = meter
        self._found = found
        self._due = time.monotonic()

    def start(self) -> None:
        self._meter.start()
        assert self._meter.socket is not None
        self._poller.register(self._meter.socket, self._on_meter)

    def _on_meter(self, events: int) -> None:
        assert self._meter.socket is not None
        findings = self._meter.hear(time.monotonic())
        if findings is not None:
            self._found(findings)
            return
        self._poller.unregister(self._meter.socket)
        self._meter.meter_ended(time.monotonic())
        self._ended('meter', REPLACE_METER_AFTER)
