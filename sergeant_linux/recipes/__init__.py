"""What is printed for others to run: a systemd unit, container files."""
