"""Folders packed into one archive, with equal bytes for equal files; and archives from strangers unpacked without harm.

Nothing is written outside the folder, no link is made, and a bomb is refused before it fills the disk.
"""

import os
import shutil
import tarfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from segpipe.archive_entries import entries, is_archive, is_junk, readable

MAX_UNPACKED = 200 * 2**30
"""Bytes; the largest datasets of the field fit, a bomb does not."""
PROVENANCE = "provenance.json"
BLOCK = 2**20


def is_packed(raw: Path) -> bool:
    """Whether a folder holds archives to be opened, not the files of a dataset: there is one, no folder, and nothing else but
    what `download` wrote there, or texts about the archives."""
    rows = [path for path in raw.iterdir() if not is_junk(path.name)]
    if any(path.is_dir() for path in rows):
        return False
    others = [path for path in rows if not is_archive(path)]
    return len(others) < len(rows) and ((raw / PROVENANCE).exists() or all(is_about(path.name) for path in others))


def is_about(name: str) -> bool:
    """Whether a file of this name is a text about the dataset."""
    return name.lower().startswith(("readme", "license", "licence"))


def check(path: Path, *, max_unpacked: int = MAX_UNPACKED) -> tuple[int, int]:
    """The number of files in an archive, and their bytes, after reading its list as `unpack` would.

    Raises:
        ValueError: as `unpack`, except for damage inside a file of a zip, which shows only when it is unpacked.
    """
    count = total = 0
    with readable(path):
        for entry in entries(path):
            total = _bounded(path, total + entry.size, max_unpacked)
            count += entry.open is not None
    return count, total


def unpack(path: Path, folder: Path, *, max_unpacked: int = MAX_UNPACKED, before: Sequence[Path] = ()) -> None:
    """Unpack a zip or tar archive (any of tar's compressions) into `folder`, a megabyte at a time.

    A file that is there already must have the same bytes, unless it is a text about the dataset: of those the first is kept.
    `before` are the archives that were unpacked there earlier, for the message.

    Raises:
        ValueError: no archive, a damaged one or one cut off; more than `max_unpacked` bytes, or than the disk has; a password, a
            link or a path outside `folder`; one path with two contents.
    """
    total, made = 0, {folder}
    with readable(path):
        for entry in entries(path):
            total = _bounded(path, total + entry.size, max_unpacked)
            target, what = folder / entry.name, f"{path}: {entry.name!r}"
            parent = target if entry.open is None else target.parent
            try:
                if parent not in made:
                    parent.mkdir(parents=True, exist_ok=True)
                    made.add(parent)
                if entry.open is not None:
                    with entry.open() as source:
                        same = _write(source, target, size=entry.size, what=what)
                    if not same and not is_about(target.name):
                        raise ValueError(f"{what} is there twice, with different content{_also(entry.name, before)}")
            except (FileExistsError, NotADirectoryError, IsADirectoryError):
                raise ValueError(f"{what} is the name of a file and of a folder{_also(entry.name, before)}") from None


