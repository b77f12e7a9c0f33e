"""A pool in a world of paper: the real `Pool`, a `FakeKernel`, and a clock that stands still until it is moved.

After every step the world checks what must never become false (the list on top of slot.py, and what a pool promises
about numbers): so every test that plays with a world checks all of it, whatever else it is about. Every step is also
taken by a twin, made of what the pool had written down before: it has to decide the same, and to know the same then.
"""

import json
from collections.abc import Callable, Iterator
from copy import deepcopy
from math import inf, isfinite
from random import Random
from typing import Any, Final, TypeVar

from sergeant_linux.core.afterlife import Afterlife
from sergeant_linux.core.commands import ORDERS, Command, WorkerExited, WorkerSpawnFailed
from sergeant_linux.core.events import (
    Event,
    GenerationFailed,
    GenerationServes,
    LifeEvent,
    PoolKillRequested,
    PoolStartRequested,
    PoolStopRequested,
    ReloadRequested,
    RestartRequested,
    ScaleRequested,
    TimePassed,
    from_written,
    written,
)
from sergeant_linux.core.memoir import Memoir
from sergeant_linux.core.plain import Plain
from sergeant_linux.core.policy import Policy
from sergeant_linux.core.pool import Pool
from sergeant_linux.core.reload import TRYING
from sergeant_linux.core.result import Outcome
from sergeant_linux.core.slot import Seat, Slot, State
from sergeant_linux.core.succession import AT_REST
from tests.core.fake_kernel import FakeKernel, Phase, Process

T = TypeVar('T')

FAR_TOO_MANY_STEPS: Final = 1000
"""A world that has not come to rest after so many steps never will."""

GOING: Final = frozenset({State.STOP_SIGTERM, State.STOP_SIGKILL})

TRANSIENT: Final = frozenset({State.START, State.DRAIN, State.STOP_SIGTERM, State.STOP_SIGKILL, State.AUTO_RESTART})
"""The states in which something is waited for."""


class Middle(Random):
    """Chance that always falls in the middle, and is written down as nothing."""

    def uniform(self, a: float, b: float) -> float:
        return (a + b) / 2

    def __reduce__(self) -> Any:
        return Middle, ()


def policy(**knobs: Any) -> Policy:
    """Return the default policy of a pool of two, with these knobs."""
    return Policy(**{'concurrent_workers': 2, 'worker_class_name': 'Worker', 'worker_module_name': 'worker', **knobs})


