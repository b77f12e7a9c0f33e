"""One parser, whichever way the program was started: flags, variables, help, and one line that says what is wrong."""

import math
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import pytest

from sergeant_linux.cli.verbs.run import parse_run
from sergeant_linux.core.policy import Budget, Knob, Limit, Policy

REQUIRED = ['--concurrent-workers=4', '--worker-class=Worker', '--worker-module=crawl_worker']
PROG = 'sergeant-linux run'
MAIN = [sys.executable, '-c', 'from sergeant_linux.cli.main import main; main()']
REQUIRED_KNOBS = ('concurrent_workers', 'worker_class_name', 'worker_module_name')
KNOBS: dict[str, Knob] = {field.name: field.metadata['knob'] for field in fields(Policy)}


def parse(*argv: str, environ: Mapping[str, str] | None = None) -> Policy:
    return parse_run([*REQUIRED, *argv], environ or {}, PROG)


def policy(**knobs: Any) -> Policy:
    return Policy(concurrent_workers=4, worker_class_name='Worker', worker_module_name='crawl_worker', **knobs)


def complaint(
    capsys: pytest.CaptureFixture[str], argv: list[str], environ: Mapping[str, str] | None = None,
) -> str:
    """What is said of wrong usage, after it is known to be one line on stderr and status 2."""
    with pytest.raises(SystemExit) as caught:
        parse_run(argv, environ or {}, PROG)
    said = capsys.readouterr()
    assert (caught.value.code, said.out, said.err.count('\n')) == (2, '', 1)
    start = f'{PROG}: error: '
    assert said.err.startswith(start)
    return said.err.removeprefix(start).removesuffix('\n')


# Flags

def test_the_ancestors_command_line_is_all_that_is_needed() -> None:
    assert parse() == policy()
    assert parse('--max-worker-memory-usage', '67108864') == policy(max_worker_memory_usage=67108864)


@pytest.mark.parametrize(('argv', 'knobs'), [
    (['--max-worker-memory-usage=64M'], {'max_worker_memory_usage': 64 * 1024**2}),
    (['--max-worker-memory-usage=auto'], {'max_worker_memory_usage': 'auto'}),
    (['--spawn=exec'], {'spawn': 'exec'}),
    (['--preload'], {'preload': True}),
    (['--no-preload'], {'preload': False}),
    (['--preload-module=numpy', '--preload-module', 'a.b'], {'preload_modules': ('numpy', 'a.b')}),
    (['--timeout-start', '1min 30s'], {'timeout_start': 90.0}),
    (['--timeout-stop=20'], {'timeout_stop': 20.0}),
    (['--timeout-drain=infinity'], {'timeout_drain': math.inf}),
    (['--restart-delay=0'], {'restart_delay': 0.0}),
    (['--restart-max-delay=1min'], {'restart_max_delay': 60.0}),
    (['--restart-reset=.5'], {'restart_reset': 0.5}),
    (['--restart-budget=5/1min'], {'restart_budget': Budget(5, 60.0)}),
    (['--max-worker-lifetime=12h'], {'max_worker_lifetime': 43200.0}),
    (['--max-worker-lifetime-jitter=10min'], {'max_worker_lifetime_jitter': 600.0}),
    (['--max-surge=2'], {'max_surge': 2}),
    (['--max-unavailable=3'], {'max_unavailable': 3}),
    (['--name=crawl'], {'name': 'crawl'}),
    (['--name=auto'], {'name': None}),
    (['--control-socket=/run/crawl.sock'], {'control_socket': '/run/crawl.sock'}),
    (['--control-socket=none'], {'control_socket': 'none'}),
    (['--control-group=0'], {'control_group': '0'}),
    (['--worker-watchdog=5min'], {'worker_watchdog': 300.0}),
    (['--ready-when=all'], {'ready_when': 'all'}),
    (['--watchdog-quorum=3'], {'watchdog_quorum': 3}),
    (['--worker-memory-high=48M'], {'worker_memory_high': 48 * 1024**2}),
    (['--memory-measure=tree'], {'memory_measure': 'tree'}),
    (['--memory-poll-interval=100ms'], {'memory_poll_interval': 0.1}),
    (['--log-level=debug'], {'log_level': 'debug'}),
    (['--log-format=json'], {'log_format': 'json'}),
    (['--flight-recorder=/a'], {'flight_recorder': '/a'}),
    (['--memory-backend=cgroup'], {'memory_backend': 'cgroup'}),
    (['--cgroup-root=/sys/fs/cgroup/a.slice'], {'cgroup_root': '/sys/fs/cgroup/a.slice'}),
    (['--worker-swap-max=64M'], {'worker_swap_max': 64 * 1024**2}),
    (['--worker-pids-max=64'], {'worker_pids_max': 64}),
    (['--worker-pids-max=off'], {'worker_pids_max': None}),
    (['--worker-cpu-max=150%'], {'worker_cpu_max': 1.5}),
    (['--worker-cpu-weight=50'], {'worker_cpu_weight': 50}),
    (['--worker-io-weight=200'], {'worker_io_weight': 200}),
    (['--pool-memory-max=1G'], {'pool_memory_max': 1024**3}),
    (['--user=65534'], {'user': '65534'}),
    (['--group=0'], {'group': '0'}),
    (['--worker-nice', '-5'], {'worker_nice': -5}),
    (['--worker-limit-nofile=1024:4096'], {'worker_limit_nofile': Limit(1024, 4096)}),
    (['--worker-limit-nproc=infinity'], {'worker_limit_nproc': Limit(None, None)}),
    (['--worker-limit-core=0'], {'worker_limit_core': Limit(0, 0)}),
    (['--worker-limit-memlock=64K'], {'worker_limit_memlock': Limit(64 * 1024, 64 * 1024)}),
    (['--worker-limit-stack=8M:infinity'], {'worker_limit_stack': Limit(8 * 1024**2, None)}),
    (['--worker-limit-fsize=1G'], {'worker_limit_fsize': Limit(1024**3, 1024**3)}),
    (['--worker-limit-data=1G'], {'worker_limit_data': Limit(1024**3, 1024**3)}),
    (['--worker-limit-cpu=1min'], {'worker_limit_cpu': Limit(60, 60)}),
    (['--umask=027'], {'umask': 0o027}),
    (['--umask=inherit'], {'umask': None}),
    (['--no-new-privileges'], {'no_new_privileges': True}),
    (['--no-no-new-privileges'], {'no_new_privileges': False}),
    (['--timeout-stop=1', '--timeout-stop=2'], {'timeout_stop': 2.0}),
])
def test_every_knob_has_its_flag(argv: list[str], knobs: dict[str, Any]) -> None:
    assert parse(*argv) == policy(**knobs)


