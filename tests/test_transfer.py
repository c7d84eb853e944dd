"""One file from one address, against a server on this machine that cuts, stalls, lies, is busy or sends elsewhere."""

import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segpipe import streams, transfer
from segpipe.streams import Cut, Refused
from segpipe.transfer import Patience
from tests.hostile_server import Server, serving
from tests.imports import ROOT

CONTENT = np.random.default_rng(0).bytes(300_000)
QUICK = Patience(backoff=0.01, timeout=(2, 2))


@pytest.fixture
def server() -> Iterator[Server]:
    with serving({"data.bin": CONTENT}) as running:
        yield running


def get(server: Server, folder: Path, *, name: str = "data.bin", **options: Any) -> bytes:
    part = folder / "data.bin"
    transfer.transfer(server.url(name), part, **{"patience": QUICK} | options)
    return part.read_bytes()


def test_plain(server: Server, tmp_path: Path) -> None:
    told: list[tuple[str, int, int | None]] = []
    assert get(server, tmp_path, progress=lambda *row: told.append(row)) == CONTENT
    assert told[0] == ("data.bin", 0, len(CONTENT)) and told[-1] == ("data.bin", len(CONTENT), len(CONTENT))
    assert [done for _, done, _ in told] == sorted(done for _, done, _ in told)


@pytest.mark.parametrize("step", ["chunked", "tells-no-length", "tells-no-version"])
def test_what_a_server_need_not_tell(server: Server, tmp_path: Path, step: str) -> None:
    server.plan = [step]
    assert get(server, tmp_path) == CONTENT and len(server.seen) == 1


def test_an_empty_file(server: Server, tmp_path: Path) -> None:
    server.files["data.bin"] = b""
    assert get(server, tmp_path) == b""


def test_a_cut_transfer_is_continued(server: Server, tmp_path: Path) -> None:
    server.plan = ["cut", "cut"]
    told: list[str] = []
    assert get(server, tmp_path, tell=told.append) == CONTENT
    first, second, third = server.ranges()
    assert first == 0 < second < third < len(CONTENT)
    assert told[0] == "data.bin: the connection ended after 150000 of 300000 bytes; trying again in 0.01 s"


def test_a_later_run_continues(server: Server, tmp_path: Path) -> None:
    server.plan = ["cut"]
    with pytest.raises(Cut, match="ended after 150000 of 300000 bytes"):
        get(server, tmp_path, patience=Patience(attempts=1))
    assert get(server, tmp_path) == CONTENT and server.ranges() == [0, 150_000]


def test_a_complete_part_of_an_earlier_run_is_not_asked_for_again(server: Server, tmp_path: Path) -> None:
    assert get(server, tmp_path) == get(server, tmp_path) == CONTENT
    assert len(server.seen) == 1


@pytest.mark.parametrize("step", ["tells-no-version", "chunked"])
def test_a_part_without_a_version_is_not_continued_but_started_again(server: Server, tmp_path: Path, step: str) -> None:
    server.plan = ["cut-chunked" if step == "chunked" else "cut"]
    server.etag = 'W/"weak"'
    assert get(server, tmp_path) == CONTENT and server.ranges() == [0, 0]


def test_a_server_that_ignores_range_starts_again(server: Server, tmp_path: Path) -> None:
    server.plan = ["cut", "ignores-range"]
    assert get(server, tmp_path) == CONTENT and server.ranges() == [0, 150_000]


def test_a_server_that_ignores_range_and_always_cuts_is_given_up(server: Server, tmp_path: Path) -> None:
    server.etag = 'W/"weak"'
    server.plan = ["cut"] * 20
    with pytest.raises(Cut, match="after 150000 of 300000"):
        get(server, tmp_path, patience=Patience(attempts=3, backoff=0.01))
    assert len(server.seen) == 3 and set(server.ranges()) == {0}


def test_a_server_that_sends_another_part_starts_again(server: Server, tmp_path: Path) -> None:
    server.plan = ["cut", "sends-another-part"]
    assert get(server, tmp_path) == CONTENT and server.ranges() == [0, 150_000, 0]


def test_a_file_that_changed_between_is_not_glued_together(server: Server, tmp_path: Path) -> None:
    server.plan = ["cut"]
    with pytest.raises(Cut):
        get(server, tmp_path, patience=Patience(attempts=1))
    server.files["data.bin"], server.etag = CONTENT[::-1], '"v2"'
    assert get(server, tmp_path) == CONTENT[::-1] and server.ranges() == [0, 150_000]


