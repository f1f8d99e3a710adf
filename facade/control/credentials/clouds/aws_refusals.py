"""AWS's refusals in words that say what to do.

Guarantees: each error code of STS and ECR that an operator can act upon has a sentence of its own; no
sentence quotes the role's ARN, an external ID, a key, or AWS's own words unredacted (a
SignatureDoesNotMatch quotes the whole request, session token included). AWS itself answers the
same AccessDenied to a role that does not exist, a wrong external ID and a trust policy that
names somebody else, so that no outsider can probe for roles: the sentence then names all three.
Pure.
"""

import re
from dataclasses import dataclass, field

from facade.errors import Upstream
from facade.reasons import Reason
from facade.upstream.words import redact

THROTTLED_SECONDS = 5.0
"""When to try again after AWS throttled us; it does not say itself."""

_THROTTLED = frozenset(
    {
        *("Throttling", "ThrottlingException", "ThrottledException", "TooManyRequestsException"),
        *("RequestLimitExceeded", "RequestThrottled", "RequestThrottledException", "SlowDown"),
    }
)
_EXPIRED = frozenset({"ExpiredToken", "ExpiredTokenException"})
_UNKNOWN_KEY = frozenset(
    {"InvalidClientTokenId", "UnrecognizedClientException", "InvalidAccessKeyId"}
)
_CLOCK = frozenset({"RequestExpired", "RequestTimeTooSkewed", "RequestInTheFuture"})
_NAMES = re.compile(r"\barn:\S+|\bA[A-Z]{3}[A-Z0-9]{12,}\b")
"""ARNs and access key IDs (what is stored sealed is not told in passing)."""
_DENIED = frozenset({"AccessDenied", "AccessDeniedException"})


@dataclass(frozen=True, slots=True)
class AwsError:
    """An error answer of STS or ECR.

    Arguments:
        code, message: AWS's.
        status: HTTP status.
        skew: seconds that our clock is ahead of AWS's, when it said the time.
        sent: what was sent along that is sealed or secret, to be struck out of the message.
    """

    code: str
    message: str = field(repr=False)
    status: int
    skew: float | None = None
    sent: tuple[str, ...] = field(default=(), repr=False)


def _upstream(message: str, error: AwsError, reason: Reason = Reason.UPSTREAM_REFUSED) -> Upstream:
    return Upstream(message, reason=reason, status=error.status)


def assume_role_refusal(
    host: object, error: AwsError, *, given_keys: bool, external_id: bool
) -> Upstream:
    """STS did not let us assume the role.

    Arguments:
        given_keys: the connection brings its own base keys (else the platform's were used).
        external_id: one was given.
    """
    whose = "the access key given" if given_keys else "the platform's AWS identity"
    common = _common("STS", host, error)
    if common is not None:
        return common
    if error.code in _EXPIRED:
        what = (
            "The access key given is a temporary one and has expired; give a long-lived one with "
            "facade registry rotate."
            if given_keys
            else "The platform's own AWS credentials have expired. Renew them where this process "
            "gets them."
        )
        return _upstream(f"AWS refuses the role for {host}. {what}", error)
    if error.code in _UNKNOWN_KEY:
        return _upstream(
            f"AWS does not know {whose} (any more) that should assume the role for {host}: it was "
            "deleted or disabled, or belongs to another partition.",
            error,
        )
    if error.code == "SignatureDoesNotMatch":
        return _upstream(
            f"AWS finds the signature for {host} wrong: the secret access key does not belong to "
            f"the access key ID ({whose}).",
            error,
        )
    if error.code == "RegionDisabledException":
        return _upstream(
            f"STS is not activated in the region of {host}: activate it in the account of {whose}.",
            error,
        )
    if error.code == "NoSuchEntity":
        return _upstream(f"The role for {host} does not exist. Check role_arn.", error)
    if error.code in _DENIED:
        return _upstream(_denied(host, error.message, whose, external_id=external_id), error)
    return _other("STS", host, error)


def _denied(host: object, message: str, whose: str, *, external_id: bool) -> str:
    start = f"AWS denies {whose} the role for {host}"
    if "no identity-based policy allows" in message:
        return f"{start}: it has no permission of its own. Allow it sts:AssumeRole on that role."
    if "explicit deny" in message:
        return f"{start}: one of your own policies forbids it with an explicit deny."
    asked = (
        "or that policy expects another external ID than the one given"
        if external_id
        else "or that policy expects an external ID, and none was given (--aws-external-id)"
    )
    return (
        f"{start}. AWS does not say which it is: the role does not exist, its trust policy does "
        f"not name {whose}, {asked}."
    )


def registry_token_refusal(host: object, error: AwsError) -> Upstream:
    """The role was assumed, and ECR gave no token."""
    common = _common("ECR", host, error)
    if common is not None:
        return common
    if error.code in _DENIED:
        return _upstream(
            f"The role for {host} was assumed, but may not ask for registry tokens. Allow it "
            "ecr:GetAuthorizationToken on *, and ecr:BatchGetImage and "
            "ecr:GetDownloadUrlForLayer on the repositories.",
            error,
        )
    if error.code in _EXPIRED:
        return _upstream(
            f"The role's session for {host} had expired when ECR was asked. Check this machine's "
            "clock.",
            error,
        )
    if error.code in _UNKNOWN_KEY:
        return _upstream(
            f"ECR does not know the session that STS gave for {host}: the region is not enabled "
            "in that account, or the two endpoints belong to different partitions.",
            error,
        )
    return _other("ECR", host, error)


def _common(service: str, host: object, error: AwsError) -> Upstream | None:
    """What both services say."""
    if error.code in _THROTTLED or error.status == 429:
        return Upstream(
            f"AWS {service} throttles requests for {host}; try again in a few seconds.",
            reason=Reason.UPSTREAM_RATE_LIMITED,
            status=429,
            retry_after=THROTTLED_SECONDS,
        )
    signed_at_another_time = "Signature expired" in error.message or (
        "Signature not yet current" in error.message
    )
    if error.code in _CLOCK or signed_at_another_time:
        return _upstream(
            f"AWS {service} refuses the signature for {host} for its time: {_skew(error.skew)} "
            "Set this machine's clock (NTP).",
            error,
        )
    if error.status >= 500:
        return _upstream(
            f"AWS {service} failed for {host} ({error.status}). Try again later.", error
        )
    return None


def _skew(skew: float | None) -> str:
    if skew is None or abs(skew) < 1:
        return "the clock here and AWS's differ."
    return f"the clock here is {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} AWS's."


def _other(service: str, host: object, error: AwsError) -> Upstream:
    words = redact(_NAMES.sub("***", f"{error.code}: {error.message}"), error.sent)
    return _upstream(f"AWS {service} refused for {host} ({error.status}). It says: {words}", error)
