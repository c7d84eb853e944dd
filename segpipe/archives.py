"""Unpack zip and tar archives from strangers: nothing is written outside the folder, no links out of it, no bombs."""

import shutil
import stat
import tarfile
import zipfile
from pathlib import Path, PurePosixPath

MAX_UNPACKED = 200 * 2**30
"""Bytes; the largest datasets of the field fit, a bomb does not."""


def unpack(path: Path, folder: Path, *, max_unpacked: int = MAX_UNPACKED) -> None:
    """Unpack a zip or tar archive (any of tar's compressions) into `folder`; another file is copied there.

    Raises:
        ValueError: the archive is damaged, larger than `max_unpacked` bytes unpacked, or names a path or link outside `folder`.
    """
    try:
        if zipfile.is_zipfile(path):
            _unpack_zip(path, folder, max_unpacked=max_unpacked)
        elif tarfile.is_tarfile(path):
            _unpack_tar(path, folder, max_unpacked=max_unpacked)
        elif path.name.lower().endswith((".zip", ".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz")):
            raise ValueError(f"{path}: no archive{explain_content(path)}")
        else:
            shutil.copyfile(path, folder / path.name)
    except (zipfile.BadZipFile, tarfile.TarError, EOFError) as error:
        raise ValueError(f"{path}: damaged or unsafe archive ({error}). Fetch it again.") from error


def _unpack_zip(path: Path, folder: Path, *, max_unpacked: int) -> None:
    with zipfile.ZipFile(path) as archive:
        rows = archive.infolist()
        _check_room(path, folder, sum(row.file_size for row in rows), max_unpacked=max_unpacked)
        for row in rows:
            inside = PurePosixPath(row.filename.replace("\\", "/"))
            if inside.is_absolute() or ".." in inside.parts or ":" in (inside.parts or ("",))[0]:
                raise ValueError(f"{path}: the entry {row.filename!r} would be written outside the folder")
            if stat.S_ISLNK(row.external_attr >> 16):
                raise ValueError(f"{path}: the entry {row.filename!r} is a link; archives with links are not unpacked")
            if row.flag_bits & 1:
                raise ValueError(f"{path}: the entry {row.filename!r} needs a password; unpack it by hand and give the folder")
        # zipfile stops at the size that each entry declares, so the sum above bounds what is written.
        archive.extractall(folder)


def _unpack_tar(path: Path, folder: Path, *, max_unpacked: int) -> None:
    with tarfile.open(path) as archive:
        rows = archive.getmembers()
        _check_room(path, folder, sum(row.size for row in rows), max_unpacked=max_unpacked)
        archive.extractall(folder, members=rows, filter="data")


def _check_room(path: Path, folder: Path, size: int, *, max_unpacked: int) -> None:
    if size > max_unpacked:
        raise ValueError(f"{path}: {size} bytes unpacked, more than the {max_unpacked} allowed")
    free = shutil.disk_usage(folder).free
    if size > free:
        raise ValueError(f"{path}: {size / 1e9:.1f} GB unpacked, but the disk of {folder} has {free / 1e9:.1f} GB free")


def explain_content(path: Path) -> str:
    """A sentence for an error message: what the file seems to be instead of what was expected."""
    with open(path, "rb") as file:
        head = file.read(512).lstrip().lower()
    page = head.startswith((b"<!doctype html", b"<html"))
    return ". It is a web page: does the address need a login, or a click on a licence?" if page else ". Fetch it again."
