"""What crosses the border of a process. Imports nothing of ours: each side of a border pays for it."""
