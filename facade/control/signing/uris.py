"""Keys that lie elsewhere, used through a signer's URI (securesystemslib's own list, nothing of ours).

| URI | where the key is | needs |
|---|---|---|
| `file:/path/key.pem` | a PEM file on this machine, mode 0600 | |
| `awskms:KEY_ID` or `awskms:alias/NAME` | AWS KMS | `securesystemslib[awskms]` |
| `gcpkms:projects/…/cryptoKeyVersions/1` | Google Cloud KMS | `securesystemslib[gcpkms]` |
| `azurekms://VAULT.vault.azure.net/keys/NAME/VERSION` | Azure Key Vault | `securesystemslib[azurekms]` |
| `hv:NAME/VERSION` | HashiCorp Vault's transit engine | `securesystemslib[vault]` |
| `hsm:2?label=LABEL` | a PKCS#11 token (`PYKCS11LIB`; its PIN in the file `pin` among the online keys) | `securesystemslib[hsm]` |

Guarantees: whatever a provider's library raises becomes a sentence of ours; credentials come from where
the provider's own library looks for them, never from the URI. Does not check that the key signs for
what the metadata says: whoever publishes verifies every signature.
"""

from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote, urlsplit

from securesystemslib.exceptions import UnsupportedLibraryError
from securesystemslib.signer import SIGNER_FOR_URI_SCHEME, Key, Signer

from facade.errors import Conflict, Invalid

FILE_SCHEMES = ("file", "file2")


def file_path(uri: str) -> Path | None:
    """The path that a `file:` URI names; None for any other. Raises Invalid for a relative one."""
    parts = urlsplit(uri)
    if parts.scheme not in FILE_SCHEMES:
        return None
    path = Path(unquote(parts.path))
    if parts.netloc not in {"", "localhost"} or not path.is_absolute():
        raise Invalid(f"Write the whole path of the key, like file:/etc/facade/key.pem, not {uri}.")
    return path


def open_uri(uri: str, public: Key, ask: Callable[[str], str]) -> Signer:
    """The signer that a URI names, with its known public part.

    Arguments:
        ask: gives the secret of this name (a token's PIN) when the signer wants one.

    Raises Invalid for an unknown kind, Conflict when it cannot be opened.
    """
    scheme = uri.partition(":")[0]
    if scheme not in SIGNER_FOR_URI_SCHEME:
        known = ", ".join(sorted({"file", *SIGNER_FOR_URI_SCHEME} - {"file2"}))
        raise Invalid(f"There is no signer for {scheme}: URIs. There are: {known}.")
    try:
        return Signer.from_priv_key_uri(uri, public, ask)
    except UnsupportedLibraryError as error:
        raise Conflict(f"The signer of {uri} is not installed: {error}.") from error
    except Exception as error:  # providers raise what they like (their documentation says so)
        raise Conflict(f"The signer of {uri} cannot be used: {error}.") from error
