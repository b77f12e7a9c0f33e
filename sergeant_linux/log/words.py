"""What the log says: the ancestor's words, and a record for programs beside each.

Facts: people grep sergeant.supervisor's messages and feed its `extra` to logstash.
Consequence: where it has a message for something, that is the message, to the letter, at its level, with its `extra`;
what it has no words for is said in words of ours. Each line also carries an `event` and `fields`, which the JSON
format writes out; the end of a life is exactly one record, on exactly one line.
"""

import logging
import signal
from contextlib import suppress
from dataclasses import asdict, fields
from typing import Any

from sergeant_linux.core.commands import (
    BudgetSpent,
    ReloadEnded,
    ReloadStarted,
    Report,
    RestartEnded,
    Scaled,
    StragglersRemain,
    WorkerExited,
    WorkerHung,
    WorkerKilled,
    WorkerReady,
    WorkerSpawned,
    WorkerSpawnFailed,
    WorkerStartTimedOut,
    WorkerSucceeds,
)
from sergeant_linux.core.policy import PolicyNow
from sergeant_linux.core.reload import Phase
from sergeant_linux.core.result import (
    ASKED_TO_STOP,
    CLASS_NOT_FOUND,
    INTERNAL_FAILURE,
    MODULE_NOT_FOUND,
    Ending,
    MemoryEvidence,
    OomScope,
    Outcome,
    Request,
    Result,
)
from sergeant_linux.core.units import format_size, format_span
from sergeant_linux.log.recent import Recent

Words = tuple[int, str]
"""A level and a message."""


