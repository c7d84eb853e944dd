"""A web server on this machine that does on demand what servers do to people: cuts, stalls, lies, is busy, sends elsewhere."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = tuple[int, Mapping[str, str]]


class Server(ThreadingHTTPServer):
    """Serves `files`. `plan` holds what the next requests get instead: a (status, headers), or a word that `Handler` knows.

    `seen` are the requests: (path with query, Range header). A stalled answer goes on when `go_on` is set.
    """

    daemon_threads = True

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.etag = files, '"v1"'
        self.plan: list[str | Answer] = []
        self.seen: list[tuple[str, str | None]] = []
        self.go_on = threading.Event()

    def url(self, name: str, *, login: str = "", query: str = "") -> str:
        return f"http://{login}127.0.0.1:{self.server_port}/{name}{query}"

    def ranges(self) -> list[int]:
        """The first byte that each request asked for."""
        return [int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0 for _, asked in self.seen]

    def handle_error(self, *_: Any) -> None:
        """A client that was killed is no error here."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.server.seen.append((self.path, asked))
        step = self.server.plan.pop(0) if self.server.plan else ""
        name = self.path[1:].partition("?")[0]
        if not isinstance(step, str) or name not in self.server.files:
            status, headers = (404, {}) if isinstance(step, str) else step
            self.send_response(status)
            for row in {"Content-Length": "0", **headers}.items():
                self.send_header(*row)
            self.end_headers()
            return
        body = self.server.files[name]
        same = self.headers.get("If-Range") == self.server.etag or step == "believes-any-part"
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and same and step != "ignores-range" else 0
        if start and start >= len(body):
            self.send_response(416)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        if start:
            shown = start + 7 if step == "sends-another-part" else start
            self.send_header("Content-Range", f"bytes {shown}-{len(body) - 1}/{len(body)}")
        if step in ("chunked", "cut-chunked"):
            self.send_header("Transfer-Encoding", "chunked")
        elif step != "tells-no-length":
            self.send_header("Content-Length", str(len(body) - start + {"says-more": 100, "says-less": -100}.get(step, 0)))
        if step != "tells-no-version":
            self.send_header("ETag", self.server.etag)
        if step == "calls-it-encoded":
            self.send_header("Content-Encoding", "gzip")
        self.end_headers()
        half = start + (len(body) - start) // 2
        if step in ("chunked", "cut-chunked"):
            self.wfile.write(b"%x\r\n%s\r\n" % (half - start, body[start:half]))
            if step == "chunked":
                self.wfile.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(body) - half, body[half:]))
        elif step == "cut":
            self.wfile.write(body[start:half])
        elif step == "stall":
            self.wfile.write(body[start:half])
            self.wfile.flush()
            self.server.go_on.wait(30)
            self.wfile.write(body[half:])
        else:
            self.wfile.write(body[start:])

    def end_headers(self) -> None:
        self.send_header("Connection", "close")
        super().end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def serving(files: dict[str, bytes]) -> Iterator[Server]:
    httpd = Server(files)
    threading.Thread(target=httpd.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield httpd
    finally:
        httpd.go_on.set()
        httpd.shutdown()
        httpd.server_close()
