"""Registries as they really differ, one test each, through broker and clients together."""

import base64
import json
from pathlib import Path

import pytest

from facade.errors import Upstream
from facade.oci.digest import Digest
from facade.oci.host import RegistryHost
from facade.oci.reference import Repository, Tag
from facade.reasons import Reason
from facade.upstream.connection import Connection
from tests.support.clock import FakeClock
from tests.support.control import CloudProvider
from tests.support.image import small_image
from tests.support.misbehaviour import header, redirect, status
from tests.support.raw_http import Data, Reply, Seen
from tests.support.registry import BasicAuth, BearerAuth, Registry
from tests.support.token_server import Account, TokenServer
from tests.support.upstream_client import APP, read_blob
from tests.support.upstream_stack import Stack, upstream_stack

V1 = Tag("v1")
PASSWORD = "hunter2"


async def pull(it: Stack, connection: Connection, repository: Repository = APP) -> Digest:
    """A manifest by tag."""
    return (await it.client.manifest(connection, repository, V1)).digest


async def test_docker_hub_has_its_realm_elsewhere_and_official_images_in_library(
    tmp_path: Path,
) -> None:
    async with TokenServer({"robot": Account(PASSWORD)}) as tokens:
        auth = BearerAuth(tokens, realm="http://auth.docker.io/token")
        async with Registry(auth=auth) as registry:
            ports = {"registry-1.docker.io": registry.port, "auth.docker.io": tokens.port}
            host = RegistryHost.parse("hub.docker.com")
            alpine = host.repository("alpine")
            digest = registry.add_image("library/alpine", small_image(), "v1")
            async with upstream_stack(tmp_path, ports=ports) as it:
                connection = await it.connect(str(host))
                assert await pull(it, connection, alpine) == digest
            assert tokens.requests[0].query["scope"] == ["repository:library/alpine:pull"]
            assert set(it.names.asked) == {"registry-1.docker.io", "auth.docker.io"}


async def test_docker_hub_says_how_many_pulls_are_left_and_then_429(tmp_path: Path) -> None:
    body = b'{"errors":[{"code":"TOOMANYREQUESTS","message":"You have reached your pull limit."}]}'
    async with Registry() as registry:
        registry.add_image(str(APP), small_image(), "v1")
        ports = {"registry-1.docker.io": registry.port}
        async with upstream_stack(tmp_path, ports=ports) as it:
            connection = await it.connect("docker.io", "", "", provider="anonymous")
            registry.script("*", header("RateLimit-Remaining", "1;w=21600"))
            await pull(it, connection)
            registry.behave()
            limited = (("RateLimit-Remaining", "0;w=21600"), ("Retry-After", "3600"))
            registry.script("*", status(429, body, limited))
            with pytest.raises(Upstream, match="reached your pull limit") as caught:
                await pull(it, connection)
            assert caught.value.reason is Reason.UPSTREAM_RATE_LIMITED
            assert caught.value.retry_after == 3600


@pytest.mark.parametrize("token_field", ["token", "access_token", "both"])
async def test_ghcr_calls_its_token_either_way(tmp_path: Path, token_field: str) -> None:
    async with (
        TokenServer({"robot": Account(PASSWORD)}) as tokens,
        Registry(auth=BearerAuth(tokens)) as registry,
        upstream_stack(tmp_path) as it,
    ):
        tokens.manner.token_field = token_field
        digest = registry.add_image(str(APP), small_image(), "v1")
        assert await pull(it, await it.connect(str(registry.host))) == digest


@pytest.mark.parametrize(
    ("code", "reason"), [(403, Reason.UPSTREAM_REFUSED), (404, Reason.UPSTREAM_NOT_FOUND)]
)
async def test_ghcr_hides_what_may_not_be_read(tmp_path: Path, code: int, reason: Reason) -> None:
    body = b'{"errors":[{"code":"DENIED","message":"permission_denied: read_package"}]}'
    async with (
        TokenServer({"robot": Account(PASSWORD)}) as tokens,
        Registry(auth=BearerAuth(tokens)) as registry,
        upstream_stack(tmp_path) as it,
    ):
        registry.script("*/manifests/*", lambda seen, reply: _unless_challenged(reply, code, body))
        with pytest.raises(Upstream, match="permission_denied: read_package") as caught:
            await pull(it, await it.connect(str(registry.host)))
        assert caught.value.reason is reason
        fresh = 2 if code == 403 else 1  # a 403 may mean an old token; a 404 does not
        assert len(tokens.requests) == fresh


def _unless_challenged(reply: Reply, code: int, body: bytes) -> Reply:
    return reply if reply.status == 401 else Reply(code, (), Data(body))


