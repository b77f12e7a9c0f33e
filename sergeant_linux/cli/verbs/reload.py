"""`sergeant-linux reload`: today's code in every worker, tried on one first."""

import argparse
from typing import Final

from sergeant_linux.cli.verbs.parser import Parser
from sergeant_linux.cli.verbs.pool import add_pool, ask, connect, follow, help_text, say_done
from sergeant_linux.cli.verbs.progress import Progress

HELP: Final = help_text(
    '', '--no-wait',
    more='One worker with the new code has to become ready before any of the others is\n'
    'replaced. If it does not, the pool stays as it is. No task is interrupted.',
    _1='the new code does not work; the pool goes on with the old',
)


def add_arguments(parser: Parser) -> None:
    add_pool(parser)
    parser.add_argument('--no-wait', action='store_true', help='only begin it; `status` tells how it goes')


def run(args: argparse.Namespace) -> int:
    with connect(args) as client:
        if args.no_wait:
            done = ask(client, 'reload', wait=False)
        else:
            done = follow(client, 'reload', Progress(quiet=args.json), wait=True)
    how_far = 'is on its way' if args.no_wait else 'runs, {changed} workers replaced'
    return say_done(args, done, lambda: f'generation {done["generation"]} {how_far.format_map(done)}')
