"""How much beside what was asked for a pool takes, or is given: each margin once. Seconds, and bytes."""

from typing import Final

START: Final = 30.0
"""What a start may take beyond --timeout-start: for what comes before the first worker, and its backoff."""

STOP: Final = 5.0
"""From the last SIGKILL to the supervisor's own end, at most: what a service manager waits beyond --timeout-stop."""

STOP_OF_A_CONTAINER: Final = 4
"""The same for a container's runtime, whose usual grace of 10 seconds has to do with the usual --timeout-stop."""

LATE: Final = 1.0
"""By how much a busy machine may wake us too late; more is a pause."""

LEAST_RESERVE: Final = 64 * 1024**2
RESERVE_SHARE: Final = 20
"""The memory that workers leave to the supervisor and its helpers by `auto`: one part in so many, at least so much."""

RESERVE_OF_A_UNIT: Final = 128 * 1024**2
"""The memory of supervisor, fork servers and helpers beside the workers in a unit, with --memory-max=auto."""
