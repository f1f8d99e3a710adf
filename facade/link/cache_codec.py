"""What `CachePort` takes and gives ↔ JSON. Pure.

Guarantees: decoding what was encoded gives an equal value; anything else raises `Malformed`.
"""

from typing import Any

from facade.link.codec import connection_in, connection_out
from facade.link.strict import MAX_INTEGER, Fields, Malformed, pair
from facade.oci.digest import Digest
from facade.oci.reference import Repository
from facade.upstream.connection import Connection
from facade.wings import CacheStatus, WarmResult

WarmRequest = tuple[Connection, Repository, Digest, int, bool]


def warm_request_out(request: WarmRequest) -> dict[str, Any]:
    """The arguments of `CachePort.warm`."""
    connection, repository, digest, size, fetch = request
    return {
        "connection": connection_out(connection),
        "repository": str(repository),
        "digest": str(digest),
        "size": size,
        "fetch": fetch,
    }


def warm_request_in(value: object) -> WarmRequest:
    """Raises Malformed."""
    fields = Fields(value, "warm request")
    request = (
        connection_in(fields.any("connection")),
        fields.parsed("repository", Repository.parse),
        fields.parsed("digest", Digest.parse),
        fields.integer("size"),
        fields.flag("fetch"),
    )
    fields.done()
    return request


def warm_result_out(result: WarmResult) -> dict[str, Any]:
    """What came of it."""
    return {
        "digest": str(result.digest),
        "bytes": result.bytes,
        "cached": result.cached,
        "error": result.error,
    }


def warm_result_in(value: object) -> WarmResult:
    """Raises Malformed."""
    fields = Fields(value, "warm result")
    result = WarmResult(
        fields.parsed("digest", Digest.parse),
        fields.integer("bytes"),
        cached=fields.flag("cached"),
        error=fields.optional("error", fields.text),
    )
    fields.done()
    return result


def status_out(status: CacheStatus) -> dict[str, Any]:
    """What the cache holds."""
    return {
        "objects": status.objects,
        "bytes": status.bytes,
        "max_bytes": status.max_bytes,
        "in_flight": status.in_flight,
        "quarantined": status.quarantined,
    }


def status_in(value: object) -> CacheStatus:
    """Raises Malformed."""
    fields = Fields(value, "cache status")
    status = CacheStatus(
        objects=fields.integer("objects"),
        bytes=fields.integer("bytes"),
        max_bytes=fields.optional("max_bytes", fields.integer),
        in_flight=fields.integer("in_flight"),
        quarantined=fields.integer("quarantined"),
    )
    fields.done()
    return status


def counts_in(value: object) -> tuple[int, int]:
    """Two whole numbers. Raises Malformed."""
    first, second = pair(value, "counts")
    return _count(first), _count(second)


def _count(value: object) -> int:
    if type(value) is not int or not 0 <= value <= MAX_INTEGER:
        raise Malformed("counts: not a count")
    return value


def flag_in(value: object) -> bool:
    """True or false. Raises Malformed."""
    if not isinstance(value, bool):
        raise Malformed("not a flag")
    return value