@contextmanager
def opened(raw: Path, scratch: Path, *, max_unpacked: int = MAX_UNPACKED) -> Iterator[Path]:
    """The files of the dataset in the folder `raw`: `raw` itself, or, where it holds archives, the folder `scratch` with all of
    them unpacked and the other files beside them.

    `scratch` appears whole and is removed at the end; what a killed run left there is removed first.

    Raises:
        ValueError: `raw` is no folder; an archive that `unpack` refuses; two archives with different files of one path.
    """
    if not raw.is_dir():
        raise ValueError(f"{raw}: no such folder")
    if not is_packed(raw):
        yield raw
        return
    part = scratch.with_name(f".{scratch.name}.part")
    for leftover in (scratch, part):
        shutil.rmtree(leftover, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        files = sorted(path for path in raw.iterdir() if not is_junk(path.name))
        archives = [path for path in files if is_archive(path)]
        for number, path in enumerate(archives):
            unpack(path, part, max_unpacked=max_unpacked, before=archives[:number])
        for path in files:
            if path not in archives:
                (part / path.name).unlink(missing_ok=True)
                link_or_copy(path, part / path.name)
        os.replace(part, scratch)
        yield scratch
    finally:
        for folder in (part, scratch):
            shutil.rmtree(folder, ignore_errors=True)


def pack(folder: Path, archive: Path, *, skip: Collection[str] = ()) -> None:
    """Write all files below `folder`, those behind links too, into one uncompressed tar, which appears whole; `skip` names files
    of the folder itself that are left out.

    Equal paths and contents give equal bytes: sorted, without times, owners, modes or empty folders.

    Raises:
        ValueError: there is no file; a link is broken or leads back to a folder above it; something is neither file nor folder.
    """
    files = sorted(row for row in _files(folder, prefix="", above=()) if row[0] not in skip)
    if not files:
        raise ValueError(f"{folder}: no files in it")
    check_room(sum(path.stat().st_size for _, path in files), archive.parent, f"{folder}: packing it")
    part = archive.with_name(f".{archive.name}.part")
    try:
        with tarfile.open(part, "w", format=tarfile.PAX_FORMAT) as tar:
            for name, path in files:
                _add(tar, name, path)
        os.replace(part, archive)
    finally:
        part.unlink(missing_ok=True)


def link_or_copy(path: Path, target: Path) -> None:
    """Make `target` the same file as `path` (a hard link) where the file system can, else a copy."""
    try:
        os.link(path, target)
    except OSError:  # two disks, or no hard links here; any other trouble shows again in the copy
        shutil.copyfile(path, target)


def check_room(need: int, folder: Path, what: str) -> None:
    """Raise a ValueError that begins with `what` if the disk of `folder` has less than `need` bytes free."""
    free = shutil.disk_usage(folder).free
    if need > free:
        raise ValueError(
            f"{what} needs {need / 1e9:.2f} GB, but the disk of {folder} has {free / 1e9:.2f} GB free. Make room there."
        )


def _add(tar: Any, name: str, path: Path) -> None:
    info = tarfile.TarInfo(name)
    with open(path, "rb") as file:
        info.size = os.fstat(file.fileno()).st_size
        try:
            tar.addfile(info, file)
        except OSError as error:
            if error.errno is not None:  # of the disk, and says so
                raise
            raise ValueError(f"{path}: it changed while it was packed. Wait until it is written, then start again.") from error
    tar.members.clear()  # tarfile would hold all of them, and there may be a million


def _files(folder: Path, *, prefix: str, above: tuple[str, ...]) -> Iterator[tuple[str, Path]]:
    real = os.path.realpath(folder)
    if real in above:
        raise ValueError(f"{folder}: a link back to a folder above it. Remove the link.")
    for path in folder.iterdir():
        if is_junk(path.name):
            continue
        if path.is_dir():
            yield from _files(path, prefix=f"{prefix}{path.name}/", above=(*above, real))
        elif path.is_file():
            yield prefix + path.name, path
        else:
            what = "a broken link" if path.is_symlink() else "neither a file nor a folder"
            raise ValueError(f"{path}: {what}. Remove it, or mend it.")


def _bounded(path: Path, size: int, max_unpacked: int) -> int:
    if size > max_unpacked:
        raise ValueError(f"{path}: {size} bytes unpacked, more than the {max_unpacked} allowed")
    return size


def _write(source: IO[bytes], target: Path, *, size: int, what: str) -> bool:
    """Write a new file, or compare the one that is there: False if it differs."""
    if target.exists():
        return _equal(source, target)
    check_room(size, target.parent, what)
    with open(target, "xb") as file:
        shutil.copyfileobj(source, file, BLOCK)
        if file.tell() != size:
            raise ValueError(f"{what} has {file.tell()} bytes, but the archive says {size}. Fetch it again.")
    return True


def _equal(source: IO[bytes], target: Path) -> bool:
    with open(target, "rb") as file:
        while True:
            one, other = source.read(BLOCK), file.read(BLOCK)
            if one != other or not one:
                return one == other


def _also(name: str, before: Sequence[Path]) -> str:
    first = next((path for path in before for entry in entries(path) if entry.name == name), None)
    return f"; the other is in {first}" if first else ""
