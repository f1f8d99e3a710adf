"""The command line on a real terminal (a pty) and in a pipe, against a `facade up`.

On a terminal: a moving bar and tables. In a pipe: plain lines, nothing that moves a cursor.
"""

import asyncio
import os
import pty
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.facade_process import FacadeProcess, facade_up
from tests.support.image import make_image
from tests.support.misbehaviour import trickle
from tests.support.people import connect
from tests.support.registry import Registry

REPOSITORY = "org/app"
TAGS = ("v1", "v2", "v3")
SECONDS = 30.0


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[tuple[FacadeProcess, str]]:
    """A facade and the host of a registry whose blobs take a moment."""
    async with Registry() as registry, facade_up(tmp_path / "state") as facade:
        for tag in TAGS:
            image = make_image(line=tag, payload_bytes=100_000)
            registry.add_image(REPOSITORY, image, tag)
        registry.script("*/blobs/*", trickle(20_000, 0.1), method="GET")
        yield facade, await connect(facade, registry)


async def on_a_terminal(facade: FacadeProcess, *arguments: str, typed: str = "") -> tuple[int, str]:
    """Run a command whose three streams are one terminal: (exit code, everything it showed)."""
    ours, theirs = pty.openpty()
    environ = {**os.environ, "FACADE_STATE": str(facade.state), "TERM": "xterm", "COLUMNS": "120"}
    try:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "facade.cli.main", *arguments),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=environ,
        )
    finally:
        os.close(theirs)
    os.write(ours, typed.encode())
    async with asyncio.timeout(SECONDS):
        shown = await asyncio.to_thread(_read_all, ours)
        code = await process.wait()
    os.close(ours)
    return code, shown


def _read_all(fd: int) -> str:
    data = b""
    with suppress(OSError):  # EIO: the other side is closed
        while chunk := os.read(fd, 65536):
            data += chunk
    return data.decode()


async def test_an_import_shows_a_bar_and_a_table_on_a_terminal(
    shop: tuple[FacadeProcess, str],
) -> None:
    facade, host = shop
    names = [f"{host}/{REPOSITORY}:{tag}" for tag in (*TAGS, "gone")]
    code, shown = await on_a_terminal(
        facade, "artifact", "import", *names, "--fleet", "dev", "--warm"
    )
    assert code == 1
    assert "\x1b[" in shown, "the bar moves"
    assert "4/4" in shown
    assert "warming" in shown
    assert "blobs" in shown
    assert "STATUS" in shown
    assert "dev/app/v3" in shown
    assert "1 of 4 failed" in shown

    code, shown = await on_a_terminal(facade, "artifact", "withdraw", "dev/app/v1", typed="n\n")
    assert (code, "Withdraw dev/app/v1?" in shown) == (1, True)
    code, shown = await on_a_terminal(facade, "artifact", "withdraw", "dev/app/v1", typed="y\n")
    assert (code, "Withdrew dev/app/v1." in shown) == (0, True)


async def test_the_same_import_is_plain_lines_in_a_pipe(shop: tuple[FacadeProcess, str]) -> None:
    facade, host = shop
    names = [f"{host}/{REPOSITORY}:{tag}" for tag in TAGS]
    done = await facade.must("artifact", "import", *names, "--fleet", "dev", "--warm")
    assert "\x1b" not in done.stdout + done.stderr
    assert [line.split("\t")[1:3] for line in done.stdout.splitlines()] == [
        ["imported", f"dev/app/{tag}"] for tag in TAGS
    ]
    told = done.stderr.splitlines()
    assert [f"{tag} imported" for tag in TAGS] == told[-3:]
    assert sum("warmed" in line for line in told) == len(TAGS)
    warm = await facade.must("artifact", "warm", "dev/app/v1", "--json")
    assert warm.json["ok"]
    assert all(blob["cached"] for blob in warm.json["results"])


@pytest.mark.parametrize(
    ("shell", "words", "offered"),
    [
        ("bash", "facade regi", "registry"),
        ("bash", "facade artifact import --fl", "--fleet"),
        ("bash", "facade runtime-config cont", "containerd"),
        ("zsh", "facade registry ", "rotate"),
        ("fish", "facade artifact im", "import"),
    ],
)
async def test_shells_complete_commands_options_and_choices(
    shell: str, words: str, offered: str
) -> None:
    environ = _completing(shell, words)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", "from facade.cli.main import main; main([])"),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, **environ},
    )
    out, _ = await process.communicate()
    assert offered in out.decode()


def _completing(shell: str, words: str) -> Mapping[str, str]:
    """What each shell's completion script sets (typer's protocol)."""
    if shell == "bash":
        return {
            "_FACADE_COMPLETE": "complete_bash",
            "COMP_WORDS": words,
            "COMP_CWORD": str(len(words.split(" ")) - 1),
        }
    return {
        "_FACADE_COMPLETE": f"complete_{shell}",
        "_TYPER_COMPLETE_ARGS": words,
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }
