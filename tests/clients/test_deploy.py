"""What is in deploy/ to run Facade elsewhere: the systemd unit, the container file, the compose file."""

import os
import re
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pwd import getpwnam

import pytest

from tests.support.crew import owner, workers_of
from tests.support.facade_process import run
from tests.support.live import live

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "deploy" / "systemd" / "facade.service"
WORKER_USER = UNIT.with_name("worker-user.conf")
CONTAINERFILE = ROOT / "deploy" / "container" / "Containerfile"
COMPOSE = ROOT / "deploy" / "compose" / "compose.yml"

pytestmark = [pytest.mark.clients, pytest.mark.slow]


async def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    # The only thing that cannot be there: the installed command.
    unit = tmp_path / "facade.service"
    text = UNIT.read_text()
    assert "ExecStart=/opt/facade/bin/facade up " in text
    # A core file of the control side would hold its keys.
    assert {"LimitCORE=0", "WatchdogSignal=SIGKILL"} <= set(text.splitlines())
    unit.write_text(text.replace("/opt/facade/bin/facade", sys.executable))
    verified = await run("systemd-analyze", "verify", unit)
    assert (verified.code, verified.stderr) == (0, "")
    # Exposure in tenths: 20 is 2.0 of 10.
    judged = await run("systemd-analyze", "security", "--offline=true", "--threshold=20", unit)
    assert judged.code == 0, judged.stdout
    (tmp_path / "facade.service.d").mkdir()
    shutil.copy(WORKER_USER, tmp_path / "facade.service.d" / WORKER_USER.name)
    verified = await run("systemd-analyze", "verify", unit)
    assert (verified.code, verified.stderr) == (0, "")
    judged = await run("systemd-analyze", "security", "--offline=true", "--threshold=30", unit)
    assert judged.code == 0, judged.stdout
    assert "runs as root user" in judged.stdout, "the drop-in was read"


async def test_workers_are_another_user_under_the_limits_of_the_drop_in() -> None:
    """With its capabilities alone, the unit's umask, and files that an earlier start has closed."""
    given = re.findall(r"^CapabilityBoundingSet=(.+)$", WORKER_USER.read_text(), re.MULTILINE)
    assert len(given) == 1
    capabilities = given[0].lower().replace("cap_", "").split()
    with passable() as folder:
        state = folder / "state"
        state.mkdir(mode=0o700)
        env = {"FACADE_DEVICE__WORKERS": "2", "FACADE_DEVICE__WORKER_USER": "nobody"}
        async with live(folder, env=env, prefix=confined(state, *capabilities)) as it:
            await it.add()
            await it.import_all()
            assert (await it.pull("v1")).status == 200
            assert {owner(pid) for pid in workers_of(it.facade.pid)} == {getpwnam("nobody").pw_uid}
            assert await it.facade.stop() == 0
            for public in ("device-ca.pem", "server.pem", "root.json"):
                (state / public).chmod(0o600)
            await it.facade.start()
            assert (await it.pull("v1")).status == 200
            assert (await it.pull("v2")).status == 200
            report = (await it.facade.cli("doctor", "--json")).json
            assert [check for check in report["checks"] if check["status"] == "failed"] == []
            os.kill(workers_of(it.facade.pid)[0], signal.SIGKILL)
            await it.facade.logged("worker_ended")
            assert await it.facade.stop() == 0


