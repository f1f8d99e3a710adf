"""The table of refusals of the device port, over real mutual TLS: status, code, reason, words."""

import asyncio
import datetime as dt
import json
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from facade.oci.digest import Digest
from facade.target import SignedTarget
from facade.wings import Pulled
from tests.support.facade_app import FacadeApp, Tuning, path
from tests.support.image import small_image
from tests.support.misbehaviour import Misbehaviour, rate_limited, redirect, stall, status
from tests.support.pki import Authority, Leaf, client_context, now, spiffe
from tests.support.registry import Registry

IMAGE = small_image()
LAYER = max(IMAGE.blobs, key=lambda digest: len(IMAGE.blobs[digest]))
UNKNOWN = Digest.of(b"signed by nobody")
DAY = 86_400.0


@dataclass
class Bench:
    facade: FacadeApp
    registry: Registry
    target: SignedTarget

    def at(self, kind: str, digest: Digest | str, repository: str = "org/app") -> str:
        return path(self.registry, repository, kind, digest)

    async def ask(self, url: str, method: str = "GET", **who: Any) -> "Answer":
        async with self.facade.device(**who) as kiosk, kiosk.request(method, url) as answer:
            return Answer(answer.status, dict(answer.headers), await answer.read())


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def error(self) -> dict[str, Any]:
        (error,) = json.loads(self.body)["errors"]
        assert set(error) == {"code", "message", "detail"}
        assert set(error["detail"]) == {"reason", "request_id"}
        assert len(error["detail"]["request_id"]) == 16
        return dict(error)

    @property
    def verdict(self) -> tuple[int, str, str]:
        error = self.error
        return self.status, error["code"], error["detail"]["reason"]


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with FacadeApp(tmp_path) as facade, Registry() as registry:
        yield Bench(facade, registry, await facade.sign(registry, "org/app", IMAGE))


NOT_SIGNED = (403, "DENIED", "not-signed")


async def test_a_digest_that_nobody_signed(bench: Bench) -> None:
    for kind in ("manifests", "blobs", "referrers"):
        answer = await bench.ask(bench.at(kind, UNKNOWN))
        assert answer.verdict == NOT_SIGNED
        assert "not signed for this device's fleet" in answer.error["message"]
    assert bench.registry.requests == []


async def test_signed_for_another_fleet_or_for_nobody_is_one_and_the_same_answer(
    bench: Bench,
) -> None:
    other = small_image("the other fleet's")
    await bench.facade.sign(bench.registry, "org/app", other, fleet="other")
    foreign = await bench.ask(bench.at("manifests", other.index))
    unknown = await bench.ask(bench.at("manifests", UNKNOWN))
    assert foreign.verdict == unknown.verdict == NOT_SIGNED
    assert foreign.error["message"] == unknown.error["message"]
    assert foreign.headers.keys() == unknown.headers.keys()
    for blob in other.blobs:
        if blob not in IMAGE.blobs:
            assert (await bench.ask(bench.at("blobs", blob))).verdict == NOT_SIGNED
    mine = await bench.ask(bench.at("manifests", other.index), fleet="other")
    assert mine.status == 200


async def test_signed_for_another_repository(bench: Bench) -> None:
    bench.registry.add_image("org/twin", IMAGE)
    answer = await bench.ask(bench.at("manifests", IMAGE.index, "org/twin"))
    assert answer.verdict == NOT_SIGNED


async def test_a_fleet_that_nobody_delegated_to(bench: Bench) -> None:
    answer = await bench.ask(bench.at("manifests", IMAGE.index), fleet="ghosts")
    assert answer.verdict == NOT_SIGNED


@pytest.mark.parametrize(("kind", "digest"), [("manifests", LAYER), ("blobs", IMAGE.index)])
async def test_a_layer_as_a_manifest_and_the_other_way_round(
    bench: Bench, kind: str, digest: Digest
) -> None:
    assert (await bench.ask(bench.at(kind, digest))).verdict == NOT_SIGNED


async def test_an_unsigned_digest_of_an_unconnected_host_is_unsigned(bench: Bench) -> None:
    answer = await bench.ask(f"/v2/quay.io/org/app/manifests/{UNKNOWN}")
    assert answer.verdict == NOT_SIGNED


