"""What the upstream client tells about its work: a port for metrics."""

from typing import Protocol


class UpstreamObserver(Protocol):
    """Takes note of upstream traffic; must not block or raise."""

    def answered(self, host: str, status: int | None, seconds: float) -> None:
        """One HTTP exchange with a connection's registry ended.

        Arguments:
            host: the connection's host, also when a redirect's target answered.
            status: None when there was no answer.
            seconds: from sending to the head of the answer.
        """
        ...

    def retried(self, host: str, why: str) -> None:
        """A request is sent again: `why` is "unreachable", "status" or "rate-limited"."""
        ...


class NullObserver:
    """Takes note of nothing."""

    def answered(self, host: str, status: int | None, seconds: float) -> None:
        """Ignore it."""

    def retried(self, host: str, why: str) -> None:
        """Ignore it."""
