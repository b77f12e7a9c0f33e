"""A worker module of no folder: it does nothing, for long."""

import time


def Worker() -> None:
    """Sleep."""
    time.sleep(1000)
