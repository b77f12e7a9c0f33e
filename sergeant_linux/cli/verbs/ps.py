"""`sergeant-linux ps`: the pools of this host.

Facts: a socket says nothing of its pool until it is asked, and whom a pool answers is its own decision.
Decision: each pool is asked for its status; the one that does not answer us is listed too, with the reason: an operator
who misses a pool looks for it in the wrong place.
Price: a pool that hangs costs the patience of a second.
"""

import argparse
import os
import sys
from typing import Any, Final

from sergeant_linux.cli import figures
from sergeant_linux.cli.table import Cell, Column, lay_out
from sergeant_linux.cli.terminal import DIM, GREEN, RED, YELLOW, clean, stdout
from sergeant_linux.cli.verbs.parser import Parser
from sergeant_linux.cli.verbs.pool import DONE, say_object
from sergeant_linux.control import names
from sergeant_linux.control.client import Client, PoolError

HELP: Final = """\
A pool that does not answer is listed with the reason. READY is so many of so
many that are wanted, MEM what all workers take.

exit status:
    0  done, also where there is none
    2  wrong usage

examples:
  %(prog)s
  %(prog)s --json | jq -r '.[].name'
"""

PATIENCE: Final = 1.0
"""Seconds a pool is given to answer."""

_COLUMNS: Final = (
    Column('NAME'),
    Column('PID', 1, right=True),
    Column('STATE'),
    Column('READY', 1, right=True),
    Column('MEM', 3, right=True),
    Column('UP', 2, right=True),
    Column('WORKER', 4, least=10),
    Column('SOCKET', 5, least=16),
)
_COLOURS: Final = {'running': GREEN, 'stopping': RED}


def add_arguments(parser: Parser) -> None:
    parser.add_argument('--json', action='store_true', help='answer with a JSON array, an object for each pool')


def run(args: argparse.Namespace) -> int:
    found = pools()
    if args.json:
        say_object(found)
        return DONE
    if not found:
        if sys.stderr is not None:
            print('no pool on this host answers', file=sys.stderr)
        return DONE
    for line in lay_out(_COLUMNS, [_row(pool) for pool in found], stdout()):
        print(line)
    return DONE


def pools() -> list[dict[str, Any]]:
    """Return what is known of each pool of this host, by name; `error` is why it isn't more."""
    return [pool for found in names.pools(os.environ) if (pool := _pool(found)) is not None]


def _pool(found: names.Found) -> dict[str, Any] | None:
    known: dict[str, Any] = dict.fromkeys(
        ('name', 'pid', 'state', 'ready', 'wanted', 'memory_bytes', 'uptime_seconds', 'module', 'class')
    )
    known |= {'name': found.name, 'socket': found.path, 'error': None}
    try:
        with Client(found.path, timeout=PATIENCE) as client:
            status = client.call('status')
    except PermissionError:
        return known | {'error': 'permission denied'}
    except TimeoutError:
        return known | {'error': 'does not answer'}
    except (ConnectionRefusedError, FileNotFoundError):
        return None  # the socket of a pool that was killed; one that has just ended
    except OSError as error:
        return known | {'error': error.strerror or str(error)}
    except PoolError as error:
        return known | {'error': str(error)}
    lives = [life for slot in status.get('slots') or () for life in (slot, slot.get('successor')) if life]
    sizes = [life['memory_bytes'] for life in lives if life.get('memory_bytes') is not None]
    told = {key: status[key] for key in known if key in status}
    return known | told | {'memory_bytes': sum(sizes) if sizes else None}


def _row(pool: dict[str, Any]) -> list[Cell]:
    name, socket = Cell(clean(pool['name'])), Cell(clean(pool['socket']), DIM)
    if pool['error'] is not None:
        return [name, Cell(''), Cell(clean(pool['error']), RED), *[Cell('')] * 4, socket]
    state = clean(pool['state'])
    return [
        name,
        Cell(str(pool['pid'])),
        Cell(state, _COLOURS.get(state, YELLOW)),
        Cell(f'{pool["ready"]}/{pool["wanted"]}', '' if pool['ready'] == pool['wanted'] else YELLOW),
        Cell(figures.size(pool['memory_bytes'])),
        Cell(figures.span(pool['uptime_seconds'])),
        Cell(f'{clean(pool["module"])}.{clean(pool["class"])}'),
        socket,
    ]
