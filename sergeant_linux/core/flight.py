"""The core's whole input as lines of JSON, from which its decisions can be made again.

    {"flight": 1, "now": 7.25, "policy": {…}, "state": {…}, "chance": […]}       where it begins
    {"now": 7.31, "event": {"event": "Exited", "life": 3, …}, "commands": [{"command": "EndStragglers", "life": 3}, …]}

Facts: a fault that shows once in a month is not found by reading the log of what was done. The core reads no clock and
asks nobody: its state, its policy and what came in say all.
Consequence: a file of such lines is a flight recorder. It may begin anywhere, with a first line that says where.

Invariant: `replay` of what was recorded comes to the same decisions, to the letter.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from random import Random
from typing import Any, Final, NamedTuple

from sergeant_linux.core.commands import Command
from sergeant_linux.core.events import Event, from_written, written
from sergeant_linux.core.plain import Plain, plain, read
from sergeant_linux.core.policy import Policy
from sergeant_linux.core.pool import Pool

FORM: Final = 1
"""The form of what is written: raised when it can't be read as before."""

BEGINS: Final = '{"flight":'
"""How a line begins from which a replay may begin."""

Chance = tuple[int, tuple[int, ...], float | None]


class Step(NamedTuple):
    """One event of a replay: what was decided then, and what is decided now, as it is written."""

    now: float
    event: Event
    then: Plain
    again: Plain


def beginning(pool: Pool, chance: Random, now: float) -> str:
    """Return the line from which on a pool can be replayed."""
    there = {'policy': plain(pool.policy), 'state': pool.state(), 'chance': plain(chance.getstate())}
    return _line({'flight': FORM, 'now': now, **there})


def line(event: Event, now: float, commands: Sequence[Command]) -> str:
    """Return the line of one event, and what was decided."""
    return _line({'now': now, 'event': written(event), 'commands': as_written(commands)})


def as_written(commands: Sequence[Command]) -> Plain:
    """Return what was decided as JSON can hold it."""
    return [{'command': type(command).__name__, **plain(command)} for command in commands]


def replay(lines: Iterable[str]) -> Iterator[Step]:
    """Decide again, from the first line on that says where it begins; a line that was cut off is passed over.

    Raises ValueError where it can't be read.
    """
    pool: Pool | None = None
    for text in lines:
        if not text.endswith('\n'):
            continue
        if text.startswith(BEGINS):
            pool = _begin(json.loads(text))
        elif pool is not None:
            recorded = json.loads(text)
            now, event = recorded['now'], from_written(recorded['event'])
            again = json.loads(json.dumps(as_written(pool.handle(event, now))))
            yield Step(now, event, recorded['commands'], again)


def _begin(recorded: dict[str, Any]) -> Pool:
    if recorded['flight'] != FORM:
        raise ValueError(f'expected a record of form {FORM}, not {recorded["flight"]!r:.100}')
    chance = Random()
    chance.setstate(read(Chance, recorded['chance']))  # type: ignore[arg-type]  # an alias is no type
    return Pool.restored(recorded['state'], read(Policy, recorded['policy']), chance)


def _line(value: Plain) -> str:
    return json.dumps(value, separators=(',', ':'), ensure_ascii=True) + '\n'
