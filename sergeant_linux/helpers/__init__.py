"""The processes beside the loop. Each is spawned afresh, does one thing, and may die at any time.

undertaker, meter and limiter are the processes, each with a `main` that is given a socket as its first descriptor;
`helper` is what the supervisor knows of any of them, `staff` what it knows of each.
"""

from typing import Final

AT_WORK: Final = b'at work'
"""What each of them says first."""
DISMISSED: Final = b'dismissed'
"""What the undertaker is told when there is nothing to bury."""
