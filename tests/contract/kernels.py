"""The two kernels of the contract: the one on paper, and the real one behind the real loop.

Facts: the core's tests are worth what the fake kernel is worth. A fake goes wrong in two ways: it does what the real
one never does (the core is then built for nothing), or it never does what the real one does (the core is then caught
out).
Decision: both kernels are asked the same things in the same words, and a `FakeKernel` follows the real one like a
shadow: it is given every order, and each event that really happens must be among those that the shadow holds possible
at that moment.
Price: the real kernel is driven through the loop's inside, in one place, here. The pool is replaced by one that only
writes down what it is told: what is under test is everything below it.
"""

import logging
import os
import select
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any, Final, Protocol, TypeVar

from sergeant_linux.core.commands import FIRST_GENERATION, ORDERS, Command, Order
from sergeant_linux.core.events import (
    Event,
    Exited,
    LifeEvent,
    MemoryExceeded,
    MemoryHigh,
    PoolStopRequested,
    Ready,
    Spawned,
    SpawnFailed,
)
from sergeant_linux.core.policy import Policy
from sergeant_linux.core.pool import Pool
from sergeant_linux.core.result import SIGKILL, SIGTERM
from sergeant_linux.engine.borrowed import Host
from sergeant_linux.engine.loop import Loop
from sergeant_linux.kernel import procfs
from sergeant_linux.kernel.poller import EPOLLIN
from sergeant_linux.log.words import Journal
from tests.core.fake_kernel import FakeKernel, Phase, Process

DEADLINE: Final = 20.0
"""How long, in seconds, an event may take that comes at once."""

STAYS, LEAVES, LEAVES_A_CHILD, ENDS_SOMEHOW = 'stays', 'leaves', 'leaves_a_child', 'ends_somehow'
"""What a worker does after it has become ready. Its child ignores SIGTERM and has a session of its own."""

WORKERS: Final = """
import os, random, signal, time
from pathlib import Path

def note(what):
    Path(what + os.environ['SERGEANT_WORKER_LIFE']).write_text(str(os.getpid()))

def stays():
    note('ran-')
    while True:
        signal.pause()

def leaves():
    note('ran-')

def ends_somehow():
    how = random.random()
    if how < 0.2:
        signal.raise_signal(signal.SIGKILL)
    if how < 0.4:
        raise Exception('planned')
    if how < 0.6:
        os._exit(9)

def leaves_a_child():
    note('ran-')
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.setsid()
        note('child-')
        while True:
            signal.pause()
    while not Path('child-' + os.environ['SERGEANT_WORKER_LIFE']).exists():
        time.sleep(0.001)
"""

E = TypeVar('E', bound=LifeEvent)


class Kernel(Protocol):
    """What the contract asks of a kernel. `heard`: what has happened so far, in order."""

    heard: list[LifeEvent]

    def obey(self, *orders: Order) -> None:
        """Carry out orders."""

    def wait_for(self, kind: type[E], life: int) -> E:
        """Let happen what happens, until this has."""

    def answer(self, life: int) -> Spawned | SpawnFailed:
        """Let happen what happens, until the spawn of this life is answered."""

    def let_be_born(self, life: int) -> None:
        """Wait until the process of this life is at its gate, and don't look: nobody has told of it yet."""

    def let_end(self, life: int) -> None:
        """Wait until the process of this life has ended by itself, and don't look: nobody has told of it yet."""

    def notice_end(self, life: int) -> None:
        """Of all that this life has left to be noticed, notice its end first."""

    def let_births_end(self) -> None:
        """Wait until every process that was being made is made, or gone."""

    def lose_its_fork_server(self) -> None:
        """Have it lose what makes processes, whatever it is doing."""

    def ran(self) -> set[int]:
        """Return the lives of which a line of user code was run."""

    def child(self, life: int) -> bool:
        """Whether the child that this life has started is there."""