class World:
    """A pool, its kernel and its clock. What lets something happen returns the commands that came of it."""

    def __init__(self, policy: Policy, kernel: FakeKernel | None = None, rng: Random | None = None) -> None:
        self.rng = rng if rng is not None else Middle()
        self.pool = Pool(policy, self.rng)
        self.kernel = kernel if kernel is not None else FakeKernel()
        self.now = 0.0
        self.failure_restarts: list[float] = []
        self.listener: Callable[[Event, float, list[Command]], None] | None = None
        self.has_twin = True
        self._known: Memoir | None = None
        self._state: Plain = None

    # What can be done to it.

    def start(self) -> list[Command]:
        return self._take(PoolStartRequested())

    def stop(self) -> list[Command]:
        return self._take(PoolStopRequested())

    def kill(self) -> list[Command]:
        return self._take(PoolKillRequested())

    def scale(self, by: int, *, busy: frozenset[int] = frozenset()) -> list[Command]:
        return self._take(ScaleRequested(by, busy))

    def restart(self) -> list[Command]:
        return self._take(RestartRequested())

    def reload(self) -> list[Command]:
        return self._take(ReloadRequested())

    def loads(self) -> list[Command]:
        """Let the code that is being loaded be there."""
        generation = self.kernel.loading()
        assert generation is not None
        self.kernel.generations[generation] = True
        return self._take(GenerationServes(generation))

    def cannot_load(self) -> list[Command]:
        """Let the code that is being loaded be broken."""
        generation = self.kernel.loading()
        assert generation is not None
        return self._take(GenerationFailed(generation, 'SyntaxError()'))

    def happen(self, event: LifeEvent) -> list[Command]:
        """Let this become true and the pool know of it."""
        self.kernel.report(event)
        return self._take(event)

    def wait(self, seconds: float) -> list[Command]:
        """Let so much time pass in which nothing happens, and every timer that comes up elapse in its time."""
        until, commands = self.now + seconds, []
        while (at := self.pool.next_deadline()) is not None and at <= until:
            commands += self.oversleep(at - self.now)
        self.now = until
        return commands

    def oversleep(self, seconds: float) -> list[Command]:
        """Let so much time pass and look at the timers only then: all of them that are due elapse in one go."""
        self.now += max(0.0, seconds)
        return self._take(TimePassed())

    def wait_for_timer(self) -> list[Command]:
        """Let time pass until the next timer elapses."""
        at = self.pool.next_deadline()
        assert at is not None and isfinite(at), 'nothing is due, ever'
        return self.oversleep(at - self.now)

    # What happens where all goes well.

    def run(self) -> list[Command]:
        """Let everybody do as they are told, until nothing is left to happen at this moment."""
        return self._let(self.kernel.willing)

    def run_stubborn(self) -> list[Command]:
        """Let nobody do what they are asked for, until nothing is left to happen at this moment."""
        return self._let(self.kernel.stubborn)

    def _let(self, next_event: Callable[[], LifeEvent | None]) -> list[Command]:
        commands: list[Command] = []
        for _ in range(FAR_TOO_MANY_STEPS):
            event = next_event()
            if event is not None:
                commands += self.happen(event)
            elif self.kernel.loading() is not None:
                commands += self.loads()
            else:
                return commands
        raise AssertionError('it never comes to rest')

    def settle(self) -> list[Command]:
        """Let everybody do as they are told, and time pass, until every seat is where it can stay."""
        commands: list[Command] = []
        for _ in range(FAR_TOO_MANY_STEPS):
            commands += self.run()
            in_motion = any(seat.state in TRANSIENT for seat in self.seats()) or self.turns() or self.reloads()
            if not in_motion:
                return commands
            commands += self.wait_for_timer()
        raise AssertionError('it never comes to rest')

    def up(self) -> 'World':
        """Start it and let all workers become ready."""
        self.start()
        self.run()
        return self

    def up_and_reloading(self) -> 'World':
        """Let all workers become ready, then ask for a reload whose code can be loaded."""
        self.up()
        self.reload()
        self.loads()
        return self

    # What can be seen of it.

    @property
    def state(self) -> Plain:
        """What the pool writes down."""
        if self._state is None:
            self._state = self.pool.state()
        return self._state

    @property
    def known(self) -> Memoir:
        """What the pool knows, as it writes it down."""
        if self._known is None:
            self._known = Memoir.read(self.state, self.pool.policy, self.rng)
        return self._known

    def slots(self) -> list[Slot]:
        return self.known.slots

    def seats(self) -> Iterator[Seat]:
        for slot in self.slots():
            yield from slot.seats()

    def turns(self) -> list[int]:
        """Return the lives that wait for their turn to be succeeded."""
        return list(self.known.token.turns)

    def reloads(self) -> bool:
        """Whether a reload goes on."""
        return self.pool.last_reload is not None and self.pool.last_reload.goes_on

    def deadline(self, key: Seat | Afterlife) -> float | None:
        """Return the seconds until the timer of a seat, or of what a life has left behind, elapses."""
        due = dict(self.known.timers).get(key.number) if isinstance(key, Seat) else dict(self.known.sweeps)[key.life]
        return None if due is None else due - self.now

    def afterlives(self) -> list[Afterlife]:
        return list(self.known.afterlives.values())

    def states(self) -> list[str]:
        """Return where every slot's incumbent is, and after a plus sign its successor."""
        return ['+'.join(seat.state for seat in slot.seats()) for slot in self.slots()]

    def process(self, life: int) -> Process:
        return self.kernel.processes[life]

    def forget(self) -> None:
        """The pool is another one."""
        self._known = self._state = None

    # What must never become false.

    def _take(self, event: Event) -> list[Command]:
        twin = Pool.restored(as_json(self.state), self.pool.policy, deepcopy(self.rng)) if self.has_twin else None
        commands = self.pool.handle(event, self.now)
        self.forget()
        if self.listener is not None:
            self.listener(event, self.now, commands)
        if twin is not None:
            told = from_written(as_json(written(event)))
            assert twin.handle(told, self.now) == commands, 'the twin decides otherwise'
            assert twin.state() == self.state, 'the twin knows something else'
        for command in commands:
            if isinstance(command, ORDERS):
                self.kernel.obey(command)
            elif is_failure_restart(command):
                self.failure_restarts.append(self.now)
        self.check()
        return commands

    def check(self) -> None:
        """Check every invariant."""
        self.check_processes()
        self.check_timers()
        self.check_budget()
        self.check_number_of_workers()
        self.check_token()
        self.check_reload()
        self.check_rest()

    def check_processes(self) -> None:
        """A seat at rest has no process, any other has one; a life has a pid as long as its process is unreaped."""
        lives: dict[int, Seat] = {}
        for seat in self.seats():
            at_rest = seat.state in AT_REST or seat.state is State.AUTO_RESTART
            assert (seat.life is None) == at_rest, f'{seat.state} with life {seat.life}'
            if seat.life is not None:
                process = self.kernel.processes[seat.life.number]
                assert process.alive == (seat.life.pid is not None), f'{seat.life} and {process}'
                assert process.phase is not Phase.AT_GATE, f'{process} is let wait at its gate'
                lives[seat.life.number] = seat
        left = {number for number, process in self.kernel.processes.items() if process.phase is Phase.ENDED}
        assert left == {afterlife.life for afterlife in self.afterlives()}, 'what a life left behind is forgotten'

    def check_timers(self) -> None:
        """Where something is waited for there is one timer, unless it may last for ever; elsewhere there is none."""
        policy = self.pool.policy
        for seat in self.seats():
            armed = self.deadline(seat)
            match seat.state:
                case State.DEAD | State.FAILED:
                    assert armed is None, f'{seat.state} waits for something'
                case State.RUNNING:
                    assert armed is None or policy.max_worker_lifetime, 'RUNNING waits for something'
                case State.START:
                    assert (armed is not None) == isfinite(policy.timeout_start), 'START waits for ever, or for nothing'
                case State.DRAIN:
                    endless = policy.timeout_drain == inf or policy.timeout_stop == inf
                    assert armed is not None or endless, 'DRAIN waits for ever'
                case State.STOP_SIGTERM:
                    assert armed is not None or policy.timeout_stop == inf, 'STOP_SIGTERM waits for ever'
                case _:
                    assert armed is not None, f'{seat.state} waits for ever'
            assert armed is None or isfinite(armed), f'{seat.state} has a timer that never elapses'
        for afterlife in self.afterlives():
            assert self.deadline(afterlife) is not None, 'stragglers are waited for without end'
        assert dict(self.known.timers).keys() <= {seat.number for seat in self.seats()}, 'a timer of nobody'
        assert dict(self.known.sweeps).keys() == {each.life for each in self.afterlives()}, 'a sweep of nobody'

    def check_budget(self) -> None:
        """Restarts inside the window never exceed the budget."""
        budget = self.pool.policy.restart_budget
        if budget is not None:
            self.failure_restarts = [at for at in self.failure_restarts if at > self.now - budget.span]
            assert len(self.failure_restarts) <= budget.count, f'{self.failure_restarts} within {budget}'

    def check_number_of_workers(self) -> None:
        """Every slot that stays has one seat where a process is wanted; before the canary is ready, the first has."""
        if self.pool.stopping:
            assert not any(seat.wanted for seat in self.seats()), 'a process is wanted in a pool that stops'
            return
        for slot in self.slots():
            wanted = [seat for seat in slot.seats() if seat.wanted]
            if slot.retiring:
                assert not wanted, f'slot {slot.number} is to go and wants a process'
            elif self.pool.ever_ready or slot.number == 0:
                if slot.number in self.known.token.away and not slot.incumbent.wanted:
                    assert slot.successor is None and slot.incumbent.state not in AT_REST, 'a place is left empty'
                    continue
                assert len(wanted) == 1, f'slot {slot.number} has {len(wanted)} seats that want a process'
                given_up = slot.successor is not None and slot.successor.state in GOING
                assert wanted[0] is [*slot.seats()][-1] or given_up, 'the incumbent is wanted and not its successor'
                assert wanted[0].state not in AT_REST, f'slot {slot.number} is {wanted[0].state} and nobody minds'
            else:
                assert not wanted and slot.incumbent.state is State.DEAD, 'a second worker before the canary is ready'

    def check_token(self) -> None:
        """At most so many extra workers; who is to be succeeded has a successor or waits for its turn."""
        if self.pool.stopping:
            return
        growing = {slot.number for slot in self.slots() if slot.successor is not None and not slot.retiring}
        assert len(growing) <= self.pool.policy.max_surge, f'successors in slots {growing}'
        away = self.known.token.away
        assert len(away) <= self.pool.policy.max_unavailable, f'workers are away in slots {away}'
        assert growing == self.known.token.surge, 'the token is lost, or held by nobody'
        turns = self.turns()
        for slot in self.slots():
            for seat in slot.seats():
                asked = seat.state is State.RUNNING and seat.current.blame.request is not None
                if asked and not slot.retiring and slot.successor in (None, seat):
                    assert seat.current.number in turns, f'slot {slot.number} asked to be succeeded and is forgotten'
        policy = self.pool.policy
        if turns and (len(growing) < policy.max_surge or len(away) < policy.max_unavailable):
            raise AssertionError('somebody waits for a token that nobody holds')

    def check_reload(self) -> None:
        """Until the canary is ready nobody else runs the new code; after the end of a reload one code is left."""
        reload = self.pool.last_reload
        if reload is None or self.pool.stopping:
            return
        lives = [seat.life for seat in self.seats() if seat.life is not None]
        if reload.phase in TRYING:
            assert sum(life.generation == reload.generation for life in lives) <= 1, 'two canaries'
            assert self.known.facts.generation == reload.base
        elif not reload.goes_on:
            assert len(self.kernel.generations) == 1, f'code is left: {self.kernel.generations}'

    def check_rest(self) -> None:
        """The pool leaves when it is to stop and nothing is left, at that moment, and not before."""
        at_rest = self.pool.stopping and not self.kernel.processes
        assert (self.kernel.left_with is not None) == at_rest, 'it leaves too early, or never'
        snapshot = self.pool.snapshot(self.now)
        assert snapshot.stragglers == len(self.afterlives())
        assert [view.incumbent.state for view in snapshot.slots] == [slot.incumbent.state for slot in self.slots()]
        self.check_counts()

    def check_counts(self) -> None:
        """What is counted as it happens is what a count of all shows."""
        pool, slots = self.pool, self.slots()
        assert pool.ready == sum(any(seat.state is State.RUNNING for seat in slot.seats()) for slot in slots)
        assert pool.wanted == sum(not slot.retiring for slot in slots)
        assert pool.processes == sum(seat.life is not None and seat.life.pid is not None for seat in self.seats())


def as_json(value: Plain) -> Plain:
    return json.loads(json.dumps(value, allow_nan=False))


def is_failure_restart(command: Command) -> bool:
    """Whether the command tells of a restart that a budget counts."""
    match command:
        case WorkerExited(outcome=Outcome.FAILED | Outcome.UNLOADABLE, restart_in=float()):
            return True
        case WorkerSpawnFailed(restart_in=float()):
            return True
    return False


def only(commands: list[Command], kind: type[T]) -> list[T]:
    """Return those of one kind."""
    return [command for command in commands if isinstance(command, kind)]


def orders(commands: list[Command]) -> list[Command]:
    """Return what the kernel is to do, without the reports."""
    return [command for command in commands if isinstance(command, ORDERS)]

