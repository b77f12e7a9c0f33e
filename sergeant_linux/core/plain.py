"""Plain values: what the core takes in, and what it knows, as JSON can hold it, and back.

Facts: what is to be written down (a log of all input, the state of a pool that another supervisor takes up) is read by
another process, perhaps another version, and by people. A pickle is code, and a copy of objects that refer to each
other says less than it seems.
Decision: the classes are their own schema. A dataclass is an object of its fields, an enumeration its value, a set a
sorted list; an infinite time is the text `infinity`. What a class does not own (the policy, chance) is marked with
`ASIDE`, is not written, and is given again when it is read.
Price: each class is looked at once, by its annotations; nothing here is for values from strangers.

Invariant: `read(type(value), plain(value)) == value`, also by way of JSON.
"""

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import cache
from math import inf
from types import UnionType
from typing import Any, Final, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar('T')

Plain = Any
"""None, a bool, an int, a finite float, a text, a list of these, or a dict of texts to these."""

Given = Mapping[str, Any]
"""What is not written down, by the name of its field."""

ASIDE: Final = {'aside': True}
"""Marks a field that is not written down (its metadata)."""

INFINITY: Final = 'infinity'

_AS_THEY_ARE: Final = frozenset({type(None), bool, int, str})


def plain(value: object) -> Plain:
    """Return the value as JSON can hold it. Raises TypeError for what has no such form."""
    kind: Any = type(value)
    return value if kind in _AS_THEY_ARE else _writer(kind)(value)


def read(kind: type[T], written: Plain, **given: Any) -> T:
    """Return the value of this type that was written down. Raises KeyError, TypeError and ValueError."""
    any_kind: Any = kind
    value: T = _reader(any_kind)(written, given)
    return value


@cache
def _names_in(kind: Any) -> tuple[str, ...]:
    return tuple(each.name for each in fields(kind) if not each.metadata.get('aside'))


@cache
def _writer(kind: Any) -> Callable[[Any], Plain]:
    """Return what writes down values of this type."""
    if issubclass(kind, Enum):
        return lambda value: value.value
    if issubclass(kind, float):
        return lambda value: INFINITY if value == inf else value
    if isinstance(kind, type) and is_dataclass(kind):
        names = _names_in(kind)
        return lambda value: {name: plain(getattr(value, name)) for name in names}
    if issubclass(kind, Mapping):
        return lambda value: {str(plain(key)): plain(each) for key, each in value.items()}
    if issubclass(kind, set | frozenset):
        return lambda value: [plain(each) for each in sorted(value)]
    if issubclass(kind, list | tuple | deque):
        return lambda value: [plain(each) for each in value]
    raise TypeError(f'a {kind.__name__} has no plain form')


@cache
def _reader(kind: Any) -> Callable[[Plain, Given], Any]:
    """Return what reads values of this annotation."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        (other,) = (each for each in arguments if each is not type(None))
        of_other = _reader(other)
        return lambda written, given: None if written is None else of_other(written, given)
    if kind is float:
        return lambda written, given: float(written)
    if origin in (list, set, frozenset, deque, tuple):
        return _reader_of_many(origin, arguments)
    if origin is dict:
        of_key, of_value = map(_reader, arguments)
        key_type = arguments[0]
        return lambda written, given: {
            of_key(int(key) if key_type is int else key, given): of_value(each, given) for key, each in written.items()
        }
    if isinstance(kind, type) and is_dataclass(kind):
        return _reader_of_class(kind)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return lambda written, given: kind(written)
    if origin in (Literal, Mapping) or kind in (Any, int, bool, str):
        return lambda written, given: written
    raise TypeError(f'{kind} has no plain form')


def _reader_of_many(origin: Any, arguments: tuple[Any, ...]) -> Callable[[Plain, Given], Any]:
    if origin is tuple and arguments[-1] is not Ellipsis:
        readers = [_reader(each) for each in arguments]
        return lambda written, given: tuple(of(each, given) for of, each in zip(readers, written, strict=True))
    of_each = _reader(arguments[0])
    return lambda written, given: origin(of_each(each, given) for each in written)


def _reader_of_class(kind: Any) -> Callable[[Plain, Given], Any]:
    hints, written_names = get_type_hints(kind), _names_in(kind)
    readers = {name: _reader(hints[name]) for name in written_names}
    others = [each.name for each in fields(kind) if each.name not in readers]

    def read_object(written: Plain, given: Given) -> Any:
        values = {name: of(written[name], given) for name, of in readers.items()}
        return kind(**values, **{name: given[name] for name in others})

    return read_object
