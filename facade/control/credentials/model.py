"""The values that providers, the broker and the store speak in, and the providers' port.

Guarantees: every secret here is a `Secret`, so no repr, log line or error shows one.

A new provider is one file in `providers/` with a class that has `prepare` and `credentials`, and
one line in the table of `providers/__init__.py`. `prepare` is pure: it reads what an operator
typed, refuses it with a sentence, and says what to seal; `credentials` turns the sealed fields
into a user name and password for the registry (or its token service), with the time they end. It
asks over `ProviderContext.http`, never over a library's own HTTP, and imports a library late. The
suite in tests/contract/test_provider_contract.py holds for each name of the table.
The broker does the rest: caching, one exchange at a time, refreshing, Basic or Bearer.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from facade.oci.host import RegistryHost
from facade.secret import Secret
from facade.upstream.connection import Connection
from facade.upstream.token import BasicCredentials


@dataclass(frozen=True, slots=True)
class Offered:
    """What an operator gives to connect a registry.

    Arguments:
        secret: password or token (static).
        config: the provider's own document (google, aws); it may hold secrets.
    """

    host: RegistryHost
    username: str = ""
    secret: Secret | None = None
    config: Mapping[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Prepared:
    """What to store: a user name to show, and fields to seal."""

    username: str
    fields: Mapping[str, Secret] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StoredSecrets:
    """What was stored, opened."""

    username: str
    fields: Mapping[str, Secret]


@dataclass(frozen=True, slots=True)
class Presented:
    """What to present upstream.

    Arguments:
        basic: user name and password; None = nothing (anonymous).
        expires_at: Unix seconds; None = the stored credentials themselves, which no cache keeps.
    """

    basic: BasicCredentials | None
    expires_at: float | None = None


class Provider(Protocol):
    """One kind of credentials.

    `exchanges` is True when `credentials` asks a cloud for a token that is worth caching (it then
    has an expiry); `eager` when the registry knows Basic only and wants it with the first request.
    """

    @property
    def exchanges(self) -> bool: ...

    @property
    def eager(self) -> bool: ...

    def prepare(self, offered: Offered) -> Prepared:
        """Check what was offered. Raises Invalid, never repeating a secret."""
        ...

    async def credentials(self, connection: Connection, stored: StoredSecrets) -> Presented:
        """What to present to the registry of `connection`. Raises Upstream when refused."""
        ...
