"""The attacks of trust.md against a running `facade up`: refused, logged, counted, and got over.

One process stands all of them, one after another; after each it has to serve again by itself.
"""

import asyncio
import copy
import json
import os
import socket
import ssl
from collections.abc import AsyncIterator, Callable

import pytest
import pytest_asyncio
from tuf.api.metadata import DelegatedRole, Delegations, TargetFile

from facade.oci.digest import Digest
from tests.support.image import Image, one_layer_image
from tests.support.pki import Leaf
from tests.support.registry import Registry
from tests.support.siege import REPOSITORY, Siege, siege
from tests.support.tuf_repo import new_key, target_file

pytestmark = pytest.mark.asyncio(loop_scope="module")

EVIL = "dev/app/v666"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Siege]:
    async with siege(tmp_path_factory.mktemp("siege")) as it:
        yield it


@pytest_asyncio.fixture(loop_scope="module")
async def it(shared: Siege) -> AsyncIterator[Siege]:
    """The facade, which serves before an attack and afterwards again."""
    assert (await shared.get(shared.at(shared.good))).status == 200
    yield shared
    roles = delegations(shared).roles
    assert roles is not None
    for name in set(roles) - {"dev", "other"}:
        del roles[name]
    roles["dev"].paths = ["dev/*/*"]
    dev = shared.tuf.fleets["dev"].targets
    for path in set(dev) - {"dev/app/v1"}:
        del dev[path]
    shared.tuf.targets.targets.clear()
    shared.tuf.bump("targets")
    await shared.publish(fleets=["dev"])
    assert (await shared.get(shared.at(shared.good))).status == 200
    assert await shared.complaints() == []


def delegations(it: Siege) -> Delegations:
    found = it.tuf.targets.delegations
    assert found is not None
    return found


def sign_evil(it: Siege, path: str = EVIL, repository: str = REPOSITORY) -> None:
    """Put the evil image into dev's role, not signed yet."""
    file = target_file(it.target(it.evil, EVIL, repository))
    it.tuf.fleets["dev"].targets[path] = TargetFile(
        file.length, file.hashes, path, {"custom": file.custom}
    )


def upper_roles(it: Siege) -> None:
    it.tuf.bump("snapshot")
    it.tuf.bump("timestamp")


# Attacks on a top-level role: the facade goes on with what it has.


def rollback_of_timestamp(it: Siege) -> None:
    it.tuf.timestamp.version -= 1
    it.tuf.put("timestamp", it.tuf.timestamp)
    it.tuf.timestamp.version += 1


def rollback_of_snapshot(it: Siege) -> None:
    it.tuf.timestamp.snapshot_meta.version -= 1
    it.tuf.bump("timestamp")


def rollback_of_a_fleet(it: Siege) -> None:
    it.tuf.snapshot.meta["dev.json"].version -= 1
    upper_roles(it)


def rollback_of_targets(it: Siege) -> None:
    it.tuf.snapshot.meta["targets.json"].version = it.tuf.targets.version - 1
    upper_roles(it)


def mix_and_match_of_snapshot_and_targets(it: Siege) -> None:
    it.tuf.bump("targets")
    upper_roles(it)
    name = f"{it.tuf.targets.version}.targets.json"
    it.tuf.files[name] = it.tuf.files[f"{it.tuf.targets.version - 1}.targets.json"]


def wrong_key_for_timestamp(it: Siege) -> None:
    it.tuf.timestamp.version += 1
    it.tuf.put("timestamp", it.tuf.timestamp, [new_key()])


def wrong_key_for_snapshot(it: Siege) -> None:
    it.tuf.snapshot.version += 1
    it.tuf.put("snapshot", it.tuf.snapshot, [new_key()])
    it.tuf.bump("timestamp")


def wrong_key_for_targets(it: Siege) -> None:
    it.tuf.targets.version += 1
    it.tuf.put("targets", it.tuf.targets, [new_key()])
    upper_roles(it)


def targets_signed_by_the_top_level_role(it: Siege) -> None:
    it.tuf.targets.targets[EVIL] = target_file(it.target(it.evil, EVIL))
    it.tuf.bump("targets")
    upper_roles(it)


