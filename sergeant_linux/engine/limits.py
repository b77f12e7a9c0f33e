"""Another memory limit for workers that run, where the kernel holds it: in all of their leaves, or in none.

Facts: a write to memory.max that takes no pages away returns at once, or is refused; one that does takes as long as it
takes. What is refused for one leaf may have been written to others before.
Consequence: the writes that can be refused at once come first, and are taken back when one of them is; what takes
pages away is handed to the limiter only when all others are in force. A file that the limiter may be writing is its
alone, until it has answered.
"""

import errno
from collections.abc import Iterable
from contextlib import suppress
from typing import Final

from sergeant_linux.containment.leaves import Leaf
from sergeant_linux.helpers.staff import Limiter

GONE: Final = frozenset({errno.ENOENT, errno.ENODEV})
"""The errors of a leaf that is over."""


def change(leaves: Iterable[Leaf], limit: int | None, limiter: Limiter) -> None:
    """Put a limit in force, in bytes. Raises OSError when the kernel refuses it, and then nothing has changed."""
    lower: dict[str, str] = {}
    changed: list[tuple[Leaf, int | None, str]] = []
    try:
        for leaf in leaves:
            before, file = leaf.limit, f'{leaf.cgroup.path}/memory.max'
            try:
                if limiter.has(file) or not leaf.change_limit(limit):
                    leaf.limit = limit
                    lower[file] = 'max' if limit is None else str(limit)
                changed.append((leaf, before, file))
            except OSError as error:
                if error.errno not in GONE:
                    raise
    except OSError:
        for leaf, before, file in changed:
            leaf.limit = before
            if file not in lower:
                with suppress(OSError):
                    leaf.write_limit(before)
        raise
    limiter.write(lower)
