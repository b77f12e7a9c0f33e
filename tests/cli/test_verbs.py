"""What each verb sends, says and ends with."""

import json
import os
import re
import signal
import subprocess
from collections.abc import Mapping
from typing import Any

import pytest

from sergeant_linux.cli.main import STARTS, VERBS
from sergeant_linux.control import names
from tests.cli.recorded import TROUBLE
from tests.cli.stand_in import (
    COMMAND,
    REPOSITORY,
    Silence,
    StandIn,
    Tell,
    never,
    plain,
    raising,
    say,
    screen,
    surroundings,
)

SPEAKING = sorted(VERBS.keys() - STARTS - {'deploy'})

ARGUMENTS = {
    'kill': ['3'], 'dump': ['3'], 'scale': ['2'], 'set': ['timeout-stop', '1s'],
}
"""What a verb can't do without."""

ONE_POOL = [verb for verb in SPEAKING if verb != 'ps']


def told(pool: StandIn, *argv: str) -> tuple[int, str, str]:
    """The exit status, stdout and stderr of a verb that speaks to the stand-in."""
    done = say(argv[0], '--control-socket', str(pool.path), *argv[1:])
    return done.returncode, done.stdout, done.stderr


def request(pool: StandIn) -> dict[str, Any]:
    """The arguments of the last request."""
    return pool.asked[-1][1]


# scale


@pytest.mark.parametrize(('count', 'args'), [('8', {'to': 8}), ('+2', {'by': 2}), ('-1', {'by': -1}), ('0', {'to': 0})])
def test_scale_takes_a_number_or_a_change(pool: StandIn, count: str, args: dict[str, int]) -> None:
    pool.plays['scale'] = {'before': 4, 'after': 8}
    assert told(pool, 'scale', count) == (0, '4 -> 8 workers\n', '')
    assert request(pool) == args


@pytest.mark.parametrize('count', ['', 'four', '1.5', '++1', '１', '9999999999'])
def test_what_is_no_number_of_workers_is_wrong_usage(pool: StandIn, count: str) -> None:
    status, out, err = told(pool, 'scale', count)
    assert (status, out, err.count('\n')) == (2, '', 1)
    assert 'expected a number of workers (8) or a change of it (+2, -1)' in err
    assert pool.asked == []


# reload and restart


def rolling(args: dict[str, Any], tell: Tell) -> dict[str, Any]:
    common = {'event': 'reload-progress', 'generation': 3, 'of': 2}
    tell({**common, 'state': 'canary', 'changed': 0})
    tell({**common, 'state': 'rolling', 'changed': 1})
    return {'generation': 3, 'changed': 2}


def test_reload_tells_how_it_goes_line_by_line_in_a_pipe(pool: StandIn) -> None:
    pool.plays['reload'] = rolling
    assert told(pool, 'reload') == (0, (
        'generation 3: canary, 0 of 2 changed\n'
        'generation 3: rolling, 1 of 2 changed\n'
        'generation 3 runs, 2 workers replaced\n'
    ), '')
    assert request(pool) == {'wait': True}


def test_reload_tells_how_it_goes_in_one_place_on_a_terminal(pool: StandIn) -> None:
    pool.plays['reload'] = rolling
    with screen('reload', '--control-socket', str(pool.path)) as command:
        status, written = command.end()
    assert status == 0
    assert written == (
        'generation 3: canary, 0 of 2 changed\033[K\n\033[J'
        '\033[1Fgeneration 3: rolling, 1 of 2 changed\033[K\n\033[J'
        'generation 3 runs, 2 workers replaced\n'
    )


def test_a_reload_to_broken_code_is_status_1_and_the_reason(pool: StandIn) -> None:
    pool.plays['reload'] = raising('failed', 'the new code does not load:\nSyntaxError in crawl.py\x1b')
    assert told(pool, 'reload') == (
        1, '', 'sergeant-linux reload: error: the new code does not load: SyntaxError in crawl.py\\x1b\n'
    )


def test_reload_no_wait_only_begins_it(pool: StandIn) -> None:
    pool.plays['reload'] = {'generation': 3, 'changed': 0}
    assert told(pool, 'reload', '--no-wait') == (0, 'generation 3 is on its way\n', '')
    assert request(pool) == {'wait': False}


