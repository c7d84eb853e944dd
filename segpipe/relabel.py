"""Label values of a source become class indices, and values that are none are named."""

from collections.abc import Mapping

import numpy as np

from segpipe.layout import Fault

LISTED = 8
"""From so many unknown values in one mask on, they are one finding: smeared values, not forgotten classes."""


def relabel(source: np.ndarray, labels: Mapping[int, int], *, ignore_index: int) -> tuple[np.ndarray, dict[int, int]]:
    """Source label values, integers of any shape, to class indices uint8 (uint16 if `ignore_index` is above 255), by a table.

    Returns the mask and the values that `labels` does not hold, each with its number of pixels; these become ignored.
    """
    dtype = np.uint8 if ignore_index <= 255 else np.uint16
    source = source.astype(np.uint8) if source.dtype == bool else source
    low, high = (int(source.min()), int(source.max())) if source.size else (0, 0)
    if 0 <= low and high < 65536:  # a table over all values is the fastest
        counts = np.bincount(source.ravel())
        values = np.flatnonzero(counts)
        table = np.full(len(counts), ignore_index, dtype)
        table[values] = [labels.get(int(v), ignore_index) for v in values]
        mask, counts = table[source], counts[values]
    else:
        import pandas as pd  # here, as few sources need it and each process of convert would take a third of a second to import it

        codes, values = pd.factorize(source.ravel())
        counts = np.bincount(codes, minlength=len(values))
        mask = np.array([labels.get(int(v), ignore_index) for v in values], dtype)[codes].reshape(source.shape)
    return mask, {int(v): int(n) for v, n in sorted(zip(values, counts, strict=True)) if int(v) not in labels}


def unknown_faults(
    unknown: Mapping[int, int], *, labels: Mapping[int, int], example: str, colours: bool, jpeg: bool
) -> list[tuple[Fault, str | None]]:
    """What the unknown values of one mask ({value: pixels}) mean, each with the value in question as params.yaml writes it.

    `jpeg` says that the mask's file is a JPEG: then its values are wrong even where they are known.
    """
    total = sum(unknown.values())
    if jpeg:
        what = "the mask is a JPEG, whose compression changes label values near edges"
        fix = "Save masks as PNG, from the tool that drew them; a JPEG cannot be mended."
        return [(Fault(kind="jpeg_mask", what=what, example=f"{example} ({total} pixels of unknown values)", fix=fix), None)]
    if not unknown:
        return []
    names = [named(value, colours=colours) for value in unknown]
    known = ", ".join(named(v, colours=colours) for v in sorted(labels)[:20]) + (", ..." if len(labels) > 20 else "")
    if list(unknown) == [255] and not colours:
        what = "the mask holds the value 255, which is no class"
        fix = f"If 255 marks the object, name it; if it marks what does not count, ignore it. Known values: {known}."
        return [(Fault(kind="ignore_as_foreground", what=what, example=f"{example} ({total} pixels)", fix=fix), "255")]
    if len(unknown) >= LISTED:
        what = "the mask holds many unknown values, as after smooth resizing, JPEG compression or drawing with soft edges"
        example = f"{example} ({', '.join(names[:6])}, ...: {len(unknown)} values, {total} pixels)"
        fix = f"Save masks without interpolation. Known values: {known}."
        return [(Fault(kind="smeared_mask", what=what, example=example, fix=fix), None)]
    fix = f"Known values: {known}. Mend the masks, or give the value a meaning."
    return [
        (
            Fault(
                kind="unknown_label",
                what=f"the mask holds the unknown label value {name}",
                example=f"{example} ({count} pixels)",
                fix=fix,
            ),
            f'"{name}"' if colours else name,
        )
        for name, count in zip(names, unknown.values(), strict=True)
    ]


def named(value: int, *, colours: bool) -> str:
    """A label value for people: a number, or #rrggbb."""
    return f"#{value:06x}" if colours and value >= 0 else str(value)
