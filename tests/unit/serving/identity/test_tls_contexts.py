"""Loading and reloading the listener's files."""

import asyncio
import datetime as dt
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from structlog.testing import capture_logs

from facade.errors import Denied, Invalid
from facade.reasons import Reason
from facade.serving.identity.certificate import SpiffeRule
from facade.serving.identity.tls import DeviceCAFile, TlsContexts, TlsFiles
from facade.wings import Revocations
from tests.support.clock import FakeClock, settle
from tests.support.pki import TRUST_DOMAIN, Authority, Leaf, now

CA = Authority.root()
OTHER = Authority.root("Other CA")
SERVER = CA.server()
NOW = now().timestamp()


@dataclass
class Setup:
    folder: Path
    contexts: TlsContexts

    def refusal(self, leaf: Leaf) -> Reason | None:
        try:
            self.contexts.admit(leaf.der, Revocations(), NOW)
        except Denied as error:
            return error.reason
        return None


@pytest.fixture
def setup(tmp_path: Path) -> Setup:
    files = SERVER.write(tmp_path, "server")
    CA.write(tmp_path, "device-ca.pem")
    (tmp_path / "crl.pem").write_bytes(CA.crl())
    ca = DeviceCAFile(tmp_path / "device-ca.pem", crl=tmp_path / "crl.pem")
    tls_files = TlsFiles(files.certificate, files.key, (ca,))
    return Setup(tmp_path, TlsContexts(tls_files, SpiffeRule(TRUST_DOMAIN)))


def test_it_knows_when_the_server_certificate_ends(setup: Setup) -> None:
    assert setup.contexts.server_not_after() == SERVER.certificate.not_valid_after_utc.timestamp()


def test_admission_is_certificate_deny_list_and_crl_together(setup: Setup) -> None:
    leaf = CA.device()
    assert setup.refusal(leaf) is None
    assert setup.refusal(OTHER.device()) is Reason.IDENTITY
    (setup.folder / "crl.pem").write_bytes(CA.crl(leaf))
    setup.contexts.reload()
    assert setup.refusal(leaf) is Reason.DEVICE_REVOKED


def test_what_a_revoked_intermediate_issued_is_refused(setup: Setup) -> None:
    issuing, other = CA.intermediate("Issuing CA"), CA.intermediate("Other issuing CA")
    bundle = CA.pem + issuing.pem + other.pem
    (setup.folder / "device-ca.pem").write_bytes(bundle)
    setup.contexts.reload()
    leaf = issuing.device()
    assert setup.refusal(leaf) is None
    (setup.folder / "crl.pem").write_bytes(issuing.crl() + CA.crl(issuing))
    with capture_logs() as logs:
        setup.contexts.reload()
    assert setup.refusal(leaf) is Reason.IDENTITY
    assert setup.refusal(other.device()) is None
    assert setup.refusal(CA.device()) is None
    (entry,) = [each for each in logs if each["event"] == "device_ca_revoked"]
    assert entry["ca"] == "CN=Issuing CA"


@pytest.mark.parametrize("refuse", [False, True])
def test_an_overdue_crl_refuses_the_devices_of_a_ca_that_says_so(
    tmp_path: Path, refuse: bool
) -> None:
    files = SERVER.write(tmp_path, "server")
    CA.write(tmp_path, "ca.pem")
    OTHER.write(tmp_path, "other.pem")
    crl = tmp_path / "crl.pem"
    crl.write_bytes(CA.crl(next_update=now() - dt.timedelta(hours=1)))
    cas = (
        DeviceCAFile(tmp_path / "ca.pem", crl=crl, refuse_stale_crl=refuse),
        DeviceCAFile(tmp_path / "other.pem"),
    )
    contexts = TlsContexts(TlsFiles(files.certificate, files.key, cas), SpiffeRule(TRUST_DOMAIN))
    setup = Setup(tmp_path, contexts)
    assert setup.refusal(CA.device()) is (Reason.IDENTITY if refuse else None)
    assert setup.refusal(OTHER.device()) is None
    crl.write_bytes(CA.crl())
    contexts.reload()
    assert setup.refusal(CA.device()) is None


def test_refusing_under_an_overdue_crl_needs_a_crl() -> None:
    with pytest.raises(Invalid, match="refuse_stale_crl"):
        DeviceCAFile(Path("ca.pem"), refuse_stale_crl=True)