@pytest.mark.parametrize("warm", [False, True])
async def test_signed_but_the_host_is_not_connected(bench: Bench, *, warm: bool) -> None:
    if warm:
        assert (await bench.ask(bench.at("blobs", LAYER))).status == 200
        await bench.facade.settled()
    bench.facade.control.disconnect(bench.registry.host)
    for kind, digest in (("manifests", IMAGE.index), ("blobs", LAYER)):
        answer = await bench.ask(bench.at(kind, digest))
        assert answer.verdict == (403, "DENIED", "host-not-connected")
        assert "facade registry add" in answer.error["message"]


async def test_a_tag_is_refused_in_words(bench: Bench) -> None:
    answer = await bench.ask(bench.at("manifests", "latest"))
    assert answer.verdict == (403, "DENIED", "by-tag")
    assert "Pull by digest" in answer.error["message"]
    assert bench.registry.requests == []


@pytest.mark.parametrize("url", ["/v2/_catalog", "/v2/ghcr.io/org/app/tags/list"])
async def test_lists_are_refused(bench: Bench, url: str) -> None:
    answer = await bench.ask(url)
    assert answer.verdict == (403, "DENIED", "listing")
    assert "Pull by digest" in answer.error["message"]


@pytest.mark.parametrize(
    ("url", "verdict"),
    [
        ("/v2/ghcr.io/org/app/manifests/sha256:abc", (400, "DIGEST_INVALID", "digest-invalid")),
        (f"/v2/ghcr.io/org/app/blobs/{UNKNOWN.hex}", (400, "DIGEST_INVALID", "digest-invalid")),
        (
            f"/v2/ghcr.io/org/app/blobs/sha256:{UNKNOWN.hex.upper()}",
            (400, "DIGEST_INVALID", "digest-invalid"),
        ),
        (f"/v2/ghcr.io/Org/App/manifests/{UNKNOWN}", (400, "NAME_INVALID", "name-invalid")),
        (f"/v2/ghcr.io/manifests/{UNKNOWN}", (400, "NAME_INVALID", "name-invalid")),
        (f"/v2/org/app/manifests/{UNKNOWN}?ns=a%20b", (400, "NAME_INVALID", "name-invalid")),
        ("/v2/x", (404, "NAME_UNKNOWN", "not-found")),
        ("/v1/_ping", (404, "NAME_UNKNOWN", "not-found")),
        ("/", (404, "NAME_UNKNOWN", "not-found")),
    ],
)
async def test_malformed_requests(bench: Bench, url: str, verdict: tuple[int, str, str]) -> None:
    assert (await bench.ask(url)).verdict == verdict


@pytest.mark.parametrize("method", ["PUT", "POST", "PATCH", "DELETE", "OPTIONS"])
@pytest.mark.parametrize("tail", ["blobs/uploads/", "manifests/latest", f"blobs/{UNKNOWN}"])
async def test_nothing_can_be_pushed(bench: Bench, method: str, tail: str) -> None:
    answer = await bench.ask(f"/v2/ghcr.io/org/app/{tail}", method)
    assert answer.verdict == (405, "UNSUPPORTED", "unsupported")
    assert answer.headers["Allow"] == "GET, HEAD"


async def test_a_push_with_a_body_is_refused_before_it_is_read(bench: Bench) -> None:
    async with (
        bench.facade.device() as kiosk,
        kiosk.put("/v2/ghcr.io/org/app/manifests/x", data=b"x" * 100_000) as answer,
    ):
        assert answer.status == 405


async def test_a_head_is_refused_with_the_same_status_and_no_body(bench: Bench) -> None:
    answer = await bench.ask(bench.at("manifests", UNKNOWN), "HEAD")
    assert (answer.status, answer.body) == (403, b"")


# Who may come in.

STRANGERS: dict[str, Callable[[Authority], Leaf]] = {
    "no SPIFFE ID": lambda ca: ca.device(uris=()),
    "two of them": lambda ca: ca.device(uris=(spiffe("dev", "a"), spiffe("dev", "b"))),
    "another trust domain": lambda ca: ca.device(trust_domain="evil.example"),
    "a reserved fleet": lambda ca: ca.device(uris=(spiffe("root", "a"),)),
    "a fleet that its CA may not name": lambda ca: ca.device("hospital", "a"),
}


