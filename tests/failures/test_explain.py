"""The engine, the files and the page, on a network whose errors are known."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from segpipe.failures import selection
from segpipe.failures.explain import Explanation, write_explanation
from segpipe.failures.grid import stretched
from segpipe.failures.measures import EVIDENCE, FAINT, NO_EVIDENCE, measure, reading, scene
from segpipe.failures.page import failure_page
from segpipe.failures.pictures import draw
from segpipe.failures.tables import cost
from segpipe.metrics import mean_iou
from segpipe.shards import Sample, Split, SplitWriter, encode_image, encode_mask
from tests.failures.networks import Reader
from tests.failures.red_world import COLOURS, SIZE, World, red_world, run


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return red_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def explanation(world: World) -> Explanation:
    return run(world)


def page(explanation: Explanation) -> str:
    return failure_page(explanation, name="toy", dataset="blocks", colours=COLOURS, ignore_index=255)


def test_the_books_balance(world: World, explanation: Explanation) -> None:
    split, predictions, _ = world
    pairs = [(split.arrays(i)[1], predictions[name]) for i, name in enumerate(split.ids)]
    wrong = sum(int(((t != p) & (t != 255)).sum()) for t, p in pairs)
    summary = explanation.summary
    assert summary["wrong_pixels"] == wrong == explanation.regions["area"].sum()
    assert sum(row["pixels"] for row in summary["pairs"]) == sum(row["pixels"] for row in summary["modes"]) == wrong
    assert summary["images_with_errors"] == 5
    assert summary["chosen"] == len(explanation.chosen) == explanation.regions["chosen"].sum() == 7
    costs = [row["cost"] for row in summary["pairs"]]
    assert costs == sorted(costs, reverse=True) and costs[0] > 0
    true, predicted = summary["pairs"][0]["true"], summary["pairs"][0]["predicted"]
    repaired = [np.where((t == true) & (p == predicted), true, p) for t, p in pairs]
    ious = []
    for k in range(3):
        both = sum(int(((t == k) & (p == k) & (t != 255)).sum()) for (t, _), p in zip(pairs, repaired, strict=True))
        either = sum(int((((t == k) | (p == k)) & (t != 255)).sum()) for (t, _), p in zip(pairs, repaired, strict=True))
        ious.append(both / either)
    assert summary["miou"] + costs[0] == pytest.approx(np.mean(ious))


def test_the_maps_find_what_the_network_reads(explanation: Explanation) -> None:
    """Every chosen region was painted in the wrong class's colour; HiResCAM of a 1x1 network stays within two cells."""
    chosen = explanation.regions[explanation.regions["chosen"]]
    assert (chosen["margin"] > 0).all()
    speaks = chosen[chosen["pooled/hirescam_predicted_status"] == EVIDENCE]
    assert len(speaks) >= 3
    assert (speaks["pooled/hirescam_predicted_near"] > 0.95).all()
    assert (speaks["pooled/area_inside"] < speaks["pooled/area_near"]).all()
    assert set(chosen["pooled/reading"]) <= {"no evidence", "look-alike", "parts", "undecided", "true class elsewhere"}
    assert (explanation.regions.loc[~explanation.regions["chosen"], "reason"] == "").all()
    # Red is 0 where the network reads class 0 and its slope for class 0 is 0: nothing can speak for class 0 on this layer.
    assert (chosen.loc[chosen["true"] == 0, "pooled/hirescam_true_status"] == NO_EVIDENCE).all()


def test_the_same_seed_writes_the_same_bytes(world: World, explanation: Explanation, tmp_path: Path) -> None:
    again = run(world)
    for name, one in (("a", explanation), ("b", again)):
        write_explanation(tmp_path / name, one)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes(), path.name
    assert page(explanation) == page(again)
    other = run(world, seed=1, regions=3)
    assert other.summary["chosen"] == 3


def test_the_files_read_back(explanation: Explanation, tmp_path: Path) -> None:
    write_explanation(tmp_path, explanation)
    table = pd.read_parquet(tmp_path / "regions.parquet")
    assert len(table) == explanation.summary["regions"]
    arrays = np.load(tmp_path / "maps.npz", allow_pickle=False)
    rows = sorted(one.index for one in explanation.chosen)
    assert list(arrays["names"]) == [*(str(row) for row in rows), *(f"control/{row}" for row in sorted(explanation.matched))]
    assert set(explanation.matched) == set(explanation.controls["matched"]) <= set(rows)
    for one in explanation.chosen:
        for layer in ("pooled", "spread"):
            for kind in ("gradcam", "hirescam"):
                stored = arrays[f"{one.index}/{layer}/{kind}"]
                assert stored.dtype == np.float16
                scale = arrays[f"{one.index}/{layer}/{kind}/scale"]
                np.testing.assert_allclose(stored * scale, one.answer.maps[layer][kind], atol=1e-3 * float(scale))
                margin, scale = (arrays[f"{one.index}/{layer}/{kind}/margin{end}"] for end in ("", "/scale"))
                difference = one.answer.maps[layer][kind][1] - one.answer.maps[layer][kind][0]
                np.testing.assert_allclose(margin * scale, difference, atol=1e-3 * float(scale))
    document = json.loads((tmp_path / "summary.json").read_text())
    assert document["layers"]["pooled"]["readings"]


