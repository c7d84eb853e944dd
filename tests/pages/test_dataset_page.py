"""The page of a dataset: every finding and number is on it, nothing of it is trusted, and a browser shows it whole."""

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from segpipe.audit import Audit, Finding
from segpipe.drawing import contact_sheet
from segpipe.finding_kinds import KINDS
from segpipe.layout import ERROR, WARNING
from segpipe.pages.dataset import LISTED, SHOWN, percent, render_page, verdict, weight, write_page
from segpipe.pages.dataset_figures import grey, telling_slice
from segpipe.shards import SPLITS, ClassInfo, DatasetInfo, Sample, SplitWriter, encode_image, encode_mask, write_info
from segpipe.statistics import DatasetStatistics, sample_statistics
from tests.pages.test_comparison_page import Page

HOSTILE = '<img src=x onerror=alert(1)> & "co"'
NAMES = "sky building pole road pavement tree sign fence car pedestrian bicyclist truck bus train rider wall terrain bridge".split()
WIDE = "a_class_name_that_someone_made_far_too_long_without_any_space_in_it"
COUNTS = {"train": 9, "val": 3, "test": 0}
ERRORS = {"unknown_label", "size_mismatch", "unreadable", "leaked_image"}


def classes(count: int) -> tuple[ClassInfo, ...]:
    """Named and coloured classes: one hostile, one with a long name, the last of which no sample has a pixel."""
    names = [HOSTILE, *NAMES, WIDE, *(f"thing {i}" for i in range(count))][:count]
    colours = np.random.default_rng(3).integers(30, 230, (count, 3)).tolist()
    return tuple(ClassInfo(name=n, colour=(r, g, b)) for n, (r, g, b) in zip(names, colours, strict=True))


def drawn(count: int) -> tuple[dict[str, Any], dict[str, np.ndarray], list[tuple[str, bytes]]]:
    """The statistics of drawn samples with boxes as instances, their contact sheets, and pictures as findings hold them."""
    rng = np.random.default_rng(count)
    table = classes(count)
    added = DatasetStatistics([c.name for c in table])
    palette = np.array([c.colour for c in table])
    sheets, pictures = {}, []
    for split in ("train", "val"):
        rows = []
        for number in range(COUNTS[split]):
            height, width = [(96, 128), (96, 128), (128, 96)][number % 3]
            mask = np.full((height, width), number % 3, np.uint8)
            instances = []
            for _ in range(12):
                label = int((count - 1) * rng.random() ** 2)
                top, left, size = rng.integers(0, 80), rng.integers(0, 80), rng.integers(3, 40)
                mask[top : top + size, left : left + size] = label
                area = min(size, height - top) * min(size, width - left)
                instances.append({"category": label, "area": float(area), "iscrowd": bool(rng.random() < 0.05)})
            mask[:4] = 255
            image = np.clip(palette[np.where(mask == 255, 0, mask)] + rng.normal(0, 20, (height, width, 3)), 0, 255).astype(
                np.uint8
            )
            added.add(split, sample_statistics(image, mask, instances, num_classes=count, ignore_index=255))
            rows.append((f"{split}-{number}", image, mask))
            done, data = cv2.imencode(".jpg", image)
            assert done
            pictures.append((f"images/{split}-{number}.jpg", data.tobytes()))
        sheets[split] = contact_sheet(rows, table, title=f"drawn, {split}")
    return added.summary(), sheets, pictures


def found(pictures: list[tuple[str, bytes]]) -> list[Finding]:
    """One finding of each kind, a hostile file name among them, and very many of one kind."""
    audit = Audit("drawn")
    for number, kind in enumerate(KINDS):
        severity = ERROR if kind in ERRORS else WARNING
        what, fix = f"{KINDS[kind]} (value {number})", f"Look at it and mend it. Number {number}."
        for copy in range(1 + 3 * (number % 4)):
            audit.add(
                kind,
                what,
                example=f"sequence/{HOSTILE}/{'deep/' * (number % 9)}image_{copy:04d}.png",
                fix=fix,
                severity=severity,
                value="7",
                picture=pictures[number % len(pictures)] if number % 3 == 0 else None,
            )
    for number in range(SHOWN + LISTED + 10):
        audit.add("absent_class", f"the class 'thing {number}' has no pixel in val", example="val", fix="Look.", severity=WARNING)
    return audit.findings


