"""What is accepted as an AWS role, and what is made of STS's and ECR's answers, without a socket."""

import base64
import json
import traceback
from types import ModuleType
from typing import Any

import pytest

from facade.control.credentials.clouds.aws_keys import Keys
from facade.control.credentials.model import Offered, StoredSecrets
from facade.control.credentials.providers import Endpoints, ProviderContext
from facade.control.credentials.providers.aws import AwsProvider
from facade.errors import Invalid, Upstream
from facade.oci.host import RegistryHost
from facade.reasons import Reason
from facade.secret import Secret
from facade.upstream.cloud import CloudAnswer
from facade.upstream.connection import Connection
from tests.support.clock import EPOCH, FakeClock
from tests.support.cloud_aws import AccessKey
from tests.support.cloud_parts import (
    ECR,
    EXTERNAL_ID,
    ROLE,
    Platform,
    ScriptedCloudHttp,
    aws_config,
)

KEY = AccessKey("AKIAIOSFODNN7EXAMPLE", "canary-secret-access-key-of-base")
CONNECTION = Connection("c1", ECR, "aws")
STS_ANSWER = CloudAnswer(
    200,
    {"content-type": "text/xml"},
    b"<AssumeRoleResponse><AssumeRoleResult><Credentials><AccessKeyId>ASIAX</AccessKeyId>"
    b"<SecretAccessKey>canary-session-secret</SecretAccessKey>"
    b"<SessionToken>canary-session-token</SessionToken>"
    b"<Expiration>2025-06-15T16:00:00Z</Expiration></Credentials></AssumeRoleResult>"
    b"</AssumeRoleResponse>",
)


def _ecr_answer(token: bytes = b"AWS:canary-password", ends: float = EPOCH + 43_200) -> CloudAnswer:
    data = {"authorizationToken": base64.b64encode(token).decode(), "expiresAt": ends}
    body = json.dumps({"authorizationData": [data]}).encode()
    return CloudAnswer(200, {"content-type": "application/x-amz-json-1.1"}, body)


def _provider(
    *answers: CloudAnswer | Exception,
    platform: Platform | None = None,
    endpoints: Endpoints | None = None,
) -> tuple[AwsProvider, ScriptedCloudHttp]:
    http = ScriptedCloudHttp(list(answers))
    context = ProviderContext(FakeClock(), http, endpoints or Endpoints())
    return AwsProvider(context, platform=platform or Platform()), http


def _offer(host: RegistryHost = ECR, **changes: object) -> Offered:
    return Offered(host, config=aws_config(KEY, **changes))


def _stored(**changes: object) -> StoredSecrets:
    return StoredSecrets("AWS", {"config": Secret(json.dumps(aws_config(KEY, **changes)))})


def test_a_good_config_is_sealed_whole() -> None:
    prepared = _provider()[0].prepare(_offer())
    assert prepared.username == "AWS"
    assert json.loads(prepared.fields["config"].reveal()) == aws_config(KEY)
    for secret in (ROLE, EXTERNAL_ID, KEY.id, KEY.secret):
        assert secret not in repr(prepared)
        assert secret not in repr(_offer())


