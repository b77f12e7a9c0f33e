"""`sergeant-linux health`: a probe."""

import argparse
import sys
from typing import Final

from sergeant_linux.cli.terminal import clean
from sergeant_linux.cli.verbs.parser import Parser
from sergeant_linux.cli.verbs.pool import DONE, FAILED, add_pool, ask, connect, help_text, say, say_object

HELP: Final = help_text(
    '--live', '--ready --name crawl',
    more='One word on stdout, and where it is not so the reason on stderr. --ready, the\n'
    'default, is for a readiness probe and a health check, --live for a liveness\n'
    'probe.',
    _0='it is so', _1='it is not so',
)


def add_arguments(parser: Parser) -> None:
    add_pool(parser)
    which = parser.add_mutually_exclusive_group()
    which.add_argument('--ready', action='store_true', help='is a worker ready, and nobody stopping it? (the default)')
    which.add_argument('--live', action='store_true', help='does the pool answer?')


def run(args: argparse.Namespace) -> int:
    with connect(args) as client:
        health = ask(client, 'health')
    word = 'live' if args.live else 'ready'
    is_so = bool(health[word])
    if args.json:
        say_object(health)
    else:
        say(word if is_so else f'not-{word}')
        if not is_so and health.get('reason') and sys.stderr is not None:
            print(clean(health['reason']), file=sys.stderr)
    return DONE if is_so else FAILED
