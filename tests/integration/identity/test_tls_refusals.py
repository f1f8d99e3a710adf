"""Who does not get in, and that every client learns why: sockets, alerts, hooks."""

import asyncio
import contextlib
import socket
import ssl
import struct
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from OpenSSL import SSL

from facade.serving.identity.handshake import HandshakeReason
from facade.serving.identity.limits import TlsLimits
from facade.serving.identity.openssl import TlsContext
from tests.support.pki import SERVER_AUTH, Authority, Leaf, client_context
from tests.support.tls_listener import ScriptedProtocol, TlsListener, tls_context, tls_listener
from tests.support.tls_peer import TlsPeer

CA = Authority.root()
OTHER = Authority.root("Other CA")
REQUEST = b"GET /v2/ HTTP/1.1\r\nHost: localhost\r\n\r\n" * 20


@pytest.fixture
def context() -> TlsContext:
    return tls_context(CA.server(), CA)


REFUSED = [
    pytest.param(None, "CERTIFICATE_REQUIRED", HandshakeReason.NO_CERTIFICATE, id="none"),
    pytest.param(OTHER.device(), "UNKNOWN_CA", HandshakeReason.UNKNOWN_CA, id="wrong CA"),
    pytest.param(CA.expired_device(), "CERTIFICATE_EXPIRED", HandshakeReason.EXPIRED, id="expired"),
    pytest.param(
        CA.device(usages=(SERVER_AUTH,)),
        "UNSUPPORTED_CERTIFICATE",
        HandshakeReason.WRONG_USAGE,
        id="wrong usage",
    ),
]


def alert(address: tuple[str, int], leaf: Leaf | None) -> str:
    """The alert that a client gets which sends its request at once, like a real one."""
    with TlsPeer(address, client_context(CA, leaf)) as peer:
        peer.handshake(with_data=REQUEST)
        peer.send(REQUEST)
        with pytest.raises(ssl.SSLError) as caught:
            peer.receive()
        return caught.value.reason or ""


@pytest.mark.parametrize(("leaf", "words", "reason"), REFUSED)
async def test_the_alert_names_the_problem(
    context: TlsContext, leaf: Leaf | None, words: str, reason: HandshakeReason
) -> None:
    async with tls_listener(context, ScriptedProtocol) as listener:
        for _ in range(10):  # a reset that overtakes the alert does so now and then
            assert words in await asyncio.to_thread(alert, listener.address, leaf)
        await listener.settled()
        assert [failed for failed, _ in listener.hooks.failed] == [reason] * 10
        assert not listener.hooks.done
        assert listener.hooks.peers[0].startswith("127.0.0.1:")
        for _, certificate in listener.hooks.failed:
            assert (certificate and certificate.serial) == (leaf and leaf.serial)


async def test_pyopenssl_is_told_too(context: TlsContext) -> None:
    def attempt(address: tuple[str, int]) -> str:
        plain = socket.create_connection(address)
        connection = SSL.Connection(SSL.Context(SSL.TLS_CLIENT_METHOD), plain)
        try:
            connection.set_connect_state()
            connection.do_handshake()
            connection.send(REQUEST)
            with pytest.raises(SSL.Error) as caught:
                connection.recv(1)
            return str(caught.value)
        finally:
            plain.close()

    async with tls_listener(context, ScriptedProtocol) as listener:
        assert "certificate required" in await asyncio.to_thread(attempt, listener.address)


