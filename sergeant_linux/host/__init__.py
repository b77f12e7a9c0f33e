"""What this place gives: container, service manager, cgroups that are ours, limits, users."""


class CantRun(Exception):
    """The host can't do what is needed; the text names the thing, and what is missing."""
