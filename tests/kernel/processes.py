"""Real processes for the tests of the kernel layer.

A test forks what it needs, waits on events and never on time, and every child is killed and reaped at its end.
"""

import json
import os
import re
import select
import signal
import subprocess
import sys
import textwrap
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final, NoReturn

from sergeant_linux.kernel.pidref import PidRef

DEADLINE: Final = 10.0
"""How long, in seconds, a test waits for something that comes at once."""

REPOSITORY: Final = Path(__file__).parents[2]

Body = Callable[[], object]
Fork = Callable[[Body], PidRef]
InChild = Callable[[Body], Any]


class Event:
    """Something that one process tells another that inherited it (eventfd(2))."""

    def __init__(self) -> None:
        self.fd = os.eventfd(0)

    def set(self) -> None:
        os.eventfd_write(self.fd, 1)

    def wait(self) -> None:
        assert readable(self.fd), 'the event has not come'
        os.eventfd_read(self.fd)


def readable(fd: int, patience: float = DEADLINE) -> bool:
    """Return whether there is something to read, or the end, within `patience` seconds."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(patience * 1000))


def sleep_for_ever() -> NoReturn:
    while True:
        signal.pause()


def be(body: Body) -> NoReturn:
    """Be a child: run `body`, leave with the number it returns, with 0, or with 99 when it raises."""
    status = 99
    try:
        result = body()
        status = result if isinstance(result, int) else 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


@contextmanager
def forking() -> Iterator[Fork]:
    """Give a function that forks a child. At the end all of them are killed, reaped and closed."""
    with ExitStack() as stack:

        def fork(body: Body) -> PidRef:
            pid = os.fork()
            if pid == 0:
                be(body)
            process = stack.enter_context(PidRef.open(pid))
            stack.callback(kill_and_reap, process)
            return process

        yield fork


def kill_and_reap(process: PidRef) -> None:
    if process.fd < 0:
        return
    process.signal(signal.SIGKILL)
    assert process.exited(DEADLINE)
    try:
        process.reap()
    except ChildProcessError:
        pass  # the test has done it


def in_child(body: Body) -> Any:
    """Return what `body` returns, as JSON carries it, when it runs in a forked child; its failure is this test's."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        answer: dict[str, object] = {}
        try:
            answer['result'] = body()
        except BaseException:
            answer['failure'] = traceback.format_exc()
        os.write(writer, json.dumps(answer).encode() + b'\n')
        os._exit(0)
    os.close(writer)
    with open(reader, 'rb') as pipe:
        line = pipe.readline()
    os.waitpid(pid, 0)
    assert line, 'the child has ended without an answer'
    answer = json.loads(line)
    assert 'failure' not in answer, answer['failure']
    return answer['result']


def run_python(script: str, *options: str, **keywords: Any) -> Any:
    """Return what a fresh interpreter has in `answer`, as JSON carries it, when it has run the script."""
    program = textwrap.dedent(script) + '\nimport json; print(json.dumps(answer))'
    command = [sys.executable, *options, '-c', program]
    done = subprocess.run(command, cwd=REPOSITORY, stdout=subprocess.PIPE, check=True, **keywords)
    return json.loads(done.stdout)


def signal_state() -> dict[str, str]:
    """What the kernel and Python have for the calling thread: signals, handlers, wakeup fd, number of descriptors."""
    status = Path('/proc/thread-self/status').read_text()
    ours = sum(1 << signum - 1 for signum in signal.valid_signals())  # libc has two signals for itself
    state = {name: hex(int(bits, 16) & ours) for name, bits in re.findall(r'(Sig(?:Blk|Ign|Cgt|Pnd)):\t(\w+)', status)}
    state['handlers'] = repr([signal.getsignal(signum) for signum in sorted(signal.valid_signals())])
    wakeup_fd = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(wakeup_fd)
    return state | {'wakeup fd': str(wakeup_fd), 'fds': str(len(os.listdir('/proc/self/fd')))}
