"""Archives that try to escape, lie, or are damaged: each is refused by name, and nothing is left outside the folder."""

import io
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from segpipe.archives import unpack

CONTENT = np.random.default_rng(0).bytes(300_000)


def zip_of(path: Path, rows: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in rows.items():
            archive.writestr(name, data)
    return path


def tar_of(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for info, data in members:
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def link(kind: bytes, target: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo("link")
    info.type, info.linkname = kind, target
    return info


def zip_link(path: Path) -> Path:
    info = zipfile.ZipInfo("link")
    info.external_attr = 0o120777 << 16
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(info, "/etc/passwd")
    return path


EVIL: dict[str, Callable[[Path], Path]] = {
    "zip-parent": lambda folder: zip_of(folder / "a.zip", {"a/../../evil": b"1"}),
    "zip-absolute": lambda folder: zip_of(folder / "a.zip", {"/evil": b"1"}),
    "zip-backslash": lambda folder: zip_of(folder / "a.zip", {"..\\..\\evil": b"1"}),
    "zip-link": lambda folder: zip_link(folder / "a.zip"),
    "tar-parent": lambda folder: tar_of(folder / "a.tar.gz", (tarfile.TarInfo("../evil"), b"1")),
    "tar-link": lambda folder: tar_of(folder / "a.tar.gz", (link(tarfile.SYMTYPE, "/etc/passwd"), b"")),
    "tar-hard-link": lambda folder: tar_of(folder / "a.tar.gz", (link(tarfile.LNKTYPE, "../../evil"), b"")),
    "tar-cut": lambda folder: cut(tar_of(folder / "a.tar.gz", (tarfile.TarInfo("x"), CONTENT))),
    "zip-cut": lambda folder: cut(zip_of(folder / "a.zip", {"x": CONTENT})),
    "no-archive": lambda folder: cut(zip_of(folder / "a.zip", {}), keep=0),
}


def cut(path: Path, keep: int = 100_000) -> Path:
    path.write_bytes(path.read_bytes()[:keep])
    return path


@pytest.mark.parametrize("kind", EVIL)
def test_unsafe_and_damaged_archives_are_refused(tmp_path: Path, kind: str) -> None:
    (tmp_path / "in" / "to").mkdir(parents=True)
    path = EVIL[kind](tmp_path)
    with pytest.raises(ValueError, match=str(path)):
        unpack(path, tmp_path / "in" / "to")
    assert not list(tmp_path.rglob("evil*")) and not list(tmp_path.rglob("link"))


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_an_archive_that_grows_too_large_is_refused(tmp_path: Path, kind: str) -> None:
    zeros = bytes(2_000_000)
    path = zip_of(tmp_path / "a.zip", {"x": zeros}) if kind == "zip" else tar_of(tmp_path / "a.tgz", (tarfile.TarInfo("x"), zeros))
    (tmp_path / "to").mkdir()
    with pytest.raises(ValueError, match="2000000 bytes unpacked, more than the 1000000"):
        unpack(path, tmp_path / "to", max_unpacked=1_000_000)
    unpack(path, tmp_path / "to", max_unpacked=3_000_000)
    assert (tmp_path / "to" / "x").stat().st_size == 2_000_000


def test_a_zip_that_lies_about_its_sizes_is_refused(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "a.zip", {"x": bytes(2_000_000)})
    data = path.read_bytes().replace((2_000_000).to_bytes(4, "little"), (10).to_bytes(4, "little"))
    path.write_bytes(data)
    (tmp_path / "to").mkdir()
    with pytest.raises(ValueError, match="damaged"):
        unpack(path, tmp_path / "to", max_unpacked=1000)
    assert sum(p.stat().st_size for p in (tmp_path / "to").rglob("*")) <= 10


def test_a_file_that_is_no_archive_is_copied(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("a,b")
    (tmp_path / "to").mkdir()
    unpack(tmp_path / "labels.csv", tmp_path / "to")
    assert (tmp_path / "to" / "labels.csv").read_text() == "a,b"
