"""What can be asked of a running pool: each verb of the control socket, and what the pool does for it.

Facts: some things are done at once, some take as long as a worker's task; who asked may have hung up meanwhile, and
the pool goes on.
Consequence: a verb that takes time is an errand: it is looked after whenever something has happened in the pool, tells
its progress when that has changed, and answers when it is over. Nothing here waits.
Decision: what is asked for is checked here, and said in one line when it can't be; who may ask is checked where the
connection is accepted (control.py).

Invariant: every request is answered once, at the latest when the pool leaves.
"""

import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from math import inf
from typing import Any, Final, Protocol

from sergeant_linux.control.server import Reply
from sergeant_linux.control.status import Status, reload_picture
from sergeant_linux.core.events import Event as PoolEvent
from sergeant_linux.core.events import ReloadRequested, RestartRequested, ScaleRequested
from sergeant_linux.core.policy import Auto, BadValue, Knob, Policy
from sergeant_linux.core.pool import Pool
from sergeant_linux.core.reload import Phase, Reload
from sergeant_linux.core.restart import Restart
from sergeant_linux.core.snapshot import SeatView
from sergeant_linux.log.recent import Event, Recent

LIVE: Final = (
    'max_worker_memory_usage',
    'worker_memory_high',
    'memory_poll_interval',
    'timeout_start',
    'timeout_stop',
    'timeout_drain',
    'restart_delay',
    'restart_max_delay',
    'restart_reset',
    'max_worker_lifetime',
    'max_worker_lifetime_jitter',
    'worker_watchdog',
    'max_surge',
    'max_unavailable',
)
"""The knobs that can be changed while the pool runs."""

KNOBS: Final[dict[str, Knob]] = {each.name: each.metadata['knob'] for each in fields(Policy)}

Arguments = Mapping[str, Any]


class Bad(Exception):
    """The request can't be: its arguments are wrong."""


class Refused(Exception):
    """The request can't be done now, or here."""


class Supervision(Protocol):
    """What the desk asks of the loop."""

    def happened(self, event: PoolEvent) -> None:
        """Let the pool know of it, and do what it decides."""

    def signal(self, life: int, signum: int) -> None:
        """Signal the worker of this life."""

    def dump(self, life: int, done: Callable[[str | None], None]) -> None:
        """Ask a worker for its stacks; `done` gets them, None when it has given none."""

    def too_few_descriptors(self, workers: int) -> str | None:
        """Return what keeps the pool from having so many workers, and what would mend it; None: nothing."""

    def stop(self, *, now: bool) -> None:
        """Stop the pool, as a signal would."""

    def change_policy(self, policy: Policy) -> None:
        """Go by this policy from now on. Raises OSError when the kernel refuses a limit."""


class Errand(Protocol):
    """A request that takes time. `look_again_at`: when to look at it though nothing may have happened."""

    reply: Reply
    look_again_at: float

    def look(self) -> bool:
        """Tell what is new; True when it is over, and answered."""

    def give_up(self, exit_status: int | None) -> None:
        """The pool leaves, with this exit status: answer."""


