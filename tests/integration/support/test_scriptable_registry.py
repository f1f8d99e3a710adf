"""The scriptable registry does what it says, seen by a client that is not ours."""

import asyncio
import hashlib

import aiohttp
import pytest

from facade.oci.digest import Digest
from tests.support.image import add_referrer, docker_form, small_image
from tests.support.misbehaviour import (
    chain,
    corrupt,
    drop,
    garbage,
    header,
    ignore_range,
    longer_by,
    rate_limited,
    redirect,
    stall,
    status,
    trickle,
    truncate,
    without_length,
    wrong_bytes,
    wrong_length,
)
from tests.support.raw_http import Repeated
from tests.support.registry import BasicAuth, BearerAuth, Registry
from tests.support.token_server import TokenServer
from tests.support.upstream_client import APP

DATA = bytes(range(256)) * 40


async def get(url: str, **headers: str) -> tuple[int, bytes, dict[str, str]]:
    async with (
        aiohttp.ClientSession(auto_decompress=False) as session,
        session.get(url, headers=headers, allow_redirects=False) as response,
    ):
        return (
            response.status,
            await response.read(),
            {str(name): value for name, value in response.headers.items()},
        )


async def test_it_serves_what_it_holds_and_notes_who_asked() -> None:
    image = small_image()
    async with Registry() as registry:
        registry.add_image("org/app", image, "v1")
        for path, data in (
            *((f"manifests/{digest}", data) for digest, (_, data) in image.manifests.items()),
            *((f"blobs/{digest}", data) for digest, data in image.blobs.items()),
            ("manifests/v1", image.manifests[image.index][1]),
        ):
            code, body, _ = await get(f"{registry.url}/v2/org/app/{path}", X_Test="y")
            assert (code, body) == (200, data)
            assert registry.requests[-1].path == f"/v2/org/app/{path}"
            assert registry.requests[-1].headers["x_test"] == "y"
        assert registry.count("*/blobs/*") == len(image.blobs)
        assert registry.count("*", "HEAD") == 0
        for path in ("/v2/org/app/manifests/v2", "/v2/no/where/blobs/x", "/elsewhere"):
            assert (await get(registry.url + path))[0] == 404
        registry.forget("org/app", image.index)
        assert (await get(f"{registry.url}/v2/org/app/manifests/v1"))[0] == 404


@pytest.mark.parametrize(
    ("wanted", "start", "stop"),
    [("bytes=0-", 0, 10240), ("bytes=100-", 100, 10240), ("bytes=5-9", 5, 10)],
)
async def test_ranges(wanted: str, start: int, stop: int) -> None:
    async with Registry() as registry:
        digest = registry.add_blob("a", DATA)
        url = f"{registry.url}/v2/a/blobs/{digest}"
        code, body, headers = await get(url, Range=wanted)
        assert (code, body) == (206, DATA[start:stop])
        assert headers["Content-Range"] == f"bytes {start}-{stop - 1}/10240"
        assert (await get(url, Range="bytes=10240-"))[0] == 416
        assert (await get(url, **{"Range": wanted, "If-Range": '"other"'}))[0] == 200


async def test_misbehaviours_do_what_their_names_say() -> None:
    async with Registry() as registry:
        digest = registry.add_blob("a", DATA)
        url = f"{registry.url}/v2/a/blobs/{digest}"
        registry.script("*", corrupt(9000), wrong_bytes(b"evil"), longer_by(70_000))
        assert (await get(url))[1] == DATA[:9000] + bytes([DATA[9000] ^ 1]) + DATA[9001:]
        assert (await get(url))[1] == b"evil"
        assert (await get(url))[1] == DATA + bytes(70_000)
        registry.behave()
        too_short = chain(wrong_length(-10), trickle(5000, 0.01))
        registry.script("*", too_short, without_length(), ignore_range())
        assert (await get(url))[1] == DATA[:-10]
        code, body, headers = await get(url)
        assert (code, body) == (200, DATA)
        assert "Content-Length" not in headers
        assert (await get(url, Range="bytes=5-"))[:2] == (200, DATA)
        registry.behave()
        registry.script("*", rate_limited("9"), redirect("/x"), header("ETag", None))
        code, _, headers = await get(url)
        assert (code, headers["Retry-After"]) == (429, "9")
        code, _, headers = await get(url)
        assert (code, headers["Location"]) == (307, "/x")
        assert "ETag" not in (await get(url))[2]
        registry.behave()
        registry.script("*", trickle(1000, 0.001))
        assert (await get(url))[1] == DATA


