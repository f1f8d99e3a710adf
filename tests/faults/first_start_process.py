"""A process whose first start dies at every rename in turn: run by `test_first_start_kill`.

`python first_start_process.py FOLDER [full]`: for n = 1, 2, …, a child prepares `FOLDER/n` and ends
without any clean-up just before its n-th rename (with `full`: finds the disk full there instead),
then another one prepares the same folder undisturbed. Prints how many places there were, once one
child met none. Each file is written beside its name and renamed, so that these are all the
moments between which a state folder differs.
"""

import errno
import os
import sys
from pathlib import Path

from facade.clock import SystemClock
from facade.errors import FacadeError
from facade.up.first_start import prepare
from facade.up.state import StateFolder

DIED, FULL = 9, 8


class Stop:
    """An audit hook that strikes at the n-th rename, once."""

    def __init__(self, at: int, *, full: bool) -> None:
        self._left = at
        self._full = full

    def __call__(self, event: str, _arguments: tuple[object, ...]) -> None:
        if event != "os.rename":
            return
        self._left -= 1
        if self._left:
            return
        if self._full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os._exit(DIED)


def attempt(folder: Path, at: int = 0, *, full: bool = False) -> int:
    """Prepare `folder` in a child, disturbed at the rename `at` (0 = never); its exit status."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    status = 1
    try:
        if at:
            sys.addaudithook(Stop(at, full=full))
        state = StateFolder(folder)
        state.create()
        prepare(state, [], SystemClock())
        status = 0
    except FacadeError as error:
        print(f"{folder.name}: {error.message}", file=sys.stderr, flush=True)
        status = FULL
    finally:
        os._exit(status)


def main(root: Path, *, full: bool) -> int:
    places = 0
    while True:
        folder = root / str(places + 1)
        first = attempt(folder, places + 1, full=full)
        if first == 0:
            print(places, flush=True)
            return 0
        if first != (FULL if full else DIED):
            print(f"the start disturbed at {folder.name} ended with {first}", file=sys.stderr)
            return 1
        if attempt(folder) != 0:
            print(f"the start after {folder.name} failed", file=sys.stderr)
            return 1
        places += 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), full="full" in sys.argv[2:]))
