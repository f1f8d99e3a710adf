"""TLS in memory: a context for the device port, and its sessions, by the OpenSSL that cryptography brings.

Python's `ssl` stands on the system's OpenSSL, often years older: there AES-GCM takes twice as long, and a
handshake a fourth more. Here, what has to wait for the client says so without raising, too.

Guarantees: TLS 1.3 only; the client's certificate chains to one of the device CAs and may be used by a
client; no key and no signature in that chain is weaker than 112 bits, but for an anchor's on itself; no session
is resumed: none is ever kept, and the tickets that OpenSSL hands out regardless name sessions that nobody
has. Whatever OpenSSL refuses raises, and leaves its alert in `outgoing`. `presented` tells of a refused
certificate, unverified. Does not know sockets, nor who a device is.

The bindings are those that pyOpenSSL stands on. No callback is given to OpenSSL: making one needs memory that
may be written and executed, which a hardened unit forbids (systemd.exec(5), MemoryDenyWriteExecute).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.bindings.openssl.binding import Binding

from facade.errors import Invalid

_lib: Any = Binding.lib
_ffi: Any = Binding.ffi
_NULL: Final = _ffi.NULL
_CHARS: Final = _ffi.typeof("char[]")
_room: Final = _ffi.new_allocator(should_clear_after_alloc=False)
# What every request needs, looked up once.
_held, _put, _take = _lib.BIO_get_mem_data, _lib.BIO_write, _lib.BIO_read
_clear_errors, _pending = _lib.ERR_clear_error, _lib.SSL_pending
_read, _write = _lib.SSL_read, _lib.SSL_write
_lent, _copied, _window = _ffi.from_buffer, _ffi.unpack, _ffi.buffer
_RECORD_BYTES: Final = 16 * 1024
"""Plaintext of the largest TLS record (RFC 8446, 5.1): what one read can give."""
_COPIED_BYTES: Final = 16 * 1024
"""Up to here a copy costs less than a view."""
_TICKET_SECONDS: Final = 1
"""How long a client should keep a ticket: the least that can be said (0 = OpenSSL's default, two hours)."""


class TlsError(OSError):
    """What OpenSSL has against the other side.

    Arguments:
        reason: in OpenSSL's words, as in "TLSV1_ALERT_UNKNOWN_CA".
        verdict: on the client's certificate, an X509_V_ERR_… of openssl/x509_vfy.h; 0 = none.
    """

    def __init__(self, reason: str, verdict: int = 0) -> None:
        super().__init__(reason)
        self.reason = reason
        self.verdict = verdict


class TlsContext:
    """What the sessions of a listener have in common.

    Arguments:
        certificate: PEM file: the server's, then what stands between it and its root.
        key: PEM file, not encrypted: a service prompts nobody.
        device_cas: PEM bundles; every certificate in them is an anchor, so that an issuing CA may be
            configured without the root above it.

    Raises Invalid when a file cannot be used.
    """

    def __init__(self, certificate: Path, key: Path, device_cas: Sequence[Path]) -> None:
        self.raw = raw = _owned(_lib.SSL_CTX_new(_lib.TLS_server_method()), _lib.SSL_CTX_free)
        # The level is the default unless an openssl.cnf says otherwise: then MD5 would do. The list is of
        # older TLS (SSL_CTX_set_security_level(3)).
        if (
            _lib.SSL_CTX_set_min_proto_version(raw, _lib.TLS1_3_VERSION) != 1
            or _lib.SSL_CTX_set_cipher_list(raw, b"DEFAULT:@SECLEVEL=2") != 1
        ):
            raise Invalid(f"{library()} cannot be held to TLS 1.3 and level 2: {_said()}")
        # Tickets without contents, for sessions that are not kept: the bindings have no switch for none at all.
        _lib.SSL_CTX_set_options(raw, _lib.SSL_OP_NO_TICKET)
        _lib.SSL_CTX_set_timeout(raw, _TICKET_SECONDS)
        _lib.SSL_CTX_set_session_cache_mode(
            raw, _lib.SSL_SESS_CACHE_OFF | _lib.SSL_SESS_CACHE_NO_INTERNAL
        )
        # A write is all of it or nothing; who waits has no record's buffers (SSL_CTX_set_mode(3)).
        _lib.SSL_CTX_set_mode(raw, _lib.SSL_MODE_RELEASE_BUFFERS)
        # The client's order of ciphers counts, OpenSSL's default: devices without AES hardware ask for
        # ChaCha20. Nor are CAs advertised: a Go client whose issuer is not in an advertised list silently
        # sends no certificate.
        mode = _lib.SSL_VERIFY_PEER | _lib.SSL_VERIFY_FAIL_IF_NO_PEER_CERT
        _lib.SSL_CTX_set_verify(raw, mode, _NULL)
        _lib.X509_STORE_set_flags(_lib.SSL_CTX_get_cert_store(raw), _lib.X509_V_FLAG_PARTIAL_CHAIN)
        for path in (certificate, *device_cas):
            read(path)  # of what cannot be read, OpenSSL has nothing to say
        for path in device_cas:
            if _lib.SSL_CTX_load_verify_locations(raw, bytes(path), _NULL) != 1:
                raise Invalid(f"The device CA file {path} cannot be used: {_said()}")
        if not self._speaks_as(certificate, key):
            raise Invalid(
                f"The server certificate {certificate} with key {key} cannot be used: {_said()}"
            )

    def session(self) -> "TlsSession":
        """The server's side of a new connection. Raises MemoryError."""
        return TlsSession(self)

    def _speaks_as(self, certificate: Path, key: Path) -> bool:
        pem = read(key)
        source = _owned(_lib.BIO_new_mem_buf(pem, len(pem)), _lib.BIO_free)
        # The empty passphrase: with none OpenSSL would ask on the terminal (PEM_read_bio_PrivateKey(3)).
        pair = _lib.PEM_read_bio_PrivateKey(source, _NULL, _NULL, _ffi.new("char[]", b""))
        if pair == _NULL:
            return False
        pair = _owned(pair, _lib.EVP_PKEY_free)
        return bool(
            _lib.SSL_CTX_use_certificate_chain_file(self.raw, bytes(certificate)) == 1
            and _lib.SSL_CTX_use_PrivateKey(self.raw, pair) == 1
            and _lib.SSL_CTX_check_private_key(self.raw) == 1
        )


class TlsSession:
    """One connection's state: ciphertext in by `receive`, out by `outgoing`.

    Raises MemoryError from the constructor when there is none left.
    """

    __slots__ = ("_incoming", "_outgoing", "_tls", "context")

    def __init__(self, context: TlsContext) -> None:
        self.context = context
        self._tls = _owned(_lib.SSL_new(context.raw), _lib.SSL_free)
        self._attach()
        _lib.SSL_set_accept_state(self._tls)

    def _attach(self) -> None:
        incoming, outgoing = _lib.BIO_new(_lib.BIO_s_mem()), _lib.BIO_new(_lib.BIO_s_mem())
        if _NULL in (incoming, outgoing):
            raise MemoryError("OpenSSL has no memory left.")
        # It frees them with itself, or when they are replaced.
        _lib.SSL_set_bio(self._tls, incoming, outgoing)
        self._incoming, self._outgoing = incoming, outgoing

    # Ciphertext.

    def receive(self, buffer: memoryview, count: int) -> None:
        """Ciphertext came, `count` bytes at the beginning of `buffer`. They are copied."""
        if _put(self._incoming, _lent(buffer), count) != count:
            raise MemoryError("OpenSSL has no memory left.")

    @property
    def received(self) -> int:
        """Whether bytes are here that were not taken yet: how many, at least."""
        held: int = _held(self._incoming, _NULL) or _pending(self._tls)
        return held

    def outgoing(self) -> bytes | memoryview | None:
        """The ciphertext to be sent, in memory of its own; None when there is none."""
        count = _held(self._outgoing, _NULL)
        return _taken(self._outgoing, count) if count > 0 else None

    def slim(self) -> None:
        """Give back what large writes took, some 300 KiB: memory BIOs never shrink. Does nothing over what is in one."""
        if not (_held(self._incoming, _NULL) or _held(self._outgoing, _NULL)):
            self._attach()

    # The handshake.

    def handshake(self) -> bool:
        """Go on with it. False while more of the client is needed. Raises TlsError."""
        _lib.ERR_clear_error()
        result = _lib.SSL_do_handshake(self._tls)
        if result == 1:
            return True
        if _lib.SSL_get_error(self._tls, result) == _lib.SSL_ERROR_WANT_READ:
            return False
        raise self._error()

    @property
    def certificate(self) -> bytes:
        """The client's verified certificate, DER; b"" when the handshake is not over."""
        found = _lib.SSL_get_peer_certificate(self._tls)
        return b"" if found == _NULL else _der(_owned(found, _lib.X509_free))

    @property
    def presented(self) -> bytes:
        """The certificate that the client presented, DER, whatever the verdict; b"" when none is known."""
        chain = _lib.SSL_get0_verified_chain(self._tls)
        if chain == _NULL or not _lib.sk_X509_num(chain):
            return b""
        return _der(_lib.sk_X509_value(chain, 0))

    # Plaintext.

    def read(self) -> bytes | None:
        """A record's plaintext; b"" after the client's close_notify, None while more of it is needed.

        Raises TlsError.
        """
        _clear_errors()
        room = _room(_CHARS, _RECORD_BYTES)
        count = _read(self._tls, room, _RECORD_BYTES)
        if count > 0:
            data: bytes = _copied(room, count)
            return data
        said = _lib.SSL_get_error(self._tls, count)
        if said == _lib.SSL_ERROR_WANT_READ:
            return None
        if said == _lib.SSL_ERROR_ZERO_RETURN:
            return b""
        raise self._error()

    def write(self, data: bytes | memoryview) -> None:
        """Encrypt all of `data`, bytes and not none. Raises TlsError."""
        if _write(self._tls, _lent(data), len(data)) <= 0:
            raise self._error()

    def close_notify(self) -> None:
        """Say that nothing more comes (RFC 8446, 6.1); the client's own word is not waited for."""
        _lib.SSL_shutdown(self._tls)
        _lib.ERR_clear_error()

    # What it is.

    def version(self) -> str:
        """As in "TLSv1.3"."""
        return _text(_lib.SSL_get_version(self._tls))

    def cipher(self) -> tuple[str, str, int] | None:
        """Its name, its version of TLS, and its bits, as `ssl.SSLObject.cipher` has it."""
        used = _lib.SSL_get_current_cipher(self._tls)
        if used == _NULL:
            return None
        return (
            _text(_lib.SSL_CIPHER_get_name(used)),
            _text(_lib.SSL_CIPHER_get_version(used)),
            _lib.SSL_CIPHER_get_bits(used, _NULL),
        )

    def _error(self) -> TlsError:
        return TlsError(_said().upper().replace(" ", "_"), _lib.SSL_get_verify_result(self._tls))


def library() -> str:
    """Which OpenSSL speaks to devices, as in "OpenSSL 4.0.3 29 Sep 2026"."""
    return _text(_lib.OpenSSL_version(_lib.OPENSSL_VERSION))


def read(path: Path) -> bytes:
    """The file's contents. Raises Invalid."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise Invalid(f"{path} cannot be read: {error.strerror}") from error


def _owned(pointer: Any, free: Any) -> Any:
    """What `free` frees once nobody has it. Raises MemoryError when there is nothing."""
    if pointer == _NULL:
        raise MemoryError("OpenSSL has no memory left.")
    return _ffi.gc(pointer, free)


def _said() -> str:
    """What OpenSSL noted first, its cause; what followed from it is forgotten with it."""
    words = _text(_lib.ERR_reason_error_string(_lib.ERR_get_error()))
    _lib.ERR_clear_error()
    return words


def _text(words: Any) -> str:
    """C's string; "" for none."""
    return "" if words == _NULL else _ffi.string(words).decode(errors="replace")


def _der(certificate: Any) -> bytes:
    """Its DER; b"" when it has none."""
    bio = _owned(_lib.BIO_new(_lib.BIO_s_mem()), _lib.BIO_free)
    if _lib.i2d_X509_bio(bio, certificate) != 1:
        _lib.ERR_clear_error()
        return b""
    return bytes(_taken(bio, _held(bio, _NULL)))


def _taken(bio: Any, count: int) -> bytes | memoryview:
    """The `count` bytes that are in a memory BIO, in memory of their own."""
    room = _room(_CHARS, count)
    count = _take(bio, room, count)  # beyond it `room` holds whatever was there
    if count > _COPIED_BYTES:
        return memoryview(_window(room, count))
    copy: bytes = _copied(room, count)
    return copy
