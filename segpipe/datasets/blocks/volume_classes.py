"""The classes of labelled volumes: as given, from nnU-Net's dataset.json, or the values found in a few of them."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from segpipe.datasets.blocks import class_table, mask_values, voxels
from segpipe.datasets.blocks.class_table import Table
from segpipe.datasets.blocks.volume_pairs import Pair
from segpipe.layout import WARNING, Fault

LOOKED_AT = 8
"""So many label volumes are read to find the classes."""
IGNORE = 255


def given(classes: Any, *, instances: bool) -> Table:
    """The table of the option `classes`, by default [background, object] for `instances`.

    Raises:
        ValueError: it has none of the forms of `class_table`, or has colours, or is not two classes for `instances`.
    """
    if instances and classes is None:
        classes = ["background", "object"]
    table = class_table.parse(list(classes) if isinstance(classes, tuple) else classes, where="classes")
    if table.colour_coded:
        raise ValueError(f"classes: {classes!r}; volumes hold label values, so write names, or names and whole numbers")
    if instances and table.values != (0, 1):
        raise ValueError(f"classes: {classes!r}; with `instances` there are two, [background, <object>]")
    return table


def of_json(raw: Path) -> Table | None:
    """The classes of nnU-Net's or the Medical Decathlon's dataset.json in `raw` or up to two folders below, None without one.

    "labels" is {"background": 0, "tumour": 1, "ignore": 2} or {"0": "background", "1": "tumour"}. Regions, which are lists of
    values, are no classes: then the values are looked for instead.

    Raises:
        ValueError: the file is no JSON, or its labels have another form.
    """
    for path in (path for depth in ("", "*/", "*/*/") for path in sorted(raw.glob(f"{depth}dataset.json"))):
        try:
            document = json.loads(path.read_text())
        except ValueError as error:
            raise ValueError(f"{path}: not valid JSON: {error}. Mend it, or give `classes`.") from error
        labels = document.get("labels") if isinstance(document, Mapping) else None
        if isinstance(labels, Mapping) and labels and not any(isinstance(value, list) for value in labels.values()):
            numbered = all(str(key).isdecimal() for key in labels)
            return class_table.parse({int(k): v for k, v in labels.items()} if numbered else dict(labels), where=f"{path}, labels")
    return None


def found(raw: Path, pairs: Sequence[Pair], *, label_key: str) -> tuple[Table, Fault]:
    """A class for each value that a few of the label volumes hold, called by its value, and a warning that says so.

    255 is ignored, unless there is nothing else than 0 and 255. Values below 0 are no classes, and so are reported as unknown.

    Raises:
        ValueError: no label volume can be read, or there are more values than anybody would name.
    """
    places = sorted({int(i) for i in np.linspace(0, len(pairs) - 1, min(LOOKED_AT, len(pairs)))})
    values: set[int] = set()
    read, broken = 0, None
    for place in places:
        try:
            labels = voxels.read_labels(pairs[place].label, key=label_key)
        except ValueError as error:  # convert names every file that cannot be read; here others may tell the classes
            broken = error
            continue
        values |= {int(value) for value in np.unique(labels)}
        read += 1
    if not read:
        raise ValueError(f"{pairs[places[0]].label if places else raw}: no classes: no label volume can be read. {broken or ''}")
    if len(values) > mask_values.MOST_VALUES:
        many = f"{len(values)} different label values in {read} volumes, {min(values)} to {max(values)}"
        hint = "If they are numbers of objects, set `instances: true`; else give `classes`."
        raise ValueError(f"{pairs[places[0]].label}: {many}. {hint}")
    binary = values == {0, IGNORE}
    kept = sorted(value for value in values if value >= 0 and (value != IGNORE or binary))
    seen = f"{mask_values.listed(kept)} were found in {read} of {len(pairs)} label volumes"
    what = f"no class names: the values {seen} and are classes called by them"
    fix = f"Name them, e.g. classes: {{{', '.join(f'{value}: name{value}' for value in kept[:3])}}}."
    if binary:
        what, fix = (
            f"masks of 0 and 255 ({read} looked at) were taken as background and object",
            "Name them: classes: {0: background, 255: object}.",
        )
    example = pairs[places[0]].label.relative_to(raw).as_posix()
    kind = "binary_mask" if binary else "made_up_classes"
    table = Table(names=tuple(f"class {value}" for value in kept), values=tuple(kept))
    return table, Fault(kind=kind, what=what, example=example, fix=fix, severity=WARNING)
