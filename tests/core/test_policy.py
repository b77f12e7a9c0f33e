"""A Policy that exists is valid, its values have their final types, and its knobs say all there is to know of them."""

import math
from dataclasses import FrozenInstanceError, fields, replace
from typing import Any

import pytest

from sergeant_linux.core.policy import Auto, BadValue, Budget, Knob, Limit, Policy

REQUIRED: dict[str, Any] = {
    'concurrent_workers': 4,
    'worker_class_name': 'Worker',
    'worker_module_name': 'crawl_worker',
}
KNOBS: dict[str, Knob] = {field.name: field.metadata['knob'] for field in fields(Policy)}
DEFAULTS = Policy(**REQUIRED)


def policy(**knobs: Any) -> Policy:
    return Policy(**{**REQUIRED, **knobs})


def test_the_knobs_have_their_order_flags_and_defaults() -> None:
    table = [(knob.flag, getattr(DEFAULTS, name)) for name, knob in KNOBS.items()]

    assert table == [
        ('--concurrent-workers', 4),
        ('--worker-class', 'Worker'),
        ('--worker-module', 'crawl_worker'),
        ('--max-worker-memory-usage', None),
        ('--spawn', 'fork'),
        ('--preload', False),
        ('--preload-module', ()),
        ('--timeout-start', 60.0),
        ('--timeout-stop', 8.0),
        ('--timeout-drain', math.inf),
        ('--restart-delay', 0.1),
        ('--restart-max-delay', 30.0),
        ('--restart-reset', 1.0),
        ('--restart-budget', None),
        ('--max-worker-lifetime', None),
        ('--max-worker-lifetime-jitter', 0.0),
        ('--max-surge', 1),
        ('--max-unavailable', 0),
        ('--worker-memory-high', None),
        ('--memory-measure', 'rss'),
        ('--memory-poll-interval', 0.5),
        ('--worker-watchdog', None),
        ('--ready-when', 'first'),
        ('--watchdog-quorum', 1),
        ('--name', None),
        ('--control-socket', 'auto'),
        ('--control-group', None),
        ('--log-level', 'info'),
        ('--log-format', 'auto'),
        ('--flight-recorder', None),
        ('--memory-backend', 'auto'),
        ('--cgroup-root', None),
        ('--worker-swap-max', 0),
        ('--worker-pids-max', None),
        ('--worker-cpu-max', None),
        ('--worker-cpu-weight', None),
        ('--worker-io-weight', None),
        ('--pool-memory-max', None),
        ('--user', None),
        ('--group', None),
        ('--worker-nice', None),
        ('--worker-limit-nofile', None),
        ('--worker-limit-nproc', None),
        ('--worker-limit-core', None),
        ('--worker-limit-memlock', None),
        ('--worker-limit-stack', None),
        ('--worker-limit-fsize', None),
        ('--worker-limit-data', None),
        ('--worker-limit-cpu', None),
        ('--umask', None),
        ('--no-new-privileges', False),
    ]


def test_a_flag_is_the_name_of_its_field_but_for_the_ancestors_names_and_the_repeatable_one() -> None:
    differing = {name for name, knob in KNOBS.items() if knob.flag != '--' + name.replace('_', '-')}
    assert differing == {'worker_class_name', 'worker_module_name', 'preload_modules'}


def test_a_variable_is_the_name_of_its_flag_with_our_prefix() -> None:
    assert KNOBS['timeout_stop'].variable == 'SERGEANT_LINUX_TIMEOUT_STOP'
    assert KNOBS['worker_module_name'].variable == 'SERGEANT_LINUX_WORKER_MODULE'
    assert len({knob.variable for knob in KNOBS.values()}) == len(KNOBS)


def test_a_policy_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        DEFAULTS.spawn = 'exec'  # type: ignore[misc]  # that it can't be is the test


