"""A serving process that was taken over asks the control side for what it should not have.

What it gets is what a pull needs: never the stored password of a registry that has a token service.
"""

import asyncio
import base64
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from facade.app.tokens import for_the_serving_side
from facade.clock import SystemClock
from facade.control.credentials.providers import ProviderContext, Providers
from facade.errors import Denied, FacadeError, Upstream
from facade.oci.host import RegistryHost
from facade.upstream.addresses import AddressPolicy
from facade.upstream.challenge import Challenge
from facade.upstream.client import RegistryClient
from facade.upstream.connection import Authorizer, Connection, Scope
from tests.support.misbehaviour import Misbehaviour
from tests.support.raw_http import Data, Reply, Seen
from tests.support.registry import BasicAuth, BearerAuth, NoAuth, Registry
from tests.support.token_server import Account, TokenServer
from tests.support.upstream_client import APP, LOOPBACK
from tests.support.upstream_stack import upstream_stack

PASSWORD = "hunter2"
THIEF = "thief.example"
PLAIN = base64.b64encode(f"robot:{PASSWORD}".encode()).decode()
LIE = (Challenge("basic", {"realm": "anything"}),)
PULL = Scope(APP)


@asynccontextmanager
async def asking(
    folder: Path, registry: Registry, *, names: Mapping[str, int] | None = None
) -> AsyncIterator[tuple[Authorizer, Connection]]:
    """What the serving side asks, and a connection to `registry` with a stored password."""
    clock = SystemClock()
    async with AsyncExitStack() as stack:
        it = await stack.enter_async_context(upstream_stack(folder, ports=names))
        connection = await it.connect(str(registry.host), secret=PASSWORD)

        def client_with(authorizer: Authorizer) -> RegistryClient:
            return RegistryClient(
                authorizer=authorizer, addresses=AddressPolicy(LOOPBACK), clock=clock
            )

        port = for_the_serving_side(
            stack,
            it.broker,
            store=it.store,
            providers=Providers(ProviderContext(clock), {}),
            client_with=client_with,
        )
        yield port, connection


async def test_the_password_behind_tokens_is_not_given_for_a_made_up_basic_challenge(
    tmp_path: Path,
) -> None:
    async with (
        TokenServer({"robot": Account(PASSWORD)}) as tokens,
        Registry(auth=BearerAuth(tokens)) as registry,
        asking(tmp_path, registry) as (port, connection),
    ):
        given = await port.authorization(connection, PULL, challenge=LIE)
        assert given.header is not None
        scheme, _, token = given.header.reveal().partition(" ")
        assert scheme == "Bearer"
        assert tokens.verify(token) is not None, "a token that ends, for pulling"
        assert PLAIN not in given.header.reveal()
        again = await port.authorization(connection, PULL, challenge=LIE, refused=given.id)
        assert again.header is not None
        assert PLAIN not in again.header.reveal()


async def test_a_connection_with_other_settings_does_not_send_the_password_elsewhere(
    tmp_path: Path,
) -> None:
    """It names the connection; how that is spoken to is the control side's own knowledge."""
    async with (
        TokenServer({"robot": Account(PASSWORD)}) as tokens,
        TokenServer({"robot": Account(PASSWORD)}) as thief,
        Registry(auth=BearerAuth(tokens)) as registry,
        asking(tmp_path, registry, names={THIEF: thief.port}) as (port, connection),
    ):
        host = RegistryHost.parse(f"{THIEF}:{thief.port}")
        there = {"realm": f"http://{host}/token", "service": "registry"}
        for asked in (
            replace(connection, settings=replace(connection.settings, auth_hosts=(host.name,))),
            replace(connection, settings=replace(connection.settings, proxy=f"http://{host}")),
            replace(connection, host=host),
            replace(connection, revision=connection.revision + 1),
            replace(connection, provider="anonymous"),
        ):
            with suppress(FacadeError):
                await port.authorization(asked, PULL, challenge=(Challenge("bearer", there),))
        assert not thief.requests
        with pytest.raises(Denied):
            await port.authorization(replace(connection, id="another"), PULL, challenge=LIE)


async def test_a_registry_that_wants_no_password_is_not_said_to(tmp_path: Path) -> None:
    async with (
        Registry(auth=NoAuth()) as registry,
        asking(tmp_path, registry) as (port, connection),
    ):
        with pytest.raises(Upstream, match="did not ask this side"):
            await port.authorization(connection, PULL, challenge=LIE)
        assert all(seen.authorization is None for seen in registry.requests)


async def test_a_registry_that_does_want_the_password_gets_it_and_is_asked_once(
    tmp_path: Path,
) -> None:
    async with (
        Registry(auth=BasicAuth("robot", PASSWORD)) as registry,
        asking(tmp_path, registry) as (port, connection),
    ):
        given = await asyncio.gather(
            *(port.authorization(connection, PULL, challenge=LIE) for _ in range(20))
        )
        await port.authorization(connection, PULL, challenge=LIE)
        assert {each.header and each.header.reveal() for each in given} == {f"Basic {PLAIN}"}
        assert len(registry.requests) == 1
        assert registry.requests[0].authorization is None


async def test_a_registry_whose_base_is_open_is_asked_about_the_repository(tmp_path: Path) -> None:
    opened: Misbehaviour = lambda seen, reply: (  # noqa: E731 - a script of one line
        Reply(200, (), Data(b"{}")) if seen.path == "/v2/" else reply
    )
    async with (
        Registry(auth=BasicAuth("robot", PASSWORD)) as registry,
        asking(tmp_path, registry) as (port, connection),
    ):
        registry.script("*", opened)
        given = await port.authorization(connection, PULL, challenge=LIE)
        assert given.header is not None
        assert given.header.reveal() == f"Basic {PLAIN}"


async def test_a_question_that_is_left_goes_on_for_the_others(tmp_path: Path) -> None:
    asked = asyncio.Event()

    def slow(seen: Seen, reply: Reply) -> Reply:
        asked.set()
        return Reply(reply.status, reply.headers, reply.content, delay=0.3)

    async with (
        Registry(auth=BasicAuth("robot", PASSWORD)) as registry,
        asking(tmp_path, registry) as (port, connection),
    ):
        registry.script("*", slow)
        first = asyncio.ensure_future(port.authorization(connection, PULL, challenge=LIE))
        await asked.wait()
        second = asyncio.ensure_future(port.authorization(connection, PULL, challenge=LIE))
        await asyncio.sleep(0)
        first.cancel()
        assert (await second).header is not None
        assert len(registry.requests) == 1


async def test_the_serving_side_gets_no_right_to_push(tmp_path: Path) -> None:
    async with (
        TokenServer({"robot": Account(PASSWORD)}) as tokens,
        Registry(auth=BearerAuth(tokens)) as registry,
        asking(tmp_path, registry) as (port, connection),
    ):
        with pytest.raises(Denied, match="gets no other rights"):
            await port.authorization(connection, Scope(APP, ("pull", "push")), challenge=LIE)
        assert not tokens.requests
