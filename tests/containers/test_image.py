"""Containers of the image that the printed Dockerfile makes, run by hand and by the printed manifest of Kubernetes."""

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.containers import pool_image
from tests.containers.pool_image import IMAGE, POOL, PORT, Crawl
from tests.systemd import lab
from tests.systemd.lab import run, wait_until
from tests.worker.queues import Queue, redis_server

pytestmark = pytest.mark.timeout(900)

AS_KUBERNETES = (
    '--read-only', '--tmpfs=/tmp', '--tmpfs=/run/sergeant-linux:mode=1777', '--cap-drop=all', '--security-opt=no-new-privileges',
)  # fmt: skip

Run = Callable[..., str]


@pytest.fixture(scope='module')
def image(tmp_path_factory: pytest.TempPathFactory) -> None:
    lab.require('podman', 'crun')
    pool_image.build(tmp_path_factory.mktemp('image'))


@pytest.fixture
def crawl(image: None, tmp_path: Path) -> Iterator[Crawl]:
    """The broker, and what is in it."""
    with redis_server(tmp_path, PORT), closing(Queue.on_redis(PORT)) as queue, closing(Crawl(queue)) as crawl:
        yield crawl


@pytest.fixture
def start(image: None) -> Iterator[Run]:
    """A function that runs a container of the image and returns its name; all are removed at the end."""
    with ExitStack() as stack:

        def start(*options: str, flags: tuple[str, ...] = ()) -> str:
            name = run('podman', 'run', '--detach', '--network=host', *options, IMAGE, *flags).strip()
            stack.callback(run, 'podman', 'rm', '--force', '--time=0', '--ignore', name)
            return name

        yield start


def inspect(container: str, format: str) -> str:
    return run('podman', 'inspect', f'--format={format}', container).strip()


def record(container: str, event: str) -> dict[str, Any]:
    """Return the record of an event, once it is there."""

    def look() -> dict[str, Any] | None:
        done = subprocess.run(['podman', 'logs', container], capture_output=True, text=True, check=True)
        records = [json.loads(line) for line in done.stderr.splitlines() if line.startswith('{')]
        return next((each for each in records if each.get('event') == event), None)

    return wait_until(look, f'a record of {event}', lambda: run('podman', 'logs', container))


def assert_nothing_is_lost(crawl: Crawl, pushed: int) -> None:
    assert sorted([*crawl.tasks('done'), *crawl.queue.take_all()]) == list(range(pushed))


def test_the_pool_is_process_1_without_rights_and_a_stop_loses_no_task(crawl: Crawl, start: Run) -> None:
    crawl.queue.push(*range(6))
    pool = start(*AS_KUBERNETES)

    finishes, _ = crawl.wait_for('begun', 2)

    assert run('podman', 'exec', pool, 'cat', '/proc/1/cmdline').split('\0')[1:3] == ['/opt/pool/bin/sergeant-linux', 'run']
    assert run('podman', 'exec', pool, 'id', '-u').strip() not in ('0', '')
    assert run('podman', 'exec', pool, 'sh', '-c', 'command -v gcc cc || echo none') == 'none\n'
    run('podman', 'healthcheck', 'run', pool)
    status = json.loads(run('podman', 'exec', pool, 'sergeant-linux', 'status', '--json'))
    assert [slot['state'] for slot in status['slots']] == ['running', 'running']
    assert status['backend']['why_not'].endswith('--security-opt unmask=/sys/fs/cgroup), and run as root in it')
    crawl.permit(finishes)
    crawl.wait_for('begun', 3)

    run('podman', 'stop', pool)  # in its ten seconds, or by SIGKILL, which would be 137

    assert inspect(pool, '{{.State.ExitCode}}') == '0'
    assert crawl.tasks('done') == [finishes]
    assert_nothing_is_lost(crawl, 6)


