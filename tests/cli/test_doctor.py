"""`sergeant-linux doctor` tells the truth: of this host, of sabotaged ones (a seccomp filter, a read-only mount,
another user, a fake systemd: all of it real to the doctor), and of cgroups as they are elsewhere (files in a folder).
"""

import os
import platform
import pty
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final
from uuid import uuid4

import pytest

from sergeant_linux.cli import doctor
from sergeant_linux.cli.doctor import CHECKS, Check, Diagnosis, Finding, Place, Verdict
from sergeant_linux.containment import choice as backend
from sergeant_linux.core.policy import Policy
from sergeant_linux.host.delegation import Home, Title
from sergeant_linux.host.trial import Kinship
from sergeant_linux.kernel import cgroup
from sergeant_linux.kernel.cgroup import Cgroup
from tests.cli.asking import MAIN, REPOSITORY, Start, ask, inside, run, say, surroundings

DOCTOR: Final = [sys.executable, '-c', MAIN, 'doctor']
GIB: Final = 1 << 30

NAMES: Final = [
    'kernel', 'Python', 'pidfd', 'subreaper', 'PDEATHSIG', 'cgroup v2', 'own cgroup', 'delegation', 'controllers',
    'cgroup.kill', 'oom.group', 'PSI', 'auto', 'memory', 'descriptors', 'processes', 'workers', 'PID 1', 'container', 'systemd',
    'backend',
]

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason='only root can make such a host')

def tree(top: str) -> list[str]:
    """Every cgroup there is, with what is enabled below it."""
    return [f'{path}: {Cgroup(path, top).read("cgroup.subtree_control")}' for path, _, _ in os.walk(top)]


# This host


def test_it_says_what_a_run_would_do_on_this_host_and_why_not_more() -> None:
    told = ask()
    assert told.status == 0 and told.data['works'] and told.failures() == []
    choice = backend.choose(Policy(concurrent_workers=1, worker_class_name='W', worker_module_name='w'))
    assert (told.data['memory'], told.data['containment']) == (choice.memory, choice.containment)
    assert [told[name]['verdict'] for name in ('pidfd', 'subreaper', 'PDEATHSIG')] == ['ok'] * 3

    here = cgroup.own()
    if here is None:
        return
    assert told['own cgroup']['detail'].startswith(here.path)
    if choice.home is not None:
        assert told['cgroup.kill']['verdict'] == 'ok'
        has_memory = 'memory' in Path(choice.home.cgroup.path, 'cgroup.controllers').read_text().split()
        assert (told['controllers']['verdict'], told.data['memory']) == (
            ('ok', 'cgroup') if has_memory else ('warn', 'rss')
        )


def test_every_check_says_in_what_it_ended_what_was_found_and_what_would_mend_it() -> None:
    told = ask()
    assert list(told.data) == ['works', 'memory', 'containment', 'checks']
    assert [check['name'] for check in told.data['checks']] == NAMES == list(CHECKS)
    for check in told.data['checks']:
        assert list(check) == ['name', 'verdict', 'detail', 'remedy']
        assert check['verdict'] in list(Verdict) and check['detail'] == check['detail'].strip() != ''


def test_the_screen_has_a_line_for_each_check_and_one_that_sums_up() -> None:
    done = say()
    lines = done.stdout.splitlines()
    assert (done.returncode, done.stderr) == (0, '')
    assert [line[8:20].strip() for line in lines[:-2] if line[2] != ' '] == NAMES
    assert lines[-2] == '' and lines[-1].startswith('A run would do as asked here')
    assert '\033' not in done.stdout


def test_it_leaves_nothing_behind() -> None:
    mounts = cgroup.mounts()
    before = {entry for mount in mounts for entry in tree(mount.point)}
    ask('--memory-backend=auto')
    after = {entry for mount in mounts for entry in tree(mount.point)}
    # of processes and descriptors, the leak guard tells
    assert [entry for entry in after - before if not is_of_a_living_pool(entry)] == []


def is_of_a_living_pool(entry: str) -> bool:
    """Whether this is a cgroup of somebody else's pool, which may come and go meanwhile."""
    pool = re.search(r'/sergeant-([0-9]+)-', entry)
    return pool is not None and os.path.exists(f'/proc/{pool[1]}')


