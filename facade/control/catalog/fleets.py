"""The fleets that the signed metadata delegates to.

Guarantees: what is listed is what is published. Adding one needs the offline targets key: when it is
not at hand, nothing changes and the refusal names the command to run where it is.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from facade.device import RESERVED_FLEETS, parse_fleet


class RoleState(Protocol):
    """A role as published (`control.signing.status.RoleStatus`)."""

    @property
    def name(self) -> str: ...
    @property
    def version(self) -> int: ...
    @property
    def expires(self) -> float: ...
    @property
    def targets(self) -> int | None: ...


class Delegation(Protocol):
    """`control.signing.ceremony.FleetDelegation`. Synchronous: called in a thread."""

    def ensure(self, fleet: str) -> bool: ...


@dataclass(frozen=True, slots=True)
class FleetRecord:
    """A fleet.

    Arguments:
        artifacts: how many are signed for it.
        version, expires: of its role; Unix seconds.
    """

    name: str
    artifacts: int
    version: int | None = None
    expires: float | None = None


class Fleets:
    """See the module.

    Arguments:
        roles: reads every published role, the top-level ones too; called in a thread.
    """

    def __init__(self, delegation: Delegation, roles: Callable[[], Iterable[RoleState]]) -> None:
        self._delegation = delegation
        self._roles = roles

    async def list(self) -> Sequence[FleetRecord]:
        """All fleets, by name. Raises Conflict before the first ceremony, Integrity."""
        roles = await asyncio.to_thread(self._roles)
        fleets = (role for role in roles if role.name not in RESERVED_FLEETS)
        return tuple(
            FleetRecord(role.name, role.targets or 0, role.version, role.expires)
            for role in sorted(fleets, key=lambda role: role.name)
        )

    async def add(self, name: str) -> FleetRecord:
        """Delegate to the fleet `name`; one that is there already is given back as it is.

        Raises Invalid for the name, Conflict with the command to run offline.
        """
        parse_fleet(name)
        await asyncio.to_thread(self._delegation.ensure, name)
        found = [fleet for fleet in await self.list() if fleet.name == name]
        return found[0] if found else FleetRecord(name, 0)
