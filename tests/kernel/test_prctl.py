"""prctl(2), through python-prctl and through libc: the same tests."""

import errno
import os
import signal
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

from sergeant_linux.kernel import prctl
from sergeant_linux.kernel.pidref import PidRef
from tests.kernel.processes import DEADLINE, Event, Fork, in_child, readable, run_python, sleep_for_ever

INSTALLED = find_spec('prctl') is not None

IMPLEMENTATIONS = [
    pytest.param(
        prctl.PythonPrctl,
        id='python-prctl',
        marks=pytest.mark.skipif(not INSTALLED, reason='python-prctl is not installed here: libc takes its place'),
    ),
    pytest.param(prctl.LibcPrctl, id='libc'),
]


@pytest.fixture(params=IMPLEMENTATIONS)
def calls(request: pytest.FixtureRequest) -> prctl.Prctl:
    implementation: prctl.Prctl = request.param()
    return implementation


def comm() -> str:
    return Path('/proc/thread-self/comm').read_text().removesuffix('\n')


def test_a_process_dies_with_its_parent(calls: prctl.Prctl, fork: Fork, event: Callable[[], Event]) -> None:
    armed = event()
    alive, held_while_alive = os.pipe()

    def orphan_to_be() -> None:
        calls.set_pdeathsig(signal.SIGKILL)
        armed.set()
        sleep_for_ever()

    def parent() -> None:
        if os.fork() == 0:
            orphan_to_be()
        os.close(held_while_alive)
        sleep_for_ever()

    process = fork(parent)
    os.close(held_while_alive)
    armed.wait()
    assert not readable(alive, patience=0)

    process.signal(signal.SIGKILL)

    assert readable(alive)
    assert os.read(alive, 1) == b''
    os.close(alive)


def test_a_process_chooses_the_signal_of_its_parents_death(calls: prctl.Prctl, fork: Fork) -> None:
    received, report = os.pipe()

    def child() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
        calls.set_pdeathsig(signal.SIGUSR1)
        os.write(report, b'armed')
        os.write(report, bytes([signal.sigwait({signal.SIGUSR1})]))

    def parent() -> None:
        if os.fork() == 0:
            try:
                child()
            finally:
                os._exit(0)
        sleep_for_ever()

    process = fork(parent)
    assert readable(received)
    assert os.read(received, 5) == b'armed'

    process.signal(signal.SIGKILL)

    assert readable(received)
    assert os.read(received, 1) == bytes([signal.SIGUSR1])
    os.close(received)
    os.close(report)


def test_the_signal_of_the_parents_death_can_be_read_and_disarmed(calls: prctl.Prctl) -> None:
    def arm_and_disarm() -> list[int]:
        seen = [calls.get_pdeathsig()]
        for signum in (signal.SIGKILL, signal.SIGURG, signal.SIGRTMAX, 0):
            calls.set_pdeathsig(signum)
            seen.append(calls.get_pdeathsig())
        return seen

    assert in_child(arm_and_disarm) == [0, signal.SIGKILL, signal.SIGURG, signal.SIGRTMAX, 0]


def test_the_signal_of_the_parents_death_is_not_inherited_by_a_fork(calls: prctl.Prctl) -> None:
    def look_in_a_grandchild() -> list[int]:
        calls.set_pdeathsig(signal.SIGKILL)
        return [calls.get_pdeathsig(), in_child(calls.get_pdeathsig)]

    assert in_child(look_in_a_grandchild) == [signal.SIGKILL, 0]


def test_the_signal_of_the_parents_death_is_kept_over_an_exec(calls: prctl.Prctl, fork: Fork) -> None:
    received, report = os.pipe()
    os.set_inheritable(report, True)
    script = f'import os; from sergeant_linux.kernel import prctl; os.write({report}, b"%d" % prctl.get_pdeathsig())'

    def execute() -> None:
        calls.set_pdeathsig(signal.SIGKILL)
        os.execv(sys.executable, [sys.executable, '-c', script])

    fork(execute)
    os.close(report)

    assert readable(received)
    assert int(os.read(received, 16)) == signal.SIGKILL
    os.close(received)


