"""What an evaluation measures beside the confusion counts: masks, confidence, objects, other modes, corruptions."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import Tensor

from segpipe import calibration, confusion, corruptions, gains, results, surfaces
from segpipe.answers import fitted_temperature
from segpipe.evaluation_files import scores_of, write_evaluation
from segpipe.inference import predict, predict_labels
from segpipe.instance_scores import InstanceScores
from segpipe.shards import Split, read_info
from tests.test_evaluation import IDS, MEAN, METRICS, NAMES, SIZES, STD, Brightest, evaluated, pairs, tree_of, write_dataset

HOW = {"mean": MEAN, "std": STD}


def test_metrics_of_masks_and_bands_are_those_of_the_labels(tmp_path: Path) -> None:
    write_dataset(tmp_path / "data")
    found = evaluated(tmp_path / "data")
    bands = np.zeros_like(found.trimap)
    for index, (image, mask) in enumerate(pairs()):
        labels = image.argmax(axis=2).astype(np.uint8)
        _, of_masks = surfaces.split(METRICS)
        expected = surfaces.measure(mask, labels, num_classes=4, ignore_index=255, metrics=of_masks)
        assert set(expected) == set(found.masks) >= {"boundary_iou", "hd95_pooled", "assd", "nsd_tau1px"}
        for key, values in expected.items():
            np.testing.assert_array_equal(found.masks[key][index], values)
        bands += surfaces.trimap_counts(mask, labels, num_classes=4, ignore_index=255)
    np.testing.assert_array_equal(found.trimap, bands)
    scores = scores_of(found)
    assert scores["mean_assd"] > 0 and scores["distance_unit"] == "px"
    # Labels change all the time here, so the widest band holds every pixel.
    assert scores["trimap_miou"]["32"] == pytest.approx(scores["miou"]) and list(scores["trimap_miou"])[0] == "1"


def test_distances_are_in_millimetres_where_every_image_knows_its_spacing(tmp_path: Path) -> None:
    write_dataset(tmp_path / "pixels")
    write_dataset(tmp_path / "mm", spacing=[2.0, 2.0])
    in_pixels, in_mm = evaluated(tmp_path / "pixels"), evaluated(tmp_path / "mm")
    assert (in_pixels.distance_unit, in_mm.distance_unit) == ("px", "mm")
    np.testing.assert_allclose(in_mm.masks["assd"], 2 * in_pixels.masks["assd"])
    np.testing.assert_array_equal(in_mm.masks["nsd_tau1px"], in_pixels.masks["nsd_tau1px"])


def test_confidence_has_the_temperature_of_val_and_is_kept_beside_the_labels(tmp_path: Path) -> None:
    write_dataset(tmp_path / "data", val=3)
    test, val = Split(tmp_path / "data", "test"), Split(tmp_path / "data", "val")
    with results.PredictionWriter(tmp_path / "out") as writer:
        found = evaluated(tmp_path / "data", val=val, on_answer=writer.write)
    model = Brightest().eval()
    # Val is so small that each of its labelled pixels is in the fit.
    logits = [predict(model, val.arrays(i)[0], **HOW).reshape(4, -1).T for i in range(3)]
    labels = [val.arrays(i)[1].ravel() for i in range(3)]
    valid = [mask != 255 for mask in labels]
    expected = calibration.fit_temperature(
        np.concatenate([z[v] for z, v in zip(logits, valid, strict=True)]),
        np.concatenate([m[v] for m, v in zip(labels, valid, strict=True)]).astype(np.int64),
    )
    assert found.calibration.temperature == pytest.approx(expected, rel=1e-6) and found.calibration_images == 3
    assert expected > 1.2, "a third of the labels is noise, which the network does not know"
    read = results.read_predictions(tmp_path / "out")
    for index in range(len(test)):
        sure = calibration.confidence(predict(model, test.arrays(index)[0], **HOW), temperature=found.calibration.temperature)
        np.testing.assert_array_equal(read.confidence(IDS[index]), calibration.as_bytes(sure))
    scores = write_evaluation(tmp_path / "out", found)
    document = results.read_calibration(tmp_path / "out")
    assert document["images"] == scores["temperature_images"] == 3
    assert document["after"]["pixels"] == found.counts.sum() and document["after"]["accuracy"] == pytest.approx(scores["pa"])
    assert scores["ece"] == document["after"]["ece"] != scores["ece_without_temperature"] == document["before"]["ece"]


def test_without_val_the_confidence_stays_as_it_is(tmp_path: Path) -> None:
    write_dataset(tmp_path / "data")
    model, how = Brightest().eval(), {**HOW, "size": None, "tta": "none", "tile": "auto", "device": "cpu"}
    for val in (None, Split(tmp_path / "data", "val")):
        assert fitted_temperature(model, val, tests=5, ignore_index=255, seed=0, how=how) == (1.0, 0)
    ignored = Split(tmp_path / "data", "test")
    assert fitted_temperature(model, ignored, tests=5, ignore_index=255, seed=0, how=how)[1] == 5
    scores = scores_of(evaluated(tmp_path / "data", val=Split(tmp_path / "data", "val")))
    assert (scores["temperature"], scores["temperature_images"]) == (1.0, 0)
    assert scores["ece"] == scores["ece_without_temperature"]


@pytest.mark.parametrize(("tests", "images"), [(1, 5), (20, 5), (81, 9), (10_000, 20)])
def test_the_fit_asks_for_few_images_spread_over_val(tmp_path: Path, tests: int, images: int) -> None:
    class Long:
        """Twenty copies of a split."""

        def __init__(self, split: Split) -> None:
            self.split, self.seen, self.ids = split, list[int](), [f"image {i}" for i in range(20)]

        def __len__(self) -> int:
            return 20

        def arrays(self, index: int) -> tuple[np.ndarray, np.ndarray]:
            self.seen.append(index)
            return self.split.arrays(3)

    write_dataset(tmp_path / "data")
    val = Long(Split(tmp_path / "data", "test"))
    how = {**HOW, "size": None, "tta": "none", "tile": "auto", "device": "cpu"}
    _, fitted = fitted_temperature(Brightest().eval(), val, tests=tests, ignore_index=255, seed=0, how=how)  # type: ignore[arg-type]
    assert fitted == len(val.seen) == len(set(val.seen)) == images
    assert val.seen[0] == 0 and val.seen[-1] == 19


def test_predictions_without_confidence_ask_for_a_new_run(tmp_path: Path) -> None:
    with results.PredictionWriter(tmp_path) as writer:
        writer.write("a", np.zeros((2, 3), np.uint8))
    old = pa.ipc.open_file(str(tmp_path / "predictions.arrow")).read_all().drop_columns(["confidence"])
    (tmp_path / "old").mkdir()
    with pa.ipc.new_file(str(tmp_path / "old" / "predictions.arrow"), old.schema) as file:
        file.write_table(old)
    for folder in (tmp_path, tmp_path / "old"):
        read = results.read_predictions(folder)
        assert read["a"].shape == (2, 3)
        with pytest.raises(ValueError, match=r"predictions.arrow: holds no confidence. Run `dvc repro`"):
            read.confidence("a")
        with pytest.raises(ValueError, match="holds no prediction for 'b'"):
            read.confidence("b")


def test_objects_are_scored_where_the_dataset_has_them(tmp_path: Path) -> None:
    write_dataset(tmp_path / "data", things=True)
    answers: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    found = evaluated(tmp_path / "data", on_answer=lambda name, *both: answers.update({name: both}))
    expected = InstanceScores(read_info(tmp_path / "data").classes, ignore_index=255)
    for name, (_, mask) in zip(IDS, pairs(), strict=True):
        expected.add([tree_of(mask)] if (mask == 2).any() else [], mask, *answers[name])
    assert found.instances is not None and found.instances == expected.document()
    scores = scores_of(found)
    assert scores["pq"] == found.instances["pq"]["pq"] and scores["ap"] == found.instances["ap"]["ap"]
    write_dataset(tmp_path / "stuff")
    assert not {"ap", "pq", "instances"} & set(scores_of(evaluated(tmp_path / "stuff")))


class Watchful(Brightest):
    """Right of the middle of its input it takes the third channel less seriously: modes and corruptions change its labels."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        out = super().forward(x)["out"]
        right = torch.arange(x.shape[-1]) > x.shape[-1] // 2
        out[:, 2] -= 0.5 * right
        return {"out": out}