def test_auto_is_the_share_of_what_the_container_has(crawl: Crawl, start: Run) -> None:
    flags = ('--worker-module=crawl_worker', '--worker-class=Worker', '--concurrent-workers=2', '--log-format=json')
    pool = start(
        '--user=0:0', '--memory=256m', '--cgroup-conf=memory.oom.group=1', '--security-opt=unmask=/sys/fs/cgroup',
        flags=(*flags, '--max-worker-memory-usage=auto', '--memory-backend=cgroup'),
    )  # fmt: skip

    told = record(pool, 'auto')

    assert told['max_worker_memory_usage'] == (256 - 64) // 2 << 20
    assert record(pool, 'oom-group')['remedy'] == 'echo 0 > /sys/fs/cgroup/memory.oom.group'
    record(pool, 'worker-spawn')
    limits = run('podman', 'exec', pool, 'sh', '-c', 'cat /sys/fs/cgroup/*/*/memory.max /sys/fs/cgroup/*/memory.max')
    assert str((256 - 64) // 2 << 20) in limits.split()
    run('podman', 'stop', pool)
    assert inspect(pool, '{{.State.ExitCode}}') == '0'


def test_a_limit_above_that_of_the_container_is_warned_about(image: None, start: Run) -> None:
    pool = start('--memory=200m', flags=(*POOL, '--log-format=json', '--max-worker-memory-usage=300M'))

    # (200 - 64) / 2 - 2
    assert record(pool, 'limit-too-high')['remedy'].startswith('--max-worker-memory-usage=6')


def test_the_exit_status_of_the_container_is_that_of_the_pool(image: None) -> None:
    done = subprocess.run(
        ['podman', 'run', '--rm', '--network=none', IMAGE, *POOL, '--concurrent-workers=many'], capture_output=True, text=True
    )

    assert (done.returncode, done.stdout, done.stderr.count('\n')) == (2, '', 1)
    assert '--concurrent-workers: expected' in done.stderr


def test_the_manifest_of_kubernetes_is_played(crawl: Crawl, tmp_path: Path) -> None:
    manifest, _ = yaml.safe_load_all(run('sergeant-linux', 'deploy', 'kubernetes', f'--image={IMAGE}', *POOL))
    (tmp_path / 'pod.yaml').write_text(yaml.safe_dump(manifest))
    crawl.queue.push(*range(6))
    try:
        run('podman', 'kube', 'play', '--network=host', str(tmp_path / 'pod.yaml'))
        finishes, _ = crawl.wait_for('begun', 2)
        [pool] = [each for each in run('podman', 'ps', '--format={{.Names}}').split() if each.endswith('-pool')]
        [container] = manifest['spec']['template']['spec']['containers']
        for probe in ('readinessProbe', 'livenessProbe'):
            run('podman', 'exec', pool, *container[probe]['exec']['command'])
        assert run('podman', 'exec', pool, 'id', '-u').strip() == '10001'
        crawl.permit(finishes)
        crawl.wait_for('begun', 3)

        grace = manifest['spec']['template']['spec']['terminationGracePeriodSeconds']
        run('podman', 'stop', f'--time={grace}', pool)

        assert inspect(pool, '{{.State.ExitCode}}') == '0'
        assert_nothing_is_lost(crawl, 6)
    finally:
        run('podman', 'kube', 'down', str(tmp_path / 'pod.yaml'), check=False)


@pytest.fixture
def composed(image: None, tmp_path: Path) -> Iterator[Path]:
    """A folder with the compose file of the pool, and what people add to it; what was started of it is gone at the end.

    What it names `redis:7` is made here: the server of the lab, told to be as open as the image of that name is.
    """
    context = tmp_path / 'redis'
    (context / 'lib').mkdir(parents=True)
    programs = ['/usr/bin/redis-server', '/usr/bin/redis-cli']
    libraries = {word for line in run('ldd', *programs).splitlines() for word in line.split() if word.startswith('/') and '.so' in word}
    for file in programs:
        shutil.copy(file, context)
    for file in libraries:
        shutil.copy(file, context / 'lib')
    (context / 'entrypoint').write_text('#!/bin/sh\nexec "$@" --protected-mode no\n')
    (context / 'Dockerfile').write_text(
        'FROM lab-base\nCOPY redis-* /usr/bin/\nCOPY lib /usr/lib/x86_64-linux-gnu/\nCOPY entrypoint /\n'
        'WORKDIR /data\nENTRYPOINT ["sh", "/entrypoint"]\n'
    )
    run('podman', 'build', '--quiet', '--pull=never', '--tag=redis:7', str(context))
    folder = tmp_path / 'crawl'
    folder.mkdir()
    (folder / 'compose.yaml').write_text(run('sergeant-linux', 'deploy', 'compose', f'--image={IMAGE}', *POOL))
    (folder / 'compose.override.yaml').write_text('services: {pool: {environment: {REDIS: "redis:6379"}}}\n')
    try:
        yield folder
    finally:
        run('podman-compose', 'down', cwd=folder, check=False)


def test_the_compose_file_brings_redis_and_a_pool_that_finds_it(composed: Path) -> None:
    run('podman-compose', 'up', '--detach', '--no-build', cwd=composed)
    address = inspect('crawl_redis_1', '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}')
    with closing(Queue.on_redis(6379, address)) as queue, closing(Crawl(queue, address, 6379)) as crawl:
        queue.push(*range(4))
        finishes, _ = crawl.wait_for('begun', 2)
        run('podman', 'healthcheck', 'run', 'crawl_redis_1')
        run('podman', 'healthcheck', 'run', 'crawl_pool_1')
        crawl.permit(finishes)
        crawl.wait_for('begun', 3)

        run('podman-compose', 'stop', 'pool', cwd=composed)

        assert inspect('crawl_pool_1', '{{.State.ExitCode}}') == '0'
        assert crawl.tasks('done') == [finishes]
        assert_nothing_is_lost(crawl, 4)