class Journal:
    """Writes what happens to the logger."""

    def __init__(self, logger: logging.Logger, policy: PolicyNow) -> None:
        self._logger = logger
        self._policy = policy
        self.recent = Recent()

    def note(self, level: int, message: str, event: str, /, summary: object = None, **fields: object) -> None:
        """Write one line: the message, its event, and the fields that belong to it."""
        self.recent.add(logging.getLevelName(level).lower(), event, message, fields)
        extra: dict[str, object] = {'supervisor': self._signature(), 'event': event, 'fields': fields}
        if summary is not None:
            extra['summary'] = summary
        with suppress(Exception):  # a handler of the program's that raises is no reason to end a pool
            self._logger.log(level, message, extra=extra)

    def failure(self, message: str) -> None:
        """Write an error of our own, with its traceback."""
        extra = {'supervisor': self._signature(), 'event': 'internal-error', 'fields': {}}
        with suppress(Exception):
            self._logger.critical(message, exc_info=True, extra=extra)

    def _signature(self) -> dict[str, object]:
        policy = self._policy()
        return {
            'worker_module_name': policy.worker_module_name,
            'worker_class_name': policy.worker_class_name,
            # None: it is `auto`, and there is nothing that it could be
            'concurrent_workers': policy.concurrent_workers or None,
            'max_worker_memory_usage': policy.max_worker_memory_usage or None,
        }

    def tell(self, report: Report, *, stopping: bool) -> None:
        """Write what the core reports."""
        match report:
            case WorkerSpawned(slot, life, pid, predecessor):
                message = (
                    f'spawned a new worker at pid: {pid}'
                    if predecessor is None
                    else f'worker({predecessor}) was respawned as worker({pid})'
                )
                self.note(logging.INFO, message, 'worker-spawn', slot=slot, life=life, pid=pid, predecessor=predecessor)
            case WorkerReady(slot, life, pid, after):
                message = f'worker({pid}) is ready after {format_span(after)}'
                self.note(logging.DEBUG, message, 'worker-ready', slot=slot, life=life, pid=pid, after_seconds=after)
            case WorkerSpawnFailed(slot, life, reason, restart_in):
                message = f'a worker for slot {slot} could not be spawned: {reason}'
                fields = {'slot': slot, 'life': life, 'reason': reason, 'restart_in_seconds': restart_in}
                self.note(logging.ERROR, message, 'worker-spawn-failed', **fields)
            case WorkerExited():
                self._tell_exit(report, stopping=stopping)
            case WorkerKilled(slot, life, pid):
                self.note(logging.INFO, f'killing a worker: {pid}', 'worker-kill', slot=slot, life=life, pid=pid)
            case WorkerStartTimedOut(slot, life, pid, after):
                message = f'worker({pid}) was not ready within {format_span(after)}: stopping it'
                self.note(logging.ERROR, message, 'worker-start-timeout', slot=slot, life=life, pid=pid)
            case WorkerSucceeds(slot, life, pid, request, measured):
                reason = {
                    Request.MEMORY_HIGH: f'it stays over its memory mark with {format_size(measured or 0)}',
                    Request.LIFETIME: 'it has reached its lifetime',
                    Request.RESTART: 'its restart was asked for',
                    Request.RELOAD: 'it runs other code',
                }[request]
                message = f'worker({pid}) will be replaced when its successor is ready: {reason}'
                fields = {'slot': slot, 'life': life, 'pid': pid, 'request': request, 'memory_bytes': measured}
                self.note(logging.INFO, message, 'worker-succession', **fields)
            case WorkerHung(slot, life, pid, reason):
                message = f'worker({pid}) is taken for hung: {reason}: stopping it'
                self.note(logging.ERROR, message, 'worker-hung', slot=slot, life=life, pid=pid, reason=reason)
            case ReloadStarted(generation):
                message = f'reload: the code is loaded anew, as generation {generation}'
                self.note(logging.INFO, message, 'reload', generation=generation)
            case ReloadEnded(generation, phase, changed, of, reason):
                self._tell_reload(generation, phase, changed, of, reason)
            case RestartEnded(changed, of, reason):
                level = logging.ERROR if reason is not None else logging.INFO
                message = f'restart: {changed} of {of} workers were replaced{because(reason)}'
                self.note(level, message, 'restart-end', changed=changed, of=of, reason=reason)
            case StragglersRemain(slot, life, after):
                span = format_span(after)
                message = f'what life {life} of slot {slot} has started is still there {span} after SIGKILL'
                self.note(logging.ERROR, message, 'stragglers-remain', slot=slot, life=life)
            case BudgetSpent(slot):
                budget = self._policy().restart_budget
                message = f'the restart budget of {budget} is spent: slot {slot} is not restarted, the pool stops'
                self.note(logging.CRITICAL, message, 'restart-budget-spent', slot=slot, budget=str(budget))
            case Scaled(before, after):
                message = (
                    f'the number of workers goes from {before} to {after}'
                    if before != after
                    else f'the number of workers stays at {after}: a pool has at least one'
                )
                self.note(logging.INFO, message, 'scale', before=before, after=after)

    def _tell_reload(self, generation: int, phase: str, changed: int, of: int, reason: str | None) -> None:
        level = logging.ERROR if phase == Phase.FAILED else logging.INFO
        message = f'reload: generation {generation} is {phase}, {changed} of {of} workers have changed{because(reason)}'
        fields = {'generation': generation, 'phase': phase, 'changed': changed, 'of': of, 'reason': reason}
        self.note(level, message, 'reload-end', **fields)

    def _tell_exit(self, exited: WorkerExited, *, stopping: bool) -> None:
        ending, final = exited.ending, exited.ending.report
        level, message = self._words_for(exited)
        summary: dict[str, Any] = {}
        if final is not None:
            summary = {**(final.summary or {}), 'return_code': final.return_code}
            if final.exception is not None:
                summary |= {'exception': final.exception, 'stacktrace': final.stacktrace}
        record = exit_record(exited, self._policy().max_worker_memory_usage)
        if final is not None and final.unkillable_threads:
            summary['unkillable_threads'] = list(final.unkillable_threads)
            threads = f'worker({exited.pid}) had unkillable_threads: {summary["unkillable_threads"]}'
            self.note(logging.WARNING, threads, 'unkillable-threads', pid=exited.pid, life=exited.life)
        self.note(level, message, 'worker-exit', summary=summary, **record)
        for level, detail in self._details(exited):
            self.note(level, detail, 'worker-exit-detail', pid=exited.pid, life=exited.life)
        if ending.return_code == ASKED_TO_STOP and exited.outcome in (Outcome.WANTS_POOL_STOP, Outcome.FINISHED):
            self.note(logging.INFO, f'worker({exited.pid}) has stopped', 'worker-stopped', pid=exited.pid)
        elif stopping:
            message = 'not going to respawn since the stop process has started'
            self.note(logging.INFO, message, 'worker-not-respawned', slot=exited.slot)

    def _words_for(self, exited: WorkerExited) -> Words:
        """Return the ancestor's words for this end."""
        policy, ending = self._policy(), exited.ending
        worker, code = f'worker({exited.pid})', ending.return_code
        exception = one_line(ending.report.exception) if ending.report is not None else None
        if ending.stolen:
            return logging.ERROR, f'{worker} was reaped by somebody else: how it ended is not known'
        if exited.result is Result.MEMORY_MAX:
            return logging.WARNING, f'{worker} exceeded the maximum memory limit: {exited.measured}'
        if exited.result is Result.OOM_KILL:
            return logging.WARNING, self._words_for_oom(worker, ending)
        match code:
            case 0:
                return logging.INFO, f'{worker} has finished successfully'
            case 1:
                return logging.CRITICAL, f'{worker} execution has failed with the following exception: {exception}'
            case 2 if not exited.was_ready:
                return logging.CRITICAL, f'could not load worker module: {policy.worker_module_name}'
            case 3 if not exited.was_ready:
                name = f'{policy.worker_module_name}.{policy.worker_class_name}'
                return logging.CRITICAL, f'could not find worker class: {name}'
            case 4:
                return logging.INFO, f'{worker} has requested to respawn'
            case 5:
                return logging.INFO, f'{worker} has requested to stop'
            case 6:
                return logging.CRITICAL, f'{worker} internal execution has failed'
            case 7 if not exited.was_ready:
                return (
                    logging.CRITICAL,
                    f'{worker} importing the worker module has raised an exception: {exception}',
                )
        status = code if code is not None else -(ending.signal or 0)
        asked = exited.request is not None and exited.result is Result.SUCCESS
        level = logging.INFO if asked else logging.CRITICAL
        return level, f'{worker} execution has been interrupted with return code: {status}'

    def _words_for_oom(self, worker: str, ending: Ending) -> str:
        memory = ending.memory
        if memory is None:
            container = ending.oom_around is OomScope.CONTAINER
            whose = 'the memory limit of the container' if container else 'the memory of the host'
            bytes_at_most = f', with {ending.max_rss_bytes} bytes at most' if ending.max_rss_bytes is not None else ''
            return f'{worker} was killed by the kernel for {whose}{bytes_at_most}'
        if memory.oom_scope is OomScope.WORKER:
            most = memory.peak_bytes if memory.peak_bytes is not None else memory.limit_bytes
            return f'{worker} exceeded the maximum memory limit: {most}'
        whose = 'the memory limit of the pool' if memory.oom_scope is OomScope.POOL else 'a memory limit above the pool'
        left = ''
        if memory.left_shmem:
            left = f'; workers that have ended left files in memory (tmpfs) that take {memory.left_shmem} bytes of it'
        return f'{worker} was killed by the kernel for {whose}, with {memory.peak_bytes} bytes at most{left}'

    def _details(self, exited: WorkerExited) -> list[Words]:
        """Return what the ancestor leaves out and an operator needs."""
        final, worker = exited.ending.report, f'worker({exited.pid})'
        details: list[Words] = []
        if final is not None and final.exception and exited.ending.return_code in (
            MODULE_NOT_FOUND,
            CLASS_NOT_FOUND,
            INTERNAL_FAILURE,
        ):
            details.append((logging.CRITICAL, f'{worker} has reported: {one_line(final.exception)}'))
        memory = exited.ending.memory
        if memory is not None and memory.oom_kills and exited.result is not Result.OOM_KILL:
            killed = f'something that {worker} had started was killed by the kernel for want of memory'
            details.append((logging.WARNING, killed))
        if exited.outcome is Outcome.STOPPED_BY_STRANGER:
            details.append((logging.WARNING, f'{worker} was told to stop by somebody else: replacing it'))
        return details


