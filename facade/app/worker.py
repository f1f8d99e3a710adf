"""Entry point of a serving process: what `facade up` starts `device.workers` times.

    python -m facade.app.worker     (its order comes on standard input, its reports leave on standard output)

Guarantees: what other libraries load only because it happens to be installed stays out: 10 MiB and a
quarter of the start. Not for people: `facade up` gives the order.
"""

import sys

UNWANTED = ("boto3", "greenlet", "rich")
"""securesystemslib tries the first for AWS keys, structlog the others for thread locals and coloured tracebacks."""


def main() -> int:
    """Run one; gives the exit status."""
    for name in UNWANTED:
        sys.modules.setdefault(name, None)  # type: ignore[arg-type] # makes its import fail
    # After that, or they would be loaded.
    from facade.app.serving_process import run  # noqa: PLC0415

    return run(sys.stdin.fileno(), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
