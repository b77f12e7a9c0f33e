"""`sergeant-linux status`: a pool on one screen.

Facts: people look at a pool when something is wrong with it, over whatever connection they have, and what is wrong is
in one row of many. Programs want what the pool said, not what a screen made of it.
Decision: a head of a few lines and a row for each slot; what doesn't fit is left out by its importance (`table`).
Without room for all slots, --watch begins with those that are not as they should be, then those nearest to a limit.
Price: the order of the rows changes while one watches a pool that is larger than the screen.
"""

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from sergeant_linux.cli import figures
from sergeant_linux.cli.table import Cell, Column, lay_out
from sergeant_linux.cli.terminal import (
    ALTERNATE,
    BACK,
    BOLD,
    DIM,
    GREEN,
    RED,
    YELLOW,
    Look,
    clean,
    cut,
    look,
    stdout,
)
from sergeant_linux.cli.verbs.parser import Parser
from sergeant_linux.cli.verbs.pool import DONE, add_pool, ask, connect, help_text, say_object, seconds

HELP: Final = help_text(
    '', '--watch', '--name crawl --json',
    more='What a terminal has no room for is left out, the least important first; in a\n'
    'pipe nothing is. The bar shows memory up to the limit, and where the mark is.\n'
    'Colour is for terminals, and not with NO_COLOR.',
    _1='',
)

WATCH_INTERVAL: Final = 1.0
"""Seconds between two looks, where none are asked for."""

BAR: Final = 10
"""Columns of a memory bar."""

_ROOMY: Final = 20
"""Rows of a screen below which what has been counted has no place in the head."""

_LABEL: Final = 12

_COLUMNS: Final = (
    Column('SLOT', right=True),
    Column('STATE'),
    Column('PID', 1, right=True),
    Column('LIFE', 11, right=True),
    Column('UP', 3, right=True),
    Column('MEM', 2, right=True),
    Column('PEAK', 9, right=True),
    Column('LIMIT', 13, right=True),
    Column('', 6),
    Column('CPU', 8, right=True),
    Column('DONE', 4, right=True),
    Column('FAILED', 10, right=True),
    Column('RATE', 7, right=True),
    Column('TASK', 3, right=True),
    Column('RESTARTS', 12, right=True),
    Column('LAST', 5, least=10),
    Column('ERROR', 14, least=12),
)

_STATE_COLOURS: Final = {
    'running': '', 'start': YELLOW, 'drain': YELLOW, 'auto-restart': YELLOW, 'stop-sigterm': YELLOW,
    'stop-sigkill': RED, 'dead': RED, 'failed': RED,
}
_POOL_COLOURS: Final = {'running': GREEN, 'starting': YELLOW, 'reloading': YELLOW, 'stopping': RED}


def add_arguments(parser: Parser) -> None:
    add_pool(parser, json_help='answer with what the pool said, one JSON object')
    parser.add_argument(
        '--watch', metavar='SPAN', nargs='?', type=seconds, const=WATCH_INTERVAL,
        help='show it again and again, every SPAN (1s), until Ctrl-C',
    )


def run(args: argparse.Namespace) -> int:
    if args.watch is None:
        with connect(args) as client:
            status = ask(client, 'status')
        if args.json:
            say_object(status)
        else:
            sys.stdout.write('\n'.join([*screen(status, stdout()), '']))
        return DONE
    if args.json:
        args.parser.error('--watch is for people, --json for programs: not both')
    if not stdout().is_terminal:
        args.parser.error('--watch needs a terminal')
    return _watch(args)


