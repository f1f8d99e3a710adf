"""Each AWS refusal has its sentence, which says what to do and shows nothing that is stored sealed."""

import pytest

from facade.control.credentials.clouds.aws_refusals import (
    AwsError,
    assume_role_refusal,
    registry_token_refusal,
)
from facade.errors import Upstream
from facade.reasons import Reason

HOST = "123456789012.dkr.ecr.eu-central-1.amazonaws.com"
ARN = "arn:aws:iam::123456789012:role/facade"
DENIED = (
    f"User: arn:aws:iam::1:user/x is not authorized to perform: sts:AssumeRole on resource: {ARN}"
)


def _assume(
    code: str,
    message: str = "",
    *,
    status: int = 403,
    given: bool = False,
    external: bool = False,
    skew: float | None = None,
) -> Upstream:
    error = AwsError(code, message, status, skew)
    return assume_role_refusal(HOST, error, given_keys=given, external_id=external)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (_assume("AccessDenied", DENIED), "role does not exist"),
        (_assume("AccessDenied", DENIED), "trust policy does not name the platform's AWS identity"),
        (_assume("AccessDenied", DENIED), "expects an external ID, and none was given"),
        (_assume("AccessDenied", DENIED, external=True), "another external ID than the one given"),
        (_assume("AccessDenied", DENIED, given=True), "the access key given"),
        (
            _assume("AccessDenied", "… because no identity-based policy allows the action"),
            "Allow it sts:AssumeRole on that role",
        ),
        (_assume("AccessDenied", "… with an explicit deny in a policy"), "explicit deny"),
        (_assume("NoSuchEntity", "Role not found", status=404), "does not exist. Check role_arn"),
        (_assume("ExpiredToken"), "platform's own AWS credentials have expired"),
        (_assume("ExpiredTokenException", given=True), "temporary one and has expired"),
        (_assume("InvalidClientTokenId"), "does not know the platform's AWS identity"),
        (_assume("InvalidClientTokenId", given=True), "does not know the access key given"),
        (_assume("SignatureDoesNotMatch", given=True), "secret access key does not belong"),
        (_assume("RegionDisabledException"), "STS is not activated in the region"),
        (
            _assume("SignatureDoesNotMatch", "Signature expired: 2026… is now", skew=-900.0),
            "the clock here is 900 s behind AWS's. Set this machine's clock",
        ),
        (_assume("RequestTimeTooSkewed", skew=1200.4), "the clock here is 1200 s ahead of AWS's"),
        (_assume("RequestExpired"), "the clock here and AWS's differ"),
        (_assume("Throttling", "Rate exceeded", status=400), "throttles"),
        (_assume("Whatever", status=503), "failed for .* \\(503\\). Try again later"),
        (_assume("MalformedPolicyDocument", "bad", status=400), "MalformedPolicyDocument: bad"),
    ],
)
def test_sts(error: Upstream, words: str) -> None:
    with pytest.raises(Upstream, match=words):
        raise error
    assert HOST in error.message


def _token(code: str, message: str = "", status: int = 400) -> Upstream:
    return registry_token_refusal(HOST, AwsError(code, message, status))


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (_token("AccessDeniedException"), "Allow it ecr:GetAuthorizationToken"),
        (_token("ExpiredTokenException"), "session for .* had expired"),
        (_token("UnrecognizedClientException"), "ECR does not know the session"),
        (_token("ThrottlingException"), "throttles"),
        (_token("ServerException", status=500), "Try again later"),
        (_token("InvalidParameterException", "odd"), "InvalidParameterException: odd"),
    ],
)
def test_ecr(error: Upstream, words: str) -> None:
    with pytest.raises(Upstream, match=words):
        raise error


def test_throttling_is_a_rate_limit_that_says_when_to_come_back() -> None:
    for error in (
        _assume("Throttling", status=400),
        _token("TooManyRequestsException", status=429),
    ):
        assert error.reason is Reason.UPSTREAM_RATE_LIMITED
        assert error.status == 429
        assert error.retry_after


def test_every_other_refusal_is_the_registrys() -> None:
    assert _assume("AccessDenied", DENIED).reason is Reason.UPSTREAM_REFUSED
    assert _assume("AccessDenied", DENIED).status == 403


@pytest.mark.parametrize("code", ["AccessDenied", "SignatureDoesNotMatch", "SomethingNew"])
def test_no_sentence_repeats_what_is_sealed_or_was_sent(code: str) -> None:
    message = f"{ARN} AKIAIOSFODNN7EXAMPLE x-amz-security-token:{'q' * 200} wanted"
    error = _assume(code, message)
    for secret in (ARN, "AKIAIOSFODNN7EXAMPLE", "qqqq"):
        assert secret not in error.message