@pytest.mark.parametrize(('argv', 'slots'), [([], None), (['0', '2'], [0, 2])])
def test_restart_takes_slots_or_all(pool: StandIn, argv: list[str], slots: list[int] | None) -> None:
    def play(args: dict[str, Any], tell: Tell) -> dict[str, Any]:
        if args['wait']:
            tell({'event': 'restart-progress', 'waiting': [0, 2]})
        return {'slots': [0, 2]}

    pool.plays['restart'] = play
    assert told(pool, 'restart', *argv) == (0, '2 to go: slots 0, 2\nslots restarted: 0, 2\n', '')
    assert request(pool) == {'slots': slots, 'wait': True}
    assert told(pool, 'restart', *argv, '--no-wait') == (0, 'slots on their way: 0, 2\n', '')
    assert request(pool) == {'slots': slots, 'wait': False}


def test_a_restart_that_takes_too_long_is_status_1(pool: StandIn) -> None:
    pool.plays['restart'] = never
    assert told(pool, 'restart', '--timeout', '50ms') == (
        1, '', 'sergeant-linux restart: error: not done in time; the pool goes on with it\n'
    )


# stop


def stopping(args: dict[str, Any], tell: Tell) -> dict[str, Any]:
    first = {'slot': 0, 'pid': 12, 'state': 'stop-sigterm', 'task_age_seconds': 3.0}
    second = {'slot': 2, 'pid': 14, 'state': 'stop-sigterm', 'task_age_seconds': None}
    tell({'event': 'stop-progress', 'busy': [first, second], 'left_seconds': 8.0})
    tell({'event': 'stop-progress', 'busy': [{**first, 'task_age_seconds': 5.0}], 'left_seconds': 6.0})
    return {'status': 0}


def test_stop_tells_in_a_pipe_who_is_busy(pool: StandIn) -> None:
    pool.plays['stop'] = stopping
    assert told(pool, 'stop') == (0, (
        '2 busy, 8.0s left: slot 0 (pid 12, stop-sigterm) for 3.0s, slot 2 (pid 14, stop-sigterm)\n'
        '1 busy, 6.0s left: slot 0 (pid 12, stop-sigterm) for 5.0s\n'
        'the pool has stopped, exit status 0\n'
    ), '')
    assert request(pool) == {'now': False, 'wait': True}


def test_stop_shows_on_a_terminal_how_long_each_has_been_busy(pool: StandIn) -> None:
    pool.plays['stop'] = stopping
    with screen('stop', '--control-socket', str(pool.path)) as command:
        status, written = command.end()
    assert status == 0
    drawn = [each for each in written.replace('\033[K', '').split('\033[J') if 'slot' in each]
    assert drawn[0] == '2 busy, 8.0s left\n  slot 0 (pid 12, stop-sigterm) for 3.0s\n  slot 2 (pid 14, stop-sigterm)\n'
    assert drawn[-1].startswith('\033[3F1 busy, ') and 'slot 2' not in drawn[-1]
    assert written.endswith('the pool has stopped, exit status 0\n')


def test_on_a_terminal_the_seconds_go_on_while_the_pool_says_nothing(pool: StandIn) -> None:
    def play(args: dict[str, Any], tell: Tell) -> None:
        tell({'event': 'stop-progress', 'busy': [{'slot': 0, 'pid': 12, 'state': 'x', 'task_age_seconds': 600.0}]})
        raise Silence

    pool.plays['stop'] = play
    with screen('stop', '--control-socket', str(pool.path)) as command:
        command.read_until('\033[2F')  # drawn again, in the same place
        command.process.send_signal(signal.SIGINT)
        status, written = command.end()
    assert status == 130
    ages = re.findall(r'for 10m(\d\d)s', written)
    assert ages[0] == '00' < ages[-1]


def test_a_stop_is_over_when_the_name_of_the_pool_is_free(pool: StandIn) -> None:
    pool.plays['stop'] = {'status': 0}
    lock = names.lock_path(str(pool.path))
    assert os.path.exists(lock)
    assert told(pool, 'stop')[0] == 0
    assert not os.path.exists(lock)


