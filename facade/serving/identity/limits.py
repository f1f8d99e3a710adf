"""How long a client may take, and how many there may be.

Guarantees: values only. `tls_transport` enforces them.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TlsLimits:
    """Time and number limits of a listener.

    Arguments:
        handshake_seconds: from accept to the end of the handshake.
        idle_seconds: silence in both directions when the last word was ours (a client that
            holds a connection and asks nothing).
        answer_seconds: silence when the last word was the client's: generous, since a strict
            pull sends nothing before the whole blob is verified.
        stall_seconds, min_bytes_per_second: a client that has taken fewer bytes a second than
            this from a full buffer, over this long, is cut.
        linger_seconds: how long a refused client may take to read its alert.
        max_connections: beyond this new ones are closed at once.
    """

    handshake_seconds: float = 10.0
    idle_seconds: float = 120.0
    answer_seconds: float = 3600.0
    stall_seconds: float = 30.0
    min_bytes_per_second: float = 1024.0
    linger_seconds: float = 2.0
    max_connections: int = 4096
