"""Every harness, by name."""

from collections.abc import Mapping

from tests.fuzz import certificates, device_port, links, metadata, upstream
from tests.fuzz.harness import Harness


def harnesses() -> Mapping[str, Harness]:
    """All of them; makes their keys and seeds anew."""
    rooms = (device_port, certificates, links, upstream, metadata)
    return {harness.name: harness for room in rooms for harness in room.harnesses()}
