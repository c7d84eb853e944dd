"""The reports on loopback, and the one thing their readers send back: ratings. `python -m flows.reports PORT REPORTS RATINGS`.

POST /ratings appends answers to RATINGS/<dataset>.jsonl, GET /ratings?dataset=NAME counts what is there. A page of another site
that is open in the same browser can do neither: the Host must be this machine, and a POST must come from a page of this server.
"""

import fcntl
import json
import os
import re
import sys
from datetime import UTC, datetime
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

HOST = "127.0.0.1"
LOCAL = {HOST, "localhost"}
PATH = "/ratings"
MOST_BYTES = 64 * 2**10
MOST_ANSWERS = 500
MOST_FILE_BYTES = 64 * 2**20
ITEM = re.compile(r"[0-9a-f]{16}")
CHOICES = range(1, 6)


class Refused(Exception):
    """A request that is not carried out: its HTTP status and the reason in words."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Reports(ThreadingHTTPServer):
    """Serves the folder `reports`; answers go to the folder `ratings`."""

    daemon_threads = True

    def __init__(self, port: int, reports: Path, ratings: Path) -> None:
        self.reports, self.ratings = reports, ratings
        super().__init__((HOST, port), Handler)


class Handler(SimpleHTTPRequestHandler):
    """Files of the reports as they are, and PATH."""

    timeout = 60
    server: Reports

    def __init__(self, request: Any, address: Any, server: Reports) -> None:
        super().__init__(request, address, server, directory=str(server.reports))

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        if address.path != PATH:
            super().do_GET()
            return
        try:
            self._check_host()
            dataset = check_dataset(parse_qs(address.query).get("dataset", [""])[0])
            self._reply(200, count(self.server.ratings / f"{dataset}.jsonl"))
        except Refused as refused:
            self._reply(refused.status, {"error": str(refused)})

    def do_POST(self) -> None:
        try:
            if urlsplit(self.path).path != PATH:
                raise Refused(404, f"only {PATH} takes answers")
            self._check_host()
            if self.headers.get("Origin") != f"http://{self.headers.get('Host')}":
                raise Refused(403, "answers are taken from pages of this server only")
            if self.headers.get_content_type() != "application/json":
                raise Refused(415, "answers are application/json")
            length = self.headers.get("Content-Length", "")
            if not (length.isascii() and length.isdigit()):
                raise Refused(411, "the length of the answers is missing")
            if int(length) > MOST_BYTES:
                raise Refused(413, f"answers are at most {MOST_BYTES} bytes at a time")
            dataset, lines = check(self.rfile.read(int(length)), datetime.now(UTC).isoformat(timespec="seconds"))
            append(self.server.ratings / f"{dataset}.jsonl", lines)
            self._reply(200, {"stored": len(lines)})
        except Refused as refused:
            self._reply(refused.status, {"error": str(refused)})

    def _check_host(self) -> None:
        # A name that points to this machine today may have pointed elsewhere when a foreign page was loaded.
        if (self.headers.get("Host") or "").partition(":")[0] not in LOCAL:
            raise Refused(403, "this address is for this machine only")

    def _reply(self, status: int, document: dict[str, Any]) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        self.wfile.write(body)


def check(body: bytes, time: str) -> tuple[str, list[str]]:
    """The dataset and the lines to store of {"dataset", "rater", "answers": [{"item", "choice"}]}.

    Raises:
        Refused: anything else.
    """
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        raise Refused(400, "the answers are not JSON") from None
    if not isinstance(document, dict) or set(document) != {"dataset", "rater", "answers"}:
        raise Refused(400, "answers have the keys dataset, rater and answers")
    dataset, rater, answers = check_dataset(document["dataset"]), document["rater"], document["answers"]
    if not (isinstance(rater, str) and rater == rater.strip() and 0 < len(rater) <= 60 and rater.isprintable()):
        raise Refused(400, "a rater's name is 1 to 60 printable characters")
    if not (isinstance(answers, list) and 0 < len(answers) <= MOST_ANSWERS):
        raise Refused(400, f"1 to {MOST_ANSWERS} answers at a time")
    lines = []
    for answer in answers:
        if not isinstance(answer, dict) or set(answer) != {"item", "choice"}:
            raise Refused(400, "an answer has the keys item and choice")
        item, choice = answer["item"], answer["choice"]
        if not (isinstance(item, str) and ITEM.fullmatch(item) and type(choice) is int and choice in CHOICES):
            raise Refused(400, "an item is 16 hexadecimal digits, a choice 1 to 5")
        lines.append(json.dumps({"time": time, "dataset": dataset, "rater": rater, "item": item, "choice": choice}))
    return dataset, lines


def check_dataset(name: Any) -> str:
    """A dataset's name as params.yaml allows it: it becomes the name of a file."""
    if not (
        isinstance(name, str) and name and len(name.encode(errors="replace")) <= 120 and all(c.isalnum() or c in "-_" for c in name)
    ):
        raise Refused(400, "a dataset's name is made of letters, digits, '-' and '_'")
    return name


def append(path: Path, lines: list[str]) -> None:
    """Append lines to a file, all of them or none; several writers take turns."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o644)
    except OSError as error:
        raise Refused(507, f"{path.name} cannot be written: {error.strerror}") from None
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        size = os.fstat(file).st_size
        if size > MOST_FILE_BYTES:
            raise Refused(507, f"{path.name} is full")
        torn = size > 0 and os.pread(file, 1, size - 1) != b"\n"
        data = ("\n" * torn + "".join(f"{line}\n" for line in lines)).encode()
        if os.write(file, data) != len(data):
            os.ftruncate(file, size)
            raise Refused(507, "the disk is full")
        os.fsync(file)
    finally:
        os.close(file)


def count(path: Path) -> dict[str, int]:
    """How many answers a file holds, of how many raters and items."""
    answers = []
    for line in path.read_text(errors="replace").splitlines() if path.exists() else []:
        try:
            answers.append(json.loads(line))
        except ValueError:
            continue  # `segpipe/ratings.py` names such a line
    known = [one for one in answers if isinstance(one, dict)]
    return {
        "answers": len(known),
        "raters": len({str(one.get("rater")) for one in known}),
        "items": len({str(one.get("item")) for one in known}),
    }


def main() -> None:
    if len(sys.argv) != 4:
        raise SystemExit("usage: python -m flows.reports PORT REPORTS RATINGS")
    with Reports(int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])) as server:
        server.serve_forever()


if __name__ == "__main__":
    main()
