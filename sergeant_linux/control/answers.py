"""What an answer is: the shape of each verb's result, as the README documents it.

Facts: whoever listens at a socket can answer anything, and a client computes with numbers and prints texts.
Consequence: what a verb uses is looked at once, where it arrives; a result of another shape is no answer. A key that is
missing may be one that an older pool doesn't tell, one that is not known here a newer pool's.

Invariant: what has passed can be shown: a number is finite and of at most 64 bits, a text is text.
"""

from collections.abc import Mapping
from typing import Final, TypeAlias

Shape: TypeAlias = 'type | Maybe | Each | list[Shape] | dict[str, Shape]'
"""A type; a list of what has the one shape in it; an object's keys. `object` is anything."""

_MOST: Final = 2**64
"""A number is below: an infinity is not (JSON's 1e999), and a whole number of Python's may have any size."""


class Maybe:
    """What may be missing or null, too."""

    def __init__(self, shape: Shape) -> None:
        self.shape: Final = shape


class Each:
    """An object whose keys are anybody's, and what is in each."""

    def __init__(self, shape: Shape) -> None:
        self.shape: Final = shape


def fits(value: object, shape: Shape) -> bool:
    """Return whether a value, as JSON has given it, has this shape."""
    if isinstance(shape, Maybe):
        return value is None or fits(value, shape.shape)
    if isinstance(shape, Each):
        return isinstance(value, dict) and all(fits(each, shape.shape) for each in value.values())
    if isinstance(shape, dict):
        return isinstance(value, dict) and all(fits(value.get(key), each) for key, each in shape.items())
    if isinstance(shape, list):
        return isinstance(value, list) and all(fits(each, shape[0]) for each in value)
    if isinstance(value, bool):  # which Python counts among the numbers
        return shape in (bool, object)
    if shape in (int, float):
        return isinstance(value, (int, shape)) and abs(value) < _MOST
    return isinstance(value, shape)


_TEXT, _WHOLE, _NUMBER = Maybe(str), Maybe(int), Maybe(float)

_LIFE: Final[dict[str, Shape]] = {
    **dict.fromkeys(('state', 'goal', 'last_error', 'last_result'), _TEXT),
    **dict.fromkeys(
        (
            'pid', 'life', 'generation', 'memory_bytes', 'memory_peak_bytes', 'tasks_done', 'tasks_failed', 'restarts',
        ),
        _WHOLE,
    ),
    **dict.fromkeys(
        ('uptime_seconds', 'cpu_seconds', 'tasks_per_second', 'task_age_seconds', 'restart_in_seconds'), _NUMBER
    ),
}  # fmt: skip

_EVENT: Final[dict[str, Shape]] = {
    'event': str,
    **dict.fromkeys(('time', 'level', 'message', 'state', 'reason'), _TEXT),
    **dict.fromkeys(('seq', 'generation', 'changed', 'of'), _WHOLE),
    'fields': Maybe(dict),
    'waiting': Maybe([int]),
    'busy': Maybe([{'slot': _WHOLE, 'pid': _WHOLE, 'state': _TEXT, 'task_age_seconds': _NUMBER}]),
    'left_seconds': _NUMBER,
}

_STATUS: Final[dict[str, Shape]] = {
    'name': str,
    'pid': int,
    **dict.fromkeys(('module', 'class', 'state', 'version', 'started'), _TEXT),
    **dict.fromkeys(('wanted', 'ready', 'generation', 'spawned', 'restarts'), _WHOLE),
    **dict.fromkeys(('uptime_seconds', 'watchdog_seconds'), _NUMBER),
    'counters': Maybe({
        **dict.fromkeys(('spawned', 'spawn_failures', 'restarts', 'tasks_done', 'tasks_failed'), _WHOLE),
        **dict.fromkeys(('ended', 'requested'), Maybe(Each(int))),
    }),
    'backend': Maybe(dict.fromkeys(('memory', 'containment', 'why_not'), _TEXT)),
    'memory': Maybe(dict.fromkeys(('limit_bytes', 'mark_bytes', 'pool_limit_bytes'), _WHOLE)),
    'reload': Maybe({
        **dict.fromkeys(('generation', 'changed', 'of'), _WHOLE), **dict.fromkeys(('state', 'reason'), _TEXT),
    }),
    'last_trouble': Maybe(_EVENT),
    'slots': [{'slot': int, **_LIFE, 'successor': Maybe(_LIFE)}],
}  # fmt: skip

_SLOT: Final[dict[str, Shape]] = {'slot': int, 'pid': _WHOLE}

RESULTS: Final[Mapping[str, Shape]] = {
    'ping': {'name': str, 'pid': int, 'version': _TEXT, 'module': _TEXT, 'class': _TEXT},
    'status': _STATUS,
    'health': {'live': bool, 'ready': bool, 'reason': _TEXT},
    'scale': {'before': int, 'after': int},
    'reload': {'generation': int, 'changed': int},
    'restart': {'slots': [int]},
    'stop': {'status': _WHOLE},
    'kill': {**_SLOT, 'signal': str},
    'dump': {**_SLOT, 'stacks': str},
    'events': {'events': [_EVENT]},
    'set': {'key': str, 'before': object, 'after': object},
    'get': {'policy': dict},
}
"""The shape of each verb's result. What a pool says to any other verb is the caller's to judge."""


def is_result(verb: str, result: object) -> bool:
    """Return whether this may be the result of the verb."""
    return fits(result, RESULTS.get(verb, dict))


def is_event(verb: str, event: object) -> bool:
    """Return whether this may be told before the result of the verb."""
    return fits(event, _EVENT if verb in RESULTS else dict)