@pytest.mark.parametrize("who", STRANGERS)
async def test_a_certificate_without_a_proper_identity(tmp_path: Path, who: str) -> None:
    async with FacadeApp(tmp_path, tuning=Tuning(ca_fleets=("dev", "other"))) as facade:
        leaf = STRANGERS[who](facade.ca)
        async with facade.device(leaf=leaf) as stranger:
            async with stranger.get("/v2/") as answer:
                assert (answer.status, await answer.read()) == (200, b"{}")
            for url in (
                f"/v2/ghcr.io/org/app/manifests/{UNKNOWN}",
                f"/v2/ghcr.io/org/app/blobs/{UNKNOWN}",
                "/v2/ghcr.io/org/app/manifests/latest",
                "/tuf/timestamp.json",
                f"/targets/dev/app/{UNKNOWN.hex}.v1",
                "/whoami",
            ):
                async with stranger.get(url) as answer:
                    found = Answer(answer.status, {}, await answer.read())
                assert found.verdict == (403, "DENIED", "identity")


async def test_a_revoked_device_is_told_so_everywhere_but_at_the_ping(bench: Bench) -> None:
    async with bench.facade.device() as kiosk:  # the connection is open before it is revoked
        async with kiosk.get(bench.at("manifests", IMAGE.index)) as answer:
            assert answer.status == 200
        bench.facade.control.revoke("dev", "kiosk-7", bench.facade.clock.time())
        async with kiosk.get("/v2/") as answer:
            assert answer.status == 200
        for url in (
            bench.at("manifests", IMAGE.index),
            bench.at("manifests", "latest"),
            bench.at("blobs", LAYER),
            "/tuf/timestamp.json",
            "/whoami",
        ):
            async with kiosk.get(url) as answer:
                found = Answer(answer.status, {}, await answer.read())
            assert found.verdict == (403, "DENIED", "device-revoked")
            assert "revoked by the operator" in found.error["message"]
    neighbour = await bench.ask(bench.at("manifests", IMAGE.index), name="kiosk-8")
    assert neighbour.status == 200
    refused = [e for e in bench.facade.control.events if isinstance(e, Pulled) and e.reason]
    assert {event.reason for event in refused} == {"device-revoked"}
    assert {event.device for event in refused} == {"dev/kiosk-7"}


async def test_a_restored_device_needs_a_new_certificate(bench: Bench) -> None:
    old = bench.facade.ca.device()
    bench.facade.control.revoke("dev", "kiosk-7", bench.facade.clock.time() - 60)
    new = bench.facade.ca.device(not_before=now())
    url = bench.at("manifests", IMAGE.index)
    assert (await bench.ask(url, leaf=old)).verdict == (403, "DENIED", "device-revoked")
    assert (await bench.ask(url, leaf=new)).status == 200


async def test_a_certificate_that_ends_while_its_connection_is_open(bench: Bench) -> None:
    short = bench.facade.ca.device(not_after=now() + dt.timedelta(hours=1))
    async with bench.facade.device(leaf=short) as kiosk:
        async with kiosk.get("/whoami") as answer:
            assert answer.status == 200
        bench.facade.clock.offset = 2 * 3600
        async with kiosk.get("/whoami") as answer:
            found = Answer(answer.status, {}, await answer.read())
    assert found.verdict == (403, "DENIED", "identity")
    assert "expired" in found.error["message"]


@pytest.mark.parametrize(
    ("who", "alert"),
    [
        ("nobody", "CERTIFICATE_REQUIRED"),
        ("a stranger", "UNKNOWN_CA"),
        ("expired", "CERTIFICATE_EXPIRED"),
        ("a server", "CERTIFICATE"),
    ],
)
async def test_the_alert_names_what_is_wrong(bench: Bench, who: str, alert: str) -> None:
    facade = bench.facade
    leaves = {
        "nobody": None,
        "a stranger": Authority.root("Another CA").device(),
        "expired": facade.ca.expired_device(),
        "a server": facade.ca.server("localhost"),
    }
    context = client_context(facade.server_ca, leaves[who])
    async with facade.device(context=context) as session:
        with pytest.raises((aiohttp.ClientError, ssl.SSLError)) as problem:
            async with session.get("/v2/"):
                pass
    assert alert in repr(problem.value)


