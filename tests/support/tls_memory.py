"""A device's TLS client against the device port's session, in memory, without a socket."""

import contextlib
import ssl
from dataclasses import dataclass

from facade.serving.identity.openssl import TlsContext, TlsSession


@dataclass
class InMemory:
    """Both sides, and the client's wires."""

    server: TlsSession
    client: ssl.SSLObject
    to_client: ssl.MemoryBIO
    to_server: ssl.MemoryBIO

    def handshake(self) -> None:
        """As far as both come. Raises TlsError, or ssl.SSLError of the client."""
        over = False
        for _ in range(4):
            with contextlib.suppress(ssl.SSLWantReadError):
                self.client.do_handshake()
            self.pass_on()
            if not over:
                try:
                    over = self.server.handshake()
                finally:
                    self.answer()
        assert over

    def pass_on(self) -> None:
        """What the client has to say goes to the server."""
        said = self.to_server.read()
        self.server.receive(memoryview(said), len(said))

    def answer(self) -> None:
        """What the server has to say goes to the client."""
        said = self.server.outgoing()
        if said is not None:
            self.to_client.write(said)

    def ask(self, data: bytes) -> None:
        """The client says this."""
        self.client.write(data)
        self.pass_on()

    def heard(self) -> bytes:
        """All that the client can read."""
        self.answer()
        heard = bytearray()
        while True:
            try:
                piece = self.client.read(1 << 20)
            except ssl.SSLWantReadError:
                return bytes(heard)
            if not piece:
                return bytes(heard)
            heard += piece


def in_memory(
    context: TlsContext, client: ssl.SSLContext, resumed: ssl.SSLSession | None = None
) -> InMemory:
    """Both sides, before the handshake; the client tries to go on with `resumed`."""
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    side = client.wrap_bio(to_client, to_server, server_hostname="localhost", session=resumed)
    return InMemory(context.session(), side, to_client, to_server)
