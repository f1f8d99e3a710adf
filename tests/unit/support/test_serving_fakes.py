"""The fakes under a pull refuse what the real ones refuse."""

from contextlib import AbstractAsyncContextManager

import pytest

from facade.errors import Integrity, Upstream
from facade.oci.digest import Digest
from facade.oci.host import RegistryHost
from facade.oci.reference import Repository
from facade.upstream.connection import Connection
from tests.support.serving import (
    FakeControl,
    FakeRegistryClient,
    MemoryBlobs,
    WholeBody,
    a_connection,
    a_device,
)

REPOSITORY = Repository("org/app")


class Source:
    def __init__(self, client: FakeRegistryClient, connection: Connection, digest: Digest) -> None:
        self._client, self._connection, self._digest = client, connection, digest

    def open(self, offset: int, etag: str | None) -> AbstractAsyncContextManager[WholeBody]:
        return self._client.blob(self._connection, REPOSITORY, self._digest)

    async def confirm(self) -> int | None:
        return await self._client.blob_size(self._connection, REPOSITORY, self._digest)


async def test_memory_blobs_give_verified_bytes_and_remember_them() -> None:
    client, blobs, connection = FakeRegistryClient(), MemoryBlobs(), a_connection()
    digest = client.hold(REPOSITORY, b"content")
    source = Source(client, connection, digest)
    for outcome in ("miss", "hit"):
        stream = await blobs.get(connection, REPOSITORY, digest, 7, source)
        assert b"".join([bytes(chunk) async for chunk in stream.chunks(1, 6)]) == b"onten"
        assert stream.outcome == outcome
    assert client.asked == ["blob"]
    assert await source.confirm() == 7


@pytest.mark.parametrize(("data", "size"), [(b"other", 7), (b"content", 8)])
async def test_memory_blobs_refuse_what_does_not_match(data: bytes, size: int) -> None:
    client, blobs, connection = FakeRegistryClient(), MemoryBlobs(), a_connection()
    digest = client.hold(REPOSITORY, data, as_digest=Digest.of(b"content"))
    with pytest.raises(Integrity):
        await blobs.get(connection, REPOSITORY, digest, size, Source(client, connection, digest))


async def test_the_registry_client_knows_what_it_holds() -> None:
    client = FakeRegistryClient()
    with pytest.raises(Upstream):
        await client.manifest(a_connection(), REPOSITORY, Digest.of(b"x"))
    assert await client.blob_size(a_connection(), REPOSITORY, Digest.of(b"x")) is None
    client.hold(REPOSITORY, b"x")
    assert (await client.manifest(a_connection(), REPOSITORY, Digest.of(b"x"))).data == b"x"


async def test_every_change_of_the_control_port_is_a_new_generation() -> None:
    control = FakeControl(a_connection())
    seen = {control.snapshot().generation}
    control.connect(a_connection("quay.io", "c2"))
    seen.add(control.snapshot().generation)
    control.revoke("dev", "kiosk-7", 5.0)
    seen.add(control.snapshot().generation)
    assert control.snapshot().revocations.devices == {("dev", "kiosk-7"): 5.0}
    control.disconnect(RegistryHost("ghcr.io"))
    seen.add(control.snapshot().generation)
    assert set(control.snapshot().connections) == {RegistryHost("quay.io")}
    control.restore()
    seen.add(control.snapshot().generation)
    assert len(seen) == 5


async def test_bodies_and_devices_are_well_formed() -> None:
    body = WholeBody(b"abc")
    assert [chunk async for chunk in body.chunks()] == [b"abc"]
    assert a_device(days=1).not_after > a_device().not_before
