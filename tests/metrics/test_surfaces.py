"""Metrics of label masks on whole images: reference numbers, brute force, and what must not change them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segpipe import components, confusion, surfaces
from segpipe.metrics import boundary_iou, mean_iou, pixel_accuracy
from segpipe.metrics.blocks.distances import to_nearest
from segpipe.metrics.blocks.mask_pair import MaskPair, border, inner_band

GOLDEN: dict[str, Any] = json.loads((Path(__file__).parent / "golden.json").read_text())
FACTS: dict[str, Any] = json.loads((Path(__file__).parent.parent / "golden" / "metrics.json").read_text())
_, METRICS = surfaces.split({name: components.load("metrics", name) for name in components.names("metrics")})
KEYS = [key for metric in METRICS.values() for key in metric.KEYS]
CLASSES = 4


def pixels(rows: list[str]) -> np.ndarray:
    return np.array([[int(digit) for digit in row] for row in rows], np.uint8)


def measured(target: np.ndarray, prediction: np.ndarray, *, classes: int = CLASSES, **further: Any) -> dict[str, np.ndarray]:
    return surfaces.measure(target, prediction, num_classes=classes, ignore_index=255, metrics=METRICS, **further)


@st.composite
def label_maps(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Two label maps uint8 (H, W) of patches, some pixels of the first one ignored."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    size, patch = (int(rng.integers(1, 24)), int(rng.integers(1, 24))), int(rng.integers(1, 7))
    maps = []
    for _ in range(2):
        blocks = rng.integers(0, CLASSES, (-(-size[0] // patch), -(-size[1] // patch)))
        maps.append(np.kron(blocks, np.ones((patch, patch), np.int64))[: size[0], : size[1]].astype(np.uint8))
    maps[1] = np.where(rng.random(size) < rng.random(), maps[0], maps[1])
    maps[0][rng.random(size) < rng.choice([0, 0.2])] = 255
    return maps[0], maps[1]


def brute_force(mask: np.ndarray, other: np.ndarray, spacing: tuple[float, float]) -> np.ndarray:
    return np.array([min(np.hypot(*((p - q) * spacing)) for q in np.argwhere(other)) for p in np.argwhere(mask)])


def test_reference_numbers() -> None:
    case = GOLDEN["surface"]
    truth, prediction = pixels(case["gt"]), pixels(case["pred"])
    values = measured(truth, prediction, classes=2)
    for key, golden in case["expected"].items():
        np.testing.assert_allclose(values[key][1], golden, rtol=1e-14, err_msg=key)
        for library, number in case["libraries"][key].items():
            np.testing.assert_allclose(values[key][1], number, rtol=3e-7, err_msg=f"{key}, {library}")
    pair = MaskPair(truth=truth, prediction=prediction, image_shape=(20, 24))
    assert [int(b.sum()) for b in pair.borders] == case["border_pixels"]
    np.testing.assert_allclose(max(d.max() for d in pair.distances), case["hausdorff"], rtol=1e-15)
    np.testing.assert_allclose(pair.distances[1].mean(), case["mean_of_prediction_to_truth"], rtol=1e-14)


@pytest.mark.parametrize("case", GOLDEN["boundary_iou"], ids=lambda case: f"width {case['width']}")
def test_reference_bands(case: dict[str, Any]) -> None:
    bands = [inner_band(pixels(GOLDEN["surface"][name]), case["width"]) for name in ("gt", "pred")]
    assert [int(band.sum()) for band in bands] == case["pixels"]
    assert (bands[0] & bands[1]).sum() / (bands[0] | bands[1]).sum() == pytest.approx(case["iou"], abs=1e-15)


def test_boundary_iou_on_the_reference_masks() -> None:
    values = measured(pixels(GOLDEN["surface"]["gt"]), pixels(GOLDEN["surface"]["pred"]), classes=2)
    assert values["boundary_iou"][1] == pytest.approx(GOLDEN["boundary_iou"][0]["iou"], abs=1e-15)
    assert [boundary_iou.band_width(shape) for shape in ((2, 2), (360, 480), (1024, 2048))] == [1, 12, 46]


@pytest.mark.parametrize("name", GOLDEN["empty_masks"])
def test_empty_masks(name: str) -> None:
    case = GOLDEN["empty_masks"][name]
    gt, prediction = np.array(case["gt"], np.uint8), np.array(case["pred"], np.uint8)
    values = measured(gt, prediction, classes=2)
    np.testing.assert_array_equal(
        values["nsd_tau1px"][1], np.float64(case["nsd_tau1px"] if case["nsd_tau1px"] is not None else np.nan)
    )
    for key in ("hd95_pooled", "hd95_directed_max", "assd"):
        assert case["hd95"] is None and np.isnan(values[key][1])
    np.testing.assert_array_equal(values["boundary_iou"][1], np.float64(case["iou"] if case["iou"] is not None else np.nan))


@pytest.mark.parametrize("band", GOLDEN["trimap"], ids=lambda band: f"radius {band['radius']}")
def test_reference_trimap(band: dict[str, Any]) -> None:
    gt, prediction = (np.array(FACTS["multiclass"]["inputs"][name][0], np.uint8) for name in ("gt", "pred"))
    radii = [case["radius"] for case in GOLDEN["trimap"]]
    counts = surfaces.trimap_counts(gt, prediction, num_classes=4, ignore_index=255, radii=radii)[radii.index(band["radius"])]
    assert counts.sum() == band["pixels"]
    assert pixel_accuracy.compute(counts) == pytest.approx(band["pa"], abs=1e-15)
    assert mean_iou.compute(counts) == pytest.approx(band["miou"], abs=1e-15)


@settings(max_examples=60, deadline=None)
@given(label_maps(), st.sampled_from([(1.0, 1.0), (0.5, 0.5), (1.0, 3.0)]))
def test_distances_equal_brute_force(maps: tuple[np.ndarray, np.ndarray], spacing: tuple[float, float]) -> None:
    mask, other = border((maps[0] == 0).astype(np.uint8)), border((maps[1] == 0).astype(np.uint8))
    if mask.any() and other.any():
        np.testing.assert_allclose(to_nearest(mask, other, spacing=spacing), brute_force(mask, other, spacing), rtol=1e-12)


@pytest.mark.parametrize("count", [30, 30_000], ids=["walks", "walks that are too long"])
def test_distances_across_a_large_image_are_exact(count: int) -> None:
    rng = np.random.default_rng(0)
    mask, other = np.zeros((2, 600, 1300), bool)
    mask.ravel()[rng.choice(mask.size, count, replace=False)] = True
    other[:3, :5] = True
    rows, columns = (np.maximum(place - last, 0) for place, last in zip(np.nonzero(mask), (2, 4), strict=True))
    np.testing.assert_allclose(to_nearest(mask, other), np.sqrt(rows**2 + columns**2), rtol=1e-15)
    np.testing.assert_allclose(to_nearest(mask, other, spacing=(0.4, 0.4)), 0.4 * np.sqrt(rows**2 + columns**2), rtol=1e-15)
    np.testing.assert_allclose(to_nearest(mask, other, spacing=(2.0, 1.0)), np.hypot(2.0 * rows, columns), rtol=1e-15)


@settings(max_examples=60, deadline=None)
@given(label_maps())
def test_the_box_around_a_class_equals_the_whole_image(maps: tuple[np.ndarray, np.ndarray]) -> None:
    target, prediction = maps
    values = measured(target, prediction)
    valid = target != 255
    for k in range(CLASSES):
        truth, guess = ((labels == k) & valid for labels in maps)
        if truth.any() and guess.any():
            whole = MaskPair(truth=truth.astype(np.uint8), prediction=guess.astype(np.uint8), image_shape=target.shape)
            for metric in METRICS.values():
                for key, number in zip(metric.KEYS, metric.measure(whole), strict=True):
                    np.testing.assert_allclose(values[key][k], number, rtol=1e-14)
        else:
            expected = 0.0 if truth.any() or guess.any() else np.nan
            np.testing.assert_array_equal(values["nsd_tau1px"][k], expected)
            assert np.isnan(values["assd"][k])


@settings(max_examples=40, deadline=None)
@given(label_maps(), st.permutations(range(CLASSES)))
def test_order_of_classes_does_not_matter(maps: tuple[np.ndarray, np.ndarray], order: list[int]) -> None:
    table = np.arange(256, dtype=np.uint8)
    table[:CLASSES] = order
    values, permuted = measured(*maps), measured(table[maps[0]], table[maps[1]])
    for key in KEYS:
        np.testing.assert_array_equal(permuted[key][order], values[key])


@settings(max_examples=40, deadline=None)
@given(label_maps())
def test_an_unrelated_class_and_ignored_predictions_change_nothing(maps: tuple[np.ndarray, np.ndarray]) -> None:
    target, prediction = maps
    values = measured(target, prediction)
    # A column that is the new class on both sides; an edge to ignored pixels is an edge, as is that of the image.
    wider = [np.pad(labels, [(0, 0), (0, 1)], constant_values=CLASSES) for labels in maps]
    more = measured(wider[0], wider[1], classes=CLASSES + 1)
    for key in KEYS:
        if key != "boundary_iou":  # its band's width follows the image's diagonal
            np.testing.assert_array_equal(more[key][:CLASSES], values[key])
    other = prediction.copy()
    other[target == 255] = 1
    for key, numbers in measured(target, other).items():
        np.testing.assert_array_equal(numbers, values[key])


def test_spacing_and_dtypes() -> None:
    rng = np.random.default_rng(3)
    target, prediction = (rng.integers(0, CLASSES, (9, 11)).repeat(3, axis=0).repeat(2, axis=1) for _ in range(2))
    small, large = target.astype(np.uint8), prediction.astype(np.uint16)
    for first, second in (
        (measured(small, large), measured(small, large.astype(np.uint8))),
        (
            measured(small, large, spacing=None),
            measured(small, large, spacing=[1, 1]),
        ),
    ):
        for key in KEYS:
            np.testing.assert_array_equal(first[key], second[key])
    np.testing.assert_allclose(measured(small, large, spacing=[2.5, 2.5])["assd"], 2.5 * measured(small, large)["assd"], rtol=1e-14)


def test_what_is_refused() -> None:
    labels = np.zeros((3, 4), np.uint8)
    with pytest.raises(ValueError, match=r"prediction has shape \(3, 3\)"):
        measured(labels, labels[:, :3])
    with pytest.raises(ValueError, match="int64"):
        measured(labels, labels.astype(np.int64))
    for spacing in ((1, 0), (1, -1), (float("nan"), 1)):
        with pytest.raises(ValueError, match="two positive lengths"):
            measured(labels, labels, spacing=spacing)
    for radii in ((0, 1), (2, 1), (1, 1)):
        with pytest.raises(ValueError, match="ascending"):
            surfaces.trimap_counts(labels, labels, num_classes=2, ignore_index=255, radii=radii)
    with pytest.raises(ValueError, match="labels 7"):
        surfaces.trimap_counts(labels + np.eye(3, 4, dtype=np.uint8) * 7, labels, num_classes=2, ignore_index=255, radii=(1,))


@settings(max_examples=60, deadline=None)
@given(label_maps(), st.sets(st.integers(1, 12), min_size=1, max_size=4))
def test_trimap_bands(maps: tuple[np.ndarray, np.ndarray], chosen: set[int]) -> None:
    target, prediction = maps
    radii = sorted(chosen)
    counts = surfaces.trimap_counts(target, prediction, num_classes=CLASSES, ignore_index=255, radii=radii)
    assert counts.shape == (len(radii), CLASSES, CLASSES) and counts.dtype == np.int64
    assert (np.diff(counts, axis=0) >= 0).all(), "a wider band lost pixels"
    changes = np.argwhere(surfaces.label_changes(target))
    every = np.argwhere(np.ones(target.shape, bool))
    nearest = np.array([np.hypot(*(changes - pixel).T).min() if len(changes) else np.inf for pixel in every]).reshape(target.shape)
    for radius, table in zip(radii, counts, strict=True):
        inside = nearest <= radius - 1
        expected = confusion.count(target[inside], prediction[inside], num_classes=CLASSES, ignore_index=255)
        np.testing.assert_array_equal(table, expected)


def test_the_widest_band_is_the_whole_image() -> None:
    target, prediction = (np.random.default_rng(seed).integers(0, CLASSES, (15, 20)).astype(np.uint8) for seed in (1, 2))
    (counts,) = surfaces.trimap_counts(target, prediction, num_classes=CLASSES, ignore_index=255, radii=(50,))
    np.testing.assert_array_equal(counts, confusion.count(target, prediction, num_classes=CLASSES, ignore_index=255))
    plain = np.zeros((15, 20), np.uint8)
    assert not surfaces.trimap_counts(plain, prediction, num_classes=CLASSES, ignore_index=255).any()


def test_scores_average_over_images_and_count_what_is_missing() -> None:
    maps = [
        (np.array([[0, 0, 1, 1]]), np.array([[0, 1, 1, 1]])),
        (np.array([[0, 0, 2, 2]]), np.array([[0, 0, 0, 0]])),
        (np.array([[0, 0, 0, 0]]), np.array([[1, 0, 0, 0]])),
    ]
    rows = [measured(target.astype(np.uint8), guess.astype(np.uint8)) for target, guess in maps]
    counts = np.stack(
        [confusion.count(t.astype(np.uint8), g.astype(np.uint8), num_classes=CLASSES, ignore_index=255) for t, g in maps]
    )
    values = {key: np.stack([row[key] for row in rows]) for key in KEYS}
    names = ["a", "b", "c", "d"]
    scores = surfaces.scores(values, counts, class_names=names)
    json.dumps(scores, allow_nan=False)
    assert scores["surface_images"] == {"a": 3, "b": 1, "c": 0, "d": 0}
    assert scores["surface_one_empty"] == {"a": 0, "b": 1, "c": 1, "d": 0}
    assert scores["assd"]["c"] is None and scores["nsd_tau1px"]["c"] == 0 and scores["nsd_tau1px"]["d"] is None
    assert scores["nsd_tau1px"]["b"] == (rows[0]["nsd_tau1px"][1] + 0) / 2
    assert scores["assd"]["b"] == rows[0]["assd"][1]
    assert scores["mean_assd"] == pytest.approx((scores["assd"]["a"] + scores["assd"]["b"]) / 2)
    assert surfaces.scores({}, counts, class_names=names) == {}