@needs_root
def test_it_answers_as_pid_1_of_a_container() -> None:
    told = ask(start=['unshare', '--pid', '--fork', '--mount-proc', '--cgroup'])
    assert told.status == 0
    assert told['PID 1']['detail'].startswith('yes')
    assert told['container']['detail'].startswith('yes')


@pytest.mark.parametrize(('path', 'complaint'), [
    ('/gone/python3', 'cannot be started anew: No such file or directory'),
    (shutil.which('false'), 'started anew it does not work'),
])
def test_an_interpreter_that_cannot_be_started_anew_is_found(path: str, complaint: str) -> None:
    """As after an upgrade, or for a user who may not enter the folder that it is in."""
    done = subprocess.run(
        [sys.executable, '-c', f'import sys; sys.executable = {path!r}; {MAIN}', 'doctor'],
        cwd=REPOSITORY, env=surroundings({}), capture_output=True, text=True, timeout=60,
    )
    assert done.returncode == 4
    assert f'{path}: {complaint}' in done.stdout
    assert done.stdout.endswith('here: Python.\n')


# The screen


DIAGNOSIS: Final = Diagnosis(
    (
        Check('kernel', Verdict.OK, 'Linux', None),
        Check('delegation', Verdict.WARN, 'words ' * 20 + 'end', 'a line to be copied ' * 10 + 'whole'),
        Check('pidfd', Verdict.FAIL, 'no', None),
    ),
    None,
)


def test_details_fit_the_terminal_and_remedies_stay_whole() -> None:
    screen = doctor.as_screen(DIAGNOSIS, width=60, in_colour=False)
    lines = screen.splitlines()
    assert all(len(line) <= 60 for line in lines if '→' not in line)
    assert sum('a line to be copied' in line for line in lines) == 1
    assert screen.endswith('\nA run would not do as asked here: pidfd.\n')
    assert len(doctor.as_screen(DIAGNOSIS, width=None, in_colour=False).splitlines()) == len(DIAGNOSIS.checks) + 3


@pytest.mark.parametrize(('no_colour', 'is_coloured'), [('', True), ('1', False)])
def test_there_is_colour_on_a_terminal_unless_no_color_is_set(no_colour: str, *, is_coloured: bool) -> None:
    ours, terminal = pty.openpty()
    environ = surroundings({'NO_COLOR': no_colour})
    with open(ours, 'rb', buffering=0) as screen:
        process = subprocess.Popen(DOCTOR, cwd=REPOSITORY, env=environ, stdout=terminal)
        os.close(terminal)
        said = b''
        while True:
            try:
                said += screen.read(65536)
            except OSError:  # EIO: the last one has closed the terminal
                break
        assert process.wait() == 0
    assert (b'\033[32mok' in said) is is_coloured


def test_a_reader_who_leaves_is_no_error() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, 'wb') as pipe:
        done = subprocess.run(
            DOCTOR, cwd=REPOSITORY, env=surroundings({}), stdout=pipe, stderr=subprocess.PIPE, timeout=60
        )
    assert (done.returncode, done.stderr) == (0, b'')


# What is asked for


@needs_root
def test_a_limit_that_takes_a_controller_that_is_not_here_is_a_failure_with_its_remedy() -> None:
    told = ask('--worker-io-weight=10')
    if told['backend']['verdict'] == 'ok':
        pytest.skip('this host has the controller io')
    assert told.status == 4 and not told.data['works'] and told.data['memory'] is None
    assert told.failures() == ['backend']
    assert '--worker-io-weight' in told['backend']['detail']
    assert say('--worker-io-weight=10').stdout.endswith('\nA run would not do as asked here: backend.\n')


def test_without_cgroups_wanted_they_are_facts_and_no_warnings() -> None:
    told = ask('--memory-backend=rss')
    assert (told.status, told.data['memory'], told.data['containment']) == (0, 'rss', 'search')
    assert all(told[name]['verdict'] in ('ok', 'info') for name in doctor.OF_CGROUPS)


