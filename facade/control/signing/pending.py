"""The change that waits for offline signatures, kept beside the repository.

Guarantees: at most one, whole or not there; reading it checks it as any carried file is checked. It
grants nothing: clients never see it, and publication verifies every signature again.
"""

from pathlib import Path

from facade.control.signing.files import make_folder, sync_folder, write_file
from facade.control.signing.proposal import MAX_BYTES, Proposal
from facade.errors import Invalid, NotFound, Unavailable

FILE_NAME = "pending.json"


class Pending:
    """In a repository folder. Changes need the repository's lock."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / FILE_NAME

    def load(self) -> Proposal | None:
        """What waits, if anything. Raises Invalid, Integrity, Unavailable."""
        return read_proposal(self._path) if self._path.exists() else None

    def save(self, proposal: Proposal) -> None:
        """Let this wait. Raises Unavailable."""
        make_folder(self._folder, 0o755)
        write_file(self._path, proposal.to_bytes())
        sync_folder(self._folder)

    def discard(self) -> bool:
        """Forget it. Returns whether there was anything."""
        try:
            self._path.unlink()
        except FileNotFoundError:
            return False
        except OSError as error:
            raise Unavailable(f"{self._path} cannot be removed: {error.strerror}.") from error
        sync_folder(self._folder)
        return True


def read_proposal(path: Path) -> Proposal:
    """Read a carried file. Raises NotFound, Invalid, Integrity, Unavailable."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise NotFound(f"There is no file {path}.") from error
    except OSError as error:
        raise Unavailable(f"{path} cannot be read: {error.strerror}.") from error
    if len(data) > MAX_BYTES:
        raise Invalid(f"{path} is larger than {MAX_BYTES} bytes: that is no carried file.")
    return Proposal.from_bytes(data)
