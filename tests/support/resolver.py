"""A DNS resolver whose answers a test writes.

Guarantees: only names that were given an answer resolve; each look-up is noted; an answer changes
between two look-ups when the test says so (DNS rebinding) or a sequence of answers was given, whose
last one stays. No name ever reaches the machine's resolver.
"""

import ipaddress
import socket
from collections.abc import Mapping

from aiohttp.abc import AbstractResolver, ResolveResult


class FakeResolver(AbstractResolver):
    """Implements aiohttp's resolver port.

    Arguments:
        answers: name → one address, or several, as text.
    """

    def __init__(self, answers: Mapping[str, str | tuple[str, ...]] | None = None) -> None:
        self._answers: dict[str, list[tuple[str, ...]]] = {}
        self.asked: list[str] = []
        """Every name looked up, in order."""
        self.closed = False
        for name, answer in (answers or {}).items():
            self.set_sequence(name, answer)

    def set(self, name: str, *addresses: str) -> None:
        """From now on `name` has these addresses; none = it does not resolve."""
        self._answers[name.lower()] = [addresses]

    def set_sequence(self, name: str, *answers: str | tuple[str, ...]) -> None:
        """The first look-up of `name` gets the first answer, and so on; the last one stays."""
        self._answers[name.lower()] = [
            (answer,) if isinstance(answer, str) else answer for answer in answers
        ]

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        self.asked.append(host)
        answers = self._answers.get(host.lower(), [()])
        addresses = answers.pop(0) if len(answers) > 1 else answers[0]
        results = [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=family_of(address),
                proto=socket.IPPROTO_TCP,
                flags=socket.AI_NUMERICHOST,
            )
            for address in addresses
            if family in (socket.AF_UNSPEC, family_of(address))
        ]
        if not results:
            raise OSError(socket.EAI_NONAME, f"{host}: the test gave it no address")
        return results

    async def close(self) -> None:
        self.closed = True


def family_of(address: str) -> socket.AddressFamily:
    """AF_INET or AF_INET6. Raises ValueError for what is no IP address."""
    is_v4 = ipaddress.ip_address(address).version == 4
    return socket.AF_INET if is_v4 else socket.AF_INET6