@pytest.mark.parametrize("user", ["acme+robot", "robot$ci", "robot$project+ci", "$oauthtoken"])
async def test_quay_and_harbor_robot_names_are_sent_as_typed(tmp_path: Path, user: str) -> None:
    async with (
        TokenServer({user: Account(PASSWORD)}) as tokens,
        Registry(auth=BearerAuth(tokens)) as registry,
        upstream_stack(tmp_path) as it,
    ):
        registry.add_image(str(APP), small_image(), "v1")
        await pull(it, await it.connect(str(registry.host), user))
        expected = base64.b64encode(f"{user}:{PASSWORD}".encode()).decode()
        assert tokens.requests[0].authorization == f"Basic {expected}"
        assert tokens.requests[0].query["account"] == [user]


async def test_acr_takes_a_refresh_token_under_a_nil_guid(tmp_path: Path) -> None:
    async with (
        TokenServer({"any": Account("refresh-token-of-acr")}) as tokens,
        Registry(auth=BearerAuth(tokens)) as registry,
        upstream_stack(tmp_path) as it,
    ):
        tokens.manner.get = False
        tokens.manner.token_field = "access_token"
        registry.add_image(str(APP), small_image(), "v1")
        nil = "00000000-0000-0000-0000-000000000000"
        await pull(it, await it.connect(str(registry.host), nil, "refresh-token-of-acr"))
        assert [seen.method for seen in tokens.requests] == ["POST"]
        assert b"grant_type=refresh_token" in tokens.requests[0].body
        assert tokens.requests[0].authorization is None


async def test_gitlab_has_its_realm_on_the_web_host(tmp_path: Path) -> None:
    async with TokenServer({"robot": Account(PASSWORD)}) as tokens:
        auth = BearerAuth(tokens, realm="http://gitlab.example.com/jwt/auth")
        async with Registry(auth=auth) as registry:
            ports = {"registry.example.com": registry.port, "gitlab.example.com": tokens.port}
            digest = registry.add_image(str(APP), small_image(), "v1")
            async with upstream_stack(tmp_path, ports=ports) as it:
                assert await pull(it, await it.connect("registry.example.com")) == digest
            assert tokens.requests[0].path == "/jwt/auth"


async def test_artifactory_knows_basic_only(tmp_path: Path) -> None:
    async with (
        Registry(auth=BasicAuth("robot", PASSWORD)) as registry,
        upstream_stack(tmp_path) as it,
    ):
        digest = registry.add_image(str(APP), small_image(), "v1")
        connection = await it.connect(str(registry.host))
        assert await pull(it, connection) == digest
        assert await pull(it, connection) == digest
        statuses = [seen.authorization is not None for seen in registry.requests]
        assert statuses == [False, True, True], "asked once, and remembered"
        assert it.counts.exchanges == []


async def test_ecr_wants_basic_at_once_and_redirects_to_presigned_urls(tmp_path: Path) -> None:
    """S3 refuses a presigned URL that comes with an Authorization."""
    cloud = CloudProvider(FakeClock(), eager=True)
    async with (
        Registry(auth=BasicAuth("cloud", "cloud-1")) as registry,
        Registry() as bucket,
        upstream_stack(tmp_path, providers={"aws": cloud}) as it,
    ):
        digest = registry.add_blob(str(APP), b"layer")
        bucket.add_blob("bucket/key", b"layer")

        def s3(seen: Seen, reply: Reply) -> Reply:
            return Reply(400) if seen.authorization else reply

        bucket.script("*", s3)
        location = f"{bucket.url}/v2/bucket/key/blobs/{digest}?X-Amz-Signature=a%2Fb%3D"
        registry.script("*/blobs/*", redirect(location))
        connection = await it.connect(str(registry.host), provider="aws")
        assert await read_blob(it.client, connection, digest) == b"layer"
        assert len(registry.requests) == 1, "no request without authorization first"
        assert bucket.requests[0].query == {"X-Amz-Signature": ["a/b="]}


async def test_ecr_says_400_when_its_token_has_expired(tmp_path: Path) -> None:
    cloud = CloudProvider(FakeClock(), eager=True)
    body = b'{"errors":[{"code":"DENIED","message":"Your authorization token has expired."}]}'
    async with Registry() as registry, upstream_stack(tmp_path, providers={"aws": cloud}) as it:
        registry.add_image(str(APP), small_image(), "v1")
        connection = await it.connect(str(registry.host), provider="aws")
        registry.script("*", status(400, body), times=1)
        await pull(it, connection)
        assert cloud.exchanged == 2
        registry.script("*", status(400, body))
        with pytest.raises(Upstream, match="token has expired"):
            await pull(it, connection)
        assert cloud.exchanged == 3, "one fresh token, then the registry's own words"


