"""Established connections: bytes, flow control, and the ways in which they end."""

import asyncio
import hashlib
import os
import socket
import ssl
import struct
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from facade.serving.identity.limits import TlsLimits
from facade.serving.identity.openssl import TlsContext, TlsError, TlsSession
from facade.serving.identity.stream import TlsTransport
from tests.support.pki import Authority, client_context
from tests.support.tls_listener import ScriptedProtocol, TlsListener, tls_context, tls_listener
from tests.support.tls_peer import TlsPeer

CA = Authority.root()
DEVICE = CA.device()
CLIENT = client_context(CA, DEVICE)
MIB = 1024 * 1024


@pytest.fixture
def context() -> TlsContext:
    return tls_context(CA.server(), CA)


def connect(listener: TlsListener, *, receive_bytes: int | None = None) -> TlsPeer:
    peer = TlsPeer(listener.address, CLIENT, receive_bytes=receive_bytes)
    peer.handshake()
    return peer


def in_thread(listener: TlsListener, talk: Callable[[TlsPeer], bytes]) -> "asyncio.Future[bytes]":
    """Have a client connect and `talk`, in a thread."""

    def run() -> bytes:
        with connect(listener) as peer:
            return talk(peer)

    return asyncio.get_running_loop().run_in_executor(None, run)


class Apps:
    """Makes protocols and keeps them."""

    def __init__(
        self,
        on_data: Callable[[ScriptedProtocol, bytes], None] | None = None,
        *,
        keep_open: bool = False,
    ) -> None:
        self._on_data = on_data
        self._keep_open = keep_open
        self.made: list[ScriptedProtocol] = []

    def __call__(self) -> ScriptedProtocol:
        self.made.append(ScriptedProtocol(self._on_data, keep_open=self._keep_open))
        return self.made[-1]

    async def first(self) -> ScriptedProtocol:
        async with asyncio.timeout(5):
            while not self.made:  # noqa: ASYNC110 - real sockets
                await asyncio.sleep(0.005)
        return self.made[0]


def echo(protocol: ScriptedProtocol, data: bytes) -> None:
    protocol.wire.write(data)


async def test_bytes_go_both_ways(context: TlsContext) -> None:
    apps = Apps(echo)
    async with tls_listener(context, apps) as listener:

        def talk(peer: TlsPeer) -> bytes:
            peer.send(b"one")
            first = peer.receive()
            peer.send(b"x" * 100_000)
            return first + peer.receive_exactly(100_000)

        assert await in_thread(listener, talk) == b"one" + b"x" * 100_000
        assert listener.hooks.done[0][1] == DEVICE.der


async def test_what_comes_with_the_handshakes_last_flight_is_delivered(
    context: TlsContext,
) -> None:
    async with tls_listener(context, Apps(echo)) as listener:

        def talk() -> bytes:
            with TlsPeer(listener.address, CLIENT) as peer:
                peer.handshake(with_data=b"early")
                return peer.receive()

        assert await asyncio.to_thread(talk) == b"early"


@pytest.mark.parametrize("cut", [0, 100], ids=["flight at once", "in pieces, as Java does"])
async def test_a_client_with_nagles_algorithm_does_not_wait_for_a_delayed_acknowledgement(
    context: TlsContext, cut: int
) -> None:
    async with tls_listener(context, Apps(echo)) as listener:

        def talk() -> float:
            with TlsPeer(listener.address, CLIENT) as peer:
                begun = time.monotonic()
                peer.handshake(cut=cut)
                peer.send(b"x")  # held back until the handshake's last flight is acknowledged
                assert peer.receive() == b"x"
                return time.monotonic() - begun

        assert min([await asyncio.to_thread(talk) for _ in range(10)]) < 0.03


async def test_a_record_cut_into_single_bytes(context: TlsContext) -> None:
    async with tls_listener(context, Apps(echo)) as listener:

        def talk(peer: TlsPeer) -> bytes:
            peer.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            peer.tls.write(b"hello")
            for byte in peer.outgoing.read():
                peer.send_raw(bytes([byte]))
                time.sleep(0.002)
            return peer.receive()

        assert await in_thread(listener, talk) == b"hello"


