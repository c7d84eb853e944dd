"""Splits by fractions and folds that adding data does not move, and what stands in for a missing split."""

from pathlib import Path
from typing import Any

import pytest

from segpipe.audit import Audit
from segpipe.layout import Item
from segpipe.splits import assign, groups_in_two_splits, stand_in


def made_up(**splits: tuple[int, int]) -> tuple[Item, ...]:
    """Items without files: split=(number, number of groups)."""
    return tuple(
        Item(id=f"{split}{i}", split=split, image=Path("i"), mask=None, group=f"{split}-g{i % groups}", source=f"{split}{i}.png")
        for split, (count, groups) in splits.items()
        for i in range(count)
    )


RULES = {"test": {"from": "val"}, "val": {"from": "train", "fraction": 0.1}}


def test_a_missing_split_without_a_rule_is_an_error_with_the_line_to_add() -> None:
    with pytest.raises(ValueError, match=r"mine: the split 'test' has no samples.*datasets.mine.stand_in: \{test: \{from: val\}\}"):
        stand_in(made_up(train=(5, 5), val=(2, 2)), {}, name="mine", audit=Audit())


def test_rules_are_followed_in_order_and_recorded() -> None:
    audit = Audit()
    items, done = stand_in(made_up(train=(40, 3), val=(5, 1)), RULES, name="mine", audit=audit)
    moved = sum(i.split == "val" for i in items)
    assert 1 <= moved <= 9 and sum(i.split == "train" for i in items) == 40 - moved, "about a tenth of 40"
    assert {i.id for i in items if i.split == "test"} == {f"val{i}" for i in range(5)}
    assert [(d["split"], d["by"], d["count"]) for d in done] == [("test", "all", 5), ("val", "sample id", moved)]
    assert [f.kind for f in audit.findings] == ["stand_in"], "three groups: near-duplicates on both sides are warned of"


def test_with_ten_groups_whole_groups_move() -> None:
    audit = Audit()
    items, done = stand_in(made_up(train=(60, 12), val=(5, 1)), RULES, name="mine", audit=audit)
    sides = [{i.group for i in items if i.split == split} for split in ("train", "val")]
    assert not sides[0] & sides[1] and done[1]["by"] == "group" and done[1]["count"] == 5 * len(sides[1]) and not audit.findings


def test_a_split_that_is_there_is_left_alone() -> None:
    items = made_up(train=(5, 5), val=(2, 2), test=(3, 3))
    assert stand_in(items, RULES, name="mine", audit=Audit()) == (items, [])


def test_the_choice_does_not_depend_on_the_order() -> None:
    items = made_up(train=(40, 3), val=(5, 1))
    chosen = [
        {i.id for i in stand_in(order, RULES, name="m", audit=Audit())[0] if i.split == "val"} for order in (items, items[::-1])
    ]
    assert chosen[0] == chosen[1]


@pytest.mark.parametrize(
    "rules",
    [{"tset": {"from": "val"}}, {"test": {"from": "test"}}, {"test": {"from": "val", "part": 1}}, {"test": "val"},
     {"test": {"from": "val", "fraction": 1.5}}],
)  # fmt: skip
def test_wrong_rules_name_the_key(rules: Any) -> None:
    with pytest.raises(ValueError, match=r"datasets.mine.stand_in.(test|tset)"):
        stand_in(made_up(train=(5, 5), val=(2, 2)), rules, name="mine", audit=Audit())


def test_a_small_pool_still_gives_one() -> None:
    items, _ = stand_in(made_up(train=(3, 3), val=(1, 1)), RULES, name="mine", audit=Audit())
    assert [sum(i.split == s for i in items) for s in ("train", "val", "test")] == [2, 1, 1]


def unsplit(count: int, *, groups: int) -> tuple[Item, ...]:
    return tuple(
        Item(id=f"i{i}", split=None, image=Path("i"), mask=None, group=f"g{i % groups}", source=f"i{i}.png") for i in range(count)
    )


FRACTIONS = {"fractions": {"train": 0.6, "val": 0.2, "test": 0.2}}


def placed(items: tuple[Item, ...], rule: Any) -> dict[str, str | None]:
    return {i.id: i.split for i in assign(items, rule, name="mine", audit=Audit())[0]}