async def test_ecr_pages_its_tags_by_link(tmp_path: Path) -> None:
    async with Registry(page_size=2) as registry, upstream_stack(tmp_path) as it:
        digest = registry.add_image(str(APP), small_image())
        for number in range(5):
            registry.tag(str(APP), f"v{number}", digest)
        registry.absolute_links = True
        connection = await it.connect(str(registry.host))
        pages = [page async for page in it.client.tags(connection, APP)]
        assert pages == [["v0", "v1"], ["v2", "v3"], ["v4"]]


async def test_google_has_its_realm_at_v2_token(tmp_path: Path) -> None:
    cloud = CloudProvider(FakeClock())
    async with TokenServer({"cloud": Account("cloud-1")}) as tokens:
        auth = BearerAuth(tokens, realm="http://europe-docker.pkg.dev/v2/token")

        async with Registry(auth=auth) as registry:

            def at_v2_token(seen: Seen, reply: Reply) -> Reply:
                given = seen.authorization or ""
                good = given == "Basic " + base64.b64encode(b"cloud:cloud-1").decode()
                token = tokens.sign({str(APP): frozenset({"pull"})})
                body = json.dumps({"token": token, "expires_in": 3600}).encode()
                return Reply(200, (), Data(body)) if good else Reply(401)

            registry.script("/v2/token", at_v2_token)
            digest = registry.add_image(str(APP), small_image(), "v1")
            ports = {"europe-docker.pkg.dev": registry.port}
            async with upstream_stack(tmp_path, ports=ports, providers={"google": cloud}) as it:
                connection = await it.connect("europe-docker.pkg.dev", provider="google")
                assert await pull(it, connection) == digest


async def test_a_relative_realm_and_a_relative_location(tmp_path: Path) -> None:
    async with (
        TokenServer({"robot": Account(PASSWORD)}) as tokens,
        Registry(auth=BearerAuth(tokens, realm="/v2/token")) as registry,
        upstream_stack(tmp_path) as it,
    ):
        token = tokens.sign({str(APP): frozenset({"pull"})})
        registry.script("/v2/token", status(200, json.dumps({"token": token}).encode()))
        digest = registry.add_blob(str(APP), b"layer")
        registry.script(f"/v2/{APP}/blobs/{digest}", redirect("../elsewhere"))
        registry.script(f"/v2/{APP}/elsewhere", status(200, b"layer"))
        connection = await it.connect(str(registry.host))
        assert await it.client.blob_size(connection, APP, digest) == 5


async def test_a_registry_that_sends_no_docker_content_digest(tmp_path: Path) -> None:
    async with Registry() as registry, upstream_stack(tmp_path) as it:
        digest = registry.add_image(str(APP), small_image(), "v1")
        registry.script("*", header("Docker-Content-Digest", None))
        connection = await it.connect(str(registry.host))
        assert await pull(it, connection) == digest, "the hash of the bytes is what counts"


async def test_a_redirect_to_another_port_is_another_party(tmp_path: Path) -> None:
    async with (
        Registry(auth=BasicAuth("robot", PASSWORD)) as registry,
        Registry() as storage,
        upstream_stack(tmp_path) as it,
    ):
        digest = storage.add_blob(str(APP), b"layer")
        path = f"/v2/{APP}/blobs/{digest}"
        challenge = registry.auth

        def away(seen: Seen, reply: Reply) -> Reply:
            if challenge.refusal(seen) is not None:
                return reply
            return redirect(storage.url + path)(seen, reply)

        registry.script(path, away)
        connection = await it.connect(str(registry.host))
        assert await read_blob(it.client, connection, digest) == b"layer"
        assert registry.requests[-1].authorization is not None
        assert [seen.authorization for seen in storage.requests] == [None]


async def test_a_redirect_to_another_scheme_is_refused(tmp_path: Path) -> None:
    async with Registry() as registry, Registry() as storage, upstream_stack(tmp_path) as it:
        digest = storage.add_blob(str(APP), b"layer")
        location = storage.url.replace("http:", "ftp:") + f"/v2/{APP}/blobs/{digest}"
        registry.script("*/blobs/*", redirect(location))
        with pytest.raises(Upstream, match="redirect") as caught:
            await it.client.blob_size(await it.connect(str(registry.host)), APP, digest)
        assert caught.value.reason is Reason.UPSTREAM_REFUSED
        assert storage.requests == []
