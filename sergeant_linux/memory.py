"""Watch the memory of workers: one protocol, and the watch that polls /proc.

Facts: RSS is read from a kept-open /proc/PID/statm in some 4 µs and can't be another process's (the descriptor
follows the process, not the number). PSS and USS make the kernel walk all pages (26 ms for 2 GB), a worker's whole
tree takes a look at every process of the host.
Consequence: RSS is read in the loop, each life at its own pace (core/memory.py). The dear measures are read by a
process of their own, the meter, which takes at most 1 % of a core for them; the loop only sends pids and hears
numbers.

Invariant: no limit and no mark, no descriptor, no poll, no wake-up.
"""

import json
import signal
import socket
from collections.abc import Mapping
from contextlib import suppress
from typing import Final, Protocol

from sergeant_linux import gate as gates
from sergeant_linux.core.deadlines import Deadlines
from sergeant_linux.core.events import LifeEvent, MemoryExceeded, MemoryHigh
from sergeant_linux.core.memory import Finding, Gauge
from sergeant_linux.core.policy import Policy
from sergeant_linux.forkserver import launch
from sergeant_linux.kernel.pidref import PidRef
from sergeant_linux.kernel.procfs import Statm

METER: Final = 'sergeant_linux.meter'


class NearLimit:
    """A life is close to its limit as soon as it is ready; bytes."""

    __slots__ = ('life', 'limit', 'measured')

    def __init__(self, life: int, measured: int, limit: int) -> None:
        self.life, self.measured, self.limit = life, measured, limit


class MemoryWatch(Protocol):
    """Watches lives from their birth to their end."""

    def watch(self, life: int, pid: int, now: float) -> None:
        """Begin with this life."""

    def ready(self, life: int, now: float) -> None:
        """The worker is ready: its mark may count from now on."""

    def forget(self, life: int) -> int | None:
        """The life is over: let go of it and return its highest sample in bytes."""

    def next_look(self) -> float | None:
        """Return when `look` is due; None when nothing is to be looked at."""

    def look(self, now: float) -> list[LifeEvent | NearLimit]:
        """Look at every life that is due and return what was found."""

    def close(self) -> None:
        """Let go of everything."""


class RssWatch:
    """Reads the RSS of workers in the loop."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._statm: dict[int, Statm] = {}
        self._gauges: dict[int, Gauge] = {}
        self._looks: Deadlines[int] = Deadlines()
        self.process: PidRef | None = None

    def watch(self, life: int, pid: int, now: float) -> None:
        policy = self._policy
        if policy.max_worker_memory_usage is None and policy.worker_memory_high is None:
            return
        with suppress(OSError):
            self._statm[life] = Statm(pid)
            self._gauges[life] = Gauge(
                policy.max_worker_memory_usage, policy.worker_memory_high, policy.memory_poll_interval
            )
            self._looks.arm(life, now)

    def ready(self, life: int, now: float) -> None:
        if life in self._gauges:
            self._gauges[life].ready(now)
            self._looks.arm(life, now)

    def forget(self, life: int) -> int | None:
        self._looks.disarm(life)
        statm = self._statm.pop(life, None)
        if statm is not None:
            statm.close()
        gauge = self._gauges.pop(life, None)
        return gauge.highest if gauge is not None else None

    def next_look(self) -> float | None:
        return self._looks.next()

    def look(self, now: float) -> list[LifeEvent | NearLimit]:
        found: list[LifeEvent | NearLimit] = []
        for life in self._looks.elapse(now):
            with suppress(ProcessLookupError):
                measured = self._statm[life].rss()
                if measured > 0:
                    found += interpret(life, self._gauges[life], measured, now)
                self._looks.arm(life, now + self._gauges[life].next_look(measured))
        return found

    def close(self) -> None:
        for life in list(self._gauges):
            self.forget(life)


class MeterWatch:
    """Has the dear measures taken by the meter; the loop watches `socket` and calls `hear`."""

    def __init__(self, policy: Policy, environ: Mapping[str, str]) -> None:
        self._policy = policy
        self._environ = environ
        self._pids: dict[int, int] = {}
        self._gauges: dict[int, Gauge] = {}
        self._looks: Deadlines[int] = Deadlines()
        self._asked: set[int] = set()
        self.socket: socket.socket | None = None
        self.process: PidRef | None = None

    def start(self) -> None:
        """Start the meter. Raises OSError when no process can be made."""
        ours, theirs = gates.pair()
        try:
            arguments = [self._policy.memory_measure]
            self.process = launch.launch(METER, arguments, [theirs.fileno()], self._environ)
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        self.socket = ours

    def watch(self, life: int, pid: int, now: float) -> None:
        policy = self._policy
        self._pids[life] = pid
        self._gauges[life] = Gauge(
            policy.max_worker_memory_usage, policy.worker_memory_high, policy.memory_poll_interval
        )
        self._looks.arm(life, now)

    def ready(self, life: int, now: float) -> None:
        if life in self._gauges:
            self._gauges[life].ready(now)
            self._looks.arm(life, now)

    def forget(self, life: int) -> int | None:
        self._looks.disarm(life)
        self._asked.discard(life)
        self._pids.pop(life, None)
        gauge = self._gauges.pop(life, None)
        return gauge.highest if gauge is not None else None

    def next_look(self) -> float | None:
        return self._looks.next()

    def look(self, now: float) -> list[LifeEvent | NearLimit]:
        for life in self._looks.elapse(now):
            if life in self._asked:
                continue
            request = json.dumps([life, self._pids[life]]).encode()
            try:
                if self.socket is None:
                    raise BlockingIOError
                self.socket.send(request, socket.MSG_NOSIGNAL)
                self._asked.add(life)
            except OSError:
                self._looks.arm(life, now + self._policy.memory_poll_interval)
        return []

    def hear(self, now: float) -> list[LifeEvent | NearLimit] | None:
        """Take in what the meter has measured; None: it is gone."""
        assert self.socket is not None
        found: list[LifeEvent | NearLimit] = []
        while True:
            try:
                data = self.socket.recv(256)
            except BlockingIOError:
                return found
            except OSError:
                return None
            if not data:
                return None
            life, measured = json.loads(data)
            if life in self._asked:
                self._asked.discard(life)
                gauge = self._gauges[life]
                if measured is not None:
                    found += interpret(life, gauge, measured, now)
                self._looks.arm(life, now + gauge.next_look(measured or 0))

    def stop_meter(self) -> None:
        """End the meter and let go of it; what it was asked and has not answered is due again."""
        for life in self._asked:
            self._looks.arm(life, 0.0)
        self._asked.clear()
        if self.process is not None:
            self.process.signal(signal.SIGKILL)
            self.process.exited(1.0)
            with suppress(ChildProcessError):
                self.process.reap()
            self.process.close()
        if self.socket is not None:
            self.socket.close()
        self.process = self.socket = None

    def close(self) -> None:
        self.stop_meter()


def interpret(life: int, gauge: Gauge, measured: int, now: float) -> list[LifeEvent | NearLimit]:
    """Return what one sample means."""
    match gauge.sample(measured, now):
        case Finding.OVER_LIMIT:
            return [MemoryExceeded(life, measured)]
        case Finding.OVER_MARK:
            return [MemoryHigh(life, measured)]
        case Finding.NEAR_LIMIT:
            return [NearLimit(life, measured, gauge.limit or 0)]
        case _:
            return []
