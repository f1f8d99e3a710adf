"""The demo's upstream: a small registry that demands bearer tokens, with its own token service.

Guarantees: manifests, blobs and tags are readable with a token of its `/token` endpoint only, which
gives one to the right user for the repository that was asked for, good for some minutes; every request
is counted, so that the demo can prove what was fetched and what came from the cache. Serves from
memory, over plain http on this machine: it shows the facade, it is no registry for use.
"""

import base64
import hashlib
import hmac
import json
from collections import Counter

from aiohttp import web

from facade.clock import Clock
from facade.demo.image import Image
from facade.errors import Invalid
from facade.oci.digest import Digest
from facade.oci.ranges import parse_range
from facade.secret import Secret

TOKEN_SECONDS = 300
SERVICE = "demo registry"


class DemoRegistry:
    """Holds images and hands them out to one user.

    Arguments:
        username, password: who may read; asked for at the token endpoint.
        key: signs tokens.
        clock: tells when they expire.
    """

    def __init__(self, *, username: str, password: Secret, key: bytes, clock: Clock) -> None:
        self._user = base64.b64encode(f"{username}:{password.reveal()}".encode())
        self._key = key
        self._clock = clock
        self._manifests: dict[tuple[str, str], tuple[str, bytes]] = {}
        self._blobs: dict[tuple[str, str], bytes] = {}
        self._tags: dict[str, dict[str, Digest]] = {}
        self._runner: web.AppRunner | None = None
        self.port = 0
        self.requests: Counter[str] = Counter()
        """Answered with 200 or 206, by what was asked for: "token", "manifest", "blob", "tags"."""

    @property
    def host(self) -> str:
        """`host:port`, as an operator connects it."""
        return f"127.0.0.1:{self.port}"

    def add(self, repository: str, image: Image, *tags: str) -> Digest:
        """Hold an image; its index gets the tags."""
        for digest, manifest in image.manifests.items():
            self._manifests[repository, str(digest)] = manifest
        for digest, blob in image.blobs.items():
            self._blobs[repository, str(digest)] = blob
        for tag in tags:
            self._tags.setdefault(repository, {})[tag] = image.index
        return image.index

    async def start(self, port: int = 0) -> None:
        """Listen on 127.0.0.1; port 0 = any free one, see `port`."""
        app = web.Application()
        app.router.add_get("/token", self._token)
        app.router.add_get("/v2/", self._ping)
        app.router.add_get("/v2/{repository:.+}/tags/list", self._list_tags)
        app.router.add_get("/v2/{repository:.+}/manifests/{reference}", self._manifest)
        app.router.add_get("/v2/{repository:.+}/blobs/{digest}", self._blob)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", port).start()
        self.port = self._runner.addresses[0][1]

    async def close(self) -> None:
        """Stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _token(self, request: web.Request) -> web.Response:
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "basic" or not hmac.compare_digest(given.encode(), self._user):
            return web.json_response({"details": "wrong user name or password"}, status=401)
        _, _, scope = request.query.get("scope", "").partition(":")
        repository = scope.rpartition(":")[0]
        expires = int(self._clock.time()) + TOKEN_SECONDS
        token = base64.urlsafe_b64encode(json.dumps([repository, expires]).encode()).decode()
        self.requests["token"] += 1
        return web.json_response(
            {"token": f"{token}.{self._sign(token)}", "expires_in": TOKEN_SECONDS}
        )

    async def _ping(self, request: web.Request) -> web.Response:
        self._require(request, None)
        return web.json_response({})

    async def _list_tags(self, request: web.Request) -> web.Response:
        repository = request.match_info["repository"]
        self._require(request, repository)
        self.requests["tags"] += 1
        tags = sorted(self._tags.get(repository, ()))
        return web.json_response({"name": repository, "tags": tags})

    async def _manifest(self, request: web.Request) -> web.Response:
        repository, reference = request.match_info["repository"], request.match_info["reference"]
        self._require(request, repository)
        digest = str(self._tags.get(repository, {}).get(reference, reference))
        if (repository, digest) not in self._manifests:
            raise _error(web.HTTPNotFound, "MANIFEST_UNKNOWN", "no such manifest")
        media_type, data = self._manifests[repository, digest]
        self.requests["manifest"] += request.method == "GET"
        headers = {"Content-Type": media_type, "Docker-Content-Digest": digest}
        return web.Response(body=data, headers=headers)

    async def _blob(self, request: web.Request) -> web.Response:
        repository, digest = request.match_info["repository"], request.match_info["digest"]
        self._require(request, repository)
        data = self._blobs.get((repository, digest))
        if data is None:
            raise _error(web.HTTPNotFound, "BLOB_UNKNOWN", "no such blob")
        headers = {"ETag": f'"{digest}"', "Accept-Ranges": "bytes"}
        try:
            wanted = parse_range(request.headers.get("Range"), len(data))
        except Invalid:
            raise _error(web.HTTPRequestRangeNotSatisfiable, "UNKNOWN", "no such range") from None
        self.requests["blob"] += request.method == "GET"
        if wanted is None:
            return web.Response(body=data, headers=headers)
        headers["Content-Range"] = wanted.content_range(len(data))
        return web.Response(status=206, body=data[wanted.start : wanted.stop], headers=headers)

    def _require(self, request: web.Request, repository: str | None) -> None:
        """Let a request with a good token for the repository pass; challenge any other."""
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self._grants(token, repository):
            return
        scope = "" if repository is None else f',scope="repository:{repository}:pull"'
        realm = f"http://{self.host}/token"
        error = _error(web.HTTPUnauthorized, "UNAUTHORIZED", "a token is needed")
        error.headers["WWW-Authenticate"] = f'Bearer realm="{realm}",service="{SERVICE}"{scope}'
        raise error

    def _grants(self, token: str, repository: str | None) -> bool:
        text, _, signature = token.partition(".")
        if not hmac.compare_digest(signature.encode(), self._sign(text).encode()):
            return False
        granted, expires = json.loads(base64.urlsafe_b64decode(text))
        return expires > self._clock.time() and repository in (None, granted)

    def _sign(self, text: str) -> str:
        return hmac.new(self._key, text.encode(), hashlib.sha256).hexdigest()


def _error(
    kind: type[web.HTTPNotFound | web.HTTPUnauthorized | web.HTTPRequestRangeNotSatisfiable],
    code: str,
    message: str,
) -> web.HTTPNotFound | web.HTTPUnauthorized | web.HTTPRequestRangeNotSatisfiable:
    body = json.dumps({"errors": [{"code": code, "message": message}]})
    return kind(text=body, content_type="application/json")
