"""What came from another machine is kept and not fetched twice: not by a later run, not by two processes, not after a kill."""

import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.hostile_server import Server
from tests.imports import ROOT
from tests.test_download import CONTENT, SHA256, get, server, source

__all__ = ["server"]


def test_what_was_fetched_is_not_fetched_again_and_takes_no_room_twice(server: Server, tmp_path: Path) -> None:
    first = get(tmp_path, source(server))
    shutil.rmtree(tmp_path / "raw")  # as DVC does
    told: list[str] = []
    assert get(tmp_path, source(server), tell=told.append) == first and len(server.seen) == 1
    assert "fetched before" in told[0]
    kept = next(path for path in (tmp_path / "cache").rglob("data.bin"))
    assert kept.samefile(tmp_path / "raw" / "data.bin")


def test_a_kept_file_that_was_changed_is_fetched_again(server: Server, tmp_path: Path) -> None:
    get(tmp_path, source(server))
    (tmp_path / "raw" / "data.bin").write_bytes(CONTENT[::-1])  # the same file as the kept one
    get(tmp_path, source(server))
    assert (tmp_path / "raw" / "data.bin").read_bytes() == CONTENT and len(server.seen) == 2


def test_a_checksum_that_became_known_is_checked_on_the_kept_file(server: Server, tmp_path: Path) -> None:
    get(tmp_path, source(server))
    with pytest.raises(ValueError, match="should be 0000"):
        get(tmp_path, source(server, sha256="0" * 64))
    assert get(tmp_path, source(server, sha256=SHA256))["sources"][0]["checked"]


def test_an_address_of_the_user_is_asked_whether_its_file_changed(server: Server, tmp_path: Path) -> None:
    address = server.url("data.bin", query="?token=secret")
    for _ in range(2):
        get(tmp_path, source=address)
    server.files["data.bin"], server.etag = CONTENT[::-1], '"v2"'
    get(tmp_path, source=address)
    assert (tmp_path / "raw" / "data.bin").read_bytes() == CONTENT[::-1]
    server.etag = 'W/"none"'
    server.files["data.bin"] = CONTENT[:-1]
    get(tmp_path, source=address)
    assert (tmp_path / "raw" / "data.bin").read_bytes() == CONTENT[:-1]
    server.plan = [(404, {})]
    told: list[str] = []
    get(tmp_path, source=address, tell=told.append)
    assert "cannot be asked (the server answered 404 Not Found); the copy fetched before is used" in told[0]
    assert not [p for p in tmp_path.rglob("*") if p.is_file() and b"secret" in p.read_bytes()]


FETCH = """
import sys
from pathlib import Path
from segpipe.download import download
from segpipe.layout import Source
out, cache, url = sys.argv[1:]
wanted = Source(filename="data.bin", urls=(url,), licence="CC0")
download(Path(out), name="mine", sources=[wanted], cache=Path(cache), tell=lambda s: print(s, flush=True))
"""


def start(server: Server, tmp_path: Path, out: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", FETCH, str(tmp_path / out), str(tmp_path / "cache"), server.url("data.bin")]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def test_two_processes_want_one_file_and_one_fetches_it(server: Server, tmp_path: Path) -> None:
    server.plan = ["stall"]
    with start(server, tmp_path, "one") as one:
        while not server.seen:
            assert one.poll() is None
            time.sleep(0.02)
        with start(server, tmp_path, "two") as two:
            assert two.stdout is not None and two.stdout.readline() == "waiting for another process that fetches data.bin\n"
            server.go_on.set()
            assert one.wait(60) == 0 and two.wait(60) == 0
            assert "fetched before" in two.stdout.read()
    assert (tmp_path / "one" / "data.bin").read_bytes() == (tmp_path / "two" / "data.bin").read_bytes() == CONTENT
    assert server.ranges() == [0]


def test_a_killed_process_holds_nobody_up(server: Server, tmp_path: Path) -> None:
    server.plan = ["stall"]
    with start(server, tmp_path, "one") as process:
        while not any(p.stat().st_size > 100_000 for p in (tmp_path / "cache").rglob("data.bin")):
            assert process.poll() is None
            time.sleep(0.02)
        process.kill()
    get(tmp_path, source(server))
    assert (tmp_path / "raw" / "data.bin").read_bytes() == CONTENT
    assert server.ranges()[0] == 0 and server.ranges()[1] > 100_000 and len(server.seen) == 2