# What cannot be decided.


@pytest.mark.parametrize(
    ("offset", "reason"), [(2 * DAY, "metadata-expired"), (-2 * DAY, "clock-set-back")]
)
async def test_metadata_that_is_not_fresh(bench: Bench, offset: float, reason: str) -> None:
    assert (await bench.ask(bench.at("manifests", IMAGE.index))).status == 200
    leaf = bench.facade.ca.device(not_before=now() - dt.timedelta(days=9))
    bench.facade.clock.offset = offset
    for url in (bench.at("manifests", IMAGE.index), bench.at("blobs", UNKNOWN)):
        answer = await bench.ask(url, leaf=leaf)
        assert answer.verdict == (503, "UNAVAILABLE", reason)
        assert int(answer.headers["Retry-After"]) > 0
    assert (await bench.ask("/tuf/timestamp.json", leaf=leaf)).status == 200


async def test_no_metadata_yet(tmp_path: Path) -> None:
    facade = FacadeApp(tmp_path)
    facade.source.failing["timestamp.json"] = OSError("unplugged")
    async with (
        facade,
        facade.device() as kiosk,
        kiosk.get(f"/v2/ghcr.io/a/b/manifests/{UNKNOWN}") as answer,
    ):
        found = Answer(answer.status, dict(answer.headers), await answer.read())
    assert found.verdict == (503, "UNAVAILABLE", "metadata-unavailable")
    assert int(found.headers["Retry-After"]) > 0


async def test_an_undecided_digest_is_503_and_precedes_every_upstream_reason(
    tmp_path: Path,
) -> None:
    tuning = Tuning(keep_manifests=False)
    async with FacadeApp(tmp_path, tuning=tuning) as facade, Registry() as registry:
        await facade.sign(registry, "org/app", IMAGE)
        registry.script("*/manifests/*", status(404))
        bench = Bench(facade, registry, await facade.sign(registry, "org/app", IMAGE, hold=False))
        answer = await bench.ask(bench.at("blobs", LAYER))
        assert answer.verdict == (503, "UNAVAILABLE", "closure-incomplete")
        assert int(answer.headers["Retry-After"]) > 0


async def test_a_defect_of_ours_is_503_with_a_request_id_and_no_details(bench: Bench) -> None:
    bench.facade.control.defect = RuntimeError("hunter2 at /var/lib/facade")
    answer = await bench.ask(bench.at("manifests", IMAGE.index))
    assert answer.verdict == (503, "UNKNOWN", "internal")
    assert b"hunter2" not in answer.body
    assert int(answer.headers["Retry-After"]) > 0
    bench.facade.control.defect = None
    assert (await bench.ask(bench.at("manifests", IMAGE.index))).status == 200


# What goes wrong upstream, once it is allowed.

UPSTREAM: dict[str, tuple[Misbehaviour, tuple[int, str, str]]] = {
    "it does not have it": (status(404), (404, "BLOB_UNKNOWN", "upstream-not-found")),
    "it limits us": (rate_limited("7"), (429, "TOOMANYREQUESTS", "upstream-rate-limited")),
    "it asks for credentials": (
        status(401, headers=(("WWW-Authenticate", 'Basic realm="x"'),)),
        (502, "UNKNOWN", "upstream-refused"),
    ),
    "it forbids": (status(403, b"secret words"), (502, "UNKNOWN", "upstream-refused")),
    "it fails": (status(500, b"secret words"), (502, "UNKNOWN", "upstream-refused")),
}


@pytest.mark.parametrize("what", UPSTREAM)
async def test_an_upstream_that_refuses(bench: Bench, what: str) -> None:
    change, verdict = UPSTREAM[what]
    bench.registry.script("*/blobs/*", change)
    answer = await bench.ask(bench.at("blobs", LAYER))
    assert answer.verdict == verdict
    assert "secret words" not in answer.body.decode()
    assert answer.headers["Cache-Control"] == "no-store"
    if answer.status == 429:
        assert int(answer.headers["Retry-After"]) >= 7
        # It is not asked again before then, unless an operator repairs the connection.
        assert (await bench.ask(bench.at("blobs", LAYER))).status == 429
        assert bench.registry.count("*/blobs/*") == 1
        connection = bench.facade.connect(bench.registry)
        bench.facade.control.connect(replace(connection, revision=2))
    bench.registry.behave()
    assert (await bench.ask(bench.at("blobs", LAYER))).status == 200


