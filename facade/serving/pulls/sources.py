"""Where a transfer gets its bytes: a connected registry, within that connection's slots.

Guarantees: at most `limit` transfers per connection at once, however many devices wait, and the
devices take turns (`admission.Slots`); a connection that was removed or replaced is not spoken to, and a transfer under way ends with its
next bytes; every use of a connection is reported.
Does not verify content: the transfer does.
"""

from collections.abc import AsyncIterator, Callable, Hashable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import TracebackType

from facade.errors import Denied, FacadeError, Unavailable, Upstream
from facade.oci.digest import Digest
from facade.oci.host import RegistryHost
from facade.oci.reference import Repository
from facade.reasons import Reason
from facade.serving.blobs.port import BlobBody, BlobSource
from facade.serving.pulls.admission import Slots
from facade.serving.pulls.ports import UpstreamRegistry
from facade.serving.pulls.reports import Reports
from facade.upstream.connection import Connection
from facade.upstream.pour import Basin, put
from facade.wings import ControlPort

Asker = Hashable
"""Whose turn a transfer takes: a device's key, or None for the facade's own."""


class Sources:
    """Makes the `BlobSource` of one blob or manifest.

    Arguments:
        slots: transfers at once, by connection id.
        trouble: why a registry is not spoken to just now, if so: what those are told who waited
            for a slot in vain.
    """

    def __init__(
        self,
        *,
        upstream: UpstreamRegistry,
        control: ControlPort,
        slots: Slots[str],
        reports: Reports,
        trouble: Callable[[Connection], FacadeError | None] = lambda _: None,
    ) -> None:
        self.upstream = upstream
        self._trouble = trouble
        self._control = control
        self._slots = slots
        self._reports = reports

    def blob(
        self,
        connection: Connection,
        repository: Repository,
        digest: Digest,
        asker: Asker = None,
    ) -> BlobSource:
        """The source of a blob."""
        return _Blob(self, connection, repository, digest, asker)

    def manifest(
        self,
        connection: Connection,
        repository: Repository,
        digest: Digest,
        asker: Asker = None,
    ) -> BlobSource:
        """The source of a manifest."""
        return _Manifest(self, connection, repository, digest, asker)

    def wanted(
        self, connection: Connection, repository: Repository, digest: Digest, asker: Asker
    ) -> None:
        """`asker` wants this too: if it waits for a slot, that is the asker's turn as well."""
        self._slots.join(connection.id, asker, (repository, digest))

    @asynccontextmanager
    async def using(
        self, connection: Connection, asker: Asker = None, work: Hashable = None
    ) -> AsyncIterator[None]:
        """Speak to `connection` within: with a slot, and reporting how it went.

        Raises Denied (HOST_NOT_CONNECTED) when it is not the host's connection any more.
        """
        await self.begin(connection, asker, work)
        try:
            yield
        except BaseException as error:
            self.end(connection, error)
            raise
        self.end(connection, None)

    async def begin(self, connection: Connection, asker: Asker, work: Hashable) -> None:
        """What `using` does first; then `end` must follow. Raises what it raises."""
        try:
            await self._slots.acquire(connection.id, asker, work)
        except Unavailable as error:
            raise self._trouble(connection) or error from error
        try:
            self.check(connection)
        except BaseException:
            self._slots.release(connection.id)
            raise

    def end(self, connection: Connection, error: BaseException | None) -> None:
        """What `using` does last. An error that is none of ours says nothing of the registry."""
        try:
            if error is None or isinstance(error, FacadeError):
                self._reports.connection_used(connection, error)
        finally:
            self._slots.release(connection.id)

    def check(self, connection: Connection) -> None:
        """Raise Denied (HOST_NOT_CONNECTED) when it is not the host's connection any more."""
        current = self._control.snapshot().connections.get(connection.host)
        if current is None or current.id != connection.id:
            raise not_connected(connection.host)


