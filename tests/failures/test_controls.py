"""Controls are of the error's class, right, of its size, alike in setting, and the same for the same seed."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segpipe.failures.context import Context
from segpipe.failures.controls import DRAWS, FITS, SMALLEST, find_controls, match, outline_of
from segpipe.failures.labelling import connected
from segpipe.failures.look import Viewer
from segpipe.failures.survey import survey
from segpipe.shards import Sample, Split, SplitWriter, encode_image, encode_mask
from tests.failures.networks import GRIDS, Reader, blobs


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6), st.integers(2, 4))
def test_a_control_is_right_and_alike(seed: int, classes: int) -> None:
    rng = np.random.default_rng(seed)
    target = blobs(rng, size=(48, 64), classes=classes, cell=16)
    prediction = np.where(rng.random((48, 64)) < 0.02, rng.integers(0, classes, (48, 64)), target)
    top, left, height, width = rng.integers(0, 40), rng.integers(0, 50), rng.integers(1, 12), rng.integers(1, 12)
    true = int(target[top, left])
    region = np.zeros((48, 64), bool)
    region[top : top + height, left : left + width] = target[top : top + height, left : left + width] == true
    prediction[region] = (true + 1) % classes
    found = match(outline_of(region, target=target), target=target, prediction=prediction, true=true, rng=rng)
    right = (target == true) & (prediction == true)
    if found is None:
        pieces = np.bincount(connected(right.astype(np.uint8))[0].ravel())[1:]
        assert pieces.max(initial=0) < SMALLEST * region.sum()
        return
    assert not (found & ~right).any()
    assert SMALLEST * region.sum() <= found.sum() <= region.sum()
    assert not (found & region).any()


def test_the_outline_is_moved_where_it_fits() -> None:
    target, prediction = np.zeros((60, 80), np.uint8), np.zeros((60, 80), np.uint8)
    region = np.zeros((60, 80), bool)
    region[5:9, 5:30] = region[9:20, 5:8] = True
    prediction[region] = 1
    prediction[30, 40] = 1  # one wrong pixel is allowed under an outline of 133
    outline = outline_of(region, target=target)
    found = match(outline, target=target, prediction=prediction, true=0, rng=np.random.default_rng(0))
    assert found is not None
    rows, columns = np.nonzero(found)
    cut = found[rows.min() : rows.min() + 15, columns.min() : columns.min() + 25]
    assert cut.shape == outline.mask.shape and not (cut & ~outline.mask).any()
    assert cut.sum() >= FITS * outline.area


def test_the_place_most_like_the_errors_own_is_taken() -> None:
    """Errors along the class's edge get controls along it, errors in the middle get them in the middle."""
    target = np.zeros((120, 160), np.uint8)
    target[:, 80:] = 1
    distances = {}
    for name, columns in (("edge", slice(74, 80)), ("middle", slice(36, 42))):
        region = np.zeros(target.shape, bool)
        region[50:60, columns] = True
        prediction = np.where(region, 1, target)
        found = [
            match(outline_of(region, target=target), target=target, prediction=prediction, true=0, rng=np.random.default_rng(seed))
            for seed in range(12)
        ]
        assert all(one is not None for one in found)
        distances[name] = np.mean([80 - np.nonzero(one)[1].mean() for one in found])
        assert len({one.tobytes() for one in found}) > 6, "seeds draw different places"
    # The error's middle is 3 and 41 pixels from the edge.
    assert distances["edge"] < 10 and distances["middle"] > 20
    assert DRAWS < 120 * 80 / 60


def test_a_patch_is_grown_where_the_outline_fits_nowhere() -> None:
    """A pole 3 pixels wide: no place for a square, but for a piece of the pole of the same area."""
    target = np.zeros((60, 40), np.uint8)
    target[:, 10:13] = 1
    target[40:49, 8:18] = 1
    region = np.zeros(target.shape, bool)
    region[40:49, 8:18] = True
    prediction = np.where(region, 0, target)
    outline = outline_of(region, target=target)
    found = match(outline, target=target, prediction=prediction, true=1, rng=np.random.default_rng(3))
    assert found is not None and found.sum() == 90 and found[:40, 10:13].sum() == 90
    assert connected(found.astype(np.uint8))[1] == 1
    # Correct pixels, but in crumbs.
    prediction = np.where((np.indices(target.shape).sum(axis=0) % 7 == 0) & (target == 1) & ~region, 1, 0)
    prediction[target == 0] = 0
    crumbs = match(outline, target=target, prediction=prediction, true=1, rng=np.random.default_rng(3))
    assert crumbs is None


