"""The same true segments for every model of a dataset, and what each model's maps of them say.

Which segments are taken depends on the ground truth and the seed alone, so that two models can be compared segment by segment
(`versus.py`). Nothing here asks whether the network was right: the maps are of the segment's true class over the segment.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd

from segpipe.failures.context import Context
from segpipe.failures.labelling import connected
from segpipe.failures.look import KINDS, WINDOW, Answer, Question, Viewer, window_around
from segpipe.failures.measures import EVIDENCE, NO_EVIDENCE, ROUNDING, lay_over
from segpipe.failures.occlusion import deletion_score
from segpipe.failures.versus import PICTURES, SEGMENTS
from segpipe.shards import decode_mask

SHARE, FEWEST, MOST = 0.3, 8, 60
"""Segments per image of the split, and the least and most of them: what they cost grows with the test set, up to a point."""
VISITED = 4
"""Images are searched for segments until there are this many times as many as segments are wanted."""
SMALLEST, SMALLEST_SHARE, LARGEST_SHARE = 64, 0.001, 0.5
"""A segment has at least so many pixels and this share of its image, and leaves half of the image to look at something else."""
FOUND = 0.5
SIDE = 256
"""Pixels of the longer side of a picture."""
QUALITY = 80


@dataclass(frozen=True, kw_only=True)
class Segment:
    """A true segment: its image, its number in it (from 1, in scan order of 8-connected groups), its class and its pixels."""

    id: str
    number: int
    label: int
    area: int


@dataclass(frozen=True, kw_only=True)
class Segments:
    """`table`: one row per segment, columns as in `versus.COLUMNS`; `pictures`: per row the image and its map, uint8 (h, w, 3)."""

    table: pd.DataFrame
    pictures: list[tuple[np.ndarray, np.ndarray]]


def measure(context: Context, *, layer: str | None = None) -> Segments:
    """The measures of one model on the common segments of its split, on `layer` (the viewer's first)."""
    name = layer or next(iter(context.viewer.layers))
    viewer = replace(context.viewer, layers={name: context.viewer.layers[name]})
    chosen = choose(context)
    rows: list[dict[str, Any]] = []
    pictures: list[tuple[np.ndarray, np.ndarray]] = []
    for image_id in dict.fromkeys(segment.id for segment in chosen):
        image, target, prediction = context.arrays(image_id)
        labels = _segments(target, context.ignore_index)
        mine = [segment for segment in chosen if segment.id == image_id]
        questions = [Question(region=labels == s.number, true=s.label, predicted=s.label) for s in mine]
        for segment, question, answer in zip(mine, questions, viewer.ask(image, questions), strict=True):
            region = question.region
            window = np.zeros(region.shape, bool)
            window[answer.window] = True
            row: dict[str, Any] = {"id": image_id, "segment": segment.number, "label": segment.label, "area": segment.area}
            row["area_share"] = float((region & window).sum() / window.sum())
            row["iou"] = _overlap(region, segment.label, target, prediction, ignore_index=context.ignore_index)
            axes = answer.axes[name]
            row |= {"found": row["iou"] >= FOUND, "layer": name, "cell": max(1 / axis.scale for axis in axes)}
            row["logit"] = answer.logits[0]
            energies = {kind: _energy(answer, name, kind, window) for kind in KINDS}
            for kind in ("hirescam", "gradcam"):
                row |= {f"{kind}_{what}": value for what, value in _shares(energies[kind], region, window).items()}
            rng = np.random.default_rng(_number(context.seed, image_id, segment.number))
            row["deletion"] = _deletion(viewer, image, region, answer, name, index=segment.label, rng=rng)
            rows.append(row)
            pictures.append(_pictures(image, region, energies["hirescam"]))
    return Segments(table=_table(rows), pictures=pictures)


def write(folder: Path, segments: Segments) -> None:
    """Write segments.parquet and segments.npz into `folder`; `versus.read` reads them."""
    folder.mkdir(parents=True, exist_ok=True)
    segments.table.to_parquet(folder / SEGMENTS, index=False)
    arrays: dict[str, np.ndarray] = {}
    for row, pair in enumerate(segments.pictures):
        for name, picture in zip(("image", "map"), pair, strict=True):
            done, data = cv2.imencode(".webp", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_WEBP_QUALITY, QUALITY])
            assert done
            arrays[f"{row}/{name}"] = data.ravel()
    np.savez(folder / PICTURES, **arrays)  # type: ignore[arg-type]