class Hears:
    """What both kernels have in common: they wait for what they hear of."""

    heard: list[LifeEvent]

    def wait_for(self, kind: type[E], life: int) -> E:
        event = self._until((kind,), life)
        assert isinstance(event, kind)
        return event

    def answer(self, life: int) -> Spawned | SpawnFailed:
        event = self._until((Spawned, SpawnFailed), life)
        assert isinstance(event, Spawned | SpawnFailed)
        return event

    def _until(self, kinds: tuple[type[object], ...], life: int) -> LifeEvent:
        began = time.monotonic()
        while not (found := [event for event in self.heard if isinstance(event, kinds) and event.life == life]):
            assert time.monotonic() - began < DEADLINE, f'no {kinds} of life {life} has come; there were {self.heard}'
            self._go_on()
        (event,) = found
        return event

    def _go_on(self) -> None:
        """Let something happen."""
        raise NotImplementedError


class PaperKernel(Hears):
    """`FakeKernel`, with chance for its time: of what may happen next, something does."""

    def __init__(self, worker: str, seed: int) -> None:
        self.heard: list[LifeEvent] = []
        self._worker = worker
        self._chance = Random(seed)
        self._kernel = FakeKernel()
        self._ran: set[int] = set()
        self._ended: set[int] = set()
        self._children: set[int] = set()
        self._spawns_may_fail = False

    def obey(self, *orders: Order) -> None:
        for order in orders:
            self._kernel.obey(order)

    def _go_on(self) -> None:
        events = [event for event in self._kernel.possible() if self._comes(event)]
        assert events, f'nothing comes any more; there were {self.heard}'
        self._let_happen(self._chance.choice(events))

    def _comes(self, event: LifeEvent) -> bool:
        """Whether this kind of worker would do that."""
        process = self._kernel.processes[event.life]
        match event:
            case SpawnFailed():
                return self._spawns_may_fail
            case Ready(_, can_drain):
                return process.phase is Phase.FREE and not process.ready and not can_drain
            case Exited(_, ending):
                return self._ends(process, ending.exit_code, ending.signal)
            case MemoryExceeded() | MemoryHigh():
                return False
        return True

    def _ends(self, process: Process, exit_code: int | None, signum: int | None) -> bool:
        if exit_code == 0:
            return process.ready and self._worker != STAYS
        if process.life in self._ended:
            return False
        return (process.killed and signum == SIGKILL) or (process.terminated and signum == SIGTERM)

    def _let_happen(self, event: LifeEvent) -> None:
        match event:
            case Ready(life):
                self._ran.add(life)
            case Exited(life) if self._worker == LEAVES_A_CHILD and life in self._ran:
                self._children.add(life)
        self._kernel.report(event)
        self._children &= self._kernel.processes.keys()
        self.heard.append(event)

    def let_be_born(self, life: int) -> None:
        """Here it is born when that is told."""

    def let_end(self, life: int) -> None:
        self._ended.add(life)

    def notice_end(self, life: int) -> None:
        """Here nothing is ready to be noticed before it happens."""

    def let_births_end(self) -> None:
        """Here a birth takes no time."""

    def lose_its_fork_server(self) -> None:
        self._spawns_may_fail = True

    def ran(self) -> set[int]:
        return self._ran

    def child(self, life: int) -> bool:
        return life in self._children


class Shadow(FakeKernel):
    """Follows a real kernel: is given its orders, and is told what has happened there."""

    def witness(self, event: LifeEvent) -> None:
        """Take in what has really happened. AssertionError: the fake kernel held it impossible."""
        possible = list(self.possible())
        foreseen = any(type(event) is type(each) and event.life == each.life for each in possible)
        assert foreseen, f'{event} has happened; the fake kernel only knows of {possible}'
        self.report(event)


