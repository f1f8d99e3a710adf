"""Which network addresses may be connected to.

Guarantees: an address is judged by what it really reaches: IPv4-mapped, IPv4-compatible, SIIT,
NAT64, 6to4 and Teredo forms are unfolded first. Loopback, link-local, private, shared, reserved,
multicast and cloud metadata addresses are refused unless process configuration names them
(`[upstream] allow_cidrs`). Does not resolve names: `transport` asks for each address at the moment
it connects, so a DNS answer that changes in between gains nothing.
"""

import ipaddress
from collections.abc import Iterable

from facade.errors import Invalid, Upstream
from facade.reasons import Reason

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_EMBEDDED_AT_END = tuple(
    map(
        ipaddress.IPv6Network,
        (
            "::ffff:0:0/96",  # IPv4-mapped, RFC 4291, 2.5.5.2
            "::ffff:0:0:0/96",  # IPv4-translated, RFC 2765
            "64:ff9b::/96",  # NAT64's well-known prefix, RFC 6052
            "::/96",  # IPv4-compatible (deprecated), RFC 4291, 2.5.5.1
        ),
    )
)
_REFUSED = tuple(
    map(
        ipaddress.ip_network,
        (
            "0.0.0.0/8",
            "100.64.0.0/10",  # shared address space, RFC 6598; Alibaba's metadata 100.100.100.200
            "168.63.129.16/32",  # Azure's host services: public by number, local by nature
            "192.0.0.0/24",  # IETF protocol assignments; Oracle's metadata 192.0.0.192
            "::/128",
            "::1/128",
            "64:ff9b:1::/48",  # local-use NAT64, RFC 8215: what it reaches cannot be told
            "fc00::/7",
            "fe80::/10",
            "fec0::/10",
        ),
    )
)


class AddressPolicy:
    """The rule, with the ranges that process configuration opens.

    Arguments:
        allow: networks that may be connected to although they are not public, as CIDRs.

    Raises Invalid when a text is no network.
    """

    def __init__(self, allow: Iterable[str | Network] = ()) -> None:
        try:
            self._allow = tuple(
                ipaddress.ip_network(network) if isinstance(network, str) else network
                for network in allow
            )
        except ValueError as error:
            raise Invalid(f"[upstream] allow_cidrs: {error}.") from error

    def allows(self, address: str) -> bool:
        """Whether `address` (without brackets, with or without zone) may be connected to."""
        reached = unfold(address)
        if reached is None:
            return False
        return is_public(reached) or any(_within(reached, network) for network in self._allow)

    def check(self, address: str, host: str = "") -> None:
        """Raise Upstream (UPSTREAM_UNREACHABLE) unless `address` may be connected to.

        Arguments:
            host: the name that led there, for the message, which says what line to add.
        """
        if self.allows(address):
            return
        reached = unfold(address)
        line = f'"{ipaddress.ip_network(reached)}"' if reached is not None else "its network"
        subject = f"{host} is at {address}" if host and host != address else address
        raise Upstream(
            f"{subject}: inside a private or reserved network, so nothing was sent there. To allow "
            f"it, add {line} to allow_cidrs in the [upstream] section of Facade's configuration.",
            reason=Reason.UPSTREAM_UNREACHABLE,
        )


def unfold(text: str) -> Address | None:
    """What an address really reaches, or None when it is no address."""
    try:
        address = ipaddress.ip_address(text.strip("[]").partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv4Address) or int(address) <= 1:
        return address
    if any(address in network for network in _EMBEDDED_AT_END):
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    if address.sixtofour is not None:
        return address.sixtofour
    if address.teredo is not None:
        server, client = address.teredo
        return server if not is_public(server) else client
    return address


def is_public(address: Address) -> bool:
    """Whether an (unfolded) address is a public unicast address."""
    if address.is_multicast or not address.is_global:
        return False
    return not any(_within(address, network) for network in _REFUSED)


def _within(address: Address, network: Network) -> bool:
    return address.version == network.version and address in network
