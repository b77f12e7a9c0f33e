"""`sergeant-linux status`: one screen, whatever its width and wherever it goes."""

import json
import re
import signal
from pathlib import Path

import pytest

from tests.cli.recorded import QUIET, SLOTS, STATUS, large
from tests.cli.stand_in import StandIn, plain, say, screen

GOLDEN = Path(__file__).parent / 'golden'


def golden(name: str) -> str:
    return (GOLDEN / f'{name}.txt').read_text()


def shown(pool: StandIn, width: int, **environ: str) -> str:
    """What `status` writes to a terminal of this width."""
    with screen('status', '--control-socket', str(pool.path), width=width, environ=environ) as command:
        status, written = command.end()
    assert status == 0
    return written


# Where it goes


@pytest.mark.parametrize('width', [80, 120, 200])
def test_a_terminal_is_filled_and_no_line_is_wider_than_it(pool: StandIn, width: int) -> None:
    written = shown(pool, width, NO_COLOR='1')
    assert written == golden(f'status-{width}')
    assert max(map(len, written.splitlines())) <= width


@pytest.mark.parametrize('width', [10, 40, 65, 100, 150])
def test_no_width_makes_a_line_wrap(pool: StandIn, width: int) -> None:
    least = 24  # the slot, the state, the pid
    assert max(map(len, plain(shown(pool, width)).splitlines())) <= max(width, least)


def test_a_pipe_gets_all_columns_in_plain_text(pool: StandIn) -> None:
    done = say('status', '--control-socket', str(pool.path))
    assert (done.returncode, done.stderr, done.stdout) == (0, '', golden('status-pipe'))


def test_a_pipe_that_is_told_its_columns_keeps_to_them(pool: StandIn) -> None:
    assert say('status', '--control-socket', str(pool.path), COLUMNS='80').stdout == golden('status-80')


def test_a_terminal_shows_colours_and_says_the_same_without_them(pool: StandIn) -> None:
    written = shown(pool, 80)
    assert plain(written) == golden('status-80')
    assert '\033[31m501M\033[0m' in written, 'a worker near its limit is red'
    assert '\033[33m430M\033[0m' in written, 'a worker over the mark is yellow'


def test_a_fork_server_that_fails_has_a_line_in_red(pool: StandIn) -> None:
    ill = {'state': 'failing', 'pid': None, 'stand_in_pid': 17, 'failures': 5, 'last_end': 'return code -11'}
    pool.plays['status'] = {**STATUS, 'fork_server': ill}
    (line,) = [line for line in shown(pool, 120).splitlines() if 'fork server' in line]
    assert '5 in a row ended young, the last with return code -11' in plain(line)
    assert '\033[31m' in line


@pytest.mark.parametrize('environ', [{'NO_COLOR': '1'}, {'NO_COLOR': '0'}, {'TERM': 'dumb'}])
def test_colour_is_left_out_where_it_is_not_wanted(pool: StandIn, environ: dict[str, str]) -> None:
    assert '\033' not in shown(pool, 80, **environ)


def test_an_empty_no_color_forbids_nothing(pool: StandIn) -> None:
    assert '\033[31m' in shown(pool, 80, NO_COLOR='')


@pytest.mark.parametrize('environ', [{'LANG': 'C'}, {'LANG': ''}, {'LC_ALL': 'POSIX', 'LANG': 'C.UTF-8'}])
def test_a_locale_without_utf_8_gets_ascii(pool: StandIn, environ: dict[str, str]) -> None:
    written = shown(pool, 80, NO_COLOR='1', **environ)
    assert written == golden('status-ascii')
    assert written.isascii()


def test_a_pool_that_counts_and_limits_nothing_has_no_columns_for_it(pool: StandIn) -> None:
    pool.plays['status'] = QUIET
    assert shown(pool, 80, NO_COLOR='1') == golden('status-quiet')


def test_what_a_worker_has_said_can_move_no_cursor_and_break_no_line(pool: StandIn) -> None:
    nasty = 'a\x1b[2J\x1b]0;title\x07b\r\nc\u2028d\u202ee\x9bf\udcff'
    pool.plays['status'] = {**STATUS, 'slots': [{**SLOTS[0], 'last_error': nasty}], 'name': 'x\x1by'}
    written = say('status', '--control-socket', str(pool.path)).stdout
    assert all(line.isprintable() for line in written.splitlines())
    assert r'a\x1b[2J\x1b]0;title\x07b c d\u202ee\x9bf\udcff' in written
    assert len(written.splitlines()) == len(golden('status-pipe').splitlines()) - 4


