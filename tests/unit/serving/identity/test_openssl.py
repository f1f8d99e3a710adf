"""TLS in memory: contexts of files, sessions of bytes."""

import os
import pty
import ssl
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.bindings.openssl.binding import Binding
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)

from facade.errors import Invalid
from facade.serving.identity.handshake import HandshakeReason, reason_for
from facade.serving.identity.openssl import TlsContext, TlsError
from tests.support.pki import Authority, Leaf, client_context
from tests.support.tls_listener import tls_context
from tests.support.tls_memory import InMemory, in_memory

CA = Authority.root()
DEVICE = CA.device()


def _pem(leaf: Leaf, protection: KeySerializationEncryption | None = None) -> bytes:
    """Its key."""
    return leaf.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, protection or NoEncryption())


CONTEXT = tls_context(CA.server(), CA)


@pytest.fixture
def sides() -> InMemory:
    """After the handshake."""
    made = in_memory(CONTEXT, client_context(CA, DEVICE))
    made.handshake()
    return made


def test_a_session_knows_its_client(sides: InMemory) -> None:
    assert sides.server.certificate == DEVICE.der == sides.server.presented
    assert sides.server.version() == "TLSv1.3"
    assert sides.server.cipher() == sides.client.cipher()


def test_before_the_handshake_nobody_is_known() -> None:
    session = CONTEXT.session()
    assert (session.certificate, session.presented, session.received) == (b"", b"", 0)
    assert session.outgoing() is None
    assert not session.handshake()
    assert session.cipher() is None


def test_bytes_go_both_ways(sides: InMemory) -> None:
    sides.ask(b"one")
    sides.ask(b"two")
    assert sides.server.received > 0
    assert (sides.server.read(), sides.server.read(), sides.server.read()) == (b"one", b"two", None)
    assert sides.server.received == 0
    body = os.urandom(1 << 20)
    for data in (memoryview(b"x"), memoryview(body)[1:], memoryview(bytearray(70_000))):
        sides.server.write(data)
        assert sides.heard() == data
    assert sides.server.outgoing() is None


def test_part_of_a_record_is_nothing_yet(sides: InMemory) -> None:
    sides.client.write(b"hello")
    wire = memoryview(sides.to_server.read())
    for at in range(len(wire) - 1):
        sides.server.receive(wire[at:], 1)
        assert sides.server.read() is None
    sides.server.receive(wire[-1:], 1)
    assert sides.server.read() == b"hello"


def test_a_slimmed_session_goes_on(sides: InMemory) -> None:
    body = os.urandom(1 << 20)
    for _ in range(2):
        sides.server.write(memoryview(body))
        sides.server.slim()  # not over what waits to be sent
        assert sides.heard() == body
        sides.client.write(b"hello")
        wire = memoryview(sides.to_server.read())
        sides.server.receive(wire, 10)
        sides.server.slim()  # nor over what was not taken
        assert sides.server.read() is None
        sides.server.slim()
        sides.server.receive(wire[10:], len(wire) - 10)
        assert sides.server.read() == b"hello"


def test_a_slimmed_session_has_given_back_what_a_large_write_took() -> None:
    said = subprocess.run(
        [sys.executable, "-c", _SLIMS], check=True, capture_output=True, text=True
    )
    assert int(said.stdout) > 20 * 256 * 1024


_SLIMS = """
import resource
from tests.support.pki import Authority, client_context
from tests.support.tls_listener import tls_context
from tests.support.tls_memory import in_memory
def taken():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()
ca = Authority.root()
context, client = tls_context(ca.server(), ca), client_context(ca, ca.device())
sides = [in_memory(context, client) for _ in range(40)]
for each in sides:
    each.handshake()
    each.server.write(bytes(256 * 1024))
    each.server.outgoing()
before = taken()
for each in sides:
    each.server.slim()
print(before - taken())
"""


def test_both_closes_are_heard(sides: InMemory) -> None:
    with pytest.raises(ssl.SSLWantReadError):
        sides.client.unwrap()
    sides.pass_on()
    assert sides.server.read() == b""
    sides.server.close_notify()
    sides.answer()
    sides.client.unwrap()


def test_after_our_close_nothing_is_written(sides: InMemory) -> None:
    sides.server.close_notify()
    with pytest.raises(TlsError):
        sides.server.write(memoryview(b"more"))
    sides.server.close_notify()


