"""AWS as far as a registry's token needs it: STS AssumeRole and ECR GetAuthorizationToken over HTTP.

Guarantees: requests must be signed (SigV4) with a key that is known, by STS with a base key and by
ECR with a session that STS issued; external ID, trust and permissions are checked; sessions and
tokens really end. Answers and refusals are worded as AWS words them: STS in XML, ECR in JSON; the
same AccessDenied for a missing role, a wrong external ID, and a role that trusts somebody else.
The signatures' times are judged by the machine's clock, as botocore signs by it.
"""

import base64
import json
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import formatdate
from types import TracebackType
from typing import Self
from urllib.parse import parse_qs
from xml.sax.saxutils import escape

from facade.clock import Clock, SystemClock
from tests.support.cloud import IssuedTokens
from tests.support.raw_http import Data, RawHttpServer, Reply, Seen
from tests.support.sigv4 import Signature

ECR_TARGET = "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken"
SIGNATURE_SECONDS = 300.0
_STS = "https://sts.amazonaws.com/doc/2011-06-15/"


@dataclass(frozen=True, slots=True)
class AccessKey:
    """A key that may sign.

    Arguments:
        session_token: must come along (temporary keys).
        ends: Unix seconds; None = it does not.
        role: the role whose session this is.
    """

    id: str
    secret: str = field(repr=False)
    session_token: str | None = field(default=None, repr=False)
    ends: float | None = None
    role: str | None = None


@dataclass(frozen=True, slots=True)
class FakeRole:
    """A role.

    Arguments:
        external_id: demanded; None = any, or none.
        trusts: ids of the keys that may assume it.
        may_pull: whether it is allowed ecr:GetAuthorizationToken.
    """

    arn: str
    trusts: frozenset[str]
    external_id: str | None = None
    may_pull: bool = True


@dataclass(slots=True)
class AwsManner:
    """How AWS behaves; change while it runs.

    Arguments:
        token_lifetime, session_lifetime: seconds.
        refusals: answered first, one per request: (status, code, message).
        clock_ahead: seconds by which AWS's own clock is ahead.
        token: makes the authorization token of a password.
        raw: answer everything with this.
    """

    token_lifetime: float = 12 * 3600.0
    session_lifetime: float = 3600.0
    refusals: list[tuple[int, str, str]] = field(default_factory=list)
    clock_ahead: float = 0.0
    token: Callable[[str], bytes] = lambda password: f"AWS:{password}".encode()
    raw: Reply | None = None


