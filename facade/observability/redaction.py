"""What may appear in a log line: an allow-list of keys, and a scrub of every text.

Guarantees: a key that is not listed here shows as "[redacted]", so a careless `log.info(…,
password=…)` shows nothing; tokens, userinfo, signed URL parameters and private keys are blanked in
allowed texts and tracebacks too; control characters cannot forge a second line. Does not
recognise a bare secret inside free text: never put one there.
"""

import re
from collections.abc import Mapping, MutableMapping
from enum import Enum
from typing import Any

REDACTED = "[redacted]"
MAX_TEXT_CHARS = 4096
"""A registry's error body must not fill the disk."""
_MAX_ITEMS = 64

_ALLOWED = """
    event level logger timestamp exception request_id
    action actor address alert artifact at attempt attempts bytes ca cache certificate check code
    connection connection_id count delay detail device digest duration elapsed enabled
    error error_type event_type expected expires expires_at expires_in file files fingerprint fleet fleets
    generation got have host hosts issuer kind length limit listen media_type method metrics_url
    name names new_version not_after objects offset old_version operator_url outcome path pause peer
    permission pid platform port problem problems progress provider queue reason reference registry remaining removed
    repository result retry_after revision role roles route seconds serial sig signal size source
    state status step subject table tag tags target targets task thread total type uid until url
    user_agent version versions wait waited why worker
"""
ALLOWED_KEYS = frozenset(_ALLOWED.split())
"""Keys whose values are shown (scrubbed). Adding one is a decision: can it ever hold a secret?"""

PLAIN_KEYS = frozenset(
    {"cache", "device", "digest", "host", "level", "logger", "method", "outcome", "reason"}
    | {"repository", "request_id", "role", "route", "timestamp"}
)
"""Their values were parsed by a grammar of ours, or are words of ours: too short and too plain for
a secret. They are on every access line, where the search for secrets would cost the most."""
_MAX_PLAIN_CHARS = 300
_NUMBERS = frozenset({int, float, bool, type(None)})

_SCRUBS: tuple[tuple[re.Pattern[str], str], ...] = (
    (
        re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*-----|\Z)", re.DOTALL),
        "***",
    ),
    (re.compile(r"(?i)\b(bearer|basic|aws4-hmac-sha256)\s+[A-Za-z0-9+/=._~-]{6,}"), r"\1 ***"),
    (re.compile(r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+\.?[A-Za-z0-9_-]*"), "***"),
    (re.compile(r"(?<=://)[^/@\s\"']+@"), "***@"),
    (
        re.compile(
            r"(?i)((?:token|password|passwd|secret|signature|credential|assertion|api[_-]?key|sig)"
            r"[\"']?\s*[=:]\s*[\"']?)[^&\s\"',;}]+"
        ),
        r"\1***",
    ),
)
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")


def scrub(text: str) -> str:
    """`text` without anything that looks like a secret, bounded in length."""
    if len(text) > MAX_TEXT_CHARS:
        text = text[:MAX_TEXT_CHARS] + "…"
    for pattern, replacement in _SCRUBS:
        text = pattern.sub(replacement, text)
    return _CONTROL.sub("\ufffd", text)


def _clean(value: object) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, Enum):
        return _clean(value.value)
    if isinstance(value, bytes | bytearray | memoryview):
        return f"<{len(value)} bytes>"
    if isinstance(value, Mapping):
        items = list(value.items())[:_MAX_ITEMS]
        return {str(key): _clean_item(str(key), item) for key, item in items}
    if isinstance(value, list | tuple | set | frozenset):
        return [_clean(item) for item in list(value)[:_MAX_ITEMS]]
    # One line per value: a newline inside a field would forge a line on a console.
    return scrub(str(value)).replace("\n", "\\n")


def _clean_item(key: str, value: object) -> Any:
    return _clean(value) if key in ALLOWED_KEYS else REDACTED


def redact(
    logger: object, method: str, event_dict: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """A structlog processor that applies the allow-list. Stands last before the renderer."""
    for key, value in event_dict.items():
        kind = type(value)
        if key in ALLOWED_KEYS and (
            kind in _NUMBERS
            or (kind is str and (value.isidentifier() or (key in PLAIN_KEYS and _is_plain(value))))
        ):
            continue  # nearly every value of an access line: the search costs most where it is vain
        if key == "exception":
            event_dict[key] = scrub(str(value))
        elif not key.startswith("_"):  # structlog's own, removed before rendering
            event_dict[key] = _clean_item(key, value)
    return event_dict


def _is_plain(text: str) -> bool:
    return len(text) <= _MAX_PLAIN_CHARS and text.isprintable() and " " not in text