def test_the_page_escapes_names_and_describes_every_picture(explanation: Explanation) -> None:
    text = page(explanation)
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "im&lt;0&gt;" in text and "im<0>" not in text
    images = re.findall(r"<img [^>]*>", text)
    assert len(images) >= 7 * 7
    assert all(re.search(r'alt="[^"]+"', image) and 'src="data:image/' in image for image in images)
    assert not re.search(r'src="(?!data:)|href="(?!data:|#|\.\./)', text), (
        "the page asks for nothing, and links to its sisters only"
    )
    assert "costs most" in text and "The same regions on other layers" in text
    assert len(text) < 10e6


def test_a_perfect_model_gets_a_page_that_says_so(world: World, tmp_path: Path) -> None:
    split, predictions, model = world
    right = {name: np.where(split.arrays(i)[1] == 255, 0, split.arrays(i)[1]) for i, name in enumerate(split.ids)}
    perfect = run((split, {name: mask.astype(np.uint8) for name, mask in right.items()}, model))
    assert perfect.summary["wrong_pixels"] == 0 and not perfect.chosen
    assert "There is nothing to explain" in page(perfect)
    write_explanation(tmp_path, perfect)
    assert len(pd.read_parquet(tmp_path / "regions.parquet")) == 0
    too_small = run(world, min_area=10**6)
    assert too_small.summary["chosen"] == 0 and too_small.summary["pairs"]
    assert "No region was explained" in page(too_small)


def test_a_split_without_a_labelled_pixel_gets_a_page(tmp_path: Path) -> None:
    with SplitWriter(tmp_path, "test") as writer:
        image, mask = np.zeros((*SIZE, 3), np.uint8), np.full(SIZE, 255, np.uint8)
        writer.write(Sample(id="a", image=encode_image(image), mask=encode_mask(mask), height=48, width=64, group="", source=""))
    world = Split(tmp_path, "test"), {"a": np.zeros(SIZE, np.uint8)}, Reader(classes=3).eval()
    empty = run(world)
    assert empty.summary["miou"] is None
    assert empty.summary["findings"][0]["text"].startswith("no pixel")
    assert "There is nothing to explain" in page(empty)


def test_predictions_that_do_not_fit_are_named(world: World) -> None:
    split, predictions, model = world
    with pytest.raises(ValueError, match=r"im<2>.*evaluate"):
        run((split, predictions | {"im<2>": np.full(SIZE, 7, np.uint8)}, model))


def test_a_small_region_of_a_large_image_is_shown_enlarged(explanation: Explanation) -> None:
    one = explanation.chosen[0]
    factor = 8
    region = np.zeros((SIZE[0] * factor, SIZE[1] * factor), bool)
    region[100:130, 400:440] = True
    large = {name: np.kron(getattr(one, name), np.ones((factor, factor), np.uint8)) for name in ("target", "prediction")}
    window = (slice(0, region.shape[0]), slice(0, region.shape[1]))
    picture = np.kron(one.image, np.ones((factor, factor, 1), np.uint8))
    enlarged = replace(one, region=region, image=picture, answer=replace(one.answer, window=window), **large)
    statuses = {kind: (EVIDENCE, NO_EVIDENCE) for kind in ("gradcam", "hirescam")}
    names = {"true": "a", "predicted": "b"}
    palette = np.array(COLOURS, np.uint8)
    drawn = draw(enlarged, layer="pooled", statuses=statuses, palette=palette, ignore_index=255, **names)
    assert len(drawn.labels) == 4 and "part shown" in drawn.labels[0].caption
    assert drawn.maps["gradcam"][1].caption == f"for b: {NO_EVIDENCE}"
    assert all((p.width, p.height) == (300, 225) for p in [*drawn.labels, drawn.margin, *drawn.maps["hirescam"]])
    usual = draw(one, layer="pooled", statuses=statuses, palette=palette, ignore_index=255, **names)
    assert len(usual.labels) == 3


