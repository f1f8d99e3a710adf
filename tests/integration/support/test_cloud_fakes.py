"""The clouds refuse what real ones refuse; their tokens really end; the gate opens for those only."""

import base64
import time
from pathlib import Path
from typing import Any

import aiohttp
import jwt
import pytest

from facade.oci.manifest import MANIFEST_MEDIA_TYPES
from tests.support.clock import FakeClock
from tests.support.cloud import IssuedTokens, State
from tests.support.cloud_aws import AccessKey, AwsCloud
from tests.support.cloud_google import AUDIENCE, GRANT, GoogleCloud, ServiceAccount, acme_account
from tests.support.docker_registry import docker_registry
from tests.support.ecr_gate import EcrGate
from tests.support.image import push, small_image
from tests.support.raw_http import Seen
from tests.support.sigv4 import Signature
from tests.support.token_server import TokenServer

ROLE = "arn:aws:iam::123456789012:role/pull"


def test_a_token_ends_when_its_time_has_come() -> None:
    clock = FakeClock()
    tokens = IssuedTokens(clock)
    token, other = tokens.issue("t-", 60), tokens.issue("t-", 120)
    assert token != other
    assert tokens.state(token) is State.GOOD
    assert tokens.state(token + "x") is State.UNKNOWN
    clock.advance(60)
    assert (tokens.state(token), tokens.state(other)) == (State.EXPIRED, State.GOOD)
    tokens.revoke_all()
    assert tokens.state(other) is State.EXPIRED


def _seen(
    secret: str, *, body: bytes = b"Action=AssumeRole", tampered: bytes | None = None
) -> Seen:
    """A request as botocore signs it."""
    from botocore.auth import SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    headers = {"Content-Type": "application/x-www-form-urlencoded", "Host": "sts.test"}
    request = AWSRequest("POST", "http://sts.test/", data=body, headers=headers)
    SigV4Auth(Credentials("AKIATEST", secret), "sts", "eu-west-1").add_auth(request)
    sent = {name.lower(): str(value) for name, value in request.headers.items()}
    return Seen("POST", "/", {}, sent, body if tampered is None else tampered)


def test_a_signature_of_botocores_is_recognised_and_a_wrong_one_is_not() -> None:
    seen = _seen("right")
    signature = Signature.of(seen)
    assert signature is not None
    assert (signature.key, signature.service, signature.region) == ("AKIATEST", "sts", "eu-west-1")
    assert abs(signature.time - time.time()) < 60
    assert signature.matches(seen, "right")
    assert not signature.matches(seen, "wrong")
    assert not signature.matches(_seen("right", tampered=b"Action=Other"), "right")
    assert Signature.of(Seen("POST", "/", {}, {"authorization": "Basic x"})) is None


async def _aws(cloud: AwsCloud, service: str, key: AccessKey, operation: str, **given: str) -> Any:
    from aiobotocore.session import AioSession

    async with AioSession().create_client(
        service,
        region_name=cloud.region,
        endpoint_url=cloud.url,
        aws_access_key_id=key.id,
        aws_secret_access_key=key.secret,
        aws_session_token=key.session_token,
    ) as client:
        return await getattr(client, operation)(**given)


async def _assume(cloud: AwsCloud, key: AccessKey, **given: str) -> AccessKey:
    arguments = {"RoleArn": ROLE, "RoleSessionName": "test", **given}
    found = (await _aws(cloud, "sts", key, "assume_role", **arguments))["Credentials"]
    return AccessKey(found["AccessKeyId"], found["SecretAccessKey"], found["SessionToken"])


async def test_amazons_own_client_is_content_with_the_fake() -> None:
    async with AwsCloud() as cloud:
        key = cloud.add_key()
        cloud.add_role(ROLE, key, external_id="x1")
        session = await _assume(cloud, key, ExternalId="x1")
        answer = await _aws(cloud, "ecr", session, "get_authorization_token")
        [data] = answer["authorizationData"]
        user, _, password = base64.b64decode(data["authorizationToken"]).decode().partition(":")
        assert user == "AWS"
        assert cloud.tokens.state(password) is State.GOOD
        assert 43_100 < data["expiresAt"].timestamp() - time.time() < 43_300


async def _code(cloud: AwsCloud, key: AccessKey, **given: str) -> str:
    from botocore.exceptions import ClientError

    with pytest.raises(ClientError) as caught:
        await _assume(cloud, key, **given)
    return str(caught.value.response["Error"]["Code"])


async def test_sts_refuses_as_amazon_does() -> None:
    clock = FakeClock()
    async with AwsCloud(clock) as cloud:
        key, stranger = cloud.add_key(), cloud.add_key()
        ending = cloud.add_key(ends=clock.time() + 10)
        cloud.add_role(ROLE, key, ending, external_id="x1")
        assert await _code(cloud, key) == "AccessDenied"
        assert await _code(cloud, key, ExternalId="x2") == "AccessDenied"
        assert await _code(cloud, stranger, ExternalId="x1") == "AccessDenied"
        assert await _code(cloud, key, ExternalId="x1", RoleArn=ROLE + "2") == "AccessDenied"
        assert await _code(cloud, AccessKey("AKIANOBODY", "x")) == "InvalidClientTokenId"
        assert await _code(cloud, AccessKey(key.id, "wrong")) == "SignatureDoesNotMatch"
        await _assume(cloud, ending, ExternalId="x1")
        clock.advance(10)
        assert await _code(cloud, ending, ExternalId="x1") == "ExpiredToken"
        cloud.manner.clock_ahead = 3600
        assert await _code(cloud, key, ExternalId="x1") == "SignatureDoesNotMatch"


