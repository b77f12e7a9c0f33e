"""The unit that is printed: what stands in it, for which systemd, and that systemd reads what we have meant."""

import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pytest

from sergeant_linux.cli.verbs.run import parse_run
from sergeant_linux.control.names import LONGEST_PATH
from sergeant_linux.core.policy import Policy
from sergeant_linux.log import catalog
from sergeant_linux.recipes import unit
from sergeant_linux.recipes.unit import Plan, Unwritable, argument, as_text, escape, memory_for, runtime_directory

GOLDEN: Final = Path(__file__).parent / 'golden'
MAIN: Final = [sys.executable, '-c', 'from sergeant_linux.cli.main import main; main()', 'unit']
SCRIPT: Final = str(Path(sys.executable).with_name('sergeant-linux'))
POOL: Final = ['--worker-module=hash_worker', '--worker-class=Worker', '--concurrent-workers=4']

ODD: Final = [
    '', 'a b', '%i', '%%', '$HOME', '${HOME}', '$$', '"', "'", "it's", '\\', '\\n', 'a\nb', '\t', ';', '\\;', '#', '=',
    '-', '@', '!', 'ü½', '\udcff', '\x1b[1m', 'a\\', '"a b"', ' a ', '%h/$x "y" \\z;',
]
"""Words that one of systemd's readers takes for something else."""

analyze = pytest.mark.skipif(shutil.which('systemd-analyze') is None, reason='there is no systemd-analyze here')


def say(*argv: str, cwd: Path | None = None, **environ: str) -> 'subprocess.CompletedProcess[str]':
    clean = {key: value for key, value in os.environ.items() if not key.startswith('SERGEANT_LINUX_')}
    return subprocess.run(
        [*MAIN, *argv], env=clean | environ, cwd=cwd, capture_output=True, text=True, timeout=60, check=False,
    )


def printed(*argv: str, cwd: Path | None = None, environ: Mapping[str, str] | None = None) -> str:
    done = say(*argv, cwd=cwd, **(environ or {}))
    assert (done.returncode, done.stderr) == (0, '')
    return done.stdout


def settings(text: str) -> dict[str, list[str]]:
    """Return what is set, as systemd.syntax(7) has it: continued lines, comments, and what is set several times."""
    found: dict[str, list[str]] = {}
    for line in text.replace('\\\n', ' ').splitlines():
        if line and line[0] not in '#;[':
            key, _, value = line.partition('=')
            found.setdefault(key, []).append(value.strip())
    return found


def words(line: str) -> list[str]:
    """Read a command line as systemd.service(5) says: quotes, C escapes, specifiers, then variables."""
    found = []
    for raw in re.findall(r'"(?:\\.|[^"\\])*"|[^\s"]+', line):
        body = raw[1:-1] if raw.startswith('"') else raw
        assert '\\' not in raw or raw.startswith('"')
        plain = unescaped(body)
        assert not re.search(r'(?<!%)(?:%%)*%(?!%)', plain), f'a specifier in {line}'
        plain = plain.replace('%%', '%')
        assert not re.search(r'(?<!\$)(?:\$\$)*\$(?!\$)', plain), f'a variable in {line}'
        found.append(plain.replace('$$', '$'))
    return found


def unescaped(text: str) -> str:
    def one(match: 're.Match[bytes]') -> bytes:
        code = match[1]
        if code[:1] == b'x':
            return bytes([int(code[1:], 16)])
        if code.isdigit():
            return bytes([int(code, 8)])
        return {b'n': b'\n', b't': b'\t', b'r': b'\r'}.get(code, code)

    return os.fsdecode(re.sub(rb'\\(x[0-9a-f]{2}|[0-7]{3}|.)', one, os.fsencode(text)))


def command(text: str) -> list[str]:
    (line,) = settings(text)['ExecStart']
    return words(line)


def policy(**knobs: Any) -> Policy:
    return Policy(**{
        'concurrent_workers': 4, 'worker_module_name': 'hash_worker', 'worker_class_name': 'Worker', **knobs,
    })


def plan(flags: Sequence[str] = (), knobs: Mapping[str, Any] | None = None, **given: Any) -> Plan:
    return Plan(**{
        'policy': policy(**(knobs or {})), 'flags': [*POOL, *flags], 'python': '/srv/hash/.venv/bin/python3',
        'folder': '/srv/hash', 'systemd': 252, **given,
    })


