"""Walk through everything that can happen to a small pool: each state once, whatever the way that led there.

Facts: a pool's behaviour depends on few things (states, goals, blame, who waits for what, what is due in how many
seconds) and not on the rest (the time of day, pids, the numbers of lives).
Decision: `picture` is exactly these few things; two worlds with one picture have one future, so the walk takes each
picture once, breadth first. All knobs are multiples of five seconds, so that the timers of a world lie on a few
points. A world is put aside as what its pool writes down, so the walk goes on with a pool that was made of that.
Price: a walk sees a pool of one or two slots; the Hypothesis machine sees larger ones, but only here and there.
"""

import json
import pickle
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from math import inf
from typing import Final

from sergeant_linux.core.afterlife import Afterlife
from sergeant_linux.core.commands import Command
from sergeant_linux.core.events import LifeEvent, Unpopulated
from sergeant_linux.core.policy import Policy
from sergeant_linux.core.pool import Pool
from sergeant_linux.core.result import Ending
from sergeant_linux.core.slot import Seat, Slot, State
from tests.core.fake_kernel import Phase
from tests.core.world import Middle, World

Step = Callable[[World], list[Command]]

BACKOFF_LEVELS: Final = 3
"""Failures in a row after which the delay grows no more, with the knobs of a walk."""


@dataclass(slots=True)
class Walk:
    """One walk.

    reloads: how many reloads there may be; restarts: whether a restart may be asked for; scales_to: how many slots there may be; left: how many lives of which something is left may be waited for at once;
    depth: how many steps from the start, None: to the very end. `trail` is the way to the state yielded last.
    """

    reloads: int = 0
    restarts: bool = False
    scales_to: int = 1
    left: int = 1
    depth: int | None = None
    visited: set[Hashable] = field(default_factory=set)
    steps: int = 0
    trail: 'Trail' = field(default_factory=lambda: Trail())

    def through(self, world: World) -> Iterator[Callable[[], World]]:
        """Yield every state that can be reached, as a function that returns a new world in that state."""
        policy, endings = world.pool.policy, world.kernel.endings
        self.visited.add(picture(world))
        waiting = deque([(Trail(), put_aside(world), [*self.steps_from(world)])])
        while waiting:
            self.trail, frozen, steps = waiting.popleft()
            yield partial(take_up, frozen, policy, endings, has_twin=True)
            if self.trail.length == self.depth:
                continue
            for step in steps:
                there = take_up(frozen, policy, endings)
                trail = Trail(self.trail, step)
                with trail.told():
                    step(there)
                self.steps += 1
                seen = picture(there)
                if seen not in self.visited:
                    self.visited.add(seen)
                    waiting.append((trail, put_aside(there), [*self.steps_from(there)]))

    def steps_from(self, world: World) -> Iterator[Step]:
        """Yield everything that can happen now."""
        if world.kernel.left_with is not None:
            return
        left = sum(process.phase is Phase.ENDED for process in world.kernel.processes.values())
        for event in world.kernel.possible():
            if left <= self.left or isinstance(event, Unpopulated):
                yield partial(happen, event=event)
        if left > self.left:
            return
        yield World.stop
        yield World.kill
        if sum(not slot.retiring for slot in world.slots()) < self.scales_to and len(world.slots()) <= self.scales_to:
            yield partial(World.scale, by=1)
        if len(world.slots()) > 1:
            yield partial(World.scale, by=-1)
        if world.known.generations <= self.reloads:
            yield World.reload
        if world.kernel.loading() is not None:
            yield World.loads
            yield World.cannot_load
        if self.restarts:
            yield World.restart
        waiting: list[Seat | Afterlife] = [*world.seats(), *world.afterlives()]
        dues = sorted({due for key in waiting if (due := world.deadline(key)) is not None})
        yield from (partial(World.oversleep, seconds=due) for due in dues)