class Desk:
    """Takes the requests of one pool."""

    def __init__(self, pool: Pool, status: Status, recent: Recent, supervision: Supervision) -> None:
        self._pool = pool
        self._status = status
        self._recent = recent
        self._supervision = supervision
        self._errands: list[Errand] = []
        self._verbs: Final[dict[str, Callable[[Arguments, Reply], None]]] = {
            'ping': lambda _, reply: reply.done(status.identity()),
            'status': lambda _, reply: reply.done(status.picture()),
            'health': lambda _, reply: reply.done(status.health()),
            'scale': self._scale,
            'reload': self._reload,
            'restart': self._restart,
            'stop': self._stop,
            'kill': self._kill,
            'dump': self._dump,
            'events': self._events,
            'set': self._set,
            'get': lambda _, reply: reply.done({'policy': texts(pool.policy)}),
        }

    def __call__(self, verb: str, arguments: Arguments, reply: Reply) -> None:
        """Take one request, and answer it now or later."""
        if verb not in self._verbs:
            reply.failed('unknown-verb', f'there is no verb {verb!r:.100}; there are {", ".join(self._verbs)}')
            return
        try:
            self._verbs[verb](arguments, reply)
        except Bad as bad:
            reply.failed('bad-request', f'{verb}: {bad}')
        except Refused as refused:
            reply.failed('refused', f'{verb}: {refused}')

    def look(self) -> None:
        """Something may have happened in the pool: look after what goes on."""
        if self._errands:
            self._errands = [errand for errand in self._errands if not (errand.reply.is_gone or errand.look())]

    def next_deadline(self) -> float | None:
        """Return when `look` is to be called, in seconds of the monotonic clock; None: nothing is due."""
        nearest = min((errand.look_again_at for errand in self._errands), default=inf)
        return nearest if nearest < inf else None

    def close(self, exit_status: int | None) -> None:
        """The pool leaves: answer who still waits."""
        for errand in self._errands:
            errand.give_up(exit_status)
        self._errands.clear()

    # The verbs.

    def _scale(self, arguments: Arguments, reply: Reply) -> None:
        before = self._pool.wanted
        to, by = whole(arguments, 'to'), whole(arguments, 'by')
        if (to is None) == (by is None):
            raise Bad('expected either "to" or "by"')
        after = to if to is not None else before + (by or 0)
        if after < 1:
            raise Bad(f'a pool has at least one worker, not {after}')
        if after > MOST_WORKERS:
            raise Bad(f'expected at most {MOST_WORKERS} workers, not {after}')
        self._only_while_it_runs()
        if after > before and (few := self._supervision.too_few_descriptors(after)) is not None:
            raise Refused(few)
        busy = self._status.busy() if after < before else frozenset()
        self._supervision.happened(ScaleRequested(after - before, busy))
        reply.done({'before': before, 'after': after})

    def _reload(self, arguments: Arguments, reply: Reply) -> None:
        waits = flag(arguments, 'wait', default=True)
        self._only_while_it_runs()
        self._supervision.happened(ReloadRequested())
        reload = self._pool.last_reload
        assert reload is not None
        if waits:
            self._send(Reloading(self._pool, reload, reply))
        else:
            reply.done({'generation': reload.generation, 'changed': 0})

    def _restart(self, arguments: Arguments, reply: Reply) -> None:
        waits = flag(arguments, 'wait', default=True)
        chosen = arguments.get('slots')
        known = {slot.number for slot in self._pool.snapshot(time.monotonic()).slots}
        if chosen is None:
            chosen = sorted(known)
        if not isinstance(chosen, list) or not all(type(each) is int for each in chosen):
            raise Bad('expected a list of slots')
        if missing := sorted(set(chosen) - known):
            raise Bad(f'there is no slot {missing[0]}; there are {", ".join(map(str, sorted(known)))}')
        self._only_while_it_runs()
        slots = sorted(set(chosen))
        self._supervision.happened(RestartRequested(frozenset(slots)))
        restart = self._pool.last_restart
        assert restart is not None
        if waits:
            self._send(Restarting(self._pool, restart, slots, reply))
        else:
            reply.done({'slots': slots})

    def _stop(self, arguments: Arguments, reply: Reply) -> None:
        at_once, waits = flag(arguments, 'now', default=False), flag(arguments, 'wait', default=True)
        deadline = time.monotonic() + (0.0 if at_once else self._pool.policy.timeout_stop)
        if waits:
            self._send(Stopping(self._pool, self._status, deadline, reply))
        else:
            reply.done({'status': 0})
        self._supervision.stop(now=at_once)

    def _kill(self, arguments: Arguments, reply: Reply) -> None:
        signum = signal_number(arguments.get('signal', 'KILL'))
        number, seat = self._seat(arguments)
        assert seat.life is not None
        self._supervision.signal(seat.life, signum)
        reply.done({'slot': number, 'pid': seat.pid, 'signal': signal.Signals(signum).name})

    def _dump(self, arguments: Arguments, reply: Reply) -> None:
        number, seat = self._seat(arguments)
        assert seat.life is not None

        def done(stacks: str | None) -> None:
            if stacks is None:
                text = f'dump: worker({seat.pid}) has given no stacks: it is stopped, or has taken SIGWINCH for itself'
                reply.failed('failed', text)
            else:
                reply.done({'slot': number, 'pid': seat.pid, 'stacks': stacks})

        self._supervision.dump(seat.life, done)

    def _events(self, arguments: Arguments, reply: Reply) -> None:
        last = whole(arguments, 'last')
        events = self._recent.last(100 if last is None else last)
        if flag(arguments, 'follow', default=False):
            for event in events:
                reply.event(event)
            self._send(Following(self._recent, reply))
        else:
            reply.done({'events': events})

    def _set(self, arguments: Arguments, reply: Reply) -> None:
        key, value = arguments.get('key'), arguments.get('value')
        if not isinstance(key, str) or not isinstance(value, str):
            raise Bad('expected "key" and "value" as texts')
        name = key.removeprefix('--').replace('-', '_')
        if name not in LIVE:
            live = ', '.join(KNOBS[each].flag.removeprefix('--') for each in LIVE)
            raise Bad(f'{key!r:.100} can not be changed in a running pool; what can is {live}')
        before = self._pool.policy
        try:
            changed: dict[str, Any] = {name: KNOBS[name].kind.read(value)}
            policy = replace(before, **changed)
        except BadValue as error:
            raise Bad(f'{KNOBS[error.knob].flag}: {error.text}') from None
        except ValueError as error:
            raise Bad(f'{KNOBS[name].flag}: {error}') from None
        if isinstance(getattr(policy, name), Auto):
            raise Bad(f'{KNOBS[name].flag}: auto is worked out when a pool starts; give a running one the value itself')
        self._only_while_it_runs()
        try:
            self._supervision.change_policy(policy)
        except OSError as error:
            raise Refused(f'the kernel has refused it: {error}') from None
        reply.done({'key': name, 'before': texts(before)[name], 'after': texts(policy)[name]})

    # Inside.

    def _send(self, errand: Errand) -> None:
        if not errand.look():
            self._errands.append(errand)

    def _only_while_it_runs(self) -> None:
        if self._pool.stopping:
            raise Refused('the pool is stopping')

    def _seat(self, arguments: Arguments) -> tuple[int, SeatView]:
        """Return the slot that is asked for, and its incumbent, which has a process."""
        number = whole(arguments, 'slot')
        slots = {slot.number: slot.incumbent for slot in self._pool.snapshot(time.monotonic()).slots}
        if number is None or number not in slots:
            raise Bad(f'there is no slot {number}; there are {", ".join(map(str, slots))}')
        seat = slots[number]
        if seat.pid is None:
            raise Refused(f'slot {number} has no process: it is {seat.state}')
        return number, seat