# The whole.


@pytest.mark.parametrize(('golden', 'given'), [
    ('unit-252', plan(['--max-worker-memory-usage=512M'], user='hash', writable=['/srv/hash/out'], memory_max=2688 * 1024**2)),
    ('unit-256', plan(user='hash', systemd=256)),
    ('unit-user', plan(for_user_manager=True, systemd=256)),
    ('unit-template', plan(is_template=True, flags=[], user='hash', systemd=None)),
])
def test_the_unit_is_as_it_was(golden: str, given: Plan) -> None:
    text = as_text(given)
    path = GOLDEN / f'{golden}.service'
    if os.environ.get('UPDATE_GOLDEN') == '1':
        path.write_text(text)
    assert text == path.read_text()


@analyze
@pytest.mark.parametrize('flags', [[], ['--name=a%b $c "d"', '--writable=/', '--memory-max=1G', '--user=daemon']])
def test_systemd_has_nothing_to_say_against_it(tmp_path: Path, flags: list[str]) -> None:
    (tmp_path / 'pool.service').write_text(printed(*POOL, *flags))
    assert unit.verify(str(tmp_path / 'pool.service'), for_user_manager=False) in ('', None)


# The command line.


def test_what_was_given_stands_in_the_unit_and_means_the_same() -> None:
    given = [
        *POOL, '--max-worker-memory-usage=512M', '--preload-module=json', '--preload-module=csv', '--timeout-stop=1min 30s',
        '--worker-nice=-5', '--no-no-new-privileges', '--worker-cpu-max=150%', '--name=$a %h "b"', '--restart-budget=5/1min',
    ]

    argv = command(printed(*given))

    assert argv[:3] == [sys.executable, '-m', 'sergeant_linux.supervisor']
    assert parse_run(argv[3:], {}, '') == parse_run(given, {}, '')


def test_variables_stand_in_the_unit_as_options_and_options_win() -> None:
    environ = {
        'SERGEANT_LINUX_WORKER_MODULE': 'm', 'SERGEANT_LINUX_WORKER_CLASS': 'C', 'SERGEANT_LINUX_CONCURRENT_WORKERS': '3',
        'SERGEANT_LINUX_PRELOAD': '0', 'SERGEANT_LINUX_PRELOAD_MODULE': 'json, csv', 'SERGEANT_LINUX_NO_NEW_PRIVILEGES': '1',
        'SERGEANT_LINUX_TIMEOUT_STOP': '5min', 'SERGEANT_LINUX_NAME': '',
    }

    argv = command(printed('--timeout-stop=20', '--concurrent-workers=7', environ=environ))

    assert parse_run(argv[3:], {}, '') == parse_run(['--timeout-stop=20', '--concurrent-workers=7'], environ, '')
    assert argv[3:] == [
        '--concurrent-workers=7', '--worker-class=C', '--worker-module=m', '--no-preload', '--preload-module=json',
        '--preload-module=csv', '--timeout-stop=20', '--no-new-privileges',
    ]


@pytest.mark.parametrize('odd', ODD)
def test_an_odd_word_is_read_as_it_was_meant(odd: str) -> None:
    assert words(f'/bin/true {argument(odd)}') == ['/bin/true', odd]


@analyze
def test_systemd_reads_odd_words_as_they_were_meant(tmp_path: Path) -> None:
    text = as_text(plan(ODD, python='/bin/true', folder='/', pythonpath='/a b%:/$c\\'))
    (tmp_path / 'odd.service').write_text(text)
    done = subprocess.run(
        ['systemd-analyze', 'verify', '--man=no', './odd.service'], cwd=tmp_path, capture_output=True, check=False,
        env=os.environ | {'SYSTEMD_LOG_LEVEL': 'debug'}, timeout=60,
    )
    dump = os.fsdecode(done.stdout)
    found = re.search(r'Command Line: (.*)', dump)
    if found is None:
        pytest.skip(f'systemd-analyze does not show what it has read: {done.stderr[-300:]!r}')
    read = [
        unescaped(raw[1:-1]) if raw.startswith('"') else raw for raw in re.findall(r'"(?:\\.|[^"\\])*"|[^\s"]+', found[1])
    ]
    assert [each.replace('$$', '$') for each in read] == ['/bin/true', '-m', 'sergeant_linux.supervisor', *POOL, *ODD]
    assert 'Environment: PYTHONPATH=/a b%:/$c\\\n' in dump


