"""Token requests and answers, and who may be told credentials."""

import base64
import json
from urllib.parse import parse_qs

import pytest
from hypothesis import given
from hypothesis import strategies as st

from facade.errors import Upstream
from facade.oci.host import RegistryHost
from facade.oci.reference import Repository
from facade.reasons import Reason
from facade.secret import Secret
from facade.upstream.challenge import Challenge
from facade.upstream.connection import Connection, ConnectionSettings, Scope
from facade.upstream.token import (
    DEFAULT_LIFETIME_SECONDS,
    MAX_LIFETIME_SECONDS,
    BasicCredentials,
    TokenRequest,
    check_realm,
    parse_token_answer,
    token_requests,
)

SCOPE = Scope(Repository("org/app"))


def connection(host: str, **settings: object) -> Connection:
    return Connection(
        "c",
        RegistryHost.parse(host),
        "static",
        settings=ConnectionSettings(**settings),  # type: ignore[arg-type]  # names as declared
    )


@pytest.mark.parametrize(
    ("host", "realm"),
    [
        ("docker.io", "https://auth.docker.io/token"),
        ("hub.docker.com", "https://auth.docker.io/token"),
        ("ghcr.io", "https://ghcr.io/token"),
        ("ghcr.io", "/token"),
        ("registry.gitlab.com", "https://gitlab.com/jwt/auth"),
        ("quay.io", "https://quay.io/v2/auth"),
        ("team.azurecr.io", "https://team.azurecr.io/oauth2/token"),
        ("europe-docker.pkg.dev", "https://europe-docker.pkg.dev/v2/token"),
        ("registry.corp.example:5000", "https://sso.corp.example:8443/token"),
        ("registry.corp.example", "https://REGISTRY.corp.example/token"),
        ("10.1.2.3:5000", "https://10.1.2.3:5001/token"),
        ("localhost:5000", "https://localhost:5001/token"),
        ("[2001:db8::1]:5000", "https://[2001:db8::1]/token"),
    ],
)
def test_realms_that_may_be_told(host: str, realm: str) -> None:
    check_realm(connection(host), realm)


@pytest.mark.parametrize(
    ("host", "realm"),
    [
        ("ghcr.io", "https://evil.test/token"),
        ("ghcr.io", "http://ghcr.io/token"),
        ("ghcr.io", "https://ghcr.io.evil.test/token"),
        ("ghcr.io", "https://user:pw@ghcr.io/token"),
        ("ghcr.io", "https://ghcr.io@evil.test/token"),
        ("ghcr.io", "//evil.test/token"),
        ("ghcr.io", "ftp://ghcr.io/"),
        ("ghcr.io", ""),
        ("mine.github.io", "https://evil.github.io/token"),
        ("registry.co.uk", "https://evil.co.uk/token"),
        ("10.1.2.3", "https://10.1.2.4/token"),
        ("localhost:5000", "https://registry/token"),
        ("registry", "https://localhost/token"),
        ("[2001:db8::1]", "https://[2001:db8::2]/token"),
        ("ghcr.io", "https://auth.docker.io/token"),
    ],
)
def test_realms_that_may_not(host: str, realm: str) -> None:
    with pytest.raises(Upstream) as caught:
        check_realm(connection(host), realm)
    assert caught.value.reason is Reason.UPSTREAM_REFUSED
    assert str(RegistryHost.parse(host)) in caught.value.message
    assert "pw" not in caught.value.message


def test_the_refusal_names_who_asked_and_how_to_allow_it() -> None:
    with pytest.raises(Upstream, match=r"sent to login\.example.*--auth-host login\.example"):
        check_realm(connection("ghcr.io"), "https://login.example/token")
    check_realm(connection("ghcr.io", auth_hosts=("Login.example",)), "https://login.example/t")
    check_realm(connection("ghcr.io", auth_hosts=("login.example:99",)), "https://login.example/t")


def test_plain_http_is_for_insecure_connections() -> None:
    check_realm(connection("127.0.0.1:5000", insecure=True), "http://127.0.0.1:5001/token")
    with pytest.raises(Upstream, match="another party"):
        check_realm(connection("127.0.0.1:5000", insecure=True), "http://evil.test/token")


def requests(user: str | None, **parameters: str) -> tuple[TokenRequest, ...]:
    given = {"realm": "https://ghcr.io/token", "service": "ghcr.io", **parameters}
    credentials = None if user is None else BasicCredentials(user, Secret("p&w:é"))
    return token_requests(connection("ghcr.io"), Challenge("bearer", given), SCOPE, credentials)


def test_anonymous_asks_without_credentials() -> None:
    (request,) = requests(None)
    assert (request.method, request.authorization, request.secret_form) == ("GET", None, None)
    assert dict(request.url.query) == {"service": "ghcr.io", "scope": "repository:org/app:pull"}


