"""Providers, and a broker over them, before fake clouds: what the tests of clouds share.

Guarantees: the real store, cache, cloud client, token client and providers; the clock is the test's.
The platform offers the AWS keys that the test set, never this machine's.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from facade.clock import Clock
from facade.control.connections.store import ConnectionStore
from facade.control.credentials.broker import TokenBroker
from facade.control.credentials.cache.memory import MemoryTokenCache
from facade.control.credentials.clouds.aws_keys import Keys
from facade.control.credentials.model import Offered, Presented, Provider, StoredSecrets
from facade.control.credentials.providers import Endpoints, ProviderContext, Providers
from facade.control.credentials.providers.aws import AwsProvider
from facade.oci.host import RegistryHost
from facade.secret import Secret
from facade.upstream.addresses import AddressPolicy
from facade.upstream.cloud import CloudAnswer, CloudRequest
from facade.upstream.cloud_client import CloudClient
from facade.upstream.connection import Connection, ConnectionSettings
from facade.upstream.retry import RetryPolicy
from facade.upstream.token_client import TokenClient
from tests.support.broker import Counts
from tests.support.cloud_aws import AccessKey, AwsCloud
from tests.support.cloud_google import GoogleCloud, acme_account
from tests.support.control import fresh_store

ACCOUNT = "123456789012"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/teams/facade-pull"
EXTERNAL_ID = "facade:acme/4711"
ECR = RegistryHost.parse(f"{ACCOUNT}.dkr.ecr.eu-central-1.amazonaws.com")
ARTIFACT_REGISTRY = RegistryHost.parse("europe-docker.pkg.dev")
ALLOW = ("127.0.0.0/8",)


@dataclass
class ScriptedCloudHttp:
    """A `CloudHttp` without a socket: answers in order, and notes what was sent."""

    answers: list[CloudAnswer | Exception] = field(default_factory=list)
    sent: list[CloudRequest] = field(default_factory=list)

    async def send(self, connection: Connection, request: CloudRequest) -> CloudAnswer:
        self.sent.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


@dataclass
class Platform:
    """The keys that the platform offers; None = none."""

    keys: Keys | None = None
    error: Exception | None = None

    async def __call__(self, session: Any) -> Keys | None:
        if self.error is not None:
            raise self.error
        return self.keys


def keys_of(key: AccessKey) -> Keys:
    """A fake's key as the provider's."""
    token = None if key.session_token is None else Secret(key.session_token)
    return Keys(key.id, Secret(key.secret), token)


def aws_config(key: AccessKey | None, **changes: object) -> dict[str, Any]:
    """A config for ROLE (None = left out)."""
    full: dict[str, object] = {"role_arn": ROLE, "region": "eu-central-1"}
    full["external_id"] = EXTERNAL_ID
    if key is not None:
        full |= {"access_key_id": key.id, "secret_access_key": key.secret}
    return {name: value for name, value in (full | changes).items() if value is not None}


@dataclass
class Clouds:
    """Both clouds and everything before them."""

    clock: Clock
    aws: AwsCloud
    google: GoogleCloud
    key: AccessKey
    platform: Platform
    http: CloudClient
    providers: Providers
    store: ConnectionStore
    counts: Counts
    broker: TokenBroker

    async def connect(
        self,
        provider: str,
        config: Mapping[str, Any],
        host: RegistryHost,
        settings: ConnectionSettings | None = None,
    ) -> Connection:
        """Check a config as the API does, and store it sealed."""
        prepared = self.providers.get(provider).prepare(Offered(host, config=config))
        stored = await self.store.add(
            host, provider, prepared, settings or ConnectionSettings(), actor="test"
        )
        return stored.connection

    async def connect_aws(self, host: RegistryHost = ECR, /, **changes: object) -> Connection:
        """A connection with the base key and the external ID that the role wants."""
        return await self.connect("aws", aws_config(self.key, **changes), host)

    async def connect_google(self, host: RegistryHost = ARTIFACT_REGISTRY) -> Connection:
        """A connection with the account's key."""
        return await self.connect("google", acme_account().document(), host)

    async def quiet(self) -> None:
        """Return when no exchange runs, so that a clock that jumps does not jump through one."""
        while self.broker._flights._tasks:  # noqa: ASYNC110 - real sockets and threads, real time
            await asyncio.sleep(0.001)

    async def present(self, connection: Connection) -> Presented:
        """Ask the provider itself, without the broker's cache."""
        provider: Provider = self.providers.get(connection.provider)
        secrets: StoredSecrets = self.store.secrets(connection.id)
        return await provider.credentials(connection, secrets)


@asynccontextmanager
async def clouds(
    folder: Path,
    clock: Clock,
    *,
    google_hosts: frozenset[str] = frozenset(),
    allow: tuple[str, ...] = ALLOW,
    attempts: int = 3,
) -> AsyncIterator[Clouds]:
    """Both clouds running, with a role that the key may assume."""
    async with AsyncExitStack() as stack:
        aws = await stack.enter_async_context(AwsCloud(clock))
        google = await stack.enter_async_context(GoogleCloud([acme_account()], clock))
        key = aws.add_key()
        aws.add_role(ROLE, key, external_id=EXTERNAL_ID)
        retry = RetryPolicy(attempts=attempts, base_seconds=0.01, chance=lambda: 0.0)
        addresses = AddressPolicy(allow)
        http = CloudClient(addresses=addresses, clock=clock, retry=retry)
        stack.push_async_callback(http.close)
        tokens = TokenClient(addresses=addresses, clock=clock, retry=retry)
        stack.push_async_callback(tokens.close)
        context = ProviderContext(
            clock, http, Endpoints(google.token_uri, google_hosts, aws.url, aws.url)
        )
        platform, counts = Platform(), Counts()
        providers = Providers(context, {"aws": AwsProvider(context, platform=platform)})
        store = await stack.enter_async_context(fresh_store(folder, clock))
        broker = TokenBroker(
            connections=store,
            providers=providers,
            tokens=tokens,
            cache=MemoryTokenCache(clock),
            clock=clock,
            chance=lambda: 0.0,
            observer=counts,
        )
        stack.push_async_callback(broker.close)
        store.on_forget(broker.forget)
        yield Clouds(clock, aws, google, key, platform, http, providers, store, counts, broker)
