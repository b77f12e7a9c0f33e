"""The public class, and `python3 -m sergeant_linux.supervisor`.

The interface is that of sergeant.supervisor: the same command line, the same class, the same words in the log. What
it does differently is listed in the README.
"""

from sergeant_linux.kernel import module_path

if __name__ == '__main__':
    module_path.leave_working_folder()  # before anything is imported that could lie there

import logging
import os
import sys
from dataclasses import fields
from typing import Any, Final, NoReturn

from sergeant_linux.core.policy import Policy
from sergeant_linux.engine.run import run, supervise
from sergeant_linux.host import credentials


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
        children are neither ended nor reaped. As root, with workers of another user, folders that others can write to
        are off sys.path meanwhile.
        """
        is_root_for_others = os.geteuid() == 0 and credentials.account(self.policy).uid not in (None, 0)
        if is_root_for_others:
            module_path.withhold(guarded=False)
        try:
            status = supervise(self.policy, self._logger, is_ours=False)
        finally:
            if is_root_for_others:
                module_path.give_back()
        sys.exit(status)


def main() -> NoReturn:
    """The command line of `python3 -m sergeant_linux.supervisor`, which is the command `sergeant-linux run`."""
    from sergeant_linux.cli.verbs.run import parse_run  # who imports the class has no use for it

    run(parse_run(sys.argv[1:], os.environ, 'python3 -m sergeant_linux.supervisor'))


if __name__ == '__main__':
    from sergeant_linux import supervisor

    supervisor.main()