def test_a_stop_of_more_workers_than_the_screen_has_lines_counts_the_rest(pool: StandIn) -> None:
    busy = [{'slot': n, 'pid': n + 10, 'state': 'stop-sigterm', 'task_age_seconds': 1.0} for n in range(1000)]

    def play(args: dict[str, Any], tell: Tell) -> dict[str, Any]:
        tell({'event': 'stop-progress', 'busy': busy, 'left_seconds': None})
        return {'status': 0}

    pool.plays['stop'] = play
    with screen('stop', '--control-socket', str(pool.path), height=10) as command:
        status, written = command.end()
    lines = written.replace('\033[K', '').partition('\033[J')[0].splitlines()
    assert (status, len(lines), lines[0], lines[-1]) == (0, 9, '1000 busy', '  and 993 more')


@pytest.mark.parametrize(('argv', 'args', 'said'), [
    (['--now'], {'now': True, 'wait': True}, 'the pool has stopped, exit status 0\n'),
    (['--no-wait'], {'now': False, 'wait': False}, 'the pool is stopping\n'),
])
def test_stop_is_told_how(pool: StandIn, argv: list[str], args: dict[str, bool], said: str) -> None:
    pool.plays['stop'] = {'status': 0}
    assert told(pool, 'stop', *argv) == (0, said, '')
    assert request(pool) == args


def test_a_pool_that_is_gone_before_it_has_said_that_it_stopped_is_status_4(pool: StandIn) -> None:
    pool.plays['stop'] = lambda args, tell: None
    assert told(pool, 'stop') == (4, '', 'sergeant-linux stop: error: the pool has gone before it answered\n')


# kill and dump


@pytest.mark.parametrize(('argv', 'sent'), [
    ([], 'KILL'), (['--signal', 'TERM'], 'TERM'), (['--signal', 'sigusr1'], 'USR1'), (['--signal=9'], 9),
    (['--signal', '34'], 34),
])
def test_kill_sends_sigkill_or_what_is_asked_for(pool: StandIn, argv: list[str], sent: str | int) -> None:
    pool.plays['kill'] = lambda args, tell: {'slot': args['slot'], 'pid': 1234, 'signal': 'SIGX'}
    assert told(pool, 'kill', '3', *argv) == (0, 'slot 3: sent SIGX to pid 1234\n', '')
    assert request(pool) == {'slot': 3, 'signal': sent}


@pytest.mark.parametrize('signal', ['0', '65', 'NONE', '', '-9'])
def test_what_is_no_signal_is_wrong_usage(pool: StandIn, signal: str) -> None:
    status, _, err = told(pool, 'kill', '3', f'--signal={signal}')
    assert status == 2 and 'expected the name or the number of a signal' in err


@pytest.mark.parametrize('verb', ['kill', 'dump', 'restart'])
@pytest.mark.parametrize('slot', ['x', '1.0', '０'])
def test_what_is_no_slot_is_wrong_usage(pool: StandIn, verb: str, slot: str) -> None:
    status, _, err = told(pool, verb, slot)
    assert status == 2 and f"expected the number of a slot, 0 or more, not '{slot}'" in err


def test_dump_shows_stacks_line_by_line_and_nothing_that_moves_a_cursor(pool: StandIn) -> None:
    stacks = 'Thread 1 (MainThread):\n  File "a.py", line 3 in \x1b[Hwork\n\n\tFile "b.py"\n'
    pool.plays['dump'] = {'slot': 3, 'pid': 1234, 'stacks': stacks}
    assert told(pool, 'dump', '3') == (0, (
        'slot 3, pid 1234\nThread 1 (MainThread):\n  File "a.py", line 3 in \\x1b[Hwork\n\n        File "b.py"\n'
    ), '')


# events


def three(args: dict[str, Any], tell: Tell) -> dict[str, Any] | None:
    if not args['follow']:
        return {'events': [TROUBLE, {**TROUBLE, 'level': 'info', 'message': 'two\nlines'}][-args['last']:]}
    tell(TROUBLE)
    tell({**TROUBLE, 'message': 'later'})
    return None