# Variables

def test_every_knob_can_come_from_the_environment() -> None:
    environ = {
        'SERGEANT_LINUX_CONCURRENT_WORKERS': '2',
        'SERGEANT_LINUX_WORKER_CLASS': 'C',
        'SERGEANT_LINUX_WORKER_MODULE': 'm',
        'SERGEANT_LINUX_MAX_WORKER_MEMORY_USAGE': '64M',
        'SERGEANT_LINUX_SPAWN': 'fork',
        'SERGEANT_LINUX_PRELOAD': '1',
        'SERGEANT_LINUX_PRELOAD_MODULE': 'numpy, a.b',
        'SERGEANT_LINUX_TIMEOUT_START': '1',
        'SERGEANT_LINUX_TIMEOUT_STOP': '2',
        'SERGEANT_LINUX_TIMEOUT_DRAIN': '3',
        'SERGEANT_LINUX_RESTART_DELAY': '4',
        'SERGEANT_LINUX_RESTART_MAX_DELAY': '5',
        'SERGEANT_LINUX_RESTART_RESET': '6',
        'SERGEANT_LINUX_RESTART_BUDGET': '7/8s',
        'SERGEANT_LINUX_MAX_WORKER_LIFETIME': '9',
        'SERGEANT_LINUX_MAX_WORKER_LIFETIME_JITTER': '10',
        'SERGEANT_LINUX_WORKER_MEMORY_HIGH': '48M',
        'SERGEANT_LINUX_MEMORY_MEASURE': 'pss',
        'SERGEANT_LINUX_MEMORY_POLL_INTERVAL': '11',
        'SERGEANT_LINUX_WORKER_WATCHDOG': '24',
        'SERGEANT_LINUX_MAX_SURGE': '25',
        'SERGEANT_LINUX_MAX_UNAVAILABLE': '26',
        'SERGEANT_LINUX_READY_WHEN': 'all',
        'SERGEANT_LINUX_WATCHDOG_QUORUM': '2',
        'SERGEANT_LINUX_NAME': 'n',
        'SERGEANT_LINUX_CONTROL_SOCKET': '/s',
        'SERGEANT_LINUX_CONTROL_GROUP': '0',
        'SERGEANT_LINUX_LOG_LEVEL': 'error',
        'SERGEANT_LINUX_LOG_FORMAT': 'json',
        'SERGEANT_LINUX_FLIGHT_RECORDER': '/b',
        'SERGEANT_LINUX_MEMORY_BACKEND': 'cgroup',
        'SERGEANT_LINUX_CGROUP_ROOT': '/a',
        'SERGEANT_LINUX_WORKER_SWAP_MAX': '12',
        'SERGEANT_LINUX_WORKER_PIDS_MAX': '13',
        'SERGEANT_LINUX_WORKER_CPU_MAX': '14%',
        'SERGEANT_LINUX_WORKER_CPU_WEIGHT': '15',
        'SERGEANT_LINUX_WORKER_IO_WEIGHT': '16',
        'SERGEANT_LINUX_POOL_MEMORY_MAX': '17',
        'SERGEANT_LINUX_USER': '0',
        'SERGEANT_LINUX_GROUP': '0',
        'SERGEANT_LINUX_WORKER_NICE': '18',
        'SERGEANT_LINUX_WORKER_LIMIT_NOFILE': '19',
        'SERGEANT_LINUX_WORKER_LIMIT_NPROC': '20:21',
        'SERGEANT_LINUX_WORKER_LIMIT_CORE': 'infinity',
        'SERGEANT_LINUX_WORKER_LIMIT_MEMLOCK': '1K',
        'SERGEANT_LINUX_WORKER_LIMIT_STACK': '2K',
        'SERGEANT_LINUX_WORKER_LIMIT_FSIZE': '3K',
        'SERGEANT_LINUX_WORKER_LIMIT_DATA': '4K',
        'SERGEANT_LINUX_WORKER_LIMIT_CPU': '1min',
        'SERGEANT_LINUX_UMASK': '022',
        'SERGEANT_LINUX_NO_NEW_PRIVILEGES': '1',
    }
    assert set(environ) == {knob.variable for knob in KNOBS.values()}
    assert parse_run([], environ, PROG) == Policy(
        concurrent_workers=2, worker_class_name='C', worker_module_name='m', max_worker_memory_usage=64 * 1024**2,
        spawn='fork', preload=True, preload_modules=('numpy', 'a.b'), timeout_start=1.0, timeout_stop=2.0,
        timeout_drain=3.0, restart_delay=4.0, restart_max_delay=5.0, restart_reset=6.0, restart_budget=Budget(7, 8.0),
        max_worker_lifetime=9.0, max_worker_lifetime_jitter=10.0, worker_memory_high=48 * 1024**2,
        memory_measure='pss', memory_poll_interval=11.0, log_level='error', log_format='json',
        flight_recorder='/b', memory_backend='cgroup', cgroup_root='/a', worker_swap_max=12, worker_pids_max=13, worker_cpu_max=0.14,
        worker_cpu_weight=15, worker_io_weight=16, pool_memory_max=17, user='0', group='0', worker_nice=18,
        worker_limit_nofile=Limit(19, 19), worker_limit_nproc=Limit(20, 21), worker_limit_core=Limit(None, None),
        worker_limit_memlock=Limit(1024, 1024), worker_limit_stack=Limit(2048, 2048),
        worker_limit_fsize=Limit(3072, 3072), worker_limit_data=Limit(4096, 4096), worker_limit_cpu=Limit(60, 60),
        umask=0o22, no_new_privileges=True, worker_watchdog=24.0,
        max_surge=25, max_unavailable=26, name='n', control_socket='/s', control_group='0',
        ready_when='all', watchdog_quorum=2,
    )


