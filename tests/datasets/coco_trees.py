"""A small COCO 2017 tree in the official layout, with what is odd in the real one: gaps in the ids, crowds, void, overlaps."""

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SIZE = 24, 32
"""Height and width of each image."""
THINGS = [{"id": 1, "name": "person"}, {"id": 3, "name": "car"}, {"id": 90, "name": "toothbrush"}]
SEGMENTS = [
    {"id": 1, "name": "person", "isthing": 1},
    {"id": 90, "name": "toothbrush", "isthing": 1},
    {"id": 149, "name": "road", "isthing": 0, "color": [1, 2, 3]},
]


def box(top: int, left: int, height: int, width: int) -> list[float]:
    """The corners of a rectangle of whole pixels, which pycocotools fills exactly."""
    return [float(v) for v in (left, top, left + width, top, left + width, top + height, left, top + height)]


def outlines(image: int) -> list[dict[str, Any]]:
    """A small person listed before the car that it overlaps, a toothbrush of two parts, and a crowd over the left half."""
    counts = [0, SIZE[0] * 16, SIZE[0] * 16]
    rows = [
        {"category_id": 1, "segmentation": [box(4, 18, 6, 4)], "iscrowd": 0},
        {"category_id": 3, "segmentation": [box(2, 14, 14, 16)], "iscrowd": 0},
        {"category_id": 90, "segmentation": [box(20, 2, 2, 3), box(20, 26, 2, 3)], "iscrowd": 0},
        {"category_id": 1, "segmentation": {"size": list(SIZE), "counts": counts}, "iscrowd": 1},
    ]
    return [{"id": 100 * image + i, "image_id": image, "area": 1.0, "bbox": [0, 0, 1, 1]} | row for i, row in enumerate(rows)]


def drawn() -> np.ndarray:
    """The class index of each pixel of those outlines: 0 background, 1 person, 2 car, 3 toothbrush, 255 the crowd alone."""
    labels = np.zeros(SIZE, np.uint8)
    labels[:, :16] = 255
    labels[2:16, 14:30] = 2
    labels[4:10, 18:22] = 1
    labels[20:22, 2:5] = labels[20:22, 26:29] = 3
    return labels


def segments(image: int) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """Segment ids (H, W), 0 = void, and their list: numbers in each of the three bytes, and a crowd."""
    ids = np.zeros(SIZE, np.int64)
    ids[:12, 2:] = 149 + image
    ids[12:, 2:16] = 256 * 7 + 3
    ids[12:, 16:] = 65536 * 200 + 256 * 5 + 255
    ids[0, 2] = 65536
    rows = [(149 + image, 149, 0), (256 * 7 + 3, 1, 0), (65536 * 200 + 256 * 5 + 255, 1, 1), (65536, 90, 0)]
    return ids, [{"id": i, "category_id": c, "iscrowd": crowd, "area": 1, "bbox": [0, 0, 1, 1]} for i, c, crowd in rows]


def stuff_map() -> np.ndarray:
    """Label values of COCO-Stuff: id - 1, 255 = unlabelled; with the largest, and the last before and the first after a gap."""
    return np.resize(np.array([0, 10, 12, 89, 91, 181, 255], np.uint8), SIZE)


def listed(images: list[int], categories: list[dict[str, Any]], annotations: list[dict[str, Any]]) -> dict[str, Any]:
    rows = [{"id": i, "file_name": f"{i:012d}.jpg", "height": SIZE[0], "width": SIZE[1], "license": 3} for i in images]
    return {"info": {"year": 2017}, "licenses": [], "images": rows, "annotations": annotations, "categories": categories}


def dump(path: Path, document: Any, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, **options), encoding="utf-8")
    return path


def picture(path: Path, size: tuple[int, int] = SIZE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(len(path.name) + sum(path.name.encode())).integers(0, 256, (*size, 3), np.uint8)
    Image.fromarray(noise).save(path, quality=95)
    return path


def rgb(ids: np.ndarray) -> np.ndarray:
    return np.stack([ids % 256, ids // 256 % 256, ids // 65536], -1).astype(np.uint8)


def official(root: Path, images: dict[str, list[int]], *, packed: bool = False) -> Path:
    """The tree under `root` with all labels for `images` = {"train2017": [9, ...], ...}; the panoptic PNGs in a zip if `packed`."""
    for name, numbers in images.items():
        annotations = root / "annotations"
        for number in numbers:
            picture(root / name / f"{number:012d}.jpg")
        dump(annotations / f"instances_{name}.json", listed(numbers, THINGS, [row for i in numbers for row in outlines(i)]))
        rows = [{"image_id": i, "file_name": f"{i:012d}.png", "segments_info": segments(i)[1]} for i in numbers]
        dump(annotations / f"panoptic_{name}.json", listed(numbers, SEGMENTS, rows))
        for folder in (annotations / f"panoptic_{name}", root / "stuffthingmaps" / name):
            folder.mkdir(parents=True)
        for number in numbers:
            Image.fromarray(rgb(segments(number)[0])).save(annotations / f"panoptic_{name}" / f"{number:012d}.png")
            Image.fromarray(stuff_map()).save(root / "stuffthingmaps" / name / f"{number:012d}.png")
        if packed:
            with zipfile.ZipFile(annotations / f"panoptic_{name}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
                for path in sorted((annotations / f"panoptic_{name}").iterdir()):
                    archive.write(
                        path, f"panoptic_{name}/{path.name}", zipfile.ZIP_DEFLATED if "9" in path.name else zipfile.ZIP_STORED
                    )
                    path.unlink()
                archive.writestr(f"__MACOSX/panoptic_{name}/._junk.png", b"junk")
            (annotations / f"panoptic_{name}").rmdir()
    return root


def export(folder: Path, file: str, images: dict[str, list[dict[str, Any]]], categories: list[dict[str, Any]] = THINGS) -> Path:
    """Write a JSON `file` in `folder` that lists `images` = {file_name: its annotations}; the images are not written."""
    document = listed(list(range(1, len(images) + 1)), categories, [])
    for row, (name, annotations) in zip(document["images"], images.items(), strict=True):
        row["file_name"] = name
        document["annotations"] += [
            {"id": len(document["annotations"]) + i, "image_id": row["id"], "iscrowd": 0} | a for i, a in enumerate(annotations)
        ]
    return dump(folder / file, document)


def one(category: int, *shape: int) -> dict[str, Any]:
    return {"category_id": category, "segmentation": [box(*shape)]}


def plain(number: int = 1) -> list[dict[str, Any]]:
    return [{key: row[key] for key in ("category_id", "segmentation", "iscrowd")} for row in outlines(number)]