def test_events_are_lines_oldest_first(pool: StandIn) -> None:
    pool.plays['events'] = three
    assert told(pool, 'events') == (0, (
        '2026-01-31T09:26:53.589Z  warning   worker-exit: worker 2 has ended: exit 6 (failure) after 3.2s\n'
        '2026-01-31T09:26:53.589Z  info      worker-exit: two lines\n'
    ), '')
    assert request(pool) == {'follow': False, 'last': 100}


def test_events_are_json_lines_when_asked_for(pool: StandIn) -> None:
    pool.plays['events'] = three
    status, out, _ = told(pool, 'events', '--json', '-n', '2')
    assert status == 0
    assert json.loads(out.splitlines()[0]) == TROUBLE
    assert request(pool) == {'follow': False, 'last': 2}


def test_events_that_are_followed_come_until_the_pool_ends(pool: StandIn) -> None:
    pool.plays['events'] = three
    status, out, err = told(pool, 'events', '--follow', '-n0')
    assert (status, err) == (0, '')
    assert [line.partition(': ')[2] for line in out.splitlines()] == [TROUBLE['message'], 'later']
    assert request(pool) == {'follow': True, 'last': 0}


def test_events_have_colours_on_a_terminal(pool: StandIn) -> None:
    pool.plays['events'] = three
    with screen('events', '--control-socket', str(pool.path)) as command:
        _, written = command.end()
    assert '\033[33mwarning ' in written
    assert plain(written) == told(pool, 'events')[1]


# get and set


POLICY = {'worker_class_name': 'Worker', 'timeout_stop': '8s', 'preload_modules': 'a,b'}


def test_get_lists_the_options_by_their_names(pool: StandIn) -> None:
    pool.plays['get'] = {'policy': POLICY}
    assert told(pool, 'get') == (
        0, 'OPTION          VALUE\nworker-class    Worker\ntimeout-stop    8s\npreload-module  a,b\n', ''
    )
    assert told(pool, 'get', '--json') == (0, json.dumps(POLICY, indent=2) + '\n', '')


@pytest.mark.parametrize('key', ['timeout-stop', 'timeout_stop'])
def test_get_of_one_option_prints_its_value_alone(pool: StandIn, key: str) -> None:
    pool.plays['get'] = {'policy': POLICY}
    assert told(pool, 'get', key) == (0, '8s\n', '')


def test_get_of_what_is_no_option_is_wrong_usage(pool: StandIn) -> None:
    pool.plays['get'] = {'policy': POLICY}
    assert told(pool, 'get', 'timeout-lunch') == (
        2, '', 'sergeant-linux get: error: the pool has no option timeout-lunch\n'
    )


@pytest.mark.parametrize('key', ['max-worker-memory-usage', 'max_worker_memory_usage'])
def test_set_tells_what_was_and_what_is(pool: StandIn, key: str) -> None:
    pool.plays['set'] = {'key': 'max_worker_memory_usage', 'before': 'off', 'after': '512M'}
    assert told(pool, 'set', key, '512M') == (0, 'max-worker-memory-usage: off -> 512M\n', '')
    assert request(pool) == {'key': 'max_worker_memory_usage', 'value': '512M'}


def test_a_value_may_begin_with_a_dash(pool: StandIn) -> None:
    pool.plays['set'] = {'key': 'worker_nice', 'before': '0', 'after': '-5'}
    assert told(pool, 'set', 'worker-nice', '-5')[0] == 0
    assert request(pool) == {'key': 'worker_nice', 'value': '-5'}


def test_a_value_that_can_not_be_is_status_2_with_the_words_of_the_pool(pool: StandIn) -> None:
    pool.plays['set'] = raising('bad-request', "timeout_stop: expected a time span above 0, not '0'")
    assert told(pool, 'set', 'timeout-stop', '0') == (
        2, '', "sergeant-linux set: error: timeout_stop: expected a time span above 0, not '0'\n"
    )


def test_the_names_of_options_are_those_of_run() -> None:
    from dataclasses import fields

    from sergeant_linux.cli.verbs.options import knob, option
    from sergeant_linux.core.policy import Policy

    for each in fields(Policy):
        flag = each.metadata['knob'].flag
        assert knob(flag) == knob(flag.removeprefix('--')) == knob(each.name) == each.name
        assert option(each.name) == flag.removeprefix('--')


# health


