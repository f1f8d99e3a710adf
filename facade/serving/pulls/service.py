"""The use cases of a pull: authorise → locate → stream.

Guarantees: nothing is named, sized or sent before the signed metadata allowed it; whether it is
signed is decided before whether the host is connected, and both before any byte is looked for.
Answers are lazy: HEAD, 304 and 416 need no content, so they cost no transfer. Does not know HTTP,
and does not judge the device's certificate: whoever calls has done that.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from facade.device import Device
from facade.errors import Denied, Integrity, Invalid, NotFound
from facade.oci.digest import Digest
from facade.oci.host import RegistryHost
from facade.oci.manifest import OCI_INDEX, Descriptor
from facade.oci.reference import Repository
from facade.oci.request import PullRequest, Role
from facade.reasons import Reason
from facade.serving.blobs.port import BlobStream
from facade.serving.pulls.admission import Slots
from facade.serving.pulls.answers import (
    BlobAnswer,
    ManifestAnswer,
    ReadyBlob,
    ReadyManifest,
    ReferrersAnswer,
)
from facade.serving.pulls.manifests import Manifests
from facade.serving.pulls.ports import Authorisation, Blobs
from facade.serving.pulls.rates import DeviceKey, DeviceRates
from facade.serving.pulls.sources import Sources, not_connected
from facade.serving.trust.closure import Allowed, servable
from facade.serving.trust.parsing import is_small, parsed
from facade.target import parse_artifact_path
from facade.upstream.connection import Connection
from facade.wings import ControlPort

BLOB_MEDIA_TYPE = "application/octet-stream"
"""Blobs are opaque to us; registries send the same, and no client reads more into it."""

MAX_READY_BYTES = 15 * 1024
"""With its head it fits into one TLS record."""

_MAX_SERVABLE = 4096
"""Manifests remembered as fit to be served under their type; reading one costs CPU."""


def device_key(device: Device) -> DeviceKey:
    """Whose slots a request takes: fleet and name, so that two certificates of one share them."""
    return device.fleet, device.name


class PullService:
    """What a device can ask for.

    Arguments:
        requests, streams: how much one device may have open at once.
        rates: how fast it may ask and be sent to; None = as fast as it can.
    """

    def __init__(
        self,
        *,
        authorisation: Authorisation,
        control: ControlPort,
        manifests: Manifests,
        blobs: Blobs,
        sources: Sources,
        requests: Slots[DeviceKey],
        streams: Slots[DeviceKey],
        rates: DeviceRates | None = None,
    ) -> None:
        self._authorisation = authorisation
        self._control = control
        self._manifests = manifests
        self._blobs = blobs
        self._sources = sources
        self._servable: set[tuple[RegistryHost, Repository, Digest, str, int]] = set()
        self.requests = requests
        self.streams = streams
        self.rates = rates

    async def manifest(self, device: Device, request: PullRequest) -> ManifestAnswer:
        """A manifest. Raises Denied, or Unavailable when that cannot be decided."""
        allowed, _connection = await self._locate(device, request)
        if len(allowed.sizes) > 1:  # descriptors disagree; the bytes know
            data = await self._manifest(device, request, allowed)
            await self.judge(device, request)  # that may have taken its time
            allowed = replace(allowed, size=len(data))

        async def read() -> bytes:
            hot = self._manifests.hot(request.host, request.repository, request.digest)
            if hot is not None and is_small(hot):  # nothing was waited for since the decision
                return await self._checked(device, request, allowed, hot)
            data = await self._manifest(device, request, allowed)
            await self.judge(device, request)  # a registry may have taken its time meanwhile
            return data

        return ManifestAnswer(request, allowed.size, allowed.media_type, read=read)

    def ready(
        self, device: Device, request: PullRequest, before: ReadyManifest | None
    ) -> ReadyManifest | None:
        """A small manifest, if nothing has to be waited for: not the decision, nor its bytes, nor a
        slot. None = `manifest` knows more.

        Arguments:
            before: what this gave for the same fleet and request; it is given again while the
                decision is the same.

        Raises like `manifest`.
        """
        if self.rates is not None or not self.requests.free(device_key(device)):
            return None
        allowed = self._authorisation.decide_now(device.fleet, request)
        self._connection(request)
        if allowed is None or (before is not None and before.allowed is allowed):
            return before if allowed is not None else None
        data = self._manifests.hot(request.host, request.repository, request.digest)
        if data is None or len(data) > MAX_READY_BYTES or allowed.sizes != (len(data),):
            return None
        key = (request.host, request.repository, request.digest, allowed.media_type, len(data))
        return ReadyManifest(allowed, allowed.media_type, data) if key in self._servable else None

    async def blob(self, device: Device, request: PullRequest) -> BlobAnswer:
        """A blob. Raises Denied, or Unavailable when that cannot be decided."""
        allowed, connection = await self._locate(device, request)
        asker = device_key(device)
        source = self._sources.blob(connection, request.repository, request.digest, asker)
        size = allowed.size
        if len(allowed.sizes) > 1:  # descriptors disagree; the registry knows
            confirmed = await source.confirm()
            await self.judge(device, request)  # that may have taken its time
            size = confirmed if confirmed in allowed.sizes else size

        async def open_stream() -> BlobStream:
            self._sources.wanted(connection, request.repository, request.digest, asker)
            return await self._blobs.get(
                connection, request.repository, request.digest, size, source
            )

        return BlobAnswer(request, size, BLOB_MEDIA_TYPE, open=open_stream)

    def ready_blob(self, device: Device, request: PullRequest) -> ReadyBlob | None:
        """A blob, if nothing has to be waited for: not the decision, nor its first bytes, nor a slot of
        either kind. None = `blob` knows more.

        Raises like `blob`.
        """
        key = device_key(device)
        if self.rates is not None or not (self.requests.free(key) and self.streams.free(key)):
            return None
        allowed = self._authorisation.decide_now(device.fleet, request)
        connection = self._connection(request)
        if allowed is None or len(allowed.sizes) > 1:
            return None
        stream = self._blobs.hot(connection, request.repository, request.digest, allowed.size)
        return None if stream is None else ReadyBlob(request, BLOB_MEDIA_TYPE, stream)

    async def referrers(
        self, device: Device, request: PullRequest, *, artifact_type: str | None = None
    ) -> ReferrersAnswer:
        """What was signed along with an image, as an index; empty when nothing was.

        Raises Denied, or Unavailable when that cannot be decided.
        """
        descriptors = await self._authorisation.referrers(device.fleet, request)
        await self.judge(device, request)  # reading the signed referrers may have taken its time
        if artifact_type is not None:
            descriptors = tuple(d for d in descriptors if d.artifact_type == artifact_type)
        return ReferrersAnswer(_index(descriptors), OCI_INDEX, artifact_type is not None)

    async def target(self, device: Device, path: str, digest: Digest) -> ManifestAnswer:
        """The manifest of a signed target, as a TUF client asks for it.

        Arguments:
            path: `<fleet>/<name>/<version>`.
            digest: the hash in the file's name.

        Raises NotFound alike for another fleet's, an unknown and a malformed one.
        """
        try:
            fleet, _name, _version = parse_artifact_path(path)
        except Invalid as error:
            raise _no_such_target() from error
        if fleet != device.fleet:
            raise _no_such_target()
        try:
            target = await self._authorisation.target(fleet, path)
        except Denied as error:  # a fleet that nobody delegated to
            raise _no_such_target() from error
        if target is None or target.digest != digest:
            raise _no_such_target()
        request = PullRequest(Role.MANIFEST, target.registry, target.repository, target.digest)
        return await self.manifest(device, request)

    async def judge(self, device: Device, request: PullRequest) -> None:
        """Whether `device` may (still) have this: returns, or raises like `manifest`."""
        await self._locate(device, request)

    async def judge_running(self, device: Device, request: PullRequest) -> None:
        """`judge` for a stream that runs: whether it may go on.

        A removed connection ends it even while it cannot be decided whether it is still signed.
        """
        self._connection(request)
        await self.judge(device, request)

    def generation(self, view_generation: Callable[[], object]) -> Callable[[], object]:
        """A value that changes whenever `judge` might answer differently."""
        return lambda: (view_generation(), self._control.snapshot().generation)

    async def _locate(self, device: Device, request: PullRequest) -> tuple[Allowed, Connection]:
        allowed = await self._authorisation.decide(device.fleet, request)
        return allowed, self._connection(request)

    async def _manifest(self, device: Device, request: PullRequest, allowed: Allowed) -> bytes:
        data = await self._manifests.manifest(
            request.host,
            request.repository,
            request.digest,
            allowed.size,
            asker=device_key(device),
        )
        return await self._checked(device, request, allowed, data)

    async def _checked(
        self, device: Device, request: PullRequest, allowed: Allowed, data: bytes
    ) -> bytes:
        """`data`, which is the digest's, if it is also what the descriptor says it is."""
        key = (request.host, request.repository, request.digest, allowed.media_type, len(data))
        if len(data) not in allowed.sizes:  # another fleet's descriptor may have been right
            raise Integrity(f"The manifest has {len(data)} bytes; {allowed.size} were announced.")
        if key not in self._servable:
            await parsed(data, lambda: servable(data, replace(allowed, size=len(data))))
            if len(self._servable) >= _MAX_SERVABLE:
                self._servable.clear()
            self._servable.add(key)
            self._authorisation.learn(device.fleet, request, data)
        return data

    def _connection(self, request: PullRequest) -> Connection:
        connection = self._control.snapshot().connections.get(request.host)
        if connection is None:
            raise not_connected(request.host)
        return connection


def _no_such_target() -> NotFound:
    return NotFound("There is no such target.", reason=Reason.NOT_FOUND)


def _index(descriptors: tuple[Descriptor, ...]) -> bytes:
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "manifests": [_descriptor(descriptor) for descriptor in descriptors],
    }
    return json.dumps(document, separators=(",", ":")).encode()


def _descriptor(descriptor: Descriptor) -> dict[str, Any]:
    document: dict[str, Any] = {
        "mediaType": descriptor.media_type,
        "digest": str(descriptor.digest),
        "size": descriptor.size,
    }
    if descriptor.artifact_type:
        document["artifactType"] = descriptor.artifact_type
    if descriptor.annotations:
        document["annotations"] = dict(descriptor.annotations)
    return document
