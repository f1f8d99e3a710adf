"""A TLS 1.3 client whose every message a test may choose (RFC 8446), against a session in memory.

Guarantees: what is said is what the test says, in its order, under the right keys; only the key schedule and the
proofs are done right. One suite (AES-128-GCM, SHA-256), one group (X25519), keys on P-256.
"""

import hmac
import os
from hashlib import sha256

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256

from facade.serving.identity.openssl import TlsSession

CLIENT_HELLO, SERVER_HELLO, NEW_SESSION_TICKET, CERTIFICATE = 1, 2, 4, 11
CERTIFICATE_VERIFY, FINISHED, COMPRESSED_CERTIFICATE = 15, 20, 25
ALERT, HANDSHAKE, APPLICATION_DATA = 21, 22, 23
EARLY_DATA, POST_HANDSHAKE_AUTH, PRE_SHARED_KEY = 42, 49, 41
_NO_SECRET = bytes(32)


def sized(octets: int, *parts: bytes) -> bytes:
    """A vector with its length before it (RFC 8446, 3.4)."""
    joined = b"".join(parts)
    return len(joined).to_bytes(octets, "big") + joined


def extension(kind: int, data: bytes = b"") -> bytes:
    """Of a ClientHello."""
    return kind.to_bytes(2, "big") + sized(2, data)


def message(kind: int, body: bytes) -> bytes:
    """Of the handshake."""
    return bytes([kind]) + sized(3, body)


def certificates(*ders: bytes) -> bytes:
    """A Certificate message."""
    return message(CERTIFICATE, sized(1) + sized(3, *(sized(3, der) + sized(2) for der in ders)))


def _expanded(secret: bytes, label: str, context: bytes = b"", length: int = 32) -> bytes:
    """HKDF-Expand-Label (RFC 8446, 7.1), for what one block of the hash has."""
    info = length.to_bytes(2, "big") + sized(1, f"tls13 {label}".encode()) + sized(1, context)
    return hmac.digest(secret, info + b"\x01", sha256)[:length]


class _Keys:
    """One direction's protection of records."""

    def __init__(self, secret: bytes) -> None:
        self._cipher = AESGCM(_expanded(secret, "key", length=16))
        self._iv = int.from_bytes(_expanded(secret, "iv", length=12), "big")
        self._count = 0

    def _nonce(self) -> bytes:
        self._count += 1
        return (self._iv ^ (self._count - 1)).to_bytes(12, "big")

    def seal(self, kind: int, data: bytes) -> bytes:
        header = b"\x17\x03\x03" + (len(data) + 17).to_bytes(2, "big")
        return header + self._cipher.encrypt(self._nonce(), data + bytes([kind]), header)

    def open(self, header: bytes, data: bytes) -> tuple[int, bytes]:
        plain = self._cipher.decrypt(self._nonce(), data, header).rstrip(b"\0")
        return plain[-1], plain[:-1]


