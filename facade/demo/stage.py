"""What the demo is told with: numbered steps, commands as one would type them, what was proven.

Guarantees: a command that is shown is the command that was run, through the real command line; one that
fails ends the demo with its own message. Plain text in a pipe, a little colour on a terminal.
"""

import asyncio
import io
import json
import shlex
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from facade.cli.main import main
from facade.cli.session import Session
from facade.errors import FacadeError

_BOLD, _DIM, _GREEN, _RESET = "\x1b[1m", "\x1b[2m", "\x1b[32m", "\x1b[0m"
_SHOWN_CHARS = 120
_UNITS = ("bytes", "KiB", "MiB", "GiB")


class DemoFailed(FacadeError):
    """A step did not do what the demo is there to show."""


@dataclass(slots=True)
class Stage:
    """Where the demo is played.

    Arguments:
        out: where it is told.
        environ: of the commands.
    """

    out: TextIO
    environ: Mapping[str, str]
    _step: int = 0
    _began: float = field(default_factory=time.monotonic)

    def title(self, text: str) -> None:
        """The headline."""
        self._line(self._style(_BOLD, text))

    def step(self, text: str) -> None:
        """The next numbered step."""
        self._step += 1
        elapsed = time.monotonic() - self._began
        heading = self._style(_BOLD, f"{self._step:2}. {text}")
        self._line(f"\n{heading}  {self._style(_DIM, f'[{elapsed:.1f} s]')}")

    def proven(self, text: str) -> None:
        """What the step proved."""
        self._line(f"    {self._style(_GREEN, '✔')} {text}")

    def say(self, text: str = "") -> None:
        """A line of explanation."""
        self._line(f"    {text}" if text else "")

    async def facade(self, *arguments: str | Path, stdin: str = "") -> Any:
        """Show and run `facade ARGUMENTS`; gives the JSON document that `--json` prints.

        Raises DemoFailed with the command's own words.
        """
        words = list(map(str, arguments))
        shown = shlex.join(["facade", *words])
        if len(shown) > _SHOWN_CHARS:
            shown = shown.replace(" --", " \\\n          --")
        self._line(self._style(_DIM, f"    $ {shown}"))
        out, err = io.StringIO(), io.StringIO()
        session = Session(environ=self.environ, stdin=io.StringIO(stdin), stdout=out, stderr=err)
        code = await asyncio.to_thread(main, [*words, "--json"], session)
        if code != 0:
            raise DemoFailed(err.getvalue().strip() or out.getvalue().strip() or f"exit {code}")
        return json.loads(out.getvalue())

    def _style(self, code: str, text: str) -> str:
        return f"{code}{text}{_RESET}" if self.out.isatty() else text

    def _line(self, text: str) -> None:
        print(text, file=self.out, flush=True)


def size(count: int) -> str:
    """Bytes for people."""
    value = float(count)
    for unit in _UNITS:
        if value < 1024 or unit == _UNITS[-1]:
            return f"{count} bytes" if unit == "bytes" else f"{value:.1f} {unit}"
        value /= 1024
    raise AssertionError("unreachable")


def check(condition: object, otherwise: str) -> None:
    """Raise DemoFailed unless `condition`: a demo that only claims proves nothing."""
    if not condition:
        raise DemoFailed(otherwise)
