"""Traces of a running `facade up`, as a collector receives them over OTLP/HTTP."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from tests.support.facade_process import FacadeProcess, run
from tests.support.live import PASSWORD, REPOSITORY, Live, live
from tests.support.otlp import Collector, Received, collector
from tests.support.traffic import UNSIGNED, Traffic

SERVER, CLIENT, ERROR = 2, 3, 2
DEVICE_TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = f"00-{DEVICE_TRACE}-00f067aa0ba902b7-01"

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]


@dataclass(frozen=True)
class Traced:
    """A facade that sends traces, and who receives them."""

    it: Live
    collector: Collector
    path: str


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def traced(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Traced]:
    folder = tmp_path_factory.mktemp("tracing")
    async with collector() as receiver:
        env = {
            "FACADE_TRACING__ENDPOINT": receiver.url,
            "FACADE_TRACING__SAMPLE_RATIO": "1",
            "OTEL_EXPORTER_OTLP_HEADERS": "x-collector-key=canary-collector",
        }
        async with live(folder, env=env) as it:
            await it.add()
            await it.import_all()
            traffic = Traffic(it)
            it.tokens.revoke_all()  # so that the first pull needs a new one
            cold = traffic.path("blobs", traffic.largest("v1"))
            for path in (cold, cold, traffic.path("manifests", UNSIGNED)):
                await ask(it, path)
            await receiver.until("GET blobs", "GET manifests", "fetch blob", "GET upstream")
            async with asyncio.timeout(20):  # the control side sends its own, later
                while not any(  # noqa: ASYNC110 - another process's doing is no event of ours
                    span.parent for span in receiver.named("GET token service")
                ):
                    await asyncio.sleep(0.1)
            yield Traced(it, receiver, cold)


async def ask(it: Live, path: str) -> int:
    """A request with a `traceparent` of the device's own."""
    return (await it.get(path, {"traceparent": TRACEPARENT, "tracestate": "evil=1"})).status


def children(traced: Traced, parent: Received) -> list[Received]:
    return [span for span in traced.collector.spans if span.parent == parent.id]


async def test_a_request_is_a_trace_down_to_the_registry(traced: Traced) -> None:
    request = next(span for span in traced.collector.named("GET blobs") if cached(span) == "miss")
    assert (request.kind, request.parent, request.status) == (SERVER, "", 0)
    assert request.facts["http.response.status_code"] == 200
    assert request.facts["facade.repository"] == REPOSITORY
    names = {span.name for span in traced.collector.spans if span.trace == request.trace}
    assert names >= {"decide", "open blob", "stream blob", "fetch blob", "ask for blob"}
    assert {span.name for span in children(traced, request)} >= {"decide", "open blob"}
    asked = [span for span in traced.collector.named("GET upstream") if span.trace == request.trace]
    assert asked
    assert all(span.kind == CLIENT for span in asked)


async def test_the_token_service_is_part_of_the_trace_and_is_told_nothing_of_it(
    traced: Traced,
) -> None:
    """Another process asks it: the worker's trace goes on there."""
    request = next(span for span in traced.collector.named("GET blobs") if cached(span) == "miss")
    authorized = [
        span for span in traced.collector.named("authorize") if span.trace == request.trace
    ]
    assert {span.facts["facade.host"] for span in authorized} == {traced.it.host}
    within = [
        span
        for span in traced.collector.named("GET token service")
        if span.parent in {span.id for span in authorized}
    ]
    assert {span.trace for span in within} == {request.trace}
    assert within[0].kind == CLIENT
    assert within[0].facts["http.response.status_code"] == 200
    assert traced.it.tokens.requests
    for seen in traced.it.tokens.requests:
        assert not {"traceparent", "tracestate"} & {name.lower() for name in seen.headers}


