"""`sergeant-linux dump`: where the Python code of a worker is now, each of its threads."""

import argparse
from typing import Final

from sergeant_linux.cli.terminal import clean
from sergeant_linux.cli.verbs.parser import Parser
from sergeant_linux.cli.verbs.pool import DONE, add_pool, add_slot, ask, connect, help_text, say, say_object

HELP: Final = help_text(
    '3',
    more='The worker goes on undisturbed. One that is inside of C code answers, too.',
    _1='the worker could not say it',
)


def add_arguments(parser: Parser) -> None:
    add_pool(parser)
    add_slot(parser)


def run(args: argparse.Namespace) -> int:
    with connect(args) as client:
        done = ask(client, 'dump', slot=args.slot)
    if args.json:
        say_object(done)
        return DONE
    say(f'slot {done["slot"]}, pid {done["pid"]}')
    for line in str(done['stacks']).splitlines():
        text = line.lstrip()
        say(f'{line[: len(line) - len(text)].expandtabs()}{clean(text)}')
    return DONE
