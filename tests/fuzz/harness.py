"""What a fuzz harness is, and what it promises about whatever bytes it is given.

Guarantees: `Harness.run` returns, or raises `FacadeError` inside and swallows it: any other exception leaves it
and is a finding. A property that does not hold is an AssertionError, which is a finding too. Bounds on time and
memory are the runner's (`__main__`: libFuzzer's) and the smoke test's.
"""

import json
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from facade.errors import FacadeError

FINDINGS = Path(__file__).parent / "findings"
"""Inputs that once broke something, by harness: kept, and run again by the smoke test."""


@dataclass(frozen=True, slots=True)
class Harness:
    """One parser under fire.

    Arguments:
        call: gets the input; may raise FacadeError.
        seeds: good and nearly good inputs to start from.
        words: of its grammar, for the mutator.
        max_bytes: longest input worth trying.
    """

    name: str
    call: Callable[[bytes], None]
    seeds: Sequence[bytes]
    words: Sequence[bytes] = field(default=())
    max_bytes: int = 4096

    def run(self, data: bytes) -> None:
        """Try one input."""
        try:
            with warnings.catch_warnings():
                # Libraries warn about odd input; that is their way of taking it.
                warnings.simplefilter("ignore")
                self.call(data)
        except FacadeError as error:
            assert error.message, "a refusal without words"

    @property
    def findings(self) -> list[Path]:
        """Inputs that broke it once."""
        return sorted((FINDINGS / self.name).glob("*"))


def fields(data: bytes, count: int) -> list[str]:
    """`count` texts out of one input, split at NUL; what is missing is empty.

    Header fields and paths come to our parsers as aiohttp decodes them: UTF-8 with lone surrogates.
    """
    parts = data.decode("utf-8", "surrogateescape").split("\0", count - 1)
    return parts + [""] * (count - len(parts))


def as_json(document: object) -> bytes:
    """A seed that is JSON."""
    return json.dumps(document).encode()
