"""The loop: a descriptor is ready -> a fact -> the core -> commands -> the kernel.

One thread, one epoll. Nothing in here decides about workers (core/ does) and nothing waits but the poller: until a
descriptor is ready or a deadline comes, for ever if there is none. Nothing that a worker, a fork server or a full log
does can block it.

Evidence before burial: when a pidfd is readable, the gate is read first, then the process is reaped. As a command of
our own every zombie that falls to us is reaped; a worker only ever through its pidfd. An unknown zombie may be a
newborn whose hello is still unread: the gates of the unborn are read first.
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
from typing import Final

from sergeant_linux.containment.by_cgroup import ByCgroup
from sergeant_linux.containment.by_search import BySearch
from sergeant_linux.containment.choice import choose, in_force, limits_of, without_cgroups
from sergeant_linux.containment.kills import Kills
from sergeant_linux.containment.leaves import Leaves
from sergeant_linux.containment.protocol import Containment, Together
from sergeant_linux.containment.search import Stragglers, end_leftovers, reap
from sergeant_linux.control import names
from sergeant_linux.control.notifier import Notifier
from sergeant_linux.control.requests import Desk, texts
from sergeant_linux.control.server import Control
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
from sergeant_linux.core.exit import INTERNAL_ERROR
from sergeant_linux.core.policy import AUTO, NONE, VARIABLE_PREFIX, Policy
from sergeant_linux.core.pool import Pool
from sergeant_linux.core.units import format_size
from sergeant_linux.engine import births, borrowed, limits
from sergeant_linux.engine.fork_server import ForkServer
from sergeant_linux.engine.generations import Generations
from sergeant_linux.engine.hangs import Watchdog
from sergeant_linux.engine.lifeline import LAST_MESSAGES, MESSAGES_A_TURN, Lifeline, Refused
from sergeant_linux.engine.memory import CgroupWatch, MemoryWatch, MeterWatch, NearLimit, RssWatch
from sergeant_linux.engine.pauses import SLICE, Pauses
from sergeant_linux.engine.slowness import Slowness
from sergeant_linux.engine.stacks import Stacks, pipe
from sergeant_linux.forkserver.estate import Estate
from sergeant_linux.helpers.flight import FlightRecorder
from sergeant_linux.helpers.helper import Helper
from sergeant_linux.helpers.staff import Limiter, Meter, Undertaker
from sergeant_linux.host import CantRun, credentials, descriptors
from sergeant_linux.host.delegation import NotOurs
from sergeant_linux.kernel import notify, procfs
from sergeant_linux.kernel.cgroup import explain
from sergeant_linux.kernel.poller import EPOLLOUT, Handler, Poller
from sergeant_linux.log.handler import LogHandler
from sergeant_linux.log.words import Journal
from sergeant_linux.wire import gate as gates
from sergeant_linux.wire.marks import POOL
from sergeant_linux.wire.scoreboard import Page

HELPER_PATIENCE: Final = 10.0
"""Seconds a helper process may take to be at work, or to be gone."""


class Loop:
    """Runs one pool until it is at rest."""

    def __init__(
        self,
        policy: Policy,
        journal: Journal,
        log: LogHandler | None,
        host: borrowed.Host,
        environ: Mapping[str, str],
    ) -> None:
        token = os.urandom(4).hex()
        rng, chance = Random(), Random()
        told = environ
        environ = inherited(environ)
        conditions = credentials.prepare(policy, host.oom_score_adj, environ)
        self.pool_name = f'{os.getpid()}-{token}'
        self._policy = policy
        self._journal = journal
        self._log = log
        self._host = host
        self._pool = Pool(policy, chance)
        self._poller: Poller[Handler] = Poller()
        birth_comm = f'sgt-{token}'
        self._estate = Estate(self.pool_name)
        marked, retry = {**environ, POOL: self.pool_name}, policy.restart_max_delay
        self._undertaker = Undertaker(self._estate, self._poller, journal.note, marked, retry)
        self._meter = Meter(self._poller, journal.note, marked, retry)
        self._limiter = Limiter(self._poller, journal.note, marked, retry)
        self._flight = FlightRecorder(
            policy.flight_recorder, self._pool, chance, self._poller, journal.note, marked, retry
        )
        self._helpers: tuple[Helper, ...] = (self._undertaker, self._meter, self._limiter, self._flight)
        self._stragglers = Stragglers(self.pool_name, birth_comm, is_ours=host.is_ours)

        def make_server() -> ForkServer:
            return ForkServer(self._policy, self._estate, birth_comm, environ, host.nofile, conditions, rng)

        self._generations = Generations(
            self._pool, self._poller, journal, make_server, self.happened, self._stragglers
        )
        self._search = BySearch(self._stragglers, self._known_pids, lambda: self._pool.stopping)
        self._containment: Containment = self._search
        self._kills = Kills()
        self._leaves: Leaves | None = None
        self._memory: MemoryWatch = RssWatch(policy)
        self._watchdog = Watchdog(policy)
        self._slowness = Slowness(journal)
        self._stacks = Stacks(self._poller)
        self._pauses = Pauses(self._poller, journal)
        self._births = births.Births()
        self._unborn: dict[int, Lifeline] = {}
        self._alive: dict[int, Lifeline] = {}
        self._by_pid: dict[int, Lifeline] = {}
        self._dead: dict[int, Lifeline] = {}
        self._status = Status(self._pool, lambda: self._memory, self._alive, journal.recent)
        self._desk = Desk(self._pool, self._status, journal.recent, self)
        self._notifier = Notifier(self._pool, self._status, journal, told, os.getpid())
        self._claim: names.Claim | None = None
        self._control: Control | None = None
        self._todo: deque[Command] = deque()
        self._stop_signals = 0
        self._child_ended = False
        self._log_is_watched = False
        self._exit_status: int | None = None

    # Running.

    def run(self) -> int:
        """Run the pool until it has stopped, and return the exit status. Errors of our own end the workers first.

        Raises `CantRun` when the host can't do what is needed, before any worker exists.
        """
        try:
            self._begin()
            while self._exit_status is None:
                self._turn()
        except CantRun:
            raise
        except BaseException:
            self._exit_status = INTERNAL_ERROR
            self._pool_is_lost()
            self._journal.failure('the supervisor has met an error of its own: the workers were ended')
        finally:
            self._end()
        return self._exit_status

    def _begin(self) -> None:
        self._poller.register(self._host.inbox, self._on_signal)
        self._open_control_socket()
        self._set_up_backend()
        if self._leaves is None and (number := end_leftovers()) > 0:
            message = f'ended what a pool without a supervisor had left: processes: {number}'
            self._journal.note(logging.WARNING, message, 'leftovers', processes=number)
        try:
            self._undertaker.start()
        except OSError as error:
            raise CantRun(f'cannot start a process of our own: {error}') from None
        self._generations.start(FIRST_GENERATION)
        self._undertaker.wait_until_at_work()
        if self._flight.is_wanted():
            self._flight.want()
            self._flight.elapse(time.monotonic())
            self._flight.wait_until_at_work(HELPER_PATIENCE)
        self.happened(PoolStartRequested())

    def _open_control_socket(self) -> None:
        """Take the pool's name and listen under it. Raises `CantRun` where what was asked for by name isn't to be had;
        a place that wasn't asked for is done without, with a warning."""
        policy = self._policy
        default = f'{policy.worker_module_name}.{policy.worker_class_name}'[: names.LONGEST_NAME]
        self._status.name = policy.name or default
        if policy.control_socket == NONE:
            return
        path = policy.control_socket if policy.control_socket != AUTO else None
        group = credentials.control_group(policy)
        try:
            self._claim = names.claim(policy.name, default, path, os.environ, group)
        except names.Taken as taken:
            raise CantRun(str(taken)) from None
        except OSError as error:
            raise CantRun(f'cannot open the control socket ({error})') from None
        except names.NoPlace as error:
            if path is not None:
                raise CantRun(f'cannot open the control socket ({error})') from None
            message = f'there is no control socket, so this pool can only be operated by signals ({error})'
            self._journal.note(logging.WARNING, message, 'no-control-socket')
            return
        self._status.name = self._claim.name
        self._control = Control(self._poller, self._desk, self._claim.listener, self._on_control_error, group)

    def _on_control_error(self, error: Exception) -> None:
        self._journal.failure('an error of our own while a request was answered: the pool goes on')

    def _set_up_backend(self) -> None:
        """Take the strongest backend that works, or the one that was asked for, and say which."""
        policy = self._policy
        try:
            choice = choose(policy)
            if choice.home is not None and choice.limits is not None:
                try:
                    warn = partial(self._journal.note, logging.WARNING)
                    self._leaves = Leaves(choice.home, choice.limits, name=self.pool_name, warn=warn)
                except NotOurs as error:
                    choice = without_cgroups(policy, error)
        except NotOurs as error:
            raise CantRun(str(error)) from None
        match choice.watch:
            case 'cgroup':
                self._memory = CgroupWatch(policy)
            case 'meter':
                self._memory = MeterWatch(policy, self._meter, self._found)
        if self._leaves is not None:
            leaves = ByCgroup(self._leaves)
            self._containment = leaves if self._host.is_ours else Together(leaves, self._search)
            self._estate.folders.append(self._leaves.pool.path)
            self._pauses.watch_folder(self._leaves.pool.path)
        self._status.in_force = lambda: in_force(choice, self._leaves)
        fields = {'memory': choice.memory, 'containment': choice.containment, 'why_not': choice.why_not}
        self._journal.note(logging.INFO, str(choice), 'backend', **fields)

    def _turn(self) -> None:
        """Wait for what comes next, and deal with it."""
        patience = self._patience()
        ready = self._poller.wait(patience)
        woken = time.monotonic()
        self._pauses.woken(patience)
        for handler, events in ready:
            handler(events)
        if self._patience() == 0:  # facts before timers: after a pause poll() may come back without having looked
            for handler, events in self._poller.wait(0):
                handler(events)
        if self._child_ended:
            self._child_ended = False
            self._reap_strangers()
        now = time.monotonic()
        self._lose_time(self._pauses.take(now), now)
        if (due := self._pool.next_deadline()) is not None and due <= now:
            self.happened(TimePassed())
        self._generations.elapse(now)
        for helper in self._helpers:
            helper.elapse(now)
        self._found(self._memory.look(now))
        for life, reason in self._watchdog.look(now):
            self.dump(life, partial(self._hung, life, reason))
        self._stacks.elapse(now)
        for containment in self._containments():
            for life in containment.elapse(now):
                self._nothing_left(life)
        self._desk.look()
        if self._control is not None:
            self._control.elapse(now)
        self._notifier.look(time.monotonic())
        self._watch_log()
        self._slowness.turned(woken, time.monotonic())

    def _patience(self) -> float | None:
        deadlines = (
            self._pool.next_deadline(),
            *(helper.next_deadline() for helper in self._helpers),
            self._generations.next_errand(),
            self._memory.next_look(),
            self._watchdog.next_look(),
            self._stacks.next_deadline(),
            self._control.next_deadline() if self._control is not None else None,
            self._desk.next_deadline(),
            self._notifier.next_deadline(),
            *(containment.next_deadline() for containment in self._containments()),
        )
        now, nearest = time.monotonic(), min((at for at in deadlines if at is not None), default=None)
        if nearest is not None and self._somebody_has_a_time_limit():
            nearest = min(nearest, now + SLICE)
        return None if nearest is None else max(0.0, nearest - now)

    def _somebody_has_a_time_limit(self) -> bool:
        """Whether a worker, or a fork server, may be about to start or to stop."""
        pool = self._pool
        if self._generations.next_errand() is not None:
            return True
        moving = pool.stopping or pool.ready < pool.wanted or pool.processes > pool.ready
        return moving and pool.next_deadline() is not None

    def _lose_time(self, seconds: float, now: float) -> None:
        """Nobody is held to the time in which nothing could run."""
        if seconds > 0:
            self.happened(TimeLost(seconds))
            self._generations.lose_time(seconds)
            self._watchdog.lose_time(now)
            for helper in self._helpers:
                helper.lose_time(seconds)

    # Facts in.

    def happened(self, event: Event) -> None:
        """Let the pool know of it, and do what it decides."""
        now = time.monotonic()
        commands = self._pool.handle(event, now)
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
            self._drop_unborn(lifeline)
            self._births.settled(lifeline.number)
            self._generations.settled(lifeline.number)
            self._stragglers.look_for_births()
            self.happened(SpawnFailed(lifeline.number, str(refusal)))
            return
        if process is not None:
            del self._unborn[lifeline.number]
            self._alive[lifeline.number] = self._by_pid[process.pid] = lifeline
            self._poller.register(process, partial(self._on_exit, lifeline))
            born = procfs.read_stat(process.pid)
            start_time = born.start_time if born is not None else 0
            lifeline.session_entry = self._estate.sessions.enter(process.pid, start_time)
            self._memory.watch(lifeline.number, process.pid, lifeline.leaf, time.monotonic())
            self._watchdog.watch(lifeline.number, lifeline.page, time.monotonic())
            self._births.settled(lifeline.number)
            self._generations.settled(lifeline.number)
            self.happened(Spawned(lifeline.number, process.pid))

    def _hear(self, lifeline: Lifeline, at_most: int = MESSAGES_A_TURN) -> None:
        try:
            for message in lifeline.hear(at_most):
                if message['type'] == 'ready':
                    self._kills.settle()
                    self._memory.ready(lifeline.number, time.monotonic())
                    self._watchdog.ready(lifeline.number, time.monotonic())
                    self.happened(Ready(lifeline.number, can_drain=message.get('drain') is True))
        except EOFError:
            self._poller.unregister(lifeline.gate)

    def _on_exit(self, lifeline: Lifeline, events: int) -> None:
        process = lifeline.process
        if lifeline.number not in self._alive or process is None or not process.exited():
            return
        self._hear(lifeline, at_most=LAST_MESSAGES)
        ending = lifeline.end(self._memory.forget(lifeline.number))
        if ending.signal == signal.SIGKILL and ending.memory is None:
            ending = replace(ending, oom_around=self._kills.claim())
        self._watchdog.forget(lifeline.number)
        self._stacks.forget(lifeline.number)
        self._bury(lifeline)
        if lifeline.malformed:
            message = f'worker({process.pid}) has sent {lifeline.malformed} malformed reports: dropped'
            self._journal.note(logging.WARNING, message, 'malformed-reports', life=lifeline.number)
        self.happened(Exited(lifeline.number, ending))

    def _bury(self, lifeline: Lifeline) -> None:
        assert lifeline.process is not None
        self._poller.unregister(lifeline.gate)
        self._poller.unregister(lifeline.process)
        lifeline.close()
        del self._alive[lifeline.number]
        del self._by_pid[lifeline.process.pid]
        self._dead[lifeline.number] = lifeline

    def _drop_unborn(self, lifeline: Lifeline) -> None:
        self._poller.unregister(lifeline.gate)
        lifeline.close()
        del self._unborn[lifeline.number]
        self._containment.end(lifeline.number, None, time.monotonic())

    # Commands out.

    def obey(self, commands: Iterable[Command]) -> None:
        """Carry out commands; what happens meanwhile is carried out after them."""
        busy = bool(self._todo)
        self._todo.extend(commands)
        while not busy and self._has_more_to_do():
            self._carry_out(self._todo[0])
            self._todo.popleft()

    def _has_more_to_do(self) -> bool:
        """When all else is done, the next life that may be begun."""
        if not self._todo and (spawn := self._births.next()) is not None:
            self._todo.append(spawn)
        return bool(self._todo)

    def _carry_out(self, command: Command) -> None:
        match command:
            case Spawn(slot, life, generation):
                if self._births.may_begin(command):
                    self._spawn(slot, life, generation)
            case Go(slot, life):
                self._alive[life].say(
                    {
                        'type': 'go',
                        'module': self._policy.worker_module_name,
                        'class': self._policy.worker_class_name,
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
                self._exit_status = status
            case _:
                self._journal.tell(command, stopping=self._pool.stopping)

    def _spawn(self, slot: int, life: int, generation: int) -> None:
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
        lifeline = self._unborn[life] = Lifeline(life, slot, ours, leaf, page, stacks)
        self._poller.register(ours, partial(self._on_gate, lifeline))
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

    # What the desk asks for.

    def dump(self, life: int, done: Callable[[str | None], None]) -> None:
        """Ask a worker for its stacks; `done` gets them, None when it has given none."""
        lifeline = self._alive[life]
        self._stacks.ask(life, lifeline.stacks, partial(self.signal, life, signal.SIGWINCH), done, time.monotonic())

    def too_few_descriptors(self, workers: int) -> str | None:
        """Return what keeps the pool from having so many workers, and what would mend it; None: nothing."""
        before = self._host.open_before
        few = descriptors.too_few(self._policy, before, descriptors.limit(), workers)
        if few is None:
            return None
        needed = descriptors.needed(self._policy, before, workers)
        return f'{few}; prlimit --pid {os.getpid()} --nofile={needed}:{needed}, or {descriptors.remedy(needed)}'

    def stop(self, *, now: bool) -> None:
        """Stop the pool, as a signal would."""
        if now:
            self._kill_now('a request')
        elif not self._pool.stopping:
            self._stop_signals += 1
            message = 'a request was received, triggering a stopping process'
            self._journal.note(logging.INFO, message, 'stop', signal=None)
            self.happened(PoolStopRequested())

    def change_policy(self, policy: Policy) -> None:
        """Go by this policy from now on. Raises OSError when the kernel refuses a limit."""
        before, now = self._policy, time.monotonic()
        if self._leaves is not None and policy.max_worker_memory_usage != before.max_worker_memory_usage:
            self._change_limits(self._leaves, policy)
        self._policy = policy
        self.happened(PolicyChanged(policy))
        self._memory.change_policy(policy)
        for life, lifeline in self._alive.items():
            assert lifeline.process is not None
            self._memory.change(life, lifeline.process.pid, lifeline.leaf, now)
        self._watchdog.change(policy, now)
        self._journal.change_policy(policy)
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

    # Signals.

    def _on_signal(self, events: int) -> None:
        for signum in self._host.inbox.read():
            if signum == signal.SIGCHLD:
                self._child_ended = True
            elif signum in borrowed.STOP:
                self._stop_signals += 1
                name = signal.Signals(signum).name
                if self._stop_signals == 1:
                    message = f'{name} was received, triggering a stopping process'
                    self._journal.note(logging.INFO, message, 'stop', signal=name)
                    self.happened(PoolStopRequested())
                else:
                    self._kill_now(name)
            elif signum in borrowed.KILL:
                self._kill_now(signal.Signals(signum).name)
            elif signum in borrowed.STATUS:
                self._status.tell(self._journal)
            elif signum in borrowed.RELOAD:
                self.happened(ReloadRequested())
            elif signum in borrowed.MORE:
                if (few := self.too_few_descriptors(self._pool.wanted + 1)) is None:
                    self.happened(ScaleRequested(+1))
                else:
                    self._journal.note(logging.WARNING, f'SIGTTIN: there is no room for one more: {few}', 'no-room')
            elif signum in borrowed.FEWER:
                self.happened(ScaleRequested(-1, self._status.busy()))

    def _kill_now(self, name: str) -> None:
        self._journal.note(logging.WARNING, f'{name} was received, killing all workers now', 'kill', signal=name)
        self.happened(PoolKillRequested())

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

    # What is left over.

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

    def _known_pids(self) -> frozenset[int]:
        helpers = {helper.process.pid for helper in self._helpers if helper.process is not None}
        return frozenset(self._by_pid.keys() | self._generations.pids() | helpers)

    def _reap_strangers(self) -> None:
        """As a command of our own: reap what falls to us. waitid shows the same zombie until it is reaped, so each is
        dealt with in turn."""
        while True:
            try:
                zombie = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if zombie is None:
                return
            pid = zombie.si_pid
            if pid not in self._by_pid:
                for lifeline in list(self._unborn.values()):
                    self._hear_hello(lifeline)
            if pid in self._by_pid:
                self._on_exit(self._by_pid[pid], 0)
            elif pid in self._generations.pids():
                self._generations.reap(pid)
            elif pid in (helpers := {each.process.pid: each for each in self._helpers if each.process is not None}):
                helpers[pid].on_exit(0)
            else:
                reap(pid)

    # The log.

    def _watch_log(self) -> None:
        """Have what found no room in the log written as soon as there is room."""
        log = self._log
        if log is None or not log.pollable or log.wants_write == self._log_is_watched:
            return
        if log.wants_write:
            self._poller.register(log, self._on_log, EPOLLOUT)
        else:
            self._poller.unregister(log)
        self._log_is_watched = log.wants_write

    def _on_log(self, events: int) -> None:
        assert self._log is not None
        self._log.write_some()

    # The end.

    def _pool_is_lost(self) -> None:
        """An error of our own: end every worker without asking the core."""
        for life in self._alive:
            self.signal(life, signal.SIGKILL)
        for lifeline in list(self._alive.values()):
            assert lifeline.process is not None
            lifeline.process.exited(HELPER_PATIENCE)
            lifeline.end(None)
            self._containment.end(lifeline.number, lifeline.process.pid, time.monotonic())
            self._bury(lifeline)

    def _end(self) -> None:
        """Leave nothing behind: no worker, no helper, no newborn, no straggler, no descriptor."""
        for lifeline in list(self._unborn.values()):
            self._drop_unborn(lifeline)
        self._generations.close()
        deadline = time.monotonic() + HELPER_PATIENCE
        while any(each.next_deadline() is not None for each in self._containments()) and time.monotonic() < deadline:
            for containment in self._containments():
                containment.elapse(time.monotonic())
            time.sleep(0.001)
        self._memory.close()
        for helper in self._helpers:
            helper.close()
        self._estate.sessions.close()
        self._containment.close()
        if self._host.is_ours:
            self._reap_strangers()
        self._desk.close(self._exit_status)
        if self._control is not None:
            self._control.close()
        if self._claim is not None:
            self._claim.close()
        self._notifier.close()
        self._pauses.close()
        self._poller.close()


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
