"""Lives held together by a search of /proc: see search.py for what it finds.

One pass serves all lives that wait for one, and what fork servers have left; `elapse` makes it when it is due.
"""

import time
from collections.abc import Callable, Container

from sergeant_linux.containment.leaves import Leaf
from sergeant_linux.containment.search import Stragglers


class BySearch:
    """What is known, and not to be searched for, `known` returns; `hurry`: the pool stops, passes need no spacing."""

    def __init__(
        self, stragglers: Stragglers, known: Callable[[], Container[int]], hurry: Callable[[], bool] = lambda: False
    ) -> None:
        self._stragglers = stragglers
        self._known = known
        self._hurry = hurry

    def cradle(self, life: int) -> Leaf | None:
        return None

    def end(self, life: int, session: int | None, now: float) -> None:
        if session is None:
            self._stragglers.look_for_births()
        else:
            self._stragglers.look_for(life, session)

    def next_deadline(self) -> float | None:
        return self._stragglers.due(hurry=self._hurry())

    def elapse(self, now: float) -> list[int]:
        due = self.next_deadline()
        if due is None or due > now:
            return []
        began = time.monotonic()
        over = self._stragglers.sweep(self._known())
        self._stragglers.took(began, time.monotonic())
        return [life for life in over if life > 0]

    def close(self) -> None:
        """Nothing is held."""
