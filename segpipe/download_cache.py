"""The files that came from other machines, kept so that nothing is fetched twice: not by a later run, not by two processes.

Each file has a folder of its own, named after the file and its addresses. A process that fetches it holds a lock there, which the
system takes back even from a killed one; another that wants it waits, and then finds it complete.
"""

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from segpipe.archive_entries import explain_content, is_archive, is_web_page
from segpipe.archives import MAX_UNPACKED, check
from segpipe.bucket_folder import fetch_folder
from segpipe.layout import Source
from segpipe.streams import Cut, Refused, public
from segpipe.transfer import Patience, Progress, Tell, address_key, ask, read_note, transfer, write_note

LARGE = 2**30
"""Bytes, from which on a check takes so long that a person should know of it."""


@dataclass(frozen=True, kw_only=True)
class DownloadCache:
    """Files of other machines in `folder`, for the dataset `name`. `progress` and `tell` are described in `segpipe.transfer`."""

    folder: Path
    name: str
    patience: Patience = field(default_factory=Patience)
    progress: Progress | None = None
    tell: Tell | None = None
    max_unpacked: int = MAX_UNPACKED

    def fetch(self, source: Source, *, fixed: bool = True) -> tuple[Path, dict[str, Any]]:
        """The file of `source`, whole and checked, and its record for provenance.json. Addresses are tried in order.

        Not `fixed`, a file that is here already is used only while the server has the same one, or does not answer.

        Raises:
            ValueError: it must be fetched by hand, the disk has no room, or no address gave the right file; then the message
                holds every address with its reason.
        """
        if not source.urls:
            raise ValueError(
                f"{self.name}: {source.filename} cannot be fetched by a program. {source.manual or 'It has no address.'}"
                f" Then set datasets.{self.name}.source in params.yaml to the file, or to the folder that holds it."
            )
        with self._alone(source.filename, source.urls) as folder:
            path, note = folder / source.filename, folder / ".fetched.json"
            kept = read_note(note)
            if path.exists() and self._good(path, source, kept) and (fixed or self._current(source, kept)):
                self._say(f"{source.filename}: fetched before, taken from {folder}")
                return path, kept["record"] | _terms(source)
            part, reasons = folder / ".part" / source.filename, []
            part.parent.mkdir(exist_ok=True)
            for url in source.urls:
                try:
                    record = self._fetch_from(url, part, source)
                except (Cut, Refused) as error:
                    reasons.append(f"{public(url)}: {error}")
                    if url != source.urls[-1]:
                        self._say(f"{reasons[-1]}; trying the next address")
                    continue
                transferred = read_note(_note_of(part))
                write_note(note, {"record": record, "validator": transferred["validator"], "total": transferred["total"]})
                os.replace(part, path)
                _note_of(part).unlink()
                return path, record
            by_hand = f"Fetch it by hand and set datasets.{self.name}.source in params.yaml to the file."
            raise ValueError("\n  ".join([f"{self.name}: {source.filename} could not be fetched. {by_hand}", *reasons]))

    def fetch_folder(self, url: str, files: Mapping[str, tuple[int, str]]) -> tuple[Path, dict[str, Any]]:
        """One tar of the objects `files` below `url`, and its record for provenance.json.

        Raises:
            ValueError: an object cannot be fetched, a path leads outside, or the disk has no room.
        """
        with self._alone(url.rstrip("/").rpartition("/")[2], [url]) as folder:
            try:
                tar = fetch_folder(url, folder, files=files, patience=self.patience, progress=self.progress, tell=self.tell)
            except (Cut, Refused) as error:
                raise ValueError(f"{self.name}: {public(url)} could not be fetched: {error}") from None
            known = Source(filename=tar.name, urls=(), licence="")
            return tar, {"from": public(url), **describe(tar, known, max_unpacked=self.max_unpacked)}

    def _fetch_from(self, url: str, part: Path, source: Source) -> dict[str, Any]:
        while True:
            continued = transfer(url, part, size=source.size, patience=self.patience, progress=self.progress, tell=self.tell)
            if part.stat().st_size >= LARGE:
                self._say(f"{source.filename}: checking what arrived")
            try:
                return {"from": public(url), **describe(part, source, fetched=True, max_unpacked=self.max_unpacked)}
            except ValueError as error:
                part.unlink()
                reason = str(error).removeprefix(f"{part}: ")
                if not continued:
                    raise Refused(reason) from None
                # Two halves that do not fit: the server's word that the file is the same was not true.
                self._say(f"{source.filename}: {reason} It was fetched in parts; starting it again.")

    def _good(self, path: Path, source: Source, kept: Mapping[str, Any]) -> bool:
        """Whether a kept file is what was fetched, and what `source` wants by now."""
        record = kept.get("record", {})
        known = (source.size in (None, record.get("size"))) and source.sha256 in (None, record.get("sha256"))
        return known and path.stat().st_size == record.get("size") and _sha256(path) == record["sha256"]

    def _current(self, source: Source, kept: Mapping[str, Any]) -> bool:
        """Whether the server still has the file that is kept; a server that tells neither version nor size is believed."""
        try:
            now = ask(source.urls[0], timeout=self.patience.timeout)
        except (Cut, Refused) as error:
            self._say(f"{source.filename}: whether it changed cannot be asked ({error}); the copy fetched before is used")
            return True
        if now["validator"] and kept["validator"]:
            return bool(now["validator"] == kept["validator"])
        return now["total"] in (None, kept["total"])

    @contextmanager
    def _alone(self, filename: str, urls: Sequence[str]) -> Iterator[Path]:
        """The folder of one file, held against every other process."""
        folder = self.folder / f"{filename}-{address_key(*urls)}"
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            self._say(f"waiting for another process that fetches {filename}")
            lock.acquire(poll_interval=0.2)
        try:
            yield folder
        finally:
            lock.release()

    def _say(self, sentence: str) -> None:
        if self.tell is not None:
            self.tell(sentence)


def describe(path: Path, source: Source, *, fetched: bool = False, max_unpacked: int = MAX_UNPACKED) -> dict[str, Any]:
    """The record of a file for provenance.json: name, bytes, sha256, whether that was checked, licence, and what an archive holds.

    Raises:
        ValueError: it is not what `source` says, it is an archive that is damaged or unsafe, or a page was `fetched` in its place.
    """
    size = path.stat().st_size
    with open(path, "rb") as file:
        head = file.read(512)
    if source.size not in (None, size):
        raise ValueError(f"{path}: {size} bytes, should be {source.size}{explain_content(head)}")
    digest = _sha256(path)
    if source.sha256 not in (None, digest):
        raise ValueError(f"{path}: sha256 {digest}, should be {source.sha256}{explain_content(head)}")
    if fetched and is_web_page(head) and path.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"{path}: not the file{explain_content(head)}")
    record: dict[str, Any] = {"filename": path.name, "size": size, "sha256": digest}
    if is_archive(path):
        record["files"], record["unpacked"] = check(path, max_unpacked=max_unpacked)
    return record | _terms(source)


def _terms(source: Source) -> dict[str, Any]:
    texts = {"licence": source.licence, "allows": source.allows}
    return {"checked": source.sha256 is not None} | {word: text for word, text in texts.items() if text}


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _note_of(part: Path) -> Path:
    return part.with_name(part.name + ".json")
