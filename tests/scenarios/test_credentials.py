"""Workers of another user, or with limits of their own: what they are, what they can't do, and what still holds.

Facts: only root can make processes of another uid, so these tests are for root. The other uid can neither go into
pytest's folders (0700) nor, often, to the interpreter that runs the tests (in root's home).
Consequence: the pools here run in an open folder, by an interpreter that everybody may execute.
"""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from sergeant_linux import Supervisor
from sergeant_linux.kernel import procfs
from tests.scenarios.pool import ROOT, Pool, kill, pool
from tests.scenarios.test_stragglers import BROODER, brood_of, has_gone

UID: Final = 65534
"""nobody."""

CAP_SYS_RESOURCE: Final = 1 << 24

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason='only root can make processes of another uid')

LOOK: Final = """
    import ctypes, json, os, resource, time

    class Worker:
        def run(self):
            status = dict(line.split(':\\t', 1) for line in open('/proc/self/status').read().splitlines())
            pdeathsig = ctypes.c_int()
            libc = ctypes.CDLL(None)
            libc.prctl(2, ctypes.byref(pdeathsig), 0, 0, 0)
            mask = os.umask(0)
            os.umask(mask)
            print('seen', json.dumps({
                'pid': os.getpid(),
                'uids': os.getresuid(),
                'gids': os.getresgid(),
                'groups': os.getgroups(),
                'capabilities': [int(status[name], 16) for name in ('CapPrm', 'CapEff', 'CapAmb')],
                'environ': {name: os.environ.get(name) for name in ('HOME', 'USER', 'LOGNAME', 'SHELL')},
                'nice': os.nice(0),
                'limits': {name: resource.getrlimit(getattr(resource, name)) for name in dir(resource)
                           if name.startswith('RLIMIT_')},
                'umask': mask,
                'no_new_privs': int(status['NoNewPrivs']),
                'dumpable': libc.prctl(3, 0, 0, 0, 0),
                'pdeathsig': pdeathsig.value,
                'oom_score_adj': int(open('/proc/self/oom_score_adj').read()),
                'title': open('/proc/self/cmdline').read().rstrip('\\0'),
                'fds': [fd for fd in range(100) if os.path.exists(f'/proc/self/fd/{fd}')],
            }), flush=True)
            while True:
                time.sleep(1000)
"""


def can_run(python: str) -> bool:
    """Whether the other uid can execute this interpreter, and it is new enough."""
    script = 'import json, sys; sys.exit(sys.version_info < (3, 11))'
    try:
        result = subprocess.run(
            [python, '-c', script], user=UID, group=UID, extra_groups=[], cwd='/', env={}, stderr=subprocess.DEVNULL
        )
    except OSError:
        return False
    return result.returncode == 0


