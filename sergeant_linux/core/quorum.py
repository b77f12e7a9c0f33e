"""Whether enough of a pool is at work for its supervisor to be worth a sign of life.

Facts: a service manager that misses a sign of life kills the supervisor, and all workers with it, and starts them
anew. That mends a pool that is stuck. It mends nothing where workers fail and wait for their restart, and it harms
where they start slowly.
Decision: a slot counts when it has a worker that is ready or finishes its task, and when it waits for something that
has an end: a backoff, a start or a stop whose time is limited. What waits for ever, and what the kernel doesn't let
go of, does not count.

Invariant: a pool that is scaled down below its quorum is measured by what it has.
"""

from math import isfinite
from typing import Final

from sergeant_linux.core.policy import Policy
from sergeant_linux.core.slot import State
from sergeant_linux.core.snapshot import SeatView, Snapshot

AT_WORK: Final = frozenset({State.RUNNING, State.DRAIN, State.AUTO_RESTART})


def has_quorum(snapshot: Snapshot, policy: Policy) -> bool:
    """Return whether as many slots count as the policy asks for."""
    counted = sum(
        any(_counts(seat, policy) for seat in (slot.incumbent, slot.successor) if seat is not None)
        for slot in snapshot.slots
    )
    return counted >= min(policy.watchdog_quorum, snapshot.wanted)


def _counts(seat: SeatView, policy: Policy) -> bool:
    match seat.state:
        case State.START:
            return isfinite(policy.timeout_start)
        case State.STOP_SIGTERM:
            return isfinite(policy.timeout_stop)
        case state:
            return state in AT_WORK
