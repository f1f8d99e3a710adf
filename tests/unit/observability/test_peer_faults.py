"""Malformed requests in the log: a line without a traceback, and not one for each."""

import logging

from aiohttp.http_exceptions import BadStatusLine

from facade.observability.peer_faults import LINES, WINDOW_SECONDS, PeerFaults


def record(
    error: Exception, *, logger: str = "aiohttp.server", at: float = 0.0
) -> logging.LogRecord:
    info = (type(error), error, None)
    made = logging.LogRecord(
        logger, logging.ERROR, __file__, 1, "Error handling request from %s", ("::1",), info
    )
    made.created = at
    return made


def test_a_malformed_request_is_a_warning_without_a_traceback() -> None:
    made = record(BadStatusLine("GET secret-looking"))
    assert PeerFaults().filter(made)
    assert (made.levelname, made.exc_info) == ("WARNING", None)
    assert made.getMessage() == "Error handling request from ::1: malformed (BadStatusLine)"


def test_a_fault_of_ours_stays_an_error() -> None:
    for made in (record(KeyError("x")), record(BadStatusLine("x"), logger="other")):
        assert PeerFaults().filter(made)
        assert made.levelname == "ERROR"
        assert made.exc_info


def test_a_flood_shows_so_many_lines_per_minute() -> None:
    faults = PeerFaults()
    shown = [faults.filter(record(BadStatusLine("x"), at=100.0)) for _ in range(1000)]
    assert sum(shown) == LINES
    assert faults.filter(record(BadStatusLine("x"), at=100.0 + WINDOW_SECONDS))