@pytest.fixture(scope='session')
def python() -> str:
    """An interpreter that the other uid can execute."""
    for candidate in (sys.executable, '/usr/bin/python3', shutil.which('python3') or sys.executable):
        if can_run(candidate):
            return candidate
    pytest.skip('there is no Python 3.11 or newer here that everybody may execute')


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder for everybody."""
    with tempfile.TemporaryDirectory(prefix='sergeant-', dir='/tmp') as path:
        os.chmod(path, 0o777)
        yield Path(path)


@pytest.fixture(params=['fork', 'exec'])
def spawn(request: pytest.FixtureRequest) -> str:
    value: str = request.param
    return value


def seen(running: Pool, count: int = 1) -> dict[str, Any]:
    """Return what the latest of `count` workers has seen of itself."""
    found: dict[str, Any] = json.loads(running.hear('seen ', count=count)[-1].removeprefix('seen '))
    return found


# What a worker is.


def test_a_worker_of_another_user_has_its_ids_its_groups_and_its_environment_and_no_capability(
    folder: Path, python: str, spawn: str
) -> None:
    with pool(folder, LOOK, python=[python], spawn=spawn, user='nobody') as running:
        look = seen(running)

    assert (look['uids'], look['gids'], look['groups']) == ([UID] * 3, [UID] * 3, [UID])
    assert look['capabilities'] == [0, 0, 0]
    assert look['environ'] == {
        'HOME': '/nonexistent',
        'USER': 'nobody',
        'LOGNAME': 'nobody',
        'SHELL': '/usr/sbin/nologin',
    }


def test_a_user_without_an_entry_is_a_number_with_a_group(folder: Path, python: str, spawn: str) -> None:
    with pool(folder, LOOK, python=[python], spawn=spawn, user='54321', group='54322') as running:
        look = seen(running)

    assert (look['uids'], look['gids'], look['groups']) == ([54321] * 3, [54322] * 3, [54322])
    assert look['environ'] == {'HOME': '/', 'USER': '54321', 'LOGNAME': '54321', 'SHELL': '/bin/sh'}


def test_a_group_alone_changes_the_group_alone(folder: Path, python: str) -> None:
    with pool(folder, LOOK, python=[python], group='nogroup') as running:
        look = seen(running)

    assert (look['uids'], look['gids'], look['groups']) == ([0] * 3, [UID] * 3, os.getgroups())
    assert look['environ']['HOME'] == os.environ.get('HOME')


def test_a_worker_of_another_user_is_as_any_other_in_the_rest(folder: Path, python: str, spawn: str) -> None:
    with pool(folder, LOOK, python=[python], spawn=spawn, user='nobody') as running:
        look = seen(running)
        (record,) = running.find('worker-spawn')

        assert look['pid'] == record['pid']
        assert look['title'] == 'sergeant-linux: worker worker.Worker [0]'
        assert look['pdeathsig'] == signal.SIGKILL
        assert len(look['fds']) == 6  # stdio, its gate, its page, the pipe for its stacks
        for mark in (b'SERGEANT_WORKER_LIFE=1', b'SERGEANT_WORKER_SLOT=0'):
            assert procfs.environ_contains(look['pid'], mark)
        kill(look['pid'], signal.SIGUSR2)
        running.wait_for('worker-exit', signal='SIGUSR2')
        assert running.stop() == 0


@pytest.mark.parametrize('user', ['root', 'nobody'])
def test_limits_niceness_umask_and_no_new_privileges_are_as_asked_for(
    folder: Path, python: str, spawn: str, user: str
) -> None:
    with pool(
        folder,
        LOOK,
        python=[python],
        spawn=spawn,
        user=user,
        worker_nice=7,
        umask='027',
        no_new_privileges=True,
        worker_limit_nofile='100:200',
        worker_limit_nproc='1000',
        worker_limit_core='1M:infinity' if has(CAP_SYS_RESOURCE) else '1M',
        worker_limit_memlock='64K',
        worker_limit_stack='4M',
        worker_limit_fsize='1G',
        worker_limit_data='1G',
        worker_limit_cpu='1min 30s:2min',
    ) as running:
        look = seen(running)

    assert (look['nice'], look['umask'], look['no_new_privs']) == (7, 0o027, 1)
    mib = 1024**2
    assert {name: look['limits'][f'RLIMIT_{name}'] for name in ('NOFILE', 'NPROC', 'MEMLOCK', 'STACK')} == {
        'NOFILE': [100, 200],
        'NPROC': [1000, 1000],
        'MEMLOCK': [64 * 1024] * 2,
        'STACK': [4 * mib] * 2,
    }
    assert look['limits']['RLIMIT_CORE'] == [mib, resource.RLIM_INFINITY if has(CAP_SYS_RESOURCE) else mib]
    assert look['limits']['RLIMIT_FSIZE'] == look['limits']['RLIMIT_DATA'] == [1024 * mib] * 2
    assert look['limits']['RLIMIT_CPU'] == [90, 120]


def test_what_is_not_asked_for_is_as_the_supervisor_has_it(folder: Path, python: str, spawn: str) -> None:
    mask = os.umask(0)
    os.umask(mask)
    with pool(folder, LOOK, python=[python], spawn=spawn) as running:
        look = seen(running)

    assert (look['uids'], look['gids'], look['groups']) == ([0] * 3, [0] * 3, os.getgroups())
    assert (look['nice'], look['umask'], look['no_new_privs'], look['dumpable']) == (os.nice(0), mask, 0, 1)
    for name, limits in look['limits'].items():
        assert tuple(limits) == resource.getrlimit(getattr(resource, name))


@pytest.mark.parametrize(('core', 'dumpable'), [({}, 0), ({'worker_limit_core': '1M'}, 1)])
def test_a_worker_of_another_user_can_be_looked_into_by_its_own_uid_only_for_core_files(
    folder: Path, python: str, spawn: str, core: dict[str, Any], dumpable: int
) -> None:
    with pool(folder, LOOK, python=[python], spawn=spawn, user='nobody', **core) as running:
        assert seen(running)['dumpable'] == dumpable


# The OOM killer.


def has(capability: int) -> bool:
    return bool(procfs.permitted_capabilities() & capability)


@pytest.mark.parametrize('user', ['root', 'nobody'])
def test_the_oom_killer_spares_the_supervisor_where_allowed_and_never_a_worker(
    folder: Path, python: str, spawn: str, user: str
) -> None:
    with pool(folder, LOOK, python=[python], spawn=spawn, user=user) as running:
        look = seen(running)
        ours = [running.pid, running.helper('fork server'), running.helper('undertaker')]
        spared = {int(Path(f'/proc/{pid}/oom_score_adj').read_text()) for pid in ours}

    before = int(Path('/proc/self/oom_score_adj').read_text())
    assert look['oom_score_adj'] == max(0, before)
    assert spared == {-900 if has(CAP_SYS_RESOURCE) else before}


def test_a_worker_is_no_less_likely_to_be_killed_than_the_supervisor_was(folder: Path, python: str) -> None:
    raised = ['/bin/sh', '-c', 'echo 300 > /proc/self/oom_score_adj; exec "$0" "$@"', python]
    with pool(folder, LOOK, python=raised) as running:
        assert seen(running)['oom_score_adj'] == 300


def test_a_worker_has_its_score_whatever_the_fork_servers_has_become(folder: Path, python: str, spawn: str) -> None:
    with pool(folder, LOOK, python=[python], spawn=spawn, user='nobody', restart_delay=0) as running:
        worker = seen(running)['pid']
        Path(f'/proc/{running.helper("fork server")}/oom_score_adj').write_text('500')
        kill(worker)

        assert seen(running, count=2)['oom_score_adj'] == max(0, int(Path('/proc/self/oom_score_adj').read_text()))


@pytest.mark.parametrize('is_ours', [True, False])
def test_the_supervisors_own_score_is_put_back_and_a_program_of_somebody_elses_keeps_its_own(is_ours: bool) -> None:
    script = f"""
        from sergeant_linux.engine.borrowed import Host
        from sergeant_linux.kernel import oom_score
        oom_score.adjust(100)
        with Host(is_ours={is_ours}) as host:
            print(host.oom_score_adj, oom_score.adjustment())
        print(oom_score.adjustment())
    """
    said = subprocess.run([sys.executable, '-c', textwrap.dedent(script)], cwd=ROOT, capture_output=True, check=True)

    inside = -900 if is_ours and has(CAP_SYS_RESOURCE) else 100
    assert said.stdout.split() == [b'100', str(inside).encode(), b'100']


# What still holds of it.


def test_workers_of_another_user_die_with_the_supervisor_by_the_kernel_alone(
    folder: Path, python: str, spawn: str
) -> None:
    with pool(folder, LOOK, python=[python], spawn=spawn, user='nobody', concurrent_workers=3) as running:
        seen(running, count=3)
        workers = list(running.workers().values())
        helpers = [running.helper(title) for title in ('fork server', 'undertaker')]
        for helper in helpers:
            kill(helper, signal.SIGSTOP)
        kill(running.pid)

        has_gone(workers)
        for helper in helpers:
            kill(helper, signal.SIGCONT)
        running.wait_until_gone()


@pytest.mark.parametrize('backend', ['auto', 'rss'])
def test_what_a_worker_of_another_user_has_started_is_gone_after_its_end(
    folder: Path, python: str, spawn: str, backend: str
) -> None:
    os.mkfifo(folder / 'cue')
    with pool(
        folder, BROODER, python=[python], spawn=spawn, user='nobody', memory_backend=backend, restart_delay=0
    ) as running:
        brood = brood_of(running)
        (folder / 'cue').write_text('os._exit(1)')

        running.wait_for('worker-exit', life=1)
        has_gone(brood)
        running.wait_for('worker-ready', life=2)


@pytest.mark.parametrize('backend', ['auto', 'rss'])
def test_what_a_worker_of_another_user_has_started_is_gone_after_the_supervisor_was_killed(
    folder: Path, python: str, backend: str
) -> None:
    os.mkfifo(folder / 'cue')
    with pool(folder, BROODER, python=[python], user='nobody', memory_backend=backend) as running:
        brood = brood_of(running)

        kill(running.pid)

        has_gone(brood)
        running.wait_until_gone()


# What it can't do.

HOSTILE: Final = """
    import ctypes, os, signal, sys, time

    libc = ctypes.CDLL(None, use_errno=True)

    def call(name, *arguments):
        if getattr(libc, name)(*arguments) < 0:
            raise OSError(ctypes.get_errno(), name)

    def attempts(pid):
        yield 'read its descriptors', lambda: os.listdir(f'/proc/{pid}/fd')
        yield 'read its memory', lambda: open(f'/proc/{pid}/mem', 'rb')
        yield 'read its environment', lambda: open(f'/proc/{pid}/environ', 'rb').read()
        yield 'attach to it', lambda: call('ptrace', 16, pid, 0, 0)              # PTRACE_ATTACH
        yield 'seize it', lambda: call('ptrace', 0x4206, pid, 0, 0)              # PTRACE_SEIZE
        pidfd = os.pidfd_open(pid)
        for fd in range(3, 12):
            yield f'take its descriptor {fd}', lambda: call('syscall', 438, pidfd, fd, 0)   # pidfd_getfd

    def attempts_on_root(pid):
        yield 'signal it', lambda: os.kill(pid, 0)
        yield 'stop it', lambda: os.kill(pid, signal.SIGSTOP)
        yield 'continue it', lambda: os.kill(pid, signal.SIGCONT)
        yield 'slow it', lambda: os.setpriority(os.PRIO_PROCESS, pid, 19)
        yield 'schedule it', lambda: os.sched_setscheduler(pid, os.SCHED_IDLE, os.sched_param(0))
        yield 'pin it', lambda: os.sched_setaffinity(pid, {0})
        yield 'limit it', lambda: __import__('resource').prlimit(pid, 7, (8, 8))
        yield 'offer it to the OOM killer', lambda: open(f'/proc/{pid}/oom_score_adj', 'w').write('1000')
        yield from attempts(pid)

    def title(pid):
        try:
            return open(f'/proc/{pid}/cmdline').read()
        except OSError:
            return ''

    class Worker:
        def run(self):
            if os.environ['SERGEANT_WORKER_SLOT'] == '0':
                self.attack()
            while True:
                time.sleep(1000)

        def attack(self):
            while not os.path.exists('go'):
                time.sleep(0.01)
            me, supervisor = os.getpid(), os.getppid()
            targets = {supervisor: 'supervisor'}
            while len(targets) < 4:
                for pid in os.listdir('/proc'):
                    if pid.isdigit() and int(pid) != me and parent(pid) == supervisor:
                        for kind in ('fork server', 'undertaker', 'worker'):
                            if title(pid).startswith('sergeant-linux: ' + kind):
                                targets[int(pid)] = kind
            for pid, kind in targets.items():
                for what, attempt in (attempts if kind == 'worker' else attempts_on_root)(pid):
                    try:
                        attempt()
                    except PermissionError:
                        print('denied:', what, 'of the', kind, flush=True)
                    except OSError as error:
                        print('failed:', what, 'of the', kind, error, flush=True)
                    else:
                        print('DONE:', what, 'of the', kind, flush=True)
            print('attacked', *sorted(targets.values()), flush=True)

    def parent(pid):
        try:
            return int(open(f'/proc/{pid}/stat').read().rpartition(')')[2].split()[1])
        except OSError:
            return 0
