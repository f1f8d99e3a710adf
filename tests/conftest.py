"""How several processes share the suite (`make test`; pytest-xdist).

Guarantees: the tests of one module run in one process, in their order, with its fixtures made once;
those that drive container clients run one after another, for they share the machine's daemons, bridges
and firewall. These begin first, then the modules with slow tests: a long one must not be the last.
"""

import pytest
from xdist.remote import Producer
from xdist.scheduler.loadscope import LoadScopeScheduling

CLIENTS = "tests/clients/"


class Modules(LoadScopeScheduling):  # type: ignore[misc]  # xdist ships no types
    """One module is one piece of work, and all clients together are one."""

    def _split_scope(self, nodeid: str) -> str:
        return CLIENTS if nodeid.startswith(CLIENTS) else nodeid.partition("::")[0]


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Modules:
    """xdist's hook (`--dist` has no say)."""
    config.option.loadscopereorder = False
    return Modules(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put what takes long first; the order within a module stays."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: (not item.nodeid.startswith(CLIENTS), item.path not in slow))
