"""A folder becomes one tar, with equal bytes for equal files; what `download` packed is opened again, and only for a while."""

import hashlib
import os
import stat
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from segpipe.archives import opened, pack, unpack
from tests.test_archives import zip_of


def tree(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def fill(folder: Path, names: list[str]) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


def test_equal_files_give_equal_bytes(tmp_path: Path) -> None:
    names = ["b.txt", "a/2.txt", "a/10.txt", "ä/ü.txt", "x" * 150 + "/y.txt"]
    one, two = fill(tmp_path / "one", names), fill(tmp_path / "two", names[::-1])
    os.utime(two / "b.txt", (1, 1))
    (two / "b.txt").chmod(0o400)
    (two / "empty").mkdir()
    (two / ".DS_Store").write_text("x")
    for folder in (one, two):
        pack(folder, tmp_path / f"{folder.name}.tar")
    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "two.tar").read_bytes()
    with tarfile.open(tmp_path / "one.tar") as archive:
        rows = archive.getmembers()
        assert [row.name for row in rows] == sorted(names)
        assert {(row.mtime, row.uid, row.gid, row.uname, row.mode) for row in rows} == {(0, 0, 0, "", 0o644)}
    (tmp_path / "to").mkdir()
    unpack(tmp_path / "one.tar", tmp_path / "to")
    assert tree(tmp_path / "to") == tree(one)


def test_the_bytes_of_a_packed_folder_stay_what_they_are(tmp_path: Path) -> None:
    """Another tarfile, or another order, would make every user's dataset run again."""
    pack(fill(tmp_path / "one", ["b.txt", "a/2.txt", "a.txt"]), tmp_path / "one.tar")
    digest = hashlib.sha256((tmp_path / "one.tar").read_bytes()).hexdigest()
    assert digest == "360f17d65aabb42320f70cdeccbfd15216d051c677dbf69acd0211bce94b580a"


def test_links_in_a_folder_are_followed(tmp_path: Path) -> None:
    fill(tmp_path / "far", ["deep/x.txt"])
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "folder").symlink_to(tmp_path / "far")
    (tmp_path / "mine" / "again").symlink_to(tmp_path / "far")
    (tmp_path / "mine" / "file.txt").symlink_to(tmp_path / "far" / "deep" / "x.txt")
    pack(tmp_path / "mine", tmp_path / "mine.tar")
    (tmp_path / "to").mkdir()
    unpack(tmp_path / "mine.tar", tmp_path / "to")
    assert set(tree(tmp_path / "to")) == {"folder/deep/x.txt", "again/deep/x.txt", "file.txt"}
    assert tree(tmp_path / "to")["file.txt"] == b"deep/x.txt"


def loop(folder: Path) -> None:
    (folder / "deep").mkdir()
    (folder / "deep" / "up").symlink_to(folder)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda f: None, "mine: no files in it"),
        (lambda f: (f / "empty").mkdir(), "mine: no files in it"),
        (lambda f: (f / "gone").symlink_to(f / "nowhere"), "gone: a broken link"),
        (lambda f: os.mkfifo(f / "pipe"), "pipe: neither a file nor a folder"),
        (loop, "deep/up: a link back to a folder above it"),
    ],
)
def test_a_folder_that_cannot_be_packed_is_refused(tmp_path: Path, make: Callable[[Path], None], reason: str) -> None:
    (tmp_path / "mine").mkdir()
    make(tmp_path / "mine")
    with pytest.raises(ValueError, match=reason):
        pack(tmp_path / "mine", tmp_path / "mine.tar")
    assert [p.name for p in tmp_path.iterdir()] == ["mine"]


# --- opened -----------------------------------------------------------------------------------------------------------------


def packed(raw: Path, rows: dict[str, dict[str, bytes]]) -> Path:
    for name, files in rows.items():
        zip_of(raw / name, files)
    (raw / "provenance.json").write_text("{}")
    return raw


def test_archives_and_other_files_appear_together_and_go(tmp_path: Path) -> None:
    raw = packed(tmp_path / "raw", {"one.zip": {"a/1.png": b"1"}, "two.zip": {"a/2.png": b"2"}})
    (raw / "labels.csv").write_text("a,b")
    scratch = tmp_path / "cache" / "mine"
    with opened(raw, scratch) as here:
        assert here == scratch
        assert tree(here) == {"a/1.png": b"1", "a/2.png": b"2", "labels.csv": b"a,b", "provenance.json": b"{}"}
        assert not any(p.is_symlink() for p in here.rglob("*"))
    assert not list((tmp_path / "cache").iterdir()) and (raw / "labels.csv").read_text() == "a,b"