def test_reload_takes_a_new_ca_and_drops_the_old(setup: Setup) -> None:
    before = setup.contexts.current()
    assert setup.refusal(CA.device()) is None
    OTHER.write(setup.folder, "device-ca.pem")
    (setup.folder / "crl.pem").write_bytes(OTHER.crl())
    setup.contexts.reload()
    assert setup.contexts.current() is not before
    assert setup.refusal(OTHER.device()) is None
    assert setup.refusal(CA.device()) is Reason.IDENTITY


def test_it_knows_when_everything_ends_also_after_a_reload(setup: Setup) -> None:
    before = setup.contexts.expiries()
    assert before["server"] == setup.contexts.server_not_after()
    assert before["device-ca:device-ca.pem"] == CA.certificate.not_valid_after_utc.timestamp()
    assert NOW < before["crl:crl.pem"] < before["device-ca:device-ca.pem"]
    soon = now() + dt.timedelta(days=3)
    bundle = CA.pem + Authority.root("Old CA", not_after=soon).pem
    (setup.folder / "device-ca.pem").write_bytes(bundle)
    setup.contexts.reload()
    after = setup.contexts.expiries()["device-ca:device-ca.pem"]
    assert abs(after - soon.timestamp()) <= 1, "the soonest of a bundle"


def _break_certificate(folder: Path) -> None:
    (folder / "server.cert").write_bytes(b"junk")


def _break_key(folder: Path) -> None:
    (folder / "server.key").write_bytes(CA.server().key_pem)


def _lose_ca(folder: Path) -> None:
    (folder / "device-ca.pem").unlink()


def _foreign_crl(folder: Path) -> None:
    (folder / "crl.pem").write_bytes(OTHER.crl())


def _crl_of_no_version(folder: Path) -> None:
    der = x509.load_pem_x509_crl(CA.crl()).public_bytes(Encoding.DER)
    (folder / "crl.pem").write_bytes(der.replace(b"\x02\x01\x01\x30", b"\x02\x01\x41\x30", 1))


def _certificate_of_no_version(folder: Path) -> None:
    """OpenSSL takes it: the signature of one's own certificate is nothing that it looks at."""
    der = SERVER.der.replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x41", 1)
    assert der != SERVER.der
    (folder / "server.cert").write_text(ssl.DER_cert_to_PEM_cert(der))


SPOILERS = [
    *(_break_certificate, _break_key, _lose_ca, _foreign_crl),
    *(_crl_of_no_version, _certificate_of_no_version),
]


@pytest.mark.parametrize("spoil", SPOILERS)
def test_a_broken_reload_changes_nothing_and_says_so(
    setup: Setup, spoil: Callable[[Path], None]
) -> None:
    before = setup.contexts.current()
    spoil(setup.folder)
    with pytest.raises(Invalid):
        setup.contexts.reload()
    assert setup.contexts.current() is before
    assert setup.refusal(CA.device()) is None


def test_an_encrypted_key_is_refused_without_a_prompt(setup: Setup, tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization

    encrypted = SERVER.key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )
    (tmp_path / "server.key").write_bytes(encrypted)
    with pytest.raises(Invalid, match="cannot be used"):
        setup.contexts.reload()


async def test_files_are_watched(setup: Setup) -> None:
    clock = FakeClock()
    before = setup.contexts.current()
    task = asyncio.create_task(setup.contexts.watch(clock, 5.0))
    try:
        await clock.run_for(20)
        assert setup.contexts.current() is before
        SERVER.write(setup.folder, "server")
        await clock.run_for(5)
        assert setup.contexts.current() is not before
    finally:
        task.cancel()
        await settle()


async def test_a_broken_file_is_logged_once_and_mended_by_the_next_change(setup: Setup) -> None:
    clock = FakeClock()
    before = setup.contexts.current()
    task = asyncio.create_task(setup.contexts.watch(clock, 5.0))
    try:
        with capture_logs() as logs:
            await clock.run_for(1)
            _break_certificate(setup.folder)
            await clock.run_for(20)
            assert [entry["event"] for entry in logs] == ["tls_reload_failed"]
            assert setup.contexts.current() is before
            SERVER.write(setup.folder, "server")
            await clock.run_for(5)
        assert logs[-1]["event"] == "tls_reloaded"
        assert setup.contexts.current() is not before
    finally:
        task.cancel()
        await settle()
