"""All slots of one pool: start with a canary, succession, scale, rolling reload, stop in phases.

The pool gives events to seats and keeps what is between them: whose turn it is to be replaced (the recycle token),
who is left over (stragglers, by life), the timers, and when everything is at rest. It returns what the kernel side is
to do, and reports.

A stop gives a worker that can drain half of `timeout_stop` for its task and the other half to put it back; one that
can't drain has all of it from SIGTERM on.

The recycle token: whatever mixture of causes asks for it (memory mark, lifetime, restart, reload), at most `max_surge`
workers have a successor at a time, and at most `max_unavailable` are away without one. A worker is replaced by a
succession where there is room for one; else it goes first, and its place is filled when it is gone.
"""

from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

from sergeant_linux.core.backoff import RestartBudget
from sergeant_linux.core.commands import (
    Arm,
    Command,
    Disarm,
    EndGeneration,
    EndStragglers,
    Leave,
    ReloadEnded,
    ReloadStarted,
    ReplaceSoon,
    RestartEnded,
    Scaled,
    Spawn,
    StartGeneration,
    StopPool,
    StragglersRemain,
    WorkerExited,
    WorkerSpawnFailed,
)
from sergeant_linux.core.counters import Counters
from sergeant_linux.core.deadlines import Deadlines
from sergeant_linux.core.events import (
    KillRequested,
    LifeEvent,
    SeatEvent,
    StartRequested,
    StopRequested,
    SuccessionRequested,
    TimerElapsed,
    Unpopulated,
)
from sergeant_linux.core.exit import STOPPED
from sergeant_linux.core.policy import Policy
from sergeant_linux.core.reload import TRYING, Phase, Reload
from sergeant_linux.core.restart import Restart
from sergeant_linux.core.result import Request
from sergeant_linux.core.slot import Life, PoolFacts, Seat, Slot, State
from sergeant_linux.core.snapshot import SlotView, Snapshot, view

AT_REST: Final = frozenset({State.DEAD, State.FAILED})

SWEEP_AGAIN_AFTER: Final = 5.0
"""Seconds after which stragglers that are still there are killed again, and told of."""


@dataclass(slots=True, eq=False)
class Afterlife:
    """A life whose main process is gone while something it started is left (FINAL_SIGKILL)."""

    slot: int
    life: int
    since: float


