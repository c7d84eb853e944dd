"""The first look at a split: its rows, its books, and that images do not know of each other."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from torch import nn

from segpipe.failures import modes
from segpipe.failures.context import KEPT, Context
from segpipe.failures.look import Viewer
from segpipe.failures.survey import survey
from segpipe.failures.tables import Books, mode_table, modifier_table, pair_table
from segpipe.metrics import mean_iou
from segpipe.shards import Sample, Split, SplitWriter, encode_image, encode_mask
from tests.failures.networks import blobs

NAMES = ("a", "b", "c")
SIZES = [(40, 56), (64, 48), (33, 33), (40, 40), (24, 70)]


class Sure(dict[str, np.ndarray]):
    """Predictions that are all equally sure."""

    def confidence(self, name: str) -> np.ndarray:
        return np.full(self[name].shape, 247, np.uint8)


def world(folder: Path, count: int) -> tuple[Split, Sure]:
    """Images s0, s1, ... of different sizes; what image i holds does not depend on `count`."""
    predictions = Sure()
    folder.mkdir()
    with SplitWriter(folder, "test") as writer:
        for i in range(count):
            rng = np.random.default_rng([7, i])
            height, width = SIZES[i % len(SIZES)]
            target, wrong = (blobs(rng, size=(height, width), classes=3, cell=c) for c in (9, 6))
            predictions[f"s{i}"] = np.where(blobs(rng, size=(height, width), classes=3, cell=5) > 0, target, wrong)
            target[:, :2] = 255
            image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
            encoded = {"image": encode_image(image), "mask": encode_mask(target), "height": height, "width": width}
            writer.write(Sample(id=f"s{i}", group="", source="", **encoded))
    return Split(folder, "test"), predictions


def context(split: Split, predictions: dict[str, np.ndarray]) -> Context:
    viewer = Viewer(model=nn.Identity(), layers={}, grids={}, mean=(0,), std=(1,), size=None, device="cpu")
    units = np.arange(len(split)) // 2
    return Context(split=split, predictions=predictions, viewer=viewer, class_names=NAMES, ignore_index=255, units=units, seed=0)


@pytest.fixture(scope="module")
def five(tmp_path_factory: pytest.TempPathFactory) -> Context:
    return context(*world(tmp_path_factory.mktemp("survey") / "five", 5))


def test_the_books_balance(five: Context) -> None:
    found = survey(five)
    assert found.counts.shape == (5, 3, 3)
    books = Books(regions=found.regions, counts=found.counts, ids=tuple(five.positions), units=five.units, seed=0)
    for row, (name, group) in enumerate(found.regions.groupby("id", sort=False)):
        assert name == f"s{row}"
        assert group["area"].sum() == found.counts[row].sum() - np.trace(found.counts[row])
        assert (group["unit"] == row // 2).all()
    assert books.wrong == found.regions["area"].sum() > 0
    assert set(found.regions["mode"]) <= set(modes.MODES) and len(set(found.regions["mode"])) >= 4
    assert (found.regions["confidence"] == np.float32(247 / 255)).all()
    assert found.regions["suspect"].equals(found.regions["thickness"] > 6), "radius 3 on images this small"
    pairs, kinds = pair_table(books, mean_iou=mean_iou.compute), mode_table(books, mean_iou=mean_iou.compute)
    assert sum(row["pixels"] for row in pairs) == sum(row["pixels"] for row in kinds) == books.wrong
    assert [row["mode"] for row in kinds] == list(modes.MODES)
    for row in [*pairs, *kinds, *modifier_table(books, mean_iou=mean_iou.compute)]:
        assert row["cost_low"] <= row["cost"] + 0.01 and row["cost"] <= row["cost_high"] + 0.01
        assert row["pixels"] or row["cost"] == row["cost_low"] == row["cost_high"] == 0


def test_another_image_changes_nothing_in_the_rows_of_the_others(five: Context, tmp_path: Path) -> None:
    some, more = survey(five).regions, survey(context(*world(tmp_path / "seven", 7))).regions
    pd.testing.assert_frame_equal(more.iloc[: len(some)], some)
    assert len(more) > len(some)


def test_what_does_not_know_its_confidence_has_none(five: Context) -> None:
    plain = survey(context(five.split, dict(five.predictions))).regions
    assert plain["confidence"].isna().all() and not plain["suspect"].any()
    pd.testing.assert_frame_equal(
        plain.drop(columns=["confidence", "suspect"]), survey(five).regions[plain.columns].drop(columns=["confidence", "suspect"])
    )


def test_a_context_keeps_the_last_few_images_decoded(tmp_path: Path) -> None:
    one = context(*world(tmp_path / "many", KEPT + 2))
    first = one.arrays("s0")
    assert one.arrays("s0")[0] is first[0]
    for name in one.positions:
        image, target, prediction = one.arrays(name)
        assert image.shape[:2] == target.shape == prediction.shape
    assert one.arrays("s0")[0] is not first[0]
    np.testing.assert_array_equal(one.arrays("s0")[0], first[0])
