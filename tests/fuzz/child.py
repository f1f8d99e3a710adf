"""One harness under atheris: `python -m tests.fuzz.child NAME LIBFUZZER-ARGUMENTS…`.

Its process ends with it: libFuzzer never returns. Only `facade`'s own code is instrumented for coverage.
"""

import sys
import tempfile
from pathlib import Path

import atheris

from tests.fuzz.all import harness as load


def main(name: str, arguments: list[str]) -> None:
    """Fuzz until libFuzzer has had enough, from the harness's seeds and findings on."""
    with atheris.instrument_imports(include=["facade"]):
        harness = load(name)
    with (
        tempfile.TemporaryDirectory() as folder
    ):  # left behind when libFuzzer exits: see `__main__`
        seeds = Path(folder)
        inputs = [*harness.seeds, *(path.read_bytes() for path in harness.findings)]
        for number, seed in enumerate(inputs):
            (seeds / str(number)).write_bytes(seed)
        options = [f"-max_len={harness.max_bytes}"]
        if harness.words:
            words = seeds.with_suffix(".dict")
            words.write_text("".join(f'"{_escaped(word)}"\n' for word in harness.words))
            options.append(f"-dict={words}")
        atheris.Setup([sys.argv[0], *arguments, folder, *options], harness.run)
        atheris.Fuzz()


def _escaped(word: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in word)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
