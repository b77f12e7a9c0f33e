"""What slows the supervisor itself, where that can be known: a turn of the loop that took long has a cause.

Facts: a process in a cgroup over its memory.high, or below one that is, sleeps for up to two seconds each time that it
takes memory (mem_cgroup_handle_over_high, since Linux 5.4), in any system call; memory.events.local counts that as
`high`. A supervisor that sleeps so is late for everything: workers' ends, requests, the watchdog of systemd.
Consequence: after a long turn these counters are looked at from the own cgroup up, and one that has risen is told,
once in a while. Price: nothing as long as no turn is long.
"""

import logging
from contextlib import suppress
from math import inf
from typing import Final

from sergeant_linux.core.units import format_size, format_span
from sergeant_linux.kernel.cgroup import Cgroup, own
from sergeant_linux.log.words import Journal

LONG: Final = 1.0
"""Seconds; a turn takes a few milliseconds."""

PAUSE: Final = 60.0
"""Seconds between two lines about it."""


class Slowness:
    """Tells what a long turn is due to."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._counted = _counts()
        self._silent_until = -inf

    def turned(self, began: float, ended: float) -> None:
        """A turn of the loop has ended."""
        if ended - began < LONG or ended < self._silent_until:
            return
        before, self._counted = self._counted, _counts()
        for cgroup, times in self._counted.items():
            if times > before.get(cgroup, 0):
                self._silent_until = ended + PAUSE
                self._tell(cgroup, ended - began)
                return

    def _tell(self, cgroup: Cgroup, took: float) -> None:
        high = None
        with suppress(OSError):
            high = cgroup.number('memory.high')
        size = f' ({format_size(high)})' if high is not None else ''
        message = (
            f'the supervisor was held up for {format_span(round(took, 1))}: '
            f'memory.high of {cgroup.path}{size} slows all that runs there'
        )
        fields = {'cgroup': cgroup.path, 'memory_high': high, 'seconds': round(took, 3)}
        self._journal.note(logging.WARNING, message, 'slowed', **fields)


def _counts() -> dict[Cgroup, int]:
    """Return how often somebody was slowed by each cgroup from the own one up."""
    counted = {}
    with suppress(OSError):
        here = own()
        for cgroup in here.walk_up() if here is not None else ():
            counted[cgroup] = cgroup.table('memory.events.local').get('high', 0)
    return counted
