"""All objects below one folder of an object store, as one tar on this machine; what was fetched before is not fetched again.

The store's listing, with a version of every object, is written down before anything is fetched. A later run compares it with the
listing of that day, keeps the files of the same version, and fetches the others.
"""

import os
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path
from threading import Lock
from typing import Any

from segpipe.archive_entries import inside
from segpipe.archives import check_room, pack, unpack
from segpipe.buckets import replaced
from segpipe.streams import Refused
from segpipe.transfer import Patience, Progress, Tell, read_note, transfer, write_note

WORKERS = 8
"""Objects fetched at a time: a store takes some 30 ms to begin each, whatever the line."""


def fetch_folder(
    url: str,
    cache: Path,
    *,
    files: Mapping[str, tuple[int, str]],
    patience: Patience,
    progress: Progress | None = None,
    tell: Tell | None = None,
) -> Path:
    """A tar in the folder `cache` of all objects below `url`, whose listing is `files`: {path: (bytes, version)}.

    Raises:
        Cut, Refused: an object cannot be fetched, or was changed since the listing.
        ValueError: a path leads outside, or the disk has no room.
    """
    tree, parts, tar, listing = cache / "tree", cache / "parts", cache / "files.tar", cache / "listing.json"
    wanted: dict[str, Any] = {inside(name, url): [size, version] for name, (size, version) in files.items()}
    before = read_note(listing)
    if tar.exists():
        if before == wanted:
            return tar
        for leftover in (tree, parts):
            shutil.rmtree(leftover, ignore_errors=True)
        parts.mkdir()
        unpack(tar, parts)
        os.replace(parts, tree)
        tar.unlink()
    tree.mkdir(exist_ok=True)
    for name in before:
        if before[name] != wanted.get(name):
            (tree / name).unlink(missing_ok=True)
    write_note(listing, wanted)
    missing = [name for name in wanted if not (tree / name).exists()]
    check_room(sum(wanted[name][0] for name in missing), cache, url)
    report = _sum(url.rstrip("/").rpartition("/")[2], wanted, missing, progress)

    def fetch_one(name: str) -> None:
        size, version = wanted[name]
        address, part = f"{url.rstrip('/')}/{name}", parts / name
        part.parent.mkdir(parents=True, exist_ok=True)
        transfer(address, part, size=size, patience=patience, progress=lambda _, done, __: report(name, done), tell=tell)
        note = part.with_name(part.name + ".json")
        if replaced(version, read_note(note)["validator"]):
            part.unlink()
            raise Refused(f"{name} was changed while the folder was read. Start again.")
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        os.replace(part, tree / name)
        note.unlink()

    pool = ThreadPoolExecutor(WORKERS)
    try:
        for ended in wait([pool.submit(fetch_one, name) for name in missing], return_when=FIRST_EXCEPTION).done:
            ended.result()
    finally:
        pool.shutdown(cancel_futures=True)
    pack(tree, tar)
    for leftover in (tree, parts):
        shutil.rmtree(leftover, ignore_errors=True)
    return tar


def _sum(label: str, wanted: Mapping[str, Any], missing: list[str], progress: Progress | None) -> Callable[[str, int], None]:
    """A function that takes how far one file is, and reports how far all of them are."""
    total = sum(size for size, _ in wanted.values())
    done = {name: 0 if name in set(missing) else size for name, (size, _) in wanted.items()}
    here, lock = sum(done.values()), Lock()

    def report(name: str, now: int) -> None:
        nonlocal here
        with lock:
            here, done[name] = here + now - done[name], now
            if progress is not None:
                progress(label, here, total)

    return report
