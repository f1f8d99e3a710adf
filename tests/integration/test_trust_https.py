"""Metadata over real TLS: an authority that is not trusted gives nothing."""

import functools
import http.client
import http.server
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tuf.api.exceptions import DownloadError

from facade.errors import Unavailable
from facade.serving.trust.fetcher import Connect, HttpsSource
from facade.serving.trust.verifier import Verifier
from tests.support.clock import FakeClock
from tests.support.pki import Authority, client_context, server_context
from tests.support.tuf_repo import TufRepo, signed_target


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        """Nothing on the test's output."""


@pytest.fixture
def repo() -> TufRepo:
    repo = TufRepo()
    repo.publish(signed_target("dev/app/v1"))
    return repo


@pytest.fixture
def authority() -> Authority:
    return Authority.root()


@pytest.fixture
def url(repo: TufRepo, authority: Authority, tmp_path: Path) -> Iterator[str]:
    repo.write(tmp_path / "www" / "tuf")
    handler = functools.partial(_Quiet, directory=str(tmp_path / "www"))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    context = server_context(authority.server("localhost"))
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"https://localhost:{server.server_port}/tuf/"
    server.shutdown()
    server.server_close()
    thread.join()


def _trusting(authority: Authority) -> Connect:
    context = client_context(authority)
    return lambda host, port: http.client.HTTPSConnection(host, port, timeout=5, context=context)


def test_a_refresh_over_https(
    url: str, repo: TufRepo, authority: Authority, tmp_path: Path
) -> None:
    source = HttpsSource(url, _trusting(authority))
    verifier = Verifier(repo.pinned, tmp_path / "m", source, FakeClock(time.time()))
    view = verifier.refresh(None, ["dev"])
    assert set(view.fleets["dev"].by_path) == {"dev/app/v1"}


def test_a_server_of_an_unknown_authority_is_not_read(
    url: str, repo: TufRepo, tmp_path: Path
) -> None:
    with pytest.raises(DownloadError):
        list(HttpsSource(url).chunks("timestamp.json"))
    verifier = Verifier(repo.pinned, tmp_path / "m", HttpsSource(url), FakeClock(time.time()))
    with pytest.raises(Unavailable):
        verifier.refresh(None, ["dev"])


def test_a_server_that_is_not_there(repo: TufRepo, authority: Authority, tmp_path: Path) -> None:
    source = HttpsSource("https://localhost:1/tuf", _trusting(authority))
    with pytest.raises(Unavailable):
        Verifier(repo.pinned, tmp_path, source, FakeClock(time.time())).refresh(None, ["dev"])