def huge_metadata(it: Siege) -> None:
    it.tuf.snapshot.version += 1
    data = it.tuf.put("snapshot", it.tuf.snapshot)
    it.tuf.files[f"{it.tuf.snapshot.version}.snapshot.json"] = data + b" " * 6_000_000
    it.tuf.bump("timestamp")


TOP_LEVEL: dict[Callable[[Siege], None], str] = {
    rollback_of_timestamp: "version",
    rollback_of_snapshot: "version",
    rollback_of_a_fleet: "dev.json version",
    rollback_of_targets: "targets.json version",
    mix_and_match_of_snapshot_and_targets: "match",
    wrong_key_for_timestamp: "0/1 keys",
    wrong_key_for_snapshot: "0/1 keys",
    wrong_key_for_targets: "0/1 keys",
    targets_signed_by_the_top_level_role: "may only delegate",
    huge_metadata: "",
}


@pytest.mark.parametrize("attack", TOP_LEVEL, ids=lambda attack: attack.__name__)
async def test_attack_on_a_top_level_role(it: Siege, attack: Callable[[Siege], None]) -> None:
    counter = 'facade_metadata_refreshes_total{outcome="metadata-unavailable"}'
    before, mark = await it.metric(counter), len(it.facade.events)
    attack(it)
    it.write()
    logged = await it.event("metadata_refresh_failed", since=mark, words=TOP_LEVEL[attack])
    assert logged["level"] == "warning"
    assert await it.metric(counter) > before
    assert (await it.get(it.at(it.evil))).status == 403
    assert (await it.get(it.at(it.good))).status == 200, "what it has is still valid"
    assert await it.complaints() != []


async def test_threshold_short_by_one(it: Siege) -> None:
    """A root that names the attacker's timestamp key, signed by one of three holders."""
    mark = len(it.facade.events)
    forged = copy.deepcopy(it.tuf.root)
    key = new_key()
    forged.add_key(key.public_key, "timestamp")
    forged.version += 1
    it.tuf.put("root", forged, it.tuf.signers["root"][:1])
    it.write()
    await it.event("metadata_refresh_failed", since=mark, words="1/2 keys")
    assert (await it.get(it.at(it.good))).status == 200
    name = f"{forged.version}.root.json"
    del it.tuf.files[name]
    (it.source / name).unlink()


async def test_endless_data(it: Siege) -> None:
    """A pipe in the place of the timestamp: nothing is waited for."""
    mark = len(it.facade.events)
    place = it.source / "timestamp.json"
    place.unlink()
    os.mkfifo(place)
    await it.event("metadata_refresh_failed", since=mark, words="not a regular file")
    assert (await it.get(it.at(it.good))).status == 200
    place.unlink()


# Attacks on a fleet's role: that fleet stops, the others go on.


def wrong_key_for_a_fleet(it: Siege) -> None:
    sign_evil(it)
    it.tuf.fleets["dev"].version += 1
    it.tuf.put("dev", it.tuf.fleets["dev"], [new_key()])


def another_fleets_key(it: Siege) -> None:
    sign_evil(it)
    it.tuf.fleets["dev"].version += 1
    it.tuf.put("dev", it.tuf.fleets["dev"], it.tuf.signers["other"])


def a_revoked_key_re_admitted_by_name(it: Siege) -> None:
    old = it.tuf.rotate_key("dev")
    it.tuf.bump("targets")
    sign_evil(it)
    role = it.tuf.fleets["dev"]
    role.version += 1
    data = it.tuf.put("dev", role, [old])
    renamed = data.replace(
        old.public_key.keyid.encode(), it.tuf.signers["dev"][0].public_key.keyid.encode()
    )
    assert renamed != data
    it.tuf.files[f"{role.version}.dev.json"] = renamed
    it.tuf.snapshot.meta["dev.json"] = type(it.tuf.snapshot.meta["dev.json"]).from_data(
        role.version, renamed, ["sha256"]
    )


def a_path_with_dotted_segments(it: Siege) -> None:
    sign_evil(it, "dev/../v666")
    it.tuf.bump("dev")


def a_path_of_another_fleet(it: Siege) -> None:
    sign_evil(it, "other/app/v666")
    it.tuf.bump("dev")


