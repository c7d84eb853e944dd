"""What label values a set of masks holds, seen in a few of them, and which classes that makes where nobody named any.

The worst fault of a dataset is a mask that is read wrongly without a word: 255 ignored though it marks the object, or a colour
picture taken for indices. So what is recognised here is said in a warning with the line that names it, and what could mean two
things is refused.
"""

import struct
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from segpipe.datasets.blocks import class_table, colours
from segpipe.datasets.blocks.class_table import Table
from segpipe.layout import WARNING, Fault

MOST_FILES, MOST_PIXELS = 50, 3 * 10**8
"""How much is looked at, spread evenly over the masks."""
MOST_VALUES = 64
"""Classes without names are made of no more values than this: nobody can read a result with so many."""
MOST_COLOURS = 64
DENSE = 0.25
"""Values of which at least this share of the range is in use count as class numbers 0, 1, 2, ..."""
GREY = 0x010101
JPEG_HEAD = b"\xff\xd8\xff"
DAMAGE = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, Image.DecompressionBombError)


@dataclass(kw_only=True)
class Seen:
    """The values of the masks looked at: pixels by label value, or by packed colour if any is a colour picture, and by mask."""

    masks: int = 0
    example: str = ""
    values: Counter[int] = field(default_factory=Counter)
    colours: Counter[int] = field(default_factory=Counter)
    by_mask: list[frozenset[int]] = field(default_factory=list)
    palette: dict[int, tuple[int, int, int]] = field(default_factory=dict)
    """The colours of the values, if all masks are palette pictures with the same ones."""
    jpeg: str | None = None

    def shares(self) -> dict[int, str]:
        """Each value's or colour's share of the pixels, in words."""
        counted = self.colours or self.values
        return {value: f"{100 * count / sum(counted.values()):.3g} % of the pixels" for value, count in counted.items()}


def look(masks: Sequence[Path], read: Callable[[int], np.ndarray], *, packed: bool = False) -> Seen:
    """Look at some of the `masks`; `read(i)` gives the labels of the i-th as `mask_file.read` does, `packed` says they are colours.

    Raises:
        ValueError: none of those looked at can be read; the message names one and what is wrong with it.
    """
    seen, broken, pixels, palettes = Seen(), "", 0, []
    for index in sorted({int(i) for i in np.linspace(0, len(masks) - 1, min(MOST_FILES, len(masks)))}):
        path = masks[index]
        try:
            array = read(index)
            palettes.append(_palette(path))
        except DAMAGE as error:  # convert reads every file and reports each of the damaged ones
            broken = broken or f"{path}: {error}"
            continue
        coloured = packed or array.ndim == 3
        counted = count(colours.pack(array) if array.ndim == 3 else array)
        (seen.colours if coloured else seen.values).update(counted)
        seen.by_mask.append(frozenset() if coloured else frozenset(counted))
        seen.masks, seen.example = seen.masks + 1, seen.example or path.name
        with open(path, "rb") as file:
            if file.read(3) == JPEG_HEAD:
                seen.jpeg = seen.jpeg or path.name
        pixels += array.size
        if pixels > MOST_PIXELS:
            break
    if not seen.masks:
        raise ValueError(broken)
    if seen.colours:  # a colour picture of greys alone was read as grey
        seen.colours.update({value * GREY: n for value, n in seen.values.items() if 0 <= value <= 255})
    if palettes[0] and all(p == palettes[0] for p in palettes):
        seen.palette = palettes[0]
    return seen


def count(array: np.ndarray) -> dict[int, int]:
    """{value: pixels} of integers. Runs of equal values are counted at once: label masks are made of long ones."""
    flat = array.ravel()
    starts = np.flatnonzero(np.concatenate([[True], flat[1:] != flat[:-1]])) if flat.size else np.zeros(0, np.int64)
    values, inverse = np.unique(flat[starts], return_inverse=True)
    lengths = np.diff(np.append(starts, flat.size))
    sums = np.bincount(inverse, weights=lengths, minlength=len(values))
    return {int(v): int(n) for v, n in zip(values, sums, strict=True)}


