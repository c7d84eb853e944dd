"""The report server: files as they are, and answers only from its own page, bounded, checked and appended whole."""

import http.client
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flows.reports import MOST_BYTES, Reports
from segpipe.ratings import read_ratings

ANSWERS = {"dataset": "scenes", "rater": "Ada L.", "answers": [{"item": "0123456789abcdef", "choice": 2}]}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Reports]:
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports/page.html").write_text("<p>a report</p>")
    with Reports(0, tmp_path / "reports", tmp_path / "ratings") as found:
        thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield found
        found.shutdown()
        thread.join()


def ask(server: Reports, method: str, path: str, body: Any = None, **headers: str | None) -> tuple[int, Any]:
    """One request as the page sends it; a header given as None is left out, `_` in a name is `-`."""
    port = server.server_address[1]
    sent: dict[str, str | None] = {"Host": f"127.0.0.1:{port}"}
    if method == "POST":
        sent |= {"Origin": f"http://127.0.0.1:{port}", "Content-Type": "application/json"}
    sent |= {name.replace("_", "-"): value for name, value in headers.items()}
    data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.putrequest(method, path, skip_host=True)
    for name, value in {"Content-Length": str(len(data)), **sent}.items():
        if value is not None:
            connection.putheader(name, value)
    connection.endheaders(data or None)
    answer = connection.getresponse()
    text = answer.read()
    connection.close()
    return answer.status, json.loads(text) if answer.headers.get_content_type() == "application/json" else text


def stored(server: Reports) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (server.ratings / "scenes.jsonl").read_text().splitlines()]


def test_reports_are_served_and_nothing_beside_them(server: Reports) -> None:
    assert server.server_address[0] == "127.0.0.1"
    assert ask(server, "GET", "/page.html") == (200, b"<p>a report</p>")
    server.ratings.mkdir()
    (server.ratings / "scenes.jsonl").write_text("secret")
    assert ask(server, "GET", "/../ratings/scenes.jsonl")[0] == 404
    assert ask(server, "GET", "/ratings/scenes.jsonl")[0] == 404


def test_answers_are_stored_and_counted(server: Reports) -> None:
    assert ask(server, "GET", "/ratings?dataset=scenes") == (200, {"answers": 0, "raters": 0, "items": 0})
    assert ask(server, "POST", "/ratings", ANSWERS) == (200, {"stored": 1})
    more = {"dataset": "scenes", "rater": "Bob", "answers": [{"item": f"{i:016x}", "choice": 5} for i in range(3)]}
    assert ask(server, "POST", "/ratings", more) == (200, {"stored": 3})
    rows = stored(server)
    assert [row["rater"] for row in rows] == ["Ada L.", "Bob", "Bob", "Bob"]
    assert rows[0] | {"time": ""} == {"time": "", "dataset": "scenes", "rater": "Ada L.", "item": "0123456789abcdef", "choice": 2}
    assert rows[0]["time"].endswith("+00:00")
    assert ask(server, "GET", "/ratings?dataset=scenes") == (200, {"answers": 4, "raters": 2, "items": 4})
    answers, problems = read_ratings(server.ratings)
    assert len(answers) == 4 and not problems


