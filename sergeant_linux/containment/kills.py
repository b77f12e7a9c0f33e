"""OOM kills around us: what tells of them where workers have no leaf that counts.

Facts: memory.events of the cgroup in which all of us are counts the OOM kills among us, in it and below (oom_kill), and
how often its own limit was the reason (oom); it doesn't say who was killed. The count is there before the victim's end
can be seen. In a container it is the container's own cgroup, read-only or not.
Consequence: a SIGKILL that nobody of us has sent, with a kill that no other end has claimed since a worker was last
ready, was the OOM killer's.
Price: when it has killed what a worker had started, a SIGKILL by hand soon after that is taken for it.
"""

from contextlib import suppress

from sergeant_linux.core.result import OomScope
from sergeant_linux.kernel import cgroup


class Kills:
    """The OOM kills in our own cgroup that no end has claimed yet."""

    def __init__(self) -> None:
        self._cgroup: cgroup.Cgroup | None = None
        with suppress(OSError):
            self._cgroup = cgroup.own()
        self._kills = self._ooms = 0
        self.settle()

    def settle(self) -> None:
        """What has been counted until now is no evidence for ends to come."""
        self._kills, self._ooms = self._counted()

    def claim(self) -> OomScope | None:
        """Return whose limit an unexplained SIGKILL was for; None when there was no OOM kill that could be it."""
        kills, ooms = self._counted()
        if kills <= self._kills:
            return None
        self._kills += 1
        return OomScope.CONTAINER if ooms > self._ooms else OomScope.HOST

    def _counted(self) -> tuple[int, int]:
        if self._cgroup is not None:
            with suppress(OSError, ValueError):
                events = self._cgroup.table('memory.events')
                return events.get('oom_kill', 0), events.get('oom', 0)
        return self._kills, self._ooms
