"""What ties one life to the supervisor: its gate, its page, the pipe for its stacks, and its pidfd.

Facts: what comes through the gate was written by a process that may be broken or hostile; a worker's children may
hold the gate open after its end.
Consequence: messages are read a few at a time, what is malformed is counted and dropped, the first final report
counts, and the end of a life is told by its pidfd alone.

Invariant: a pidfd is reaped once; after `bury` nothing of a life is open.
"""

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Final

from sergeant_linux.containment.leaves import Leaf
from sergeant_linux.core.result import Ending, FinalReport
from sergeant_linux.kernel import procfs
from sergeant_linux.kernel.pidref import PidRef
from sergeant_linux.wire import gate as gates
from sergeant_linux.wire.scoreboard import Page

MESSAGES_A_TURN: Final = 8
"""How many messages of one worker are read before the others have their turn."""

LAST_MESSAGES: Final = 64
"""How many messages are read of a worker that has ended: more than its socket can hold of the size of a report."""


class Refused(Exception):
    """No worker will come of this life; the text says why."""


class Unsaid(Refused):
    """Nobody has said why: who was to say it may be gone."""


class Lifeline:
    """One life, from the moment it was asked for to its burial."""

    def __init__(
        self,
        number: int,
        gate: socket.socket,
        leaf: Leaf | None,
        page: Page | None = None,
        stacks: int | None = None,
    ) -> None:
        self.number = number
        self.gate = gate
        self.leaf = leaf
        self.page = page
        self.stacks = stacks
        self.process: PidRef | None = None
        self.session_entry: int | None = None
        self.malformed = 0
        self._report: FinalReport | None = None

    def hear_hello(self) -> PidRef | None:
        """Return the newborn's process if it has said hello; None: not yet. Raises `Refused` when it never will."""
        try:
            data, fds = self._receive_with_fds()
        except BlockingIOError:
            return None
        except OSError as error:
            raise Unsaid(f'its gate broke: {error}') from None
        if not data:
            killed = self.leaf.end_at_birth() if self.leaf is not None else None
            raise Refused(killed) if killed else Unsaid('its gate was closed before it said hello')
        try:
            message = gates.decode(data)
        except gates.Malformed as error:
            message = {'type': 'refused', 'reason': str(error)}
        if message['type'] != 'hello' or not fds:
            for fd in fds:
                os.close(fd)
            if message['type'] == 'hello':  # recvmsg(2): a descriptor that can't be installed is dropped (MSG_CTRUNC)
                raise Refused('there was no free descriptor to hold it by (see RLIMIT_NOFILE)')
            raise Refused(str(message.get('reason', f'it said {message["type"]} instead of hello')))
        self.process = PidRef(int(message['pid']), fds[0])
        return self.process

    def _receive_with_fds(self) -> tuple[bytes, list[int]]:
        """A peer that died with unread data shows as ECONNRESET before the messages it had sent: read again."""
        for attempt in (1, 2):
            try:
                data, fds, _, _ = socket.recv_fds(self.gate, gates.MAX_MESSAGE, 1)
            except ConnectionResetError:
                if attempt == 2:
                    raise
            else:
                return data, fds
        raise AssertionError('unreachable')

    def say(self, message: dict[str, Any]) -> bool:
        """Send the worker a message; False when it can't be sent, and then its pidfd tells the rest."""
        return gates.send(self.gate, message)

    def hear(self, at_most: int = MESSAGES_A_TURN) -> Iterator[gates.Message]:
        """Yield what the worker says, at most so many messages; raises EOFError at its end of the gate.

        A final report is kept for the burial and yielded like the others.
        """
        for _ in range(at_most):
            try:
                message = gates.receive(self.gate)
            except BlockingIOError:
                return
            except gates.Malformed:
                self.malformed += 1
                continue
            except OSError:
                raise EOFError from None
            if message is None:
                raise EOFError
            if message['type'] == 'final' and self._report is None:
                self._report = final_report(message)
            yield message

    def end(self, max_rss_bytes: int | None) -> Ending:
        """Reap the process, which has ended, and return the evidence. What is left of its process group ends too."""
        assert self.process is not None
        memory = cpu_seconds = stat = None
        page = self.page.look() if self.page is not None else None
        with suppress(OSError):  # no free descriptor (EMFILE, ENFILE): what can't be read is not known
            memory = self.leaf.evidence(self.process.pid) if self.leaf is not None else None
            stat = procfs.read_stat(self.process.pid)
            cpu_seconds = self._cpu_seconds(stat)
        if stat is not None and stat.session == stat.pid:
            with suppress(OSError):  # all at once, so that nothing in its group escapes by forking
                os.killpg(stat.pid, signal.SIGKILL)  # noqa: TID251  # the zombie still holds the number of its group
        try:
            ended = self.process.reap()
        except ChildProcessError:
            return Ending(None, None, stolen=True, report=self._report, max_rss_bytes=max_rss_bytes, memory=memory)
        assert ended is not None, f'process {self.process.pid} was reaped before it had ended'
        return Ending(
            exit_code=ended.exit_code,
            signal=ended.signal,
            core_dumped=ended.core_dumped,
            report=self._report,
            max_rss_bytes=max_rss_bytes,
            cpu_seconds=cpu_seconds,
            memory=memory,
            tasks_done=page.tasks_done if page is not None else None,
            tasks_failed=page.tasks_failed if page is not None else None,
        )

    def _cpu_seconds(self, stat: procfs.Stat | None) -> float | None:
        """Return what the life has used: all that ran in its leaf, or else the worker alone."""
        if self.leaf is not None and (used := self.leaf.cpu_seconds()) is not None:
            return round(used, 3)
        return round(stat.cpu_seconds, 3) if stat is not None else None

    def close(self) -> None:
        """Let go of the gate, the page, the pipe and the process, once. The loop has unregistered them."""
        self.gate.close()
        if self.page is not None:
            self.page.close()
        if self.stacks is not None:
            os.close(self.stacks)
        self.page = self.stacks = None
        if self.process is not None:
            self.process.close()


def final_report(message: gates.Message) -> FinalReport:
    """Return a worker's last words as far as they make sense; nothing in them is trusted."""
    code, summary, threads = message.get('return_code'), message.get('summary'), message.get('unkillable_threads')
    return FinalReport(
        return_code=code if isinstance(code, int) else 1,
        exception=_text(message.get('exception')),
        stacktrace=_text(message.get('stacktrace')),
        summary=summary if isinstance(summary, dict) else None,
        unkillable_threads=tuple(map(str, threads)) if isinstance(threads, list) else (),
        received_stop_signal=message.get('received_stop_signal') is True,
    )


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
