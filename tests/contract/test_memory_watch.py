"""What the loop relies on in a watch, shown on the real meter."""

import os
import select
import subprocess

from sergeant_linux.core.policy import Policy
from sergeant_linux.memory import MeterWatch

DEADLINE = 15_000
"""Milliseconds a measure may take to come."""


def test_a_life_that_could_not_be_measured_is_measured_again() -> None:
    # given a meter that is asked about a process that is gone
    policy = Policy(
        concurrent_workers=1,
        worker_module_name='m',
        worker_class_name='C',
        memory_measure='pss',
        max_worker_memory_usage=1 << 30,
    )
    gone = subprocess.Popen(['true'])
    gone.wait()
    watch = MeterWatch(policy, os.environ)
    watch.start()
    try:
        watch.watch(1, gone.pid, None, 0.0)
        assert watch.look(0.0) == []
        assert watch.next_look() is None, 'it waits for the answer'

        # when the answer is that there is nothing to be measured
        assert watch.socket is not None
        poll = select.poll()
        poll.register(watch.socket, select.POLLIN)
        assert poll.poll(DEADLINE)
        assert watch.hear(1.0) == []

        # then it is asked again
        assert watch.next_look() == 1.0 + policy.memory_poll_interval
    finally:
        watch.close()
