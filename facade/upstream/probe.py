"""What a registry asks for, heard from the registry itself.

Guarantees: the questions go out without any authorization, through the same address, redirect, time and
size rules as every request. Keeps nothing.
"""

from collections.abc import Callable

from facade.oci.reference import Repository
from facade.upstream.body import discard
from facade.upstream.challenge import Challenge
from facade.upstream.client import RegistryClient
from facade.upstream.connection import Authorization, Authorizer, Connection, Scope


class _Listener:
    """An `Authorizer` that has nothing to give and remembers what it was asked for."""

    def __init__(self) -> None:
        self.heard: tuple[Challenge, ...] = ()

    async def authorization(
        self,
        connection: Connection,
        scope: Scope,
        *,
        challenge: tuple[Challenge, ...] = (),
        refused: str | None = None,
    ) -> Authorization:
        self.heard = challenge or self.heard
        return Authorization(None)


async def ask_for_challenge(
    client_with: Callable[[Authorizer], RegistryClient],
    connection: Connection,
    repository: Repository | None,
) -> tuple[Challenge, ...]:
    """The challenges of the registry's base, or else of the repository's tag list; () = none came.

    Arguments:
        client_with: makes a client that is authorized so; it is closed here.

    Raises Upstream when the registry does not answer.
    """
    listener = _Listener()
    client = client_with(listener)
    try:
        for path in ("/v2/", f"/v2/{repository}/tags/list?n=1")[: 2 if repository else 1]:
            reply = await client.open(connection, "GET", path, Scope(repository))
            await discard(reply.response)
            if listener.heard:
                break
        return listener.heard
    finally:
        await client.close()
