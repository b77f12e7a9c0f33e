"""The demo's claims: each holds for what a good run leaves, and fails for the one thing that is wrong."""

import hashlib
import os
import sqlite3
from pathlib import Path

import pytest

from sergeant_linux.demo import proof

LIMIT = 160 << 20
WORKERS = (4001001, 4001002, 4001003)  # no pid is as high: PID_MAX_LIMIT is 4194304, pid_max far lower by default
HOG, SUCCESSOR = WORKERS[1:]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What two workers leave that have hashed the files a, b and c."""
    (tmp_path / 'results').mkdir()
    for name, worker in (('a', 1), ('b', 2), ('c', 1)):
        (tmp_path / name).write_text(f'this is {name}')
        add_result(tmp_path, name, worker)
    connection = sqlite3.connect(tmp_path / 'tasks.sqlite3')
    connection.execute('CREATE TABLE task_queue (queue_name TEXT, priority REAL, value BLOB)')
    connection.close()
    return tmp_path


def add_result(folder: Path, name: str, worker: int) -> None:
    path = folder / name
    with (folder / 'results' / f'{worker}.sha256').open('a') as results:
        results.write(f'{hashlib.sha256(path.read_bytes()).hexdigest()}  {path}\n')


def files(folder: Path) -> list[str]:
    return [str(folder / name) for name in 'abc']


def log() -> list[proof.Record]:
    """What a supervisor of two says: one was replaced for its memory, then all were stopped."""
    return [
        *({'message': f'spawned a new worker at pid: {pid}'} for pid in WORKERS[:2]),
        ending(HOG, result='memory-max', max_rss_bytes=LIMIT + 1),
        {'message': f'worker({HOG}) was respawned as worker({SUCCESSOR})'},
        ending(WORKERS[0]),
        ending(SUCCESSOR),
        {'message': 'exiting...'},
    ]


def ending(pid: int, *, result: str = 'success', max_rss_bytes: int | None = None) -> proof.Record:
    return {'event': 'worker-exit', 'pid': pid, 'result': result, 'max_rss_bytes': max_rss_bytes}


def test_a_good_run_proves_every_claim(folder: Path) -> None:
    assert proof.every_file_once(files(folder), folder).holds
    assert proof.nothing_waits(folder).holds
    assert proof.the_hog_was_killed([HOG], LIMIT, log()).holds
    assert proof.every_life_is_accounted_for(2, log()).holds
    assert proof.the_pool_has_stopped(0, 0.1, log()).holds


def test_a_file_that_nobody_has_hashed_is_missed(folder: Path) -> None:
    claim = proof.every_file_once([*files(folder), '/etc/never-hashed'], folder)

    assert not claim.holds
    assert '1 missing: /etc/never-hashed' in claim.text


def test_a_file_that_two_workers_have_hashed_is_found(folder: Path) -> None:
    add_result(folder, 'b', worker=1)

    claim = proof.every_file_once(files(folder), folder)

    assert not claim.holds
    assert f'1 repeated: {folder}/b' in claim.text


def test_a_file_that_was_hashed_wrongly_is_found(folder: Path) -> None:
    (folder / 'c').write_text('this is another c')

    claim = proof.every_file_once(files(folder), folder)

    assert not claim.holds
    assert f'1 wrong: {folder}/c' in claim.text


def test_a_file_that_was_never_enqueued_is_found(folder: Path) -> None:
    claim = proof.every_file_once(files(folder)[1:], folder)

    assert not claim.holds
    assert f'1 strange: {folder}/a' in claim.text


def test_a_task_that_still_waits_is_found(folder: Path) -> None:
    with sqlite3.connect(folder / 'tasks.sqlite3') as connection:
        connection.execute('INSERT INTO task_queue VALUES ("hash_worker", 1.0, "a task")')
    connection.close()

    assert not proof.nothing_waits(folder).holds


@pytest.mark.parametrize(
    ('hogs', 'more'),
    [
        ([], []),
        ([WORKERS[0]], []),
        ([HOG, HOG], []),
        ([HOG], [ending(WORKERS[0], result='memory-max', max_rss_bytes=LIMIT + 1)]),
    ],
    ids=['it never began', 'another one was killed', 'it was begun twice', 'two were killed'],
)
def test_the_hog_must_be_the_one_worker_that_was_killed(hogs: list[int], more: list[proof.Record]) -> None:
    assert not proof.the_hog_was_killed(hogs, LIMIT, log() + more).holds


def test_a_hog_must_have_been_over_its_limit() -> None:
    assert not proof.the_hog_was_killed([HOG], LIMIT + 1, log()).holds


@pytest.mark.parametrize('number', [0, 2, 3, 4], ids=['a birth', 'the end of the hog', 'the succession', 'an end'])
def test_a_life_without_its_birth_or_its_end_is_found(number: int) -> None:
    records = log()
    del records[number]

    assert not proof.every_life_is_accounted_for(2, records).holds


def test_an_end_that_is_reported_twice_is_found() -> None:
    assert not proof.every_life_is_accounted_for(2, [*log(), ending(SUCCESSOR)]).holds


def test_a_pool_that_left_with_another_status_has_not_stopped_as_it_was_told() -> None:
    assert not proof.the_pool_has_stopped(-9, 0.1, log()).holds


def test_a_worker_that_is_left_is_found() -> None:
    claim = proof.the_pool_has_stopped(0, 0.1, [*log(), ending(os.getpid())])

    assert not claim.holds
    assert f'still there: [{os.getpid()}]' in claim.text
