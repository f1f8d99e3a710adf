"""The authorization of one request, as a pure generator (in the manner of httpx's auth flows).

Guarantees: at most three sends: with what is remembered; with what a challenge asked for; and with
one fresh authorization after a refusal (401, 403; from AWS's ECR also 400). The same refused
authorization is never sent twice, so a wrong password is not tried again and locks no account.
Does no input or output: the driver (`exchange`) sends and asks on its behalf.
"""

from collections.abc import Generator
from dataclasses import dataclass

from facade.upstream.challenge import Challenge
from facade.upstream.connection import Authorization, Connection


@dataclass(frozen=True, slots=True)
class Ask:
    """Get an `Authorization` from the `Authorizer` with these arguments, and send it in."""

    challenge: tuple[Challenge, ...] = ()
    refused: str | None = None


@dataclass(frozen=True, slots=True)
class Send:
    """Send the request with this authorization, and send its `Answer` in."""

    authorization: Authorization


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back.

    Arguments:
        status: the HTTP status.
        challenges: of its WWW-Authenticate fields.
        from_registry: whether the registry's own origin answered; a redirect's target (a presigned
            storage URL, say) knows nothing of our authorization.
    """

    status: int
    challenges: tuple[Challenge, ...] = ()
    from_registry: bool = True


Flow = Generator[Ask | Send, Authorization | Answer, None]


def authorize(connection: Connection) -> Flow:
    """Drive one request: yields what to do, takes what came of it; the last answer stands."""
    authorization = yield from _ask(Ask())
    answer = yield from _send(authorization)
    if _is_challenge(answer, authorization):
        # Nothing was known yet: this is the scheme's first use, not a refusal.
        authorization = yield from _ask(Ask(challenge=answer.challenges))
        if authorization.header is None:
            return
        answer = yield from _send(authorization)
    if not _is_refusal(answer, authorization, connection):
        return
    refused = authorization
    authorization = yield from _ask(Ask(challenge=answer.challenges, refused=refused.id))
    if authorization.header is None or authorization.header == refused.header:
        return
    yield from _send(authorization)


def _ask(step: Ask) -> Generator[Ask | Send, Authorization | Answer, Authorization]:
    reply = yield step
    assert isinstance(reply, Authorization)
    return reply


def _send(authorization: Authorization) -> Generator[Ask | Send, Authorization | Answer, Answer]:
    reply = yield Send(authorization)
    assert isinstance(reply, Answer)
    return reply


def _is_challenge(answer: Answer, sent: Authorization) -> bool:
    return (
        answer.from_registry
        and answer.status == 401
        and sent.header is None
        and bool(answer.challenges)
    )


def _is_refusal(answer: Answer, sent: Authorization, connection: Connection) -> bool:
    if sent.header is None or not answer.from_registry:
        return False
    if answer.status in (401, 403):
        return True
    # ECR says 400 when its token has expired; elsewhere 400 means a malformed request.
    return answer.status == 400 and connection.provider == "aws"
