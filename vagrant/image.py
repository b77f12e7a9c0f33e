#!/usr/bin/env python3
"""Build the disk of the lab that has systemd, once for each recipe, and print where it is.

Facts: a Debian with systemd and podman is 190 packages; to fetch, unpack and configure them takes the better part of a
minute. It needs no kernel of its own, but root, as its files are of several users. This machine's apt knows where its
Debian comes from. A container's image can't be pulled without a network, and to unpack one takes a minute under
User-Mode Linux.
Consequence: the disk is built once and kept, outside of the checkout, under a name that is made of this file and
what else it depends on; nobody writes to it afterwards, each lab writes to a file of its own above it (copy on write).
Decision: mmdebstrap makes the tree from the sources of this machine's apt, as they are. Meanwhile pip fetches what the
tests import, for the Python of that tree. The container's image is made of the same tree, by the podman in it, under
this machine's kernel; where that one lays no overlay (in a container), the disk is booted once for it.
Price: 0.9 GiB of disk, and a Debian that becomes old: `--fresh` builds it anew. Of this project nothing is in it but
the first steps of its Dockerfile: the checkout is mounted when the lab boots.

In the disk:
  /opt/lab           the Python environment: `/opt/lab/bin/python -m pytest`
  /srv/wheels        the wheels that it was made of, setuptools, and python-prctl's where it could be compiled
  /srv/debs          what the image of a pool installs by apt, as a repository; /srv/build: how apt and pip find it
  lab-base           the container's image, in podman's store: Debian with Python and /opt/lab, no systemd, no podman;
                     beside it, as layers that podman knows again, what a pool's Dockerfile does before it copies
  crawler            a user without rights
"""

import argparse
import fcntl
import hashlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, NoReturn

HERE = Path(__file__).resolve().parent

PATH = os.environ.get('PATH', os.defpath) + ':/usr/sbin:/sbin'

PROGRAMS = {'unshare': 'util-linux', 'mmdebstrap': 'mmdebstrap', 'mke2fs': 'e2fsprogs', 'apt-get': 'apt'}
"""What the building runs, and the Debian package that has it."""

PACKAGES = [
    *('systemd', 'systemd-sysv', 'dbus', 'dbus-user-session', 'libpam-systemd', 'kmod', 'procps', 'iproute2'),
    *('python3', 'python3-venv', 'python3-prctl', 'redis-server'),
    *('podman', 'crun', 'conmon', 'catatonit', 'podman-compose', 'netavark', 'aardvark-dns', 'iptables', 'netbase'),
]

NOT_IN_CONTAINER = [
    *('systemd', 'systemd-sysv', 'libsystemd-shared', 'dbus', 'dbus-bin', 'dbus-daemon', 'kmod', 'iptables', 'netbase'),
    *('redis-server', 'redis-tools', 'podman', 'crun', 'conmon', 'netavark', 'catatonit', 'aardvark-dns', 'buildah'),
    *('podman-compose', 'python3-dotenv', 'python3-yaml'),
    *('golang-github-containers-common', 'golang-github-containers-image', 'perl', 'perl-modules-5.36', 'libperl5.36'),
    *('e2fsprogs', 'libgpgme11', 'gnupg', 'gpg', 'gpg-agent', 'gpgsm', 'gpgconf', 'dirmngr'),
]
"""Packages whose files the container's image goes without; a name that isn't there does no harm."""

NOT_IN_CONTAINER_EITHER = [
    './srv/wheels', './srv/debs', './srv/build', './usr/lib/x86_64-linux-gnu/gconv', './usr/share/perl',
]  # fmt: skip
"""Folders."""

NOT_UNPACKED = ['man', 'doc', 'info', 'locale', 'lintian']
"""Folders of /usr/share."""

WHEELS = [
    *('psutil>=5.9', 'sergeant==0.27.0', 'redis>=4.6', 'PyYAML>=6.0'),
    *('pytest>=8.2', 'pytest-timeout>=2.3', 'hypothesis>=6.100'),
]
"""As pyproject.toml has them; what only checks the source isn't needed in the lab."""

BUILD_WHEELS = ['setuptools>=77', 'wheel', 'async-timeout>=4.0.2']
"""For a wheel of this project to be built without a network; and what redis wants of the Python that a Debian has."""

