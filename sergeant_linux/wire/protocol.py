"""How the control socket is spoken to: one JSON object a line, in both directions.

    request   {"v":1,"id":7,"verb":"status","args":{}}
    answer    {"v":1,"id":7,"ok":true,"result":{…}}
              {"v":1,"id":7,"ok":false,"error":{"code":"failed","message":"…"}}
    news      {"v":1,"id":7,"event":{…}}     any number of them, before the answer of the same id

Facts: a stream has no borders, and whoever writes to it may write anything, or nothing, for ever.
Consequence: a line has a bound on each side; what is no request is answered as such, with the id null when there is
none to be had. An id is the client's own affair: it comes back as it was sent.
Price: what doesn't fit in a line can't be said.
"""

import json
from collections.abc import Mapping
from typing import Any, Final

VERSION: Final = 1

MAX_REQUEST: Final = 65_536
"""Upper bound of a request's line, in bytes."""

MAX_ANSWER: Final = 4 * 1024 * 1024
"""Upper bound of a line to a client, in bytes."""

MAX_ID: Final = 64

BAD_REQUEST: Final = 'bad-request'
UNKNOWN_VERB: Final = 'unknown-verb'
WRONG_VERSION: Final = 'version'
TOO_LONG: Final = 'too-long'
BUSY: Final = 'busy'
DENIED: Final = 'denied'
REFUSED: Final = 'refused'
FAILED: Final = 'failed'
INTERNAL: Final = 'internal'
"""The codes of errors."""

Message = dict[str, Any]
Id = int | str | None


class BadRequest(ValueError):
    """A line that is no request: `code` says in what way, `id` whose it is as far as that can be told."""

    def __init__(self, code: str, text: str, id: Id = None) -> None:
        super().__init__(text)
        self.code = code
        self.id = id


class TooLong(ValueError):
    """A line goes on for longer than it may."""


class Lines:
    """Cuts what comes from a stream into lines of at most `limit` bytes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._rest = bytearray()
        self._seen = 0

    def feed(self, data: bytes) -> None:
        """Take in what has come."""
        self._rest += data

    def next(self) -> bytes | None:
        """Return the next whole line, None when there is none yet. Raises `TooLong`."""
        end = self._rest.find(b'\n', self._seen)
        if end > self._limit or (end < 0 and len(self._rest) > self._limit):
            raise TooLong(f'a line of over {self._limit} bytes')
        if end < 0:
            self._seen = len(self._rest)
            return None
        self._seen = 0
        line = bytes(self._rest[:end])
        del self._rest[: end + 1]
        return line


def _refuse(constant: str) -> None:
    raise ValueError(f'{constant} is no JSON')


_DECODER: Final = json.JSONDecoder(parse_constant=_refuse)


def encode(message: Mapping[str, object]) -> bytes:
    """Return the line of a message, in ASCII. What JSON has no word for is written as its str().

    Raises ValueError for NaN, an infinity or a circle, TypeError for a key that is no text, RecursionError.
    """
    return json.dumps(message, separators=(',', ':'), default=str, allow_nan=False).encode() + b'\n'


def decode(line: bytes) -> Message:
    """Return the object in a line. Raises ValueError."""
    try:
        message = _DECODER.decode(line.decode())
    except RecursionError:
        raise ValueError('nested too deeply') from None
    if not isinstance(message, dict):
        raise ValueError('no object')
    return message


def request(line: bytes) -> tuple[Id, str, Message]:
    """Return the id, the verb and the arguments of a request. Raises `BadRequest`."""
    try:
        message = decode(line)
    except ValueError as error:
        raise BadRequest(BAD_REQUEST, f'expected a JSON object on one line ({error})') from None
    id = message.get('id')
    if isinstance(id, bool) or not isinstance(id, int | str) or len(str(id)) > MAX_ID:
        raise BadRequest(BAD_REQUEST, f'expected an "id": a whole number, or text of at most {MAX_ID} characters')
    if message.get('v') != VERSION:
        raise BadRequest(WRONG_VERSION, f'expected version {VERSION}, not {message.get("v")!r:.40}', id)
    verb, arguments = message.get('verb'), message.get('args', {})
    if not isinstance(verb, str):
        raise BadRequest(BAD_REQUEST, 'expected a "verb": text', id)
    if not isinstance(arguments, dict):
        raise BadRequest(BAD_REQUEST, 'expected "args": an object', id)
    return id, verb, arguments


def answer(id: Id, result: object) -> Message:
    """Return the answer to a request that was carried out."""
    return {'v': VERSION, 'id': id, 'ok': True, 'result': result}


def error(id: Id, code: str, text: str) -> Message:
    """Return the answer to a request that was not."""
    return {'v': VERSION, 'id': id, 'ok': False, 'error': {'code': code, 'message': ' '.join(text.split())}}


def news(id: Id, event: object) -> Message:
    """Return what is told before the answer."""
    return {'v': VERSION, 'id': id, 'event': event}