"""


def test_a_worker_of_another_user_cannot_signal_slow_or_read_the_supervisor_its_helpers_and_its_neighbours_reports(
    folder: Path, python: str, spawn: str
) -> None:
    with pool(folder, HOSTILE, python=[python], spawn=spawn, user='nobody', concurrent_workers=2) as running:
        running.wait_for('worker-ready', count=2)
        (folder / 'go').touch()

        assert running.hear('attacked') == ['attacked fork server supervisor undertaker worker']
        assert [line for line in running.said if not line.startswith(('denied: ', 'attacked '))] == []
        assert len(running.hear('denied: ')) == 3 * (8 + 14) + 14
        assert running.stop() == 0


# What can't be.


LOOKING: Final = ('sys_ptrace', 'sys_admin', 'perfmon')
"""What lets root look into processes of other uids: the first, and on newer kernels (6.18) any of these. Docker's
containers have none."""


def without(python: str, *capabilities: str) -> list[str]:
    """Return the command of an interpreter that is root and lacks capabilities."""
    dropped = ','.join(f'-{name}' for name in capabilities)
    return ['setpriv', f'--bounding-set={dropped}', f'--inh-caps={dropped}', python]


def refusal(running: Pool) -> str:
    """Return the one line that says why the pool can't run, after its exit status was 4 and no worker was there."""
    assert running.exit_status() == 4
    assert not running.find('worker-spawn')
    (record,) = running.find('cant-run')
    return str(record['message'])


