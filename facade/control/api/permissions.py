"""What an operator's key may do, and who holds it.

Guarantees: a `Principal` is a value; `require` and `require_fleet` are the only two questions
asked of it, and both say in the refusal what is missing. Pure.
"""

from dataclasses import dataclass
from enum import StrEnum

from facade.errors import Denied


class Permission(StrEnum):
    """One permission of an API key, as interface.md's table names it."""

    CONNECTIONS_READ = "connections.read"
    CONNECTIONS_WRITE = "connections.write"
    ARTIFACTS_READ = "artifacts.read"
    ARTIFACTS_WRITE = "artifacts.write"
    DEVICES_READ = "devices.read"
    DEVICES_WRITE = "devices.write"
    TRUST_READ = "trust.read"
    CACHE_READ = "cache.read"
    CACHE_WRITE = "cache.write"
    AUDIT_READ = "audit.read"
    KEYS_WRITE = "keys.write"


@dataclass(frozen=True, slots=True)
class Principal:
    """The holder of an API key.

    Arguments:
        id: the key's public id, as `facade apikey list` shows it.
        name: what its maker called it.
        permissions: what it may do.
        fleets: the only fleets it may touch; None = all.
    """

    id: str
    name: str
    permissions: frozenset[str]
    fleets: frozenset[str] | None = None

    def require(self, permission: Permission) -> None:
        """Raises Denied that names the missing permission."""
        if permission not in self.permissions:
            raise Denied(
                f"This API key lacks the permission {permission}. Who has keys.write makes one "
                f"with: facade apikey create NAME --permission {permission}"
            )

    def require_fleet(self, fleet: str) -> None:
        """Raises Denied when the key is limited to other fleets."""
        if self.fleets is not None and fleet not in self.fleets:
            raise Denied(
                f"This API key is limited to the fleets {', '.join(sorted(self.fleets)) or '(none)'}."
            )

    def require_all_fleets(self) -> None:
        """Raises Denied when the key is limited to some fleets."""
        if self.fleets is not None:
            raise Denied(
                "This API key is limited to some fleets; this needs a key for all of them."
            )
