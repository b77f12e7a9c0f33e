"""`sergeant-linux scale`: how many workers a pool keeps running."""

import argparse
import re
from typing import Final

from sergeant_linux.cli.verbs.parser import Parser
from sergeant_linux.cli.verbs.pool import add_pool, ask, connect, help_text, say_done

HELP: Final = help_text(
    '8', '+2', '-1', more='The pool keeps it until it stops; what it was started with is not changed.', _1=''
)


def add_arguments(parser: Parser) -> None:
    add_pool(parser)
    parser.add_argument(
        'count', metavar='N|+K|-K', type=_count, help='so many workers, or so many more or fewer than now'
    )


def _count(text: str) -> dict[str, int]:
    """Return the argument of the request."""
    if not re.fullmatch(r'[+-]?[0-9]{1,9}', text):
        raise argparse.ArgumentTypeError(f"expected a number of workers (8) or a change of it (+2, -1), not '{text}'")
    return {'by' if text[0] in '+-' else 'to': int(text)}


def run(args: argparse.Namespace) -> int:
    with connect(args) as client:
        done = ask(client, 'scale', **args.count)
    return say_done(args, done, lambda: f'{done["before"]} -> {done["after"]} workers')
