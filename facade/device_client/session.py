"""Speaking to a facade's device port over mutual TLS.

Guarantees: only the given server CA is trusted, TLS 1.3 only, no redirect is followed, no body is
decompressed, every wait is bounded. Every failure is a `FacadeError` in words: the facade's own where
it said some, the TLS alert's where it refused our certificate. Verifies no content.
"""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import aiohttp

from facade.errors import Denied, FacadeError, Integrity, Invalid, NotFound, Unavailable, Upstream
from facade.reasons import Reason

CONNECT_SECONDS = 15.0
SILENCE_SECONDS = 300.0
"""Longest wait for the next byte: a facade that verifies strictly sends none before it has all."""
_MAX_ERROR_BYTES = 64 * 1024
_MAX_WORDS = 300
_READ_BYTES = 256 * 1024

# What OpenSSL calls the alerts that speak of our certificate (RFC 8446, 6.2).
_ALERTS = {
    "CERTIFICATE_REQUIRED": "it received no client certificate",
    "CERTIFICATE_EXPIRED": "this device's certificate has expired",
    "UNKNOWN_CA": "it does not know the CA of this device's certificate",
    "UNSUPPORTED_CERTIFICATE": "this device's certificate is not for client authentication",
    "BAD_CERTIFICATE": "this device's certificate is not valid",
    "CERTIFICATE_UNKNOWN": "it does not accept this device's certificate",
    "CERTIFICATE_REVOKED": "this device's certificate was revoked",
}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A facade, and who we are there.

    Arguments:
        url: `https://host:port`.
        certificate, key: the device's, PEM files.
        server_ca: PEM file with the CA of the facade's own certificate.
    """

    url: str
    certificate: Path
    key: Path
    server_ca: Path

    def base_url(self) -> str:
        """The URL without a trailing slash. Raises Invalid unless it is https and bare."""
        parts = urlsplit(self.url)
        try:
            bare = parts.path in ("", "/") and not (parts.query or parts.fragment)
            good = parts.scheme == "https" and bool(parts.hostname) and parts.port != 0
        except ValueError:
            good = bare = False
        if not good or not bare or "@" in parts.netloc:
            raise Invalid("Give the facade as https://host:port, nothing more.")
        return f"https://{parts.netloc}"

    def context(self) -> ssl.SSLContext:
        """Raises Invalid, naming the file that cannot be used."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        try:
            context.load_verify_locations(self.server_ca)
        except (OSError, ssl.SSLError) as error:
            raise Invalid(f"The server CA file {self.server_ca} cannot be used: {error}") from error
        try:
            context.load_cert_chain(self.certificate, self.key, password=b"")
        except (OSError, ValueError, ssl.SSLError) as error:
            raise Invalid(
                f"The certificate {self.certificate} with key {self.key} cannot be used: {error}"
            ) from error
        return context


@dataclass(frozen=True, slots=True)
class Answer:
    """A successful response, its body still to be read."""

    status: int
    headers: Mapping[str, str]
    _response: aiohttp.ClientResponse

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body. Raises Unavailable when it breaks off."""
        with _failures():
            async for chunk in self._response.content.iter_chunked(_READ_BYTES):
                yield chunk


class FacadeSession:
    """A session with one facade; an async context manager."""

    def __init__(self, endpoint: Endpoint, *, silence_seconds: float = SILENCE_SECONDS) -> None:
        self._base_url = endpoint.base_url()
        self._context = endpoint.context()
        self._silence_seconds = silence_seconds
        self._http: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=CONNECT_SECONDS, sock_read=self._silence_seconds
        )
        self._http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=self._context),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            timeout=timeout,
            headers={"Accept-Encoding": "identity"},
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._http is not None:
            await self._http.close()
            await asyncio.sleep(0)  # aiohttp closes its transports in the next turn

    @asynccontextmanager
    async def get(
        self, path: str, headers: Mapping[str, str] | None = None
    ) -> AsyncIterator[Answer]:
        """GET `path`; the answer is 200 or 206.

        Raises the FacadeError that the status stands for, in the facade's words.
        """
        assert self._http is not None
        with _failures():
            response = await self._http.get(
                f"{self._base_url}{path}", headers=headers, allow_redirects=False
            )
        async with response:
            if response.status not in (200, 206):
                with _failures():
                    body = await _read(response, _MAX_ERROR_BYTES)
                raise _error(response.status, response.headers, body)
            yield Answer(response.status, response.headers, response)

    async def fetch(
        self, path: str, max_bytes: int, headers: Mapping[str, str] | None = None
    ) -> bytes:
        """A whole body. Raises Integrity beyond `max_bytes`, else as `get`."""
        async with self.get(path, headers) as answer:
            data = bytearray()
            async for chunk in answer.chunks():
                data += chunk
                if len(data) > max_bytes:
                    raise Integrity(f"{path} is larger than the {max_bytes} bytes it may have.")
            return bytes(data)


async def _read(response: aiohttp.ClientResponse, at_most: int) -> bytes:
    data = b""
    async for chunk in response.content.iter_chunked(at_most):
        data += chunk
        if len(data) > at_most:
            break
    return data[:at_most]


def _error(status: int, headers: Mapping[str, str], body: bytes) -> FacadeError:
    """What a refusal means; its words come from the OCI error body."""
    words, reason = _words(body)
    message = (
        f"The facade answered {status}: {words}" if words else f"The facade answered {status}."
    )
    retry_after = _seconds(headers.get("Retry-After"))
    if status == 403:
        return Denied(message, reason=reason)
    if status == 404:
        return NotFound(message, reason=reason or Reason.NOT_FOUND)
    if status in (429, 503):
        return Unavailable(message, reason=reason, retry_after=retry_after)
    if status in (502, 504):
        return Upstream(
            message,
            reason=reason or Reason.UPSTREAM_UNREACHABLE,
            status=status,
            retry_after=retry_after,
        )
    if 400 <= status < 500:
        return Invalid(message, reason=reason)
    return Unavailable(message, reason=reason, retry_after=retry_after)


def _words(body: bytes) -> tuple[str, Reason | None]:
    try:
        first = json.loads(body)["errors"][0]
        message = str(first.get("message", ""))
        detail = first.get("detail")
        code = detail.get("reason") if isinstance(detail, dict) else None
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return "", None
    words = "".join(filter(str.isprintable, message))[:_MAX_WORDS]
    return words, Reason(code) if code in set(Reason) else None


def _seconds(text: str | None) -> float | None:
    return float(text) if text and text.isascii() and text.isdigit() and len(text) < 6 else None


@contextmanager
def _failures() -> Iterator[None]:
    """Foreign exceptions become ours here."""
    try:
        yield
    except aiohttp.ClientConnectorCertificateError as error:
        raise Denied(
            f"The facade's certificate is not to be trusted: {error.certificate_error}"
        ) from error
    except (aiohttp.ClientError, OSError) as error:
        raise _connection_failure(error) from error


def _connection_failure(error: BaseException) -> FacadeError:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLError):
            words = cause.reason or ""
            for alert, meaning in _ALERTS.items():
                if words.endswith(f"ALERT_{alert}"):
                    return Denied(
                        f"The facade refused this device: {meaning}.", reason=Reason.IDENTITY
                    )
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, TimeoutError):
        return Unavailable("The facade did not answer in time.", reason=Reason.DEADLINE)
    words = str(error) or type(error).__name__
    return Unavailable(f"The connection to the facade failed: {words}")
