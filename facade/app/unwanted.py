"""What libraries load only because it happens to be there: 10 MiB, and a quarter of a start.

Guarantees: after `keep_out` the import of a library fails, which whoever tries it expects; after
`no_plugins` pydantic looks for no plugins of its own, so that no distribution that happens to be installed
runs in a process that holds secrets; what is imported within `no_authorities` has made no use of
the system's certificate authorities, and trusts nobody.
"""

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

BY_ANY_SERVER = ("boto3", "rich")
"""securesystemslib tries the first for AWS keys, structlog the other for coloured tracebacks."""
BY_A_WORKER = (*BY_ANY_SERVER, "greenlet")
"""structlog tries it for thread locals; the control side's database needs it."""

_NOTHING = {"SSL_CERT_FILE": os.devnull, "SSL_CERT_DIR": os.devnull}


def keep_out(names: Iterable[str]) -> None:
    """Have the import of `names` fail in this process, of those not loaded yet."""
    for name in names:
        sys.modules.setdefault(name, None)  # type: ignore[arg-type] # as the import system has it


def no_plugins() -> None:
    """Have pydantic, which is not imported yet, look through no installed distribution for plugins."""
    os.environ["PYDANTIC_DISABLE_PLUGINS"] = "__all__"


@contextmanager
def no_authorities() -> Iterator[None]:
    """While aiohttp is imported, which makes two TLS contexts then that we never use.

    Reading the system's hundred authorities into each takes 20 ms. All our clients give contexts of
    their own (`upstream.tls`); should one not, its https connections fail.
    """
    before = {name: os.environ.get(name) for name in _NOTHING}
    os.environ.update(_NOTHING)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
