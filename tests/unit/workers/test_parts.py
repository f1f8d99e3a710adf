"""The parts around the supervisor: when to restart, sockets, orders, the lifeline, folders, users."""

import json
import os
import pwd
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from facade.config import Settings
from facade.config.section import Section
from facade.config.settings import (
    DatabaseSettings,
    DeviceSettings,
    RedisSettings,
    SealingSettings,
    TrustSettings,
)
from facade.errors import Invalid
from facade.workers.ground import metadata_folders, open_to, places
from facade.workers.lifeline import read_order
from facade.workers.order import PASSED, Order, serving_settings
from facade.workers.restarts import MAX_DELAY_SECONDS, SETTLED_SECONDS, Restarts
from facade.workers.sockets import bind_for_workers, withdraw
from facade.workers.user import WorkerUser

CONNECTIONS = 120

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


def nobody() -> WorkerUser:
    return WorkerUser.named("nobody")


# Restarts.


def test_the_first_end_is_answered_at_once_and_later_ones_later() -> None:
    restarts, delays = Restarts(), []
    for _ in range(9):
        restarts = restarts.ended(lived=1)
        delays.append(restarts.delay)
    assert delays == [0, 1, 2, 4, 8, 16, 30, 30, 30]
    assert max(delays) == MAX_DELAY_SECONDS
    assert restarts.crashing
    assert not Restarts(2).crashing


def test_one_that_lived_for_long_begins_anew() -> None:
    assert Restarts(7).ended(lived=SETTLED_SECONDS).delay == 0
    assert not Restarts(7).ended(lived=SETTLED_SECONDS).crashing


# Sockets.


def _queued(sockets: list[socket.socket]) -> list[int]:
    counts = []
    for sock in sockets:
        count = 0
        try:
            while True:
                sock.accept()[0].close()
                count += 1
        except BlockingIOError:
            counts.append(count)
    return counts


def test_connections_are_spread_and_a_withdrawn_socket_gets_none() -> None:
    sockets = bind_for_workers("127.0.0.1", 0, 3)
    address = sockets[0].getsockname()

    def connect() -> list[int]:
        clients = [socket.create_connection(address, timeout=10) for _ in range(CONNECTIONS)]
        counts = _queued([sock for sock in sockets if sock not in withdrawn])
        for client in clients:
            client.close()
        return counts

    withdrawn: list[socket.socket] = []
    try:
        counts = connect()
        assert sum(counts) == CONNECTIONS
        assert min(counts) > 0
        withdraw(sockets[1])
        withdraw(sockets[1])  # twice is once
        withdrawn.append(sockets[1])
        assert sum(connect()) == CONNECTIONS
        sockets[1].listen(100)  # as a worker does that starts on it
        withdrawn.clear()
        assert min(connect()) > 0
    finally:
        for sock in sockets:
            sock.close()


@pytest.mark.parametrize("count", [1, 3])
def test_a_port_that_another_facade_has_is_refused(count: int) -> None:
    taken = bind_for_workers("127.0.0.1", 0, count)
    try:
        with pytest.raises(Invalid, match=r"device port .* is in use"):
            bind_for_workers("127.0.0.1", taken[0].getsockname()[1], count)
    finally:
        for sock in taken:
            sock.close()


# Orders.


def _settings(tmp_path: Path) -> Settings:
    return Settings(
        database=DatabaseSettings(url="sqlite+aiosqlite:///canary-database"),
        redis=RedisSettings(url="redis://:canary-password@canary-redis"),
        sealing=SealingSettings(key_file=tmp_path / "canary-sealing"),
        trust=TrustSettings(
            root=tmp_path / "root.json",
            source=str(tmp_path),
            metadata_dir=tmp_path,
            repository=tmp_path / "canary-repository",
            online_keys=tmp_path / "canary-online",
        ),
    )