DEBS = ['gcc', 'libc6-dev', 'libcap-dev', 'libcap2']
"""What the Dockerfile of a pool installs."""

PRCTL = 'python-prctl>=1.8.1'

MASKED = [
    # what a server does by the clock
    *('apt-daily.timer', 'apt-daily-upgrade.timer', 'dpkg-db-backup.timer', 'e2scrub_all.timer', 'fstrim.timer'),
    *('logrotate.timer', 'man-db.timer', 'podman-auto-update.timer'),
    # what nobody uses here; the tests start a redis-server of their own
    *('podman-auto-update.service', 'podman-restart.service', 'podman.socket', 'podman.service'),
    *('redis-server.service', 'netavark-dhcp-proxy.socket', 'e2scrub_reap.service', 'getty.target'),
    'systemd-firstboot.service',
    # what this kernel has no modules for
    *('modprobe@.service', 'kmod-static-nodes.service', 'systemd-binfmt.service', 'proc-sys-fs-binfmt_misc.automount'),
    *('sys-kernel-config.mount', 'sys-kernel-debug.mount', 'sys-kernel-tracing.mount'),
]
"""Units that take time at boot and do nothing for the lab."""

DISK = '3000M'
"""The size of the file system; the file is sparse."""

PIP_QUIETLY = ['-q', '--no-input']

PLENTY = 6 << 30
"""With so much memory at hand, in bytes, the tree is made in it; it is 0.6 GiB."""

OLD = 30 * 24 * 3600.0
"""Seconds after which a disk that nobody has used goes away when another one is built."""

LAB_INIT = """\
#!/bin/sh
# Process 1, until it finds the one that is in the checkout. $lab is on the kernel's command line.
set -eu
mount -t tmpfs -o mode=755 tmpfs /run
mkdir /run/lab
mount -t hostfs -o "$lab" hostfs /run/lab
exec /run/lab/init
"""

SERGEANT_LINUX = """\
#!/opt/lab/bin/python
import sys

from sergeant_linux.cli.main import main

sys.exit(main())
"""

BUILD_FILES = {
    'sources.list': 'deb [trusted=yes] file:/srv/debs ./\n',
    'apt.conf': 'Acquire::Languages "none";\nDPkg::Options { "--force-unsafe-io"; };\n',
    'pip.conf': (
        '[global]\nno-index = true\nfind-links = /srv/wheels\ndisable-pip-version-check = true\n'
        '[install]\nno-compile = true\n'
    ),
}
"""In /srv/build."""

IMAGE_OPTIONS = [
    *('--format=docker', '--network=host', '--pull=never', '--build-arg=BASE=lab-base'),
    *('--volume=/srv/debs:/srv/debs:ro', '--volume=/srv/wheels:/srv/wheels:ro'),
    '--volume=/srv/build/sources.list:/etc/apt/sources.list:ro',
    '--volume=/srv/build/apt.conf:/etc/apt/apt.conf.d/99build:ro',
    '--volume=/srv/build/pip.conf:/etc/pip.conf:ro',
]
"""How podman builds the image of a pool in the lab, whose packages are all in the disk."""

CUSTOMIZE = f"""\
#!/bin/sh
set -eu
cd "$1"
mkdir -p srv/debs srv/build
APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" apt-get install -qq --yes --no-install-recommends --download-only \\
	--reinstall -o Dir::Cache::Archives="$1/srv/debs/" {' '.join(DEBS)} > /dev/null
rm -rf srv/debs/partial srv/debs/lock
echo lab > etc/hostname
echo '127.0.0.1 localhost lab' > etc/hosts
: > etc/fstab
: > etc/machine-id
mkdir -p usr/lib/modules srv/wheels
for unit in {' '.join(MASKED)}; do
	ln -sf /dev/null "etc/systemd/system/$unit"
done
# podman takes CNI, whose plugins aren't there, where it sees a network of CNI's
rm -rf etc/cni/net.d
printf '[network]\\nnetwork_backend = "netavark"\\n' > etc/containers/containers.conf
# nf_tables of User-Mode Linux has no families
chroot . update-alternatives --quiet --set iptables /usr/sbin/iptables-legacy
chroot . update-alternatives --quiet --set ip6tables /usr/sbin/ip6tables-legacy
chroot . useradd --system --create-home --shell /bin/sh crawler
chroot . python3 -m venv --without-pip --system-site-packages /opt/lab
"""
"""What mmdebstrap does at the end, with the tree as the argument."""

