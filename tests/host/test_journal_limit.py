"""Whether the journal limits what the unit of a pool may log."""

from pathlib import Path

import pytest

from sergeant_linux.core.policy import Policy
from sergeant_linux.host.journal_limit import limited_unit

TO_JOURNAL = Policy(
    worker_module_name='crawl', worker_class_name='Worker', concurrent_workers=1, log_format='journal'
)  # fmt: skip


@pytest.mark.parametrize(('cgroup', 'unit'), [
    ('/system.slice/crawl.service', 'crawl.service'),
    ('/system.slice/crawl.service/supervisor', 'crawl.service'),
    ('/user.slice/user-7.slice/user@7.service/app.slice/crawl.service', 'user@7.service'),
    ('/', None),
])
def test_a_unit_without_a_limit_of_its_own_is_named(tmp_path: Path, cgroup: str, unit: str | None) -> None:
    assert limited_unit(TO_JOURNAL, cgroup, str(tmp_path)) == unit


def test_a_unit_with_a_limit_of_its_own_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / 'log-rate-limit-interval:crawl.service').symlink_to('1000')

    assert limited_unit(TO_JOURNAL, '/system.slice/crawl.service', str(tmp_path)) is None


def test_a_log_that_does_not_go_to_the_journal_has_no_limit(tmp_path: Path) -> None:
    elsewhere = Policy(worker_module_name='crawl', worker_class_name='Worker', concurrent_workers=1)

    assert limited_unit(elsewhere, '/system.slice/crawl.service', str(tmp_path)) is None


def test_without_systemd_there_is_no_limit(tmp_path: Path) -> None:
    assert limited_unit(TO_JOURNAL, '/system.slice/crawl.service', str(tmp_path / 'none')) is None
