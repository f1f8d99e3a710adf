"""Handshakes that are not over: how many an address may have, and who makes room when all is full.

Guarantees: no address has more than its bound under way; when the listener is full, a newcomer takes
the place of the oldest unfinished handshake of the address that has most of them, unless its own
address is that one: so hanging handshakes of a few addresses keep no other out. An IPv6 address counts as
its /64, which one host may have whole. Established connections are bounded by certificate.
"""

import ipaddress
from typing import Protocol


class Handshake(Protocol):
    """One under way."""

    def give_up(self) -> None:
        """End it at once: its place is needed."""
        ...


class HalfOpen:
    """The handshakes under way of one listener. Loop only."""

    __slots__ = ("_addresses", "_limit")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._addresses: dict[str, dict[Handshake, None]] = {}  # each in order of arrival

    def admits(self, address: str) -> bool:
        """Whether one more of `address` is within its bound."""
        return len(self._addresses.get(address, ())) < self._limit

    def begin(self, address: str, handshake: Handshake) -> None:
        """One begins."""
        self._addresses.setdefault(address, {})[handshake] = None

    def end(self, address: str, handshake: Handshake) -> None:
        """It is over; calling again does nothing."""
        under_way = self._addresses.get(address)
        if under_way is not None and under_way.pop(handshake, 0) is None and not under_way:
            del self._addresses[address]

    def make_room(self, address: str) -> bool:
        """End one for a newcomer from `address`; False when none should."""
        if not self._addresses:
            return False
        greediest = max(self._addresses, key=lambda one: len(self._addresses[one]))
        under_way = self._addresses[greediest]
        if len(under_way) <= len(self._addresses.get(address, ())) + 1:
            return False
        next(iter(under_way)).give_up()
        return True

    def __len__(self) -> int:
        return sum(map(len, self._addresses.values()))


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
