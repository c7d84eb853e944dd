"""What stands in for a split that a source lacks."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from segpipe.audit import WARNING, Audit
from segpipe.layout import Item
from segpipe.shards import SPLITS

MIN_GROUPS = 10
"""With fewer groups than this a fraction cannot be taken in whole groups."""


def stand_in(
    items: Sequence[Item], rules: Mapping[str, Mapping[str, Any]], *, name: str, audit: Audit
) -> tuple[tuple[Item, ...], list[dict[str, Any]]]:
    """Fill the splits that have no items by `rules`, e.g. {test: {from: val}, val: {from: train, fraction: 0.1}}, in their order.

    `from` alone moves all samples of that split; with `fraction` a part of it, chosen by a hash of the names: in whole groups where
    there are at least 10, else sample by sample, which the audit warns of because near-duplicates may fall on both sides. A
    split that has items is left alone. Returns the items and, for dataset.json, what was done.

    Raises:
        ValueError: a rule is malformed, takes from an empty split, or a split stays empty.
    """
    settled = []
    for split, rule in rules.items():
        where = f"datasets.{name}.stand_in.{split}"
        _check_rule(split, rule, where=where)
        if any(item.split == split for item in items):
            continue
        giving, fraction = rule["from"], rule.get("fraction")
        pool = [item for item in items if item.split == giving]
        if not pool:
            raise ValueError(f"{where}.from: the split {giving!r} has no samples either")
        by, chosen = _choose(pool, fraction)
        items = tuple(replace(i, split=split) if i.split == giving and i.source in chosen else i for i in items)
        settled.append({"split": split, "from": giving, "fraction": fraction, "by": by, "count": len(chosen)})
        if by == "sample id" and {i.group for i in items if i.split == split} & {i.group for i in items if i.split == giving}:
            what = f"{split} was taken from {giving} sample by sample, for want of {MIN_GROUPS} groups"
            fix = f"Samples of one group are on both sides, so scores on {split} may flatter."
            audit.add("stand_in", what, example=split, fix=fix, severity=WARNING)
    for split in SPLITS:
        if not any(item.split == split for item in items):
            other = "{from: val}" if split == "test" else "{from: train, fraction: 0.1}"
            hint = (
                f"Add its files, or say in params.yaml what stands in for it, e.g. datasets.{name}.stand_in: {{{split}: {other}}}"
            )
            raise ValueError(f"{name}: the split {split!r} has no samples. {hint}")
    return tuple(items), settled


def _choose(pool: Sequence[Item], fraction: float | None) -> tuple[str, set[str]]:
    """How the choice was made, and the sources of the chosen items."""
    if fraction is None:
        return "all", {item.source for item in pool}
    wanted = max(1, round(fraction * len(pool)))
    groups = _shuffled({item.group for item in pool})
    if len(groups) < MIN_GROUPS:
        ids = set(_shuffled(item.id for item in pool)[:wanted])
        return "sample id", {item.source for item in pool if item.id in ids}
    chosen: set[str] = set()
    for group in groups:
        if len(chosen) >= wanted:
            break
        chosen |= {item.source for item in pool if item.group == group}
    return "group", chosen


def _shuffled(names: Iterable[str]) -> list[str]:
    """The names in the order of their hashes: arbitrary, and the same on every machine."""
    return sorted(names, key=lambda name: hashlib.sha256(name.encode()).digest())


def _check_rule(split: str, rule: Any, *, where: str) -> None:
    if split not in SPLITS or not isinstance(rule, Mapping) or not set(rule) <= {"from", "fraction"}:
        raise ValueError(f"{where}: {rule!r}; write {{from: <split>}} or {{from: <split>, fraction: 0.1}} for train, val or test")
    if rule.get("from") not in SPLITS or rule["from"] == split:
        others = ", ".join(s for s in SPLITS if s != split)
        raise ValueError(f"{where}.from: {rule.get('from')!r}; choices: {others}")
    fraction = rule.get("fraction")
    if fraction is not None and not (isinstance(fraction, float) and 0 < fraction < 1):
        raise ValueError(f"{where}.fraction: {fraction!r}; must be between 0 and 1")