@pytest.mark.parametrize(('knob', 'given', 'accepted'), [
    ('worker_module_name', 'package.module', 'package.module'),
    ('worker_module_name', 'my-worker', 'my-worker'),  # importlib.import_module takes it, so the ancestor did
    ('worker_module_name', 'my worker', 'my worker'),
    ('max_worker_memory_usage', 1024, 1024),
    ('max_worker_memory_usage', '64M', 64 * 1024**2),
    ('max_worker_memory_usage', 'off', None),
    ('max_worker_memory_usage', 'infinity', None),
    ('preload_modules', ['numpy', 'a.b'], ('numpy', 'a.b')),
    ('timeout_start', '1min 30s', 90.0),
    ('timeout_start', 5, 5.0),
    ('timeout_stop', 'infinity', math.inf),
    ('restart_delay', 0, 0.0),
    ('restart_budget', '5/1min', Budget(5, 60.0)),
    ('restart_budget', '0/infinity', Budget(0, math.inf)),
    ('restart_budget', Budget(5, 60), Budget(5, 60.0)),
    ('restart_budget', 'off', None),
    ('max_worker_lifetime', '12h', 43200.0),
    ('max_worker_lifetime', math.inf, None),
    ('worker_watchdog', '5min', 300.0),
    ('worker_watchdog', 'off', None),
    ('worker_memory_high', '1.5G', 3 * 1024**3 // 2),
    ('memory_poll_interval', '20ms', 0.02),
    ('cgroup_root', '/sys/fs/cgroup/a b', '/sys/fs/cgroup/a b'),
    ('cgroup_root', 'auto', None),
    ('worker_swap_max', '0', 0),
    ('worker_swap_max', '64M', 64 * 1024**2),
    ('worker_swap_max', 'infinity', None),
    ('worker_pids_max', 64, 64),
    ('worker_pids_max', 'off', None),
    ('worker_cpu_max', '150%', 1.5),
    ('worker_cpu_max', '12.5%', 0.125),
    ('worker_cpu_max', '1%', 0.01),
    ('worker_cpu_max', 2, 2.0),
    ('worker_cpu_max', 'infinity', None),
    ('worker_cpu_weight', 10_000, 10_000),
    ('worker_io_weight', 'off', None),
    ('pool_memory_max', '1G', 1024**3),
    ('user', 'nobody', 'nobody'),
    ('user', 'müller.x-y$', 'müller.x-y$'),
    ('user', '0', '0'),
    ('user', 65534, '65534'),
    ('user', 'inherit', None),
    ('group', 'nogroup', 'nogroup'),
    ('worker_nice', -20, -20),
    ('worker_nice', 'inherit', None),
    ('worker_limit_nofile', 1024, Limit(1024, 1024)),
    ('worker_limit_nofile', '1024:4096', Limit(1024, 4096)),
    ('worker_limit_nofile', '1024:infinity', Limit(1024, None)),
    ('worker_limit_nofile', Limit(1024, None), Limit(1024, None)),
    ('worker_limit_nofile', 'inherit', None),
    ('worker_limit_nproc', math.inf, Limit(None, None)),
    ('worker_limit_core', 0, Limit(0, 0)),
    ('worker_limit_core', 'infinity', Limit(None, None)),
    ('worker_limit_memlock', '64K:1M', Limit(64 * 1024, 1024**2)),
    ('worker_limit_cpu', '1min 30s:2min', Limit(90, 120)),
    ('worker_limit_cpu', '1.5', Limit(2, 2)),
    ('umask', '027', 0o027),
    ('umask', 0o022, 0o022),
    ('umask', 'inherit', None),
])
def test_a_value_is_accepted_as_its_flag_takes_it_and_kept_in_its_final_type(
    knob: str, given: object, accepted: object,
) -> None:
    value = getattr(policy(**{knob: given}), knob)
    assert (type(value), value) == (type(accepted), accepted)


@pytest.mark.parametrize('knob', ['concurrent_workers', 'max_worker_memory_usage'])
def test_what_is_auto_stays_so_is_shown_so_and_bounds_no_other_knob(knob: str) -> None:
    asked = policy(**{knob: 'auto', 'worker_memory_high': '1G'})
    again = replace(asked, timeout_stop=1)
    for each in (asked, again):
        value = getattr(each, knob)
        assert isinstance(value, Auto)
        assert (str(value), KNOBS[knob].kind.show(value), KNOBS[knob].kind.read('auto')) == ('auto',) * 3


def test_no_other_number_is_auto() -> None:
    for knob in ('worker_memory_high', 'pool_memory_max', 'max_surge'):
        with pytest.raises((TypeError, ValueError), match=knob):
            policy(**{knob: 'auto'})


def test_the_values_of_a_policy_make_the_same_policy_again() -> None:
    one = policy(max_worker_memory_usage='64M', restart_budget='5/1min', timeout_drain='2h', preload_modules=['a'])
    again = Policy(**{field.name: getattr(one, field.name) for field in fields(one)})
    assert one == again


@pytest.mark.parametrize(('knob', 'value'), [
    ('concurrent_workers', True),
    ('concurrent_workers', '4'),
    ('concurrent_workers', 4.0),
    ('concurrent_workers', None),
    ('worker_class_name', None),
    ('worker_module_name', b'crawl_worker'),
    ('max_worker_memory_usage', 1.5),
    ('max_worker_memory_usage', False),
    ('spawn', 1),
    ('preload', 1),
    ('preload', '1'),
    ('preload_modules', 'numpy'),
    ('preload_modules', [1]),
    ('timeout_start', None),
    ('timeout_stop', True),
    ('restart_budget', (5, 60.0)),
    ('max_worker_lifetime', [1]),
    ('worker_watchdog', [1]),
    ('log_level', 20),
    ('memory_backend', None),
    ('cgroup_root', b'/'),
    ('worker_swap_max', True),
    ('worker_pids_max', '64'),
    ('worker_cpu_max', True),
    ('worker_cpu_max', [1]),
    ('worker_cpu_weight', 1.5),
    ('user', True),
    ('user', b'nobody'),
    ('group', 1.5),
    ('worker_nice', '5'),
    ('worker_limit_nofile', 1.5),
    ('worker_limit_nofile', True),
    ('worker_limit_nproc', [1]),
    ('worker_limit_core', [1]),
    ('umask', True),
    ('umask', 27.0),
    ('no_new_privileges', 1),
])
def test_a_value_of_the_wrong_type_is_a_type_error_that_names_the_knob_and_the_value(knob: str, value: object) -> None:
    with pytest.raises(TypeError, match=f'^{knob}: expected .*, not ') as caught:
        policy(**{knob: value})
    assert repr(value).strip('[]') in str(caught.value)


@pytest.mark.parametrize(('knob', 'value', 'expected'), [
    ('concurrent_workers', 0, 'a whole number, 1 or more'),
    ('concurrent_workers', -1, 'a whole number, 1 or more'),
    ('worker_class_name', '', 'the name of a class'),
    ('worker_class_name', 'a.b', 'the name of a class'),
    ('worker_module_name', '', 'the name of a module'),
    ('worker_module_name', '.a', 'the name of a module'),
    ('worker_module_name', 'a..b', 'the name of a module'),
    ('worker_module_name', 'a/b', 'the name of a module'),
    ('worker_module_name', 'a ', 'the name of a module'),
    ('worker_module_name', 'a\nb', 'the name of a module'),
    ('worker_module_name', 'a\udc80', 'the name of a module'),
    ('max_worker_memory_usage', 0, 'a size above 0'),
    ('max_worker_memory_usage', '64m', 'a size'),
    ('spawn', 'thread', 'one of fork, exec'),
    ('preload_modules', ['a', ''], 'the name of a module'),
    ('timeout_start', 0, 'a time span above 0'),
    ('timeout_stop', '0', 'a time span above 0'),
    ('timeout_drain', -1, 'a time span'),
    ('timeout_stop', math.nan, 'a time span'),
    ('restart_delay', -0.1, 'a time span'),
    ('restart_max_delay', 'infinity', 'a finite time span'),
    ('restart_reset', math.inf, 'a finite time span'),
    ('restart_budget', '5', 'restarts/time span'),
    ('restart_budget', '-1/1min', 'restarts/time span'),
    ('restart_budget', '5/0', 'restarts/time span'),
    ('restart_budget', '1.5/1min', 'restarts/time span'),
    ('max_worker_lifetime', 0, 'a time span above 0'),
    ('worker_watchdog', 0, 'a time span above 0'),
    ('max_worker_lifetime_jitter', 'infinity', 'a finite time span'),
    ('worker_memory_high', -1, 'a size'),
    ('memory_measure', 'vsz', 'one of rss, pss, uss, tree'),
    ('memory_poll_interval', 0.019, 'a time span of 20ms or more'),
    ('log_level', 'INFO', 'one of debug, info, warning, error, critical'),
    ('ready_when', 'most', 'one of first, all'),
    ('watchdog_quorum', 0, 'a whole number, 1 or more'),
    ('log_format', 'xml', 'one of auto, text, json, journal'),
    ('flight_recorder', 'flight', 'an absolute path'),
    ('memory_backend', 'psi', 'one of auto, cgroup, rss'),
    ('cgroup_root', 'system.slice', 'an absolute path'),
    ('cgroup_root', '/a\0', 'an absolute path'),
    ('worker_swap_max', -1, 'a size'),
    ('worker_pids_max', 0, 'a whole number, 1 or more'),
    ('worker_cpu_max', '1.5', 'a percentage of one core, from 1% on'),
    ('worker_cpu_max', '0.9%', 'a percentage of one core, from 1% on'),
    ('worker_cpu_max', '-5%', 'a percentage of one core, from 1% on'),
    ('worker_cpu_max', math.nan, 'a percentage of one core, from 1% on'),
    ('worker_cpu_max', 10_001, 'a percentage of one core, from 1% on'),
    ('worker_cpu_weight', 0, 'a whole number from 1 to 10000'),
    ('worker_io_weight', 10_001, 'a whole number from 1 to 10000'),
    ('pool_memory_max', 0, 'a size above 0'),
    ('user', '', 'a name or a number'),
    ('user', '-1', 'a name or a number'),
    ('user', 4294967295, 'a name or a number'),
    ('user', '1' * 30, 'a name or a number'),
    ('user', 'a:b', 'a name or a number'),
    ('user', 'a b', 'a name or a number'),
    ('group', 'a\nb', 'a name or a number'),
    ('worker_nice', 20, 'a whole number from -20 to 19'),
    ('worker_nice', -21, 'a whole number from -20 to 19'),
    ('worker_limit_nofile', '1024:', 'a number, SOFT:HARD, or infinity'),
    ('worker_limit_nofile', '1:2:3', 'a number, SOFT:HARD, or infinity'),
    ('worker_limit_nofile', '1K', 'a number, SOFT:HARD, or infinity'),
    ('worker_limit_nofile', -1, 'a number, SOFT:HARD, or infinity'),
    ('worker_limit_nproc', 2**63, 'a number, SOFT:HARD, or infinity'),
    ('worker_limit_stack', '8m', 'a size, SOFT:HARD, or infinity'),
    ('worker_limit_cpu', '', 'a time span, SOFT:HARD, or infinity'),
    ('umask', '28', 'an octal number of at most 777'),
    ('umask', '', 'an octal number of at most 777'),
    ('umask', '1000', 'an octal number of at most 777'),
    ('umask', '0o27', 'an octal number of at most 777'),
    ('umask', -1, 'an octal number of at most 777'),
])
def test_a_value_that_can_not_be_is_a_value_error_that_names_the_knob_the_value_and_what_is_expected(
    knob: str, value: object, expected: str,
) -> None:
    with pytest.raises(ValueError, match=f'^{knob}: expected {expected}') as caught:
        policy(**{knob: value})
    assert isinstance(caught.value, BadValue)
    assert (caught.value.knob, f'{knob}: {caught.value.text}') == (knob, str(caught.value))
    assert repr(value).strip('[]').removeprefix("'a', ") in str(caught.value)


def test_the_longest_restart_delay_is_not_below_the_first() -> None:
    with pytest.raises(BadValue, match=r'^restart_max_delay: expected at least the restart delay \(1min\), not 20s$'):
        policy(restart_delay=60, restart_max_delay=20)


def test_a_first_restart_delay_over_the_longest_by_default_is_the_longest() -> None:
    assert policy(restart_delay=60).restart_max_delay == 60


def test_the_memory_mark_is_not_above_the_memory_limit() -> None:
    with pytest.raises(BadValue, match=r'^worker_memory_high: expected at most the maximum .*usage \(1M\), not 2M$'):
        policy(worker_memory_high='2M', max_worker_memory_usage='1M')
    assert policy(worker_memory_high='1M', max_worker_memory_usage='1M').worker_memory_high == 1024**2
    assert policy(worker_memory_high='2M').max_worker_memory_usage is None


def test_the_quorum_of_the_watchdog_is_not_above_the_number_of_workers() -> None:
    with pytest.raises(BadValue, match=r'^watchdog_quorum: expected at most the number of workers \(3\), not 4$'):
        policy(concurrent_workers=3, watchdog_quorum=4)
    assert policy(concurrent_workers=3, watchdog_quorum=3).watchdog_quorum == 3


def test_a_memory_limit_for_the_whole_pool_is_not_for_the_backend_that_looks_at_rss() -> None:
    with pytest.raises(BadValue, match=r'^pool_memory_max: expected a memory backend of auto or cgroup, not rss'):
        policy(pool_memory_max='1G', memory_backend='rss')
    assert policy(pool_memory_max='1G', memory_backend='cgroup').pool_memory_max == 1024**3


@pytest.mark.parametrize('limit', ['4096:1024', 'infinity:1024'])
def test_a_soft_limit_is_not_above_the_hard_one(limit: str) -> None:
    with pytest.raises(BadValue, match=f'^worker_limit_nofile: expected .* at most the hard one, not {limit}$'):
        policy(worker_limit_nofile=limit)


@pytest.mark.parametrize(('soft', 'hard', 'error'), [
    (True, 1, TypeError),
    ('1', 1, TypeError),
    (-1, 1, ValueError),
    (None, 1, ValueError),
])
def test_a_limit_is_two_whole_numbers_or_none_for_infinity(soft: Any, hard: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=r'^expected '):
        Limit(soft, hard)


@pytest.mark.parametrize('limit', [Limit(5, 5), Limit(5, 90), Limit(5, None), Limit(None, None)])
@pytest.mark.parametrize('knob', ['worker_limit_nofile', 'worker_limit_core', 'worker_limit_cpu'])
def test_a_limit_is_written_as_its_flag_takes_it(knob: str, limit: Limit) -> None:
    assert getattr(policy(**{knob: str(limit)}), knob) == limit


@pytest.mark.parametrize(('knob', 'value', 'shown'), [
    ('umask', 0o7, '007'),
    ('worker_cpu_max', 1.5, '150%'),
    ('worker_cpu_max', 0.29, '29%'),
    ('worker_swap_max', 0, '0'),
    ('user', None, 'inherit'),
])
def test_a_value_is_shown_as_its_flag_takes_it(knob: str, value: object, shown: str) -> None:
    assert KNOBS[knob].kind.show(value) == shown
    assert getattr(policy(**{knob: shown}), knob) == value


def test_a_knob_that_does_not_exist_is_a_type_error() -> None:
    with pytest.raises(TypeError, match='timeout_stopp'):
        policy(timeout_stopp=1)


def test_a_long_value_is_cut_in_the_error() -> None:
    with pytest.raises(ValueError, match='not ') as caught:
        policy(worker_class_name='-' * 1_000_000)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(('count', 'span', 'error'), [
    (True, 60.0, TypeError),
    ('5', 60.0, TypeError),
    (5, None, TypeError),
    (-1, 60.0, ValueError),
    (5, 0, ValueError),
    (5, math.nan, ValueError),
])
def test_a_budget_is_a_whole_number_of_restarts_within_a_time_span_above_0(
    count: Any, span: Any, error: type[Exception],
) -> None:
    with pytest.raises(error, match=r'^expected '):
        Budget(count, span)


def test_a_budget_is_written_as_its_flag_takes_it() -> None:
    assert policy(restart_budget=str(Budget(5, 90.0))).restart_budget == Budget(5, 90.0)


@pytest.mark.parametrize('name', KNOBS)
def test_every_default_is_shown_so_that_its_flag_takes_it(name: str) -> None:
    kind, default = KNOBS[name].kind, getattr(DEFAULTS, name)
    shown = kind.show(default)
    if default is False or default == ():
        assert shown in ('off', 'none')  # the flag of a switch or a list is just left away
    else:
        assert kind.accept(kind.read(shown)) == default


@pytest.mark.parametrize('name', KNOBS)
def test_every_knob_has_a_help_of_whole_sentences(name: str) -> None:
    help = KNOBS[name].help
    assert help[0].isupper()
    assert help.endswith('.')
    assert '  ' not in help


@pytest.mark.parametrize('preloads', [{'preload': True}, {'preload_modules': ['json']}])
def test_nothing_is_preloaded_for_a_fresh_interpreter(preloads: dict[str, Any]) -> None:
    with pytest.raises(BadValue, match='a fresh interpreter inherits nothing'):
        Policy(concurrent_workers=1, worker_module_name='m', worker_class_name='C', spawn='exec', **preloads)
