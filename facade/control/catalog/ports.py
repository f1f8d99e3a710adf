"""What the use cases of the catalog need from outside, as protocols.

`facade.upstream.client.RegistryClient` is a `Registry`, `control.signing.publisher.Publisher` a
`Publisher`, `control.connections.store.ConnectionStore` a `ConnectionLookup`.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from facade.control.connections.model import StoredConnection
from facade.oci.digest import Digest
from facade.oci.host import RegistryHost
from facade.oci.manifest import Index
from facade.oci.reference import Repository, Tag
from facade.target import SignedTarget
from facade.upstream.connection import Connection

Place = tuple[RegistryHost, Repository]
"""Where manifests were imported from."""


class ConnectionLookup(Protocol):
    """Finds connections."""

    def get(self, host: RegistryHost) -> StoredConnection:
        """The connection to `host`. Raises NotFound."""
        ...


class Fetched(Protocol):
    """A manifest that hashes to its digest; `media_type` is the registry's claim."""

    @property
    def data(self) -> bytes: ...
    @property
    def digest(self) -> Digest: ...
    @property
    def media_type(self) -> str: ...


class Body(Protocol):
    """A blob on its way."""

    def chunks(self) -> AsyncIterator[bytes]: ...


class Registry(Protocol):
    """Reads from connected registries. Every method raises Upstream."""

    async def manifest(
        self, connection: Connection, repository: Repository, reference: Digest | Tag
    ) -> Fetched: ...

    async def blob_size(
        self, connection: Connection, repository: Repository, digest: Digest
    ) -> int | None: ...

    def blob(
        self, connection: Connection, repository: Repository, digest: Digest
    ) -> AbstractAsyncContextManager[Body]: ...

    def tags(
        self, connection: Connection, repository: Repository, *, max_pages: int, max_seconds: float
    ) -> AsyncIterator[list[str]]: ...

    async def referrers(
        self, connection: Connection, repository: Repository, digest: Digest
    ) -> Index: ...


class Publisher(Protocol):
    """Signs and withdraws. Synchronous: call it in a thread."""

    def fleets(self) -> tuple[str, ...]: ...

    def targets(self, fleet: str) -> Mapping[str, SignedTarget]: ...

    def publish(
        self, fleet: str, *, add: Sequence[SignedTarget] = (), remove: Sequence[str] = ()
    ) -> Any: ...


class ManifestStore(Protocol):
    """`control.catalog.manifests.ClosureManifests`."""

    async def keep(
        self, registry: RegistryHost, repository: Repository, manifests: Mapping[Digest, bytes]
    ) -> None: ...

    async def get(
        self, registry: RegistryHost, repository: Repository, digest: Digest
    ) -> bytes | None: ...