def a_delegation_outside_its_fleets_paths(it: Siege) -> None:
    delegate_paths(it, "dev/*/*", "elsewhere/*/*")
    sign_evil(it)


def delegate_paths(it: Siege, *paths: str) -> None:
    roles = delegations(it).roles
    assert roles is not None
    roles["dev"].paths = list(paths)
    it.tuf.bump("dev")
    it.tuf.bump("targets")


def a_huge_fleet_role(it: Siege) -> None:
    sign_evil(it)
    it.tuf.fleets["dev"].unrecognized_fields["padding"] = "x" * 5_000_000
    it.tuf.bump("dev")
    del it.tuf.fleets["dev"].unrecognized_fields["padding"]


FLEET = (
    *(wrong_key_for_a_fleet, another_fleets_key, a_revoked_key_re_admitted_by_name),
    *(a_path_with_dotted_segments, a_path_of_another_fleet, a_huge_fleet_role),
    a_delegation_outside_its_fleets_paths,
)


@pytest.mark.parametrize("attack", FLEET, ids=lambda attack: attack.__name__)
async def test_attack_on_a_fleets_role(it: Siege, attack: Callable[[Siege], None]) -> None:
    other = it.other_ca.device("other")
    assert (await it.get(it.at(it.theirs), other)).status == 200
    mark = len(it.facade.events)
    attack(it)
    upper_roles(it)
    it.write()
    await it.event("metadata_problems", since=mark, words="dev")
    refused = await it.get(it.at(it.evil))
    assert refused.status in {403, 503}
    assert refused.reason in {"not-signed", "metadata-unavailable"}
    assert (await it.get(it.at(it.good))).status != 200, "nothing is served on that role's word"
    assert (await it.get(it.at(it.theirs), other)).status == 200
    assert await it.complaints() != []


async def test_a_delegation_that_reaches_into_another_fleets_paths_stops_both(it: Siege) -> None:
    """A TUF client would ask the first about everything, and never come to the other fleet's own role."""
    other = it.other_ca.device("other")
    assert (await it.get(it.at(it.theirs), other)).status == 200
    mark = len(it.facade.events)
    delegate_paths(it, "*/*/*")
    upper_roles(it)
    it.write()
    await it.event(
        "metadata_problems", since=mark, words="'dev' comes before it and may sign its paths"
    )
    assert (await it.get(it.at(it.good))).reason == "not-signed"
    assert (await it.get(it.at(it.theirs), other)).reason == "not-signed"


async def test_target_with_our_digest_but_another_repository(it: Siege) -> None:
    """Signed, but elsewhere: the same bytes in the repository asked for grant nothing."""
    sign_evil(it, repository="org/elsewhere")
    await it.publish(fleets=["dev"])
    assert (await it.get(it.at(it.evil))).reason == "not-signed"


async def test_traversal_in_role_names(it: Siege) -> None:
    roles = delegations(it).roles
    assert roles is not None
    for name in ("../../escaped", "%2e%2e%2fescaped"):
        roles[name] = DelegatedRole(name, list(roles["dev"].keyids), 1, True, paths=["dev/*/*"])
    it.tuf.bump("targets")
    mark = len(it.facade.events)
    it.tuf.publish()
    it.write()
    await it.event("metadata_problems", since=mark, words="is no fleet name")
    assert not list(it.facade.state.rglob("*escaped*"))


async def test_freeze_expired_timestamp(it: Siege) -> None:
    """Nothing new is signed: at the end of its life everything stops, and says why."""
    await it.publish_briefly()
    assert (await it.get(it.at(it.good))).status == 200
    await it.expiry()
    refused = await it.get(it.at(it.good))
    assert (refused.status, refused.reason) == (503, "metadata-expired")
    assert int(refused.headers["Retry-After"]) > 0
    status, body = await it.ready()
    assert status == 503
    assert "metadata-expired" in str(body["reasons"])
    assert await it.metric('facade_metadata_expiry_seconds{role="timestamp"}') < 0
    assert await it.metric('facade_refusals_total{reason="metadata-expired"}') > 0
    await it.event("metadata_refresh_failed", words="metadata-expired")


# Who asks.


