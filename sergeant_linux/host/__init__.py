"""What this place gives: container, service manager, cgroups that are ours, limits, users."""


import errno
from typing import Final

PASSING: Final = frozenset({
    errno.EAGAIN, errno.ENOMEM, errno.ENFILE, errno.ENOBUFS, errno.EINTR, errno.EBUSY, errno.ETIMEDOUT,
})
"""What the kernel says when it has no room or no time now. EMFILE is not among them: our own limit stays."""


class CantRun(Exception):
    """The host can't do what is needed; the text names the thing, and what is missing. passes: it may be able to at
    another time."""

    def __init__(self, text: str, cause: BaseException | None = None) -> None:
        """cause: what was raised, where it was an error of the kernel's."""
        super().__init__(text)
        self.passes = isinstance(cause, TimeoutError) or (isinstance(cause, OSError) and cause.errno in PASSING)
