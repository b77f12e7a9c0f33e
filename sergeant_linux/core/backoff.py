"""When a failed worker is started again, and when no more: pure answers to (history, now).

Facts: a worker that fails at once and is restarted at once eats a core and fills the log; workers that fail together
and wait equally long fail together again.
Decision: the k-th consecutive failure waits delay × 2^(k-1), capped, with jitter; the pool as a whole may have a
budget of failure restarts in a sliding window.
"""

from collections import deque
from dataclasses import dataclass, field
from random import Random
from typing import Final

from sergeant_linux.core.policy import Budget

JITTER: Final = 0.1
"""A delay is drawn from ± this part of its nominal value, and never exceeds the cap."""

LAST_DOUBLING: Final = 64
"""Doublings beyond this one change nothing (2^64 × any delay is over any cap) and would overflow a float in the end."""


def restart_delay(failures: int, *, delay: float, max_delay: float, rng: Random) -> float:
    """Return the seconds to wait after the `failures`-th consecutive failure (1 is the first); 0 when `delay` is 0."""
    if delay == 0:
        return 0.0
    nominal = min(max_delay, delay * 2.0 ** min(failures - 1, LAST_DOUBLING))
    return min(max_delay, nominal * rng.uniform(1 - JITTER, 1 + JITTER))


@dataclass(slots=True)
class RestartBudget:
    """At most `count` failure restarts within any `span` seconds; without a budget, any number. `spent`: when those
    were made that still count."""

    budget: Budget | None
    spent: deque[float] = field(default_factory=deque)

    def spend(self, now: float) -> bool:
        """Take one restart from the budget; False when there is none left, and then nothing is taken."""
        if self.budget is None:
            return True
        while self.spent and self.spent[0] <= now - self.budget.span:
            self.spent.popleft()
        if len(self.spent) >= self.budget.count:
            return False
        self.spent.append(now)
        return True
