"""Which sample is in which split: the official ones, fractions or folds by a stable hash, and what stands in for a missing one.

A sample's place depends on the name of its group (or its id) and on nothing else, so that adding data moves no other sample.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from segpipe.audit import Audit
from segpipe.layout import WARNING, Item
from segpipe.shards import SPLITS

MIN_GROUPS = 10
"""With fewer groups than this a stand-in's fraction cannot be taken in whole groups."""
DEFAULT: Mapping[str, Any] = {"fractions": {"train": 0.7, "val": 0.15, "test": 0.15}, "by": "group"}
"""For a source without an official split, when params.yaml says nothing."""
EXAMPLE = "{fractions: {train: 0.7, val: 0.15, test: 0.15}, by: group} or {folds: 5, fold: 0, by: group}"
SALTS = 200


def check_rule(rule: Any, *, where: str) -> None:
    """Raise ValueError if `rule` is not of a form that `assign` takes."""
    known = {"fractions", "folds", "fold", "by", "salt"}
    if not isinstance(rule, Mapping) or not set(rule) <= known or ("fractions" in rule) == ("folds" in rule):
        raise ValueError(f"{where}: {rule!r}; write {EXAMPLE}, or leave it out for the official splits")
    if rule.get("by", "group") not in ("group", "id"):
        raise ValueError(f"{where}.by: {rule['by']!r}; choices: group, id")
    if not isinstance(rule.get("salt", 0), int | str):
        raise ValueError(f"{where}.salt: {rule['salt']!r}; write a whole number or a word")
    if "fractions" in rule:
        parts = rule["fractions"]
        if not isinstance(parts, Mapping) or set(parts) != set(SPLITS) or "fold" in rule:
            raise ValueError(f"{where}.fractions: {parts!r}; write one for each of {', '.join(SPLITS)}, e.g. {EXAMPLE}")
        numbers = all(isinstance(part, int | float) and not isinstance(part, bool) and part > 0 for part in parts.values())
        if not numbers or abs(sum(parts.values()) - 1) > 1e-6:
            raise ValueError(f"{where}.fractions: {dict(parts)}; must be above 0 and add up to 1")
    else:
        folds, fold = rule["folds"], rule.get("fold", 0)
        if not (isinstance(folds, int) and folds >= 3 and isinstance(fold, int) and 0 <= fold < folds):
            raise ValueError(f"{where}: folds {folds!r}, fold {fold!r}; folds is 3 or more, fold is 0 to folds - 1")


def assign(items: Sequence[Item], rule: Mapping[str, Any] | None, *, name: str, audit: Audit) -> tuple[tuple[Item, ...], Any]:
    """Give every item its split; returns the items and, for dataset.json, the rule that was used ("official" if none).

    With `fractions` a unit u is in test, val or train by where its hash falls in 0..1; with `folds` it is in one of k
    parts: `fold` is the test split, the next one val, the rest train. The unit is the group, or `by: id` the sample. `salt` draws
    anew. Without a rule the source's own splits hold, or, where it has none, 70 / 15 / 15 % by group.

    Raises:
        ValueError: the rule is malformed, or a split would be empty; the message then names a salt that fills all of them.
    """
    where = f"datasets.{name}.splits"
    if rule is None:
        if all(item.split is not None for item in items):
            return tuple(items), "official"
        rule = DEFAULT
        what = "the source has no official split, so 70 % of the groups were drawn for train, 15 % for val, 15 % for test"
        audit.add("no_official_split", what, example=name, fix="Write down the split that you want.", severity=WARNING)
    check_rule(rule, where=where)
    by, salt = rule.get("by", "group"), rule.get("salt", 0)
    units = sorted({_unit(item, by) for item in items})
    missing = _missing(units, rule, salt)
    if missing and items:
        good = next((s for s in range(SALTS) if not _missing(units, rule, s)), None)
        hint = "Use more groups or larger fractions" if by == "group" else "Use more samples or larger fractions"
        hint += ", or `by: id` (samples of one group then fall on both sides)." if by == "group" else "."
        if good is not None:
            filled = json.dumps({**rule, "by": by, "salt": good}).replace('"', "")
            hint = f"Set {where}: {filled}, which fills all of them."
        raise ValueError(f"{where}: no sample falls into {' and '.join(missing)} ({len(units)} {by}s). {hint}")
    split_of = {unit: _split(unit, rule, salt) for unit in units}
    return tuple(replace(item, split=split_of[_unit(item, by)]) for item in items), dict(rule)


def _unit(item: Item, by: str) -> str:
    return item.group if by == "group" else item.id


def _missing(units: Sequence[str], rule: Mapping[str, Any], salt: int | str) -> list[str]:
    return [split for split in SPLITS if split not in {_split(unit, rule, salt) for unit in units}]


def _split(unit: str, rule: Mapping[str, Any], salt: int | str) -> str:
    if "folds" in rule:
        part = (int(_place(unit, salt) * rule["folds"]) - rule.get("fold", 0)) % rule["folds"]
        return ("test", "val")[part] if part < 2 else "train"
    place, parts = _place(unit, salt), rule["fractions"]
    return "test" if place < parts["test"] else "val" if place < parts["test"] + parts["val"] else "train"