def regions_table(rng: np.random.Generator, count: int) -> pd.DataFrame:
    true = rng.integers(0, 3, count)
    return pd.DataFrame(
        {
            "id": [f"i{k % 9}" for k in range(count)],
            "region": np.arange(count),
            "true": true,
            "predicted": (true + rng.integers(1, 3, count)) % 3,
            "area": rng.integers(1, 500, count),
        }
    )


def test_the_choice_is_stratified_and_independent_of_the_rows_order() -> None:
    table = regions_table(np.random.default_rng(0), 300)
    chosen = selection.choose(table, count=30, seed=3)
    rows = table.loc[chosen["index"]]
    assert len(set(chosen["index"])) == 30
    assert (rows["area"] >= selection.MIN_AREA).all()
    assert len(selection.by_pair(rows)) == 6, "every class pair is there"
    for _, group in selection.by_pair(table).items():
        assert group["area"].idxmax() in set(chosen["index"])
    largest = chosen[chosen["reason"] == selection.LARGEST]
    assert len(largest) == 6
    shuffled = table.sample(frac=1, random_state=1)
    assert set(selection.choose(shuffled, count=30, seed=3)["index"]) == set(chosen["index"])
    assert set(selection.choose(table, count=30, seed=4)["index"]) != set(chosen["index"])
    assert len(selection.choose(table, count=10**6, seed=0)) == (table["area"] >= selection.MIN_AREA).sum()


def test_large_regions_are_drawn_more_often() -> None:
    table = regions_table(np.random.default_rng(1), 40)
    table["true"], table["predicted"] = 0, 1
    table["area"] = [10_000, *[400] * 4, *[40] * 35]
    drawn = [set(selection.choose(table, count=3, seed=seed)["index"]) for seed in range(300)]
    large = sum(len(one & {1, 2, 3, 4}) for one in drawn) / 300
    # By weights 4 * 400 against 35 * 40; two draws without replacement give 1.05 on average.
    assert 0.9 < large < 1.2
    assert all(0 in one for one in drawn)


def test_cost_is_what_an_oracle_gains() -> None:
    confusion = np.array([[50, 10], [5, 35]])
    right = np.array([[0, 10], [0, 0]])
    expected = mean_iou.compute(np.array([[60, 0], [5, 35]])) - mean_iou.compute(confusion)
    assert cost(confusion, right, mean_iou=mean_iou.compute) == pytest.approx(float(expected))


def test_energy_shares_of_a_map_made_by_hand() -> None:
    """Cells of 4 pixels; all energy of the predicted class in one cell far from the region, none for the true class."""
    target = np.zeros((32, 40), np.int64)
    target[:, 20:] = 2
    region = np.zeros((32, 40), bool)
    region[4:8, 4:8] = True
    place = scene(region, segment=target == 0, guess=target == 2, target=target, window=(slice(0, 32), slice(0, 40)), cell=(4, 4))
    assert place.areas()["inside"] == pytest.approx(16 / 1280)
    assert place.areas()["near"] == pytest.approx(144 / 1280)
    rows, columns = stretched(32, cells=8), stretched(40, cells=10)
    predicted, true = np.zeros((8, 10)), np.full((8, 10), -1.0)
    predicted[5, 7] = 3
    found = measure(true, predicted, place=place, rows=rows, columns=columns, num_classes=3)
    assert found["true_status"] == NO_EVIDENCE and np.isnan(found["true_inside"])
    assert found["predicted_near"] == found["predicted_segment"] == found["predicted_border"] == 0
    assert (found["context_class"], found["context_share"]) == (2, pytest.approx(1))
    assert np.isnan(found["spearman"]), "a constant map has no ranks"
    assert reading(found) == "no evidence"
    true[1, 1] = 2
    found = measure(true, predicted, place=place, rows=rows, columns=columns, num_classes=3)
    assert found["true_near"] == pytest.approx(1) and 0.2 < found["true_inside"] < 1
    assert reading(found) == "context"
    found = measure(true * 0.01, predicted, place=place, rows=rows, columns=columns, num_classes=3)
    assert found["true_status"] == FAINT and found["predicted_status"] == EVIDENCE
    assert reading(found) == "no evidence"
    found = measure(true, true, place=place, rows=rows, columns=columns, num_classes=3)
    rng = np.random.default_rng(0)
    a, b = rng.integers(-3, 4, (2, 8, 10)).astype(np.float32)
    tied = measure(a, b, place=place, rows=rows, columns=columns, num_classes=3)
    assert tied["spearman"] == pytest.approx(stats.spearmanr(a.ravel(), b.ravel()).statistic)
    assert found["cosine"] == pytest.approx(1) and found["spearman"] == pytest.approx(1)
    assert reading(found) == "look-alike"
