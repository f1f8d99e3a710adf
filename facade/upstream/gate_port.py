"""What an exchange asks before it sends, and tells afterwards: the port of `gate`.

Guarantees: nothing; `NoGate` lets everything pass.
"""

from typing import Protocol

from multidict import MultiMapping

from facade.errors import Upstream
from facade.upstream.connection import Connection


class Passage(Protocol):
    """One request on its way; exactly one of these must be called in the end."""

    def answered(self, status: int, retry_after: float | None) -> None:
        """The head of an answer is there."""
        ...

    def failed(self, error: Upstream) -> None:
        """There was no answer."""
        ...

    def left(self) -> None:
        """It ended without a verdict on the registry."""
        ...


class Gate(Protocol):
    """What an exchange asks before it sends."""

    async def enter(self, connection: Connection, kind: str, within: float) -> Passage:
        """Return when a request may go out.

        Arguments:
            kind: "manifests", "blobs", …: budgets are kept apart, as Docker Hub counts them.
            within: seconds that it may take.

        Raises Upstream when it takes longer.
        """
        ...

    def heard(self, connection: Connection, kind: str, headers: MultiMapping[str]) -> None:
        """The registry's own answer had these headers."""
        ...


class GateObserver(Protocol):
    """Counts what the gates do."""

    def circuit_opened(self, host: str, why: str) -> None:
        """`why`: "rate-limited", "unreachable", "failing"."""
        ...


class NullGateObserver:
    """Counts nothing."""

    def circuit_opened(self, host: str, why: str) -> None:
        """Ignore it."""


class NoGate:
    """Always open: for an operator's own requests, who wants the registry's word, not ours."""

    async def enter(self, connection: Connection, kind: str, within: float) -> Passage:
        return _FREE

    def heard(self, connection: Connection, kind: str, headers: MultiMapping[str]) -> None:
        pass


class _FreePassage:
    def answered(self, status: int, retry_after: float | None) -> None:
        pass

    def failed(self, error: Upstream) -> None:
        pass

    def left(self) -> None:
        pass


_FREE = _FreePassage()
