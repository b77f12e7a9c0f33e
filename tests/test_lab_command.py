"""vagrant/lab, from the outside: what it brings back, and that it leaves nothing."""

import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

import pytest

LAB: Final = Path(__file__).parents[1] / 'vagrant' / 'lab'

DEADLINE: Final = 10.0

pytestmark = [
    pytest.mark.slow,  # a boot takes 2-3 s
    pytest.mark.skipif(platform.machine() != 'x86_64', reason='User-Mode Linux runs on x86-64'),
    pytest.mark.skipif(
        shutil.which('linux.uml') is None and 'CI' not in os.environ, reason='no User-Mode Linux: make lab-setup'
    ),
]


def start(*arguments: str, **keywords: object) -> 'subprocess.Popen[str]':
    return subprocess.Popen(  # type: ignore[call-overload,no-any-return]  # what the keywords are, the callers know
        [sys.executable, LAB, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **keywords
    )


def run(*arguments: str, within: float = 60.0, **keywords: object) -> tuple[int, str, str]:
    """Return exit status, standard output and standard error of the lab."""
    with start(*arguments, **keywords) as lab:
        try:
            out, err = lab.communicate(timeout=within)
        finally:
            lab.kill()
    return lab.returncode, out, err


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which the lab makes its own; so its files and processes can be told from those of others."""
    place = tmp_path / 'place'
    place.mkdir()
    monkeypatch.setenv('TMPDIR', str(place))
    return place


def processes(place: Path) -> set[int]:
    """Return the processes with `place` in their command line: the kernel of a lab and all that it consists of."""
    found = set()
    for entry in Path('/proc').iterdir():
        with suppress(OSError):
            if entry.name.isdigit() and os.fsencode(place) in (entry / 'cmdline').read_bytes():
                found.add(int(entry.name))
    return found


def assert_nothing_is_left(place: Path) -> None:
    deadline = time.monotonic() + DEADLINE
    while processes(place) or os.listdir(place):
        assert time.monotonic() < deadline, f'left behind: {processes(place)}, {os.listdir(place)}'
        time.sleep(0.01)


def test_output_error_and_exit_status_come_back_and_the_command_is_what_it_was(place: Path, tmp_path: Path) -> None:
    script = """
        import os, sys
        print(os.getcwd(), os.environ['WITH'], sys.argv[1:], sys.stdout.isatty(), os.readlink('/proc/self/fd/0'))
        print('oh', file=sys.stderr)
        sys.exit(42)
    """.replace('\n        ', '\n')
    arguments = ['a b', '$HOME', "'", '']

    status, out, err = run(
        '--', sys.executable, '-c', script, *arguments, cwd=tmp_path, env={**os.environ, 'WITH': 'two\nlines'}
    )

    assert (status, err) == (42, 'oh\n')
    assert out == f'{tmp_path} two\nlines {arguments} False /dev/null\n'
    assert_nothing_is_left(place)


def test_a_command_killed_by_a_signal_is_reported_as_a_shell_reports_it() -> None:
    assert run('--', 'sh', '-c', 'kill -SEGV $$') == (128 + signal.SIGSEGV, '', '')


def test_much_output_to_a_slow_reader_is_complete() -> None:
    with start('--', 'seq', '200000') as lab:
        assert lab.stdout is not None
        first = lab.stdout.readline()
        time.sleep(3.0)  # being slow is the point
        rest = lab.stdout.read()

    assert (first + rest).split() == [str(number) for number in range(1, 200001)]


def test_what_is_written_is_forgotten_but_for_the_scratch_folder(tmp_path: Path) -> None:
    scratch, other = tmp_path / 'scratch', tmp_path / 'other'
    scratch.mkdir()
    other.write_text('before')

    status, out, _ = run(
        '--scratch', str(scratch), '--', 'sh', '-c', f'echo after | tee {other} {scratch}/result; cat {other}'
    )

    assert (status, out) == (0, 'after\nafter\n')
    assert (scratch / 'result').read_text() == 'after\n'
    assert other.read_text() == 'before'


def test_the_time_limit_kills_whatever_runs_and_what_was_written_until_then_is_here(place: Path) -> None:
    started = time.monotonic()
    script = 'echo early; trap "" TERM; sleep 600 & while :; do :; done'

    status, out, err = run('--timeout', '5s', '--', 'sh', '-c', script)

    assert (status, out) == (124, 'early\n')
    assert err == 'lab: killed: the time limit (5 s) is over\n'
    assert time.monotonic() - started < 5.0 + DEADLINE
    assert_nothing_is_left(place)


@pytest.mark.parametrize('signum', [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_lab_that_is_killed_leaves_no_process_and_no_file(place: Path, signum: int) -> None:
    with start('--', 'sh', '-c', 'echo started; sleep 600') as lab:
        assert lab.stdout is not None
        assert lab.stdout.readline() == 'started\n'
        assert len(processes(place)) > 2

        lab.send_signal(signum)

    assert lab.returncode == -signum
    assert_nothing_is_left(place)


def test_a_user_has_a_cgroup_that_was_delegated_as_systemd_delegates() -> None:
    script = """if True:
        import errno, json, os
        unit = '/sys/fs/cgroup' + open('/proc/self/cgroup').read().strip()[3:]
        def attempt(act, *arguments):
            try:
                act(*arguments)
            except OSError as error:
                return errno.errorcode[error.errno]
        def write(path, text):
            with open(path, 'w') as file:
                file.write(text)
        answer = {
            'user': os.getuid(), 'unit': unit, 'mark': os.getxattr(unit, 'user.delegate').decode(),
            'limit of its own': attempt(write, unit + '/memory.max', 'max'),
            'leaf': attempt(os.mkdir, unit + '/leaf'),
            'into the leaf': attempt(write, unit + '/leaf/cgroup.procs', '0'),
            'controllers': attempt(write, unit + '/cgroup.subtree_control', '+cpu +io +memory +pids'),
            'limit of a leaf': attempt(write, unit + '/leaf/memory.max', '64M'),
            'out of the unit': attempt(write, '/sys/fs/cgroup/cgroup.procs', '0'),
            'beside the unit': attempt(os.mkdir, os.path.dirname(unit) + '/other'),
            'kill of its own': attempt(write, unit + '/cgroup.kill', '1'),
        }
        print(json.dumps(answer))
    """

    status, out, err = run('--user', 'nobody', '--', sys.executable, '-c', script)

    assert status == 0, err
    assert json.loads(out) == {
        'user': 65534, 'unit': '/sys/fs/cgroup/lab.slice/lab.service', 'mark': '1',
        'limit of its own': 'EACCES', 'leaf': None, 'into the leaf': None, 'controllers': None, 'limit of a leaf': None,
        'out of the unit': 'EACCES', 'beside the unit': 'EACCES', 'kill of its own': 'EACCES',
    }  # fmt: skip


def test_a_machine_that_does_not_come_up_says_what_was_on_its_console(place: Path) -> None:
    status, out, err = run('--memory', '16M', '--', 'true')

    assert (status, out) == (125, '')
    first, *console = err.splitlines()
    assert first == 'lab: the machine has ended before the command; it said:'
    # It depends on where the randomised heap lies, how soon the memory is too little.
    assert any('Too few physical memory' in line or 'Kernel panic' in line for line in console)
    assert_nothing_is_left(place)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ([], 'the following arguments are required: COMMAND'),
        (
            ['--timeout', 'soon', '--', 'true'],
            "argument --timeout: 'soon' is no time span; expected is one like '90', '90s', '10min', '1h'",
        ),
        (['--memory', '1', '--', 'true'], "argument --memory: '1' is no size; expected is one like '512M', '1G'"),
        (['--user', 'no one', '--', 'true'], "argument --user: there is no user 'no one'"),
        (['--scratch', '/dev/null', '--', 'true'], "argument --scratch: '/dev/null' is no folder"),
    ],
)
def test_wrong_usage_is_told_in_one_line(arguments: list[str], message: str) -> None:
    assert run(*arguments) == (125, '', f'lab: {message}\n')


def test_what_is_missing_is_told_with_the_package_that_has_it(tmp_path: Path) -> None:
    status, out, err = run('--', 'true', env={'PATH': str(tmp_path)})

    assert (status, out, err) == (125, '', 'lab: linux.uml is missing: apt-get install user-mode-linux\n')
