from __future__ import annotations

import errno
import hashlib
import http.server
import threading
from pathlib import Path

import pytest

from srblock.data.sources import download as module
from srblock.data.sources.download import download

CONTENT = bytes(range(256)) * 400
MD5 = hashlib.md5(CONTENT).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    """A local server with faults: it serves `content`, breaks off after `breaks[n]` bytes of answer n, and so on."""

    def __init__(self) -> None:
        self.content, self.ranges, self.breaks, self.statuses = CONTENT, True, [], []
        self.asked: list[str | None] = []
        self.say_length = True
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/set.tar.gz"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server, wanted = self.server, self.headers.get("Range")
        server.asked.append(wanted)
        if server.statuses:
            self.send_error(server.statuses.pop(0))
            return
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and server.ranges else 0
        if start and start >= len(server.content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(server.content)}")
            self.end_headers()
            return
        body = server.content[start:]
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(server.content) - 1}/{len(server.content)}")
        if server.say_length:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: server.breaks.pop(0)] if server.breaks else body)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(module, "PAUSE_S", 0.001)
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def leftovers(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def test_download_with_progress(server, tmp_path):
    seen = []
    file = download(server.url, tmp_path / "new" / "set", md5=MD5, progress=lambda *step: seen.append(step))
    assert file.read_bytes() == CONTENT
    assert leftovers(tmp_path / "new") == ["set"]
    assert {step[0] for step in seen} == {"downloading set.tar.gz"}
    assert seen[-1][1:] == (len(CONTENT), len(CONTENT))
    download(server.url, file, md5=MD5)
    assert server.asked == [None]  # what is there is not fetched again


def test_broken_connection_goes_on_where_it_broke(server, tmp_path):
    server.breaks = [30_000, 0, 50_000]
    assert download(server.url, tmp_path / "set", md5=MD5).read_bytes() == CONTENT
    assert server.asked == [None, "bytes=30000-", "bytes=30000-", "bytes=80000-"]


def test_broken_connection_without_ranges_starts_over(server, tmp_path):
    server.breaks, server.ranges = [30_000, 60_000], False
    assert download(server.url, tmp_path / "set", md5=MD5).read_bytes() == CONTENT
    assert server.asked == [None, "bytes=30000-", "bytes=60000-"]


def test_without_ranges_breaking_at_the_same_place_ends(server, tmp_path):
    server.breaks, server.ranges = [30_000] * 50, False
    with pytest.raises(ConnectionError, match=r"the connection broke after 30,000 of 102,400 bytes, 5 times in a row"):
        download(server.url, tmp_path / "set", md5=MD5)


def test_without_ranges_going_back_and_forth_ends(server, tmp_path):
    server.breaks, server.ranges = [30_000, 20_000] * 50, False
    with pytest.raises(ConnectionError, match="5 times in a row"):
        download(server.url, tmp_path / "set", md5=MD5)
    assert len(server.asked) == 6


def test_a_later_run_goes_on(server, tmp_path):
    server.breaks = [40_000] + [0] * 5
    with pytest.raises(ConnectionError, match=r"5 times in a row; 40,000 bytes are kept, and the same command goes on"):
        download(server.url, tmp_path / "set", md5=MD5)
    assert leftovers(tmp_path) == ["set.part"]
    server.asked.clear()
    assert download(server.url, tmp_path / "set", md5=MD5).read_bytes() == CONTENT
    assert server.asked == ["bytes=40000-"]
    assert leftovers(tmp_path) == ["set"]


def test_a_whole_part_is_kept(server, tmp_path):
    """The process was killed after the last byte, before the check."""
    (tmp_path / "set.part").write_bytes(CONTENT)
    assert download(server.url, tmp_path / "set", md5=MD5).read_bytes() == CONTENT
    assert server.asked == [f"bytes={len(CONTENT)}-"]


@pytest.mark.parametrize("stale", [b"x" * 1000, b"x" * len(CONTENT), b"x" * (len(CONTENT) + 1)])
def test_a_stale_part_is_replaced(server, tmp_path, stale):
    (tmp_path / "set.part").write_bytes(stale)
    assert download(server.url, tmp_path / "set", md5=MD5).read_bytes() == CONTENT


def test_wrong_checksum(server, tmp_path):
    server.content = b"<html>Please log in</html>"
    with pytest.raises(ValueError, match=rf"brought 26 bytes with MD5 \w+, expected {MD5}: not the published file"):
        download(server.url, tmp_path / "set", md5=MD5)
    assert leftovers(tmp_path) == []


def test_a_wrong_file_is_fetched_again(server, tmp_path):
    (tmp_path / "set").write_bytes(b"something else")
    assert download(server.url, tmp_path / "set", md5=MD5).read_bytes() == CONTENT


def test_truncated_without_length_is_noticed_by_its_checksum(server, tmp_path):
    server.say_length, server.breaks = False, [5000]
    with pytest.raises(ValueError, match="brought 5,000 bytes with MD5"):
        download(server.url, tmp_path / "set", md5=MD5)


def test_a_busy_server_is_asked_again(server, tmp_path):
    server.statuses = [503, 500, 429]
    assert download(server.url, tmp_path / "set", md5=MD5).read_bytes() == CONTENT


def test_a_missing_file_is_not_asked_for_again(server, tmp_path):
    server.statuses = [404] * 9
    with pytest.raises(ConnectionError, match="the server answers 404 Not Found"):
        download(server.url, tmp_path / "set", md5=MD5)
    assert server.asked == [None]


def test_no_network(server, tmp_path):
    server.server_close()
    with pytest.raises(ConnectionError, match=r"cannot download http.*refused.*, 5 times in a row.*without a network"):
        download(server.url, tmp_path / "set", md5=MD5)


def test_full_disk(server, tmp_path, monkeypatch):
    class Full:
        def __init__(self, *args: object) -> None: ...
        def __enter__(self):
            return self

        def __exit__(self, *args: object) -> None: ...
        def write(self, data: bytes) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "open", Full)
    with pytest.raises(
        OSError, match=r"cannot write to .*: No space left on device; free some space there, or set SRBLOCK"
    ):
        download(server.url, tmp_path / "set", md5=MD5)
    assert len(server.asked) == 1


def test_folder_that_cannot_be_made(server, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match=r"cannot write to .*/file/cache: .*SRBLOCK_CACHE"):
        download(server.url, tmp_path / "file" / "cache" / "set", md5=MD5)
