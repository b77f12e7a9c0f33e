"""The final report: how a life ended, in one message of at most 64 KiB.

Facts: what a worker leaves behind is the user's: an exception with a text of 2 MB, a summary that holds itself, objects
whose repr() raises, text that isn't valid Unicode. The supervisor takes one JSON object of `gate.MAX_MESSAGE` bytes.
Consequence: the report must be made of plain data, and its size can only be known by encoding it.
Decision: everything becomes plain data, with a bound on the amount of text and on the number of values; when the
message is still too long, the bounds get tighter. The tightest fit whatever the worker holds.
Price: a report that was cut says so, but what was cut is gone.

Invariant: `send_final` never raises for what a worker holds, and never waits longer than `PATIENCE`.
"""

import datetime
import enum
import math
import socket
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from sergeant_linux.wire import gate as gates

PATIENCE: Final = 1.0
"""Seconds to wait for room on the gate."""

DEPTH: Final = 8
"""A value nested deeper than this is reported by its repr()."""


class ReturnCode(enum.IntEnum):
    """What a worker's exit status means; the ancestor's numbers (sergeant.slave.ReturnCode)."""

    FINISHED = 0
    FAILED = 1
    MODULE_NOT_FOUND = 2
    CLASS_NOT_FOUND = 3
    ASKED_TO_RESPAWN = 4
    ASKED_TO_STOP = 5
    LOOP_FAILED = 6
    MODULE_NOT_IMPORTABLE = 7


class Outcome(NamedTuple):
    """How a life ended, before anything is cut. `received_stop_signal`: the stop was asked for from outside."""

    return_code: int
    exception: object = None
    summary: object = None
    received_stop_signal: bool = False


SHORT: Final = 100
"""A text of so many characters is never cut."""


class Bounds(NamedTuple):
    """How many characters of text, and how many values one part of the report may have."""

    text: int
    values: int


BOUNDS: Final = (Bounds(12_000, 1_000), Bounds(1_000, 100), Bounds(SHORT, 20))
"""From generous to the tightest. One character takes at most 6 bytes of JSON, and the tightest report holds at most 62
short texts, each with a mark: exception, stacktrace, 20 values of the summary each with a key, 20 names of threads."""


def send_final(gate: socket.socket, outcome: Outcome, unkillable_threads: Sequence[str]) -> bool:
    """Send the final report; False when the supervisor is gone or there was no room within `PATIENCE` seconds."""
    exception = None if outcome.exception is None else text_of(outcome.exception)
    stacktrace = stacktrace_of(outcome.exception) if isinstance(outcome.exception, BaseException) else None
    for bounds in BOUNDS:
        message = {
            'type': 'final',
            'return_code': outcome.return_code,
            'exception': None if exception is None else gates.cut(exception, bounds.text),
            'stacktrace': None if stacktrace is None else cut_middle(stacktrace, bounds.text),
            'summary': Plain(bounds).of(outcome.summary),
            'unkillable_threads': Plain(bounds).of(list(unkillable_threads)) if unkillable_threads else None,
            'received_stop_signal': outcome.received_stop_signal,
        }
        try:
            return gates.send(gate, message, patience=PATIENCE)
        except ValueError:  # too long
            continue
    raise AssertionError('the tightest bounds fit into a message')


class Plain:
    """Makes plain data (what JSON knows) of any value, within `bounds`."""

    def __init__(self, bounds: Bounds) -> None:
        self._text_left = bounds.text
        self._values_left = bounds.values

    def of(self, value: object, depth: int = 0) -> object:
        """Return `value` as JSON takes it: times in ISO 8601, everything that JSON doesn't know by its repr()."""
        self._values_left -= 1
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, int) and value.bit_length() <= 64:
            return int(value)
        if isinstance(value, float) and math.isfinite(value):
            return float(value)
        if isinstance(value, str):
            return self._cut(str(value))
        if isinstance(value, datetime.date | datetime.time):
            return value.isoformat()
        if isinstance(value, Mapping) and depth < DEPTH:
            return self._mapping(value, depth)
        if isinstance(value, list | tuple | set | frozenset) and depth < DEPTH:
            return self._list(value, depth)
        return self._cut(text_of(value))

    def _mapping(self, value: Mapping[object, object], depth: int) -> dict[str, object]:
        plain: dict[str, object] = {}
        for key, item in value.items():
            if self._values_left <= 0:
                break
            plain[self._cut(key if isinstance(key, str) else text_of(key))] = self.of(item, depth + 1)
        return plain

    def _list(self, value: Iterable[object], depth: int) -> list[object]:
        plain: list[object] = []
        for item in value:
            if self._values_left <= 0:
                break
            plain.append(self.of(item, depth + 1))
        return plain

    def _cut(self, text: str) -> str:
        limit = max(SHORT, self._text_left)
        self._text_left -= min(limit, len(text))
        return gates.cut(text, limit)


def text_of(value: object) -> str:
    """Return repr(value), or a text that says why there is none."""
    try:
        return repr(value)
    except BaseException as error:  # the user's code, which may raise anything; the report must go out
        return f'<{type(value).__name__} whose repr() raised {type(error).__name__}>'


def stacktrace_of(exception: BaseException) -> str:
    """Return the exception's traceback as Python prints it."""
    import traceback  # here: only a life that failed needs it

    try:
        return ''.join(traceback.format_exception(exception))
    except BaseException as error:  # as in text_of
        return f'<no stacktrace: formatting it raised {type(error).__name__}>'


def cut_middle(text: str, limit: int) -> str:
    """Return `text`, or its beginning and its end (`limit` characters in all) with a mark between them."""
    if len(text) <= limit:
        return text
    half = limit // 2
    return f'{text[:half]}\n{gates.CUT_MARK.format(lost=len(text) - 2 * half).strip()}\n{text[-half:]}'
