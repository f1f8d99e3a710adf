"""aiobotocore's HTTP, replaced by ours.

Guarantees: every request that an AWS client made with this session class sends goes through the checked
transport (address rules, the connection's proxy and CA, deadlines, bounded answers) and through
nothing of aiobotocore's own. Signed headers are sent as they were signed.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, Self

from facade.secret import Secret
from facade.upstream.cloud import CloudHttp, CloudRequest
from facade.upstream.connection import Connection

Load = Callable[[str], ModuleType]
"""Imports a module by name."""


@dataclass(frozen=True, slots=True)
class _Raw:
    """A body as aiobotocore reads it."""

    body: bytes = field(repr=False)

    async def read(self) -> bytes:
        return self.body


def http_session(http: CloudHttp, connection: Connection, load: Load) -> type:
    """A class to put where aiobotocore makes its HTTP session: it sends over our transport."""
    response_class = load("aiobotocore.awsrequest").AioAWSResponse

    class OverOurTransport:
        """What aiobotocore asks of an HTTP session."""

        def __init__(self, **theirs: Any) -> None:
            """Proxies, verification and timeouts are ours to decide."""

        async def __aenter__(self) -> Self:
            return self

        async def __aexit__(self, *_: object) -> None:
            await self.close()

        async def close(self) -> None:
            """Nothing of its own is open."""

        async def send(self, request: Any) -> Any:
            headers = {
                name: value.decode() if isinstance(value, bytes) else str(value)
                for name, value in request.headers.items()
                if name.lower() not in ("user-agent", "content-length")
            }
            body = request.body or b""
            text = body.decode() if isinstance(body, bytes | bytearray) else str(body)
            answer = await http.send(
                connection, CloudRequest(request.method, request.url, headers, Secret(text))
            )
            return response_class(request.url, answer.status, answer.headers, _Raw(answer.body))

    return OverOurTransport
