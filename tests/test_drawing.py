"""Pictures of labels: exact colours, visible ignored pixels, sheets that hold what they should."""

import numpy as np
import pytest

from segpipe import drawing
from segpipe.shards import ClassInfo

PALETTE = np.array([[10, 20, 30], [200, 0, 0], [0, 200, 0]], np.uint8)
CLASSES = [ClassInfo(name=n, colour=tuple(map(int, c))) for n, c in zip(("ground", "red", "green"), PALETTE, strict=True)]


def test_colour_mask_is_exact_and_ignored_is_black() -> None:
    mask = np.array([[0, 1], [2, 255]], np.uint8)
    assert (drawing.colour_mask(mask, PALETTE) == [[PALETTE[0], PALETTE[1]], [PALETTE[2], [0, 0, 0]]]).all()


def test_colour_mask_of_many_classes() -> None:
    mask = np.array([[300, 65535]], np.uint16)
    palette = np.zeros((301, 3), np.uint8)
    palette[300] = 7
    assert drawing.colour_mask(mask, palette, ignore_index=65535).tolist() == [[[7, 7, 7], [0, 0, 0]]]


def test_a_label_without_colour_is_an_error() -> None:
    with pytest.raises(ValueError, match="label 9"):
        drawing.colour_mask(np.full((2, 2), 9, np.uint8), PALETTE)


def test_overlay_mixes_inside_and_shows_edges() -> None:
    image = np.full((12, 12, 3), 100, np.uint8)
    mask = np.zeros((12, 12), np.uint8)
    mask[:, 6:] = 1
    drawn = drawing.overlay(image, mask, PALETTE, alpha=0.5)
    assert drawn.dtype == np.uint8
    assert drawn[3, 9].tolist() == [150, 50, 50]
    assert drawn[3, 2].tolist() == [55, 60, 65]
    assert drawn[3, 5].tolist() == [23, 32, 40], "the edge shows 85 % of the label's colour"
    assert (drawing.overlay(image, mask, PALETTE, alpha=1.0) == drawing.colour_mask(mask, PALETTE)).all()


def test_ignored_pixels_keep_the_image_darkened_and_hatched() -> None:
    image = np.full((12, 12, 3), 200, np.uint8)
    drawn = drawing.overlay(image, np.full((12, 12), 255, np.uint8), PALETTE)
    assert sorted(np.unique(drawn)) == [60, 150]


def test_overlay_refuses_another_size() -> None:
    with pytest.raises(ValueError, match="size|height"):
        drawing.overlay(np.zeros((4, 4, 3), np.uint8), np.zeros((4, 5), np.uint8), PALETTE)


def test_legend_wraps_and_names_the_ignored() -> None:
    wide, narrow = (drawing.legend(CLASSES, width=w, ignored=True) for w in (600, 120))
    assert wide.shape[1] == 600 and narrow.shape[1] == 120 and narrow.shape[0] > wide.shape[0]
    for colour in [*PALETTE, [0, 0, 0]]:
        assert (wide == colour).all(-1).any()


def test_contact_sheet_holds_every_image_and_overlay() -> None:
    rng = np.random.default_rng(0)
    rows = [
        (f"id-{i}", rng.integers(0, 255, (h, 40, 3), np.uint8), np.full((h, 40), i % 3, np.uint8))
        for i, h in enumerate((20, 30, 40, 20))
    ]
    sheet = drawing.contact_sheet(rows, CLASSES, title="a title", columns=3, tile_width=40)
    for _, image, mask in rows:
        for picture in (image, drawing.overlay(image, mask, PALETTE)):
            assert find(sheet, picture), "a picture is missing from the sheet"


def find(sheet: np.ndarray, picture: np.ndarray) -> bool:
    height, width = picture.shape[:2]
    corners = zip(*np.nonzero((sheet == picture[0, 0]).all(-1)), strict=True)
    return any(np.array_equal(sheet[y : y + height, x : x + width], picture) for y, x in corners)
