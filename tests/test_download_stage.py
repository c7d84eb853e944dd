"""The download stage as a person sees it: terms first, then a bar or plain lines, then one line; errors are one sentence."""

import io
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from segpipe.datasets import camvid
from segpipe.layout import Source
from stages import download
from stages._transfer_progress import TransferProgress
from tests.conftest import tiny_params
from tests.hostile_server import serving
from tests.test_archives import zip_of


def run_stage(folder: Path, monkeypatch: pytest.MonkeyPatch, key: str, row: dict[str, Any]) -> None:
    params = tiny_params()
    params["datasets"][key] = row
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    monkeypatch.chdir(folder)
    monkeypatch.setattr("sys.argv", ["download", key])
    download.main()


def test_terms_come_before_the_first_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = zip_of(tmp_path / "x.zip", {"a.png": b"1"}).read_bytes()
    with serving({"one.zip": archive, "two.zip": archive}) as server:
        names = ("one.zip", "two.zip")
        terms = {"licence": "CC BY 4.0.", "allows": "Use with credit."}
        sources = tuple(Source(filename=name, urls=(server.url(name),), **terms) for name in names)
        monkeypatch.setattr(camvid, "SOURCES", sources)
        run_stage(tmp_path, monkeypatch, "mine", {"format": "camvid"})
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "licence of one.zip, two.zip: CC BY 4.0. Use with credit."
    assert lines[1].startswith("one.zip: 0.0 of 0.0 MB (100 %)") and lines[2].startswith("two.zip: ")
    assert lines[3:] == ["mine: 3 files, 0.0 MB in data/raw/mine"]


def test_an_error_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit, match="\ndatasets.mine.source: /no/such: no such file or folder\n"):
        run_stage(tmp_path, monkeypatch, "mine", {"format": "camvid", "source": "/no/such"})
    shutil.rmtree(tmp_path / "data")
    (tmp_path / "data").write_text("a file where the folder should be")
    with pytest.raises(SystemExit, match="Not a directory"):
        run_stage(tmp_path, monkeypatch, "scenes", tiny_params()["datasets"]["scenes"])


def test_a_drawn_dataset_is_packed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_stage(tmp_path, monkeypatch, "scenes", tiny_params()["datasets"]["scenes"])
    assert sorted(p.name for p in (tmp_path / "data/raw/scenes").iterdir()) == ["files.tar", "provenance.json"]


def shown(calls: list[tuple[str, int, int | None]], *, terminal: bool) -> str:
    text = io.StringIO()
    with TransferProgress(Console(file=text, force_terminal=terminal, width=200, soft_wrap=True, highlight=False)) as progress:
        for call in calls:
            progress.progress(*call)
        progress.tell("x.zip: [red] cut")
    return text.getvalue()


def test_a_log_gets_a_line_at_every_tenth() -> None:
    whole = 100 * 10**6
    lines = shown([("x.zip", done, whole) for done in range(0, whole + 1, 10**6)], terminal=False).splitlines()
    assert len(lines) == 11 and lines[-1] == "x.zip: [red] cut"
    assert lines[0].startswith("x.zip: 10.0 of 100.0 MB (10 %), ") and lines[0].endswith(" left")
    assert " MB/s" in lines[0] and not lines[9].endswith("left")


def test_a_log_of_a_continued_file_begins_where_it_was() -> None:
    lines = shown([("x.zip", 55, 100), ("x.zip", 58, 100), ("x.zip", 60, 100), ("x.zip", 0, 100)], terminal=False).splitlines()
    assert len(lines) == 2 and "(60 %)" in lines[0]


def test_a_log_of_a_file_of_unknown_size() -> None:
    lines = shown([("x.zip", done * 10**7, None) for done in range(25)], terminal=False).splitlines()
    assert [line.partition(",")[0] for line in lines[:-1]] == ["x.zip: 100.0 MB", "x.zip: 200.0 MB"]


def test_a_terminal_gets_a_bar_per_file() -> None:
    calls = [("one.zip", 0, 100), ("one.zip", 100, 100), ("two.zip", 50, 200), ("two.zip", 0, 200), ("two.zip", 200, 200)]
    last = shown(calls, terminal=True).split("[red] cut")[-1]
    assert "one.zip" in last and "two.zip" in last and "200/200 bytes" in last and "100/100 bytes" in last
