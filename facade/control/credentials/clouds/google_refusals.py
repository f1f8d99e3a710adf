"""The refusals of Google's token endpoint in words that say what to do.

Guarantees: each refusal that an operator can act upon has a sentence of its own; none quotes the
service account, its key, or Google's own words unredacted. Pure.
"""

import json
from email.utils import parsedate_to_datetime

from facade.errors import Upstream
from facade.reasons import Reason
from facade.secret import Secret
from facade.upstream.cloud import CloudAnswer
from facade.upstream.refusals import refusal

SKEW_SECONDS = 60.0
"""A clock that is off by less is not what Google complains about."""
_NEW_KEY = "Make a new key and give it with facade registry rotate."


def google_refusal(host: object, answer: CloudAnswer, *, sent: Secret, now: float) -> Upstream:
    """The error for an answer that is no token (RFC 6749, 5.2; RFC 7523, 3.1).

    Arguments:
        host: the registry.
        sent: the body that was sent, to be struck out of Google's words.
        now: our time, Unix seconds.
    """
    error, description = _said(answer.body)
    message = _sentence(error, description, _skew(answer, now))
    if message is None or answer.status == 429 or answer.status >= 500:
        return refusal(
            f"Google's token service for {host}",
            answer.status,
            answer.body,
            what="an access token",
            password=sent,
        )
    return Upstream(
        f"Google gives no access token for {host}: {message}",
        reason=Reason.UPSTREAM_REFUSED,
        status=answer.status,
    )


def _sentence(error: str, description: str, skew: float) -> str | None:
    said = description.lower()
    if error == "invalid_grant" and ("iat" in said or "reasonable timeframe" in said):
        if abs(skew) < SKEW_SECONDS:
            return "it does not accept the time of the request. Set this machine's clock (NTP)."
        way = "ahead of" if skew > 0 else "behind"
        return (
            f"the clock here is {abs(skew):.0f} s {way} Google's. Set this machine's clock (NTP)."
        )
    if error == "invalid_grant" and "signature" in said:
        return f"the key is not one of the service account's (any more). {_NEW_KEY}"
    if error == "invalid_grant" and ("not found" in said or "deleted" in said):
        return "the service account does not exist (any more). Give another one's key."
    if "disabled" in said or error == "disabled_client":
        return "the service account or its project is disabled. Enable it in Google Cloud."
    if error == "invalid_scope":
        return "the service account may not have read-only access to storage and cloud platform."
    if error in ("unauthorized_client", "access_denied", "org_internal"):
        return "a policy of its organisation forbids it."
    return None


def _said(body: bytes) -> tuple[str, str]:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return "", ""
    if not isinstance(document, dict):
        return "", ""
    found = (document.get("error"), document.get("error_description"))
    return found[0] if isinstance(found[0], str) else "", (
        found[1] if isinstance(found[1], str) else ""
    )


def _skew(answer: CloudAnswer, now: float) -> float:
    """Seconds that our clock is ahead of Google's; 0 when it did not say the time."""
    try:
        return now - parsedate_to_datetime(answer.headers.get("date", "")).timestamp()
    except (ValueError, TypeError, OverflowError):
        return 0.0
