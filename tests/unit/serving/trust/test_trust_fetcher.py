"""Sources of metadata: a folder, and https (driven through http.client on an in-memory socket)."""

import http.client
import io
import os
from pathlib import Path

import pytest
from tuf.api.exceptions import (
    DownloadError,
    DownloadHTTPError,
    DownloadLengthMismatchError,
    SlowRetrievalError,
)

from facade.errors import Invalid
from facade.serving.trust.fetcher import (
    BASE_URL,
    MAX_FILE_BYTES,
    FolderSource,
    HttpsSource,
    MetadataFetcher,
    source_for,
)
from tests.support.clock import FakeClock


class _Socket(io.BytesIO):
    """Answers one request with prepared bytes."""

    def __init__(self, answer: bytes | Exception) -> None:
        super().__init__()
        self._answer = answer

    def makefile(self, mode: str) -> io.BufferedIOBase:
        if isinstance(self._answer, Exception):
            raise self._answer
        return io.BytesIO(self._answer)

    def sendall(self, data: bytes) -> None:
        self.write(data)

    def close(self) -> None:
        """Kept open, so that a test can look at what was sent."""


class _Connection(http.client.HTTPConnection):
    def __init__(self, host: str, port: int, answer: bytes | Exception) -> None:
        super().__init__(host, port)
        self.socket = _Socket(answer)

    def connect(self) -> None:
        self.sock = self.socket


def _https(answer: bytes | Exception) -> tuple[HttpsSource, list[_Connection]]:
    made: list[_Connection] = []

    def connect(host: str, port: int) -> _Connection:
        made.append(_Connection(host, port, answer))
        return made[-1]

    return HttpsSource("https://updates.example:8443/tuf/", connect), made


def test_a_folder_gives_its_files_and_404_for_the_rest(tmp_path: Path) -> None:
    (tmp_path / "timestamp.json").write_bytes(b"x" * 100_000)
    source = FolderSource(tmp_path)
    assert b"".join(source.chunks("timestamp.json")) == b"x" * 100_000
    with pytest.raises(DownloadHTTPError) as caught:
        list(source.chunks("2.root.json"))
    assert caught.value.status_code == 404


def test_a_pipe_in_the_folder_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "timestamp.json")
    with pytest.raises(DownloadError, match="regular"):
        list(FolderSource(tmp_path).chunks("timestamp.json"))


def test_https_asks_below_its_path() -> None:
    source, made = _https(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello and more")
    assert b"".join(source.chunks("timestamp.json")) == b"hello"
    (connection,) = made
    assert (connection.host, connection.port) == ("updates.example", 8443)
    assert connection.socket.getvalue().startswith(b"GET /tuf/timestamp.json HTTP/1.1\r\n")


def test_https_reads_chunked_answers() -> None:
    source, _ = _https(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n"
    )
    assert b"".join(source.chunks("timestamp.json")) == b"hello"


@pytest.mark.parametrize("status", [301, 302, 307, 403, 404, 500])
def test_https_follows_no_redirect_and_tells_the_status(status: int) -> None:
    source, _ = _https(
        f"HTTP/1.1 {status} X\r\nLocation: https://evil/\r\nContent-Length: 0\r\n\r\n".encode()
    )
    with pytest.raises(DownloadHTTPError) as caught:
        list(source.chunks("2.root.json"))
    assert caught.value.status_code == status


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello", DownloadError),
        (b"nonsense\r\n\r\n", DownloadError),
        (b"", DownloadError),
        (TimeoutError(), SlowRetrievalError),
        (ConnectionResetError(), DownloadError),
    ],
)
def test_https_wraps_what_goes_wrong(answer: bytes | Exception, error: type[Exception]) -> None:
    source, _ = _https(answer)
    with pytest.raises(error):
        list(source.chunks("timestamp.json"))


@pytest.mark.parametrize(
    "url",
    [
        *("http://updates.example/tuf", "https://user:pass@updates.example/tuf", "https:///tuf"),
        *("ftp://x/y", "https://updates.example:port/", "https://updates.example/?token=x"),
    ],
)
def test_only_plain_https_urls_are_sources(url: str) -> None:
    with pytest.raises(Invalid) as caught:
        source_for(url)
    assert "pass@" not in caught.value.message


def test_a_setting_names_a_folder_or_a_url(tmp_path: Path) -> None:
    assert isinstance(source_for(str(tmp_path)), FolderSource)
    assert isinstance(source_for("https://updates.example/tuf"), HttpsSource)


def test_the_fetcher_bounds_bytes_and_time(tmp_path: Path) -> None:
    (tmp_path / "big.json").write_bytes(b"x" * (MAX_FILE_BYTES + 1))
    (tmp_path / "small.json").write_bytes(b"x")
    clock = FakeClock()
    fetcher = MetadataFetcher(FolderSource(tmp_path), clock)
    with pytest.raises(DownloadLengthMismatchError):
        fetcher.download_bytes(f"{BASE_URL}big.json", 10**9)
    assert fetcher.download_bytes(f"{BASE_URL}small.json", 10) == b"x"
    clock.advance(61)
    with pytest.raises(SlowRetrievalError):
        fetcher.download_bytes(f"{BASE_URL}small.json", 10)


@pytest.mark.parametrize("name", ["../etc/passwd.json", "a/b.json", "timestamp", "..%2Fx"])
def test_the_fetcher_asks_for_metadata_files_only(tmp_path: Path, name: str) -> None:
    with pytest.raises(DownloadError):
        MetadataFetcher(FolderSource(tmp_path), FakeClock()).download_bytes(f"{BASE_URL}{name}", 9)
