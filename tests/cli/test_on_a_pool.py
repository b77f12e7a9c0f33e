"""The verbs on a real pool: what they make of its answers, from its first screen to its end."""

import json
import time
from pathlib import Path

from tests.cli.stand_in import say
from tests.scenarios.pool import pool

WORKER = """
    import time

    class Worker:
        def run(self):
            while True:
                time.sleep(3600)
"""


def test_a_pool_is_looked_at_changed_and_stopped(tmp_path: Path) -> None:
    environ = {'XDG_RUNTIME_DIR': str(tmp_path), 'RUNTIME_DIRECTORY': ''}

    def told(verb: str, *argv: str) -> str:
        done = say(verb, '--name', name, *argv, **environ)
        assert (done.returncode, done.stderr) == (0, ''), verb
        return done.stdout

    name = f'verbs-{time.monotonic_ns()}'
    with pool(tmp_path, WORKER, concurrent_workers=2, environ=environ, name=name) as running:
        running.wait_for('worker-ready', count=2)

        assert name in say('ps', **environ).stdout
        rows = [line.split()[:3] for line in told('status').splitlines() if line.split()[:1] in (['0'], ['1'])]
        first = running.find('worker-ready')
        assert rows == [[str(r['slot']), 'running', str(r['pid'])] for r in sorted(first, key=lambda r: r['slot'])]
        assert told('health') == 'ready\n'

        assert told('scale', '+1') == '2 -> 3 workers\n'
        running.wait_for('worker-ready', count=3)
        assert told('restart', '0').endswith('slots restarted: 0\n')
        running.wait_for('worker-ready', count=4)
        assert told('reload').endswith('generation 2 runs, 3 workers replaced\n')

        assert 'time.sleep' not in told('dump', '1') and 'worker.py' in told('dump', '1')
        assert told('set', 'timeout-stop', '30s') == 'timeout-stop: 8s -> 30s\n'
        assert told('get', 'timeout-stop') == '30s\n'
        pid = json.loads(told('status', '--json'))['slots'][2]['pid']
        assert told('kill', '2') == f'slot 2: sent SIGKILL to pid {pid}\n'
        running.wait_for('worker-exit', pid=pid)
        assert f'worker({pid})' in told('events', '-n', '20')

        assert told('stop').endswith('the pool has stopped, exit status 0\n')
        assert running.exit_status() == 0
        done = say('status', '--name', name, **environ)
        assert (done.returncode, done.stderr) == (
            4, f'sergeant-linux status: error: no pool named {name} is running here\n'
        )
