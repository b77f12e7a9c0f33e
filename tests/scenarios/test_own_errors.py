"""Errors of the supervisor's own: there is no known one to provoke, so each is planted. The pool ends in order, with 70."""

import signal
from pathlib import Path
from typing import Final

import pytest

from tests.scenarios.pool import kill, pool, wait_until

POLITE: Final = """
import os, signal, sys, time

def Worker():
    def leave(*_):
        os.write(1, b'left' + bytes([10]))
        os._exit(0)
    signal.signal(signal.SIGTERM, leave)
    os.write(1, b'here' + bytes([10]))
    time.sleep(1000)
"""

PLANT: Final = """
import sergeant_linux.supervisor as supervisor
import sergeant_linux.control.notifier, sergeant_linux.control.server, sergeant_linux.engine.generations
import sergeant_linux.wire.gate as gates
{}
supervisor.main()
"""

A_SPAWN: Final = """
import os
pair = gates.pair
gates.pair = lambda: 1 / 0 if os.path.exists({!r}) else pair()
"""

AT_THE_END: Final = """
def broken(self):
    raise OSError('planted')
sergeant_linux.{}.close = broken
"""


def planted(error: str) -> list[str]:
    """Return a command that runs the supervisor with this error in it."""
    return ['-c', PLANT.format(error)]


@pytest.mark.parametrize('asked', ['by a request', 'by a signal'])
def test_an_error_below_what_was_asked_for_ends_the_pool_in_order_whoever_has_asked(
    tmp_path: Path, asked: str
) -> None:
    cue = tmp_path / 'cue'
    with pool(tmp_path, POLITE, concurrent_workers=2, command=planted(A_SPAWN.format(str(cue)))) as running:
        running.hear('here', count=2)
        cue.touch()

        if asked == 'by a signal':
            running.send(signal.SIGTTIN)
        else:
            with running.client() as client:
                client.call('ping')
                with pytest.raises(Exception):  # noqa: B017, PT011  # it is told, or finds nobody
                    client.call('scale', by=1)

        assert running.exit_status() == 70
        running.hear('left', count=2)
        running.wait_until_gone()
        (error,) = running.find('internal-error')
        assert 'ZeroDivisionError' in error['traceback']


@pytest.mark.parametrize('what', ['engine.generations.Generations', 'control.server.Control', 'control.notifier.Notifier'])
def test_an_error_at_the_end_is_status_70_and_everything_else_is_closed(tmp_path: Path, what: str) -> None:
    with pool(tmp_path, POLITE, concurrent_workers=2, command=planted(AT_THE_END.format(what))) as running:
        running.hear('here', count=2)
        (socket,) = wait_until(lambda: list(running.run.glob('sergeant-linux/*.sock')), 'a socket')

        assert running.stop() == 70

        running.wait_until_gone()
        assert not socket.exists()
        (error,) = running.find('internal-error')
        assert 'planted' in error['traceback']


def test_two_stop_signals_at_once_are_one_as_timeout_sends_them(tmp_path: Path) -> None:
    source = POLITE.replace("b'left'", "b'told'").replace('os._exit(0)', 'pass')
    with pool(tmp_path, source, timeout_stop='2s') as running:
        running.hear('here')
        running.send(signal.SIGTERM)
        running.send(signal.SIGINT)
        running.hear('told')
        assert not running.find('kill')

        running.send(signal.SIGQUIT)

        assert running.exit_status() == 0
        assert running.find('kill', signal='SIGQUIT')


ZOMBIES: Final = """
import os, time

def Worker():
    child = os.fork()
    if child == 0:  # what it doesn't reap falls to the supervisor, all at once, when it leaves
        for _ in range(3000):
            if os.fork() == 0:
                os._exit(0)
        os.write(1, b'here' + bytes([10]))
        while not os.path.exists('cue'):
            time.sleep(0.01)
        os._exit(0)
    os.waitpid(child, 0)
    os.write(1, b'released' + bytes([10]))
    time.sleep(1000)
"""


def test_thousands_of_orphans_that_end_at_once_do_not_keep_the_supervisor_deaf(tmp_path: Path) -> None:
    with pool(tmp_path, ZOMBIES) as running, running.client() as client:
        running.hear('here', within=60)
        client.call('ping')
        kill(running.pid, signal.SIGSTOP)
        (tmp_path / 'cue').touch()
        running.hear('released')
        kill(running.pid, signal.SIGCONT)

        client.call('ping')
        client.call('ping')

        kill(running.pid, signal.SIGSTOP)
        left = len(Path(f'/proc/{running.pid}/task/{running.pid}/children').read_text().split())
        kill(running.pid, signal.SIGCONT)
        assert left > 1000
        assert running.stop() == 0