def described(count: int, statistics: dict[str, Any]) -> DatasetInfo:
    return DatasetInfo(
        name="drawn",
        classes=classes(count),
        ignore_index=255,
        task="semantic",
        dimensions=2,
        splits=COUNTS,
        pixels={split: [c["pixels"][split] for c in statistics["classes"]] for split in SPLITS},
        mean=tuple(statistics["mean"]),
        std=tuple(statistics["std"]),
        provenance={
            "sources": [{"from": "https://example.org/data/drawn.zip", "sha256": "0f" * 32, "size": 1234567}],
            "licence": ["CC BY 4.0"],
            "allows": "Any use; name the authors.",
            "stand_in": {},
            "splits": {"fractions": {"train": 0.75, "val": 0.25}, "by": "group"},
        },
        digest="ab" * 32,
        statistics=statistics,
    )


def page_of(count: int, *, findings: list[Finding] | None = None, stopped: bool = False) -> str:
    statistics, sheets, pictures = drawn(count)
    return render_page(
        info=None if stopped else described(count, statistics),
        name="drawn",
        findings=found(pictures) if findings is None else findings,
        statistics=statistics,
        sheets={} if stopped else sheets,
    )


@pytest.fixture(scope="module")
def stopped() -> str:
    """The page of data with errors and warnings of every kind."""
    return page_of(20, stopped=True)


@pytest.fixture(scope="module")
def converted() -> str:
    """The page of a converted dataset with warnings."""
    statistics, _, pictures = drawn(20)
    return page_of(20, findings=[f for f in found(pictures) if f.severity == WARNING])


def test_every_finding_is_there_errors_first(stopped: str) -> None:
    page = Page(stopped)
    warnings = len(found([("", b"")])) - len(ERRORS)
    assert page.text.startswith("Dataset drawn") or "Dataset drawn" in page.text
    assert f"4 errors stop this dataset; {warnings} warnings. Nothing was written." in page.text
    cards = [a["class"] for a in page.all("article")]
    assert cards == sorted(cards, key=lambda c: "error" not in str(c)) and cards.count("card error") == len(ERRORS)
    assert len(cards) == len(KINDS) - 1 + SHOWN
    for number, kind in enumerate(KINDS):
        meaning = KINDS[kind]
        assert f"{meaning[:1].upper()}{meaning[1:]} (value {number})" in page.text
    assert "class_map: {values: {7: ignore}}" in page.text and "audit: {unreadable: warning}" in page.text
    assert (
        f"{LISTED + 11} more findings of the kind absent_class" in page.text and "And 11 more, which audit.json lists." in page.text
    )


def test_names_are_escaped(stopped: str, converted: str) -> None:
    for text in (stopped, converted):
        page = Page(text)
        assert HOSTILE in page.text, "the class"
        assert f"sequence/{HOSTILE}/" in page.text, "the file"
        assert "<img src=x" not in text and not [a for a in page.all("img") if a.get("onerror")]


def test_it_is_self_contained(stopped: str, converted: str) -> None:
    for text in (stopped, converted):
        page = Page(text)
        sources = [str(a.get("src")) for a in page.all("img")]
        assert sources and all(source.startswith("data:image/jpeg;base64,") for source in sources)
        assert all(a.get("alt") for a in page.all("img"))
        assert not page.all("script") and all(str(a["href"]).startswith("#") for a in page.all("a"))
        targets = {a["id"] for _, a in page.tags if a.get("id")}
        assert {str(a["href"])[1:] for a in page.all("a")} <= targets


def test_the_numbers_of_the_data(converted: str) -> None:
    page = Page(converted)
    statistics, _, _ = drawn(20)
    train = statistics["splits"]["train"]
    assert "No error was found: 9 train and 3 val samples;" in page.text and "A training needs test samples too" in page.text
    assert f"{percent(train['ignored_share'])} % of train's pixels carry no label" in page.text
    largest = max(statistics["classes"], key=lambda c: c["pixels"]["train"])
    assert f"Calling every pixel {largest['name']} would already be right for {percent(largest['share']['train'])} %" in page.text
    for row in statistics["classes"]:
        assert row["name"] in page.text
    for name in ("median_frequency", "inverse_frequency"):
        assert all(weight(row["weights"][name]) in page.text for row in statistics["classes"])
    assert f"{statistics['mean'][0]:.4g}" in page.text and "96 × 128" in page.text
    assert "CC BY 4.0" in page.text and "Any use; name the authors." in page.text and "0f" * 32 in page.text
    assert "test" not in [w.strip() for w in page.words], "a split without samples has a column"


