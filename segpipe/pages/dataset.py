"""The page of one dataset: what the audit found, with pictures, and what the data is made of, in one HTML file."""

import base64
import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from segpipe import shards
from segpipe.audit import Audit, Finding
from segpipe.finding_kinds import KINDS
from segpipe.layout import ERROR
from segpipe.pages.dataset_figures import volume_sheets
from segpipe.pages.render import data_uri, render
from segpipe.shards import SPLITS, DatasetInfo

SHOWN, LISTED = 3, 60
"""Of the findings of one kind so many are shown in full, and so many more as lines of a list."""
SHORT_TABLE = 40
"""A table of more classes scrolls within itself."""
PICTURE_BYTES, SHEET_BYTES = 3 * 2**20, 3 * 2**20
"""What the pictures of the findings and the contact sheets may take before base64: the page stays under 10 MB."""
SIDES = (0.003, 1.0)
"""The ends of the axis of instance sizes, as parts of the image's side."""


def write_page(path: Path, *, name: str, audit: Audit, statistics: Mapping[str, Any], folder: Path | None = None) -> None:
    """Write the page of the dataset `name` to `path`, with the contact sheets of the converted `folder`, if there is one."""
    sheets = {}
    if folder is not None:
        files = {split: folder / "preview" / f"{split}.png" for split in SPLITS}
        sheets = {split: shards.decode_image(file.read_bytes()) for split, file in files.items() if file.exists()}
    info = None if folder is None else shards.read_info(folder)
    if folder is not None and info is not None and info.dimensions == 3:
        sheets = volume_sheets(folder, info)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(render_page(info=info, name=name, findings=audit.findings, statistics=statistics, sheets=sheets))


def render_page(
    *,
    info: DatasetInfo | None,
    name: str,
    findings: Sequence[Finding],
    statistics: Mapping[str, Any],
    sheets: Mapping[str, np.ndarray],
) -> str:
    """The self-contained HTML text of the page.

    `info` is None where errors stopped the conversion: the page then shows the findings and what could be counted.
    `statistics` is `DatasetStatistics.summary()`, or empty; `sheets` holds a contact sheet uint8 (H, W, 3) for each split.
    """
    errors = sum(f.severity == ERROR for f in findings)
    splits = {split: row for split, row in statistics.get("splits", {}).items() if row["samples"]}
    classes = _classes(info, statistics, list(splits))
    volumes = bool(splits) and statistics["sizes"]["depth"]["max"] > 1
    return render(
        "dataset.html",
        name=name,
        info=info,
        errors=errors,
        warnings=len(findings) - errors,
        verdict=verdict(info, errors=errors, warnings=len(findings) - errors, splits=splits),
        before_training=_before_training(info, splits),
        facts=_facts(statistics, "voxel" if volumes else "pixel") if splits and not errors else [],
        unit="voxels" if volumes else "pixels",
        samples="volumes" if volumes else "images",
        groups=_groups(findings),
        splits=splits,
        classes=classes,
        with_instances=[c for c in classes if c["instances"]],
        ticks=[(_at(v), f"{100 * v:g} %") for v in (0.01, 0.1)],
        short_table=SHORT_TABLE,
        sizes=statistics.get("sizes") if splits else None,
        most=max((row["count"] for row in statistics["sizes"]["common"]), default=1) if splits else 1,
        channels=_channels(statistics),
        sheets=[
            {"split": split, "uri": uri, "samples": splits.get(split, {}).get("samples"), "width": sheets[split].shape[1]}
            for split, uri in _sheets(sheets).items()
        ],
        provenance=list(_provenance(info.provenance)) if info else [],
        whole=whole,
        percent=percent,
        weight=weight,
    )


def verdict(info: DatasetInfo | None, *, errors: int, warnings: int, splits: Mapping[str, Mapping[str, Any]]) -> str:
    """One sentence: can it be trained on, and how many findings there are."""
    warned = "1 warning" if warnings == 1 else f"{warnings} warnings"
    if errors:
        stop = "1 error stops this dataset" if errors == 1 else f"{errors} errors stop this dataset"
        return f"{stop}; {warned}." if warnings else f"{stop}."
    counts = [f"{whole(row['samples'])} {split}" for split, row in splits.items()]
    samples = f"{', '.join(counts[:-1])} and {counts[-1]}" if len(counts) > 1 else "".join(counts) or "no"
    noun = "sample" if counts and splits[list(splits)[-1]]["samples"] == 1 else "samples"
    start = "No error was found" if info is None or _before_training(info, splits) else "Ready to train"
    return f"{start}: {samples} {noun}; {warned if warnings else 'no warnings'}."