def _watch(args: argparse.Namespace) -> int:
    import signal
    import time

    def leave(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    with connect(args) as client:
        status = ask(client, 'status')
        signal.signal(signal.SIGTERM, leave)
        signal.signal(signal.SIGHUP, leave)
        try:
            sys.stdout.write(ALTERNATE)
            while True:
                there = look(sys.stdout)  # the window may have another size by now
                lines = screen(status, there, rows=there.height)
                sys.stdout.write('\033[H' + '\r\n'.join(f'{line}\033[K' for line in lines[: there.height]) + '\033[J')
                sys.stdout.flush()
                time.sleep(args.watch)
                status = ask(client, 'status')
        finally:
            sys.stdout.write(BACK)
            sys.stdout.flush()


def screen(status: Mapping[str, Any], there: Look, rows: int | None = None) -> list[str]:
    """Return the lines of the screen. rows: how many there may be; None: no matter."""
    if rows is not None and rows < _ROOMY:
        status = {**status, 'counters': None}
    lines = [*_head(status, there), '']
    slots = list(status.get('slots') or ())
    hidden = 0
    if rows is not None and sum(_height(slot) for slot in slots) > (room := max(rows - len(lines) - 1, 1)):
        slots = sorted(slots, key=lambda slot: _interest(slot, status))
        kept, used = 0, 0
        while kept < len(slots) and used + _height(slots[kept]) <= room - 1:  # a line for those that are left out
            used += _height(slots[kept])
            kept += 1
        hidden = len(slots) - kept
        slots = slots[:kept]
    lines += lay_out(_COLUMNS, list(_rows(slots, status, there)), there)
    if hidden:
        more = f'{hidden} more {"slot is" if hidden == 1 else "slots are"} not shown'
        lines.append(there.paint(cut(more, there.width, unicode=there.unicode), DIM))
    return lines


def _height(slot: Mapping[str, Any]) -> int:
    return 2 if slot.get('successor') else 1


def _interest(slot: Mapping[str, Any], status: Mapping[str, Any]) -> tuple[int, float, int]:
    """Return a key that sorts what is most interesting first."""
    share = max(_share(slot, status), _task_share(slot, status))
    state = slot.get('state')
    if state != 'running':
        order = 1 if state == 'start' else 0
    elif slot.get('successor') or share >= 0.8:
        order = 2
    else:
        order = 3 if slot.get('last_error') else 4
    return order, -share, int(slot.get('slot') or 0)


def _share(slot: Mapping[str, Any], status: Mapping[str, Any]) -> float:
    """Return how much of the limit, or else of the mark, a worker's memory takes."""
    memory = status.get('memory') or {}
    whole = memory.get('limit_bytes') or memory.get('mark_bytes')
    return (slot.get('memory_bytes') or 0) / whole if whole else 0.0


def _task_share(slot: Mapping[str, Any], status: Mapping[str, Any]) -> float:
    """Return how much of the watchdog's patience a worker's task has taken."""
    patience = status.get('watchdog_seconds')
    return (slot.get('task_age_seconds') or 0.0) / patience if patience else 0.0


# The head.


def _head(status: Mapping[str, Any], there: Look) -> Iterator[str]:
    for label, text, colour in _facts(status):
        line = f'{label:<{_LABEL}}{cut(text, there.width and max(there.width - _LABEL, 8), unicode=there.unicode)}'
        yield there.paint(line[:_LABEL], DIM) + there.paint(line[_LABEL:], colour)


def _facts(status: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Yield label, clean text and colour of each line of the head."""
    up = figures.span(status.get('uptime_seconds'))
    version = f', sergeant_linux {clean(status["version"])}' if status.get('version') else ''
    yield 'pool', f'{clean(status.get("name"))}, pid {status.get("pid")}, up {up}{version}', BOLD
    yield 'worker', f'{clean(status.get("module"))}.{clean(status.get("class"))}', ''
    state = clean(status.get('state'))
    yield 'state', f'{state}, {status.get("ready")} of {status.get("wanted")} ready', _POOL_COLOURS.get(state, '')
    backend = status.get('backend') or {}
    why_not = f': {clean(backend["why_not"])}' if backend.get('why_not') else ''
    yield 'backend', f'memory {backend.get("memory")}, containment {backend.get("containment")}{why_not}', ''
    yield 'memory', _memory(status), ''
    lives = f'{figures.count(status.get("spawned"))} lives, {figures.count(status.get("restarts"))} restarts'
    yield 'generation', f'{status.get("generation")}; {lives}', ''
    yield from _counters(status.get('counters') or {})
    yield from _fork_server(status.get('fork_server') or {})
    reload = status.get('reload')
    if reload:
        reason = f': {clean(reload["reason"])}' if reload.get('reason') else ''
        text = f'{clean(reload.get("state"))}, {reload.get("changed")} of {reload.get("of")} run generation '
        colour = RED if reload.get('state') == 'failed' else ''
        yield 'reload', f'{text}{reload.get("generation")}{reason}', colour
    trouble = status.get('last_trouble')
    if trouble:
        when = clean(trouble.get('time')).replace('T', ' ')[:19]
        yield 'trouble', f'{when} {clean(trouble.get("event"))}: {clean(trouble.get("message"))}', YELLOW


def _fork_server(server: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Yield what ails the fork server, where anything does."""
    if server.get('state') == 'failing':
        times = f'{figures.count(server.get("failures"))} in a row ended young'
        text = f'failing: {times}, the last with {clean(server.get("last_end"))}; workers are made without preloading'
        yield 'fork server', text, RED


def _counters(counters: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Yield what has been counted, where it is anything."""
    tasks = counters.get('tasks_done') or 0, counters.get('tasks_failed') or 0
    if any(tasks):
        yield 'tasks', f'{figures.count(tasks[0])} done, {figures.count(tasks[1])} failed', ''
    ended, requested = _counts(counters.get('ended') or {}), _counts(counters.get('requested') or {})
    if ended:
        yield 'ends', ended + (f'; asked for: {requested}' if requested else ''), ''


def _counts(counts: Mapping[str, Any]) -> str:
    return ', '.join(f'{figures.count(count)} {clean(what)}' for what, count in counts.items() if count)


def _memory(status: Mapping[str, Any]) -> str:
    known = [slot['memory_bytes'] for slot in _lives(status) if slot.get('memory_bytes') is not None]
    memory = status.get('memory') or {}
    bounds = [
        f'{word} {figures.size(memory[key])}{whose}'
        for word, key, whose in (
            ('limit', 'limit_bytes', ' each'),
            ('mark', 'mark_bytes', ' each'),
            ('limit', 'pool_limit_bytes', ' for all'),
        )
        if memory.get(key) is not None
    ]
    taken = [f'{figures.size(sum(known))} in all'] if known else []
    return ', '.join([*taken, *(bounds or ['no limit'])])


def _lives(status: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for slot in status.get('slots') or ():
        yield slot
        if slot.get('successor'):
            yield slot['successor']


# The slots.


def _rows(slots: Sequence[Mapping[str, Any]], status: Mapping[str, Any], there: Look) -> Iterator[list[Cell]]:
    for slot in slots:
        yield _row(str(slot.get('slot')), slot, status, there)
        if slot.get('successor'):
            yield _row('└' if there.unicode else '+', slot['successor'], status, there)


def _row(number: str, slot: Mapping[str, Any], status: Mapping[str, Any], there: Look) -> list[Cell]:
    memory = status.get('memory') or {}
    state = clean(slot.get('state'))
    pid, life = slot.get('pid'), slot.get('life')
    last = clean(slot['last_result']) if slot.get('last_result') else ''
    if slot.get('restart_in_seconds') is not None:
        last = f'{last}, again in {figures.span(slot["restart_in_seconds"])}'.lstrip(', ')
    limit = memory.get('limit_bytes')
    colour = _colour(_share(slot, status), memory)
    failed = slot.get('tasks_failed')
    return [
        Cell(number),
        Cell(state, _STATE_COLOURS.get(state, '')),
        Cell('' if pid is None else str(pid)),
        Cell('' if life is None else str(life), DIM),
        Cell(_known(slot, 'uptime_seconds', figures.span)),
        Cell(_known(slot, 'memory_bytes', figures.size), colour),
        Cell(_known(slot, 'memory_peak_bytes', figures.size)),
        Cell('' if limit is None else figures.size(limit), DIM),
        Cell(bar(slot.get('memory_bytes'), memory.get('mark_bytes'), limit, unicode=there.unicode), colour),
        Cell(_known(slot, 'cpu_seconds', figures.span)),
        Cell(_known(slot, 'tasks_done', figures.count)),
        Cell(_known(slot, 'tasks_failed', figures.count), YELLOW if failed else ''),
        Cell(_known(slot, 'tasks_per_second', figures.rate)),
        Cell(_known(slot, 'task_age_seconds', figures.span), _task_colour(_task_share(slot, status))),
        Cell(_known(slot, 'restarts', figures.count)),
        Cell(last),
        Cell(clean(slot['last_error']) if slot.get('last_error') else '', YELLOW),
    ]


def _known(slot: Mapping[str, Any], key: str, show: Any) -> str:
    value = slot.get(key)
    return '' if value is None else str(show(value))


def _colour(share: float, memory: Mapping[str, Any]) -> str:
    limit, mark = memory.get('limit_bytes'), memory.get('mark_bytes')
    if not limit and not mark:
        return ''
    if limit and share >= 0.95:
        return RED
    return YELLOW if share >= (mark / limit if mark and limit else 0.8 if limit else 1.0) else GREEN


def _task_colour(share: float) -> str:
    return RED if share >= 0.8 else YELLOW if share >= 0.5 else ''


def bar(now: int | None, mark: int | None, limit: int | None, *, unicode: bool) -> str:
    """Return a bar of `BAR` columns: memory up to the limit (or else the mark), and where the mark is."""
    whole = limit or mark
    if now is None or not whole:
        return ''
    full, rest, sign = ('█', '·', '│') if unicode else ('#', '.', '|')
    filled = min(BAR, max(round(now / whole * BAR), 1 if now else 0))
    text = full * filled + rest * (BAR - filled)
    if mark and limit and mark < limit:
        at = min(int(mark / limit * BAR), BAR - 1)
        text = text[:at] + sign + text[at + 1 :]
    return text
