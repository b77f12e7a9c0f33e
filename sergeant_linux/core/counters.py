"""What has happened in a pool, as numbers that only rise.

Facts: who watches a pool asks now and then, and takes differences; a number that falls when a slot goes makes them
wrong. A worker counts its tasks in its page, and the page ends with the life.
Consequence: what has ended is counted here, when it ends; what lives is added by who asks.

Invariant: nothing here ever falls; there is a number for every result and every request, from the start on.
"""

from dataclasses import dataclass, field

from sergeant_linux.core.result import Ending, Request, Result


def _ended() -> dict[str, int]:
    return {str(result): 0 for result in Result}


def _requested() -> dict[str, int]:
    return {str(request): 0 for request in Request}


@dataclass(slots=True)
class Counters:
    """`spawned`: lives that had a process; `spawn_failures`: lives that never had one; `restarts`: how many times a
    slot's worker was followed by another; `ended`: lives by their result; `requested`: those of them whose end was
    asked for, by who did; `tasks_done`, `tasks_failed`: by lives that have ended."""

    spawned: int = 0
    spawn_failures: int = 0
    restarts: int = 0
    tasks_done: int = 0
    tasks_failed: int = 0
    ended: dict[str, int] = field(default_factory=_ended)
    requested: dict[str, int] = field(default_factory=_requested)

    def life_has_ended(self, ending: Ending, result: Result, request: Request | None) -> None:
        """Count the end of a life."""
        self.ended[result] += 1
        if request is not None:
            self.requested[request] += 1
        self.tasks_done += ending.tasks_done or 0
        self.tasks_failed += ending.tasks_failed or 0
