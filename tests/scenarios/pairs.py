"""What can be asked of a pool, in each phase of its life, and what must hold afterwards.

Facts: each verb works, and each phase does. Faults lie where two meet: a request and a reload that goes on, a new value
and a process that was started by the old one, a signal and a stop.
Decision: the pairs are generated, not thought of. Here are the two lists (`ACTS`, and `PHASES` of a worker that is slow
to start, slow to stop, or ends again and again by itself) and the promises; test_pairs.py plays them on this host,
tests/lab/test_pairs.py with a leaf for each life.

The promises: what is asked is answered, with a result or a refusal in words · the supervisor never meets an error of its
own · the pool is what is asked for again within a deadline, and its status says what is there · a stop ends it with 0,
and nothing is left.
"""

import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sergeant_linux.control.client import Client, PoolError
from sergeant_linux.control.requests import LIVE
from tests.scenarios.pool import Pool, wait_until

WORKER: Final = """
    import os, signal, time

    class Worker:
        calls_ready = True

        def run(self):
            import sergeant_linux

            signal.signal(signal.SIGTERM, self.stop)
            time.sleep(float(os.environ.get('SLOW_START', 0)))
            sergeant_linux.ready()
            time.sleep(0.02 if os.path.exists('churn') else 1000)

        def stop(self, *_):
            time.sleep(float(os.environ.get('SLOW_STOP', 0)))
            os._exit(0)
"""

SLOW: Final = 0.25
"""Seconds that a phase lasts which would else be over at once."""

ODD: Final = frozenset({'error', 'critical'})

EXPECTED: Final = frozenset({'worker-exit', 'worker-kill', 'reload-end', 'restart-end', 'worker-stacks'})
"""Records of this level that an act may well bring about."""

REFUSALS: Final = frozenset({'refused', 'failed', 'bad-request'})
"""Codes of answers that say no: not now, not done, no such slot."""

VALUES: Final[Mapping[str, str]] = {
    'max_worker_memory_usage': '1G',
    'worker_memory_high': '900M',
    'memory_poll_interval': '200ms',
    'timeout_start': '20s',
    'timeout_stop': '9s',
    'timeout_drain': '30s',
    'restart_delay': '20ms',
    'restart_max_delay': '1s',
    'restart_reset': '2s',
    'max_worker_lifetime': '1h',
    'max_worker_lifetime_jitter': '1min',
    'worker_watchdog': '10min',
    'max_surge': '2',
    'max_unavailable': '2',
}
"""A value for each knob that can be changed while a pool runs, other than its default."""


@dataclass(frozen=True, slots=True)
class Act:
    """Something that is done to a pool; `wanted`: by how much it changes the number of workers."""

    name: str
    do: Callable[[Pool, Client], object]
    wanted: int = 0


def _call(verb: str, **arguments: Any) -> Callable[[Pool, Client], object]:
    return lambda _, client: client.call(verb, **arguments)


def _signal(signum: int) -> Callable[[Pool, Client], object]:
    """Send a signal, and wait until it was dealt with: two of one number that wait at once are one (signal(7))."""

    def do(running: Pool, client: Client) -> None:
        running.send(signum)
        for _ in range(2):  # the first may be answered in the same turn of the loop, before the signal is seen
            client.call('ping')

    return do


def _set(name: str, value: str) -> Callable[[Pool, Client], object]:
    """Set a knob, and set it back."""

    def do(_: Pool, client: Client) -> None:
        before = client.call('get')['policy'][name]
        client.call('set', key=name, value=value)
        assert client.call('get')['policy'][name] != before, name
        client.call('set', key=name, value=before)

    return do


ACTS: Final = (
    Act('ping', _call('ping')),
    Act('status', _call('status')),
    Act('health', _call('health')),
    Act('get', _call('get')),
    Act('events', _call('events', last=1000)),
    Act('scale up', _call('scale', by=1), wanted=1),
    Act('scale down', _call('scale', by=-1), wanted=-1),
    Act('reload', _call('reload', wait=False)),
    Act('restart', _call('restart', wait=False)),
    Act('restart one', _call('restart', slots=[0], wait=False)),
    Act('kill', _call('kill', slot=0)),
    Act('term', _call('kill', slot=0, signal='TERM')),
    Act('dump', _call('dump', slot=0)),
    *(Act(f'set {name}', _set(name, VALUES[name])) for name in LIVE),
    Act('SIGHUP', _signal(signal.SIGHUP)),
    Act('SIGUSR1', _signal(signal.SIGUSR1)),
    Act('SIGUSR2', _signal(signal.SIGUSR2)),
    Act('SIGTTIN', _signal(signal.SIGTTIN), wanted=1),
    Act('SIGTTOU', _signal(signal.SIGTTOU), wanted=-1),
    Act('SIGPIPE', _signal(signal.SIGPIPE)),
    Act('SIGCHLD', _signal(signal.SIGCHLD)),
)

BY_NAME: Final = {act.name: act for act in ACTS}


def do(act: Act, running: Pool) -> bool:
    """Do it; return whether it was done, and not refused. Any other answer than these two raises."""
    with running.client(timeout=60) as client:
        try:
            act.do(running, client)
        except PoolError as error:
            if error.code not in REFUSALS or not error.message.strip():
                raise
            return False
    return True


def settle(running: Pool, wanted: int, within: float) -> None:
    """Wait until the pool has `wanted` workers, all ready, no reload goes on, and its status is what is there."""

    def is_settled() -> bool:
        picture = running.ask('status')
        slots = picture['slots']
        told = sorted(each['pid'] or 0 for each in slots)
        reload = picture['reload']
        return (
            picture['wanted'] == picture['ready'] == len(slots) == wanted
            and all(each['state'] == 'running' and each['successor'] is None for each in slots)
            and (reload is None or reload['state'] not in ('loading', 'canary', 'rolling'))
            and told == sorted(running.workers().values())
            and set(told) <= set(running.processes('sergeant-linux: worker'))
        )

    wait_until(is_settled, f'a pool of {wanted} again: {running.lines[-15:]}', within)


def check(running: Pool) -> None:
    """Raise AssertionError when the log tells of an error that is ours."""
    assert running.process.poll() is None, f'the pool is gone: {running.lines[-15:]}'
    trouble = [
        record for record in running.records if record.get('level') in ODD and record.get('event') not in EXPECTED
    ]
    assert not trouble, f'{trouble}'
    assert not any('Traceback' in line for line in running.lines)


@contextmanager
def ending_well(running: Pool, within: float) -> Iterator[None]:
    """At the end a stop has the exit status 0, and nothing is left."""
    yield
    check(running)
    with suppress(ProcessLookupError):
        running.send(signal.SIGTERM)
    assert running.exit_status(within) == 0, running.lines[-15:]
    running.wait_until_gone(within)


def churns(folder: Path, *, on: bool) -> None:
    """Have workers that start from now on end again and again by themselves, or stay."""
    (folder / 'churn').touch() if on else (folder / 'churn').unlink()