@pytest.mark.parametrize(('argv', 'is_ready', 'said'), [
    ([], True, (0, 'ready\n', '')),
    (['--ready'], True, (0, 'ready\n', '')),
    ([], False, (1, 'not-ready\n', '2 of 4 workers are ready\n')),
    (['--ready'], False, (1, 'not-ready\n', '2 of 4 workers are ready\n')),
    (['--live'], False, (0, 'live\n', '')),
])
def test_health_is_a_word_and_a_status(
    pool: StandIn, argv: list[str], is_ready: bool, said: tuple[int, str, str],
) -> None:
    pool.plays['health'] = {'live': True, 'ready': is_ready, 'reason': None if is_ready else '2 of 4 workers are ready'}
    assert told(pool, 'health', *argv) == said
    assert [verb for verb, _ in pool.asked] == ['health']


# Every verb


@pytest.mark.parametrize('verb', VERBS)
def test_every_verb_has_a_help_with_an_example_and_its_exit_statuses(verb: str) -> None:
    done = say(verb, '--help', COLUMNS='80')
    assert (done.returncode, done.stderr) == (0, '')
    assert re.search(r'^exit status:\n +0  \S', done.stdout, re.MULTILINE)
    assert re.search(rf'^examples?:\n  sergeant-linux {verb}', done.stdout, re.MULTILINE)
    if verb in SPEAKING:
        assert max(map(len, done.stdout.splitlines())) <= 80
        assert '--json' in done.stdout


def test_the_examples_are_right(pool: StandIn) -> None:
    from importlib import import_module

    from sergeant_linux.cli.verbs.parser import Parser

    for verb in SPEAKING:
        module = import_module(f'sergeant_linux.cli.verbs.{verb}')
        parser = Parser(prog=f'sergeant-linux {verb}')
        module.add_arguments(parser)
        for line in re.findall(r'^  %\(prog\)s(.*)$', module.HELP, re.MULTILINE):
            parser.parse_args(line.partition('|')[0].split())


@pytest.mark.parametrize('verb', ONE_POOL)
def test_json_is_the_answer_as_it_came(pool: StandIn, verb: str) -> None:
    answers: Mapping[str, dict[str, Any]] = {
        'health': {'live': True, 'ready': True, 'reason': None}, 'get': {'policy': {'a': '1'}}, 'events': {'events': [TROUBLE]},
        'scale': {'before': 1, 'after': 2}, 'reload': {'generation': 2, 'changed': 4}, 'restart': {'slots': [1]},
        'kill': {'slot': 0, 'pid': 7, 'signal': 'SIGKILL'}, 'dump': {'slot': 0, 'pid': 7, 'stacks': ''},
        'set': {'key': 'a', 'before': '1', 'after': '2'}, 'status': {'name': 'a', 'pid': 7, 'slots': []},
    }
    more = {} if verb in ('get', 'events') else {'anything': [1, None], 'really': 'so'}
    answer = {**answers.get(verb, {}), **more}
    pool.plays[verb] = answer
    status, out, err = told(pool, verb, *ARGUMENTS.get(verb, []), '--json')
    assert (status, err) == (0, '')
    assert json.loads(out) == {'get': {'a': '1'}, 'events': TROUBLE}.get(verb, answer)


@pytest.mark.parametrize(('code', 'status'), [
    ('failed', 1), ('internal', 1), ('bad-request', 2), ('unknown-verb', 4), ('refused', 4), ('busy', 4), ('denied', 4),
    ('version', 4), ('something-new', 4),
])
def test_the_code_of_an_error_decides_on_the_status(pool: StandIn, code: str, status: int) -> None:
    pool.plays['reload'] = raising(code, 'the reason')
    assert told(pool, 'reload') == (status, '', 'sergeant-linux reload: error: the reason\n')


@pytest.mark.parametrize('verb', ONE_POOL)
def test_an_error_answer_is_one_line_and_no_traceback(pool: StandIn, verb: str) -> None:
    pool.plays[verb] = raising('refused', 'the reason,\nin two lines')
    said = told(pool, verb, *ARGUMENTS.get(verb, []))
    assert said == (4, '', f'sergeant-linux {verb}: error: the reason, in two lines\n')


