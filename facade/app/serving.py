"""Wires the device wing.

Guarantees: `serving_wing` gives a wing that is ready to answer and takes it down in the reverse order,
also when a later step fails. It holds no long-lived secret: what it needs from the control wing
comes through `ControlPort`.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path

from facade.app.background import background, kept_running
from facade.app.checks import cache_check, certificate_check, crl_check, metadata_check
from facade.app.content import open_content
from facade.app.limits import device_rates, timeouts, tls_limits, upstream_gates
from facade.app.tracing import Traces, open_traces
from facade.clock import Clock
from facade.config import Settings
from facade.errors import Invalid, Unavailable
from facade.listening import DRAIN_SECONDS
from facade.observability.access import AccessLog
from facade.observability.health import Check
from facade.observability.lag import measure_lag
from facade.observability.metrics import Metrics
from facade.oci.host import RegistryHost
from facade.server import Handler
from facade.serving.api.app import DeviceApp, device_app
from facade.serving.cache_port import InProcessCachePort
from facade.serving.identity.certificate import identity_rule
from facade.serving.identity.factory import TlsProtocolFactory, tls_protocol_factory
from facade.serving.identity.handshake import HandshakeReason
from facade.serving.identity.journal import HandshakeJournal
from facade.serving.identity.tls import DeviceCAFile, TlsContexts, TlsFiles
from facade.serving.pulls.admission import Slots, device_overloaded, upstream_overloaded
from facade.serving.pulls.guard import INTERVAL_SECONDS, StreamGuard
from facade.serving.pulls.manifests import Manifests
from facade.serving.pulls.reports import BlobEvents, Reports
from facade.serving.pulls.service import PullService
from facade.serving.pulls.sources import Sources
from facade.serving.trust.decision import Authorisation
from facade.serving.trust.fetcher import FolderSource, HttpsSource, Source
from facade.serving.trust.refresher import Refresher
from facade.serving.trust.served import MetadataFiles, ServedFiles
from facade.serving.trust.shared import NodeFiles
from facade.serving.trust.verifier import Verifier
from facade.upstream.addresses import AddressPolicy
from facade.upstream.client import RegistryClient
from facade.upstream.remembered import RememberingAuthorizer
from facade.wings import CachePort, ControlPort


@dataclass(frozen=True, slots=True)
class ServingWing:
    """What the node needs of the wing.

    Arguments:
        app: answers the device port's requests.
        layer: puts our TLS between the socket and aiohttp's protocol.
        cache: what the control wing may ask.
        contexts: TLS material, reloadable.
        drain: ends connections that aiohttp, which ends its own, knows nothing of: idle ones at once, the
            others with what is being sent.
        finish: returns when they have ended; the wing's end waits for that too.
        checks: for readiness.
    """

    app: Handler
    layer: Callable[[Callable[[], asyncio.Protocol]], TlsProtocolFactory]
    cache: CachePort
    contexts: TlsContexts
    drain: Callable[[], None]
    finish: Callable[[], Awaitable[None]]
    checks: tuple[tuple[str, Check], ...]


@asynccontextmanager
async def serving_wing(
    settings: Settings,
    *,
    control: ControlPort,
    metrics: Metrics,
    clock: Clock,
    follow: Callable[[], Awaitable[None]] | None = None,
    others: Sequence[Path] = (),
    traces: Traces | None = None,
) -> AsyncIterator[ServingWing]:
    """The wired wing, running.

    Arguments:
        follow: brings `control`'s snapshot up to date, where that takes a moment.
        others: the folders of verified metadata of this node's other serving processes.
        traces: None = those that the settings ask for.

    Raises Invalid for settings or files that cannot be used. Metadata that cannot be verified
    does not stop the start: pulls are refused and readiness says why.
    """
    async with AsyncExitStack() as stack:
        traces = traces or open_traces(stack, settings)
        reports = Reports(control=control, clock=clock, observer=metrics)
        contexts = TlsContexts(
            _tls_files(settings),
            identity_rule(settings.device.identity, settings.device.trust_domain),
        )
        metrics.watch_certificates(contexts.expiries)
        metrics.expect_handshakes(HandshakeReason)
        refresher, metadata = await _trust(stack, settings, metrics, clock, others)
        gates = upstream_gates(control, metrics, clock)
        authorizer = RememberingAuthorizer(traces.authorizer(control), clock)
        upstream = RegistryClient(
            authorizer=authorizer,
            known=authorizer.known,
            addresses=AddressPolicy(settings.upstream.allow_cidrs),
            clock=clock,
            timeouts=timeouts(settings),
            observer=metrics,
            gate=gates,
            watchers=traces.watchers,
        )
        stack.push_async_callback(upstream.close)
        limits = settings.device.limits
        sources = Sources(
            upstream=traces.upstream(upstream),
            control=control,
            slots=Slots(
                settings.upstream.per_connection.transfers,
                wait_seconds=limits.wait,
                clock=clock,
                refusal=upstream_overloaded,
                observer=metrics,
            ),
            reports=reports,
            trouble=gates.trouble,
        )
        content = await open_content(stack, settings, BlobEvents(metrics, reports), clock)
        blobs = content.blobs
        metrics.watch_cache(content.objects, content.bytes)
        metrics.watch_store(lambda: content.max_bytes, lambda: content.free)
        manifests = Manifests(control=control, blobs=blobs, sources=sources, reports=reports)
        stack.push_async_callback(manifests.close)
        authorisation = Authorisation(
            views=refresher, manifests=manifests, clock=clock, kept=manifests.kept
        )
        stack.push_async_callback(authorisation.close)
        content.wanted = authorisation.reached

        def device_slots(limit: int) -> Slots[tuple[str, str]]:
            return Slots(
                limit,
                wait_seconds=limits.wait,
                clock=clock,
                refusal=device_overloaded,
                observer=metrics,
            )

        pulls = PullService(
            authorisation=traces.authorisation(authorisation),
            control=control,
            manifests=manifests,
            blobs=traces.blobs(blobs),
            sources=sources,
            requests=device_slots(limits.requests),
            streams=device_slots(limits.streams),
            rates=device_rates(settings, metrics, clock),
        )
        metrics.watch_streams(lambda: pulls.streams.total)
        guard = StreamGuard(
            judge=pulls.judge_running,
            generation=pulls.generation(lambda: _generation(refresher)),
            clock=clock,
        )
        access = AccessLog.configured()
        stack.callback(access.flush)
        app = device_app(
            pulls=pulls,
            authorities=contexts,
            metadata=metadata,
            control=control,
            guard=guard,
            reports=reports,
            metrics=metrics,
            access=access,
            clock=clock,
            default_registry=RegistryHost.parse(settings.device.default_registry),
            deny_list_max_age=settings.device.deny_list_max_age,
            idle_seconds=settings.device.limits.idle,
            tracer=traces.requests,
        )
        kept_running(stack, guard.run, pause=lambda: clock.sleep(INTERVAL_SECONDS))
        background(stack, contexts.watch(clock))
        background(stack, measure_lag(clock, metrics))
        cache = InProcessCachePort(
            content=blobs,
            sources=sources,
            keeper=content.keeper,
            refresh=_following(follow, refresher),
            clock=clock,
        )

        async def finish() -> None:
            await app.finish(DRAIN_SECONDS)

        stack.push_async_callback(finish)
        yield ServingWing(
            app=app.handle,
            layer=_layer(settings, app, contexts, metrics, clock),
            cache=cache,
            contexts=contexts,
            drain=app.close,
            finish=finish,
            checks=(
                ("metadata", lambda: metadata_check(refresher.status())),
                ("server certificate", lambda: certificate_check(contexts, clock.time())),
                ("revocation lists", lambda: crl_check(contexts, clock.time())),
                ("cache", lambda: cache_check(content.refuses, content.index_trouble)),
            ),
        )


def _following(
    follow: Callable[[], Awaitable[None]] | None, refresher: Refresher
) -> Callable[[], Awaitable[None]]:
    """Takes up connections, the deny list and metadata, all as they are at the call."""

    async def refresh() -> None:
        if follow is not None:
            await follow()
        await refresher.refresh()

    return refresh


def _tls_files(settings: Settings) -> TlsFiles:
    device = settings.device
    if device.server_cert is None or device.server_key is None or not device.ca:
        raise Invalid(
            "The device port needs device.server_cert, device.server_key and at least one "
            "[[device.ca]]; `facade up` makes them, or name your own."
        )
    cas = tuple(DeviceCAFile(ca.file, ca.fleets, ca.crl, ca.refuse_stale_crl) for ca in device.ca)
    return TlsFiles(device.server_cert, device.server_key, cas)


def _layer(
    settings: Settings, app: DeviceApp, contexts: TlsContexts, metrics: Metrics, clock: Clock
) -> Callable[[Callable[[], asyncio.Protocol]], TlsProtocolFactory]:
    hooks = HandshakeJournal(clock, metrics)

    def layer(server: Callable[[], asyncio.Protocol]) -> TlsProtocolFactory:
        made = tls_protocol_factory(
            contexts.current,
            app.before(server),
            hooks=hooks,
            limits=tls_limits(settings),
            balancers=tuple(map(ip_network, settings.device.proxy_protocol_from)),
        )
        metrics.overload.watch_listener(lambda: made.connections, lambda: made.handshakes)
        return made

    return layer


async def _trust(
    stack: AsyncExitStack,
    settings: Settings,
    metrics: Metrics,
    clock: Clock,
    others: Sequence[Path],
) -> tuple[Refresher, MetadataFiles]:
    trust = settings.trust
    if trust.root is None or trust.source is None or trust.metadata_dir is None:
        raise Invalid("Pulls need trust.root, trust.source and trust.metadata_dir.")
    try:
        root = trust.root.read_bytes()
    except OSError as error:
        raise Invalid(f"The pinned root {trust.root} cannot be read: {error.strerror}.") from error
    source: Source = (
        HttpsSource(trust.source)
        if trust.source.startswith(("https:", "http:"))
        else FolderSource(Path(trust.source))
    )
    verifier = Verifier(root, trust.metadata_dir, source, clock)
    refresher = Refresher(
        verifier, clock=clock, refresh_seconds=trust.refresh_seconds, observer=metrics
    )
    await refresher.start()
    stack.push_async_callback(refresher.stop)
    files = NodeFiles(ServedFiles(trust.metadata_dir), [ServedFiles(each) for each in others])
    return refresher, MetadataFiles(files, refresher)


def _generation(refresher: Refresher) -> object:
    """Changes with every view; without one, running streams are judged again each round."""
    with suppress(Unavailable):
        return refresher.view().generation
    return None