async def test_the_transport_tells_what_an_application_asks(context: TlsContext) -> None:
    apps = Apps()
    async with tls_listener(context, apps) as listener:
        peer = await asyncio.to_thread(connect, listener)
        with peer:
            app = await apps.first()
            wire = app.wire
            assert wire.get_extra_info("peercert_der") == DEVICE.der
            assert wire.get_extra_info("peername") == peer.socket.getsockname()
            assert wire.get_extra_info("sockname")[1] == listener.port
            assert wire.get_extra_info("sslcontext") is context
            assert wire.get_extra_info("ssl_object").version() == "TLSv1.3"
            assert wire.get_extra_info("cipher")[1] == "TLSv1.3"
            assert wire.get_extra_info("no such thing", 7) == 7
            assert wire.get_protocol() is app
            assert wire.is_reading()
            assert not wire.is_closing()
            assert not wire.can_write_eof()
            with pytest.raises(NotImplementedError):
                wire.write_eof()
            wire.set_write_buffer_limits(high=1000, low=10)
            assert wire.get_write_buffer_limits() == (10, 1000)
            assert wire.get_write_buffer_size() == 0
            other = ScriptedProtocol(echo)
            wire.set_protocol(other)
            other.transport = wire
            await asyncio.to_thread(peer.send, b"hi")
            assert await asyncio.to_thread(peer.receive) == b"hi"
            wire.close()
            assert wire.is_closing()
            assert not wire.is_reading()
            wire.write(b"too late")
            assert await asyncio.to_thread(peer.receive) == b""
        assert await other.lost is None