@pytest.mark.parametrize('given', [
    {'python': '/srv/$x/python'}, {'python': '/srv/a\nb/python'}, {'folder': '/srv/a\nb'}, {'folder': '/srv/a '},
    {'folder': '/srv/a\\'}, {'folder': 'srv'}, {'writable': ['/a\x01']},
])
def test_what_can_not_be_written_for_sure_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(Unwritable, match='can not be written in a unit'):
        as_text(plan(**given))


def test_it_is_for_this_interpreter_and_this_folder(tmp_path: Path) -> None:
    folder = tmp_path / 'a %h b'
    folder.mkdir()
    found = settings(printed(*POOL, cwd=folder, environ={'PYTHONPATH': str(Path.cwd())}))
    assert found['WorkingDirectory'] == [str(folder).replace('%', '%%')]
    assert found['Environment'] == [f'PYTHONPATH={Path.cwd()}']


# The versions.


@pytest.mark.parametrize(('version', 'kind', 'reloads', 'subgroup', 'clock'), [
    (250, 'notify', True, False, False),
    (252, 'notify', True, False, False),
    (253, 'notify-reload', False, False, True),
    (254, 'notify-reload', False, True, True),
    (300, 'notify-reload', False, True, True),
])
def test_it_goes_by_the_version_of_systemd(version: int, kind: str, reloads: bool, subgroup: bool, clock: bool) -> None:
    found = settings(printed(*POOL, f'--systemd-version={version}'))
    assert found['Type'] == [kind]
    assert found.get('ExecReload') == (['/bin/kill -HUP $MAINPID'] if reloads else None)
    assert found.get('DelegateSubgroup') == (['supervisor'] if subgroup else None)
    assert ('ProtectClock' in found) == clock


def test_without_systemd_the_oldest_is_assumed_and_a_comment_says_so(tmp_path: Path) -> None:
    text = printed(*POOL, environ={'PATH': str(tmp_path)})
    assert text.splitlines()[0] == '# Made by `sergeant-linux unit` for systemd 252, as no systemd was found.'
    assert settings(text)['Type'] == ['notify']


def test_the_version_is_asked_for(tmp_path: Path) -> None:
    systemctl = tmp_path / 'systemctl'
    systemctl.write_text('#!/bin/sh\necho "systemd 254 (254.5-1)"\necho "+PAM"\n')
    systemctl.chmod(0o755)
    assert settings(printed(*POOL, environ={'PATH': f'{tmp_path}:{os.environ["PATH"]}'}))['Type'] == ['notify-reload']


# What depends on the pool.


def test_cgroups_are_not_asked_for_where_they_are_not_used() -> None:
    found = settings(printed(*POOL, '--memory-backend=rss', '--systemd-version=256'))
    assert 'Delegate' not in found and 'DelegateSubgroup' not in found
    assert found['OOMPolicy'] == ['continue']
    assert settings(printed(*POOL))['Delegate'] == ['memory pids cpu io']


@pytest.mark.parametrize(('stop', 'seconds'), [('8', '13s'), ('1.5', '7s'), ('10min', '10min5s'), ('infinity', 'infinity')])
def test_systemd_waits_longer_than_a_stop_may_take(stop: str, seconds: str) -> None:
    assert settings(printed(*POOL, f'--timeout-stop={stop}'))['TimeoutStopSec'] == [seconds]


def test_the_user_of_the_pool_is_the_user_of_the_unit() -> None:
    text = printed(*POOL, '--user=daemon', '--group=0')
    assert (settings(text)['User'], settings(text)['Group']) == (['daemon'], ['0'])
    assert not any(each.startswith(('--user', '--group')) for each in command(text))


def test_a_supervisor_of_another_user_runs_its_workers_as_they_are_to_be() -> None:
    text = printed(*POOL, '--supervisor-user=root', '--user=daemon')
    assert settings(text)['User'] == ['root']
    assert '--user=daemon' in command(text)


