"""Events that a worker reports ↔ JSON: lists whose first item says what, for there are as many as requests. Pure.

Guarantees: decoding what was encoded gives an equal value; anything else raises `Malformed`, and so does what
could not be kept or shown: a worker that was taken over must spoil neither the records of others nor the lists
that show them.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from facade.link.strict import MAX_INTEGER, Malformed, as_number, number
from facade.reasons import Reason
from facade.wings import ConnectionUsed, Event, IntegrityFailed, Pulled

MAX_MOMENT = 253_402_300_799.0
"""The end of the year 9999, Unix seconds: later ones have no date."""
MAX_NAME_CHARS = 1024
"""The longest of ours, a repository with its host, has half of that."""
MAX_WORDS_CHARS = 16 * 1024
"""`reporter` sends no event of more than 32 KiB."""


def event_out(event: Event) -> list[Any]:
    """One event."""
    if isinstance(event, Pulled):
        return [
            "pulled",
            number(event.at),
            event.device,
            event.host,
            event.repository,
            event.digest,
            event.role,
            event.outcome,
            None if event.reason is None else event.reason.value,
            event.bytes_sent,
            event.cache,
        ]
    if isinstance(event, ConnectionUsed):
        return ["connection-used", event.connection_id, number(event.at), event.error]
    return [
        "integrity-failed",
        number(event.at),
        event.host,
        event.repository,
        event.digest,
        event.detail,
    ]


def event_in(value: object) -> Event:
    """Raises Malformed."""
    if not isinstance(value, list) or not value or not isinstance(value[0], str):
        raise Malformed("event: not one")
    count, read = _READ.get(value[0], (0, None))
    if read is None:
        raise Malformed("event: unknown")
    if len(value) != count + 1:
        raise Malformed("event: not of its length")
    return read(*value[1:])


def _pulled(
    at: object,
    device: object,
    host: object,
    repository: object,
    digest: object,
    role: object,
    outcome: object,
    reason: object,
    bytes_sent: object,
    cache: object,
) -> Event:
    return Pulled(
        _moment(at),
        _text(device),
        _text(host),
        _text(repository),
        _text(digest),
        _text(role),
        _text(outcome),
        None if reason is None else _reason(reason),
        _count(bytes_sent),
        _text(cache),
    )


def _connection_used(connection_id: object, at: object, error: object) -> Event:
    words = None if error is None else _text(error, MAX_WORDS_CHARS)
    return ConnectionUsed(_text(connection_id), _moment(at), words)


def _integrity_failed(
    at: object, host: object, repository: object, digest: object, detail: object
) -> Event:
    return IntegrityFailed(
        _moment(at),
        _text(host),
        _text(repository),
        _text(digest),
        _text(detail, MAX_WORDS_CHARS),
    )


_READ: Mapping[str, tuple[int, Callable[..., Event]]] = MappingProxyType(
    {
        "pulled": (10, _pulled),
        "connection-used": (3, _connection_used),
        "integrity-failed": (5, _integrity_failed),
    }
)
"""By kind, how many values it has, and what reads them."""


def _moment(value: object) -> float:
    at = as_number(value, "event: at")
    if not 0 <= at <= MAX_MOMENT:
        raise Malformed("event: at is no time")
    return at


def _count(value: object) -> int:
    if type(value) is not int or not 0 <= value <= MAX_INTEGER:
        raise Malformed("event: not a count")
    return value


def _reason(value: object) -> Reason:
    try:
        return Reason(_text(value))
    except ValueError:  # Malformed is one, too
        raise Malformed("event: no reason of ours") from None


def _text(value: object, most: int = MAX_NAME_CHARS) -> str:
    if not isinstance(value, str) or len(value) > most:
        raise Malformed("event: a text that is none, or too long")
    if not value.isascii():
        try:
            value.encode()  # JSON can say half a character, which no database keeps
        except UnicodeEncodeError:
            raise Malformed("event: a text that is none") from None
    return value
