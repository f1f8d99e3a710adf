"""The `facade` command as it is installed: Ctrl-C is heeded while the command is still being loaded.

Guarantees: an interrupt ends with exit code 130 and one line from this module's first statement on.
Imports nothing of the command before that; `main` does everything else.
"""

import sys
from collections.abc import Callable

INTERRUPTED = 130


def run(command: Callable[[], int] | None = None) -> int:
    """Run the command and give its exit code.

    Arguments:
        command: instead of `facade.cli.main.main`.
    """
    try:
        return command() if command is not None else _command()
    except KeyboardInterrupt:
        return _interrupted()
    except RuntimeError as error:
        # Python 3.11 turns what is raised in a class body's __set_name__ into a RuntimeError.
        if isinstance(error.__cause__, KeyboardInterrupt):
            return _interrupted()
        raise


def _command() -> int:
    from facade.cli.main import main

    return main()


def _interrupted() -> int:
    print("facade: interrupted.", file=sys.stderr)
    return INTERRUPTED
