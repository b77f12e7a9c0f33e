"""A kernel that exists on paper: it obeys orders, and whoever asks decides what happens next, and when.

Facts: what the core can be surprised by is the order of events. A real kernel shows a few orders, the same ones every
time.
Decision: `FakeKernel` keeps what is true of each life (asked for, waiting at its gate, free, ended) and `possible`
names *everything* that may be reported next; nothing happens by itself. An order that makes no sense where it stands
(SIGTERM to nobody, a second SIGTERM, a spawn under an old number) is the core's fault and fails the test on the spot.
Price: a fake can lie. What it promises is in tests/contract/, and those tests run on the real kernel too.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, assert_never

from sergeant_linux.core.commands import (
    FIRST_GENERATION,
    Cancel,
    Drain,
    EndGeneration,
    EndStragglers,
    Go,
    Kill,
    Leave,
    Order,
    Spawn,
    StartGeneration,
    Terminate,
)
from sergeant_linux.core.events import (
    Exited,
    Hung,
    LifeEvent,
    MemoryExceeded,
    MemoryHigh,
    Ready,
    Spawned,
    SpawnFailed,
    Unpopulated,
)
from sergeant_linux.core.result import SIGKILL, SIGTERM, Ending, FinalReport

FINISHED: Final = Ending(0, None)
RAISED: Final = Ending(1, None)
NO_MODULE: Final = Ending(2, None)
WANTS_RESPAWN: Final = Ending(4, None)
WANTS_STOP: Final = Ending(5, None, report=FinalReport(5))
WAS_TOLD_TO_STOP: Final = Ending(5, None, report=FinalReport(5, received_stop_signal=True))
KILLED: Final = Ending(None, SIGKILL)
TERMINATED: Final = Ending(None, SIGTERM)
STOLEN: Final = Ending(None, None, stolen=True)

ENDINGS: Final = (
    FINISHED,
    RAISED,
    NO_MODULE,
    WANTS_RESPAWN,
    WANTS_STOP,
    WAS_TOLD_TO_STOP,
    KILLED,
    TERMINATED,
    STOLEN,
)
"""One ending of every kind that the core tells apart."""

OVER: Final = 100_000_000
"""Bytes that a worker over its limit or mark is measured with."""


class Phase(Enum):
    """How far a life has come, as the kernel knows it."""

    REQUESTED = 'asked for; nobody knows whether a process will come of it'
    AT_GATE = 'a process that has run no user code'
    FREE = 'a process that runs user code'
    ENDED = 'reaped; what it has started may be left'


@dataclass(slots=True)
class Process:
    """What is true of one life."""

    life: int
    phase: Phase = Phase.REQUESTED
    ready: bool = False
    can_drain: bool = False
    drained: bool = False
    terminated: bool = False
    killed: bool = False
    searched: bool = False

    @property
    def alive(self) -> bool:
        """Whether there is a process that is not reaped."""
        return self.phase in (Phase.AT_GATE, Phase.FREE)


@dataclass(slots=True)
class FakeKernel:
    """Obeys `Order`s; `possible` is what it may report next, `report` lets one of these become true."""

    endings: Sequence[Ending] = ENDINGS
    watches_memory: bool = True
    watches_hangs: bool = False
    generations: dict[int, bool] = field(default_factory=lambda: {FIRST_GENERATION: True})
    """Which generations of the code there are, and whether they are loaded."""
    processes: dict[int, Process] = field(default_factory=dict)
    newest: int = 0
    left_with: int | None = None

    def obey(self, order: Order) -> None:
        """Carry out one order. AssertionError: it makes no sense here."""
        assert self.left_with is None, f'{order} after Leave'
        match order:
            case Spawn(_, life, generation):
                assert self.generations.get(generation), f'{order}: its code is not there'
                assert life > self.newest, f'{order}: the number of a life is used again'
                self.newest = life
                self.processes[life] = Process(life)
            case Go(_, life):
                process = self._in(order, life, Phase.AT_GATE)
                process.phase = Phase.FREE
            case Cancel(life):
                self._in(order, life, Phase.REQUESTED)
                del self.processes[life]
            case Drain(life):
                process = self._in(order, life, Phase.FREE)
                assert process.can_drain, f'{order} for a worker that does not listen for it'
                assert not (process.drained or process.terminated or process.killed), f'{order} comes too late'
                process.drained = True
            case Terminate(life):
                process = self._in(order, life, Phase.FREE)
                assert not process.terminated, f'{order}: a second SIGTERM kills a sergeant worker in mid-clean-up'
                assert not process.killed, f'{order} after SIGKILL'
                process.terminated = True
            case Kill(life):
                self._in(order, life, Phase.AT_GATE, Phase.FREE).killed = True
            case EndStragglers(life):
                self._in(order, life, Phase.ENDED).searched = True
            case StartGeneration(generation):
                assert generation not in self.generations
                self.generations[generation] = False
            case EndGeneration(generation):
                del self.generations[generation]
                assert any(self.generations.values()), f'{order}: no code is left'
            case Leave(status):
                assert not self.processes, f'{order} with {list(self.processes.values())} still there'
                self.left_with = status
            case _:
                assert_never(order)

    def _in(self, order: Order, life: int, *phases: Phase) -> Process:
        process = self.processes.get(life)
        assert process is not None and process.phase in phases, f'{order} for {process}'
        return process

    def possible(self) -> Iterator[LifeEvent]:
        """Yield everything that may be reported next, of every life."""
        for process in self.processes.values():
            yield from self.possible_of(process)

    def possible_of(self, process: Process) -> Iterator[LifeEvent]:
        """Yield everything that may be reported next of one life."""
        life = process.life
        match process.phase:
            case Phase.REQUESTED:
                yield Spawned(life, pid_of(life))
                yield SpawnFailed(life, 'no room')
            case Phase.AT_GATE | Phase.FREE:
                if process.ready:
                    yield Ready(life, process.can_drain)
                else:
                    yield Ready(life, can_drain=True)
                    yield Ready(life, can_drain=False)
                if self.watches_memory:
                    yield MemoryExceeded(life, OVER)
                    yield MemoryHigh(life, OVER)
                if self.watches_hangs and process.ready:
                    yield Hung(life, 'one task for 60s')
                for ending in self.endings:
                    yield Exited(life, ending)
            case Phase.ENDED:
                if process.searched:
                    yield Unpopulated(life)

    def report(self, event: LifeEvent) -> None:
        """Let `event` be true from now on."""
        process = self.processes[event.life]
        match event:
            case Spawned():
                process.phase = Phase.AT_GATE
            case SpawnFailed():
                del self.processes[event.life]
            case Ready(_, can_drain):
                process.ready, process.can_drain = True, can_drain
            case Exited():
                process.phase = Phase.ENDED
            case Unpopulated():
                del self.processes[event.life]
            case MemoryExceeded() | MemoryHigh() | Hung():
                pass

    def loading(self) -> int | None:
        """Return the generation whose code is being loaded, if there is one."""
        return next((number for number, is_loaded in self.generations.items() if not is_loaded), None)

    def willing(self) -> LifeEvent | None:
        """Return what comes next where all goes well: who is asked for is born and ready, who is asked to go goes."""
        return next((event for each in self.processes.values() if (event := self._answer(each, WILLING))), None)

    def stubborn(self) -> LifeEvent | None:
        """Return what comes next where nobody heeds a request: only SIGKILL ends a process."""
        return next((event for each in self.processes.values() if (event := self._answer(each, STUBBORN))), None)

    def _answer(self, process: Process, heeds_requests: bool) -> LifeEvent | None:
        life = process.life
        match process.phase:
            case Phase.REQUESTED:
                return Spawned(life, pid_of(life))
            case Phase.ENDED:
                return Unpopulated(life)
            case Phase.AT_GATE | Phase.FREE:
                if process.killed:
                    return Exited(life, KILLED)
                if heeds_requests and (process.terminated or process.drained):
                    return Exited(life, WAS_TOLD_TO_STOP)
                if not process.ready:
                    return Ready(life, can_drain=True)
        return None


WILLING: Final = True
STUBBORN: Final = False


def pid_of(life: int) -> int:
    """Return the pid of a life's process: like the real ones, it says nothing about the life."""
    return 4000 + life