def test_a_forged_record_is_answered_with_an_alert(sides: InMemory) -> None:
    sides.heard()  # the tickets
    sides.server.receive(memoryview(b"\x17\x03\x03\x00\x20" + bytes(32)), 37)
    with pytest.raises(TlsError) as caught:
        sides.server.read()
    assert caught.value.reason == "DECRYPTION_FAILED_OR_BAD_RECORD_MAC"
    sides.answer()
    with pytest.raises(ssl.SSLError, match="BAD_RECORD_MAC"):
        sides.client.read(1)


@pytest.mark.parametrize("which", ["the same", "a new one", "of the same files"])
def test_no_session_is_gone_on_with(which: str) -> None:
    """Its tickets name sessions that nobody has (trust.md, "Identity")."""
    client = client_context(CA, DEVICE)
    server = CA.server()
    context = tls_context(server, CA)
    before = in_memory(context, client)
    before.handshake()
    before.heard()
    assert before.client.session is not None
    assert before.client.session.has_ticket
    assert before.client.session.ticket_lifetime_hint == 1  # nor is it offered for long
    if which != "the same":
        context = tls_context(server if which == "of the same files" else CA.server(), CA)
    for _ in range(3):
        after = in_memory(context, client, before.client.session)
        after.handshake()
        assert not after.client.session_reused
        assert after.server.certificate == DEVICE.der


def test_errors_that_somebody_else_left_are_not_the_clients(sides: InMemory) -> None:
    """OpenSSL's list of errors is the thread's, and the same for all of this library's users. Before 4.0 it
    is also what tells whether an operation failed.
    """
    lib, ffi = Binding.lib, Binding.ffi

    def leave_one() -> None:
        bio = ffi.gc(lib.BIO_new_mem_buf(b"rubbish", 7), lib.BIO_free)
        assert lib.PEM_read_bio_X509(bio, ffi.NULL, ffi.NULL, ffi.NULL) == ffi.NULL
        assert lib.ERR_peek_error()

    leave_one()
    assert sides.server.read() is None
    leave_one()
    sides.server.write(memoryview(b"x"))
    assert sides.heard() == b"x"
    fresh = in_memory(CONTEXT, client_context(CA, DEVICE))
    leave_one()
    assert not fresh.server.handshake()
    leave_one()
    sides.server.close_notify()
    assert not lib.ERR_peek_error()


def test_an_issuing_ca_needs_no_root_above_it() -> None:
    issuing = CA.intermediate()
    sides = in_memory(tls_context(CA.server(), issuing), client_context(CA, issuing.device()))
    sides.handshake()
    other = in_memory(tls_context(CA.server(), issuing), client_context(CA, DEVICE))
    with pytest.raises(TlsError) as caught:
        other.handshake()
    assert reason_for(caught.value) is HandshakeReason.UNKNOWN_CA


def test_the_client_chooses_the_cipher() -> None:
    """A device without AES hardware asks for ChaCha20 first."""
    for cipher in ("TLS_CHACHA20_POLY1305_SHA256", "TLS_AES_128_GCM_SHA256"):
        said = subprocess.run(
            [sys.executable, "-c", _CHOOSES, cipher], check=True, capture_output=True, text=True
        )
        assert said.stdout.strip() == cipher


_CHOOSES = """
import sys
from OpenSSL import SSL
from tests.support.pki import Authority
from tests.support.tls_listener import tls_context
ca = Authority.root()
device = ca.device()
session = tls_context(ca.server(), ca).session()
context = SSL.Context(SSL.TLS_CLIENT_METHOD)
rest = b"TLS_AES_256_GCM_SHA384:TLS_AES_128_GCM_SHA256:TLS_CHACHA20_POLY1305_SHA256"
context.set_tls13_ciphersuites(sys.argv[1].encode() + b":" + rest)
client = SSL.Connection(context, None)
client.set_connect_state()
try:
    client.do_handshake()
except SSL.WantReadError:
    said = client.bio_read(65536)
    session.receive(memoryview(said), len(said))
assert not session.handshake()
client.bio_write(session.outgoing())
client.do_handshake()
print(client.get_cipher_name())
"""


def test_no_configuration_of_openssl_lets_weak_keys_in(tmp_path: Path) -> None:
    """Some set OPENSSL_CONF for the sake of another, old peer of theirs."""
    (tmp_path / "openssl.cnf").write_text(_LENIENT)
    said = subprocess.run(
        [sys.executable, "-c", _WEAK],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "OPENSSL_CONF": str(tmp_path / "openssl.cnf")},
    )
    assert said.stdout.strip() == "refused: 67"  # X509_V_ERR_CA_KEY_TOO_SMALL


