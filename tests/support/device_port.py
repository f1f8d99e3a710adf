"""A device port that says what a test wants: over mutual TLS, with a live signing TUF repository.

Guarantees: `/tuf/` serves `tuf.files` as they are now, `/v2/` an image's manifests and blobs with Range;
every request is noted. It authorises nothing and shares no code with `facade.serving`. The
misbehaviours are fields: cut, wrong bytes, ignored ranges, errors with an OCI body.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web

from facade.oci.digest import Digest
from facade.target import SignedTarget
from tests.support.image import Image
from tests.support.pki import Authority, server_context
from tests.support.tuf_repo import TufRepo, signed_target

PLACE = "ghcr.io/org/app"


@dataclass
class Refusal:
    """An error answer."""

    status: int
    reason: str = ""
    message: str = ""
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class DevicePort:
    """The server's state, a test's to change.

    Arguments:
        cut_after: bytes of each blob response until the connection is cut; one entry is used
            up per response.
        refusals: by path prefix; answered in order, then no more.
    """

    image: Image
    tuf: TufRepo
    server_ca: Authority
    device_ca: Authority
    url: str = ""
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    cut_after: list[int] = field(default_factory=list)
    refusals: dict[str, list[Refusal]] = field(default_factory=dict)
    replaced: dict[Digest, bytes] = field(default_factory=dict)
    ignore_range: bool = False
    wrong_range: bool = False
    silent: bool = False

    def sign(self, path: str = "dev/app/v1", *, platforms: tuple[str, ...] = ()) -> SignedTarget:
        """Sign the image's index as `path`."""
        media_type, data = self.image.manifests[self.image.index]
        target = signed_target(path, data, place=PLACE, media_type=media_type, platforms=platforms)
        self.tuf.publish(target)
        return target

    def count(self, prefix: str) -> int:
        """Requests whose path starts so."""
        return sum(path.startswith(prefix) for path, _ in self.requests)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        path = request.path
        self.requests.append((path, request.headers.get("Range")))
        for prefix, refusals in self.refusals.items():
            if path.startswith(prefix) and refusals:
                return _refuse(refusals.pop(0))
        if self.silent:
            await asyncio.Event().wait()
        folder, _, name = path.rpartition("/")
        if folder == "/tuf":
            data = self.tuf.files.get(name)
            return web.Response(body=data) if data is not None else _refuse(Refusal(404))
        if folder == f"/v2/{PLACE}/manifests":
            media_type, data = self.image.manifests[Digest.parse(name)]
            body = self.replaced.get(Digest.parse(name), data)
            return web.Response(body=body, content_type=media_type)
        if folder == f"/v2/{PLACE}/blobs":
            digest = Digest.parse(name)
            return await self._blob(request, self.replaced.get(digest, self.image.blobs[digest]))
        return _refuse(Refusal(404))

    async def _blob(self, request: web.Request, data: bytes) -> web.StreamResponse:
        asked = request.headers.get("Range")
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
        headers = {}
        status = 200
        if asked and not self.ignore_range:
            status = 206
            shown = start - 1 if self.wrong_range else start
            headers["Content-Range"] = f"bytes {shown}-{len(data) - 1}/{len(data)}"
            data = data[start:]
        headers["Content-Length"] = str(len(data))
        response = web.StreamResponse(status=status, headers=headers)
        await response.prepare(request)
        if self.cut_after:
            await response.write(data[: self.cut_after.pop(0)])
            assert request.transport is not None
            request.transport.close()
            return response
        await response.write(data)
        await response.write_eof()
        return response


@asynccontextmanager
async def device_port(
    image: Image, *, tuf: TufRepo | None = None, address: str = "127.0.0.1"
) -> AsyncIterator[DevicePort]:
    """Serve while the block runs."""
    port = DevicePort(
        image, tuf or TufRepo(), Authority.root("Server CA"), Authority.root("Device CA")
    )
    app = web.Application()
    app.router.add_get("/{tail:.*}", port.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    context = server_context(port.server_ca.server(), port.device_ca)
    site = web.TCPSite(runner, address, 0, ssl_context=context)
    await site.start()
    try:
        assert runner.addresses
        port.url = f"https://localhost:{runner.addresses[0][1]}"
        yield port
    finally:
        await runner.cleanup()


def _refuse(refusal: Refusal) -> web.Response:
    error = {
        "code": "DENIED",
        "message": refusal.message,
        "detail": {"reason": refusal.reason, "request_id": "r1"},
    }
    return web.Response(
        status=refusal.status,
        body=json.dumps({"errors": [error]}),
        headers=refusal.headers,
        content_type="application/json",
    )
