"""What this room tells about its work: small ports for metrics, audit and the operator's view.

Guarantees: called on the event loop only. Implementations must not block or raise.
"""

from typing import Protocol


class CacheObserver(Protocol):
    """How requests for content were met. `host` is the registry's."""

    def hit(self, host: str) -> None:
        """Served from the store."""
        ...

    def joined(self, host: str) -> None:
        """Joined a transfer that was running, in this process or another."""
        ...

    def missed(self, host: str) -> None:
        """Started a transfer."""
        ...

    def integrity_failed(self, host: str, repository: str, digest: str, detail: str) -> None:
        """Bytes of the registry or of the store did not match; `detail` in words."""
        ...


class TransferObserver(Protocol):
    """What comes from registries."""

    def transfer_started(self, host: str) -> None:
        """An upstream transfer began."""
        ...

    def transfer_finished(self, host: str) -> None:
        """It ended, well or badly."""
        ...

    def fetched(self, host: str, count: int) -> None:
        """`count` bytes came."""
        ...

    def integrity_failed(self, host: str, repository: str, digest: str, detail: str) -> None:
        """Bytes of the registry did not match; `detail` in words."""
        ...


class BlobObserver(CacheObserver, TransferObserver, Protocol):
    """Both, as `BlobCache` takes it."""


class EvictionObserver(Protocol):
    """What left the store to make room."""

    def evicted(self, objects: int, count: int) -> None:
        """`objects` of `count` bytes in all."""
        ...


class NullObserver:
    """Takes note of nothing; implements all of the above."""

    def hit(self, host: str) -> None:
        """Ignore it."""

    def joined(self, host: str) -> None:
        """Ignore it."""

    def missed(self, host: str) -> None:
        """Ignore it."""

    def integrity_failed(self, host: str, repository: str, digest: str, detail: str) -> None:
        """Ignore it."""

    def transfer_started(self, host: str) -> None:
        """Ignore it."""

    def transfer_finished(self, host: str) -> None:
        """Ignore it."""

    def fetched(self, host: str, count: int) -> None:
        """Ignore it."""

    def evicted(self, objects: int, count: int) -> None:
        """Ignore it."""
