"""The fake resolver answers what it was told, and nothing else."""

import socket

import aiohttp
import pytest

from tests.support.resolver import FakeResolver, family_of


async def hosts(resolver: FakeResolver, name: str, family: int = socket.AF_UNSPEC) -> list[str]:
    return [
        answer["host"] for answer in await resolver.resolve(name, 443, socket.AddressFamily(family))
    ]


async def test_only_names_with_an_answer_resolve() -> None:
    resolver = FakeResolver({"registry.example": "203.0.113.7"})
    assert await hosts(resolver, "Registry.Example") == ["203.0.113.7"]
    with pytest.raises(OSError, match=r"other\.example"):
        await hosts(resolver, "other.example")
    assert resolver.asked == ["Registry.Example", "other.example"]


async def test_an_answer_is_complete() -> None:
    (answer,) = await FakeResolver({"a.example": "2001:db8::1"}).resolve(
        "a.example", 5000, socket.AF_UNSPEC
    )
    assert answer["hostname"] == "a.example"
    assert answer["port"] == 5000
    assert answer["family"] == socket.AF_INET6


async def test_addresses_of_another_family_are_left_out() -> None:
    resolver = FakeResolver({"both.example": ("203.0.113.7", "2001:db8::1")})
    assert await hosts(resolver, "both.example", socket.AF_INET6) == ["2001:db8::1"]
    assert len(await hosts(resolver, "both.example")) == 2
    resolver.set("both.example", "203.0.113.7")
    with pytest.raises(OSError, match="no address"):
        await hosts(resolver, "both.example", socket.AF_INET6)


async def test_an_answer_can_change_between_two_look_ups() -> None:
    resolver = FakeResolver()
    resolver.set_sequence("rebind.example", "203.0.113.7", ("127.0.0.1", "::1"))
    assert await hosts(resolver, "rebind.example") == ["203.0.113.7"]
    assert await hosts(resolver, "rebind.example") == ["127.0.0.1", "::1"]
    assert await hosts(resolver, "rebind.example") == ["127.0.0.1", "::1"]
    resolver.set("rebind.example")
    with pytest.raises(OSError, match="no address"):
        await hosts(resolver, "rebind.example")


async def test_it_serves_an_aiohttp_connector_and_is_closed_with_its_owner() -> None:
    resolver = FakeResolver()
    connector = aiohttp.TCPConnector(resolver=resolver)
    async with aiohttp.ClientSession(connector=connector) as session:
        with pytest.raises(aiohttp.ClientConnectorDNSError):
            await session.get("http://nowhere.example/")
    assert resolver.asked == ["nowhere.example"]
    await resolver.close()
    assert resolver.closed


def test_only_ip_addresses_are_answers() -> None:
    assert family_of("::ffff:127.0.0.1") == socket.AF_INET6
    with pytest.raises(ValueError, match="localhost"):
        family_of("localhost")
