"""Asking a token service, and reading what it answers (distribution token specification; OAuth 2).

Guarantees: credentials are only ever placed in a request to a realm that `check_realm` accepts; a
token that is handed on is one line of printable ASCII, and its lifetime is counted on the
service's own clock. Pure: `token_client` sends what is built here.
"""

import base64
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache
from urllib.parse import urlencode

from publicsuffixlist import PublicSuffixList
from yarl import URL

from facade.errors import Upstream
from facade.reasons import Reason
from facade.secret import Secret
from facade.upstream.challenge import Challenge
from facade.upstream.connection import Connection, Scope
from facade.upstream.redirects import resolve
from facade.upstream.scope import token_scope

DEFAULT_LIFETIME_SECONDS = 60.0
"""How long a token is good for when its service does not say (token specification, "expires_in")."""
MAX_LIFETIME_SECONDS = 24 * 3600.0
MAX_TOKEN_CHARS = 32 * 1024
CLIENT_ID = "facade"

_REFRESH_USERS = frozenset({"<token>", "00000000-0000-0000-0000-000000000000"})
"""User names that say that the password is a refresh token: Docker's identity tokens, Azure's."""
_TOKEN = re.compile(r"[\x21-\x7e]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class BasicCredentials:
    """A user name and a password or long-lived token."""

    username: str
    password: Secret

    @property
    def header(self) -> Secret:
        """The Authorization value (RFC 7617, UTF-8)."""
        text = f"{self.username}:{self.password.reveal()}"
        return Secret("Basic " + base64.b64encode(text.encode()).decode())

    @property
    def is_refresh_token(self) -> bool:
        """Whether the password is an OAuth refresh token, to be sent as a form."""
        return self.username in _REFRESH_USERS


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """One request to a token service. `secret_form` and `authorization` hold secrets."""

    method: str
    url: URL
    authorization: Secret | None = None
    secret_form: Secret | None = None


@dataclass(frozen=True, slots=True)
class TokenAnswer:
    """What a token service gave.

    Arguments:
        token: the bearer token.
        expires_in: seconds from when the answer was made, on the service's clock.
        refresh_token: for later exchanges, where the service gives one.
    """

    token: Secret
    expires_in: float
    refresh_token: Secret | None = None

    @property
    def header(self) -> Secret:
        """The Authorization value (RFC 6750)."""
        return Secret(f"Bearer {self.token.reveal()}")


@cache  # constant data, read once, and only when a realm on another host must be judged
def _public_suffixes() -> PublicSuffixList:
    return PublicSuffixList()


def realm_url(connection: Connection, realm: str) -> URL:
    """The realm as an absolute URL; some registries give a relative one.

    Raises Upstream (UPSTREAM_REFUSED) when it is none.
    """
    url = resolve(URL(connection.base_url + "/v2/"), realm)
    if url is None or url.user is not None or url.password is not None:
        raise Upstream(
            f"{connection.host} names a token service that is no proper URL, so no credentials "
            "were sent. Its operator has to correct the realm.",
            reason=Reason.UPSTREAM_REFUSED,
        )
    return url


def check_realm(connection: Connection, realm: str) -> None:
    """Whether the token service `realm` may be told the credentials of `connection`.

    It must be https (unless the connection is insecure) and on the registry's own host, its
    registrable domain, a built-in pair (Docker Hub), or in `auth_hosts` (credentials.md, "Who may
    be told what"). Raises Upstream (UPSTREAM_REFUSED), naming who asked and how to allow it.
    """
    url = realm_url(connection, realm)
    asking = (url.host or "").lower()
    if url.scheme != "https" and not connection.settings.insecure:
        raise Upstream(
            f"{connection.host} asks for the credentials to be sent to {asking} over plain http; "
            "nothing was sent. Its realm must be https (or the connection made with --insecure).",
            reason=Reason.UPSTREAM_REFUSED,
        )
    if asking not in _told_hosts(connection) and not _same_domain(connection, asking):
        raise Upstream(
            f"{connection.host} asks for the credentials to be sent to {asking}, which is another "
            f"party; nothing was sent. If that is right, allow it with --auth-host {asking}.",
            reason=Reason.UPSTREAM_REFUSED,
        )


def _told_hosts(connection: Connection) -> set[str]:
    hosts = {_bare(connection.base_url), *(host.lower() for host in connection.settings.auth_hosts)}
    # `auth_hosts` may have been written with a port: the name is what counts.
    hosts |= {_bare(f"https://{host}") for host in connection.settings.auth_hosts}
    if connection.host.is_docker_hub:
        hosts |= {"auth.docker.io", "docker.io"}
    return hosts


def _bare(url: str) -> str:
    try:
        return (URL(url).host or "").lower()
    except (ValueError, IndexError):  # see `redirects.resolve`
        return ""


def _same_domain(connection: Connection, asking: str) -> bool:
    own = _bare(connection.base_url)
    if "." not in asking or asking.rpartition(".")[2].isdigit() or ":" in asking or ":" in own:
        return False  # addresses and single labels have no registrable domain
    suffixes = _public_suffixes()
    domain = suffixes.privatesuffix(own)
    return domain is not None and domain == suffixes.privatesuffix(asking)


def token_requests(
    connection: Connection,
    challenge: Challenge,
    scope: Scope,
    credentials: BasicCredentials | None,
) -> tuple[TokenRequest, ...]:
    """What to ask the token service, in order: the next only when it answers 404 or 405.

    A refresh token goes as an OAuth form (POST); a password as Basic (GET), with the form as the
    second try. Raises Upstream (UPSTREAM_REFUSED) for a realm that may not be told.
    """
    realm = challenge.parameters.get("realm", "")
    check_realm(connection, realm)
    url = realm_url(connection, realm)
    wanted = token_scope(challenge, scope)
    query: dict[str, str] = {}
    if service := challenge.parameters.get("service"):
        query["service"] = service
    if wanted:
        query["scope"] = wanted
    get_url = url.extend_query(query)
    if credentials is None:
        return (TokenRequest("GET", get_url),)
    form = {**query, "client_id": CLIENT_ID, **_grant(credentials)}
    post = TokenRequest("POST", url, secret_form=Secret(urlencode(form)))
    if credentials.is_refresh_token:
        return (post,)
    account = get_url.extend_query({"account": credentials.username})
    return (TokenRequest("GET", account, authorization=credentials.header), post)


def _grant(credentials: BasicCredentials) -> dict[str, str]:
    if credentials.is_refresh_token:
        return {"grant_type": "refresh_token", "refresh_token": credentials.password.reveal()}
    return {
        "grant_type": "password",
        "username": credentials.username,
        "password": credentials.password.reveal(),
    }


def parse_token_answer(data: bytes, *, date: str | None, host: str) -> TokenAnswer:
    """Read a token service's 200 answer.

    Arguments:
        date: its Date field: `issued_at` is compared with that, never with our own clock.
        host: the token service's name, for messages.

    Raises Upstream (UPSTREAM_REFUSED) when there is no usable token in it.
    """
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, Mapping):
        raise _unusable(host, "no JSON object")
    # GHCR and the specification say `token`, OAuth says `access_token`; some send both.
    token = _clean(document.get("token")) or _clean(document.get("access_token"))
    if token is None:
        raise _unusable(host, "no usable token")
    return TokenAnswer(
        token=token,
        expires_in=_lifetime(document, date),
        refresh_token=_clean(document.get("refresh_token")),
    )


