"""The upstream client and the test supports against Debian's docker-registry."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from facade.clock import SystemClock
from facade.errors import Upstream
from facade.oci.digest import Digest
from facade.oci.reference import Repository, Tag
from facade.reasons import Reason
from facade.secret import Secret
from facade.upstream.addresses import AddressPolicy
from facade.upstream.client import RegistryClient
from facade.upstream.connection import Authorizer, Connection
from facade.upstream.token import BasicCredentials
from facade.upstream.token_client import TokenClient
from tests.support.authorizers import FixedAuthorizer, TokenAuthorizer
from tests.support.docker_registry import docker_registry
from tests.support.image import docker_form, push, small_image
from tests.support.token_server import Account, TokenServer

LOOPBACK = AddressPolicy(["127.0.0.0/8"])
APP = Repository("org/app")


@pytest.fixture
async def token_client() -> AsyncIterator[TokenClient]:
    client = TokenClient(addresses=LOOPBACK, clock=SystemClock())
    yield client
    await client.close()


async def read_image(
    authorizer: Authorizer, connection: Connection, reference: Digest | Tag
) -> tuple[int, int]:
    """Read index, manifests and all blobs: (manifests, blob bytes)."""
    client = RegistryClient(authorizer=authorizer, addresses=LOOPBACK, clock=SystemClock())
    try:
        await client.ping(connection)
        index = await client.manifest(connection, APP, reference)
        image = small_image()
        size = 0
        for digest, data in image.blobs.items():
            assert await client.blob_size(connection, APP, digest) == len(data)
            async with client.blob(connection, APP, digest, offset=10) as body:
                assert body.offset == 10
                assert body.total == len(data)
                received = b"".join([chunk async for chunk in body.chunks()])
            assert received == data[10:]
            size += len(data)
        pages = [page async for page in client.tags(connection, APP)]
        assert sorted(tag for page in pages for tag in page) == ["docker", "v1"]
        assert (await client.referrers(connection, APP, index.digest)).manifests == ()
    finally:
        await client.close()
    return len(image.manifests), size


async def test_open_registry_holds_what_was_pushed(tmp_path: Path) -> None:
    image, in_docker_form = small_image(), docker_form(small_image())
    async with docker_registry(tmp_path / "registry") as registry:
        await push(registry.url, str(APP), image, "v1")
        await push(registry.url, str(APP), in_docker_form, "docker")
        await read_image(FixedAuthorizer(None), registry.connection(), Tag("v1"))
        await read_image(FixedAuthorizer(None), registry.connection(), image.index)
        await read_image(FixedAuthorizer(None), registry.connection(), in_docker_form.index)
        layer = next(iter(image.blobs))
        assert registry.count("GET", f"/blobs/{layer}") == 3
        assert {entry.status for entry in registry.log() if entry.method == "HEAD"} == {200}


async def test_htpasswd_accepts_the_right_password_only(
    tmp_path: Path, token_client: TokenClient
) -> None:
    good = BasicCredentials("ann", Secret("pass:word é"))
    async with docker_registry(
        tmp_path / "registry", htpasswd={"ann": good.password.reveal()}
    ) as registry:
        header = {"Authorization": good.header.reveal()}
        await push(registry.url, str(APP), small_image(), "v1", "docker", headers=header)
        await read_image(TokenAuthorizer(token_client, good), registry.connection(), Tag("v1"))
        wrong = TokenAuthorizer(token_client, BasicCredentials("ann", Secret("guess")))
        with pytest.raises(Upstream) as caught:
            await read_image(wrong, registry.connection(), Tag("v1"))
        assert caught.value.reason is Reason.UPSTREAM_REFUSED
        assert caught.value.status == 401
        assert "UNAUTHORIZED" in caught.value.message
        assert "guess" not in caught.value.message
        # Asked once without and once with the wrong password; never a second time with it.
        assert [entry.status for entry in registry.log()][-2:] == [401, 401]


async def test_the_real_registry_accepts_our_token_service(
    tmp_path: Path, token_client: TokenClient
) -> None:
    accounts = {
        "ann": Account("secret", frozenset({str(APP)})),
        "bob": Account("other", frozenset()),
    }
    async with (
        TokenServer(accounts) as tokens,
        docker_registry(tmp_path / "registry", tokens=tokens) as registry,
    ):
        header = tokens.push_header(str(APP))
        await push(registry.url, str(APP), small_image(), "v1", "docker", headers=header)
        ann = TokenAuthorizer(token_client, BasicCredentials("ann", Secret("secret")))
        await read_image(ann, registry.connection(), Tag("v1"))
        assert ann.exchanges == 2  # one for /v2/, one for the repository
        bob = TokenAuthorizer(token_client, BasicCredentials("bob", Secret("other")))
        with pytest.raises(Upstream, match="refused") as caught:
            await read_image(bob, registry.connection(), Tag("v1"))
        assert caught.value.status == 401
        stranger = TokenAuthorizer(token_client, BasicCredentials("ann", Secret("wrong")))
        with pytest.raises(Upstream, match="incorrect username or password") as caught:
            await read_image(stranger, registry.connection(), Tag("v1"))
        assert caught.value.status == 401


async def test_a_registry_that_returns_finds_its_content(tmp_path: Path) -> None:
    image = small_image()
    async with docker_registry(tmp_path / "registry") as registry:
        await push(registry.url, str(APP), image, "v1", "docker")
    async with docker_registry(tmp_path / "registry", port=registry.port) as again:
        assert again.port == registry.port
        await read_image(FixedAuthorizer(None), again.connection(), Tag("v1"))
