"""Private signing keys as PEM files: the online ones in the clear and 0600, the offline ones encrypted.

Guarantees: a key is read only from a file that nobody else may read, and is an Ed25519 or ECDSA key;
what is written is PKCS#8 PEM with mode 0600, whole or not at all. No message holds key material.
Does not guarantee that a key is the one that the metadata names: the publisher checks that.
"""

import stat
from pathlib import Path
from typing import Literal

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from securesystemslib.signer import CryptoSigner

from facade.control.signing.files import make_folder, sync_folder, write_file
from facade.control.signing.layout import OFFLINE
from facade.errors import Conflict, Denied, Invalid, Unavailable
from facade.secret import Secret

Algorithm = Literal["ed25519", "ecdsa"]
MAX_KEY_BYTES = 16 * 1024
_KEY_ID_CHARS = 16


class OnlineKeys:
    """The keys that the control plane signs with by itself: `<role>.pem` in one folder.

    Arguments:
        folder: where they are; made when the first key is.
        algorithm: of keys made here.
    """

    def __init__(self, folder: Path, *, algorithm: Algorithm = "ed25519") -> None:
        self.folder = folder
        self._algorithm = algorithm

    def has(self, role: str) -> bool:
        """Whether the key of `role` is here."""
        return self._path(role).is_file()

    def signer(self, role: str) -> CryptoSigner:
        """The signer of `role`, read afresh: a rotated key is used at once.

        Raises Conflict when it is not here, Invalid when its file is not fit to be used.
        """
        if not self.has(role):
            raise Conflict(f"The online key of the role {role} is not in {self.folder}.")
        return read_key(self._path(role))

    def make(self, role: str) -> CryptoSigner:
        """The signer of `role`, with a new key if there is none yet (as after a crash)."""
        if self.has(role):
            return self.signer(role)
        signer = new_key(self._algorithm)
        write_key(self._path(role), signer)
        return signer

    def _path(self, role: str) -> Path:
        return self.folder / f"{role}.pem"


class OfflineKeys:
    """The keys of root and targets: `<role>-<start of key id>.pem`, encrypted with one passphrase.

    Arguments:
        folder: meant for an offline machine; may be absent.
        passphrase: opens every key in it.
    """

    def __init__(
        self, folder: Path, passphrase: Secret, *, algorithm: Algorithm = "ed25519"
    ) -> None:
        self.folder = folder
        self._passphrase = passphrase
        self._algorithm = algorithm

    def signers(self, role: str) -> list[CryptoSigner]:
        """Every key of `role` in the folder.

        Raises Denied when the passphrase does not open one, Invalid when a file is unfit.
        """
        return [read_key(path, self._passphrase) for path in self._paths(role)]

    def make(self, role: str, count: int) -> list[CryptoSigner]:
        """`count` keys of `role`: those that are here (as after a crash), and new ones."""
        if not self._passphrase:
            raise Invalid("The offline keys need a passphrase that is not empty.")
        signers = self.signers(role)
        while len(signers) < count:
            signer = new_key(self._algorithm)
            path = self.folder / offline_key_name(role, signer.public_key.keyid)
            write_key(path, signer, self._passphrase)
            signers.append(signer)
        return signers[:count]

    def _paths(self, role: str) -> list[Path]:
        return sorted(self.folder.glob(f"{role}-*.pem"))


def offline_key_name(role: str, key_id: str) -> str:
    """The file name of an offline key, so that it can be told without its passphrase."""
    if role not in OFFLINE:
        raise ValueError(role)
    return f"{role}-{key_id[:_KEY_ID_CHARS]}.pem"


def new_key(algorithm: Algorithm) -> CryptoSigner:
    """A fresh key pair: Ed25519, or ECDSA on P-256."""
    if algorithm == "ed25519":
        return CryptoSigner(ed25519.Ed25519PrivateKey.generate())
    return CryptoSigner(ec.generate_private_key(ec.SECP256R1()))


def read_key(path: Path, passphrase: Secret | None = None) -> CryptoSigner:
    """Read one private key.

    Raises Invalid when others may read the file or it holds no Ed25519 or ECDSA key, Denied when
    the passphrase is wrong, Unavailable when it cannot be read.
    """
    try:
        mode = path.stat().st_mode
        with path.open("rb") as file:
            pem = file.read(MAX_KEY_BYTES + 1)
    except OSError as error:
        raise Unavailable(f"The key {path} cannot be read: {error.strerror}.") from error
    if stat.S_IMODE(mode) & 0o077:
        raise Invalid(f"Others may read the key {path}. Run: chmod 600 {path}")
    password = passphrase.reveal().encode() if passphrase else None
    try:
        private = load_pem_private_key(pem[:MAX_KEY_BYTES], password)
    except TypeError as error:  # encrypted and no passphrase, or the other way round
        raise Invalid(
            f"The key {path} is encrypted where it must not be, or not where it must."
        ) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        if b"ENCRYPTED" in pem:
            raise Denied(f"The passphrase does not open the key {path}.") from error
        raise Invalid(f"{path} holds no private key in PEM form.") from error
    if not isinstance(private, ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey):
        raise Invalid(f"The key {path} is neither an Ed25519 nor an ECDSA key.")
    try:
        return CryptoSigner(private)
    except ValueError as error:
        raise Invalid(f"The key {path} is of a kind that TUF clients do not verify.") from error


def write_key(path: Path, signer: CryptoSigner, passphrase: Secret | None = None) -> None:
    """Write one private key, mode 0600, encrypted if there is a passphrase. Raises Unavailable."""
    encryption: KeySerializationEncryption = NoEncryption()
    if passphrase:
        encryption = BestAvailableEncryption(passphrase.reveal().encode())
    private = load_pem_private_key(signer.private_bytes, None)
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)
    make_folder(path.parent, 0o700)
    write_file(path, pem, mode=0o600)
    sync_folder(path.parent)
