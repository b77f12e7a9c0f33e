"""One pool at work: a fact -> the core -> commands -> the kernel.

Nothing in here decides about workers (core/ does), and nothing waits. Whatever is to be called again is a part
(`next_deadline`, `elapse`, `close`), and whatever must know of lives is an observer (`born`, `ready`, `ended`), so that
a new one of either is one line.

Evidence before burial: when a pidfd is readable, the gate is read first, then the process is reaped. An unknown zombie
may be a newborn whose hello is still unread: the gates of the unborn are read before it is reaped.

Invariant: commands are carried out one after the other, each of them whole; what happens meanwhile comes after them. An
error below any of them is an error of our own and ends the pool, whoever had asked.
"""

import logging
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from random import Random
from typing import Final, Protocol

from sergeant_linux.containment.by_cgroup import ByCgroup
from sergeant_linux.containment.by_search import BySearch
from sergeant_linux.containment.choice import choose, in_force, limits_of, without_cgroups
from sergeant_linux.containment.kills import Kills
from sergeant_linux.containment.leaves import Leaves
from sergeant_linux.containment.protocol import Containment, Together
from sergeant_linux.containment.search import Stragglers, end_leftovers
from sergeant_linux.control.requests import Desk, texts
from sergeant_linux.control.status import Status
from sergeant_linux.core.commands import (
    FIRST_GENERATION,
    Cancel,
    Command,
    Drain,
    EndGeneration,
    EndStragglers,
    Go,
    Kill,
    Leave,
    Spawn,
    StartGeneration,
    Terminate,
)
from sergeant_linux.core.deadlines import earliest
from sergeant_linux.core.events import (
    Event,
    Exited,
    Hung,
    LifeEvent,
    PolicyChanged,
    PoolKillRequested,
    PoolStartRequested,
    PoolStopRequested,
    Ready,
    ReloadRequested,
    ScaleRequested,
    Spawned,
    SpawnFailed,
    TimeLost,
    TimePassed,
    Unpopulated,
)
from sergeant_linux.core.policy import VARIABLE_PREFIX, Policy, PolicyNow
from sergeant_linux.core.pool import Pool
from sergeant_linux.core.units import format_size
from sergeant_linux.engine import births, borrowed, limits
from sergeant_linux.engine.fork_server import ForkServer
from sergeant_linux.engine.generations import Generations
from sergeant_linux.engine.hangs import Watchdog
from sergeant_linux.engine.lifeline import LAST_MESSAGES, MESSAGES_A_TURN, Lifeline, Refused, Unsaid
from sergeant_linux.engine.memory import CgroupWatch, MemoryWatch, MeterWatch, NearLimit, RssWatch
from sergeant_linux.engine.parts import Part, close_all
from sergeant_linux.engine.pauses import Pauses
from sergeant_linux.engine.stacks import Stacks, pipe
from sergeant_linux.forkserver.estate import Estate
from sergeant_linux.helpers.flight import FlightRecorder
from sergeant_linux.helpers.helper import Helper, Household
from sergeant_linux.helpers.staff import Limiter, Meter, Undertaker
from sergeant_linux.host import CantRun, credentials, descriptors
from sergeant_linux.host.delegation import NotOurs
from sergeant_linux.kernel import notify, procfs
from sergeant_linux.kernel.cgroup import explain
from sergeant_linux.kernel.children import Children
from sergeant_linux.kernel.poller import Handler, Poller
from sergeant_linux.log.words import Journal
from sergeant_linux.wire import gate as gates
from sergeant_linux.wire.marks import POOL
from sergeant_linux.wire.scoreboard import Page

HELPER_PATIENCE: Final = 10.0
"""Seconds a helper process may take to be gone."""

LAST_PATIENCE: Final = 10.0
"""Seconds that workers have to leave, at most, when an error of our own ends the pool."""

