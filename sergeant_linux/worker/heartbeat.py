"""Signs of life: what a worker gives that has no tasks the supervisor could see, so that it isn't taken for hung.

Facts: a sergeant worker is seen to work, by its tasks and by its asking for more; a class with `run()` and a function
are not. Nobody but their code knows when they get on.
Decision: a function for users, as `ready()`: one store into the page of this life. Who never calls it is not expected
to; who has called it once is (`--worker-watchdog`).

Invariant: no child of a worker gives signs in its place.
"""

import os
import time

from sergeant_linux.wire.scoreboard import SIGN, Pen

_times: 'memoryview[float] | None' = None


def attach(pen: Pen) -> None:
    """Give the signs of life of this process with `pen`."""
    global _times
    _times = pen.times
    os.register_at_fork(after_in_child=_fall_silent)


def _fall_silent() -> None:
    global _times
    _times = None


def heartbeat() -> None:
    """Give a sign of life. Outside of a worker it does nothing. It costs less than a microsecond."""
    times = _times
    if times is not None:
        times[SIGN] = time.monotonic()
