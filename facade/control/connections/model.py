"""A connection as stored, and as listed.

Guarantees: no field holds a secret in the clear; `sealed` does not show in a repr. A listing (`Listed`)
holds host, username and provider and nothing else (product row 4).
"""

from dataclasses import dataclass, field, replace
from typing import Self

from facade.oci.host import RegistryHost
from facade.upstream.connection import Connection
from facade.wings import ConnectionUsed

MAX_ERROR_CHARS = 500


@dataclass(frozen=True, slots=True)
class Listed:
    """What a listing shows of a connection."""

    host: RegistryHost
    username: str
    provider: str


@dataclass(frozen=True, slots=True)
class StoredConnection:
    """Everything that is kept of a connection. Times are Unix seconds.

    Arguments:
        connection: what both wings see.
        username: shown to operators; not a secret.
        sealed: the provider's secret fields, sealed; None = it has none.
        created_by: who connected it.
        last_ok: when it last worked.
        last_error: why it last failed, in words; None when it worked since.
    """

    connection: Connection
    username: str
    created_by: str
    created_at: float
    changed_at: float
    sealed: str | None = field(default=None, repr=False)
    last_ok: float | None = None
    last_error: str | None = None
    last_error_at: float | None = None

    @property
    def host(self) -> RegistryHost:
        """The registry."""
        return self.connection.host

    @property
    def listed(self) -> Listed:
        """What a listing shows."""
        return Listed(self.connection.host, self.username, self.connection.provider)

    def after(self, use: ConnectionUsed) -> Self:
        """What is kept once it was used."""
        if use.error is None:
            return replace(self, last_ok=use.at, last_error=None, last_error_at=None)
        return replace(self, last_error=use.error[:MAX_ERROR_CHARS], last_error_at=use.at)