async def test_a_manifest_missing_upstream_is_manifest_unknown(tmp_path: Path) -> None:
    tuning = Tuning(keep_manifests=False)
    async with FacadeApp(tmp_path, tuning=tuning) as facade, Registry() as registry:
        bench = Bench(facade, registry, await facade.sign(registry, "org/app", IMAGE, hold=False))
        answer = await bench.ask(bench.at("manifests", IMAGE.index))
    assert answer.verdict == (404, "MANIFEST_UNKNOWN", "upstream-not-found")


async def test_an_upstream_that_is_not_there(tmp_path: Path) -> None:
    async with FacadeApp(tmp_path) as facade:
        async with Registry() as registry:
            bench = Bench(facade, registry, await facade.sign(registry, "org/app", IMAGE))
        answer = await bench.ask(bench.at("blobs", LAYER))
    assert answer.verdict == (504, "UNKNOWN", "upstream-unreachable")


async def test_a_redirect_loop(bench: Bench) -> None:
    bench.registry.script(
        "*/blobs/*", redirect(bench.at("blobs", LAYER).replace(f"/v2/{bench.registry.host}", "/v2"))
    )
    answer = await bench.ask(bench.at("blobs", LAYER))
    assert answer.status in (502, 504)
    assert bench.registry.count() <= 20


async def test_an_address_that_is_not_allowed(tmp_path: Path) -> None:
    tuning = Tuning(allow_cidrs=())
    async with FacadeApp(tmp_path, tuning=tuning) as facade, Registry() as registry:
        bench = Bench(facade, registry, await facade.sign(registry, "org/app", IMAGE))
        answer = await bench.ask(bench.at("blobs", LAYER))
        assert answer.verdict == (504, "UNKNOWN", "upstream-unreachable")
        assert "allow_cidrs" not in answer.body.decode()
        assert registry.connections == 0


async def test_a_redirect_elsewhere_takes_no_authorization_along(bench: Bench) -> None:
    async with Registry(name="localhost") as elsewhere:
        elsewhere.add_blob("org/app", IMAGE.blobs[LAYER])
        bench.registry.script(
            "*/blobs/*", redirect(f"http://127.0.0.1:{elsewhere.port}/v2/org/app/blobs/{LAYER}")
        )
        bench.facade.control.header = "Bearer abc"
        answer = await bench.ask(bench.at("blobs", LAYER))
        assert (answer.status, answer.body) == (200, IMAGE.blobs[LAYER])
        assert [seen.authorization for seen in bench.registry.seen("*/blobs/*")] == ["Bearer abc"]
        assert [seen.authorization for seen in elsewhere.seen()] == [None]


# Overload.


async def test_too_many_at_once_wait_and_then_are_told_to_come_back(tmp_path: Path) -> None:
    tuning = Tuning(requests=2, wait_seconds=0.2)
    async with FacadeApp(tmp_path, tuning=tuning) as facade, Registry() as registry:
        bench = Bench(facade, registry, await facade.sign(registry, "org/app", IMAGE))
        registry.script("*/blobs/*", stall(after=10))
        async with facade.device() as kiosk:
            hanging = [asyncio.create_task(kiosk.get(bench.at("blobs", LAYER))) for _ in range(2)]
            await asyncio.sleep(0.1)
            async with kiosk.get(bench.at("manifests", IMAGE.index)) as answer:
                found = Answer(answer.status, dict(answer.headers), await answer.read())
            assert found.verdict == (503, "UNAVAILABLE", "overloaded")
            assert int(found.headers["Retry-After"]) > 0
            other = await bench.ask(bench.at("manifests", IMAGE.index), name="kiosk-8")
            assert other.status == 200
            for task in hanging:
                task.cancel()
            await asyncio.gather(*hanging, return_exceptions=True)
        async with asyncio.timeout(5):
            # Those who left gave their slots back.
            while facade.pulls.requests.keys:  # noqa: ASYNC110 - there is no event for it
                await asyncio.sleep(0.01)
