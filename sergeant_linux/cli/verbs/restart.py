"""`sergeant-linux restart`: fresh processes for all slots, or some."""

import argparse
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from sergeant_linux.cli.verbs.parser import Parser
from sergeant_linux.cli.verbs.pool import (
    FAILED,
    Trouble,
    add_pool,
    add_slot,
    ask,
    connect,
    follow,
    help_text,
    say_done,
    seconds,
)
from sergeant_linux.cli.verbs.progress import Progress

HELP: Final = help_text(
    '', '0 2 --timeout 5min',
    more='One worker is replaced at a time, its successor is ready before it goes, and no\n'
    'task is interrupted.',
    _1='a worker could not be replaced, or not within --timeout; the pool goes on',
)


def add_arguments(parser: Parser) -> None:
    add_pool(parser)
    add_slot(parser, many=True)
    parser.add_argument('--no-wait', action='store_true', help='only begin it; `status` tells how it goes')
    parser.add_argument('--timeout', metavar='SPAN', type=seconds, help='wait no longer (default: as long as it takes)')


def run(args: argparse.Namespace) -> int:
    slots = args.slots or None
    with connect(args) as client:
        if args.no_wait:
            done = ask(client, 'restart', slots=slots, wait=False)
        else:
            with _at_most(args.timeout):
                done = follow(client, 'restart', Progress(quiet=args.json), slots=slots, wait=True)
    what = 'on their way' if args.no_wait else 'restarted'
    return say_done(args, done, lambda: f'slots {what}: {", ".join(map(str, done["slots"])) or "none"}')


@contextmanager
def _at_most(span: float | None) -> Iterator[None]:
    """Raise Trouble when it takes longer. By SIGALRM: what is waited for is a pool that may say nothing for hours."""

    def over(*_: object) -> None:
        raise Trouble(FAILED, 'not done in time; the pool goes on with it')

    if span is None or span == float('inf'):
        yield
        return
    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, span)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