def test_an_order_holds_what_serving_needs_and_no_more(tmp_path: Path) -> None:
    whole = _settings(tmp_path)
    whole = whole.model_copy(update={"device": whole.device.model_copy(update={"workers": 3})})
    order = Order(
        index=2,
        listen_fd=7,
        control_socket=tmp_path / "control",
        cache_socket=tmp_path / "2",
        parent_uid=0,
        user=WorkerUser("nobody", 65534, 65534),
        others=(tmp_path / "a", tmp_path / "b"),
        settings=serving_settings(whole, tmp_path / "own"),
    )
    line = order.encode()
    assert b"canary" not in line
    assert line.count(b"\n") == 1
    assert Order.decode(line) == order
    assert order.settings.trust.root == tmp_path / "root.json"
    assert order.settings.trust.metadata_dir == tmp_path / "own"
    # 16 for the node, for three workers.
    assert order.settings.upstream.per_connection.transfers == 6
    # 64 requests and 32 streams of a device at once; its rates and connections are each worker's own.
    limits = order.settings.device.limits
    assert (limits.requests, limits.streams) == (22, 11)
    assert limits.connections == whole.device.limits.connections


@pytest.mark.parametrize(
    "changed",
    [
        {"user": ["nobody", 0, 65534]},
        {"user": ["nobody", -1, 65534]},
        {"user": ["nobody", 65534, 2**32 - 1]},
        {"user": ["nobody"]},
        {"user": "nobody"},
        {"index": True},
        {"listen_fd": "7"},
        {"others": ["a", 5]},
        {"settings": {"teapot": 1}},
        {"another": 1},
    ],
)
def test_what_is_no_order_is_refused_in_words(tmp_path: Path, changed: dict[str, object]) -> None:
    """The kernel takes a uid of -1 for "as it is": who shall become another user would stay root."""
    order = Order(
        index=0,
        listen_fd=7,
        control_socket=tmp_path / "control",
        cache_socket=tmp_path / "0",
        parent_uid=0,
        user=WorkerUser("nobody", 65534, 65534),
        others=(),
        settings=serving_settings(_settings(tmp_path), tmp_path),
    )
    document = json.loads(order.encode())
    assert Order.decode(json.dumps(document).encode()) == order
    with pytest.raises(Invalid, match="cannot read its order"):
        Order.decode(json.dumps(document | changed).encode())
    with pytest.raises(Invalid, match="cannot read its order"):
        Order.decode(b"[" * 100_000)


KEPT = {
    "device": {"workers", "worker_user"},
    "trust": {
        "metadata_dir",
        "repository",
        "online_keys",
        "resign_check_seconds",
    },  # the first is each worker's own
    "operator": {"listen", "cert", "key", "behind_proxy", "allowed_hosts"},
    "metrics": {"listen"},
    "database": {"url", "max_waiting"},
    "redis": {"url"},
    "sealing": {"key_file"},
    "credentials": {"aws_ecr_endpoint", "aws_sts_endpoint", "google_hosts", "google_token_uri"},
}


def test_of_every_setting_it_was_decided_whether_workers_are_told() -> None:
    declared = {
        section: set(type(getattr(Settings(), section)).model_fields)
        for section in Settings.model_fields
    }
    decided = {
        section: set(PASSED.get(section, ())) | KEPT.get(section, set())
        for section in {*PASSED, *KEPT}
    }
    assert declared == decided


class Vault(Section):
    password: str = "none"


class MoreDevice(DeviceSettings):
    password: str = "none"


class MoreSettings(Settings):
    vault: Vault = Vault()


def test_what_nobody_listed_is_not_told(tmp_path: Path) -> None:
    """A section and a setting that are added some day."""
    whole = MoreSettings(
        vault=Vault(password="canary"),
        device=MoreDevice(password="canary", trust_domain="fleet.example"),
    )
    told = serving_settings(whole, tmp_path)
    assert told.device.trust_domain == "fleet.example"
    assert "canary" not in repr(told)
    assert "canary" not in json.dumps(told.model_dump(mode="json"))
    assert "vault" not in told.model_dump()


def test_each_worker_may_have_one_transfer_at_least(tmp_path: Path) -> None:
    whole = _settings(tmp_path)
    whole = whole.model_copy(update={"device": whole.device.model_copy(update={"workers": 64})})
    told = serving_settings(whole, tmp_path)
    assert told.upstream.per_connection.transfers == 1
    assert (told.device.limits.requests, told.device.limits.streams) == (1, 1)


# The lifeline.

TIED = """
import sys
from facade.workers.lifeline import read_order, tie
assert read_order(0, 100) == b"order\\n"
tied = tie(0)
print(tied, flush=True)
while tied: pass  # it listens to nothing
"""


def _tied() -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-c", TIED], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )


def test_a_busy_process_ends_with_its_pipe() -> None:
    with _tied() as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"order\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"True\n"
        process.stdin.close()
        assert process.wait(10) == -signal.SIGIO


