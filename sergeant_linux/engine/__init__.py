"""The supervisor's process: the loop and its parts, which carry out what the core decides.

Three walks through the house, a room at each arrow:

The end of a worker. kernel: its pidfd is readable -> engine: `Runner._on_exit` takes its last words (wire) and its
evidence (containment), and reaps it -> core: `Exited` becomes orders, then reports -> engine: `Spawn` and
`EndStragglers` are obeyed -> containment: `cradle` for the next life, `end` for this one -> forkserver: the request is
with it -> log: the record. Some milliseconds later, containment: `elapse`, nothing is left -> engine -> core.

A memory limit. Where the kernel holds it, it is the end of a worker, and the leaf's counters are its evidence. Else,
engine: a look is due, and reads (kernel, or what the meter has told: helpers) -> core: `MemoryExceeded` becomes `Kill`
-> engine: the signal is sent. The rest is the end of a worker.

A reload. control: the request -> core: `StartGeneration` -> engine: `Generations` starts a fork server -> forkserver:
it has loaded the code -> engine -> core: `GenerationServes`, the canary -> from here on it is births, each `Ready` one
arrow to the core, and ends of workers -> control: the answer.
"""
