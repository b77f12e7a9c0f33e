"""A record of what went into a pool, from which its decisions can be made again."""

import json
from collections import deque
from enum import Enum
from math import inf
from random import Random
from typing import Any

import pytest

from sergeant_linux.core.events import Exited, PolicyChanged, TimePassed, from_written, written
from sergeant_linux.core.flight import beginning, line, replay
from sergeant_linux.core.plain import plain, read
from sergeant_linux.core.policy import Budget, Limit, Policy
from sergeant_linux.core.result import Ending, FinalReport, MemoryEvidence, OomScope
from tests.core.fake_kernel import RAISED, FakeKernel
from tests.core.world import World, policy

FULL = Policy(
    concurrent_workers=3,
    worker_module_name='worker',
    worker_class_name='Worker',
    max_worker_memory_usage=64_000_001,
    preload_modules=('json', 'csv'),
    timeout_stop=inf,
    restart_budget=Budget(5, 60),
    worker_limit_nofile=Limit(1024, 4096),
    worker_cpu_max=0.5,
    umask=0o27,
)

EVIDENCE = Ending(
    None,
    9,
    report=FinalReport(1, 'ValueError()', summary={'done': 3, 'rate': 0.5}, unkillable_threads=('a', 'b')),
    memory=MemoryEvidence(64, 64, None, 1, OomScope.WORKER, True, None, None, None, None),
    cpu_seconds=0.25,
)


def as_json(value: Any) -> Any:
    return json.loads(json.dumps(value, allow_nan=False))


def test_a_policy_is_read_as_it_was_written() -> None:
    assert read(Policy, as_json(plain(FULL))) == FULL


@pytest.mark.parametrize('event', [Exited(3, EVIDENCE), PolicyChanged(FULL), TimePassed()])
def test_an_event_is_read_as_it_was_written(event: Any) -> None:
    assert from_written(as_json(written(event))) == event


def test_what_has_no_plain_form_is_refused() -> None:
    class Colour(Enum):
        RED = 'red'

    assert plain([Colour.RED, {1: inf}, deque([frozenset({2, 1})])]) == ['red', {'1': 'infinity'}, [[1, 2]]]
    with pytest.raises(TypeError, match='no plain form'):
        plain(object())


def test_a_pool_decides_again_as_it_has_decided_wherever_the_record_begins() -> None:
    chance = Random(7)
    world = World(policy(concurrent_workers=3, max_worker_lifetime=20, max_worker_lifetime_jitter=9), FakeKernel(), chance)
    lines = ['what was cut off\n']
    world.listener = lambda event, now, commands: lines.append(line(event, now, commands))
    lines.append(beginning(world.pool, chance, world.now))
    world.up()
    world.happen(Exited(1, RAISED))
    world.settle()
    world.wait(25)
    lines.append(beginning(world.pool, chance, world.now))
    world.reload()
    world.settle()
    world.stop()
    world.settle()

    steps = list(replay(lines))

    assert len(steps) == len(lines) - 3
    assert [step.again for step in steps] == [step.then for step in steps]
    assert steps[-1].again[-1]['command'] == 'WorkerExited' or steps[-1].again == [{'command': 'Leave', 'status': 0}]


def test_a_record_of_another_form_is_refused() -> None:
    with pytest.raises(ValueError, match='form'):
        list(replay(['{"flight":99}\n']))
