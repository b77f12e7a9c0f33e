"""`sergeant-linux set`: another value for an option of a running pool."""

import argparse
from typing import Final

from sergeant_linux.cli.terminal import clean
from sergeant_linux.cli.verbs.options import complete, knob, option
from sergeant_linux.cli.verbs.parser import Parser
from sergeant_linux.cli.verbs.pool import add_pool, ask, connect, help_text, say_done

HELP: Final = help_text(
    'timeout-stop 30s', 'max-worker-memory-usage 512M',
    more='The value is written as the option of `run` takes it. The pool keeps it until it\n'
    'stops; the line that it was started with is not changed. An option that can not\n'
    'be changed in a running pool is refused.',
    _1='',
)


def add_arguments(parser: Parser) -> None:
    add_pool(parser)
    key = parser.add_argument('key', metavar='KEY', type=knob, help='an option of `run`, without its dashes')
    key.completer = complete  # type: ignore[attr-defined]  # argcomplete's protocol
    parser.add_argument('value', metavar='VALUE', help='its new value')


def run(args: argparse.Namespace) -> int:
    with connect(args) as client:
        done = ask(client, 'set', key=args.key, value=args.value)
    return say_done(
        args, done, lambda: f'{option(clean(done["key"]))}: {clean(done["before"])} -> {clean(done["after"])}'
    )
