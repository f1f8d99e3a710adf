"""Connect, test, browse and import over real sockets, with real tokens, and no secret in sight."""

import asyncio
import base64
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import structlog

from facade.control.catalog.planning import Status
from facade.control.credentials.model import Prepared
from facade.errors import Denied, FacadeError, Upstream
from facade.oci.manifest import OCI_INDEX
from facade.oci.reference import Repository
from facade.secret import Secret
from facade.upstream.connection import Scope
from tests.support.image import add_referrer, small_image
from tests.support.manifests import descriptor, image_index
from tests.support.operator_side import REPOSITORY, OperatorSide, operator_side
from tests.support.registry import Registry
from tests.support.registry_auth import BasicAuth, BearerAuth
from tests.support.token_server import Account, TokenServer

CANARY = "canary-5d1c"


@pytest.fixture
async def side(tmp_path: Path) -> AsyncIterator[OperatorSide]:
    async with operator_side(tmp_path) as side:
        yield side


@pytest.fixture
async def tokens() -> AsyncIterator[TokenServer]:
    only = frozenset({str(REPOSITORY)})
    async with TokenServer({"robot": Account("pw", only)}) as tokens:
        yield tokens


@pytest.fixture
async def registry(tokens: TokenServer) -> AsyncIterator[Registry]:
    async with Registry(auth=BearerAuth(tokens), page_size=2) as registry:
        registry.add_image(str(REPOSITORY), small_image(), "v1", "v1.1", "v2", "latest")
        yield registry


async def test_token_auth_from_connecting_to_a_signed_artifact(
    side: OperatorSide, registry: Registry, tokens: TokenServer
) -> None:
    await side.connect(registry.host)
    said = await side.connections.test(registry.host, REPOSITORY)
    assert "It accepts the credentials." in said
    assert "It may be pulled" in said
    found = await side.browse.tags(registry.host, REPOSITORY)
    assert found.tags == ("latest", "v2", "v1.1", "v1")
    assert found.pages == 2
    outcomes = await side.run(registry.host, "v1", "v2", "gone")
    assert [outcome.status for outcome in outcomes] == ["imported", "imported", "failed"]
    assert set(side.signed.publisher.targets("dev")) == {"dev/app/v1", "dev/app/v2"}
    assert len(tokens.requests) == 2, "one token to knock, one for the repository"


async def test_basic_auth_costs_one_challenge_in_all(side: OperatorSide) -> None:
    async with Registry(auth=BasicAuth("robot", "pw")) as registry:
        registry.add_image(str(REPOSITORY), small_image(), "v1")
        await side.connect(registry.host)
        assert [outcome.status for outcome in await side.run(registry.host, "v1")] == ["imported"]
        refused = [seen for seen in registry.requests if seen.authorization is None]
        assert len(refused) == 1
        said = await side.connections.test(registry.host, None)
        assert "accepts the credentials" in said
        assert "password itself" in str(side.connections.note(side.store.get(registry.host)))


async def test_anonymous_against_an_open_registry(side: OperatorSide) -> None:
    async with Registry() as registry:
        registry.add_image(str(REPOSITORY), small_image(), "v1")
        await side.connect(registry.host, secret=None)
        assert "no credentials" in await side.connections.test(registry.host, REPOSITORY)
        assert [outcome.status for outcome in await side.run(registry.host, "v1")] == ["imported"]


async def test_a_wrong_password_is_told_remembered_and_repaired_at_once(
    side: OperatorSide, registry: Registry
) -> None:
    await side.connect(registry.host, secret="wrong")
    with pytest.raises(Upstream) as caught:
        await side.connections.test(registry.host, None)
    assert caught.value.status == 401
    assert side.store.get(registry.host).last_error == caught.value.message
    await side.store.change(registry.host, prepared=Prepared("robot", {"secret": Secret("pw")}))
    assert "accepts" in await side.connections.test(registry.host, None)
    assert side.store.get(registry.host).last_error is None


async def test_a_repository_that_the_account_may_not_read(
    side: OperatorSide, registry: Registry
) -> None:
    await side.connect(registry.host)
    with pytest.raises(Upstream):
        await side.connections.test(registry.host, Repository("org/secret"))


async def test_tokens_revoked_at_the_registry_are_replaced_once_for_all(
    side: OperatorSide, registry: Registry, tokens: TokenServer
) -> None:
    connection = await side.connect(registry.host)
    await side.run(registry.host, "v1")
    tokens.revoke_all()
    before = len(tokens.requests)
    await asyncio.gather(
        *(side.browse.tags(registry.host, REPOSITORY) for _ in range(10)),
        side.client.ping(connection),
    )
    assert len(tokens.requests) - before == 2, "one for the repository, one for the ping"


async def test_a_removed_connection_sends_nothing_more(
    side: OperatorSide, registry: Registry
) -> None:
    connection = await side.connect(registry.host)
    await side.run(registry.host, "v1")
    await side.connections.remove(registry.host)
    seen = len(registry.requests)
    with pytest.raises(Denied):
        await side.broker.authorization(connection, Scope(REPOSITORY))
    with pytest.raises(Denied):
        await side.client.ping(connection)
    assert len(registry.requests) == seen


@pytest.mark.parametrize("api", [True, False])
async def test_signatures_come_along_by_api_and_by_tag(
    side: OperatorSide, registry: Registry, api: bool
) -> None:
    image, signature = add_referrer(small_image("signed"), "application/x-sig", b"signature")
    registry.referrers_api = api
    registry.add_image(str(REPOSITORY), image, "signed")
    if not api:
        media_type, data = image.manifests[signature]
        fallback = image_index([descriptor(data, media_type)])
        tag = str(image.index).replace(":", "-")
        registry.add_manifest(str(REPOSITORY), fallback, OCI_INDEX, tag)
    await side.connect(registry.host)
    [outcome] = await side.run(registry.host, "signed", with_referrers=True)
    assert outcome.status is Status.IMPORTED
    target = side.signed.publisher.targets("dev")["dev/app/signed"]
    assert target.referrers == (signature,)


async def test_the_canary_shows_nowhere(
    side: OperatorSide,
    registry: Registry,
    tokens: TokenServer,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.DEBUG)
    tokens.accounts["robot"] = Account(CANARY)
    said: list[str] = []
    with structlog.testing.capture_logs() as logs:
        connection = await side.connect(registry.host, secret=CANARY)
        said.append(await side.connections.test(registry.host, REPOSITORY))
        said.append(repr(await side.run(registry.host, "v1", "gone")))
        tokens.manner.status = 401
        tokens.manner.body = f'{{"details": "bad password {CANARY}"}}'.encode()
        side.broker.forget(connection.id)
        with pytest.raises(FacadeError) as caught:
            await side.connections.test(registry.host, REPOSITORY)
        said += [repr(caught.value), str(caught.value), repr(caught.value.__cause__)]
    said += [repr(side.store.list()), str(logs), caplog.text, "".join(capfd.readouterr())]
    encoded = base64.b64encode(f"robot:{CANARY}".encode()).decode()
    secrets = (CANARY, encoded, *tokens.issued)
    for text in said:
        assert not any(secret in text for secret in secrets), text
    for path in tmp_path.rglob("*"):  # noqa: ASYNC240 - a test may look at files
        if path.is_file():
            data = path.read_bytes()
            assert not any(secret.encode() in data for secret in secrets), path
