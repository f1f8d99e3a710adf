"""The codecs between our processes: what goes in comes out, and nothing else comes in."""

import json
from collections.abc import Callable
from typing import Any, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facade.control.api.paging import moment
from facade.errors import (
    Conflict,
    Denied,
    FacadeError,
    Integrity,
    Invalid,
    NotFound,
    Unavailable,
    Upstream,
)
from facade.link import cache_codec, codec, errors_codec, events_codec, feed_codec
from facade.link.feed_codec import Frame, Position
from facade.link.strict import Malformed, dump, load
from facade.oci.digest import Digest
from facade.oci.host import RegistryHost
from facade.oci.reference import Repository
from facade.reasons import Reason
from facade.secret import Secret
from facade.upstream.challenge import Challenge
from facade.upstream.connection import Authorization, Connection, ConnectionSettings, Scope
from facade.upstream.failures import Broken
from facade.wings import (
    CacheStatus,
    ConnectionUsed,
    ControlSnapshot,
    IntegrityFailed,
    Pulled,
    Revocations,
    WarmResult,
)
from tests.support.oci_values import digests, hosts, repositories

T = TypeVar("T")

texts = st.text(max_size=30)
whole = st.integers(-(2**63) + 1, 2**63 - 1)
counts = st.integers(0, 2**63 - 1)
numbers = st.floats(allow_nan=False)
moments = st.floats(0, events_codec.MAX_MOMENT)
reasons = st.none() | st.sampled_from(Reason)
connections = st.builds(
    Connection,
    id=texts,
    host=hosts,
    provider=texts,
    revision=whole,
    settings=st.builds(
        ConnectionSettings,
        insecure=st.booleans(),
        ca_pem=st.none() | texts,
        auth_hosts=st.lists(texts, max_size=3).map(tuple),
        proxy=st.none() | texts,
    ),
)
challenges = st.builds(Challenge, texts, st.dictionaries(texts, texts, max_size=3))
requests = st.tuples(
    connections,
    st.builds(Scope, st.none() | repositories, st.lists(texts, max_size=3).map(tuple)),
    st.lists(challenges, max_size=3).map(tuple),
    st.none() | texts,
)
authorizations = st.builds(Authorization, st.none() | texts.map(Secret), texts, st.none() | numbers)
snapshots = st.builds(
    ControlSnapshot,
    whole,
    st.lists(connections, max_size=3).map(lambda found: {each.host: each for each in found}),
    st.builds(
        Revocations,
        st.dictionaries(st.tuples(texts, texts), numbers, max_size=4),
        st.frozensets(st.tuples(texts, texts), max_size=4),
    ),
)
frames = st.builds(Position, texts, whole).flatmap(
    lambda position: (
        st.just(Frame(position))
        | snapshots.map(
            lambda snapshot: Frame(Position(position.epoch, snapshot.generation), snapshot)
        )
    )
)
events = (
    st.builds(ConnectionUsed, texts, moments, st.none() | texts)
    | st.builds(Pulled, moments, texts, texts, texts, texts, texts, texts, reasons, counts, texts)
    | st.builds(IntegrityFailed, moments, texts, texts, texts, texts)
)
warm_requests = st.tuples(connections, repositories, digests, whole, st.booleans())
warm_results = st.builds(WarmResult, digests, whole, st.booleans(), st.none() | texts)
statuses = st.builds(CacheStatus, whole, whole, st.none() | whole, whole, whole)

