"""The comparison page and its files, made by the stage from a small drawn workspace; then looked at in a browser."""

import csv
import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segpipe.comparison import Comparison, Scored, compare
from segpipe.metrics import iou, mean_dice, mean_iou, mean_pixel_accuracy, pixel_accuracy
from segpipe.pages.comparison import choose_images
from segpipe.pages.figures import Curve, Point, cost_against_score, curves, short
from segpipe.pages.findings import cautions, findings
from stages import compare as stage
from tests.pages.workspace import CLASSES, EXPERIMENTS, UNET, write_workspace


class Page(HTMLParser):
    """The tags and the visible text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).replace("\u00a0", " ").split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def run_stage(folder: Path, patch: pytest.MonkeyPatch) -> Path:
    patch.chdir(folder)
    stage.main()
    return folder / "reports/comparison"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """reports/comparison of three models, one of them with two seeds."""
    folder = tmp_path_factory.mktemp("compared")
    write_workspace(folder)
    (folder / "failures/segnet/summary.json").unlink()
    with pytest.MonkeyPatch.context() as patch:
        yield run_stage(folder, patch)


@pytest.fixture(scope="module")
def page(report: Path) -> Page:
    return Page((report / "index.html").read_text())


def test_files(report: Path) -> None:
    assert sorted(path.name for path in report.iterdir()) == ["comparison.json", "index.html", "leaderboard.csv"]
    with open(report / "leaderboard.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert sorted(row["experiment"] for row in rows) == sorted(EXPERIMENTS)
    counts = np.load(report.parent.parent / "evaluations/segnet/confusions.npz")["counts"]
    segnet = next(row for row in rows if row["experiment"] == "segnet")
    assert float(segnet["miou"]) == pytest.approx(float(mean_iou.compute(counts.sum(axis=0))))
    (comparison,) = json.loads((report / "comparison.json").read_text())
    assert [m["name"] for m in comparison["models"]][-1] == "segnet" and len(comparison["pairs"]) == 3
    assert comparison["ids"][0] == "scenes-0000" and len(comparison["models"][0]["per_image"]) == 24


def test_same_input_same_bytes(report: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {path.name: path.read_bytes() for path in report.iterdir()}
    run_stage(report.parent.parent, monkeypatch)
    assert {path.name: path.read_bytes() for path in report.iterdir()} == before


def test_the_page_is_self_contained_and_small(report: Path, page: Page) -> None:
    assert (report / "index.html").stat().st_size < 10 * 2**20
    sources = [a.get("src") or "" for a in page.all("img")]
    assert len(sources) == 9 * (2 + 3) + 4 and all(source.startswith("data:image/") for source in sources)
    assert all(a.get("alt") for a in page.all("img"))
    assert not page.all("link")[1:] and [a["href"] for a in page.all("link")] == ["data:,"]
    assert not [a for a in page.all("script") if a.get("src")]
    outward = [a["href"] for a in page.all("a") if not (a["href"] or "").startswith("#")]
    assert set(outward) == {f"../{name}/failures/index.html" for name in ("fcn_8s", "unet", "unet-seed1")}


def test_names_are_escaped(report: Path, page: Page) -> None:
    hostile = CLASSES[2].name
    assert hostile in page.text
    assert hostile not in (report / "index.html").read_text()
    assert not [a for a in page.all("img") if a.get("onerror")]


def test_the_page_says_what_was_found(report: Path, page: Page) -> None:
    (comparison,) = json.loads((report / "comparison.json").read_text())
    for pair in comparison["pairs"]:
        assert pair["verdict"] in page.text
    assert "The hardest class is" in page.text and "training time" in page.text
    for model in comparison["models"]:
        assert f"{100 * model['scores']['miou']['value']:.1f}" in page.text
    assert "2 seeds" in page.text and "one seed" in page.text


def test_two_datasets_are_two_sections(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_workspace(tmp_path, experiments={"unet": UNET, "fcn_8s": EXPERIMENTS["fcn_8s"]}, images=8)
    write_workspace(tmp_path, dataset="streets", experiments={"unet-streets": UNET}, images=12, groups=2, failures=False)
    page = Page((run_stage(tmp_path, monkeypatch) / "index.html").read_text())
    assert page.text.count("The hardest class is") == 2
    assert "There is one model only, so there is nothing to compare." in page.text
    assert "unet-streets" in page.text and "against unet-streets" not in page.text
    ids = [a["id"] for _, a in page.tags if a.get("id")]
    assert len(ids) == len(set(ids))


def test_a_changed_dataset_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_workspace(tmp_path, experiments={"unet": UNET}, images=4)
    path = tmp_path / "data/converted/scenes/dataset.json"
    path.write_text(path.read_text().replace('"digest": "', '"digest": "0'))
    with pytest.raises(ValueError, match=r"data/converted/scenes: has changed since unet were evaluated.*dvc repro"):
        run_stage(tmp_path, monkeypatch)


def small_comparison(per_model: dict[str, np.ndarray], *, groups: list[str] | None = None, **cost: Any) -> Comparison:
    metrics = {
        "miou": mean_iou.compute,
        "mpa": mean_pixel_accuracy.compute,
        "pa": pixel_accuracy.compute,
        "dice": mean_dice.compute,
    }
    scored = [
        Scored(
            name=name,
            architecture="unet",
            loss="dice",
            seed=0,
            recipe=name,
            dataset="d",
            dataset_digest="d",
            ids=[str(i) for i in range(len(counts))],
            groups=groups or [""] * len(counts),
            counts=counts,
            cost={key: value[name] for key, value in cost.items()},
        )
        for name, counts in per_model.items()
    ]
    return compare(scored, metrics=metrics, per_class=iou.compute, resamples=200, alpha=0.05, seed=0)


def graded(right: list[int]) -> np.ndarray:
    """Two-class images of 200 pixels with so many right in each class."""
    return np.array([[[r, 100 - r], [100 - r, r]] for r in right], np.int64)


def test_chosen_images() -> None:
    a = graded([10, 90, 50, 99, 60, 70, 80, 95, 40, 85, 20, 97])
    b = graded([12, 88, 90, 98, 62, 71, 79, 94, 41, 20, 21, 96])
    chosen = choose_images(small_comparison({"a": a, "b": b}))
    by_reason = {why: [i for i, w in chosen if w == why] for _, why in chosen}
    assert by_reason == {"worst": [0, 10, 8], "best": [3, 11, 7], "most disagreed": [9, 2, 1]}
    a[5] = 0
    assert 5 not in [i for i, _ in choose_images(small_comparison({"a": a, "b": b}))]
    assert {why for _, why in choose_images(small_comparison({"a": a}))} == {"worst", "best"}


def test_findings_name_the_cheaper_equal() -> None:
    rng = np.random.default_rng(0)
    noise = rng.integers(-4, 5, 30)
    good, twin, poor = (list(np.clip(base + noise + rng.integers(-1, 2, 30), 0, 100)) for base in (90, 90, 60))
    models = {"good": graded(good), "twin": graded(twin), "poor": graded(poor)}
    comparison = small_comparison(models, wall_seconds={"good": 100.0, "twin": 100.0, "poor": 10.0})
    best = comparison.models[0].name
    shares = np.array([0.99, 0.01])
    claims = [f.claim for f in findings(comparison, ["road", "pole"], shares)]
    other = "twin" if best == "good" else "good"
    assert claims[0] == f"{best} scores highest, but {other} may be as good."
    assert claims[2] == f"poor costs 10 % of {best}'s training time."
    seconds = {"poor": 300.0, best: 100.0, other: 25.0}
    text = findings(small_comparison(models, wall_seconds=seconds), ["road", "pole"], shares)[2]
    assert text.claim == f"{other} costs 25 % of {best}'s training time." and "not shown to be worse" in text.text
    real = small_comparison({"good": models["good"], "poor": models["poor"]})
    claim = findings(real, ["road", "pole"], shares)[0].claim
    assert claim == "good is the best model, and its lead is real on these test images; other seeds may change it."


def test_cautions() -> None:
    rng = np.random.default_rng(1)
    models = {name: graded(list(rng.integers(40, 90, 40))) for name in "ab"}
    assert cautions(small_comparison(models)) == []
    (note,) = cautions(small_comparison(models, groups=["x"] * 25 + ["y"] * 15))
    assert "fewer than 10 groups" in note and "20 in all" in note
    few = {name: counts[:4] for name, counts in models.items()}
    (note,) = cautions(small_comparison(few, device={"a": "cpu", "b": "cpu"}))
    assert note.startswith("With 4 independent images and 1 pairs, no difference however large can reach p < 0.05.")
    (note,) = cautions(small_comparison(models, device={"a": "cpu", "b": "cuda"}))
    assert "different devices (cpu, cuda)" in note


def test_figures_are_legible_in_both_colour_schemes_and_stable() -> None:
    lines = [Curve(model=m, x=[1, 2, 3], y=[0.1, float("nan"), 0.3]) for m in ("a", "b")]
    points = [Point(model=m, x=x, y=50, low=40, high=55, front=True) for m, x in (("a", 1e4), ("b$_{x}$", 1e6))]
    texts = [
        curves(lines, models=["a", "b"], xlabel="epoch", ylabel="y"),
        cost_against_score(points, models=["a", "b$_{x}$"], xlabel="x", ylabel="y"),
    ]
    for text in texts:
        assert text.startswith("<svg") and "prefers-color-scheme:dark" in text and "currentColor" in text
        assert "#0102" not in text and not re.search(r"<image|https?://(?!www\.w3\.org)", text)
    assert texts[0] == curves(lines, models=["a", "b"], xlabel="epoch", ylabel="y")
    assert "b$_{x}$" in texts[1]
    assert [short(v) for v in (0.5, 7.94, 950, 1234, 34.2e6, 2e9)] == ["0.5", "7.94", "950", "1.23k", "34.2M", "2G"]


@pytest.mark.slow
@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (1200, "dark")])
def test_in_a_browser(report: Path, browser: Any, width: int, scheme: str) -> None:
    context = browser.new_context(viewport={"width": width, "height": 844}, color_scheme=scheme, offline=True)
    opened = context.new_page()
    trouble: list[str] = []
    opened.on("console", lambda message: trouble.append(message.text))
    opened.on("pageerror", lambda error: trouble.append(str(error)))
    opened.on("request", lambda r: trouble.append(r.url) if not r.url.startswith(("file:", "data:")) else None)
    opened.goto((report / "index.html").as_uri())
    assert opened.evaluate("[...document.images].every((i) => i.complete && i.naturalWidth > 0)")
    assert opened.evaluate("document.documentElement.scrollWidth") <= width, "the page scrolls sideways"
    names = "[...document.querySelectorAll('table')[0].tBodies[0].rows].map((r) => r.cells[0].innerText.trim().split(/\\s/)[0])"
    before = opened.evaluate(names)
    opened.get_by_role("button", name="mIoU", exact=True).first.click(timeout=5000)
    after = opened.evaluate(names)
    assert before[-1] == after[0] == "segnet" and sorted(before) == sorted(after)
    seeds = after.index("unet-seed1")
    assert after[seeds - 2 : seeds] == ["unet", "unet"], "a model's seeds do not follow it"
    assert trouble == []
    context.close()
