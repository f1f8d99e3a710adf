"""Libraries that others load only because they happen to be installed: 10 MiB, and a fifth of a start.

Guarantees: after `keep_out` their import fails, which whoever tries them expects.
"""

import sys
from collections.abc import Iterable

BY_ANY_SERVER = ("boto3", "rich")
"""securesystemslib tries the first for AWS keys, structlog the other for coloured tracebacks."""
BY_A_WORKER = (*BY_ANY_SERVER, "greenlet")
"""structlog tries it for thread locals; the control side's database needs it."""


def keep_out(names: Iterable[str]) -> None:
    """Have the import of `names` fail in this process, of those not loaded yet."""
    for name in names:
        sys.modules.setdefault(name, None)  # type: ignore[arg-type] # as the import system has it
