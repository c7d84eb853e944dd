"""Which images the comparison page shows, what their pictures say, and in how many bytes."""

import numpy as np

from segpipe import confusion
from segpipe.agreement import ONLY_B, count_agreement
from segpipe.pages.comparison_pictures import (
    BOTH_WRONG_COLOUR,
    IGNORED,
    ONLY_A_COLOUR,
    ONLY_B_COLOUR,
    RIGHT,
    Cell,
    PictureRow,
    choose_images,
    difference_map,
    encoded,
    versus_rows,
)
from tests.pages.small import graded, small_comparison


def test_chosen_images() -> None:
    a = graded([10, 90, 50, 99, 60, 70, 80, 95, 40, 85, 20, 97])
    b = graded([12, 88, 90, 98, 62, 71, 79, 94, 41, 20, 21, 96])
    chosen = choose_images(small_comparison({"a": a, "b": b}))
    by_reason = {why: [i for i, w in chosen if w == why] for _, why in chosen}
    assert by_reason == {"worst": [0, 10, 8], "best": [3, 11, 7], "most disagreed": [9, 2, 1]}
    a[5] = 0
    assert 5 not in [i for i, _ in choose_images(small_comparison({"a": a, "b": b}))]
    assert {why for _, why in choose_images(small_comparison({"a": a}))} == {"worst", "best"}


def test_a_difference_map_says_who_is_right() -> None:
    truth = np.full((6, 6), 1, np.uint8)
    a, b = truth.copy(), truth.copy()
    truth[0, 0] = 255
    b[2, 2], a[3, 3], a[4, 4], b[4, 4] = 0, 0, 0, 2
    picture = difference_map(truth, a, b, ignore_index=255)
    places = {(0, 0): IGNORED, (2, 2): ONLY_A_COLOUR, (3, 3): ONLY_B_COLOUR, (4, 4): BOTH_WRONG_COLOUR, (5, 5): RIGHT}
    assert {place: tuple(picture[place].tolist()) for place in places} == places


def test_the_images_on_which_the_lower_model_is_right_most_often() -> None:
    rng = np.random.default_rng(3)
    truths = [rng.integers(0, 2, (10, 10)).astype(np.uint8) for _ in range(8)]
    flips = {"a": [0, 0, 30, 5, 12, 0, 9, 1], "b": [40, 60, 0, 5, 0, 20, 60, 70]}
    labels: dict[str, list[np.ndarray]] = {name: [] for name in flips}
    for name, counts in flips.items():
        for truth, count in zip(truths, counts, strict=True):
            one = truth.copy()
            # a errs from the top, b from the bottom: they never err on the same pixel here.
            pixels = one.ravel()[:count] if name == "a" else one.ravel()[one.size - count :]
            pixels[:] = 1 - pixels
            labels[name].append(one)
    tables = {
        n: np.stack([confusion.count(t, p, num_classes=2, ignore_index=255) for t, p in zip(truths, ps, strict=True)])
        for n, ps in labels.items()
    }
    comparison = small_comparison(tables)
    assert [m.name for m in comparison.models] == ["a", "b"]
    counts = np.array([count_agreement(t, [labels["a"][i], labels["b"][i]], ignore_index=255) for i, t in enumerate(truths)])
    assert counts[:, 0, ONLY_B].tolist() == flips["a"]
    images = [np.zeros((10, 10, 3), np.uint8)] * 8
    palette = np.zeros((256, 3), np.uint8)
    (versus,) = versus_rows(
        comparison, counts, lambda i: (images[i], truths[i]), lambda name, i: labels[name][i], palette, ignore_index=255
    )
    assert (versus.a, versus.b) == ("a", "b") and [row.id for row in versus.rows] == ["2", "4", "6"]
    assert versus.rows[0].why == "b right, a wrong on 30.0 % of the pixels"
    assert [cell.kind for cell in versus.rows[0].cells] == ["photo", "labels", "labels", "labels", "map"]


def test_pictures_stay_within_their_bytes() -> None:
    """Noise is the worst that a picture can be: a byte and more a pixel and colour."""
    rng = np.random.default_rng(0)
    rows = [
        PictureRow(
            why="",
            id=str(i),
            cells=[
                Cell(caption="image", picture=rng.integers(0, 256, (300, 360, 3), dtype=np.uint8), kind=kind)
                for kind in ("photo", "labels", "map")
            ],
        )
        for i in range(2)
    ]
    for limit in (2**21, 2**18):
        (found,) = encoded([rows], limit=limit)
        assert sum(len(cell["uri"]) for row in found for cell in row["cells"]) * 3 / 4 <= limit
    assert [row["id"] for row in found] == ["0", "1"]
