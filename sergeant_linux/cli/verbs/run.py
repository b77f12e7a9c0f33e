"""`sergeant-linux run`, and `python3 -m sergeant_linux.supervisor`: keep a pool of workers running."""

import argparse
import os
from collections.abc import Mapping, Sequence
from typing import Final

from sergeant_linux.cli.verbs.knobs import DEFAULTS, add_knobs, read_policy, usage
from sergeant_linux.cli.verbs.parser import Parser
from sergeant_linux.core.policy import VARIABLE_PREFIX, Policy

HELP: Final = f"""\
SPAN is seconds, or a time span as systemd writes it: 90, 1min 30s, 500ms, infinity.
SIZE is bytes, or a number with K, M, G or T (base 1024): 64M, 1.5G.
What is off by default can be turned off: --max-worker-memory-usage=off.
What a worker inherits is what the supervisor itself has: --umask=inherit.
Each option can be an environment variable instead: {VARIABLE_PREFIX}TIMEOUT_STOP for --timeout-stop.
The option wins. In a variable a switch is 1 or 0 and a list has commas; an empty variable is none.

signals:
  SIGTERM, SIGINT   stop: workers finish the task in hand; a second one kills them
  SIGQUIT           kill the workers now
  SIGUSR1           log one line for each slot
  SIGTTIN, SIGTTOU  one worker more, one worker less

exit status:
   0  stopped as asked
   1  the workers can't be loaded
   2  wrong usage or a bad value
   3  the restart budget is spent
   4  the host can't do what was asked for
  70  an error of our own

example:
  %(prog)s --concurrent-workers=4 \\
    --worker-module=crawl_worker --worker-class=Worker --max-worker-memory-usage=512M
"""


def add_arguments(parser: Parser) -> None:
    parser.description = 'Keep a pool of Python workers running on this host.'
    parser.usage = usage(parser.prog)
    add_knobs(parser)


def parse_run(argv: Sequence[str], environ: Mapping[str, str], prog: str) -> Policy:
    """Return the policy that the arguments (without the program's name) and the environment ask for.

    Wrong usage or a bad value: one line on stderr, SystemExit(2). `--help`: SystemExit(0).
    """
    parser = Parser(prog=prog, epilog=HELP)
    add_arguments(parser)
    return read_policy(parser, vars(parser.parse_args(argv)), environ, DEFAULTS)


def run(args: argparse.Namespace) -> int:
    asked = read_policy(args.parser, vars(args), os.environ, DEFAULTS)

    from sergeant_linux.engine import run as runs  # not needed by --help, nor where the usage is wrong

    runs.run(asked)
