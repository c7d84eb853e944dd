"""The files in a zip or tar archive from strangers, one by one, each with a path that stays inside the folder it goes to.

An archive that breaks off or is damaged is an error, also where the standard library would stop in silence. What a Mac or Windows
adds to folders (`__MACOSX`, `._*`, `Thumbs.db`) is passed over.
"""

import errno
import lzma
import re
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any

SUFFIXES = (".zip", ".tar", ".tgz", ".tar.gz", ".tbz2", ".tar.bz2", ".txz", ".tar.xz")
UNREADABLE = (".7z", ".rar", ".zst", ".lz4")
ZIP_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
JUNK = ("__MACOSX", ".DS_Store", "Thumbs.db", "desktop.ini")


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One file of an archive, or one folder, which has no `open`. `name` is a relative posix path, `size` in bytes."""

    name: str
    size: int = 0
    open: Callable[[], IO[bytes]] | None = None


class _Header(tarfile.TarInfo):
    """tarfile takes a damaged or missing header behind the first one for the end of the archive; here it is an error."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> "_Header":
        try:
            return super().fromtarfile(archive)
        except tarfile.HeaderError as error:
            if type(error).__name__ == "EOFHeaderError":  # a block of zeros: the end as it should be
                raise
            raise tarfile.ReadError(f"it breaks off at byte {archive.offset}: {error}") from error


def is_archive(path: Path) -> bool:
    """Whether `path` counts as an archive: by its suffix, or by its content where the name has none that names a type.

    A .npz or a .docx is a zip inside, but a file of its own type.
    """
    if is_archive_name(path.name) or re.search("[a-zA-Z]", path.suffix):
        return is_archive_name(path.name)
    try:
        # A file that begins with 512 zeros is an empty tar to tarfile.
        return _format(path) == "zip" or next(_tar_entries(path), None) is not None
    except (ValueError, tarfile.TarError):
        return False


def is_archive_name(name: str) -> bool:
    """Whether the suffix of a file name is that of an archive."""
    return name.lower().endswith(SUFFIXES + UNREADABLE)


def is_junk(name: str) -> bool:
    """Whether a file or folder of this name is left by a system and no part of a dataset."""
    return name in JUNK or name.startswith("._")


def entries(path: Path) -> Iterator[Entry]:
    """The files and folders of an archive, in its order; a file can be opened until the next one is asked for.

    Raises:
        ValueError: no archive; cut off or damaged (files inside a zip show it only when read); with a password or a compression
            that Python lacks; with a link, a device, or a path that leads outside.
    """
    rows = _zip_entries(path) if _format(path) == "zip" else _tar_entries(path)
    return (row for row in rows if row.name != "." and not any(map(is_junk, row.name.split("/"))))


def inside(name: str, what: str) -> str:
    """`name` as a plain relative path; a ValueError that begins with `what` if it would lead outside a folder."""
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or "\0" in name or re.match("[a-zA-Z]:", name):
        raise ValueError(f"{what}: the entry {name!r} would be written outside the folder")
    return str(path)


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Whatever the standard library raises while it reads a damaged archive becomes one ValueError that names it."""
    try:
        yield
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, struct.error, NotImplementedError) as error:
        raise ValueError(f"{path}: damaged or unsafe archive ({error}). Fetch it again.") from error
    except OSError as error:
        if error.errno not in (None, errno.EINVAL):  # from the disk; not from gzip or bz2, nor from a zip's impossible offset
            raise
        raise ValueError(f"{path}: damaged or unsafe archive ({error}). Fetch it again.") from error


def explain_content(head: bytes) -> str:
    """A sentence for an error message: what a file with this beginning seems to be instead of what was expected."""
    page = is_web_page(head)
    return ". It is a web page: does the address need a login, or a click on a licence?" if page else ". Fetch it again."


def is_web_page(head: bytes) -> bool:
    """Whether a file with this beginning is HTML."""
    return head.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith((b"<!doctype html", b"<html"))


def _format(path: Path) -> str:
    if path.name.lower().endswith(UNREADABLE):
        raise ValueError(f"{path}: Python cannot unpack this format. Unpack it by hand and give the folder as source.")
    with open(path, "rb") as file:
        head = file.read(512)
    # The first bytes decide, as a tar whose last file is a zip also ends like a zip.
    if head.startswith((b"PK\3\4", b"PK\5\6")):
        return "zip"
    if tarfile.is_tarfile(path):
        return "tar"
    if zipfile.is_zipfile(path):
        return "zip"
    raise ValueError(f"{path}: no archive{explain_content(head)}")


def _zip_entries(path: Path) -> Iterator[Entry]:
    with zipfile.ZipFile(path) as archive:
        for row in archive.infolist():
            name, shown = inside(row.filename, str(path)), f"{path}: the entry {row.filename!r}"
            if stat.S_ISLNK(row.external_attr >> 16):
                raise ValueError(f"{shown} is a link; archives with links are not unpacked. Do it by hand and give the folder.")
            if row.flag_bits & 1:
                raise ValueError(f"{shown} needs a password. Unpack it by hand and give the folder as source.")
            if row.compress_type not in ZIP_METHODS:
                raise ValueError(f"{shown} is compressed as Python cannot read it. Unpack it by hand and give the folder.")
            if row.filename.endswith(("/", "\\")):
                yield Entry(name=name)
            else:
                yield Entry(name=name, size=row.file_size, open=partial(archive.open, row))


def _tar_entries(path: Path) -> Iterator[Entry]:
    archive: Any  # the types of tarfile lack `members`
    with tarfile.open(path, tarinfo=_Header) as archive:
        while (row := archive.next()) is not None:
            archive.members.clear()  # tarfile would hold all of them, and there may be a million
            name, shown = inside(row.name, str(path)), f"{path}: the entry {row.name!r}"
            if row.isdir():
                yield Entry(name=name)
            elif row.isreg():
                yield Entry(name=name, size=row.size, open=partial(archive.extractfile, row))
            else:
                kind = "a link" if row.issym() or row.islnk() else "neither a file nor a folder"
                raise ValueError(f"{shown} is {kind}; such archives are not unpacked. Do it by hand and give the folder.")
        while archive.fileobj.read(2**20):  # a compressed tar ends with its checksum
            pass