IMPORT = (
    "podman import --quiet --change 'ENV LANG=C.UTF-8' "
    "--change 'ENV PATH=/opt/lab/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' - lab-base"
)
"""Makes the container's image of an archive on standard input."""

BUILD = f'podman build --quiet --isolation=chroot {shlex.join(IMAGE_OPTIONS)} - > /dev/null'
"""Makes layers of a Dockerfile on standard input."""

IN_TREE = """\
set -eu
mount --bind "$1" "$1"
cd "$1"
mount -t proc proc proc
mount -t tmpfs tmpfs run
mount -t tmpfs tmpfs dev/shm
mount -t tmpfs tmpfs sys
mkdir -p sys/fs/cgroup
exec chroot . sh -c "$2"
"""
"""What is done in a mount namespace of its own; podman looks at the kind of file system in /sys/fs/cgroup."""

DOCKERFILE = HERE.parent / 'sergeant_linux/recipes/deploy/Dockerfile'
"""What `sergeant-linux deploy` fills in."""

PRINT_DOCKERFILE = """\
import sys
from sergeant_linux.cli.main import main
sys.exit(main(['deploy', 'dockerfile', '--worker-module=m', '--worker-class=C', '--concurrent-workers=1']))
"""
"""Prints it filled in; for a Python that needn't have anything installed."""

IMPORT_IN_LAB = f"""\
set -eu
{IMPORT} < /srv/base.tar > /dev/null
rm /srv/base.tar
: > /etc/machine-id
"""


def fail(message: str) -> NoReturn:
    print(f'image: {message}', file=sys.stderr)
    sys.exit(125)


def cache() -> Path:
    return Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache') / 'sergeant-linux-lab'


def release() -> str:
    """Return the code name of this machine's Debian."""
    found = dict(line.split('=', 1) for line in Path('/etc/os-release').read_text().splitlines() if '=' in line)
    if found.get('ID') != 'debian':
        fail(f'the disk is made from the apt sources of a Debian, this machine is {found.get("ID")}')
    return found['VERSION_CODENAME'].strip('"')


def backports() -> list[str]:
    """Return which packages are taken from the backports of the Debian: systemd's, where LAB_BACKPORTS is set."""
    names = ['systemd*', 'libsystemd*', 'libpam-systemd', 'libnss-*', 'udev', 'libudev*']
    return names if os.environ.get('LAB_BACKPORTS') else []


def sources(codename: str) -> list[str]:
    """Return the lines of a sources.list(5): what this machine's apt has of its own Debian.

    apt knows what is Debian's only when it has read the lists, which a fresh machine has not.
    """
    found = known_sources(codename)
    if not found:
        subprocess.run(['apt-get', 'update', '-q'], check=True, stdout=subprocess.DEVNULL)
        found = known_sources(codename)
    if not found:
        fail(f"no source of this machine's apt is one of Debian {codename}: see sources.list(5)")
    uri = found[0].split()[1]
    return [*found, f'deb {uri} {codename}-backports main'] if backports() else found


def known_sources(codename: str) -> list[str]:
    fields = '$(ORIGIN)|$(CODENAME)|$(REPO_URI)|$(COMPONENT)'
    command = ['apt-get', 'indextargets', '--format', fields, 'Created-By: Packages']
    suites = {codename, f'{codename}-updates', f'{codename}-security'}
    found: dict[str, None] = {}
    for line in output(*command).splitlines():
        origin, suite, uri, component = line.split('|')
        if origin == 'Debian' and suite in suites and component == 'main':
            found[f'deb {uri} {suite} main'] = None
    return list(found)


def apt_options() -> list[str]:
    """Return how this machine's apt reaches its sources: proxies, certificates."""
    dump = output('apt-config', 'dump', '--no-empty', 'Acquire::http', 'Acquire::https')
    return [f'--aptopt={line}' for line in dump.splitlines() if line.startswith(('Acquire::http', 'Acquire::https'))]


