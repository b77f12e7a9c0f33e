"""The pool that a verb is about: how it is named, found and asked, and what is said when that can't be.

Facts: a host mostly has one pool, and then nobody wants to name it; where it has several, a guess stops the wrong one.
What can go wrong on the way to an answer goes wrong for each verb alike.
Decision: an option counts before a variable, a socket before a name; without any, the only pool that answers is meant.
Whatever goes wrong is `Trouble`: an exit status and one line.

Invariant: no verb is tried on a pool that was not named while there is another.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any, Final

from sergeant_linux.cli.verbs.parser import USAGE_ERROR, Parser
from sergeant_linux.control import names
from sergeant_linux.control.client import Client, NoAnswer, OfOthers, PoolError

DONE: Final = 0
FAILED: Final = 1
"""It was tried and did not work."""
UNREACHED: Final = 4
"""There is no such pool, it can't be reached, or it refuses."""
INTERRUPTED: Final = 130
"""SIGINT, as a shell tells it."""
CUT_OFF: Final = 141
"""SIGPIPE, as a shell tells it."""

STATUSES: Final = {
    DONE: 'done',
    FAILED: 'it was tried and did not work',
    USAGE_ERROR: 'wrong usage or a bad value',
    UNREACHED: 'no such pool, it does not answer, or it refuses',
    INTERRUPTED: 'interrupted (SIGINT) while it waited; the pool goes on',
}

_NAME_VARIABLE: Final = 'SERGEANT_LINUX_NAME'
_SOCKET_VARIABLE: Final = 'SERGEANT_LINUX_CONTROL_SOCKET'

_WHICH: Final = f"""\
Without --name and --control-socket the only pool of this host is meant, or the
one that {_SOCKET_VARIABLE} or {_NAME_VARIABLE} names."""

_STATUS_OF: Final = {'failed': FAILED, 'internal': FAILED, 'bad-request': USAGE_ERROR}
"""What the code of an error becomes; any other is `UNREACHED`."""


class Trouble(Exception):
    """The end of a verb that did not work: what is said of it, and the exit status."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status: Final = status


class Gone(Trouble):
    """The pool has closed the connection before it answered."""

    def __init__(self) -> None:
        super().__init__(UNREACHED, 'the pool has gone before it answered')


def help_text(*examples: str, more: str = '', **statuses: str) -> str:
    """Return what is told below a verb's options. statuses: what an exit status means here (`_1='not ready'`)."""
    known = STATUSES | {int(name[1:]): meaning for name, meaning in statuses.items()}
    lines = [f'  {status:>3}  {meaning}' for status, meaning in sorted(known.items()) if meaning]
    shown = [f'  %(prog)s {example}'.rstrip() for example in examples]
    parts = [
        more,
        _WHICH,
        '\n'.join(['exit status:', *lines]),
        '\n'.join(['example:' if len(shown) == 1 else 'examples:', *shown]),
    ]
    return '\n\n'.join(filter(None, parts)) + '\n'


def add_pool(parser: Parser, *, json_help: str | None = 'answer with one JSON object') -> None:
    """Add the options that name a pool, and `--json`."""
    which = parser.add_mutually_exclusive_group()
    name = which.add_argument('--name', metavar='NAME', help='the name of the pool')
    name.completer = _names  # type: ignore[attr-defined]  # argcomplete's protocol
    which.add_argument('--control-socket', metavar='PATH', help='the control socket of the pool')
    if json_help is not None:
        parser.add_argument('--json', action='store_true', help=json_help)


def add_slot(parser: Parser, *, many: bool = False) -> None:
    """Add the slots, or the one, that are meant."""
    if many:
        parser.add_argument('slots', metavar='SLOT', type=slot, nargs='*', help='the number of a slot (default: all)')
    else:
        parser.add_argument('slot', metavar='SLOT', type=slot, help='the number of a slot, as `status` shows it')


def slot(text: str) -> int:
    if not (text.isascii() and text.isdecimal()):
        raise argparse.ArgumentTypeError(f'expected the number of a slot, 0 or more, not {text!r}')
    return int(text)


