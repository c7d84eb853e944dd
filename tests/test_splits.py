"""What stands in for a missing split: the rules, their order, whole groups where possible, and the errors."""

from pathlib import Path
from typing import Any

import pytest

from segpipe.audit import Audit
from segpipe.layout import Item
from segpipe.splits import stand_in


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
    assert [sum(i.split == s for i in items) for s in ("train", "val", "test")] == [36, 4, 5]
    assert {i.id for i in items if i.split == "test"} == {f"val{i}" for i in range(5)}
    assert [(d["split"], d["by"], d["count"]) for d in done] == [("test", "all", 5), ("val", "sample id", 4)]
    assert [f.kind for f in audit.findings] == ["stand_in"], "three groups: near-duplicates on both sides are warned of"


def test_with_ten_groups_whole_groups_move() -> None:
    audit = Audit()
    items, done = stand_in(made_up(train=(60, 12), val=(5, 1)), RULES, name="mine", audit=audit)
    sides = [{i.group for i in items if i.split == split} for split in ("train", "val")]
    assert not sides[0] & sides[1] and done[1]["by"] == "group" and done[1]["count"] == 10 and not audit.findings


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
