"""Get the source of a dataset: an archive or folder on this machine, an address (file, http, https, s3, ...), or its own drawing.

`data/raw/<dataset>` holds few files whatever the dataset: archives as they were published, or one tar of a folder;
`archives.opened` opens them. Many small files there would cost DVC seconds in every run. The folder appears whole or not at all.
"""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from segpipe import buckets
from segpipe.archive_entries import is_archive_name, is_junk
from segpipe.archives import MAX_UNPACKED, PROVENANCE, check_room, is_about, is_packed, link_or_copy, pack
from segpipe.download_cache import DownloadCache, describe
from segpipe.folders import put
from segpipe.layout import Source
from segpipe.streams import TIMEOUT, Cut, Refused, filename, public, scheme
from segpipe.transfer import Patience, Progress, Tell

FILES = "files.tar"


def generate(out: Path, draw: Callable[..., None], *, name: str, seed: int, options: Mapping[str, Any]) -> dict[str, Any]:
    """Call `draw(folder, seed=, **options)` and put what it wrote at `out` as files.tar, with its provenance, which is returned."""
    provenance = {"generated": name, "seed": seed, "options": dict(options)}
    with _replacing(out) as folder:
        drawn = folder / "drawn"
        drawn.mkdir()
        draw(drawn, seed=seed, **options)
        pack(drawn, folder / FILES)
        shutil.rmtree(drawn)
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
    tell: Tell | None = None,
    attempts: int = 5,
    backoff: float = 1.0,
    timeout: tuple[float, float] = TIMEOUT,
    max_unpacked: int = MAX_UNPACKED,
) -> dict[str, Any]:
    """Fill the folder `out` with the files of a dataset, packed, and provenance.json, which is returned.

    `source` is an archive, a file or a folder on this machine, or an address: file, http, https, s3, and what else fsspec has a
    driver for; None fetches the dataset's own `sources`. A folder is packed into files.tar, but files in it that are named like the
    `sources`, and archives in a folder of nothing else, are taken as they are. What comes from another machine stays in `cache`,
    which datasets may share, so that a later run continues or uses it. `progress` and `tell`, and the patience (`attempts`,
    `backoff`, `timeout`) are those of `segpipe.transfer`; an archive may have `max_unpacked` bytes in it.

    Raises:
        ValueError: nothing to fetch, a manual source is missing, all addresses failed, a wrong size or checksum, an archive that
            is damaged or unsafe, an empty folder, or too small a disk.
    """
    patience = Patience(attempts=attempts, backoff=backoff, timeout=timeout)
    fetcher = DownloadCache(folder=cache, name=name, patience=patience, progress=progress, tell=tell, max_unpacked=max_unpacked)
    with _replacing(out) as folder:
        if source is not None and (local := _local_path(source, name)):
            records = _taken(local, folder, sources, shown=source, max_unpacked=max_unpacked)
        else:
            records = []
            for path, record in _fetched(fetcher, sources, source):
                link_or_copy(path, folder / path.name)
                records.append(record)
        terms = {key: sorted({getattr(s, key) for s in sources} - {""}) for key in ("licence", "allows")}
        provenance = {"sources": records, **terms}
        _write_provenance(folder, provenance)
    return provenance


def _fetched(fetcher: DownloadCache, sources: Sequence[Source], source: str | None) -> Iterator[tuple[Path, dict[str, Any]]]:
    """What comes from other machines: each file's place in the cache, and its record."""
    setting = f"datasets.{fetcher.name}.source"
    if source is None:
        if not sources:
            raise ValueError(f"{setting}: missing, and the dataset file lists nothing to fetch")
        for one in sorted(sources, key=lambda s: bool(s.urls)):  # what needs a person is said first, not after hours of transfer
            yield fetcher.fetch(one)
    elif (files := _listing(fetcher, source)) is None:
        known = _known(filename(source), sources)
        yield fetcher.fetch(replace(known, urls=(source,)), fixed=known.sha256 is not None)
    elif not files:
        raise ValueError(f"{setting}: {public(source)}: no files there")
    else:
        names = [s.filename for s in sources if s.filename in files]
        if not names and all("/" not in path and (is_archive_name(path) or is_about(path)) for path in files):
            names = list(files)
        for known in (_known(path, sources) for path in names):
            yield fetcher.fetch(replace(known, urls=(f"{source.rstrip('/')}/{known.filename}",)), fixed=known.sha256 is not None)
        if not names:
            yield fetcher.fetch_folder(source, files)


def _listing(fetcher: DownloadCache, source: str) -> dict[str, tuple[int, str]] | None:
    """The files below an address, or None where it is a file itself; web servers have no folders."""
    if scheme(source) in ("http", "https"):
        return None
    try:
        files = buckets.listing(source, timeout=fetcher.patience.timeout)
    except (Cut, Refused) as error:
        raise ValueError(f"datasets.{fetcher.name}.source: {public(source)}: {error}") from None
    if files is None:
        return None
    return {path: row for path, row in files.items() if path != PROVENANCE and not any(map(is_junk, path.split("/")))}


def _taken(local: Path, folder: Path, sources: Sequence[Source], *, shown: str, max_unpacked: int) -> list[dict[str, Any]]:
    """The records of what is on this machine, copied or packed into `folder`; not linked, as it is the user's to change."""
    paths, rest = [local], False
    if local.is_dir():
        paths = [local / s.filename for s in sources if (local / s.filename).is_file()]
        if not paths and is_packed(local):
            paths = sorted(path for path in local.iterdir() if path.name != PROVENANCE and not is_junk(path.name))
        named = {path.name for path in paths} | {PROVENANCE}
        rest = not paths or any(p.name not in named and not is_junk(p.name) and not is_about(p.name) for p in local.iterdir())
    records = []
    for path in paths:
        records.append({"from": shown, **describe(path, _known(path.name, sources), max_unpacked=max_unpacked)})
        check_room(path.stat().st_size, folder, f"{path}: copying it")
        shutil.copyfile(path, folder / path.name)
    if rest:
        pack(local, folder / FILES, skip=[path.name for path in paths])
        records.append({"from": shown, **describe(folder / FILES, _known(FILES, ()), max_unpacked=max_unpacked)})
    return records


def _known(name: str, sources: Sequence[Source]) -> Source:
    """The source of that file name, which tells its size and checksum; one that tells nothing if there is none."""
    if name == PROVENANCE:
        raise ValueError(f"{name}: a source cannot have this name. Rename it.")
    return next((s for s in sources if s.filename == name), Source(filename=name, urls=(), licence=""))


def _local_path(source: str, name: str) -> Path | None:
    """The path that `source` names on this machine, if it does."""
    if scheme(source) not in ("", "file"):
        return None
    parts = urlsplit(source)
    if scheme(source) and parts.netloc not in ("", "localhost"):
        raise ValueError(f"datasets.{name}.source: {source}: a file address has three slashes, as in file:///data/images.zip")
    path = Path(unquote(parts.path)) if scheme(source) else Path(source).expanduser()
    if not path.exists():
        raise ValueError(f"datasets.{name}.source: {source}: no such file or folder")
    return path


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
        put(folder, out)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
