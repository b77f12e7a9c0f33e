"""When to look at a worker's memory again, and when a look means something.

Facts: a process can touch about 2 GiB a second here, so between two looks it can grow by that much times the
interval; a look costs some microseconds (RSS) up to some milliseconds (PSS of a big process).
Consequence: the next look comes when the headroom could be used up, not sooner than `FLOOR`, not later than a
ceiling.
Price: a worker can be over its limit by what it touches in one interval.

The mark (soft) only counts when a worker stays over it: several looks in a row, in a life that has been ready for
some time. A worker that starts near its mark would else be recycled for ever; for such a one the mark is moved up, to
`ROOM` times what it had when it became ready. Being a second late does no harm there: near the mark and over it, looks
are `MARK_PAUSE` apart, however far away the limit is; far from it, and once it was told, the ceiling counts.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Final

GROWTH: Final = 2 * 1024**3
"""Bytes a second a worker is taken to be able to touch."""

CALM_GROWTH: Final = 64 * 1024**2
"""Bytes a second up to which a worker is seen over its mark in time."""

CALM_CEILING: Final = 30.0
"""The longest pause in seconds where the kernel holds the limit and only the mark is watched."""

FLOOR: Final = 0.02
"""Seconds between two looks, at least."""

MARK_SAMPLES: Final = 3
MARK_MIN_LIFE: Final = 10.0
"""A mark counts after this many looks over it in a row, in a life that has been ready for this many seconds."""

MARK_PAUSE: Final = 1.0
"""Seconds between two looks because of the mark, at least."""

ROOM: Final = 1.25
"""What a worker may grow from where it was when ready before the mark counts, whatever the mark says."""

NEAR: Final = 0.8
"""A worker that is ready at this part of its limit is warned about."""


class Finding(Enum):
    """What a look has shown."""

    FINE = 'fine'
    NEAR_LIMIT = 'near its limit as soon as it is ready'
    OVER_MARK = 'over its mark'
    OVER_LIMIT = 'over its limit'


@dataclass(slots=True)
class Gauge:
    """What is known of one life's memory; all in bytes, times in seconds."""

    limit: int | None
    mark: int | None
    ceiling: float
    highest: int | None = None
    ready_at: float | None = None
    at_ready: int | None = None
    over_mark: int = 0
    told: bool = False

    def ready(self, now: float) -> None:
        """The worker is ready: from now on its mark may count."""
        self.ready_at = now

    def sample(self, measured: int, now: float) -> Finding:
        """Take in one look."""
        self.highest = max(measured, self.highest or 0)
        first_since_ready = self.ready_at is not None and self.at_ready is None
        if first_since_ready:
            self.at_ready = measured
        if self.limit is not None and measured > self.limit:
            return Finding.OVER_LIMIT
        mark = self.effective_mark()
        self.over_mark = self.over_mark + 1 if mark is not None and measured > mark else 0
        if not self.told and self.over_mark >= MARK_SAMPLES and self._has_lived(now):
            self.told = True
            return Finding.OVER_MARK
        if first_since_ready and self.limit is not None and measured > NEAR * self.limit:
            return Finding.NEAR_LIMIT
        return Finding.FINE

    def _has_lived(self, now: float) -> bool:
        return self.ready_at is not None and now - self.ready_at >= MARK_MIN_LIFE

    def effective_mark(self) -> int | None:
        """Return the mark that counts for this life, or None when none does yet."""
        if self.mark is None or self.at_ready is None:
            return None
        return max(self.mark, int(ROOM * self.at_ready))

    def next_look(self, measured: int) -> float:
        """Return the seconds until the next look."""
        pause, mark = self.ceiling, self.effective_mark()
        if self.limit is not None and measured <= self.limit:
            pause = min(pause, max(FLOOR, (self.limit - measured) / GROWTH))
        if mark is not None and not self.told:
            pause = min(pause, max(MARK_PAUSE, (mark - measured) / CALM_GROWTH))
        return pause
