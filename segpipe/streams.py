"""One request to an HTTP server for a file, or for the rest of one: what the answer is, and why there is none, in one sentence.

Nothing secret leaves this file: addresses are shown without user name, password and query, where signed links carry their key.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

import requests
import urllib3

CHUNK = 2**16
"""Bytes; what a cut transfer loses at most."""
TIMEOUT = (15.0, 60.0)
"""Seconds to connect, and between two pieces of data."""
RETRY_STATUS = (408, 425, 429, 500, 502, 503, 504)


class Refused(Exception):
    """This address does not give the file, and asking again would not help."""


class Cut(Exception):
    """A transfer ended early or the server asked to come back later; trying again may help.

    `wait` is how many seconds the server asked for; with `restart` the part that is there is of no use.
    """

    def __init__(self, reason: str, *, wait: float = 0.0, restart: bool = False) -> None:
        super().__init__(reason)
        self.wait, self.restart = wait, restart


@dataclass(frozen=True, kw_only=True)
class Stream:
    """An answer: `blocks` are the bytes from `start` on of a file of `total` bytes, if known.

    `validator` changes when the file does; without one no part can be continued.
    """

    start: int
    total: int | None
    validator: str | None
    blocks: Iterator[bytes]


def scheme(source: str) -> str:
    """What stands before `://`, in lower case; nothing for a path."""
    found = re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", source)
    return found[1].lower() if found else ""


def public(address: str) -> str:
    """An address without user name, password, query and fragment; a path as it is."""
    if not scheme(address):
        return address
    parts = urlsplit(address)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def filename(address: str) -> str:
    """A name for the file behind an address: its last part, with nothing in it that a file system could mind."""
    name = re.sub(r"[^\w.+ ()-]", "_", PurePosixPath(unquote(urlsplit(address).path)).name).strip()[-150:]
    return name if name.strip(".") else "download"


@contextmanager
def opened(url: str, *, start: int = 0, validator: str | None = None, timeout: tuple[float, float] = TIMEOUT) -> Iterator[Stream]:
    """Ask an http or https server for a file, from byte `start` on if it is still the one of `validator`, else from its beginning.

    Raises:
        Cut: the network, or a server that is busy or contradicts itself.
        Refused: the server does not give the file.
    """
    headers = {"Accept-Encoding": "identity", "User-Agent": "segpipe"}
    if start and validator:
        headers |= {"Range": f"bytes={start}-", "If-Range": validator}
    with _answer(url, headers, timeout) as response:
        _check_status(response)
        begin, total = _extent(response, asked=start)
        etag = response.headers.get("ETag", "")
        seen = etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified")
        # A server may call a .gz file itself an encoding; any other encoded answer is decoded, and then nothing is known of it.
        path = urlsplit(url).path.lower()
        coded = response.headers.get("Content-Encoding", "identity") != "identity" and not path.endswith((".gz", ".tgz"))
        if coded:
            total = seen = None
        yield Stream(start=begin, total=total, validator=seen, blocks=_blocks(response, coded=coded, patience=timeout[1]))


@contextmanager
def _answer(url: str, headers: dict[str, str], timeout: tuple[float, float]) -> Iterator[requests.Response]:
    try:
        response = requests.get(url, headers=headers, stream=True, timeout=timeout)
    except requests.ConnectTimeout:
        raise Cut(f"no connection within {timeout[0]:g} s") from None
    except requests.Timeout:
        raise Cut(f"no answer for {timeout[1]:g} s") from None
    except requests.ConnectionError as error:
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            raise Refused("the server's certificate is not valid") from None
        raise Cut(f"no connection{_cause(error)}") from None
    except requests.TooManyRedirects:
        raise Refused("the server sends from one address to the next without end") from None
    except requests.exceptions.InvalidSchema:
        raise Refused("the server sends to an address that is neither http nor https") from None
    except requests.RequestException as error:
        raise Refused(f"no valid address or answer ({type(error).__name__})") from None
    with response:
        yield response


def _check_status(response: requests.Response) -> None:
    status = response.status_code
    said = f"the server answered {status} {response.reason or ''}".rstrip()
    if status == 416:
        raise Cut(f"{said}: it no longer has the part that is missing", restart=True)
    if status in RETRY_STATUS:
        wait = _retry_after(response.headers.get("Retry-After", ""))
        raise Cut(f"{said} and asked to wait {wait:.0f} s" if wait else said, wait=wait)
    if status in (401, 403):
        raise Refused(f"{said}: it may need a login, or be closed to programs")
    if status not in (200, 206):
        raise Refused(said)


def _extent(response: requests.Response, *, asked: int) -> tuple[int, int | None]:
    """Where the answer begins, and the size of the whole file if the server tells it."""
    length = response.headers.get("Content-Length", "")
    if response.status_code == 200:
        return 0, int(length) if length.isdigit() else None
    found = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", response.headers.get("Content-Range", "").strip())
    if not found or int(found[1]) != asked or (found[3] != "*" and int(found[2]) + 1 != int(found[3])):
        raise Cut("the server sent another part than the one asked for", restart=True)
    return asked, int(found[2]) + 1


def _blocks(response: requests.Response, *, coded: bool, patience: float) -> Iterator[bytes]:
    try:
        # Not iter_content, which undoes any encoding: a .tar.gz must arrive as it is.
        yield from response.raw.stream(CHUNK, decode_content=coded)
    except urllib3.exceptions.ReadTimeoutError:
        raise Cut(f"nothing came for {patience:g} s") from None
    except urllib3.exceptions.HTTPError as error:
        raise Cut(f"the connection ended{_cause(error)}") from None


def _retry_after(said: str) -> float:
    """Seconds of a Retry-After header, which is a number or a date; 0 for none, a past one or nonsense."""
    if said.strip().isdigit():
        return float(said)
    try:
        when = parsedate_to_datetime(said)
    except ValueError:  # neither: then our own pause is as good
        return 0.0
    return max(0.0, ((when if when.tzinfo else when.replace(tzinfo=UTC)) - datetime.now(UTC)).total_seconds())


def _cause(error: BaseException) -> str:
    """What the operating system says at the root of an exception, if it does; the exception's own text may hold the address."""
    link: BaseException | None = error
    while link is not None:
        if isinstance(link, OSError) and link.strerror:
            return f" ({link.strerror})"
        inner = [*link.args, getattr(link, "reason", None), link.__cause__, link.__context__]
        link = next((one for one in inner if isinstance(one, BaseException)), None)
    return ""