def _place(unit: str, salt: int | str = 0) -> float:
    """Where the hash of a name falls in 0 <= p < 1: arbitrary, and the same on every machine."""
    return int.from_bytes(hashlib.sha256(f"{salt}/{unit}".encode()).digest()[:6]) / 2**48


def check_stand_in(rules: Any, *, where: str) -> None:
    """Raise ValueError if `rules` is not of the form that `stand_in` takes."""
    for split, rule in rules.items():
        _check_stand_in(split, rule, where=f"{where}.{split}")


def stand_in(
    items: Sequence[Item], rules: Mapping[str, Mapping[str, Any]], *, name: str, audit: Audit, complete: bool = True
) -> tuple[tuple[Item, ...], list[dict[str, Any]]]:
    """Fill the splits that have no items by `rules`, e.g. {test: {from: val}, val: {from: train, fraction: 0.1}}, in their order.

    `from` alone moves all samples of that split; with `fraction` a part of it, chosen by a hash of the names: in whole groups where
    there are at least 10, else sample by sample, which the audit warns of because near-duplicates may fall on both sides. A
    split that has items is left alone. Returns the items and, for dataset.json, what was done.

    Raises:
        ValueError: a rule is malformed, takes from an empty split, or a split stays empty although it must be `complete`.
    """
    settled = []
    for split, rule in rules.items():
        where = f"datasets.{name}.stand_in.{split}"
        _check_stand_in(split, rule, where=where)
        if any(item.split == split for item in items):
            continue
        giving, fraction = rule["from"], rule.get("fraction")
        pool = [item for item in items if item.split == giving]
        if not pool:
            raise ValueError(
                f"{where}.from: the split {giving!r} has no samples either. Write instead datasets.{name}.splits: {EXAMPLE}"
            )
        by, chosen = _choose(pool, fraction)
        items = tuple(replace(i, split=split) if i.split == giving and i.id in chosen else i for i in items)
        settled.append({"split": split, "from": giving, "fraction": fraction, "by": by, "count": len(chosen)})
        if by == "sample id" and {i.group for i in items if i.split == split} & {i.group for i in items if i.split == giving}:
            what = f"{split} was taken from {giving} sample by sample, for want of {MIN_GROUPS} groups"
            fix = f"Samples of one group are on both sides, so scores on {split} may flatter."
            audit.add("stand_in", what, example=split, fix=fix, severity=WARNING)
    for split in SPLITS:
        if complete and not any(item.split == split for item in items):
            raise ValueError(
                f"{name}: the split {split!r} has no samples. Add its files, or say in params.yaml what stands in for it: "
                + _advice(split, [other for other in SPLITS if any(item.split == other for item in items)], name)
            )
    return tuple(items), settled


def _advice(split: str, there: Sequence[str], name: str) -> str:
    """The line of params.yaml that fills `split` from the splits that are `there`."""
    if "train" not in there:
        return f"datasets.{name}.splits: {EXAMPLE}"
    rule = "{from: val}" if split == "test" and "val" in there else "{from: train, fraction: 0.1}"
    return f"datasets.{name}.stand_in: {{{split}: {rule}}}"


def _choose(pool: Sequence[Item], fraction: float | None) -> tuple[str, set[str]]:
    """How the choice was made, and the ids of the chosen items. At least one unit is chosen: the one with the lowest hash."""
    if fraction is None:
        return "all", {item.id for item in pool}
    by = "group" if len({item.group for item in pool}) >= MIN_GROUPS else "id"
    units = sorted({_unit(item, by) for item in pool}, key=_place)
    chosen = {unit for unit in units if _place(unit) < fraction} or set(units[:1])
    return "group" if by == "group" else "sample id", {item.id for item in pool if _unit(item, by) in chosen}


def groups_in_two_splits(items: Iterable[Item]) -> dict[str, list[str]]:
    """The groups that lie in more than one split, each with its splits, both in a stable order."""
    places: dict[str, set[str]] = {}
    for item in items:
        places.setdefault(item.group, set()).add(str(item.split))
    return {group: [s for s in SPLITS if s in found] for group, found in sorted(places.items()) if len(found) > 1}


def _check_stand_in(split: str, rule: Any, *, where: str) -> None:
    if split not in SPLITS or not isinstance(rule, Mapping) or not set(rule) <= {"from", "fraction"}:
        raise ValueError(f"{where}: {rule!r}; write {{from: <split>}} or {{from: <split>, fraction: 0.1}} for train, val or test")
    if rule.get("from") not in SPLITS or rule["from"] == split:
        others = ", ".join(s for s in SPLITS if s != split)
        raise ValueError(f"{where}.from: {rule.get('from')!r}; choices: {others}")
    fraction = rule.get("fraction")
    if fraction is not None and not (isinstance(fraction, float) and 0 < fraction < 1):
        raise ValueError(f"{where}.fraction: {fraction!r}; must be between 0 and 1")
