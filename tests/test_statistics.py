"""Statistics of a dataset against numpy's own count of all pixels; exact, and the same in any order."""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segpipe import statistics as stats
from segpipe.shards import SPLITS, Sample, Split, SplitWriter, encode_image, encode_mask
from segpipe.statistics import DatasetStatistics, channel_sums, sample_statistics
from segpipe.training import class_weights

K = 4
Drawn = tuple[str, np.ndarray, np.ndarray, list[dict[str, Any]]]


def drawn(count: int = 12, *, ignore_index: int = 255, seed: int = 0) -> list[Drawn]:
    """(split, image, mask, instances) of different sizes; class 3 is never in train, and no sample is in test."""
    rng = np.random.default_rng(seed)
    rows: list[Drawn] = []
    for number in range(count):
        split = "val" if number % 3 == 2 else "train"
        size = (20 + number % 4, 30)
        mask = rng.choice([0, 0, 0, 1, 2 if number % 2 else 0, ignore_index], size).astype(
            np.uint8 if ignore_index < 256 else np.uint16
        )
        if split == "val":
            mask[3, :7] = 3
        image = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        areas = rng.integers(1, 400, 5)
        instances = [{"category": i % 3, "area": float(a), "iscrowd": i == 4, "bbox": [0, 0, 1, 1]} for i, a in enumerate(areas)]
        rows.append((split, image, mask, instances))
    return rows


def added(rows: list[Drawn], *, ignore_index: int = 255, num_classes: int = K) -> DatasetStatistics:
    total = DatasetStatistics([f"class {i}" for i in range(num_classes)])
    for split, image, mask, instances in rows:
        total.add(split, sample_statistics(image, mask, instances, num_classes=num_classes, ignore_index=ignore_index))
    return total


@pytest.mark.parametrize("ignore_index", [255, 65535])
def test_pixels_and_images(ignore_index: int) -> None:
    rows = drawn(ignore_index=ignore_index)
    total = added(rows, ignore_index=ignore_index)
    summary = total.summary()
    for split in SPLITS:
        masks = [mask for s, _, mask, _ in rows if s == split]
        size, ignored = sum(m.size for m in masks), int(sum((m == ignore_index).sum() for m in masks))
        expected = [int(sum((m == k).sum() for m in masks)) for k in range(K)]
        assert total.pixels(split) == expected == [c["pixels"][split] for c in summary["classes"]]
        assert [c["images"][split] for c in summary["classes"]] == [sum((m == k).any() for m in masks) for k in range(K)]
        share = ignored / size if size else None
        row = {"samples": len(masks), "pixels": size, "ignored": ignored, "ignored_share": pytest.approx(share) if size else None}
        assert summary["splits"][split] == row
        shares = [n / sum(expected) for n in expected] if size else [None] * K
        assert [c["share"][split] for c in summary["classes"]] == [s if s is None else pytest.approx(s, rel=1e-5) for s in shares]


def test_many_classes_need_sixteen_bits() -> None:
    mask = np.array([[0, 300, 300, 458, 65535]], np.uint16)
    found = sample_statistics(np.zeros((1, 5, 3), np.uint8), mask, [], num_classes=459, ignore_index=65535)
    assert found.pixels.shape == (459,) and found.pixels[[0, 300, 458]].tolist() == [1, 2, 1] and found.ignored == 1
    assert found.pixels.sum() == 4


def test_mean_and_deviation_are_those_of_all_train_pixels() -> None:
    rows = drawn()
    values = np.concatenate([image.reshape(-1, 3) for split, image, _, _ in rows if split == "train"]) / 255
    mean, std = added(rows).mean_and_std("train")
    assert mean == pytest.approx(values.mean(axis=0), abs=1e-6) and std == pytest.approx(values.std(axis=0), abs=1e-6)
    summary = added(rows).summary()
    assert (summary["mean"], summary["std"]) == (list(mean), list(std))


