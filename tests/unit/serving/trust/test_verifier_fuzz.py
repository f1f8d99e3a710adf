"""Made-up metadata files into the verifier: refused in our own words, soon, or rightly accepted.

Two adversaries: one who changes files without any key, and one who has the keys and signs nonsense.
"""

import copy
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from securesystemslib.formats import encode_canonical

from facade.clock import SystemClock
from facade.errors import Integrity, Invalid, Unavailable
from facade.serving.trust.verifier import Verifier
from facade.serving.trust.view import SignedView
from tests.support.tuf_repo import RepoSource, TufRepo, signed_target

SECONDS = 5.0
PATH = "dev/app/v1"
NAMES = ("timestamp.json", "2.snapshot.json", "1.targets.json", "2.dev.json", "1.root.json")
ROLES = ("timestamp", "snapshot", "targets", "dev")
FUZZ = settings(max_examples=120, deadline=None)

REPO = TufRepo(["dev"])
REPO.publish(signed_target(PATH, b"one"))
FILES = dict(REPO.files)

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.text(max_size=10)
    | st.sampled_from(["2999-01-01T00:00:00Z", "1999-01-01T00:00:00Z", "1.0.31", "9.9", "targets"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)


def verify(files: dict[str, bytes]) -> SignedView | None:
    """What a fresh verifier makes of them; None when it refuses."""
    repo = copy.copy(REPO)
    repo.files = files
    with tempfile.TemporaryDirectory() as folder:
        verifier = Verifier(REPO.pinned, Path(folder), RepoSource(repo), SystemClock())
        started = time.monotonic()
        try:
            return verifier.refresh(None, ["dev"])
        except (Unavailable, Invalid, Integrity):
            return None
        finally:
            assert time.monotonic() - started < SECONDS


def places(document: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to everything in a document."""
    found = [at]
    if isinstance(document, dict):
        for key in document:
            found += places(document[key], (*at, key))
    elif isinstance(document, list):
        for index, item in enumerate(document):
            found += places(item, (*at, index))
    return found


def put(document: Any, at: tuple[Any, ...], value: Any) -> Any:
    """The document with what is at `at` replaced."""
    if not at:
        return value
    changed = copy.deepcopy(document)
    target = changed
    for key in at[:-1]:
        target = target[key]
    target[at[-1]] = value
    return changed


def test_the_untouched_files_are_accepted() -> None:
    view = verify(dict(FILES))
    assert view is not None
    assert set(view.fleets["dev"].by_path) == {PATH}


@FUZZ
@given(name=st.sampled_from(NAMES), data=st.data())
def test_files_changed_without_a_key_never_change_what_is_signed(
    name: str, data: st.DataObject
) -> None:
    right = FILES[name]
    how = data.draw(st.sampled_from(["flip", "cut", "junk", "grow", "swap"]))
    if how == "flip":
        changed = bytearray(right)
        changed[data.draw(st.integers(0, len(right) - 1))] ^= 1 << data.draw(st.integers(0, 7))
        wrong = bytes(changed)
    elif how == "cut":
        wrong = right[: data.draw(st.integers(0, len(right) - 1))]
    elif how == "grow":
        wrong = right + data.draw(st.binary(min_size=1, max_size=20))
    elif how == "swap":
        wrong = FILES[data.draw(st.sampled_from(NAMES))]
    else:
        wrong = data.draw(st.binary(max_size=200)) or json.dumps(data.draw(JSON)).encode()
    view = verify({**FILES, name: wrong})
    if view is not None and "dev" in view.fleets:
        assert set(view.fleets["dev"].by_path) <= {PATH}


@FUZZ
@given(role=st.sampled_from(ROLES), data=st.data())
def test_signed_nonsense_is_refused_in_our_own_words(role: str, data: st.DataObject) -> None:
    name = next(name for name in NAMES if role in name)
    signed = json.loads(FILES[name])["signed"]
    at = data.draw(st.sampled_from(places(signed)))
    signed = put(signed, at, data.draw(JSON))
    canonical = encode_canonical(signed)
    assert canonical is not None
    signatures = [
        {"keyid": signature.keyid, "sig": signature.signature}
        for signature in (signer.sign(canonical.encode()) for signer in REPO.signers[role])
    ]
    files = {**FILES, name: json.dumps({"signatures": signatures, "signed": signed}).encode()}
    if role in ("targets", "dev", "snapshot"):
        files = _listed(files)
    verify(files)


def _listed(files: dict[str, bytes]) -> dict[str, bytes]:
    """With hashes and lengths left out above, so that the changed file is looked at at all."""
    listed = dict(files)
    for name, role in (("2.snapshot.json", "snapshot"), ("timestamp.json", "timestamp")):
        if listed[name] != FILES[name]:
            continue
        signed = json.loads(listed[name])["signed"]
        for entry in signed["meta"].values():
            entry.pop("hashes", None)
            entry.pop("length", None)
        canonical = encode_canonical(signed)
        assert canonical is not None
        (signer,) = REPO.signers[role]
        signature = signer.sign(canonical.encode())
        document = {
            "signatures": [{"keyid": signature.keyid, "sig": signature.signature}],
            "signed": signed,
        }
        listed[name] = json.dumps(document).encode()
    return listed
