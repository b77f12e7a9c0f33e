"""What has the shape of an answer can be shown, and what is anything else is none."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sergeant_linux.cli.terminal import Look
from sergeant_linux.cli.verbs import events, progress, ps, status, stop
from sergeant_linux.control import answers
from tests.cli.recorded import STATUS

SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.integers(min_value=2**63), st.floats(), st.text(max_size=8),
    st.sampled_from(['\x1b[2J', '9' * 400, 'running', 'auto-restart']),
)  # fmt: skip
ANYTHING = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
TERMINAL = Look(width=None, height=24, is_terminal=False, colour=False, unicode=True)


def paths(value: object, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the way to everything in an answer."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(each for key, inner in pairs for each in paths(inner, (*path, key)))]


def changed(value: Any, path: tuple[Any, ...], new: object) -> Any:
    """Return a copy with something else at the end of this way."""
    if not path:
        return new
    copy = json.loads(json.dumps(value))
    place = copy
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = new
    return copy


@given(path=st.sampled_from(paths(STATUS)), new=ANYTHING)
@settings(max_examples=2000, deadline=None)
def test_a_status_with_something_else_in_it_is_shown_or_is_none(path: tuple[Any, ...], new: object) -> None:
    told = changed(STATUS, path, new)
    if answers.is_result('status', told):
        assert status.screen(told, TERMINAL)
        known = ps.summary(told)
        assert ps.row({'name': 'crawl', 'socket': '/crawl.sock', 'error': None, **known})


EVENTS = [
    {'event': 'reload-progress', 'generation': 2, 'state': 'rolling', 'changed': 1, 'of': 4, 'reason': None},
    {'event': 'restart-progress', 'waiting': [1, 2]},
    {'event': 'stop-progress', 'left_seconds': 7.5, 'busy': [{'slot': 1, 'pid': 7, 'state': 'drain', 'task_age_seconds': 1.5}]},
    {'event': 'worker-exit', 'seq': 1, 'time': '2026-01-30T09:20:11Z', 'level': 'info', 'message': 'x', 'fields': {'slot': 1}},
]


@given(event=st.sampled_from(EVENTS), data=st.data())
@settings(max_examples=1000, deadline=None)
def test_an_event_with_something_else_in_it_is_shown_or_is_none(event: dict[str, Any], data: st.DataObject) -> None:
    told = changed(event, data.draw(st.sampled_from(paths(event))), data.draw(ANYTHING))
    if answers.is_event('stop', told):
        progress.in_words(told)
        events.in_words(told, TERMINAL)
        stop._head(told, 1.0), stop._busy(told, 1.0)


@pytest.mark.parametrize(('verb', 'result'), [
    ('health', {'live': True, 'ready': 'no'}), ('health', {'live': 1, 'ready': True}), ('health', {}), ('health', None),
    ('scale', {'before': 1, 'after': True}), ('reload', {'generation': '2', 'changed': 0}), ('restart', {'slots': 3}),
    ('kill', {'slot': 0, 'pid': [], 'signal': 'KILL'}), ('dump', {'slot': 0, 'pid': 7, 'stacks': None}),
    ('events', {'events': {}}), ('events', {'events': [1]}), ('get', {'policy': []}), ('set', {'key': 1}),
    ('status', {'name': 'a', 'pid': 1}), ('status', {'name': 'a', 'pid': 1e999, 'slots': []}), ('ping', []),
    ('stop', {'status': '0'}), ('any', 1),
])  # fmt: skip
def test_a_result_of_another_shape_is_none(verb: str, result: object) -> None:
    assert not answers.is_result(verb, result)
