"""The doctor on a kernel whose cgroups have it all: it sees memory bounded by the kernel, and the limits around it."""

from sergeant_linux.kernel import cgroup
from sergeant_linux.kernel.cgroup import Cgroup as KernelsCgroup
from tests.cli.asking import ask, inside
from tests.lab.conftest import Cgroup


def kernels(leaf: Cgroup) -> KernelsCgroup:
    here = cgroup.own()
    assert here is not None
    return KernelsCgroup(str(leaf.path), here.top)


def test_with_the_memory_controller_a_run_bounds_memory_by_the_kernel(ground: Cgroup) -> None:
    told = ask('--memory-backend=cgroup', '--max-worker-memory-usage=64M', '--worker-pids-max=100')
    assert (told.status, told.failures()) == (0, [])
    assert (told.data['memory'], told.data['containment']) == ('cgroup', 'cgroup')
    assert [told[name]['verdict'] for name in ('cgroup v2', 'delegation', 'controllers', 'cgroup.kill')] == ['ok'] * 4
    assert 'memory' in told['controllers']['detail'].split(', ')
    assert told['backend']['detail'].startswith('memory is bounded by the kernel')


def test_the_limits_of_the_own_cgroup_are_seen(leaf: Cgroup) -> None:
    options = '--concurrent-workers=4', '--max-worker-memory-usage=64M', f'--cgroup-root={leaf.path}'
    calm = ask(*options, start=inside(kernels(leaf)))
    assert [calm[name]['verdict'] for name in ('oom.group', 'memory', 'processes')] == ['ok'] * 3

    leaf.write('memory.max', str(200 << 20))
    leaf.write('memory.oom.group', '1')
    leaf.write('pids.max', '9')
    told = ask(*options, start=inside(kernels(leaf)))
    assert (told.status, told.failures()) == (4, ['processes'])
    assert (told['memory']['verdict'], told['oom.group']['verdict']) == ('warn', 'warn')
    assert f'256M is more than 200M (memory.max of {leaf.path})' in told['memory']['detail']
    assert f'1 in {leaf.path}' in told['oom.group']['detail']
    assert f'(pids.max of {leaf.path})' in told['processes']['detail']


def test_what_would_mend_an_oom_group_mends_it(leaf: Cgroup) -> None:
    leaf.write('memory.oom.group', '1')
    start = inside(kernels(leaf))
    remedy = ask(f'--cgroup-root={leaf.path}', start=start)['oom.group']['remedy']
    if remedy.startswith('echo'):
        start = ['sh', '-ec', f'{remedy}; exec "$@"', 'sh', *start]
    else:
        leaf.write('memory.oom.group', '0')
    assert ask(f'--cgroup-root={leaf.path}', start=start)['oom.group']['verdict'] == 'ok'
