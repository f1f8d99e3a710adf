"""Handshakes that are not over: how many an address may have, and who makes room when all is full.

Guarantees: no address has more than its bound under way; when the listener is full, a newcomer takes
the place of the oldest unfinished handshake of the address that has most of them, unless its own
address is that one: so hanging handshakes of a few addresses keep no other out. An IPv6 address counts as
its /64, which one host may have whole. Established connections are bounded by certificate.
"""

import ipaddress
from collections import defaultdict
from typing import Protocol


class Handshake(Protocol):
    """One under way."""

    def give_up(self) -> None:
        """End it at once: its place is needed."""
        ...


class HalfOpen:
    """The handshakes under way of one listener. Loop only. Every call takes the same time, however
    many there are: it is made for each connection of those who want to keep others out.
    """

    __slots__ = ("_addresses", "_having", "_limit", "_most")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._addresses: dict[str, dict[Handshake, None]] = {}  # each in order of arrival
        self._having: defaultdict[int, dict[str, None]] = defaultdict(
            dict
        )  # addresses, by how many
        self._most = 0  # that an address has

    def admits(self, address: str) -> bool:
        """Whether one more of `address` is within its bound."""
        return self._count(address) < self._limit

    def begin(self, address: str, handshake: Handshake) -> None:
        """One begins."""
        before = self._count(address)
        self._addresses.setdefault(address, {})[handshake] = None
        self._moves(address, before)

    def end(self, address: str, handshake: Handshake) -> None:
        """It is over; calling again does nothing."""
        under_way = self._addresses.get(address, {})
        if handshake not in under_way:
            return
        before = len(under_way)
        del under_way[handshake]
        if not under_way:
            del self._addresses[address]
        self._moves(address, before)

    def make_room(self, address: str) -> bool:
        """End one for a newcomer from `address`; False when none should."""
        if self._most <= self._count(address) + 1:
            return False
        greediest = next(iter(self._having[self._most]))
        next(iter(self._addresses[greediest])).give_up()
        return True

    def __len__(self) -> int:
        return sum(map(len, self._addresses.values()))

    def _count(self, address: str) -> int:
        return len(self._addresses.get(address, ()))

    def _moves(self, address: str, before: int) -> None:
        """It had `before`, and now has one more or one less."""
        now = self._count(address)
        if now:
            self._having[now][address] = None
        if before:
            self._having[before].pop(address)
            if not self._having[before]:
                del self._having[before]
        self._most = max(self._most, now)
        if self._most not in self._having:  # the one that had most has one less
            self._most = now


def source(host: str) -> str:
    """What counts as one address: IPv4 as it is, IPv6 its /64."""
    if ":" not in host:
        return host
    address = plain(host)
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    return str(ipaddress.IPv6Network((int(address) >> 64 << 64, 64)))


def plain(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """The address, without a zone; an IPv4 one that a dual socket shows as IPv6, as IPv4."""
    address = ipaddress.ip_address(host.partition("%")[0])
    return getattr(address, "ipv4_mapped", None) or address
