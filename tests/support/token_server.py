"""A token service as registries use them: checks Basic credentials, signs real JWTs.

Guarantees: its tokens are what Debian's `docker-registry` accepts with `auth: token` (distribution
token specification: ES256, `kid` in libtrust's form), so a client that pleases it pleases the real
thing. Grants only what an account may have, to whom may have it; notes every request with its
headers and form. Speaks GET with Basic, and OAuth's POST form with password or refresh token.
"""

import base64
import datetime as dt
import hashlib
import json
import ssl
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.support.raw_http import Data, RawHttpServer, Reply, Seen


@dataclass(frozen=True, slots=True)
class Account:
    """Who may have tokens.

    Arguments:
        password: also accepted as refresh token in the POST form.
        repositories: names that may be read; None = all.
        push: whether they may be written too.
    """

    password: str
    repositories: frozenset[str] | None = None
    push: bool = False


@dataclass(slots=True)
class Manner:
    """How the service words its answers; change while it runs.

    Arguments:
        lifetime: seconds that tokens are good for.
        says_lifetime: False = no expires_in.
        token_field: "token", "access_token" or "both".
        get, post: whether the methods are there (405 otherwise).
        status: answer everything with this instead.
        body: with that body.
        delay: seconds before each answer.
        clock_ahead: seconds by which the service's own clock (Date, issued_at) is ahead.
    """

    lifetime: float = 300.0
    says_lifetime: bool = True
    token_field: str = "token"
    get: bool = True
    post: bool = True
    status: int | None = None
    body: bytes = b'{"details":"the service is in a bad mood"}'
    delay: float = 0.0
    clock_ahead: float = 0.0


@dataclass(frozen=True, slots=True)
class _Key:
    private: ec.EllipticCurvePrivateKey = field(
        default_factory=lambda: ec.generate_private_key(ec.SECP256R1())
    )

    @property
    def id(self) -> str:
        """libtrust's key id: SHA-256 of the public key, 30 bytes, base32, in groups of four."""
        der = self.private.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        text = base64.b32encode(hashlib.sha256(der).digest()[:30]).decode()
        return ":".join(text[at : at + 4] for at in range(0, len(text), 4))

    @property
    def certificate_pem(self) -> bytes:
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test token service")])
        now = dt.datetime.now(dt.UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(self.private.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(hours=1))
            .not_valid_after(now + dt.timedelta(days=1))
            .sign(self.private, hashes.SHA256())
        )
        return certificate.public_bytes(serialization.Encoding.PEM)