@pytest.mark.skipif(not Path(SCRIPT).exists(), reason='the console script is not beside this interpreter')
def test_a_supervisor_with_more_rights_than_its_workers_is_not_started_from_their_folder() -> None:
    for options, start in (
        (['--supervisor-user=root', '--user=daemon'], f'{SCRIPT} run '), (['--user=daemon'], f'{sys.executable} -m '),
    ):
        assert settings(printed(*POOL, *options))['ExecStart'][0].startswith(start)


@pytest.mark.parametrize(('knobs', 'size'), [
    ({}, None),
    ({'max_worker_memory_usage': '512M'}, 5 * 512 + 128),
    ({'max_worker_memory_usage': '512M', 'max_surge': 0}, 4 * 512 + 128),
    ({'pool_memory_max': '1G'}, 1024 + 128),
    ({'max_worker_memory_usage': '512M', 'pool_memory_max': '1G'}, 1024 + 128),
])
def test_the_memory_of_the_unit_is_that_of_its_workers_their_successors_and_a_reserve(
    knobs: dict[str, Any], size: int | None,
) -> None:
    assert memory_for(policy(**knobs)) == (None if size is None else size * 1024**2)


def test_memory_is_limited_where_that_is_asked_for() -> None:
    limit = '--max-worker-memory-usage=512M'
    assert 'MemoryMax' not in settings(printed(*POOL, limit))
    assert settings(printed(*POOL, limit, '--memory-max=auto'))['MemoryMax'] == ['2688M']
    assert settings(printed(*POOL, '--memory-max=3G'))['MemoryMax'] == ['3G']
    assert settings(printed(*POOL, '--memory-max=1000'))['MemoryMax'] == ['1000']


def test_workers_write_to_what_was_named(tmp_path: Path) -> None:
    (tmp_path / 'out').mkdir()
    found = settings(printed(*POOL, '--writable=out', '--writable', '/var', '--control-socket=/run/a/b.sock', cwd=tmp_path))
    assert found['ProtectSystem'] == ['strict']
    assert {str(tmp_path / 'out'), '/var', '/run/a'} <= set(found['ReadWritePaths'])


def test_a_writable_folder_that_is_missing_is_warned_of() -> None:
    done = say(*POOL, '--writable=/no/such')
    assert (done.returncode, done.stderr) == (0, (
        'sergeant-linux unit: warning: --writable: /no/such does not exist; '
        'systemd does not start a unit whose folders are missing\n'
    ))
    assert '/no/such' in settings(done.stdout)['ReadWritePaths']


@pytest.mark.parametrize(('given', 'private'), [
    ({}, True), ({'folder': '/tmp/pool'}, False), ({'python': '/var/tmp/v/bin/python'}, False), ({'pythonpath': '/a:/tmp'}, False),
    ({'writable': ['/tmp/out']}, False), ({'needed': ['/tmp/v']}, False), ({'folder': '/tmpfiles'}, True),
])
def test_tmp_is_the_pools_own_but_where_it_needs_something_there(given: dict[str, Any], private: bool) -> None:
    found = settings(as_text(plan(**given)))
    assert ('PrivateTmp' in found) == private
    assert ('/tmp' in found.get('ReadWritePaths', [])) == (not private), 'it can be written in both cases'


@pytest.mark.parametrize('given', [{}, {'for_user_manager': True}, {'systemd': 300}, {'is_template': True}])
def test_what_would_break_a_pool_is_not_locked(given: dict[str, Any]) -> None:
    found = settings(as_text(plan(**given)))
    breaking = {
        'ProtectControlGroups', 'PrivateUsers', 'MemoryDenyWriteExecute', 'RestrictNamespaces', 'PrivateDevices',
        'SystemCallFilter', 'ProtectProc',
    }
    assert not breaking & found.keys()
    assert found['NoNewPrivileges'] == ['yes']
    assert found['KillMode'] == ['mixed']
    assert found['RestartPreventExitStatus'] == ['2 4']