TOGETHER: Final = 0.1
"""Seconds within which two stop signals are one: timeout(1) sends its own to a process and to its group. They count
from when the first has been obeyed, for that takes its time where workers are many."""


class Observer(Protocol):
    """Who must know of lives."""

    def born(self, lifeline: Lifeline, now: float) -> None:
        """It has a process, which waits at its gate."""

    def ready(self, life: int, now: float) -> None:
        """Its worker is ready."""

    def ended(self, life: int) -> None:
        """Its process has ended, and is about to be reaped; its descriptors are still open."""


class Runner:
    """Runs one pool until it is at rest: then `exit_status` is set. A part of the loop."""

    def __init__(
        self,
        pool: Pool,
        chance: Random,
        journal: Journal,
        poller: Poller[Handler],
        children: Children,
        pauses: Pauses,
        host: borrowed.Host,
        environ: Mapping[str, str],
    ) -> None:
        def policy_now() -> Policy:
            return pool.policy

        def retry() -> float:
            return pool.policy.restart_max_delay

        policy = pool.policy
        token = os.urandom(4).hex()
        environ = inherited(environ)
        conditions = credentials.prepare(policy, host.oom_score_adj, environ)
        self.pool_name = f'{os.getpid()}-{token}'
        self._journal = journal
        self._policy_now: PolicyNow = policy_now
        self._is_ours = host.is_ours
        self._open_before = host.open_before
        self.pool: Final = pool
        self._poller = poller
        self._children = children
        self._pauses = pauses
        birth_comm = f'sgt-{token}'
        self._estate = Estate(self.pool_name)
        marked = {**environ, POOL: self.pool_name}
        household = Household(poller, children, journal.note, marked, retry)
        self._undertaker = Undertaker(self._estate, household)
        self._meter = Meter(household)
        self._limiter = Limiter(household)
        self._flight = FlightRecorder(policy.flight_recorder, pool, chance, household)
        self._helpers: tuple[Helper, ...] = (self._undertaker, self._meter, self._limiter, self._flight)
        self._stragglers = Stragglers(self.pool_name, birth_comm, is_ours=host.is_ours)

        def make_server(stands_in: bool) -> ForkServer:
            told = environ, host.nofile, conditions, Random()
            return ForkServer(policy_now, self._estate, birth_comm, *told, stands_in=stands_in)

        self._generations = Generations(
            pool, poller, children, journal, make_server, self.happened, self._stragglers
        )
        self._search = BySearch(self._stragglers, children.pids, lambda: pool.stopping)
        self._containment: Containment = self._search
        self._kills = Kills()
        self._leaves: Leaves | None = None
        self._memory: MemoryWatch = RssWatch(policy_now)
        self._watchdog = Watchdog(policy_now)
        self._stacks = Stacks(poller)
        self._births = births.Births()
        self._unborn: dict[int, Lifeline] = {}
        self._alive: dict[int, Lifeline] = {}
        self._dead: dict[int, Lifeline] = {}
        self.status: Final = Status(pool, lambda life: self._memory.highest(life), self._alive, journal.recent)
        self.status.fork_server = self._generations.picture
        self.desk: Final = Desk(pool, self.status, journal.recent, self)
        self._todo: deque[Command] = deque()
        self._obeys = False
        self._asked_to_stop_at: float | None = None
        self.exit_status: int | None = None
        children.look_for_newborns = self._hear_the_unborn

    # A part of the loop.

    def begin(self) -> None:
        """Start what the pool needs, and its first worker. Raises `CantRun` when the host can't do what is needed,
        before any worker exists."""
        self._set_up_backend()
        if self._leaves is None and (number := end_leftovers()) > 0:
            message = f'ended what a pool without a supervisor had left: processes: {number}'
            self._journal.note(logging.WARNING, message, 'leftovers', processes=number)
        try:
            self._undertaker.start()
        except OSError as error:
            raise CantRun(f'cannot start a process of our own: {error}', error) from None
        self._generations.start(FIRST_GENERATION)
        self._undertaker.wait_until_at_work()
        if self._flight.is_wanted():
            self._flight.want()
            self._flight.elapse(time.monotonic())
            self._flight.wait_until_at_work(HELPER_PATIENCE)
        self.happened(PoolStartRequested())

    def next_deadline(self) -> float | None:
        """Return when `elapse` is due; None: when something happens."""
        return earliest(
            (
                self.pool.next_deadline(),
                self.desk.next_deadline(),
                self._generations.next_deadline(),
                *(part.next_deadline() for part in self._parts()),
                *(containment.next_deadline() for containment in self._containments()),
            )
        )

    def _parts(self) -> tuple[Part, ...]:
        return (self._memory, self._watchdog, self._stacks, *self._helpers)

    def elapse(self, now: float) -> None:
        """Do what is due."""
        if (due := self.pool.next_deadline()) is not None and due <= now:
            self.happened(TimePassed())
        self._generations.elapse(now)
        for helper in self._helpers:
            helper.elapse(now)
        self._found(self._memory.elapse(now))
        for life, reason in self._watchdog.elapse(now):
            self.dump(life, partial(self._hung, life, reason))
        self._stacks.elapse(now)
        for containment in self._containments():
            for life in containment.elapse(now):
                self._nothing_left(life)
        self.desk.look()

    def lose_time(self, seconds: float, now: float) -> None:
        """Nobody is held to the time in which nothing could run."""
        self.happened(TimeLost(seconds))
        self._generations.lose_time(seconds)
        self._watchdog.lose_time(now)
        for helper in self._helpers:
            helper.lose_time(seconds)

    def somebody_has_a_time_limit(self) -> bool:
        """Whether a worker, or a fork server, may be about to start or to stop."""
        pool = self.pool
        if self._generations.next_deadline() is not None:
            return True
        moving = pool.stopping or pool.ready < pool.wanted or pool.processes > pool.ready
        return moving and pool.next_deadline() is not None

    def close(self) -> None:
        """Leave nothing behind: no worker, no helper, no newborn, no straggler, no descriptor. Each thing is closed,
        whatever became of the one before; then the first error is raised."""
        close_all(
            *(partial(self._drop_unborn, lifeline) for lifeline in list(self._unborn.values())),
            self._ask_the_living_to_leave,
            *(partial(self._end_one, lifeline) for lifeline in list(self._alive.values())),
            self._generations.close,
            self._end_what_is_left,
            *(part.close for part in self._parts()),
            self._estate.sessions.close,
            self._containment.close,
            lambda: self.desk.close(self.exit_status),
        )

    def _set_up_backend(self) -> None:
        """Take the strongest backend that works, or the one that was asked for, and say which."""
        policy = self.pool.policy
        try:
            choice = choose(policy)
            if choice.home is not None and choice.limits is not None:
                try:
                    warn = partial(self._journal.note, logging.WARNING)
                    self._leaves = Leaves(choice.home, choice.limits, name=self.pool_name, warn=warn)
                except NotOurs as error:
                    choice = without_cgroups(policy, error)
        except NotOurs as error:
            raise CantRun(str(error), error.__context__) from None
        match choice.watch:
            case 'cgroup':
                self._memory = CgroupWatch(self._policy_now)
            case 'meter':
                self._memory = MeterWatch(self._policy_now, self._meter, self._found)
        if self._leaves is not None:
            leaves = ByCgroup(self._leaves)
            self._containment = leaves if self._is_ours else Together(leaves, self._search)
            self._estate.folders.append(self._leaves.pool.path)
            self._pauses.watch_folder(self._leaves.pool.path)
        self.status.in_force = lambda: in_force(choice, self._leaves)
        fields = {'memory': choice.memory, 'containment': choice.containment, 'why_not': choice.why_not}
        self._journal.note(logging.INFO, str(choice), 'backend', **fields)

    # What the loop asks for.

    def stop_signal(self, name: str) -> None:
        """The first one stops the pool in order, a later one kills it."""
        if self._asked_to_stop_at is None:
            self._stop(f'{name} was received', name)
        elif time.monotonic() - self._asked_to_stop_at > TOGETHER:
            self.kill_now(name)

    def kill_now(self, name: str) -> None:
        """End all workers at once."""
        self._journal.note(logging.WARNING, f'{name} was received, killing all workers now', 'kill', signal=name)
        self.happened(PoolKillRequested())

    def reload(self) -> None:
        """Have new code loaded, and the workers replaced."""
        self.happened(ReloadRequested())

    def one_more(self, name: str) -> None:
        """Have one worker more, where there is room for it."""
        if (few := self.too_few_descriptors(self.pool.wanted + 1)) is None:
            self.happened(ScaleRequested(+1))
        else:
            self._journal.note(logging.WARNING, f'{name}: there is no room for one more: {few}', 'no-room')

    def one_less(self) -> None:
        """Have one worker less, an idle one if there is one."""
        self.happened(ScaleRequested(-1, self.status.busy()))

    # What the desk asks for.

    def dump(self, life: int, done: Callable[[str | None], None]) -> None:
        """Ask a worker for its stacks; `done` gets them, None when it has given none."""
        lifeline = self._alive[life]
        self._stacks.ask(life, lifeline.stacks, partial(self.signal, life, signal.SIGWINCH), done, time.monotonic())

    def too_few_descriptors(self, workers: int) -> str | None:
        """Return what keeps the pool from having so many workers, and what would mend it; None: nothing."""
        before, policy = self._open_before, self.pool.policy
        few = descriptors.too_few(policy, before, descriptors.limit(), workers)
        if few is None:
            return None
        needed = descriptors.needed(policy, before, workers)
        return f'{few}; prlimit --pid {os.getpid()} --nofile={needed}:{needed}, or {descriptors.remedy(needed)}'

    def stop(self, *, now: bool) -> None:
        """Stop the pool, as a signal would."""
        if now:
            self.kill_now('a request')
        elif not self.pool.stopping:
            self._stop('a request was received', None)

    def _stop(self, why: str, signal_name: str | None) -> None:
        self._journal.note(logging.INFO, f'{why}, triggering a stopping process', 'stop', signal=signal_name)
        self.happened(PoolStopRequested())
        self._asked_to_stop_at = time.monotonic()

    def change_policy(self, policy: Policy) -> None:
        """Go by this policy from now on. Raises OSError when the kernel refuses a limit."""
        before, now = self.pool.policy, time.monotonic()
        if self._leaves is not None and policy.max_worker_memory_usage != before.max_worker_memory_usage:
            self._change_limits(self._leaves, policy)
        self.happened(PolicyChanged(policy))
        self._memory.policy_changed()
        for life, lifeline in self._alive.items():
            assert lifeline.process is not None
            self._memory.change(life, lifeline.process.pid, lifeline.leaf, now)
        self._watchdog.policy_changed(now)
        self._journal.note(logging.INFO, 'the policy has changed', 'policy', **changes(before, policy))

    def _change_limits(self, leaves: Leaves, policy: Policy) -> None:
        """Where the kernel holds the limit: for new leaves, and for those in use."""
        if isinstance(self._memory, CgroupWatch):
            lifelines = [*self._unborn.values(), *self._alive.values()]
            in_use = [lifeline.leaf for lifeline in lifelines if lifeline.leaf is not None]
            limits.change(in_use, policy.max_worker_memory_usage, self._limiter)
        leaves.change_limits(limits_of(policy, leaves.home))

    def _hung(self, life: int, reason: str, stacks: str | None) -> None:
        """A worker is taken for hung, and has been asked for its stacks."""
        lifeline = self._alive.get(life)
        if lifeline is not None and lifeline.process is not None:
            pid = lifeline.process.pid
            message = (
                f'worker({pid}) has these stacks:\n{stacks.rstrip()}'
                if stacks is not None
                else f'worker({pid}) gives no stacks'
            )
            self._journal.note(logging.ERROR, message, 'worker-stacks', life=life, pid=pid, stacks=stacks)
            self.happened(Hung(life, reason))

    # Facts in.

    def happened(self, event: Event) -> None:
        """Let the pool know of it, and do what it decides."""
        now = time.monotonic()
        commands = self.pool.handle(event, now)
        self._flight.take(event, now, commands)
        self.obey(commands)

    def _found(self, findings: Iterable[LifeEvent | NearLimit]) -> None:
        for finding in findings:
            if isinstance(finding, NearLimit):
                self._warn_near_limit(finding)
            else:
                self.happened(finding)

    def _on_gate(self, lifeline: Lifeline, events: int) -> None:
        if lifeline.number in self._unborn:
            self._hear_hello(lifeline)
        elif lifeline.number in self._alive:
            self._hear(lifeline)

    def _hear_hello(self, lifeline: Lifeline) -> None:
        try:
            process = lifeline.hear_hello()
        except Refused as refusal:
            self._refuse(lifeline, str(refusal), unsaid=isinstance(refusal, Unsaid))
            return
        if process is not None:
            try:
                self._children.enter(process, partial(self._on_exit, lifeline))
            except OSError as error:
                process.end()  # it waits at its gate
                self._refuse(lifeline, f'its process cannot be watched: {error}')
                return
            del self._unborn[lifeline.number]
            self._alive[lifeline.number] = lifeline
            lifeline.session_entry = self._estate.sessions.enter(process.pid, procfs.start_time(process.pid))
            for observer in self._observers():
                observer.born(lifeline, time.monotonic())
            self._births.settled(lifeline.number)
            self._generations.settled(lifeline.number)
            self.happened(Spawned(lifeline.number, process.pid))

    def _refuse(self, lifeline: Lifeline, why: str, *, unsaid: bool = False) -> None:
        """No worker comes of this life. unsaid: nobody has said why."""
        self._drop_unborn(lifeline)
        self._births.settled(lifeline.number)
        lost = self._generations.settled(lifeline.number) and unsaid
        self._stragglers.look_for_births()
        self.happened(SpawnFailed(lifeline.number, why, lost=lost))

    def _hear_the_unborn(self) -> None:
        for lifeline in list(self._unborn.values()):
            self._hear_hello(lifeline)

    def _hear(self, lifeline: Lifeline, at_most: int = MESSAGES_A_TURN) -> None:
        try:
            for message in lifeline.hear(at_most):
                if message['type'] == 'ready':
                    self._kills.settle()
                    for observer in self._observers():
                        observer.ready(lifeline.number, time.monotonic())
                    self.happened(Ready(lifeline.number, can_drain=message.get('drain') is True))
        except EOFError:
            self._poller.unregister(lifeline.gate)

    def _on_exit(self, lifeline: Lifeline, events: int) -> None:
        process = lifeline.process
        if lifeline.number not in self._alive or process is None or not process.exited():
            return
        self._hear(lifeline, at_most=LAST_MESSAGES)
        ending = lifeline.end(self._memory.highest(lifeline.number))
        if ending.signal == signal.SIGKILL and ending.memory is None:
            ending = replace(ending, oom_around=self._kills.claim())
        self._bury(lifeline)
        if lifeline.malformed:
            message = f'worker({process.pid}) has sent {lifeline.malformed} malformed reports: dropped'
            self._journal.note(logging.WARNING, message, 'malformed-reports', life=lifeline.number)
        self.happened(Exited(lifeline.number, ending))

    def _observers(self) -> tuple[Observer, ...]:
        return (self._memory, self._watchdog, self._stacks)

    def _bury(self, lifeline: Lifeline) -> None:
        assert lifeline.process is not None
        for observer in self._observers():
            observer.ended(lifeline.number)
        self._poller.unregister(lifeline.gate)
        self._children.leave(lifeline.process)
        lifeline.close()
        del self._alive[lifeline.number]
        self._dead[lifeline.number] = lifeline

    def _drop_unborn(self, lifeline: Lifeline) -> None:
        self._poller.unregister(lifeline.gate)
        lifeline.close()
        del self._unborn[lifeline.number]
        self._containment.end(lifeline.number, None, time.monotonic())

    # Commands out.

    def obey(self, commands: Iterable[Command]) -> None:
        """Carry out commands; what happens meanwhile is carried out after them."""
        self._todo.extend(commands)
        if self._obeys:
            return
        self._obeys = True
        try:
            while self._has_more_to_do():
                self._carry_out(self._todo.popleft())
        finally:
            self._obeys = False

    def _has_more_to_do(self) -> bool:
        """When all else is done, the next life that may be begun."""
        if not self._todo and (spawn := self._births.next()) is not None:
            self._todo.append(spawn)
        return bool(self._todo)

    def _carry_out(self, command: Command) -> None:
        match command:
            case Spawn(life=life, generation=generation):
                if self._births.may_begin(command):
                    self._spawn(life, generation)
            case Go(slot, life):
                self._alive[life].say(
                    {
                        'type': 'go',
                        'module': self.pool.policy.worker_module_name,
                        'class': self.pool.policy.worker_class_name,
                        'slot': slot,
                        'life': life,
                        'pool': self.pool_name,
                    }
                )
            case Cancel(life):
                self._births.cancel(life)
                self._generations.cancel(life)
                if life in self._unborn:
                    self._drop_unborn(self._unborn[life])
                    self._births.settled(life)
                    self._generations.settled(life)
                    self._stragglers.look_for_births()
            case Drain(life):
                heard = self._alive[life].say({'type': 'drain'})
                # one that has closed its gate (os.closerange in a task) can be told by a signal only
                self.signal(life, signal.SIGURG if heard else signal.SIGTERM)
            case Terminate(life):
                self.signal(life, signal.SIGTERM)
            case Kill(life):
                self.signal(life, signal.SIGKILL)
            case EndStragglers(life):
                process = self._dead[life].process
                self._containment.end(life, process.pid if process is not None else None, time.monotonic())
            case StartGeneration(generation):
                self._generations.start(generation)
            case EndGeneration(generation):
                self._generations.end(generation)
                for life in self._births.end(generation):
                    self.happened(SpawnFailed(life, 'its generation has ended'))
            case Leave(status):
                self.exit_status = status
            case _:
                self._journal.tell(command, stopping=self.pool.stopping)

    def _spawn(self, life: int, generation: int) -> None:
        if (why_not := births.why_not()) is not None:
            self._will_not_be_born(life, why_not)
            return
        try:
            ours, theirs = gates.pair()
        except OSError as error:
            self._will_not_be_born(life, f'no socket for its gate: {error}')
            return
        try:
            leaf = self._containment.cradle(life)
        except OSError as error:
            ours.close()
            theirs.close()
            self._will_not_be_born(life, f'cannot make its cgroup ({explain(error)})')
            return
        page, (stacks, stacks_end) = _page(), _pipe()
        lifeline = self._unborn[life] = Lifeline(life, ours, leaf, page, stacks)
        try:
            self._poller.register(ours, partial(self._on_gate, lifeline))
        except OSError as error:  # ENOSPC: fs.epoll.max_user_watches
            theirs.close()
            if leaf is not None:
                leaf.close_directory()
            if stacks_end is not None:
                os.close(stacks_end)
            self._drop_unborn(lifeline)
            self._will_not_be_born(life, f'its gate cannot be watched: {error}')
            return
        self._generations.of(generation, life).request(
            life, theirs, leaf, page=page.fd if page else None, stacks=stacks_end
        )

    def _will_not_be_born(self, life: int, reason: str) -> None:
        self._births.settled(life)
        self.happened(SpawnFailed(life, reason))

    def signal(self, life: int, signum: int) -> None:
        """Signal the worker of this life, if it is there."""
        lifeline = self._alive.get(life)
        if lifeline is not None and lifeline.process is not None:
            with suppress(PermissionError):  # it has become a program of another uid, set-user-ID root
                lifeline.process.signal(signum)

    # What was found, and what is left over.

    def _warn_near_limit(self, near: NearLimit) -> None:
        lifeline = self._alive.get(near.life)
        if lifeline is None or lifeline.process is None:
            return
        message = (
            f'worker({lifeline.process.pid}) has {format_size(near.measured)} of its {format_size(near.limit)} '
            'as soon as it is ready: its RSS includes the pages it shares with the fork server; '
            'raise the limit, preload less, or measure with --memory-measure=pss'
        )
        fields = {'life': near.life, 'memory_bytes': near.measured, 'limit_bytes': near.limit}
        self._journal.note(logging.WARNING, message, 'near-memory-limit', **fields)

    def _containments(self) -> tuple[Containment, ...]:
        """Return the one that holds lives together, and the search for what is no life's."""
        is_all = self._containment is self._search or isinstance(self._containment, Together)
        return (self._containment,) if is_all else (self._containment, self._search)

    def _nothing_left(self, life: int) -> None:
        """Nothing of this life is left: it is over for good."""
        lifeline = self._dead.pop(life, None)
        if lifeline is not None:
            if lifeline.session_entry is not None:
                self._estate.sessions.leave(lifeline.session_entry)
            self.happened(Unpopulated(life))

    def _ask_the_living_to_leave(self) -> None:
        """When an error of our own ends the pool, workers have their time to leave, but not for ever."""
        for life in self._alive:
            self.signal(life, signal.SIGTERM)
        deadline = time.monotonic() + min(self.pool.policy.timeout_stop, LAST_PATIENCE)
        for lifeline in self._alive.values():
            assert lifeline.process is not None
            lifeline.process.exited(max(0.0, deadline - time.monotonic()))

    def _end_one(self, lifeline: Lifeline) -> None:
        """End a worker without asking the core."""
        process = lifeline.process
        assert process is not None
        self.signal(lifeline.number, signal.SIGKILL)
        process.exited(HELPER_PATIENCE)
        close_all(
            lambda: lifeline.end(self._memory.highest(lifeline.number)),
            lambda: self._containment.end(lifeline.number, process.pid, time.monotonic()),
            partial(self._bury, lifeline),
        )

    def _end_what_is_left(self) -> None:
        deadline = time.monotonic() + HELPER_PATIENCE
        while any(each.next_deadline() is not None for each in self._containments()) and time.monotonic() < deadline:
            for containment in self._containments():
                containment.elapse(time.monotonic())
            time.sleep(0.001)


def inherited(environ: Mapping[str, str]) -> dict[str, str]:
    """Return what of the environment is for workers and helpers, too: not what was said to the supervisor alone."""
    return {
        key: value
        for key, value in environ.items()
        if not key.startswith(VARIABLE_PREFIX) and key not in notify.VARIABLES
    }


def changes(before: Policy, after: Policy) -> dict[str, object]:
    """Return the knobs that differ, with their new values as they are written."""
    old, new = texts(before), texts(after)
    return {name: value for name, value in new.items() if value != old[name]}


def _page() -> Page | None:
    """Return a page for a life; None when there is none to be had, and then it has no counters."""
    try:
        return Page()
    except OSError:
        return None


def _pipe() -> tuple[int, int] | tuple[None, None]:
    """Return both ends of a pipe for a life's stacks; none when there is none to be had, and then it has no dump."""
    try:
        return pipe()
    except OSError:
        return None, None