def exit_record(exited: WorkerExited, limit: int | None) -> dict[str, object]:
    """Return the record of the end of a life under this memory limit.

    Times in seconds, memory in bytes; None: not known, or not so.
    """
    ending = exited.ending
    return {
        'slot': exited.slot,
        'life': exited.life,
        'pid': exited.pid,
        'result': str(exited.result),
        'return_code': ending.return_code,
        'signal': signal_name(ending.signal),
        'request': str(exited.request) if exited.request is not None else None,
        'uptime_seconds': round(exited.uptime, 3),
        'max_rss_bytes': ending.max_rss_bytes,
        'cpu_seconds': ending.cpu_seconds,
        'memory': memory_record(exited.ending, limit),
        'restart_in_seconds': round(exited.restart_in, 3) if exited.restart_in is not None else None,
        'exception': ending.report.exception if ending.report is not None else None,
    }


def memory_record(ending: Ending, limit: int | None) -> dict[str, object]:
    """Return what is known of a life's memory: counted by its leaf, or what the own samples have shown."""
    if ending.memory is not None:
        return {'backend': 'cgroup', **asdict(ending.memory)}
    nothing: dict[str, object] = {field.name: None for field in fields(MemoryEvidence)}
    if ending.oom_around is not None:
        nothing |= {'oom_scope': ending.oom_around, 'main_killed': True}
    return {'backend': 'rss', **nothing, 'limit_bytes': limit, 'peak_bytes': ending.max_rss_bytes}


def one_line(text: str | None) -> str | None:
    """Return the text without line breaks: a worker's words make no log lines of their own."""
    return text and text.replace('\r', '\\r').replace('\n', '\\n')


def because(reason: str | None) -> str:
    """Return what follows a message for this reason."""
    return f': {one_line(reason)}' if reason is not None else ''


def signal_name(signum: int | None) -> str | None:
    """Return the signal's name, its number for a nameless (real-time) one, None for none."""
    if signum is None:
        return None
    try:
        return signal.Signals(signum).name
    except ValueError:
        return f'SIG{signum}'
