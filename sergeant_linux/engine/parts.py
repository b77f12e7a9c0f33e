"""What the loop is made of: parts with one face, and how several are taken as one."""

from collections.abc import Callable
from typing import Protocol


class Part(Protocol):
    """Something that the loop calls again when it is due, and closes at the end."""

    def next_deadline(self) -> float | None:
        """Return when `elapse` is due, in seconds of the monotonic clock; None: when something has happened."""

    def elapse(self, now: float) -> object:
        """Do what is due. Called in every turn of the loop."""

    def close(self) -> None:
        """Let go of everything."""


def close_all(*closers: Callable[[], object]) -> None:
    """Call each, whatever became of the one before; then raise the first error."""
    first: BaseException | None = None
    for close in closers:
        try:
            close()
        except BaseException as error:
            first = first or error
    if first is not None:
        raise first
