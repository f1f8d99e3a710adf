"""Google's token endpoint: checks a service account's signed assertion, gives access tokens that end.

Guarantees: the assertion must be an RS256 JWT with the `kid` of a key that is known, for Google's
audience, of a sensible time and at most an hour, by its own issuer (RFC 7523; Google, "Using OAuth
2.0 for server to server applications"). Refusals are worded as Google words them. All times are by
the given clock.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from email.utils import formatdate
from functools import cache
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from facade.clock import Clock, SystemClock
from tests.support.cloud import IssuedTokens
from tests.support.raw_http import Data, RawHttpServer, Reply, Seen

AUDIENCE = "https://oauth2.googleapis.com/token"
GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
SKEW_SECONDS = 300
MAX_ASSERTION_SECONDS = 3600


@dataclass(frozen=True, slots=True)
class ServiceAccount:
    """An account with one key."""

    email: str
    key_id: str
    private_key: rsa.RSAPrivateKey = field(repr=False)

    @classmethod
    def make(cls, email: str = "facade@acme-prod.iam.gserviceaccount.com") -> Self:
        """A new one; its key takes a moment to make."""
        key = rsa.generate_private_key(65537, 2048)
        return cls(email, f"{key.public_key().public_numbers().n % 2**160:040x}", key)

    @property
    def pem(self) -> str:
        """The private key as Google writes it."""
        return self.private_key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ).decode()

    def document(self, **changes: object) -> dict[str, Any]:
        """The key file's JSON, with fields changed (None = left out)."""
        full = {
            "type": "service_account",
            "project_id": "acme-prod",
            "private_key_id": self.key_id,
            "private_key": self.pem,
            "client_email": self.email,
            "client_id": "104236498263478236487",
            "auth_uri": "https://accounts.google.com/o/oauth2/auth",
            "token_uri": AUDIENCE,
            "auth_provider_x509_cert_url": "https://www.googleapis.com/oauth2/v1/certs",
            "client_x509_cert_url": "https://www.googleapis.com/robot/v1/metadata/x509/facade",
            "universe_domain": "googleapis.com",
            **changes,
        }
        return {name: value for name, value in full.items() if value is not None}


@cache
def acme_account() -> ServiceAccount:
    """One account for all tests that need any: a key takes a moment to make."""
    return ServiceAccount.make()


@dataclass(slots=True)
class GoogleManner:
    """How Google behaves; change while it runs.

    Arguments:
        lifetime: of tokens, in seconds.
        refusals: answered first, one per request: (status, error, description).
        clock_ahead: seconds by which Google's own clock is ahead.
        raw: answer everything with this.
    """

    lifetime: float = 3599.0
    refusals: list[tuple[int, str, str]] = field(default_factory=list)
    clock_ahead: float = 0.0
    raw: Reply | None = None


class GoogleCloud:
    """The endpoint; use as an async context manager.

    Arguments:
        accounts: those that exist.
        clock: for everything.
    """

    def __init__(self, accounts: Iterable[ServiceAccount], clock: Clock | None = None) -> None:
        self.clock = clock or SystemClock()
        self.accounts = {account.key_id: account for account in accounts}
        self.tokens = IssuedTokens(self.clock)
        self.manner = GoogleManner()
        self.requests: list[Seen] = []
        self.scopes: list[str] = []
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
    def token_uri(self) -> str:
        return f"http://127.0.0.1:{self._server.port}/token"

    async def _handle(self, seen: Seen) -> Reply:
        self.requests.append(seen)
        reply = self.manner.raw or self._answer(seen)
        return reply.with_header("Date", formatdate(self._now(), usegmt=True))

    def _now(self) -> float:
        return self.clock.time() + self.manner.clock_ahead

    def _answer(self, seen: Seen) -> Reply:
        if self.manner.refusals:
            return _refusal(*self.manner.refusals.pop(0))
        form = {name: values[0] for name, values in parse_qs(seen.body.decode()).items()}
        if (seen.method, seen.path, form.get("grant_type")) != ("POST", "/token", GRANT):
            return _refusal(400, "unsupported_grant_type", "Invalid grant_type")
        description = self._fault(form.get("assertion", ""))
        if description is not None:
            return _refusal(400, "invalid_grant", description)
        token = self.tokens.issue("ya29.c.", self.manner.lifetime)
        return _json(
            200,
            {
                "access_token": token,
                "expires_in": int(self.manner.lifetime),
                "token_type": "Bearer",
            },
        )

    def _fault(self, assertion: str) -> str | None:
        """What is wrong with an assertion, in Google's words."""
        try:
            account = self.accounts.get(jwt.get_unverified_header(assertion).get("kid", ""))
            if account is None:
                return "Invalid JWT Signature."
            claims = jwt.decode(
                assertion,
                account.private_key.public_key(),
                algorithms=["RS256"],
                audience=AUDIENCE,
                options={"verify_exp": False, "verify_iat": False, "require": ["iat", "exp"]},
            )
        except jwt.InvalidAudienceError:
            return "Failed audience check."
        except jwt.InvalidTokenError:
            return "Invalid JWT Signature."
        now = self._now()
        if (
            claims["iat"] > now + SKEW_SECONDS
            or claims["exp"] < now - SKEW_SECONDS
            or claims["exp"] - claims["iat"] > MAX_ASSERTION_SECONDS
        ):
            return (
                "Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable "
                "timeframe. Check your iat and exp values in the JWT claim."
            )
        if claims.get("iss") != account.email:
            return "Invalid grant: account not found"
        self.scopes.append(claims.get("scope", ""))
        return None


def _json(status: int, document: object) -> Reply:
    return Reply(
        status, (("Content-Type", "application/json"),), Data(json.dumps(document).encode())
    )


def _refusal(status: int, error: str, description: str) -> Reply:
    return _json(status, {"error": error, "error_description": description})