def choose(context: Context) -> list[Segment]:
    """The common segments of a split, in the order of its images.

    Classes take turns, so that rare ones have their share; in a class the segments come in an order that depends on the seed, the
    image and the segment only; an image gives a second segment only when no image is left that has given none.
    """
    ids, masks = context.split.ids, context.split.column("mask")
    wanted = min(max(round(SHARE * len(ids)), FEWEST), MOST)
    order = sorted(range(len(ids)), key=lambda row: _number(context.seed, ids[row], 0))
    candidates: dict[int, list[tuple[int, Segment]]] = {}
    for row in order[: VISITED * wanted]:
        for segment in _candidates(ids[row], decode_mask(masks[row]), context.ignore_index):
            candidates.setdefault(segment.label, []).append((_number(context.seed, segment.id, segment.number), segment))
    queues = {label: [s for _, s in sorted(found, key=lambda one: one[0])] for label, found in sorted(candidates.items())}
    taken: list[Segment] = []
    used: dict[str, int] = {}
    most = 1
    while len(taken) < wanted and any(queues.values()):
        before = len(taken)
        for queue in queues.values():
            place = next((i for i, segment in enumerate(queue) if used.get(segment.id, 0) < most), None)
            if place is not None and len(taken) < wanted:
                taken.append(queue.pop(place))
                used[taken[-1].id] = used.get(taken[-1].id, 0) + 1
        most += len(taken) == before
    positions = {name: row for row, name in enumerate(ids)}
    return sorted(taken, key=lambda segment: (positions[segment.id], segment.number))


def _candidates(name: str, target: np.ndarray, ignore_index: int) -> Iterator[Segment]:
    labels = _segments(target, ignore_index)
    areas = np.bincount(labels.ravel())
    _, first = np.unique(labels, return_index=True)
    of = dict(zip(labels.ravel()[first].tolist(), target.ravel()[first].tolist(), strict=True))
    for number, area in enumerate(areas.tolist()):
        if number and max(SMALLEST, SMALLEST_SHARE * target.size) <= area <= LARGEST_SHARE * target.size:
            yield Segment(id=name, number=number, label=int(of[number]), area=area)


def _segments(target: np.ndarray, ignore_index: int) -> np.ndarray:
    return connected(np.where(target == ignore_index, 0, target.astype(np.int32) + 1))[0]


def _overlap(region: np.ndarray, label: int, target: np.ndarray, prediction: np.ndarray, *, ignore_index: int) -> float:
    """IoU of a true segment and the predicted segments that touch it; their pixels on other segments of the class count nowhere."""
    predicted, _ = connected(((prediction == label) & (target != ignore_index)).astype(np.int32))
    touching = np.unique(predicted[region & (predicted > 0)])
    guess = np.isin(predicted, touching) & (predicted > 0) & (region | (target != label))
    return float((guess & region).sum() / (guess | region).sum())


def _energy(answer: Answer, layer: str, kind: str, window: np.ndarray) -> np.ndarray:
    """The energy (H, W) of the true class's map, all 0 where it has no positive value beyond rounding."""
    raw = answer.maps[layer][kind][0]
    positive = np.where(raw > ROUNDING * float(np.abs(raw).max()), raw, 0)
    return lay_over(positive, rows=answer.axes[layer][0], columns=answer.axes[layer][1], window=window)