def test_many_classes_stay_usable_and_the_page_bounded() -> None:
    text = page_of(200)
    assert text.count('class="scroll tall"') == 2 and Page(text).text.count("thing 150") >= 1
    assert len(text) < 10 * 2**20


def test_heavy_pictures_are_left_out_or_made_smaller() -> None:
    statistics, sheets, _ = drawn(20)
    rng = np.random.default_rng(0)
    heavy = rng.integers(0, 256, (3000, 1500, 3), dtype=np.uint8)
    pictures = [(f"{i}", b"\x89PNG" + rng.bytes(2**19)) for i in range(12)]
    finding = Finding(kind="unreadable", severity=ERROR, what="w", fix="f", count=12, pictures=pictures)
    text = render_page(info=None, name="n", findings=[finding], statistics=statistics, sheets=dict.fromkeys(sheets, heavy))
    assert len(text) < 10 * 2**20 and text.count("data:image/png") == 5 and text.count("data:image/jpeg") == 2


def test_without_any_readable_sample() -> None:
    finding = Finding(kind="unreadable", severity=ERROR, what="every file is empty", fix="Fetch it again.", count=3)
    for statistics in ({}, DatasetStatistics(["a", "b"]).summary()):
        page = Page(render_page(info=None, name="n", findings=[finding], statistics=statistics, sheets={}))
        assert "1 error stops this dataset. Nothing was written." in page.text and "Every file is empty" in page.text
        assert not page.all("table")


def test_a_dataset_without_findings() -> None:
    text = Page(page_of(3, findings=[])).text
    assert "no warnings. The audit found nothing to object to." in text and "What the audit found" not in text


def test_volumes() -> None:
    added = DatasetStatistics(["background", "heart"])
    mask = np.zeros((5, 6, 7), np.uint8)
    mask[2] = 1
    added.add("train", sample_statistics(mask.astype(np.float32), mask, [], num_classes=2, ignore_index=255))
    page = Page(render_page(info=None, name="n", findings=[], statistics=added.summary(), sheets={}))
    assert "depth × height × width" in page.text and "5 × 6 × 7" in page.text and "channel 1" in page.text
    assert "No error was found: 1 train sample; no warnings." in page.text and "Sizes in voxels" in page.text


def test_volumes_are_shown_by_the_slice_that_tells_most(tmp_path: Path) -> None:
    image, mask = np.zeros((9, 6, 7), np.float32), np.zeros((9, 6, 7), np.uint8)
    mask[4, 4, 5], mask[2, 2:4, 3], mask[:, 0] = 1, 1, 255
    assert telling_slice(mask, ignore_index=255) == (1, 2), "the first with most of class 1, across the shortest axis"
    assert telling_slice(np.zeros((4, 5, 6), np.uint8), ignore_index=255) == (0, 2), "the middle, if all are alike"
    image[:, 2, 3] = 8
    drawn_grey = grey(image[:, 2])
    assert drawn_grey.shape == (9, 7, 3) and drawn_grey[:, 3].min() == 255 and drawn_grey[:, :3].max() == 0
    assert grey(np.full((3, 4), 7, np.int16)).max() == 0
    folder, added = tmp_path / "converted", DatasetStatistics(["background", "heart"])
    folder.mkdir()
    for split in SPLITS:
        with SplitWriter(folder, split) as writer:
            data = io.BytesIO()
            np.save(data, image, allow_pickle=False)
            size = {"depth": 9, "height": 6, "width": 7}
            writer.write(Sample(id=f"scan-{split}", image=data.getvalue(), mask=encode_mask(mask), group="g", source="s", **size))
            writer.close()
        added.add(split, sample_statistics(image, mask, [], num_classes=2, ignore_index=255))
    info = replace(described(2, added.summary()), dimensions=3, splits=dict.fromkeys(SPLITS, 1), classes=classes(2))
    write_info(folder, info)
    write_page(tmp_path / "index.html", name="n", audit=Audit("n"), statistics=added.summary(), folder=folder)
    page = Page((tmp_path / "index.html").read_text())
    assert len(page.all("img")) == 3 and "set slices in the dataset's row" in page.text and "Ready to train" not in page.text


