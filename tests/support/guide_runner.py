"""Runs the commands of the guides as they stand, against a registry that answers as ghcr.io.

Guarantees: meant to be started in a mount namespace of its own, where /etc/hosts may say who ghcr.io is;
the facade believes the registry's certificate because SSL_CERT_FILE names its CA. Prints each command and
ends with 1 at the first that fails.

    unshare --mount python -m tests.support.guide_runner FOLDER GUIDE…
"""

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.support.facade_process import facade_up
from tests.support.image import add_referrer, small_image
from tests.support.pki import Authority, server_context
from tests.support.registry import Registry

_CONSOLE = re.compile(r"^```console\n(.*?)^```", re.MULTILINE | re.DOTALL)
_REPOSITORY = "acme/kiosk"
_TAGS = ("v1.4.1", "v1.4.2", "v1.4.3")


def commands(guide: str) -> Sequence[str]:
    """The commands of a guide's console blocks: what follows `$ `, joined over backslashes."""
    lines = "\n".join(_CONSOLE.findall(guide)).replace("\\\n", " ").splitlines()
    return [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]


async def _main(folder: Path, guides: Sequence[Path]) -> int:
    authority = Authority.root("Registry CA")
    ca = authority.write(folder, "registry-ca.crt")
    _know_ghcr(folder)
    _make_facade_command(folder / "bin")
    async with Registry(tls=server_context(authority.server("ghcr.io")), name="ghcr.io") as made:
        await made.stop()
        await made.start(443)
        for tag in _TAGS:
            image, _ = add_referrer(small_image(tag), "application/vnd.example.signature", b"by us")
            made.add_image(_REPOSITORY, image, tag)
        for guide in guides:
            place = folder / guide.stem
            place.mkdir()
            env = {"SSL_CERT_FILE": str(ca)}
            async with facade_up(place / ".facade", "--name", "facade.example", env=env) as facade:
                await facade.must("registry", "add", "ghcr.io", "--anonymous")
                before = "facade artifact import ghcr.io/acme/kiosk:v1.4.1 --fleet dev"
                if guide.stem == "withdraw-an-image":
                    before = before.replace("v1.4.1", "v1.4.2")
                for command in (before, *commands(guide.read_text())):
                    print(f"{guide.stem}$ {command}", flush=True)
                    if await asyncio.to_thread(_run, command, place, folder / "bin"):
                        return 1
    return 0


def _know_ghcr(folder: Path) -> None:
    hosts = folder / "hosts"
    hosts.write_text("127.0.0.1 localhost ghcr.io facade.example\n")
    subprocess.run(["mount", "--bind", str(hosts), "/etc/hosts"], check=True)


def _make_facade_command(folder: Path) -> None:
    """`facade`, as it is installed."""
    folder.mkdir()
    (folder / "facade").write_text(f'#!/bin/sh\nexec {sys.executable} -m facade.cli.main "$@"\n')
    (folder / "facade").chmod(0o755)


def _run(command: str, place: Path, binaries: Path) -> int:
    path = f"{binaries}:{os.environ['PATH']}"
    root = str(Path(__file__).parents[2])
    env = {**os.environ, "PATH": path, "PYTHONPATH": root}
    done = subprocess.run(
        command, shell=True, check=False, cwd=place, env=env, stdin=subprocess.DEVNULL
    )
    return done.returncode


if __name__ == "__main__":
    sys.exit(asyncio.run(_main(Path(sys.argv[1]), [Path(name) for name in sys.argv[2:]])))