MOST_WORKERS: Final = 100_000

PAUSE: Final = 0.25
"""Seconds between two pieces of news that name all who are waited for."""


class Reloading:
    """Waits for the end of a reload."""

    def __init__(self, pool: Pool, reload: Reload, reply: Reply) -> None:
        self._pool = pool
        self._reload = reload
        self._told: object = None
        self.look_again_at = inf
        self.reply = reply

    def look(self) -> bool:
        reload = self._reload
        if reload.goes_on:
            if (picture := reload_picture(reload)) != self._told:
                self._told = picture
                self.reply.event({'event': 'reload-progress', **(picture or {})})
            return False
        if reload.phase is Phase.DONE:
            self.reply.done({'generation': reload.generation, 'changed': reload.changed})
        else:
            self.reply.failed('failed', f'the reload is {reload.phase}: {reload.reason}')
        return True

    def give_up(self, exit_status: int | None) -> None:
        self.reply.failed('failed', 'the pool has stopped')


class Restarting:
    """Waits for the end of a restart."""

    def __init__(self, pool: Pool, restart: Restart, slots: list[int], reply: Reply) -> None:
        self._pool = pool
        self._restart = restart
        self._slots = slots
        self._told: int | None = None
        self._quiet_until = -inf
        self.look_again_at = inf
        self.reply = reply

    def look(self) -> bool:
        restart, now = self._restart, time.monotonic()
        if restart.reason is not None:
            self.reply.failed('failed', f'{restart.reason}; slots {sorted(restart.waiting)} were not restarted')
        elif not restart.waiting:
            self.reply.done({'slots': self._slots})
        elif self._pool.stopping:
            self.give_up(None)
        else:
            self.look_again_at = inf
            if len(restart.waiting) != self._told:
                self._tell(now)
            return False
        return True

    def _tell(self, now: float) -> None:
        if now < self._quiet_until:
            self.look_again_at = self._quiet_until
            return
        self._quiet_until, self._told = now + PAUSE, len(self._restart.waiting)
        self.reply.event({'event': 'restart-progress', 'waiting': sorted(self._restart.waiting)})

    def give_up(self, exit_status: int | None) -> None:
        self.reply.failed('failed', f'the pool stops, and slots {sorted(self._restart.waiting)} were not restarted')