def test_where_the_data_comes_from_is_said_in_words() -> None:
    statistics, _, _ = drawn(3)
    info = replace(
        described(3, statistics),
        provenance={
            "sources": [
                {"from": "/my/data", "filename": "files.tar", "size": 3194880, "sha256": "ab", "files": 188, "checked": True}
            ],
            "splits": {"folds": 5, "fold": 1, "by": "id", "salt": 7},
            "stand_in": [
                {"split": "test", "from": "val", "fraction": None, "by": "all", "count": 34},
                {"split": "val", "from": "train", "fraction": 0.1, "by": "group", "count": 1039},
            ],
            "class_map": {"merge": {"vehicle": ["car", "bus"]}},
            "reencoded": {"PNG L": 24, "orientation 6": 1},
        },
    )
    text = Page(render_page(info=info, name="n", findings=[], statistics=statistics, sheets={})).text
    for said in (
        "/my/data, as files.tar (188 files, 3.2 MB)",
        "ab (as published)",
        "drawn by id: fold 1 of 5 is test, salt 7",
        "test is all of val, 34 samples",
        "val is 0.1 of train, 1,039 samples chosen by group",
        "car, bus",
        "as 8-bit RGB PNG: 24 of PNG L, 1 of orientation 6",
    ):
        assert said in text


def test_words() -> None:
    splits = {"train": {"samples": 1200}, "val": {"samples": 5}, "test": {"samples": 6}}
    assert verdict(None, errors=1, warnings=1, splits={}) == "1 error stops this dataset; 1 warning."
    assert (
        verdict(None, errors=0, warnings=2, splits=splits)
        == "No error was found: 1,200 train, 5 val and 6 test samples; 2 warnings."
    )
    info = replace(described(3, drawn(3)[0]), dimensions=2)
    assert verdict(info, errors=0, warnings=0, splits=splits).startswith("Ready to train: 1,200 train, 5 val and 6 test samples")
    assert [percent(v) for v in (None, 0.0, 0.33333, 0.01, 0.0012, 1.0)] == ["–", "0", "33.3", "1.0", "0.12", "100.0"]
    assert [weight(v) for v in (None, 0.2, 1.0, 38.94, 99.96, 1204.4)] == ["–", "0.200", "1.00", "38.9", "100", "1,204"]


def test_write_page(tmp_path: Path) -> None:
    statistics, sheets, _ = drawn(3)
    folder = tmp_path / "converted"
    (folder / "preview").mkdir(parents=True)
    for split, sheet in sheets.items():
        (folder / "preview" / f"{split}.png").write_bytes(encode_image(sheet))
    write_info(folder, described(3, json.loads(json.dumps(statistics))))
    audit = Audit("drawn")
    write_page(tmp_path / "reports/drawn/index.html", name="drawn", audit=audit, statistics=statistics, folder=folder)
    page = Page((tmp_path / "reports/drawn/index.html").read_text())
    assert "9 train and 3 val samples" in page.text and len(page.all("img")) == 2
    audit.add("unreadable", "a file is empty", example="x.png", fix="Fetch it again.")
    write_page(tmp_path / "stopped.html", name="drawn", audit=audit, statistics={})
    assert "1 error stops" in (tmp_path / "stopped.html").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1400], ids=["phone", "wide"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("case", ["stopped", "converted"])
def test_in_a_browser(browser: Any, tmp_path: Path, request: pytest.FixtureRequest, case: str, scheme: str, width: int) -> None:
    (tmp_path / "index.html").write_text(request.getfixturevalue(case))
    context = browser.new_context(viewport={"width": width, "height": 844}, color_scheme=scheme, offline=True)
    opened = context.new_page()
    trouble: list[str] = []
    opened.on("console", lambda message: trouble.append(message.text))
    opened.on("pageerror", lambda error: trouble.append(str(error)))
    opened.on("request", lambda r: trouble.append(r.url) if not r.url.startswith(("file:", "data:")) else None)
    opened.goto((tmp_path / "index.html").as_uri())
    opened.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    opened.evaluate("Promise.all([...document.images].map(i => { i.loading = 'eager'; return i.decode().catch(() => 0); }))")
    assert opened.evaluate("[...document.images].every(i => i.naturalWidth > 0)")
    assert opened.evaluate("document.documentElement.scrollWidth") <= width, "the page scrolls sideways"
    if case == "stopped":
        opened.locator("code.line").first.click()
        selected = opened.evaluate("getSelection().toString()")
        assert selected == opened.locator("code.line").first.inner_text(), "one click selects the whole line"
    assert trouble == []
    context.close()