def not_connected(host: RegistryHost) -> Denied:
    """The refusal for a host without a connection."""
    return Denied(
        f"{host} is not connected. An operator connects it with: facade registry add {host}",
        reason=Reason.HOST_NOT_CONNECTED,
    )


class _Blob:
    def __init__(
        self,
        sources: Sources,
        connection: Connection,
        repository: Repository,
        digest: Digest,
        asker: Asker,
    ) -> None:
        self._sources = sources
        self._connection = connection
        self._repository = repository
        self._digest = digest
        self._asker = asker

    def open(self, offset: int, etag: str | None) -> AbstractAsyncContextManager[BlobBody]:
        body = self._sources.upstream.blob(
            self._connection, self._repository, self._digest, offset=offset, etag=etag
        )
        return _Opening(self, body)

    async def begin(self) -> None:
        """Take a slot of the connection. Raises what `Sources.using` raises."""
        work = self._repository, self._digest
        await self._sources.begin(self._connection, self._asker, work)

    def end(self, error: BaseException | None) -> None:
        """Give it back, and report."""
        self._sources.end(self._connection, error)

    def check(self) -> None:
        """Raise Denied when the connection was removed or replaced."""
        self._sources.check(self._connection)

    async def confirm(self) -> int | None:
        work = self._repository, self._digest
        async with self._sources.using(self._connection, self._asker, work):
            return await self._sources.upstream.blob_size(
                self._connection, self._repository, self._digest
            )


class _Opening:
    """A body within the use of its connection. What `async with` needs, without the cost of generators:
    every fill has one.
    """

    __slots__ = ("_blob", "_body")

    def __init__(self, blob: _Blob, body: AbstractAsyncContextManager[BlobBody]) -> None:
        self._blob = blob
        self._body = body

    async def __aenter__(self) -> BlobBody:
        await self._blob.begin()
        try:
            return _Watched(await self._body.__aenter__(), self._blob.check)
        except BaseException as error:
            self._blob.end(error)
            raise

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            await self._body.__aexit__(kind, error, traceback)
        finally:
            self._blob.end(error)


class _Manifest:
    def __init__(
        self,
        sources: Sources,
        connection: Connection,
        repository: Repository,
        digest: Digest,
        asker: Asker,
    ) -> None:
        self._sources = sources
        self._connection = connection
        self._repository = repository
        self._digest = digest
        self._asker = asker

    def _using(self) -> AbstractAsyncContextManager[None]:
        work = (self._repository, self._digest)
        return self._sources.using(self._connection, self._asker, work)

    def open(self, offset: int, etag: str | None) -> AbstractAsyncContextManager[BlobBody]:
        return self._open()

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[BlobBody]:
        yield _Whole(await self._fetch())

    async def confirm(self) -> int | None:
        """Manifests have no HEAD of their own here: fetching a few KiB confirms as well."""
        try:
            return len(await self._fetch())
        except Upstream as error:
            if error.reason is Reason.UPSTREAM_NOT_FOUND:
                return None
            raise

    async def _fetch(self) -> bytes:
        async with self._using():
            fetched = await self._sources.upstream.manifest(
                self._connection, self._repository, self._digest
            )
            return fetched.data


class _Watched:
    """A body that ends when `check` raises."""

    def __init__(self, body: BlobBody, check: Callable[[], None]) -> None:
        self._body = body
        self._check = check
        self.offset = body.offset
        self.total = body.total
        self.etag = body.etag

    async def pour(self, basin: Basin) -> None:
        await self._body.pour(_WatchedBasin(basin, self._check))


class _WatchedBasin:
    """A basin that takes nothing more when `check` raises."""

    def __init__(self, basin: Basin, check: Callable[[], None]) -> None:
        self.space = basin.space
        self.make_space = basin.make_space
        self._filled = basin.filled
        self._check = check

    def filled(self, count: int) -> None:
        self._check()
        self._filled(count)


class _Whole:
    """A small body that is here already; it always starts at 0."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.offset = 0
        self.total: int | None = len(data)
        self.etag: str | None = None

    async def pour(self, basin: Basin) -> None:
        await put(self._data, basin)
