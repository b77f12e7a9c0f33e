"""The public class, and `python3 -m sergeant_linux.supervisor`.

The interface is that of sergeant.supervisor: the same command line, the same class, the same words in the log. What
it does differently is listed in the README.
"""

import logging
import os
import sys
from dataclasses import fields
from typing import Any, Final, NoReturn

from sergeant_linux import credentials, resources
from sergeant_linux.core.policy import Policy
from sergeant_linux.host import CantRun, Host, open_missing_stdio
from sergeant_linux.log import IDENTIFIER, LogHandler, detach, make_logger
from sergeant_linux.loop import Loop
from sergeant_linux.messages import Journal

HOST_CANT: Final = 4
"""Exit status when the host can't do what was asked for."""

LAST_LINES_PATIENCE: Final = 1.0
"""Seconds the last log lines may wait for room."""


class Supervisor:
    """Keeps `concurrent_workers` processes of one worker class running.

    worker_module_name, worker_class_name: what each worker imports and runs, as `python3 -m` in the working folder
    would find it. concurrent_workers: a number, or 'auto', as many as there are processors to use.
    max_worker_memory_usage: bytes (or '512M', or 'auto', its share of what there is); a worker over it is killed and
    replaced. None: no limit. logger: where to log; None: the logger 'Supervisor' with a handler to stderr. policy: any
    other knob, by the name of its flag (`timeout_stop=30`, `preload=True`, `restart_budget='10/1min'`); spans in
    seconds.

    Raises TypeError or ValueError for a value that can't be; an unknown user or group is one.
    """

    def __init__(
        self,
        worker_module_name: str,
        worker_class_name: str,
        concurrent_workers: int | str,
        max_worker_memory_usage: int | str | None = None,
        logger: logging.Logger | None = None,
        **policy: Any,
    ) -> None:
        unknown = sorted(policy.keys() - {field.name for field in fields(Policy)})
        if unknown:
            raise TypeError(f'there is no such knob: {", ".join(unknown)}')
        if logger is not None and not isinstance(logger, logging.Logger | logging.LoggerAdapter):
            raise TypeError(f'logger: expected a logging.Logger, not {logger!r}')
        self.policy: Final = Policy(
            worker_module_name=worker_module_name,
            worker_class_name=worker_class_name,
            **{'concurrent_workers': concurrent_workers, 'max_worker_memory_usage': max_worker_memory_usage, **policy},
        )
        credentials.account(self.policy)
        credentials.control_group(self.policy)
        self._logger = logger

    def start(self) -> NoReturn:
        """Run the pool until it has stopped, then leave with SystemExit and the pool's exit status.

        Must be called in the main thread (RuntimeError else). What it takes of this process while it runs (signal
        handlers, wakeup fd, signal mask, the subreaper flag, the descriptor limit) is put back. This process's other
        children are neither ended nor reaped.
        """
        sys.exit(_supervise(self.policy, self._logger, is_ours=False))


def run(policy: Policy) -> NoReturn:
    """Run a pool as the whole purpose of this process: also reap every orphan that falls to it."""
    open_missing_stdio()
    sys.exit(_supervise(policy, None, is_ours=True))


def _supervise(policy: Policy, logger: logging.Logger | None, *, is_ours: bool) -> int:
    handler: LogHandler | None = None
    if logger is None:
        logger, handler = make_logger(policy.log_level, policy.log_format, policy.name or IDENTIFIER, os.environ)
    cgroups = resources.limiting(policy)
    not_enough: resources.NotEnough | None = None
    try:
        resolved = resources.resolve(policy, cgroups)
    except resources.NotEnough as error:
        resolved, not_enough = resources.Resolved(policy, None), error
    policy = resolved.policy
    journal = Journal(logger, policy)
    try:
        if not_enough is not None:
            raise CantRun(str(not_enough))
        if resolved.told is not None:
            workers, limit = policy.concurrent_workers, policy.max_worker_memory_usage
            figures = {'concurrent_workers': workers, 'max_worker_memory_usage': limit}
            journal.note(logging.INFO, resolved.told, 'auto', **figures)
        for concern in resources.concerns(policy, cgroups):
            journal.note(logging.WARNING, str(concern), concern.event, remedy=concern.remedy)
        with Host(is_ours=is_ours) as host:
            status = _loop(policy, journal, handler, host).run()
        if status == 0:
            journal.note(logging.INFO, 'no more workers to supervise', 'pool-stopped')
        journal.note(logging.INFO, 'exiting...', 'exit', status=status)
        return status
    except CantRun as error:
        journal.note(logging.CRITICAL, str(error), 'cant-run')
        return HOST_CANT
    finally:
        if handler is not None:
            detach(logger, handler, patience=LAST_LINES_PATIENCE)


def _loop(policy: Policy, journal: Journal, handler: LogHandler | None, host: Host) -> Loop:
    """Return a loop that can run. Raises `CantRun` when the host does not give the descriptors it needs."""
    try:
        return Loop(policy, journal, handler, host, os.environ)
    except OSError as error:
        raise CantRun(f'cannot begin: {error}') from None


def main() -> NoReturn:
    """The command line of `python3 -m sergeant_linux.supervisor`."""
    from sergeant_linux.verbs.run import parse_run

    run(parse_run(sys.argv[1:], os.environ, 'python3 -m sergeant_linux.supervisor'))


if __name__ == '__main__':
    from sergeant_linux import supervisor

    supervisor.main()
