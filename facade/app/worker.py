"""Entry point of a serving process: what `facade up` starts `device.workers` times.

    python -m facade.app.worker FD     (its order comes on standard input, its reports leave on standard
                                        output, its signs of life by the descriptor FD)

Guarantees: what other libraries load only because it happens to be installed stays out: 10 MiB and a
quarter of the start, which is imports but for a thirtieth. Not for people: `facade up` gives the order.
"""

import gc
import sys
from collections.abc import Callable

from facade.app.unwanted import BY_A_WORKER, keep_out, no_authorities, no_plugins


def main() -> int:
    """Run one; gives the exit status."""
    # Hardly anything that is made while it starts is garbage, and looking for it is an eighth of that
    # time. `run` switches the collector on when it serves.
    gc.disable()
    return load()(sys.stdin.fileno(), sys.stdout.fileno(), int(sys.argv[1]))


def load() -> Callable[[int, int, int], int]:
    """What serves, given the descriptors of orders, reports and signs; nothing may be loaded before."""
    keep_out(BY_A_WORKER)
    no_plugins()
    with no_authorities():
        from facade.app.serving_process import run  # noqa: PLC0415
    return run


if __name__ == "__main__":
    sys.exit(main())