Write = Callable[[asyncio.Transport, bytes], None]
WRITES: dict[str, Write] = {
    "one write": lambda wire, data: wire.write(data),
    "memoryview": lambda wire, data: wire.write(memoryview(data)),
    "bytearray": lambda wire, data: wire.write(bytearray(data)),
    "wide items": lambda wire, data: wire.write(memoryview(data).cast("I")),
    "big pieces": lambda wire, data: wire.writelines([data[:5], data[5:1_000_001], data[1_000_001:]]),
    "small pieces": lambda wire, data: wire.writelines(
        data[start : start + 1000] for start in range(0, len(data), 1000)
    ),
    "nothing between": lambda wire, data: wire.writelines([b"", data, b""]),
}  # fmt: skip


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES.keys())
async def test_every_way_of_writing_sends_the_same(context: TlsContext, write: Write) -> None:
    data = bytes(range(256)) * (3 * MIB // 256)

    def answer(protocol: ScriptedProtocol, _: bytes) -> None:
        write(protocol.wire, data)
        protocol.wire.close()

    def talk(peer: TlsPeer) -> bytes:
        peer.send(b"?")
        return peer.receive_all()

    async with tls_listener(context, Apps(answer)) as listener:
        assert await in_thread(listener, talk) == data


async def test_a_body_of_256_mib_arrives_whole(context: TlsContext) -> None:
    block = hashlib.sha512(b"block").digest() * (MIB // 64)
    tasks: list[asyncio.Task[None]] = []

    async def send(protocol: ScriptedProtocol) -> None:
        for number in range(256):
            protocol.wire.write(number.to_bytes(8, "big"))
            protocol.wire.write(memoryview(block)[8:])
            await protocol.writable.wait()
        protocol.wire.close()

    def start(protocol: ScriptedProtocol, _: bytes) -> None:
        tasks.append(asyncio.create_task(send(protocol)))

    def talk(address: tuple[str, int]) -> str:
        with (
            socket.create_connection(address) as plain,
            CLIENT.wrap_socket(plain, server_hostname="localhost") as tls,
        ):
            tls.sendall(b"?")
            digest, buffer = hashlib.sha256(), bytearray(MIB)
            while count := tls.recv_into(buffer):
                digest.update(memoryview(buffer)[:count])
            return digest.hexdigest()

    expected = hashlib.sha256()
    for number in range(256):
        expected.update(number.to_bytes(8, "big"))
        expected.update(memoryview(block)[8:])
    async with tls_listener(context, Apps(start)) as listener:
        assert await asyncio.to_thread(talk, listener.address) == expected.hexdigest()


async def test_a_slow_reader_pauses_the_application_and_bounds_the_memory(
    context: TlsContext,
) -> None:
    apps = Apps()
    async with tls_listener(context, apps) as listener:
        peer = await asyncio.to_thread(connect, listener, receive_bytes=64 * 1024)
        with peer:
            app = await apps.first()
            most, written = 0, 0

            async def send() -> None:
                nonlocal most, written
                for _ in range(128):
                    app.wire.write(bytes(256 * 1024))
                    written += 256 * 1024
                    most = max(most, app.wire.get_write_buffer_size())
                    await app.writable.wait()
                app.wire.close()

            task = asyncio.create_task(send())
            await asyncio.sleep(0.3)
            assert app.paused
            assert written < 16 * MIB  # what the kernel's buffers hold
            data = await asyncio.to_thread(peer.receive_all)
            await task
            assert data == bytes(32 * MIB)
            assert most < 512 * 1024


async def test_an_application_that_does_not_read_stops_the_client(context: TlsContext) -> None:
    apps = Apps()
    async with tls_listener(context, apps) as listener:
        peer = await asyncio.to_thread(connect, listener)
        with peer:
            app = await apps.first()
            app.wire.pause_reading()
            assert not app.wire.is_reading()
            peer.socket.settimeout(0.3)

            def pour() -> int:
                sent = 0
                try:
                    for _ in range(64 * 16):
                        peer.tls.write(bytes(64 * 1024))
                        data = peer.outgoing.read()
                        peer.socket.sendall(data)
                        sent += 64 * 1024
                except TimeoutError:
                    return sent
                return sent

            sent = await asyncio.to_thread(pour)
            assert sent < 32 * MIB
            assert not app.received
            app.wire.resume_reading()
            async with asyncio.timeout(5):
                while len(app.received) < sent:  # noqa: ASYNC110 - real sockets
                    await asyncio.sleep(0.01)
            assert not app.received.strip(b"\0")


async def test_pausing_within_data_received_keeps_the_order(context: TlsContext) -> None:
    pieces: list[bytes] = []

    def one_at_a_time(protocol: ScriptedProtocol, data: bytes) -> None:
        pieces.append(data)
        protocol.wire.pause_reading()
        asyncio.get_running_loop().call_later(0.001, protocol.wire.resume_reading)
        if sum(map(len, pieces)) == 50 * 6:
            protocol.wire.write(b"done")

    def talk(peer: TlsPeer) -> bytes:
        for number in range(50):
            peer.tls.write(b"%06d" % number)
        peer.flush()  # fifty records in one segment
        return peer.receive()

    async with tls_listener(context, Apps(one_at_a_time)) as listener:
        assert await in_thread(listener, talk) == b"done"
        assert pieces == [b"%06d" % number for number in range(50)]


async def test_a_client_that_makes_us_write_and_does_not_read_is_not_read_from(
    context: TlsContext,
) -> None:
    apps = Apps(echo)  # an echo that knows no flow control
    async with tls_listener(context, apps) as listener:
        peer = await asyncio.to_thread(connect, listener, receive_bytes=64 * 1024)
        with peer:
            app = await apps.first()
            peer.socket.settimeout(0.3)

            def pour() -> bool:
                try:
                    for _ in range(1024):
                        peer.send(bytes(64 * 1024))
                except TimeoutError:
                    return True
                return False

            assert await asyncio.to_thread(pour)
            assert app.wire.get_write_buffer_size() < MIB
            peer.socket.settimeout(5)
            before = len(app.received)
            await asyncio.to_thread(peer.receive_exactly, before)
            async with asyncio.timeout(5):  # it is read from again
                while len(app.received) == before:  # noqa: ASYNC110 - real sockets
                    await asyncio.sleep(0.01)


async def test_key_updates_are_answered(context: TlsContext, tmp_path: Path) -> None:
    files = DEVICE.write(tmp_path)
    async with tls_listener(context, Apps(echo)) as listener:
        process = await asyncio.create_subprocess_exec(
            *("openssl", "s_client", "-connect", f"127.0.0.1:{listener.port}"),
            *("-cert", str(files.certificate), "-key", str(files.key)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        stdin, stdout = process.stdin, process.stdout
        assert stdin is not None
        assert stdout is not None
        seen = b""

        async def until(words: bytes) -> None:
            nonlocal seen
            while words not in seen:
                seen += await stdout.read(4096)

        async with asyncio.timeout(10):
            await until(b"Verify return code")
            # One line at a time: s_client looks for K (update, and ask for one back) and k only
            # at the start of what it reads.
            for number in range(4):
                stdin.write(b"k\n" if number == 2 else b"K\n")
                await until(b"KEYUPDATE\n")
                seen = b""
                stdin.write(b"line %d\n" % number)
                await until(b"line %d\n" % number)
        stdin.write(b"Q\n")
        output, _ = await process.communicate()
        assert b"alert" not in output.lower()
        assert not listener.hooks.failed


async def test_close_says_close_notify(context: TlsContext) -> None:
    def bye(protocol: ScriptedProtocol, _: bytes) -> None:
        protocol.wire.write(b"bye")
        protocol.wire.close()

    apps = Apps(bye)

    def talk(peer: TlsPeer) -> bytes:
        peer.send(b"?")
        return peer.receive_all()  # EOFError without close_notify

    async with tls_listener(context, apps) as listener:
        assert await in_thread(listener, talk) == b"bye"
        assert await apps.made[0].lost is None


@pytest.mark.parametrize("more", [20_000, 200_000])
async def test_what_was_sent_unasked_does_not_cost_the_end_of_the_answer(
    context: TlsContext, more: int
) -> None:
    """Closing over unread bytes would reset the connection, and the client lose what it has not read."""

    def last_answer(protocol: ScriptedProtocol, _: bytes) -> None:
        protocol.wire.pause_reading()
        protocol.wire.write(bytes(4 * MIB))
        asyncio.get_running_loop().call_later(0.2, protocol.wire.close)

    def talk(address: tuple[str, int]) -> int:
        with TlsPeer(address, CLIENT, receive_bytes=64 * 1024) as peer:
            peer.handshake()
            peer.send(b"the first")
            time.sleep(0.1)
            peer.send(bytes(more))
            time.sleep(0.5)  # longer than it takes to close
            return len(peer.receive_all())

    apps = Apps(last_answer)
    async with tls_listener(context, apps) as listener:
        assert await asyncio.to_thread(talk, listener.address) == 4 * MIB
        await listener.settled()
    assert apps.made[0].received == b"the first"


async def test_a_client_that_goes_on_sending_is_not_listened_to_for_long(
    context: TlsContext,
) -> None:
    def last_answer(protocol: ScriptedProtocol, _: bytes) -> None:
        protocol.wire.pause_reading()
        protocol.wire.write(b"bye")
        protocol.wire.close()

    async with tls_listener(context, Apps(last_answer), TlsLimits(linger_seconds=0.2)) as listener:

        def pour() -> int:
            with connect(listener) as peer:
                assert peer.socket.gettimeout()
                sent = 0
                try:
                    while True:
                        peer.send(bytes(10_000))
                        sent += 10_000
                except OSError:
                    return sent

        def stay(peer: TlsPeer) -> bytes:
            peer.send(b"hello")
            return peer.receive() + peer.receive() + peer.socket.recv(1)

        poured = asyncio.get_running_loop().run_in_executor(None, pour)
        assert await asyncio.wait_for(poured, 5) < 16 * MIB
        # Nor is one that says nothing more, and does not close.
        peer = await asyncio.to_thread(connect, listener)
        with peer:
            assert await asyncio.to_thread(stay, peer) == b"bye"
            begun = time.monotonic()
            await listener.settled()
            assert time.monotonic() - begun < 2


@pytest.mark.parametrize("forged", [False, True], ids=["closed", "broken off"])
async def test_a_client_that_left_while_it_was_not_read_from_is_done_with(
    context: TlsContext, forged: bool
) -> None:
    """Its going was not seen; its kernel answers the last word with a reset, before the half-close."""

    def want_no_more(protocol: ScriptedProtocol, _: bytes) -> None:
        protocol.wire.pause_reading()

    apps = Apps(want_no_more)
    async with tls_listener(context, apps, TlsLimits(linger_seconds=0.2)) as listener:
        with await asyncio.to_thread(connect, listener) as peer:
            app = await apps.first()
            peer.tls.write(b"hello")
            peer.send_raw(peer.outgoing.read() + b"\x17\x03\x03\x00\x20" + bytes(32))
            async with asyncio.timeout(5):
                while not app.received:  # noqa: ASYNC110 - real sockets
                    await asyncio.sleep(0.005)
        if forged:
            app.wire.resume_reading()
        else:
            app.wire.close()
        async with asyncio.timeout(5):
            assert isinstance(await app.lost, TlsError) is forged
        await listener.settled()


async def test_abort_does_not(context: TlsContext) -> None:
    apps = Apps(lambda protocol, _: protocol.wire.abort())

    def talk(peer: TlsPeer) -> bytes:
        peer.send(b"?")
        with pytest.raises((EOFError, ConnectionResetError)):
            peer.receive()
        return b""

    async with tls_listener(context, apps) as listener:
        await in_thread(listener, talk)
        await listener.settled()
        assert apps.made[0].lost.done()


async def test_a_client_that_half_closes_gets_the_rest(context: TlsContext) -> None:
    apps = Apps(keep_open=True)
    async with tls_listener(context, apps) as listener:
        peer = await asyncio.to_thread(connect, listener)
        with peer:
            app = await apps.first()
            await asyncio.to_thread(peer.send, b"question")
            await asyncio.to_thread(peer.say_goodbye)
            peer.socket.shutdown(socket.SHUT_WR)
            async with asyncio.timeout(5):
                while not app.eof:  # noqa: ASYNC110 - real sockets
                    await asyncio.sleep(0.005)
            await asyncio.sleep(0.05)
            assert app.received == b"question"
            assert not app.lost.done()
            app.wire.write(b"a" * MIB)
            app.wire.close()
            assert await asyncio.to_thread(peer.receive_all) == b"a" * MIB


@pytest.mark.parametrize("polite", [True, False], ids=["close_notify", "FIN alone"])
async def test_a_client_that_leaves_ends_the_connection(context: TlsContext, polite: bool) -> None:
    apps = Apps()
    async with tls_listener(context, apps) as listener:
        with await asyncio.to_thread(connect, listener) as peer:
            app = await apps.first()
            if polite:
                peer.say_goodbye()
            else:
                peer.socket.shutdown(socket.SHUT_WR)
            async with asyncio.timeout(5):
                assert await app.lost is None
            assert app.eof
            assert await asyncio.to_thread(peer.receive) == b""


async def test_a_reset_reaches_the_application(context: TlsContext) -> None:
    apps = Apps()
    async with tls_listener(context, apps) as listener:
        peer = await asyncio.to_thread(connect, listener)
        app = await apps.first()
        peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.socket.close()
        async with asyncio.timeout(5):
            assert isinstance(await app.lost, ConnectionResetError)
        assert listener.factory.connections == 0


async def test_a_forged_record_is_answered_with_its_alert(context: TlsContext) -> None:
    apps = Apps(echo)

    def talk(peer: TlsPeer) -> bytes:
        peer.send(b"x")
        assert peer.receive() == b"x"
        peer.send_raw(b"\x17\x03\x03\x00\x20" + bytes(32))
        with pytest.raises(ssl.SSLError, match="BAD_RECORD_MAC"):
            peer.receive()
        return b""

    async with tls_listener(context, apps) as listener:
        await in_thread(listener, talk)
        assert isinstance(await apps.made[0].lost, TlsError)
        assert apps.made[0].received == b"x"


@pytest.mark.parametrize(
    ("limits", "said"),
    [(TlsLimits(idle_seconds=0.2), b""), (TlsLimits(silence_seconds=0.2), b"?")],
    ids=["never asked", "silent for hours"],
)
async def test_a_silent_connection_is_closed_politely(
    context: TlsContext, limits: TlsLimits, said: bytes
) -> None:
    def talk(peer: TlsPeer) -> bytes:
        if said:
            peer.send(said)
        return peer.receive_all()

    def begun(protocol: ScriptedProtocol, _: bytes) -> None:
        assert isinstance(protocol.wire, TlsTransport)
        protocol.wire.request_read()

    async with tls_listener(context, Apps(begun), limits) as listener:
        assert await in_thread(listener, talk) == b""


async def test_a_pause_in_the_middle_of_an_answer_is_not_idleness(context: TlsContext) -> None:
    def halting(protocol: ScriptedProtocol, _: bytes) -> None:
        protocol.wire.write(b"first ")
        loop = asyncio.get_running_loop()
        loop.call_later(0.6, protocol.wire.write, b"and last")
        loop.call_later(0.7, protocol.wire.close)

    def talk(peer: TlsPeer) -> bytes:
        peer.send(b"?")
        return peer.receive_all()

    async with tls_listener(context, Apps(halting), TlsLimits(idle_seconds=0.2)) as listener:
        assert await in_thread(listener, talk) == b"first and last"


async def test_each_look_at_a_connection_slims_it_and_costs_no_byte(context: TlsContext) -> None:
    """In the middle of answers, and of what the client says."""
    kept = []

    class Remembering(TlsContext):
        def session(self) -> TlsSession:
            kept.append(super().session())
            return kept[-1]

    context.__class__ = Remembering
    body = os.urandom(4 * MIB)
    limits = TlsLimits(stall_seconds=0.01, min_bytes_per_second=0)  # looks often, cuts nobody

    def talk(peer: TlsPeer) -> bytes:
        peer.send(b"?")
        incoming, outgoing = kept[0]._incoming, kept[0]._outgoing
        for _ in range(8):
            assert peer.receive_exactly(len(body)) == body
            peer.tls.write(b"?")
            record = peer.outgoing.read()
            peer.send_raw(record[:9])
            time.sleep(0.03)
            peer.send_raw(record[9:])
        assert kept[0]._incoming is not incoming  # which may be at the former's address
        assert kept[0]._outgoing is not outgoing
        return peer.receive_exactly(len(body))

    async with tls_listener(context, Apps(lambda app, _: app.wire.write(body)), limits) as listener:
        assert await in_thread(listener, talk) == body


async def test_a_client_that_takes_nothing_is_cut(context: TlsContext) -> None:
    apps = Apps()
    async with tls_listener(context, apps, TlsLimits(stall_seconds=0.2)) as listener:
        peer = await asyncio.to_thread(connect, listener, receive_bytes=64 * 1024)
        with peer:
            app = await apps.first()
            app.wire.write(bytes(32 * MIB))
            async with asyncio.timeout(5):
                await app.lost
            # What the kernel held for it is gone too.
            with pytest.raises(ConnectionResetError):
                await asyncio.to_thread(peer.receive_all)
            await listener.settled()


async def test_through_a_lease_that_has_ended_nothing_is_done_to_the_connection(
    context: TlsContext,
) -> None:
    def answer(protocol: ScriptedProtocol, data: bytes) -> None:
        owner = protocol.wire
        assert isinstance(owner, TlsTransport)
        lease = owner.lease()
        lease.write(b"through the lease, ")
        assert lease.get_extra_info("peercert_der") == DEVICE.der
        assert not lease.is_closing()
        lease.end()
        assert lease.is_closing()
        lease.pause_reading()
        lease.write(b"not this")
        lease.writelines([b"nor", b"that"])
        lease.close()
        lease.abort()
        assert owner.is_reading()
        owner.pause_reading()
        lease.resume_reading()
        assert not owner.is_reading()
        owner.resume_reading()
        owner.write(b"then without it; " + data)

    async with tls_listener(context, Apps(answer)) as listener:

        def talk(peer: TlsPeer) -> bytes:
            peer.send(b"once")
            first = peer.receive_exactly(40)
            peer.send(b"again")
            return first + peer.receive_exactly(41)

        words = b"through the lease, then without it; "
        assert await in_thread(listener, talk) == words + b"once" + words + b"again"
