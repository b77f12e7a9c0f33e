"""Why a life ended: the wait status and the evidence in, a result out.

Facts: a wait status says how a process ended, not why; a SIGKILL may be ours, the kernel's or a stranger's, and an
exit code 5 may be a wish or an obedience.
Consequence: who ends a life is recorded before it is signalled, and the result is decided here, from that record and
the evidence, once. The first cause wins: a worker that is killed because it didn't stop in time ended by its timeout,
whatever its status says.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from typing import Any, Final

SIGKILL: Final = 9
SIGTERM: Final = 15

FINISHED: Final = 0
MODULE_NOT_FOUND: Final = 2
CLASS_NOT_FOUND: Final = 3
ASKED_TO_RESPAWN: Final = 4
ASKED_TO_STOP: Final = 5
INTERNAL_FAILURE: Final = 6
MODULE_NOT_IMPORTABLE: Final = 7
"""The return codes of a sergeant worker that have a meaning of their own."""

UNLOADABLE: Final = frozenset({MODULE_NOT_FOUND, CLASS_NOT_FOUND, MODULE_NOT_IMPORTABLE})


class Result(StrEnum):
    """Why a life ended, in systemd's words (systemd.exec(5), $SERVICE_RESULT) where systemd has one."""

    SUCCESS = 'success'
    EXIT_CODE = 'exit-code'
    SIGNAL = 'signal'
    CORE_DUMP = 'core-dump'
    TIMEOUT = 'timeout'
    MEMORY_MAX = 'memory-max'
    OOM_KILL = 'oom-kill'
    WATCHDOG = 'watchdog'
    UNKNOWN = 'unknown'


class OomScope(StrEnum):
    """Whose limit the kernel's OOM killer has acted for."""

    WORKER = 'worker'
    POOL = 'pool'
    CONTAINER = 'container'
    HOST = 'host'


class Request(StrEnum):
    """Who wanted a life to end, when it wasn't the worker itself."""

    STOP = 'stop'
    SCALE_DOWN = 'scale-down'
    MEMORY_HIGH = 'memory-high'
    LIFETIME = 'lifetime'
    RESTART = 'restart'
    RELOAD = 'reload'


class Outcome(Enum):
    """What an ending means for the slot."""

    FINISHED = 'finished'
    WANTS_POOL_STOP = 'wants the pool to stop'
    STOPPED_BY_STRANGER = 'stopped by a stranger'
    UNLOADABLE = 'unloadable'
    FAILED = 'failed'


@dataclass(frozen=True, slots=True)
class FinalReport:
    """The worker's last words. They are data from a worker: they inform, they don't command."""

    return_code: int
    exception: str | None = None
    stacktrace: str | None = None
    summary: Mapping[str, Any] | None = None
    unkillable_threads: tuple[str, ...] = ()
    received_stop_signal: bool = False


@dataclass(frozen=True, slots=True)
class MemoryEvidence:
    """What the life's leaf had counted when it was reaped. Sizes in bytes; None: no limit, or not told by this kernel.

    oom_kills: how many of its processes the kernel's OOM killer has ended; oom_scope: for whose limit, if any;
    main_killed: whether the main process was among them.
    anon, file, shmem, kernel: what current_bytes consists of (memory.stat).
    left_shmem: after a kill for the pool's limit, what lives that are over have left in it: files in memory (tmpfs).
    """

    limit_bytes: int | None
    peak_bytes: int | None
    current_bytes: int | None
    oom_kills: int
    oom_scope: OomScope | None
    main_killed: bool
    anon: int | None
    file: int | None
    shmem: int | None
    kernel: int | None
    left_shmem: int | None = None


@dataclass(frozen=True, slots=True)
class Ending:
    """The evidence of one end, read before the process is buried.

    exit_code, signal: the wait status (one of them, or neither when `stolen`: somebody else has reaped the process).
    max_rss_bytes: the highest own sample of its memory; cpu_seconds: user + system time; tasks_done, tasks_failed: what
    its page has counted. None: not known.
    """

    exit_code: int | None
    signal: int | None
    core_dumped: bool = False
    stolen: bool = False
    report: FinalReport | None = None
    max_rss_bytes: int | None = None
    cpu_seconds: float | None = None
    memory: MemoryEvidence | None = None
    oom_around: OomScope | None = None
    """For whose limit the OOM killer must have ended it, where there is no leaf that counts."""
    tasks_done: int | None = None
    tasks_failed: int | None = None

    @property
    def was_oom_killed(self) -> bool:
        """Whether the kernel's OOM killer has ended the main process: SIGKILL, and a kill of it counted by its leaf, or
        around us where it has none."""
        counted = self.memory.main_killed if self.memory is not None else self.oom_around is not None
        return self.signal == SIGKILL and counted

    @property
    def return_code(self) -> int | None:
        """The code the worker left with; None when a signal ended it or nobody knows.

        A worker that could not end its own threads reports its code and kills itself; then the report is the truth.
        """
        if self.exit_code is None and self.report is not None and self.report.unkillable_threads:
            return self.report.return_code
        return self.exit_code


@dataclass(slots=True)
class Blame:
    """What we did to a life, written down before we did it."""

    request: Request | None = None
    result: Result | None = None
    signalled: bool = field(default=False)

    def is_ours(self, request: Request) -> None:
        """Record who asked the life to end; the first to ask is remembered."""
        self.request = self.request or request

    def is_for(self, result: Result) -> None:
        """Record for what the life is ended; the first cause wins."""
        self.result = self.result or result


def result_of(ending: Ending, blame: Blame) -> Result:
    """Return why the life ended."""
    code = ending.return_code
    if ending.stolen:
        return Result.UNKNOWN
    if blame.result is not None:
        return blame.result
    if code is None:
        if ending.was_oom_killed:
            return Result.OOM_KILL
        if blame.signalled and ending.signal == SIGTERM:
            return Result.SUCCESS
        return Result.CORE_DUMP if ending.core_dumped else Result.SIGNAL
    if code in (FINISHED, ASKED_TO_RESPAWN):
        return Result.SUCCESS
    if code == ASKED_TO_STOP and outcome_of(ending, blame) is not Outcome.STOPPED_BY_STRANGER:
        return Result.SUCCESS
    return Result.EXIT_CODE


def outcome_of(ending: Ending, blame: Blame) -> Outcome:
    """Return what the ending means.

    Code 5 is a wish to stop the pool when the worker itself had it; after a signal of ours it is obedience, and after
    a signal of a stranger (an operator's kill, earlyoom) the worker is replaced: one that is told to go is no reason
    to stop the others.
    """
    code = ending.return_code
    if blame.result is not None or ending.stolen:
        return Outcome.FAILED
    if code in (FINISHED, ASKED_TO_RESPAWN):
        return Outcome.FINISHED
    if code == ASKED_TO_STOP:
        if blame.signalled:
            return Outcome.FINISHED
        if ending.report is not None and ending.report.received_stop_signal:
            return Outcome.STOPPED_BY_STRANGER
        return Outcome.WANTS_POOL_STOP
    if code in UNLOADABLE:
        return Outcome.UNLOADABLE
    return Outcome.FAILED
