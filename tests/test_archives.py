"""Archives that try to escape, lie, or are damaged: each is refused by name, and nothing is left outside the folder."""

import io
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segpipe import archives
from segpipe.archive_entries import is_archive
from segpipe.archives import check, pack, unpack

CONTENT = np.random.default_rng(0).bytes(300_000)


def zip_of(path: Path, rows: dict[str, bytes], **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in rows.items():
            archive.writestr(name, data, **options)
    return path


def tar_of(path: Path, *members: tuple[tarfile.TarInfo | str, bytes], mode: str = "w:gz") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for info, data in members:
            info = tarfile.TarInfo(info) if isinstance(info, str) else info
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def special(kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo("link")
    info.type, info.linkname = kind, target
    return info


def zip_with(path: Path, *, mode: int = 0, flags: int = 0, method: int = 0) -> Path:
    """A zip whose one entry is of a kind that zipfile does not write: the central directory is patched."""
    info = zipfile.ZipInfo("link")
    info.external_attr = mode << 16
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(info, "/etc/passwd")
    data = bytearray(path.read_bytes())
    row = data.rindex(b"PK\1\2")
    data[row + 8 : row + 10] = flags.to_bytes(2, "little")
    data[row + 10 : row + 12] = method.to_bytes(2, "little")
    path.write_bytes(data)
    return path


def cut(path: Path, keep: int = 100_000) -> Path:
    path.write_bytes(path.read_bytes()[:keep])
    return path


def spoilt(path: Path, at: int) -> Path:
    data = bytearray(path.read_bytes())
    data[at] ^= 0xFF
    path.write_bytes(data)
    return path


EVIL: dict[str, tuple[Callable[[Path], Path], str]] = {
    "zip-parent": (lambda f: zip_of(f / "a.zip", {"a/../../evil": b"1"}), "outside"),
    "zip-absolute": (lambda f: zip_of(f / "a.zip", {"/evil": b"1"}), "outside"),
    "zip-backslash": (lambda f: zip_of(f / "a.zip", {"..\\..\\evil": b"1"}), "outside"),
    "zip-drive": (lambda f: zip_of(f / "a.zip", {"C:\\evil": b"1"}), "outside"),
    "zip-link": (lambda f: zip_with(f / "a.zip", mode=0o120777), "is a link"),
    "zip-password": (lambda f: zip_with(f / "a.zip", flags=1), "password"),
    "zip-deflate64": (lambda f: zip_with(f / "a.zip", method=9), "compressed"),
    "zip-cut": (lambda f: cut(zip_of(f / "a.zip", {"x": CONTENT})), "no archive|damaged"),
    "tar-parent": (lambda f: tar_of(f / "a.tar.gz", ("../evil", b"1")), "outside"),
    "tar-absolute": (lambda f: tar_of(f / "a.tar.gz", ("/evil", b"1")), "outside"),
    "tar-link": (lambda f: tar_of(f / "a.tar.gz", (special(tarfile.SYMTYPE, "/etc/passwd"), b"")), "is a link"),
    "tar-link-inside": (lambda f: tar_of(f / "a.tar.gz", ("x", b"1"), (special(tarfile.SYMTYPE, "x"), b"")), "is a link"),
    "tar-hard-link": (lambda f: tar_of(f / "a.tar.gz", (special(tarfile.LNKTYPE, "../../evil"), b"")), "is a link"),
    "tar-device": (lambda f: tar_of(f / "a.tar.gz", (special(tarfile.CHRTYPE), b"")), "neither"),
    "tar-fifo": (lambda f: tar_of(f / "a.tar.gz", (special(tarfile.FIFOTYPE), b"")), "neither"),
    "tar.gz-cut": (lambda f: cut(tar_of(f / "a.tar.gz", ("x", CONTENT))), "damaged"),
    "tar.bz2-cut": (lambda f: cut(tar_of(f / "a.tar.bz2", ("x", CONTENT), mode="w:bz2")), "no archive|damaged"),
    "tar.xz-cut": (lambda f: cut(tar_of(f / "a.tar.xz", ("x", CONTENT), mode="w:xz")), "damaged"),
    # tarfile alone would take these four for whole archives with fewer files.
    "tar-cut-between": (lambda f: cut(tar_of(f / "a.tar", ("x", bytes(512)), ("y", b"1"), mode="w"), keep=1024), "breaks off"),
    "tar-cut-in-header": (lambda f: cut(tar_of(f / "a.tar", ("x", bytes(512)), ("y", b"1"), mode="w"), keep=1100), "breaks off"),
    "tar-header": (lambda f: spoilt(tar_of(f / "a.tar", ("x", bytes(512)), ("y", b"1"), mode="w"), at=1030), "breaks off"),
    "tar.gz-checksum": (lambda f: spoilt(tar_of(f / "a.tgz", ("x", CONTENT)), at=-5), "damaged"),
    "no-archive": (lambda f: cut(zip_of(f / "a.zip", {}), keep=0), "no archive"),
    "7z": (lambda f: cut(zip_of(f / "a.7z", {}), keep=4), "cannot unpack this format"),
}


@pytest.mark.parametrize("kind", EVIL)
def test_unsafe_and_damaged_archives_are_refused(tmp_path: Path, kind: str) -> None:
    (tmp_path / "in" / "to").mkdir(parents=True)
    make, reason = EVIL[kind]
    path = make(tmp_path)
    for read in (check, lambda path: unpack(path, tmp_path / "in" / "to")):
        with pytest.raises(ValueError, match=f"{path}: (.|\n)*({reason})"):
            read(path)
    assert not list(tmp_path.rglob("evil*")) and not list(tmp_path.rglob("link"))


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_an_archive_that_grows_too_large_is_refused(tmp_path: Path, kind: str) -> None:
    zeros = bytes(2_000_000)
    path = zip_of(tmp_path / "a.zip", {"x": zeros}) if kind == "zip" else tar_of(tmp_path / "a.tgz", ("x", zeros))
    assert path.stat().st_size < 10_000
    (tmp_path / "to").mkdir()
    for read in (check, lambda path, **most: unpack(path, tmp_path / "to", **most)):
        with pytest.raises(ValueError, match="2000000 bytes unpacked, more than the 1000000"):
            read(path, max_unpacked=1_000_000)
    assert not list((tmp_path / "to").iterdir())
    unpack(path, tmp_path / "to", max_unpacked=3_000_000)
    assert (tmp_path / "to" / "x").stat().st_size == 2_000_000 and check(path) == (1, 2_000_000)


def test_a_bomb_of_many_files_stops_before_it_is_all_written(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "a.zip", {str(i): bytes(100_000) for i in range(50)})
    (tmp_path / "to").mkdir()
    with pytest.raises(ValueError, match="more than the 1000000"):
        unpack(path, tmp_path / "to", max_unpacked=1_000_000)
    assert sum(p.stat().st_size for p in (tmp_path / "to").iterdir()) <= 1_000_000


@pytest.mark.parametrize("said", [10, 3_000_000])
def test_a_zip_that_lies_about_its_sizes_is_refused(tmp_path: Path, said: int) -> None:
    path = zip_of(tmp_path / "a.zip", {"x": bytes(2_000_000)})
    path.write_bytes(path.read_bytes().replace((2_000_000).to_bytes(4, "little"), said.to_bytes(4, "little")))
    (tmp_path / "to").mkdir()
    with pytest.raises(ValueError, match="damaged|the archive says 3000000"):
        unpack(path, tmp_path / "to")
    assert said > 10 or sum(p.stat().st_size for p in (tmp_path / "to").rglob("*")) <= 10


def test_a_zip_that_lost_its_first_bytes_is_refused(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "a.zip", {"x": CONTENT})
    path.write_bytes(path.read_bytes()[10:])
    (tmp_path / "to").mkdir()
    with pytest.raises(ValueError, match=f"{path}: damaged"):
        unpack(path, tmp_path / "to")


def test_a_disk_without_room_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = zip_of(tmp_path / "a.zip", {"x": bytes(2_000_000)})
    usage = shutil.disk_usage(tmp_path)._replace(free=1_000_000)
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda _: usage)
    (tmp_path / "to").mkdir()
    with pytest.raises(ValueError, match=f"{path}: 'x' needs 0.00 GB, but the disk of {tmp_path}/to has"):
        unpack(path, tmp_path / "to")
    with pytest.raises(ValueError, match="packing it needs 0.00 GB"):
        shutil.rmtree(tmp_path / "to")
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "x").write_bytes(bytes(2_000_000))
        pack(tmp_path / "mine", tmp_path / "files.tar")


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz", "tar.bz2", "tar.xz"])
def test_random_damage_is_found_by_name_or_harmless(tmp_path: Path, kind: str) -> None:
    """Each of 60 flips of a byte gives the right files, or one ValueError that names the archive; no flip changes a file unseen
    where the format has checksums (a plain tar has none but for its headers)."""
    rng = np.random.default_rng(1)
    rows = {f"d/{i}.bin": rng.bytes(700) for i in range(8)}
    path = tmp_path / f"a.{kind}"
    if kind == "zip":
        zip_of(path, rows)
    else:
        tar_of(path, *rows.items(), mode={"tar": "w"}.get(kind, f"w:{kind[4:]}"))
    sound, refused = path.read_bytes(), 0
    for number, at in enumerate(rng.integers(0, len(sound), 60)):
        path.write_bytes(sound)
        spoilt(path, int(at))
        to = tmp_path / str(number)
        to.mkdir()
        try:
            unpack(path, to)
        except ValueError as error:
            assert str(path) in str(error)
            refused += 1
        else:
            found = {str(p.relative_to(to)): p.read_bytes() for p in to.rglob("*") if p.is_file()}
            same_bytes = sorted(found.values()) == sorted(rows.values())
            assert len(found) == len(rows) and (kind == "tar" or same_bytes), f"byte {at}"
    assert refused > 10


