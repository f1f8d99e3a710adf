"""The in-process control port: a cheap snapshot, reports that never block."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from sqlite3 import Connection

import pytest

from facade.control.catalog.manifests import ClosureManifests
from facade.control.connections.store import ConnectionStore
from facade.control.port import (
    FIRST_PAUSE_SECONDS,
    GATHER_SECONDS,
    SPACING_SECONDS,
    InProcessControlPort,
)
from facade.control.pulls import PullRecords
from facade.errors import NotFound, Unavailable
from facade.oci.digest import Digest
from facade.oci.host import RegistryHost
from facade.oci.reference import Repository
from facade.secret import Secret
from facade.upstream.connection import Authorization, Scope
from facade.wings import ConnectionUsed, IntegrityFailed, Pulled, Revocations
from tests.support.authorizers import FixedAuthorizer
from tests.support.clock import FakeClock, settle
from tests.support.control import connect, fresh_database, fresh_store

HOST = RegistryHost("registry.example")
REPOSITORY = Repository("org/app")


@dataclass
class Deny:
    """A deny list that tests set."""

    now: Revocations

    def revocations(self) -> Revocations:
        return self.now


@dataclass
class Dropped:
    """Counts what was dropped."""

    count: int = 0

    def report_dropped(self) -> None:
        self.count += 1


@dataclass
class Parts:
    """A port and everything around it."""

    port: InProcessControlPort
    store: ConnectionStore
    deny: Deny
    manifests: ClosureManifests
    pulls: PullRecords
    clock: FakeClock
    dropped: Dropped


@pytest.fixture
async def parts(tmp_path: Path) -> AsyncIterator[Parts]:
    clock, deny, dropped = FakeClock(), Deny(Revocations()), Dropped()
    async with fresh_store(tmp_path, clock) as store, fresh_database(tmp_path) as database:
        manifests, pulls = ClosureManifests(database, clock), PullRecords(database)
        port = InProcessControlPort(
            connections=store,
            broker=FixedAuthorizer("Bearer x"),
            manifests=manifests,
            deny_list=deny,
            pulls=pulls,
            clock=clock,
            observer=dropped,
            max_events=5,
        )
        yield Parts(port, store, deny, manifests, pulls, clock, dropped)
        await port.close()


def _pulled(at: float) -> Pulled:
    return Pulled(at, "dev/kiosk", str(HOST), str(REPOSITORY), "sha256:x", "blob", "served")


async def test_the_snapshot_is_the_same_value_until_something_changes(parts: Parts) -> None:
    first = parts.port.snapshot()
    assert parts.port.snapshot() is first
    connection = await connect(parts.store)
    second = parts.port.snapshot()
    assert second.connections == {HOST: connection}
    parts.deny.now = Revocations({("dev", "kiosk"): 1.0})
    third = parts.port.snapshot()
    assert third.revocations.devices == {("dev", "kiosk"): 1.0}
    await parts.store.remove(HOST)
    assert parts.port.snapshot().connections == {}
    assert first.generation < second.generation < third.generation
    assert first.connections == {}, "a snapshot never changes"


async def test_authorization_comes_from_the_broker(parts: Parts) -> None:
    connection = await connect(parts.store)
    got = await parts.port.authorization(connection, Scope(REPOSITORY))
    assert isinstance(got, Authorization)
    assert got.header == Secret("Bearer x")


async def test_a_closures_manifest_is_found_where_it_was_imported_from_only(parts: Parts) -> None:
    digest = Digest.of(b"manifest")
    await parts.manifests.keep(HOST, REPOSITORY, {digest: b"manifest"})
    found = parts.port.closure_manifest
    assert await found(HOST, REPOSITORY, digest) == b"manifest"
    assert await found(HOST, Repository("org/other"), digest) is None
    assert await found(RegistryHost("ghcr.io"), REPOSITORY, digest) is None


async def test_reports_are_written_in_the_background(parts: Parts) -> None:
    connection = await connect(parts.store)
    parts.port.start()
    parts.port.report(_pulled(1.0))
    parts.port.report(ConnectionUsed(connection.id, 2.0, "refused"))
    parts.port.report(IntegrityFailed(3.0, str(HOST), "r", "sha256:x", "short"))
    await settle()
    assert (await parts.pulls.list())[1] == 0
    await parts.clock.wait_for_sleepers()
    parts.clock.advance(GATHER_SECONDS)
    async with asyncio.timeout(5):
        while not (await parts.pulls.list())[1]:  # noqa: ASYNC110 - real time, for real threads
            await asyncio.sleep(0.001)
    await parts.port.close()
    assert (await parts.pulls.list())[1] == 1
    assert len(await parts.pulls.failures()) == 1
    assert parts.store.get(HOST).last_error == "refused"


async def test_what_does_not_fit_is_dropped_and_counted_and_close_writes_the_rest(
    parts: Parts,
) -> None:
    for at in range(8):
        parts.port.report(_pulled(float(at)))
    assert parts.dropped.count == 3
    await parts.port.close()
    rows, _ = await parts.pulls.list()
    assert [row.pull.at for row in rows] == [4.0, 3.0, 2.0, 1.0, 0.0]


async def test_a_database_that_fails_costs_reports_and_nothing_else(
    parts: Parts, tmp_path: Path
) -> None:
    parts.port.report(_pulled(1.0))
    for path in tmp_path.glob("facade.db*"):  # noqa: ASYNC240 - a test may touch files
        path.write_bytes(b"this is no database" * 1000)
    await parts.port.close()
    assert parts.dropped.count == 1
    with pytest.raises(NotFound):
        parts.store.get(HOST)


class LockedPulls(PullRecords):
    """Another process holds the database's lock at the first tries."""

    tries = 2

    async def add(
        self,
        events: Sequence[Pulled],
        failures: Sequence[IntegrityFailed],
        *,
        also: Callable[[Connection], None] = lambda _: None,
    ) -> None:
        if self.tries:
            self.tries -= 1
            raise Unavailable("database is locked")
        await super().add(events, failures, also=also)