def _before_training(info: DatasetInfo | None, splits: Mapping[str, Any]) -> str:
    """What data without an error still needs, "" if nothing."""
    if info is None:
        return ""
    if info.dimensions == 3:
        return "The networks read images: to train on these volumes, set slices in the dataset's row to the axis to cut across."
    missing = [split for split in SPLITS if split not in splits]
    how = "in the dataset's row say how splits are drawn (splits), or what stands in for it (stand_in)"
    return f"A training needs {' and '.join(missing)} samples too: {how}." if missing else ""


def whole(number: int) -> str:
    """1234567 as 1,234,567."""
    return f"{number:,}"


def percent(share: float | None) -> str:
    """A share of 0..1 in hundredths with two digits or three: 33.1, 5.0, 0.12; 0 for none, a dash if undefined."""
    if not share:
        return "–" if share is None else "0"
    value = 100 * share
    return f"{value:.1f}" if value >= 0.995 else f"{value:#.2g}"


def weight(value: float | None) -> str:
    """A class weight with three digits, 0.200, 38.9, 1,204; a dash if undefined."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if value >= 99.95 else f"{value:#.3g}"


def _facts(statistics: Mapping[str, Any], unit: str) -> list[str]:
    """What the counts of train say, in words; `unit` is pixel or voxel."""
    train = statistics["splits"]["train"]
    rows = sorted((c for c in statistics["classes"] if c["pixels"]["train"]), key=lambda c: c["pixels"]["train"])
    facts = []
    if rows:
        largest, rarest = rows[-1], rows[0]
        share = percent(largest["share"]["train"])
        facts.append(f"Calling every {unit} {largest['name']} would already be right for {share} % of train's labelled {unit}s.")
        if len(rows) > 1:
            facts.append(f"The rarest class there, {rarest['name']}, has {percent(rarest['share']['train'])} %.")
    if train["ignored"]:
        facts.append(f"{percent(train['ignored_share'])} % of train's {unit}s carry no label and are ignored.")
    return facts


def _groups(findings: Sequence[Finding]) -> list[dict[str, Any]]:
    """Findings by severity and kind, errors first: some in full, more as lines, the rest as a number."""
    left = PICTURE_BYTES
    groups = []
    ordered = sorted(findings, key=lambda f: f.severity != ERROR)
    kinds = {(f.severity, f.kind): i for i, f in reversed(list(enumerate(ordered)))}
    ordered.sort(key=lambda f: kinds[f.severity, f.kind])
    for (severity, kind), members in groupby(ordered, key=lambda f: (f.severity, f.kind)):
        rows = list(members)
        cards = []
        for finding in rows[:SHOWN]:
            pictures = []
            for caption, data in finding.pictures:
                if len(data) <= left:
                    left -= len(data)
                    pictures.append({"caption": caption, "uri": _encoded_uri(data)})
            cards.append({"finding": finding, "title": finding.what[:1].upper() + finding.what[1:], "pictures": pictures})
        listed = rows[SHOWN : SHOWN + LISTED]
        groups.append(
            {
                "severity": severity,
                "kind": kind,
                "meaning": KINDS.get(kind, ""),
                "cards": cards,
                "listed": listed,
                "unlisted": len(rows) - len(cards) - len(listed),
            }
        )
    return groups


def _encoded_uri(data: bytes) -> str:
    kind = "png" if data.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def _classes(info: DatasetInfo | None, statistics: Mapping[str, Any], splits: Sequence[str]) -> list[dict[str, Any]]:
    """The rows of the class table: shares with the widths of their bars in hundredths of the largest one."""
    rows = statistics.get("classes", [])
    top = max((row["share"][split] or 0 for row in rows for split in splits), default=0) or 1
    found = []
    for index, row in enumerate(rows):
        instances = row["instances"]
        found.append(
            {
                "index": index,
                "name": row["name"],
                "colour": "rgb({}, {}, {})".format(*info.classes[index].colour) if info else None,
                "shares": [(row["share"][split], 100 * (row["share"][split] or 0) / top, row["pixels"][split]) for split in splits],
                "images": [row["images"][split] for split in splits],
                "weights": [row["weights"][name] for name in ("median_frequency", "inverse_frequency")],
                "instances": instances if any(instances["count"].values()) or any(instances["crowds"].values()) else None,
                "crowds": sum(instances["crowds"].values()),
                "range": {name: _at(side) for name, side in instances["side"].items()} if instances["side"] else None,
            }
        )
    return found


def _at(side: float) -> str:
    """The place of a relative size on the logarithmic axis, as a CSS length."""
    low, high = (math.log(v) for v in SIDES)
    return f"{100 * min(max((math.log(side) - low) / (high - low), 0), 1):.1f}%"


def _channels(statistics: Mapping[str, Any]) -> list[tuple[str, float, float]]:
    mean, std = statistics.get("mean"), statistics.get("std")
    if mean is None or std is None:
        return []
    names = ("red", "green", "blue") if len(mean) == 3 else [f"channel {i + 1}" for i in range(len(mean))]
    return list(zip(names, mean, std, strict=True))


def _sheets(sheets: Mapping[str, np.ndarray]) -> dict[str, str]:
    """The contact sheets as addresses, made smaller together until they fit the page."""
    scale = 1.0
    while True:
        uris = {split: data_uri(_scaled(sheet, scale), jpeg=True) for split, sheet in sheets.items()}
        if sum(map(len, uris.values())) * 3 / 4 <= SHEET_BYTES or scale < 0.1:
            return uris
        scale *= 0.8


def _scaled(picture: np.ndarray, scale: float) -> np.ndarray:
    if scale == 1:
        return picture
    size = max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale))
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA)


def _provenance(provenance: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    """(key, text) for where the data comes from and what was done to it."""
    rest = dict(provenance)
    sources, splits, settled, anew = (rest.pop(key, None) for key in ("sources", "splits", "stand_in", "reencoded"))
    for record in sources or ():
        row = dict(record)
        origin, name, files, size = (row.pop(key, None) for key in ("from", "filename", "files", "size"))
        row.pop("unpacked", None)
        digest, checked = row.pop("sha256", None), row.pop("checked", False)
        about = [f"{whole(files)} files" if files else "", f"{size / 1e6:,.1f} MB" if size else ""]
        yield "source", f"{origin or name}{f', as {name}' if origin and name else ''} ({', '.join(filter(None, about))})"
        if digest:
            yield "sha256", f"{digest} ({'as published' if checked else 'none is published to compare it with'})"
        yield from _lines(row)
    yield from _lines({key: value for key, value in rest.items() if key != "class_map"})
    if isinstance(splits, Mapping):
        parts = splits.get("fractions") or {"fold": f"{splits.get('fold', 0)} of {splits.get('folds')} is test"}
        salt = f", salt {splits['salt']}" if "salt" in splits else ""
        yield "splits", f"drawn by {splits.get('by', 'group')}: {', '.join(f'{k} {v}' for k, v in parts.items())}{salt}"
    elif splits:
        yield "splits", "those of the source" if splits == "official" else str(splits)
    for row in settled or ():
        part = "all of" if row["fraction"] is None else f"{row['fraction']:g} of"
        yield "stand-in", f"{row['split']} is {part} {row['from']}, {whole(row['count'])} samples{_how(row['by'])}"
    yield from _lines({"class_map": rest.get("class_map")})
    if anew:
        yield "stored anew", "as 8-bit RGB PNG: " + ", ".join(f"{whole(count)} of {kind}" for kind, count in anew.items())


def _how(by: str) -> str:
    return "" if by == "all" else f" chosen by {by}"


def _lines(value: Any, path: tuple[str, ...] = ()) -> Iterable[tuple[str, str]]:
    """(key, text) for everything nested in the provenance; empty parts are left out."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _lines(inner, (*path, str(key)))
    elif isinstance(value, Sequence) and not isinstance(value, str):
        if all(isinstance(inner, str | int | float) for inner in value):
            yield from _lines(", ".join(map(str, value)), path)
        else:
            for number, inner in enumerate(value, 1):
                yield from _lines(inner, (*path, str(number)) if len(value) > 1 else path)
    elif value not in (None, ""):
        yield " · ".join(path).replace("_", " "), str(value)
