"""Broker, clients, a token service and a registry together: how often is asked, and what is presented."""

import asyncio
import time
from pathlib import Path

import pytest

from facade.control.credentials.model import Prepared
from facade.errors import Upstream
from facade.oci.reference import Repository, Tag
from facade.secret import Secret
from tests.support.clock import FakeClock
from tests.support.image import small_image
from tests.support.raw_http import Data, Reply, Seen
from tests.support.registry import BearerAuth, Registry
from tests.support.token_server import Account, TokenServer
from tests.support.upstream_client import APP
from tests.support.upstream_stack import upstream_stack

V1 = Tag("v1")
PASSWORD = "hunter2"


async def test_a_revoked_token_is_replaced_once_for_fifty_requests(tmp_path: Path) -> None:
    async with (
        TokenServer({"robot": Account(PASSWORD)}) as tokens,
        Registry(auth=BearerAuth(tokens)) as registry,
        upstream_stack(tmp_path) as it,
    ):
        registry.add_image(str(APP), small_image(), "v1")
        connection = await it.connect(str(registry.host))
        await it.client.manifest(connection, APP, V1)
        tokens.revoke_all()
        await asyncio.gather(*(it.client.manifest(connection, APP, V1) for _ in range(50)))
        assert len(tokens.requests) == 2
        assert it.counts.exchanges == [("static", "ok")] * 2


@pytest.mark.parametrize("code", [401, 403])
async def test_a_registry_that_refuses_every_token_costs_one_fresh_one_per_request(
    tmp_path: Path, code: int
) -> None:
    def refuse(seen: Seen, reply: Reply) -> Reply:
        challenged = reply.status == 401
        return reply if challenged else Reply(code, (), Data(b"never"))

    async with (
        TokenServer({"robot": Account(PASSWORD)}) as tokens,
        Registry(auth=BearerAuth(tokens)) as registry,
        upstream_stack(tmp_path) as it,
    ):
        connection = await it.connect(str(registry.host))
        registry.script("*", refuse)
        with pytest.raises(Upstream, match="never"):
            await it.client.manifest(connection, APP, V1)
        assert len(tokens.requests) == 2
        assert len(registry.requests) == 3, "unasked, with the first token, with the fresh one"
        with pytest.raises(Upstream, match="never"):
            await it.client.manifest(connection, APP, V1)
        assert len(tokens.requests) == 3


async def test_a_wrong_password_is_sent_once_however_many_ask(tmp_path: Path) -> None:
    """Registries lock accounts after a handful of failures."""
    async with (
        TokenServer({"robot": Account("another")}) as tokens,
        Registry(auth=BearerAuth(tokens)) as registry,
        upstream_stack(tmp_path) as it,
    ):
        registry.add_image(str(APP), small_image(), "v1")
        connection = await it.connect(str(registry.host))
        results = await asyncio.gather(
            *(it.client.manifest(connection, APP, V1) for _ in range(50)), return_exceptions=True
        )
        assert all(isinstance(result, Upstream) for result in results)
        assert len(tokens.requests) == 1

        repaired = Prepared("robot", {"secret": Secret("another")})
        changed = await it.store.change(registry.host, prepared=repaired)
        started = time.monotonic()
        await it.client.manifest(changed.connection, APP, V1)
        assert time.monotonic() - started < 2


async def test_a_repair_at_the_registrys_end_is_noticed_within_seconds(tmp_path: Path) -> None:
    clock = FakeClock()
    async with (
        TokenServer({"robot": Account("another")}) as tokens,
        Registry(auth=BearerAuth(tokens)) as registry,
        upstream_stack(tmp_path, clock=clock) as it,
    ):
        registry.add_image(str(APP), small_image(), "v1")
        connection = await it.connect(str(registry.host))
        with pytest.raises(Upstream):
            await it.client.manifest(connection, APP, V1)
        tokens.accounts["robot"] = Account(PASSWORD)
        clock.advance(3)
        await it.client.manifest(connection, APP, V1)


@pytest.mark.parametrize("ahead", [-86_400.0, -90.0, 90.0, 86_400.0])
async def test_a_token_services_clock_does_not_matter(tmp_path: Path, ahead: float) -> None:
    """`issued_at` and `Date` come from the same wrong clock; only their difference counts."""
    clock = FakeClock(auto=True)
    async with (
        TokenServer({"robot": Account(PASSWORD)}) as tokens,
        Registry(auth=BearerAuth(tokens)) as registry,
        upstream_stack(tmp_path, clock=clock) as it,
    ):
        tokens.manner.clock_ahead = ahead
        registry.add_image(str(APP), small_image(), "v1")
        connection = await it.connect(str(registry.host))
        await it.client.manifest(connection, APP, V1)
        [(_, ends)] = it.counts.expiries
        assert ends is not None
        assert 298 <= ends - clock.time() <= 300
        clock.advance(200)
        await it.client.manifest(connection, APP, V1)
        assert len(tokens.requests) == 1
        clock.advance(101)
        await it.client.manifest(connection, APP, V1)
        assert len(tokens.requests) == 2


async def test_each_repository_has_its_own_token_and_no_other_is_sent(tmp_path: Path) -> None:
    repositories = [Repository.parse(f"org/app-{number}") for number in range(6)]
    async with (
        TokenServer({"robot": Account(PASSWORD)}) as tokens,
        Registry(auth=BearerAuth(tokens)) as registry,
        upstream_stack(tmp_path) as it,
    ):
        connection = await it.connect(str(registry.host))
        for repository in repositories:
            registry.add_image(str(repository), small_image(), "v1")
        for _ in range(2):
            await asyncio.gather(
                *(it.client.manifest(connection, repository, V1) for repository in repositories)
            )
        for seen in registry.requests:
            if seen.authorization is not None:
                granted = tokens.verify(seen.authorization.removeprefix("Bearer "))
                assert granted is not None
                assert list(granted) == [seen.path.split("/manifests/")[0].removeprefix("/v2/")]
        assert len(tokens.requests) == len(repositories)