async def test_the_registry_is_given_the_context(traced: Traced) -> None:
    digest = traced.path.rpartition("/")[2]
    (seen, *_) = traced.it.registry.seen(f"*/blobs/{digest}")
    version, trace, span, flags = seen.headers["traceparent"].split("-")
    assert version == "00"
    assert int(flags, 16) & 1  # sampled; the other bits say how the id was made
    sent = [one for one in traced.collector.named("GET upstream") if one.id == span]
    assert [one.trace for one in sent] == [trace]


async def test_a_hit_asks_nobody(traced: Traced) -> None:
    request = next(span for span in traced.collector.named("GET blobs") if cached(span) != "miss")
    names = {span.name for span in traced.collector.spans if span.trace == request.trace}
    assert not names & {"fetch blob", "GET upstream"}


async def test_a_refusal_says_why(traced: Traced) -> None:
    (request,) = traced.collector.named("GET manifests")
    assert request.status == ERROR
    assert request.facts["facade.reason"] == "not-signed"
    (decided,) = (span for span in children(traced, request) if span.name == "decide")
    assert decided.status == ERROR


async def test_what_a_device_says_of_traces_is_not_believed(traced: Traced) -> None:
    assert DEVICE_TRACE not in {span.trace for span in traced.collector.spans}
    assert all(
        "evil" not in (seen.headers.get("tracestate") or "") for seen in traced.it.registry.requests
    )


async def test_the_request_id_leads_to_the_log_and_the_device_is_not_named(traced: Traced) -> None:
    request = traced.collector.named("GET manifests")[0]
    lines = [json.loads(line) for line in traced.it.facade.log.splitlines() if "kiosk-1" in line]
    assert request.facts["facade.request_id"] in {line["request_id"] for line in lines}
    assert b"kiosk-1" not in b"".join(traced.collector.raw)


async def test_no_secret_and_no_url_is_in_them(traced: Traced) -> None:
    sent = b"".join(traced.collector.raw)
    tokens = {
        seen.authorization.split()[-1].encode()
        for seen in traced.it.registry.requests
        if seen.authorization
    }
    assert tokens
    for secret in (PASSWORD.encode(), *tokens, b"canary-collector", b"http://", b"/v2/", b"Bearer"):
        assert secret not in sent
    assert "canary-collector" not in traced.it.facade.log


async def test_a_device_may_be_believed_where_that_is_configured(tmp_path: Path) -> None:
    async with collector() as receiver:
        env = {
            "FACADE_TRACING__ENDPOINT": receiver.url,
            "FACADE_TRACING__ACCEPT_FROM_DEVICES": "true",
            "FACADE_TRACING__SAMPLE_RATIO": "0.000001",  # its own word counts, not the dice
        }
        async with live(tmp_path, env=env) as it:
            assert await ask(it, "/whoami") == 200
            await receiver.until("GET whoami")
            (span,) = receiver.named("GET whoami")
            assert (span.trace, span.parent) == (DEVICE_TRACE, TRACEPARENT.split("-")[2])


async def test_a_collector_that_is_away_holds_nothing_up(tmp_path: Path) -> None:
    env = {
        "FACADE_TRACING__ENDPOINT": "http://127.0.0.1:9/v1/traces",
        "FACADE_TRACING__SAMPLE_RATIO": "1",
    }
    async with live(tmp_path, env=env) as it:
        for _ in range(5):
            assert await ask(it, "/whoami") == 200
        assert await it.facade.stop() == 0


async def test_without_it_nothing_of_it_is_imported() -> None:
    words = (
        "import sys, facade.app.serving; print([m for m in sys.modules if 'opentelemetry' in m])"
    )
    ran = await run(sys.executable, "-c", words)
    assert ran.stdout.strip() == "[]", ran


async def test_a_url_with_credentials_is_refused(tmp_path: Path) -> None:
    facade = FacadeProcess(tmp_path, env={"FACADE_TRACING__ENDPOINT": "https://u:hunter22@c/v1"})
    with pytest.raises(AssertionError, match="OTEL_EXPORTER_OTLP_HEADERS") as caught:
        await facade.start()
    assert "hunter22" not in str(caught.value)


def cached(span: Received) -> str:
    return str(span.facts.get("facade.cache", ""))