def test_a_line_that_a_crash_cut_off_swallows_no_answer(server: Reports) -> None:
    server.ratings.mkdir()
    (server.ratings / "scenes.jsonl").write_text('{"time": "2026')
    assert ask(server, "POST", "/ratings", ANSWERS)[0] == 200
    answers, problems = read_ratings(server.ratings)
    assert len(answers) == 1 and len(problems) == 1
    assert ask(server, "GET", "/ratings?dataset=scenes")[1]["answers"] == 1


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": None}, 403),
        ({"Origin": "null"}, 403),  # a page opened as a file
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "http://127.0.0.1:1"}, 403),
        ({"Host": "evil.example", "Origin": "http://evil.example"}, 403),  # a name that was made to point here
        ({"Host": None}, 403),
        ({"Content_Type": "text/plain"}, 415),  # what a foreign form could send without being asked
        ({"Content_Type": None}, 415),
        ({"Content_Length": None}, 411),
        ({"Content_Length": "-5"}, 411),
        ({"Content_Length": str(MOST_BYTES + 1)}, 413),
    ],
)
def test_requests_from_elsewhere_or_without_bounds_are_refused(
    server: Reports, headers: dict[str, str | None], status: int
) -> None:
    found, document = ask(server, "POST", "/ratings", ANSWERS, **headers)
    assert found == status and document["error"]
    assert not server.ratings.exists()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[" * 30_000,
        b"\xff\xfe",
        [],
        ANSWERS | {"more": 1},
        {"dataset": "scenes", "answers": []},
        ANSWERS | {"dataset": "../models"},
        ANSWERS | {"dataset": "a/b"},
        ANSWERS | {"dataset": ".hidden"},
        ANSWERS | {"dataset": ""},
        ANSWERS | {"dataset": "x" * 121},
        ANSWERS | {"dataset": None},
        ANSWERS | {"rater": ""},
        ANSWERS | {"rater": " Ada"},
        ANSWERS | {"rater": "a\nb"},
        ANSWERS | {"rater": "a" * 61},
        ANSWERS | {"rater": 5},
        ANSWERS | {"answers": []},
        ANSWERS | {"answers": {}},
        ANSWERS | {"answers": [{"item": "0123456789abcdef", "choice": 2}] * 501},
        ANSWERS | {"answers": [{"item": "0123456789ABCDEF", "choice": 2}]},
        ANSWERS | {"answers": [{"item": "0123456789abcdef\n", "choice": 2}]},
        ANSWERS | {"answers": [{"item": "0123456789abcdef", "choice": True}]},
        ANSWERS | {"answers": [{"item": "0123456789abcdef", "choice": 6}]},
        ANSWERS | {"answers": [{"item": "0123456789abcdef", "choice": 2.0}]},
        ANSWERS | {"answers": [{"item": "0123456789abcdef", "choice": 2, "note": "<script>"}]},
        ANSWERS | {"answers": ["2"]},
    ],
)
def test_answers_that_are_none_are_refused(server: Reports, body: Any) -> None:
    status, document = ask(server, "POST", "/ratings", body)
    assert status in (400, 413) and document["error"]
    assert not server.ratings.exists()


def test_only_ratings_can_be_sent(server: Reports) -> None:
    assert ask(server, "POST", "/page.html", ANSWERS)[0] == 404
    assert ask(server, "GET", "/ratings?dataset=../../etc/passwd")[0] == 400
    assert ask(server, "GET", "/ratings")[0] == 400
    assert ask(server, "GET", "/ratings?dataset=scenes", Host="evil.example")[0] == 403


def test_a_link_is_not_followed(server: Reports, tmp_path: Path) -> None:
    server.ratings.mkdir()
    (tmp_path / "elsewhere").write_text("")
    (server.ratings / "scenes.jsonl").symlink_to(tmp_path / "elsewhere")
    assert ask(server, "POST", "/ratings", ANSWERS)[0] == 507
    assert (tmp_path / "elsewhere").read_text() == ""


def test_answers_of_many_at_once_stay_whole(server: Reports) -> None:
    def rate(number: int) -> None:
        answers = [{"item": f"{i:016x}", "choice": 1 + i % 5} for i in range(20)]
        for _ in range(5):
            assert ask(server, "POST", "/ratings", {"dataset": "scenes", "rater": f"rater {number}", "answers": answers})[0] == 200

    threads = [threading.Thread(target=rate, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rows = stored(server)
    assert len(rows) == 6 * 5 * 20
    runs = [[row["rater"] for row in rows[i : i + 20]] for i in range(0, len(rows), 20)]
    assert all(len(set(run)) == 1 for run in runs), "a request's lines are together"
