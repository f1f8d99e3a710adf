"""File descriptors: as many as this process may have, and how many of them connections may take.

Guarantees: `raise_limit` never lowers a limit and never fails; what runs under it (workers) inherits it.
Does not guarantee that descriptors suffice: whoever runs out waits or refuses, and goes on.
"""

import resource

RESERVE = 256
"""Descriptors for everything that is no device's connection: cache files, registries, database."""


def raise_limit() -> int:
    """Raise the soft limit to the hard one, as any process may; returns what there is now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError):  # some kernels cap below a hard limit of "unlimited"
            return soft
    return hard


def for_connections() -> int:
    """How many connections leave enough descriptors for what is done on them."""
    soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return 2**31
    return max(1, soft - min(RESERVE, soft // 2))
