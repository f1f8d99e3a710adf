"""What may go wrong on the wire, in words.

Guarantees: whatever aiohttp and the socket raise becomes one `Broken` that names the host, says what
to do, and knows whether trying again may help. Certificate and address refusals are never
transient: nothing falls back to plain http or to another address.
"""

import errno
import os
import socket
import ssl

import aiohttp
from yarl import URL

from facade.errors import Upstream
from facade.reasons import Reason
from facade.upstream.redirects import place
from facade.upstream.words import redact


class Broken(Upstream):
    """The exchange failed before there was an answer.

    Arguments:
        reached: whether a connection stood.
        transient: whether it may be different next time.
        reason: DEADLINE when there was time for nothing more.
    """

    def __init__(
        self,
        message: str,
        *,
        reached: bool,
        transient: bool,
        reason: Reason = Reason.UPSTREAM_UNREACHABLE,
    ) -> None:
        super().__init__(message, reason=reason)
        self.reached = reached
        self.transient = transient


class AddressRefused(OSError):
    """Carries the address rules' words through the connector, which lets OSError pass."""

    def __init__(self, error: Upstream) -> None:
        super().__init__(errno.EACCES, error.message)
        self.error = error


def broken(url: URL, error: Exception) -> Broken:
    """What went wrong on the wire, in words.

    Arguments:
        error: aiohttp.ClientError or OSError.
    """
    where = place(url)
    match error:
        case aiohttp.ClientConnectorCertificateError():
            why = redact(getattr(error.certificate_error, "verify_message", "") or "not trusted")
            return Broken(
                f"{where} shows a certificate that cannot be verified: {why.rstrip('.')}. If it is signed by a "
                "private CA, give that with --ca-file.",
                reached=True,
                transient=False,
            )
        case aiohttp.ClientConnectorError(os_error=AddressRefused() as refused):
            return Broken(refused.error.message, reached=False, transient=False)
        case aiohttp.ClientConnectorDNSError():
            transient = error.os_error.errno == socket.EAI_AGAIN
            return _unreachable(where, "its name cannot be resolved", transient=transient)
        case aiohttp.ClientConnectorError():
            transient = not isinstance(error.os_error, ssl.SSLError)
            return _unreachable(where, _os_words(error.os_error), transient=transient)
        case aiohttp.ClientHttpProxyError():
            return Broken(
                f"The proxy did not let the connection to {where} pass (it answered {error.status}).",
                reached=False,
                transient=error.status >= 500,
            )
        case aiohttp.ConnectionTimeoutError():
            return _unreachable(where, "connecting took too long", transient=True)
        case TimeoutError():
            return Broken(
                f"{where} did not answer in time. Try again later.",
                reached=True,
                transient=True,
                reason=Reason.DEADLINE,
            )
        case aiohttp.InvalidURL():
            return _unreachable(where, "its name is not valid", transient=False)
        case aiohttp.ClientResponseError():
            return Broken(
                f"{where} answered with something that is no proper HTTP. Check the port, and whether "
                "the registry speaks https there.",
                reached=True,
                transient=True,
            )
    return Broken(
        f"{where} broke the connection before it answered. Try again later.",
        reached=True,
        transient=True,
    )


def _unreachable(where: str, why: str, *, transient: bool) -> Broken:
    return Broken(
        f"{where} cannot be reached: {why}. Check the host and port, and that this machine may "
        "connect there.",
        reached=False,
        transient=transient,
    )


def _os_words(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        if error.reason != "WRONG_VERSION_NUMBER":
            return "the TLS handshake failed"
        return "it does not speak TLS there (is it a plain http registry? then connect it with --insecure)"
    if error.errno is not None and error.errno > 0:  # asyncio's own words name addresses only
        return os.strerror(error.errno).lower()
    return (error.strerror or "it breaks connections off").lower()
