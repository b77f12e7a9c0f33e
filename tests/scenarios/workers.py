"""Real sergeant workers for the scenarios: they take their tasks from the queue that `CONNECTOR` names, and say what they do.

A scenario's own worker module imports one and adds what the scenario is about. Each line goes to the pool's stdout at
once.
"""

import json
import os
from typing import Any

from sergeant import config, objects, worker

from tests.worker.queues import NAME


def say(*words: object) -> None:
    """Print one line, whole and at once: other processes write beside us."""
    os.write(1, (' '.join(map(str, words)) + '\n').encode())


class Tasks(worker.Worker):
    """Says `begun ID` and `done ID` for each task. Without CONNECTOR: the local broker, a file for each life."""

    def generate_config(self) -> config.WorkerConfig:
        own: dict[str, Any] = {'type': 'local', 'params': {'file_path': f'queue.{os.environ["SERGEANT_WORKER_LIFE"]}.sqlite3'}}
        connector: dict[str, Any] = json.loads(os.environ['CONNECTOR']) if 'CONNECTOR' in os.environ else own
        return config.WorkerConfig(
            name=NAME,
            connector=config.Connector(type=connector['type'], params=connector['params']),
            max_tasks_per_run=int(os.environ.get('PER_RUN', '0')),
        )

    def work(self, task: objects.Task) -> Any:
        say('begun', task.kwargs['id'])
        self.do(task)
        say('done', task.kwargs['id'])

    def do(self, task: objects.Task) -> None:
        """What the task is about."""


class OneTask(Tasks):
    """Gives itself one task, so that a scenario can say in `do` how the life ends."""

    def initialize(self) -> None:
        self.push_task(kwargs={'id': os.environ['SERGEANT_WORKER_LIFE']})