def test_variants_are_counted_as_if_they_were_alone(tmp_path: Path) -> None:
    write_dataset(tmp_path / "data")
    found = evaluated(tmp_path / "data", model=Watchful(), modes=["flip", "tiles", "scales"], damages=["noise", "jpeg"], seed=5)
    names = ["flip", "tiles", "scales", "noise-1", "noise-3", "noise-5", "jpeg-1", "jpeg-3", "jpeg-5"]
    assert [variant.name for variant in found.variants] == names
    for index, options in enumerate(({"tta": "flip"}, {"tile": "parts"}, {"tta": "scales"})):
        np.testing.assert_array_equal(found.variant_counts[index], evaluated(tmp_path / "data", model=Watchful(), **options).counts)
    image, mask = pairs()[1]
    damaged = corruptions.corrupt(image, name="noise", severity=3, seed=5, image_id=IDS[1])
    labels = predict_labels(Watchful().eval(), damaged, **HOW)
    np.testing.assert_array_equal(found.variant_counts[4, 1], confusion.count(mask, labels, num_classes=4, ignore_index=255))
    np.testing.assert_array_equal(found.counts, evaluated(tmp_path / "data", model=Watchful()).counts)
    assert (found.variant_seconds > 0).all() and found.variant_seconds.shape == (9, 5)
    scores = write_evaluation(tmp_path / "out", found)
    read = results.read_variants(tmp_path / "out")
    assert (read.names, read.kinds) == (names, ["mode"] * 3 + ["corruption"] * 6)
    np.testing.assert_array_equal(read.counts, found.variant_counts)
    np.testing.assert_array_equal(read.seconds, found.variant_seconds)
    assert list(scores["modes"]) == names[:3] and list(scores["corruptions"]) == ["mean", *names[3:]]
    flip = results.score(found.variant_counts[0], class_names=NAMES)["miou"]
    assert scores["modes"]["flip"]["miou"] == flip
    assert scores["modes"]["flip"]["gain"] == pytest.approx(flip - scores["miou"])
    assert json.loads((tmp_path / "out" / "scores.json").read_text()) == scores