def refuse(seen: Seen, where: Path, table: Table | None) -> None:
    """Raise ValueError if masks are JPEGs, or colour pictures without a `table` of colours, or with one of quite other colours."""
    first = f"{where}: {seen.example}"
    if seen.jpeg is not None:
        raise ValueError(
            f"{where}: the mask {seen.jpeg} is a JPEG, whose compression changes label values near edges. Save masks as PNG from"
            " the tool that drew them; if they are black and white, `threshold: 128` tells the two apart."
        )
    if table is not None and table.colour_coded:
        if not set(seen.colours) & set(table.labels):
            found = f"the masks looked at ({seen.masks}). They hold\n{_pasteable(seen, most=8)}"
            raise ValueError(f"{first}: no colour of the class table is in any of {found}")
    elif len(seen.colours) > MOST_COLOURS:
        raise ValueError(
            f"{first} is a mask with many colours ({len(seen.colours)}; masks looked at: {seen.masks}): a photograph, a blend with"
            f" the image, or saved with soft edges. Save one flat colour per class as PNG. The largest:\n{_pasteable(seen, most=8)}"
        )
    elif seen.colours:
        raise ValueError(
            f"{first} is a colour picture. Say which colour is which class in a file classes.yaml in your folder, or under"
            " `classes:` in params.yaml; what does not count goes under `ignore:`."
            f" Found (masks looked at: {seen.masks}):\n{_pasteable(seen)}"
        )


def recognise(seen: Seen, where: Path, *, ignored: tuple[int, ...] = ()) -> tuple[Table, tuple[Fault, ...]]:
    """The classes that the values of index masks make, those `ignored` left out, and a warning that says so.

    0 and one other value are background and foreground; 0..k or 1..k are classes without a name, beside which 255 is ignored; a
    few values apart from each other are a class each.

    Raises:
        ValueError: the values are no class numbers, or could mean two things; the message has the lines that settle it.
    """
    values = sorted(set(seen.values) - set(ignored))
    if len(values) == 2 and values[0] == 0 and values[1] <= 255:
        return _binary(seen, values[1], ignored=ignored)
    inner = [value for value in values if value != 255]
    dense = len(inner) >= DENSE * (max(inner, default=0) + 1) or bool(seen.palette)
    why = _why_not(seen, values, inner, dense=dense)
    if why is not None:
        raise ValueError(f"{where}: {why} (as in {seen.example}; masks looked at: {seen.masks})")
    found = tuple(range(min(inner[0], 1), inner[-1] + 1)) if dense else tuple(inner)
    names = tuple(f"class {value}" for value in found)
    known = {seen.palette[v] for v in found if v in seen.palette}
    shown = tuple(seen.palette[v] for v in found) if len(known) == len(found) else None
    table = Table(names=names, values=found, ignored=(*ignored, *((255,) if 255 in values else ())), shown=shown)
    aside = "; 255 is ignored" if 255 in values else ""
    what = f"no class table: the label values {listed(list(found))} became {names[0]!r} to {names[-1]!r}{aside}"
    form = "[name of 0, name of 1, ...]" if dense and found[0] == 0 else f"{{name: {found[0]}, other name: {found[1]}, ...}}"
    fix = (
        f"The names are made up: write a file classes.yaml in your folder with {form}. Values seen (masks looked at:"
        f" {seen.masks}): {listed(values)}. If each value is one object, set `instances: true`."
    )
    return table, (Fault(kind="made_up_classes", what=what, example=seen.example, fix=fix, severity=WARNING),)


