"""The door: a pool's name is taken, and who knocks is let in; see names.py and server.py.

Decision: what was asked for by name and isn't to be had ends the start; a place that wasn't asked for is done without,
with a warning.
"""

import logging
from collections.abc import Callable, Mapping
from typing import Final

from sergeant_linux.control import names
from sergeant_linux.control.server import Control, Desk
from sergeant_linux.core.policy import AUTO, NONE, Policy
from sergeant_linux.host import CantRun, credentials
from sergeant_linux.kernel.poller import Handler, Poller
from sergeant_linux.log.words import Journal


class Door:
    """The pool's name, and its control socket where it has one. A part of the loop."""

    def __init__(self, name: str, control: Control | None, claim: names.Claim | None) -> None:
        self.name: Final = name
        self._control = control
        self._claim = claim

    def next_deadline(self) -> float | None:
        """Return when `elapse` is due; None: when somebody knocks."""
        return self._control.next_deadline() if self._control is not None else None

    def elapse(self, now: float) -> None:
        """Hear those whose turn it is."""
        if self._control is not None:
            self._control.elapse(now)

    def close(self) -> None:
        """Send away who is still there, and give the name back."""
        try:
            if self._control is not None:
                self._control.close()
        finally:
            if self._claim is not None:
                self._claim.close()


def open_door(
    policy: Policy,
    environ: Mapping[str, str],
    poller: Poller[Handler],
    desk: Desk,
    journal: Journal,
    on_error: Callable[[Exception], None],
) -> Door:
    """Take the name of this pool and listen under it. Raises `CantRun`."""
    default = f'{policy.worker_module_name}.{policy.worker_class_name}'[: names.LONGEST_NAME]
    if policy.control_socket == NONE:
        return Door(policy.name or default, None, None)
    path = policy.control_socket if policy.control_socket != AUTO else None
    group = credentials.control_group(policy)
    try:
        claim = names.claim(policy.name, default, path, environ, group)
    except names.Taken as taken:
        raise CantRun(str(taken)) from None
    except OSError as error:
        raise CantRun(f'cannot open the control socket ({error})', error) from None
    except names.NoPlace as error:
        if path is not None:
            raise CantRun(f'cannot open the control socket ({error})') from None
        message = f'there is no control socket, so this pool can only be operated by signals ({error})'
        journal.note(logging.WARNING, message, 'no-control-socket')
        return Door(policy.name or default, None, None)
    try:
        return Door(claim.name, Control(poller, desk, claim.listener, on_error, group), claim)
    except OSError as error:  # it can't be watched
        claim.close()
        raise CantRun(f'cannot open the control socket ({error})', error) from None
