"""The comparison page and its files, made by the stage from a small drawn workspace; then looked at in a browser."""

import csv
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from segpipe.failures import versus
from segpipe.metrics import mean_iou
from segpipe.pages.comparison import Class, Section, comparison_page
from segpipe.pages.figures import Curve, Point, cost_against_score, curves, short
from segpipe.pages.findings import cautions, findings
from stages import compare as stage
from tests.pages.parsed import Page
from tests.pages.small import graded, small_comparison
from tests.pages.workspace import CLASSES, EXPERIMENTS, UNET, write_workspace


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
    assert len(sources) == 9 * (2 + 3) + 3 * 3 * 5 + 2 + 3 and all(source.startswith("data:image/") for source in sources)
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


def test_the_page_shows_both_kinds_of_chance_and_who_is_right_where(report: Path, page: Page) -> None:
    (comparison,) = json.loads((report / "comparison.json").read_text())
    unet = next(m for m in comparison["models"] if m["name"] == "unet")["scores"]["miou"]
    low, high = (f"{100 * v:.1f}" for v in unet["training_interval"])
    assert f"{low} to {high}" in page.text and len(unet["bca"]) == 2
    assert "other test images would move the score more" in page.text or "another seed moves the score more" in page.text
    assert len(comparison["agreement"]) == 3
    for one in comparison["agreement"]:
        assert one["both_right"] + one["only_a"] + one["only_b"] + one["both_wrong"] == pytest.approx(1)
        assert f"Where {one['b']} is right and {one['a']} is wrong" in page.text
    assert "place 3" in page.text and f"tau of {comparison['ranking']['kendall_tau']:.2f}" in page.text
    assert np.allclose(np.sum(comparison["ranking"]["probabilities"], axis=1), 1)
    assert all(pair["classes"][4] is None for pair in comparison["pairs"]), "never seen"
    assert "seconds per predicted image" in page.text


def test_what_models_looked_at_is_read_and_can_be_rated_blindly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = {"unet": UNET, "segnet": EXPERIMENTS["segnet"], "fcn_8s": EXPERIMENTS["fcn_8s"]}
    write_workspace(tmp_path, experiments=names, images=12)
    rng = np.random.default_rng(0)
    for name, shift in (("unet", 0.3), ("segnet", 0.0)):
        rows = {"id": [f"scenes-{i:04d}" for i in range(12)], "segment": 1, "label": 1, "iou": 0.5, "cell": 8.0, "deletion": 0.1}
        inside = rng.uniform(0.2, 0.3, 12) + shift
        maps = {"hirescam_inside": inside, "gradcam_inside": inside, "hirescam_entropy": 0.5}
        pd.DataFrame(rows | maps).to_parquet(tmp_path / "failures" / name / versus.SEGMENTS)
        pictures = {f"{row}/{kind}": rng.integers(0, 256, 40).astype(np.uint8) for row in range(12) for kind in ("image", "map")}
        np.savez(tmp_path / "failures" / name / versus.PICTURES, **pictures)
    report = run_stage(tmp_path, monkeypatch)
    (comparison,) = json.loads((report / "comparison.json").read_text())
    (pair,) = comparison["attention"]["pairs"]
    assert (pair["a"], pair["b"], pair["segments"]) == ("unet", "segnet", 12) and "unet's evidence lies inside" in pair["sentence"]
    page = Page((report / "index.html").read_text())
    assert pair["sentence"] in page.text and "rate.html" in {a["href"] for a in page.all("a")}
    blind = (report / "rate.html").read_text()
    assert len(comparison["attention"]["key"]) == 12 and "segnet" not in blind and "unet" not in blind


def test_what_models_look_at_is_shown_where_it_is_known() -> None:
    a, b = graded([90, 80, 70, 60, 95]), graded([70, 60, 50, 40, 60])
    comparison = small_comparison({"a": a, "b": b})
    measures = [
        {"measure": "inside", "title": "evidence inside", "higher": True, "a": 0.6, "b": 0.5, "difference": 0.1, "low": 0.02}
        | {"high": 0.2, "p": 0.01, "p_holm": 0.02, "win_rate": 0.7, "n": 40},
        {
            "measure": "deletion",
            "a": None,
            "b": None,
            "difference": None,
            "low": None,
            "high": None,
            "p": None,
            "win_rate": None,
            "n": 0,
        },
    ]
    attention = {
        "pairs": [{"a": "a", "b": "b", "measures": measures, "sentence": "a looks at the object more than b."}],
        "ratings": {"pairs": [{"sentence": "Nobody has rated them."}], "problems": ["ratings/x.jsonl:3: is not JSON"]},
        "rate_page": "rate.html",
    }
    classes = [Class(name=name, colour=(9, 9, 9), share=0.5) for name in ("road", "pole")]
    section = Section(comparison=comparison, classes=classes, rows=[], histories={}, failures={}, evaluations={"a": "../a/e.html"})
    page = Page(comparison_page([replace(section, attention=attention)]))
    for words in ("a looks at the object more than b.", "0.10 (0.02 to 0.20)", "Nobody has rated them.", "x.jsonl:3"):
        assert words in page.text
    assert {"rate.html", "../a/e.html"} <= {a["href"] for a in page.all("a")}
    assert "What they look at" not in Page(comparison_page([section])).text


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
