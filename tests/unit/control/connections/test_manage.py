"""Connecting, changing and trying registries, as an operator does."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from facade.control.catalog.browse import Browse
from facade.control.connections.manage import Connections
from facade.control.credentials.model import Offered
from facade.control.credentials.providers import ProviderContext, Providers
from facade.errors import Conflict, FacadeError, Invalid, NotFound, Upstream
from facade.oci.host import RegistryHost
from facade.oci.reference import Repository
from facade.reasons import Reason
from facade.secret import Secret
from facade.upstream.addresses import AddressPolicy
from facade.upstream.connection import Connection, ConnectionSettings
from tests.support.clock import FakeClock
from tests.support.control import fresh_store
from tests.support.memory_registry import MemoryRegistry, OneConnection
from tests.support.pki import Authority

HOST = RegistryHost("registry.example")
REPOSITORY = Repository("org/app")
OFFERED = Offered(HOST, "robot", Secret("canary-5"))


@dataclass
class Known:
    """A broker that knows a scheme and what it was told to forget."""

    found: str | None = "bearer"
    forgotten: list[str] = field(default_factory=list)

    def forget(self, connection_id: str) -> None:
        self.forgotten.append(connection_id)

    def scheme(self, connection: Connection) -> str | None:
        return self.found


@dataclass
class Parts:
    """A use case and everything around it."""

    connections: Connections
    registry: MemoryRegistry
    broker: Known
    addresses: dict[str, list[str]]

    async def add(
        self, settings: ConnectionSettings | None = None, offered: Offered = OFFERED
    ) -> None:
        await self.connections.add("static", offered, settings or ConnectionSettings(), actor="ann")


@pytest.fixture
async def parts(tmp_path: Path) -> AsyncIterator[Parts]:
    clock, registry, broker = FakeClock(), MemoryRegistry(), Known()
    addresses = {"registry.example": ["93.184.216.34"]}

    async def resolve(host: str, port: int) -> Sequence[str]:
        if host not in addresses:
            raise OSError("no such name")
        return addresses[host]

    async with fresh_store(tmp_path, clock) as store:
        connections = Connections(
            store=store,
            providers=Providers(ProviderContext(clock)),
            broker=broker,
            registry=registry,
            tags=Browse(OneConnection(Connection("x", HOST, "static")), registry),
            addresses=AddressPolicy(["10.1.0.0/16"]),
            clock=clock,
            resolve=resolve,
        )
        yield Parts(connections, registry, broker, addresses)


async def test_connected_listed_changed_and_removed(parts: Parts) -> None:
    await parts.add()
    assert [stored.host for stored in parts.connections.list()] == [HOST]
    assert parts.connections.get(HOST).created_by == "ann"
    with pytest.raises(Conflict):
        await parts.add()
    changed = await parts.connections.change(
        HOST, offered=Offered(HOST, secret=Secret("new")), settings=None
    )
    assert (changed.username, changed.connection.revision) == ("robot", 2)
    changed = await parts.connections.change(
        HOST,
        offered=Offered(HOST, secret=Secret("new")),
        settings=ConnectionSettings(insecure=True),
    )
    assert changed.connection.settings.insecure
    await parts.connections.remove(HOST)
    with pytest.raises(NotFound):
        parts.connections.get(HOST)


@pytest.mark.parametrize(
    ("provider", "offered", "words"),
    [
        ("static", Offered(HOST), "user name"),
        ("static", Offered(HOST, "robot"), "--password-stdin"),
        ("static", Offered(HOST, "ro:bot", Secret("canary")), "colon"),
        ("static", Offered(HOST, "robot", Secret("canary\n")), "line breaks"),
        ("static", Offered(HOST, "robot", Secret("canary"), {"a": 1}), "no config"),
        ("anonymous", Offered(HOST, "robot", Secret("canary")), "takes no user name"),
        ("ftp", OFFERED, "no provider 'ftp'"),
    ],
)
async def test_what_could_not_work_is_refused_without_its_secret(
    parts: Parts, provider: str, offered: Offered, words: str
) -> None:
    with pytest.raises(Invalid, match=words) as caught:
        await parts.connections.add(provider, offered, ConnectionSettings(), actor="ann")
    assert "canary" not in repr(caught.value)
    assert parts.connections.list() == ()


@pytest.mark.parametrize("username", ["org+robot", "robot$ci", "AWS", "<token>"])
async def test_user_names_of_quay_and_harbor_are_kept_as_typed(parts: Parts, username: str) -> None:
    await parts.add(offered=Offered(HOST, username, Secret("x")))
    assert parts.connections.get(HOST).username == username


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (ConnectionSettings(ca_pem="nonsense"), "PEM"),
        (ConnectionSettings(ca_pem="-----BEGIN PRIVATE KEY-----\ncanary"), "private key"),
        (ConnectionSettings(ca_pem="x" * 300_000), "PEM"),
        (ConnectionSettings(ca_pem="# Autorità"), "plain ASCII"),
        (ConnectionSettings(proxy="proxy.example"), "as a URL"),
        (ConnectionSettings(proxy="http://[bad"), "as a URL"),
        (ConnectionSettings(proxy="socks5://proxy.example"), "as a URL"),
        (ConnectionSettings(proxy="http://u:canary@proxy.example:1"), "credentials"),
        (ConnectionSettings(auth_hosts=("not a host",)), "host"),
        (ConnectionSettings(auth_hosts=tuple(f"h{n}.example" for n in range(17))), "At most"),
    ],
)
async def test_settings_that_make_no_sense(
    parts: Parts, settings: ConnectionSettings, words: str
) -> None:
    with pytest.raises(Invalid, match=words) as caught:
        await parts.add(settings)
    assert "canary" not in repr(caught.value)


async def test_settings_are_kept_in_canonical_form(parts: Parts) -> None:
    ca = Authority.root("registry CA").pem.decode()
    await parts.add(
        ConnectionSettings(
            ca_pem=ca, auth_hosts=("https://Auth.Example/x", "auth.example"), proxy="http://p:3128"
        )
    )
    settings = parts.connections.get(HOST).connection.settings
    assert (settings.auth_hosts, settings.ca_pem) == (("auth.example",), ca)


async def test_a_private_address_is_refused_with_the_line_to_add(parts: Parts) -> None:
    parts.addresses["registry.example"] = ["10.2.3.4"]
    with pytest.raises(Upstream, match=r'"10\.2\.3\.4/32" to allow_cidrs'):
        await parts.add()
    assert parts.connections.list() == ()
    parts.addresses["registry.example"] = ["10.1.2.3"]
    await parts.add()


@pytest.mark.parametrize("text", ["127.0.0.1:5000", "[::1]:5000", "169.254.169.254"])
async def test_an_address_literal_is_judged_too(parts: Parts, text: str) -> None:
    host = RegistryHost.parse(text)
    address = host.name.strip("[]")
    parts.addresses[address] = [address]
    with pytest.raises(Upstream, match="allow_cidrs"):
        await parts.add(offered=Offered(host, "robot", Secret("x")))


async def test_a_name_that_does_not_resolve_yet_and_a_proxy_are_let_through(parts: Parts) -> None:
    later = RegistryHost("later.example")
    await parts.add(offered=Offered(later, "robot", Secret("x")))
    parts.addresses["registry.example"] = ["10.2.3.4"]
    await parts.add(ConnectionSettings(proxy="http://proxy.example:3128"))


async def test_a_test_tells_in_words_what_works(parts: Parts) -> None:
    await parts.add()
    said = await parts.connections.test(HOST, None)
    assert said.startswith("registry.example answers and its certificate is valid. It accepts the")
    assert parts.broker.forgotten == [parts.connections.get(HOST).connection.id]
    assert parts.connections.get(HOST).last_ok is not None
    parts.registry.pages = [["v1", "v2"]]
    parts.registry.add(b"{}", "v2")
    said = await parts.connections.test(HOST, REPOSITORY)
    assert said.endswith("org/app may be listed (2 tags read). It may be pulled (tried v2).")
    parts.broker.found = None
    assert "asked for no credentials" in await parts.connections.test(HOST, None)


async def test_pulling_counts_more_than_listing(parts: Parts) -> None:
    await parts.add()
    parts.registry.failures["tags"] = Upstream("denied", reason=Reason.UPSTREAM_REFUSED)
    parts.registry.add(b"{}", "latest")
    said = await parts.connections.test(HOST, REPOSITORY)
    assert "may not be listed: denied It may be pulled (tried latest)." in said


@pytest.mark.parametrize("what", ["ping", "latest"])
async def test_a_test_that_fails_is_told_and_remembered(parts: Parts, what: str) -> None:
    await parts.add()
    parts.registry.failures[what] = Upstream("wrong password", reason=Reason.UPSTREAM_REFUSED)
    with pytest.raises(FacadeError, match="wrong password"):
        await parts.connections.test(HOST, REPOSITORY)
    assert parts.connections.get(HOST).last_error == "wrong password"


async def test_notes_warn_of_plain_http_and_of_basic(parts: Parts) -> None:
    await parts.add()
    stored = parts.connections.get(HOST)
    assert parts.connections.note(stored) is None
    parts.broker.found = "basic"
    assert "password itself" in str(parts.connections.note(stored))
    stored = await parts.connections.change(
        HOST, offered=OFFERED, settings=ConnectionSettings(insecure=True)
    )
    assert "Plain http" in str(parts.connections.note(stored))


@pytest.mark.parametrize(
    "settings",
    [
        ConnectionSettings(insecure=True),
        ConnectionSettings(proxy="http://reader.example:3128"),
        ConnectionSettings(auth_hosts=("reader.example",)),
        ConnectionSettings(ca_pem=Authority.root("Reader").pem.decode()),
    ],
    ids=["plain http", "proxy", "auth host", "ca"],
)
async def test_reading_anothers_secret_by_sending_it_elsewhere(
    parts: Parts, settings: ConnectionSettings
) -> None:
    """Whoever may change a connection could otherwise lead what is sealed to a server of theirs."""
    await parts.add()
    with pytest.raises(Invalid, match="Send it again"):
        await parts.connections.change(HOST, offered=None, settings=settings)
    assert parts.connections.get(HOST).connection.settings == ConnectionSettings()
    await parts.connections.change(HOST, offered=OFFERED, settings=settings)
    # What narrows the audience, or leaves it as it is, needs no secret.
    for less in (settings, ConnectionSettings()):
        changed = await parts.connections.change(HOST, offered=None, settings=less)
        assert changed.connection.settings == less


async def test_settings_of_an_anonymous_connection_change_freely(parts: Parts) -> None:
    offered = Offered(HOST)
    await parts.connections.add("anonymous", offered, ConnectionSettings(), actor="ann")
    settings = ConnectionSettings(auth_hosts=("auth.example",))
    changed = await parts.connections.change(HOST, offered=None, settings=settings)
    assert changed.connection.settings == settings


async def test_nothing_to_change(parts: Parts) -> None:
    await parts.add()
    with pytest.raises(Invalid, match="Nothing"):
        await parts.connections.change(HOST, offered=None, settings=None)
