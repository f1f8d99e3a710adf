"""The handlers of the device port: each parses, calls one use case, and writes what came back.

Guarantees: which route a path is decided here, once; only GET and HEAD reach a handler. Does not
catch errors: `app` answers them, all in one way.
"""

import json
from collections.abc import Awaitable, Callable
from typing import Protocol

from aiohttp import hdrs, web

from facade.device import Device
from facade.errors import Denied, FacadeError, Invalid, NotFound
from facade.oci.digest import Digest
from facade.oci.host import RegistryHost
from facade.oci.request import PullRequest, Role
from facade.reasons import Reason
from facade.serving.api.answers import JSON, NO_STORE, entire, plan, refusal, whole
from facade.serving.api.exchange import Exchange, place
from facade.serving.api.peer import Peers
from facade.serving.api.streaming import Sender
from facade.serving.pulls.answers import ManifestAnswer
from facade.serving.pulls.service import PullService, device_key

Handler = Callable[[Exchange], Awaitable[web.StreamResponse]]

_MAX_PARSED = 4096
"""Paths remembered with what they mean; what parses is at most some 500 characters long."""
_ROUTES = {
    Role.MANIFEST: "manifests",
    Role.BLOB: "blobs",
    Role.REFERRERS: "referrers",
}


class MetadataFiles(Protocol):
    """Signed metadata for devices; `serving.trust.served.MetadataFiles`."""

    async def read(self, name: str, fleet: str) -> bytes:
        """Raises NotFound, alike for another fleet's role and for what does not exist."""
        ...


