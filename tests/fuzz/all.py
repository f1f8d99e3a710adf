"""Every harness, by name, and the room (module) that it is in.

Guarantees: who wants one harness loads its room alone; that the table is right is a smoke test's to say.
"""

import importlib
from collections.abc import Mapping

from tests.fuzz.harness import Harness

_TABLE = {
    "device_port": """request ranges conditions references proxy-header""",
    "certificates": """certificate certificate-signed identity crl crl-signed device-ca certificate-presented certificate-request""",
    "links": """from-worker from-parent samples findings order""",
    "upstream": """manifest challenge link redirect token retry-after rate-limits tag-list manifest-headers address image-config words""",
    "metadata": """tuf-raw tuf-signed target block-tags""",
    "disk": """index partial-name clock-mark refusal-note served-timestamp""",
    "operator": """redis-url settings names cloud-refusal facade-answer sealed key-ring public-key""",
}
ROOMS: Mapping[str, str] = {name: room for room, names in _TABLE.items() for name in names.split()}
"""By the name of each harness."""


def harness(name: str) -> Harness:
    """One of them, its keys and seeds made anew."""
    return room(ROOMS[name])[name]


def room(name: str) -> Mapping[str, Harness]:
    """Those of one room."""
    found: list[Harness] = importlib.import_module(f"tests.fuzz.{name}").harnesses()
    return {each.name: each for each in found}