async def test_while_the_database_is_locked_reports_wait_and_none_is_written_twice(
    tmp_path: Path,
) -> None:
    clock, dropped = FakeClock(), Dropped()
    async with fresh_store(tmp_path, clock) as store, fresh_database(tmp_path) as database:
        connection = await connect(store)
        pulls = LockedPulls(database)
        port = InProcessControlPort(
            connections=store,
            broker=FixedAuthorizer("Bearer x"),
            manifests=ClosureManifests(database, clock),
            deny_list=Deny(Revocations()),
            pulls=pulls,
            clock=clock,
            observer=dropped,
            max_events=10_000,
        )
        port.start()
        port.report(_pulled(1.0))
        port.report(ConnectionUsed(connection.id, 1.5, "refused"))
        for seconds in (GATHER_SECONDS, FIRST_PAUSE_SECONDS):
            await clock.wait_for_sleepers()
            port.report(_pulled(2.0 + clock.monotonic()))
            await clock.run_for(seconds)
        await clock.wait_for_sleepers()
        assert clock.slept[-1] == 2 * FIRST_PAUSE_SECONDS, (
            "each pause is longer than the one before"
        )
        port.report(_pulled(2.0 + clock.monotonic()))
        await port.close()
        rows, _ = await pulls.list()
        times = [row.pull.at for row in rows]
        assert times == sorted(set(times), reverse=True)
        assert len(times) == 4
        assert store.get(HOST).last_error == "refused"
    assert dropped.count == 0


async def test_a_batch_of_which_one_row_cannot_be_written_is_not_written_at_all(
    parts: Parts, tmp_path: Path
) -> None:
    """So that none of it is written twice when it is tried again."""
    connection = await connect(parts.store)
    parts.port.start()
    parts.port.report(_pulled(1.0))
    parts.port.report(ConnectionUsed(connection.id, 1.5, "refused"))
    other = sqlite3.connect(tmp_path / "facade.db", isolation_level=None)
    other.execute(
        "CREATE TRIGGER no BEFORE UPDATE ON connections BEGIN INSERT INTO nowhere VALUES (1); END"
    )
    for seconds in (GATHER_SECONDS, FIRST_PAUSE_SECONDS):  # it fails in both
        await parts.clock.wait_for_sleepers()
        parts.clock.advance(seconds)
        await settle()
    await parts.clock.wait_for_sleepers()
    assert (await parts.pulls.list())[1] == 0
    assert parts.store.get(HOST).last_error is None
    other.execute("DROP TRIGGER no")
    other.close()
    await parts.port.close()
    assert (await parts.pulls.list())[1] == 1
    assert parts.store.get(HOST).last_error == "refused"
    assert parts.dropped.count == 0


async def test_what_comes_soon_after_a_batch_waits_for_company(parts: Parts) -> None:
    async def written(count: int) -> None:
        async with asyncio.timeout(5):
            while (await parts.pulls.list())[1] < count:  # noqa: ASYNC110 - real threads
                await asyncio.sleep(0.001)

    parts.port.start()
    parts.port.report(_pulled(1.0))
    await parts.clock.wait_for_sleepers()
    await parts.clock.run_for(GATHER_SECONDS)
    await written(1)
    parts.port.report(_pulled(2.0))
    await parts.clock.wait_for_sleepers()
    await parts.clock.run_for(SPACING_SECONDS - GATHER_SECONDS)
    parts.port.report(_pulled(3.0))
    await asyncio.sleep(0.05)
    assert (await parts.pulls.list())[1] == 1
    await parts.clock.run_for(GATHER_SECONDS)
    await written(3)


async def test_with_nothing_to_write_nothing_wakes(parts: Parts) -> None:
    parts.port.start()
    await settle()
    assert parts.clock.sleepers == 0


class FailsOnce(PullRecords):
    """Has a defect that one batch brings out."""

    failed = False

    async def add(
        self,
        events: Sequence[Pulled],
        failures: Sequence[IntegrityFailed],
        *,
        also: Callable[[Connection], None] = lambda _: None,
    ) -> None:
        if not self.failed:
            self.failed = True
            raise RuntimeError("a defect")
        await super().add(events, failures, also=also)


async def test_a_defect_costs_one_batch_and_not_all_later_reports(tmp_path: Path) -> None:
    clock, dropped = FakeClock(), Dropped()
    async with fresh_store(tmp_path, clock) as store, fresh_database(tmp_path) as database:
        pulls = FailsOnce(database)
        port = InProcessControlPort(
            connections=store,
            broker=FixedAuthorizer("Bearer x"),
            manifests=ClosureManifests(database, clock),
            deny_list=Deny(Revocations()),
            pulls=pulls,
            clock=clock,
            observer=dropped,
            max_events=10_000,
        )
        port.start()
        port.report(_pulled(1.0))
        await clock.wait_for_sleepers()
        await clock.run_for(GATHER_SECONDS)
        port.report(_pulled(2.0))
        await port.close()
        rows, _total = await pulls.list()
    assert dropped.count == 1
    assert [row.pull.at for row in rows] == [2.0]
