"""Who may speak to the operator port: host names, API keys, failed attempts.

Guarantees: a request whose Host header is not one of ours is refused before anything else (DNS
rebinding: a web page whose name was re-pointed at 127.0.0.1 still sends its own name); from an address
that has failed too often only keys that are ours are looked up, so whoever guesses is stopped and
locks no operator behind the same address out. Does not protect against a flood of connections: the
operator port is not meant for the internet.
"""

import ipaddress
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from facade.clock import Clock
from facade.control.api.errors import TooManyFailures, Unauthorized
from facade.control.api.permissions import Principal
from facade.errors import Denied
from facade.secret import Secret

Authenticate = Callable[[Secret], Awaitable[Principal | None]]
Known = Callable[[Secret], bool]
"""Whether a key looks like one of ours, from memory. Says nothing about what it may do."""

FAILURES_ALLOWED = 20
"""Failed keys per address and window before 429."""
FAILURE_WINDOW_SECONDS = 60.0
_MAX_ADDRESSES = 10_000
_MAX_KEY_CHARS = 512
_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


class FailedKeys:
    """Counts failed keys per address in fixed windows; bounded memory, oldest addresses go first."""

    def __init__(
        self,
        clock: Clock,
        *,
        allowed: int = FAILURES_ALLOWED,
        window: float = FAILURE_WINDOW_SECONDS,
    ) -> None:
        self._clock = clock
        self._allowed = allowed
        self._window = window
        self._failures: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def check(self, address: str) -> None:
        """Raises TooManyFailures, with the seconds until the window ends."""
        started, count = self._failures.get(address, (0.0, 0))
        left = started + self._window - self._clock.monotonic()
        if count >= self._allowed and left > 0:
            raise TooManyFailures(
                "Too many failed API keys from this address; wait a minute.", retry_after=left
            )

    def failed(self, address: str) -> None:
        """Take note of a failed key."""
        now = self._clock.monotonic()
        started, count = self._failures.pop(address, (now, 0))
        if now - started >= self._window:
            started, count = now, 0
        self._failures[address] = (started, count + 1)
        while len(self._failures) > _MAX_ADDRESSES:
            self._failures.popitem(last=False)


class Authentication:
    """Reads `Authorization: Bearer <api key>` (RFC 6750, 2.1).

    Arguments:
        authenticate: looks a key up; None for a key that is unknown or revoked.
        known: which keys are looked up from an address that has failed too often.
    """

    def __init__(self, authenticate: Authenticate, known: Known, clock: Clock) -> None:
        self._authenticate = authenticate
        self._known = known
        self._failed = FailedKeys(clock)

    async def principal(self, request: web.Request) -> Principal:
        """Who is asking.

        Raises Unauthorized without a valid key, TooManyFailures after too many.
        """
        address = request.remote or ""
        scheme, _, value = request.headers.get("Authorization", "").partition(" ")
        key = Secret(value.strip())
        # An overlong one is none, and not worth hashing; other bytes may be no text at all.
        readable = len(value) <= _MAX_KEY_CHARS and value.isascii()
        if not (readable and self._known(key)):
            self._failed.check(address)
        if scheme.lower() != "bearer" or not key:
            raise Unauthorized("Send the API key: Authorization: Bearer <api key>.")
        principal = await self._authenticate(key) if readable else None
        if principal is None:
            self._failed.failed(address)
            raise Unauthorized("This API key is not known here, or was revoked.")
        return principal


def allowed_hosts(listen_host: str, configured: Iterable[str]) -> frozenset[str]:
    """The host names that a request may name.

    Arguments:
        listen_host: the address listened on; a wildcard address adds nothing.
        configured: `operator.allowed_hosts`, ports ignored.
    """
    names = {_host_name(name) for name in configured}
    listen = listen_host.strip("[]").lower()
    if listen and not _is_wildcard(listen):
        names.add(listen)
    return frozenset(names | _LOOPBACK_NAMES)


def hosts_middleware(hosts: frozenset[str]) -> Middleware:
    """Refuse requests whose Host header is not in `hosts`."""

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        if _host_name(request.headers.get("Host", "")) not in hosts:
            raise Denied(
                "The Host header names no host of this operator port; if it is right, add it to "
                "operator.allowed_hosts."
            )
        return await handler(request)

    return check


def _host_name(authority: str) -> str:
    """The name in `name[:port]` or `[v6][:port]`, lower case."""
    text = authority.strip().lower()
    if text.startswith("["):
        return text[1:].partition("]")[0]
    if text.count(":") > 1:  # a bare IPv6 address, as configured
        return text
    return text.partition(":")[0].removesuffix(".")


def _is_wildcard(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False