async def s_client(listener: TlsListener, *arguments: str, said: bytes = b"") -> str:
    process = await asyncio.create_subprocess_exec(
        *("openssl", "s_client", "-connect", f"127.0.0.1:{listener.port}", *arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await asyncio.wait_for(process.communicate(said), 20)
    return output.decode(errors="replace")


async def test_openssl_shows_the_alert_and_no_list_of_authorities(
    context: TlsContext, tmp_path: Path
) -> None:
    async with tls_listener(context, ScriptedProtocol) as listener:
        output = await s_client(listener, "-ign_eof", said=REQUEST)
    assert "alert certificate required" in output
    assert "No client certificate CA names sent" in output


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_1"])
async def test_older_versions_are_refused(context: TlsContext, version: str) -> None:
    async with tls_listener(context, ScriptedProtocol) as listener:
        output = await s_client(listener, version, "-cipher", "DEFAULT@SECLEVEL=0")
        assert "alert protocol version" in output
        assert listener.hooks.failed == [(HandshakeReason.PROTOCOL, None)]


async def test_a_session_cannot_be_resumed(context: TlsContext) -> None:
    client = client_context(CA, CA.device())

    def connect(address: tuple[str, int], session: ssl.SSLSession | None) -> ssl.SSLSession | None:
        with (
            socket.create_connection(address) as plain,
            client.wrap_socket(plain, server_hostname="localhost", session=session) as tls,
        ):
            tls.sendall(b"x")
            assert tls.recv(1) == b"x"
            assert not tls.session_reused
            return tls.session

    def echo(protocol: ScriptedProtocol, data: bytes) -> None:
        protocol.wire.write(data)

    async with tls_listener(context, lambda: ScriptedProtocol(echo)) as listener:
        session = await asyncio.to_thread(connect, listener.address, None)
        assert session is not None
        assert session.has_ticket  # of a session that nobody has
        for _ in range(3):
            await asyncio.to_thread(connect, listener.address, session)
        assert len(listener.hooks.done) == 4


async def test_a_slow_loris_handshake_is_ended_by_its_limit(context: TlsContext) -> None:
    def drip(address: tuple[str, int]) -> float:
        begun = time.monotonic()
        with TlsPeer(address, client_context(CA)) as peer:
            with pytest.raises(ssl.SSLWantReadError):
                peer.tls.do_handshake()
            for byte in peer.outgoing.read():
                try:
                    peer.send_raw(bytes([byte]))
                except OSError:
                    break
                time.sleep(0.02)
        return time.monotonic() - begun

    limits = TlsLimits(handshake_seconds=0.3, linger_seconds=0.2)
    async with tls_listener(context, ScriptedProtocol, limits) as listener:
        lasted = await asyncio.to_thread(drip, listener.address)
        await listener.settled()
        assert lasted < 2
        assert listener.hooks.failed == [(HandshakeReason.TIMEOUT, None)]


async def test_a_client_that_says_nothing_costs_no_application(context: TlsContext) -> None:
    made: list[ScriptedProtocol] = []

    def application() -> ScriptedProtocol:
        made.append(ScriptedProtocol())
        return made[-1]

    limits = TlsLimits(handshake_seconds=0.2, linger_seconds=0.2)
    async with tls_listener(context, application, limits) as listener:
        with socket.create_connection(listener.address):
            await listener.settled(1)
            await listener.settled(0)
        assert listener.hooks.failed == [(HandshakeReason.TIMEOUT, None)]
        assert not made


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
async def test_a_client_that_leaves_in_the_handshake(context: TlsContext, reset: bool) -> None:
    async with tls_listener(context, ScriptedProtocol) as listener:
        plain = socket.create_connection(listener.address)
        plain.sendall(b"\x16\x03\x01\x02\x00")
        await listener.settled(1)
        if reset:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        plain.close()
        await listener.settled()
        assert listener.hooks.failed == [(HandshakeReason.CLIENT_CLOSED, None)]


async def test_a_client_that_does_not_trust_us(context: TlsContext) -> None:
    def attempt(address: tuple[str, int]) -> None:
        with TlsPeer(address, client_context(OTHER, CA.device())) as peer:
            with pytest.raises(ssl.SSLCertVerificationError):
                peer.handshake()
            peer.flush()

    async with tls_listener(context, ScriptedProtocol) as listener:
        await asyncio.to_thread(attempt, listener.address)
        await listener.settled()
        assert listener.hooks.failed == [(HandshakeReason.CLIENT_REFUSED, None)]


async def test_plain_http_is_answered_in_plain_words(context: TlsContext) -> None:
    async with tls_listener(context, ScriptedProtocol) as listener:
        reader, writer = await asyncio.open_connection(*listener.address)
        writer.write(REQUEST)
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert b"HTTPS" in answer
        assert listener.hooks.failed == [(HandshakeReason.NOT_TLS, None)]


async def test_a_refused_client_that_goes_on_sending_is_cut(context: TlsContext) -> None:
    def pour(address: tuple[str, int]) -> None:
        with socket.create_connection(address) as plain:
            for _ in range(1000):
                plain.sendall(REQUEST * 1000)

    async with tls_listener(context, ScriptedProtocol, TlsLimits(linger_seconds=60)) as listener:
        with pytest.raises(ConnectionError):
            await asyncio.to_thread(pour, listener.address)
        await listener.settled()


async def test_a_refused_client_that_stays_is_cut(context: TlsContext) -> None:
    async with tls_listener(context, ScriptedProtocol, TlsLimits(linger_seconds=0.2)) as listener:
        with socket.create_connection(listener.address) as plain:
            plain.sendall(REQUEST)
            await listener.settled(1)
            await listener.settled(0)


async def test_connections_beyond_the_limit_are_closed_at_once(context: TlsContext) -> None:
    limits = TlsLimits(max_connections=2)
    async with tls_listener(context, ScriptedProtocol, limits) as listener:
        with (
            socket.create_connection(listener.address),
            socket.create_connection(listener.address),
        ):
            await listener.settled(2)
            reader, writer = await asyncio.open_connection(*listener.address)
            assert await reader.read() == b""
            writer.close()
            await writer.wait_closed()
            assert listener.hooks.failed == [(HandshakeReason.OVERLOADED, None)]
            assert listener.factory.connections == 2


async def test_hanging_handshakes_of_one_address_are_bounded(context: TlsContext) -> None:
    """127.0.0.2 hangs; 127.0.0.1 gets in all the same."""
    limits = TlsLimits(max_handshakes_per_address=3)
    async with tls_listener(context, ScriptedProtocol, limits) as listener:
        with ExitStack() as held:
            hanging = [
                held.enter_context(
                    socket.create_connection(listener.address, source_address=("127.0.0.2", 0))
                )
                for _ in range(3)
            ]
            await listener.settled(3)
            with socket.create_connection(
                listener.address, source_address=("127.0.0.2", 0)
            ) as late:
                late.settimeout(5)
                with contextlib.suppress(ConnectionResetError):
                    assert await asyncio.to_thread(late.recv, 1) == b""
            assert listener.hooks.failed == [(HandshakeReason.OVERLOADED, None)]
            await asyncio.to_thread(enter, listener.address)
            assert len(hanging) == listener.factory.handshakes == 3


async def test_a_full_listener_ends_a_hanging_handshake_for_a_newcomer(
    context: TlsContext,
) -> None:
    limits = TlsLimits(max_connections=4)
    async with tls_listener(context, ScriptedProtocol, limits) as listener:
        with ExitStack() as held:
            for _ in range(4):
                held.enter_context(
                    socket.create_connection(listener.address, source_address=("127.0.0.2", 0))
                )
            await listener.settled(4)
            await asyncio.to_thread(enter, listener.address)
            assert listener.hooks.failed[0] == (HandshakeReason.OVERLOADED, None)
            assert listener.hooks.peers[0].startswith("127.0.0.2:")
            assert len(listener.hooks.done) == 1


def enter(address: tuple[str, int]) -> None:
    """Complete a handshake with the device's certificate."""
    with TlsPeer(address, client_context(CA, CA.device())) as peer:
        peer.handshake(with_data=b"x")


async def test_a_context_that_cannot_be_had_costs_that_connection_alone(
    context: TlsContext,
) -> None:
    broken = True

    def source() -> TlsContext:
        if broken:
            raise RuntimeError("no context")
        return context

    complaints: list[str] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, what: complaints.append(str(what.get("exception"))))
    async with tls_listener(source, ScriptedProtocol) as listener:
        reader, writer = await asyncio.open_connection(*listener.address)
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
        await listener.settled()
        assert complaints == ["no context"]
        broken = False
        assert "CERTIFICATE_REQUIRED" in await asyncio.to_thread(alert, listener.address, None)
