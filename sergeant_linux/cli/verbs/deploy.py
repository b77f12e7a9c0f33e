"""`sergeant-linux deploy`: print what runs a pool in containers."""

import argparse
import sys
from typing import Final

from sergeant_linux.cli.verbs.knobs import DEFAULTS, add_knobs, command_line, read_policy
from sergeant_linux.cli.verbs.parser import Parser

TARGETS: Final = ('dockerfile', 'compose', 'kubernetes')

HELP: Final = """\
Prints a Dockerfile, a compose file with Redis, or a Deployment of Kubernetes
and a ScaledObject of KEDA, filled in for the pool that `run` would run with the
same options: its command line, a grace longer than --timeout-stop, memory for all
workers and a reserve, probes. It is a start, to be kept beside the workers' code
and changed. The environment does not count here, and nothing is written.

exit status:
   0  printed
   1  it can't be written to stdout
   2  wrong usage or a bad value

example:
  %(prog)s kubernetes --image=registry.example/hash:1.2 --replicas=3 \\
    --worker-module=hash_worker --worker-class=Worker --concurrent-workers=4 \\
    --max-worker-memory-usage=512M
"""


def add_arguments(parser: Parser) -> None:
    parser.usage = f'{parser.prog} [-h] [option ...] TARGET [option of run ...]'
    parser.add_argument('target', metavar='TARGET', choices=TARGETS, help=f'what to print: {", ".join(TARGETS)}')
    parser.add_argument('--image', metavar='NAME', help='the image (default: called as the pool or module)')
    parser.add_argument('--replicas', metavar='N', type=_replicas, default=1, help='how many pools (default: 1)')
    parser.add_argument('--queue', metavar='NAME', help='the queue, for KEDA (default: called as the module)')
    add_knobs(parser, explained=False)


def run(args: argparse.Namespace) -> int:
    parser: Parser = args.parser
    policy = read_policy(parser, vars(args), {}, DEFAULTS, looks_up=False)

    from sergeant_linux.core.policy import BadValue
    from sergeant_linux.recipes import deploy  # not needed by --help, nor where the usage is wrong

    try:
        deployment = deploy.Deployment(policy, command_line(vars(args), {}), args.image, args.replicas, args.queue)
    except BadValue as error:
        parser.error(f'--{error.knob.replace("_", "-")}: {error.text}')
    except deploy.BadDeployment as error:
        parser.error(str(error))
    if sys.stdout is not None:  # it is when the descriptor was closed
        sys.stdout.buffer.write(deploy.text(args.target, deployment).encode())
    return 0


def _replicas(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and 0 < len(text) < 7 and int(text) > 0):
        raise argparse.ArgumentTypeError(f'expected a whole number, 1 or more, not {text!r:.100}')
    return int(text)