def test_options_come_from_the_environment_too_and_none_is_required() -> None:
    told = ask(SERGEANT_LINUX_CONCURRENT_WORKERS='3', SERGEANT_LINUX_MAX_WORKER_MEMORY_USAGE='1M')
    assert told['memory']['detail'].startswith('3 × 1M = 3M, within')
    assert ask('--concurrent-workers=2', SERGEANT_LINUX_CONCURRENT_WORKERS='3')['descriptors']['detail'][0] == '2'


def test_a_bad_value_is_one_line_and_status_2() -> None:
    done = say('--concurrent-workers=0')
    assert (done.returncode, done.stdout) == (2, '')
    assert done.stderr == (
        'sergeant-linux doctor: error: --concurrent-workers: expected a whole number, 1 or more, not 0\n'
    )


def test_more_memory_than_the_pool_or_the_host_has_is_warned_of() -> None:
    options = '--concurrent-workers=4', '--max-worker-memory-usage=64M'
    assert ask(*options)['memory']['verdict'] == 'ok'
    of_pool = ask(*options, '--pool-memory-max=200M')['memory']
    assert of_pool['verdict'] == 'warn' and '4 × 64M = 256M is more than 200M (--pool-memory-max)' in of_pool['detail']
    of_host = ask('--concurrent-workers=1000', '--max-worker-memory-usage=1T')['memory']
    assert of_host['verdict'] == 'warn' and 'the memory of the host' in of_host['detail']


def test_too_few_descriptors_fail_and_the_remedy_mends_it() -> None:
    workers = '--concurrent-workers=100'
    told = ask(workers, start=['prlimit', '--nofile=64:64'])
    assert (told.status, told.failures()) == (4, ['descriptors'])
    number = ''.join(filter(str.isdigit, told['descriptors']['remedy']))
    assert ask(workers, start=['prlimit', f'--nofile={number}:{number}']).status == 0


# Sabotage


SABOTEUR: Final = """
import ctypes, os, struct, sys
syscall, argument, errno = map(int, sys.argv[1:4])
code = [(0x20, 0, 0, 0), (0x15, 0, 3, syscall), (0x20, 0, 0, 16)]           # its number, its first argument
code += [(0x15, 0, 1, argument) if argument >= 0 else (0x15, 0, 0, 0)]
code += [(0x06, 0, 0, 0x50000 | errno), (0x06, 0, 0, 0x7fff0000)]           # SECCOMP_RET_ERRNO, SECCOMP_RET_ALLOW
filter = ctypes.create_string_buffer(b''.join(struct.pack('HBBI', *line) for line in code))
program = struct.pack('HxxxxxxQ', len(code), ctypes.addressof(filter))
prctl = ctypes.CDLL(None, use_errno=True).prctl
assert prctl(38, 1, 0, 0, 0) == 0                                           # PR_SET_NO_NEW_PRIVS
assert prctl(22, 2, program, 0, 0) == 0, os.strerror(ctypes.get_errno())    # PR_SET_SECCOMP
os.execvp(sys.argv[4], sys.argv[4:])
"""
"""seccomp(2): a system call (with this first argument, or any: -1) fails with this errno, or does nothing at all: 0."""

PIDFD_OPEN: Final = 434
PRCTL: Final = {'x86_64': 157, 'aarch64': 167}.get(platform.machine(), -1)
ANY: Final = -1
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
NOTHING_DONE, EPERM = 0, 1


def sabotaged(syscall: int, argument: int, errno: int) -> Start:
    return [sys.executable, '-c', SABOTEUR, str(syscall), str(argument), str(errno)]


def test_a_seccomp_filter_that_refuses_pidfds_is_found() -> None:
    told = ask(start=sabotaged(PIDFD_OPEN, ANY, EPERM))
    assert told.status == 4 and set(told.failures()) == {'pidfd', 'subreaper', 'PDEATHSIG', 'cgroup.kill'}
    assert told['pidfd']['detail'] == 'pidfd_open: Operation not permitted'
    assert 'pidfd_open(2)' in told['pidfd']['remedy']