@pytest.mark.parametrize('verb', [verb for verb in ONE_POOL if verb != 'events'])
def test_a_pool_that_goes_away_is_one_line_and_status_4(pool: StandIn, verb: str) -> None:
    pool.plays[verb] = lambda args, tell: None
    said = told(pool, verb, *ARGUMENTS.get(verb, []))
    assert said == (4, '', f'sergeant-linux {verb}: error: the pool has gone before it answered\n')


@pytest.mark.parametrize('argv', [['reload'], ['restart'], ['stop'], ['events', '--follow'], ['status']])
def test_an_interrupted_verb_leaves_with_130_and_nothing_else_is_asked(
    pool: StandIn, argv: list[str],
) -> None:
    pool.plays[argv[0]] = never
    command = [*COMMAND, argv[0], '--control-socket', str(pool.path), *argv[1:]]
    with subprocess.Popen(command, env=surroundings(), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        pool.wait_for(argv[0])
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=15) == (b'', b'')
    assert process.returncode == 130
    assert len(pool.asked) == 1


@pytest.mark.parametrize('argv', [['status'], ['status', '--json'], ['events'], ['get'], ['status', '--help']])
def test_a_reader_that_leaves_is_no_error(pool: StandIn, argv: list[str]) -> None:
    pool.plays['events'] = three
    pool.plays['get'] = {'policy': POLICY}
    command = [*COMMAND, argv[0], '--control-socket', str(pool.path), *argv[1:]]
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            command, env=surroundings(), stdout=writer, stderr=subprocess.PIPE, text=True, timeout=60, check=False
        )
    finally:
        os.close(writer)
    assert done.stderr == ''
    assert done.returncode == 141 or argv[-1] == '--help'  # argparse minds no write that fails


def test_a_full_disk_is_one_line_and_status_1(pool: StandIn) -> None:
    with open('/dev/full', 'w') as full:
        done = subprocess.run(
            [*COMMAND, 'status', '--control-socket', str(pool.path)], env=surroundings(), stdout=full,
            stderr=subprocess.PIPE, text=True, timeout=60, check=False,
        )
    assert (done.returncode, done.stderr.count('\n')) == (1, 1)
    assert done.stderr.startswith('sergeant-linux status: error: cannot write the answer: ')


@pytest.mark.parametrize('closed', ['>&-', '2>&-', '>&- 2>&- <&-'])
def test_closed_streams_change_no_status(pool: StandIn, closed: str) -> None:
    pool.plays['health'] = {'live': True, 'ready': False, 'reason': 'so'}
    done = subprocess.run(
        ['sh', '-c', f'exec "$@" {closed}', 'sh', *COMMAND, 'health', '--control-socket', str(pool.path)],
        env=surroundings(), capture_output=True, text=True, timeout=60, check=False,
    )
    assert done.returncode == 1
    assert done.stdout == ('' if closed.startswith('>&-') else 'not-ready\n')
    assert done.stderr == ('' if '2>&-' in closed else 'so\n')


@pytest.mark.parametrize('verb', SPEAKING)
def test_a_verb_that_speaks_to_a_pool_imports_little(pool: StandIn, verb: str) -> None:
    pool.plays[verb] = raising('failed', 'never mind')
    modules = pool.path.with_suffix('.modules')
    arguments = [] if verb == 'ps' else ['--control-socket', str(pool.path), *ARGUMENTS.get(verb, [])]
    code = (
        f'import sys; sys.path.insert(0, {str(REPOSITORY)!r}); from sergeant_linux.cli.main import main\n'
        f'try: main()\n'
        f'finally: open({str(modules)!r}, "w").write(" ".join(sys.modules))\n'
    )
    subprocess.run(  # -I -S: nothing of the environment, nor of what is installed, which may import what it likes
        [COMMAND[0], '-I', '-S', '-c', code, verb, *arguments],
        env=surroundings(), capture_output=True, timeout=60, check=False,
    )
    imported = set(modules.read_text().split())
    assert f'sergeant_linux.cli.verbs.{verb}' in imported
    heavy = {'asyncio', 'ctypes', 'dataclasses', 'inspect', 'logging', 'psutil', 'shutil', 'subprocess', 'tempfile', 'textwrap'}
    assert not imported & heavy
    assert not {name for name in imported if name.startswith('sergeant_linux.core.')}
