"""The final report holds what can be held, and fits into a message whatever the worker holds."""

import datetime
import json
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from sergeant_linux.wire import gate as gates
from sergeant_linux.worker.report import Outcome, send_final


def reported(outcome: Outcome, unkillable_threads: list[str] | None = None) -> dict[str, Any]:
    """Send the report through a real gate; return what arrives."""
    ours, theirs = gates.pair()
    with ours, theirs:
        assert send_final(theirs, outcome, unkillable_threads or [])
        message = gates.receive(ours)
    assert message is not None
    return message


def test_plain_values_come_as_they_are() -> None:
    plain: object = {'a': [1, -(2**63), 2**63, 1.5, True, None, 'text', {'b': []}]}

    assert reported(Outcome(0, summary=plain))['summary'] == plain


@pytest.mark.parametrize(
    ('value', 'expected'),
    [
        (datetime.datetime(2026, 1, 2, 3, 4, 5), '2026-01-02T03:04:05'),
        (datetime.date(2026, 1, 2), '2026-01-02'),
        (ValueError('no'), "ValueError('no')"),
        ((1, 2), [1, 2]),
        (float('nan'), 'nan'),
        (float('-inf'), '-inf'),
        (2**64, '18446744073709551616'),
        (b'bytes', "b'bytes'"),
        ({1: 2, None: 3}, {'1': 2, 'None': 3}),
    ],
)
def test_other_values_come_as_text(value: object, expected: object) -> None:
    assert reported(Outcome(0, summary=value))['summary'] == expected


def test_a_value_whose_repr_raises_is_named() -> None:
    class Broken:
        def __repr__(self) -> str:
            raise SystemExit

    expected = '<Broken whose repr() raised SystemExit>'
    assert reported(Outcome(0, summary=Broken()))['summary'] == expected


def holds_itself() -> object:
    summary: dict[str, object] = {'text': 'x' * 100_000}
    summary['self'] = [summary] * 10
    return summary


def deep() -> object:
    value: object = []
    for _ in range(100_000):
        value = [value]
    return value


@pytest.mark.parametrize(
    'summary',
    [
        pytest.param(holds_itself(), id='holds itself'),
        pytest.param(deep(), id='deep'),
        pytest.param(['\x00' * 100_000] * 1000, id='six bytes a character'),
        pytest.param({'\x00' * 100_000 + str(number): '\x00' * 100_000 for number in range(100)}, id='long keys'),
        pytest.param(list(range(1_000_000)), id='a million numbers'),
        pytest.param([[[{}] * 100] * 100] * 100, id='a million empty values'),
        pytest.param(10**10_000, id='a number with more digits than Python prints'),
        pytest.param('\ud800' * 100_000, id='surrogates'),
        pytest.param('😀' * 100_000, id='four bytes a character'),
    ],
)
def test_the_report_fits_whatever_the_summary_holds(summary: object) -> None:
    exception = ValueError('\x00' * 2_000_000)

    message = reported(Outcome(6, exception, summary), ['\x00' * 1000] * 1000)

    assert message['return_code'] == 6
    assert message['exception'].startswith("ValueError('")
    assert 'cut: ' in message['exception']
    assert len(json.dumps(message)) <= 200_000


def test_of_a_long_stacktrace_the_beginning_and_the_end_are_kept() -> None:
    def first(depth: int) -> None:
        second(depth)

    def second(depth: int) -> None:
        first(depth - 1) if depth else last()

    def last() -> None:
        raise ValueError('here')

    with pytest.raises(ValueError, match='here') as caught:
        first(200)

    stacktrace = reported(Outcome(1, caught.value))['stacktrace']

    assert stacktrace.startswith('Traceback (most recent call last):\n')
    assert stacktrace.endswith('ValueError: here\n')
    assert 'more characters]' in stacktrace


@pytest.fixture
def full_gate() -> Iterator[Any]:
    """The worker's end of a gate that has no room."""
    with ExitStack() as closing:
        ours, theirs = (closing.enter_context(end) for end in gates.pair())
        while gates.send(theirs, {'type': 'x', 'text': 'x' * 60_000}):
            pass
        yield theirs
        ours.close()


def test_a_supervisor_that_does_not_read_holds_the_worker_up_for_its_patience_only(full_gate: Any) -> None:
    assert send_final(full_gate, Outcome(0), []) is False


def test_a_supervisor_that_is_gone_is_no_error() -> None:
    ours, theirs = gates.pair()
    ours.close()
    with theirs:
        assert send_final(theirs, Outcome(0), []) is False