@pytest.mark.skipif(PRCTL < 0, reason='the number of prctl(2) is known for x86-64 and arm64')
@pytest.mark.parametrize(('option', 'check'), [
    (PR_SET_PDEATHSIG, 'PDEATHSIG'),
    (PR_SET_CHILD_SUBREAPER, 'subreaper'),
])
def test_a_call_that_claims_success_and_does_nothing_is_found(option: int, check: str) -> None:
    told = ask(start=sabotaged(PRCTL, option, NOTHING_DONE))
    assert (told.status, told.failures()) == (4, [check])


def test_closed_descriptors_change_nothing_but_that_nothing_is_said() -> None:
    done = say(start=['sh', '-c', 'exec "$@" <&- >&- 2>&-', 'sh'])
    assert (done.returncode, done.stdout, done.stderr) == (0, '', '')


def test_ignored_sigchld_loses_no_exit_status() -> None:
    assert ask(start=['sh', '-c', 'trap "" CHLD; exec "$@"', 'sh']).status == 0


@needs_root
def test_a_missing_proc_is_the_only_thing_that_is_told() -> None:
    told = ask(start=in_own_mounts('umount -l /proc'))
    assert (told.status, told.failures(), len(told.data['checks'])) == (4, ['proc'], 1)


def in_own_mounts(script: str) -> Start:
    return ['unshare', '--mount', 'sh', '-ec', f'{script}\nexec "$@"', 'sh']


# Cgroups that are not ours, as the kernel refuses them


@pytest.fixture
def own_cgroup() -> Cgroup:
    here = cgroup.own()
    if here is None or os.geteuid() != 0 or not os.access(here.path, os.W_OK):
        pytest.skip('there is no cgroup v2 that is ours')
    return here


@pytest.fixture
def other_cgroup(own_cgroup: Cgroup) -> Iterator[Cgroup]:
    """A cgroup, called like a service of systemd."""
    other = own_cgroup.child(f'test-{uuid4().hex[:8]}.service')
    other.make()
    yield other
    assert other.children() == []
    other.remove()


NOBODY: Final = ['setpriv', '--reuid=65534', '--regid=65534', '--clear-groups']


@pytest.fixture(scope='session')
def python() -> str:
    """An interpreter that nobody may execute, the user."""
    for candidate in (sys.executable, '/usr/bin/python3'):
        script = 'import sys; sys.exit(sys.version_info < (3, 11))'
        done = subprocess.run([*NOBODY, 'sh', '-c', 'exec "$@"', 'sh', candidate, '-c', script], capture_output=True)
        if done.returncode == 0:
            return candidate
    pytest.skip('there is no Python 3.11 or newer here that everybody may execute')


def test_cgroups_mounted_read_only_are_found_and_auto_does_without(own_cgroup: Cgroup) -> None:
    start = in_own_mounts(f'mount -o remount,bind,ro {own_cgroup.top}')
    told = ask(start=start)
    assert (told.status, told.data['memory'], told.data['containment']) == (0, 'rss', 'search')
    assert 'read-only' in told['cgroup v2']['detail']
    assert told['delegation']['verdict'] == 'warn'
    assert 'Read-only file system' in told['delegation']['detail']
    assert 'writable-cgroups=true' in told['delegation']['remedy']
    told = ask('--memory-backend=cgroup', start=start)
    assert (told.status, told.failures()) == (4, ['backend'])


def test_a_cgroup_that_may_have_no_more_below_it_is_found(other_cgroup: Cgroup) -> None:
    other_cgroup.write('cgroup.max.descendants', 0)
    told = ask(f'--cgroup-root={other_cgroup.path}')
    assert (told.status, told.failures()) == (4, ['backend'])
    assert 'the limit of cgroups' in told['delegation']['detail']


def test_another_users_cgroup_is_not_ours(other_cgroup: Cgroup, python: str) -> None:
    told = ask(start=NOBODY, python=python)
    assert (told.status, told.data['containment'], told['delegation']['verdict']) == (0, 'search', 'warn')
    told = ask(f'--cgroup-root={other_cgroup.path}', start=NOBODY, python=python)
    assert told.status == 4
    assert 'belongs to somebody else' in told['delegation']['detail']