async def test_ecr_takes_sessions_that_last_and_may() -> None:
    from botocore.exceptions import ClientError

    clock = FakeClock()
    async with AwsCloud(clock) as cloud:
        key = cloud.add_key()
        cloud.add_role(ROLE, key)
        cloud.add_role(ROLE + "-not", key, may_pull=False)
        codes = []
        good, forbidden = (
            await _assume(cloud, key),
            await _assume(cloud, key, RoleArn=ROLE + "-not"),
        )
        await _aws(cloud, "ecr", good, "get_authorization_token")
        clock.advance(3599)
        for session in (forbidden, AccessKey(good.id, good.secret, "other"), key):
            with pytest.raises(ClientError) as caught:
                await _aws(cloud, "ecr", session, "get_authorization_token")
            codes.append(caught.value.response["Error"]["Code"])
        clock.advance(1)
        with pytest.raises(ClientError) as caught:
            await _aws(cloud, "ecr", good, "get_authorization_token")
        codes.append(caught.value.response["Error"]["Code"])
        assert codes == [
            "AccessDeniedException",
            "UnrecognizedClientException",
            "AccessDeniedException",
            "ExpiredTokenException",
        ]


async def _google(cloud: GoogleCloud, assertion: str) -> tuple[int, dict[str, Any]]:
    form = {"grant_type": GRANT, "assertion": assertion}
    async with (
        aiohttp.ClientSession() as session,
        session.post(cloud.token_uri, data=form) as response,
    ):
        return response.status, await response.json()


def _assertion(account: ServiceAccount, now: float, **changes: object) -> str:
    claims: dict[str, object] = {
        "iss": account.email,
        "aud": AUDIENCE,
        "scope": "s",
        "iat": int(now),
        "exp": int(now) + 3600,
        **changes,
    }
    headers = {"kid": account.key_id}
    return jwt.encode(claims, account.private_key, algorithm="RS256", headers=headers)


async def test_google_gives_a_token_for_a_good_assertion() -> None:
    account, clock = acme_account(), FakeClock()
    async with GoogleCloud([account], clock) as cloud:
        status, document = await _google(cloud, _assertion(account, clock.time()))
        assert status == 200
        assert cloud.tokens.accepts_google("oauth2accesstoken", document["access_token"])
        assert not cloud.tokens.accepts_google("somebody", document["access_token"])
        clock.advance(document["expires_in"])
        assert not cloud.tokens.accepts_google("oauth2accesstoken", document["access_token"])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"aud": "https://evil.example"}, "audience"),
        ({"iss": "other@acme.example"}, "not found"),
        ({"iat": 1, "exp": 3601}, "timeframe"),
        ({"exp": 9_999_999_999}, "short-lived"),
    ],
)
async def test_google_refuses_a_bad_assertion(changes: dict[str, object], words: str) -> None:
    account, clock = acme_account(), FakeClock()
    async with GoogleCloud([account], clock) as cloud:
        status, document = await _google(cloud, _assertion(account, clock.time(), **changes))
        assert status == 400
        assert document["error"] == "invalid_grant"
        assert words in document["error_description"]


async def test_google_refuses_another_key_under_a_known_name() -> None:
    account, clock = acme_account(), FakeClock()
    forged = ServiceAccount(account.email, account.key_id, ServiceAccount.make().private_key)
    async with GoogleCloud([account], clock) as cloud:
        for assertion in (_assertion(forged, clock.time()), "x", ""):
            status, document = await _google(cloud, assertion)
            assert (status, document["error_description"]) == (400, "Invalid JWT Signature.")


async def _get(url: str, user: str | None = None, password: str = "") -> tuple[int, str]:
    auth = None if user is None else aiohttp.encode_basic_auth(user, password)
    headers = {"Accept": ", ".join(MANIFEST_MEDIA_TYPES)}
    if auth is not None:
        headers["Authorization"] = auth
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.get(url) as response,
    ):
        return response.status, await response.text()


async def test_the_gate_opens_for_issued_tokens_only(tmp_path: Path) -> None:
    clock, image = FakeClock(), small_image()
    tokens = IssuedTokens(clock)
    token = tokens.issue("p-", 60)
    async with docker_registry(tmp_path / "r") as registry, EcrGate(registry.url, tokens) as gate:
        await push(registry.url, "app", image, "v1")
        url = f"http://{gate.host}/v2/app/manifests/{image.index}"
        assert (await _get(url))[0] == 401
        assert (await _get(url, "AWS", "wrong"))[0] == 401
        assert (await _get(url, "root", token))[0] == 401
        status, text = await _get(url, "AWS", token)
        assert (status, text.encode()) == (200, image.manifests[image.index][1])
        clock.advance(60)
        status, text = await _get(url, "AWS", token)
        assert status == 400
        assert "authorization token has expired" in text
        states = [passed.state for passed in gate.requests]
        unknown, good = State.UNKNOWN, State.GOOD
        assert states == [None, unknown, unknown, good, State.EXPIRED]


async def test_a_token_service_admits_whom_a_cloud_knows() -> None:
    tokens = IssuedTokens(FakeClock())
    async with TokenServer(admits=tokens.accepts_google) as server:
        token = tokens.issue("ya29.", 60)
        assert (await _get(server.realm, "oauth2accesstoken", token))[0] == 200
        assert (await _get(server.realm, "oauth2accesstoken", "wrong"))[0] == 401
