"""The fork server: a fresh process that imports what is preloaded and forks workers. It decides nothing and may die
at any time.

Facts: importing sergeant costs 250 ms, a fork of a process that has it 2 ms; a fork is only safe where no other
thread runs; garbage collection after a fork writes to every object and so copies every page.
Consequence: one thread, imports first, gc.freeze() before the first fork, one request at a time, all signals blocked.
A worker is forked by an intermediate that leaves, so it is the supervisor's child: this process's death needs no
bookkeeping, every request in flight ends as a hello or as an end of file on its gate.

While it imports, it dies with the supervisor. Once it serves it sees the end of its control socket instead, and buries
the pool, should the undertaker not be there to do it.

If what was preloaded has left threads running that stay there at a fork, the server says so, and by which module, and
leaves; its successor preloads nothing of the user's. What was imported decides about no signal here: without the
default of SIGCHLD no intermediate could be waited for.
"""

import errno
import gc
import importlib
import json
import os
import resource
import signal
import socket
import sys
import traceback
import warnings
from contextlib import suppress
from typing import Any, Final, NoReturn

from sergeant_linux.forkserver import burial, newborn
from sergeant_linux.kernel import journal, module_path, prctl, procfs, proctitle, signals, spawn
from sergeant_linux.kernel.pidref import PidRef
from sergeant_linux.wire import gate as gates
from sergeant_linux.wire import marks

CONTROL_FD, SESSIONS_FD = range(spawn.FIRST_FD, spawn.FIRST_FD + 2)

TRIAL_PATIENCE: Final = 1.0
"""Seconds that fork handlers of what was preloaded may take in a child that does nothing."""

MOST_FDS: Final = 4
"""How many descriptors come with a request at most: a gate, a leaf, a page, a pipe for stacks."""


def main(arguments: list[str]) -> None:
    """Serve until the supervisor's end of the control socket is closed."""
    config = json.loads(arguments[0])
    sys.argv[:] = ['']
    for mark in (marks.SLOT, marks.LIFE):
        os.environ.pop(mark, None)  # what is preloaded is in no life; the room for the marks stays in /proc/PID/environ
    prctl.set_pdeathsig(signal.SIGKILL)
    newborn.stay_only_with(config['supervisor'])
    spawn.adopt_fds(2)
    marks.mark_this_process(config['pool'], 0)
    resource.setrlimit(resource.RLIMIT_NOFILE, tuple(config['nofile']))
    proctitle.set_title(f'sergeant-linux: {config["title"]}')
    look_as_workers_do(config['conditions'])  # from here on, what we import may be the user's
    prctl.set_name(config['comm'])
    control = socket.socket(fileno=CONTROL_FD)
    journal.renew_streams(config['identifier'], os.environ)
    failed, leavers = preload(config)
    threads = threads_at_a_fork()
    gates.send(control, {'type': 'serving', 'threads': threads, 'leavers': leavers, 'failed': failed}, patience=1.0)
    if threads > 1:
        os._exit(0)  # not by way of the interpreter's end, which would wait for them
    gc.collect()
    gc.disable()
    gc.freeze()
    sys.stdout.flush()
    sys.stderr.flush()
    prctl.set_pdeathsig(0)
    server = Server(control, config)
    while server.serve():
        pass
    with suppress(OSError):
        bury_if_orphaned(config)
    os._exit(0)  # nobody is left to hear of what the user's code would do at the interpreter's end


def bury_if_orphaned(config: dict[str, Any]) -> None:
    """The control socket has ended. If that was because the supervisor was killed, end what it has left."""
    try:
        supervisor = PidRef.open(config['supervisor'])
    except ProcessLookupError:
        pass
    else:
        with supervisor:
            if os.getppid() == config['supervisor'] and not supervisor.exited(burial.PATIENCE):
                return
    burial.bury(config['pool'], config['folders'], SESSIONS_FD)


def look_as_workers_do(conditions: dict[str, Any]) -> None:
    """Look for modules as the workers will, but where they are of another uid, not where others than root can write."""
    module_path.take_natural(conditions['environ'].get(module_path.VARIABLE, os.environ.get(module_path.VARIABLE)))
    if conditions['uid'] is not None:
        module_path.withhold()


def set_signals() -> None:
    """Put back what was imported may have changed: all signals are blocked, none is ignored. Were it SIGCHLD, waitid(2)
    would find no intermediate."""
    signals.block_all()
    signals.reset_handlers()


def threads_at_a_fork() -> int:
    """Return how many threads this process has once it has forked.

    A library may end its own before each fork (OpenBLAS does, by pthread_atfork(3), and so numpy), and start them again
    when it is used: those harm no fork.
    """
    set_signals()
    if procfs.threads(os.getpid()) > 1:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore', DeprecationWarning)  # Python 3.12, of threads: whether they stay is asked
            child = os.fork()
        if child == 0:
            os._exit(0)
        with PidRef.open(child) as trial:
            trial.exited(TRIAL_PATIENCE)
            trial.end()
    return procfs.threads(os.getpid())


def preload(config: dict[str, Any]) -> tuple[list[dict[str, str]], list[str]]:
    """Import what is to be there before the first fork; return what could not be imported, and why, and the modules
    that have left threads.

    sergeant is a convenience (its absence is no fault), and so is the worker module: a worker that imports it itself
    finds the same fault and reports it in its own words. A module that was asked for by name is a promise. Where a
    worker would find another module of some name, in a folder that is withheld from us, there is no convenience.
    """
    failed, leavers = [], []
    threads = 1

    def look_for_threads(name: str) -> None:
        nonlocal threads
        before, threads = threads, threads_at_a_fork()
        if threads > before:
            leavers.append(name)

    before = set(sys.modules)
    for name in config['convenience']:
        with suppress(Exception, SystemExit):
            importlib.import_module(name)
        look_for_threads(name)
    if config['convenience'] and module_path.shadowed({name for name in sys.modules if '.' not in name} - before):
        be_without_convenience(config)
    for name in config['preload']:
        try:
            importlib.import_module(name)
        except (Exception, SystemExit) as error:
            failed.append({'module': name, 'exception': gates.cut(repr(error), 2000)})
            traceback.print_exc()
        look_for_threads(name)
    return failed, leavers


