"""The device port as a whole, over real mutual TLS, with everything around it in a test's reach.

Guarantees: every room of the serving wing is the real one (TLS layer, identity, trust on a live signing
repository, blobs on a real folder, upstream client on real sockets); only the control port is a
fake, whose connections, deny list and kept manifests a test changes. The wall clock runs, and
can be set ahead or back. Does not wire what `app.py` wires: that has tests of its own.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

import aiohttp

from facade.app.background import background
from facade.app.limits import upstream_gates
from facade.observability.access import AccessLog
from facade.observability.metrics import Metrics
from facade.oci.host import RegistryHost
from facade.server import KEEP_ALIVE_SECONDS, runner_for
from facade.serving.api.app import DeviceApp, device_app
from facade.serving.blobs.cache import BlobCache
from facade.serving.blobs.local import LocalStore
from facade.serving.blobs.possession import PossessionIndex
from facade.serving.identity.certificate import SpiffeRule
from facade.serving.identity.factory import TlsProtocolFactory, tls_protocol_factory
from facade.serving.identity.tls import DeviceCAFile, TlsContexts, TlsFiles
from facade.serving.pulls.guard import StreamGuard
from facade.serving.pulls.manifests import Manifests
from facade.serving.pulls.reports import BlobEvents, Reports
from facade.serving.pulls.service import PullService
from facade.serving.pulls.sources import Sources
from facade.serving.trust.decision import Authorisation
from facade.serving.trust.refresher import Refresher
from facade.serving.trust.served import MetadataFiles
from facade.serving.trust.verifier import Verifier
from facade.target import SignedTarget
from facade.upstream.addresses import AddressPolicy
from facade.upstream.client import RegistryClient
from facade.upstream.connection import Connection
from tests.support.image import Image
from tests.support.pki import TRUST_DOMAIN, Authority, Leaf, client_context
from tests.support.registry import Registry
from tests.support.resolver import FakeResolver
from tests.support.serving import FakeControl
from tests.support.tuf_repo import RepoSource, TufRepo
from tests.support.tuning import (
    MovableClock,
    Tuning,
    device_rates,
    device_slots,
    path,
    upstream_slots,
)

__all__ = ["FacadeApp", "MovableClock", "Tuning", "path"]


class FacadeApp:
    """The device port; use as an async context manager.

    Arguments:
        folder: everything on disk lies below it; a second instance on the same folder finds it.
        tuf, ca, server_ca: given again to a second instance, for a restart.
    """

    def __init__(
        self,
        folder: Path,
        *,
        tuning: Tuning | None = None,
        tuf: TufRepo | None = None,
        ca: Authority | None = None,
        server_ca: Authority | None = None,
        resolver: FakeResolver | None = None,
    ) -> None:
        self.folder = folder
        self.tuning = tuning or Tuning()
        self.ca = ca or Authority.root("Device CA")
        self.server_ca = server_ca or Authority.root("Server CA")
        self.tuf = tuf or TufRepo(("dev", "other"))
        self.source = RepoSource(self.tuf)
        self.clock = MovableClock()
        self.control = FakeControl()
        self.metrics = Metrics(self.clock)
        self.resolver = resolver
        self.port = 0
        self._stack = AsyncExitStack()
        self._numbers = iter(range(1, 1_000_000))

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        await self._stack.aclose()

    async def _start(self) -> None:
        tuning, clock = self.tuning, self.clock
        self.tls = self._tls()
        reports = Reports(control=self.control, clock=clock, observer=self.metrics)
        self.cache = self._cache(reports)
        self.gates = upstream_gates(self.control, self.metrics, clock)
        upstream = RegistryClient(
            authorizer=self.control,
            addresses=AddressPolicy(tuning.allow_cidrs),
            clock=clock,
            timeouts=tuning.timeouts,
            retry=tuning.retry,
            observer=self.metrics,
            resolver=self.resolver,
            gate=self.gates,
        )
        self._stack.push_async_callback(upstream.close)
        self._stack.push_async_callback(self.cache.close)
        sources = Sources(
            upstream=upstream,
            control=self.control,
            slots=upstream_slots(tuning, clock),
            reports=reports,
            trouble=self.gates.trouble,
        )
        self.manifests = Manifests(
            control=self.control, blobs=self.cache, sources=sources, reports=reports
        )
        self._stack.push_async_callback(self.manifests.close)
        verifier = Verifier(self.tuf.pinned, self.folder / "tuf", self.source, clock)
        self.refresher = Refresher(verifier, clock=clock, refresh_seconds=1, observer=self.metrics)
        authorisation = Authorisation(
            views=self.refresher, manifests=self.manifests, clock=clock, kept=self.manifests.kept
        )
        self._stack.push_async_callback(authorisation.close)
        self.pulls = PullService(
            authorisation=authorisation,
            control=self.control,
            manifests=self.manifests,
            blobs=self.cache,
            sources=sources,
            requests=device_slots(tuning, tuning.requests, self.metrics, clock),
            streams=device_slots(tuning, tuning.streams, self.metrics, clock),
            rates=device_rates(tuning, self.metrics.overload, clock),
        )
        self.guard = StreamGuard(
            judge=self.pulls.judge_running,
            generation=self.pulls.generation(lambda: self.refresher.view().generation),
            clock=clock,
        )
        app = device_app(
            pulls=self.pulls,
            authorities=self.tls,
            metadata=MetadataFiles(verifier.served, self.refresher),
            control=self.control,
            guard=self.guard,
            reports=reports,
            metrics=self.metrics,
            access=AccessLog(),
            clock=clock,
            default_registry=RegistryHost("docker.io"),
            deny_list_max_age=900,
            idle_seconds=KEEP_ALIVE_SECONDS,
        )
        await self.refresher.start()
        self._stack.push_async_callback(self.refresher.stop)
        background(self._stack, self.guard.run())
        await self._listen(app if tuning.lanes else DeviceApp(app.handle))

    def _tls(self) -> TlsContexts:
        server = self.server_ca.server().write(self.folder / "pki", "server")
        ca = self.ca.write(self.folder / "pki", "device-ca.pem")
        files = TlsFiles(server.certificate, server.key, (DeviceCAFile(ca, self.tuning.ca_fleets),))
        return TlsContexts(files, SpiffeRule(TRUST_DOMAIN))

    def _cache(self, reports: Reports) -> BlobCache:
        executor = self._stack.enter_context(ThreadPoolExecutor(4))
        self.store = LocalStore.at(self.folder / "cache", executor)
        self._stack.callback(self.store.close)
        self.index = PossessionIndex.at(self.folder / "cache" / "index.db", self.clock)
        self._stack.push_async_callback(self.index.close)
        return BlobCache(
            store=self.store,
            possession=self.index,
            clock=self.clock,
            executor=executor,
            limits=self.tuning.limits,
            observer=BlobEvents(self.metrics, reports),
        )

    async def _listen(self, app: DeviceApp) -> None:
        self.app, runner = app, runner_for(app.handle)
        await runner.setup()
        self._stack.push_async_callback(runner.cleanup)
        assert runner.server is not None
        self.http_server = runner.server
        factory: TlsProtocolFactory = tls_protocol_factory(
            self.tls.current, app.before(runner.server), hooks=self.metrics, limits=self.tuning.tls
        )
        server = await asyncio.get_running_loop().create_server(factory, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]

        async def stop() -> None:
            server.close()
            factory.abort()
            await server.wait_closed()

        self._stack.push_async_callback(stop)

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}"

    def connect(self, registry: Registry) -> Connection:
        """Connect a registry, if it is not connected yet."""
        known = self.control.current.connections.get(registry.host)
        if known is not None:
            return known
        template = registry.connection()
        connection = replace(template, id=f"c{next(self._numbers)}")
        self.control.connect(connection)
        return connection

    async def sign(
        self,
        registry: Registry,
        repository: str,
        image: Image,
        *,
        fleet: str = "dev",
        version: str = "v1",
        name: str = "app",
        hold: bool = True,
    ) -> SignedTarget:
        """Put an image into the registry, connect that, and sign it, as an import does.

        Arguments:
            hold: whether the registry gets the content.
        """
        self.connect(registry)
        if hold:
            registry.add_image(repository, image)
        media_type, data = image.manifests[image.index]
        place = registry.host.repository(repository)
        if self.tuning.keep_manifests:
            for _, manifest in image.manifests.values():
                self.control.keep(registry.host, place, manifest)
        target = SignedTarget(
            fleet, name, version, image.index, len(data), registry.host, place, media_type
        )
        await self.publish(target)
        return target

    async def publish(self, *targets: SignedTarget) -> None:
        """Sign targets, and have them in use when this returns."""
        self.tuf.publish(*targets)
        await self.refresher.refresh()

    async def withdraw(self, target: SignedTarget) -> None:
        """Sign without it; the refresher finds out by itself."""
        del self.tuf.fleets[target.fleet].targets[target.path]
        self.tuf.publish(fleets=[target.fleet])

    async def settled(self) -> None:
        """Return when no transfer is under way: what was pulled is in the store."""
        async with asyncio.timeout(10):
            while len(self.cache.flights):  # noqa: ASYNC110 - there is no event for it
                await asyncio.sleep(0.002)

    @asynccontextmanager
    async def device(
        self,
        fleet: str = "dev",
        name: str = "kiosk-7",
        *,
        leaf: Leaf | None = None,
        context: ssl.SSLContext | None = None,
    ) -> AsyncIterator[aiohttp.ClientSession]:
        """A client session with a device certificate, relative to the port's URL."""
        context = context or client_context(self.server_ca, leaf or self.ca.device(fleet, name))
        async with aiohttp.ClientSession(
            self.url,
            connector=aiohttp.TCPConnector(ssl=context),
            timeout=aiohttp.ClientTimeout(total=60),
            auto_decompress=False,
        ) as session:
            yield session
