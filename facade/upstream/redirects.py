"""Where a redirect may lead, and what it may carry.

Guarantees: at most five hops; https only, unless the connection is insecure; no credentials in a
Location; `Authorization` stays on the registry's own origin (scheme, host and port), and once a
chain has left it, it does not come back. Presigned URLs are kept byte for byte. The address
rules are applied to every hop by `transport`.
"""

from dataclasses import dataclass

from yarl import URL

from facade.errors import Upstream
from facade.reasons import Reason

MAX_REDIRECTS = 5
MAX_LOCATION_CHARS = 8192
STATUSES = frozenset({301, 302, 303, 307, 308})
"""Answers to GET and HEAD that name another place (RFC 9110, 15.4)."""


@dataclass(frozen=True, slots=True)
class Hop:
    """One request of a chain.

    Arguments:
        url: where it goes.
        trusted: whether it may carry the registry's Authorization.
        count: redirects followed so far.
    """

    url: URL
    trusted: bool = True
    count: int = 0


def same_origin(left: URL, right: URL) -> bool:
    """Whether two URLs share scheme, host and port (RFC 6454, 4)."""
    return _origin(left) == _origin(right)


def _origin(url: URL) -> tuple[str, str, int | None]:
    return (url.scheme, (url.host or "").lower(), url.port)


def place(url: URL) -> str:
    """`host[:port]` for messages."""
    return url.host_port_subcomponent or "an unnamed host"


def resolve(base: URL, reference: str) -> URL | None:
    """A URL that an upstream gave, relative or absolute, or None when it is no http(s) URL.

    Keeps its percent-encoding as it is: a presigned URL's signature covers it.
    """
    if not reference or len(reference) > MAX_LOCATION_CHARS:
        return None
    if not (reference.isascii() and reference.isprintable()) or set(reference) & set(' \\"<>'):
        return None
    try:
        given = URL(reference, encoded=True)
        if given.scheme and not given.host:
            return None  # joined, "https:///x" would be on the base's host
        url = base.join(given)
        valid = url.scheme in ("http", "https") and bool(url.host) and url.port is not None
    except (ValueError, IndexError):  # yarl 1.x: IndexError for "//[]@" and its like
        return None
    return url.with_fragment(None) if valid else None


def follow(hop: Hop, location: str | None, *, registry: URL, insecure: bool) -> Hop:
    """The next hop after an answer with one of `STATUSES`.

    Arguments:
        registry: any URL on the registry's own origin.
        insecure: whether the connection allows plain http.

    Raises Upstream (UPSTREAM_REFUSED), naming the registry and what was wrong; never the
    Location itself, whose query may be a presigned secret.
    """
    if hop.count >= MAX_REDIRECTS:
        raise _refused(
            registry, f"it redirected more than {MAX_REDIRECTS} times, perhaps in a loop"
        )
    if location is None:
        raise _refused(registry, "it redirected without saying where to")
    target = resolve(hop.url, location)
    if target is None:
        raise _refused(registry, "it redirected to something that is no http(s) URL")
    if target.user is not None or target.password is not None:
        raise _refused(registry, f"it redirected to {target.host} with credentials in the URL")
    if target.scheme != "https" and not insecure:
        raise _refused(
            registry,
            f"it redirected to {target.host} over plain http, which is followed for connections "
            "made with --insecure only",
        )
    trusted = hop.trusted and same_origin(target, registry)
    return Hop(target, trusted=trusted, count=hop.count + 1)


def _refused(registry: URL, what: str) -> Upstream:
    return Upstream(
        f"{place(registry)} cannot be used: {what}. Its operator has to correct that.",
        reason=Reason.UPSTREAM_REFUSED,
    )
