"""Workers as a user of their own: they serve, and cannot reach what the control side holds.

Needs root, as such a start does. The state folder is not pytest's, which no other user can enter.
"""

import os
import pwd
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.support.crew import command, descriptors, environment, mapped, owner, workers_of
from tests.support.facade_process import FacadeProcess
from tests.support.live import Live, live

CANARY = "canary-redis-password"
USER = "nobody"
SECRETS = (
    *("sealing.key", "facade.db", "facade.db-wal", "api-key", "server-ca.key", "device-ca.key"),
    *("offline-passphrase", "trust/online", "offline"),
)
READ = """
import os, pwd, sys
entry = pwd.getpwnam(sys.argv[1])
os.setgroups([])
os.setgid(entry.pw_gid)
os.setuid(entry.pw_uid)
for path in sys.argv[2:]:
    try:
        if os.path.isdir(path):
            os.listdir(path)
        else:
            open(path, "rb").close()
    except PermissionError:
        print("refused", path)
    except OSError as error:
        print("missing", path, error)
    else:
        print("read", path)
"""

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can start workers as another user"),
]


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="worker-user-"))
    made.chmod(0o711)
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def it(folder: Path) -> AsyncIterator[Live]:
    env = {
        "FACADE_DEVICE__WORKERS": "2",
        "FACADE_DEVICE__WORKER_USER": USER,
        "FACADE_REDIS__URL": f"redis://:{CANARY}@127.0.0.1:1/0",
    }
    async with live(folder, env=env) as installation:
        await installation.add()
        await installation.import_all()
        yield installation


def as_user(*paths: Path) -> list[str]:
    """What the workers' user can do with each path: "read", "refused" or "missing"."""
    shown = subprocess.run(
        [sys.executable, "-c", READ, USER, *map(str, paths)],
        check=True,
        capture_output=True,
        text=True,
    )
    return [line.split()[0] for line in shown.stdout.splitlines()]


async def test_they_serve_from_the_cache_and_from_upstream(it: Live) -> None:
    assert (await it.pull("v1")).status == 200
    assert (await it.pull("v1")).status == 200
    assert len(it.registry.seen("*/blobs/*")) > 0
    for pid in workers_of(it.facade.pid):
        assert owner(pid) == pwd.getpwnam(USER).pw_uid


async def test_their_user_cannot_read_what_the_control_side_holds(it: Live) -> None:
    state = it.facade.state
    secrets = [state / name for name in SECRETS if (state / name).exists()]
    assert {"sealing.key", "facade.db", "trust/online"} <= {
        str(path.relative_to(state)) for path in secrets
    }
    assert as_user(*secrets, state) == ["refused"] * (len(secrets) + 1)
    # What they need is there; the key of the server is theirs to use.
    signed = state / "trust" / "repository" / "metadata" / "timestamp.json"
    needed = [state / "server.key", state / "root.json", signed]
    assert as_user(*needed) == ["read"] * len(needed)
    assert stat.S_IMODE(state.stat().st_mode) == 0o710
    assert stat.S_IMODE((state / "server.key").stat().st_mode) == 0o640


async def test_nothing_of_it_is_in_their_environment_command_line_or_open_files(it: Live) -> None:
    for pid in workers_of(it.facade.pid):
        assert CANARY.encode() not in environment(pid)
        assert b"FACADE_" not in environment(pid)
        assert CANARY not in command(pid)
        opened = [name for name in descriptors(pid) if name.startswith(str(it.facade.state))]
        below = {Path(name).relative_to(it.facade.state).parts[0] for name in opened}
        assert below <= {"cache", "run"}, opened
        assert "facade.db" not in mapped(pid)


async def test_doctor_finds_nothing_wrong_with_it(it: Live) -> None:
    report = (await it.facade.cli("doctor", "--json")).json
    assert [check for check in report["checks"] if check["status"] == "failed"] == []


async def test_a_revocation_reaches_them(it: Live) -> None:
    await it.facade.must("device", "revoke", "dev/kiosk-1")
    assert (await it.pull("v1")).reason == "device-revoked"


async def test_a_start_as_root_again_finds_everything(it: Live) -> None:
    """Back to workers of root: what belongs to the other user is still read."""
    assert await it.facade.stop() == 0
    alone = FacadeProcess(it.facade.state)
    await alone.start()
    assert len(workers_of(alone.pid)) == 1
    assert await alone.stop() == 0


async def test_a_user_that_does_not_exist_stops_the_start(folder: Path) -> None:
    it = FacadeProcess(folder / "none", env={"FACADE_DEVICE__WORKER_USER": "no-such-user"})
    with pytest.raises(AssertionError, match="useradd"):
        await it.start()
