"""A few lines of params.yaml that merge, rename or drop classes, or give label values a meaning, for any source.

class_map:
  values: {12: ignore, 7: road}          # label values of the source ("#rrggbb" for a colour); before all else
  merge: {vehicle: [car, bus, truck]}
  rename: {pedestrian: person}
  drop: [sky]                            # its pixels become ignored
  keep: [road, vehicle]                  # all other classes are dropped; names as they are after merge and rename
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from segpipe import components
from segpipe.layout import Scan
from segpipe.shards import ClassInfo

KEYS = ("values", "merge", "rename", "drop", "keep")
IGNORE = "ignore"
LARGEST_UINT8 = 254


def check(rules: Mapping[str, Any], *, where: str) -> None:
    """Raise ValueError if the form of `rules` is wrong; whether the names exist is seen when the source is there."""
    components.check_options(rules, KEYS, where=where)
    for key, value in rules.items():
        if key in ("drop", "keep") and not _names(value):
            raise ValueError(f"{where}.{key}: {value!r}; write a list of class names, e.g. [sky, road]")
        if key in ("values", "merge", "rename") and not isinstance(value, Mapping):
            raise ValueError(f"{where}.{key}: {value!r}; write a mapping, e.g. {_example(key)}")
    for new, old in rules.get("merge", {}).items():
        if not _names(old):
            raise ValueError(f"{where}.merge.{new}: {old!r}; write the list of classes to merge, e.g. [car, bus]")
    for value in rules.get("values", {}):
        label_value(value, where=f"{where}.values")


def apply(scan: Scan, rules: Mapping[str, Any], *, where: str) -> tuple[Scan, tuple[int | None, ...]]:
    """`scan` with its classes and labels mapped by `rules`, and for each class of the source its new index, None if dropped.

    A merged class stands where its first member stood and has that one's colour; it is a thing if all its members are.

    Raises:
        ValueError: a rule is malformed, names a class that is not there or one twice, or no class is left.
    """
    check(rules, where=where)
    names = [c.name for c in scan.classes]
    labels = dict(scan.labels)
    for value, name in rules.get("values", {}).items():
        if name != IGNORE:
            _known(name, names, where=f"{where}.values.{value}")
        labels[label_value(value, where=f"{where}.values")] = scan.ignore_index if name == IGNORE else names.index(name)
    new: dict[str, str | None] = {name: name for name in names}
    moved: set[str] = set()
    for target, members in [*rules.get("merge", {}).items(), *((b, [a]) for a, b in rules.get("rename", {}).items())]:
        for member in members:
            _known(member, names, where=f"{where}: {target}")
            if member in moved:
                raise ValueError(f"{where}: {member!r} is merged or renamed twice")
            moved.add(member)
            new[member] = str(target)
    for name in rules.get("drop", ()):
        _known(name, names, where=f"{where}.drop")
        new[name] = None
    if "keep" in rules:
        for name in rules["keep"]:
            _known(name, [n for n in new.values() if n is not None], where=f"{where}.keep")
        new = {old: name if name in rules["keep"] else None for old, name in new.items()}
    kept = list(dict.fromkeys(name for name in new.values() if name is not None))
    if not kept:
        raise ValueError(f"{where}: no class is left")
    table = tuple(None if (name := new[old]) is None else kept.index(name) for old in names)
    ignore = 255 if len(kept) <= LARGEST_UINT8 else scan.ignore_index
    targets = {index: ignore if to is None else to for index, to in enumerate(table)} | {scan.ignore_index: ignore}
    labels = {value: targets[index] for value, index in labels.items()}
    members_of = {name: [c for c in scan.classes if new[c.name] == name] for name in kept}
    classes = tuple(ClassInfo(name=n, colour=m[0].colour, thing=all(c.thing for c in m)) for n, m in members_of.items())
    return replace(scan, classes=classes, labels=labels, ignore_index=ignore), table


def label_value(value: Any, *, where: str) -> int:
    """A label value as params.yaml writes it: a whole number, or "#rrggbb" for a colour."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    text = str(value).removeprefix("#")
    if str(value).startswith("#") and len(text) == 6 and all(c in "0123456789abcdefABCDEF" for c in text):
        return int(text, 16)
    raise ValueError(f'{where}: {value!r}; a label value is a whole number, or "#rrggbb" for a colour')


def _known(name: Any, names: Sequence[str], *, where: str) -> None:
    if name not in names:
        raise ValueError(f"{where}: no class {name!r}.{components.suggestion(name, names)} There are: {', '.join(names)}.")


def _names(value: Any) -> bool:
    return isinstance(value, list | tuple) and bool(value) and all(isinstance(name, str) for name in value)


def _example(key: str) -> str:
    return {"values": "{12: ignore}", "merge": "{vehicle: [car, bus]}", "rename": "{old: new}"}[key]
