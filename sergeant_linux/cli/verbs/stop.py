"""`sergeant-linux stop`: the end of a pool, and whom it waits for.

Facts: a pool says who is busy when that changes, and a task may take hours. It answers before it leaves, and its name
is its own until then.
Decision: on a terminal the seconds go on by themselves, by SIGALRM, since what waits for the pool hears nothing. After
the answer the name is waited for: what follows `stop` may be a `run`.
Price: a pool that is killed while it stops never gives its name back, which costs `NAME_PATIENCE`.
"""

import argparse
import os
import signal
import sys
import time
from collections.abc import Mapping
from typing import Any, Final

from sergeant_linux.cli import figures
from sergeant_linux.cli.terminal import Live, clean
from sergeant_linux.cli.verbs.parser import Parser
from sergeant_linux.cli.verbs.pool import add_pool, ask, connect, follow, help_text, say_done
from sergeant_linux.control import names

HELP: Final = help_text(
    '', '--now',
    more='Workers finish the task in hand, for as long as the --timeout-stop of the pool\n'
    'lets them. Where something (systemd, a container) starts the pool again when it\n'
    'ends, stop it there.',
    _1='',
)


def add_arguments(parser: Parser) -> None:
    add_pool(parser)
    parser.add_argument('--now', action='store_true', help='kill the workers: the tasks in hand are lost')
    parser.add_argument('--no-wait', action='store_true', help='only begin it')


NAME_PATIENCE: Final = 2.0
"""Seconds that a pool is given to leave after it has said that it does."""

TICK: Final = 1.0
"""Seconds between two looks at the clock."""


def run(args: argparse.Namespace) -> int:
    with connect(args) as client:
        if args.no_wait:
            done = ask(client, 'stop', now=args.now, wait=False)
        else:
            lock = _identity(names.lock_path(client.path))
            with _Busy(quiet=args.json) as busy:
                done = follow(client, 'stop', busy, now=args.now, wait=True)
            _wait_for_name(names.lock_path(client.path), lock)
    what = 'is stopping' if args.no_wait else f'has stopped, exit status {done.get("status")}'
    return say_done(args, done, lambda: f'the pool {what}')


def _identity(path: str) -> tuple[int, int] | None:
    """Return which file is there."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _wait_for_name(path: str, lock: tuple[int, int] | None) -> None:
    """Wait until the pool has given its name back (names.py)."""
    deadline = time.monotonic() + NAME_PATIENCE
    while lock is not None and _identity(path) == lock and time.monotonic() < deadline:
        time.sleep(0.01)


class _Busy:
    """Shows who is still busy: on a terminal how long each has been, elsewhere a line when it is somebody else."""

    def __init__(self, *, quiet: bool) -> None:
        self._live: Final = None if quiet else Live(sys.stdout)
        self._event: Mapping[str, Any] = {}
        self._since = time.monotonic()
        self._draws = False
        self._ticks: Final = self._live is not None and self._live.look.is_terminal

    def __enter__(self) -> '_Busy':
        if self._ticks:
            self._before = signal.signal(signal.SIGALRM, self._tick)
            signal.setitimer(signal.ITIMER_REAL, TICK, TICK)
        return self

    def __exit__(self, *_: object) -> None:
        if self._ticks:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, self._before)

    def __call__(self, event: Mapping[str, Any]) -> None:
        """Something is new."""
        if self._live is None:
            return
        if not self._ticks:
            self._live.show([': '.join(filter(None, (_head(event, 0.0), ', '.join(_busy(event, 0.0)))))])
            return
        self._event, self._since = event, time.monotonic()
        self._draw(self._live)

    def _tick(self, *_: object) -> None:
        if self._live is not None and self._event and not self._draws:
            self._draw(self._live)

    def _draw(self, live: Live) -> None:
        self._draws = True  # a signal may come in the middle of it
        passed = time.monotonic() - self._since
        busy = _busy(self._event, passed)
        room = max(live.look.height - 3, 1)
        lines = [_head(self._event, passed), *(f'  {each}' for each in busy[:room])]
        live.show([*lines, f'  and {len(busy) - room} more'] if len(busy) > room else lines)
        self._draws = False


def _head(event: Mapping[str, Any], passed: float) -> str:
    left = event.get('left_seconds')
    rest = '' if left is None else f', {figures.span(max(left - passed, 0.0))} left'
    return f'{len(event.get("busy") or ())} busy{rest}'


def _busy(event: Mapping[str, Any], passed: float) -> list[str]:
    """Return each worker in words, `passed` seconds after the event."""
    words = []
    for slot in event.get('busy') or ():
        age = slot.get('task_age_seconds')
        since = '' if age is None else f' for {figures.span(age + passed)}'
        words.append(f'slot {slot.get("slot")} (pid {slot.get("pid")}, {clean(slot.get("state"))}){since}')
    return words