class Trail:
    """The way to a state, step by step."""

    __slots__ = ('before', 'length', 'step')

    def __init__(self, before: 'Trail | None' = None, step: Step | None = None) -> None:
        self.before, self.step = before, step
        self.length: int = before.length + 1 if before is not None else 0

    @contextmanager
    def told(self) -> Iterator[None]:
        """Add the way to what fails here."""
        try:
            yield
        except BaseException as error:
            error.add_note(f'The way that led there:\n{self}')
            raise

    def __str__(self) -> str:
        if self.before is None or self.step is None:
            return '  start'
        step = self.step
        if isinstance(step, partial):
            told = f'{step.func.__name__} ' + ', '.join(f'{key}={value}' for key, value in step.keywords.items())
        else:
            told = step.__name__
        return f'{self.before}\n  {told}'


Frozen = tuple[str, bytes, float, list[float]]


def put_aside(world: World) -> Frozen:
    """Return what is written down of a world."""
    kernel = pickle.dumps(replace(world.kernel, endings=()), pickle.HIGHEST_PROTOCOL)
    return json.dumps(world.state), kernel, world.now, list(world.failure_restarts)


def take_up(frozen: Frozen, policy: Policy, endings: Sequence[Ending], *, has_twin: bool = False) -> World:
    """Return a world that is made of what was written down. A step of a walk is taken by such a pool anyway; where the
    future of a state is played, each further step is taken by a twin, too."""
    state, kernel, now, failure_restarts = frozen
    world = World.__new__(World)
    world.rng = Middle()
    world.pool = Pool.restored(json.loads(state), policy, world.rng)
    world.kernel = replace(pickle.loads(kernel), endings=endings)
    world.now, world.failure_restarts = now, list(failure_restarts)
    world.listener, world.has_twin = None, has_twin
    world.forget()
    return world


def happen(world: World, event: LifeEvent) -> list[Command]:
    return world.happen(event)


def picture(world: World) -> Hashable:
    """Return what the future of this world depends on."""
    known, policy = world.known, world.pool.policy
    facts = known.facts
    names: dict[int, int] = {}

    def name(life: int) -> int:
        return names.setdefault(life, len(names))

    def seat_picture(seat: Seat | None) -> Hashable:
        if seat is None:
            return None
        life = seat.life
        draining = seat.state in (State.DRAIN, State.STOP_SIGTERM)
        return (
            seat.state,
            seat.wanted,
            seat.generation,
            seat.once,
            min(seat.failures, BACKOFF_LEVELS),
            world.deadline(seat),
            (seat.grace, max(-1.0, seat.until - world.now)) if draining else None,
            None
            if life is None
            else (
                name(life.number),
                life.pid is not None,
                min(policy.restart_reset, world.now - life.ready_at) if life.ready_at is not None else None,
                life.generation,
                life.can_drain,
                life.blame.request,
                life.blame.result,
                life.blame.signalled,
            ),
        )

    def slot_picture(slot: Slot) -> Hashable:
        return slot.number, slot.retiring, seat_picture(slot.incumbent), seat_picture(slot.successor)

    def reload_picture() -> Hashable:
        reload = known.reload
        if reload is None:
            return None
        return (
            reload.phase, reload.generation, reload.base, reload.canary, tuple(sorted(reload.slots)), tuple(sorted(reload.have_changed)),
            facts.generation, facts.on_trial,
        )

    lives = {seat.life.number for seat in world.seats() if seat.life is not None}
    spent = facts.budget.spent
    span = policy.restart_budget.span if policy.restart_budget is not None else inf
    return (
        facts.stopping,
        facts.ever_ready,
        known.going.opened,
        known.going.status,
        known.going.left,
        reload_picture(),
        tuple(sorted(world.kernel.generations.items())),
        tuple(sorted(known.token.away)),
        tuple(slot_picture(slot) for slot in world.slots()),
        tuple(
            tuple((number, name(life) if life in lives else -1) for number, life in sorted(each.waiting.items()))
            for each in known.restarts.values()
        ),
        tuple(name(life) for life in world.turns() if life in lives),
        tuple(world.now - at for at in spent if at > world.now - span),
        tuple((name(afterlife.life), world.deadline(afterlife)) for afterlife in world.afterlives()),
        tuple(
            (name(life), each.phase, each.ready, each.can_drain, each.drained, each.terminated, each.killed)
            for life, each in world.kernel.processes.items()
        ),
    )

