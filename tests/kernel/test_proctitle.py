"""Process titles and environment entries, overwritten in fresh interpreters, as other processes see them."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest

from sergeant_linux.kernel import procfs
from sergeant_linux.kernel.proctitle import set_environ_entry
from tests.kernel.processes import REPOSITORY, run_python

ENVIRON = {
    'FIRST': '1',
    'SERGEANT_WORKER_LIFE': '0000000000',
    'LIFE': 'another',
    'EMPTY': '',
    'LAST': 'z',
}
ROOM = '.' * 200
"""An argument that makes room for a title, as the process that forks workers is given."""


@contextmanager
def running(statements: str) -> Iterator[int]:
    """Give the pid of a fresh interpreter that has run the statements and lives on."""
    script = f'from sergeant_linux.kernel.proctitle import *; import os; {statements}; print(flush=True); input()'
    with subprocess.Popen(
        [sys.executable, '-c', script, ROOM],
        env=ENVIRON,
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == b'\n'
        yield program.pid
        program.kill()


def cmdline(pid: int) -> bytes:
    return Path(f'/proc/{pid}/cmdline').read_bytes()


def environ(pid: int) -> bytes:
    return Path(f'/proc/{pid}/environ').read_bytes()


def as_bytes(environ: dict[str, str]) -> bytes:
    return b''.join(f'{key}={value}\0'.encode() for key, value in environ.items())


AS_IT_WAS = as_bytes(ENVIRON)

TITLE = 'sergeant-linux: worker crawl_worker.Worker [3]'


def test_a_title_is_the_whole_command_line() -> None:
    with running(f'set_title({TITLE!r})') as pid:
        assert cmdline(pid) == TITLE.encode() + b'\0'
        assert psutil.Process(pid).cmdline() == TITLE.split(' ')
        ps = subprocess.run(['ps', '-o', 'args=', '-p', str(pid)], capture_output=True, check=True, text=True)
        assert ps.stdout == TITLE + '\n'


def test_a_shorter_title_leaves_nothing_of_a_longer_one() -> None:
    with running(f'set_title({TITLE!r}); set_title("short")') as pid:
        assert cmdline(pid) == b'short\0'


@pytest.mark.parametrize(
    ('title', 'shown'),
    [
        ('é €', 'é €'.encode()),
        ('a\0b', b'a'),
        ('a\udcff', b'a?'),
        ('', b''),
    ],
)
def test_a_title_is_utf_8_and_ends_at_a_nul(title: str, shown: bytes) -> None:
    with running(f'set_title({title!a})') as pid:
        assert cmdline(pid) == shown + b'\0'


@pytest.mark.parametrize('shift', range(3))
def test_a_title_that_is_too_long_is_cut_and_no_character_is_torn(shift: int) -> None:
    with running('pass') as pid:
        original = cmdline(pid)
    statements = f'set_title("{"x" * shift}" + chr(0x20ac) * 10_000)'
    growth = len(statements) - len('pass')

    with running(statements) as pid:
        shown = cmdline(pid)
        assert environ(pid) == AS_IT_WAS

    room = len(original) + growth - 2
    assert shown == b'x' * shift + '€'.encode() * ((room - shift) // 3) + b'\0'


def test_a_title_leaves_the_environment_and_pythons_arguments_alone() -> None:
    said = run_python(
        f"""
        import os, sys
        from sergeant_linux.kernel import proctitle
        before = [sys.argv, sys.orig_argv, dict(os.environ)]
        proctitle.set_title({TITLE!r})
        answer = [before, [sys.argv, sys.orig_argv, dict(os.environ)]]
        """,
    )

    before, after = said
    assert before == after


def test_a_forked_process_has_a_title_of_its_own() -> None:
    said = run_python(
        """
        from pathlib import Path
        from sergeant_linux.kernel.proctitle import set_title
        from tests.kernel.processes import in_child

        def titles(name):
            set_title(name)
            return Path('/proc/self/cmdline').read_text(), in_child(Path('/proc/self/cmdline').read_text)

        answer = [titles('fork server'), in_child(lambda: titles('worker')), titles('fork server, still')]
        """
    )

    assert said == [
        ['fork server\0', 'fork server\0'],
        ['worker\0', 'worker\0'],
        ['fork server, still\0', 'fork server, still\0'],
    ]


def test_an_entry_is_overwritten_and_the_others_stay() -> None:
    with running('assert set_environ_entry("SERGEANT_WORKER_LIFE", "4711-17")') as pid:
        assert procfs.environ_contains(pid, b'SERGEANT_WORKER_LIFE=4711-17')
        assert not procfs.environ_contains(pid, b'SERGEANT_WORKER_LIFE=0000000000')
        assert environ(pid) == AS_IT_WAS.replace(b'0000000000', b'4711-17\0\0\0')


def test_an_entry_is_overwritten_again_by_one_that_is_as_long_as_the_first() -> None:
    statements = '[set_environ_entry("SERGEANT_WORKER_LIFE", value) for value in ("7", "", "1234567890")]'
    with running(statements) as pid:
        assert environ(pid) == AS_IT_WAS.replace(b'0000000000', b'1234567890')


@pytest.mark.parametrize(
    ('key', 'value'),
    [
        ('SERGEANT_WORKER_LIFE', '12345678901'),
        ('OTHER', ''),
        ('IFE', 'x'),
        ('WORKER_LIFE', 'x'),
        ('.*', 'x'),
        ('EMPTY', 'x'),
        ('LAST', 'zz'),
    ],
)
def test_an_entry_that_is_not_there_or_has_no_room_is_refused_and_nothing_changes(key: str, value: str) -> None:
    with running(f'assert set_environ_entry({key!r}, {value!r}) is False') as pid:
        assert environ(pid) == AS_IT_WAS


@pytest.mark.parametrize('key', ['FIRST', 'LIFE', 'LAST'])
def test_every_entry_can_be_overwritten_be_it_the_first_or_the_last(key: str) -> None:
    value = ENVIRON[key].upper().replace('1', '2')
    with running(f'assert set_environ_entry({key!r}, {value!r})') as pid:
        assert environ(pid) == as_bytes(ENVIRON | {key: value})


@pytest.mark.parametrize(('key', 'value'), [('', 'x'), ('A=B', 'x'), ('A\0B', 'x'), ('LIFE', 'x\0y')])
def test_what_cannot_stand_in_an_environment_is_refused(key: str, value: str) -> None:
    with pytest.raises(ValueError, match='cannot stand in an environment'):
        set_environ_entry(key, value)


def test_a_forked_process_and_those_that_it_forks_show_its_own_entry() -> None:
    said = run_python(
        """
        from pathlib import Path
        from sergeant_linux.kernel.proctitle import set_environ_entry
        from tests.kernel.processes import in_child

        def lives():
            environ = Path('/proc/self/environ').read_text()
            return [entry for entry in environ.split('\\0') if entry.startswith('SERGEANT_WORKER_LIFE=')]

        def be_born():
            set_environ_entry('SERGEANT_WORKER_LIFE', '4711-17')
            return lives() + in_child(lives)

        answer = [in_child(be_born), lives()]
        """,
        env=ENVIRON,
    )

    worker_and_its_child, fork_server = said
    assert worker_and_its_child == ['SERGEANT_WORKER_LIFE=4711-17'] * 2
    assert fork_server == ['SERGEANT_WORKER_LIFE=0000000000']


def test_libc_sees_the_entry_and_os_environ_is_as_it_was() -> None:
    said = run_python(
        """
        import ctypes, os
        from sergeant_linux.kernel.proctitle import set_environ_entry
        before = dict(os.environ)
        set_environ_entry('SERGEANT_WORKER_LIFE', '4711-17')
        getenv = ctypes.CDLL(None).getenv
        getenv.restype = ctypes.c_char_p
        answer = [getenv(b'SERGEANT_WORKER_LIFE').decode(), before == dict(os.environ)]
        """,
        env=ENVIRON,
    )

    assert said == ['4711-17', True]


@pytest.mark.skipif(find_spec('setproctitle') is None, reason='setproctitle is not installed here')
@pytest.mark.parametrize('order', [('ours', 'theirs'), ('theirs', 'ours'), ('theirs', 'ours', 'theirs', 'ours')])
def test_a_program_that_uses_setproctitle_itself_survives_ours(order: tuple[str, ...]) -> None:
    said = run_python(
        f"""
        import os, setproctitle
        from sergeant_linux.kernel import proctitle
        for who in {order!r}:
            if who == 'ours':
                proctitle.set_title('ours ' * 10)
                proctitle.set_environ_entry('SERGEANT_WORKER_LIFE', '17')
            else:
                setproctitle.setproctitle('theirs ' * 10)
        os.environ['NEW'] = 'x' * 1000
        answer = os.environ['LAST'], os.popen('echo $LAST $NEW').read()
        """,
        env=ENVIRON,
    )

    assert said == ['z', 'z ' + 'x' * 1000 + '\n']