class Stopping:
    """Tells who is still there, until nobody is."""

    def __init__(self, pool: Pool, status: Status, deadline: float, reply: Reply) -> None:
        self._pool = pool
        self._status = status
        self._deadline = deadline
        self._seen: int | None = None
        self._told: object = None
        self._quiet_until = -inf
        self.look_again_at = inf
        self.reply = reply

    def look(self) -> bool:
        now, self.look_again_at = time.monotonic(), inf
        if self._pool.stopping and self._pool.version != self._seen:
            if now < self._quiet_until:
                self.look_again_at = self._quiet_until
            else:
                self._seen, self._quiet_until = self._pool.version, now + PAUSE
                self._tell(now)
        return False

    def _tell(self, now: float) -> None:
        slots = self._pool.snapshot(now).slots
        busy = [
            {
                'slot': slot.number,
                'pid': seat.pid,
                'state': str(seat.state),
                'task_age_seconds': self._status.task_age(seat.life),
            }
            for slot in slots
            for seat in (slot.incumbent, slot.successor)
            if seat is not None and seat.pid is not None
        ]
        who = [(each['slot'], each['pid'], each['state']) for each in busy]
        if who != self._told:
            self._told = who
            left = max(0.0, self._deadline - now)
            left_seconds = round(left, 3) if left < float('inf') else None
            self.reply.event({'event': 'stop-progress', 'busy': busy, 'left_seconds': left_seconds})

    def give_up(self, exit_status: int | None) -> None:
        self.reply.done({'status': exit_status})


class Following:
    """Tells every event, until the pool leaves."""

    def __init__(self, recent: Recent, reply: Reply) -> None:
        self._recent = recent
        self.look_again_at = inf
        self.reply = reply
        recent.listen(self._tell)

    def _tell(self, event: Event) -> None:
        if self.reply.is_gone:
            self._recent.leave(self._tell)
        else:
            self.reply.event(event)

    def look(self) -> bool:
        return False

    def give_up(self, exit_status: int | None) -> None:
        self._recent.leave(self._tell)
        self.reply.done({'events': []})


def texts(policy: Policy) -> dict[str, str]:
    """Return every knob's value as it is written."""
    return {name: knob.kind.show(getattr(policy, name)) for name, knob in KNOBS.items()}


def whole(arguments: Arguments, name: str) -> int | None:
    """Return a whole number, None without one. Raises `Bad`."""
    value = arguments.get(name)
    if value is not None and type(value) is not int:
        raise Bad(f'expected "{name}" as a whole number, not {value!r:.100}')
    return value


def flag(arguments: Arguments, name: str, *, default: bool) -> bool:
    """Return a truth value. Raises `Bad`."""
    value = arguments.get(name, default)
    if not isinstance(value, bool):
        raise Bad(f'expected "{name}" as true or false, not {value!r:.100}')
    return value


def signal_number(value: object) -> int:
    """Return the number of a signal, given as a number or as a name with or without SIG. Raises `Bad`."""
    try:
        if isinstance(value, str) and not value.isdecimal():
            name = value.upper().removeprefix('SIG')
            return signal.Signals[f'SIG{name}'].value
        if isinstance(value, str | int):
            return signal.Signals(int(value)).value
    except (KeyError, ValueError):
        pass
    raise Bad(f'there is no signal {value!r:.100}')
