"""Files and folders in object stores (s3://, gs://, ...) through fsspec, as streams that can be continued.

The driver of each store finds the keys where its own tools do. An S3 bucket is asked without a key where this machine has none,
which is how public ones are read.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import fsspec

from segpipe.streams import TIMEOUT, Cut, Refused, Stream, public, scheme

BLOCK = 8 * 2**20
"""Bytes asked for in one request."""
CHUNK = 2**20
DIGESTS = ("ETag", "etag", "md5Hash", "content_md5")
TIMES = ("LastModified", "last_modified", "updated", "mtime", "modified", "created")
"""What the drivers call that which changes when the content does."""


@contextmanager
def opened(url: str, *, start: int = 0, validator: str | None = None, timeout: tuple[float, float] = TIMEOUT) -> Iterator[Stream]:
    """Open one object, from byte `start` on if it is still the one of `validator`, else from its beginning.

    Raises:
        Cut: the network or the store; trying again may help.
        Refused: no such object, no access, no driver for this kind of address.
    """
    with _sentences(url):
        system, path, row = _find(url, timeout)
        seen = version(row)
        begin = start if start and seen == validator else 0
        file = system.open(path, "rb", block_size=BLOCK)
    with file:
        yield Stream(start=begin, total=row.get("size"), validator=seen, blocks=_blocks(file, begin, url))


def listing(url: str, *, timeout: tuple[float, float] = TIMEOUT) -> dict[str, tuple[int, str]] | None:
    """All objects below the folder `url`: {path inside it: (bytes, version)}, sorted; None if `url` is an object itself.

    Raises:
        Cut, Refused: as `opened`.
    """
    with _sentences(url):
        system, path, row = _find(url, timeout)
        if row["type"] == "file" and not url.endswith("/"):
            return None
        top = path.rstrip("/") + "/"
        rows = system.find(path, withdirs=False, detail=True)
    files = {name.removeprefix(top): row for name, row in rows.items() if name.startswith(top)}
    # An empty object whose name ends with a slash stands for a folder.
    return {name: (int(row["size"]), version(row) or "") for name, row in sorted(files.items()) if name and not name.endswith("/")}


def version(row: dict[str, Any]) -> str | None:
    """What a listing says of an object that changes with its content."""
    return next((f"{name} {row[name]}" for name in (*DIGESTS, *TIMES) if row.get(name)), None)


def replaced(listed: str | None, opened: str | None) -> bool:
    """Whether an object that was listed with one version is another one now. Times are not compared: some drivers write them
    in one way in a listing and in another for one object."""
    one, other = (listed or "").partition(" "), (opened or "").partition(" ")
    return one[0] == other[0] and one[0] in DIGESTS and one != other


def _find(url: str, timeout: tuple[float, float]) -> tuple[Any, str, dict[str, Any]]:
    """The file system of an address, the path in it, and what is known of that path."""
    options: dict[str, Any] = {"use_listings_cache": False}
    if scheme(url) in ("s3", "s3a"):
        options["config_kwargs"] = {"connect_timeout": timeout[0], "read_timeout": timeout[1]}
    try:
        system, path = fsspec.core.url_to_fs(url, **options)
    except ImportError as error:
        raise Refused(f"{error} (into the environment of this pipeline)") from None
    except ValueError:
        raise Refused(f"addresses that begin with {scheme(url)}:// are not known; file, http, https, s3 and gs are") from None
    try:
        return system, path, system.info(path)
    except Exception as error:
        if type(error).__name__ != "NoCredentialsError":  # botocore's; importing that would need s3 to be used at all
            raise
        system, path = fsspec.core.url_to_fs(url, **options, anon=True)
        return system, path, system.info(path)


def _blocks(file: Any, begin: int, url: str) -> Iterator[bytes]:
    with _sentences(url):
        file.seek(begin)
        while block := file.read(CHUNK):
            yield block


@contextmanager
def _sentences(url: str) -> Iterator[None]:
    try:
        yield
    except (Cut, Refused):
        raise
    except FileNotFoundError:
        raise Refused("there is no such file or folder") from None
    except PermissionError as error:
        raise Refused(f"no access: {_shown(error, url)}") from None
    except Exception as error:  # every driver has exceptions of its own, most of them of the network
        raise Cut(_shown(error, url)) from None


def _shown(error: Exception, url: str) -> str:
    return f"{type(error).__name__}: {error}".replace(url, public(url))