def test_a_realm_keeps_its_own_query() -> None:
    (request,) = requests(None, realm="https://ghcr.io/token?tenant=a%2Fb")
    assert request.url.query["tenant"] == "a/b"
    assert request.url.query["service"] == "ghcr.io"


@pytest.mark.parametrize("user", ["ann", "org+robot", "robot$name", "oauth2accesstoken", "AWS"])
def test_a_password_goes_as_basic_and_then_as_a_form(user: str) -> None:
    get, post = requests(user)
    assert get.method == "GET"
    assert get.authorization is not None
    pair = base64.b64decode(get.authorization.reveal().removeprefix("Basic ")).decode()
    assert pair == f"{user}:p&w:é"
    assert get.url.query["account"] == user
    assert "p&w" not in str(get.url)
    assert (post.method, post.authorization) == ("POST", None)
    assert post.secret_form is not None
    assert parse_qs(post.secret_form.reveal()) == {
        "service": ["ghcr.io"],
        "scope": ["repository:org/app:pull"],
        "client_id": ["facade"],
        "grant_type": ["password"],
        "username": [user],
        "password": ["p&w:é"],
    }


@pytest.mark.parametrize("user", ["<token>", "00000000-0000-0000-0000-000000000000"])
def test_a_refresh_token_goes_as_a_form_only(user: str) -> None:
    (post,) = requests(user)
    assert post.method == "POST"
    assert post.secret_form is not None
    form = parse_qs(post.secret_form.reveal())
    assert form["grant_type"] == ["refresh_token"]
    assert form["refresh_token"] == ["p&w:é"]
    assert post.url.query_string == ""


def answer(document: object, date: str | None = None) -> tuple[str, float]:
    parsed = parse_token_answer(json.dumps(document).encode(), date=date, host="auth.example")
    return parsed.token.reveal(), parsed.expires_in


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({"token": "t"}, ("t", DEFAULT_LIFETIME_SECONDS)),
        ({"access_token": "a"}, ("a", DEFAULT_LIFETIME_SECONDS)),
        ({"token": "t", "access_token": "a", "expires_in": 300}, ("t", 300.0)),
        ({"token": "", "access_token": "a", "expires_in": "3600"}, ("a", 3600.0)),
        ({"token": "t", "expires_in": -5}, ("t", 0.0)),
        ({"token": "t", "expires_in": 1e30}, ("t", MAX_LIFETIME_SECONDS)),
        ({"token": "t", "expires_in": True}, ("t", DEFAULT_LIFETIME_SECONDS)),
        ({"token": "t", "expires_in": None}, ("t", DEFAULT_LIFETIME_SECONDS)),
        ({"token": "t", "expires_in": 12.5}, ("t", 12.5)),
    ],
)
def test_answers(document: object, expected: tuple[str, float]) -> None:
    assert answer(document) == expected


def test_a_lifetime_counts_on_the_services_own_clock() -> None:
    document = {"token": "t", "expires_in": 300, "issued_at": "2031-01-01T00:00:00Z"}
    assert answer(document, "Wed, 01 Jan 2031 00:01:40 GMT") == ("t", 200.0)
    assert answer(document, "Tue, 31 Dec 2030 23:59:00 GMT") == ("t", 300.0)
    assert answer(document, "no date") == ("t", 300.0)
    assert answer(document, None) == ("t", 300.0)
    assert answer({**document, "issued_at": "yesterday"}, "Wed, 01 Jan 2031 00:01:40 GMT") == (
        *("t", 300.0),
    )


@pytest.mark.parametrize(
    "data",
    [
        *(b"", b"null", b"[]", b"<html>", b"{}", b'{"token": 5}', b'{"token": ""}', b"\xff"),
        *(b'{"token": "a b"}', b'{"token": "a\\r\\nX-Evil: 1"}', '{"token": "é"}'.encode()),
        b'{"token": "' + b"x" * 40_000 + b'"}',
        b"[" * 100_000,
    ],
)
def test_answers_without_a_usable_token(data: bytes) -> None:
    with pytest.raises(Upstream, match=r"auth\.example") as caught:
        parse_token_answer(data, date=None, host="auth.example")
    assert caught.value.reason is Reason.UPSTREAM_REFUSED


@given(st.binary(), st.text())
def test_any_answer_is_survived(data: bytes, date: str) -> None:
    with pytest.raises(Upstream):
        parse_token_answer(data, date=date, host="h")


def test_no_value_shows_its_secret() -> None:
    get, post = requests("ann")
    parsed = parse_token_answer(b'{"token":"tok","refresh_token":"ref"}', date=None, host="h")
    shown = repr((get, post, parsed, BasicCredentials("ann", Secret("pw"))))
    assert not any(secret in shown for secret in ("p&w", "tok'", "ref'", "'pw'"))
    assert parsed.header.reveal() == "Bearer tok"
    assert parsed.refresh_token == Secret("ref")