def test_an_unprivileged_supervisor_cannot_have_workers_of_another_uid(folder: Path, python: str) -> None:
    with pool(folder, LOOK, python=[python], uid=UID, user='root') as running:
        assert 'cannot take the supplementary groups [0] (Operation not permitted): this needs CAP_SETGID' in refusal(
            running
        )


def test_what_may_pass_at_the_start_is_status_75(folder: Path, python: str) -> None:
    """No process can be made: the supervisor is all that its uid may have (RLIMIT_NPROC, EAGAIN)."""
    alone = ['prlimit', '--nproc=1', '--', python]
    with pool(folder, LOOK, python=alone, uid=61_234) as running:
        assert running.exit_status() == 75
        (record,) = running.find('cant-run')
        assert 'Resource temporarily unavailable' in record['message']


@pytest.mark.skipif(not has(CAP_SYS_RESOURCE), reason='to lower the value takes CAP_SYS_RESOURCE')
@pytest.mark.parametrize('is_root', [True, False])
def test_who_makes_workers_is_spared_by_the_oom_killer_as_the_supervisor_is_and_workers_are_not(
    folder: Path, python: str, is_root: bool
) -> None:
    """Root's supervisor lowers the value itself; for another uid's the service manager does, before it takes the rights to do so away."""
    lowered = ['sh', '-c', 'echo -900 > /proc/self/oom_score_adj && exec setpriv --reuid=65534 --regid=65534 --clear-groups "$0" "$@"']

    def adjustment(pid: int) -> int:
        return int(Path(f'/proc/{pid}/oom_score_adj').read_text())

    start = [python] if is_root else [*lowered, python]
    with pool(folder, LOOK, python=start, user='nobody', group='nogroup') as running:
        seen(running)
        makers = [running.pid, running.helper('fork server'), running.helper('undertaker')]
        assert [adjustment(pid) for pid in makers] == [-900] * 3
        assert [adjustment(pid) for pid in running.workers().values()] == [0]