class TlsByHand:
    """Such a client, before its ClientHello.

    Attributes:
        let_in: whether the server's handshake is over.
        alerts: the descriptions of the server's (RFC 8446, 6.2).
        resumed: whether the server took the pre-shared key.
        tickets: the NewSessionTicket messages that came.
    """

    def __init__(self, server: TlsSession) -> None:
        self.let_in = self.resumed = False
        self.alerts: list[int] = []
        self.tickets: list[bytes] = []
        self._server = server
        self._private = X25519PrivateKey.generate()
        self._psk = b""
        self._said = b""  # by both: the transcript
        self._ours: _Keys | None = None
        self._theirs: _Keys | None = None

    def hello(self, extensions: bytes = b"", psk: tuple[bytes, bytes] | None = None) -> None:
        """Say ClientHello, and offer `psk`: an identity and its key."""
        share = b"\x00\x1d" + sized(2, self._private.public_key().public_bytes_raw())
        extensions += (
            extension(43, sized(1, b"\x03\x04"))  # supported_versions
            + extension(10, sized(2, b"\x00\x1d"))  # supported_groups
            + extension(13, sized(2, b"\x04\x03"))  # signature_algorithms
            + extension(51, sized(2, share))
            + extension(45, sized(1, b"\x01"))  # psk_key_exchange_modes
        )
        if psk is not None:
            identity = sized(2, sized(2, psk[0]) + bytes(4))
            extensions += extension(PRE_SHARED_KEY, identity + sized(2, sized(1, bytes(32))))
        head = b"\x03\x03" + os.urandom(32) + sized(1, os.urandom(32))
        head += sized(2, b"\x13\x01") + sized(1, b"\x00")
        hello = message(CLIENT_HELLO, head + sized(2, extensions))
        if psk is not None:  # the binder goes over all before the binders (RFC 8446, 4.2.11.2)
            self._psk = psk[1]
            early = hmac.digest(_NO_SECRET, self._psk, sha256)
            binder = _expanded(early, "res binder", sha256(b"").digest())
            hello = hello[:-35] + sized(2, sized(1, self._mac(binder, hello[:-35])))
        self._said += hello
        self._send(b"\x16\x03\x01" + sized(2, hello))

    def say(self, *messages: bytes) -> None:
        """Say them under the handshake's keys."""
        for each in messages:
            self._said += each
            self.send(HANDSHAKE, each)

    def send(self, kind: int, data: bytes) -> None:
        """One protected record."""
        assert self._ours is not None
        self._send(self._ours.seal(kind, data))

    def proof(self, key: ec.EllipticCurvePrivateKey) -> bytes:
        """A CertificateVerify message by `key`, of all that was said."""
        signed = b" " * 64 + b"TLS 1.3, client CertificateVerify\0" + sha256(self._said).digest()
        signature = key.sign(signed, ec.ECDSA(SHA256()))
        return message(CERTIFICATE_VERIFY, b"\x04\x03" + sized(2, signature))

    def finished(self) -> bytes:
        """A Finished message, over all that was said."""
        return message(FINISHED, self._mac(self._handshake_secret, self._said))

    def finish(self) -> None:
        """Say Finished; what follows is under the application's keys."""
        self.say(self.finished())
        self.secret = _expanded(self._master, "res master", sha256(self._said).digest())
        self._ours = _Keys(self._application_secret)

    def ticket(self, which: int = 0) -> tuple[bytes, bytes]:
        """What a ticket that came would resume: an identity and its key (RFC 8446, 4.6.1)."""
        body = self.tickets[which][12:]
        nonce, rest = body[1 : 1 + body[0]], body[1 + body[0] :]
        return rest[2 : 2 + int.from_bytes(rest[:2], "big")], _expanded(
            self.secret, "resumption", nonce
        )

    @staticmethod
    def _mac(secret: bytes, said: bytes) -> bytes:
        return hmac.digest(_expanded(secret, "finished"), sha256(said).digest(), sha256)

    def _send(self, data: bytes) -> None:
        """Raises TlsError, when its alert is heard."""
        self._server.receive(memoryview(data), len(data))
        try:
            if self.let_in:
                self._server.read()
            else:
                self.let_in = self._server.handshake()
        finally:
            self._hear(bytes(self._server.outgoing() or b""))

    def _hear(self, data: bytes) -> None:
        while data:
            header, length = data[:5], int.from_bytes(data[3:5], "big")
            kind, record, data = header[0], data[5 : 5 + length], data[5 + length :]
            if kind == APPLICATION_DATA and self._theirs is not None:
                kind, record = self._theirs.open(header, record)
            if kind == ALERT:
                self.alerts.append(record[1])
            while kind == HANDSHAKE and record:
                end = 4 + int.from_bytes(record[1:4], "big")
                self._understand(record[:end])
                record = record[end:]

    def _understand(self, heard: bytes) -> None:
        if heard[0] == NEW_SESSION_TICKET:
            self.tickets.append(heard)
            return
        self._said += heard
        if heard[0] == SERVER_HELLO:
            at = heard.index(b"\x00\x33\x00\x24\x00\x1d\x00\x20") + 8
            self.resumed = extension(PRE_SHARED_KEY, bytes(2)) in heard
            shared = self._private.exchange(X25519PublicKey.from_public_bytes(heard[at : at + 32]))
            empty = sha256(b"").digest()
            early = hmac.digest(_NO_SECRET, self._psk if self.resumed else _NO_SECRET, sha256)
            agreed = hmac.digest(_expanded(early, "derived", empty), shared, sha256)
            self._master = hmac.digest(_expanded(agreed, "derived", empty), _NO_SECRET, sha256)
            so_far = sha256(self._said).digest()
            self._handshake_secret = _expanded(agreed, "c hs traffic", so_far)
            self._ours = _Keys(self._handshake_secret)
            self._theirs = _Keys(_expanded(agreed, "s hs traffic", so_far))
        elif heard[0] == FINISHED:
            so_far = sha256(self._said).digest()
            self._application_secret = _expanded(self._master, "c ap traffic", so_far)
            self._theirs = _Keys(_expanded(self._master, "s ap traffic", so_far))
