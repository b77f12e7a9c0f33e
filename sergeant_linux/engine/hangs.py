"""Watch that workers get on, by what their pages say.

Facts: a page is read without a system call, and core/watchdog.py says when it is worth it. Where everything was halted
(SIGSTOP, a frozen cgroup, `docker pause`), the clock went on, and no worker could: the supervisor may well be the first
to run again.
Consequence: a look that comes late by more than `LATE` seconds proves nothing against a worker; from then on it has its
whole span again.
Price: a supervisor that is late by that much finds a hung worker a span later.

Invariant: without the knob nothing is ever due; a life is found hung once.
"""

from dataclasses import dataclass

from sergeant_linux.core.deadlines import Deadlines
from sergeant_linux.core.hang import Hung, judge
from sergeant_linux.core.margins import LATE
from sergeant_linux.core.policy import PolicyNow
from sergeant_linux.engine.lifeline import Lifeline
from sergeant_linux.wire.scoreboard import Page


@dataclass(slots=True)
class _Watched:
    """A life that is ready is judged by what it does since then, or since `since`; None: it isn't ready yet."""

    page: Page
    since: float | None = None
    due: float = 0.0


class Watchdog:
    """Looks at all lives that have a page, each when it could be hung."""

    def __init__(self, policy: PolicyNow) -> None:
        self._policy = policy
        self._watched: dict[int, _Watched] = {}
        self._looks: Deadlines[int] = Deadlines()

    def born(self, lifeline: Lifeline, now: float) -> None:
        """Begin with this life, which has a process."""
        self.watch(lifeline.number, lifeline.page, now)

    def watch(self, life: int, page: Page | None, now: float) -> None:
        """Begin with this life. Without a page there is nothing to be seen of it."""
        if page is not None:
            self._watched[life] = _Watched(page)

    def ready(self, life: int, now: float) -> None:
        """The worker is ready: its time counts from now on."""
        watched = self._watched.get(life)
        if watched is not None and watched.since is None:
            watched.since = now
            self._look_again_in_a_span(life, watched, now)

    def ended(self, life: int) -> None:
        """The life is over, and its page is about to be closed."""
        self._watched.pop(life, None)
        self._looks.disarm(life)

    def policy_changed(self, now: float) -> None:
        """Go on with another span, or with none."""
        for life, watched in self._watched.items():
            self._looks.disarm(life)
            if watched.since is not None:
                self._look_again_in_a_span(life, watched, now)

    def lose_time(self, now: float) -> None:
        """Nothing could run until now: each has its whole span again."""
        for life, watched in self._watched.items():
            if watched.since is not None:
                watched.since = now
                self._look_again_in_a_span(life, watched, now)

    def next_deadline(self) -> float | None:
        """Return when `elapse` is due; None when nothing is to be looked at."""
        return self._looks.next()

    def elapse(self, now: float) -> list[tuple[int, str]]:
        """Look at every life that is due; return those that are hung, and why. These are not looked at again."""
        hung: list[tuple[int, str]] = []
        for life in self._looks.elapse(now):
            watched = self._watched[life]
            span = self._span()
            assert span is not None and watched.since is not None
            if now - watched.due > LATE:
                watched.since = now
            verdict = judge(watched.page.look(), since=watched.since, now=now, span=span)
            if isinstance(verdict, Hung):
                hung.append((life, verdict.reason))
            else:
                self._look_at(life, watched, verdict.at)
        return hung

    def close(self) -> None:
        """Watch nobody."""
        for life in list(self._watched):
            self.ended(life)

    def _span(self) -> float | None:
        return self._policy().worker_watchdog

    def _look_again_in_a_span(self, life: int, watched: _Watched, now: float) -> None:
        if (span := self._span()) is not None:
            self._look_at(life, watched, now + span)

    def _look_at(self, life: int, watched: _Watched, at: float) -> None:
        watched.due = at
        self._looks.arm(life, at)
