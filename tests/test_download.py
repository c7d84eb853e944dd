"""Download against a server on this machine that cuts, ignores Range, is busy, lies; and archives that try to escape."""

import hashlib
import json
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segpipe.download import download, fetch, generate
from segpipe.layout import Source
from tests.test_archives import zip_of

CONTENT = np.random.default_rng(0).bytes(300_000)


class Server(ThreadingHTTPServer):
    """Serves `files`; `plan` holds what the next requests get instead: "cut", "busy", "ignore-range", "gone"."""

    files: dict[str, bytes]
    plan: list[str]
    seen: list[str | None]
    etag = '"v1"'

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{name}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        self.server.seen.append(self.headers.get("Range"))
        self.close_connection = True
        step = self.server.plan.pop(0) if self.server.plan else ""
        if step in ("busy", "gone"):
            self.send_response(503 if step == "busy" else 404)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        body, start = self.server.files[self.path[1:]], 0
        asked = self.headers.get("Range")
        if asked and step != "ignore-range" and self.headers.get("If-Range") == self.server.etag:
            start = int(asked.removeprefix("bytes=").rstrip("-"))
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(body) - start))
        self.send_header("ETag", self.server.etag)
        self.end_headers()
        end = start + (len(body) - start) // 2 if step == "cut" else len(body)
        self.wfile.write(body[start:end])

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    httpd = Server(("127.0.0.1", 0), Handler)
    httpd.files, httpd.plan, httpd.seen = {"data.bin": CONTENT}, [], []
    threading.Thread(target=httpd.serve_forever, args=(0.02,), daemon=True).start()
    yield httpd
    httpd.shutdown()
    httpd.server_close()


def source(server: Server, name: str = "data.bin", **known: Any) -> Source:
    return Source(filename=name, urls=(server.url(name),), licence="CC0", **known)


def get(server: Server, folder: Path, **options: Any) -> Path:
    return fetch(source(server), folder, name="mine", backoff=0.01, **options)[0]


def test_plain(server: Server, tmp_path: Path) -> None:
    told: list[tuple[str, int, int | None]] = []
    path = get(server, tmp_path, progress=lambda *row: told.append(row))
    assert path.read_bytes() == CONTENT and told[-1] == ("data.bin", len(CONTENT), len(CONTENT))
    assert [p.name for p in tmp_path.iterdir()] == ["data.bin"]


def test_a_cut_transfer_is_continued(server: Server, tmp_path: Path) -> None:
    server.plan = ["cut", "cut"]
    assert get(server, tmp_path).read_bytes() == CONTENT
    starts = [int(r.removeprefix("bytes=").rstrip("-")) for r in server.seen if r]
    assert server.seen[0] is None and len(starts) == 2 and 0 < starts[0] < starts[1] < len(CONTENT)


def test_a_later_run_continues(server: Server, tmp_path: Path) -> None:
    server.plan = ["cut"]
    with pytest.raises(ValueError, match="could not be fetched"):
        get(server, tmp_path, attempts=1)
    assert get(server, tmp_path).read_bytes() == CONTENT
    assert server.seen[0] is None and server.seen[1] is not None


def test_a_server_that_ignores_range_starts_again(server: Server, tmp_path: Path) -> None:
    server.plan = ["cut", "ignore-range"]
    assert get(server, tmp_path).read_bytes() == CONTENT
    assert server.seen[1] is not None


def test_a_file_that_changed_between_is_not_glued_together(server: Server, tmp_path: Path) -> None:
    server.plan = ["cut"]
    with pytest.raises(ValueError, match="could not be fetched"):
        get(server, tmp_path, attempts=1)
    server.files["data.bin"], server.etag = CONTENT[::-1], '"v2"'
    assert get(server, tmp_path).read_bytes() == CONTENT[::-1]


def test_a_busy_server_is_asked_again(server: Server, tmp_path: Path) -> None:
    server.plan = ["busy", "busy"]
    assert get(server, tmp_path).read_bytes() == CONTENT
    assert len(server.seen) == 3


def test_a_server_that_stays_busy_is_given_up(server: Server, tmp_path: Path) -> None:
    server.plan = ["busy"] * 9
    with pytest.raises(ValueError, match="503"):
        get(server, tmp_path, attempts=3)
    assert len(server.seen) == 3


def test_gone_is_not_asked_again_but_the_next_address_is(server: Server, tmp_path: Path) -> None:
    server.plan = ["gone"]
    two = Source(filename="data.bin", urls=(server.url("old.bin"), server.url("data.bin")), licence="CC0")
    path, url = fetch(two, tmp_path, name="mine", backoff=0.01)
    assert path.read_bytes() == CONTENT and url == server.url("data.bin") and len(server.seen) == 2


@pytest.mark.parametrize("known", [{"size": 5}, {"sha256": "0" * 64}])
def test_a_wrong_file_is_refused_and_removed(server: Server, tmp_path: Path, known: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"should be (5|0{64})"):
        fetch(source(server, **known), tmp_path, name="mine", backoff=0.01)
    assert not (tmp_path / "data.bin").exists()


