"""The marks in a worker's environment, and in that of everything it starts: which pool, which slot, which life.

Facts: /proc/PID/environ shows the block that a process was exec'd with (proc(5)), so only what is written into that
block can be seen there; what a worker starts inherits it.
Decision: the fork server's environment has room for the marks, and a newborn writes its own into it.
"""

from typing import Final

LIFE: Final = 'SERGEANT_WORKER_LIFE'
SLOT: Final = 'SERGEANT_WORKER_SLOT'
POOL: Final = 'SERGEANT_WORKER_POOL'

ROOM: Final = '0' * 20
"""What stands in the environment of the fork server where a worker will write its own marks."""
