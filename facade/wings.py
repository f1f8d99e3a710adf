"""The two ports between the wings. `serving` and `control` meet here and nowhere else.

`ControlPort` is what the serving wing asks of the control wing; `CachePort` the other way round.
Both are wired in `app.py`: in-process now, over a socket later, so every argument and result
is a frozen value, and everything that may be slow is awaited. No secret passes except inside
an `Authorization`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from facade.oci.digest import Digest
from facade.oci.host import RegistryHost
from facade.oci.reference import Repository
from facade.reasons import Reason
from facade.upstream.challenge import Challenge
from facade.upstream.connection import Authorization, Connection, Scope


@dataclass(frozen=True, slots=True)
class Revocations:
    """The deny list, as a value.

    Arguments:
        devices: (fleet, name) → Unix seconds; certificates whose not_before is at or before
            that are refused.
        certificates: refused (issuer RFC 4514, serial hex) pairs.
    """

    devices: Mapping[tuple[str, str], float] = field(default_factory=dict)
    certificates: frozenset[tuple[str, str]] = frozenset()


@dataclass(frozen=True, slots=True)
class ControlSnapshot:
    """What the serving wing needs on every request, immutable.

    Arguments:
        generation: changes with every change of the rest.
        connections: by host.
        revocations: the deny list.
    """

    generation: int = 0
    connections: Mapping[RegistryHost, Connection] = field(default_factory=dict)
    revocations: Revocations = field(default_factory=Revocations)


@dataclass(frozen=True, slots=True)
class ConnectionUsed:
    """A connection worked, or failed with `error` (redacted words)."""

    connection_id: str
    at: float
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Pulled:
    """A device's request for a manifest or blob was answered or refused."""

    at: float
    device: str
    host: str
    repository: str
    digest: str
    role: str
    outcome: str
    reason: Reason | None = None
    bytes_sent: int = 0
    cache: str = ""


@dataclass(frozen=True, slots=True)
class IntegrityFailed:
    """Bytes of an upstream or of the cache did not match their digest or length."""

    at: float
    host: str
    repository: str
    digest: str
    detail: str


Event = ConnectionUsed | Pulled | IntegrityFailed


class ControlPort(Protocol):
    """What serving asks of control."""

    def snapshot(self) -> ControlSnapshot:
        """The current snapshot; never blocks. An attribute read in every adapter."""
        ...

    async def authorization(
        self,
        connection: Connection,
        scope: Scope,
        *,
        challenge: tuple[Challenge, ...] = (),
        refused: str | None = None,
    ) -> Authorization:
        """See `facade.upstream.connection.Authorizer`."""
        ...

    async def closure_manifest(
        self, registry: RegistryHost, repository: Repository, digest: Digest
    ) -> bytes | None:
        """A manifest kept at import, or None. The caller checks the digest itself."""
        ...

    def silent_seconds(self) -> float:
        """How long ago the control side last said that the snapshot is current; never blocks."""
        ...

    def report(self, event: Event) -> None:
        """Take note of an event; never blocks, drops (and counts) when it cannot keep up."""
        ...


@dataclass(frozen=True, slots=True)
class CacheStatus:
    """What the cache holds: sizes in bytes."""

    objects: int
    bytes: int
    max_bytes: int | None
    in_flight: int
    quarantined: int


@dataclass(frozen=True, slots=True)
class WarmResult:
    """One digest's way into the cache; `error` in words when it failed."""

    digest: Digest
    bytes: int
    cached: bool
    error: str | None = None


class CachePort(Protocol):
    """What control asks of serving."""

    async def refresh(self) -> bool:
        """Take up now what changed (metadata, connections, deny list).

        Returns True when every serving process uses it, False when that is still pending
        after 5 s.
        """
        ...

    async def status(self) -> CacheStatus:
        """What the cache holds."""
        ...

    async def warm(
        self,
        connection: Connection,
        repository: Repository,
        digest: Digest,
        size: int,
        *,
        fetch: bool = True,
    ) -> WarmResult:
        """Fetch one blob into the cache, verified; without `fetch`, only say whether it is there."""
        ...

    async def verify(self) -> tuple[int, int]:
        """Re-hash everything: (objects checked, objects quarantined)."""
        ...

    async def prune(self) -> tuple[int, int]:
        """Evict down to the low watermark: (objects, bytes) removed."""
        ...
