"""The user that workers run as, when that is another than the parent's.

Guarantees: a name that does not exist, is root, or cannot be taken on is refused with a sentence at
the start; `become` gives up every right of the former user, or raises. Does not open folders to
that user: `ground` does.
"""

import os
import pwd
from dataclasses import dataclass

from facade.config import Settings
from facade.errors import Invalid


@dataclass(frozen=True, slots=True)
class WorkerUser:
    """A user of this machine."""

    name: str
    uid: int
    gid: int

    @classmethod
    def named(cls, name: str) -> "WorkerUser":
        """Look `name` up. Raises Invalid when workers cannot run as that user."""
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            raise Invalid(
                f"device.worker_user: there is no user {name!r} on this machine. Make one, like: "
                f"useradd --system --no-create-home {name}"
            ) from None
        if entry.pw_uid == 0:
            raise Invalid("device.worker_user: root has every right; name a user that has none.")
        if os.geteuid() not in (0, entry.pw_uid):
            raise Invalid(
                f"device.worker_user: only root can run workers as {name!r}. Start facade up as "
                "root, or leave worker_user out."
            )
        return cls(name, entry.pw_uid, entry.pw_gid)

    @property
    def is_us(self) -> bool:
        """Whether this process runs as that user already."""
        return os.geteuid() == self.uid

    def become(self) -> None:
        """Run as that user from now on, for good. Raises Invalid when that is not possible."""
        if self.is_us:
            return
        try:
            os.initgroups(self.name, self.gid)
            os.setresgid(self.gid, self.gid, self.gid)
            os.setresuid(self.uid, self.uid, self.uid)
        except OSError as error:
            raise Invalid(f"Workers cannot run as {self.name}: {error.strerror}.") from error


def worker_user(settings: Settings) -> WorkerUser | None:
    """Whom workers run as, when that is not us. Raises Invalid."""
    if settings.device.worker_user is None:
        return None
    user = WorkerUser.named(settings.device.worker_user)
    return None if user.is_us else user
