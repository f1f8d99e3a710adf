"""Many devices that arrive together, as a process of its own: `python -m tests.support.arrivals`.

Reads one JSON document on stdin (`Order`), prints one on stdout. Guarantees: each device is one mutual
TLS connection that it opens at its moment within `spread_seconds`, asks for everything in `paths`,
and counts as served only when every body has its digest; nothing is tried twice; the whole ends
after `within_seconds`.
"""

import asyncio
import hashlib
import json
import ssl
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Order:
    """What to do.

    Arguments:
        certificates: a folder with `ca.crt` and pairs `N.cert`, `N.key` from 0 on.
        images: paths of each image's parts, with the SHA-256 of each; device N takes image N modulo
            their number, with certificate N modulo theirs.
    """

    host: str
    port: int
    certificates: str
    identities: int
    devices: int
    spread_seconds: float
    within_seconds: float
    images: list[list[tuple[str, str]]]


def contexts(order: Order) -> list[ssl.SSLContext]:
    folder = Path(order.certificates)
    made = []
    for number in range(order.identities):
        context = ssl.create_default_context(cafile=folder / "ca.crt")
        context.load_cert_chain(folder / f"{number}.cert", folder / f"{number}.key")
        made.append(context)
    return made


async def get(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str, sha256: str
) -> str:
    """`ok`, or what was wrong."""
    writer.write(f"GET {path} HTTP/1.1\r\nHost: facade\r\n\r\n".encode())
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    status = head.split(" ", 2)[1]
    length = next(
        int(line.partition(":")[2])
        for line in head.split("\r\n")
        if line.lower().startswith("content-length:")
    )
    body = await reader.readexactly(length)
    if status != "200":
        return f"{status} {body[:200].decode('latin-1')}"
    return "ok" if hashlib.sha256(body).hexdigest() == sha256 else "wrong bytes"


async def device(order: Order, number: int, context: ssl.SSLContext) -> tuple[str, float]:
    """One device from its arrival to its image: the outcome, and the seconds."""
    await asyncio.sleep(order.spread_seconds * number / order.devices)
    begun = time.monotonic()
    try:
        reader, writer = await asyncio.open_connection(
            order.host,
            order.port,
            ssl=context,
            server_hostname="localhost",
            ssl_handshake_timeout=order.within_seconds,
        )
        try:
            for path, sha256 in order.images[number % len(order.images)]:
                outcome = await get(reader, writer, path, sha256)
                if outcome != "ok":
                    return outcome, time.monotonic() - begun
        finally:
            writer.close()
    except (OSError, ssl.SSLError, asyncio.IncompleteReadError) as error:
        return f"{type(error).__name__}: {error}", time.monotonic() - begun
    return "ok", time.monotonic() - begun


async def run(order: Order) -> dict[str, object]:
    known = contexts(order)
    tasks = [
        asyncio.create_task(device(order, number, known[number % len(known)]))
        for number in range(order.devices)
    ]
    done, late = await asyncio.wait(tasks, timeout=order.within_seconds)
    for task in late:
        task.cancel()
    results = [task.result() for task in done]
    seconds = sorted(taken for _, taken in results)
    return {
        "outcomes": Counter(outcome for outcome, _ in results) + Counter(late=len(late)),
        "median": seconds[len(seconds) // 2],
        "p95": seconds[int(len(seconds) * 0.95)],
        "slowest": seconds[-1],
        "client_cpu": time.process_time(),
    }


def to_json(order: Order) -> str:
    return json.dumps(asdict(order))


if __name__ == "__main__":
    print(json.dumps(asyncio.run(run(Order(**json.load(sys.stdin))))))
