"""Downloads against a server on this machine that breaks off, lies or has nothing."""

import contextlib
import hashlib
import http.server
import io
import random
import tarfile
import threading
import zipfile

import pytest

from asit_lab.data.sources import esc50
from asit_lab.data.sources.download import REPLY_BYTES, Remote, _extract, download
from asit_lab.errors import InputError

CONTENT = random.Random(0).randbytes(10 * REPLY_BYTES)  # does not compress


class Server(http.server.BaseHTTPRequestHandler):
    """Serves `content` and honours ranges; the first `drops` answers break off half way."""

    content, drops, ranges = b"", 0, True
    asked: list = []

    def do_GET(self):  # noqa: N802 (the name http.server calls)
        cls = type(self)
        asked = self.headers.get("Range")
        cls.asked.append(asked)
        if not self.path.startswith("/set."):
            return self.send_error(404)
        first = int(asked.split("=")[1].rstrip("-")) if asked and cls.ranges else 0
        if first >= len(cls.content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(cls.content)}")
            return self.end_headers()
        body = cls.content[first:]
        self.send_response(206 if first else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if cls.drops > 0:
            cls.drops -= 1
            body = body[: len(body) // 2]
        self.wfile.write(body)
        return None

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    """(base address, handler class whose attributes a test sets)."""
    handler = type("Handler", (Server,), {"asked": []})
    listening = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=listening.serve_forever, args=(0.02,))
    thread.start()
    yield f"http://127.0.0.1:{listening.server_port}", handler
    listening.shutdown()
    thread.join()
    listening.server_close()


def zipped():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as packed:
        packed.writestr("set/a.txt", CONTENT)
    return buffer.getvalue()


def tarred():
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as packed:
        member = tarfile.TarInfo("./set/a.txt")
        member.size = len(CONTENT)
        packed.addfile(member, io.BytesIO(CONTENT))
    return buffer.getvalue()


def remote(server, suffix="zip", sha256=None, contents=None):
    base, handler = server
    return Remote(f"{base}/set.{suffix}", sha256 or hashlib.sha256(handler.content).hexdigest(), 1, contents)


@pytest.mark.parametrize(("suffix", "content"), [("zip", zipped()), ("tar.gz", tarred())])
def test_a_broken_connection_is_resumed(server, tmp_path, suffix, content):
    server[1].content, server[1].drops = content, 2
    folder = download(remote(server, suffix), tmp_path / "data" / "set")
    assert (folder / "set" / "a.txt").read_bytes() == CONTENT
    asked = [int(range_[6:-1]) if range_ else 0 for range_ in server[1].asked]
    # What had arrived when the connection broke is kept, up to the last whole block.
    half, quarter = len(content) / 2, len(content) / 4
    assert (
        len(asked) == 3 and half - REPLY_BYTES <= asked[1] <= half and 0 < half + quarter - asked[2] < 2 * REPLY_BYTES
    )
    assert [path.name for path in (tmp_path / "data").iterdir() if not path.name.startswith(".")] == ["set"]


def test_the_next_run_goes_on_where_the_last_one_stopped(server, tmp_path):
    server[1].content, server[1].drops = zipped(), 100
    with pytest.raises(InputError, match=r"the download failed .*kept in .*set-set\.zip\.part"):
        download(remote(server), tmp_path / "set")
    assert not (tmp_path / "set").exists()
    have = (tmp_path / "set-set.zip.part").stat().st_size
    assert have > 0.5 * len(zipped())
    server[1].drops = 0
    download(remote(server), tmp_path / "set")
    assert server[1].asked[-1] == f"bytes={have}-" and (tmp_path / "set" / "set" / "a.txt").exists()


def test_a_server_without_ranges_starts_again(server, tmp_path):
    server[1].content, server[1].drops, server[1].ranges = zipped(), 1, False
    assert (download(remote(server), tmp_path / "set") / "set" / "a.txt").exists()


def test_a_part_that_is_complete_or_does_not_fit(server, tmp_path):
    server[1].content = zipped()
    for name, left in (("complete", server[1].content), ("too long", server[1].content + b"more")):
        (tmp_path / f"{name}-set.zip.part").write_bytes(left)
        assert (download(remote(server), tmp_path / name) / "set" / "a.txt").exists()


def test_a_wrong_checksum_is_refused(server, tmp_path):
    server[1].content = zipped()
    with pytest.raises(InputError, match=r"SHA-256 is not 0{64}"):
        download(remote(server, sha256="0" * 64), tmp_path / "set")
    assert [path.name for path in tmp_path.iterdir()] == [".set.lock"]


def test_contents_decide_where_the_archive_was_packed_anew(server, tmp_path):
    server[1].content = zipped()

    def wrong(folder):
        raise InputError(f"{folder.name}: not the right contents")

    with pytest.raises(InputError, match="not the right contents"):
        download(remote(server, sha256="0" * 64, contents=wrong), tmp_path / "set")
    assert [path.name for path in tmp_path.iterdir()] == [".set.lock"]
    seen = []
    download(remote(server, sha256="0" * 64, contents=seen.append), tmp_path / "set")
    assert len(seen) == 1 and (tmp_path / "set" / "set" / "a.txt").exists()


def test_a_damaged_archive_is_refused(server, tmp_path):
    server[1].content = zipped()[:-30] + bytes(30)
    with pytest.raises(InputError, match="the archive is damaged"):
        download(remote(server), tmp_path / "set")
    assert not (tmp_path / "set").exists()


def test_an_address_that_is_gone(server, tmp_path):
    with pytest.raises(InputError, match="404"):
        download(Remote(f"{server[0]}/gone.zip", "0" * 64, 1), tmp_path / "set")


def test_two_at_once_download_once(server, tmp_path):
    server[1].content = zipped()
    both = [threading.Thread(target=download, args=(remote(server), tmp_path / "set")) for _ in range(2)]
    with contextlib.ExitStack() as stack:
        for thread in both:
            thread.start()
            stack.callback(thread.join)
    assert len(server[1].asked) == 1 and (tmp_path / "set").is_dir()


def test_another_meta_file_is_not_esc50(tmp_path):
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta" / "esc50.csv").write_text("filename\n")
    with pytest.raises(InputError, match="differs from the published ESC-50"):
        esc50.check_contents(tmp_path)


@pytest.mark.parametrize("old", [False, True], ids=["with tarfile's filter", "before Python 3.11.4"])
@pytest.mark.parametrize("name", ["../outside.txt", "/outside.txt"])
def test_nothing_is_unpacked_outside_its_folder(tmp_path, monkeypatch, old, name):
    if old:
        monkeypatch.delattr(tarfile, "data_filter", raising=False)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as packed:
        for member in ("inside.txt", name):
            entry = tarfile.TarInfo(member)
            entry.size = 2
            packed.addfile(entry, io.BytesIO(b"hi"))
    buffer.seek(0)
    folder = tmp_path / "set"
    with tarfile.open(fileobj=buffer) as packed, contextlib.suppress(tarfile.TarError):
        _extract(packed, folder)
    assert not (tmp_path / "outside.txt").exists()
    with tarfile.open(fileobj=io.BytesIO(tarred())) as packed:
        _extract(packed, folder)
    assert [path for path in folder.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        ("exceptions.ProxyError", r"the proxy does not let 127\.0\.0\.1 through; check HTTPS_PROXY"),
        ("exceptions.SSLError", "REQUESTS_CA_BUNDLE"),
        ("ConnectTimeout", r"127\.0\.0\.1 does not answer in time"),
        ("ConnectionError", r"127\.0\.0\.1 cannot be reached; check the network"),
    ],
)
def test_a_failed_download_says_what_to_do(tmp_path, monkeypatch, error, words):
    import requests

    kind = requests
    for name in error.split("."):
        kind = getattr(kind, name)

    def fail(*args, **kwargs):
        raise kind(OSError("HTTPSConnectionPool(host=...): Max retries exceeded"))

    monkeypatch.setattr(requests, "get", fail)
    with pytest.raises(InputError, match=words) as caught:
        download(Remote("http://127.0.0.1:9/set.zip", "0", 1), tmp_path / "set")
    assert "HTTPSConnectionPool" not in str(caught.value) and "folder: NAME:PATH" in str(caught.value)
