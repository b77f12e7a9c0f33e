"""A sergeant worker that hashes files, and the producer of its tasks.

    python3 hash_worker.py /usr/lib/python3    # enqueues a task for every Python file below it
    python3 -m sergeant_linux.supervisor --worker-module=hash_worker --worker-class=Worker --concurrent-workers=4
    sha256sum --check results/*                # afterwards

All of it happens in the current folder: tasks.sqlite3 is sergeant's embedded broker, `local`, and each worker process
writes a file of its own in results/. Nothing in here knows of sergeant_linux: any sergeant worker runs unchanged.
"""

import argparse
import hashlib
import logging
import os
import time
from pathlib import Path

import sergeant


class Worker(sergeant.worker.Worker):
    def generate_config(self) -> sergeant.config.WorkerConfig:
        return sergeant.config.WorkerConfig(
            name='hash_worker',
            connector=sergeant.config.Connector(type='local', params={'file_path': 'tasks.sqlite3'}),
            logging=sergeant.config.Logging(level=logging.INFO, log_to_stdout=True),
        )

    def initialize(self) -> None:
        os.makedirs('results', exist_ok=True)
        self.results = open(f'results/{os.getpid()}.sha256', 'a', buffering=1)  # a line is written when it is complete

    def work(self, task: sergeant.objects.Task) -> None:
        if task.kwargs.get('hog'):
            self.hog()
        else:
            path = task.kwargs['path']
            digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()
            self.results.write(f'{digest}  {path}\n')

    def hog(self) -> None:
        """Take memory until somebody ends this process; it stops by itself, for the machine's sake, at 1 GiB."""
        self.logger.warning('this task takes all the memory that it can get')
        taken: list[bytes] = []
        while len(taken) < 128:
            taken.append(b'\xff' * (8 << 20))
            time.sleep(0.01)
        raise MemoryError('took 1 GiB, and nobody has stopped it')

    def finalize(self) -> None:
        self.results.close()


def python_files(folder: Path) -> list[str]:
    """Return the path of every Python file below the folder, but for what was installed later."""
    return [
        str(path) for path in sorted(folder.rglob('*.py')) if path.is_file() and 'site-packages' not in path.parts
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description='Enqueue a task for every Python file below the folder.')
    parser.add_argument('folder', type=Path)
    parser.add_argument('--hog', action='store_true', help='put a task that eats memory in the middle')
    arguments = parser.parse_args()

    tasks: list[dict[str, object]] = [{'path': path} for path in python_files(arguments.folder)]
    if arguments.hog:
        tasks.insert(len(tasks) // 2, {'hog': True})

    producer = Worker()
    producer.init_broker()
    producer.push_tasks(kwargs_list=tasks)
    print(f'{len(tasks):,} tasks enqueued')


if __name__ == '__main__':
    main()
