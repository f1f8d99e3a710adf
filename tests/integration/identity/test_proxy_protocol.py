"""PROXY v2 in front of TLS, on real sockets: who may, who must, what it changes, and what ends it."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable

import pytest

from facade.serving.identity.handshake import HandshakeReason
from facade.serving.identity.limits import TlsLimits
from facade.serving.identity.openssl import TlsContext
from tests.support.pki import Authority, client_context
from tests.support.tls_listener import ScriptedProtocol, TlsListener, tls_context, tls_listener
from tests.support.tls_peer import TlsPeer

CA = Authority.root()
SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
HERE = ("127.0.0.0/8", "::1/128")
ELSEWHERE = ("192.0.2.0/24",)
CLIENT_V4 = (
    SIGNATURE + b"\x21\x11\x00\x0c" + bytes([192, 0, 2, 7, 127, 0, 0, 1]) + b"\x9c\x40\x20\xfb"
)
CLIENT_V6 = (
    SIGNATURE
    + b"\x21\x21\x00\x2a"
    + socket.inet_pton(socket.AF_INET6, "2001:db8::7")
    + socket.inet_pton(socket.AF_INET6, "::1")
    + b"\x9c\x40\x20\xfb"
    + b"\x04\x00\x03abc"  # a TLV
)
LOCAL = SIGNATURE + b"\x20\x00\x00\x00"
QUICK = TlsLimits(handshake_seconds=0.3, linger_seconds=0.2)


@pytest.fixture(scope="module")
def context() -> TlsContext:
    return tls_context(CA.server(), CA)


def name_protocol() -> ScriptedProtocol:
    """Answers with the client's address, as the application sees it."""

    def answer(protocol: ScriptedProtocol, _: bytes) -> None:
        host, port = protocol.wire.get_extra_info("peername")[:2]
        protocol.wire.write(f"{host} {port}".encode())
        protocol.wire.close()

    return ScriptedProtocol(answer)


def through(send: Callable[[TlsPeer], None], listener: TlsListener) -> bytes:
    with TlsPeer(listener.address, client_context(CA, CA.device())) as peer:
        send(peer)
        peer.handshake(with_data=b"?")
        return peer.receive_all()


def at_once(data: bytes) -> Callable[[TlsPeer], None]:
    return lambda peer: peer.send_raw(data)


def byte_by_byte(data: bytes) -> Callable[[TlsPeer], None]:
    def send(peer: TlsPeer) -> None:
        peer.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in data:
            peer.send_raw(bytes([byte]))

    return send


def with_the_hello(data: bytes) -> Callable[[TlsPeer], None]:
    """In one segment with the first TLS record."""

    def send(peer: TlsPeer) -> None:
        with pytest.raises(ssl.SSLWantReadError):
            peer.tls.do_handshake()
        peer.send_raw(data + peer.outgoing.read())

    return send


@pytest.mark.parametrize("how", [at_once, byte_by_byte, with_the_hello])
@pytest.mark.parametrize(
    ("data", "seen"),
    [(CLIENT_V4, b"192.0.2.7 40000"), (CLIENT_V6, b"2001:db8::7 40000")],
    ids=["v4", "v6"],
)
async def test_the_application_and_the_log_see_the_client(
    context: TlsContext,
    how: Callable[[bytes], Callable[[TlsPeer], None]],
    data: bytes,
    seen: bytes,
) -> None:
    async with tls_listener(context, name_protocol, balancers=HERE) as listener:
        assert await asyncio.to_thread(through, how(data), listener) == seen
        await listener.settled()
        ((peer, _der),) = listener.hooks.done
        assert peer.rpartition(":")[2] == "40000"
        assert seen.split()[0].decode() in peer


async def test_a_balancer_that_speaks_for_itself_is_itself(context: TlsContext) -> None:
    async with tls_listener(context, name_protocol, balancers=HERE) as listener:
        answer = await asyncio.to_thread(through, at_once(LOCAL), listener)
        assert answer.startswith(b"127.0.0.1 ")


@pytest.mark.parametrize("said", [b"", LOCAL])
async def test_a_health_check_is_no_failed_handshake(context: TlsContext, said: bytes) -> None:
    async with tls_listener(context, name_protocol, balancers=HERE) as listener:
        for _ in range(3):
            _reader, writer = await asyncio.open_connection(*listener.address)
            writer.write(said)
            await writer.drain()
            await listener.settled(1)
            writer.close()
            await listener.settled(0)
        assert listener.hooks.failed == []


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00", HandshakeReason.PROXY_MISSING),
        (b"PROXY TCP4 192.0.2.7 127.0.0.1 40000 8443\r\n", HandshakeReason.PROXY_V1),
        (SIGNATURE + b"\x31\x11\x00\x0c" + bytes(12), HandshakeReason.PROXY_MALFORMED),
        (SIGNATURE + b"\x21\x11\xff\xff", HandshakeReason.PROXY_MALFORMED),
    ],
)
async def test_a_balancer_without_a_right_header_is_closed(
    context: TlsContext, said: bytes, reason: HandshakeReason
) -> None:
    async with tls_listener(context, name_protocol, balancers=HERE) as listener:
        reader, writer = await asyncio.open_connection(*listener.address)
        writer.write(said)
        async with asyncio.timeout(5):
            with contextlib.suppress(ConnectionResetError):
                assert await reader.read() == b""
        writer.close()
        await listener.settled()
        assert listener.hooks.failed == [(reason, None)]
        assert listener.hooks.peers[0].startswith("127.0.0.1:")


