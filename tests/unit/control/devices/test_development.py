"""The development PKI's folder: made once, mended where that is safe."""

from pathlib import Path

import pytest
from cryptography import x509

from facade.control.devices.authority import read_csr
from facade.control.devices.development import DevelopmentPki, DeviceKey, write_file
from facade.errors import Conflict, Invalid, Unavailable
from tests.support.clock import FakeClock

DAY = 86400.0


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def names(pki: DevelopmentPki) -> set[str]:
    certificate = x509.load_pem_x509_certificate(pki.server_certificate.read_bytes())
    found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return {str(name.value) for name in found}


@pytest.fixture
def pki(tmp_path: Path) -> DevelopmentPki:
    pki = DevelopmentPki(tmp_path / "pki")
    pki.ensure(["facade.example"], FakeClock())
    return pki


def test_everything_is_made_once(pki: DevelopmentPki) -> None:
    before = contents(pki.folder)
    assert set(before) == {
        "server-ca.pem", "server-ca.key", "device-ca.pem", "device-ca.key",
        "server.pem", "server.key",
    }  # fmt: skip
    pki.ensure(["facade.example"], FakeClock())
    assert contents(pki.folder) == before
    assert names(pki) == {"localhost", "127.0.0.1", "::1", "facade.example"}


def test_keys_are_their_owners_alone(pki: DevelopmentPki) -> None:
    for path in pki.folder.glob("*.key"):
        assert path.stat().st_mode & 0o777 == 0o600


def test_a_new_name_gives_a_new_server_certificate_and_no_new_ca(pki: DevelopmentPki) -> None:
    before = contents(pki.folder)
    pki.ensure(["other.example"], FakeClock())
    after = contents(pki.folder)
    assert {name for name in after if after[name] != before[name]} == {"server.pem", "server.key"}
    assert "other.example" in names(pki)


def test_an_old_server_certificate_is_renewed(pki: DevelopmentPki) -> None:
    before = contents(pki.folder)
    clock = FakeClock()
    clock.advance(330 * DAY)
    pki.ensure(["facade.example"], clock)
    assert contents(pki.folder)["server.pem"] == before["server.pem"]
    clock.advance(10 * DAY)
    pki.ensure(["facade.example"], clock)
    assert contents(pki.folder)["server.pem"] != before["server.pem"]


def test_a_server_certificate_without_its_key_is_made_anew(pki: DevelopmentPki) -> None:
    write_file(pki.server_key, DeviceKey.create().key_pem, private=True)  # died in between
    before = contents(pki.folder)["server.pem"]
    pki.ensure(["facade.example"], FakeClock())
    assert contents(pki.folder)["server.pem"] != before


def test_a_lost_ca_key_is_not_papered_over(pki: DevelopmentPki) -> None:
    pki.device_ca_key.unlink()
    with pytest.raises(Conflict, match=r"device-ca\.key is missing"):
        pki.ensure([], FakeClock())


def test_dying_before_the_ca_certificate_was_written_is_no_problem(pki: DevelopmentPki) -> None:
    pki.device_ca.unlink()
    pki.ensure([], FakeClock())
    assert pki.device_authority().name == "CN=Facade device CA"


def test_damage_is_named(pki: DevelopmentPki) -> None:
    pki.device_ca.write_bytes(b"junk")
    with pytest.raises(Invalid, match="cannot be read"):
        pki.device_authority()
    pki.device_ca.unlink()
    with pytest.raises(Unavailable, match=r"device-ca\.pem"):
        pki.device_authority()


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file"
    write_file(path, b"one")
    write_file(path, b"two", private=True)
    assert path.read_bytes() == b"two"
    assert path.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == ["file"]
    with pytest.raises(Unavailable, match="cannot be written"):
        write_file(path / "below-a-file", b"x")


def test_a_device_key_comes_with_its_request() -> None:
    key = DeviceKey.create()
    read_csr(key.csr)
    assert b"BEGIN PRIVATE KEY" in key.key_pem
