"""What may go wrong on the wire, in words.

Guarantees: whatever aiohttp and the socket raise becomes one `Broken` that names the host, says what
to do, and knows whether trying again may help. Certificate and address refusals are never
transient: nothing falls back to plain http or to another address.
"""

import errno
import os
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager

import aiohttp
from yarl import URL

from facade.errors import FacadeError, Upstream
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


@contextmanager
def broken(url: URL) -> Iterator[None]:
    """Turn everything that may go wrong on the wire into `Broken`, in words."""
    where = place(url)
    try:
        yield
    except FacadeError:
        raise
    except aiohttp.ClientConnectorCertificateError as error:
        why = redact(getattr(error.certificate_error, "verify_message", "") or "not trusted")
        raise Broken(
            f"{where} shows a certificate that cannot be verified: {why.rstrip('.')}. If it is signed by a "
            "private CA, give that with --ca-file.",
            reached=True,
            transient=False,
        ) from error
    except aiohttp.ClientConnectorDNSError as error:
        if isinstance(error.os_error, AddressRefused):
            raise Broken(error.os_error.error.message, reached=False, transient=False) from error
        transient = error.os_error.errno == socket.EAI_AGAIN
        raise _unreachable(where, "its name cannot be resolved", transient=transient) from error
    except aiohttp.ClientConnectorError as error:
        refused = error.os_error
        if isinstance(refused, AddressRefused):
            raise Broken(refused.error.message, reached=False, transient=False) from error
        raise _unreachable(
            where, _os_words(refused), transient=not isinstance(refused, ssl.SSLError)
        ) from error
    except aiohttp.ClientHttpProxyError as error:
        raise Broken(
            f"The proxy did not let the connection to {where} pass (it answered {error.status}).",
            reached=False,
            transient=error.status >= 500,
        ) from error
    except aiohttp.ConnectionTimeoutError as error:
        raise _unreachable(where, "connecting took too long", transient=True) from error
    except TimeoutError as error:
        raise Broken(
            f"{where} did not answer in time. Try again later.",
            reached=True,
            transient=True,
            reason=Reason.DEADLINE,
        ) from error
    except aiohttp.InvalidURL as error:
        raise _unreachable(where, "its name is not valid", transient=False) from error
    except aiohttp.ClientResponseError as error:
        raise Broken(
            f"{where} answered with something that is no proper HTTP. Check the port, and whether "
            "the registry speaks https there.",
            reached=True,
            transient=True,
        ) from error
    except (aiohttp.ClientError, OSError) as error:
        raise Broken(
            f"{where} broke the connection before it answered. Try again later.",
            reached=True,
            transient=True,
        ) from error


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
