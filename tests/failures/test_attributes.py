"""The attributes of segments against plain numpy, one by one."""

import cv2
import numpy as np
import pytest

from segpipe.failures import attributes
from segpipe.failures.attributes import collect, describe, label_segments, masks_of
from segpipe.failures.labelling import connected
from tests.failures.networks import blobs
from tests.failures.toy_scenes import CHEST, CRATE, FLAG, GROUND, SIZE, Judge, context_of, write_split


def features(image: np.ndarray) -> np.ndarray:
    """(H, W, 5) in the order of FEATURES."""
    rgb = image.astype(int)
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(int)
    across, down = np.abs(np.diff(grey, axis=1, prepend=grey[:, :1])), np.abs(np.diff(grey, axis=0, prepend=grey[:1]))
    red, green, blue = rgb[..., 0], rgb[..., 1], rgb[..., 2]
    return np.stack([grey, rgb.max(axis=2) - rgb.min(axis=2), red - green, (red + green) // 2 - blue, across + down], axis=-1)


@pytest.mark.parametrize("seed", range(4))
def test_every_number_is_what_its_name_says(seed: int) -> None:
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (41, 57, 3), dtype=np.uint8)
    target = blobs(rng, size=(41, 57), classes=4, cell=9)
    prediction = blobs(rng, size=(41, 57), classes=4, cell=5)
    target[30:33] = 255
    table, grid, middle, present = describe(image, target, prediction, num_classes=4, ignore_index=255)
    labels, count = connected(np.where(target == 255, 0, target.astype(int) + 1))
    assert 3 < len(table["label"]) <= count
    values = features(image)
    for i, label in enumerate(table["label"]):
        inside = labels == label
        own = int(target[inside][0])
        rows, columns = np.nonzero(inside)
        box = rows.min(), columns.min(), rows.max() + 1, columns.max() + 1
        assert (table["class"][i], table["area"][i]) == (own, inside.sum())
        assert tuple(table[key][i] for key in ("top", "left", "bottom", "right")) == box
        votes = np.bincount(prediction[inside], minlength=4)
        assert table["wrong"][i] == pytest.approx(1 - votes[own] / inside.sum())
        best = int(votes.argmax())
        assert table["predicted"][i] == best
        assert table["confused"][i] == (best if best != own and 2 * votes[best] >= inside.sum() else -1)
        reach = int(np.clip(max(box[2] - box[0], box[3] - box[1]) // 2, 4, 64))
        ring = np.zeros_like(inside)
        ring[max(0, box[0] - reach) : box[2] + reach, max(0, box[1] - reach) : box[3] + reach] = True
        ring &= ~inside
        for k, name in enumerate(attributes.FEATURES):
            assert table[f"object/{name}"][i] == pytest.approx(values[inside][:, k].mean(), abs=1e-3)
            assert table[f"image/{name}"][i] == pytest.approx(values[..., k].mean(), abs=1e-3)
            if ring.sum() >= 0.05 * inside.sum():
                assert table[f"around/{name}"][i] == pytest.approx(values[ring][:, k].mean(), abs=1e-3)
            else:
                assert np.isnan(table[f"around/{name}"][i])
        assert table["object/border"][i] == (box[0] == 0 or box[1] == 0 or box[2] == 41 or box[3] == 57)
        assert table["object/size"][i] == pytest.approx(np.log2(inside.sum()))
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(float)
    bend = cv2.Laplacian(grey, cv2.CV_64F, ksize=1)[1:-1, 1:-1]
    mean = bend.sum() / grey.size
    assert table["image/sharpness"][0] == pytest.approx(np.log1p((bend**2).sum() / grey.size - mean**2), rel=1e-5)
    assert table["image/contrast"][0] == pytest.approx(grey.std(), rel=1e-5)
    np.testing.assert_array_equal(present, [(target == c).any() for c in range(4)])
    # The cells cover the image once: their mean, weighted by their size, is the image's.
    sizes = [np.diff(np.linspace(0, side, attributes.GRID + 1).astype(int)) for side in (41, 57)]
    weights = np.outer(*sizes)[..., None] / grey.size
    np.testing.assert_allclose((grid * weights).sum(axis=(0, 1)), values.mean(axis=(0, 1)), rtol=2e-3, atol=0.2)
    assert middle.shape == (attributes.GRID, attributes.GRID) and set(np.unique(middle)) <= set(np.unique(target))


def test_company_and_places(tmp_path) -> None:
    split = write_split(tmp_path, images=12)
    found = collect(context_of(split, Judge("object")))
    table = found.segments
    for i, name in enumerate(split.ids):
        _, target = split.arrays(i)
        mine = table[table["id"] == name]
        flagged = float((target == FLAG).any())
        boxes = mine[mine["class"].isin([CRATE, CHEST])]
        assert len(boxes) == connected(np.isin(target, (CRATE, CHEST)) * target)[1]
        assert (boxes[f"with/{FLAG}"] == flagged).all() and boxes[f"beside/{GROUND}"].all()
        assert (boxes["around"] == GROUND).mean() > 0.5
        assert boxes.loc[boxes["class"] == CRATE, f"with/{CRATE}"].isna().all()
        assert (mine["image/classes"] == len(np.unique(target))).all()
    assert "group" not in found.names and "folder" not in found.names, "all images have their own group and no folder"
    assert set(found.names) <= set(table.columns)


def test_masks_are_the_segments_of_the_labels() -> None:
    target = blobs(np.random.default_rng(1), size=SIZE, classes=3)
    labels, count, stride = label_segments(target, ignore_index=255)
    assert stride == 1
    masks = masks_of(target, range(1, count + 1), ignore_index=255)
    assert (masks.sum(axis=0) == 1).all()
    np.testing.assert_array_equal((masks * np.arange(1, count + 1)[:, None, None]).sum(axis=0), labels)


def test_a_large_image_is_looked_at_in_every_second_row_and_column() -> None:
    """The numbers change little, sizes and boxes are those of the whole image."""
    rng = np.random.default_rng(2)
    target = blobs(rng, size=(400, 600), classes=3, cell=100)
    image = np.kron(rng.integers(0, 256, (20, 30, 3)), np.ones((20, 20, 1), int)).astype(np.uint8)
    prediction = np.roll(target, 30, axis=1)
    small, *_ = describe(image, target, prediction, num_classes=3, ignore_index=255)
    doubled = [np.kron(a, np.ones((2, 2) + (1,) * (a.ndim - 2), np.uint8)) for a in (image, target, prediction)]
    large, *_ = describe(*doubled, num_classes=3, ignore_index=255)
    assert attributes.stride_of(800, 1200) == 2 == attributes.stride_of(720, 960)
    np.testing.assert_array_equal(large["area"], 4 * small["area"])
    np.testing.assert_array_equal(large["bottom"], 2 * small["bottom"])
    for name in ("wrong", "object/texture", "object/brightness", "image/saturation", "object/row"):
        np.testing.assert_allclose(large[name], small[name], atol=1e-4)
    labels = large["label"][:2]
    masks = masks_of(np.kron(target, np.ones((2, 2), np.uint8)), labels, ignore_index=255)
    np.testing.assert_array_equal(masks.sum(axis=(1, 2)), large["area"][:2])
