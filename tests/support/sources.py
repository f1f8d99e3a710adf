"""A `BlobSource` on a registry client, for tests without the rooms above the cache."""

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from facade.oci.digest import Digest
from facade.oci.reference import Repository
from facade.serving.blobs.port import BlobBody
from facade.upstream.client import RegistryClient
from facade.upstream.connection import Connection


@dataclass(frozen=True, slots=True)
class RegistrySource:
    """Implements `BlobSource` for one blob."""

    client: RegistryClient
    connection: Connection
    repository: Repository
    digest: Digest

    def open(self, offset: int, etag: str | None) -> AbstractAsyncContextManager[BlobBody]:
        return self.client.blob(
            self.connection, self.repository, self.digest, offset=offset, etag=etag
        )

    async def confirm(self) -> int | None:
        return await self.client.blob_size(self.connection, self.repository, self.digest)