@pytest.mark.parametrize('signum', [999, -1])
def test_an_unknown_signal_is_refused_by_name(calls: prctl.Prctl, signum: int) -> None:
    with pytest.raises(OSError, match=r'prctl\(PR_SET_PDEATHSIG\): Invalid argument') as refusal:
        calls.set_pdeathsig(signum)

    assert refusal.value.errno == errno.EINVAL


def test_a_subreaper_adopts_its_orphans(calls: prctl.Prctl) -> None:
    def adopt() -> list[object]:
        calls.set_child_subreaper(True)
        reader, writer = os.pipe()
        parent = os.fork()
        if parent == 0:
            orphan = os.fork()
            if orphan == 0:
                sleep_for_ever()
            os.write(writer, b'%d' % orphan)
            os._exit(0)
        os.waitpid(parent, 0)
        orphan = int(os.read(reader, 16))
        with PidRef.open(orphan) as process:
            process.signal(signal.SIGKILL)
            assert process.exited(DEADLINE)
            return [calls.get_child_subreaper(), process.reap()]

    assert in_child(adopt) == [True, [None, signal.SIGKILL, False]]


def test_a_process_is_a_subreaper_until_it_says_no_more_and_its_children_are_none(calls: prctl.Prctl) -> None:
    def turn_on_and_off() -> list[bool]:
        seen = [calls.get_child_subreaper()]
        calls.set_child_subreaper(True)
        seen += [calls.get_child_subreaper(), in_child(calls.get_child_subreaper)]
        calls.set_child_subreaper(False)
        return [*seen, calls.get_child_subreaper()]

    assert in_child(turn_on_and_off) == [False, True, False, False]


@pytest.mark.parametrize(
    ('given', 'kept'),
    [
        ('worker', 'worker'),
        ('', ''),
        ('123456789012345', '123456789012345'),
        ('1234567890123456', '123456789012345'),
        ('12345678901234é', '12345678901234'),  # the two bytes of é would be torn
        (') R 1 (', ') R 1 ('),
        ('before\0after', 'before'),
        ('a\udcffb', 'a?b'),
    ],
)
def test_a_name_is_kept_up_to_15_bytes_and_no_character_is_torn(calls: prctl.Prctl, given: str, kept: str) -> None:
    def name() -> list[str]:
        calls.set_name(given)
        return [calls.get_name(), comm()]

    assert in_child(name) == [kept, kept]


def test_a_name_that_is_no_utf_8_can_be_read(calls: prctl.Prctl) -> None:
    def name() -> str:
        Path('/proc/thread-self/comm').write_bytes(b'a\xffb')
        return calls.get_name()

    assert in_child(name) == 'a\ufffdb'


def test_no_new_privileges_is_for_good_and_inherited(calls: prctl.Prctl) -> None:
    def set_it() -> list[bool]:
        before = calls.get_no_new_privs()
        calls.set_no_new_privs()
        return [before, calls.get_no_new_privs(), in_child(calls.get_no_new_privs)]

    assert in_child(set_it) == [False, True, True]


def test_a_process_that_is_not_dumpable_gives_its_proc_files_to_root(calls: prctl.Prctl) -> None:
    def turn_off_and_on() -> list[object]:
        if os.geteuid() == 0:
            os.setuid(65534)
            calls.set_dumpable(True)
        seen: list[object] = []
        for on in (True, False, True):
            calls.set_dumpable(on)
            seen.append([calls.get_dumpable(), os.stat('/proc/self/environ').st_uid == os.geteuid()])
        return seen

    assert in_child(turn_off_and_on) == [[True, True], [False, False], [True, True]]


@pytest.mark.skipif(not INSTALLED, reason='python-prctl is not installed here')
def test_the_module_uses_python_prctl_where_it_is_installed_and_pays_for_no_ctypes() -> None:
    said = run_python("""
        import sys
        from sergeant_linux.kernel import prctl
        prctl.set_name('worker')
        answer = [prctl.IMPLEMENTATION, prctl.get_name(), 'ctypes' in sys.modules]
    """)

    assert said == ['python-prctl', 'worker', False]


def test_the_module_uses_libc_where_python_prctl_cannot_be_imported() -> None:
    said = run_python("""
        import sys
        sys.modules['prctl'] = None  # importing it raises ImportError
        from sergeant_linux.kernel import prctl
        prctl.set_name('worker')
        answer = [prctl.IMPLEMENTATION, prctl.get_name()]
    """)

    assert said == ['libc', 'worker']

