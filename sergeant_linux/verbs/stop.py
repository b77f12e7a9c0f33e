"""`sergeant-linux stop`: the end of a pool, and whom it waits for."""

import argparse
import sys
from collections.abc import Mapping
from typing import Any, Final

from sergeant_linux import figures
from sergeant_linux.terminal import Live, clean
from sergeant_linux.verbs.parser import Parser
from sergeant_linux.verbs.pool import DONE, add_pool, ask, connect, follow, help_text, say, say_object

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


def run(args: argparse.Namespace) -> int:
    with connect(args) as client:
        if args.no_wait:
            done = ask(client, 'stop', now=args.now, wait=False)
        else:
            done = follow(client, 'stop', _Busy(quiet=args.json), now=args.now, wait=True)
    if args.json:
        say_object(done)
    elif args.no_wait:
        say('the pool is stopping')
    else:
        say(f'the pool has stopped, exit status {done.get("status")}')
    return DONE


class _Busy:
    """Shows who is still busy: on a terminal how long each has been, elsewhere a line when it is somebody else."""

    def __init__(self, *, quiet: bool) -> None:
        self._live: Final = None if quiet else Live(sys.stdout)
        self._slots: list[object] | None = None

    def __call__(self, event: Mapping[str, Any]) -> None:
        if self._live is None:
            return
        busy = list(event.get('busy') or ())
        slots = [(slot.get('slot'), slot.get('state')) for slot in busy]
        left = event.get('left_seconds')
        rest = '' if left is None or left == float('inf') else f', {figures.span(left)} left'
        head = f'{len(busy)} busy{rest}'
        if self._live.look.is_terminal:
            room = max(self._live.look.height - 3, 1)
            lines = [head, *(f'  {_in_words(slot)}' for slot in busy[:room])]
            self._live.show([*lines, f'  and {len(busy) - room} more'] if len(busy) > room else lines)
        elif slots != self._slots:
            self._live.show([': '.join(filter(None, (head, ', '.join(map(_in_words, busy)))))])
        self._slots = list(slots)


def _in_words(slot: Mapping[str, Any]) -> str:
    age = slot.get('task_age_seconds')
    since = '' if age is None else f' for {figures.span(age)}'
    return f'slot {slot.get("slot")} (pid {slot.get("pid")}, {clean(slot.get("state"))}){since}'