def output(*command: str) -> str:
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def first_steps(text: str) -> list[str]:
    """Return a pool's Dockerfile, a stage each, as far as it doesn't depend on the pool, nor on this project."""
    head, *stages = re.split('^(?=FROM )', text, flags=re.MULTILINE)
    return [head + re.split('^(?=WORKDIR|COPY )', stage, flags=re.MULTILINE)[0] for stage in stages]


def described(deb: Path) -> str:
    """Return what a repository's index says of a package."""
    fields = output('dpkg-deb', '--field', str(deb)).rstrip('\n')
    digest = hashlib.sha256(deb.read_bytes()).hexdigest()
    return f'{fields}\nFilename: ./{deb.name}\nSize: {deb.stat().st_size}\nSHA256: {digest}\n\n'


def key() -> str:
    """Return a name for what goes into the disk."""
    steps = first_steps(DOCKERFILE.read_text())
    recipe = ''.join([Path(__file__).read_text(), release(), *backports(), *steps])
    return hashlib.sha256(recipe.encode()).hexdigest()[:16]


def path() -> Path:
    """Return where the disk is, or would be."""
    return cache() / f'{release()}-{key()}.ext4'


def pip() -> list[str]:
    """Return a command that is pip."""
    for python in (sys.executable, str(HERE.parent / '.venv/bin/python'), 'python3'):
        command = [python, '-m', 'pip']
        if shutil.which(python) and subprocess.run([*command, '--version'], capture_output=True).returncode == 0:
            return command
    fail('no Python here has pip: apt-get install python3-pip, or make lab-systemd')


def debian_python() -> str:
    """Return the version of Python that this machine's Debian has."""
    show = output('apt-cache', 'show', '--no-all-versions', 'python3')
    version = next(line.split()[1] for line in show.splitlines() if line.startswith('Version: '))
    return '.'.join(version.split('.')[:2])


