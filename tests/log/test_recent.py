"""The ring of the last events is bounded, whatever is told, and always fits into one answer."""

import sys
from typing import Any

import pytest

from sergeant_linux.log.recent import LENGTH, MOST_BYTES, MOST_EVENT_BYTES, Event, Recent
from sergeant_linux.wire import protocol

LONG = 65_536
"""Characters: the longest report of a worker."""

MANY = 150


def deep(levels: int) -> Any:
    value: Any = '½' * LONG
    for _ in range(levels):
        value = {'½' * 1000: [value]}
    return value


@pytest.mark.parametrize('char', ['x', '½', '日', '🐍', '\0', '\udcff'])
def test_however_long_the_texts_all_events_fit_into_one_answer(char: str) -> None:
    recent = Recent()
    for number in range(MANY):
        recent.add('error', 'worker-exit', f'{number} {char * LONG}', {'exception': char * LONG, 'summary': [char * LONG]})

    events = recent.last(LENGTH)

    assert len(protocol.encode(protocol.answer(1, {'events': events}))) <= MOST_BYTES + 1000 < protocol.MAX_ANSWER
    assert events[-1]['seq'] == MANY
    assert events[-1]['message'].startswith(f'{MANY - 1} {char}')
    assert 'more characters]' in events[-1]['message']
    assert [event['seq'] for event in events] == list(range(events[0]['seq'], MANY + 1))
    assert sum(sys.getsizeof(event['message']) for event in events) < MOST_BYTES


@pytest.mark.parametrize('fields', [
    {'summary': deep(3)}, {'summary': deep(2000)}, {'summary': list(range(100_000))},
    {f'½{number}': '½' * 100 for number in range(20_000)},
])
def test_an_event_is_bounded_whatever_is_in_it(fields: dict[str, Any]) -> None:
    recent = Recent()

    recent.add('error', 'worker-exit', 'ended', fields)

    [event] = recent.last(1)
    assert len(protocol.encode(event)) <= MOST_EVENT_BYTES
    assert (event['event'], event['message']) == ('worker-exit', 'ended')


@pytest.mark.parametrize('value', [float('nan'), {1: {None: 2}, (1,): 2}])
def test_what_json_can_not_say_is_kept_as_text_and_does_not_spoil_the_others(value: object) -> None:
    recent = Recent()

    recent.add('error', 'worker-exit', 'ended', {'summary': value})

    [event] = recent.last(1)
    assert event['fields'] == {'summary': repr(value)}
    protocol.encode(event)


def test_short_events_are_kept_as_they_are() -> None:
    recent = Recent()
    for number in range(2 * LENGTH):
        recent.add('info', 'spawned', 'born', {'slot': number})

    assert [event['fields'] for event in recent.last(2 * LENGTH)] == [{'slot': number} for number in range(LENGTH, 2 * LENGTH)]


def test_who_listens_gets_what_is_kept() -> None:
    heard: list[Event] = []
    recent = Recent()
    recent.listen(heard.append)

    recent.add('error', 'worker-exit', '½' * LONG, {})

    assert heard == recent.last(1)
