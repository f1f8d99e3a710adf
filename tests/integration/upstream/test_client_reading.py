"""Reading from a registry that behaves, in every way that registries differ."""

import pytest

from facade.clock import SystemClock
from facade.errors import Integrity, Upstream
from facade.oci.digest import Digest
from facade.oci.manifest import DOCKER_MANIFEST, MANIFEST_MEDIA_TYPES, OCI_INDEX
from facade.oci.reference import Repository, Tag
from facade.reasons import Reason
from facade.secret import Secret
from facade.upstream.connection import Authorization
from facade.upstream.listing import TagPage
from facade.upstream.token import BasicCredentials
from tests.support.authorizers import FixedAuthorizer, TokenAuthorizer
from tests.support.image import add_referrer, small_image
from tests.support.misbehaviour import header, ignore_range, status, without_length
from tests.support.registry import BasicAuth, BearerAuth, Registry
from tests.support.token_server import Account, TokenServer
from tests.support.upstream_client import (
    APP,
    Notes,
    read_blob,
    registry_client,
    token_client,
)

ANN = BasicCredentials("org+robot", Secret("hunter22"))
BLOB = bytes(range(256)) * 3000


async def test_a_fill_is_one_request_once_the_scheme_is_known() -> None:
    notes = Notes()
    async with (
        TokenServer({"org+robot": Account("hunter22")}) as tokens,
        Registry(auth=BearerAuth(tokens)) as registry,
        token_client() as exchange,
        registry_client(
            TokenAuthorizer(exchange, ANN), clock=SystemClock(), observer=notes
        ) as client,
    ):
        digest = registry.add_blob(str(APP), BLOB)
        connection = registry.connection("static")
        assert await read_blob(client, connection, digest) == BLOB
        assert notes.statuses == [401, 200]
        for _ in range(3):
            assert await read_blob(client, connection, digest) == BLOB
        assert notes.statuses == [401, 200, 200, 200, 200]
        assert len(tokens.requests) == 1
        assert registry.connections == 1  # kept alive, over the 401 as well


async def test_basic_is_answered_with_basic() -> None:
    async with (
        Registry(auth=BasicAuth(ANN.username, ANN.password.reveal())) as registry,
        token_client() as exchange,
        registry_client(TokenAuthorizer(exchange, ANN)) as client,
    ):
        await client.ping(registry.connection("static"))
        assert [seen.authorization for seen in registry.requests] == [None, ANN.header.reveal()]


async def test_every_request_asks_for_the_bytes_as_they_are() -> None:
    async with Registry() as registry, registry_client(clock=SystemClock()) as client:
        digest = registry.add_image(str(APP), small_image(), "v1")
        await client.manifest(registry.connection(), APP, digest)
        await read_blob(client, registry.connection(), registry.add_blob(str(APP), b"x"))
        for seen in registry.requests:
            assert seen.headers["accept-encoding"] == "identity"
            assert "cookie" not in seen.headers
        accepted = registry.requests[0].headers["accept"]
        assert accepted.split(", ") == list(MANIFEST_MEDIA_TYPES)


async def test_manifests_by_tag_and_by_digest() -> None:
    image = small_image()
    async with Registry() as registry, registry_client() as client:
        registry.add_image(str(APP), image, "v1")
        by_tag = await client.manifest(registry.connection(), APP, Tag("v1"))
        assert (by_tag.digest, by_tag.media_type) == (image.index, OCI_INDEX)
        by_digest = await client.manifest(registry.connection(), APP, image.index)
        assert by_digest == by_tag
        assert await client.manifest_digest(registry.connection(), APP, Tag("v1")) == image.index
        long = Digest.of(by_tag.data, "sha512")
        registry.add_manifest(str(APP), by_tag.data, OCI_INDEX, digest=long)
        assert (await client.manifest(registry.connection(), APP, long)).digest == long


async def test_a_registry_without_docker_content_digest() -> None:
    image = small_image()
    async with Registry() as registry, registry_client() as client:
        registry.add_image(str(APP), image, "v1")
        registry.script("*", header("Docker-Content-Digest", None))
        fetched = await client.manifest(registry.connection(), APP, Tag("v1"))
        assert fetched.digest == image.index
        assert await client.manifest_digest(registry.connection(), APP, Tag("v1")) is None


async def test_a_claimed_type_is_passed_on_without_parameters() -> None:
    async with Registry() as registry, registry_client() as client:
        registry.add_image(str(APP), small_image(), "v1")
        for claim, read in (
            (f"{DOCKER_MANIFEST.upper()}; charset=utf-8", DOCKER_MANIFEST),
            ("text/html", "text/html"),
            (None, ""),
        ):
            registry.script("*", header("Content-Type", claim), times=1)
            fetched = await client.manifest(registry.connection(), APP, Tag("v1"))
            assert fetched.media_type == read


