"""The supervisor's process: the loop and its parts, which carry out what the core decides."""
