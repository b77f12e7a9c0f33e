"""Workers that are particular about what they are: they copy and pickle themselves, allow no strangers, look at
themselves.
"""

import concurrent.futures
import copy
import json
import multiprocessing
import os
import pickle
from collections.abc import Callable
from typing import Any

from sergeant import objects

from tests.worker.workers import Worker, journal


class Portable(Worker):
    """Can be pickled and copied, as a worker that leaves its broker behind can."""

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != 'broker'}

    def double(self, number: int) -> int:
        return 2 * number


class Spreading(Portable):
    """Has another process do its work."""

    def work(self, task: objects.Task) -> None:
        fork = multiprocessing.get_context('fork')
        with concurrent.futures.ProcessPoolExecutor(max_workers=1, mp_context=fork) as pool:
            journal(f'doubled {pool.submit(self.double, task.kwargs["id"]).result(timeout=10)}')


class Copying(Portable):
    """Works with copies of itself."""

    def work(self, task: objects.Task) -> None:
        for copied in (copy.deepcopy(self), copy.copy(self), pickle.loads(pickle.dumps(self))):
            journal(f'doubled {copied.double(task.kwargs["id"])}')


class Guarded(Worker):
    """Allows nobody to set what it doesn't know."""

    known = ('config', 'logger', 'executor_obj', 'received_stop_signal', 'broker')

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in self.known:
            raise AttributeError(f'no {name} here')
        super().__setattr__(name, value)


class Computed(Worker):
    """Its work() is a property."""

    @property
    def work(self) -> Callable[..., None]:
        return super().work


class Looking(Worker):
    """Says what it consists of, in each of its methods, and stops."""

    def initialize(self) -> None:
        self.look('initialize')

    def pre_work(self, task: objects.Task) -> None:
        self.look('pre_work')

    def work(self, task: objects.Task) -> None:
        self.look('work')

    def post_work(self, task: objects.Task, success: bool, exception: BaseException | None) -> None:
        self.look('post_work')

    def on_success(self, task: objects.Task, returned_value: Any) -> None:
        self.look('on_success')

    def finalize(self) -> None:
        self.look('finalize')

    def look(self, where: str) -> None:
        executor = self.executor_obj
        parts = {
            'worker': {name: type(value).__qualname__ for name, value in vars(self).items()},
            'executor': {name: type(value).__qualname__ for name, value in vars(executor).items()},
            'kinds': [f'{type(each).__module__}.{type(each).__qualname__}' for each in (self, executor)],
            'executor of': getattr(executor, 'worker_object', None) is self,
        }
        with open(os.environ['SEEN'], 'a') as seen:
            seen.write(f'{json.dumps({where: parts}, sort_keys=True)}\n')
