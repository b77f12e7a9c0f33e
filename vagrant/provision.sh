#!/bin/bash
# Run as root in the virtual machine: install the package from the copied sources, run the tests that want a real kernel.
#
# Facts: a unit with Delegate=yes has a cgroup of its own to divide; --pipe and --wait give a transient unit our output,
# and us its exit status. So the tests run once as root and once as an ordinary user, each in a delegated unit.
set -euo pipefail

cd /home/vagrant/sergeant_linux
export DEBIAN_FRONTEND=noninteractive

apt-get update -q
apt-get install -q -y --no-install-recommends make python3
sudo -u vagrant make .venv/.test redis-server  # installs what else it needs by sudo

for user in root vagrant; do
	echo "The kernel tests as $user, $(uname -sr), $(systemctl --version | head -n 1):"
	systemd-run --quiet --collect --wait --pipe -p User=$user -p Delegate=yes -p WorkingDirectory="$PWD" \
		.venv/bin/python -m pytest -p no:cacheprovider tests/kernel tests/lab
done
