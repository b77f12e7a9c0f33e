"""What can be said to `sergeant-linux`, one module a verb.

Facts: `run` needs nearly all of the package, `status` a socket; a probe or a script starts a process each time.
Decision: a verb is a module that has `HELP`, what is told below its options; `add_arguments(parser)`; and `run(args)`,
which returns the exit status. `cli` imports the one that is asked for, and each imports only what it needs.

Invariant: the verbs that speak to a pool import neither the core nor logging, dataclasses, subprocess or psutil.
"""
