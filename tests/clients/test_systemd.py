"""The guide for systemd, and what its unit promises, under systemd itself (`support.systemd_machine`)."""

import os
import re
import shutil
import sys
import sysconfig
from pathlib import Path

import pytest

from facade.oci.digest import Digest
from tests.support.docker_registry import docker_registry
from tests.support.image import push, small_image
from tests.support.systemd_machine import SHARED, SystemdMachine, systemd_machine

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "deploy" / "guides" / "run-with-systemd.md"
REGISTRY = "127.0.0.1:5000"
REPOSITORY = "acme/kiosk"
SYSTEM_PYTHON = Path("/usr/bin/python3")

pytestmark = [pytest.mark.clients, pytest.mark.slow]


async def test_the_guide_and_the_unit_hold_under_systemd_itself(tmp_path: Path) -> None:
    async with systemd_machine(tmp_path) as machine:
        digest = await _begin_registry(machine, tmp_path)
        install, edited, start, _more, worker_user = _commands()
        await _install(machine, install)
        await _edit(machine, "names", edited.replace("facade.example", "localhost"))
        await _edit(
            machine,
            "registry",
            "[Service]\nEnvironment=FACADE_DEVICE__WORKERS=2\n"
            "Environment='FACADE_UPSTREAM__ALLOW_CIDRS=[\"127.0.0.0/8\"]'\n",
        )
        said = await machine.must(start)
        assert "readiness: it says ok" in said, said
        assert "failed " not in said, said
        documentation = await machine.must("systemctl show -p Documentation --value facade")
        await machine.must(f"test -s {documentation.removeprefix('file://')}")
        await _ship(machine)
        await _pull(machine, digest)

        # What the kernel says of the limits: no capability, no core file, filters of system calls in force.
        process = "/proc/$(systemctl show -p MainPID --value facade)"
        status = await machine.must(f"cat {process}/status {process}/limits")
        assert re.search(r"^Max core file size\s+0\s+0 ", status, re.MULTILINE)
        assert re.search(r"^CapBnd:\s+0+$", status, re.MULTILINE)
        assert re.search(r"^Seccomp:\s+2$", status, re.MULTILINE)
        assert await _users(machine) == {"facade"}
        await machine.must("systemctl reload facade")
        await _pull(machine, digest)

        # A control side that hangs. It is told at its start how often it has to say something.
        await machine.must("systemctl stop facade")
        await _edit(machine, "watchdog", "[Service]\nWatchdogSec=10\n")
        await machine.must("systemctl start facade")
        await machine.must("kill -STOP $(systemctl show -p MainPID --value facade)")
        await machine.must(
            'timeout 100 sh -c \'until journalctl -u facade | grep -q "result .watchdog" && '
            "systemctl is-active -q facade; do sleep 0.2; done'"
        )
        assert int(await machine.must("systemctl show -p NRestarts --value facade")) >= 1
        await _pull(machine, digest)
        await machine.must(
            "systemctl stop facade && rm /etc/systemd/system/facade.service.d/watchdog.conf"
        )

        # Serving processes as a user of their own, and back.
        await machine.must(f"cd {SHARED}/checkout\n{worker_user}")
        assert await _users(machine) == {"root", "facade-worker"}
        await _pull(machine, digest)
        await machine.must(
            "rm /etc/systemd/system/facade.service.d/worker-user.conf\n"
            "systemctl daemon-reload && systemctl restart facade"
        )
        assert await _users(machine) == {"facade"}
        await _pull(machine, digest)

        await machine.must("systemctl stop facade")
        assert await machine.must("systemctl show -p Result --value facade") == "success"


async def test_a_mistake_in_the_configuration_is_named_in_the_journal(tmp_path: Path) -> None:
    async with systemd_machine(tmp_path) as machine:
        await _install(machine, _commands()[0])
        await machine.must("mkdir -p /etc/facade")
        await machine.must("echo '[device]\nworkerz = 2' > /etc/facade/facade.toml")
        assert (await machine.sh("systemctl start facade")).code != 0
        await machine.must("systemctl stop facade")
        assert "workerz" in await machine.must("journalctl -u facade -o cat")


