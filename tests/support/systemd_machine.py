"""systemd as process 1 of a machine that is not there: namespaces over this one's own files.

Guarantees: what runs in it sees this machine's programs, and writes into memory only; it has a network of its
own, with nothing but loopback; nothing of it is left when the context is left. The folder `SHARED` is the
same inside and outside. Needs root, systemd, and a kernel that lets us mount overlayfs and cgroup2: the test
is skipped where it does not.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.facade_process import Finished, run

INIT = "/lib/systemd/systemd"
SHARED = Path("/srv/shared")
_BOOT_SECONDS = 60.0
_STOP_SECONDS = 10.0
# In a mount namespace of its own: a cgroup for everything that follows, seen as the root of all cgroups.
_CONTAIN = """
set -e
mount --make-rprivate / && mount -t tmpfs -o mode=755 tmpfs "$1" && mkdir "$1/cgroups"
mount -t cgroup2 cgroup2 "$1/cgroups" && mkdir "$1/cgroups/$2" && echo $$ > "$1/cgroups/$2/cgroup.procs"
exec unshare --mount --pid --ipc --uts --net --cgroup --fork --kill-child sh -c "$3" sh "$1" "$4"
"""
# Process 1 until systemd is. Not chroot: who is in one may not make user namespaces (PrivateUsers=).
_BOOT = """
set -e
root=$1/root && mkdir "$1/upper" "$1/work" "$root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$root"
mount -t proc proc "$root/proc" && mount -t sysfs sysfs "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
for at in run tmp dev; do mount -t tmpfs -o mode=755 tmpfs "$root/$at"; done
chmod 1777 "$root/tmp"
for node in null zero full random urandom tty; do cp -a "/dev/$node" "$root/dev/"; done
mkdir "$root/dev/pts" "$root/dev/shm" "$root/dev/mqueue" "$root/before"
mount -t devpts -o newinstance devpts "$root/dev/pts" && ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
mkdir -p "$root/srv/shared" && mount --bind "$2" "$root/srv/shared"
: > "$root/etc/machine-id"
cd "$root" && pivot_root . before && umount -l /before
exec env -i container=other PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --system --unit=basic.target
"""
_UNCONTAIN = """
mount -t tmpfs tmpfs "$1" && mkdir "$1/cgroups" && mount -t cgroup2 cgroup2 "$1/cgroups"
find "$1/cgroups/$2" -depth -type d -exec rmdir {} +
"""


@dataclass(frozen=True, slots=True)
class SystemdMachine:
    """The running machine.

    Arguments:
        pid: of its process 1, here.
        shared: `SHARED`, here.
    """

    pid: int
    shared: Path

    async def sh(self, script: str) -> Finished:
        """Run a shell script in it, as root: its exit code and what it printed."""
        inside = ("nsenter", "-t", str(self.pid), "-m", "-p", "-i", "-u", "-n", "-C", "-r", "-w")
        path = "PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        return await run(*inside, "env", "-i", path, "HOME=/root", "sh", "-c", script, timeout=120)

    async def must(self, script: str) -> str:
        """Run it, and give what it printed; it has to succeed."""
        done = await self.sh(script)
        assert done.code == 0, f"{script}\n{done.stdout}{done.stderr}"
        return done.stdout.strip()


@asynccontextmanager
async def systemd_machine(folder: Path) -> AsyncIterator[SystemdMachine]:
    """It, booted. Everything is done below `folder`."""
    if os.geteuid() != 0 or not os.access(INIT, os.X_OK):
        pytest.skip("a machine of its own needs root and systemd")
    place, shared = folder / "machine", folder / "shared"
    place.mkdir()
    shared.mkdir()
    group = f"facade-test-{os.getpid()}"
    with (folder / "boot.log").open("w+b") as log:
        process = await asyncio.create_subprocess_exec(
            *("unshare", "--mount", "sh", "-c", _CONTAIN, "sh", place, group, _BOOT, shared),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        try:
            pid = await _booted(process, shared)
            if pid is None:
                log.seek(0)
                pytest.skip(f"this kernel does not let us: {log.read().decode()[-300:]}")
            yield SystemdMachine(pid, shared)
        finally:
            if process.returncode is None:
                process.kill()  # and with it process 1, and so everything in it
            await asyncio.wait_for(process.wait(), _STOP_SECONDS)
            await asyncio.sleep(0.5)
            await run("unshare", "--mount", "sh", "-c", _UNCONTAIN, "sh", place, group)


async def _booted(process: asyncio.subprocess.Process, shared: Path) -> int | None:
    """The process 1 of it, when it has booted; None = it could not be made."""
    async with asyncio.timeout(_BOOT_SECONDS):
        while process.returncode is None:
            first = _first(process.pid)
            if first is not None:
                # Before it listens, this fails; afterwards it waits.
                state = await SystemdMachine(first, shared).sh("systemctl is-system-running --wait")
                if state.stdout.strip() in ("running", "degraded"):
                    return first
            await asyncio.sleep(0.1)
    return None


def _first(outside: int) -> int | None:
    """The process 1 that `outside` has made, if that is systemd by now."""
    children = Path(f"/proc/{outside}/task/{outside}/children").read_text().split()
    if children and Path(f"/proc/{children[0]}/comm").read_text() == "systemd\n":
        return int(children[0])
    return None