def _why_not(seen: Seen, values: list[int], inner: list[int], *, dense: bool) -> str | None:
    """What keeps the values from being class numbers, and the lines that help, else None."""
    paste = f"Write a file classes.yaml in your folder, or the same under `classes:` in params.yaml:\n{_pasteable(seen)}\n"
    if len(inner) < 2:
        return f"the masks hold nothing but {listed(values) or 'ignored values'}. {paste}"
    if values == [0, 1, 255] and not any({1, 255} <= mask for mask in seen.by_mask):
        return (
            "some masks hold 0 and 1, others 0 and 255, as if the object were 1 in some and 255 in others. If 255 does not count,"
            " set `ignore: 255` and `classes: [background, foreground]`; else save all masks alike"
        )
    low, high = values[0], values[-1]
    ends = (seen.values[low] + seen.values[high]) / sum(seen.values.values())
    if low >= 0 and 200 <= high <= 255 and len(inner) >= 16 and ends > 0.8:
        return (
            f"the masks hold {len(values)} different values, but nearly all pixels are {low} or {high}: two classes with soft"
            f" edges. Save them without smoothing, or set `threshold: {(low + high + 1) // 2}`"
        )
    if low < 0 or high > 255 or (inner[-1] + 1 if dense else len(inner)) > MOST_VALUES or _numbers_objects(seen):
        return (
            f"the masks hold {len(values)} different values from {low} to {high}. If each value is one object, set"
            " `instances: true` (0 is the background). If they are classes, write a file classes.yaml in your folder, with a list"
            " of names in the order of the values, or {name: value, ...}"
        )
    if 255 in values and not dense:
        return (
            f'the masks hold the values {listed(values)}; 255 may be a class or mean "ignore". {paste}  '
            "If 255 does not count, write ignore: 255 in place of its line"
        )
    return None


def _numbers_objects(seen: Seen) -> bool:
    """Whether the masks look numbered object by object: 0..n in each of them, up to different n, and some n of 8 or more."""
    highest = [max(mask) for mask in seen.by_mask if mask == frozenset(range(len(mask)))]
    return len(highest) == seen.masks >= 3 and len(set(highest)) >= 3 and max(highest) >= 8


def two_named(seen: Seen, table: Table) -> tuple[Table, tuple[Fault, ...]] | None:
    """For a list of two names and masks of 0 and 255: the second name is 255, and a warning says so. Else None."""
    if not table.positional or len(table.names) != 2 or sorted(seen.values) != [0, 255] or seen.colours or table.ignored:
        return None
    return _binary(seen, 255, names=table.names)


def _binary(
    seen: Seen, high: int, *, names: tuple[str, ...] = ("background", "foreground"), ignored: tuple[int, ...] = ()
) -> tuple[Table, tuple[Fault, ...]]:
    share = 100 * seen.values[high] / sum(seen.values.values())
    what = f"the masks hold 0 and {high}, read as {names[0]} and {names[1]} ({share:.2g} % of the pixels)"
    line = f"{{{names[0]}: 0, {names[1]}: {high}}}"
    fix = f"To name them, and to settle this: `classes: {line}` in params.yaml, or {line} in a file classes.yaml in your folder."
    fault = Fault(kind="binary_mask", what=what, example=seen.example, fix=fix, severity=WARNING)
    return Table(names=names, values=(0, high), ignored=ignored), (fault,)


def _pasteable(seen: Seen, most: int = MOST_COLOURS) -> str:
    """The lines of a class table of what was seen, colours by size, with shares."""
    colour_coded = bool(seen.colours)
    largest = [value for value, _ in (seen.colours or seen.values).most_common(most)]
    largest = largest if colour_coded else sorted(largest)
    rows = [(f"class {number}" if colour_coded else f"class {value}", value) for number, value in enumerate(largest)]
    return class_table.as_yaml(rows, colour_coded=colour_coded, notes=seen.shares())


def listed(values: list[int]) -> str:
    """Label values as a person reads them: 0..3, or 0, 4, 255; of many the first 24."""
    if len(values) > 2 and values == list(range(values[0], values[-1] + 1)):
        return f"{values[0]}..{values[-1]}"
    return ", ".join(str(v) for v in values[:24]) + (", ..." if len(values) > 24 else "")


def _palette(path: Path) -> dict[int, tuple[int, int, int]]:
    """{index: colour} of a palette picture, else empty."""
    if path.suffix.lower() in (".mat", ".npy"):
        return {}
    with Image.open(path) as image:
        numbers = (image.getpalette("RGB") or []) if image.mode == "P" else []
    triples = [(numbers[i], numbers[i + 1], numbers[i + 2]) for i in range(0, len(numbers) - 2, 3)]
    return dict(enumerate(triples))
