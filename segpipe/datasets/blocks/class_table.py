"""Which label value is which class: the class table that a user writes beside the data, or in params.yaml.

A table in YAML is one of

    [background, crack]                          a list of names; the label value is the position
    {background: 0, crack: 255}                  name: label value
    {0: background, 255: crack}                  label value: name
    {soil: [0, 0, 0], weed: "#ff0000"}           name: colour, where masks are colour pictures

with a further key `ignore` (a value or colour, or a list of them) for what does not count; a list of names then stands under a key
`classes`. A table in a text file has one class per line: `name`, or `r g b name` (CamVid), or `name:r,g,b::` (CVAT), or
`name,r,g,b` (class_dict.csv).
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from segpipe.datasets.blocks import colours, palette, texts
from segpipe.shards import ClassInfo

FILES = ("classes.yaml", "classes.yml", "classes.txt", "label_colors.txt", "labelmap.txt", "class_dict.csv", "codes.txt")
FORMS = "write a list of names, or a mapping of names to label values, or of names to colours [r, g, b]"
BYTE = r"(\d{1,3})"
LINES = (
    (re.compile(rf"{BYTE}\s+{BYTE}\s+{BYTE}\s+(?P<name>\S.*)"), (1, 2, 3)),
    (re.compile(rf"(?P<name>[^:]*[^:\s])\s*:\s*{BYTE},\s*{BYTE},\s*{BYTE}\s*(?::.*)?"), (2, 3, 4)),
    (re.compile(rf"(?P<name>[^,]*[^,\s])\s*,\s*{BYTE}\s*,\s*{BYTE}\s*,\s*{BYTE}"), (2, 3, 4)),
)


@dataclass(frozen=True, kw_only=True)
class Table:
    """The classes in the order of their indices: `values` are label values, or packed colours if `colour_coded`.

    `positional` says that the values are the positions in a list, not numbers that a person wrote.
    """

    names: tuple[str, ...]
    values: tuple[int, ...]
    ignored: tuple[int, ...] = ()
    colour_coded: bool = False
    positional: bool = False
    shown: tuple[tuple[int, int, int], ...] | None = None
    """A colour per class for people, where the values are none."""

    @property
    def ignore_index(self) -> int:
        return 255 if len(self.names) <= 254 else 65535

    @property
    def labels(self) -> dict[int, int]:
        """{label value: class index or ignore_index}"""
        return {value: index for index, value in enumerate(self.values)} | dict.fromkeys(self.ignored, self.ignore_index)

    @property
    def classes(self) -> tuple[ClassInfo, ...]:
        chosen = self.shown or palette.of_names(self.names)
        if self.colour_coded:
            chosen = [(value >> 16, value >> 8 & 255, value & 255) for value in self.values]
        return tuple(ClassInfo(name=name, colour=colour) for name, colour in zip(self.names, chosen, strict=True))


def find(raw: Path, names: Sequence[str] = FILES) -> Path | None:
    """The class table in `raw` or up to two folders below it, the nearest one; a .yaml before a .txt."""
    for pattern in ("", "*/", "*/*/"):
        for name in names:
            found = sorted(raw.glob(pattern + name))
            if found:
                return found[0]
    return None


def read(path: Path) -> Table:
    """The table of a file in one of the forms above.

    Raises:
        ValueError: it is in none of the forms; the message names the file and the line or the entry.
    """
    text = texts.read(path)
    if path.suffix.lower() not in (".yaml", ".yml"):
        return _lines(text, str(path))
    try:
        return parse(yaml.safe_load(text), where=str(path))
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: not valid YAML: {error}") from error


def parse(document: Any, *, where: str) -> Table:
    """The table of a YAML document; `where` is its place in messages.

    Raises:
        ValueError: the document has none of the forms above.
    """
    ignore = None
    if isinstance(document, Mapping) and "classes" in document:
        more = set(document) - {"classes", "ignore"}
        if more:
            raise ValueError(f"{where}: {more.pop()!r} beside `classes`; only `ignore` may stand there")
        document, ignore = document["classes"], document.get("ignore")
    elif isinstance(document, Mapping):
        ignore = document.get("ignore")
        document = {key: value for key, value in document.items() if key != "ignore"}
    if isinstance(document, list) and document:
        table = Table(names=_names(document, where), values=tuple(range(len(document))), positional=True)
    elif isinstance(document, Mapping) and document:
        table = _mapping(document, where)
    else:
        raise ValueError(f"{where}: {document!r}; {FORMS}")
    return with_ignored(table, ignore, where=f"{where}, ignore")


def with_ignored(table: Table, ignore: Any, *, where: str) -> Table:
    """The table with further values, or colours, that are ignored: one or a list, as a person writes them.

    Raises:
        ValueError: an entry is no value, or is a class already.
    """
    if ignore is None:
        return table
    several = isinstance(ignore, list) and not (table.colour_coded and len(ignore) == 3 and all(isinstance(v, int) for v in ignore))
    values = [_value(entry, where=where, colour=table.colour_coded) for entry in (ignore if several else [ignore])]
    for value in values:
        if value in table.values:
            name = table.names[table.values.index(value)]
            raise ValueError(f"{where}: {written(value, table.colour_coded)} is the class {name!r} already; remove one of the two")
    return replace(table, ignored=tuple(dict.fromkeys((*table.ignored, *values))))


def written(value: int, colour_coded: bool) -> str:
    """A label value as a person writes it in a table: 255, or [255, 0, 0]."""
    return f"[{value >> 16}, {value >> 8 & 255}, {value & 255}]" if colour_coded else str(value)


def as_yaml(rows: Iterable[tuple[str, int]], *, colour_coded: bool, notes: Mapping[int, str]) -> str:
    """The lines of a classes.yaml with the rows (name, value); `notes` are comments by value."""
    return "\n".join(f"  {name}: {written(v, colour_coded)}" + (f"  # {notes[v]}" if v in notes else "") for name, v in rows)


def _mapping(document: Mapping[Any, Any], where: str) -> Table:
    if all(isinstance(key, int) and not isinstance(key, bool) for key in document):
        pairs = [(name, value) for value, name in document.items()]
    else:
        pairs = list(document.items())
    names = _names([name for name, _ in pairs], where)
    coloured = [isinstance(value, list | str) for _, value in pairs]
    if any(coloured) and not all(coloured):
        raise ValueError(f"{where}: some classes have a label value and some a colour; {FORMS}")
    rows = [
        (_value(value, where=f"{where}, {name}", colour=coloured[0]), name) for name, (_, value) in zip(names, pairs, strict=True)
    ]
    if not coloured[0]:
        rows.sort()  # the class index follows the label value; colours have no order, so theirs is the file's
    _no_twice([written(value, coloured[0]) for value, _ in rows], where, "is the value of two classes; merge them with `class_map`")
    return Table(names=tuple(name for _, name in rows), values=tuple(value for value, _ in rows), colour_coded=coloured[0])


def _lines(text: str, where: str) -> Table:
    lines = [(number, line.strip()) for number, line in enumerate(text.rstrip().splitlines(), 1)]
    lines = [
        (n, line)
        for n, line in lines
        if not line.startswith("#") and not (n == 1 and re.fullmatch(r"name\s*,\s*r\w*,.*", line, re.I))
    ]
    for pattern, places in LINES:
        found = [pattern.fullmatch(line) for _, line in lines if line]
        if found and found[0]:
            wrong = next((n for (n, line) in lines if line and not pattern.fullmatch(line)), None)
            if wrong is not None:
                raise ValueError(f"{where}, line {wrong}: not like the first line, which gives a class a colour")
            rows = {m["name"]: [int(m[p]) for p in places] for m in found if m}
            _no_twice([m["name"] for m in found if m], where, "is there twice; every class needs a name of its own")
            return _mapping(rows, where)
    for number, line in lines:
        if not line:
            raise ValueError(f"{where}, line {number}: empty; the number of the line is the label value, so none may be skipped")
    names = _names([line for _, line in lines], where)
    if not names:
        raise ValueError(f"{where}: empty; write one class name per line, in the order of the label values from 0")
    return Table(names=names, values=tuple(range(len(names))), positional=True)


def _names(names: list[Any], where: str) -> tuple[str, ...]:
    for name in names:
        if not isinstance(name, str) or not name.strip():
            hint = f" Put it in quotes: '{name}'." if isinstance(name, bool | int | float) else ""
            raise ValueError(f"{where}: the class name {name!r} is no text.{hint} {FORMS.capitalize()}.")
    _no_twice(names, where, "is there twice; every class needs a name of its own")
    return tuple(name.strip() for name in names)


def _no_twice(entries: list[str], where: str, why: str) -> None:
    twice = next((entry for i, entry in enumerate(entries) if entry in entries[:i]), None)
    if twice is not None:
        raise ValueError(f"{where}: {twice} {why}")


def _value(entry: Any, *, where: str, colour: bool) -> int:
    """A label value, or the packed colour of [r, g, b] or "#rrggbb"."""
    if colour and isinstance(entry, str) and re.fullmatch(r"#[0-9a-fA-F]{6}", entry):
        return int(entry[1:], 16)
    if colour and isinstance(entry, list) and len(entry) == 3 and all(isinstance(v, int) and 0 <= v <= 255 for v in entry):
        return colours.key(*entry)
    if colour:
        raise ValueError(f'{where}: {entry!r} is no colour; write [255, 0, 0] or "#ff0000" (a # outside quotes starts a comment)')
    if isinstance(entry, bool) or not isinstance(entry, int):
        raise ValueError(f"{where}: {entry!r} is no label value; write a whole number")
    return entry
