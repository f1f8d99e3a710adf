"""Asking a cloud's own API for credentials, as values and a port.

Guarantees: what is sent and what comes back may hold secrets, and neither shows in a repr. Pure:
`cloud_client` sends it, over the checked transport. Which URL is asked is fixed by code or by
process configuration, never by a registry's answer.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from facade.secret import Secret
from facade.upstream.connection import Connection


@dataclass(frozen=True, slots=True)
class CloudRequest:
    """One request. `headers` decide the body's Content-Type; without one it is a form."""

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: Secret = field(default_factory=lambda: Secret(""))


@dataclass(frozen=True, slots=True)
class CloudAnswer:
    """What came back: whole, small, with header names in lower case."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)


class CloudHttp(Protocol):
    """`facade.upstream.cloud_client.CloudClient`."""

    async def send(self, connection: Connection, request: CloudRequest) -> CloudAnswer:
        """The answer, whatever its status.

        Arguments:
            connection: on whose behalf; its proxy and CA apply.

        Raises Upstream when there is none.
        """
        ...