def test_a_cgroup_into_which_no_process_may_be_moved_is_found(other_cgroup: Cgroup, python: str) -> None:
    """cgroups(7): a user may move a process only below what is delegated, from below it."""
    for file in ('.', 'cgroup.procs', 'cgroup.subtree_control'):
        os.chown(Path(other_cgroup.path, file), 65534, 65534)
    told = ask(f'--cgroup-root={other_cgroup.path}', start=NOBODY, python=python)
    assert (told.status, told.failures()) == (4, ['cgroup.kill'])
    assert 'write cgroup.procs: Permission denied' in told['cgroup.kill']['detail']
    told = ask(f'--cgroup-root={other_cgroup.path}', start=inside(other_cgroup, *NOBODY), python=python)
    assert (told.status, told['cgroup.kill']['verdict']) == (0, 'ok')


@needs_root
def test_workers_of_another_user_whom_the_kernel_would_not_allow_are_found(python: str) -> None:
    assert ask('--user=65534', '--group=65534')['workers']['verdict'] == 'ok'
    told = ask('--user=0', start=NOBODY, python=python)
    assert (told.status, told.failures()) == (4, ['workers'])
    assert 'cannot take the' in told['workers']['detail']


# What it says comes true


def test_a_run_does_what_the_doctor_has_foretold(folder: Path) -> None:
    told = ask()
    status, record = run(folder)
    assert (told.status, told.data['memory'], told.data['containment']) == (
        status, record['memory'], record['containment']
    )


def test_a_run_fails_as_foretold_where_cgroups_are_read_only(own_cgroup: Cgroup, folder: Path) -> None:
    start = in_own_mounts(f'mount -o remount,bind,ro {own_cgroup.top}')
    for options in ([], ['--memory-backend=cgroup'], ['--worker-pids-max=9']):
        told = ask(*options, start=start)
        status, record = run(folder, *options, start=start)
        assert (told.status, told.data['containment']) == (status, record.get('containment'))


def test_a_run_fails_as_foretold_where_pidfds_are_refused(folder: Path) -> None:
    start = sabotaged(PIDFD_OPEN, ANY, EPERM)
    assert ask(start=start).status == run(folder, start=start)[0] == 4