def test_a_packed_folder_is_opened(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    pack(fill(tmp_path / "mine", ["images/1.png", "masks/1.png", "inner.zip"]), tmp_path / "raw" / "files.tar")
    with opened(tmp_path / "raw", tmp_path / "scratch") as here:
        assert tree(here) == tree(tmp_path / "mine")


def test_a_plain_folder_is_itself(tmp_path: Path) -> None:
    deep = fill(tmp_path / "deep", ["images/1.png"])
    zip_of(deep / "backup.zip", {"x": b"1"})
    flat = fill(tmp_path / "flat", ["1.png", "1_mask.png"])
    zip_of(flat / "backup.zip", {"x": b"1"})
    tables = fill(tmp_path / "tables", ["a.csv", "provenance.json"])
    for raw in (deep, flat, tables):
        with opened(raw, tmp_path / "scratch") as here:
            assert here == raw
        assert raw.exists() and not (tmp_path / "scratch").exists()


def test_a_folder_of_archives_alone_is_opened(tmp_path: Path) -> None:
    zip_of(tmp_path / "raw" / "a.zip", {"x.png": b"1"})
    fill(tmp_path / "raw", ["README.md", ".DS_Store"])
    with opened(tmp_path / "raw", tmp_path / "scratch") as here:
        assert set(tree(here)) == {"x.png", "README.md"}


def test_what_a_killed_run_left_goes_first(tmp_path: Path) -> None:
    raw = packed(tmp_path / "raw", {"one.zip": {"a.png": b"1"}})
    fill(tmp_path / "scratch", ["old.png"])
    fill(tmp_path / ".scratch.part", ["half.png"])
    with opened(raw, tmp_path / "scratch") as here:
        assert set(tree(here)) == {"a.png", "provenance.json"}
    assert [p.name for p in tmp_path.iterdir()] == ["raw"]


def test_nothing_is_left_after_an_error(tmp_path: Path) -> None:
    raw = packed(tmp_path / "raw", {"one.zip": {"a.png": b"1"}, "two.zip": {"../evil": b"1"}})
    with pytest.raises(ValueError, match="evil"), opened(raw, tmp_path / "scratch"):
        pass
    with pytest.raises(KeyboardInterrupt), opened(packed(tmp_path / "sound", {"one.zip": {"a": b"1"}}), tmp_path / "scratch"):
        raise KeyboardInterrupt
    with pytest.raises(ValueError, match="nowhere: no such folder"), opened(tmp_path / "nowhere", tmp_path / "scratch"):
        pass
    assert {p.name for p in tmp_path.iterdir()} == {"raw", "sound"}


def test_two_archives_may_share_a_path_only_with_the_same_bytes(tmp_path: Path) -> None:
    one = {"list.txt": b"same", "README": b"of images", "x/1.png": b"1"}
    raw = packed(tmp_path / "raw", {"one.zip": one, "two.zip": {"list.txt": b"same", "README": b"of masks", "x/2.png": b"2"}})
    with opened(raw, tmp_path / "scratch") as here:
        assert tree(here)["README"] == b"of images" and len(tree(here)) == 5
    for name, content in (("list.txt", b"other"), ("list.txt", b"same and more"), ("list.txt", b"sam")):
        raw = packed(tmp_path / "raw", {"two.zip": {name: content}})
        with pytest.raises(ValueError, match="two.zip: 'list.txt' is there twice, with different content; .* in .*one.zip"):
            with opened(raw, tmp_path / "scratch"):
                pass


@pytest.mark.parametrize(("first", "second"), [("x/1.png", "x"), ("x", "x/1.png")])
def test_a_path_is_a_file_or_a_folder(tmp_path: Path, first: str, second: str) -> None:
    raw = packed(tmp_path / "raw", {"one.zip": {first: b"1"}, "two.zip": {second: b"2"}})
    with pytest.raises(ValueError, match="two.zip: '.*' is the name of a file and of a folder"), opened(raw, tmp_path / "scratch"):
        pass


def test_a_read_only_raw_folder_is_opened(tmp_path: Path) -> None:
    """DVC protects what it links from its cache."""
    raw = packed(tmp_path / "raw", {"one.zip": {"a.png": b"1"}})
    for path in [*raw.iterdir(), raw]:
        path.chmod(stat.S_IREAD | (stat.S_IEXEC if path.is_dir() else 0))
    with opened(raw, tmp_path / "scratch") as here:
        assert set(tree(here)) == {"a.png", "provenance.json"}
    raw.chmod(0o755)
    assert not (tmp_path / "scratch").exists()