def _shares(energy: np.ndarray, region: np.ndarray, window: np.ndarray) -> dict[str, Any]:
    total = float(energy.sum())
    if not total > 0:
        return {"status": NO_EVIDENCE} | dict.fromkeys(("inside", "concentration", "entropy"), float("nan"))
    inside = float(energy[region].sum() / total)
    share = energy[energy > 0].astype(np.float64) / total
    entropy = float(-(share * np.log(share)).sum() / np.log(window.sum()))
    concentration = inside * float(window.sum()) / float((region & window).sum())
    return {"status": EVIDENCE, "inside": inside, "concentration": concentration, "entropy": min(max(entropy, 0.0), 1.0)}


def _deletion(
    viewer: Viewer, image: np.ndarray, region: np.ndarray, answer: Answer, layer: str, *, index: int, rng: np.random.Generator
) -> float:
    raw = answer.maps[layer]["hirescam"][0]
    if not raw.max() > 0:
        return float("nan")
    return deletion_score(
        viewer, image, region, np.maximum(raw, 0), answer.axes[layer], stride=viewer.grids[layer].stride, index=index, rng=rng
    )


def _pictures(image: np.ndarray, region: np.ndarray, energy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The image, and the map over a grey version of it, with the segment outlined: uint8 (h, w, 3), the same part for every model.

    The map is on its own scale, from 0 to its highest value: the logits of two networks have no common unit.
    """
    size = image.shape[:2]
    top, left, bottom, right = window_around(region, seen=size, limit=(min(WINDOW[0], size[0]), min(WINDOW[1], size[1])))
    view = (slice(top, bottom), slice(left, right))
    part = image[view]
    factor = SIDE / max(part.shape[:2])
    shape = (max(1, round(part.shape[1] * factor)), max(1, round(part.shape[0] * factor)))
    base = cv2.resize(part, shape, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC)
    shown = cv2.resize(region[view].astype(np.float32), shape, interpolation=cv2.INTER_AREA) > 0
    grown = cv2.dilate(shown.astype(np.uint8), np.ones((5, 5), np.uint8))
    outline = cv2.findContours(grown, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)[0]
    level = np.clip(cv2.resize((energy[view] / (energy.max() or 1.0)).astype(np.float32), shape), 0, 1)
    grey = np.repeat((90 + cv2.cvtColor(base, cv2.COLOR_RGB2GRAY) * np.float32(0.55))[..., None], 3, axis=2)
    heat = cv2.cvtColor(cv2.applyColorMap(np.rint(level * 255).astype(np.uint8), cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB)
    weight = (0.88 * level**0.6)[..., None]
    pair = base.copy(), np.rint(grey * (1 - weight) + heat * weight).astype(np.uint8)
    for picture in pair:
        cv2.drawContours(picture, outline, -1, (0, 0, 0), 3)
        cv2.drawContours(picture, outline, -1, (255, 255, 255), 1)
    return pair


def _table(rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
    whole, text, flags = ("segment", "label", "area"), ("id", "layer"), ("found",)
    names = ["id", "segment", "label", "area", "area_share", "iou", "found", "layer", "cell", "logit"]
    names += [f"{kind}_{what}" for kind in ("hirescam", "gradcam") for what in ("status", "inside", "concentration", "entropy")]
    table = pd.DataFrame(list(rows), columns=[*names, "deletion"])
    kinds: dict[str, str] = {name: "float64" for name in table.columns}
    kinds |= dict.fromkeys(whole, "int64") | dict.fromkeys(flags, "bool")
    kinds |= dict.fromkeys((*text, "hirescam_status", "gradcam_status"), "str")
    return table.astype(kinds)


def _number(seed: int, image: str, segment: int) -> int:
    """A number that depends on its arguments alone, for orders and for random generators."""
    return int.from_bytes(hashlib.sha256(f"{seed}\0{image}\0{segment}".encode()).digest()[:8], "big")