CODECS: dict[str, tuple[st.SearchStrategy[Any], Callable[[Any], bytes], Callable[[bytes], Any]]] = {
    "authorization request": (
        requests,
        lambda value: dump(codec.authorization_request_out(*value)),
        lambda data: codec.authorization_request_in(load(data)),
    ),
    "authorization": (
        authorizations,
        lambda value: dump(codec.authorization_out(value)),
        lambda data: codec.authorization_in(load(data)),
    ),
    "manifest request": (
        st.tuples(hosts, repositories, digests),
        lambda value: dump(codec.manifest_request_out(*value)),
        lambda data: codec.manifest_request_in(load(data)),
    ),
    "frame": (
        frames,
        lambda value: feed_codec.frame_out(value)[4:],
        feed_codec.frame_in,
    ),
    "position": (
        st.builds(Position, texts, whole),
        feed_codec.position_out,
        feed_codec.position_in,
    ),
    "event": (
        events,
        lambda value: dump(events_codec.event_out(value)),
        lambda data: events_codec.event_in(load(data)),
    ),
    "warm request": (
        warm_requests,
        lambda value: dump(cache_codec.warm_request_out(value)),
        lambda data: cache_codec.warm_request_in(load(data)),
    ),
    "warm result": (
        warm_results,
        lambda value: dump(cache_codec.warm_result_out(value)),
        lambda data: cache_codec.warm_result_in(load(data)),
    ),
    "status": (
        statuses,
        lambda value: dump(cache_codec.status_out(value)),
        lambda data: cache_codec.status_in(load(data)),
    ),
    "counts": (
        st.tuples(counts, counts),
        lambda value: dump(list(value)),
        lambda data: cache_codec.counts_in(load(data)),
    ),
    "flag": (st.booleans(), dump, lambda data: cache_codec.flag_in(load(data))),
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=12,
)


@pytest.mark.parametrize("name", CODECS)
@settings(max_examples=60)
@given(data=st.data())
def test_what_goes_in_comes_out(name: str, data: st.DataObject) -> None:
    strategy, encode, decode = CODECS[name]
    value = data.draw(strategy)
    got = decode(encode(value))
    assert got == value
    assert type(got) is type(value)


@pytest.mark.parametrize("name", CODECS)
@settings(max_examples=60)
@given(data=st.data())
def test_whatever_else_comes_is_malformed(name: str, data: st.DataObject) -> None:
    """Any bytes, any JSON, and a true message with one value in it exchanged for anything."""
    strategy, encode, decode = CODECS[name]
    true = encode(data.draw(strategy))
    message = data.draw(
        st.binary(max_size=40)
        | JSON.map(lambda value: json.dumps(value).encode())
        | st.builds(_exchanged, st.just(true), st.randoms(use_true_random=False), JSON)
    )
    try:
        got = decode(message)
    except Malformed:
        return
    assert decode(encode(got)) == got, "what is taken is a value like any other"


def _exchanged(message: bytes, random: Any, value: object) -> bytes:
    """The message with one of its values, fields or items exchanged, added or dropped."""
    document = json.loads(message)
    holders: list[Any] = []

    def walk(node: object) -> None:
        if isinstance(node, dict | list):
            holders.append(node)
            for each in node.values() if isinstance(node, dict) else node:
                walk(each)

    walk(document)
    if not holders:
        return json.dumps(value).encode()
    holder = random.choice(holders)
    if isinstance(holder, list):
        holder.insert(random.randint(0, len(holder)), value)
    else:
        name = random.choice([*holder, "another"])
        if name in holder and random.random() < 0.3:
            del holder[name]
        else:
            holder[name] = value
    return json.dumps(document).encode()


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"[" * 100_000,
        b'{"a":1,"a":2}',
        b"1" * 10_000,
        b'"\xff"',
        b"NaN",
        b"Infinity",
        b"{} {}",
    ],
    ids=lambda message: repr(message[:12]),
)
def test_odd_json_is_malformed(message: bytes) -> None:
    with pytest.raises(Malformed):
        load(message)


def test_a_number_out_of_range_is_malformed() -> None:
    status = cache_codec.status_out(CacheStatus(1, 2, 3, 4, 5))
    for value in (2**63, True, 1.0, "1", None):
        with pytest.raises(Malformed):
            cache_codec.status_in({**status, "objects": value})


def test_a_host_in_another_spelling_is_malformed() -> None:
    """There is one spelling per host; a second one would be a second connection."""
    request = codec.manifest_request_out(RegistryHost("ghcr.io"), Repository("a"), Digest.of(b"x"))
    with pytest.raises(Malformed):
        codec.manifest_request_in({**request, "registry": "GHCR.io"})


def test_a_device_that_stands_twice_in_a_snapshot_is_malformed() -> None:
    """The later entry would hide the earlier one's revocation."""
    document = codec.snapshot_out(ControlSnapshot())
    document["devices"] = [["dev", "kiosk", "inf"], ["dev", "kiosk", 1.0]]
    with pytest.raises(Malformed):
        codec.snapshot_in(document)


