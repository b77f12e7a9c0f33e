"""What can happen to a pool: facts (past tense), and requests.

A fact about a process names its life, never its slot or pid: a slot outlives its processes and pids are used again,
so a fact that comes late can't be taken for one about the successor.
"""

from dataclasses import dataclass
from typing import Final, TypeAlias, get_args

from sergeant_linux.core.exit import STOPPED
from sergeant_linux.core.plain import Plain, plain, read
from sergeant_linux.core.policy import Policy
from sergeant_linux.core.result import Ending, Request


@dataclass(frozen=True, slots=True)
class Spawned:
    """The process of a life exists and waits at its gate; it has run no user code."""

    life: int
    pid: int


@dataclass(frozen=True, slots=True)
class SpawnFailed:
    """No process will come of this life. lost: who was to make it is gone, so that another one can do it at once."""

    life: int
    reason: str
    lost: bool = False


@dataclass(frozen=True, slots=True)
class Ready:
    """The worker said READY; `can_drain`: it listens for DRAIN and stops at a task boundary."""

    life: int
    can_drain: bool


@dataclass(frozen=True, slots=True)
class Exited:
    """The main process of a life was reaped, with the evidence of why."""

    life: int
    ending: Ending


@dataclass(frozen=True, slots=True)
class Unpopulated:
    """Nothing that the life had started is left."""

    life: int


@dataclass(frozen=True, slots=True)
class MemoryExceeded:
    """The life was measured over its memory limit (hard), in bytes."""

    life: int
    measured: int


@dataclass(frozen=True, slots=True)
class MemoryHigh:
    """The life stayed over its memory mark (soft), in bytes."""

    life: int
    measured: int


@dataclass(frozen=True, slots=True)
class Hung:
    """The life gives no sign of life, or is in one task for too long; `reason` says which."""

    life: int
    reason: str


@dataclass(frozen=True, slots=True)
class TimerElapsed:
    """The timer of a seat has run out."""


@dataclass(frozen=True, slots=True)
class StartRequested:
    """A process is wanted here."""


@dataclass(frozen=True, slots=True)
class SuccessionRequested:
    """The worker here is to be replaced as planned."""

    request: Request


@dataclass(frozen=True, slots=True)
class StopRequested:
    """No process is wanted here any more: it is asked to go, at its next task boundary if it can.

    patience: seconds until an asked worker is told (SIGTERM); grace: seconds from then until it is killed.
    """

    request: Request
    patience: float
    grace: float


@dataclass(frozen=True, slots=True)
class KillRequested:
    """Whatever is here is to be gone now."""


@dataclass(frozen=True, slots=True)
class GenerationServes:
    """Workers can be born from the code of this generation; `broken`: what of it could not be loaded, None: nothing."""

    generation: int
    broken: str | None = None


@dataclass(frozen=True, slots=True)
class GenerationFailed:
    """What is to load the code of this generation could not be started, has ended, or doesn't come to serve."""

    generation: int
    reason: str


@dataclass(frozen=True, slots=True)
class TimePassed:
    """The deadline of the pool has come."""


@dataclass(frozen=True, slots=True)
class TimeLost:
    """Nothing ran for so many seconds (everything was stopped, frozen, suspended), which was nobody's fault."""

    seconds: float


@dataclass(frozen=True, slots=True)
class PoolStartRequested:
    """Workers are wanted from now on."""


@dataclass(frozen=True, slots=True)
class PoolStopRequested:
    """No workers are wanted any more: the pool is to stop in order, and to leave with this exit status."""

    status: int = STOPPED


@dataclass(frozen=True, slots=True)
class PoolKillRequested:
    """The pool is to stop without waiting for anybody."""


@dataclass(frozen=True, slots=True)
class PolicyChanged:
    """This policy holds from now on."""

    policy: Policy


@dataclass(frozen=True, slots=True)
class ScaleRequested:
    """So many workers more are wanted, or less; `busy`: the lives that are in a task."""

    by: int
    busy: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class RestartRequested:
    """Fresh workers are wanted in these slots; None: in all."""

    slots: frozenset[int] | None = None


@dataclass(frozen=True, slots=True)
class ReloadRequested:
    """The code is to be loaded anew, and every worker to be replaced by one that runs it."""


SeatEvent: TypeAlias = (
    Spawned
    | SpawnFailed
    | Ready
    | Exited
    | MemoryExceeded
    | MemoryHigh
    | Hung
    | TimerElapsed
    | StartRequested
    | SuccessionRequested
    | StopRequested
    | KillRequested
)
"""What can happen to a seat (see slot.py); every pair of a state and one of these is in its table."""

LifeEvent: TypeAlias = Spawned | SpawnFailed | Ready | Exited | MemoryExceeded | MemoryHigh | Hung | Unpopulated
"""What the world reports about one life."""

Event: TypeAlias = (
    LifeEvent
    | GenerationServes
    | GenerationFailed
    | TimePassed
    | TimeLost
    | PoolStartRequested
    | PoolStopRequested
    | PoolKillRequested
    | PolicyChanged
    | ScaleRequested
    | RestartRequested
    | ReloadRequested
)
"""What goes into a pool, all of it."""

KINDS: Final = {kind.__name__: kind for kind in get_args(Event)}


def written(event: Event) -> Plain:
    """Return the event as JSON can hold it."""
    return {'event': type(event).__name__, **plain(event)}


def from_written(event: Plain) -> Event:
    """Return the event that was written down."""
    happened: Event = read(KINDS[event['event']], event)
    return happened
