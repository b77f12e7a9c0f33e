"""A run, from its policy to its exit status: what the host gives is looked at, borrowed, used by the loop, put back."""

import logging
import os
import sys
from random import Random
from typing import Final, NoReturn

from sergeant_linux.core.exit import HOST_CANT, TRY_AGAIN
from sergeant_linux.core.policy import Policy
from sergeant_linux.core.pool import Pool
from sergeant_linux.engine.borrowed import Host, open_missing_stdio
from sergeant_linux.engine.loop import Loop
from sergeant_linux.host import CantRun, descriptors, resources
from sergeant_linux.log.handler import IDENTIFIER, LogHandler, detach, make_logger
from sergeant_linux.log.words import Journal

LAST_LINES_PATIENCE: Final = 1.0
"""Seconds the last log lines may wait for room."""


def run(policy: Policy) -> NoReturn:
    """Run a pool as the whole purpose of this process: also reap every orphan that falls to it."""
    open_missing_stdio()
    sys.exit(supervise(policy, None, is_ours=True))


def supervise(policy: Policy, logger: logging.Logger | None, *, is_ours: bool) -> int:
    """Run a pool, and return the exit status. is_ours: this process has no other purpose. logger: None: our own."""
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
    pool: Pool | None = None
    journal = Journal(logger, lambda: pool.policy if pool is not None else policy)
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
            check_descriptors(policy, host)
            chance = Random()
            pool = Pool(policy, chance)
            status = _loop(pool, chance, journal, handler, host).run()
        if status == 0:
            journal.note(logging.INFO, 'no more workers to supervise', 'pool-stopped')
        journal.note(logging.INFO, 'exiting...', 'exit', status=status)
        return status
    except CantRun as error:
        journal.note(logging.CRITICAL, str(error), 'cant-run')
        return TRY_AGAIN if error.passes else HOST_CANT
    finally:
        if handler is not None:
            detach(logger, handler, patience=LAST_LINES_PATIENCE)


def check_descriptors(policy: Policy, host: Host) -> None:
    """Raise `CantRun` where the workers of this policy can't all be had."""
    few = descriptors.too_few(policy, host.open_before, descriptors.limit())
    if few is not None:
        raise CantRun(f'{few}; {descriptors.remedy(descriptors.needed(policy, host.open_before))}')


def _loop(pool: Pool, chance: Random, journal: Journal, handler: LogHandler | None, host: Host) -> Loop:
    """Return a loop that can run. Raises `CantRun` when the host does not give the descriptors it needs."""
    try:
        return Loop(pool, chance, journal, handler, host, os.environ)
    except OSError as error:
        raise CantRun(f'cannot begin: {error}', error) from None
