"""The page of an evaluation, from made-up data; then looked at in a browser."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segpipe import components, confusion, image_level, results, surfaces
from segpipe.calibration import Reliability
from segpipe.pages.evaluation import change_text, evaluation_page, score_text
from segpipe.pages.evaluation_figures import corruption_curves, image_scores, reliability, trimap_curve
from segpipe.pages.evaluation_findings import findings
from segpipe.pages.evaluation_pictures import choose_images, show_images
from segpipe.shards import ClassInfo
from tests.pages.parsed import Page

CLASSES = (
    ClassInfo(name="background", colour=(132, 178, 92)),
    ClassInfo(name='<img src=x onerror=alert(1)> & "co"', colour=(70, 130, 180)),
    ClassInfo(name="car", colour=(220, 90, 70), thing=True),
    ClassInfo(name="pole", colour=(240, 200, 60), thing=True),
    ClassInfo(name="never seen", colour=(150, 80, 170)),
)
NAMES = [c.name for c in CLASSES]
PALETTE = np.array([c.colour for c in CLASSES], np.uint8)
IMAGES, SIZE = 30, (60, 80)
Maps = list[tuple[np.ndarray, np.ndarray]]


def drawn() -> Maps:
    """Masks with a lake, discs and poles, and predictions that are shifted, or lack discs."""
    rng = np.random.default_rng(0)
    y, x = np.indices(SIZE)
    maps = []
    for i in range(IMAGES):
        mask = np.where(y > SIZE[0] * rng.uniform(0.4, 0.8), 1, 0).astype(np.uint8)
        found = mask.copy()
        for _ in range(int(rng.integers(1, 4))):
            disc = (y - rng.uniform(8, 50)) ** 2 + (x - rng.uniform(8, 70)) ** 2 < rng.uniform(4, 10) ** 2
            mask[disc] = 2
            if rng.random() < 0.8:
                found[disc] = 2
        if i % 2:
            column = int(rng.integers(5, 75))
            mask[10:, column : column + 2] = found[10:, column : column + 1] = 3
        found = np.roll(found, rng.integers(-1, 2, 2), axis=(0, 1))
        mask[:, :2] = 255
        maps.append((mask, found))
    return maps


def scored(maps: Maps) -> tuple[dict[str, Any], np.ndarray, list[str]]:
    """scores.json of masks and predictions as `evaluate` writes it, the counts, and the ids; what needs a network is made up."""
    how: dict[str, Any] = {"num_classes": len(CLASSES), "ignore_index": 255}
    counts = np.stack([confusion.count(mask, guess, **how) for mask, guess in maps])
    ids = [f"image-{i:03d}" for i in range(len(maps))]
    of_counts, of_masks = surfaces.split({name: components.load("metrics", name) for name in components.names("metrics")})
    rows = [surfaces.measure(mask, guess, **how, metrics=of_masks) for mask, guess in maps]
    values = {key: np.stack([row[key] for row in rows]) for key in rows[0]}
    trimap = sum(surfaces.trimap_counts(mask, guess, **how) for mask, guess in maps)
    miou = of_counts["mean_iou"].compute(trimap)
    scores = {
        **results.score(counts, class_names=NAMES, metrics=of_counts),
        **image_level.scores(counts, class_names=NAMES, ids=ids),
        **surfaces.scores(values, counts, class_names=NAMES),
        "distance_unit": "px",
        "trimap_miou": {str(r): float(v) for r, v in zip(surfaces.TRIMAP_RADII, miou, strict=True)},
        "seconds_per_image": 0.0421,
        "tta": "none",
        "temperature_images": 40,
    }
    return scores, counts, ids


def modes() -> dict[str, Any]:
    def row(gain: float, cost: float) -> dict[str, float]:
        ends = {"gain_low": gain - 0.008, "gain_high": gain + 0.008}
        return {"miou": 0.7 + gain, "gain": gain, **ends, "p": 0.0312, "seconds_per_image": 0.0421 * cost, "cost_ratio": cost}

    return {"flip": row(0.013, 2.04), "scales": row(-0.012, 3.3), "tiles": row(0.001, 4.6)}


def corruptions() -> dict[str, Any]:
    def row(drop: float) -> dict[str, Any]:
        return {"drop": drop, "drop_low": drop - 0.02, "drop_high": drop + 0.02}

    def entry(drop: float) -> dict[str, Any]:
        undefined = {"drop": None, "drop_low": None, "drop_high": None}
        each = {name: row(drop * (1 + k / 4)) for k, name in enumerate(NAMES[:-1])}
        return {"miou": 0.7 - drop, **row(drop), "classes": {**each, NAMES[-1]: undefined}}

    weights = {"noise": 0.08, "blur": 0.03, "brightness": 0.01, "contrast": 0.05, "jpeg": 0.02, "fog": 0.09}
    rows = {
        f"{name}-{severity}": {"corruption": name, "severity": severity, **entry(weight * severity)}
        for name, weight in weights.items()
        for severity in (1, 3, 5)
    }
    return {"mean": {**entry(0.14), "kept": 0.8}, **rows}


def calibration() -> dict[str, Any]:
    rng = np.random.default_rng(1)
    before, after = Reliability(), Reliability()
    sure = (1 - 0.8 * rng.random(20_000) ** 3).astype(np.float32)
    right = rng.random(20_000) < sure - 0.1
    before.add(sure, right)
    after.add(np.maximum(sure - np.float32(0.09), np.float32(0.2)), right)
    return {"temperature": 1.7, "bounds": [0.05, 20.0], "before": before.document(), "after": after.document(), "images": 40}


def instances() -> dict[str, Any]:
    ap = {"ap": 0.41, "ap50": 0.62, "ar100": 0.5, "objects": 70}
    none = {"ap": None, "ap50": None, "ar100": None, "objects": 0}
    pq = {"pq": 0.55, "sq": 0.8, "rq": 0.69}
    return {
        "ap": {**ap, "by_class": {name: ap if 2 <= k <= 3 else none for k, name in enumerate(NAMES)}},
        "pq": {**pq, "by_class": {name: {**pq, "tp": 3, "fp": 1, "fn": 2} for name in NAMES[:4]}},
    }


@pytest.fixture(scope="module")
def whole() -> str:
    """The page with all of its parts."""
    maps = drawn()
    scores, counts, ids = scored(maps)
    scores |= {"modes": modes(), "corruptions": corruptions(), "instances": instances()}
    json.dumps(scores, allow_nan=False)

    def sample(index: int) -> tuple[np.ndarray, np.ndarray]:
        mask = maps[index][0]
        noise = np.random.default_rng(index).integers(-20, 20, (*SIZE, 3))
        return np.clip(PALETTE[np.where(mask == 255, 0, mask)] + noise, 0, 255).astype(np.uint8), mask

    cards = show_images(counts, NAMES, sample, lambda index: maps[index][1], PALETTE, ignore_index=255)
    return evaluation_page(
        name="unet",
        dataset="scenes",
        classes=CLASSES,
        scores=scores,
        counts=counts,
        ids=ids,
        cards=cards,
        calibration=calibration(),
    )


def test_the_page_says_what_the_scores_say(whole: str) -> None:
    page, (scores, _, _) = Page(whole), scored(drawn())
    for key in ("miou", "image_miou", "image_class_miou", "worst10_miou", "miou_nobg", "pa", "mpa", "fwiou", "mdice"):
        assert score_text(scores[key]) in page.text, key
    for key in ("iou", "dice", "precision", "class_accuracy", "boundary_iou", "nsd_tau2px"):
        for name in NAMES[:4]:
            assert score_text(scores[key][name]) in page.text, f"{key} of {name}"
    for key in ("hd95_pooled", "assd"):
        assert (
            score_text(scores[key]["car"], share=False) in page.text and score_text(scores[f"mean_{key}"], share=False) in page.text
        )
    assert "1 of 5 classes is neither in the truth nor predicted" in page.text
    assert "temperature 1.70" in page.text and "+1.3" in page.text and "−1.2" in page.text and "p = .031" in page.text
    assert "Even light fog costs 9.0 mIoU points (95 % 7.0 to 11.0)" in page.text
    assert "70 true objects" in page.text and "41.0" in page.text


def test_the_page_is_self_contained_and_its_links_lead_somewhere(whole: str) -> None:
    page = Page(whole)
    assert not re.search(r"(?:src|href)=\"?https?:", whole)
    assert "<img src=x" not in whole and NAMES[1] in page.text
    identifiers = page.ids()
    assert len(identifiers) == len(set(identifiers))
    targets = {str(a["href"])[1:] for tag, a in page.tags if tag == "a" and str(a.get("href", "")).startswith("#")}
    assert targets and targets <= set(identifiers)
    pictures = [a for tag, a in page.tags if tag == "img"]
    assert pictures and all(a["alt"] and str(a["src"]).startswith("data:image/") for a in pictures)
    assert all(a.get("aria-label") for tag, a in page.tags if tag == "svg")
    assert len(whole) < 10 * 2**20


def test_parts_appear_only_with_their_data(whole: str) -> None:
    scores, counts, ids = scored(drawn())
    parts = ["contours", "confidence", "modes", "corruptions", "instances", "pictures"]
    assert set(parts) <= set(Page(whole).ids())
    plain = {**results.score(counts, class_names=NAMES), **image_level.scores(counts, class_names=NAMES, ids=ids)}
    bare = Page(evaluation_page(name="unet", dataset="scenes", classes=CLASSES, scores=plain, counts=counts, ids=ids))
    assert not set(parts) & set(bare.ids())
    assert "boundary IoU" not in bare.text and "HD95" not in bare.text and bare.text.count("mIoU points") >= 1
    empty = {"modes": {}, "corruptions": {}, "instances": None, "trimap_miou": {}}
    again = Page(evaluation_page(name="unet", dataset="scenes", classes=CLASSES, scores={**plain, **empty}, counts=counts, ids=ids))
    assert again.text == bare.text


def test_a_crf_is_said() -> None:
    scores, counts, ids = scored(drawn())
    scores |= {"crf": "x", "miou_without_crf": 0.5125, "crf_gain": -0.0117, "modes": modes()}
    page = Page(evaluation_page(name="unet", dataset="scenes", classes=CLASSES, scores=scores, counts=counts, ids=ids))
    assert "The CRF moves mIoU by −1.2 (without it 51.2)" in page.text and "without the CRF" in page.text


def test_nothing_is_scored() -> None:
    counts = np.zeros((3, 5, 5), np.int64)
    ids = ["a", "b", "c"]
    scores = {**results.score(counts, class_names=NAMES), **image_level.scores(counts, class_names=NAMES, ids=ids)}
    page = Page(evaluation_page(name="unet", dataset="scenes", classes=CLASSES, scores=scores, counts=counts, ids=ids))
    assert "There is nothing to score." in page.text
    assert choose_images(counts, NAMES) == []


def test_chosen_images() -> None:
    def image(right: int, missed: int) -> np.ndarray:
        return np.array([[right, 0, 0], [missed, 40, 0], [0, 0, 9]])

    counts = np.stack([image(90, missed) for missed in (3, 30, 5, 10, 0, 2)])
    counts[4, 2, 1] = 1
    chosen = choose_images(counts, ["a", "b", "c"])
    assert [index for index, _, _ in chosen] == [1, 3, 2, 4, 0, 5]
    assert chosen[0] == (1, ["Lowest mIoU of all images", "Most wrong pixels of b", "Most wrong pixels of a"], [1, 0])
    assert dict((index, classes) for index, _, classes in chosen)[4] == [2]
    assert choose_images(np.stack([image(90, 0)]), ["a", "b", "c"])[0][2] == []


def test_pictures_show_what_is_wrong_and_hide_what_has_no_label() -> None:
    mask = np.array([[0, 0, 1, 255]], np.uint8)
    guess = np.array([[0, 1, 1, 1]], np.uint8)
    counts = confusion.count(mask, guess, num_classes=2, ignore_index=255)[None]
    image = np.full((1, 4, 3), 7, np.uint8)
    palette = np.array([[10, 0, 0], [0, 20, 0]], np.uint8)
    (card,) = show_images(counts, ["a", "b"], lambda _: (image, mask), lambda _: guess, palette, ignore_index=255)
    cells = dict(card.cells)
    assert [what for what, _ in card.cells] == ["image", "truth", "prediction", "wrong pixels"]
    enlarged = cells["prediction"].shape[1] // 4
    assert cells["prediction"][0, ::enlarged].tolist() == [[10, 0, 0], [0, 20, 0], [0, 20, 0], [0, 0, 0]]
    colours = cells["wrong pixels"][0, ::enlarged].tolist()
    assert colours[0] == colours[2] and len({tuple(c) for c in colours}) == 3
    assert guess.tolist() == [[0, 1, 1, 1]], "the caller's prediction was changed"


def test_findings_put_the_strongest_first() -> None:
    scores, counts, _ = scored(drawn())

    def third(**further: Any) -> str:
        sure = further.pop("calibration", None)
        return findings({**scores, **further}, counts, NAMES, calibration=sure)[2].claim

    assert third().startswith("Within 4 pixels of a true contour")
    assert third(modes=modes()) == "Predicting with flip gains 1.3 mIoU points (95 % 0.5 to 2.1)."
    assert third(modes=modes(), calibration=calibration()) == "The network is too sure of itself."
    assert third(corruptions=corruptions(), calibration=calibration()).startswith("Even light fog")
    # Nothing that its interval does not carry, and no small damage.
    doubtful = {"flip": modes()["flip"] | {"gain_low": -0.001}}
    mild = {key: row | {"drop": 0.01} for key, row in corruptions().items()}
    assert third(modes=doubtful, corruptions=mild).startswith("Within 4 pixels")


def test_the_hardest_class_is_told_with_its_confusions() -> None:
    counts = np.array([[[90, 5, 0], [30, 15, 5], [0, 0, 50]]])
    scores = {
        **results.score(counts, class_names=["a", "b", "c"]),
        **image_level.scores(counts, class_names=["a", "b", "c"], ids=["x"]),
    }
    found = findings(scores, counts, ["a", "b", "c"])
    assert found[1].claim == "The hardest class is b, with an IoU of 27.3 points."
    assert "30.0 % of its pixels are found; most of the others are taken for a (60.0 %)" in found[1].text
    assert "Of the pixels predicted as it 75.0 % are right; most of the rest are a." in found[1].text
    counts = np.array([[[90, 5], [0, 0]]])
    scores = results.score(counts, class_names=["a", "b"]) | {"n_classes_absent": 0}
    assert "in no mask of the test split, but 5 pixels were predicted" in findings(scores, counts, ["a", "b"])[1].text


def test_numbers() -> None:
    assert [score_text(v) for v in (0.71349, None, 0.0)] == ["71.3", "–", "0.0"]
    assert score_text(3.14159, share=False) == "3.14"
    assert [change_text(v) for v in (0.0123, -0.0123, 0.0, -0.0001, None)] == ["+1.2", "−1.2", "0.0", "0.0", "–"]


def test_charts_are_stable_and_empty_ones_are_none() -> None:
    scores, counts, _ = scored(drawn())
    values = results.mean_iou.compute(counts)
    assert image_scores(values, scores) == image_scores(values, scores)
    assert image_scores(np.array([np.nan]), scores) is None
    assert trimap_curve([(1, None)], 0.5) is None and trimap_curve([(1, 0.5)], None) is not None
    assert corruption_curves({"noise-1": {"miou": None, "severity": 1, "corruption": "noise"}}, 0.5) is None
    nothing = {"temperature": 1.0, "before": Reliability().document(), "after": Reliability().document()}
    assert reliability(nothing) is None
    for chart in (image_scores(values, scores), reliability(calibration()), corruption_curves({"f": corruptions()["fog-1"]}, 1.0)):
        assert chart is not None and not re.search(r"nan|inf\b|None", str(chart))


@pytest.mark.slow
@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (1200, "dark")])
def test_in_a_browser(whole: str, tmp_path: Path, browser: Any, width: int, scheme: str) -> None:
    (tmp_path / "index.html").write_text(whole)
    context = browser.new_context(viewport={"width": width, "height": 844}, color_scheme=scheme, offline=True)
    opened = context.new_page()
    trouble: list[str] = []
    opened.on("console", lambda message: trouble.append(message.text))
    opened.on("pageerror", lambda error: trouble.append(str(error)))
    opened.on("request", lambda r: trouble.append(r.url) if not r.url.startswith(("file:", "data:")) else None)
    opened.goto((tmp_path / "index.html").as_uri())
    opened.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    opened.evaluate("Promise.all([...document.images].map(i => { i.loading = 'eager'; return i.decode().catch(() => 0); }))")
    assert opened.evaluate("[...document.images].every((i) => i.naturalWidth > 0)")
    assert opened.evaluate("document.documentElement.scrollWidth") <= width, "the page scrolls sideways"
    names = "[...document.querySelectorAll('table')[0].tBodies[0].rows].map((r) => r.cells[0].innerText.trim())"
    before = opened.evaluate(names)
    button = opened.locator("table").first.get_by_role("button", name="IoU", exact=True)
    button.click(timeout=5000)
    best = opened.evaluate(names)
    button.focus()
    opened.keyboard.press("Enter")
    worst = opened.evaluate(names)
    assert sorted(before) == sorted(best) and best[:4] == worst[:4][::-1] and best[4] == worst[4] == "never seen"
    opened.locator("table").first.get_by_role("link", name="car").click(timeout=5000)
    assert re.fullmatch(r"#image-\d+", opened.evaluate("location.hash"))
    assert trouble == []
    context.close()
