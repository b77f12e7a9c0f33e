"""The one timer heap: who waits until when.

A key has at most one deadline; arming it again replaces the old one. Replaced entries stay in the heap until they
come up and are then passed over: arming and disarming cost O(log n), and nothing here reads a clock.

Several deadlines can come at once, and what is done about the first can make the second pointless: they elapse one by
one.
"""

from collections.abc import Hashable, Iterable, Iterator
from heapq import heapify, heappop, heappush
from typing import Generic, TypeVar

K = TypeVar('K', bound=Hashable)


class Deadlines(Generic[K]):
    """Deadlines by key, in seconds of any one monotonic clock."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, K]] = []
        self._current: dict[K, tuple[float, int]] = {}
        self._sequence = 0

    def written(self) -> list[tuple[K, float]]:
        """Return who waits until when, in the order in which they were armed: armed again so, they elapse the same."""
        by_age = sorted(self._current.items(), key=lambda item: item[1][1])
        return [(key, at) for key, (at, _) in by_age]

    def arm(self, key: K, at: float) -> None:
        """Let `key` elapse at `at`, and not at any time set before."""
        self._sequence += 1
        self._current[key] = (at, self._sequence)
        heappush(self._heap, (at, self._sequence, key))
        if len(self._heap) > 2 * len(self._current) + 64:
            self._heap = [(when, number, owner) for owner, (when, number) in self._current.items()]
            heapify(self._heap)

    def disarm(self, key: K) -> None:
        """Let `key` not elapse; nothing happens when it isn't armed."""
        self._current.pop(key, None)

    def put_off(self, seconds: float) -> None:
        """Let everything that is armed elapse that much later."""
        for key, at in self.written():
            self.arm(key, at + seconds)

    def next(self) -> float | None:
        """Return the earliest deadline, or None when nothing is armed."""
        while self._heap:
            at, number, key = self._heap[0]
            if self._current.get(key) == (at, number):
                return at
            heappop(self._heap)
        return None

    def elapse(self, now: float) -> Iterator[K]:
        """Disarm and yield the keys whose deadline has come, one at a time, earliest first.

        What the caller does between two of them counts: a key disarmed meanwhile does not elapse, and one armed
        meanwhile waits for the next call, however soon it is due.
        """
        newest = self._sequence
        while (at := self.next()) is not None and at <= now and self._heap[0][1] <= newest:
            key = heappop(self._heap)[2]
            del self._current[key]
            yield key


def earliest(deadlines: Iterable[float | None]) -> float | None:
    """Return the first of these; None: there is none."""
    return min((each for each in deadlines if each is not None), default=None)
