"""Wires the operator wing.

Guarantees: `control_wing` gives a wing that is ready to answer and takes it down in the reverse order,
also when a later step fails. The sealing key and the online signing keys are read here and
handed to the rooms that need them, nowhere else.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from facade.app.background import kept_running
from facade.app.checks import insecure_check, revocations_check
from facade.app.limits import timeouts
from facade.app.tokens import endpoints, for_the_serving_side, token_cache
from facade.app.tracing import Traces, open_traces
from facade.clock import Clock
from facade.config import Settings, parse_listen
from facade.control.api.app import operator_app
from facade.control.api.permissions import Permission
from facade.control.api.services import OperatorServices
from facade.control.apikeys import ApiKeys
from facade.control.audit import AuditTrail
from facade.control.catalog.artifacts import Artifacts
from facade.control.catalog.browse import Browse
from facade.control.catalog.collecting import EVERY_SECONDS, ManifestCollection
from facade.control.catalog.fleets import Fleets
from facade.control.catalog.importer import Importer
from facade.control.catalog.manifests import ClosureManifests
from facade.control.catalog.records import ImportRecords
from facade.control.connections.manage import Connections
from facade.control.connections.rotation import CONNECTIONS, SealingRotation
from facade.control.connections.sealing import KeyRing, Sealer
from facade.control.connections.store import ConnectionStore
from facade.control.credentials.broker import TokenBroker
from facade.control.credentials.providers import ProviderContext, Providers
from facade.control.database.engine import Database
from facade.control.database.migrate import migrate
from facade.control.devices.denylist import WRITE_AGAIN_SECONDS, DenyList
from facade.control.devices.development import DevelopmentPki
from facade.control.devices.service import Devices, issuers_of
from facade.control.port import InProcessControlPort
from facade.control.pulls import PullRecords
from facade.control.signing.ceremony import FleetDelegation
from facade.control.signing.keys import OnlineKeys
from facade.control.signing.publisher import Publisher
from facade.control.signing.schedule import ResignSchedule
from facade.control.signing.status import TrustStatus, trust_status
from facade.errors import Invalid
from facade.observability.health import Check
from facade.observability.metrics import Metrics
from facade.secret import Secret
from facade.upstream.addresses import AddressPolicy
from facade.upstream.client import RegistryClient
from facade.upstream.cloud_client import CloudClient
from facade.upstream.connection import Authorizer
from facade.upstream.token_client import TokenClient
from facade.wings import CachePort, ControlPort


@dataclass(frozen=True, slots=True)
class Offline:
    """Where the offline keys are while they are still on this machine."""

    folder: Path
    passphrase: Path


@dataclass(frozen=True, slots=True)
class ControlWing:
    """What the node needs of the wing.

    Arguments:
        port: what the serving wing may ask.
        on_change: given what to call whenever the port's snapshot may have changed.
        operator_app: makes the operator port's application, which asks the serving wing.
        first_api_key: makes a key with every permission.
        checks: for readiness.
    """

    port: ControlPort
    on_change: Callable[[Callable[[], None]], None]
    traces: Traces
    operator_app: Callable[[CachePort], web.Application]
    api_keys: ApiKeys
    checks: tuple[tuple[str, Check], ...]

    async def first_api_key(self) -> Secret:
        """A key with every permission, for whoever started this."""
        _key, value = await self.api_keys.create(
            "operator", frozenset(Permission), None, actor="facade up"
        )
        return value


@asynccontextmanager
async def control_wing(
    settings: Settings, *, pki: DevelopmentPki, offline: Offline, metrics: Metrics, clock: Clock
) -> AsyncIterator[ControlWing]:
    """The wired wing, running; the timestamp is fresh when it is.

    Raises FacadeError, in words, for a database, key or repository that cannot be used.
    """
    url, key_file = settings.database.url, settings.sealing.key_file
    repository, online = settings.trust.repository, settings.trust.online_keys
    if url is None or key_file is None or repository is None or online is None:
        raise Invalid(
            "The control side needs database.url, sealing.key_file, trust.repository and "
            "trust.online_keys."
        )
    async with AsyncExitStack() as stack:
        await migrate(url)
        database = Database(url)
        stack.push_async_callback(database.close)
        ring = KeyRing.load(key_file)
        store = ConnectionStore(database, Sealer(ring, CONNECTIONS), clock)
        await store.load()
        deny_list = DenyList(database)
        await deny_list.load()

        async def write_revocations() -> None:
            await deny_list.write_behind(clock)

        kept_running(stack, write_revocations, pause=lambda: clock.sleep(WRITE_AGAIN_SECONDS))

        addresses = AddressPolicy(settings.upstream.allow_cidrs)
        limits = timeouts(settings)
        traces = open_traces(stack, settings)
        token_client = TokenClient(
            addresses=addresses, clock=clock, timeouts=limits, watchers=traces.token_watchers
        )
        stack.push_async_callback(token_client.close)
        clouds = CloudClient(addresses=addresses, clock=clock, timeouts=limits)
        stack.push_async_callback(clouds.close)
        providers = Providers(ProviderContext(clock, clouds, endpoints(settings)))
        tokens = await token_cache(stack, settings, ring, metrics, clock)
        broker = TokenBroker(
            connections=store,
            providers=providers,
            tokens=token_client,
            cache=tokens.cache,
            clock=clock,
            observer=metrics,
        )
        stack.push_async_callback(broker.close)
        store.on_forget(broker.forget)

        def client_with(authorizer: Authorizer) -> RegistryClient:
            return RegistryClient(
                authorizer=authorizer,
                addresses=addresses,
                clock=clock,
                timeouts=limits,
                observer=metrics,
            )

        registry = client_with(broker)
        stack.push_async_callback(registry.close)

        keys = OnlineKeys(online)
        publisher = Publisher(repository, keys, clock)

        def trust() -> TrustStatus:
            return trust_status(publisher.repository, keys, offline=offline.folder, clock=clock)

        schedule = ResignSchedule(
            publisher,
            trust,
            clock,
            check_seconds=settings.trust.resign_check_seconds,
            observer=metrics,
        )
        await schedule.start()
        stack.push_async_callback(schedule.stop)

        manifests = ClosureManifests(database, clock)
        collection = ManifestCollection(publisher, manifests, clock)
        kept_running(stack, collection.run, pause=lambda: clock.sleep(EVERY_SECONDS))
        pulls = PullRecords(database)
        port = InProcessControlPort(
            connections=store,
            broker=for_the_serving_side(
                stack, broker, store=store, providers=providers, client_with=client_with
            ),
            manifests=manifests,
            deny_list=deny_list,
            pulls=pulls,
            clock=clock,
            observer=metrics,
            max_events=settings.database.max_waiting,
        )
        port.start()
        stack.push_async_callback(port.close)
        api_keys = ApiKeys(database, clock)
        await api_keys.load()
        sealing = SealingRotation(
            key_file, ring, rows=store, leftovers=database, tokens=tokens.sealed
        )

        def application(cache: CachePort) -> web.Application:
            browse = Browse(store, registry)
            records = ImportRecords(database, clock)
            services = OperatorServices(
                connections=Connections(
                    store=store,
                    providers=providers,
                    broker=broker,
                    registry=registry,
                    tags=browse,
                    addresses=addresses,
                    clock=clock,
                ),
                browse=browse,
                importer=Importer(
                    connections=store,
                    registry=registry,
                    publisher=publisher,
                    manifests=manifests,
                    records=records,
                    cache=cache,
                ),
                artifacts=Artifacts(
                    connections=store,
                    registry=registry,
                    publisher=publisher,
                    manifests=manifests,
                    records=records,
                    pulls=pulls,
                    cache=cache,
                ),
                fleets=Fleets(
                    FleetDelegation(
                        repository,
                        online,
                        clock,
                        offline=offline.folder,
                        passphrase_file=offline.passphrase,
                    ),
                    lambda: trust().roles,
                ),
                devices=Devices(
                    deny_list,
                    authority=pki.device_authority(),
                    server_ca=pki.server_ca.read_text(),
                    trust_domain=settings.device.trust_domain,
                    fleets=publisher.fleets,
                    clock=clock,
                    issuers=[
                        issuer
                        for ca in settings.device.ca
                        for issuer in issuers_of(ca.file.read_bytes())
                    ],
                ),
                trust=trust,
                cache=cache,
                audit=AuditTrail(database, clock),
                pulls=pulls,
                keys=api_keys,
                sealing=sealing,
                clock=clock,
            )
            listen_host, _port = parse_listen(settings.operator.listen)
            return operator_app(
                services, listen_host=listen_host, hosts=settings.operator.allowed_hosts
            )

        def on_change(tell: Callable[[], None]) -> None:
            store.on_change = deny_list.on_change = tell

        yield ControlWing(
            port=port,
            on_change=on_change,
            traces=traces,
            operator_app=application,
            api_keys=api_keys,
            checks=(
                ("insecure connections", lambda: insecure_check(_insecure(store))),
                ("revocations", lambda: revocations_check(deny_list.unwritten)),
                *tokens.checks,
            ),
        )


def _insecure(store: ConnectionStore) -> list[str]:
    return [str(each.host) for each in store.list() if each.connection.settings.insecure]