def test_a_login_page_is_called_one(server: Server, tmp_path: Path) -> None:
    server.files["data.zip"] = b"<!DOCTYPE html><title>Log in</title>"
    with pytest.raises(ValueError, match="web page"):
        download(tmp_path / "raw", name="mine", sources=[source(server, "data.zip")], cache=tmp_path / "cache")
    assert not (tmp_path / "raw").exists()


def test_a_dead_address_says_so(tmp_path: Path) -> None:
    dead = Source(filename="x.zip", urls=("http://127.0.0.1:9/x.zip",), licence="CC0")
    with pytest.raises(ValueError, match=r"mine: x.zip could not be fetched(.|\n)*127.0.0.1:9"):
        fetch(dead, tmp_path, name="mine", attempts=2, backoff=0.01)


def test_manual_sources_say_what_to_do(tmp_path: Path) -> None:
    manual = Source(filename="x.zip", urls=(), licence="asks", manual="Log in at the dataset's page and fetch x.zip.")
    with pytest.raises(ValueError, match="Log in at the dataset's page.*datasets.mine.source"):
        download(tmp_path / "raw", name="mine", sources=[manual], cache=tmp_path / "cache")


def test_provenance_holds_address_checksum_and_licence(server: Server, tmp_path: Path) -> None:
    wanted = source(server, sha256=hashlib.sha256(CONTENT).hexdigest(), size=len(CONTENT))
    told = download(tmp_path / "raw", name="mine", sources=[wanted], cache=tmp_path / "cache")
    assert json.loads((tmp_path / "raw" / "provenance.json").read_text()) == told
    record = {
        "from": server.url("data.bin"),
        "filename": "data.bin",
        "size": len(CONTENT),
        "sha256": wanted.sha256,
        "checked": True,
    }
    assert told == {"sources": [record], "licence": ["CC0"]}
    assert not (tmp_path / "cache").exists()


# --- local sources ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["path", "file://"])
def test_a_local_archive(tmp_path: Path, form: str) -> None:
    path = zip_of(tmp_path / "my data.zip", {"a/b.txt": b"1", "c.txt": b"2"})
    address = str(path) if form == "path" else path.as_uri()
    download(tmp_path / "raw", name="mine", sources=[], source=address, cache=tmp_path / "cache")
    assert (tmp_path / "raw" / "a" / "b.txt").read_bytes() == b"1" and (tmp_path / "raw" / "c.txt").exists()


def test_an_address_in_the_row_is_checked_like_the_source_of_that_name(server: Server, tmp_path: Path) -> None:
    known = Source(filename="data.bin", urls=("http://127.0.0.1:9/data.bin",), licence="CC0", sha256="0" * 64)
    with pytest.raises(ValueError, match="should be 0000"):
        download(tmp_path / "raw", name="mine", sources=[known], source=server.url("data.bin"), cache=tmp_path / "cache")


def test_a_local_folder_is_copied_even_if_read_only(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "x.txt").write_text("1")
    (folder / "deep").chmod(0o555)
    for _ in range(2):  # the second time replaces the first copy
        download(tmp_path / "raw", name="mine", sources=[], source=str(folder), cache=tmp_path / "cache")
    (folder / "deep").chmod(0o755)
    copy = tmp_path / "raw" / "deep"
    assert (copy / "x.txt").read_text() == "1" and os.access(copy, os.W_OK) and copy.stat().st_mode & 0o200


def test_a_local_folder_of_archives_is_unpacked(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    zip_of(tmp_path / "mine" / "part.zip", {"a.txt": b"1"})
    known = Source(filename="part.zip", urls=(), licence="asks", manual="Log in.")
    download(tmp_path / "raw", name="mine", sources=[known], source=str(tmp_path / "mine"), cache=tmp_path / "cache")
    assert (tmp_path / "raw" / "a.txt").read_bytes() == b"1" and not (tmp_path / "raw" / "part.zip").exists()


def test_a_missing_local_source_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="datasets.mine.source: /no/such/file"):
        download(tmp_path / "raw", name="mine", sources=[], source="/no/such/file", cache=tmp_path / "cache")


def test_a_failure_leaves_the_old_folder(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "old.txt").write_text("old")
    bad = zip_of(tmp_path / "bad.zip", {"ok.txt": b"1", "../evil.txt": b"2"})
    with pytest.raises(ValueError, match="evil"):
        download(tmp_path / "raw", name="mine", sources=[], source=str(bad), cache=tmp_path / "cache")
    assert [p.name for p in (tmp_path / "raw").iterdir()] == ["old.txt"] and not list(tmp_path.glob(".raw*"))


def test_generated(tmp_path: Path) -> None:
    def draw(folder: Path, *, seed: int, size: int) -> None:
        (folder / "x.txt").write_text(f"{seed} {size}")

    told = generate(tmp_path / "raw", draw, name="made-up", seed=3, options={"size": 4})
    assert (tmp_path / "raw" / "x.txt").read_text() == "3 4"
    assert told == json.loads((tmp_path / "raw" / "provenance.json").read_text())
    assert told == {"generated": "made-up", "seed": 3, "options": {"size": 4}}
