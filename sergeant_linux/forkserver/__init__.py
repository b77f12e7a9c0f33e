"""The process that forks workers, and the supervisor's client of it."""