@pytest.mark.parametrize(('argv', 'variable', 'knobs'), [
    (['--timeout-stop=2'], ('TIMEOUT_STOP', '1'), {'timeout_stop': 2.0}),
    (['--timeout-stop=2'], ('TIMEOUT_STOP', 'nonsense'), {'timeout_stop': 2.0}),
    (['--no-preload'], ('PRELOAD', '1'), {'preload': False}),
    (['--preload-module=a'], ('PRELOAD_MODULE', 'b,c'), {'preload_modules': ('a',)}),
    (['--max-worker-memory-usage=off'], ('MAX_WORKER_MEMORY_USAGE', '64M'), {'max_worker_memory_usage': None}),
])
def test_the_flag_wins(argv: list[str], variable: tuple[str, str], knobs: dict[str, Any]) -> None:
    assert parse(*argv, environ={f'SERGEANT_LINUX_{variable[0]}': variable[1]}) == policy(**knobs)


def test_an_empty_variable_is_none() -> None:
    assert parse(environ={knob.variable: '' for knob in KNOBS.values()}) == policy()


def test_an_unknown_variable_of_ours_is_warned_about_in_one_line_and_ignored(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert parse(environ={'SERGEANT_LINUX_TIMEOUT_STOPP': '1', 'SERGEANT_WORKER_SLOT': '1'}) == policy()
    assert capsys.readouterr().err == (
        'sergeant-linux run: warning: SERGEANT_LINUX_TIMEOUT_STOPP: no option has this variable; ignored\n'
    )


# What is wrong

def test_what_is_required_and_not_given_is_named_with_its_variable(capsys: pytest.CaptureFixture[str]) -> None:
    assert complaint(capsys, ['--worker-class=W'], {'SERGEANT_LINUX_CONCURRENT_WORKERS': '1'}) == (
        'required but not given: --worker-module (or SERGEANT_LINUX_WORKER_MODULE)'
    )


@pytest.mark.parametrize(('argv', 'said'), [
    (['--concurrent-workers=four'], "--concurrent-workers: expected a whole number, not 'four'"),
    (['--concurrent-workers=0'], '--concurrent-workers: expected a whole number, 1 or more, not 0'),
    (['--concurrent-workers=-1'], '--concurrent-workers: expected a whole number, 1 or more, not -1'),
    (['--concurrent-workers=1_0'], "--concurrent-workers: expected a whole number, not '1_0'"),
    (['--worker-module='], "--worker-module: expected the name of a module, as in `import package.module`, not ''"),
    (['--worker-class=a.b'], "--worker-class: expected the name of a class, not 'a.b'"),
    (['--max-worker-memory-usage=64m'],
     "--max-worker-memory-usage: expected a size (bytes, or a number with K, M, G or T, base 1024), not '64m'"),
    (['--preload-module=a..b'],
     "--preload-module: expected the name of a module, as in `import package.module`, not 'a..b'"),
    (['--timeout-stop=0'], "--timeout-stop: expected a time span above 0, not '0'"),
    (['--spawn=thread'], "--spawn: expected one of fork, exec, not 'thread'"),
    (['--restart-delay=1min', '--restart-max-delay=30.5'], '--restart-max-delay: expected at least the restart delay (1min), not 30.5s'),
])
def test_a_bad_value_is_told_with_its_flag_and_what_is_expected(
    capsys: pytest.CaptureFixture[str], argv: list[str], said: str,
) -> None:
    assert complaint(capsys, [*REQUIRED, *argv]) == said


@pytest.mark.parametrize(('variable', 'value', 'said'), [
    ('SERGEANT_LINUX_TIMEOUT_STOP', 'soon',
     "expected a time span (seconds, or such as 1min 30s, 500ms, infinity), not 'soon'"),
    ('SERGEANT_LINUX_PRELOAD', 'yes', "expected 1 or 0, not 'yes'"),
    ('SERGEANT_LINUX_RESTART_MAX_DELAY', '1ms', 'expected at least the restart delay (100ms), not 1ms'),
])
def test_a_bad_value_is_told_with_its_variable_and_what_is_expected(
    capsys: pytest.CaptureFixture[str], variable: str, value: str, said: str,
) -> None:
    assert complaint(capsys, REQUIRED, {variable: value}) == f'{variable}: {said}'


@pytest.mark.parametrize('argv', [
    ['--unknown'],
    ['--timeout-sto=1'],  # no abbreviations: a later flag could make them ambiguous
    ['stray'],
    ['--timeout-stop'],
    ['--preload=1'],
    ['--two\nlines'],
    ['--timeout-stop=two\nlines'],
    ['--worker-class=' + 'x ' * 100_000],
])
def test_wrong_usage_is_one_line_and_status_2(capsys: pytest.CaptureFixture[str], argv: list[str]) -> None:
    assert complaint(capsys, [*REQUIRED, *argv])


# Help

def help_of(capsys: pytest.CaptureFixture[str], prog: str = PROG) -> str:
    with pytest.raises(SystemExit) as caught:
        parse_run(['--help'], {}, prog)
    said = capsys.readouterr()
    assert (caught.value.code, said.err) == (0, '')
    return said.out


def test_help_begins_with_the_ancestors_usage(capsys: pytest.CaptureFixture[str]) -> None:
    usage, _, _ = help_of(capsys, 'python3 -m sergeant_linux.supervisor').partition('\n\n')
    assert ' '.join(usage.split()) == (
        'usage: python3 -m sergeant_linux.supervisor [-h] --concurrent-workers N --worker-class CLASS '
        '--worker-module MODULE [--max-worker-memory-usage SIZE] [option ...]'
    )


@pytest.mark.parametrize('name', KNOBS)
def test_help_tells_the_flag_the_meaning_the_unit_and_the_default_of_every_knob(
    capsys: pytest.CaptureFixture[str], name: str,
) -> None:
    knob = KNOBS[name]
    default = 'required' if name in REQUIRED_KNOBS else f'default: {knob.kind.show(getattr(policy(), name))}'
    facts = f'{knob.kind.unit}; {default}' if knob.kind.unit else default

    told = ' '.join(help_of(capsys).split())
    assert f'{knob.help} ({facts})' in told
    assert f' {knob.flag}' in told.partition('options:')[2]


@pytest.mark.parametrize('line', [
    '0 stopped as asked', "1 the workers can't be loaded", '2 wrong usage or a bad value',
    '3 the restart budget is spent', "4 the host can't do what was asked for", '70 an error of our own',
    'SIGTERM, SIGINT', 'SIGQUIT', 'SIGUSR1', 'SIGTTIN, SIGTTOU', 'SERGEANT_LINUX_TIMEOUT_STOP', 'example:',
])
def test_help_tells_the_exit_statuses_the_signals_the_variables_and_an_example(
    capsys: pytest.CaptureFixture[str], line: str,
) -> None:
    assert line in ' '.join(help_of(capsys).split())


def test_the_example_in_the_help_is_right(capsys: pytest.CaptureFixture[str]) -> None:
    example = help_of(capsys).partition('example:')[2].replace('\\\n', ' ').split()
    assert example[:2] == PROG.split()
    assert parse_run(example[2:], {}, PROG) == policy(max_worker_memory_usage=512 * 1024**2)


# The console command

def run(*argv: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*MAIN, *argv], env=os.environ | environ, capture_output=True, text=True, timeout=30, check=False,
    )


