"""Settings as the values that both wings' upstream clients take."""

from facade.config import Settings
from facade.upstream.retry import Timeouts


def timeouts(settings: Settings) -> Timeouts:
    """The upstream clients' time limits."""
    given = settings.upstream.timeouts
    return Timeouts(
        connect=given.connect,
        unreachable=given.unreachable,
        first_byte=given.first_byte,
        stall_window=given.stall,
    )