def test_without_variants_the_files_are_there_and_empty(tmp_path: Path) -> None:
    write_dataset(tmp_path / "data")
    scores = write_evaluation(tmp_path, evaluated(tmp_path / "data"))
    read = results.read_variants(tmp_path)
    assert read.counts.shape == (0, 5, 4, 4) and read.counts.dtype == np.int64 and read.names == [] == read.kinds
    assert scores["modes"] == {} == scores["corruptions"]
    assert set(results.read_masks(tmp_path)) == {*evaluated(tmp_path / "data").masks, "trimap", "trimap_radii"}


def test_everything_undefined_is_null(tmp_path: Path) -> None:
    write_dataset(tmp_path / "data")
    found = evaluated(tmp_path / "data", modes=["flip"], damages=["blur"])
    empty = calibration.Calibration(temperature=1.0, ignore_index=255)
    blank = replace(
        found,
        **{key: 0 * getattr(found, key) for key in ("counts", "network_counts", "variant_counts", "trimap")},
        masks={key: np.full_like(values, np.nan) for key, values in found.masks.items()},
        calibration=empty,
    )
    scores = write_evaluation(tmp_path, blank)
    assert scores["miou"] is None and scores["ece"] is None and scores["mean_assd"] is None
    assert scores["modes"]["flip"]["gain"] is None and scores["corruptions"]["mean"]["drop"] is None
    assert scores["trimap_miou"]["1"] is None
    json.loads((tmp_path / "scores.json").read_text(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def test_a_network_that_diverged_is_scored(tmp_path: Path) -> None:
    write_dataset(tmp_path / "data", val=2)
    for value in (float("nan"), float("inf"), -float("inf")):
        model = Brightest()
        model.weight.data.fill_(value)
        scores = scores_of(evaluated(tmp_path / "data", model=model, val=Split(tmp_path / "data", "val")))
        assert scores["n_images"] == len(SIZES) and 0 <= scores["ece"] <= 1


def test_a_small_drop_of_every_image_is_told_from_none() -> None:
    """Counts made by hand: a variant that loses the same tenth of class 1 on every image, and one that changes nothing."""
    main = np.zeros((12, 2, 2), np.int64)
    main[:] = [[80, 10], [10, 40]]
    main[:, 0, 0] += np.arange(12)
    worse = main.copy()
    worse[:, 1] = [14, 36]
    names, groups = ["a", "b"], [""] * 12
    rows = [("noise", 1, main), ("noise", 3, worse)]
    scores = gains.corruption_scores(main, rows, groups=groups, class_names=names, seed=0)
    same, lost, mean = scores["noise-1"], scores["noise-3"], scores["mean"]
    assert (same["drop"], same["drop_low"], same["drop_high"]) == (0, 0, 0)
    iou = [results.score(counts, class_names=names)["iou"] for counts in (main, worse)]
    for name in names:
        assert lost["classes"][name]["drop"] == pytest.approx(iou[0][name] - iou[1][name])
    assert 0 < lost["drop_low"] < lost["drop"] < lost["drop_high"] and (lost["corruption"], lost["severity"]) == ("noise", 3)
    assert mean["drop"] == pytest.approx(lost["drop"] / 2) and mean["miou"] == pytest.approx((same["miou"] + lost["miou"]) / 2)
    assert mean["kept"] == pytest.approx(mean["miou"] / same["miou"])
    modes = gains.mode_scores(worse, [("flip", main, 0.2)], groups=groups, main_seconds=0.1, seed=0)["flip"]
    assert modes["gain"] == pytest.approx(lost["drop"]) and modes["cost_ratio"] == 2 and modes["p"] == pytest.approx(2 / 2**12)
    assert 0 < modes["gain_low"] < modes["gain"] < modes["gain_high"]
    assert gains.corruption_scores(main, [], groups=groups, class_names=names, seed=0) == {}