async def test_wrong_bytes_are_an_integrity_failure() -> None:
    image, other = small_image(), small_image("another")
    async with Registry() as registry, registry_client() as client:
        registry.add_image(str(APP), image, "v1")
        wrong = other.manifests[other.index][1]
        registry.add_manifest(str(APP), wrong, OCI_INDEX, digest=image.index)
        with pytest.raises(Integrity, match="they hash to"):
            await client.manifest(registry.connection(), APP, image.index)
        with pytest.raises(Integrity, match="do not match its own digest"):
            await client.manifest(registry.connection(), APP, Tag("v1"))
        registry.script("*", header("Docker-Content-Digest", "md5:00"))
        with pytest.raises(Integrity):
            await client.manifest(registry.connection(), APP, Tag("v1"))


async def test_blob_sizes() -> None:
    async with Registry() as registry, registry_client() as client:
        digest = registry.add_blob(str(APP), BLOB)
        path = f"/v2/{APP}/blobs/{digest}"
        assert await client.blob_size(registry.connection(), APP, digest) == len(BLOB)
        assert await client.blob_size(registry.connection(), APP, Digest.of(b"none")) is None
        assert registry.count(path, "GET") == 0
        registry.script(path, status(403), without_length())
        for words in ("refused", "does not tell the size"):
            with pytest.raises(Upstream, match=words):
                await client.blob_size(registry.connection(), APP, digest)


async def test_a_transfer_goes_on_where_it_stopped() -> None:
    async with Registry() as registry, registry_client(clock=SystemClock()) as client:
        digest = registry.add_blob(str(APP), BLOB)
        connection = registry.connection()
        async with client.blob(connection, APP, digest) as body:
            assert (body.offset, body.total, body.etag) == (0, len(BLOB), f'"{digest}"')
            etag = body.etag
        async with client.blob(connection, APP, digest, offset=1000, etag=etag) as body:
            assert (body.offset, body.total) == (1000, len(BLOB))
            rest = b"".join([chunk async for chunk in body.chunks()])
            assert rest == BLOB[1000:]
            assert body.received == len(rest)
        assert registry.requests[-1].headers["range"] == "bytes=1000-"
        assert registry.requests[-1].headers["if-range"] == etag
        async with client.blob(connection, APP, digest, offset=1000, etag='"old"') as body:
            assert body.offset == 0  # it has changed: the whole again
        registry.script("*", ignore_range())
        async with client.blob(connection, APP, digest, offset=1000) as body:
            assert (body.offset, body.total) == (0, len(BLOB))


async def test_odd_answers_to_a_range() -> None:
    async with Registry() as registry, registry_client(clock=SystemClock()) as client:
        digest = registry.add_blob(str(APP), BLOB)
        connection = registry.connection()
        async with client.blob(connection, APP, digest, offset=len(BLOB)) as body:
            assert body.offset == 0  # 416, so asked again for the whole
        registry.script("*", header("Content-Range", f"bytes 1000-{len(BLOB) - 1}/*"), times=1)
        async with client.blob(connection, APP, digest, offset=1000) as body:
            assert (body.offset, body.total) == (1000, None)
        for odd in ("bytes 2000-3000/9999", "bytes */5", "lines 1-2/3", None):
            registry.script("*", header("Content-Range", odd), times=1)
            with pytest.raises(Upstream, match="another one"):
                async with client.blob(connection, APP, digest, offset=1000):
                    pytest.fail("it must not open")


async def test_weak_and_odd_etags_are_not_kept() -> None:
    async with Registry() as registry, registry_client(clock=SystemClock()) as client:
        digest = registry.add_blob(str(APP), BLOB)
        for etag in ('W/"x"', "bare", '"a" , "b"', None):
            registry.script("*", header("ETag", etag), times=1)
            async with client.blob(registry.connection(), APP, digest) as body:
                assert body.etag is None


@pytest.mark.parametrize("absolute", [False, True])
async def test_tags_are_read_page_by_page(*, absolute: bool) -> None:
    async with Registry(page_size=2) as registry, registry_client() as client:
        registry.absolute_links = absolute
        digest = registry.add_image(str(APP), small_image())
        for tag in "abcde":
            registry.tag(str(APP), tag, digest)
        pages = [page async for page in client.tags(registry.connection(), APP)]
        assert pages == [["a", "b"], ["c", "d"], ["e"]]
        assert not any(isinstance(page, TagPage) and page.more for page in pages)
        clipped = [page async for page in client.tags(registry.connection(), APP, max_pages=2)]
        assert clipped == [["a", "b"], ["c", "d"]]
        assert [isinstance(page, TagPage) and page.more for page in clipped] == [False, True]
        first = [page async for page in client.tags(registry.connection(), APP, max_seconds=0)]
        assert first == [["a", "b"]]


async def test_a_page_that_links_to_itself_ends() -> None:
    async with Registry() as registry, registry_client() as client:
        registry.add_image(str(APP), small_image(), "v1")
        registry.script("*", header("Link", '<?n=1000>; rel="next"'))
        assert [page async for page in client.tags(registry.connection(), APP)] == [["v1"]]


