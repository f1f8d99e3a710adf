"""The operator API's client for the command line.

Guarantees: every failure is one `FacadeError` with a sentence: the server's own, or the URL that was
tried and what to do. Follows no redirect, uses no proxy from the environment (the operator port
is ours and near), reads bounded answers. Verifies https with the state folder's CA as well as
the system's.
"""

import http.client
import json
import ssl
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from facade.cli.usage import Usage
from facade.errors import FacadeError, Unavailable
from facade.secret import Secret

TIMEOUT_SECONDS = 60.0
LONG_SECONDS = 3600.0
"""For what hashes or fetches a lot: verify, warm, prune."""
_MAX_ANSWER_BYTES = 64 * 1024 * 1024
_MAX_LINE_BYTES = 16 * 1024 * 1024
_PAGE = 200

Query = Mapping[str, str | int | bool | None]


class ApiError(FacadeError):
    """The server refused or failed.

    Arguments:
        status: HTTP status.
        body: the response body, to print with `--json`.
    """

    def __init__(self, message: str, *, status: int, body: Mapping[str, Any]) -> None:
        super().__init__(message)
        self.status = status
        self.body = body


def segment(text: str) -> str:
    """One path segment, encoded."""
    return quote(text, safe="")


class Api:
    """One operator API.

    Arguments:
        url: like http://127.0.0.1:8080, without a path.
        ca_file: PEM to trust besides the system's certificates.

    Raises Usage for a URL that is none.
    """

    def __init__(self, url: str, key: Secret, *, ca_file: Path | None = None) -> None:
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise Usage(f"FACADE_URL is no URL: {url}.") from error
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise Usage(f"FACADE_URL must look like http://127.0.0.1:8080, not {url}.")
        if not key.reveal().isascii() or not key.reveal().isprintable():
            raise Usage("The API key holds characters that no API key has.")
        self.url = url
        self._https = parts.scheme == "https"
        self._host = parts.hostname
        self._port = port or (443 if self._https else 80)
        self._prefix = parts.path.rstrip("/") + "/api/v1"
        self._key = key
        self._ca_file = ca_file

    def get(self, path: str, query: Query | None = None) -> dict[str, Any]:
        """GET. Raises ApiError, Unavailable."""
        return self._json("GET", path, query=query)

    def post(
        self, path: str, body: Mapping[str, Any] | None = None, *, seconds: float = TIMEOUT_SECONDS
    ) -> dict[str, Any]:
        """POST. Raises ApiError, Unavailable."""
        return self._json("POST", path, body=body or {}, seconds=seconds)

    def patch(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """PATCH. Raises ApiError, Unavailable."""
        return self._json("PATCH", path, body=body)

    def delete(self, path: str) -> dict[str, Any]:
        """DELETE. Raises ApiError, Unavailable."""
        return self._json("DELETE", path)

    def everything(self, path: str, query: Query | None = None) -> dict[str, Any]:
        """A whole list, page by page: `{"items": […], "total": n}`."""
        items: list[Any] = []
        while True:
            page = self.get(path, {**(query or {}), "limit": _PAGE, "offset": len(items)})
            items += page["items"]
            if not page["items"] or len(items) >= page["total"]:
                return {"items": items, "total": len(items)}

    def records(self, path: str, query: Query | None = None) -> dict[str, Any]:
        """As `everything`, of a list that grows while it is read: newest first, none twice."""
        items: list[Any] = []
        before: int | None = None
        while True:
            page = self.get(path, {**(query or {}), "limit": _PAGE, "before": before})
            items += page["items"]
            if len(page["items"]) < _PAGE:
                return {"items": items, "total": len(items)}
            before = page["items"][-1]["id"]

    def stream(
        self,
        path: str,
        body: Mapping[str, Any] | None,
        progress: Callable[[dict[str, Any]], None],
    ) -> dict[str, Any]:
        """POST with server-sent events: each `progress` is passed on, the `result` returned.

        Raises ApiError, Unavailable.
        """
        with self._open("POST", path, body=body, accept="text/event-stream") as response:
            if response.headers.get_content_type() != "text/event-stream":
                return self._read(response)
            for event, data in _events(response, self.url):
                if event == "result":
                    return data
                if event == "error":
                    raise ApiError(_sentence(data, response), status=500, body=data)
                progress(data)
        raise Unavailable(f"The facade at {self.url} broke off before the result; run it again.")

    def _json(
        self,
        method: str,
        path: str,
        *,
        query: Query | None = None,
        body: Mapping[str, Any] | None = None,
        seconds: float = TIMEOUT_SECONDS,
    ) -> dict[str, Any]:
        with self._open(method, path, query=query, body=body, seconds=seconds) as response:
            return self._read(response)

    def _open(
        self,
        method: str,
        path: str,
        *,
        query: Query | None = None,
        body: Mapping[str, Any] | None = None,
        accept: str = "application/json",
        seconds: float = TIMEOUT_SECONDS,
    ) -> "_Exchange":
        pairs = {
            name: str(value).lower() if isinstance(value, bool) else str(value)
            for name, value in (query or {}).items()
            if value is not None and value is not False
        }
        target = self._prefix + path + (f"?{urlencode(pairs)}" if pairs else "")
        headers = {"Authorization": f"Bearer {self._key.reveal()}", "Accept": accept}
        data = None
        if body is not None:
            data = json.dumps(body).encode()
            headers["Content-Type"] = "application/json"
        connection = self._connection(seconds)
        try:
            connection.request(method, target, body=data, headers=headers)
            return _Exchange(connection, connection.getresponse(), self.url)
        except ssl.SSLCertVerificationError as error:
            connection.close()
            raise Unavailable(
                f"The certificate of {self.url} is not trusted: {error.verify_message.rstrip('.')}. "
                "Put that facade's server-ca.pem into the folder that --state names (or set "
                "SSL_CERT_FILE), and call it in FACADE_URL by a name of its certificate."
            ) from error
        except ssl.SSLError as error:
            connection.close()
            raise Unavailable(
                f"No TLS is spoken at {self.url} ({error.reason or 'broken off'}). If that facade "
                "has no certificate of its own, write http:// in FACADE_URL."
            ) from error
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise _no_answer(self.url, error) from error

    def _connection(self, seconds: float) -> http.client.HTTPConnection:
        if not self._https:
            return http.client.HTTPConnection(self._host, self._port, timeout=seconds)
        context = ssl.create_default_context()
        if self._ca_file is not None:
            try:
                context.load_verify_locations(self._ca_file)
            except (OSError, ssl.SSLError) as error:
                raise Usage(f"{self._ca_file} cannot be read as certificates.") from error
        return http.client.HTTPSConnection(self._host, self._port, timeout=seconds, context=context)

    def _read(self, response: http.client.HTTPResponse) -> dict[str, Any]:
        try:
            data = response.read(_MAX_ANSWER_BYTES + 1)
        except (OSError, http.client.HTTPException) as error:
            raise _no_answer(self.url, error) from error
        try:
            body = json.loads(data) if len(data) <= _MAX_ANSWER_BYTES else None
        except ValueError:
            body = None
        if not isinstance(body, dict):
            raise ApiError(
                f"{self.url} answered {response.status}, but not as a facade does; is it one?",
                status=response.status,
                body={"error": f"{self.url} answered {response.status} without JSON"},
            )
        if response.status >= 400:
            raise ApiError(_sentence(body, response), status=response.status, body=body)
        return body


class _Exchange:
    """A response whose connection is closed with it."""

    def __init__(
        self,
        connection: http.client.HTTPConnection,
        response: http.client.HTTPResponse,
        url: str,
    ) -> None:
        self._connection = connection
        self._response = response

    def __enter__(self) -> http.client.HTTPResponse:
        return self._response

    def __exit__(self, *_: object) -> None:
        self._response.close()
        self._connection.close()


def _no_answer(url: str, error: Exception) -> Unavailable:
    if isinstance(error, TimeoutError):
        return Unavailable(f"The facade at {url} did not answer in time.")
    if isinstance(error, ConnectionRefusedError):
        return Unavailable(f"No facade answers at {url}. Start one with: facade up")
    why = getattr(error, "strerror", None) or type(error).__name__
    return Unavailable(f"No facade answers at {url} ({why}). Start one with: facade up")


def _sentence(body: Mapping[str, Any], response: http.client.HTTPResponse) -> str:
    message = body.get("error")
    return message if isinstance(message, str) else f"The facade answered {response.status}."


def _events(response: http.client.HTTPResponse, url: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Server-sent events as (name, JSON object); comments are skipped."""
    name, data = "message", ""
    while True:
        try:
            raw = response.readline(_MAX_LINE_BYTES)
        except (OSError, http.client.HTTPException) as error:
            raise _no_answer(url, error) from error
        if not raw:
            return
        text = raw.decode("utf-8", "replace").rstrip("\r\n")
        field, _, value = text.partition(":")
        value = value.removeprefix(" ")
        if not text:
            if data:
                yield name, _object(data, url)
            name, data = "message", ""
        elif field == "event":
            name = value
        elif field == "data":
            data += value


def _object(data: str, url: str) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except ValueError as error:
        raise Unavailable(f"{url} sent an event that is no JSON.") from error
    if not isinstance(value, dict):
        raise Unavailable(f"{url} sent an event that is no JSON object.")
    return value