class Witness(Pool):
    """A pool that decides nothing: it keeps what it is told, and wakes the loop up when the test's patience is over."""

    def __init__(self, policy: Policy) -> None:
        super().__init__(policy, Random())
        self.heard: list[LifeEvent] = []
        self.shadow = Shadow()
        self.patience_ends: float | None = None

    def handle(self, event: Event, now: float) -> list[Command]:
        if isinstance(event, LifeEvent):
            self.shadow.witness(event)
            self.heard.append(event)
        return []

    def next_deadline(self) -> float | None:
        return self.patience_ends


class ShadowedPool(Pool):
    """A pool that decides as always, is followed by a shadow, and stops after so many ends of a life."""

    def __init__(self, policy: Policy, ends: int) -> None:
        super().__init__(policy, Random())
        self.shadow = Shadow()
        self.ends_to_come = ends

    def handle(self, event: Event, now: float) -> list[Command]:
        if isinstance(event, LifeEvent):
            self.shadow.witness(event)
        commands = super().handle(event, now)
        for command in commands:
            if isinstance(command, ORDERS):
                self.shadow.obey(command)
        if isinstance(event, Exited):
            self.ends_to_come -= 1
            if self.ends_to_come == 0:
                commands += self.handle(PoolStopRequested(), now)
        return commands


class RealKernel(Hears):
    """The loop, and all that is below it, on the kernel of this machine."""

    def __init__(self, worker: str, host: Host) -> None:
        policy = policy_for(worker)
        self._witness = Witness(policy)
        self.heard = self._witness.heard
        self._loop = loop_with(self._witness, host)
        self._runner = self._loop.runner
        self._loop.begin()

    def obey(self, *orders: Order) -> None:
        for order in orders:
            self._witness.shadow.obey(order)
            self._runner.obey([order])

    def _go_on(self) -> None:
        self._witness.patience_ends = time.monotonic() + DEADLINE
        self._loop.turn()

    def let_be_born(self, life: int) -> None:
        gate = select.poll()
        gate.register(self._runner._unborn[life].gate, select.POLLIN)
        assert gate.poll(DEADLINE * 1000)

    def let_end(self, life: int) -> None:
        process = self._runner._alive[life].process
        assert process is not None and process.exited(DEADLINE)

    def notice_end(self, life: int) -> None:
        self._runner._on_exit(self._runner._alive[life], EPOLLIN)

    def let_births_end(self) -> None:
        while self._runner._unborn or self._runner._stragglers.due(hurry=True) is not None:
            self._go_on()

    def lose_its_fork_server(self) -> None:
        process = self._runner._generations._servers[FIRST_GENERATION].process
        assert process is not None
        process.signal(signal.SIGKILL)

    def ran(self) -> set[int]:
        return {int(path.name.removeprefix('ran-')) for path in Path().glob('ran-*')}

    def child(self, life: int) -> bool:
        stat = procfs.read_stat(int(Path(f'child-{life}').read_text()))
        return stat is not None and stat.comm == 'sergeant-linux'

    def close(self) -> None:
        """Leave nothing behind."""
        self._loop.end(0)


def policy_for(worker: str, **knobs: Any) -> Policy:
    """Return the policy of a pool of these workers, and write their module into the working folder."""
    Path('contract_workers.py').write_text(WORKERS)
    return Policy(**{'concurrent_workers': 1, **knobs}, worker_module_name='contract_workers', worker_class_name=worker)


def loop_with(pool: Pool, host: Host) -> Loop:
    """Return a loop that runs this pool, and is quiet about it."""
    logger = logging.getLogger('contract')
    logger.setLevel(logging.CRITICAL + 1)
    return Loop(pool, Random(), Journal(logger, lambda: pool.policy), None, host, os.environ)


@contextmanager
def real_kernel(worker: str) -> Iterator[RealKernel]:
    """Yield a real kernel whose workers are this one; the working folder is where they write."""
    with Host(is_ours=False) as host:
        kernel = RealKernel(worker, host)
        try:
            yield kernel
        finally:
            kernel.close()
