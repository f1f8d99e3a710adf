"""PROXY v2 headers: every whole one is read, every part waits, everything else is a problem."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from facade.serving.identity.handshake import HandshakeReason
from facade.serving.identity.proxy_header import (
    MAX_BYTES,
    SIGNATURE,
    HeaderProblem,
    ProxyHeader,
    parse,
)

HELLO = b"\x16\x03\x01\x02\x00\x01"
"""The first bytes of a TLS ClientHello."""


def header(version_command: int, family: int, block: bytes) -> bytes:
    return SIGNATURE + bytes([version_command, family]) + len(block).to_bytes(2, "big") + block


def addresses(source: str, port: int, destination: str = "") -> bytes:
    one = ipaddress.ip_address(source)
    other = ipaddress.ip_address(destination or source)
    return one.packed + other.packed + port.to_bytes(2, "big") + (8443).to_bytes(2, "big")


def problem(data: bytes) -> HandshakeReason:
    with pytest.raises(HeaderProblem) as caught:
        parse(data)
    return caught.value.reason


V4 = header(0x21, 0x11, addresses("192.0.2.7", 40000))
V6 = header(0x21, 0x21, addresses("2001:db8::7", 40000))


def test_addresses_are_those_of_the_client() -> None:
    assert parse(V4) == ProxyHeader(28, ("192.0.2.7", 40000))
    assert parse(V6) == ProxyHeader(52, ("2001:db8::7", 40000))


def test_a_balancer_that_speaks_for_itself() -> None:
    assert parse(header(0x20, 0x00, b"")) == ProxyHeader(16, local=True)
    # Whatever addresses LOCAL comes with are to be ignored, of an unknown family too.
    assert parse(header(0x20, 0x11, addresses("192.0.2.7", 1))) == ProxyHeader(28, local=True)
    assert parse(header(0x20, 0xFF, b"xyz")) == ProxyHeader(19, local=True)


@pytest.mark.parametrize("data", [header(0x21, 0x00, b"tlv"), header(0x21, 0x31, bytes(216))])
def test_a_client_without_an_address(data: bytes) -> None:
    assert parse(data) == ProxyHeader(len(data))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (HELLO, HandshakeReason.PROXY_MISSING),
        (b"GET / HTTP/1.1\r\n", HandshakeReason.PROXY_MISSING),
        (b"\r\n\r\n\x00\r\nQUIX\n", HandshakeReason.PROXY_MISSING),
        (b"PROXY TCP4 192.0.2.7 192.0.2.1 1 2\r\n", HandshakeReason.PROXY_V1),
        (b"PROXIES", HandshakeReason.PROXY_MISSING),
        (header(0x11, 0x11, addresses("192.0.2.7", 1)), HandshakeReason.PROXY_MALFORMED),
        (header(0x22, 0x11, addresses("192.0.2.7", 1)), HandshakeReason.PROXY_MALFORMED),
        (header(0x21, 0x12, addresses("192.0.2.7", 1)), HandshakeReason.PROXY_MALFORMED),  # UDP
        (header(0x21, 0x11, bytes(11)), HandshakeReason.PROXY_MALFORMED),
        (header(0x21, 0x21, bytes(35)), HandshakeReason.PROXY_MALFORMED),
        (SIGNATURE + b"\x21\x11\xff\xff", HandshakeReason.PROXY_MALFORMED),
        (SIGNATURE + b"\x20\x00\xff\xff", HandshakeReason.PROXY_MALFORMED),
    ],
)
def test_what_is_no_header(data: bytes, reason: HandshakeReason) -> None:
    assert problem(data) is reason


HEADERS = st.one_of(
    st.builds(
        lambda address, port, tlvs: header(0x21, 0x11, addresses(str(address), port) + tlvs),
        st.ip_addresses(v=4),
        st.integers(0, 65535),
        st.binary(max_size=300),
    ),
    st.builds(
        lambda address, port, tlvs: header(0x21, 0x21, addresses(str(address), port) + tlvs),
        st.ip_addresses(v=6),
        st.integers(0, 65535),
        st.binary(max_size=300),
    ),
    st.builds(lambda block: header(0x20, 0x00, block), st.binary(max_size=300)),
)


@given(HEADERS, st.binary(max_size=64))
def test_a_header_ends_where_it_says_whatever_follows(data: bytes, rest: bytes) -> None:
    whole = parse(data + rest)
    assert whole is not None
    assert whole.length == len(data)
    assert whole == parse(data)


@given(HEADERS, st.data())
def test_every_part_of_a_header_waits_for_more(data: bytes, draw: st.DataObject) -> None:
    cut = draw.draw(st.integers(0, len(data) - 1))
    assert parse(data[:cut]) is None


@given(st.ip_addresses(), st.integers(0, 65535))
def test_any_address_comes_back(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int
) -> None:
    family = 0x11 if address.version == 4 else 0x21
    found = parse(header(0x21, family, addresses(str(address), port)))
    assert found is not None
    assert found.source is not None
    assert (ipaddress.ip_address(found.source[0]), found.source[1]) == (address, port)


@given(st.one_of(st.binary(max_size=400), st.binary(max_size=400).map(lambda b: SIGNATURE + b)))
def test_any_bytes_are_a_header_a_part_of_one_or_a_problem(data: bytes) -> None:
    try:
        found = parse(data)
    except HeaderProblem as caught:
        assert caught.reason.value.startswith("proxy-")
        return
    if found is not None:
        assert 16 <= found.length <= min(len(data), MAX_BYTES)
    else:
        assert len(data) < MAX_BYTES
