"""A helper that never says anything: it hangs from its first moment on, or, with an argument, once it is at work."""

import socket
import time

from sergeant_linux.helpers import AT_WORK
from sergeant_linux.kernel import spawn


def main(arguments: list[str]) -> None:
    """Hang."""
    spawn.adopt_fds(1)
    control = socket.socket(fileno=spawn.FIRST_FD)
    if arguments:
        control.send(AT_WORK)
    while True:
        time.sleep(1000)
