"""From an upstream's HTTP answer to our error: whose fault, in whose words, and what to do.

Guarantees: every status gives an `Upstream` with one reason and a message that names the host; the
registry's own words come along redacted, without what was sent to it. Pure.
"""

import base64
import binascii

from facade.errors import Upstream
from facade.reasons import Reason
from facade.secret import Secret
from facade.upstream.words import registry_words

DEFAULT_RATE_LIMIT_SECONDS = 60.0
"""Retry-After for our own clients when the upstream limits us without saying for how long."""


def refusal(
    host: str,
    status: int,
    body: bytes,
    *,
    what: str,
    sent: Secret | None = None,
    password: Secret | None = None,
    retry_after: float | None = None,
) -> Upstream:
    """The error for an answer that is not the one hoped for.

    Arguments:
        host: who answered.
        body: its error body, as far as it was read.
        what: what was asked for, like "the manifest of org/app".
        sent: the Authorization value that was sent, to be struck out.
        password: a secret that was sent otherwise, to be struck out as well.
        retry_after: seconds, from the answer.
    """
    secrets = _secrets(sent) if password is None else [*_secrets(sent), password.reveal()]
    words = registry_words(body, secrets)
    said = f" It says: {words.rstrip('.')}." if words else ""
    if status == 404:
        return Upstream(
            f"{host} does not have {what} (404), or does not show it with these credentials.{said}",
            reason=Reason.UPSTREAM_NOT_FOUND,
            status=status,
        )
    if status == 429:
        wait = DEFAULT_RATE_LIMIT_SECONDS if retry_after is None else retry_after
        return Upstream(
            f"{host} limits the rate of requests (429); try again in {wait:.0f} s, or connect it "
            f"with credentials that have a higher limit.{said}",
            reason=Reason.UPSTREAM_RATE_LIMITED,
            status=status,
            retry_after=wait,
        )
    if status in (401, 403):
        doing = (
            "Check that the connection's credentials are right and may read it."
            if sent is not None or password is not None
            else "It was asked without credentials; connect it with some that may read it."
        )
        message = f"{host} refused {what} ({status}).{said} {doing}"
    elif status >= 500:
        message = f"{host} failed at {what} ({status}).{said} Try again later."
    else:
        message = (
            f"{host} answered {what} with {status}, which is not understood.{said} Check that it "
            "is a container registry."
        )
    return Upstream(message, reason=Reason.UPSTREAM_REFUSED, status=status, retry_after=retry_after)


def _secrets(sent: Secret | None) -> list[str]:
    """The forms in which a registry might repeat an Authorization value."""
    if sent is None:
        return []
    value = sent.reveal()
    scheme, _, credentials = value.partition(" ")
    found = [value, credentials]
    if scheme == "Basic":
        try:
            text = base64.b64decode(credentials, validate=True).decode("utf-8", "replace")
        except binascii.Error:
            return found
        found += [text, text.partition(":")[2]]
    return found