def test_counts_stay_exact_in_large_images() -> None:
    """cv2's counts are float32: 16,777,217 equal pixels in one call would lose one."""
    image = np.full((4097, 4097, 3), 7, np.uint8)
    n = 4097 * 4097
    assert n > 2**24 and channel_sums(image).tolist() == [[7 * n] * 3, [49 * n] * 3]
    found = sample_statistics(image, image[..., 0], [], num_classes=8, ignore_index=255)
    assert found.pixels.tolist() == [0] * 7 + [n]


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.float32])
def test_channel_sums(dtype: type) -> None:
    values = np.random.default_rng(0).integers(0, 250, (5, 6, 7, 2)).astype(dtype)
    expected = values.reshape(-1, 2).astype(np.float64)
    assert channel_sums(values).tolist() == [expected.sum(axis=0).tolist(), (expected**2).sum(axis=0).tolist()]
    with pytest.raises(ValueError, match="NaN"):
        channel_sums(np.array([[[0.0], [np.nan]]]))


def test_weights_are_those_of_training(tmp_path: Path) -> None:
    rows = drawn()
    with SplitWriter(tmp_path, "train") as writer:
        for number, (split, image, mask, _) in enumerate(rows):
            if split == "train":
                size = {"height": mask.shape[0], "width": mask.shape[1]}
                sample = Sample(id=f"{number}", image=encode_image(image), mask=encode_mask(mask), group="", source="", **size)
                writer.write(sample)
    summary = added(rows).summary()
    for name in ("median_frequency", "inverse_frequency"):
        trained = class_weights.of_split(name, Split(tmp_path, "train"), num_classes=K)
        assert trained is not None and trained[3] == 0
        shown = [c["weights"][name] for c in summary["classes"]]
        assert shown[:3] == pytest.approx(trained[:3], rel=1e-5)
        assert shown[3] is None, "no weight for a class that train lacks"


def test_sizes() -> None:
    rows = drawn(9)
    found = added(rows).summary()["sizes"]
    heights = sorted(mask.shape[0] for _, _, mask, _ in rows)
    assert found["height"] == {"min": heights[0], "median": heights[4], "max": heights[-1]}
    assert found["width"] == {"min": 30, "median": 30, "max": 30} and found["depth"]["max"] == 1
    assert found["different"] == 4 and found["common"][0] == {"depth": 1, "height": 20, "width": 30, "count": 3}
    assert [row["count"] for row in found["common"]] == [3, 2, 2, 2]
    many = DatasetStatistics(["a"])
    for height in range(1, 60):
        mask = np.zeros((height, 5), np.uint8)
        many.add("train", sample_statistics(np.zeros((height, 5, 3), np.uint8), mask, [], num_classes=1, ignore_index=255))
    assert many.summary()["sizes"]["different"] == 59 and len(many.summary()["sizes"]["common"]) == stats.COMMON_SIZES


def test_instances() -> None:
    rng = np.random.default_rng(1)
    areas = np.sort(np.rint(np.exp(rng.uniform(0, np.log(9000), 500))).astype(int))
    mask = np.zeros((100, 120), np.uint8)
    instances = [{"category": 1, "area": float(a), "iscrowd": False} for a in areas]
    instances += [{"category": 1, "area": 12000.0, "iscrowd": True}, {"category": 2, "area": 40.0, "iscrowd": True}]
    total = DatasetStatistics(["a", "b", "c"])
    total.add("val", sample_statistics(np.zeros((100, 120, 3), np.uint8), mask, instances, num_classes=3, ignore_index=255))
    none, found, crowd = (c["instances"] for c in total.summary()["classes"])
    assert found["count"] == {"train": 0, "val": 500, "test": 0} and found["crowds"]["val"] == 1
    assert (found["area"]["min"], found["area"]["max"]) == (areas[0], areas[-1]), "the ends are exact"
    for name, part in stats.QUANTILES.items():
        exact = np.quantile(areas, part, method="inverted_cdf")
        assert found["area"][name] == pytest.approx(exact, rel=0.05, abs=0.5)
        assert found["side"][name] == pytest.approx((exact / 12000) ** 0.5, rel=0.055)
    assert none["area"] is None and none["side"] is None and set(none["count"].values()) == {0}
    assert crowd["area"] is None and crowd["crowds"]["val"] == 1 and crowd["count"]["val"] == 0


def test_small_areas_are_exact() -> None:
    total = DatasetStatistics(["a"])
    instances = [{"category": 0, "area": float(a), "iscrowd": False} for a in (1, 3, 3, 9, 10_000)]
    mask = np.zeros((100, 100), np.uint8)
    total.add("train", sample_statistics(np.zeros((100, 100, 3), np.uint8), mask, instances, num_classes=1, ignore_index=255))
    found = total.summary()["classes"][0]["instances"]
    assert found["area"] == {"min": 1, "p5": 1, "p25": 3, "median": 3, "p75": 9, "p95": 10_000, "max": 10_000}
    assert found["side"]["p95"] == 1.0


