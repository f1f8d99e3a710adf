"""What every `ControlPort` promises: in one process, and over a Unix socket."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from facade.errors import Denied, FacadeError, Unavailable, Upstream
from facade.oci.digest import Digest
from facade.oci.host import RegistryHost
from facade.oci.reference import Repository
from facade.reasons import Reason
from facade.secret import Secret
from facade.upstream.challenge import Challenge
from facade.upstream.connection import Authorization, Connection, ConnectionSettings, Scope
from facade.wings import ConnectionUsed, ControlPort, IntegrityFailed, Pulled, Revocations
from tests.support.control import connect
from tests.support.ports import ControlSide, control_linked, control_served, control_side

HOST = RegistryHost("registry.example")
REPOSITORY = Repository("org/app")
PATIENCE = 60.0


@dataclass
class Broker:
    """Answers with what a test sets, and keeps what it was asked."""

    answer: Authorization = field(default_factory=lambda: Authorization(Secret("Bearer x")))
    error: FacadeError | None = None
    asked: list[tuple[Connection, Scope, tuple[Challenge, ...], str | None]] = field(
        default_factory=list
    )

    async def authorization(
        self,
        connection: Connection,
        scope: Scope,
        *,
        challenge: tuple[Challenge, ...] = (),
        refused: str | None = None,
    ) -> Authorization:
        self.asked.append((connection, scope, challenge, refused))
        if self.error is not None:
            raise self.error
        return self.answer


@dataclass
class Parts:
    port: ControlPort
    side: ControlSide
    broker: Broker


@pytest.fixture(params=["in process", "socket"])
async def parts(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Parts]:
    broker = Broker()
    async with AsyncExitStack() as stack:
        side = await stack.enter_async_context(control_side(tmp_path, broker))
        port: ControlPort = side.port
        if request.param == "socket":
            path = await stack.enter_async_context(control_served(side.port, tmp_path))
            port = await stack.enter_async_context(control_linked(path))
        yield Parts(port, side, broker)


async def eventually(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not true():  # noqa: ASYNC110 - a condition across two processes has no event
            await asyncio.sleep(0.01)


async def test_the_snapshot_follows_every_change_and_is_the_same_value_between(
    parts: Parts,
) -> None:
    port = parts.port
    first = port.snapshot()
    assert port.snapshot() is first
    settings = ConnectionSettings(insecure=True, auth_hosts=("a.example",), proxy="http://p:1")
    connection = await connect(parts.side.store, settings=settings)
    await eventually(lambda: port.snapshot().connections == {HOST: connection})
    second = port.snapshot()
    certificates = frozenset({("CN=CA", "0a")})
    parts.side.deny.now = Revocations(
        {("dev", "kiosk"): 1.5, ("dev", "gone"): float("inf")}, certificates
    )
    await eventually(lambda: port.snapshot().revocations == parts.side.deny.now)
    third = port.snapshot()
    await parts.side.store.remove(HOST)
    await eventually(lambda: port.snapshot().connections == {})
    assert first.generation < second.generation < third.generation < port.snapshot().generation
    assert (first.connections, second.connections) == ({}, {HOST: connection}), "they never change"
    assert port.snapshot() is port.snapshot()


@pytest.mark.parametrize(
    "given",
    [
        Authorization(None),
        Authorization(Secret("Bearer abc"), "t1", 1_800_000_000.25),
        Authorization(Secret("Basic dTpwYXNzd29yZA=="), "c1:2"),
    ],
    ids=["none", "bearer", "basic"],
)
async def test_an_authorization_arrives_as_it_was_given(parts: Parts, given: Authorization) -> None:
    connection = await connect(parts.side.store)
    parts.broker.answer = given
    challenge = (Challenge("bearer", {"realm": "https://r/token", "scope": 'a"b,c'}),)
    scope = Scope(REPOSITORY, ("pull", "push"))
    got = await parts.port.authorization(connection, scope, challenge=challenge, refused="t0")
    assert got == given
    assert parts.broker.asked == [(connection, scope, challenge, "t0")]


@pytest.mark.parametrize(
    "error",
    [
        Denied("It is gone.", reason=Reason.HOST_NOT_CONNECTED),
        Upstream("No.", reason=Reason.UPSTREAM_REFUSED, status=401, retry_after=7.5),
        Unavailable("Later.", reason=Reason.INTERNAL, retry_after=1.0),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_a_refusal_arrives_as_it_was_raised(parts: Parts, error: FacadeError) -> None:
    connection = await connect(parts.side.store)
    parts.broker.error = error
    with pytest.raises(type(error)) as caught:
        await parts.port.authorization(connection, Scope(None))
    got = caught.value
    assert (got.message, got.reason, got.retry_after) == (
        error.message,
        error.reason,
        error.retry_after,
    )
    assert getattr(got, "status", None) == getattr(error, "status", None)


async def test_a_closures_manifest_is_found_where_it_was_imported_from_only(parts: Parts) -> None:
    data = bytes(range(256)) * 16_384  # 4 MiB, the largest there is
    digest = Digest.of(data)
    await parts.side.manifests.keep(HOST, REPOSITORY, {digest: data})
    found = parts.port.closure_manifest
    assert await found(HOST, REPOSITORY, digest) == data
    assert await found(HOST, Repository("org/other"), digest) is None
    assert await found(RegistryHost("ghcr.io", 5000), REPOSITORY, digest) is None


async def test_an_empty_manifest_is_not_a_missing_one(parts: Parts) -> None:
    await parts.side.manifests.keep(HOST, REPOSITORY, {Digest.of(b""): b""})
    assert await parts.port.closure_manifest(HOST, REPOSITORY, Digest.of(b"")) == b""


async def test_reports_are_kept_in_order(parts: Parts) -> None:
    connection = await connect(parts.side.store)
    for number in range(3):
        parts.port.report(
            Pulled(
                *(float(number), "dev/kiosk", str(HOST), str(REPOSITORY), "sha256:x", "blob"),
                *("refused", Reason.NOT_SIGNED, number, "miss"),
            )
        )
    parts.port.report(IntegrityFailed(9.0, str(HOST), "r", "sha256:x", "short"))
    parts.port.report(ConnectionUsed(connection.id, 2.0, "refused"))
    store = parts.side.store

    def noted() -> bool:
        stored = store.get(HOST)
        return stored.last_error == "refused"

    await eventually(noted)
    pulls, _ = await parts.side.pulls.list()
    assert [row.pull.at for row in pulls] == [2.0, 1.0, 0.0], "newest first"
    assert {(row.pull.reason, row.pull.cache) for row in pulls} == {(Reason.NOT_SIGNED, "miss")}


async def test_a_caller_that_leaves_takes_nothing_with_it(parts: Parts) -> None:
    connection = await connect(parts.side.store)
    leaving = asyncio.create_task(parts.port.authorization(connection, Scope(None)))
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    assert await parts.port.authorization(connection, Scope(None)) == parts.broker.answer
