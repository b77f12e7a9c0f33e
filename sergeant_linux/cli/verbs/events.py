"""`sergeant-linux events`: what has happened in a pool, and what happens."""

import argparse
from collections.abc import Mapping
from typing import Any, Final

from sergeant_linux.cli.terminal import DIM, RED, YELLOW, Look, clean, stdout
from sergeant_linux.cli.verbs.parser import Parser
from sergeant_linux.cli.verbs.pool import DONE, add_pool, ask, connect, follow, help_text, say, say_json

HELP: Final = help_text(
    '', '--follow -n 10', '--json | jq .fields.life',
    more='These are the last lines of the log of the pool, oldest first, as many as it\n'
    'keeps in memory. The log itself is where the stderr of the pool goes.',
    _1='',
)

_COLOURS: Final = {'debug': DIM, 'warning': YELLOW, 'error': RED, 'critical': RED}


def add_arguments(parser: Parser) -> None:
    add_pool(parser, json_help='answer with one JSON object a line')
    parser.add_argument('-f', '--follow', action='store_true', help='go on until the pool ends, or Ctrl-C')
    parser.add_argument(
        '-n', '--last', metavar='N', type=_number, default=100, help='how many past ones (default: 100)'
    )


def _number(text: str) -> int:
    if not (text.isascii() and text.isdecimal()):
        raise argparse.ArgumentTypeError(f"expected a whole number, 0 or more, not '{text}'")
    return int(text)


def run(args: argparse.Namespace) -> int:
    there = stdout()

    def tell(event: Mapping[str, Any]) -> None:
        if args.json:
            say_json(event)
        else:
            say(in_words(event, there))

    with connect(args) as client:
        if args.follow:
            follow(client, 'events', tell, can_end=True, follow=True, last=args.last)
        else:
            for event in ask(client, 'events', follow=False, last=args.last)['events']:
                tell(event)
    return DONE


def in_words(event: Mapping[str, Any], there: Look) -> str:
    """Return an event as one line."""
    level = clean(event.get('level'))
    said = f'{level:<8}  {clean(event.get("event"))}: {clean(event.get("message"))}'
    return f'{there.paint(clean(event.get("time")), DIM)}  {there.paint(said, _COLOURS.get(level, ""))}'
