"""The blind page's key, its answers and their count."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from segpipe.failures.versus import Common
from segpipe.pages.rate import Shown, items, rate_page
from segpipe.pages.render import data_uri
from segpipe.ratings import Answer, Item, agreement, count, read_ratings

CLASSES = ["ground", '<img src=x onerror=alert(1)> & "pole"']


def common(name: str, rows: int = 12) -> Common:
    """Made-up maps of one model: each picture is a colour of its own."""
    rng = np.random.default_rng(sum(map(ord, name)))
    table = pd.DataFrame({"id": [f"im{i}" for i in range(rows)], "segment": 1, "label": 1, "hirescam_inside": 0.5})
    table.loc[0, "hirescam_inside"] = np.nan
    pictures = []
    for i in range(rows):
        shared = np.full((24, 32, 3), 10 * i, np.uint8)
        pictures.append((data_uri(shared), data_uri(np.full((24, 32, 3), rng.integers(0, 256, 3), np.uint8))))
    return Common(table=table, pictures=pictures)


def shown(names: tuple[str, str] = ("unet", "segnet"), *, seed: int = 0, digest: str = "d") -> list[Shown]:
    return items("scenes", digest, names, (common(names[0]), common(names[1])), class_names=CLASSES, seed=seed)


def key(n: int, *, left: str = "aabbab", pair: tuple[str, str] = ("unet", "segnet")) -> list[Item]:
    return [
        Item(item=f"{i:016x}", dataset="scenes", a=pair[0], b=pair[1], a_left=left[i % len(left)] == "a", id=f"im{i}", segment=1)
        for i in range(n)
    ]


def counted(answers: list[Answer], items: list[Item], units: dict[str, int] | None = None) -> dict:
    units = units or {f"im{i}": i for i in range(len(items))}
    return count(answers, items, units=units, resamples=500, alpha=0.05, seed=0)


def test_the_page_does_not_tell_who_is_who() -> None:
    mine = shown(("a-network", "another_one"))
    text = rate_page(mine)
    for name in ("a-network", "another_one", "im3"):
        assert name not in text
    assert "<img src=x" not in text and "&lt;img src=x" in text
    assert len(mine) == 11, "a segment on which neither shows evidence is no item"
    lefts = [one.key.a_left for one in mine]
    assert 2 <= sum(lefts) <= 9
    maps = {"a-network": common("a-network"), "another_one": common("another_one")}
    for one in mine:
        row = int(one.key.id[2:])
        first, second = ("a-network", "another_one") if one.key.a_left else ("another_one", "a-network")
        assert (one.left, one.right) == (maps[first].pictures[row][1], maps[second].pictures[row][1])


def test_items_are_the_same_each_time_and_follow_the_maps() -> None:
    one = {item.key.id: item for item in shown()}
    assert [item.key for item in shown()] == [item.key for item in shown()]
    assert [item.key.item for item in shown()] == sorted(item.key.item for item in shown())
    turned = {item.key.id: item for item in shown(("segnet", "unet"))}
    for name, item in one.items():
        assert turned[name].key.item == item.key.item and turned[name].left == item.left
        assert turned[name].key.a_left != item.key.a_left
    others = [shown(seed=1), shown(digest="e"), shown(("unet", "fcn"))]
    for other in others:
        assert not {item.key.item for item in other} & {item.key.item for item in one.values()}


def test_answers_are_read_the_last_one_counts_and_a_bad_line_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "ratings"
    assert read_ratings(folder) == ([], [])
    folder.mkdir()
    row = {"time": "2026-11-20T10:00:00+00:00", "dataset": "scenes", "rater": "Ada", "item": "0" * 16, "choice": 1}
    lines = [json.dumps(row | {"choice": 5, "time": "2026-11-20T11:00:00.250Z"}), json.dumps(row), "", "{not json"]
    lines += [json.dumps(row | {"choice": value}) for value in (0, 6, True, "3", 2.0, None)]
    lines += [json.dumps(row | {"rater": " "}), json.dumps([1]), json.dumps(row | {"rater": "Bob"})]
    (folder / "scenes.jsonl").write_text("\n".join(lines))
    document = {"dataset": "scenes", "rater": "Cy", "answers": [{"item": "1" * 16, "choice": 2}, {"item": 3, "choice": 2}]}
    (folder / "scenes-Cy.json").write_text(json.dumps(document))
    (folder / "broken.json").write_text('{"answers": 3}')
    (folder / "notes.txt").write_text("not ours")
    answers, problems = read_ratings(folder)
    assert answers == [
        Answer(item="0" * 16, rater="Ada", choice=5),
        Answer(item="0" * 16, rater="Bob", choice=1),
        Answer(item="1" * 16, rater="Cy", choice=2),
    ]
    assert len(problems) == 11
    assert "ratings/scenes.jsonl:4: is not JSON" in problems
    assert "ratings/scenes.jsonl:5: choice is 0, and must be 1 to 5" in problems
    assert "ratings/scenes-Cy.json, answer 2: item is 3, which is no name of an item" in problems
    assert "ratings/broken.json: is not a download of the rating page" in problems


def test_sides_are_undone_when_answers_are_counted() -> None:
    """Whoever prefers a on either side gives a the same preference."""
    items = key(6)
    answers = [Answer(item=one.item, rater="Ada", choice=1 if one.a_left else 5) for one in items]
    row = counted(answers, items)["pairs"][0]
    assert (row["mean"], row["low"], row["high"], row["wins"], row["losses"]) == (2, 2, 2, 6, 0)
    assert row["choices"] == [6, 0, 0, 0, 0] and row["p"] == pytest.approx(2 / 2**6)
    assert row["agreement"] is None
    text = "1 person rated 6 of 6 pairs of maps blindly: unet's are preferred to segnet's by 2.0"
    assert row["sentence"].startswith(text)
    always_left = counted([Answer(item=one.item, rater="Bob", choice=1) for one in items], items)["pairs"][0]
    assert always_left["mean"] == 0 and always_left["wins"] == always_left["losses"] == 3
    assert "no evidence that they prefer" in always_left["sentence"]


def test_answers_are_counted_by_hand() -> None:
    items = key(4, left="a")
    given = {"Ada": [1, 2, 3, 5], "Bob": [2, 2, 3, 4]}
    answers = [Answer(item=items[i].item, rater=name, choice=c) for name, row in given.items() for i, c in enumerate(row)]
    answers.append(Answer(item="f" * 16, rater="Ada", choice=1))
    found = counted(answers, items, {"im0": 0, "im1": 0, "im2": 1, "im3": 2})
    row = found["pairs"][0]
    assert found["other"] == 1
    assert (row["items"], row["rated"], row["answers"], row["raters"]) == (4, 4, 8, 2)
    assert row["choices"] == [1, 3, 2, 1, 1]
    assert (row["wins"], row["ties"], row["losses"]) == (2, 1, 1)
    assert row["mean"] == pytest.approx(np.mean([(1.5 + 1.0) / 2, 0, -1.5])), "over the three units"
    assert row["p"] == 1 and row["low"] < row["mean"] < row["high"]
    assert 0.8 < row["agreement"] < 1 and "Krippendorff" in row["sentence"]


def test_no_answers_and_several_pairs() -> None:
    items = key(3) + [Item(**{**vars(one), "item": "e" + one.item[1:], "b": "fcn"}) for one in key(3)]
    found = counted([Answer(item="e" + "0" * 15, rater="Ada", choice=3)], items)
    assert [row["b"] for row in found["pairs"]] == ["segnet", "fcn"]
    assert found["pairs"][0]["sentence"] == "Nobody has rated the maps of unet and segnet yet."
    assert found["pairs"][1]["ties"] == 1 and found["pairs"][1]["p"] == 1 and found["pairs"][1]["low"] is None
    assert json.dumps(found, allow_nan=False)


def test_agreement_equals_krippendorffs_example() -> None:
    """Four observers, twelve units, missing values: alpha for interval data is .849 (Krippendorff 2011, section E)."""
    rows = [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, None, None, None],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, None, 3],
        [None, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, None],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, None],
    ]
    votes = [[v for v in column if v is not None] for column in zip(*rows, strict=True)]
    assert agreement(votes) == pytest.approx(0.849, abs=5e-4)
    assert agreement([[1], [2]]) is None and agreement([[1, 1], [1, 1]]) is None
    assert agreement([[1, 1], [2, 2]]) == 1


def test_an_empty_page_says_so() -> None:
    assert "There is nothing to rate" in rate_page([])
