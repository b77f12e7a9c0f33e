"""The recycle token: who may be replaced now, whatever asks for it.

Whatever mixture of causes there is (memory mark, lifetime, restart, reload), at most `max_surge` workers have a
successor at a time, and at most `max_unavailable` are away without one. A worker is replaced by a succession where
there is room for one; else it goes first, and its place is filled when it is gone. The others wait for their turn, in
the order in which they were asked to go.

Invariant: a turn belongs to a life. When its life is over, or need not go any more, it is passed over.
"""

from collections import deque
from dataclasses import dataclass, field

from sergeant_linux.core.policy import Policy


@dataclass(slots=True)
class Token:
    """`surge`: the slots that have a successor; `away`: those whose worker goes, or is gone, without one; `turns`: the
    lives that wait."""

    surge: set[int] = field(default_factory=set)
    away: set[int] = field(default_factory=set)
    turns: deque[int] = field(default_factory=deque)

    def has_room_beside(self, policy: Policy) -> bool:
        """Whether one more worker may have a successor."""
        return len(self.surge) < policy.max_surge

    def has_room_without(self, policy: Policy) -> bool:
        """Whether one more worker may be away."""
        return len(self.away) < policy.max_unavailable

    def give_back(self, slot: int) -> None:
        """Nobody is replaced in this slot any more."""
        self.surge.discard(slot)
        self.away.discard(slot)