def test_no_order_and_no_process_changes_a_digit() -> None:
    rows = drawn(30)
    expected = json.dumps(added(rows).summary(), sort_keys=True)
    assert json.dumps(added(rows[::-1]).summary(), sort_keys=True) == expected
    carried = DatasetStatistics([f"class {i}" for i in range(K)])
    for i in np.random.default_rng(3).permutation(30):
        split, image, mask, instances = rows[i]
        counted = sample_statistics(image, mask, instances, num_classes=K, ignore_index=255)
        carried.add(split, pickle.loads(pickle.dumps(counted)))
    assert json.dumps(carried.summary(), sort_keys=True) == expected


def test_nothing_is_undefined_json() -> None:
    """Empty data, data without a labelled pixel, and ordinary data: JSON without NaN, with None where a number is undefined."""
    ignored = np.full((4, 5), 255, np.uint8)
    blank = DatasetStatistics(["a", "b"])
    blank.add("train", sample_statistics(np.zeros((4, 5, 3), np.uint8), ignored, [], num_classes=2, ignore_index=255))
    for total in (DatasetStatistics(["a", "b"]), blank, added(drawn())):
        assert json.loads(json.dumps(total.summary(), allow_nan=False)) == total.summary()
    empty = DatasetStatistics(["a"]).summary()
    assert empty["mean"] is None and empty["sizes"]["height"] is None and empty["classes"][0]["weights"]["median_frequency"] is None
    assert blank.summary()["splits"]["train"]["ignored_share"] == 1.0
    assert blank.summary()["classes"][0]["share"]["train"] is None
    assert DatasetStatistics(["a"]).mean_and_std("train") == ((0.0,) * 3, (1e-6,) * 3)


def test_volumes_are_counted_by_voxel() -> None:
    volume = np.random.default_rng(0).normal(100, 5, (3, 8, 9)).astype(np.float32)
    mask = np.zeros((3, 8, 9), np.uint8)
    mask[1], mask[2] = 1, 255
    total = DatasetStatistics(["background", "heart"])
    total.add("train", sample_statistics(volume, mask, [], num_classes=2, ignore_index=255))
    assert total.pixels("train") == [72, 72]
    mean, std = total.mean_and_std("train")
    assert mean == pytest.approx([volume.mean(dtype=np.float64)], rel=1e-6) and std == pytest.approx(
        [volume.std(dtype=np.float64)], rel=1e-4
    )
    sizes = total.summary()["sizes"]
    assert sizes["common"] == [{"depth": 3, "height": 8, "width": 9, "count": 1}] and sizes["depth"]["max"] == 3


def test_a_label_beyond_the_classes_is_a_broken_promise() -> None:
    with pytest.raises(AssertionError, match="of 2 classes"):
        sample_statistics(np.zeros((1, 3, 3), np.uint8), np.array([[0, 1, 2]], np.uint8), [], num_classes=2, ignore_index=255)


def test_camvid_as_it_was_counted_before(samples: Path) -> None:
    """Shares and median-frequency weights of CamVid's train split that were counted on the files by other means."""
    total = DatasetStatistics([f"{i}" for i in range(11)])
    for path in sorted((samples / "camvid/CamVid/trainannot").glob("*.png")):
        mask = np.asarray(Image.open(path))
        mask = np.where(mask == 11, 255, mask).astype(np.uint8)
        total.add("train", sample_statistics(np.zeros((*mask.shape, 3), np.uint8), mask, [], num_classes=11, ignore_index=255))
    summary = total.summary()
    voxels = summary["splits"]["train"]["pixels"]
    shares = [0.1685, 0.2326, 0.0098, 0.3166, 0.0449, 0.0972, 0.0117, 0.0113, 0.0587, 0.0064, 0.0029]
    assert [n / voxels for n in total.pixels("train")] == pytest.approx(shares, abs=6e-5)
    assert summary["splits"]["train"]["ignored_share"] == pytest.approx(0.0395, abs=6e-5)
    weights = [0.279, 0.202, 4.787, 0.149, 1.0, 0.422, 3.847, 1.974, 0.789, 6.375, 8.859]
    assert [c["weights"]["median_frequency"] for c in summary["classes"]] == pytest.approx(weights, abs=6e-4)