async def test_facade_serves_under_the_units_limits(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    env = {"FACADE_DEVICE__WORKERS": "2"}
    async with live(tmp_path, env=env, prefix=confined(state)) as it:
        await it.add()
        await it.import_all()
        assert (await it.pull("v1")).status == 200
        status, mounts = [
            (await run("cat", f"/proc/{it.facade.pid}/{name}")).stdout
            for name in ("status", "mounts")
        ]
        assert await it.facade.stop() == 0
    assert re.search(r"^CapEff:\s+0+$", status, re.MULTILINE)
    assert re.search(r"^NoNewPrivs:\s+1$", status, re.MULTILINE)
    assert re.search(r"^\S+ / \S+ ro[, ]", mounts, re.MULTILINE)


async def test_the_container_file_builds_as_far_as_it_can_without_a_base(tmp_path: Path) -> None:
    """Parsed by buildah, on an empty base and with the commands left out: there is nothing to run them."""
    text = re.sub(r"^RUN (.*\\\n)*.*\n", "", CONTAINERFILE.read_text(), flags=re.MULTILINE)
    assert "pip" not in text.partition("FROM")[2]
    # What the commands would have made.
    text = text.replace("COPY --from=build /opt/facade /opt/facade\n", "")
    file = tmp_path / "Containerfile"
    file.write_text(text)
    storage = (
        "--root",
        tmp_path / "root",
        "--runroot",
        tmp_path / "run",
        "--storage-driver",
        "vfs",
    )
    built = await run(
        *("buildah", *storage, "build", "--build-arg", "BASE=scratch", "--format", "docker"),
        *("-f", file, "-t", "facade-parsed", ROOT),
    )
    assert built.code == 0, built.stderr
    inspected = await run("buildah", *storage, "inspect", "--type", "image", "facade-parsed")
    config = inspected.json["Docker"]["config"]
    assert config["User"] == "10001:10001"
    assert config["Entrypoint"] == ["facade"]
    assert set(config["ExposedPorts"]) == {"8443/tcp", "9464/tcp"}
    assert config["Healthcheck"]["Test"][0] == "CMD"


def test_the_container_file_copies_what_is_there_and_ignores_the_rest() -> None:
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", CONTAINERFILE.read_text(), re.MULTILINE)
    names = {name for line in copied for name in line.split()}
    assert all((ROOT / name).exists() for name in names)
    ignored = (ROOT / ".dockerignore").read_text()
    assert set(re.findall(r"^!(\S+)$", ignored, re.MULTILINE)) == names


def test_the_compose_file_names_what_is_there() -> None:
    text = COMPOSE.read_text()
    for path in re.findall(r"- (\.\.?/[^:]+):", text):
        assert (COMPOSE.parent / path).exists(), path
    assert (COMPOSE.parent / "../.." / "deploy/container/Containerfile").exists()
    known = set(re.findall(r"FACADE_[A-Z]+__[A-Z_]+", text + CONTAINERFILE.read_text()))
    assert known == {
        *("FACADE_REDIS__URL", "FACADE_DEVICE__WORKERS"),
        *("FACADE_LOG__FORMAT", "FACADE_METRICS__LISTEN"),
    }


@contextmanager
def passable() -> Iterator[Path]:
    """A folder that other users may pass through; pytest's own let nobody through."""
    with tempfile.TemporaryDirectory(prefix="facade-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        yield folder


def confined(state: Path, *capabilities: str) -> list[str]:
    """The limits of the unit, made by hand, as systemd is not what runs the tests: everything read-only
    but `state` and a folder for temporary files, an umask that closes, no new privileges, no writable
    memory that can be executed, and no capability but those given."""
    mounts = (
        'umask 0077 && mount --bind "$1" "$1" && mount -t tmpfs tmpfs /var/tmp && mount -o remount,bind,ro / '
        '&& shift && exec "$@"'
    )
    bounds = ",".join(("-all", *(f"+{name}" for name in capabilities)))
    privileges = ("--no-new-privs", f"--bounding-set={bounds}", "--inh-caps=-all")
    memory = (
        "import ctypes, os, sys\n"
        "ctypes.CDLL(None).prctl(65, 1, 0, 0, 0)  # PR_SET_MDWE; older kernels know it not\n"
        "os.execv(sys.argv[1], sys.argv[1:])\n"
    )
    return [
        *("unshare", "--mount", "sh", "-c", mounts, "sh", str(state)),
        *("setpriv", *privileges, sys.executable, "-c", memory),
    ]