@pytest.mark.parametrize(('timeout', 'span'), [('10s', '1h'), ('1h', '20h11min40s'), ('infinity', 'infinity')])
def test_systemd_gives_up_after_twenty_starts_however_long_each_takes(timeout: str, span: str) -> None:
    found = settings(as_text(plan(knobs={'timeout_start': timeout})))
    assert (found['StartLimitBurst'], found['StartLimitIntervalSec']) == (['20'], [span])


def test_the_oom_killer_spares_what_is_not_a_worker_where_the_manager_may_say_so() -> None:
    assert settings(as_text(plan(user='hash')))['OOMScoreAdjust'] == ['-900']
    assert 'OOMScoreAdjust' not in settings(as_text(plan(for_user_manager=True)))


# The place of the control socket.


@pytest.mark.parametrize(('name', 'folder'), [
    ('crawl', 'sergeant-linux/crawl'),
    ('hash_worker.Worker', 'sergeant-linux/hash_worker[.]Worker'),
    ('a b', 'sergeant-linux/[0-9a-f]{8}'),
    ('%i', 'sergeant-linux/[0-9a-f]{8}'),
    (58 * 'x', 'sergeant-linux/[0-9a-f]{8}'),
])
def test_the_folder_of_the_control_socket_has_the_name_of_the_pool_where_it_can(name: str, folder: str) -> None:
    assert re.fullmatch(folder, runtime_directory(name) or '')


@pytest.mark.parametrize('of_user', [False, True])
def test_a_control_socket_fits_there_or_a_comment_says_that_it_does_not(of_user: bool) -> None:
    base = '/run/user/4294967294' if of_user else '/run'
    for length in range(1, 65):
        name = 'x' * length
        folder = runtime_directory(name, for_user_manager=of_user)
        if folder is None:
            assert length > 40
            text = as_text(plan(knobs={'name': name}, for_user_manager=of_user))
            assert 'RuntimeDirectory' not in settings(text)
            assert 'a shorter --name does' in text
        else:
            assert len(f'{base}/{folder}/sergeant-linux/{name}.sock') <= LONGEST_PATH


# Templates and units of users.


def test_a_template_reads_each_pool_from_a_file() -> None:
    text = printed('--template', '--user=daemon', '--log-format=json')
    found = settings(text)
    assert found['EnvironmentFile'] == ['/etc/sergeant-linux/%i.env']
    assert found['Environment'][-1] == 'SERGEANT_LINUX_NAME=%i'
    assert found['RuntimeDirectory'] == ['sergeant-linux/%i']
    assert command(text)[3:] == ['--log-format=json']

    example = dict(re.findall(r'^#     (SERGEANT_LINUX_\w+)=(.*)$', text, re.MULTILINE))
    assert parse_run([], example, '').max_worker_memory_usage == 512 * 1024**2


def test_a_unit_of_a_user_takes_nothing_that_its_manager_can_not_give() -> None:
    found = settings(printed(*POOL, '--user-unit', '--writable=/srv'))
    assert found['WantedBy'] == ['default.target']
    assert not found.keys() & {
        'User', 'Group', 'After', 'Wants', 'PrivateTmp', 'ProtectSystem', 'ProtectHome', 'ReadWritePaths',
        'ProtectHostname', 'ProtectClock', 'ProtectKernelLogs', 'ProtectKernelModules', 'ProtectKernelTunables',
    }


# Installing.


def test_it_is_written_where_systemd_looks_and_what_comes_next_is_said(tmp_path: Path) -> None:
    done = say(*POOL, '--name=crawl', '--user-unit', '--install', XDG_CONFIG_HOME=str(tmp_path))
    target = tmp_path / 'systemd/user/crawl.service'
    assert done.returncode == 0
    assert done.stdout.splitlines()[:4] == [
        f'{target} is written. Next:',
        '    systemctl --user daemon-reload',
        '    systemctl --user enable --now crawl.service',
        '    systemctl --user status crawl.service',
    ]
    assert target.read_text() == printed(*POOL, '--name=crawl', '--user-unit')
    assert stat.S_IMODE(target.stat().st_mode) == 0o644
    assert [each.name for each in target.parent.iterdir()] == ['crawl.service']