def test_version_is_shown() -> None:
    done = run('--version')
    assert (done.returncode, done.stderr) == (0, '')
    assert re.fullmatch(r'sergeant-linux( \d+\.\d+\.\d+|, not installed)\n', done.stdout)


def test_help_lists_the_verbs() -> None:
    done = run('--help')
    assert (done.returncode, done.stderr) == (0, '')
    assert '  run       keep a pool of workers running\n' in done.stdout


def test_help_after_the_verb_is_the_verbs() -> None:
    done = run('run', '--help')
    assert (done.returncode, done.stderr) == (0, '')
    assert done.stdout.startswith('usage: sergeant-linux run [-h] --concurrent-workers N')


@pytest.mark.parametrize('argv', [[], ['walk'], ['--unknown'], ['run'], ['run', '--unknown']])
def test_wrong_usage_of_the_command_is_one_line_and_status_2(argv: list[str]) -> None:
    done = run(*argv)
    assert (done.returncode, done.stdout, done.stderr.count('\n')) == (2, '', 1)
    assert re.match(r'sergeant-linux( run)?: error: ', done.stderr)


def test_the_environment_counts_for_the_command() -> None:
    done = run('run', *REQUIRED, SERGEANT_LINUX_TIMEOUT_STOP='soon')
    assert done.returncode == 2
    assert done.stderr.startswith('sergeant-linux run: error: SERGEANT_LINUX_TIMEOUT_STOP: expected a time span')


def test_wrong_usage_is_status_2_where_stderr_is_closed_too() -> None:
    done = subprocess.run(
        ['sh', '-c', 'exec "$@" 2>&-', 'sh', *MAIN, 'run'], capture_output=True, text=True, timeout=30, check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (2, '', '')