def test_one_whose_parent_is_gone_already_knows() -> None:
    with _tied() as process:
        output, _ = process.communicate(b"order\n", timeout=10)
        assert (process.returncode, output) in ((0, b"False\n"), (-signal.SIGIO, b""))


def test_an_order_that_never_ends_is_none() -> None:
    reading, writing = os.pipe()
    os.write(writing, b"x" * 300)
    assert read_order(reading, 100) == b""
    os.close(writing)
    assert read_order(reading, 100) == b""
    os.close(reading)


# Folders.


def _verified(folder: Path, version: int) -> None:
    (folder / "root_history").mkdir(parents=True, exist_ok=True)
    (folder / "root_history" / "1.root.json").write_text("{}")
    (folder / "root.json").unlink(missing_ok=True)
    (folder / "root.json").symlink_to("root_history/1.root.json")
    (folder / "highest-time").write_text(f"{version}\n")
    (folder / "timestamp.json").write_text(json.dumps({"signed": {"version": version}}))


def test_a_further_worker_starts_with_what_the_first_knows(tmp_path: Path) -> None:
    base = tmp_path / "verified"
    _verified(base, 7)
    folders = metadata_folders(base, 3)
    assert folders == [base, tmp_path / "verified-1", tmp_path / "verified-2"]
    for folder in folders[1:]:
        assert (folder / "timestamp.json").read_bytes() == (base / "timestamp.json").read_bytes()
        assert (folder / "highest-time").read_text() == "7\n"
        assert (folder / "root_history" / "1.root.json").read_text() == "{}"
        assert not (folder / "root.json").exists(), "a link: tuf makes it again"
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "verified",
        "verified-1",
        "verified-2",
    ]


def test_one_that_has_a_memory_keeps_it(tmp_path: Path) -> None:
    base = tmp_path / "verified"
    _verified(base, 7)
    _verified(tmp_path / "verified-1", 9)
    metadata_folders(base, 2)
    said = json.loads((tmp_path / "verified-1" / "timestamp.json").read_text())
    assert said["signed"]["version"] == 9


def test_before_the_first_start_there_is_nothing_to_copy(tmp_path: Path) -> None:
    base = tmp_path / "verified"
    assert len(metadata_folders(base, 2)) == 2
    assert not base.exists()


def test_a_state_folder_with_a_long_name_gets_its_sockets_elsewhere(tmp_path: Path) -> None:
    long = tmp_path / ("x" * 100)
    long.mkdir()
    with places(long, None) as spots:
        assert len(str(spots.cache(63))) < 107
        assert stat.S_IMODE(spots.own.stat().st_mode) == 0o700
        folder = spots.folder
    assert not folder.exists()


def test_what_a_killed_one_left_is_gone(tmp_path: Path) -> None:
    (tmp_path / "run" / "w").mkdir(parents=True)
    (tmp_path / "run" / "w" / "0").write_text("stale")
    with places(tmp_path, None) as spots:
        assert not spots.cache(0).exists()


@needs_root
def test_a_user_of_its_own_owns_what_it_writes_and_passes_the_rest(tmp_path: Path) -> None:
    state, user = tmp_path / "state", nobody()
    (state / "cache" / "blobs").mkdir(parents=True, mode=0o700)
    state.chmod(0o700)
    for name in ("server.key", "sealing.key", "cache/blobs/one"):
        (state / name).write_text(name)
        (state / name).chmod(0o600)
    open_to(user, through=[state], read=[state / "server.key"], own=[state / "cache"])
    assert stat.S_IMODE(state.stat().st_mode) == 0o710
    assert (state / "cache" / "blobs" / "one").stat().st_uid == user.uid
    assert (state / "server.key").stat().st_gid == user.gid
    assert stat.S_IMODE((state / "server.key").stat().st_mode) == 0o640
    assert (state / "sealing.key").stat().st_gid == os.getgid()


# Users.


def test_a_user_that_is_not_there_and_root_are_refused() -> None:
    with pytest.raises(Invalid, match="useradd"):
        WorkerUser.named("no-such-user-here")
    with pytest.raises(Invalid, match="every right"):
        WorkerUser.named("root")


def test_becoming_oneself_is_nothing() -> None:
    me = pwd.getpwuid(os.getuid())
    WorkerUser(me.pw_name, me.pw_uid, me.pw_gid).become()
    assert os.getuid() == me.pw_uid