class TokenServer:
    """The service; use as an async context manager.

    Arguments:
        accounts: by user name.
        anonymous: repositories that anybody may read; None = all; empty = tokens that grant nothing.
        admits: says of further (user name, password) pairs whether they may read everything; as
            Google's registries admit whoever brings an access token.
        tls: serve https with this context.
        name: the host name in `realm`.
    """

    def __init__(
        self,
        accounts: Mapping[str, Account] | None = None,
        *,
        anonymous: frozenset[str] | None = frozenset(),
        admits: Callable[[str, str], bool] | None = None,
        service: str = "test registry",
        issuer: str = "test issuer",
        tls: ssl.SSLContext | None = None,
        name: str = "127.0.0.1",
    ) -> None:
        self.accounts = dict(accounts or {})
        self.anonymous = anonymous
        self._admits = admits
        self.service = service
        self.issuer = issuer
        self.manner = Manner()
        self.requests: list[Seen] = []
        self.issued: list[str] = []
        self.revoked: set[str] = set()
        self._name = name
        self._scheme = "https" if tls else "http"
        self._key = _Key()
        self._server = RawHttpServer(self._handle, tls=tls)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        await self.stop()

    async def start(self, port: int = 0) -> None:
        """Listen; 0 = on any free port."""
        await self._server.start(port=port)

    async def stop(self) -> None:
        """Break all connections; what it issued stays good, and it may start again."""
        await self._server.close()

    @property
    def realm(self) -> str:
        return f"{self._scheme}://{self._name}:{self._server.port}/token"

    @property
    def port(self) -> int:
        return self._server.port

    def write_bundle(self, path: Path) -> Path:
        """Write the certificate for the registry's `rootcertbundle`."""
        path.write_bytes(self._key.certificate_pem)
        return path

    def sign(
        self,
        access: Mapping[str, frozenset[str]],
        *,
        lifetime: float | None = None,
        subject: str = "",
    ) -> str:
        """A token for repository → actions."""
        now = time.time()
        claims: dict[str, Any] = {
            "iss": self.issuer,
            "sub": subject,
            "aud": self.service,
            "exp": int(now + (self.manner.lifetime if lifetime is None else lifetime)),
            "nbf": int(now) - 10,
            "iat": int(now),
            "jti": uuid.uuid4().hex,
            "access": [
                {"type": "repository", "name": name, "actions": sorted(actions)}
                for name, actions in access.items()
            ],
        }
        token = jwt.encode(
            claims, self._key.private, algorithm="ES256", headers={"kid": self._key.id}
        )
        self.issued.append(token)
        return token

    def push_header(self, repository: str) -> dict[str, str]:
        """An Authorization that may push to `repository`, for setting a test up."""
        token = self.sign({repository: frozenset({"pull", "push"})}, lifetime=60)
        return {"Authorization": f"Bearer {token}"}

    def verify(self, token: str) -> Mapping[str, frozenset[str]] | None:
        """What a token grants; None when it is expired, revoked or not ours."""
        if token in self.revoked:
            return None
        try:
            claims = jwt.decode(
                token,
                self._key.private.public_key(),
                algorithms=["ES256"],
                audience=self.service,
                issuer=self.issuer,
            )
        except jwt.InvalidTokenError:
            return None
        return {entry["name"]: frozenset(entry["actions"]) for entry in claims["access"]}

    def revoke_all(self) -> None:
        """The registry takes no token that was issued so far any more."""
        self.revoked.update(self.issued)

    async def _handle(self, seen: Seen) -> Reply:
        self.requests.append(seen)
        manner = self.manner
        reply = self._answer(seen)
        now = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=manner.clock_ahead)
        date = now.strftime("%a, %d %b %Y %H:%M:%S GMT")
        return Reply(
            reply.status,
            (("Content-Type", "application/json"), ("Date", date), *reply.headers),
            reply.content,
            delay=manner.delay,
        )

    def _answer(self, seen: Seen) -> Reply:
        manner = self.manner
        if manner.status is not None:
            return Reply(manner.status, content=Data(manner.body))
        if not {"GET": manner.get, "POST": manner.post}.get(seen.method, False):
            return Reply(405)
        form = seen.query if seen.method == "GET" else parse_qs(seen.body.decode())
        account = self._account(seen, form)
        if account is None:
            return Reply(
                401,
                (("WWW-Authenticate", 'Basic realm="test"'),),
                Data(b'{"details":"incorrect username or password"}'),
            )
        access: dict[str, frozenset[str]] = {}
        for scope in (part for value in form.get("scope", []) for part in value.split()):
            _, _, rest = scope.partition(":")
            name, _, actions = rest.rpartition(":")
            access[name] = _granted(account, name) & frozenset(actions.split(","))
        return Reply(200, content=Data(json.dumps(self._document(access)).encode()))

    def _document(self, access: Mapping[str, frozenset[str]]) -> dict[str, object]:
        manner = self.manner
        token = self.sign(access)
        issued = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=manner.clock_ahead)
        document: dict[str, object] = {"issued_at": issued.strftime("%Y-%m-%dT%H:%M:%SZ")}
        if manner.says_lifetime:
            document["expires_in"] = int(manner.lifetime)
        for name in ("token", "access_token"):
            if manner.token_field in (name, "both"):
                document[name] = token
        return document

    def _account(self, seen: Seen, form: Mapping[str, list[str]]) -> Account | None:
        if seen.method == "POST" and form.get("grant_type") == ["refresh_token"]:
            given = form.get("refresh_token", [""])[0]
            return next((a for a in self.accounts.values() if a.password == given), None)
        if seen.method == "POST":
            user, password = form.get("username", [""])[0], form.get("password", [""])[0]
        elif seen.authorization is None:
            return Account("", self.anonymous)
        else:
            scheme, _, value = seen.authorization.partition(" ")
            if scheme != "Basic":
                return None
            user, _, password = base64.b64decode(value).decode().partition(":")
        if self._admits is not None and self._admits(user, password):
            return Account(password)
        account = self.accounts.get(user)
        return account if account is not None and account.password == password else None


def _granted(account: Account, repository: str) -> frozenset[str]:
    if account.repositories is not None and repository not in account.repositories:
        return frozenset()
    return frozenset({"pull", "push"} if account.push else {"pull"})