def test_names_that_differ_in_case_stay_apart(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "A.ZIP", {"a/x.PNG": b"1", "a/X.png": b"2", "A/x.png": b"3"})
    (tmp_path / "to").mkdir()
    unpack(path, tmp_path / "to")
    assert sorted(p.read_bytes() for p in (tmp_path / "to").rglob("*.[pP]*")) == [b"1", b"2", b"3"] and is_archive(path)


def test_what_systems_add_is_left_out_and_windows_separators_are_folders(tmp_path: Path) -> None:
    junk = {"__MACOSX/a/._b.png": b"x", "a/._b.png": b"x", "a/.DS_Store": b"x", "Thumbs.db": b"x"}
    path = zip_of(tmp_path / "a.zip", {"a\\b.png": b"1", "./c.png": b"2"} | junk)
    (tmp_path / "to").mkdir()
    unpack(path, tmp_path / "to")
    assert {str(p.relative_to(tmp_path / "to")) for p in (tmp_path / "to").rglob("*")} == {"a", "a/b.png", "c.png"}
    assert check(path) == (2, 2)


def test_modes_and_owners_of_an_archive_are_not_taken(tmp_path: Path) -> None:
    info = tarfile.TarInfo("run.sh")
    info.mode, info.uid = 0o6777, 1234
    (tmp_path / "to").mkdir()
    unpack(tar_of(tmp_path / "a.tar", (info, b"1"), mode="w"), tmp_path / "to")
    assert (tmp_path / "to" / "run.sh").stat().st_mode & 0o7111 == 0


@pytest.mark.parametrize("name", ["x.npz", "x.docx", "x.pt", "x.bin", "x.csv"])
def test_a_file_of_its_own_type_is_no_archive_whatever_is_in_it(tmp_path: Path, name: str) -> None:
    assert not is_archive(zip_of(tmp_path / name, {"a": b"1"}))


def test_an_archive_without_a_suffix_is_told_by_its_content(tmp_path: Path) -> None:
    assert is_archive(zip_of(tmp_path / "download", {"a": b"1"})) and is_archive(tar_of(tmp_path / "v1.0", ("a", b"1")))
    (tmp_path / "zeros").write_bytes(bytes(2000))
    assert not is_archive(tmp_path / "zeros")


def test_a_tar_that_ends_with_a_zip_is_a_tar(tmp_path: Path) -> None:
    inner = zip_of(tmp_path / "inner.zip", {"evil": b"1"}).read_bytes()
    path = tar_of(tmp_path / "a.tar", ("x", b"1"), ("z.zip", inner), mode="w")
    (tmp_path / "to").mkdir()
    unpack(path, tmp_path / "to")
    assert {p.name for p in (tmp_path / "to").iterdir()} == {"x", "z.zip"}
