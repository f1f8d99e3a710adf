"""A registry that cannot be had, for every reason there is, against one running `facade up`.

The registry speaks https under a name that the facade finds in a hosts file of its own, and wants
tokens. In each fault what is cached goes on being served, what is not is refused with its reason, the
operator sees why, and the next pull works again without a restart.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from tests.support.misbehaviour import (
    Misbehaviour,
    chain,
    drop,
    rate_limited,
    slow_head,
    status,
    truncate,
)
from tests.support.pki import Authority, Leaf, load_identity, now, server_context
from tests.support.registry import BearerAuth, Registry
from tests.support.stricken import Goods, Stricken, stricken
from tests.support.token_server import TokenServer

pytestmark = [pytest.mark.asyncio(loop_scope="module")]

NAME = "registry.test"
SIZE = 200_000
IMAGES = 80
STORM = 16
OWN_NAMES = """
mount --bind "$1" /etc/hosts && mount --bind "$2" /etc/resolv.conf && shift 2 && exec "$@"
"""


@dataclass
class Scene:
    """The facade, what is cached, what is not, and what can be turned against it."""

    it: Stricken
    tokens: TokenServer
    authority: Authority
    hosts: Path
    cached: Goods
    fresh: Iterator[Goods]

    @property
    def registry(self) -> Registry:
        return self.it.registry

    async def restart_registry(self, leaf: Leaf | None = None) -> None:
        """Break its connections; it comes back, with another certificate if one is given."""
        port = self.registry.port
        await self.registry.stop()
        if leaf is not None:
            assert self.registry.tls is not None
            load_identity(self.registry.tls, leaf)
        await self.registry.start(port)

    async def refused(self, reason: str, expected: int, words: str) -> None:
        """What is not cached is refused with this reason, and the operator reads these words."""
        it = self.it
        before = await it.refusals(reason)
        goods = next(self.fresh)
        got = await it.pull(goods)
        assert (got.status, got.reason) == (expected, reason), got
        assert await it.refusals(reason) == before + 1
        await it.last_error(words)
        await it.pulls(self.cached)
        assert await it.ready() == (200, []), "an upstream's outage takes no node out"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    folder = tmp_path_factory.mktemp("outages")
    authority = Authority.root("Registry CA")
    context = server_context(authority.server(NAME))
    hosts, resolver = folder / "hosts", folder / "resolv.conf"
    hosts.write_text(f"127.0.0.1 localhost {NAME}\n")
    resolver.write_text("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")  # nobody there
    token_context = server_context(authority.server(NAME))
    async with (
        TokenServer(anonymous=None, tls=token_context, name=NAME) as tokens,
        stricken(
            folder,
            registry=Registry(auth=BearerAuth(tokens), tls=context, name=NAME),
            add=("--anonymous", "--ca-file", authority.write(folder)),
            prefix=("unshare", "--mount", "sh", "-c", OWN_NAMES, "sh", str(hosts), str(resolver)),
        ) as it,
    ):
        cached, *fresh = await it.ship(*(f"i{number}" for number in range(IMAGES)), size=SIZE)
        await it.pulls(cached)
        await it.settled()
        yield Scene(it, tokens, authority, hosts, cached, iter(fresh))
        await it.last_error("")


@pytest_asyncio.fixture(loop_scope="module")
async def scene(shared: Scene) -> AsyncIterator[Scene]:
    yield shared
    shared.registry.behave()
    await shared.it.heals(next(shared.fresh))
    await shared.it.pulls(shared.cached)


async def test_a_registry_that_is_not_there(scene: Scene) -> None:
    port = scene.registry.port
    await scene.registry.stop()
    try:
        await scene.refused("upstream-unreachable", 504, "cannot be reached: connection refused")
    finally:
        await scene.registry.start(port)


BROKEN: dict[str, tuple[Misbehaviour, str, int, str]] = {
    "hangs up": (drop(), "upstream-unreachable", 504, "broke the connection"),
    "fails": (
        status(503, b'{"errors":[{"message":"disk on fire"}]}'),
        "upstream-refused",
        502,
        "on fire",
    ),
}


@pytest.mark.parametrize("how", BROKEN)
async def test_a_registry_that_misbehaves(scene: Scene, how: str) -> None:
    change, reason, expected, words = BROKEN[how]
    scene.registry.script("*", change)
    await scene.refused(reason, expected, words)


@pytest.mark.slow
async def test_a_registry_that_never_answers(scene: Scene) -> None:
    scene.registry.script("*/blobs/*", slow_head(60))
    await scene.refused("deadline", 504, "did not answer in time")


async def test_dns_failure(scene: Scene) -> None:
    before = scene.hosts.read_text()
    scene.hosts.write_text("127.0.0.1 localhost\n")  # in place: it is mounted
    try:
        await scene.restart_registry()
        async with asyncio.timeout(30):  # names are remembered for some seconds
            while (got := await scene.it.pull(next(scene.fresh))).status == 200:
                await asyncio.sleep(1)
                await scene.restart_registry()
        assert (got.status, got.reason) == (504, "upstream-unreachable")
        await scene.refused("upstream-unreachable", 504, "its name cannot be resolved")
    finally:
        scene.hosts.write_text(before)


def of_another_ca(scene: Scene) -> Leaf:
    return Authority.root("Another CA").server(NAME)


def for_another_name(scene: Scene) -> Leaf:
    return scene.authority.server("elsewhere.test")


def expired(scene: Scene) -> Leaf:
    from cryptography.x509.oid import ExtendedKeyUsageOID

    ended = now().replace(year=now().year - 1)
    return scene.authority.issue(
        "Test server",
        hosts=(NAME,),
        usages=(ExtendedKeyUsageOID.SERVER_AUTH,),
        not_before=ended.replace(year=ended.year - 1),
        not_after=ended,
    )


@pytest.mark.parametrize("leaf", [of_another_ca, for_another_name, expired])
async def test_tls_failure(scene: Scene, leaf: Callable[[Scene], Leaf]) -> None:
    await scene.restart_registry(leaf(scene))
    try:
        asked = scene.registry.count()
        await scene.refused("upstream-unreachable", 504, "certificate that cannot be verified")
        assert scene.registry.count() == asked, "nothing was sent to a registry that is not it"
    finally:
        await scene.restart_registry(scene.authority.server(NAME))


async def test_the_token_service_is_down(scene: Scene) -> None:
    scene.tokens.revoke_all()
    port = scene.tokens.port
    await scene.tokens.stop()
    try:
        await scene.refused("upstream-unreachable", 504, "cannot be reached")
    finally:
        await scene.tokens.start(port)


@pytest.mark.parametrize(
    ("code", "reason", "expected"),
    [(503, "upstream-refused", 502), (401, "upstream-refused", 502)],
)
async def test_the_token_service_is_in_a_bad_mood(
    scene: Scene, code: int, reason: str, expected: int
) -> None:
    scene.tokens.revoke_all()
    scene.tokens.manner.status = code
    try:
        await scene.refused(reason, expected, "bad mood")
    finally:
        scene.tokens.manner.status = None


async def test_a_429_storm(scene: Scene) -> None:
    """Many devices want what is not cached, and the registry limits each request."""
    it = scene.it
    scene.registry.script("*", rate_limited("1"))
    asked = scene.registry.count()
    before = await it.refusals("upstream-rate-limited")
    refused = asyncio.gather(*(it.pull(next(scene.fresh)) for _ in range(STORM)))
    while not refused.done():
        await it.pulls(scene.cached)
        await asyncio.sleep(0.05)
    for got in await refused:
        assert (got.status, got.reason) == (429, "upstream-rate-limited")
        assert int(got.headers["Retry-After"]) >= 1
    assert await it.refusals("upstream-rate-limited") == before + STORM
    assert scene.registry.count() - asked <= 2 * STORM, "the storm stops here"
    await it.last_error("limits the rate of requests (429)")
    assert await it.ready() == (200, [])


async def test_a_429_in_the_middle_of_a_blob_is_waited_for(scene: Scene) -> None:
    goods = next(scene.fresh)
    pattern = f"*/blobs/{goods.layer}"
    scene.registry.script(pattern, truncate(SIZE // 2), rate_limited("1"), chain())
    await scene.it.pulls(goods)
    assert scene.registry.seen(pattern)[-1].headers["range"] == f"bytes={SIZE // 2}-"


async def test_cached_content_is_served_with_the_upstream_down(scene: Scene) -> None:
    it, port = scene.it, scene.registry.port
    hits = await it.metric("facade_cache_requests_total", outcome="hit")
    asked, tokens = scene.registry.count(), len(scene.tokens.requests)
    await scene.registry.stop()
    await scene.tokens.stop()
    try:
        for _ in range(3):
            await it.pulls(scene.cached)
    finally:
        await scene.registry.start(port)
        await scene.tokens.start(scene.tokens.port)
    assert await it.metric("facade_cache_requests_total", outcome="hit") == hits + 3
    assert (scene.registry.count(), len(scene.tokens.requests)) == (asked, tokens)


async def test_cached_content_is_served_while_the_upstream_limits_the_rate(scene: Scene) -> None:
    asked = scene.registry.count()
    scene.registry.script("*", rate_limited("7"))  # longer than it is waited for here
    for _ in range(3):
        await scene.it.pulls(scene.cached)
    assert scene.registry.count() == asked
    got = await scene.it.pull(next(scene.fresh))
    assert (got.status, got.reason) == (429, "upstream-rate-limited")
    assert int(got.headers["Retry-After"]) > 5
