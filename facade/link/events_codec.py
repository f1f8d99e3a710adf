"""Events that a worker reports ↔ JSON. Pure.

Guarantees: decoding what was encoded gives an equal value; anything else raises `Malformed`.
"""

from typing import Any

from facade.link.strict import Fields, Malformed, number
from facade.reasons import Reason
from facade.wings import ConnectionUsed, Event, IntegrityFailed, Pulled


def event_out(event: Event) -> dict[str, Any]:
    """One event; `event` says which."""
    if isinstance(event, ConnectionUsed):
        return {
            "event": "connection-used",
            "connection_id": event.connection_id,
            "at": number(event.at),
            "error": event.error,
        }
    if isinstance(event, Pulled):
        return {
            "event": "pulled",
            "at": number(event.at),
            "device": event.device,
            "host": event.host,
            "repository": event.repository,
            "digest": event.digest,
            "role": event.role,
            "outcome": event.outcome,
            "reason": None if event.reason is None else event.reason.value,
            "bytes_sent": event.bytes_sent,
            "cache": event.cache,
        }
    return {
        "event": "integrity-failed",
        "at": number(event.at),
        "host": event.host,
        "repository": event.repository,
        "digest": event.digest,
        "detail": event.detail,
    }


def event_in(value: object) -> Event:
    """Raises Malformed."""
    fields = Fields(value, "event")
    kind = fields.text("event")
    event: Event
    if kind == "connection-used":
        event = ConnectionUsed(
            fields.text("connection_id"),
            fields.number("at"),
            fields.optional("error", fields.text),
        )
    elif kind == "pulled":
        event = Pulled(
            at=fields.number("at"),
            device=fields.text("device"),
            host=fields.text("host"),
            repository=fields.text("repository"),
            digest=fields.text("digest"),
            role=fields.text("role"),
            outcome=fields.text("outcome"),
            reason=fields.optional("reason", lambda name: fields.parsed(name, Reason)),
            bytes_sent=fields.integer("bytes_sent"),
            cache=fields.text("cache"),
        )
    elif kind == "integrity-failed":
        event = IntegrityFailed(
            at=fields.number("at"),
            host=fields.text("host"),
            repository=fields.text("repository"),
            digest=fields.text("digest"),
            detail=fields.text("detail"),
        )
    else:
        raise Malformed("event: unknown")
    fields.done()
    return event
