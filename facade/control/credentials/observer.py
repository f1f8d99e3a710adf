"""What the broker and the shared token cache tell whoever counts."""

from typing import Protocol


class ExchangeObserver(Protocol):
    """Counts exchanges."""

    def exchanged(self, provider: str, outcome: str) -> None:
        """`outcome` is "ok" or "failed"."""
        ...

    def token_expires(self, host: str, at: float | None) -> None:
        """The newest token for `host` ends at Unix seconds `at`."""
        ...


class NullExchangeObserver:
    """Counts nothing."""

    def exchanged(self, provider: str, outcome: str) -> None:
        pass

    def token_expires(self, host: str, at: float | None) -> None:
        pass


class SharedCacheObserver(Protocol):
    """Counts what the shared cache lives through."""

    def redis_up(self, up: bool) -> None:
        """Redis answers, or does not."""
        ...

    def redis_value_refused(self) -> None:
        """Something that we did not write there lay under a name of ours."""
        ...


class NullSharedCacheObserver:
    """Counts nothing."""

    def redis_up(self, up: bool) -> None:
        pass

    def redis_value_refused(self) -> None:
        pass