ERRORS: list[FacadeError] = [
    FacadeError("m"),
    Invalid("m", reason=Reason.NAME_INVALID),
    Conflict("m"),
    Denied("m", reason=Reason.HOST_NOT_CONNECTED),
    NotFound("m"),
    Upstream("m", reason=Reason.UPSTREAM_REFUSED, status=401, retry_after=2.5),
    Upstream("m", reason=Reason.DEADLINE),
    Integrity("m"),
    Unavailable("m", retry_after=1.0),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_arrives_as_it_was(error: FacadeError) -> None:
    got = errors_codec.error_in(load(dump(errors_codec.error_out(error))))
    assert type(got) is type(error)
    assert vars(got) == vars(error)


def test_an_error_of_another_room_arrives_as_the_nearest_of_the_tree() -> None:
    error = Broken("It is away.", reached=False, transient=True)
    got = errors_codec.error_in(load(dump(errors_codec.error_out(error))))
    assert type(got) is Upstream
    assert (got.message, got.reason) == ("It is away.", Reason.UPSTREAM_UNREACHABLE)


@given(JSON | st.sampled_from(ERRORS).map(errors_codec.error_out), st.data())
def test_an_error_that_is_none_is_malformed(document: object, data: st.DataObject) -> None:
    if isinstance(document, dict) and document:
        name = data.draw(st.sampled_from(sorted(document)))
        document = {**document, name: data.draw(JSON)}
    try:
        got = errors_codec.error_in(document)
    except Malformed:
        return
    assert isinstance(got, FacadeError)


@given(authorizations)
def test_a_secret_shows_itself_in_no_message(authorization: Authorization) -> None:
    secret = "canary-" * 4
    document = codec.authorization_out(Authorization(Secret(secret), authorization.id))
    for spoiled in ({**document, "id": 1}, {**document, "more": secret}, [document]):
        with pytest.raises(Malformed) as caught:
            codec.authorization_in(spoiled)
        assert secret not in repr(caught.value)
    with pytest.raises(Malformed) as caught:
        load(dump(document)[:-1])
    assert secret not in repr((caught.value, vars(caught.value), caught.value.__cause__))


def test_half_a_character_is_no_header() -> None:
    document = {**codec.authorization_out(Authorization(None)), "header": "Bearer \ud800"}
    with pytest.raises(Malformed):
        codec.authorization_in(document)


def test_a_frame_that_is_too_long_is_refused_by_its_length() -> None:
    assert feed_codec.length_in((7).to_bytes(4, "big")) == 7
    with pytest.raises(Malformed):
        feed_codec.length_in(b"\xff\xff\xff\xff")


PULLED = Pulled(
    1.7e9, "dev/kiosk-7", "ghcr.io", "org/app", "sha256:x", "blob", "served", None, 5, ""
)


@pytest.mark.parametrize(
    ("index", "value"),
    [
        *((1, 1e300), (1, "inf"), (1, -1.0), (1, events_codec.MAX_MOMENT + 1), (1, True)),
        *(
            (2, "\ud800"),
            (2, "x" * 2000),
            (3, "\udfff"),
            (3, None),
            (4, 7),
            (8, "no reason"),
            (8, []),
        ),
        *((9, -1), (9, True), (9, 1.0), (9, 2**63), (0, "pushed"), (0, []), (0, "connection-used")),
    ],
)
def test_what_could_not_be_kept_or_shown_is_no_event(index: int, value: object) -> None:
    """A time beyond the year 9999 made every list with its row fail; half a character, a whole batch of
    others' events.
    """
    right = events_codec.event_out(PULLED)
    assert events_codec.event_in(load(dump(right))) == PULLED
    wrong = [*right[:index], value, *right[index + 1 :]]
    for each in (wrong, right[:-1], [*right, "more"], [], {"event": "pulled"}, "pulled"):
        with pytest.raises(Malformed):
            events_codec.event_in(load(dump(each)))


@given(moments)
def test_every_time_that_is_taken_can_be_shown(at: float) -> None:
    assert moment(at).endswith("Z")
