"""When a worker is taken for hung, and when to look at it again.

Facts: a worker says since when it has been in its oldest task, and when it last gave a sign of life; what it says may
be unknown. A sergeant worker without a task asks for one, and so gives a sign, each second, or as often as its broker
lets it; code of the user's own may never give one, and is then not expected to.
Consequence: with a task in work the task's age counts and nothing else; without one, the age of the last sign, if there
ever was one. Neither is older than READY: before that, the start has its own time.
Decision: a look that finds nothing says when at the earliest it could, and nobody looks before.
Price: a worker without tasks and signs is looked at once in each span, for it may begin to give them.

Invariant: no worker is hung before `span` has passed since it was last known to get on.
"""

from dataclasses import dataclass
from typing import Protocol

from sergeant_linux.core.units import format_span


class Look(Protocol):
    """What a worker says of itself (page.Look): seconds of the clock of `now`; None: nothing."""

    @property
    def task_started(self) -> float | None:
        """When the oldest task in work was begun."""

    @property
    def last_sign(self) -> float | None:
        """When it last gave a sign of life."""


@dataclass(frozen=True, slots=True)
class Hung:
    """The worker is taken for hung."""

    reason: str


@dataclass(frozen=True, slots=True)
class LookAgain:
    """It is not; at the earliest it could be at this time."""

    at: float


def judge(look: Look, *, since: float, now: float, span: float) -> Hung | LookAgain:
    """Return what a look means at a worker that may be judged by what it does `since` then: READY, at the earliest."""
    if look.task_started is not None:
        began, what = look.task_started, 'in one task'
    elif look.last_sign is not None:
        began, what = look.last_sign, 'without a sign of life'
    else:
        return LookAgain(now + span)
    began = max(began, since)
    if now < began + span:
        return LookAgain(began + span)
    return Hung(f'{what} for {format_span(round(now - began, 1))}, longer than {format_span(span)}')