class Routes:
    """Finds the handler of a path, and holds the handlers."""

    def __init__(
        self,
        *,
        pulls: PullService,
        peers: Peers,
        sender: Sender,
        metadata: MetadataFiles,
        default_registry: RegistryHost,
    ) -> None:
        self._pulls = pulls
        self._peers = peers
        self._sender = sender
        self._metadata = metadata
        self._default = default_registry
        self._parsed: dict[tuple[str, str | None], PullRequest] = {}

    def find(self, exchange: Exchange) -> Handler:
        """The handler for the request; notes the route. Raises Invalid (405), NotFound."""
        path = exchange.http.path
        if path.startswith("/v2/") and path != "/v2/":
            exchange.route, handler = "pull", self._pull
        elif path in ("/v2/", "/v2"):
            exchange.route, handler = "version", self._version
        elif path.startswith("/tuf/"):
            exchange.route, handler = "tuf", self._tuf
        elif path.startswith("/targets/"):
            exchange.route, handler = "targets", self._target
        elif path == "/whoami":
            exchange.route, handler = "whoami", self._whoami
        else:
            raise NotFound("There is nothing at this path.", reason=Reason.NOT_FOUND)
        if exchange.http.method not in (hdrs.METH_GET, hdrs.METH_HEAD):
            raise Invalid(
                "Nothing can be pushed, changed or deleted here.", reason=Reason.UNSUPPORTED
            )
        return handler

    async def _version(self, exchange: Exchange) -> web.StreamResponse:
        """Answers every valid certificate: runtimes lose the words of a refusal here."""
        headers: dict[str, str] = {
            hdrs.CONTENT_TYPE: JSON,
            hdrs.CACHE_CONTROL: NO_STORE,
            "Docker-Distribution-API-Version": "registry/2.0",
        }
        return whole(exchange, b"{}", headers)

    async def _whoami(self, exchange: Exchange) -> web.StreamResponse:
        device = self._admitted(exchange)
        document = {
            "fleet": device.fleet,
            "device": device.name,
            "serial": device.serial,
            "not_after": device.not_after.isoformat().replace("+00:00", "Z"),
        }
        headers: dict[str, str] = {hdrs.CONTENT_TYPE: JSON, hdrs.CACHE_CONTROL: NO_STORE}
        return whole(exchange, json.dumps(document).encode(), headers)

    async def _tuf(self, exchange: Exchange) -> web.StreamResponse:
        device = self._admitted(exchange)
        name = exchange.http.path.removeprefix("/tuf/")
        headers: dict[str, str] = {hdrs.CONTENT_TYPE: JSON, hdrs.CACHE_CONTROL: "no-cache"}
        async with self._pulls.requests.hold(device_key(device)):
            if self._pulls.rates is not None:
                await self._pulls.rates.request(device_key(device))
            data = await self._metadata.read(name, device.fleet)
            return await self._send_whole(exchange, device, data, headers)

    async def _target(self, exchange: Exchange) -> web.StreamResponse:
        """`/targets/<fleet>/<name>/<sha256>.<version>` (TUF specification, consistent snapshots)."""
        device = self._admitted(exchange)
        folder, _slash, file = exchange.http.path.removeprefix("/targets/").rpartition("/")
        sha256, _dot, version = file.partition(".")
        try:
            digest = Digest.parse(f"sha256:{sha256}")
        except Invalid as error:
            raise NotFound("There is no such target.", reason=Reason.NOT_FOUND) from error
        async with self._pulls.requests.hold(device_key(device)):
            if self._pulls.rates is not None:
                await self._pulls.rates.request(device_key(device))
            answer = await self._pulls.target(device, f"{folder}/{version}", digest)
            exchange.pull = answer.request
            return await self._send_manifest(exchange, device, answer)

    async def _pull(self, exchange: Exchange) -> web.StreamResponse:
        http = exchange.http
        exchange.device = device = self._peers.identify(http.transport)
        parsed = self.parse(http)
        if isinstance(parsed, PullRequest):
            exchange.pull, exchange.route = parsed, _ROUTES[parsed.role]
        # Who may not come in learns nothing about what was asked for, malformed or not.
        self._peers.admit(device)
        if isinstance(parsed, FacadeError):
            raise parsed
        async with self._pulls.requests.hold(device_key(device)):
            if self._pulls.rates is not None:
                await self._pulls.rates.request(device_key(device))
            if parsed.role is Role.BLOB:
                return await self._blob(exchange, device, parsed)
            if parsed.role is Role.MANIFEST:
                answer = await self._pulls.manifest(device, parsed)
                return await self._send_manifest(exchange, device, answer)
            return await self._referrers(exchange, device, parsed)

    def parse(self, http: web.BaseRequest) -> PullRequest | FacadeError:
        """What a path under `/v2/` asks for, or why it asks for nothing."""
        return self.read(*place(http))

    def read(self, path: str, ns: str | None) -> PullRequest | FacadeError:
        """`parse`, of a request's `place`."""
        known = self._parsed.get((path, ns))
        if known is not None:
            return known
        try:
            parsed = PullRequest.parse(path, ns=ns, default=self._default)
        except (Invalid, Denied, NotFound) as error:
            return error
        # A fleet asks for the same few paths again and again.
        if len(self._parsed) >= _MAX_PARSED:
            self._parsed.clear()
        self._parsed[path, ns] = parsed
        return parsed

    async def _blob(
        self, exchange: Exchange, device: Device, request: PullRequest
    ) -> web.StreamResponse:
        answer = await self._pulls.blob(device, request)
        try:
            what = plan(exchange.http, answer.request.digest, answer.size, answer.media_type)
        except Invalid as error:
            return _unsatisfiable(exchange, error, answer.size)
        if exchange.head_only or not what.has_body:
            self._still_admitted(exchange)
            return web.Response(status=what.status, headers=what.headers)
        return await self._sender.send(exchange, device, answer, what)

    async def _send_manifest(
        self, exchange: Exchange, device: Device, answer: ManifestAnswer
    ) -> web.StreamResponse:
        try:
            what = plan(exchange.http, answer.request.digest, answer.size, answer.media_type)
        except Invalid as error:
            return _unsatisfiable(exchange, error, answer.size)
        if exchange.head_only or not what.has_body:
            self._still_admitted(exchange)
            return web.Response(status=what.status, headers=what.headers)
        data = await answer.read()
        if what.status == 206:
            data = data[what.start : what.stop]
        return await self._sender.document(exchange, device, data, what, answer.request)

    async def _referrers(
        self, exchange: Exchange, device: Device, request: PullRequest
    ) -> web.StreamResponse:
        answer = await self._pulls.referrers(
            device, request, artifact_type=exchange.http.query.get("artifactType")
        )
        headers: dict[str, str] = {
            hdrs.CONTENT_TYPE: answer.media_type,
            hdrs.CACHE_CONTROL: NO_STORE,
        }
        if answer.filtered:
            headers["OCI-Filters-Applied"] = "artifactType"
        return await self._send_whole(exchange, device, answer.data, headers)

    async def _send_whole(
        self, exchange: Exchange, device: Device, data: bytes, headers: dict[str, str]
    ) -> web.StreamResponse:
        """200 with `data`, whatever the request's conditions; its head alone for HEAD."""
        what = entire(data, headers)
        if exchange.head_only:
            self._still_admitted(exchange)
            return web.Response(headers=what.headers)
        return await self._sender.document(exchange, device, data, what)

    def _admitted(self, exchange: Exchange) -> Device:
        device = self._peers.identify(exchange.http.transport)
        exchange.device = device
        self._peers.admit(device)
        return device

    def _still_admitted(self, exchange: Exchange) -> None:
        """Judge the device once more: slot, walk and registry may have taken a minute together."""
        self._peers.check(exchange.http.transport)


def _unsatisfiable(exchange: Exchange, error: Invalid, size: int) -> web.Response:
    exchange.error = error
    return refusal(exchange, error, size=size)