def _commands() -> list[str]:
    """The guide's blocks, in order."""
    return re.findall(r"^```\n(.*?)^```", GUIDE.read_text(), re.MULTILINE | re.DOTALL)


async def _install(machine: SystemdMachine, commands: str) -> None:
    """As the guide says, but for pip, which would need a network: what it would install is what we run from."""
    ours = f"{sys.version_info.major}.{sys.version_info.minor}"
    version = await machine.sh(
        f"{SYSTEM_PYTHON} -c 'import sys; print(*sys.version_info[:2], sep=\".\")'"
    )
    if version.stdout.strip() != ours:
        pytest.skip(f"the system's Python is not {ours}: what we run from does not run on it")
    checkout = machine.shared / "checkout"
    shutil.copytree(ROOT / "deploy", checkout / "deploy")
    packages = checkout / "packages"
    shutil.copytree(sysconfig.get_path("purelib"), packages, copy_function=_link)
    shutil.copytree(ROOT / "facade", packages / "facade", copy_function=_link)
    (checkout / "facade").write_text(
        "#!/opt/facade/bin/python3\nfrom facade.cli.entry import run\nraise SystemExit(run())\n"
    )
    lines = [line for line in commands.splitlines() if "pip install" not in line]
    assert lines.pop(0) == "python3 -m venv /opt/facade"
    await machine.must(
        f"set -e; cd {SHARED}/checkout; {SYSTEM_PYTHON} -m venv --without-pip /opt/facade\n"
        f"mount --bind packages /opt/facade/lib/python{ours}/site-packages\n"
        "install -m 755 facade /opt/facade/bin/facade\n" + "\n".join(lines)
    )


def _link(source: str, target: str) -> None:
    """No copy where none is needed: it is hundreds of MiB."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


async def _edit(machine: SystemdMachine, name: str, text: str) -> None:
    """What `systemctl edit` would leave."""
    (machine.shared / name).write_text(text)
    folder = "/etc/systemd/system/facade.service.d"
    await machine.must(
        f"install -D -m 644 {SHARED}/{name} {folder}/{name}.conf && systemctl daemon-reload"
    )


async def _begin_registry(machine: SystemdMachine, folder: Path) -> Digest:
    """An upstream in the machine, with an image in it."""
    image = small_image("v1")
    async with docker_registry(folder / "upstream") as registry:
        await push(registry.url, REPOSITORY, image, "v1")
    shutil.move(folder / "upstream" / "storage", machine.shared / "storage")
    (machine.shared / "registry.yml").write_text(
        f"version: 0.1\nhttp: {{addr: '{REGISTRY}'}}\n"
        f"storage: {{filesystem: {{rootdirectory: '{SHARED}/storage'}}}}\n"
    )
    await machine.must(
        f"systemd-run -q --unit=upstream docker-registry serve {SHARED}/registry.yml"
    )
    return image.index


async def _ship(machine: SystemdMachine) -> None:
    await machine.must(
        "set -e; export FACADE_STATE=/var/lib/facade\n"
        f"facade registry add {REGISTRY} --anonymous --insecure\n"
        f"facade artifact import {REGISTRY}/{REPOSITORY}:v1 --fleet dev\n"
        "facade device issue dev/kiosk-1 --out /root/kiosk-1"
    )


async def _pull(machine: SystemdMachine, digest: Digest) -> None:
    place = f"localhost:8443/{REGISTRY.replace(':', '__')}/{REPOSITORY}"
    await machine.must(
        "rm -rf /root/pulled && skopeo copy -q --src-cert-dir /root/kiosk-1"
        f" docker://{place}@{digest} dir:/root/pulled"
    )


async def _users(machine: SystemdMachine) -> set[str]:
    """Whose the processes of the service are."""
    return set(
        (
            await machine.must("ps -eo user:14,args | grep '[/]opt/facade/bin' | cut -d' ' -f1")
        ).split()
    )
