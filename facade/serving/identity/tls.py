"""The listener's TLS context and device CAs, from files, replaced as one.

Guarantees: TLS 1.3 only, a client certificate required, no session resumption; `reload` either takes
all files together or keeps everything as it was and raises; a connection made after a
successful reload sees the new, one made before it keeps its context, and `certificates()`
answers for both (trust.md, "Identity"). Does not decide who is a device: `certificate` does.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog
from cryptography import x509

from facade.clock import Clock, on_the_beat
from facade.device import Device
from facade.errors import FacadeError, Invalid
from facade.serving.identity.certificate import (
    UNREADABLE,
    DeviceCA,
    DeviceCertificates,
    IdentityRule,
)
from facade.serving.identity.openssl import TlsContext, read
from facade.serving.identity.revocation import Crl, check, read_crls
from facade.wings import Revocations

log = structlog.get_logger(__name__)

WATCH_SECONDS = 2.0
"""How often `watch` looks at the files by default."""


@dataclass(frozen=True, slots=True)
class DeviceCAFile:
    """A `[[device.ca]]` of the configuration.

    Arguments:
        file: PEM bundle: the CA, and its intermediates if those issue.
        fleets: patterns of the fleets that it may name.
        crl: its revocation lists, if it has any: the CA's and its intermediates'.
        refuse_stale_crl: whether to refuse its devices while that list is overdue.

    Raises Invalid when that is asked for without a list.
    """

    file: Path
    fleets: tuple[str, ...] = ("*",)
    crl: Path | None = None
    refuse_stale_crl: bool = False

    def __post_init__(self) -> None:
        if self.refuse_stale_crl and self.crl is None:
            raise Invalid(f"The device CA {self.file}: refuse_stale_crl needs a crl.")


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Where the listener's material lies."""

    certificate: Path
    key: Path
    cas: tuple[DeviceCAFile, ...]

    @property
    def paths(self) -> tuple[Path, ...]:
        """Every file."""
        crls = (ca.crl for ca in self.cas if ca.crl is not None)
        return (self.certificate, self.key, *(ca.file for ca in self.cas), *crls)


@dataclass(frozen=True, slots=True)
class _Loaded:
    context: TlsContext
    certificates: DeviceCertificates
    crls: tuple[Crl, ...]
    server_not_after: float
    expiries: Mapping[str, float]


class TlsContexts:
    """The current context, and what belongs to it.

    Raises Invalid from the constructor when the files cannot be used.
    """

    def __init__(self, files: TlsFiles, rule: IdentityRule) -> None:
        self._files = files
        self._rule = rule
        self._stamp = _stamp(files.paths)
        self._loaded = self._load()

    def current(self) -> TlsContext:
        """The context for a new connection."""
        return self._loaded.context

    def certificates(self) -> DeviceCertificates:
        """The device CAs of the current files."""
        return self._loaded.certificates

    def crls(self) -> tuple[Crl, ...]:
        """The revocation lists of the current files."""
        return self._loaded.crls

    def server_not_after(self) -> float:
        """When the server's certificate ends, Unix seconds."""
        return self._loaded.server_not_after

    def expiries(self) -> Mapping[str, float]:
        """When what is loaded ends, Unix seconds: "server", and for each `[[device.ca]]` the soonest
        of its certificates ("device-ca:<file name>") and its next CRL ("crl:<file name>").
        """
        return self._loaded.expiries

    def admit(self, der: bytes, revocations: Revocations, now: float) -> Device:
        """The device behind a verified peer certificate, if it may still come in at `now`.

        For every request, and again inside long streams. Raises Denied (IDENTITY,
        DEVICE_REVOKED).
        """
        loaded = self._loaded
        device = loaded.certificates.device(der)
        check(device, revocations, now, loaded.crls)
        return device

    def reload(self) -> None:
        """Take the files as they are now.

        Raises Invalid when any of them cannot be used; then nothing has changed.
        """
        self._stamp = _stamp(self._files.paths)
        self._loaded = self._load()

    async def watch(self, clock: Clock, seconds: float = WATCH_SECONDS) -> None:
        """Reload whenever a file changed, for ever. Run it as a task; cancel it to end.

        A broken set of files is logged and the old one kept; it is tried again when a file
        changes once more (a certificate and its key are rarely written in one moment).
        """
        while True:
            await on_the_beat(clock, seconds)
            if _stamp(self._files.paths) == self._stamp:
                continue
            try:
                self.reload()
            except FacadeError as error:
                log.error("tls_reload_failed", error=error.message)
            else:
                log.info("tls_reloaded")

    def _load(self) -> _Loaded:
        files = self._files
        cas: list[DeviceCA] = []
        crls: list[Crl] = []
        expiries: dict[str, float] = {}

        def note(name: str, at: float) -> None:
            expiries[name] = min(at, expiries.get(name, at))

        for entry in files.cas:
            ca = DeviceCA.from_pem(read(entry.file), entry.fleets)
            cas.append(ca)
            for each in ca.certificates:
                note(f"device-ca:{entry.file.name}", each.not_valid_after_utc.timestamp())
            if entry.crl is not None:
                lists = read_crls(
                    read(entry.crl), ca.certificates, refuse_stale=entry.refuse_stale_crl
                )
                crls += lists
                for crl in lists:
                    if crl.next_update is not None:
                        note(f"crl:{entry.crl.name}", crl.next_update)
        revoked = revoked_cas(cas, crls)
        for each in revoked:
            name = each.subject.rfc4514_string()
            log.warning("device_ca_revoked", ca=name, serial=f"{each.serial_number:x}")
        cas = [ca.without(revoked) for ca in cas]
        context = TlsContext(files.certificate, files.key, [entry.file for entry in files.cas])
        ends = _end_of(files.certificate)
        note("server", ends)
        return _Loaded(context, DeviceCertificates(cas, self._rule), tuple(crls), ends, expiries)


def revoked_cas(cas: Sequence[DeviceCA], crls: Sequence[Crl]) -> frozenset[x509.Certificate]:
    """The intermediate CAs that a CRL of the CA above them lists: nothing they issued counts."""
    every = (each for ca in cas for each in ca.certificates)
    return frozenset(each for each in every if any(crl.revokes_ca(each) for crl in crls))


def _end_of(path: Path) -> float:
    """When the certificate ends, Unix seconds. Raises Invalid: OpenSSL reads some that we cannot."""
    try:
        return x509.load_pem_x509_certificate(read(path)).not_valid_after_utc.timestamp()
    except UNREADABLE as error:
        raise Invalid(f"The server certificate {path} cannot be read: {error}") from error


def _stamp(paths: Sequence[Path]) -> tuple[tuple[int, int, int], ...]:
    """What changes when a file is written or replaced."""
    stamps = []
    for path in paths:
        try:
            status = path.stat()
        except OSError:
            stamps.append((0, 0, 0))
        else:
            stamps.append((status.st_mtime_ns, status.st_ino, status.st_size))
    return tuple(stamps)
