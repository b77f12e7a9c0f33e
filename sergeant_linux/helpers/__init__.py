"""The processes beside the loop. Each is spawned afresh, does one thing, and may die at any time."""
