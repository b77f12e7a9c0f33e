"""`sergeant-linux get`: the options that a pool runs with."""

import argparse
from typing import Final

from sergeant_linux.cli.table import Cell, Column, lay_out
from sergeant_linux.cli.terminal import clean, stdout
from sergeant_linux.cli.verbs.options import complete, knob, option
from sergeant_linux.cli.verbs.parser import USAGE_ERROR, Parser
from sergeant_linux.cli.verbs.pool import DONE, Trouble, add_pool, ask, connect, help_text, say, say_object

HELP: Final = help_text(
    '', 'timeout-stop', more='Values are written as the options of `run` take them.', _1=''
)


def add_arguments(parser: Parser) -> None:
    add_pool(parser)
    key = parser.add_argument(
        'key', metavar='KEY', type=knob, nargs='?', help='an option of `run`, without its dashes (default: all)'
    )
    key.completer = complete  # type: ignore[attr-defined]  # argcomplete's protocol


def run(args: argparse.Namespace) -> int:
    with connect(args) as client:
        policy = ask(client, 'get')['policy']
    if args.key is not None:
        if args.key not in policy:
            raise Trouble(USAGE_ERROR, f'the pool has no option {option(args.key)}')
        policy = {args.key: policy[args.key]}
    if args.json:
        say_object(policy)
    elif args.key is not None:
        say(clean(policy[args.key]))
    else:
        rows = [[Cell(option(name)), Cell(clean(value))] for name, value in policy.items()]
        columns = [Column('OPTION'), Column('VALUE', least=8)]
        for line in lay_out(columns, rows, stdout()):
            say(line)
    return DONE