@pytest.mark.parametrize("cut", [truncate(5000), wrong_length(10)])
async def test_broken_bodies_break(cut: object) -> None:
    async with Registry() as registry:
        digest = registry.add_blob("a", DATA)
        registry.script("*", cut)  # type: ignore[arg-type]  # parametrized
        with pytest.raises(aiohttp.ClientPayloadError):
            await get(f"{registry.url}/v2/a/blobs/{digest}")


async def test_stalls_stall_and_drops_drop() -> None:
    async with Registry() as registry:
        digest = registry.add_blob("a", DATA)
        url = f"{registry.url}/v2/a/blobs/{digest}"
        registry.script("*", stall(100), stall(0))
        for _ in range(2):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(get(url), 0.1)
        registry.behave()
        registry.script("*", drop())
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await get(url)
        registry.behave()
        registry.script("*", garbage())
        with pytest.raises(aiohttp.ClientResponseError):
            await get(url)


async def test_scripts_match_count_and_end() -> None:
    async with Registry() as registry:
        registry.add_blob("a", DATA)
        registry.script("/v2/a/*", chain(status(500), header("X-Both", "yes")), times=1)
        registry.script("/v2/", status(418), method="HEAD")
        code, _, headers = await get(f"{registry.url}/v2/a/blobs/x")
        assert (code, headers["X-Both"]) == (500, "yes")
        assert (await get(f"{registry.url}/v2/a/blobs/x"))[0] == 404
        assert (await get(f"{registry.url}/v2/"))[0] == 200
        async with aiohttp.ClientSession() as session, session.head(registry.url + "/v2/") as head:
            assert head.status == 418


async def test_a_repeated_blob_is_its_bytes() -> None:
    block = b"0123456789" * 100
    assert b"".join(Repeated(block, 5).blocks(990, 2010)) == (block * 5)[990:2010]
    async with Registry() as registry:
        digest, size = registry.add_repeated_blob("a", block, 300)
        _, body, _ = await get(f"{registry.url}/v2/a/blobs/{digest}")
        assert len(body) == size == 300_000
        assert hashlib.sha256(body).hexdigest() == digest.hex
        assert (await get(f"{registry.url}/v2/a/blobs/{digest}", Range="bytes=299995-"))[1] == (
            b"56789"
        )


async def test_what_it_demands() -> None:
    async with TokenServer(anonymous=frozenset({"a"})) as tokens, Registry() as registry:
        url = f"{registry.url}/v2/a/blobs/{registry.add_blob('a', DATA)}"
        registry.auth = BasicAuth("ann", "pw")
        code, _, headers = await get(url)
        assert (code, headers["WWW-Authenticate"][:5]) == (401, "Basic")
        assert (await get(url, Authorization="Basic YW5uOnB3"))[0] == 200
        registry.auth = BearerAuth(tokens)
        code, _, headers = await get(url)
        assert code == 401
        assert f'realm="{tokens.realm}"' in headers["WWW-Authenticate"]
        assert 'scope="repository:a:pull"' in headers["WWW-Authenticate"]
        for access, expected in (({"a": frozenset({"pull"})}, 200), ({"b": frozenset()}, 401)):
            token = tokens.sign(access)
            assert (await get(url, Authorization=f"Bearer {token}"))[0] == expected
        assert (await get(url, Authorization="Bearer nonsense"))[0] == 401


def test_the_other_forms_of_an_image() -> None:
    image = small_image()
    docker = docker_form(image)
    assert docker.index != image.index
    assert docker.blobs == image.blobs
    assert {media_type.split(".")[1] for media_type, _ in docker.manifests.values()} == {"docker"}
    for digest, (_, data) in docker.manifests.items():
        assert digest.matches(data)
        assert b"vnd.oci." not in data
    signed, digest = add_referrer(image, "application/vnd.test", b"payload")
    assert str(image.index).encode() in signed.manifests[digest][1]
    assert Digest.of(b"payload") in signed.blobs
    assert APP.name == "org/app"