def test_a_unit_that_is_there_is_left_alone_but_by_force(tmp_path: Path) -> None:
    target = tmp_path / 'systemd/user/crawl.service'
    target.parent.mkdir(parents=True)
    target.write_text('mine\n')
    install = [*POOL, '--name=crawl', '--user-unit', '--install']

    done = say(*install, XDG_CONFIG_HOME=str(tmp_path))

    assert (done.returncode, done.stdout) == (1, '')
    assert done.stderr == f'sergeant-linux unit: error: {target} is there already: look at it, and --force it\n'
    assert target.read_text() == 'mine\n'
    assert say(*install, '--force', XDG_CONFIG_HOME=str(tmp_path)).returncode == 0
    assert target.read_text().startswith('# Made by')
    assert [each.name for each in target.parent.iterdir()] == ['crawl.service']


def test_a_template_is_written_under_its_own_name(tmp_path: Path) -> None:
    done = say('--template', '--user-unit', '--install', XDG_CONFIG_HOME=str(tmp_path))
    assert done.returncode == 0
    assert (tmp_path / 'systemd/user/sergeant-linux@.service').exists()
    assert 'enable --now sergeant-linux@NAME.service' in done.stdout


def test_a_unit_of_somebody_elses_is_not_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unit, 'OTHER_FOLDERS', (str(tmp_path),))
    (tmp_path / 'ssh.service').touch()
    assert unit.hidden_by('ssh.service', for_user_manager=False) == str(tmp_path / 'ssh.service')
    assert unit.hidden_by('crawl.service', for_user_manager=False) is None


@pytest.mark.parametrize(('name', 'escaped'), [
    ('crawl', 'crawl'), ('a-b_c.D:e', 'a-b_c.D:e'), ('a b', 'a\\x20b'), ('a@b', 'a\\x40b'), ('ü', '\\xc3\\xbc'), ('a\\b', 'a\\x5cb'),
])
def test_a_name_is_escaped_as_systemd_does(name: str, escaped: str) -> None:
    assert escape(name) == escaped


# What is wrong.


@pytest.mark.parametrize(('argv', 'said'), [
    ([], 'required but not given: --concurrent-workers'),
    ([*POOL, '--timeout-stop=soon'], '--timeout-stop: expected a time span'),
    ([*POOL, '--user=nosuchuser'], '--user: expected the name of a user of this host'),
    ([*POOL, '--supervisor-user=nosuchuser'], '--supervisor-user: expected the name of a user of this host'),
    ([*POOL, '--supervisor-user=inherit'], '--supervisor-user: expected a name or a number'),
    ([*POOL, '--memory-max=auto'], '--memory-max=auto: expected a limit in numbers: '),
    ([*POOL, '--memory-max=auto', '--max-worker-memory-usage=auto'], '--memory-max=auto: expected a limit in numbers: '),
    ([*POOL, '--memory-max=much'], '--memory-max: expected a size'),
    ([*POOL, '--user-unit', '--user=daemon'], '--user-unit: all of it runs as the user'),
    ([*POOL, '--force'], '--force: nothing is written without --install'),
    (['--template', '--name=a'], '--name: the pools of a template are called as its instances are'),
    ([*POOL, '--systemd-version=new'], 'argument --systemd-version: invalid int value'),
])
def test_wrong_usage_is_one_line_and_status_2(argv: list[str], said: str) -> None:
    done = say(*argv)
    assert (done.returncode, done.stdout, done.stderr.count('\n')) == (2, '', 1)
    assert done.stderr.startswith(f'sergeant-linux unit: error: {said}')


def test_nobody_who_reads_on_is_no_error() -> None:
    done = subprocess.run(
        ['sh', '-c', '"$@" | true', 'sh', *MAIN, *POOL], capture_output=True, text=True, timeout=60, check=False,
    )
    assert done.stderr == ''


# The journal.


@pytest.mark.parametrize(('name', 'identifier'), [
    (None, 'sergeant-linux'), ('crawl', 'crawl'), ('100% pure', '100%% pure'), ('odd\\', 'sergeant-linux'),
])
def test_what_workers_print_is_found_by_the_name_of_the_pool(name: str | None, identifier: str) -> None:
    text = as_text(plan(knobs={'name': name}))

    assert settings(text)['SyslogIdentifier'] == [identifier]


def test_the_catalog_is_printed_whatever_else_is_missing() -> None:
    assert printed('--catalog') == catalog.as_text()
