"""Decides what a pool of workers does: pure, without a clock, a file or a process. One door: `Pool.handle` (pool.py).

Seven machines, each in a file of its own:

    the seat          where one worker process is: DEAD, START, RUNNING, … (slot.py, THE table)
    what comes next   after the end of a life: at once, after a delay, rest, give up, stop the pool (slot.py)
    succession        a slot's incumbent and its successor: placed, ready, promoted, given up (succession.py)
    recycle token     who may be replaced now: with a successor, without one, or later (token.py)
    restart           the workers that were asked for anew, until all are replaced or one can't be (restart.py)
    reload            loading, canary, rolling, and how it has ended (reload.py says what, rollout.py how)
    stop              all seats asked to go, then nothing left of any life, then the end (pool.py, afterlife.py)

How they couple. An event moves one machine: a fact about a life moves its seat; a request moves the pool, the reload or
a restart, which move seats; time moves the seats and what is left of lives whose timers have run out. A seat that moves
says what it wants of the kernel (orders), what is to be told (reports), and, to the pool alone, that it waits for its
turn or that the pool has to stop. It never moves another machine. All else follows from the state, by rules that run
one at a time, from a queue, until none has anything to do (`Pool._converge`):

    a life has ended               -> the reload or a restart that it was the test of has failed
    a worker has asked for a stop  -> the pool stops
    a slot has changed             -> its succession goes on; it runs other code than it should: it asks for its turn;
                                      a restart need not wait for it any more
    nothing of that                -> the reload sends its canary, begins to roll, or is done; the others are started
                                      when the first worker is ready; who is next in turn is replaced

So a rule sees only states that no step is in the middle of, and their order is written down once.

What goes in is a value (events.py), what comes out is a value (commands.py), what is known can be written down as plain
values and taken up again (memoir.py), and all that went in can be written line by line and decided again (flight.py).
The tests walk through every state of a small pool; every step there is taken by a second pool, too, that was made of
what the first had written down.
"""
