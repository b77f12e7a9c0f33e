"""`sergeant-linux doctor`: can a pool run here as asked, and what would mend it?"""

import argparse
import os
from typing import Final

from sergeant_linux.cli.verbs.knobs import DEFAULTS, add_knobs, read_policy
from sergeant_linux.cli.verbs.parser import Parser

HELP: Final = """\
Each line is a check: ok, info (a fact), warn (a run does without it, or may suffer from it) or fail (a run would not do
as asked), what was found, and the line that would mend it. Children and a cgroup are made to try things, and are gone
at the end. The worker's own code is not looked at.

exit status:
   0  a run would do as asked
   2  wrong usage or a bad value
   4  it would not

examples:
  %(prog)s
  %(prog)s --memory-backend=cgroup --concurrent-workers=64 --max-worker-memory-usage=512M
  systemd-run --pipe --wait -p Delegate=yes -p User=nobody %(prog)s
"""

_ANY_WORKER: Final = {'concurrent_workers': 1, 'worker_class_name': 'Worker', 'worker_module_name': 'worker'}
"""What the doctor takes for what a run is required to be told: what is left out is one worker that isn't looked at."""


def add_arguments(parser: Parser) -> None:
    parser.description = (
        'Tell whether a pool can run as asked here, and what would mend it. Start it where the pool is to be started, '
        'in the unit or in the container, with the same options.'
    )
    parser.usage = f'{parser.prog} [-h] [--json] [option of run ...]'
    parser.add_argument('--json', action='store_true', help='answer with one JSON object')
    add_knobs(parser, explained=False)


def run(args: argparse.Namespace) -> int:
    asked = read_policy(args.parser, vars(args), os.environ, _ANY_WORKER | DEFAULTS)

    from sergeant_linux.cli import doctor  # not needed by --help, nor where the usage is wrong

    doctor.run(asked, as_json=args.json)