def test_an_unprivileged_supervisor_may_be_told_the_user_that_it_is(folder: Path, python: str) -> None:
    with pool(folder, LOOK, python=[python], uid=UID, user='nobody', group='nogroup') as running:
        look = seen(running)

    assert (look['uids'], look['dumpable']) == ([UID] * 3, 1)


def test_workers_whom_the_kernel_would_not_end_with_the_supervisor_are_refused(folder: Path, python: str) -> None:
    with pool(folder, LOOK, python=without(python, 'kill'), user='nobody') as running:
        said = refusal(running)

    assert 'cannot have workers of the uid 65534: the kernel would not end them with the supervisor' in said
    assert 'CAP_KILL' in said


def test_workers_that_would_keep_capabilities_are_refused(folder: Path, python: str) -> None:
    caps = '+setuid,+setgid,+kill'
    python_of_daemon = ['setpriv', '--reuid=1', '--regid=1', '--clear-groups', f'--inh-caps={caps}',
                        f'--ambient-caps={caps}', python]
    with pool(folder, LOOK, python=python_of_daemon, user='nobody') as running:
        assert 'the uid 65534 would keep capabilities (0xe0)' in refusal(running)


def test_a_fresh_interpreter_that_the_user_cannot_execute_is_refused(
    folder: Path, tmp_path: Path, python: str
) -> None:
    (tmp_path / 'python').symlink_to(python)  # pytest's folders are for their owner alone
    with pool(folder, LOOK, python=[str(tmp_path / 'python')], user='nobody', spawn='exec') as running:
        said = refusal(running)

    assert f'cannot run {tmp_path}/python as the uid 65534 (Permission denied)' in said


