"""Sources of a dataset become few packed files: from mirrors and a shared cache, from this machine, or drawn."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segpipe.archives import opened
from segpipe.download import download, generate
from segpipe.layout import Source
from tests.hostile_server import Server, serving
from tests.test_archives import tar_of, zip_of
from tests.test_packing import fill, tree

CONTENT = np.random.default_rng(0).bytes(300_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    archive = zip_of(tmp_path / "served" / "data.zip", {"a/x.png": b"1", "a/y.png": b"22"}).read_bytes()
    shutil.rmtree(tmp_path / "served")
    with serving({"data.bin": CONTENT, "data.zip": archive, "page": b"\n<!DOCTYPE html><title>Log in</title>"}) as running:
        yield running


def source(server: Server, *names: str, filename: str = "data.bin", **known: Any) -> Source:
    return Source(filename=filename, urls=tuple(server.url(name) for name in names or [filename]), licence="CC0", **known)


def get(folder: Path, *sources: Source, **options: Any) -> dict[str, Any]:
    options = {"name": "mine", "cache": folder / "cache", "backoff": 0.01, "timeout": (2, 2)} | options
    return download(folder / "raw", sources=sources, **options)


def asked(server: Server) -> list[str]:
    return [path for path, _ in server.seen]


# --- mirrors ----------------------------------------------------------------------------------------------------------------


def test_the_first_mirror_that_works_is_used(server: Server, tmp_path: Path) -> None:
    server.plan = [(503, {}), (503, {})]
    told: list[str] = []
    record = get(tmp_path, source(server, "busy", "old.bin", "data.bin"), attempts=2, tell=told.append)["sources"][0]
    assert (tmp_path / "raw" / "data.bin").read_bytes() == CONTENT and record["from"] == server.url("data.bin")
    assert asked(server) == ["/busy", "/busy", "/old.bin", "/data.bin"]
    assert [sentence.rpartition("; ")[2] for sentence in told] == ["trying again in 0.01 s", *["trying the next address"] * 2]


@pytest.mark.parametrize("known", [{"size": 300_000}, {"sha256": SHA256}])
def test_a_mirror_with_a_wrong_file_is_passed_over(server: Server, tmp_path: Path, known: dict[str, Any]) -> None:
    server.files["wrong.bin"] = CONTENT[::-1] if "sha256" in known else CONTENT[:-1]
    get(tmp_path, source(server, "wrong.bin", "page", "data.bin", **known))
    assert (tmp_path / "raw" / "data.bin").read_bytes() == CONTENT


def test_when_no_mirror_works_every_reason_is_told(server: Server, tmp_path: Path) -> None:
    server.files["wrong.bin"] = CONTENT[::-1]
    urls = (server.url("gone.bin"), server.url("wrong.bin"), "http://127.0.0.1:9/x", server.url("page", query="?key=secret"))
    wanted = Source(filename="data.bin", urls=urls, licence="CC0", sha256=SHA256)
    with pytest.raises(ValueError) as raised:
        get(tmp_path, wanted, attempts=1)
    first, *rest = str(raised.value).split("\n  ")
    assert first.startswith("mine: data.bin could not be fetched.") and "datasets.mine.source" in first
    assert rest[0] == f"{urls[0]}: the server answered 404 Not Found"
    assert rest[1].startswith(f"{urls[1]}: sha256 ") and f"should be {SHA256}" in rest[1]
    assert rest[2] == f"{urls[2]}: no connection (Connection refused)"
    assert rest[3].startswith(f"{server.url('page')}: ") and rest[3].endswith("click on a licence?") and len(rest) == 4
    assert not (tmp_path / "raw").exists() and "secret" not in str(raised.value)
    assert not [p for p in (tmp_path / "cache").rglob("*.bin") if p.is_file()]


@pytest.mark.parametrize("filename", ["data.zip", "labels.csv", "data.tar.gz", "v1.0"])
@pytest.mark.parametrize("known", [{}, {"size": 300_000}])
def test_a_login_page_is_called_one(server: Server, tmp_path: Path, filename: str, known: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="It is a web page: does the address need a login"):
        get(tmp_path, source(server, "page", filename=filename, **known))
    assert not (tmp_path / "raw").exists()


def test_an_unsafe_archive_stops_here_and_is_not_kept(server: Server, tmp_path: Path) -> None:
    server.files["evil.zip"] = zip_of(tmp_path / "evil.zip", {"ok.txt": b"1", "../evil.txt": b"2"}).read_bytes()
    with pytest.raises(ValueError, match="evil.zip: the entry '../evil.txt' would be written outside"):
        get(tmp_path, source(server, filename="evil.zip"))
    with pytest.raises(ValueError, match="3 bytes unpacked, more than the 2 allowed"):
        get(tmp_path, source(server, filename="data.zip"), max_unpacked=2)
    assert not list((tmp_path / "cache").rglob("*.zip")) and not (tmp_path / "raw").exists()


def test_halves_that_do_not_fit_are_fetched_again_in_one_go(server: Server, tmp_path: Path) -> None:
    """The server says that the file is the same, and it is not."""
    server.plan = ["cut"]
    with pytest.raises(ValueError, match="could not be fetched"):
        get(tmp_path, source(server, sha256=SHA256), attempts=1)
    part = next(path for path in (tmp_path / "cache").rglob("data.bin"))
    part.write_bytes(bytes(100_000))
    get(tmp_path, source(server, sha256=SHA256))
    assert (tmp_path / "raw" / "data.bin").read_bytes() == CONTENT and server.ranges() == [0, 100_000, 0]


# --- what is written down ---------------------------------------------------------------------------------------------------


def test_provenance_holds_address_checksum_and_licence(server: Server, tmp_path: Path) -> None:
    url = server.url("data.zip", login="ann:secret@", query="?token=secret")
    digest = hashlib.sha256(server.files["data.zip"]).hexdigest()
    wanted = Source(filename="data.zip", urls=(url,), licence="CC0", allows="Anything.", sha256=digest)
    told = get(tmp_path, wanted)
    assert json.loads((tmp_path / "raw" / "provenance.json").read_text()) == told
    record = {"from": server.url("data.zip"), "filename": "data.zip", "size": len(server.files["data.zip"]), "sha256": digest}
    record |= {"files": 2, "unpacked": 3, "checked": True, "licence": "CC0", "allows": "Anything."}
    assert told == {"sources": [record], "licence": ["CC0"], "allows": ["Anything."]}
    assert sorted(p.name for p in (tmp_path / "raw").iterdir()) == ["data.zip", "provenance.json"]


def test_manual_sources_say_what_to_do_before_anything_is_fetched(server: Server, tmp_path: Path) -> None:
    manual = Source(filename="x.zip", urls=(), licence="asks", manual="Log in at the dataset's page and fetch x.zip.")
    with pytest.raises(ValueError, match="Log in at the dataset's page.*datasets.mine.source"):
        get(tmp_path, source(server), manual)
    assert not server.seen


def test_nothing_to_fetch_says_so(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="datasets.mine.source: missing"):
        get(tmp_path)


# --- this machine -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["path", "file://"])
def test_a_local_archive_is_copied_and_opens(tmp_path: Path, form: str) -> None:
    path = zip_of(tmp_path / "my data.zip", {"a/b.txt": b"1", "c.txt": b"2"})
    get(tmp_path, source=str(path) if form == "path" else path.as_uri())
    assert not path.samefile(tmp_path / "raw" / "my data.zip")
    with opened(tmp_path / "raw", tmp_path / "scratch") as files:
        assert set(tree(files)) == {"a/b.txt", "c.txt", "provenance.json"}


def test_a_local_file_that_is_no_archive_is_kept_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "volume.npy").write_bytes(CONTENT)
    get(tmp_path, source=str(tmp_path / "volume.npy"))
    with opened(tmp_path / "raw", tmp_path / "scratch") as files:
        assert files == tmp_path / "raw" and (files / "volume.npy").read_bytes() == CONTENT


def test_a_given_file_is_checked_like_the_source_of_that_name(server: Server, tmp_path: Path) -> None:
    known = Source(filename="data.bin", urls=("http://127.0.0.1:9/data.bin",), licence="CC0", sha256="0" * 64)
    (tmp_path / "data.bin").write_bytes(CONTENT)
    for given in (server.url("data.bin"), str(tmp_path / "data.bin"), (tmp_path / "data.bin").as_uri(), str(tmp_path)):
        with pytest.raises(ValueError, match="should be 0000"):
            get(tmp_path, known, source=given)


@pytest.mark.parametrize("name", ["bad.zip", "bad.tar.gz"])
def test_an_unsafe_local_archive_leaves_the_old_folder(tmp_path: Path, name: str) -> None:
    fill(tmp_path / "raw", ["old.txt"])
    bad = zip_of(tmp_path / name, {"../evil.txt": b"2"}) if "zip" in name else tar_of(tmp_path / name, ("../evil.txt", b"1"))
    with pytest.raises(ValueError, match="evil"):
        get(tmp_path, source=str(bad))
    assert [p.name for p in (tmp_path / "raw").iterdir()] == ["old.txt"] and not list(tmp_path.glob(".raw*"))


def test_a_local_folder_becomes_one_tar_with_equal_bytes_for_equal_files(tmp_path: Path) -> None:
    folder = fill(tmp_path / "mine", ["deep/x.txt", "a.txt", "README"])
    first = get(tmp_path, source=str(folder))
    content = (tmp_path / "raw" / "files.tar").read_bytes()
    assert sorted(p.name for p in (tmp_path / "raw").iterdir()) == ["files.tar", "provenance.json"]
    os.utime(folder / "a.txt", (1, 1))
    (folder / "deep").chmod(0o555)
    assert get(tmp_path, source=folder.as_uri())["sources"][0] == first["sources"][0] | {"from": folder.as_uri()}
    (folder / "deep").chmod(0o755)
    assert (tmp_path / "raw" / "files.tar").read_bytes() == content
    (folder / "a.txt").write_text("other")
    get(tmp_path, source=str(folder))
    assert (tmp_path / "raw" / "files.tar").read_bytes() != content
    with opened(tmp_path / "raw", tmp_path / "scratch") as files:
        assert (files / "a.txt").read_text() == "other"


def test_known_archives_in_a_local_folder_are_taken_as_they_are(tmp_path: Path) -> None:
    zip_of(tmp_path / "mine" / "part.zip", {"a.txt": b"1"})
    fill(tmp_path / "mine", ["other/thing.txt"])
    known = Source(filename="part.zip", urls=(), licence="asks", manual="Log in.")
    record = get(tmp_path, known, source=str(tmp_path / "mine"))["sources"][0]
    assert record["filename"] == "part.zip" and record["licence"] == "asks"
    assert sorted(p.name for p in (tmp_path / "raw").iterdir()) == ["files.tar", "part.zip", "provenance.json"]
    with opened(tmp_path / "raw", tmp_path / "scratch") as files:
        assert (files / "a.txt").read_bytes() == b"1" and (files / "other" / "thing.txt").exists(), "and so is what lies beside"


def test_a_folder_of_archives_and_the_raw_folder_of_another_workspace_are_taken_as_they_are(tmp_path: Path) -> None:
    zip_of(tmp_path / "mine" / "images.zip", {"a.png": b"1"})
    zip_of(tmp_path / "mine" / "masks.zip", {"b.png": b"2"})
    get(tmp_path, source=str(tmp_path / "mine"))
    download(tmp_path / "again", name="mine", sources=(), source=str(tmp_path / "raw"), cache=tmp_path / "cache")
    assert {k: v for k, v in tree(tmp_path / "again").items() if "json" not in k} == tree(tmp_path / "mine")


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("/no/such/file", "datasets.mine.source: /no/such/file: no such file or folder"),
        ("file://data/x.zip", "datasets.mine.source: file://data/x.zip: a file address has three slashes"),
        ("EMPTY", "no files in it"),
    ],
)
def test_a_local_source_that_is_none_is_named(tmp_path: Path, given: str, reason: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=reason):
        get(tmp_path, source=given.replace("EMPTY", str(tmp_path / "empty")))
    assert not (tmp_path / "raw").exists() and not list(tmp_path.glob(".raw*"))


def test_generated(tmp_path: Path) -> None:
    def draw(folder: Path, *, seed: int, size: int) -> None:
        (folder / "x.txt").write_text(f"{seed} {size}")

    told = generate(tmp_path / "raw", draw, name="made-up", seed=3, options={"size": 4})
    first = tree(tmp_path / "raw")
    assert set(first) == {"files.tar", "provenance.json"}
    assert told == json.loads(first["provenance.json"]) == {"generated": "made-up", "seed": 3, "options": {"size": 4}}
    generate(tmp_path / "raw", draw, name="made-up", seed=3, options={"size": 4})
    assert tree(tmp_path / "raw") == first
    with opened(tmp_path / "raw", tmp_path / "scratch") as files:
        assert (files / "x.txt").read_text() == "3 4"
    assert [p.name for p in tmp_path.iterdir()] == ["raw"]