CLAIMS: dict[str, Callable[[Siege], Leaf]] = {
    "a CA naming another CA's fleet": lambda it: it.other_ca.device("dev"),
    "a fleet that no CA may name": lambda it: it.ca.device("prod"),
    "another trust domain": lambda it: it.ca.device(trust_domain="other.example"),
    "no identity": lambda it: it.ca.device(uris=()),
    "two identities": lambda it: it.ca.device(
        uris=("spiffe://facade.test/fleet/dev/device/a", "spiffe://facade.test/fleet/dev/device/b")
    ),
}


@pytest.mark.parametrize("claim", CLAIMS)
async def test_certificate_that_claims_too_much(it: Siege, claim: str) -> None:
    leaf = CLAIMS[claim](it)
    before = await it.metric('facade_refusals_total{reason="identity"}')
    refused = await it.get(it.at(it.good), leaf)
    assert (refused.status, refused.reason) == (403, "identity")
    for path in ("/tuf/timestamp.json", "/whoami", "/targets/dev/app/x.v1"):
        assert (await it.get(path, leaf)).status == 403
    assert (await it.get("/v2/", leaf)).status == 200
    assert await it.metric('facade_refusals_total{reason="identity"}') > before


async def test_a_resumed_session(it: Siege) -> None:
    """There is nothing to resume, whatever a ticket says: every connection shows its certificate afresh."""
    context = it.context()
    host, _, port = it.facade.device.rpartition(":")

    def connect(session: ssl.SSLSession | None) -> ssl.SSLSession | None:
        with (
            socket.create_connection((host, int(port)), 5) as plain,
            context.wrap_socket(plain, server_hostname=host, session=session) as tls,
        ):
            tls.sendall(b"GET /v2/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert tls.recv(1)
            assert not tls.session_reused
            return tls.session

    first = await asyncio.to_thread(connect, None)
    for _ in range(4):
        assert first is not None
        await asyncio.to_thread(connect, first)


# What is asked for.


async def test_digest_of_another_fleet_and_layer_of_its_image(it: Siege) -> None:
    foreign = await it.get(it.at(it.theirs))
    unknown = await it.get(it.path("manifests", Digest.of(b"nobody's")))
    assert (foreign.status, foreign.reason) == (unknown.status, unknown.reason)
    assert foreign.reason == "not-signed"
    assert (await it.get(it.at(it.theirs), it.other_ca.device("other"))).status == 200
    for layer in set(it.theirs.blobs) - set(it.good.blobs):
        assert (await it.get(it.path("blobs", layer))).reason == "not-signed"


async def test_a_layer_asked_for_as_a_manifest(it: Siege) -> None:
    for layer in it.good.blobs:
        assert (await it.get(it.path("manifests", layer))).reason == "not-signed"


async def test_manifest_with_two_faces(it: Siege) -> None:
    """Signed though it is: as an index it would allow one thing, as a manifest another."""
    inner, outer = it.evil, it.good
    layer = max(inner.blobs, key=lambda digest: len(inner.blobs[digest]))
    body = json.loads(outer.manifests[outer.index][1])
    body["layers"] = [
        {
            "mediaType": "application/vnd.oci.image.layer.v1.tar",
            "digest": str(layer),
            "size": len(inner.blobs[layer]),
        }
    ]
    data = json.dumps(body).encode()
    media_type = outer.manifests[outer.index][0]
    faced = Image(Digest.of(data), {Digest.of(data): (media_type, data)}, {})
    it.registry.add_image(REPOSITORY, faced)
    await it.publish(it.target(faced, "dev/faces/v1"))
    assert (await it.get(it.at(faced))).status != 200
    assert (await it.get(it.path("blobs", layer))).status in {403, 503}


async def test_private_layer_of_another_registry(it: Siege) -> None:
    """My signed manifest names a layer that is cached for the other fleet's registry."""
    secret = b"the other customer's layer" * 1000
    layer = Digest.of(secret)
    private = one_layer_image(secret)
    async with Registry() as victim:
        victim.add_image("org/private", private)
        await it.facade.must("registry", "add", str(victim.host), "--anonymous", "--insecure")
        it.registry.add_image(REPOSITORY, without(private, layer))
        theirs = it.target(private, "other/private/v1")
        theirs = type(theirs)(
            *("other", "private", "v1", theirs.digest, theirs.length, victim.host),
            victim.host.repository("org/private"),
            theirs.media_type,
        )
        await it.publish(theirs, it.target(private, "dev/app/v7"))
        other = it.other_ca.device("other")
        path = f"/v2/{victim.host}/org/private/blobs/{layer}"
        assert (await it.get(path, other)).body == secret
        asked = victim.count(method=None)
        refused = await it.get(it.path("blobs", layer))
        assert (refused.status, refused.reason) == (404, "upstream-not-found")
        assert secret[:30] not in refused.body
        assert (await it.get(path)).reason == "not-signed"
        assert victim.count(method=None) == asked


def without(image: Image, layer: Digest) -> Image:
    return Image(image.index, image.manifests, {d: b for d, b in image.blobs.items() if d != layer})


# Its own disk and clock. (These restart the process.)


async def test_child_added_to_an_index_in_the_cache(it: Siege) -> None:
    """The cached index is given another child on disk: it is not believed, nor served."""
    genuine = it.good.manifests[it.good.index][1]
    await it.facade.stop()
    child = str(it.evil.index).encode()
    inside = next(d for d in it.good.manifests if d != it.good.index)
    spoiled = 0
    for file in it.facade.state.joinpath("cache").rglob("*"):
        if file.is_file() and file.read_bytes().startswith(genuine):
            content = file.read_bytes().replace(str(inside).encode(), child)
            assert content != file.read_bytes()
            file.write_bytes(content)
            spoiled += 1
    await it.facade.start()
    assert spoiled, "the index lies in the cache"
    assert (await it.get(it.at(it.evil))).status in {403, 503}
    answered = await it.get(it.at(it.good))
    assert answered.body == genuine
    # Undecided for a while, since the index had to be fetched anew; never "yes".
    assert (await it.get(it.at(it.evil))).reason in {"closure-incomplete", "not-signed"}
    await it.event("cached_object_spoiled")


async def test_rolled_back_metadata_after_a_restart(it: Siege) -> None:
    """What was verified before is remembered over a restart, and an older state refused."""
    old = it.tuf.files["timestamp.json"]
    await it.publish(it.target(it.evil, "dev/app/v2"))
    it.tuf.files["timestamp.json"] = old
    await it.facade.stop()
    mark = len(it.facade.events)
    it.write()
    await it.facade.start()
    await it.event("metadata_refresh_failed", since=mark, words="version")
    assert (await it.get(it.at(it.evil))).status == 200, "it goes on from where it was"
    assert await it.complaints() != []


async def test_rolled_back_beyond_what_is_valid_fails_readiness(it: Siege) -> None:
    """The present state expires, and only an older, longer-lived one is offered."""
    old = it.tuf.files["timestamp.json"]
    await it.publish_briefly()
    it.tuf.files["timestamp.json"] = old
    it.write()
    await it.expiry()
    assert (await it.get(it.at(it.good))).status == 503
    assert (await it.ready())[0] == 503


async def test_clock_set_back(it: Siege) -> None:
    """The machine has shown a later time before: expired metadata does not come back to life."""
    await it.facade.stop()
    seen = it.facade.state / "trust" / "verified" / "highest-time"
    before = seen.read_text()
    seen.write_text(f"{float(before) + 86_400:.0f}\n")
    await it.facade.start()
    refused = await it.get(it.at(it.good))
    assert (refused.status, refused.reason) == (503, "clock-set-back")
    status, body = await it.ready()
    assert status == 503
    assert "clock-set-back" in str(body["reasons"])
    await it.facade.stop()
    seen.write_text(before)
    await it.facade.start()


async def test_root_rotated_twice_while_the_facade_was_down(it: Siege) -> None:
    await it.facade.stop()
    it.tuf.rotate_root(renew=["root", "timestamp"])
    it.tuf.rotate_root(renew=["root", "snapshot", "targets"])
    it.tuf.bump("targets")
    it.tuf.publish(it.target(it.evil, "dev/app/v3"))
    mark = len(it.facade.events)
    it.write()
    await it.facade.start()
    await it.event("metadata_in_use", since=mark, where={"root": 3})
    assert (await it.get(it.at(it.evil))).status == 200
