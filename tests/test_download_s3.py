"""Sources in object stores: fsspec's store in memory for every path of ours, and moto's S3 server for the real driver."""

import builtins
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import requests

from segpipe import bucket_folder, buckets
from segpipe.archives import opened
from segpipe.layout import Source
from segpipe.streams import Cut, Refused
from segpipe.transfer import Patience, transfer
from tests.test_archives import zip_of
from tests.test_download import get
from tests.test_packing import tree

CONTENT = np.random.default_rng(0).bytes(5_000_000)
FILES = {"images/1.png": b"1", "images/2.png": b"22", "masks/1.png": b"333", "a [1]*?.txt": b"odd"}


@pytest.fixture
def memory() -> Iterator[Any]:
    store = fsspec.filesystem("memory")
    store.store.clear()
    yield store
    store.store.clear()
    store.pseudo_dirs[:] = [""]


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The objects whose bytes were asked for."""
    seen: list[str] = []
    read = buckets._blocks

    def counted(file: Any, begin: int, url: str) -> Iterator[bytes]:
        seen.append(url.rpartition("/")[2])
        yield from read(file, begin, url)

    monkeypatch.setattr(buckets, "_blocks", counted)
    return seen


def unpacked(folder: Path) -> dict[str, bytes]:
    with opened(folder / "raw", folder / "scratch") as files:
        return {name: data for name, data in tree(files).items() if name != "provenance.json"}


def test_one_object(memory: Any, tmp_path: Path, reads: list[str]) -> None:
    memory.pipe("/b/data.zip", zip_of(tmp_path / "x.zip", {"a/1.png": b"1"}).read_bytes())
    told: list[tuple[str, int, int | None]] = []
    record = get(tmp_path, source="memory://b/data.zip", progress=lambda *row: told.append(row))["sources"][0]
    assert record["from"] == "memory://b/data.zip" and unpacked(tmp_path) == {"a/1.png": b"1"}
    assert told[0][1] == 0 and told[-1] == ("data.zip", record["size"], record["size"])
    get(tmp_path, source="memory://b/data.zip")
    assert reads == ["data.zip"]
    memory.pipe("/b/data.zip", zip_of(tmp_path / "x.zip", {"a/1.png": b"2"}).read_bytes())
    get(tmp_path, source="memory://b/data.zip")
    assert unpacked(tmp_path) == {"a/1.png": b"2"}


def test_a_source_of_a_dataset_may_be_an_object(memory: Any, tmp_path: Path) -> None:
    memory.pipe("/b/data.bin", CONTENT)
    get(tmp_path, Source(filename="data.bin", urls=("memory://gone/data.bin", "memory://b/data.bin"), licence="CC0"))
    assert (tmp_path / "raw" / "data.bin").read_bytes() == CONTENT


class Breaks:
    """An open object whose connection breaks after some bytes, once."""

    def __init__(self, file: Any, *, after: int) -> None:
        self.file, self.left = file, after

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def read(self, size: int) -> bytes:
        if self.left <= 0:
            raise ConnectionResetError(104, "Connection reset by peer")
        self.left -= size
        return bytes(self.file.read(size))


def test_a_broken_transfer_is_continued_if_the_object_is_the_same(
    memory: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory.pipe("/b/data.bin", CONTENT)
    begins: list[int] = []
    read = buckets._blocks

    def breaking(file: Any, begin: int, url: str) -> Iterator[bytes]:
        begins.append(begin)
        yield from read(Breaks(file, after=2_000_000) if len(begins) in (1, 3) else file, begin, url)

    monkeypatch.setattr(buckets, "_blocks", breaking)
    told: list[str] = []
    transfer("memory://b/data.bin", tmp_path / "one", patience=Patience(backoff=0.01), tell=told.append)
    assert (tmp_path / "one").read_bytes() == CONTENT and begins == [0, 2 * 2**20]
    assert "Connection reset by peer after 2097152 of 5000000 bytes" in told[0]
    with pytest.raises(Cut):
        transfer("memory://b/data.bin", tmp_path / "two", patience=Patience(attempts=1))
    memory.pipe("/b/data.bin", CONTENT[::-1])
    transfer("memory://b/data.bin", tmp_path / "two")
    assert (tmp_path / "two").read_bytes() == CONTENT[::-1] and begins[2:] == [0, 0]


def test_a_folder_becomes_one_tar_and_only_what_changed_is_fetched_again(memory: Any, tmp_path: Path, reads: list[str]) -> None:
    for name, data in FILES.items():
        memory.pipe(f"/b/mine/{name}", data)
    memory.pipe("/b/mine2/other.png", b"x")
    told: list[tuple[str, int, int | None]] = []
    record = get(tmp_path, source="memory://b/mine/", progress=lambda *row: told.append(row))["sources"][0]
    assert record["from"] == "memory://b/mine/" and record["filename"] == "files.tar" and record["files"] == 4
    assert unpacked(tmp_path) == FILES and len(reads) == 4 and told[-1] == ("mine", 9, 9)
    first = (tmp_path / "raw" / "files.tar").read_bytes()
    get(tmp_path, source="memory://b/mine/")
    assert (tmp_path / "raw" / "files.tar").read_bytes() == first and len(reads) == 4
    memory.pipe("/b/mine/images/2.png", b"44")
    memory.rm("/b/mine/masks/1.png")
    memory.pipe("/b/mine/.DS_Store", b"x")
    get(tmp_path, source="memory://b/mine")  # a folder also without the slash
    assert unpacked(tmp_path) == {n: d for n, d in FILES.items() if n[0] != "m"} | {"images/2.png": b"44"}
    get(tmp_path, source="memory://b/mine/")
    reads.clear()
    memory.pipe("/b/mine/images/2.png", b"55")
    get(tmp_path, source="memory://b/mine/")
    assert reads == ["2.png"] and unpacked(tmp_path)["images/2.png"] == b"55"


def test_a_folder_whose_transfer_broke_goes_on_with_what_is_missing(
    memory: Any, tmp_path: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, data in FILES.items():
        memory.pipe(f"/b/mine/{name}", data)
    with monkeypatch.context() as patch:
        patch.setattr(bucket_folder, "WORKERS", 1)
        fetch = bucket_folder.transfer

        def breaking(url: str, part: Path, **options: Any) -> bool:
            if "masks" in url:
                raise Cut("the network is down")
            return fetch(url, part, **options)

        patch.setattr(bucket_folder, "transfer", breaking)
        with pytest.raises(ValueError, match="mine: memory://b/mine/ could not be fetched: the network is down"):
            get(tmp_path, source="memory://b/mine/")
    assert len(reads) == 3 and not (tmp_path / "raw").exists()
    get(tmp_path, source="memory://b/mine/")
    assert len(reads) == 4 and unpacked(tmp_path) == FILES


def test_a_name_in_a_listing_cannot_lead_outside(memory: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="outside the folder"):
        bucket_folder.fetch_folder("memory://b/", tmp_path, files={"../evil": (1, "")}, patience=Patience())
    assert not list(tmp_path.iterdir())


def test_archives_in_a_folder_are_taken_as_they_are(memory: Any, tmp_path: Path) -> None:
    for name in ("images.zip", "masks.zip"):
        memory.pipe(f"/b/mine/{name}", zip_of(tmp_path / "x.zip", {f"{name}.png": b"1"}).read_bytes())
    get(tmp_path, source="memory://b/mine/")
    assert sorted(p.name for p in (tmp_path / "raw").iterdir()) == ["images.zip", "masks.zip", "provenance.json"]
    memory.pipe("/b/mine/other.txt", b"1")
    known = Source(filename="masks.zip", urls=(), licence="asks", manual="Log in.")
    get(tmp_path, known, source="memory://b/mine/")
    assert sorted(p.name for p in (tmp_path / "raw").iterdir()) == ["masks.zip", "provenance.json"]
    with pytest.raises(ValueError, match="should be 5"):
        get(tmp_path, Source(filename="masks.zip", urls=(), licence="asks", size=5), source="memory://b/mine/")


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("memory://b/gone.zip", "datasets.mine.source: memory://b/gone.zip: there is no such file or folder"),
        ("memory://b/empty/", "no files there"),
        ("nosuch://b/x?key=secret", "nosuch://b/x: addresses that begin with nosuch:// are not known"),
    ],
)
def test_an_address_that_leads_nowhere_says_so(memory: Any, tmp_path: Path, given: str, reason: str) -> None:
    memory.mkdir("/b/empty")
    with pytest.raises(ValueError, match=reason) as raised:
        get(tmp_path, source=given)
    assert "secret" not in str(raised.value)


def test_a_missing_driver_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any, **named: Any) -> Any:
        if name.startswith("gcsfs"):
            raise ImportError(f"No module named {name}")
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ValueError, match="install gcsfs"):
        get(tmp_path, source="gs://bucket/x.zip")


# --- the real driver --------------------------------------------------------------------------------------------------------


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    from moto.server import ThreadedMotoServer
    from s3fs import S3FileSystem

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    requests.post(f"http://{host}:{port}/moto-api/reset", timeout=10)  # it remembers the last test's
    settings = {"ACCESS_KEY_ID": "x", "SECRET_ACCESS_KEY": "y", "DEFAULT_REGION": "us-east-1", "EC2_METADATA_DISABLED": "true"}
    settings |= {"ENDPOINT_URL": f"http://{host}:{port}", "CONFIG_FILE": str(tmp_path / "no"), "SHARED_CREDENTIALS_FILE": "/no"}
    for name, value in settings.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    S3FileSystem.clear_instance_cache()
    store = S3FileSystem(use_listings_cache=False)
    store.mkdir("bucket")
    yield store
    S3FileSystem.clear_instance_cache()
    server.stop()


@pytest.mark.slow
def test_s3(s3: Any, tmp_path: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    s3.pipe("bucket/data.bin", CONTENT)
    part = tmp_path / "data.bin"
    with monkeypatch.context() as patch:
        read = buckets._blocks
        patch.setattr(buckets, "_blocks", lambda file, begin, url: read(Breaks(file, after=2_000_000), begin, url))
        with pytest.raises(Cut, match="after 2097152 of 5000000 bytes"):
            transfer("s3://bucket/data.bin", part, patience=Patience(attempts=1))
    assert transfer("s3://bucket/data.bin", part) and part.read_bytes() == CONTENT
    for name, data in FILES.items():
        s3.pipe(f"bucket/mine/{name}", data)
    s3.pipe("bucket/mine2/other.png", b"x")
    s3.touch("bucket/mine/")  # what consoles write to show a folder
    reads.clear()
    get(tmp_path, source="s3://bucket/mine/")
    assert unpacked(tmp_path) == FILES and len(reads) == len(FILES)
    get(tmp_path, source="s3://bucket/mine/")
    assert len(reads) == len(FILES)
    listed = {"images/1.png": (1, 'ETag "of another day"')}
    (tmp_path / "folder").mkdir()
    with pytest.raises(Refused, match="images/1.png was changed while the folder was read"):
        bucket_folder.fetch_folder("s3://bucket/mine", tmp_path / "folder", files=listed, patience=Patience())
    for gone in ("s3://bucket/gone.zip", "s3://nobucket/x/"):
        with pytest.raises(ValueError, match="there is no such file or folder"):
            get(tmp_path, source=gone)


@pytest.mark.slow
def test_a_public_bucket_needs_no_key(s3: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    s3.pipe("bucket/data.bin", CONTENT, ACL="public-read")
    s3.pipe("bucket/closed.bin", CONTENT)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    type(s3).clear_instance_cache()
    get(tmp_path, source="s3://bucket/data.bin")
    assert (tmp_path / "raw" / "data.bin").read_bytes() == CONTENT
    with pytest.raises(ValueError, match="s3://bucket/closed.bin: no access"):
        get(tmp_path, source="s3://bucket/closed.bin")