async def test_no_tags_and_no_tag_list() -> None:
    async with Registry() as registry, registry_client() as client:
        registry.add_blob(str(APP), b"x")
        assert [page async for page in client.tags(registry.connection(), APP)] == [[]]
        for body in (b"<html>", b"[]", b'{"tags": 5}', b"{}"):
            registry.script("*", status(200, body), times=1)
            with pytest.raises(Upstream, match="no tag list"):
                _ = [page async for page in client.tags(registry.connection(), APP)]
        registry.script("*", status(200, b'{"tags": ["ok", 5, "../x", ""]}'))
        assert [page async for page in client.tags(registry.connection(), APP)] == [["ok"]]


async def test_referrers_by_api_and_by_tag() -> None:
    image, digest = add_referrer(small_image(), "application/vnd.test.sbom", b"parts")
    async with Registry() as registry, registry_client() as client:
        registry.add_image(str(APP), image)
        found = await client.referrers(registry.connection(), APP, image.index)
        assert [entry.digest for entry in found.manifests] == [digest]
        index = registry.requests[-1]
        registry.referrers_api = False
        assert (await client.referrers(registry.connection(), APP, image.index)).manifests == ()
        data = (
            b'{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json",'
            b'"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json",'
            b'"digest":"%s","size":%d}]}' % (str(digest).encode(), len(image.manifests[digest][1]))
        )
        registry.add_manifest(str(APP), data, OCI_INDEX, f"sha256-{image.index.hex}")
        found = await client.referrers(registry.connection(), APP, image.index)
        assert [entry.digest for entry in found.manifests] == [digest]
        assert index.headers["accept"] == OCI_INDEX


async def test_referrers_that_are_none() -> None:
    async with Registry() as registry, registry_client() as client:
        image = small_image()
        registry.add_image(str(APP), image)
        html = (("Content-Type", "text/html"),)
        registry.script("*/referrers/*", status(200, b"<html>", html), times=1)
        assert (await client.referrers(registry.connection(), APP, image.index)).manifests == ()
        oci = (("Content-Type", OCI_INDEX),)
        child = next(data for key, (_, data) in image.manifests.items() if key != image.index)
        for body in (b"<html>", b'{"schemaVersion":2}', child):
            registry.script("*/referrers/*", status(200, body, oci), times=1)
            with pytest.raises(Upstream, match="no OCI index"):
                await client.referrers(registry.connection(), APP, image.index)
        registry.script("*/referrers/*", status(403))
        with pytest.raises(Upstream, match="refused the referrers"):
            await client.referrers(registry.connection(), APP, image.index)


async def test_what_is_not_there_is_not_found() -> None:
    async with Registry() as registry, registry_client() as client:
        registry.add_image(str(APP), small_image(), "v1")
        for repository, reference in ((APP, Tag("v2")), (Repository("no/where"), Tag("v1"))):
            with pytest.raises(Upstream) as caught:
                await client.manifest(registry.connection(), repository, reference)
            assert caught.value.reason is Reason.UPSTREAM_NOT_FOUND
            assert caught.value.status == 404
            assert str(registry.host) in caught.value.message
        with pytest.raises(Upstream, match="does not have"):
            await client.manifest_digest(registry.connection(), APP, Tag("v2"))
        with pytest.raises(Upstream, match="does not have"):
            await read_blob(client, registry.connection(), Digest.of(b"none"))


async def test_ghcr_hides_with_403_and_one_fresh_token_is_tried() -> None:
    body = b'{"errors":[{"code":"DENIED","message":"permission_denied: read_package"}]}'
    authorizer = FixedAuthorizer("Bearer old-token", "Bearer new-token")
    async with Registry() as registry, registry_client(authorizer) as client:
        registry.script("*", status(403, body))
        with pytest.raises(Upstream, match="permission_denied: read_package") as caught:
            await client.manifest(registry.connection(), APP, Tag("v1"))
        assert caught.value.status == 403
        assert [seen.authorization for seen in registry.requests] == [
            "Bearer old-token",
            "Bearer new-token",
        ]
        assert [asked.refused for asked in authorizer.asked] == [None, "a1"]


async def test_what_is_known_is_sent_without_asking_until_it_is_refused() -> None:
    authorizer = FixedAuthorizer("Bearer new-token")
    known = Authorization(Secret("Bearer old-token"), "a0")
    async with (
        Registry() as registry,
        registry_client(authorizer, known=lambda *_: known) as client,
    ):
        registry.add_image(str(APP), small_image(), "v1")
        await client.manifest(registry.connection(), APP, Tag("v1"))
        assert authorizer.asked == []
        registry.script("*", status(401), times=1)
        await client.manifest(registry.connection(), APP, Tag("v1"))
        assert [asked.refused for asked in authorizer.asked] == ["a0"]
        assert [seen.authorization for seen in registry.requests] == [
            "Bearer old-token",
            "Bearer old-token",
            "Bearer new-token",
        ]


async def test_ecr_says_400_for_an_expired_token() -> None:
    authorizer = FixedAuthorizer("Basic old", "Basic new")
    async with Registry() as registry, registry_client(authorizer) as client:
        registry.add_image(str(APP), small_image(), "v1")
        registry.script("*", status(400, b"Your Authorization Token has expired"), times=1)
        await client.manifest(registry.connection("aws"), APP, Tag("v1"))
        assert registry.requests[-1].authorization == "Basic new"