def context_of(folder: Path, targets: list[np.ndarray], predictions: list[np.ndarray], seed: int = 0) -> Context:
    with SplitWriter(folder, "test") as writer:
        for i, target in enumerate(targets):
            picture = encode_image(np.zeros((*target.shape, 3), np.uint8))
            size = {"height": target.shape[0], "width": target.shape[1]}
            writer.write(Sample(id=f"i{i}", image=picture, mask=encode_mask(target), group="", source="", **size))
    model = Reader(classes=3)
    viewer = Viewer(
        model=model, layers={"pooled": model.pooled}, grids=GRIDS, mean=(0, 0, 0), std=(1, 1, 1), size=None, device="cpu"
    )
    return Context(
        split=Split(folder, "test"),
        predictions={f"i{i}": prediction for i, prediction in enumerate(predictions)},
        viewer=viewer,
        class_names=("a", "b", "c"),
        ignore_index=255,
        units=np.arange(len(targets)),
        seed=seed,
    )


def controls_of(context: Context, keep: list[int] | None = None) -> tuple[pd.DataFrame, list]:
    found = survey(context)
    errors = found.regions if keep is None else found.regions.iloc[keep]
    correct = np.diagonal(found.counts, axis1=1, axis2=2)
    return errors, find_controls(errors, context=context, correct=correct)


def test_another_image_stands_in_and_where_none_can_there_is_no_control(tmp_path: Path) -> None:
    """Class 1 is wrong all over image 0 and right in 1 and 2; class 2 is right nowhere."""
    base = np.zeros((40, 50), np.uint8)
    base[10:20, 10:30] = 1
    base[30:36, 5:15] = 2
    wrong = np.where(base == 1, 0, base)
    wrong[base == 2] = 0
    right = np.where(base == 2, 0, base)
    context = context_of(tmp_path, [base, base, base], [wrong, right, right])
    errors, found = controls_of(context)
    assert list(zip(errors["id"], errors["true"], strict=True)) == [("i0", 1), ("i0", 2), ("i1", 2), ("i2", 2)]
    assert [(one.matched, one.true, one.predicted, one.area) for one in found] == [(0, 1, 0, 200)]
    assert found[0].id in ("i1", "i2")
    np.testing.assert_array_equal(found[0].region, base == 1)
    # Of the two, the one that is shown anyway.
    assert controls_of(context, keep=[0, 3])[1][0].id == "i2"
    assert controls_of(context, keep=[0, 2])[1][0].id == "i1"


@pytest.fixture(scope="module")
def random_world(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[np.ndarray], list[np.ndarray], Path]:
    rng = np.random.default_rng(4)
    targets = [blobs(rng, size=(48, 64), classes=3, cell=16) for _ in range(5)]
    predictions = []
    for target in targets:
        prediction = target.copy()
        prediction[8:20, 6:40] = (target[8:20, 6:40] + 1) % 3
        predictions.append(prediction)
    return targets, predictions, tmp_path_factory.mktemp("random")


def test_controls_match_their_errors_and_do_not_depend_on_the_others(
    random_world: tuple[list[np.ndarray], list[np.ndarray], Path], tmp_path: Path
) -> None:
    targets, predictions, folder = random_world
    context = context_of(folder, targets, predictions)
    errors, found = controls_of(context)
    assert len(found) > 0.8 * len(errors)
    assert [one.matched for one in found] == sorted(one.matched for one in found)
    for one in found:
        row = errors.loc[one.matched]
        _, target, prediction = context.arrays(one.id)
        assert (one.true, one.predicted) == (row["true"], row["predicted"])
        assert (target[one.region] == one.true).all() and (prediction[one.region] == one.true).all()
        assert one.size == (48, 64) and SMALLEST * row["area"] <= one.area <= row["area"]
    at_home = [one for one in found if one.id == errors.loc[one.matched, "id"]]
    assert len(at_home) > 0.7 * len(found)
    fewer = {one.matched: one for one in controls_of(context, keep=list(range(0, len(errors), 2)))[1]}
    for one in at_home:
        if one.matched in fewer:
            np.testing.assert_array_equal(one.region, fewer[one.matched].region)
    other = controls_of(context_of(tmp_path, targets, predictions, seed=1))[1]
    assert any((a.top, a.left) != (b.top, b.left) for a, b in zip(found, other, strict=False))
