"""Debian's Prometheus on a free port of loopback, scraping what a test names, and its query API.

Guarantees: it is ended by its process id; everything it writes is below the folder given. It scrapes every
second and keeps the job name `facade`, by which rules and dashboard go.
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from tests.support.docker_registry import free_port

_START_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Prometheus:
    """A running server."""

    url: str

    async def get(self, path: str, **parameters: str) -> Any:
        """The `data` of an API answer; a refused query is an AssertionError in its own words."""
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"{self.url}/api/v1/{path}", params=parameters) as answered,
        ):
            document = await answered.json()
            assert document["status"] == "success", document.get("error")
            return document["data"]

    async def query(self, expression: str) -> list[dict[str, Any]]:
        """An instant vector: items of `metric` and `value`."""
        result: list[dict[str, Any]] = (await self.get("query", query=expression))["result"]
        return result

    async def until(self, expression: str, seconds: float = 15.0) -> list[dict[str, Any]]:
        """What the expression gives as soon as it gives anything."""
        async with asyncio.timeout(seconds):
            while not (found := await self.query(expression)):  # noqa: ASYNC110 - there is no event
                await asyncio.sleep(0.25)
        return found


def _configure(folder: Path, targets: Sequence[str], rules: Path | None) -> Path:
    configuration = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(rules.absolute())] if rules else [],
        "scrape_configs": [{"job_name": "facade", "static_configs": [{"targets": list(targets)}]}],
    }
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "prometheus.yml"
    file.write_text(json.dumps(configuration))  # JSON is YAML
    return file


@asynccontextmanager
async def prometheus(
    folder: Path, *targets: str, rules: Path | None = None
) -> AsyncIterator[Prometheus]:
    """Start it.

    Arguments:
        targets: HOST:PORT of metrics ports.
        rules: a rule file, evaluated every second.
    """
    configuration = _configure(folder, targets, rules)
    port = free_port()
    with (folder / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            "prometheus",
            f"--config.file={configuration}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
            stdout=log,
            stderr=log,
        )
    try:
        server = Prometheus(f"http://127.0.0.1:{port}")
        await _answers(server, process, folder / "log")
        yield server
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def _answers(server: Prometheus, process: asyncio.subprocess.Process, log: Path) -> None:
    try:
        async with asyncio.timeout(_START_SECONDS):
            while process.returncode is None:
                try:
                    await server.get("status/buildinfo")
                except (aiohttp.ClientError, AssertionError):
                    await asyncio.sleep(0.1)
                else:
                    return
    except TimeoutError:
        pass
    words = await asyncio.to_thread(log.read_text)
    raise AssertionError(f"Prometheus did not start:\n{words[-2000:]}")


_FOR = re.compile(r"^( +for: )\S+", re.MULTILINE)
_WINDOW = re.compile(r"(?<=\[)\d+[smhd](?=\])|(?<=offset )\d+[smhd]")


def hastened(rules: str, *, window: str = "15s") -> str:
    """The rules with every waiting time and every window shortened, for provoking them within a test.

    Thresholds stay as they are: what counts as much, late or little is part of what is tried.

    Arguments:
        rules: the text of a rule file.
        window: instead of every range and offset.
    """
    return _WINDOW.sub(window, _FOR.sub(r"\g<1>1s", rules))
