"""Answers: their headers, conditional requests and ranges, and the form of refusals.

Guarantees: headers are those of pull-path.md; a length is known before the first byte; every error
has an OCI body with its reason and request id.
"""

import math
from dataclasses import dataclass

from aiohttp import hdrs, web

from facade.errors import FacadeError, Unavailable
from facade.oci.digest import Digest
from facade.oci.errorcodes import Answer, answer_for, body
from facade.oci.ranges import ByteRange, parse_range
from facade.oci.request import PullRequest
from facade.reasons import Reason
from facade.serving.api.exchange import Exchange, Record
from facade.serving.api.words import for_device

CACHE_FOREVER = "private, max-age=31536000, immutable"
NO_STORE = "no-store"
DIGEST_HEADER = "Docker-Content-Digest"
JSON = "application/json"
METHODS = "GET, HEAD"
SERVER = "facade"
"""Instead of the HTTP library's name and version."""
DEFAULT_RETRY_AFTER_SECONDS = 5.0
_RETRYABLE = frozenset({429, 503})


@dataclass(frozen=True, slots=True)
class Plan:
    """What to send of a representation: a status, headers, and bytes [start, stop)."""

    status: int
    headers: dict[str, str]
    start: int
    stop: int

    @property
    def has_body(self) -> bool:
        """Whether bytes follow."""
        return self.status in (200, 206)


def plan(http: web.BaseRequest, digest: Digest, size: int, media_type: str) -> Plan:
    """Decide between 200, 206 and 304 (RFC 9110, 13.2.2 and 14.2).

    Raises Invalid (RANGE_INVALID) for 416.
    """
    etag, headers = _names(digest)
    if _matches(http.headers.get(hdrs.IF_NONE_MATCH), etag):
        return Plan(304, headers, 0, 0)
    headers = entity(digest, media_type, size)
    wanted = _range(http, etag, size)
    if wanted is None:
        return Plan(200, headers, 0, size)
    headers[hdrs.CONTENT_RANGE] = wanted.content_range(size)
    headers[hdrs.CONTENT_LENGTH] = str(wanted.length)
    return Plan(206, headers, wanted.start, wanted.stop)


def entity(digest: Digest, media_type: str, size: int) -> dict[str, str]:
    """The headers of a 200 with all of it."""
    _etag, headers = _names(digest)
    headers[hdrs.CONTENT_TYPE] = media_type
    headers[hdrs.ACCEPT_RANGES] = "bytes"
    headers[hdrs.CONTENT_LENGTH] = str(size)
    return headers


def _names(digest: Digest) -> tuple[str, dict[str, str]]:
    etag = f'"{digest}"'
    return etag, {
        DIGEST_HEADER: str(digest),
        hdrs.ETAG: etag,
        hdrs.SERVER: SERVER,
        hdrs.CACHE_CONTROL: CACHE_FOREVER,
    }


def _range(http: web.BaseRequest, etag: str, size: int) -> ByteRange | None:
    header = http.headers.get(hdrs.RANGE)
    if header is None or http.method != hdrs.METH_GET:  # RFC 9110, 14.2: for GET only
        return None
    condition = http.headers.get(hdrs.IF_RANGE)
    if condition is not None and condition.strip() != etag:
        return None
    return parse_range(header, size)


def _matches(header: str | None, etag: str) -> bool:
    """If-None-Match by weak comparison (RFC 9110, 13.1.2). A digest's text holds no comma."""
    if header is None:
        return False
    return any(tag.strip().removeprefix("W/") in ("*", etag) for tag in header.split(","))


def entire(data: bytes, headers: dict[str, str]) -> Plan:
    """200 with all of `data`, which knows neither conditions nor ranges."""
    common: dict[str, str] = {hdrs.CONTENT_LENGTH: str(len(data)), hdrs.SERVER: SERVER}
    return Plan(200, {**headers, **common}, 0, len(data))


def whole(exchange: Exchange, data: bytes, headers: dict[str, str]) -> web.Response:
    """200 with a few bytes, or its head alone for HEAD."""
    body = None if exchange.head_only else data
    return web.Response(body=body, headers=entire(data, headers).headers)


@dataclass(frozen=True, slots=True)
class Refusal:
    """The OCI answer to an error."""

    status: int
    headers: dict[str, str]
    body: bytes


def refused(record: Record, error: FacadeError, *, size: int | None = None) -> Refusal:
    """The answer to `error` (interface.md, "Device port").

    Arguments:
        size: of the representation, for the Content-Range of a 416.
    """
    pull: PullRequest | None = record.pull
    answer = answer_for(error, pull.role if pull is not None else None)
    if answer.status == 500:  # a defect of ours is no verdict on the request: it may try again
        answer = Answer(503, answer.code)
    headers: dict[str, str] = {
        hdrs.CONTENT_TYPE: JSON,
        hdrs.CACHE_CONTROL: NO_STORE,
        hdrs.SERVER: SERVER,
    }
    if answer.status in _RETRYABLE:
        seconds = error.retry_after if error.retry_after is not None else 0
        headers[hdrs.RETRY_AFTER] = str(max(1, math.ceil(seconds or DEFAULT_RETRY_AFTER_SECONDS)))
    if answer.status == 405:
        headers[hdrs.ALLOW] = METHODS
    if answer.status == 416 and size is not None:
        headers[hdrs.CONTENT_RANGE] = f"bytes */{size}"
    content = body(answer.code, for_device(error, pull), error.reason, record.id)
    headers[hdrs.CONTENT_LENGTH] = str(len(content))
    return Refusal(answer.status, headers, content)


def refusal(exchange: Exchange, error: FacadeError, *, size: int | None = None) -> web.Response:
    """`refused`, for the HTTP server."""
    made = refused(exchange, error, size=size)
    return web.Response(status=made.status, body=made.body, headers=made.headers)


def unforeseen() -> Unavailable:
    """What a defect of ours is to whoever asked; the log has its traceback."""
    return Unavailable(
        "Something went wrong inside the facade. Its operator finds it in the log by this request id.",
        reason=Reason.INTERNAL,
    )