@pytest.mark.parametrize("rule", [FRACTIONS, {**FRACTIONS, "by": "id"}, {"folds": 5, "fold": 2}, {"folds": 5, "by": "id"}])
def test_adding_data_moves_nothing_else(rule: Any) -> None:
    before, after = placed(unsplit(400, groups=100), rule), placed(unsplit(900, groups=300), rule)
    if rule.get("by") == "id":  # by group, the same ids have other groups there
        assert all(after[name] == split for name, split in before.items())
    items = unsplit(400, groups=100)
    more = items + tuple(Item(id=f"x{i}", split=None, image=Path(), mask=None, group=f"x{i}", source=f"x{i}") for i in range(200))
    after = placed(more, rule)
    assert all(after[name] == split for name, split in before.items())


def test_fractions_are_kept_and_groups_stay_whole() -> None:
    items, rule = assign(unsplit(5000, groups=2500), FRACTIONS, name="mine", audit=Audit())
    shares = [sum(i.split == s for i in items) / 5000 for s in ("train", "val", "test")]
    assert shares == pytest.approx([0.6, 0.2, 0.2], abs=0.03) and rule == FRACTIONS
    assert not groups_in_two_splits(items)
    assert groups_in_two_splits(assign(unsplit(500, groups=5), {**FRACTIONS, "by": "id"}, name="m", audit=Audit())[0])


def test_folds_test_every_sample_once() -> None:
    items = unsplit(200, groups=60)
    tested: list[str] = []
    for fold in range(4):
        split_of = placed(items, {"folds": 4, "fold": fold})
        tested += [name for name, split in split_of.items() if split == "test"]
        val = {name for name, split in split_of.items() if split == "val"}
        following = placed(items, {"folds": 4, "fold": (fold + 1) % 4})
        assert val == {name for name, split in following.items() if split == "test"}, "val is the next fold's test"
    assert sorted(tested) == sorted(i.id for i in items)


def test_a_salt_draws_anew() -> None:
    items = unsplit(200, groups=200)
    assert placed(items, FRACTIONS) != placed(items, {**FRACTIONS, "salt": 1})


def test_without_a_rule_official_splits_hold_and_else_one_is_drawn_and_said() -> None:
    audit = Audit("mine")
    items = made_up(train=(5, 5), val=(2, 2), test=(2, 2))
    assert assign(items, None, name="mine", audit=audit) == (items, "official") and not audit.findings
    drawn, rule = assign(unsplit(100, groups=100), None, name="mine", audit=audit)
    assert {i.split for i in drawn} == {"train", "val", "test"} and rule["by"] == "group"
    assert [f.kind for f in audit.findings] == ["no_official_split"] and "splits:" in audit.findings[0].settle


def test_an_empty_split_is_an_error_that_names_a_salt_that_works() -> None:
    items = unsplit(4, groups=4)
    bad = next(salt for salt in range(100) if not placed_or_none(items, salt))
    with pytest.raises(ValueError, match=r"datasets\.mine\.splits: no sample falls into .*4 groups.*Set .*salt: (\d+)") as caught:
        assign(items, {**FRACTIONS, "salt": bad}, name="mine", audit=Audit())
    salt = int(str(caught.value).split("salt: ")[1].split(",")[0])
    assert set(placed(items, {**FRACTIONS, "salt": salt}).values()) == {"train", "val", "test"}
    with pytest.raises(ValueError, match="by: id"):
        assign(unsplit(50, groups=2), FRACTIONS, name="mine", audit=Audit())


def placed_or_none(items: tuple[Item, ...], salt: int) -> list[str | None]:
    try:
        return list(placed(items, {**FRACTIONS, "salt": salt}).values())
    except ValueError:
        return []


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("random", "write"),
        ({"fractions": {"train": 0.8, "val": 0.2}}, "one for each of train, val, test"),
        ({"fractions": {"train": 0.8, "val": 0.3, "test": 0.1}}, "add up to 1"),
        ({"folds": 2}, "folds is 3 or more"),
        ({"folds": 5, "fold": 5}, "fold is 0 to folds - 1"),
        ({**FRACTIONS, "by": "image"}, "choices: group, id"),
        ({**FRACTIONS, "folds": 5}, "write"),
    ],
)
def test_wrong_split_rules_name_the_key(rule: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"datasets.mine.splits.*{message}"):
        assign(unsplit(50, groups=50), rule, name="mine", audit=Audit())
