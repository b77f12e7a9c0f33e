"""`sergeant-linux ps`: the pools of this host.

Facts: a socket says nothing of its pool until it is asked, and whom a pool answers is its own decision.
Decision: each pool is asked for its status; the one that does not answer us is listed too, with the reason: an operator
who misses a pool looks for it in the wrong place. One of another user is not asked, unless it is where a unit of its
name has its folder (names.py): it may be anything.
Price: a pool that hangs costs the patience of a second.
"""

import argparse
import os
import sys
from collections.abc import Mapping
from typing import Any, Final

from sergeant_linux.cli import figures
from sergeant_linux.cli.table import Cell, Column, lay_out
from sergeant_linux.cli.terminal import DIM, GREEN, RED, YELLOW, clean, stdout
from sergeant_linux.cli.verbs.parser import Parser
from sergeant_linux.cli.verbs.pool import DONE, say_object
from sergeant_linux.control import names
from sergeant_linux.control.client import Client, NoAnswer, OfOthers, PoolError

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

_TOLD: Final = ('name', 'pid', 'state', 'ready', 'wanted', 'uptime_seconds', 'module', 'class')
"""What a pool tells of itself."""

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
    for line in lay_out(_COLUMNS, [row(pool) for pool in found], stdout()):
        print(line)
    return DONE


def pools() -> list[dict[str, Any]]:
    """Return what is known of each pool of this host, by name; `error` is why it isn't more."""
    return [pool for found in names.pools(os.environ) if (pool := _pool(found)) is not None]


def _pool(found: names.Found) -> dict[str, Any] | None:
    known: dict[str, Any] = dict.fromkeys((*_TOLD, 'memory_bytes'))
    known |= {'name': found.name, 'socket': found.path, 'error': None}
    try:
        with Client.connect_found(found, timeout=PATIENCE) as client:
            status = client.call('status')
    except OfOthers as error:
        return known | {'error': f'of uid {error.uid}'}
    except PermissionError:
        return known | {'error': 'permission denied'}
    except TimeoutError:
        return known | {'error': 'does not answer'}
    except (ConnectionRefusedError, FileNotFoundError):
        return None  # the socket of a pool that was killed; one that has just ended
    except NoAnswer:
        return known | {'error': 'what came is no answer'}
    except OSError as error:
        return known | {'error': error.strerror or str(error)}
    except PoolError as error:
        return known | {'error': str(error)}
    return known | summary(status)


def summary(status: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the list shows of a pool's status."""
    lives = [life for slot in status['slots'] for life in (slot, slot.get('successor')) if life]
    sizes = [life['memory_bytes'] for life in lives if life.get('memory_bytes') is not None]
    return {key: status.get(key) for key in _TOLD} | {'memory_bytes': sum(sizes) if sizes else None}


def row(pool: Mapping[str, Any]) -> list[Cell]:
    """Return the line of a pool."""
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
