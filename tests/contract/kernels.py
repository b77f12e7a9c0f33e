"""The two kernels of the contract: the one on paper, and the real one behind the real loop.

Facts: the core's tests are worth what the fake kernel is worth. A fake goes wrong in two ways: it does what the real one never does (the core is then
built for nothing), or it never does what the real one does (the core is then caught out). Decision: both kernels are asked the same things in the same
words, and a `FakeKernel` follows the real one like a shadow: it is given every order, and each event that really happens must be among those that the
shadow holds possible at that moment.
Price: the real kernel is driven through the loop's inside, in one place, here. The pool is replaced by one that only writes down
what it is told: what is under test is everything below it.
"""

import logging
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Final, Protocol, TypeVar

from sergeant_linux.core.commands import Command, Order
from sergeant_linux.core.events import Exited, LifeEvent, MemoryExceeded, MemoryHigh, Ready, Spawned, SpawnFailed
from sergeant_linux.core.policy import Policy
from sergeant_linux.core.pool import Pool
from sergeant_linux.core.result import SIGKILL, SIGTERM
from sergeant_linux.host import Host
from sergeant_linux.kernel import procfs
from sergeant_linux.loop import Loop
from sergeant_linux.messages import Journal
from tests.core.fake_kernel import FakeKernel, Phase, Process

DEADLINE: Final = 20.0
"""How long, in seconds, an event may take that comes at once."""

STAYS, LEAVES, LEAVES_A_CHILD = 'stays', 'leaves', 'leaves_a_child'
"""What a worker does after it has become ready. Its child ignores SIGTERM and has a session of its own."""

WORKERS: Final = """
import os, signal, time
from pathlib import Path

def note(what):
    Path(what + os.environ['SERGEANT_WORKER_LIFE']).write_text(str(os.getpid()))

def stays():
    note('ran-')
    while True:
        signal.pause()

def leaves():
    note('ran-')

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

    def let_end(self, life: int) -> None:
        """Wait until the process of this life has ended by itself, and don't look: nobody has told of it yet."""

    def lose_its_fork_server(self) -> None:
        """Have it lose what makes processes, whatever it is doing."""

    def ran(self, life: int) -> bool:
        """Whether a line of user code of this life was run."""

    def child(self, life: int) -> bool:
        """Whether the child that this life has started is there."""


class PaperKernel:
    """`FakeKernel`, with chance for its time: of what may happen next, something does."""

    def __init__(self, worker: str, seed: int) -> None:
        self.heard: list[LifeEvent] = []
        self._worker = worker
        self._chance = Random(seed)
        self._kernel = FakeKernel()
        self._ran: set[int] = set()
        self._children: set[int] = set()
        self._spawns_may_fail = False

    def obey(self, *orders: Order) -> None:
        for order in orders:
            self._kernel.obey(order)

    def wait_for(self, kind: type[E], life: int) -> E:
        while not (found := [event for event in self.heard if isinstance(event, kind) and event.life == life]):
            events = [event for event in self._kernel.possible() if self._comes(event)]
            assert events, f'{kind.__name__} of life {life} never comes; there were {self.heard}'
            self._let_happen(self._chance.choice(events))
        (only,) = found
        return only

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

    def let_end(self, life: int) -> None:
        self._ran.add(life)

    def lose_its_fork_server(self) -> None:
        self._spawns_may_fail = True

    def ran(self, life: int) -> bool:
        return life in self._ran

    def child(self, life: int) -> bool:
        return life in self._children


class Witness(Pool):
    """A pool that decides nothing: it keeps what it is told, and wakes the loop up when the test's patience is over."""

    def __init__(self, policy: Policy) -> None:
        super().__init__(policy, Random())
        self.heard: list[LifeEvent] = []
        self.shadow = FakeKernel()
        self.patience_ends: float | None = None

    def start(self, now: float) -> list[Command]:
        return []

    def handle(self, event: LifeEvent, now: float) -> list[Command]:
        possible = list(self.shadow.possible())
        assert any(
            type(event) is type(each) and event.life == each.life for each in possible
        ), f'{event} has happened; the fake kernel only knows of {possible}'
        self.shadow.report(event)
        self.heard.append(event)
        return []

    def next_deadline(self) -> float | None:
        return self.patience_ends

    def elapse(self, now: float) -> list[Command]:
        return []


class RealKernel:
    """The loop, and all that is below it, on the kernel of this machine."""

    def __init__(self, worker: str, host: Host) -> None:
        policy = Policy(concurrent_workers=1, worker_module_name='contract_workers', worker_class_name=worker)
        logger = logging.getLogger('contract')
        logger.setLevel(logging.CRITICAL)
        self._witness = Witness(policy)
        self._loop = Loop(policy, Journal(logger, policy), None, host, os.environ)
        self._loop._pool = self._witness
        self._loop._begin()

    @property
    def heard(self) -> list[LifeEvent]:
        return self._witness.heard

    def obey(self, *orders: Order) -> None:
        for order in orders:
            self._witness.shadow.obey(order)
            self._loop._obey([order])

    def wait_for(self, kind: type[E], life: int) -> E:
        self._witness.patience_ends = deadline = time.monotonic() + DEADLINE
        while not (found := [event for event in self.heard if isinstance(event, kind) and event.life == life]):
            assert time.monotonic() < deadline, f'{kind.__name__} of life {life} has not come; there were {self.heard}'
            self._loop._turn()
        (only,) = found
        return only

    def let_end(self, life: int) -> None:
        process = self._loop._alive[life].process
        assert process is not None and process.exited(DEADLINE)

    def lose_its_fork_server(self) -> None:
        process = self._loop._fork_server.process
        assert process is not None
        process.signal(signal.SIGKILL)

    def ran(self, life: int) -> bool:
        return Path(f'ran-{life}').exists()

    def child(self, life: int) -> bool:
        stat = procfs.read_stat(int(Path(f'child-{life}').read_text()))
        return stat is not None and stat.comm == 'sergeant-linux'

    def close(self) -> None:
        """Leave nothing behind."""
        self._loop._pool_is_lost()
        self._loop._end()


@contextmanager
def real_kernel(worker: str) -> Iterator[RealKernel]:
    """Yield a real kernel whose workers are this one; the working folder is where they write."""
    Path('contract_workers.py').write_text(WORKERS)
    with Host(is_ours=False) as host:
        kernel = RealKernel(worker, host)
        try:
            yield kernel
        finally:
            kernel.close()