def be_without_convenience(config: dict[str, Any]) -> NoReturn:
    """Begin again, in the same process: what was imported can't be taken back."""
    for fd in (CONTROL_FD, SESSIONS_FD):
        os.set_inheritable(fd, True)
    command = spawn.command_line(__spec__.name, [json.dumps({**config, 'convenience': []})])
    os.execve(sys.executable, command, {**os.environ, marks.SLOT: marks.ROOM, marks.LIFE: marks.ROOM})


class Server:
    """Takes requests, one at a time, and forks what they ask for."""

    def __init__(self, control: socket.socket, config: dict[str, Any]) -> None:
        self._control = control
        self._config = config
        self._clones = True

    def serve(self) -> bool:
        """Take one request and fork what it asks for; False when there will be none any more."""
        try:
            data, fds, _, _ = socket.recv_fds(self._control, gates.MAX_MESSAGE, MOST_FDS)
        except OSError:
            return False
        if not data:
            return False
        for fd in fds:
            os.set_inheritable(fd, False)  # recv_fds takes no MSG_CMSG_CLOEXEC (Python 3.11 to 3.13 ignore its flags)
        names = gates.decode(data)['fds']
        journal.renew_streams(self._config['identifier'], os.environ)  # or what is born prints into nothing, and fails
        if fds:
            self._serve(socket.socket(fileno=fds[0]), dict(zip(names[1:], fds[1:], strict=False)), len(names))
        return True

    def _serve(self, gate: socket.socket, fds: dict[str, int], sent: int) -> None:
        """Fork what is asked for; `fds`: what came beside the gate, of `sent` descriptors in all.

        recvmsg(2): a descriptor that can't be installed is dropped (MSG_CTRUNC), and so are all after it.
        """
        leaf = fds.pop('leaf', None)
        try:
            if 1 + (leaf is not None) + len(fds) < sent:
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            self._fork_intermediate(gate, leaf, fds)
        except OSError as error:
            refuse(gate, error)
        finally:
            gate.close()
            for fd in (*fds.values(), *([leaf] if leaf is not None else [])):
                os.close(fd)

    def _fork_intermediate(self, gate: socket.socket, leaf: int | None, fds: dict[str, int]) -> None:
        """Fork the intermediate and wait for its end; with a leaf, it is born there or goes there first."""
        if leaf is None or not self._clones or not self._clone_intermediate(gate, leaf, fds):
            intermediate = os.fork()
            if intermediate == 0:
                self._be_intermediate(gate, leaf, fds, joins=True)
            wait_for(intermediate)

    def _clone_intermediate(self, gate: socket.socket, leaf: int, fds: dict[str, int]) -> bool:
        """Have it born in the leaf; False when that can't be done here, and from then on it is not tried again.

        A kernel with the bug kills it at birth, before it has forked: then the leaf is empty, and nothing came of it.
        """
        from sergeant_linux.kernel import clone  # here: without leaves, no worker pays for it

        try:
            intermediate = clone.fork_into(leaf)
        except clone.Unsupported:
            self._clones = False
            return False
        if intermediate == 0:
            self._be_intermediate(gate, leaf, fds, joins=False)
        ended = wait_for(intermediate)
        if ended is not None and ended.si_code == os.CLD_KILLED and not processes_in(leaf):
            self._clones = False
            return False
        return True

    def _be_intermediate(
        self, gate: socket.socket, leaf: int | None, fds: dict[str, int], *, joins: bool
    ) -> NoReturn:
        """Join the leaf if not born there, fork the worker, leave."""
        me = os.getpid()
        try:
            self._control.close()
            os.close(SESSIONS_FD)
            if leaf is not None:
                if joins:
                    join(leaf)
                os.close(leaf)
            if os.fork() != 0:
                os._exit(0)
        except OSError as error:
            refuse(gate, error)
            os._exit(1)
        try:
            newborn.be_born(
                gate,
                fds,
                supervisor=self._config['supervisor'],
                intermediate=me,
                terms=self._config['conditions'],
                fresh_interpreter=self._config['spawn'] == 'exec',
            )
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)


def wait_for(intermediate: int) -> os.waitid_result | None:
    """Wait for its end, and return it; None when somebody else has taken it (a thread of what was preloaded, a fork
    handler): it has ended, too."""
    try:
        return os.waitid(os.P_PID, intermediate, os.WEXITED)
    except ChildProcessError:
        return None


def join(leaf: int) -> None:
    """Move this process into the cgroup whose directory is open."""
    procs = os.open('cgroup.procs', os.O_WRONLY | os.O_CLOEXEC, dir_fd=leaf)
    try:
        os.write(procs, b'0')
    finally:
        os.close(procs)


def processes_in(leaf: int) -> bytes:
    """Return the pids in the cgroup whose directory is open, as the kernel lists them."""
    procs = os.open('cgroup.procs', os.O_RDONLY | os.O_CLOEXEC, dir_fd=leaf)
    try:
        return os.read(procs, 4096)
    finally:
        os.close(procs)


def refuse(gate: socket.socket, error: OSError) -> None:
    """Say on the gate why no worker will come."""
    gates.send(gate, {'type': 'refused', 'reason': f'no process could be made for it: {error}'})
