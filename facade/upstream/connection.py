"""What is needed to speak to a connected registry, without any secret.

Guarantees: holds nothing that may not be shown; two connections never compare equal. The stored
form, with the sealed secret, is `control.connections.model`.
"""

from dataclasses import dataclass, field
from typing import Protocol

from facade.oci.host import RegistryHost
from facade.oci.reference import Repository
from facade.secret import Secret
from facade.upstream.challenge import Challenge


@dataclass(frozen=True, slots=True)
class ConnectionSettings:
    """How to reach a registry.

    Arguments:
        insecure: plain http (shown in red everywhere).
        ca_pem: PEM certificates to trust for this registry instead of the system's.
        auth_hosts: further host names whose token realms may be told the credentials.
        proxy: URL of an egress proxy, which then must enforce the address rules itself.
    """

    insecure: bool = False
    ca_pem: str | None = None
    auth_hosts: tuple[str, ...] = ()
    proxy: str | None = None


@dataclass(frozen=True, slots=True)
class Connection:
    """A connected registry as both wings see it.

    Arguments:
        id: opaque, never reused: a removed and re-added host is another connection.
        host: its identity.
        revision: counts up with every change of credentials or settings.
        provider: "static", "anonymous", "google" or "aws".
    """

    id: str
    host: RegistryHost
    provider: str
    revision: int = 1
    settings: ConnectionSettings = field(default_factory=ConnectionSettings)

    @property
    def base_url(self) -> str:
        """`https://endpoint` (http when insecure), without a trailing slash."""
        return f"{'http' if self.settings.insecure else 'https'}://{self.host.endpoint}"


@dataclass(frozen=True, slots=True)
class Scope:
    """What a token is asked for (distribution token specification, "scope")."""

    repository: Repository | None
    actions: tuple[str, ...] = ("pull",)

    def __str__(self) -> str:
        if self.repository is None:
            return ""
        return f"repository:{self.repository}:{','.join(self.actions)}"


@dataclass(frozen=True, slots=True)
class Authorization:
    """What to send to the registry's own origin, and nowhere else.

    Arguments:
        header: value of the Authorization header; None = send none.
        id: opaque name of this very token, to say which one was refused.
        expires_at: Unix seconds, None = does not expire.
    """

    header: Secret | None
    id: str = ""
    expires_at: float | None = None


class Authorizer(Protocol):
    """Where `client` gets its Authorization header from: the control port, or the broker itself."""

    async def authorization(
        self,
        connection: Connection,
        scope: Scope,
        *,
        challenge: tuple[Challenge, ...] = (),
        refused: str | None = None,
    ) -> Authorization:
        """The header to present to `connection` for `scope`.

        Arguments:
            challenge: the challenges just received with a 401; empty = whatever is remembered.
            refused: id of the authorization that the registry rejected: it is dropped and
                exchanged afresh once, for all who name the same id.

        Raises Denied when the connection is gone, Upstream when the exchange fails.
        """
        ...
