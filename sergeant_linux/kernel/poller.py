"""What the one loop waits for: epoll(7) with a key for every descriptor.

Facts: epoll gives back descriptor numbers, and a number is reused as soon as it is closed. An entry belongs to the open
file, not to the number: a file that is closed here while a forked child still holds it goes on reporting, under a
number that can't be unregistered any more; and a child that *unregisters* what it inherited takes the entry out of its
parent's epoll, which it shares. A negative timeout means for ever. The resolution is 1 ms.
Consequence: unregister, then close. A child only closes, and never calls `unregister` or `modify`. A deadline that has
passed is a timeout of 0, not a negative one.
Decision: `Poller` keeps number -> key, and gives keys back. Events come in batches, and a handler may unregister the
owner of an event that is later in the same batch: such an event is dropped, so that nothing that is closed is ever
handled.
Price: a dict of all descriptors, and the rule above, which nothing but a test can hold.
"""

import select
from collections.abc import Callable, Iterator
from typing import Final, Generic, Protocol, Self, TypeAlias, TypeVar

EPOLLIN: Final = select.EPOLLIN
EPOLLOUT: Final = select.EPOLLOUT
EPOLLHUP: Final = select.EPOLLHUP

MAX_TIMEOUT: Final = 86_400.0
"""The longest single wait, in seconds: epoll_wait(2) takes no more than 2^31 ms."""

Key = TypeVar('Key')

Handler: TypeAlias = Callable[[int], None]
"""A key that is called with the events."""


class HasFileno(Protocol):
    """A socket, a PidRef, whatever has a descriptor."""

    def fileno(self) -> int:
        """Return the descriptor."""


class Poller(Generic[Key]):
    """An epoll instance whose events are named by keys: a handler, a slot, whatever the loop wants to get back."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._keys: dict[int, Key] = {}

    def fileno(self) -> int:
        """Return the descriptor of the epoll instance, which is close-on-exec."""
        return self._epoll.fileno()

    def __len__(self) -> int:
        """Return how many descriptors are registered."""
        return len(self._keys)

    def register(self, owner: HasFileno | int, key: Key, events: int = EPOLLIN) -> None:
        """Watch the owner's descriptor. EPOLLERR and EPOLLHUP are reported whether asked for or not.

        Raises FileExistsError when the number is registered (also when its former owner was closed without being
        unregistered), PermissionError for what epoll can't watch, such as a regular file.
        """
        fd = _number(owner)
        if fd in self._keys:
            raise FileExistsError(f'cannot watch descriptor {fd} for {key!r}: it is registered for {self._keys[fd]!r}')
        self._epoll.register(fd, events)
        self._keys[fd] = key

    def modify(self, owner: HasFileno | int, events: int) -> None:
        """Watch for other events; the key stays. Raises FileNotFoundError when the owner isn't registered."""
        self._epoll.modify(_number(owner), events)

    def unregister(self, owner: HasFileno | int) -> None:
        """Stop watching, before the owner is closed. Does nothing for an owner that isn't registered."""
        fd = _number(owner)
        if fd in self._keys:
            del self._keys[fd]
            self._epoll.unregister(fd)

    def wait(self, timeout: float | None) -> Iterator[tuple[Key, int]]:
        """Wait for events, at most `timeout` seconds, then iterate over them.

        The timeout is rounded up to 1 ms; a negative one is 0; one of more than a day ends after a day; None is for
        ever. The wait is over when this returns. An event whose owner is unregistered before its turn is left out.
        """
        ready = self._epoll.poll(_bounded(timeout))
        return self._still_registered([(fd, self._keys[fd], events) for fd, events in ready])

    def _still_registered(self, batch: list[tuple[int, Key, int]]) -> Iterator[tuple[Key, int]]:
        for fd, key, events in batch:
            if fd in self._keys and self._keys[fd] is key:
                yield key, events

    def close(self) -> None:
        """Close the epoll instance; again does no harm. In a forked child the parent's registrations stay."""
        self._epoll.close()
        self._keys.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _number(owner: HasFileno | int) -> int:
    return owner if isinstance(owner, int) else owner.fileno()


def _bounded(timeout: float | None) -> float | None:
    """Return the timeout as Python's epoll takes it, which rounds it up to a whole millisecond."""
    return None if timeout is None else min(max(timeout, 0.0), MAX_TIMEOUT)
