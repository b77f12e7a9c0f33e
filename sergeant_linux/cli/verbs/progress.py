"""What a verb that waits shows meanwhile: the news of the pool, in one place on a terminal, line by line elsewhere."""

import sys
from collections.abc import Mapping
from typing import Any, Final

from sergeant_linux.cli.terminal import Live, clean

_OWN_WORDS: Final = frozenset({'event', 'message', 'state', 'changed', 'of', 'reason', 'generation', 'waiting'})


class Progress:
    """Shows events as they come; nothing when it is told to be quiet."""

    def __init__(self, *, quiet: bool) -> None:
        self._live: Final = None if quiet else Live(sys.stdout)

    def __call__(self, event: Mapping[str, Any]) -> None:
        if self._live is not None:
            self._live.show([in_words(event)])


def in_words(event: Mapping[str, Any]) -> str:
    """Return an event as one line: `generation 3: rolling, 2 of 4 changed`."""
    if event.get('message'):
        return clean(event['message'])
    said = [clean(event['state'])] if event.get('state') else []
    if event.get('changed') is not None and event.get('of') is not None:
        said.append(f'{event["changed"]} of {event["of"]} changed')
    if event.get('waiting'):
        said.append(f'{len(event["waiting"])} to go: slots {", ".join(map(str, event["waiting"]))}')
    said += [
        f'{clean(key)} {clean(value)}'
        for key, value in event.items()
        if key not in _OWN_WORDS and value is not None and not isinstance(value, list | dict)
    ]
    if event.get('reason'):
        said.append(clean(event['reason']))
    start = f'generation {event["generation"]}: ' if event.get('generation') is not None else ''
    return start + (', '.join(said) or clean(event.get('event')))
