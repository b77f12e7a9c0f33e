"""What the core wants done, in the imperative, and what it wants told.

Orders are for the kernel side, reports are facts for the log; timers and escalations the pool keeps to itself. A pool
returns its orders first, in the order in which they are to be carried out, and then its reports: so the fork server
works, and a signal is sent, while we write.
"""

from dataclasses import dataclass
from typing import Final, TypeAlias, get_args

from sergeant_linux.core.result import Ending, Outcome, Request, Result

FIRST_GENERATION: Final = 1
"""The generation of the code that a pool starts with; each reload makes the next one."""


@dataclass(frozen=True, slots=True)
class Spawn:
    """Bring a process into being for this life, from the code of this generation; it is to wait at its gate."""

    slot: int
    life: int
    generation: int = FIRST_GENERATION


@dataclass(frozen=True, slots=True)
class StartGeneration:
    """Load the code anew, beside what is loaded, and say whether it could be."""

    generation: int


@dataclass(frozen=True, slots=True)
class EndGeneration:
    """No life will be born from this code any more: let go of it."""

    generation: int


@dataclass(frozen=True, slots=True)
class Go:
    """Open the gate: user code may run."""

    slot: int
    life: int


@dataclass(frozen=True, slots=True)
class Cancel:
    """Close the gate of a life that was not born yet: whatever comes of it leaves without having run user code."""

    life: int


@dataclass(frozen=True, slots=True)
class Drain:
    """Ask the worker to stop at its next task boundary."""

    life: int


@dataclass(frozen=True, slots=True)
class Terminate:
    """Send SIGTERM to the worker, once."""

    life: int


@dataclass(frozen=True, slots=True)
class Kill:
    """Send SIGKILL to the worker and everything it started."""

    life: int


@dataclass(frozen=True, slots=True)
class EndStragglers:
    """The main process is gone: end what it left behind, and say `Unpopulated` when there is nothing left."""

    life: int


@dataclass(frozen=True, slots=True)
class Leave:
    """The pool is at rest: leave with this exit status."""

    status: int


@dataclass(frozen=True, slots=True)
class Arm:
    """Let the seat's timer elapse at `at`; a seat has one timer."""

    at: float


@dataclass(frozen=True, slots=True)
class Disarm:
    """The seat waits for nothing."""


@dataclass(frozen=True, slots=True)
class StopPool:
    """The whole pool has to stop, and leave with this exit status."""

    status: int


@dataclass(frozen=True, slots=True)
class ReplaceSoon:
    """This seat's worker is to be succeeded when its turn comes."""

    request: Request


@dataclass(frozen=True, slots=True)
class WorkerSpawned:
    """A life has a process; `predecessor`: the pid of the worker whose place it takes."""

    slot: int
    life: int
    pid: int
    predecessor: int | None


@dataclass(frozen=True, slots=True)
class WorkerReady:
    """A worker is ready, `after` seconds after its process existed."""

    slot: int
    life: int
    pid: int
    after: float


@dataclass(frozen=True, slots=True)
class WorkerSpawnFailed:
    """No process came of a life."""

    slot: int
    life: int
    reason: str
    restart_in: float | None


@dataclass(frozen=True, slots=True)
class WorkerExited:
    """The one record of the end of a life. Times in seconds; `measured`: bytes of memory at the kill, for memory-max;
    `was_ready`: it had become ready."""

    slot: int
    life: int
    pid: int
    result: Result
    outcome: Outcome
    request: Request | None
    ending: Ending
    uptime: float
    measured: int | None
    restart_in: float | None
    was_ready: bool = False


@dataclass(frozen=True, slots=True)
class WorkerKilled:
    """SIGKILL is being sent: the worker didn't go in time, or nobody may wait any longer."""

    slot: int
    life: int
    pid: int


@dataclass(frozen=True, slots=True)
class WorkerStartTimedOut:
    """The worker did not become ready in time."""

    slot: int
    life: int
    pid: int
    after: float


@dataclass(frozen=True, slots=True)
class WorkerHung:
    """A worker is taken for hung, and told to go."""

    slot: int
    life: int
    pid: int
    reason: str


@dataclass(frozen=True, slots=True)
class ReloadStarted:
    """The code is loaded anew, as this generation."""

    generation: int


@dataclass(frozen=True, slots=True)
class ReloadEnded:
    """A reload is over. `reason`: why it has not changed all workers, None when it has; `changed`: how many of `of`."""

    generation: int
    phase: str
    changed: int
    of: int
    reason: str | None


@dataclass(frozen=True, slots=True)
class RestartEnded:
    """A restart is over. `reason`: why it was given up, None when all is done; `changed`: how many of `of`."""

    changed: int
    of: int
    reason: str | None


@dataclass(frozen=True, slots=True)
class WorkerSucceeds:
    """A worker is going to be succeeded; `measured`: bytes of memory, when that is the reason."""

    slot: int
    life: int
    pid: int
    request: Request
    measured: int | None


@dataclass(frozen=True, slots=True)
class StragglersRemain:
    """What a life left behind has been killed and is still there, `after` seconds later."""

    slot: int
    life: int
    after: float


@dataclass(frozen=True, slots=True)
class BudgetSpent:
    """The restart that would be due is not made: the budget is spent."""

    slot: int


@dataclass(frozen=True, slots=True)
class Scaled:
    """The number of workers wanted has changed, or couldn't (`before` == `after`)."""

    before: int
    after: int


Report: TypeAlias = (
    WorkerSpawned
    | WorkerReady
    | WorkerSpawnFailed
    | WorkerExited
    | WorkerKilled
    | WorkerStartTimedOut
    | WorkerHung
    | WorkerSucceeds
    | StragglersRemain
    | BudgetSpent
    | Scaled
    | ReloadStarted
    | ReloadEnded
    | RestartEnded
)
"""Facts for the log."""

Order: TypeAlias = (
    Spawn | Go | Cancel | Drain | Terminate | Kill | EndStragglers | StartGeneration | EndGeneration | Leave
)
"""What the kernel side is to do."""

ORDERS: Final = get_args(Order)

Command: TypeAlias = Order | Report
"""What a pool returns."""

SeatCommand: TypeAlias = Command | Arm | Disarm | StopPool | ReplaceSoon
"""What a seat returns; the pool keeps the last four to itself."""
