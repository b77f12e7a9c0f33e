"""What the supervisor borrows from the program it runs in, and gives back.

Facts: signal handlers, the wakeup fd, the signal mask, the subreaper flag and the descriptor limit belong to the
whole process. As a command the process is ours; inside a program of somebody else's it isn't.
Consequence: all of it is taken in one place, and put back there, exactly, however the pool ended. SIGCHLD is taken
only as a command: inside a program its children are not ours to see, and ours are seen by their pidfds. But where it
is ignored (a disposition that survives exec), the kernel would throw exit statuses away: then its default is restored
for as long as the pool runs. The OOM killer is told to spare us as a command only, too: what the program starts
meanwhile would inherit that.
"""

import os
import resource
import signal
from contextlib import suppress
from types import TracebackType
from typing import Any, Final, Self

from sergeant_linux.host import CantRun, descriptors
from sergeant_linux.kernel import oom_score, prctl
from sergeant_linux.kernel.signals import SignalInbox

STOP: Final = frozenset({signal.SIGTERM, signal.SIGINT})
KILL: Final = frozenset({signal.SIGQUIT})
RELOAD: Final = frozenset({signal.SIGHUP})
STATUS: Final = frozenset({signal.SIGUSR1})
MORE: Final = frozenset({signal.SIGTTIN})
FEWER: Final = frozenset({signal.SIGTTOU})
HARMLESS: Final = frozenset({signal.SIGPIPE, signal.SIGUSR2})
"""Signals that would end the process by default, and must not: a closed pipe is no reason to stop."""


SPARED: Final = -900
"""The oom_score_adj that the supervisor and its helpers have where that is allowed. At -1000 one that leaks could never
be killed."""


class Host:
    """The borrowed state, as a context. Raises RuntimeError off the main thread and `CantRun` where the kernel lacks
    what is needed."""

    def __init__(self, *, is_ours: bool) -> None:
        """is_ours: the process is a command of ours, with no other children than ours and what falls to them."""
        check_pidfd()
        self.open_before = descriptors.open_now()
        taken = STOP | KILL | RELOAD | STATUS | MORE | FEWER | HARMLESS
        self.is_ours = is_ours
        try:
            self.inbox = SignalInbox(taken | {signal.SIGCHLD} if is_ours else taken)
        except OSError as error:
            raise CantRun(f'cannot listen to signals: {error}', error) from None
        self._sigchld: Any = None
        if not is_ours and signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN:
            self._sigchld = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self._subreaper = prctl.get_child_subreaper()
        self.oom_score_adj = self._spare_from_oom_killer()
        self.nofile = resource.getrlimit(resource.RLIMIT_NOFILE)
        prctl.set_child_subreaper(True)
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (self.nofile[1], self.nofile[1]))

    def give_back(self) -> None:
        """Put everything back as it was."""
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, self.nofile)
        prctl.set_child_subreaper(self._subreaper)
        if self.is_ours and self.oom_score_adj is not None:
            with suppress(OSError):
                oom_score.adjust(self.oom_score_adj)
        if self._sigchld is not None:
            signal.signal(signal.SIGCHLD, self._sigchld)
        self.inbox.close()

    def _spare_from_oom_killer(self) -> int | None:
        """Lower our oom_score_adj where we may (CAP_SYS_RESOURCE); return what it was, None where nobody knows."""
        try:
            before = oom_score.adjustment()
        except OSError:
            return None
        if self.is_ours and before > SPARED:
            with suppress(OSError):
                oom_score.adjust(SPARED)
        return before

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.give_back()


def check_pidfd() -> None:
    """Raise `CantRun` where processes can't be held by descriptors (pidfd_open(2), since Linux 5.3)."""
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError as error:
        raise CantRun(
            f'cannot hold a process by a descriptor (pidfd_open: {error.strerror}): this needs Linux 5.14 or newer, '
            'and a container runtime whose seccomp profile allows it (newer than November 2020)'
        ) from None


def open_missing_stdio() -> None:
    """Put /dev/null where stdin, stdout or stderr is closed, so that no descriptor of ours gets its number."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(fd, True)
    os.close(fd)