class Build:
    """The steps; all but the disk itself is made in `place`."""

    def __init__(self, place: Path, disk: Path) -> None:
        self.place = place
        self.disk = disk
        self.root = place / 'root'
        self.wheels = place / 'wheels'
        self.python = debian_python()
        self.pip = pip()

    def start_wheels(self) -> 'subprocess.Popen[bytes]':
        """Begin to fetch wheels; compiled is only python-prctl, if our Python is of the same version."""
        fetch = [*PIP_QUIETLY, '-d', str(self.wheels), '--only-binary=:all:', '--python-version', self.python]
        script = shlex.join([*self.pip, 'download', *fetch, *WHEELS, *BUILD_WHEELS])
        version = output(self.pip[0], '-c', 'import sys; print("%d.%d" % sys.version_info[:2])')
        if version.strip() == self.python:
            build = shlex.join([*self.pip, 'wheel', *PIP_QUIETLY, '--no-deps', '-w', str(self.wheels), PRCTL])
            script += f' && {{ {build} || echo "image: without a wheel of {PRCTL}"; }}'
        with open(self.place / 'pip.log', 'wb') as log:
            return subprocess.Popen(['sh', '-c', script], stdout=log, stderr=subprocess.STDOUT, start_new_session=True)

    def make_tree(self) -> None:
        hook = self.place / 'customize'
        hook.write_text(CUSTOMIZE)
        hook.chmod(0o755)
        pins = self.place / 'pins'
        pin = f'Pin: release n={release()}-backports\nPin-Priority: 900\n'
        pins.write_text(f'Package: {" ".join(backports())}\n{pin}' if backports() else '')
        command = [
            'mmdebstrap', '--quiet', '--mode=root', '--variant=minbase', '--format=directory', *apt_options(),
            '--aptopt=Acquire::Languages "none"', '--aptopt=APT::Install-Recommends "false"',
            '--dpkgopt=force-unsafe-io', *(f'--dpkgopt=path-exclude=/usr/share/{name}/*' for name in NOT_UNPACKED),
            f'--include={",".join(PACKAGES)}', f'--customize-hook={hook}',
            f'--setup-hook=mkdir -p "$1/etc/apt/preferences.d" && cp {pins} "$1/etc/apt/preferences.d/"',
            release(), str(self.root), *sources(release()),
        ]  # fmt: skip
        subprocess.run(command, check=True)

    def add_files(self, fetching: 'subprocess.Popen[bytes]') -> None:
        for name, text in (('usr/local/sbin/lab-init', LAB_INIT), ('opt/lab/bin/sergeant-linux', SERGEANT_LINUX)):
            file = self.root / name
            file.write_text(text)
            file.chmod(0o755)
        if fetching.wait():
            fail(f"pip can't fetch the wheels:\n{(self.place / 'pip.log').read_text()}")
        target = self.root / f'opt/lab/lib/python{self.python}/site-packages'
        where = ['--no-index', '--find-links', str(self.wheels), '--target', str(target), '--only-binary=:all:']
        how = ['--root-user-action=ignore', '--python-version', self.python, '--no-compile']
        nowhere_else = {name: value for name, value in os.environ.items() if not name.startswith('PIP_')}
        subprocess.run(
            [*self.pip, 'install', *PIP_QUIETLY, *where, *how, *WHEELS], check=True,
            env={**nowhere_else, 'PIP_CONFIG_FILE': os.devnull},
        )  # fmt: skip
        subprocess.run(['chroot', str(self.root), 'python3', '-m', 'compileall', '-q', '/opt/lab/lib'], check=True)
        shutil.copytree(self.wheels, self.root / 'srv/wheels', dirs_exist_ok=True)
        debs = self.root / 'srv/debs'
        (debs / 'Packages').write_text(''.join(described(each) for each in sorted(debs.glob('*.deb'))))
        for name, text in BUILD_FILES.items():
            (self.root / 'srv/build' / name).write_text(text)

    def make_container(self) -> bool:
        """Put the container's image into podman's store; where podman can't work here, its archive into the tree."""
        without: set[str] = set()
        for package in NOT_IN_CONTAINER:
            for name in (package, f'{package}:amd64'):
                files = self.root / f'var/lib/dpkg/info/{name}.list'
                if files.exists():
                    without |= {line for line in files.read_text().splitlines() if not (self.root / line[1:]).is_dir()}
        listed, archive = self.place / 'without', self.place / 'base.tar'
        listed.write_text(''.join(f'.{name}\n' for name in [*sorted(without)]))
        command = ['tar', '-C', str(self.root), '-cf', str(archive), '--numeric-owner', '--no-wildcards', '--anchored']
        left_out = [f'--exclude-from={listed}', *(f'--exclude={folder}' for folder in NOT_IN_CONTAINER_EITHER)]
        subprocess.run([*command, *left_out, '.'], check=True)
        with open(archive) as file:
            attempt = self.in_tree(f'{IMPORT} > /dev/null', stdin=file)
        if attempt.returncode:
            why = attempt.stderr.strip()[-300:]
            print(f"image: podman can't work here, it will in the lab ({why})", file=sys.stderr)
            shutil.rmtree(self.root / 'var/lib/containers', ignore_errors=True)
            archive.rename(self.root / 'srv/base.tar')
        return attempt.returncode == 0

    def make_layers(self) -> None:
        """Do what the Dockerfile of a pool does before it copies anything; where that can't be done here, the lab does
        it, each time anew."""
        environ = {**os.environ, 'PYTHONPATH': str(HERE.parent)}
        text = subprocess.run(
            [sys.executable, '-c', PRINT_DOCKERFILE], env=environ, check=True, stdout=subprocess.PIPE, text=True
        ).stdout
        for stage in first_steps(text):
            with tempfile.TemporaryFile('w+') as file:
                file.write(stage)
                file.seek(0)
                attempt = self.in_tree(BUILD, stdin=file)
            if attempt.returncode:
                why = (attempt.stderr or attempt.stdout).strip()[-300:]
                print(f"image: podman can't build here, it will in the lab ({why})", file=sys.stderr)
                return

    def in_tree(self, script: str, stdin: IO[str]) -> 'subprocess.CompletedProcess[str]':
        command = ['unshare', '-m', 'sh', '-c', IN_TREE, 'sh', str(self.root), script]
        return subprocess.run(command, stdin=stdin, capture_output=True, text=True)

    def make_disk(self) -> None:
        command = ['mke2fs', '-q', '-t', 'ext4', '-d', str(self.root), '-F', str(self.disk), DISK]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

    def boot(self) -> None:
        """Let the podman of the lab make the container's image of the archive."""
        subprocess.run(
            [sys.executable, str(HERE / 'lab'), '--write-disk', str(self.disk), '--', 'sh', '-c', IMPORT_IN_LAB],
            check=True, cwd=HERE.parent,
        )  # fmt: skip


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Let one build at a time."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / 'lock', 'w') as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def check_machine() -> None:
    for program, package in PROGRAMS.items():
        if not shutil.which(program, path=PATH):
            fail(f'{program} is missing: apt-get install {package}')
    if os.geteuid():
        fail('to build the disk needs root, as its files are of several users: make lab-disk; the lab itself does not')


