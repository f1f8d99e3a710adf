"""Who has outstayed: the watchdog's verdicts."""

from facade.serving.identity.limits import TlsLimits, Verdict, Watchdog

LIMITS = TlsLimits(
    idle_seconds=75, silence_seconds=3600, stall_seconds=30, min_bytes_per_second=100
)


def test_a_client_that_never_asked_anything_is_idle() -> None:
    dog = Watchdog(LIMITS, now=0)
    assert dog.look(74, sent=0, buffered=0) is Verdict.KEEP
    assert dog.look(75, sent=0, buffered=0) is Verdict.CLOSE


def test_a_client_that_waits_for_the_rest_of_its_answer_is_not() -> None:
    dog = Watchdog(LIMITS, now=0)
    dog.asked = True
    assert dog.look(3599, sent=100, buffered=0) is Verdict.KEEP
    assert dog.look(3600, sent=100, buffered=0) is Verdict.CLOSE


def test_words_either_way_begin_the_silence_anew() -> None:
    dog = Watchdog(LIMITS, now=0)
    dog.asked = True
    dog.last = 100
    assert dog.look(3699, sent=0, buffered=0) is Verdict.KEEP
    assert dog.look(3700, sent=0, buffered=0) is Verdict.CLOSE


def test_bytes_that_trickle_are_no_request() -> None:
    dog = Watchdog(LIMITS, now=0)
    dog.last = 74
    assert dog.look(75, sent=0, buffered=0) is Verdict.CLOSE


def test_a_client_that_takes_nothing_is_cut() -> None:
    dog = Watchdog(LIMITS, now=0)
    assert dog.look(15, sent=1000, buffered=50_000) is Verdict.KEEP
    assert dog.look(30, sent=1000, buffered=50_000) is Verdict.KEEP
    assert dog.look(45, sent=1000, buffered=50_000) is Verdict.CUT


def test_a_client_that_takes_too_little_is_cut() -> None:
    dog = Watchdog(LIMITS, now=0)
    dog.look(0, sent=0, buffered=50_000)
    assert dog.look(30, sent=2_999, buffered=60_000) is Verdict.CUT


def test_a_slow_client_at_the_minimum_rate_is_kept_for_ever() -> None:
    dog = Watchdog(LIMITS, now=0)
    for number in range(100):
        assert dog.look(30 * number, sent=3_000 * number, buffered=50_000) is Verdict.KEEP


def test_a_client_that_took_all_there_was_is_kept_however_little_it_was() -> None:
    dog = Watchdog(LIMITS, now=0)
    dog.look(0, sent=0, buffered=10)
    assert dog.look(30, sent=10, buffered=20) is Verdict.KEEP


def test_nobody_is_idle_while_bytes_wait_for_them() -> None:
    dog = Watchdog(TlsLimits(idle_seconds=10), now=0)
    assert dog.look(29, sent=0, buffered=1) is Verdict.KEEP


def test_the_time_for_a_first_request_begins_anew_with_each_answer_given_before_the_http_server() -> (
    None
):
    dog = Watchdog(LIMITS, now=0)
    dog.asked, dog.last = True, LIMITS.idle_seconds - 1  # as writing the answer left it
    dog.begin()
    assert dog.look(LIMITS.idle_seconds, sent=9, buffered=0) is Verdict.KEEP
    assert dog.look(2 * LIMITS.idle_seconds - 1, sent=9, buffered=0) is Verdict.CLOSE