@pytest.mark.parametrize("content", [CONTENT[:100_000], CONTENT * 2])
def test_a_server_that_continues_a_file_of_another_size_is_not_believed(server: Server, tmp_path: Path, content: bytes) -> None:
    server.plan = ["cut", "believes-any-part"]
    with pytest.raises(Cut):
        get(server, tmp_path, patience=Patience(attempts=1))
    server.files["data.bin"] = content
    server.etag = '"v2"'
    assert get(server, tmp_path) == content and server.ranges() == [0, 150_000, 0]


def test_a_note_never_tells_of_older_bytes(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that dies between the note of a new version and its first byte leaves no bytes of the old one."""
    server.plan = ["cut"]
    with pytest.raises(Cut):
        get(server, tmp_path, patience=Patience(attempts=1))
    server.files["data.bin"], server.etag = CONTENT[::-1], '"v2"'

    def die(*_: object, **__: object) -> int:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(transfer, "_append", die)
        with pytest.raises(KeyboardInterrupt):
            get(server, tmp_path)
    assert get(server, tmp_path) == CONTENT[::-1]


def test_a_server_that_says_more_than_it_sends_is_found(server: Server, tmp_path: Path) -> None:
    server.plan = ["says-more"] * 9
    told: list[str] = []
    with pytest.raises(Cut):
        get(server, tmp_path, patience=Patience(attempts=4, backoff=0.01), tell=told.append)
    assert "the connection ended after 300000 of 300100 bytes" in told[0]


@pytest.mark.parametrize("step", ["says-less", "says-more"])
def test_a_length_that_is_not_the_known_one_is_refused_at_once(server: Server, tmp_path: Path, step: str) -> None:
    server.plan = [step]
    with pytest.raises(Refused, match=r"(299900|300100) bytes, should be 300000"):
        get(server, tmp_path, size=300_000)
    assert len(server.seen) == 1


def test_more_than_the_known_size_is_refused_while_it_comes(server: Server, tmp_path: Path) -> None:
    server.plan = ["chunked"]
    with pytest.raises(Refused, match="more than the 1000 bytes"):
        get(server, tmp_path, size=1000)


def test_a_stall_ends_and_is_continued(server: Server, tmp_path: Path) -> None:
    server.plan = ["stall"]
    told: list[str] = []
    assert get(server, tmp_path, patience=Patience(backoff=0.01, timeout=(2, 0.3)), tell=told.append) == CONTENT
    assert "nothing came for 0.3 s" in told[0] and server.ranges()[1] > 0


def test_a_busy_server_is_asked_again(server: Server, tmp_path: Path) -> None:
    server.plan = [(503, {}), (429, {})]
    assert get(server, tmp_path) == CONTENT and len(server.seen) == 3


def test_a_server_that_stays_busy_is_given_up(server: Server, tmp_path: Path) -> None:
    server.plan = [(503, {})] * 9
    with pytest.raises(Cut, match="the server answered 503 Service Unavailable"):
        get(server, tmp_path, patience=Patience(attempts=3, backoff=0.01))
    assert len(server.seen) == 3


@pytest.mark.parametrize(
    ("asked", "least", "most"), [("7", 7, 7), ("in 20 s", 15, 20), ("9999", 120, 120), ("ago", 0.01, 0.01), ("soon", 0.01, 0.01)]
)
def test_the_pause_that_a_server_asks_for(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: str, least: float, most: float
) -> None:
    dates = {"in 20 s": 20, "ago": -300}
    if asked in dates:
        asked = format_datetime(datetime.now(UTC) + timedelta(seconds=dates[asked]), usegmt=True)
    pauses: list[float] = []
    monkeypatch.setattr(transfer.time, "sleep", pauses.append)
    server.plan = [(429, {"Retry-After": asked})]
    assert get(server, tmp_path) == CONTENT
    assert len(pauses) == 1 and least <= pauses[0] <= most


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ((404, {}), "the server answered 404 Not Found"),
        ((410, {}), "410"),
        ((403, {}), "403 Forbidden: it may need a login"),
        ((302, {"Location": "file:///etc/passwd"}), "neither http nor https"),
        ((302, {"Location": "ftp://127.0.0.1/data.bin"}), "neither http nor https"),
        ((304, {}), "304"),
    ],
)
def test_what_will_not_get_better_is_asked_once(server: Server, tmp_path: Path, answer: Any, reason: str) -> None:
    server.plan = [answer]
    with pytest.raises(Refused, match=reason):
        get(server, tmp_path)
    assert len(server.seen) == 1 and not list(tmp_path.iterdir())


def test_redirects_are_followed_and_end(server: Server, tmp_path: Path) -> None:
    server.plan = [(302, {"Location": "/data.bin"})]
    assert get(server, tmp_path, name="moved.bin") == CONTENT
    server.plan = [(302, {"Location": "/loop.bin"})] * 50
    with pytest.raises(Refused, match="without end"):
        transfer.transfer(server.url("loop.bin"), tmp_path / "loop.bin", patience=QUICK)


def test_a_dead_address_says_so(tmp_path: Path) -> None:
    with pytest.raises(Cut, match=r"no connection \(Connection refused\)"):
        transfer.transfer("http://127.0.0.1:9/x?key=secret", tmp_path / "x", patience=Patience(attempts=2, backoff=0.01))


@pytest.mark.parametrize("url", ["http://127.0.0.1:99999/x?key=secret", "http:///x?key=secret", "http://[::1/x?key=secret"])
def test_an_address_that_cannot_be_one_says_so_without_its_query(tmp_path: Path, url: str) -> None:
    with pytest.raises((Refused, Cut)) as raised:
        transfer.transfer(url, tmp_path / "x", patience=Patience(attempts=1))
    assert "secret" not in str(raised.value)


def test_a_gz_file_arrives_as_it_is_even_if_called_encoded(server: Server, tmp_path: Path) -> None:
    packed = gzip.compress(CONTENT)
    server.files["data.tar.gz"] = packed
    server.plan = ["calls-it-encoded"]
    assert get(server, tmp_path, name="data.tar.gz") == packed


def test_an_encoding_that_was_not_asked_for_is_undone(server: Server, tmp_path: Path) -> None:
    server.files["data.bin"] = gzip.compress(CONTENT)
    server.plan = ["calls-it-encoded"]
    assert get(server, tmp_path) == CONTENT


def test_a_disk_without_room_is_found_before_the_transfer(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=299_999)
    monkeypatch.setattr("segpipe.archives.shutil.disk_usage", lambda _: usage)
    with pytest.raises(ValueError, match="data.bin needs 0.00 GB, but the disk of .* has 0.00 GB free"):
        get(server, tmp_path)
    assert not (tmp_path / "data.bin").exists()


def test_a_killed_process_is_continued(server: Server, tmp_path: Path) -> None:
    server.plan = ["stall"]
    code = "import sys; from pathlib import Path; from segpipe.transfer import transfer; transfer(sys.argv[1], Path(sys.argv[2]))"
    part = tmp_path / "data.bin"
    process = subprocess.Popen([sys.executable, "-c", code, server.url("data.bin"), str(part)], cwd=ROOT)
    patience = time.monotonic() + 60
    while (not part.exists() or part.stat().st_size < 100_000) and time.monotonic() < patience:
        assert process.poll() is None
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    there = part.stat().st_size
    assert get(server, tmp_path) == CONTENT and server.ranges() == [0, there] and there >= 100_000


def test_the_note_holds_no_part_of_the_address(server: Server, tmp_path: Path) -> None:
    url = server.url("data.bin", login="ann:secret@", query="?token=secret")
    transfer.transfer(url, tmp_path / "data.bin", patience=QUICK)
    note = json.loads((tmp_path / "data.bin.json").read_text())
    assert note["whole"] and "secret" not in (tmp_path / "data.bin.json").read_text()


@pytest.mark.parametrize(
    ("address", "shown", "name"),
    [
        ("https://ann:pw@host.org:8443/a/b%20c.zip?X-Sig=1#x", "https://host.org:8443/a/b%20c.zip", "b c.zip"),
        ("https://[::1]:80/x.zip", "https://[::1]:80/x.zip", "x.zip"),
        ("s3://bucket/key.tar", "s3://bucket/key.tar", "key.tar"),
        ("https://host.org/", "https://host.org/", "download"),
        ("https://host.org/a/..", "https://host.org/a/..", "download"),
        ("https://host.org/a%00%2F..%2Fb%0a.zip", "https://host.org/a%00%2F..%2Fb%0a.zip", "b_.zip"),
        ("/data/my file.zip", "/data/my file.zip", "my file.zip"),
    ],
)
def test_addresses(address: str, shown: str, name: str) -> None:
    assert streams.public(address) == shown and streams.filename(address) == name


def test_a_path_has_no_scheme() -> None:
    assert [streams.scheme(s) for s in ("S3://b/k", "C:\\data", "a:b", "/x://y", "data/x.zip")] == ["s3", "", "", "", ""]