@pytest.mark.parametrize("left_out", [None, ""])
def test_region_external_id_and_base_keys_may_be_left_out(left_out: str | None) -> None:
    config: dict[str, Any] = {
        **aws_config(None),
        "region": left_out,
        "external_id": left_out,
        "access_key_id": left_out,
    }
    prepared = _provider()[0].prepare(Offered(ECR, config=config))
    assert json.loads(prepared.fields["config"].reveal()) == {"role_arn": ROLE}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"role_arn": None}, "needs a role_arn"),
        ({"role_arn": "canary"}, "must be the ARN of a role"),
        ({"role_arn": ROLE.replace("123456789012", "210987654321")}, "account 210987654321"),
        ({"region": "canary"}, "region must be"),
        ({"region": "eu-west-1"}, "eu-west-1 was given, but"),
        ({"region": 5}, "are texts"),
        ({"external_id": "c"}, "external_id must be"),
        ({"external_id": "canary canary"}, "external_id must be"),
        ({"access_key_id": "canary!"}, "access_key_id must be"),
        ({"secret_access_key": "canary"}, "secret_access_key must be"),
        ({"secret_access_key": None}, "together, or neither"),
        ({"access_key_id": None}, "together, or neither"),
        ({"access_key_id": "ASIAIOSFODNN7CANARY"}, "temporary one"),
        ({"session_token": "canary"}, "and nothing else"),
    ],
)
def test_a_bad_config_is_refused_in_words(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(Invalid, match=words) as caught:
        _provider()[0].prepare(_offer(**changes))
    assert "canary" not in "".join(traceback.format_exception(caught.value)).lower()


def test_public_ecr_is_refused_in_words() -> None:
    with pytest.raises(Invalid, match="--anonymous"):
        _provider()[0].prepare(_offer(RegistryHost("public.ecr.aws")))


def test_a_user_name_or_password_is_not_taken() -> None:
    for offered in (
        Offered(ECR, "robot", config=aws_config(KEY)),
        Offered(ECR, "", Secret("hunter2"), aws_config(KEY)),
    ):
        with pytest.raises(Invalid, match="no user name or password"):
            _provider()[0].prepare(offered)


def test_without_the_extra_it_says_what_to_install() -> None:
    def load(name: str) -> ModuleType:
        raise ModuleNotFoundError(name)

    with pytest.raises(Invalid, match=r"pip install 'facade\[aws\]'"):
        AwsProvider(ProviderContext(FakeClock()), load).prepare(_offer())


async def test_without_the_extra_on_this_node_an_exchange_says_so() -> None:
    def load(name: str) -> ModuleType:
        raise ModuleNotFoundError(name)

    with pytest.raises(Upstream, match=r"pip install 'facade\[aws\]'"):
        await AwsProvider(ProviderContext(FakeClock()), load).credentials(CONNECTION, _stored())


async def test_the_regions_own_endpoints_are_asked() -> None:
    provider, http = _provider(STS_ANSWER, _ecr_answer())
    presented = await provider.credentials(CONNECTION, _stored())
    assert [request.url for request in http.sent] == [
        "https://sts.eu-central-1.amazonaws.com/",
        "https://api.ecr.eu-central-1.amazonaws.com/",
    ]
    assert presented.basic is not None
    assert presented.basic.username == "AWS"
    assert presented.basic.password == Secret("canary-password")
    assert presented.expires_at == EPOCH + 43_200
    assert "canary" not in repr(presented) + repr(http.sent)


async def test_process_configuration_may_name_other_endpoints() -> None:
    endpoints = Endpoints(aws_sts="https://sts.vpce.example", aws_ecr="https://ecr.vpce.example")
    provider, http = _provider(STS_ANSWER, _ecr_answer(), endpoints=endpoints)
    await provider.credentials(CONNECTION, _stored())
    assert [request.url for request in http.sent] == [
        "https://sts.vpce.example/",
        "https://ecr.vpce.example/",
    ]


async def test_without_base_keys_the_platforms_are_used() -> None:
    token = Secret("canary-platform-token")
    platform = Platform(Keys("ASIAPLATFORM", Secret("canary-platform-secret"), token))
    provider, http = _provider(STS_ANSWER, _ecr_answer(), platform=platform)
    await provider.credentials(CONNECTION, _stored(access_key_id=None, secret_access_key=None))
    headers = {name.lower(): value for name, value in http.sent[0].headers.items()}
    assert "Credential=ASIAPLATFORM/" in headers["authorization"]
    assert headers["x-amz-security-token"] == "canary-platform-token"


async def test_a_platform_without_credentials_says_what_to_do() -> None:
    provider, http = _provider()
    with pytest.raises(Upstream, match="no AWS credentials to assume the role") as caught:
        await provider.credentials(CONNECTION, _stored(access_key_id=None, secret_access_key=None))
    assert caught.value.reason is Reason.UPSTREAM_REFUSED
    assert http.sent == []


async def test_a_platform_whose_credentials_cannot_be_read_says_so() -> None:
    from botocore.exceptions import CredentialRetrievalError

    error = CredentialRetrievalError(provider="canary", error_msg="canary")
    provider, _ = _provider(platform=Platform(error=error))
    with pytest.raises(Upstream, match="CredentialRetrievalError") as caught:
        await provider.credentials(CONNECTION, _stored(access_key_id=None, secret_access_key=None))
    assert "canary" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    "answer",
    [
        CloudAnswer(200, {}, b""),
        CloudAnswer(200, {}, b"<html><body>canary</body></html>"),
        CloudAnswer(200, {}, b"not xml canary"),
        CloudAnswer(200, {}, b"<AssumeRoleResponse><AssumeRoleResult/></AssumeRoleResponse>"),
        CloudAnswer(302, {"location": "https://evil.example/canary"}, b""),
    ],
)
async def test_an_sts_that_is_none_is_refused(answer: CloudAnswer) -> None:
    provider, http = _provider(answer)
    with pytest.raises(Upstream, match="STS") as caught:
        await provider.credentials(CONNECTION, _stored())
    assert "canary" not in "".join(traceback.format_exception(caught.value))
    assert len(http.sent) == 1


@pytest.mark.parametrize(
    "answer",
    [
        CloudAnswer(200, {}, b""),
        CloudAnswer(200, {}, b"canary"),
        CloudAnswer(200, {}, b"{}"),
        CloudAnswer(200, {}, b'{"authorizationData":[]}'),
        CloudAnswer(200, {}, b'{"authorizationData":[{"authorizationToken":"%%canary"}]}'),
        _ecr_answer(b"canary"),
        _ecr_answer(b"root:canary"),
        _ecr_answer(b"AWS:canary\r\nX: y"),
        _ecr_answer(b"AWS:"),
        _ecr_answer("AWS:cänary".encode()),
        _ecr_answer(b"AWS:" + b"canary" * 10_000),
    ],
)
async def test_an_ecr_token_that_is_none_is_refused(answer: CloudAnswer) -> None:
    provider, _ = _provider(STS_ANSWER, answer)
    with pytest.raises(Upstream, match=r"ECR endpoint .* not understood") as caught:
        await provider.credentials(CONNECTION, _stored())
    assert "canary" not in "".join(traceback.format_exception(caught.value))


async def test_expiry_is_counted_on_awss_own_clock() -> None:
    """AWS is ten minutes ahead: its token ends in an hour, whatever our clock says of that time."""
    answer = _ecr_answer(ends=EPOCH + 600 + 3600)
    ahead = CloudAnswer(
        answer.status, {**answer.headers, "date": "Sun, 15 Jun 2025 15:16:40 GMT"}, answer.body
    )
    provider, _ = _provider(STS_ANSWER, ahead)
    presented = await provider.credentials(CONNECTION, _stored())
    assert presented.expires_at == EPOCH + 3600