async def test_a_header_that_is_cut_short_is_counted(context: TlsContext) -> None:
    async with tls_listener(context, name_protocol, balancers=HERE) as listener:
        _reader, writer = await asyncio.open_connection(*listener.address)
        writer.write(CLIENT_V4[:20])
        await writer.drain()
        await listener.settled(1)
        writer.close()
        await listener.settled(0)
        assert listener.hooks.failed == [(HandshakeReason.PROXY_MALFORMED, None)]


@pytest.mark.parametrize("said", [b"", CLIENT_V4[:20]])
async def test_a_header_that_does_not_come_in_time(context: TlsContext, said: bytes) -> None:
    async with tls_listener(context, name_protocol, QUICK, balancers=HERE) as listener:
        _reader, writer = await asyncio.open_connection(*listener.address)
        writer.write(said)
        await listener.settled(1)
        await listener.settled(0)
        assert listener.hooks.failed == [(HandshakeReason.PROXY_TIMEOUT, None)]
        writer.close()


@pytest.mark.parametrize("balancers", [(), ELSEWHERE])
async def test_nobody_else_may_say_who_they_are(
    context: TlsContext, balancers: tuple[str, ...]
) -> None:
    """From anybody who is not listed a header is garbage in front of TLS."""
    async with tls_listener(context, name_protocol, balancers=balancers) as listener:
        with pytest.raises((ssl.SSLError, OSError, EOFError)):
            await asyncio.to_thread(through, at_once(CLIENT_V4), listener)
        await listener.settled()
        ((reason, _certificate),) = listener.hooks.failed
        assert reason in (HandshakeReason.NOT_TLS, HandshakeReason.PROTOCOL)
        # And without one they are served as always, by their own address.
        answer = await asyncio.to_thread(through, at_once(b""), listener)
        assert answer.startswith(b"127.0.0.1 ")


async def test_bounds_go_by_the_clients_address_not_by_the_balancers(
    context: TlsContext,
) -> None:
    limits = TlsLimits(max_handshakes_per_address=2)
    other = CLIENT_V4.replace(bytes([192, 0, 2, 7]), bytes([192, 0, 2, 8]))
    async with tls_listener(context, name_protocol, limits, balancers=HERE) as listener:
        hanging = []
        for count in (1, 2):
            _reader, writer = await asyncio.open_connection(*listener.address)
            writer.write(CLIENT_V4)
            hanging.append(writer)
            async with asyncio.timeout(5):
                while listener.factory.handshakes < count:  # noqa: ASYNC110 - real sockets
                    await asyncio.sleep(0.005)
        with pytest.raises((OSError, EOFError)):
            await asyncio.to_thread(through, at_once(CLIENT_V4), listener)
        assert listener.hooks.failed == [(HandshakeReason.OVERLOADED, None)]
        assert await asyncio.to_thread(through, at_once(other), listener) == b"192.0.2.8 40000"
        for writer in hanging:
            writer.close()


async def test_a_full_listener_takes_no_more_from_a_balancer(context: TlsContext) -> None:
    limits = TlsLimits(max_connections=1, max_unnamed=0)
    async with tls_listener(context, name_protocol, limits, balancers=HERE) as listener:
        _reader, first = await asyncio.open_connection(*listener.address)
        await listener.settled(1)
        _reader, second = await asyncio.open_connection(*listener.address)
        async with asyncio.timeout(5):
            while not listener.hooks.failed:  # noqa: ASYNC110 - real sockets
                await asyncio.sleep(0.005)
        assert listener.hooks.failed == [(HandshakeReason.OVERLOADED, None)]
        first.close()
        second.close()


async def test_hanging_handshakes_through_a_balancer_make_room(context: TlsContext) -> None:
    """All of them come from the balancer's address: only the header tells whose they are."""
    limits = TlsLimits(max_connections=3)
    other = CLIENT_V4.replace(bytes([192, 0, 2, 7]), bytes([192, 0, 2, 8]))
    async with tls_listener(context, name_protocol, limits, balancers=HERE) as listener:
        with contextlib.ExitStack() as held:
            for _ in range(3):
                peer = held.enter_context(socket.create_connection(listener.address))
                peer.sendall(CLIENT_V4)
            async with asyncio.timeout(5):
                while listener.factory.handshakes < 3:  # noqa: ASYNC110 - real sockets
                    await asyncio.sleep(0.005)
            answer = await asyncio.to_thread(through, at_once(other), listener)
            assert answer == b"192.0.2.8 40000"
            assert listener.hooks.failed[0] == (HandshakeReason.OVERLOADED, None)
            assert listener.hooks.peers[0].startswith("192.0.2.7:")


async def test_connections_without_a_header_are_bounded_and_keep_no_client_out(
    context: TlsContext,
) -> None:
    limits = TlsLimits(max_connections=2, max_unnamed=2)
    async with tls_listener(context, name_protocol, limits, balancers=HERE) as listener:
        with contextlib.ExitStack() as held:
            for count in range(1, 4):
                held.enter_context(socket.create_connection(listener.address))
                await listener.settled(count)
            assert await asyncio.to_thread(through, at_once(CLIENT_V4), listener)
            held.enter_context(socket.create_connection(listener.address))
            await listener.settled(4)
            with socket.create_connection(listener.address) as late:
                late.settimeout(5)
                with contextlib.suppress(ConnectionResetError):
                    assert await asyncio.to_thread(late.recv, 1) == b""
            assert listener.hooks.failed == [(HandshakeReason.OVERLOADED, None)]
            assert listener.factory.connections == 4
        await listener.settled()
        assert not listener.hooks.failed[1:]
