"""The table of providers, and what each makes of what it is offered."""

import json

import pytest

from facade.control.credentials.model import Offered, StoredSecrets
from facade.control.credentials.providers import TABLE, ProviderContext, Providers
from facade.errors import Invalid
from facade.oci.host import RegistryHost
from facade.secret import Secret
from facade.upstream.connection import Connection
from tests.support.clock import FakeClock

HOST = RegistryHost("registry.example")
CONNECTION = Connection("c1", HOST, "static")


@pytest.fixture
def providers() -> Providers:
    return Providers(ProviderContext(FakeClock()))


@pytest.mark.parametrize("name", TABLE)
def test_every_provider_of_the_table_is_made_once(providers: Providers, name: str) -> None:
    made = providers.get(name)
    assert providers.get(name) is made
    assert made.exchanges in (True, False)
    assert made.eager in (True, False)


def test_an_unknown_provider_names_those_there_are(providers: Providers) -> None:
    with pytest.raises(Invalid, match="static, anonymous"):
        providers.get("ftp")


async def test_static_presents_what_was_stored(providers: Providers) -> None:
    static = providers.get("static")
    prepared = static.prepare(Offered(HOST, "robot$ci", Secret("pass word ü")))
    presented = await static.credentials(
        CONNECTION, StoredSecrets(prepared.username, prepared.fields)
    )
    assert presented.basic is not None
    assert presented.basic.username == "robot$ci"
    assert presented.basic.password == Secret("pass word ü")
    assert presented.expires_at is None


def test_a_json_key_is_a_password_too(providers: Providers) -> None:
    """Google's registries take `_json_key` with the key's whole text, line breaks and all."""
    key = json.dumps({"type": "service_account", "private_key": "a\nb"}, indent=2) + "\n"
    prepared = providers.get("static").prepare(Offered(HOST, "_json_key", Secret(key)))
    assert json.loads(prepared.fields["secret"].reveal()) == json.loads(key)


@pytest.mark.parametrize("secret", ["a\nb", "a\rb", "a\x00b", "{\n", "x" * 70_000])
def test_other_line_breaks_and_overlong_secrets_are_refused(
    providers: Providers, secret: str
) -> None:
    with pytest.raises(Invalid) as caught:
        providers.get("static").prepare(Offered(HOST, "robot", Secret(secret)))
    assert secret not in str(caught.value)


async def test_anonymous_presents_nothing(providers: Providers) -> None:
    anonymous = providers.get("anonymous")
    assert anonymous.prepare(Offered(HOST)).fields == {}
    presented = await anonymous.credentials(CONNECTION, StoredSecrets("", {}))
    assert presented.basic is None