def _unusable(host: str, what: str) -> Upstream:
    return Upstream(
        f"The token service {host} answered with {what}. Check the connection's host and realm.",
        reason=Reason.UPSTREAM_REFUSED,
        status=200,
    )


def _clean(value: object) -> Secret | None:
    """A token that is safe inside a header field, else None."""
    if isinstance(value, str) and len(value) <= MAX_TOKEN_CHARS and _TOKEN.fullmatch(value):
        return Secret(value)
    return None


def _lifetime(document: Mapping[str, object], date: str | None) -> float:
    given = document.get("expires_in")
    if isinstance(given, str) and given.isascii() and given.isdigit():
        given = float(given[:9])
    seconds = DEFAULT_LIFETIME_SECONDS
    if isinstance(given, int | float) and not isinstance(given, bool) and abs(given) < math.inf:
        # Compared before it becomes a float: an integer may be too large for one.
        seconds = float(max(0, min(given, MAX_LIFETIME_SECONDS)))
    issued, answered = _instant(document.get("issued_at")), _http_date(date)
    if issued is not None and answered is not None:
        # A token that was cached by its service has used up a part of its life already.
        seconds -= max(0.0, (answered - issued).total_seconds())
    return min(max(0.0, seconds), MAX_LIFETIME_SECONDS)


def _instant(value: object) -> datetime | None:
    if not isinstance(value, str):
        return None
    try:
        when = datetime.fromisoformat(value)
    except ValueError:
        return None
    return when if when.tzinfo else when.replace(tzinfo=UTC)


def _http_date(value: str | None) -> datetime | None:
    if value is None:
        return None
    try:
        when = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    return when if when.tzinfo else when.replace(tzinfo=UTC)