@pytest.mark.parametrize(('flags', 'said'), [
    ({'worker_limit_nofile': str(2**40)}, f'cannot set the limit nofile to {2**40}:{2**40} ('),
    ({'worker_nice': -5}, 'cannot set the niceness to -5 (Permission denied): this needs CAP_SYS_NICE'),
    ({'user': 'nobody', 'memory_measure': 'pss'}, 'cannot measure the PSS of workers of the uid 65534'),
])
def test_what_the_host_does_not_allow_is_refused(
    folder: Path, python: str, flags: dict[str, Any], said: str
) -> None:
    limited = without(python, 'sys_nice', 'sys_resource', *LOOKING)
    with pool(folder, LOOK, python=limited, **flags) as running:
        assert said in refusal(running)


def test_stragglers_are_found_also_where_no_environment_can_be_read(folder: Path, python: str) -> None:
    os.mkfifo(folder / 'cue')
    limited = without(python, *LOOKING)
    with pool(folder, BROODER, python=limited, user='nobody', memory_backend='rss', restart_delay=0) as running:
        brood = brood_of(running)

        (folder / 'cue').write_text('')

        running.wait_for('worker-exit', life=1)
        has_gone(brood)
        running.wait_for('worker-ready', life=2)


@pytest.mark.parametrize(('flags', 'said'), [
    ({'user': 'no-such-user'}, "--user: expected the name of a user of this host, not 'no-such-user'"),
    ({'group': 'no-such-group'}, "--group: expected the name of a group of this host, not 'no-such-group'"),
    ({'user': 54321}, '--user: expected a user of this host, or a group as well, not the number 54321 alone'),
])
def test_an_unknown_user_or_group_is_wrong_usage(folder: Path, flags: dict[str, Any], said: str) -> None:
    with pool(folder, LOOK, **flags) as running:
        assert running.exit_status() == 2
        assert running.lines == [f'python3 -m sergeant_linux.supervisor: error: {said}']


def test_an_unknown_user_is_a_value_error_of_the_class() -> None:
    with pytest.raises(ValueError, match=r"^user: expected the name of a user of this host, not 'no-such-user'$"):
        Supervisor('worker', 'Worker', 1, user='no-such-user')


def test_what_cannot_be_any_more_is_told_as_a_spawn_that_has_failed(folder: Path, python: str) -> None:
    with pool(
        folder, LOOK, python=without(python, 'sys_resource'), worker_limit_nofile='100:200', restart_delay='10ms'
    ) as running:
        worker = seen(running)['pid']
        resource.prlimit(running.helper('fork server'), resource.RLIMIT_NOFILE, (64, 64))
        kill(worker)

        record = running.wait_for('worker-spawn-failed')[0]
        assert 'cannot set the limit nofile to 100:200 (not allowed to raise maximum limit)' in record['message']
        assert running.stop() == 0


# What a worker of an unprivileged supervisor can become.

ROOTED: Final = (
    """
    import os, subprocess, time

    class Worker:
        def run(self):
            if os.environ['SERGEANT_WORKER_LIFE'] == '1':
                subprocess.Popen(['./rooted', '-c', 'import os, time; os.setresuid(0, 0, 0); '
                                  'print("rooted", os.getpid(), flush=True); time.sleep(1000)'])
                time.sleep(1000)
            time.sleep(1000)
    """
)


def test_what_has_become_root_does_not_stop_the_supervisor_of_a_user(folder: Path, python: str) -> None:
    shutil.copy(os.path.realpath(python), folder / 'rooted')
    (folder / 'rooted').chmod(0o4755)
    with pool(
        folder, ROOTED, python=[python], uid=UID, memory_backend='rss', restart_delay=0, timeout_stop='5s'
    ) as running:
        rooted = int(running.hear('rooted ')[0].split()[1])
        try:
            if Path(f'/proc/{rooted}').stat().st_uid != 0:
                pytest.skip('the folder is on a file system without set-user-ID')
            kill(running.workers()[1])

            running.wait_for('worker-ready', life=2)
        finally:
            kill(rooted)
        assert running.stop() == 0
