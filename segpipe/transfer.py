"""One file from one address, whole: continued where it was cut, in this run or the next, and asked for again with patience."""

import hashlib
import json
import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segpipe import buckets, streams
from segpipe.archive_entries import explain_content
from segpipe.archives import check_room
from segpipe.streams import TIMEOUT, Cut, Refused, Stream, scheme

Progress = Callable[[str, int, int | None], None]
"""Called with a file's name, the bytes that are there, and all its bytes if known; the first call tells where it starts."""
Tell = Callable[[str], None]
MAX_WAIT = 120.0
"""Seconds; a server that asks for a longer pause is asked again after this one."""


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long one address is tried: `attempts` in a row that gain no byte, with a pause of `backoff` seconds, doubled each
    time, between them; `timeout` is seconds to connect, and between two pieces of data."""

    attempts: int = 5
    backoff: float = 1.0
    timeout: tuple[float, float] = TIMEOUT


def transfer(
    url: str,
    part: Path,
    *,
    size: int | None = None,
    patience: Patience = Patience(),  # noqa: B008 - frozen
    progress: Progress | None = None,
    tell: Tell | None = None,
) -> bool:
    """Bring the file behind `url` to `part`, of whose name with `.json` a note is kept; True if what was there was continued.

    `size` is what the file must have. `tell` gets a sentence before each pause.

    Raises:
        Cut, Refused: the address does not give the file, with the reason.
        ValueError: the disk has no room for it.
    """
    failed, furthest, continued = 0, _size(part), False
    while True:
        try:
            return _request(url, part, size=size, timeout=patience.timeout, progress=progress) or continued
        except Cut as error:
            if error.restart:
                part.unlink(missing_ok=True)
            here = _size(part)
            failed = 1 if here > furthest else failed + 1
            furthest, continued = max(furthest, here), continued or here > 0
            if failed >= patience.attempts:
                raise
            pause = max(min(error.wait, MAX_WAIT), patience.backoff * 2 ** (failed - 1))
            if tell is not None:
                tell(f"{part.name}: {error}; trying again in {pause:.3g} s")
            time.sleep(pause)


def ask(url: str, *, timeout: tuple[float, float] = TIMEOUT) -> dict[str, Any]:
    """What the server says of the file now, without fetching it: `validator` and `total`, either of them None if not told.

    Raises:
        Cut, Refused: it says nothing.
    """
    with _opened(url, start=0, validator=None, timeout=timeout) as stream:
        return {"validator": stream.validator, "total": stream.total}


def address_key(*urls: str) -> str:
    """A short name for one or more addresses that tells nothing of what they hold, such as a key in a signed link."""
    return hashlib.sha256("\n".join(urls).encode()).hexdigest()[:16]


def read_note(path: Path) -> dict[str, Any]:
    """A note written by `write_note`; empty if there is none."""
    return json.loads(path.read_text()) if path.exists() else {}


def write_note(path: Path, note: dict[str, Any]) -> None:
    """Write a small JSON file whole or not at all."""
    part = path.with_name(f".{path.name}.part")
    part.write_text(json.dumps(note, indent=1) + "\n")
    os.replace(part, path)


def _request(url: str, part: Path, *, size: int | None, timeout: tuple[float, float], progress: Progress | None) -> bool:
    """One request: appends to `part` if the server continues the same file, else starts it again. True if it was continued."""
    note_path = part.with_name(part.name + ".json")
    note, here = read_note(note_path), _size(part)
    # Without a validator the server could have another file by now, so only a part with one is continued.
    same = part.exists() and note.get("address") == address_key(url)
    if same and note.get("whole") and here == note["total"]:
        return True  # the run that fetched it ended before it was used
    start, validator = (here, note["validator"]) if same and note["validator"] else (0, None)
    with _opened(url, start=start, validator=validator, timeout=timeout) as stream:
        if stream.start and stream.total is not None and note["total"] not in (None, stream.total):
            raise Cut(f"the file had {note['total']} bytes and now has {stream.total}", restart=True)
        if size is not None and stream.total is not None and stream.total != size:
            raise Refused(f"{stream.total} bytes, should be {size}{explain_content(next(stream.blocks, b''))}")
        if stream.total is not None:
            check_room(stream.total - stream.start, part.parent, part.name)
        if not stream.start:
            part.unlink(missing_ok=True)  # before the note, which must never tell of older bytes
        note = {"address": address_key(url), "validator": stream.validator or validator, "total": stream.total}
        write_note(note_path, note)
        done = _append(part, stream, size=size, progress=progress)
    write_note(note_path, note | {"total": done, "whole": True})
    return stream.start > 0


def _append(part: Path, stream: Stream, *, size: int | None, progress: Progress | None) -> int:
    done, total = stream.start, stream.total
    if progress is not None:
        progress(part.name, done, total)
    with open(part, "ab") as file:
        try:
            for block in stream.blocks:
                file.write(block)
                done += len(block)
                if size is not None and done > size:
                    raise Refused(f"more than the {size} bytes it should have")
                if progress is not None:
                    progress(part.name, done, total)
        except Cut as error:
            raise Cut(f"{error} after {done}{'' if total is None else f' of {total}'} bytes") from None
    if total is not None and done != total:
        raise Cut(f"the connection ended after {done} of {total} bytes", restart=done > total)
    return done


def _opened(url: str, *, start: int, validator: str | None, timeout: tuple[float, float]) -> AbstractContextManager[Stream]:
    open_one = streams.opened if scheme(url) in ("http", "https") else buckets.opened
    return open_one(url, start=start, validator=validator, timeout=timeout)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
