"""How likely the OOM killer is to choose a process, by real processes."""

import pytest

from sergeant_linux.kernel import oom_score, procfs
from tests.kernel.processes import in_child

CAP_SYS_RESOURCE = 1 << 24


def test_a_process_can_raise_its_adjustment_and_go_back_to_where_it_was() -> None:
    def raise_and_go_back() -> list[int]:
        before = oom_score.adjustment()
        oom_score.adjust(before + 7)
        raised = oom_score.adjustment()
        oom_score.adjust(before)
        return [raised - before, oom_score.adjustment() - before]

    assert in_child(raise_and_go_back) == [7, 0]


@pytest.mark.skipif(bool(procfs.permitted_capabilities() & CAP_SYS_RESOURCE), reason='this process may go lower')
def test_a_process_without_cap_sys_resource_cannot_go_below_where_it_was() -> None:
    def go_lower() -> str:
        before = oom_score.adjustment()
        try:
            oom_score.adjust(before - 1)
        except PermissionError:
            return f'refused, {oom_score.adjustment() - before} lower'
        return 'lower'

    assert in_child(go_lower) == 'refused, 0 lower'