class AwsCloud:
    """The fake; use as an async context manager. One URL serves both.

    Arguments:
        clock: by which sessions and tokens end.
        region: the only one that it serves.
    """

    def __init__(self, clock: Clock | None = None, *, region: str = "eu-central-1") -> None:
        self.clock = clock or SystemClock()
        self.region = region
        self.tokens = IssuedTokens(self.clock)
        self.manner = AwsManner()
        self.keys: dict[str, AccessKey] = {}
        self.roles: dict[str, FakeRole] = {}
        self.requests: list[Seen] = []
        self.operations: list[str] = []
        self.sessions: list[AccessKey] = []
        self._server = RawHttpServer(self._handle)

    async def __aenter__(self) -> Self:
        await self._server.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        await self._server.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.port}"

    def add_key(self, *, ends: float | None = None, temporary: bool = False) -> AccessKey:
        """A base key that is known from now on."""
        token = secrets.token_urlsafe(64) if temporary else None
        prefix = "ASIA" if temporary else "AKIA"
        key = AccessKey(
            prefix + secrets.token_hex(8).upper(), secrets.token_urlsafe(30), token, ends
        )
        self.keys[key.id] = key
        return key

    def add_role(
        self,
        arn: str,
        *trusts: AccessKey,
        external_id: str | None = None,
        may_pull: bool = True,
    ) -> FakeRole:
        """A role that these keys may assume."""
        role = FakeRole(arn, frozenset(key.id for key in trusts), external_id, may_pull)
        self.roles[arn] = role
        return role

    async def _handle(self, seen: Seen) -> Reply:
        self.requests.append(seen)
        reply = self.manner.raw or self._answer(seen)
        date = formatdate(self._now(), usegmt=True)
        return reply.with_header("Date", date).with_header("x-amzn-RequestId", "test-request")

    def _now(self) -> float:
        return self.clock.time() + self.manner.clock_ahead

    def _answer(self, seen: Seen) -> Reply:
        is_ecr = seen.headers.get("x-amz-target") == ECR_TARGET
        refuse = _ecr_refusal if is_ecr else _sts_refusal
        self.operations.append("GetAuthorizationToken" if is_ecr else "AssumeRole")
        if self.manner.refusals:
            return refuse(*self.manner.refusals.pop(0))
        key = self._signer(seen, "ecr" if is_ecr else "sts")
        if isinstance(key, tuple):
            return refuse(*key)
        return self._registry_token(key) if is_ecr else self._assume_role(key, seen)

    def _signer(self, seen: Seen, service: str) -> AccessKey | tuple[int, str, str]:
        """Who signed; or the refusal."""
        signature = Signature.of(seen)
        unknown = "UnrecognizedClientException" if service == "ecr" else "InvalidClientTokenId"
        if signature is None or signature.service != service or signature.region != self.region:
            return 400, "IncompleteSignature", "Credential should be scoped to a valid region."
        key = self.keys.get(signature.key)
        if key is None or key.session_token != seen.headers.get("x-amz-security-token"):
            status = 400 if service == "ecr" else 403
            return status, unknown, "The security token included in the request is invalid."
        if not signature.matches(seen, key.secret):
            # AWS quotes the canonical request, session token and all.
            quoted = seen.headers.get("x-amz-security-token", "")
            message = f"The request signature we calculated does not match. '{quoted}'"
            return 403, "SignatureDoesNotMatch", message
        if abs(time.time() + self.manner.clock_ahead - signature.time) > SIGNATURE_SECONDS:
            message = f"Signature expired: {signature.stamp} is now earlier than (now - 5 min.)"
            return 403, "SignatureDoesNotMatch", message
        if key.ends is not None and self.clock.time() >= key.ends:
            code = "ExpiredTokenException" if service == "ecr" else "ExpiredToken"
            return 403, code, "The security token included in the request is expired"
        return key

    def _assume_role(self, key: AccessKey, seen: Seen) -> Reply:
        form = {name: values[0] for name, values in parse_qs(seen.body.decode()).items()}
        role = self.roles.get(form.get("RoleArn", ""))
        named = role is not None and key.id in role.trusts
        if role is None or not named or (role.external_id not in (None, form.get("ExternalId"))):
            message = (
                "User: arn:aws:iam::999988887777:user/platform is not authorized to perform: "
                f"sts:AssumeRole on resource: {form.get('RoleArn')}"
            )
            return _sts_refusal(403, "AccessDenied", message)
        session = AccessKey(
            "ASIA" + secrets.token_hex(8).upper(),
            secrets.token_urlsafe(30),
            secrets.token_urlsafe(120),
            self.clock.time() + self.manner.session_lifetime,
            role.arn,
        )
        self.keys[session.id] = session
        self.sessions.append(session)
        assert session.ends is not None
        ends = datetime.fromtimestamp(session.ends, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        name = escape(form["RoleSessionName"])
        body = (
            f'<AssumeRoleResponse xmlns="{_STS}"><AssumeRoleResult>'
            f"<AssumedRoleUser><AssumedRoleId>AROATEST:{name}</AssumedRoleId>"
            f"<Arn>{escape(role.arn)}/{name}</Arn></AssumedRoleUser>"
            f"<Credentials><AccessKeyId>{session.id}</AccessKeyId>"
            f"<SecretAccessKey>{session.secret}</SecretAccessKey>"
            f"<SessionToken>{session.session_token}</SessionToken>"
            f"<Expiration>{ends}</Expiration></Credentials></AssumeRoleResult>"
            "<ResponseMetadata><RequestId>test-request</RequestId></ResponseMetadata>"
            "</AssumeRoleResponse>"
        )
        return _xml(200, body)

    def _registry_token(self, key: AccessKey) -> Reply:
        role = self.roles.get(key.role or "")
        if role is None or not role.may_pull:
            message = (
                f"User: {key.role}/session is not authorized to perform: "
                "ecr:GetAuthorizationToken on resource: * because no identity-based policy allows "
                "the ecr:GetAuthorizationToken action"
            )
            return _ecr_refusal(400, "AccessDeniedException", message)
        password = self.tokens.issue("ecr-password-", self.manner.token_lifetime)
        token = base64.b64encode(self.manner.token(password)).decode()
        ends = self._now() + self.manner.token_lifetime
        document = {
            "authorizationData": [
                {
                    "authorizationToken": token,
                    "expiresAt": round(ends, 3),
                    "proxyEndpoint": f"https://123456789012.dkr.ecr.{self.region}.amazonaws.com",
                }
            ]
        }
        return _json(200, document)


def _xml(status: int, body: str) -> Reply:
    return Reply(status, (("Content-Type", "text/xml"),), Data(body.encode()))


def _json(status: int, document: object) -> Reply:
    headers = (("Content-Type", "application/x-amz-json-1.1"),)
    return Reply(status, headers, Data(json.dumps(document).encode()))


def _sts_refusal(status: int, code: str, message: str) -> Reply:
    return _xml(
        status,
        f'<ErrorResponse xmlns="{_STS}"><Error><Type>Sender</Type><Code>{escape(code)}</Code>'
        f"<Message>{escape(message)}</Message></Error><RequestId>test-request</RequestId>"
        "</ErrorResponse>",
    )


def _ecr_refusal(status: int, code: str, message: str) -> Reply:
    return _json(status, {"__type": code, "message": message})
