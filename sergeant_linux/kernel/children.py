"""Who is who among our children: pid -> what is to be done when that one has ended.

Facts: as a command of our own every orphan below us falls to us (PR_SET_CHILD_SUBREAPER), and is a zombie until we reap
it. waitid(2) shows the same zombie again and again until it is reaped. Workers, helpers and fork servers are seen by
their pidfds, too, and each is reaped by its owner alone, who looks at its evidence first. Children may die faster than
they can be reaped, by accident or on purpose.
Consequence: one register. A zombie that is in it is its owner's; one that isn't may be a newborn whose hello is still
unread, so whoever knows of newborns looks first; what nobody knows then is a stranger and is reaped.
Decision: at most `REAPED_A_TURN` in a turn of the loop; the rest waits for the next one.

Invariant: an exit status is taken by the owner of its process, or belongs to nobody.
"""

from collections.abc import Callable, KeysView
from typing import Final

from sergeant_linux.kernel.pidref import PidRef
from sergeant_linux.kernel.poller import Handler, Poller
from sergeant_linux.kernel.zombies import any_zombie, reap

REAPED_A_TURN: Final = 64


class Children:
    """The register. `look_for_newborns` is called when a zombie is unknown: it may enter some."""

    def __init__(self, poller: Poller[Handler]) -> None:
        self._poller = poller
        self._owners: dict[int, Handler] = {}
        self.look_for_newborns: Callable[[], object] = lambda: None

    def enter(self, process: PidRef, on_exit: Handler) -> None:
        """Call its owner when it has ended. Raises OSError where it can't be watched, and then it isn't entered."""
        self._poller.register(process, on_exit)
        self._owners[process.pid] = on_exit

    def leave(self, process: PidRef) -> None:
        """It is reaped, or about to be closed. Again does no harm."""
        self._poller.unregister(process)
        self._owners.pop(process.pid, None)

    def pids(self) -> KeysView[int]:
        """Return the pids of all that have an owner."""
        return self._owners.keys()

    def reap(self) -> bool:
        """Deal with the zombies among our children; True when there may be more of them."""
        for _ in range(REAPED_A_TURN):
            pid = any_zombie()
            if pid is None:
                return False
            if pid not in self._owners:
                self.look_for_newborns()
            if pid in self._owners:
                self._owners[pid](0)
            else:
                reap(pid)
        return True