def step(started: float, what: str) -> None:
    print(f'image: {time.monotonic() - started:5.1f} s  {what}', file=sys.stderr, flush=True)


def available() -> int:
    """Return how much memory could be taken, in bytes."""
    lines = Path('/proc/meminfo').read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith('MemAvailable:'))


@contextmanager
def workshop(parent: Path) -> Iterator[Path]:
    """Give a folder to build in; the disks of virtual machines are slow, so it is in memory where there is plenty."""
    name = tempfile.mkdtemp(prefix='building-', dir=parent)
    in_memory = available() > PLENTY
    try:
        if in_memory:
            subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=2G', 'tmpfs', name], check=True)
        os.chmod(name, 0o755)  # apt's own user comes here
        yield Path(name)
    finally:
        if in_memory:
            subprocess.run(['umount', '--lazy', name], check=False)
        shutil.rmtree(name)


def build(target: Path) -> None:
    """Build the disk, in a mount namespace of our own; on any failure nothing is left."""
    os.environ['PATH'] = PATH
    part = target.with_suffix('.part')
    started = time.monotonic()
    step(started, f'building the disk of the lab, {target}')
    with workshop(target.parent) as place:
        work = Build(place, part)
        fetching = work.start_wheels()
        try:
            work.make_tree()
            step(started, 'the tree is made')
            work.add_files(fetching)
        finally:
            if fetching.poll() is None:
                os.killpg(fetching.pid, signal.SIGKILL)  # noqa: TID251 - not reaped yet
                fetching.wait()
        step(started, 'the wheels are in it')
        finished = work.make_container()
        step(started, 'the container is packed')
        if finished:
            work.make_layers()
            step(started, 'the layers are made')
        work.make_disk()
        if not finished:
            step(started, 'the disk is made; the first boot')
            work.boot()
    part.chmod(0o644)
    part.rename(target)
    step(started, 'done')


def prune(keep: Path) -> None:
    """Put away what nobody has used for long, and what a build that was killed has left."""
    for entry in keep.parent.iterdir():
        if entry.name.startswith('building-'):
            shutil.rmtree(entry, ignore_errors=True)
        old = entry.suffix == '.ext4' and entry != keep and time.time() - entry.stat().st_atime > OLD
        if old or entry.suffix == '.part':
            entry.unlink()


def build_apart(target: Path) -> None:
    """Have it built by a process whose mounts are its own: however it ends, they end with it."""
    command = ['unshare', '-m', sys.executable, __file__, '--build', str(target)]
    if subprocess.run(command, stdout=sys.stderr, env={**os.environ, 'PATH': PATH}).returncode:
        fail('the disk could not be built')


def ready(*, fresh: bool = False) -> Path:
    """Return where the disk is, after having it built if need be; mark it as used."""
    disk = path()
    if fresh or not disk.exists():
        with lock(disk.parent):
            if fresh or not disk.exists():
                check_machine()
                prune(disk)
                build_apart(disk)
    with suppress(PermissionError):  # root has built it
        os.utime(disk, (time.time(), disk.stat().st_mtime))
    return disk


def main() -> None:
    parser = argparse.ArgumentParser(prog='image.py', description='Build the disk of the lab, print where it is.')
    parser.add_argument('--fresh', action='store_true', help='build it also if there is one')
    parser.add_argument('--where', action='store_true', help='print where it is or would be, build nothing')
    parser.add_argument('--build', type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.build:
        try:
            return build(arguments.build)
        except subprocess.CalledProcessError as error:
            fail(f'{error.cmd[0]} has ended with status {error.returncode}')
    print(path() if arguments.where else ready(fresh=arguments.fresh))


if __name__ == '__main__':
    main()
