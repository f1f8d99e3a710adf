"""What is in deploy/ to run Facade elsewhere: the systemd unit, the container file, the compose file."""

import re
import sys
from pathlib import Path

import pytest

from tests.support.facade_process import run
from tests.support.live import live

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "deploy" / "systemd" / "facade.service"
CONTAINERFILE = ROOT / "deploy" / "container" / "Containerfile"
COMPOSE = ROOT / "deploy" / "compose" / "compose.yml"

pytestmark = [pytest.mark.clients, pytest.mark.slow]


async def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    # The only thing that cannot be there: the installed command.
    unit = tmp_path / "facade.service"
    text = UNIT.read_text()
    assert "ExecStart=/opt/facade/bin/facade up " in text
    unit.write_text(text.replace("/opt/facade/bin/facade", sys.executable))
    verified = await run("systemd-analyze", "verify", unit)
    assert (verified.code, verified.stderr) == (0, "")
    # Exposure in tenths: 20 is 2.0 of 10.
    judged = await run("systemd-analyze", "security", "--offline=true", "--threshold=20", unit)
    assert judged.code == 0, judged.stdout


async def test_facade_serves_under_the_units_limits(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    async with live(tmp_path, prefix=confined(state)) as it:
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
    assert known == {"FACADE_REDIS__URL", "FACADE_LOG__FORMAT", "FACADE_METRICS__LISTEN"}


def confined(state: Path) -> list[str]:
    """The limits of the unit, made by hand, as systemd is not what runs the tests: everything read-only
    but `state` and a folder for temporary files, no capability, no new privileges, no writable memory that can be executed."""
    mounts = (
        'mount --bind "$1" "$1" && mount -t tmpfs tmpfs /var/tmp && mount -o remount,bind,ro / '
        '&& shift && exec "$@"'
    )
    capabilities = ("--no-new-privs", "--bounding-set=-all", "--inh-caps=-all")
    memory = (
        "import ctypes, os, sys\n"
        "ctypes.CDLL(None).prctl(65, 1, 0, 0, 0)  # PR_SET_MDWE; older kernels know it not\n"
        "os.execv(sys.argv[1], sys.argv[1:])\n"
    )
    return [
        *("unshare", "--mount", "sh", "-c", mounts, "sh", str(state)),
        *("setpriv", *capabilities, sys.executable, "-c", memory),
    ]
