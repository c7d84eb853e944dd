"""Get the source of a dataset: from a local archive or folder, over file:// or http(s)://, or drawn by the dataset's own code.

A transfer resumes where it was cut, in this run or the next; a file is used only when its size and checksum are right; archives
are unpacked without ever writing outside their folder; and the result appears whole or not at all.
"""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

import requests

from segpipe.archives import MAX_UNPACKED, explain_content, unpack
from segpipe.layout import Source

Progress = Callable[[str, int, int | None], None]
CHUNK = 2**16
"""Bytes; what a cut transfer loses at most."""
TIMEOUT = (15, 60)
"""Seconds to connect, and between two pieces of data."""
RETRY_STATUS = (408, 425, 429, 500, 502, 503, 504)
PROVENANCE = "provenance.json"


class Cut(Exception):
    """A transfer ended early or the server asked to come back later; trying again may help. `wait` is what the server asked."""

    def __init__(self, reason: str, *, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait


def generate(out: Path, draw: Callable[..., None], *, name: str, seed: int, options: Mapping[str, Any]) -> dict[str, Any]:
    """Call `draw(folder, seed=, **options)` and put what it wrote at `out`, with its provenance, which is returned."""
    provenance = {"generated": name, "seed": seed, "options": dict(options)}
    with _replacing(out) as folder:
        draw(folder, seed=seed, **options)
        _write_provenance(folder, provenance)
    return provenance


def download(
    out: Path,
    *,
    name: str,
    sources: Sequence[Source],
    source: str | None = None,
    cache: Path,
    progress: Progress | None = None,
    attempts: int = 5,
    backoff: float = 1.0,
    max_unpacked: int = MAX_UNPACKED,
) -> dict[str, Any]:
    """Fill the folder `out` with the unpacked files of a dataset and provenance.json, which is returned.

    `source` is a local archive or folder, or a file:// or http(s):// address; None fetches the dataset's own `sources`. A local
    folder is copied; archives in it that are named like one of the `sources` are checked and unpacked. Unfinished transfers wait
    in `cache`. `attempts` is how often one address is tried without gaining a byte, `backoff` the first pause in seconds,
    doubled each time. `progress(file, done bytes, total bytes or None)` is called about every tenth of a transfer.

    Raises:
        ValueError: nothing to fetch, a manual source is missing, all addresses failed, a wrong size or checksum, no usable archive.
    """
    records = []
    with _replacing(out) as folder:
        local = _local_path(source)
        if local is not None and not local.exists():
            raise ValueError(f"datasets.{name}.source: {source}: no such file or folder")
        if local is not None and local.is_dir():
            found = [s for s in sources if (local / s.filename).is_file()]
            for known in found:
                records.append({"from": str(source), **_check(local / known.filename, known)})
                unpack(local / known.filename, folder, max_unpacked=max_unpacked)
            if not found:
                _copy_folder(local, folder)
                records.append({"from": str(source)})
        elif local is not None:
            match = next((s for s in sources if s.filename == local.name), None)
            records.append({"from": str(source), **_check(local, match or Source(filename=local.name, urls=(), licence=""))})
            unpack(local, folder, max_unpacked=max_unpacked)
        else:
            cache.mkdir(parents=True, exist_ok=True)
            for wanted in _wanted(name, sources, source):
                path, url = fetch(wanted, cache, name=name, progress=progress, attempts=attempts, backoff=backoff)
                records.append({"from": url, **_check(path, wanted)})
                unpack(path, folder, max_unpacked=max_unpacked)
        provenance = {"sources": records, "licence": sorted({s.licence for s in sources if s.licence})}
        _write_provenance(folder, provenance)
    shutil.rmtree(cache, ignore_errors=True)
    return provenance


def fetch(
    source: Source,
    cache: Path,
    *,
    name: str,
    progress: Progress | None = None,
    attempts: int = 5,
    backoff: float = 1.0,
) -> tuple[Path, str]:
    """The file of `source` in `cache`, complete and checked, and the address it came from; addresses are tried in order.

    Raises:
        ValueError: it must be fetched by hand, or no address gave the right file; the message has every address and reason.
    """
    path = cache / source.filename
    if not source.urls:
        raise ValueError(
            f"{name}: {source.filename} cannot be fetched by a program. {source.manual or 'It has no address.'}"
            f" Then set datasets.{name}.source in params.yaml to the file, or to the folder that holds it."
        )
    reasons = []
    for url in source.urls:
        try:
            _fetch_url(url, path, progress=progress, attempts=attempts, backoff=backoff)
            _check(path, source)
            return path, url
        except (Cut, requests.RequestException, ValueError) as error:
            reasons.append(f"{url}: {error}")
            if path.exists():  # complete, but not the right file
                path.unlink()
    raise ValueError(f"{name}: {source.filename} could not be fetched.\n  " + "\n  ".join(reasons))


def _fetch_url(url: str, path: Path, *, progress: Progress | None, attempts: int, backoff: float) -> None:
    if path.exists():
        return
    part, note = path.with_name(path.name + ".part"), path.with_name(path.name + ".part.json")
    failed = 0
    while True:
        before = part.stat().st_size if part.exists() else 0
        try:
            _transfer(url, part, note, progress=progress)
            os.replace(part, path)
            note.unlink(missing_ok=True)
            return
        except (Cut, requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
            gained = part.exists() and part.stat().st_size > before
            failed = 1 if gained else failed + 1
            if failed >= attempts:
                raise
            wait = error.wait if isinstance(error, Cut) else 0.0
            time.sleep(max(min(wait, 120.0), backoff * 2 ** (failed - 1)))


def _transfer(url: str, part: Path, note: Path, *, progress: Progress | None) -> None:
    """One request: appends to `part` if the server continues the same file, else starts it again."""
    known = json.loads(note.read_text()) if note.exists() and part.exists() else {}
    # Without a validator the server could have another file by now, so only a part with one is continued.
    start = part.stat().st_size if known.get("url") == url and known.get("validator") else 0
    headers = {"Accept-Encoding": "identity"}
    if start:
        headers |= {"Range": f"bytes={start}-", "If-Range": known["validator"]}
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
        if response.status_code == 416:
            part.unlink()
            raise Cut("the server no longer has the part that is missing")
        if response.status_code in RETRY_STATUS:
            asked = response.headers.get("Retry-After", "")
            raise Cut(f"the server answered {response.status_code}", wait=float(asked) if asked.isdigit() else 0.0)
        response.raise_for_status()
        continues = response.status_code == 206
        if continues and not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
            part.unlink()
            raise Cut("the server sent another part than the one asked for")
        done = start if continues else 0
        length = response.headers.get("Content-Length", "")
        total = done + int(length) if length.isdigit() else None
        etag = response.headers.get("ETag", "")
        validator = etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified")
        note.write_text(json.dumps({"url": url, "validator": validator}))
        told = done
        with open(part, "ab" if continues else "wb") as file:
            for block in response.iter_content(CHUNK):
                file.write(block)
                done += len(block)
                if progress is not None and (done == total or done - told >= max(2**20, (total or 0) // 10)):
                    progress(part.name.removesuffix(".part"), done, total)
                    told = done
    if total is not None and done != total:
        raise Cut(f"the connection ended after {done} of {total} bytes")


def _check(path: Path, source: Source) -> dict[str, Any]:
    """What the file is: name, size, sha256. Raises ValueError where the source knows better."""
    size = path.stat().st_size
    if source.size is not None and size != source.size:
        raise ValueError(f"{path}: {size} bytes, should be {source.size}{explain_content(path)}")
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if source.sha256 is not None and digest != source.sha256:
        raise ValueError(f"{path}: sha256 {digest}, should be {source.sha256}{explain_content(path)}")
    return {"filename": path.name, "size": size, "sha256": digest, "checked": source.sha256 is not None}


def _local_path(source: str | None) -> Path | None:
    parts = urlsplit(source or "")
    if source is None or parts.scheme in ("http", "https"):
        return None
    return Path(unquote(parts.path)) if parts.scheme == "file" else Path(source).expanduser()


def _wanted(name: str, sources: Sequence[Source], source: str | None) -> list[Source]:
    """What to fetch: the given address, with the size and checksum of the source of that file name, or all sources."""
    if source is None:
        if not sources:
            raise ValueError(f"datasets.{name}.source: missing, and the dataset file lists nothing to fetch")
        return list(sources)
    filename = PurePosixPath(unquote(urlsplit(source).path)).name or "download"
    known = next((s for s in sources if s.filename == filename), Source(filename=filename, urls=(), licence=""))
    return [replace(known, urls=(source,))]


def _copy_folder(source: Path, folder: Path) -> None:
    """Copy the contents of all files, those behind links too; not the modes, as a read-only copy could not be replaced."""
    for here, _, names in os.walk(source, followlinks=True):
        copy = folder / Path(here).relative_to(source)
        copy.mkdir(exist_ok=True)
        for name in names:
            shutil.copyfile(Path(here) / name, copy / name)


def _write_provenance(folder: Path, provenance: dict[str, Any]) -> None:
    (folder / PROVENANCE).write_text(json.dumps(provenance, indent=1) + "\n")


@contextmanager
def _replacing(out: Path) -> Iterator[Path]:
    """A fresh folder beside `out` that takes its place if the block ends without an error, and is removed otherwise."""
    folder = out.with_name(f".{out.name}.part")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
        shutil.rmtree(out, ignore_errors=True)
        os.replace(folder, out)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
