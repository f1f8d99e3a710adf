"""The development PKI of one machine: a folder with a server CA, a device CA, a server certificate.

Guarantees: `ensure` is idempotent: it makes what is missing, makes the server certificate anew when
it lacks a wanted name or nears its end, and never replaces a CA, whose certificates are out
with devices. Each file is written whole or not at all; keys are mode 0600. Does not rotate CAs.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from facade.clock import Clock
from facade.control.devices.authority import (
    Authority,
    certificate_pem,
    key_pem,
    new_csr,
    new_key,
)
from facade.device import parse_fleet, parse_name
from facade.errors import Conflict, Unavailable

LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")
RENEW_BEFORE_SECONDS = 30 * 86400.0
"""A server certificate with less than this left is made anew."""


@dataclass(frozen=True, slots=True)
class DevelopmentPki:
    """Where things lie; all paths exist after `ensure`."""

    folder: Path

    @property
    def server_ca(self) -> Path:
        """What devices trust."""
        return self.folder / "server-ca.pem"

    @property
    def server_ca_key(self) -> Path:
        """Signs server certificates."""
        return self.folder / "server-ca.key"

    @property
    def device_ca(self) -> Path:
        """What the device port trusts."""
        return self.folder / "device-ca.pem"

    @property
    def device_ca_key(self) -> Path:
        """Signs device certificates."""
        return self.folder / "device-ca.key"

    @property
    def server_certificate(self) -> Path:
        """What the device port shows."""
        return self.folder / "server.pem"

    @property
    def server_key(self) -> Path:
        """Its key."""
        return self.folder / "server.key"

    def ensure(self, names: Sequence[str], clock: Clock) -> None:
        """Make what is missing.

        Arguments:
            names: of the server, besides LOCAL_NAMES.

        Raises Invalid for an impossible name or damaged files, Conflict when a CA's key is
        missing, Unavailable when the folder cannot be written.
        """
        now = clock.time()
        server_ca = _ensure_authority(self.server_ca, self.server_ca_key, "Facade server CA", now)
        _ensure_authority(self.device_ca, self.device_ca_key, "Facade device CA", now)
        wanted = list(dict.fromkeys([*LOCAL_NAMES, *names]))
        if not self._serves(wanted, server_ca, now):
            key = new_key()
            certificate = server_ca.server(wanted, key.public_key(), now)
            write_file(self.server_key, key_pem(key), private=True)
            write_file(self.server_certificate, certificate_pem(certificate))

    def device_authority(self) -> Authority:
        """The CA that signs devices. Raises Invalid, Unavailable."""
        return Authority.load(_read(self.device_ca), _read(self.device_ca_key))

    def write_device(
        self, folder: Path, trust_domain: str, fleet: str, name: str, clock: Clock
    ) -> None:
        """Make a device's key and certificate without asking anybody, for development.

        Writes `client.cert`, `client.key` and `ca.crt` (the server's CA) into `folder`: the
        names that podman and Docker look for. Raises Invalid, Unavailable.
        """
        key = new_key()
        fleet, name = parse_fleet(fleet), parse_name(name, "device name")
        certificate = self.device_authority().device(
            trust_domain, fleet, name, key.public_key(), clock.time()
        )
        write_file(folder / "client.key", key_pem(key), private=True)
        write_file(folder / "client.cert", certificate_pem(certificate))
        write_file(folder / "ca.crt", _read(self.server_ca))

    def _serves(self, names: Sequence[str], server_ca: Authority, now: float) -> bool:
        """Whether the server certificate is there, ours, long-lived, and has all the names."""
        if not (self.server_certificate.exists() and self.server_key.exists()):
            return False
        try:
            certificate = x509.load_pem_x509_certificate(_read(self.server_certificate))
            certificate.verify_directly_issued_by(server_ca.certificate)
            key = serialization.load_pem_private_key(_read(self.server_key), password=None)
            found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        except Exception:  # noqa: BLE001 - whatever is wrong with it, a new one is right
            return False
        if key.public_key() != certificate.public_key():
            return False  # we died between writing the one and the other
        has = {str(name.value) for name in found.value}
        left = certificate.not_valid_after_utc.timestamp() - now
        return left > RENEW_BEFORE_SECONDS and has >= {name.strip("[]") for name in names}


@dataclass(frozen=True, slots=True)
class DeviceKey:
    """A fresh device key, as the one who asks for a certificate makes it."""

    key_pem: bytes
    csr: str

    @classmethod
    def create(cls) -> "DeviceKey":
        """A P-256 key and a request for it."""
        key = new_key()
        return cls(key_pem(key), new_csr(key))


def write_file(path: Path, data: bytes, *, private: bool = False) -> None:
    """Write `path` whole or not at all, mode 0600 when `private`. Raises Unavailable."""
    part = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.unlink(missing_ok=True)
        mode = 0o600 if private else 0o644
        with os.fdopen(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode), "wb") as file:
            os.fchmod(file.fileno(), mode)  # whatever the umask says: workers may be another user
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        raise Unavailable(f"{path} cannot be written: {error.strerror}.") from error


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise Unavailable(f"{path} cannot be read: {error.strerror}.") from error


def _ensure_authority(certificate: Path, key: Path, name: str, now: float) -> Authority:
    if certificate.exists() and not key.exists():
        raise Conflict(
            f"{key} is missing. A new CA would lock out what the old one signed: put the file "
            f"back, or remove {certificate} too to begin anew."
        )
    if certificate.exists():
        return Authority.load(_read(certificate), _read(key))
    authority = Authority.create(name, now)
    # The key first: when we die in between, a key alone has signed nothing and is replaced.
    write_file(key, authority.key_pem, private=True)
    write_file(certificate, authority.pem)
    return authority
