"""A registry's own words, made safe to show.

Guarantees: no control characters, at most `MAX_WORDS_CHARS`, and nothing that looks like a token:
neither what we sent, nor JWTs, authorization values, presigned queries or long opaque strings
(digests stay). Takes time in proportion to the words, which a registry chooses: no expression here
can begin at many places of a run that it reads to the end. Does not guarantee that the words are true.
"""

import json
import re
from collections.abc import Iterable

MAX_WORDS_CHARS = 300
_MAX_INPUT_BYTES = 64 * 1024
_MIN_SECRET_CHARS = 4
_MASK = "***"

_JWT_RUN = re.compile(r"[A-Za-z0-9_.-]{8,}+")
_WORD = re.compile(r"[^\s\"'<>]++")
_PATTERNS = (
    re.compile(r"(?i)\b(?:basic|bearer|token)[ :=]+[A-Za-z0-9+/_.~=-]{8,}"),
    re.compile(
        r"(?i)\b(?:password|passwd|secret|access_token|refresh_token|api_?key)\b[\"']?\s*[:=]\s*\S+"
    ),
    re.compile(r"(?<=://)[^\s/@\"']+@"),
    # A long opaque run; a digest or its bare hex is no secret.
    re.compile(r"(?<![A-Za-z0-9+/_=-])(?![0-9a-f]{64}(?![0-9a-zA-Z]))[A-Za-z0-9+_=-]{32,}"),
)


def redact(text: str, secrets: Iterable[str] = ()) -> str:
    """`text` on one line, shortened, with everything secret-like replaced by `***`.

    Arguments:
        secrets: values that were sent along, to be struck out wherever they appear.
    """
    for secret in sorted(set(secrets), key=len, reverse=True):
        if len(secret) >= _MIN_SECRET_CHARS:
            text = text.replace(secret, _MASK)
    text = _WORD.sub(_without_query, _JWT_RUN.sub(_without_jwt, text))
    for pattern in _PATTERNS:
        text = pattern.sub(_MASK, text)
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return text if len(text) <= MAX_WORDS_CHARS else text[: MAX_WORDS_CHARS - 1] + "…"


def _without_jwt(run: re.Match[str]) -> str:
    """A run of a JWT's characters, less what begins like one (`eyJ…`) and has its dot."""
    text = run.group()
    at = text.find("eyJ")
    return text if at < 0 or text.find(".", at + 7) < 0 else text[:at] + _MASK


def _without_query(word: re.Match[str]) -> str:
    """A word, less a query with a value: it may be a presigned URL's."""
    text = word.group()
    at = text.find("?")
    return text if at < 0 or text.find("=", at) < 0 else text[: at + 1] + _MASK


def registry_words(body: bytes, secrets: Iterable[str] = ()) -> str:
    """What an error body says, redacted; "" when it says nothing to a person.

    Understands the distribution error form (OCI distribution-spec, "Error codes"), the token
    services' `details`, OAuth's `error_description`, and plain text; HTML is left out.
    """
    text = body[:_MAX_INPUT_BYTES].decode("utf-8", "replace").strip()
    if not text or text.startswith("<"):
        return ""
    try:
        return redact(_said(json.loads(text)), secrets)
    except (ValueError, RecursionError):
        return redact(text, secrets)


def _said(document: object) -> str:
    if isinstance(document, str):
        return document
    if not isinstance(document, dict):
        return ""
    errors = document.get("errors")
    if isinstance(errors, list):
        return "; ".join(filter(None, map(_one, errors[:3])))
    return _one(document)


def _one(error: object) -> str:
    if not isinstance(error, dict):
        return error if isinstance(error, str) else ""
    said: list[str] = []
    for key in ("code", "error", "message", "details", "error_description"):
        value = error.get(key)
        if isinstance(value, dict):
            value = _one(value)
        if isinstance(value, str) and value and value not in said:
            said.append(value)
    return ": ".join(said)
