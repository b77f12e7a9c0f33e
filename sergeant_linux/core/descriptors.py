"""How many descriptors a pool takes, in one place: what stands, what a life holds, what is kept free.

Facts: RLIMIT_NOFILE bounds the descriptors of a process, and whoever asks for one too many gets EMFILE, at whatever
call it was. A supervisor without a free descriptor can't look at a worker that has ended, answer a client, or replace a
helper. A life holds most before it is born, while both ends of everything are here.
Consequence: a life is begun only where `RESERVE` would still be free beside it, so what keeps the pool going always
finds its descriptors; a pool that can't have all of its workers isn't started, and none is scaled to more than it can
hold.
Price: a supervisor uses less than its limit by the reserve.

Who counts on the host, and words what is missing, is host/descriptors.py.
"""

from typing import Final

BIRTHS: Final = 4
"""Lives of one generation that are on their way at once, between their request and their hello."""

LIFE: Final = 5
"""Its gate, the pipe for its stacks, its page, its pidfd, and the file that its memory is read from."""

BIRTH: Final = 7
"""Before it is sent for: both ends of its gate and of the pipe, its page twice, and its cgroup."""

STANDING: Final = sum(
    {
        'epoll': 1,
        'signals': 2,
        'log': 1,
        'service manager': 1,
        'control socket and the lock of its name': 2,
        'cgroup of the pool': 1,
        'sessions': 1,
        'fork server: its socket and its pidfd': 2,
        'undertaker, meter and limiter likewise': 6,
    }.values()
)
"""What the supervisor has open for as long as it runs, beside what it was started with."""

RESERVE: Final = sum(
    {
        'clients': 4,
        'a look into /proc or a cgroup': 2,
        'the start of a helper: socket pair, two that are given, three lifted': 7,
        'the fork server of a reload': 2,
        'pidfd and memory of the births on their way, in two generations': 2 * BIRTHS * 2,
    }.values()
)
"""What stays free when a life is begun."""


def needed(before: int, workers: int) -> int:
    """Return how many descriptors a supervisor takes at most that had `before` open when it was started and has this
    many workers, successors included."""
    return before + STANDING + LIFE * workers + (BIRTH - LIFE) * BIRTHS + RESERVE
