"""The birth of a worker, seen by the newborn: from the fork to its first line of user code.

Facts: a newborn is forked by an intermediate that leaves at once, and so becomes the child of the nearest subreaper:
the supervisor. PR_SET_PDEATHSIG concerns the parent of the moment and is signalled again for each later one
(prctl(2)); getppid() tells who it is, and any of them can die between two instructions. SIGURG is ignored by default,
so a stray one harms nobody.
Consequence: with all signals blocked, ask for SIGURG at the intermediate's end, wait until it is not the parent any
more, ask for SIGKILL at the next parent's end, and go on only if that parent is the supervisor. A change of uid clears
what was asked for, so it comes in between: before the second asking, and before hello, so that what can't be is told.

Invariant: no user code before GO, and none in a process whose supervisor is gone.
"""

import fcntl
import gc
import json
import os
import signal
import socket
import sys
from array import array
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final, NoReturn

from sergeant_linux.forkserver import conditions
from sergeant_linux.kernel import module_path, prctl, proctitle, signals, spawn
from sergeant_linux.wire import gate as gates
from sergeant_linux.wire.marks import LIFE, POOL, SLOT, mark_this_process
from sergeant_linux.worker import main as worker

GATE_FD: Final = spawn.FIRST_FD

def be_born(
    gate: socket.socket,
    fds: Mapping[str, int],
    *,
    supervisor: int,
    intermediate: int,
    terms: Mapping[str, Any],
    fresh_interpreter: bool,
) -> NoReturn:
    """Become a worker. Called in the new process, with all signals blocked; never returns.

    `fds`: what it has beside its gate, by name (`page`, `stacks`).
    """
    prctl.set_pdeathsig(signal.SIGURG)
    os.setsid()
    while os.getppid() == intermediate:
        signal.sigtimedwait([signal.SIGURG], 1.0)
    try:
        conditions.apply(terms)
    except conditions.CantBe as error:
        gates.send(gate, {'type': 'refused', 'reason': str(error)})
        os._exit(1)
    module_path.give_back()
    prctl.set_pdeathsig(signal.SIGKILL)
    stay_only_with(supervisor)
    say_hello(gate)
    go = wait_for_go(gate, peek=fresh_interpreter)
    stay_only_with(supervisor)
    marks = {SLOT: str(go['slot']), LIFE: str(go['life']), POOL: str(go['pool'])}
    os.environ.update(marks)
    mark_this_process(go['pool'], go['life'])
    if fresh_interpreter:
        exec_worker(gate, fds, supervisor, terms)
    for key, value in marks.items():
        proctitle.set_environ_entry(key, value)
    become(gate, fds, go)


def stay_only_with(supervisor: int) -> None:
    """Leave at once unless the supervisor is the parent of this process."""
    if os.getppid() != supervisor:
        os._exit(0)


def say_hello(gate: socket.socket) -> None:
    """Send the pid and a pidfd of this process. Nobody there to hear it: leave."""
    me = os.pidfd_open(os.getpid())
    try:
        gate.sendmsg(
            [gates.encode({'type': 'hello', 'pid': os.getpid()})],
            [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array('i', [me]))],
            socket.MSG_NOSIGNAL,
        )
    except OSError:
        os._exit(0)
    os.close(me)


def wait_for_go(gate: socket.socket, *, peek: bool) -> Mapping[str, Any]:
    """Wait at the gate. Its end (EOF, ECONNRESET) means that this life was cancelled: leave."""
    with suppress(OSError, gates.Malformed):
        message = gates.receive(gate, flags=socket.MSG_PEEK if peek else 0)
        if message is not None and message['type'] == 'go':
            return message
    os._exit(0)


def exec_worker(gate: socket.socket, fds: Mapping[str, int], supervisor: int, terms: Mapping[str, Any]) -> NoReturn:
    """Go on in a fresh interpreter, which finds GO still unread at the gate, and `fds` after that, in their order.
    PDEATHSIG and the session survive the exec."""
    beyond = GATE_FD + 1 + len(fds)
    lifted = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, beyond) for fd in (gate.fileno(), *fds.values())]
    for number, fd in enumerate(lifted, GATE_FD):
        os.dup2(fd, number)
    signals.reset_to_default()
    command = spawn.command_line(__name__, [str(supervisor), json.dumps(terms), *fds])
    os.execve(sys.executable, command, os.environ)


def become(gate: socket.socket, fds: Mapping[str, int], go: Mapping[str, Any]) -> NoReturn:
    """Take the worker's name and run it."""
    title = f'sergeant-linux: worker {go["module"]}.{go["class"]} [{go["slot"]}]'
    proctitle.set_title(title)
    prctl.set_name('sergeant-linux')
    gc.enable()
    reseed()
    signals.reset_to_default()
    worker.run(gate, go, **fds)


def reseed() -> None:
    """Give this worker random numbers of its own: `random` does it at fork, numpy's global generator doesn't."""
    numpy = sys.modules.get('numpy')
    if numpy is not None:
        numpy.random.seed()


def main(arguments: list[str]) -> None:
    """The fresh interpreter of a worker that was exec'd."""
    conditions.restrict_dumps(json.loads(arguments[1]))
    names = arguments[2:]
    fds = spawn.adopt_fds(1 + len(names))
    proctitle.set_title('sergeant-linux: worker')
    module_path.take_natural(os.environ.get(module_path.VARIABLE))  # from here on, what we import may be the user's
    sys.argv[:] = ['']
    gate = socket.socket(fileno=GATE_FD)
    stay_only_with(int(arguments[0]))
    become(gate, dict(zip(names, fds[1:], strict=True)), wait_for_go(gate, peek=False))