def seconds(text: str) -> float:
    """Return a span above 0 as seconds."""
    from sergeant_linux.core.units import parse_span

    try:
        span = parse_span(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    if span == 0:
        raise argparse.ArgumentTypeError(f'expected a time span above 0, not {text!r}')
    return span


def connect(args: argparse.Namespace) -> Client:
    """Return a connection to the pool that is meant. Raises Trouble."""
    path, name = _which(args, os.environ)
    try:
        return Client(path) if path is not None else Client.find(name)
    except LookupError as error:
        raise Trouble(UNREACHED, str(error.args[0] if error.args else error)) from None
    except FileNotFoundError:
        raise Trouble(UNREACHED, f'no pool answers at {path}: there is no such socket') from None
    except ConnectionRefusedError:
        raise Trouble(UNREACHED, f'no pool answers at {path}: nobody listens there any more') from None
    except OfOthers as error:
        whose = 'which is neither root, nor you, nor the owner of its folder'
        raise Trouble(UNREACHED, f'{path} is a socket of the uid {error.uid}, {whose}: not asked') from None
    except PermissionError:
        raise Trouble(UNREACHED, f'the pool at {path or name} is not yours to operate: permission denied') from None
    except OSError as error:
        raise Trouble(UNREACHED, f'cannot reach the pool at {path or name}: {error.strerror or error}') from None


def _which(args: argparse.Namespace, environ: Mapping[str, str]) -> tuple[str | None, str | None]:
    """Return the socket, or else the name, that is asked for; both None when none is."""
    if args.control_socket is not None:
        return args.control_socket, None
    if args.name is not None:
        return None, args.name
    path = environ.get(_SOCKET_VARIABLE, '')
    if path.startswith('/'):  # not `auto` or `off`, which a run may be told
        return path, None
    return None, environ.get(_NAME_VARIABLE) or None


def ask(client: Client, verb: str, /, **asked: Any) -> dict[str, Any]:
    """Return the pool's answer. Raises Trouble."""
    answer: dict[str, Any] = _told(lambda: client.call(verb, **asked))
    return answer


def follow(
    client: Client, verb: str, on_event: Callable[[dict[str, Any]], None], /, *, can_end: bool = False, **asked: Any
) -> dict[str, Any]:
    """Hand each event of a stream on, and return the pool's answer. Raises Trouble.

    can_end: the end of the pool is an answer, too (an empty one). It takes as long as it takes: a task may run for
    hours, and nothing is told meanwhile.
    """
    client.timeout = None
    stream = client.stream(verb, **asked)
    while True:
        try:
            told = _told(lambda: next(stream, None))
        except Gone:
            if can_end:
                return {}
            raise
        assert told is not None, 'a stream ends with an answer'
        if told.keys() == {'result'}:
            result: dict[str, Any] = told['result']
            return result
        on_event(told)


def _told(wait: Callable[[], Any]) -> Any:
    try:
        return wait()
    except PoolError as error:
        raise Trouble(_STATUS_OF.get(error.code, UNREACHED), str(error)) from None
    except TimeoutError:
        raise Trouble(UNREACHED, 'the pool does not answer in time') from None
    except NoAnswer as error:
        raise Trouble(UNREACHED, str(error)) from None
    except OSError:
        raise Gone from None


def say(text: str = '') -> None:
    """Print a line, and let it be seen at once."""
    print(text, flush=True)


def say_json(data: object) -> None:
    """Print an object as JSON in one line."""
    print(json.dumps(data), flush=True)


def say_object(data: object) -> None:
    """Print an object as JSON for people who look at it as well."""
    sys.stdout.write(json.dumps(data, indent=2) + '\n')


def say_done(args: argparse.Namespace, answer: Mapping[str, Any], in_words: Callable[[], str]) -> int:
    """Print what has been done, as `--json` wants it or in words, and return the exit status."""
    if args.json:
        say_object(answer)
    else:
        say(in_words())
    return DONE


def _names(prefix: str, **_: object) -> list[str]:
    """Return the names of the pools of this host that can be asked by one, for a shell that completes."""
    return [pool.name for pool in names.pools(os.environ) if pool.name.startswith(prefix) and names.is_believed(pool)]