@needs_root
def test_a_run_as_another_user_goes_as_foretold(folder: Path, python: str) -> None:
    for options in ([], ['--user=0'], ['--memory-backend=cgroup']):
        told = ask(*options, start=NOBODY, python=python)
        assert told.status == run(folder, *options, start=NOBODY, python=python)[0]


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder for everybody."""
    with TemporaryDirectory(prefix='sergeant-', dir='/tmp') as path:
        os.chmod(path, 0o777)
        yield Path(path)


# A unit of systemd


SYSTEMCTL: Final = """#!/bin/sh
[ "$*" = "--user show --property=Delegate --property=ControlGroup -- $UNIT" ] && printf '%s\\n' $DELEGATES && exit
[ "$*" = "${MANAGER}show --property=OOMPolicy --property=KillMode --property=TimeoutStopUSec -- $UNIT" ] || exit 1
printf '%s\\n' $SAYS
"""


def in_unit(unit: Cgroup, folder: Path) -> Start:
    """Start in a service of a host whose manager is systemd, as far as can be seen."""
    systemctl = folder / 'systemctl'
    systemctl.write_text(SYSTEMCTL)
    systemctl.chmod(0o755)
    return [*in_own_mounts('mount -t tmpfs none /run; mkdir -p /run/systemd/system'), *inside(unit)]


def test_a_unit_without_delegation_is_told_to_have_it(other_cgroup: Cgroup, tmp_path: Path) -> None:
    told = ask(start=in_unit(other_cgroup, tmp_path))
    assert (told.status, told.data['containment'], told['delegation']['verdict']) == (0, 'search', 'warn')
    assert 'not delegated' in told['delegation']['detail']
    assert 'Delegate=yes' in told['delegation']['remedy']


def test_a_unit_that_would_harm_the_pool_is_told_its_lines(other_cgroup: Cgroup, tmp_path: Path) -> None:
    os.setxattr(other_cgroup.path, 'user.delegate', b'1')
    start = in_unit(other_cgroup, tmp_path)
    environ = {'PATH': f'{tmp_path}:{os.environ["PATH"]}', 'UNIT': other_cgroup.name}

    told = ask(start=start, SAYS='OOMPolicy=stop KillMode=control-group TimeoutStopUSec=8s', **environ)
    assert told.status == 0
    assert told['delegation'] == {
        'name': 'delegation', 'verdict': 'ok', 'remedy': None,
        'detail': f'{other_cgroup.path} is ours to use: delegated by systemd',
    }
    assert told['systemd']['verdict'] == 'warn'
    assert told['systemd']['remedy'] == 'in the unit: OOMPolicy=continue, KillMode=mixed, TimeoutStopSec=10s'

    told = ask(start=start, SAYS='OOMPolicy=continue KillMode=mixed TimeoutStopUSec=10s', **environ)
    assert told['systemd']['verdict'] == 'ok'

    told = ask(start=start, SAYS='', **environ)
    assert told['systemd']['verdict'] == 'ok'


def test_a_unit_of_a_user_is_asked_for_at_the_users_own_manager(other_cgroup: Cgroup, tmp_path: Path) -> None:
    manager = other_cgroup.child('user@7.service')
    unit = manager.child('app.service')
    manager.make()
    unit.make()
    try:
        environ = {'PATH': f'{tmp_path}:{os.environ["PATH"]}', 'UNIT': 'app.service', 'MANAGER': '--user '}
        told = ask(start=in_unit(unit, tmp_path), SAYS='OOMPolicy=stop', **environ)
    finally:
        unit.remove()
        manager.remove()
    assert told['systemd']['remedy'] == 'in the unit: OOMPolicy=continue'


@pytest.fixture
def unit_of_user(other_cgroup: Cgroup) -> Iterator[Cgroup]:
    """The cgroup of a unit of a user's manager; that one's own is delegated."""
    manager = other_cgroup.child('user@7.service')
    slice_ = manager.child('app.slice')
    unit = slice_.child('app.service')
    for each in (manager, slice_, unit):
        each.make()
    os.setxattr(manager.path, 'user.delegate', b'1')
    yield unit
    for each in (unit, slice_, manager):
        each.remove()


def test_a_unit_of_a_user_is_ours_when_the_users_own_manager_says_so(unit_of_user: Cgroup, tmp_path: Path) -> None:
    environ = {'PATH': f'{tmp_path}:{os.environ["PATH"]}', 'UNIT': unit_of_user.name, 'MANAGER': '--user ', 'SAYS': ''}
    start = in_unit(unit_of_user, tmp_path)
    group = 'ControlGroup=/user@7.service/app.slice/app.service'

    told = ask(start=start, DELEGATES=f'Delegate=yes {group}', **environ)
    assert told['delegation']['detail'] == f'{unit_of_user.path} is ours to use: delegated by systemd'

    told = ask(start=start, DELEGATES=f'Delegate=no {group}', **environ)
    assert told['delegation']['detail'].startswith(f'{unit_of_user.path} is managed by systemd and not delegated')

    # one of the same name, elsewhere
    told = ask(start=start, DELEGATES='Delegate=yes ControlGroup=/user@8.service/app.slice/app.service', **environ)
    assert told['delegation']['verdict'] == 'warn'

    (tmp_path / 'systemctl').write_text('#!/bin/sh\necho No medium found >&2; exit 1\n')
    told = ask(start=start, **environ)
    assert told['delegation']['detail'].endswith('does not say whether it is delegated (No medium found)')


# Cgroups as they are elsewhere


def policy(**knobs: Any) -> Policy:
    return Policy(**{'concurrent_workers': 1, 'worker_class_name': 'W', 'worker_module_name': 'w', **knobs})


class Tree:
    """A hierarchy of cgroups in a folder: what the files say can be anything."""

    def __init__(self, top: Path) -> None:
        self.top = top

    def cgroup(self, path: str, **files: object) -> Cgroup:
        folder = self.top / path
        folder.mkdir(parents=True, exist_ok=True)
        for name, value in {'cgroup_controllers': '', 'cgroup_type': 'domain', **files}.items():
            (folder / name.replace('_', '.', 1)).write_text(f'{value}\n')
        return Cgroup(str(folder), str(self.top))

    def look(self, name: str, here: Cgroup, **knobs: Any) -> Finding:
        home = Home(here, Title.DELEGATED)
        choice = backend.Choice('cgroup', 'cgroup', 'cgroup', home, None, None)
        return CHECKS[name](Place(policy(**knobs), {}, here, home, choice, None, Kinship(True, True)))


@pytest.fixture
def hierarchy(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


@pytest.mark.parametrize('where', ['pod', 'pod/container'])
def test_an_oom_group_from_the_own_cgroup_up_is_warned_of(
    where: str, hierarchy: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    hierarchy.cgroup('pod', memory_oom_group=0)
    here = hierarchy.cgroup('pod/container', memory_oom_group=0)
    assert hierarchy.look('oom.group', here).verdict is Verdict.OK

    Path(hierarchy.top, where, 'memory.oom.group').write_text('1\n')
    found = hierarchy.look('oom.group', here)
    assert found.verdict is Verdict.WARN
    assert f'1 in {hierarchy.top}/{where}:' in found.detail

    monkeypatch.setenv('KUBERNETES_SERVICE_HOST', '10.0.0.1')
    assert 'singleProcessOOMKill' in str(hierarchy.look('oom.group', here).remedy)


def test_workers_that_together_may_have_more_than_what_is_around_them_are_warned_of(hierarchy: Tree) -> None:
    hierarchy.cgroup('pod', memory_max=GIB)
    here = hierarchy.cgroup('pod/container', memory_max='max')
    assert hierarchy.look('memory', here, concurrent_workers=4, max_worker_memory_usage='256M').verdict is Verdict.OK

    found = hierarchy.look('memory', here, concurrent_workers=4, max_worker_memory_usage='300M')
    assert found.verdict is Verdict.WARN
    assert f'4 × 300M = 1.2G is more than 1G (memory.max of {hierarchy.top}/pod)' in found.detail
    assert found.remedy == '--max-worker-memory-usage=204M, or fewer workers'
    assert hierarchy.look('memory', here, concurrent_workers=4, max_worker_memory_usage='204M').verdict is Verdict.OK


def test_too_few_processes_are_a_failure(hierarchy: Tree) -> None:
    hierarchy.cgroup('pod', pids_max=100, pids_current=80)
    here = hierarchy.cgroup('pod/container', pids_max=50, pids_current=5)
    assert hierarchy.look('processes', here, concurrent_workers=14).verdict is Verdict.OK
    found = hierarchy.look('processes', here, concurrent_workers=15)
    assert found.verdict is Verdict.FAIL
    assert f'20 are left (pids.max of {hierarchy.top}/pod)' in found.detail


def test_a_controller_that_is_not_handed_down_is_missed_with_the_line_that_does_it(hierarchy: Tree) -> None:
    hierarchy.cgroup('pod', cgroup_controllers='cpu io memory pids')
    here = hierarchy.cgroup('pod/container', cgroup_controllers='cpu memory pids')
    assert hierarchy.look('controllers', here) == Finding(Verdict.OK, 'cpu, memory, pids')
    found = hierarchy.look('controllers', here, worker_io_weight=10)
    assert (found.verdict, found.detail) == (Verdict.WARN, 'cpu, memory, pids; not io')
    assert str(found.remedy).startswith((f'echo +io > {hierarchy.top}/pod/cgroup.subtree_control', 'Delegate=yes'))


def test_a_threaded_cgroup_can_have_no_memory(hierarchy: Tree) -> None:
    here = hierarchy.cgroup('unit', cgroup_controllers='cpu memory pids', cgroup_type='domain threaded')
    assert hierarchy.look('controllers', here).verdict is Verdict.WARN
    assert hierarchy.look('controllers', here, memory_backend='cgroup').verdict is Verdict.FAIL


def test_what_holds_no_processes_is_a_failure_and_the_probe_is_gone(hierarchy: Tree) -> None:
    here = hierarchy.cgroup('unit')
    assert hierarchy.look('cgroup.kill', here).verdict is Verdict.FAIL
    assert [entry for entry in Path(here.path).iterdir() if entry.is_dir()] == []