class Pool:
    """The decisions for one pool of workers; every method returns commands in the order to carry them out."""

    def __init__(self, policy: Policy, rng: Random) -> None:
        self.policy = policy
        self._facts = PoolFacts(policy, rng, RestartBudget(policy.restart_budget))
        self._slots: dict[int, Slot] = {}
        self._seats: dict[int, Seat] = {}
        self._afterlives: dict[int, Afterlife] = {}
        self._deadlines: Deadlines[Seat | Afterlife] = Deadlines()
        self._turns: deque[Seat] = deque()
        self._surge: set[int] = set()
        self._away: set[int] = set()
        self._reload: Reload | None = None
        self._restarts: dict[int, Restart] = {}
        self._last_restart: Restart | None = None
        self._generations = self._facts.generation
        self._status = STOPPED
        self._left = False
        self._version = 0
        for number in range(policy.concurrent_workers):
            self._add_slot(number)

    # What the world asks of the pool.

    def start(self, now: float) -> list[Command]:
        """Start the canary: the first worker; the others follow when it is ready, so a broken module costs one
        process."""
        return list(self._step(self._slots[0].incumbent, StartRequested(), now))

    def stop(self, now: float, *, status: int = STOPPED) -> list[Command]:
        """Stop all workers in an orderly way and leave with `status`; the first stop's status counts."""
        return [*self._stop(status, now), *self._leave_if_at_rest()]

    def kill(self, now: float) -> list[Command]:
        """Stop without waiting for anybody."""
        commands = list(self._stop(STOPPED, now))
        for slot in list(self._slots.values()):
            for seat in list(slot.seats()):
                commands += self._step(seat, KillRequested(), now)
        return [*commands, *self._leave_if_at_rest()]

    def scale(self, by: int, now: float, busy: Collection[int] = ()) -> list[Command]:
        """Have `by` workers more (or less; never less than one). First those go that don't work: they aren't running,
        or their life isn't among the `busy`; of several, the youngest."""
        staying = self._staying()
        before, after = len(staying), max(1, len(staying) + by)
        if self._facts.stopping:
            return []
        commands: list[Command] = [Scaled(before, after)]

        def worth(slot: Slot) -> tuple[bool, bool, int]:
            life = slot.incumbent.life
            number = life.number if life is not None else self._facts.lives + 1 + slot.number
            return slot.incumbent.state is State.RUNNING, number in busy, -number

        for slot in sorted(staying, key=worth)[: max(0, before - after)]:
            commands += self._retire(slot, now)
        for _ in range(before, after):
            slot = self._add_slot(next(number for number in range(len(self._slots) + 1) if number not in self._slots))
            if self._facts.ever_ready:
                commands += self._step(slot.incumbent, StartRequested(), now)
        return commands

    def restart(self, now: float, slots: Collection[int] | None = None) -> list[Command]:
        """Have the workers of these slots (None: of all) replaced, each when its turn comes. One that waits for its
        restart is restarted now; one that only starts is new already; see restart.py."""
        if self._facts.stopping:
            return []
        chosen = [slot for slot in self._staying() if slots is None or slot.number in slots]
        waiting = {slot.number: _last_life(slot.incumbent) for slot in chosen}
        known = next((each for each in self._restarts.values() if each.waiting == waiting), None)
        self._last_restart = known or Restart(self._next_restart(), waiting, len(waiting))
        if self._last_restart.goes_on:
            self._restarts[self._last_restart.number] = self._last_restart
        commands: list[Command] = []
        for slot in chosen:
            if slot.incumbent.state is State.RUNNING:
                commands += self._step(slot.incumbent, SuccessionRequested(Request.RESTART), now)
            elif slot.incumbent.state is State.AUTO_RESTART:
                commands += self._step(slot.incumbent, StartRequested(), now)
        return commands

    def reload(self, now: float) -> list[Command]:
        """Have the code loaded anew, and every worker replaced by one that runs it; see reload.py."""
        if self._facts.stopping:
            return []
        base = self._facts.generation
        commands: list[Command] = []
        if self._reload is not None and self._reload.goes_on:
            base = self._reload.base
            commands += self._give_up_reload(Phase.SUPERSEDED, 'another reload was asked for', now)
        self._generations += 1
        self._reload = Reload(self._generations, base, {slot.number for slot in self._staying()})
        self._facts.on_trial = self._generations
        return [*commands, ReloadStarted(self._generations), StartGeneration(self._generations)]

    def generation_serves(self, generation: int, now: float) -> list[Command]:
        """The code of this generation is loaded: workers can be born from it."""
        reload = self._reload
        if reload is None or reload.generation != generation or reload.phase is not Phase.LOADING:
            return []
        reload.phase = Phase.CANARY
        return list(self._go_on_with_reload(now))

    def generation_failed(self, generation: int, reason: str, now: float) -> list[Command]:
        """The code of this generation could not be loaded."""
        reload = self._reload
        if reload is None or reload.generation != generation or not reload.goes_on:
            return []
        return [*self._give_up_reload(Phase.FAILED, reason, now), *self._leave_if_at_rest()]

    def change_policy(self, policy: Policy, now: float) -> None:
        """Go by this policy from now on. Timers that run already keep their time, but for a lifetime."""
        lifetime_differs = policy.max_worker_lifetime != self.policy.max_worker_lifetime
        self.policy = self._facts.policy = policy
        for slot in self._slots.values() if lifetime_differs else ():
            for seat in slot.seats():
                if seat.state is State.RUNNING:
                    self._arm_lifetime(seat, now)

    def handle(self, event: LifeEvent, now: float) -> list[Command]:
        """Take in a fact about a life; one that comes late, about a life that is over, changes nothing."""
        if isinstance(event, Unpopulated):
            afterlife = self._afterlives.pop(event.life, None)
            if afterlife is not None:
                self._deadlines.disarm(afterlife)
            return list(self._leave_if_at_rest())
        seat = self._seats.get(event.life)
        if seat is None:
            return []
        return [*self._step(seat, event, now), *self._leave_if_at_rest()]

    # Time.

    def next_deadline(self) -> float | None:
        """Return when `elapse` is to be called next, in seconds of the monotonic clock; None: nothing is due."""
        return self._deadlines.next()

    def elapse(self, now: float) -> list[Command]:
        """Let every timer run out whose time has come."""
        commands: list[Command] = []
        for key in self._deadlines.elapse(now):
            if isinstance(key, Seat):
                commands += self._step(key, TimerElapsed(), now)
            else:
                self._deadlines.arm(key, now + SWEEP_AGAIN_AFTER)
                commands += [StragglersRemain(key.slot, key.life, now - key.since), EndStragglers(key.life)]
        return [*commands, *self._leave_if_at_rest()]

    # What others look at.

    @property
    def stopping(self) -> bool:
        """Whether the pool is on its way out."""
        return self._facts.stopping

    @property
    def ever_ready(self) -> bool:
        """Whether a worker of this pool has ever become ready."""
        return self._facts.ever_ready

    @property
    def last_reload(self) -> Reload | None:
        """The reload that goes on, or the last one that has ended."""
        return self._reload

    @property
    def last_restart(self) -> Restart | None:
        """The restart that was asked for last."""
        return self._last_restart

    @property
    def counters(self) -> Counters:
        """What has happened so far."""
        return self._facts.counters

    @property
    def version(self) -> int:
        """A number that grows whenever anything has changed."""
        return self._version

    def snapshot(self, now: float) -> Snapshot:
        """Return a picture of the pool."""
        return Snapshot(
            slots=tuple(
                SlotView(
                    number,
                    view(slot.incumbent, now),
                    view(slot.successor, now) if slot.successor is not None else None,
                )
                for number, slot in sorted(self._slots.items())
            ),
            stopping=self._facts.stopping,
            stragglers=len(self._afterlives),
            generation=self._facts.generation,
            lives=self._facts.lives,
            wanted=len(self._staying()),
            ready=sum(any(seat.state is State.RUNNING for seat in slot.seats()) for slot in self._slots.values()),
        )

    # Inside.

    def _add_slot(self, number: int) -> Slot:
        slot = self._slots[number] = Slot(number, Seat(number, self._facts))
        return slot

    def _staying(self) -> list[Slot]:
        return [slot for _, slot in sorted(self._slots.items()) if not slot.retiring]

    def _step(self, seat: Seat, event: SeatEvent, now: float) -> Iterator[Command]:
        """Let one seat take one step, and do what it asks of the pool."""
        was_ready = self._facts.ever_ready
        life_before = seat.life
        self._version += 1
        commands = seat.handle(event, now)
        ended = life_before if seat.life is not life_before else None
        if ended is not None:
            self._seats.pop(ended.number, None)
        for command in commands:
            match command:
                case Arm(at):
                    self._deadlines.arm(seat, at)
                case Disarm():
                    self._deadlines.disarm(seat)
                case StopPool(status):
                    yield from self._stop(status, now)
                case ReplaceSoon():
                    self._turns.append(seat)
                case Spawn(life=life):
                    self._seats[life] = seat
                    yield command
                case EndStragglers(life):
                    afterlife = self._afterlives[life] = Afterlife(seat.slot, life, now)
                    self._deadlines.arm(afterlife, now + SWEEP_AGAIN_AFTER)
                    yield command
                case _:
                    yield command
        if ended is not None:
            tried = ended.generation == self._facts.on_trial
            yield from self._see_trial(seat, ended, commands, now)
            if seat.wanted and not tried and ended.ready_at is None:
                yield from self._see_failed_start(seat, ended, commands, now)
        slot = self._slots.get(seat.slot)
        if slot is not None:
            yield from self._settle(slot, now)
            yield from self._see_generation(slot, now)
        yield from self._see_restarts(seat.slot)
        yield from self._go_on_with_reload(now)
        if self._facts.ever_ready and not was_ready:
            yield from self._start_the_others(now)
        yield from self._grant_turns(now)

    def _start_the_others(self, now: float) -> Iterator[Command]:
        for slot in list(self._slots.values()):
            if slot.incumbent.state is State.DEAD and not slot.retiring:
                yield from self._step(slot.incumbent, StartRequested(), now)

    def _settle(self, slot: Slot, now: float) -> Iterator[Command]:
        """Let what goes on in this slot go on: ask the incumbent to go, promote the successor, free the token, close
        the slot."""
        incumbent, successor = slot.incumbent, slot.successor
        if successor is not None and not successor.wanted and not slot.retiring and not self._facts.stopping:
            if successor.state in AT_REST:  # it was given up: its incumbent stays
                slot.successor = None
                self._surge.discard(slot.number)
                self._turns.append(incumbent)  # should it be asked for again, or still
        elif successor is not None and incumbent.state in AT_REST:
            successor.restarts += incumbent.restarts
            successor.count_restart()
            successor.once = False
            slot.incumbent, slot.successor = successor, None
            self._surge.discard(slot.number)
        elif successor is not None and successor.state is State.RUNNING and incumbent.state is State.RUNNING:
            request = incumbent.current.blame.request or Request.LIFETIME
            yield from self._step(incumbent, self._planned(request), now)
        elif slot.number in self._away and not self._facts.stopping:
            if incumbent.state is State.DEAD:
                incumbent.count_restart()
                yield from self._step(incumbent, StartRequested(), now)
            elif incumbent.state is State.RUNNING and incumbent.wanted:
                self._away.discard(slot.number)
        if slot.retiring and slot.successor is None and slot.incumbent.state in AT_REST:
            self._slots.pop(slot.number, None)

    def _grant_turns(self, now: float) -> Iterator[Command]:
        """Replace workers while the token allows it, in the order in which that was asked for."""
        while self._turns and not self._facts.stopping:
            with_successor = len(self._surge) < self.policy.max_surge
            if not with_successor and len(self._away) >= self.policy.max_unavailable:
                return
            incumbent = self._turns.popleft()
            slot = self._slots.get(incumbent.slot)
            if slot is None or slot.retiring or slot.incumbent is not incumbent or slot.successor is not None:
                continue
            if incumbent.state is not State.RUNNING or incumbent.current.blame.request is None:
                continue
            if with_successor:
                successor = self._place_successor(slot)
                successor.once = incumbent.current.blame.request is Request.RESTART
                yield from self._step(successor, StartRequested(), now)
            else:
                yield from self._send_away(slot, incumbent.current.blame.request, now)

    def _place_successor(self, slot: Slot, generation: int | None = None) -> Seat:
        """Make a seat for the successor of the incumbent, which stays until that one is ready."""
        self._surge.add(slot.number)
        slot.incumbent.wanted = False
        slot.successor = Seat(
            slot.number, self._facts, predecessor=slot.incumbent.predecessor, generation=generation
        )
        return slot.successor

    def _send_away(self, slot: Slot, request: Request, now: float) -> Iterator[Command]:
        """Ask the incumbent to go; its seat is filled again when it is gone."""
        self._away.add(slot.number)
        yield from self._step(slot.incumbent, self._planned(request), now)

    # Reload.

    def _go_on_with_reload(self, now: float) -> Iterator[Command]:
        """Do what can be done now: send the canary; when it is ready, have the others follow; see whether all have."""
        reload = self._reload
        if reload is None or self._facts.stopping:
            return
        if reload.phase is Phase.CANARY:
            if reload.canary is None:
                yield from self._send_canary(reload, now)
            elif reload.canary.state is State.RUNNING and _is_of(reload.canary, reload.generation):
                reload.phase = Phase.ROLLING
                self._facts.generation = reload.generation
                reload.has_to_change({slot.number for slot in self._staying()})
                for slot in self._staying():
                    yield from self._see_generation(slot, now)
        if reload.phase is Phase.ROLLING and reload.changed == reload.of:
            yield from self._end_reload(Phase.DONE, None)
            yield EndGeneration(reload.base)

    def _see_generation(self, slot: Slot, now: float) -> Iterator[Command]:
        """Have the worker of this slot replaced if it runs other code than it should; no reload is trying anything."""
        reload, incumbent = self._reload, slot.incumbent
        if reload is None or reload.phase in TRYING or slot.retiring or self._facts.stopping:
            return
        if incumbent.state is not State.RUNNING:
            return
        if slot.successor is None:
            reload.runs(slot.number, incumbent.current.generation)
        if not _is_of(incumbent, self._facts.generation) and incumbent.current.blame.request is None:
            yield from self._step(incumbent, SuccessionRequested(Request.RELOAD), now)

    def _send_canary(self, reload: Reload, now: float) -> Iterator[Command]:
        """Try the new code beside a worker that runs, or in the place of one that waits for its restart."""
        running, waiting = (
            [slot for slot in self._staying() if slot.successor is None and slot.incumbent.state is state]
            for state in (State.RUNNING, State.AUTO_RESTART)
        )
        if running and len(self._surge) < self.policy.max_surge:
            running[0].incumbent.current.blame.is_ours(Request.RELOAD)
            reload.canary = self._place_successor(running[0], reload.generation)
            yield from self._step(reload.canary, StartRequested(), now)
        elif running and len(self._away) < self.policy.max_unavailable:
            reload.canary = running[0].incumbent
            reload.canary.generation = reload.generation
            yield from self._send_away(running[0], Request.RELOAD, now)
        elif waiting and not running:
            reload.canary = waiting[0].incumbent
            reload.canary.generation = reload.generation
            yield from self._step(reload.canary, StartRequested(), now)

    def _see_trial(self, seat: Seat, life: Life, commands: Sequence[object], now: float) -> Iterator[Command]:
        """A life has ended: if it was of the generation on trial and never ready, so ends the reload."""
        reload = self._reload
        if reload is None or not reload.goes_on or life.generation != reload.generation or life.ready_at is not None:
            return
        slot = self._slots[seat.slot]
        if self._facts.stopping or slot.retiring:  # it went because its place goes
            if reload.canary is seat:
                reload.canary = None  # another one is sent
            return
        reason = f'a worker of the new code did not become ready: {_why_not_ready(commands)}'
        yield from self._give_up_reload(Phase.FAILED, reason, now)
        if slot.successor is seat:
            self._give_up_successor(slot, now)
        elif slot.number not in self._away:
            yield from self._step(seat, StartRequested(), now)  # nobody else is there: from the old code again

    def _give_up_reload(self, phase: Phase, reason: str, now: float) -> Iterator[Command]:
        """End a reload that has not changed all workers: nothing is born from its code any more."""
        reload = self._reload
        assert reload is not None
        self._facts.generation = reload.base
        yield from self._end_reload(phase, reason)
        for slot in list(self._slots.values()):
            successor = slot.successor
            if successor is not None and _is_of(successor, reload.generation) and successor.state is State.START:
                self._give_up_successor(slot, now)
                yield from self._step(successor, StopRequested(Request.RELOAD, 0.0, self.policy.timeout_stop), now)
            elif successor is None and _is_of(slot.incumbent, reload.base):
                self._let_stay(slot.incumbent, Request.RELOAD, now)
            yield from self._see_generation(slot, now)
        yield EndGeneration(reload.generation)

    def _give_up_successor(self, slot: Slot, now: float) -> None:
        """The successor is not wanted any more, and is let go when it is at rest; the incumbent stays, as if it had
        never been asked for. One that was to go for another reason still is."""
        assert slot.successor is not None
        slot.successor.wanted = False
        slot.incumbent.wanted = not slot.retiring
        self._let_stay(slot.incumbent, Request.RELOAD, now)

    def _let_stay(self, seat: Seat, request: Request, now: float) -> None:
        """A worker that was to go for this reason is as if it had never been asked for."""
        if seat.state is State.RUNNING and seat.current.blame.request is request:
            seat.current.blame.request = None
            self._arm_lifetime(seat, now)

    def _arm_lifetime(self, seat: Seat, now: float) -> None:
        ready_at, lifetime = seat.current.ready_at, self.policy.max_worker_lifetime
        if lifetime is None or ready_at is None:
            self._deadlines.disarm(seat)
        else:
            jitter = self._facts.rng.uniform(0, self.policy.max_worker_lifetime_jitter)
            self._deadlines.arm(seat, max(now, ready_at + lifetime + jitter))

    def _end_reload(self, phase: Phase, reason: str | None) -> Iterator[Command]:
        reload = self._reload
        assert reload is not None
        if reload.canary is not None:
            reload.canary.generation = None
        reload.phase, reload.reason, reload.canary = phase, reason, None
        self._facts.on_trial = None
        yield ReloadEnded(reload.generation, phase, reload.changed, reload.of, reason)

    # Restart.

    def _next_restart(self) -> int:
        return self._last_restart.number + 1 if self._last_restart is not None else 1

    def _see_restarts(self, number: int) -> Iterator[Command]:
        """See whether restarts wait for this slot no longer: its worker is replaced, or it goes."""
        slot = self._slots.get(number)
        for restart in list(self._restarts.values()):
            life = restart.waiting.get(number)
            if life is not None and (slot is None or slot.retiring or _runs_later_life(slot.incumbent, life)):
                del restart.waiting[number]
                if not restart.waiting:
                    del self._restarts[restart.number]
                    yield RestartEnded(restart.changed, restart.of, None)

    def _see_failed_start(self, seat: Seat, life: Life, commands: Sequence[object], now: float) -> Iterator[Command]:
        """A life has ended before it was ready: so end the restarts that it is a part of."""
        failed = [each for each in self._restarts.values() if each.waiting.get(seat.slot, life.number) < life.number]
        for restart in failed:
            del self._restarts[restart.number]
            restart.reason = f'a fresh worker in slot {seat.slot} did not become ready: {_why_not_ready(commands)}'
            yield RestartEnded(restart.changed, restart.of, restart.reason)
        if seat.once:
            self._give_up_restarting(self._slots[seat.slot], now)
        still_waiting = {number for each in self._restarts.values() for number in each.waiting}
        given_up: list[Seat] = []
        for number in sorted({number for each in failed for number in each.waiting} - still_waiting):
            slot = self._slots[number]
            successor = slot.successor
            if successor is None:
                self._let_stay(slot.incumbent, Request.RESTART, now)
            elif successor.once and successor.state is State.START:
                self._give_up_restarting(slot, now)
                given_up.append(successor)
        for successor in given_up:
            yield from self._step(successor, StopRequested(Request.RESTART, 0.0, self.policy.timeout_stop), now)

    def _give_up_restarting(self, slot: Slot, now: float) -> None:
        self._let_stay(slot.incumbent, Request.RESTART, now)
        self._give_up_successor(slot, now)

    def _planned(self, request: Request) -> StopRequested:
        return StopRequested(request, self.policy.timeout_drain, self.policy.timeout_stop)

    def _retire(self, slot: Slot, now: float) -> Iterator[Command]:
        slot.retiring = True
        self._surge.discard(slot.number)
        self._away.discard(slot.number)
        if self._reload is not None:
            self._reload.leave_out(slot.number)
        for seat in list(slot.seats()):
            yield from self._step(seat, self._planned(Request.SCALE_DOWN), now)

    def _stop(self, status: int, now: float) -> Iterator[Command]:
        if not self._facts.stopping:
            self._facts.stopping = True
            self._status = status
            self._turns.clear()
            if self._reload is not None and self._reload.goes_on:
                yield from self._end_reload(Phase.STOPPED, 'the pool stops')
            half = self.policy.timeout_stop / 2
            for slot in list(self._slots.values()):
                for seat in list(slot.seats()):
                    yield from self._step(seat, StopRequested(Request.STOP, half, half), now)

    def _leave_if_at_rest(self) -> Iterable[Command]:
        """Leave once, when a stop has left no life and nothing of one: a stop lets no seat wait for a restart."""
        if self._facts.stopping and not self._left and not self._seats and not self._afterlives:
            self._left = True
            yield Leave(self._status)


def _is_of(seat: Seat, generation: int) -> bool:
    return seat.life is not None and seat.life.generation == generation


def _last_life(seat: Seat) -> int:
    """Return the life that a restart of this seat replaces: one that only starts is new already."""
    return (seat.life.number if seat.life is not None else 0) - (seat.state is State.START)


def _runs_later_life(seat: Seat, life: int) -> bool:
    return seat.state is State.RUNNING and seat.current.number > life


def _why_not_ready(commands: Sequence[object]) -> str:
    """Return what the report of an end says of its cause."""
    return next((text for command in commands if (text := _cause_in(command))), 'it was given up')


def _cause_in(command: object) -> str | None:
    match command:
        case WorkerSpawnFailed(reason=reason):
            return reason
        case WorkerExited(ending=ending, result=result):
            if ending.report is not None and ending.report.exception:
                return ending.report.exception
            code = f' (return code {ending.return_code})' if ending.return_code is not None else ''
            return f'{result}{code}'
    return None
