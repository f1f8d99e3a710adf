"""What is accepted as a Google service account's key, for which registries; nothing is shown of it."""

import asyncio
import json
import traceback
from types import ModuleType
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from facade.control.credentials.clouds.google_exchange import _Request
from facade.control.credentials.model import Offered, StoredSecrets
from facade.control.credentials.providers import Endpoints, ProviderContext
from facade.control.credentials.providers.google import GoogleProvider
from facade.errors import Invalid, Upstream
from facade.oci.host import RegistryHost
from facade.secret import Secret
from facade.upstream.cloud import CloudAnswer
from facade.upstream.connection import Connection
from tests.support.clock import EPOCH, FakeClock
from tests.support.cloud_google import AUDIENCE, acme_account
from tests.support.cloud_parts import ScriptedCloudHttp

HOST = RegistryHost("europe-docker.pkg.dev")
CONNECTION = Connection("c1", HOST, "google")


def _provider(
    http: ScriptedCloudHttp | None = None, endpoints: Endpoints | None = None
) -> GoogleProvider:
    context = ProviderContext(FakeClock(), http or ScriptedCloudHttp(), endpoints or Endpoints())
    return GoogleProvider(context)


def _offer(config: dict[str, Any], host: RegistryHost = HOST) -> Offered:
    return Offered(host, config=config)


def _stored() -> StoredSecrets:
    prepared = _provider().prepare(_offer(acme_account().document()))
    return StoredSecrets(prepared.username, prepared.fields)


def test_of_a_good_key_only_what_signing_needs_is_stored() -> None:
    account = acme_account()
    prepared = _provider().prepare(_offer(account.document()))
    assert prepared.username == "oauth2accesstoken"
    assert set(prepared.fields) == {"key"}
    assert json.loads(prepared.fields["key"].reveal()) == {
        "type": "service_account",
        "client_email": account.email,
        "private_key": account.pem,
        "private_key_id": account.key_id,
    }


def test_nothing_of_a_key_shows() -> None:
    offered = _offer(acme_account().document())
    prepared = _provider().prepare(offered)
    line = acme_account().pem.splitlines()[3]
    for shown in (repr(offered), repr(prepared), str(prepared.fields)):
        assert line not in shown
        assert acme_account().email not in shown


@pytest.mark.parametrize(
    "host",
    [
        "europe-docker.pkg.dev",
        "us-central1-docker.pkg.dev",
        "gcr.io",
        "eu.gcr.io",
        "https://us.gcr.io/acme",
    ],
)
def test_googles_registries_are_recognised(host: str) -> None:
    _provider().prepare(_offer(acme_account().document(), RegistryHost.parse(host)))


@pytest.mark.parametrize(
    "host",
    [
        "ghcr.io",
        "docker.pkg.dev",
        "europe-docker.pkg.dev.evil.example",
        "evil.example",
        "notgcr.io",
        "a.b.gcr.io",
        "gcr.io:8443",
        "europe-npm.pkg.dev",
        "docker.io",
    ],
)
def test_others_are_not_told_a_google_token(host: str) -> None:
    offered = _offer(acme_account().document(), RegistryHost.parse(host))
    with pytest.raises(Invalid, match="none of Google's registries"):
        _provider().prepare(offered)


