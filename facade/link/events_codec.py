"""Events that a worker reports ↔ JSON. Pure.

Guarantees: decoding what was encoded gives an equal value; anything else raises `Malformed`, and so does what
could not be kept or shown: a worker that was taken over must spoil neither the records of others nor the lists
that show them.
"""

from typing import Any

from facade.link.strict import Fields, Malformed, number
from facade.reasons import Reason
from facade.wings import ConnectionUsed, Event, IntegrityFailed, Pulled

MAX_MOMENT = 253_402_300_799.0
"""The end of the year 9999, Unix seconds: later ones have no date."""
MAX_NAME_CHARS = 1024
"""The longest of ours, a repository with its host, has half of that."""
MAX_WORDS_CHARS = 16 * 1024
"""`reporter` sends no event of more than 32 KiB."""


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
            _text(fields, "connection_id"),
            _moment(fields),
            fields.optional("error", lambda name: _text(fields, name, MAX_WORDS_CHARS)),
        )
    elif kind == "pulled":
        event = Pulled(
            at=_moment(fields),
            device=_text(fields, "device"),
            host=_text(fields, "host"),
            repository=_text(fields, "repository"),
            digest=_text(fields, "digest"),
            role=_text(fields, "role"),
            outcome=_text(fields, "outcome"),
            reason=fields.optional("reason", lambda name: fields.parsed(name, Reason)),
            bytes_sent=_count(fields, "bytes_sent"),
            cache=_text(fields, "cache"),
        )
    elif kind == "integrity-failed":
        event = IntegrityFailed(
            at=_moment(fields),
            host=_text(fields, "host"),
            repository=_text(fields, "repository"),
            digest=_text(fields, "digest"),
            detail=_text(fields, "detail", MAX_WORDS_CHARS),
        )
    else:
        raise Malformed("event: unknown")
    fields.done()
    return event


def _moment(fields: Fields) -> float:
    at = fields.number("at")
    if not 0 <= at <= MAX_MOMENT:
        raise Malformed("event: at is no time")
    return at


def _count(fields: Fields, name: str) -> int:
    count = fields.integer(name)
    if count < 0:
        raise Malformed(f"event: {name} is negative")
    return count


def _text(fields: Fields, name: str, most: int = MAX_NAME_CHARS) -> str:
    text = fields.text(name)
    try:
        text.encode()  # JSON can say half a character, which no database keeps
    except UnicodeEncodeError:
        raise Malformed(f"event: {name} is no text") from None
    if len(text) > most:
        raise Malformed(f"event: {name} is too long")
    return text
