"""A log on a full disk, without a reader, closed."""

import io
import json
import os

import pytest

from facade.observability.unfailing import Unfailing


def without_reader() -> io.TextIOWrapper:
    """A pipe whose reading end is closed."""
    reading, writing = os.pipe()
    os.close(reading)
    return io.TextIOWrapper(io.FileIO(writing, "w"), write_through=True)


def test_a_full_disk_fails_nobody() -> None:
    with io.TextIOWrapper(io.FileIO("/dev/full", "w"), write_through=True) as full:
        log = Unfailing(full)
        for _ in range(1000):
            log.write("a line\nand another\n")
        assert log.lost == 2000


def test_a_reader_that_is_gone_fails_nobody() -> None:
    with without_reader() as pipe:
        log = Unfailing(pipe)
        log.write("a line\n")
        assert log.lost == 1


def test_a_closed_stream_fails_nobody() -> None:
    stream = io.StringIO()
    stream.close()
    log = Unfailing(stream)
    log.write("a line\n")
    assert log.lost == 1


class Filled(io.StringIO):
    """A stream that fails while `full`."""

    full = True

    def write(self, text: str) -> int:
        if self.full:
            raise OSError(28, "No space left on device")
        return super().write(text)


def test_the_first_line_that_is_written_again_is_followed_by_how_many_were_not() -> None:
    stream = Filled()
    log = Unfailing(stream)
    log.write("one\n")
    log.write("two\n")
    stream.full = False
    log.write("three\n")
    log.write("four\n")
    lines = stream.getvalue().splitlines()
    assert (lines[0], lines[2]) == ("three", "four")
    told = json.loads(lines[1])
    assert (told["event"], told["count"], told["level"]) == ("log_lines_lost", 2, "warning")


@pytest.mark.parametrize("terminal", [True, False])
def test_a_terminal_stays_one(terminal: bool) -> None:
    class Maybe(io.StringIO):
        def isatty(self) -> bool:
            return terminal

    assert Unfailing(Maybe()).isatty() is terminal
