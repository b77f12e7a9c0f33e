"""`sergeant-linux kill`: a signal for one worker."""

import argparse
import signal
from typing import Final

from sergeant_linux.cli.terminal import clean
from sergeant_linux.cli.verbs.parser import Parser
from sergeant_linux.cli.verbs.pool import add_pool, add_slot, ask, connect, help_text, say_done

HELP: Final = help_text(
    '3', '3 --signal USR1',
    more='The signal is SIGKILL unless you say so: the worker is gone at once, its task is\n'
    'lost, and it is replaced as after any failure. `restart SLOT` is the gentle way.\n'
    'A signal never reaches a stranger who has got the pid since.',
)


def add_arguments(parser: Parser) -> None:
    add_pool(parser)
    add_slot(parser)
    parser.add_argument(
        '--signal', metavar='NAME|N', type=_signal, default='KILL', help='which one, such as TERM or 15 (default: KILL)'
    )


def _signal(text: str) -> str | int:
    """Return a signal as the request takes it: a name without SIG, or a number."""
    if text.isascii() and text.isdecimal() and 1 <= int(text) < signal.NSIG:
        return int(text)
    name = text.upper().removeprefix('SIG')
    if f'SIG{name}' not in signal.Signals.__members__:
        raise argparse.ArgumentTypeError(f"expected the name or the number of a signal, not '{text}'")
    return name


def run(args: argparse.Namespace) -> int:
    with connect(args) as client:
        done = ask(client, 'kill', slot=args.slot, signal=args.signal)
    return say_done(args, done, lambda: f'slot {done["slot"]}: sent {clean(done["signal"])} to pid {done["pid"]}')