_LENIENT = """
openssl_conf = all
[all]
ssl_conf = ssl
[ssl]
system_default = lenient
[lenient]
CipherString = DEFAULT:@SECLEVEL=0
MinProtocol = TLSv1
"""
_WEAK = """
from cryptography.hazmat.primitives.asymmetric import rsa
from facade.serving.identity.openssl import TlsError
from tests.support.pki import Authority, client_context
from tests.support.tls_listener import tls_context
from tests.support.tls_memory import in_memory
ca, weak = Authority.root(), Authority.root("Weak", key=rsa.generate_private_key(65537, 1024))
sides = in_memory(tls_context(ca.server(), weak), client_context(ca, weak.device()))
try:
    sides.handshake()
    print("in")
except TlsError as error:
    print("refused:", error.verdict)
"""


@pytest.mark.parametrize(
    ("name", "contents", "words"),
    [
        ("server.key", b"no key", "(?i)server certificate .* cannot be used: (no start|unsupported)"),
        ("server.key", None, "server.key cannot be read: No such file"),
        ("server.key", _pem(CA.server()), "(?i)server certificate .* cannot be used: key values mis"),
        ("server.cert", b"", "(?i)server certificate .* cannot be used: no start line"),
        ("server.cert", None, "server.cert cannot be read: No such file"),
        ("ca.crt", b"none", "(?i)device CA file .*ca.crt cannot be used: no certificate"),
        ("ca.crt", None, "ca.crt cannot be read: No such file"),
    ],
)  # fmt: skip
def test_files_that_cannot_be_used_are_named(
    tmp_path: Path, name: str, contents: bytes | None, words: str
) -> None:
    files = CA.server().write(tmp_path, "server")
    anchors = CA.write(tmp_path)
    TlsContext(files.certificate, files.key, [anchors])
    (tmp_path / name).unlink()
    if contents is not None:
        (tmp_path / name).write_bytes(contents)
    with pytest.raises(Invalid, match=words):
        TlsContext(files.certificate, files.key, [anchors])


def test_an_encrypted_key_prompts_nobody(tmp_path: Path) -> None:
    """On a terminal OpenSSL would ask for the passphrase, and a service would hang."""
    leaf = CA.server()
    files = leaf.write(tmp_path, "server")
    files.key.write_bytes(_pem(leaf, BestAvailableEncryption(b"secret")))
    paths = (files.certificate, files.key, CA.write(tmp_path))
    ours, its = pty.openpty()
    try:
        said = subprocess.run(
            [sys.executable, "-c", _ON_A_TERMINAL, *paths],
            check=True,
            stdin=its,
            stdout=subprocess.PIPE,
            start_new_session=True,
            timeout=20,
            text=True,
        )
    finally:
        os.close(its)
        os.close(ours)
    assert "cannot be used" in said.stdout


_ON_A_TERMINAL = """
import fcntl, sys, termios
from pathlib import Path
from facade.errors import Invalid
from facade.serving.identity.openssl import TlsContext
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
open("/dev/tty").close()
certificate, key, anchors = map(Path, sys.argv[1:])
try:
    TlsContext(certificate, key, [anchors])
except Invalid as error:
    print(error)
"""


def test_it_works_where_no_memory_may_be_written_and_executed() -> None:
    """As our unit has it: MemoryDenyWriteExecute. A callback from C would need such memory."""
    said = subprocess.run(
        [sys.executable, "-c", _HARDENED], check=False, capture_output=True, text=True
    )
    if said.returncode == 77:
        pytest.skip("The kernel has no PR_SET_MDWE (it came with Linux 6.3).")
    assert said.returncode == 0, said.stderr
    assert said.stdout.strip() == "refused: UNKNOWN_CA"


_HARDENED = """
import ctypes, ssl, sys
from tests.support.pki import Authority, Leaf, client_context
from tests.support.tls_listener import tls_context
from tests.support.tls_memory import in_memory
from facade.serving.identity.handshake import presented, reason_for
from facade.serving.identity.handshake import HandshakeReason, reason_for
from facade.serving.identity.openssl import TlsError
PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN = 65, 1
if ctypes.CDLL(None).prctl(PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN, 0, 0, 0):
    sys.exit(77)
ca, other = Authority.root(), Authority.root("Other CA")
context = tls_context(ca.server(), ca)
sides = in_memory(context, client_context(ca, ca.device()))
sides.handshake()
sides.server.write(memoryview(b"x"))
assert sides.heard() == b"x"
refused = in_memory(context, client_context(ca, leaf := other.device()))
try:
    refused.handshake()
except TlsError as error:
    assert presented(refused.server.presented).serial == leaf.serial
    print("refused:", reason_for(error).name)
"""