def test_process_configuration_may_name_another_registry() -> None:
    endpoints = Endpoints(google_hosts=frozenset({"images.acme.example:5000"}))
    host = RegistryHost.parse("images.acme.example:5000")
    _provider(endpoints=endpoints).prepare(_offer(acme_account().document(), host))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"type": "authorized_user"}, "no service account's key"),
        ({"type": "external_account"}, "no service account's key"),
        ({"type": None}, "no service account's key"),
        ({"private_key": None}, "lacks private_key\\."),
        ({"client_email": ""}, "lacks client_email"),
        ({"private_key_id": None, "token_uri": None}, "lacks private_key_id, token_uri"),
        ({"client_email": "facade"}, "no e-mail address"),
        ({"client_email": "a@b.c\r\nX: y"}, "no e-mail address"),
        ({"client_email": 17}, "client_email must be a text"),
        ({"private_key": {"a": 1}}, "private_key must be a text"),
        ({"private_key": "x" * 20_000}, "private_key must be a text of at most"),
        ({"universe_domain": "s3nsapis.fr"}, "another cloud"),
        ({"token_uri": "https://evil.example/token"}, "token_uri is not Google's"),
        ({"token_uri": "http://oauth2.googleapis.com/token"}, "token_uri is not Google's"),
        ({"private_key": "-----BEGIN PRIVATE KEY-----\ncanary\n"}, "private_key cannot be used"),
        ({"private_key": "canary"}, "private_key cannot be used"),
    ],
)
def test_a_bad_key_is_refused_in_words(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(Invalid, match=words) as caught:
        _provider().prepare(_offer(acme_account().document(**changes)))
    shown = "".join(traceback.format_exception(caught.value))
    for secret in ("canary", acme_account().pem.splitlines()[3], acme_account().key_id):
        assert secret not in shown


def test_a_key_that_is_not_rsa_is_refused() -> None:
    pem = (
        ec.generate_private_key(ec.SECP256R1())
        .private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        .decode()
    )
    with pytest.raises(Invalid, match="must be an RSA key"):
        _provider().prepare(_offer(acme_account().document(private_key=pem)))


def test_a_user_name_or_password_is_not_taken() -> None:
    config = acme_account().document()
    for offered in (
        Offered(HOST, "robot", config=config),
        Offered(HOST, "", Secret("hunter2"), config),
    ):
        with pytest.raises(Invalid, match="key file, and no user name"):
            _provider().prepare(offered)


@pytest.mark.parametrize("uri", ["https://accounts.google.com/o/oauth2/token", AUDIENCE])
def test_old_keys_name_old_endpoints_of_google(uri: str) -> None:
    _provider().prepare(_offer(acme_account().document(token_uri=uri)))


def test_without_the_extra_it_says_what_to_install() -> None:
    def load(name: str) -> ModuleType:
        raise ModuleNotFoundError(name)

    provider = GoogleProvider(ProviderContext(FakeClock()), load)
    with pytest.raises(Invalid, match=r"pip install 'facade\[google\]'"):
        provider.prepare(_offer(acme_account().document()))


async def test_without_the_extra_on_this_node_an_exchange_says_so() -> None:
    def load(name: str) -> ModuleType:
        raise ModuleNotFoundError(name)

    provider = GoogleProvider(ProviderContext(FakeClock()), load)
    with pytest.raises(Upstream, match=r"pip install 'facade\[google\]'"):
        await provider.credentials(CONNECTION, _stored())


async def test_a_process_that_reaches_no_cloud_says_so() -> None:
    provider = GoogleProvider(ProviderContext(FakeClock()))
    with pytest.raises(Upstream, match="no way to ask a cloud"):
        await provider.credentials(CONNECTION, _stored())


async def test_the_pinned_endpoint_is_asked_whatever_the_key_says() -> None:
    body = b'{"access_token":"ya29.canary","expires_in":3599}'
    http = ScriptedCloudHttp([CloudAnswer(200, {}, body)])
    endpoints = Endpoints(google_token_uri="https://tokens.acme.example/google")
    stored = json.loads(_stored().fields["key"].reveal())
    stored["token_uri"] = "https://evil.example/token"
    presented = await _provider(http, endpoints).credentials(
        CONNECTION, StoredSecrets("", {"key": Secret(json.dumps(stored))})
    )
    assert [(request.method, request.url) for request in http.sent] == [
        ("POST", "https://tokens.acme.example/google")
    ]
    assert presented.basic is not None
    assert presented.basic.username == "oauth2accesstoken"
    assert presented.basic.password == Secret("ya29.canary")
    assert presented.expires_at == EPOCH + 3599
    assert "ya29" not in repr(presented)
    assert "assertion" not in repr(http.sent)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b"{}",
        b'{"access_token":"a b\\r\\nX: y"}',
        b'{"access_token":17,"expires_in":60}',
        b'{"access_token":"","expires_in":"soon"}',
        b'{"id_token":"canary"}',
        b"\xff\xfe",
    ],
)
async def test_an_answer_without_a_usable_token_is_refused(body: bytes) -> None:
    http = ScriptedCloudHttp([CloudAnswer(200, {}, body)])
    with pytest.raises(Upstream, match="answered with") as caught:
        await _provider(http).credentials(CONNECTION, _stored())
    shown = "".join(traceback.format_exception(caught.value))
    assert "canary" not in shown


async def test_a_refusal_is_not_tried_again_by_googles_library() -> None:
    """It would, on 503, with waits of its own: our transport has tried already."""
    http = ScriptedCloudHttp([CloudAnswer(503, {}, b"{}")])
    with pytest.raises(Upstream, match="failed at an access token"):
        await _provider(http).credentials(CONNECTION, _stored())
    assert len(http.sent) == 1


async def test_googles_library_cannot_ask_anywhere_else() -> None:
    """Newer versions look up regional boundaries beside tokens; from here they could not."""
    http = ScriptedCloudHttp()
    loop = asyncio.get_running_loop()
    request = _Request(loop, http, CONNECTION, "https://oauth2.googleapis.com/token")
    with pytest.raises(Upstream, match=r"wanted to ask iamcredentials\.googleapis\.com"):
        await asyncio.to_thread(request, "https://iamcredentials.googleapis.com/v1/locations")
    assert http.sent == []
