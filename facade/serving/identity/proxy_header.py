"""The PROXY protocol, version 2: who is behind a balancer (haproxy's proxy-protocol.txt, 2.2).

Guarantees: pure; reads only as many bytes as the header says and never more than MAX_BYTES; whatever
is not exactly such a header is a `HeaderProblem` as soon as that can be told. The extensions
behind the addresses (TLVs) are skipped unread. Does not decide from whom a header is accepted: a header
is a claim, and only `proxied` knows whose claims count.
"""

import ipaddress
import struct
from dataclasses import dataclass

from facade.serving.identity.handshake import HandshakeReason

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
MAX_BYTES = 4096
"""Addresses take at most 216, and balancers add a few TLVs of some dozen."""

_FIXED_BYTES = 16
_V1 = b"PROXY "
_VERSION = 2
_LOCAL, _PROXY = 0, 1
_UNSPECIFIED, _TCP4, _TCP6, _UNIX_STREAM = 0x00, 0x11, 0x21, 0x31
_ADDRESS_BYTES = {_UNSPECIFIED: 0, _TCP4: 12, _TCP6: 36, _UNIX_STREAM: 216}

Address = tuple[str, int]


@dataclass(frozen=True, slots=True)
class ProxyHeader:
    """A whole header.

    Arguments:
        length: bytes that it takes; the client's own begin there.
        source: the client's address and port; None = the balancer speaks for itself (LOCAL, as in
            its health checks), or does not say for whom: then its own address counts.
        local: it speaks for itself.
    """

    length: int
    source: Address | None = None
    local: bool = False


class HeaderProblem(Exception):
    """These bytes begin no header that is understood."""

    def __init__(self, reason: HandshakeReason) -> None:
        super().__init__(reason.value)
        self.reason = reason


def parse(data: bytes | bytearray) -> ProxyHeader | None:
    """The header that `data` begins with; None = more bytes are needed. Raises HeaderProblem."""
    start = bytes(data[: len(SIGNATURE)])
    if not SIGNATURE.startswith(start):
        if start.startswith(_V1):
            raise HeaderProblem(HandshakeReason.PROXY_V1)
        if _V1.startswith(start):
            return None
        raise HeaderProblem(HandshakeReason.PROXY_MISSING)
    if len(data) < _FIXED_BYTES:
        return None
    version_command, family = data[12], data[13]
    length = _FIXED_BYTES + int.from_bytes(data[14:16], "big")
    command = version_command & 0x0F
    malformed = HeaderProblem(HandshakeReason.PROXY_MALFORMED)
    if version_command >> 4 != _VERSION or command not in (_LOCAL, _PROXY) or length > MAX_BYTES:
        raise malformed
    if command == _PROXY:
        needed = _ADDRESS_BYTES.get(family)
        if needed is None or length < _FIXED_BYTES + needed:
            raise malformed
    if len(data) < length:
        return None
    if command == _LOCAL:
        return ProxyHeader(length, local=True)  # whatever addresses it names are to be ignored
    return ProxyHeader(length, _source(family, bytes(data[_FIXED_BYTES:length])))


def _source(family: int, block: bytes) -> Address | None:
    if family == _TCP4:
        return str(ipaddress.IPv4Address(block[:4])), struct.unpack_from("!H", block, 8)[0]
    if family == _TCP6:
        return str(ipaddress.IPv6Address(block[:16])), struct.unpack_from("!H", block, 32)[0]
    return None