def test_json_is_what_the_pool_has_said(pool: StandIn) -> None:
    done = say('status', '--json', '--control-socket', str(pool.path))
    assert (done.returncode, done.stderr) == (0, '')
    assert json.loads(done.stdout) == STATUS
    assert list(json.loads(done.stdout)) == list(STATUS)


def test_what_a_newer_pool_adds_and_an_older_one_lacks_does_no_harm(pool: StandIn) -> None:
    pool.plays['status'] = {'name': 'old', 'pid': 7, 'new': [1], 'slots': [{'slot': 0, 'state': 'hibernating', 'new': 1}]}
    done = say('status', '--control-socket', str(pool.path))
    assert (done.returncode, done.stderr) == (0, '')
    assert 'hibernating' in done.stdout


def test_a_thousand_slots_are_a_thousand_rows(pool: StandIn) -> None:
    pool.plays['status'] = large()
    assert len(say('status', '--control-socket', str(pool.path)).stdout.splitlines()) == len('pwsbmgtet') + 2 + 1000


# --watch


def frames(written: str) -> list[str]:
    """The screens that were drawn, without what places them."""
    assert written.startswith('\033[?1049h'), 'on the alternate screen'
    drawn = re.sub(r'\033\[(\?[0-9;]*[hl]|K|J)', '', written).replace('\r\n', '\n')
    return [plain(frame) for frame in drawn.split('\033[H')[1:]]


def test_watch_draws_again_in_the_same_place_until_ctrl_c(pool: StandIn) -> None:
    with screen('status', '--watch', '10ms', '--control-socket', str(pool.path)) as command:
        command.read_until('crawl')
        pool.wait_for('status', 3)
        pool.plays['status'] = {**STATUS, 'state': 'stopping'}
        command.read_until('stopping, ')
        command.process.send_signal(signal.SIGINT)
        status, written = command.end()
    assert status == 130
    drawn = frames(written)
    assert drawn[0] + '\n' == golden('status-80')
    assert 'stopping, 2 of 4 ready' in drawn[-1]
    assert written.endswith('\033[?7h\033[?25h\033[?1049l'), 'the terminal is as it was'


@pytest.mark.parametrize(('number', 'status'), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_watch_that_is_ended_leaves_the_terminal_as_it_was(pool: StandIn, number: int, status: int) -> None:
    with screen('status', '--watch', '--control-socket', str(pool.path)) as command:
        command.read_until('crawl')
        command.process.send_signal(number)
        assert command.end() == (status, command.written.replace('\r\n', '\n'))
    assert command.written.endswith('\033[?1049l')


def test_a_watch_ends_with_its_pool(pool: StandIn) -> None:
    with screen('status', '--watch', '10ms', '--control-socket', str(pool.path)) as command:
        command.read_until('crawl')
        pool.plays['status'] = lambda args, tell: None
        status, written = command.end()
    assert status == 4
    assert written.endswith('\033[?1049lsergeant-linux status: error: the pool has gone before it answered\n')


@pytest.mark.parametrize('height', [10, 12, 24, 50])
def test_a_watched_pool_larger_than_the_screen_shows_its_worst_first_and_counts_the_rest(
    pool: StandIn, height: int,
) -> None:
    pool.plays['status'] = large()
    with screen('status', '--watch', '--control-socket', str(pool.path), height=height, environ={'NO_COLOR': '1'}) as command:
        command.read_until('not shown')
        command.process.send_signal(signal.SIGINT)
        _, written = command.end()
    lines = frames(written)[0].splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith('SLOT')) + 1
    assert len(lines) <= max(height, first + 1)
    rows = [int(line.split()[0]) for line in lines[first:-1]]
    assert rows[:3] == [700, 900, 6][:len(rows)], 'what does not run, then the nearest to its limit'
    assert lines[-1] == f'{1000 - len(rows)} more slots are not shown'


@pytest.mark.parametrize(('argv', 'said'), [
    (['--watch'], '--watch needs a terminal'),
    (['--watch', '--json'], '--watch is for people, --json for programs: not both'),
    (['--watch', '0'], "argument --watch: expected a time span above 0, not '0'"),
    (['--watch', 'often'],
     "argument --watch: expected a time span (seconds, or such as 1min 30s, 500ms, infinity), not 'often'"),
])
def test_what_can_not_be_watched_is_wrong_usage(pool: StandIn, argv: list[str], said: str) -> None:
    done = say('status', '--control-socket', str(pool.path), *argv)
    assert (done.returncode, done.stdout, done.stderr) == (2, '', f'sergeant-linux status: error: {said}\n')
