"""What runs in the worker: load the class, READY, run, report, exit code. Imports little: every worker pays for it."""
