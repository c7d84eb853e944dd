"""Real folders of several people read as their owner would give them, with the fewest options; every mask is checked on its own."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
import yaml
from PIL import Image

from segpipe.audit import AuditError
from segpipe.convert import convert
from segpipe.datasets import folder
from segpipe.items import Rules, convert_item
from segpipe.layout import WARNING, Item, Scan
from segpipe.shards import Split, decode_mask

RULE = {"fractions": {"train": 0.6, "val": 0.2, "test": 0.2}, "by": "group"}


def encoded(scan: Scan, item: Item) -> np.ndarray:
    """The mask of one sample as the engine stores it."""
    names = tuple(c.name for c in scan.classes)
    rules = Rules(
        labels=scan.labels,
        class_names=names,
        categories=tuple(range(len(names))),
        ignore_index=scan.ignore_index,
        colours=scan.colours,
    )
    done = convert_item(item, load=folder.load, rules=rules)
    assert done.sample is not None and all(fault.severity == WARNING for fault, _ in done.faults), done.faults
    return decode_mask(done.sample.mask)


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def sample(samples: Path, name: str) -> Path:
    if not (samples / name).is_dir():
        pytest.skip(f"no {name} among the sample data")
    return samples / name


def read_matlab(path: Path) -> np.ndarray:
    return scipy.io.loadmat(str(path))["groundTruth"][0, 0]["Segmentation"]


def test_crackforest_numbers_segments_and_four_masks_hold_more_than_background_and_crack(samples: Path, tmp_path: Path) -> None:
    """Its masks are .mat structures of two arrays; 1 is the background and 2 the crack, but 4 of these 88 also hold 3 or 4."""
    raw = sample(samples, "crackforest")
    truth = {path.stem: read_matlab(path) for path in sorted((raw / "groundTruth").iterdir())}
    more = sorted(name for name, mask in truth.items() if mask.max() > 2)
    assert len(truth) == 88 and more == ["040", "054", "084", "085"]
    scan = folder.scan(raw)
    assert {c.name for c in scan.classes} == {"class 1", "class 2", "class 3", "class 4"}, "50 masks show the further values"
    options: dict[str, Any] = {"classes": {"background": 1, "crack": 2}}
    with pytest.raises(AuditError) as caught:
        convert(raw, tmp_path / "out", name="cracks", scan=folder.scan(raw, **options), load=folder.load, splits=RULE)
    found = {finding.what: finding for finding in caught.value.findings if finding.severity == "error"}
    assert {what[-1]: finding.count for what, finding in found.items()} == {"3": 4, "4": 1}
    assert all(f"image/{name}.jpg" in str(found) for name in more)
    scan = folder.scan(raw, **options, ignore=[3, 4])
    info, _ = convert(raw, tmp_path / "out", name="cracks", scan=scan, load=folder.load, splits=RULE)
    assert sum(info.splits.values()) == 88 and min(info.splits.values()) > 5
    for split in info.splits:
        stored = Split(tmp_path / "out", split)
        for number, name in enumerate(stored.ids):
            assert (stored.arrays(number)[1] == np.array([255, 0, 1, 255, 255])[truth[name]]).all()
            assert stored[number].image == (raw / "image" / f"{name}.jpg").read_bytes()


def test_cwfid_has_two_folders_of_masks_and_colours(samples: Path, tmp_path: Path) -> None:
    raw = sample(samples, "cwfid")
    with pytest.raises(ValueError, match=r"images with annotations \(4 pairs\); images with masks \(4 pairs\)"):
        folder.scan(raw)
    with pytest.raises(ValueError, match=r"\[0, 0, 0\]  # 91.9 % of the pixels") as caught:
        folder.scan(raw, masks="annotations")
    table = yaml.safe_load(str(caught.value).partition("):\n")[2])
    assert sorted(table.values()) == [[0, 0, 0], [0, 255, 0], [255, 0, 0]]
    scan = folder.scan(raw, masks="annotations", classes={"soil": [0, 0, 0], "crop": "#00ff00", "weed": [255, 0, 0]})
    assert [item.id for item in scan.items] == ["002", "005", "013", "031"] and not scan.faults
    for item in scan.items:
        rgb = pixels(raw / "annotations" / f"{item.id}_annotation.png")
        wanted = np.where(rgb[..., 0] == 255, 2, np.where(rgb[..., 1] == 255, 1, 0))
        assert (encoded(scan, item) == wanted).all() and {0, 1, 2} == set(np.unique(wanted))
    scan = folder.scan(raw, masks="masks")  # 1-bit: plants are 0
    assert scan.faults[0].kind == "binary_mask" and "90 %" in scan.faults[0].what
    assert all((encoded(scan, item) == pixels(raw / "masks" / f"{item.id}_mask.png")).all() for item in scan.items)


def test_cwfid_by_patterns(samples: Path) -> None:
    raw = sample(samples, "cwfid")
    colours = {"soil": [0, 0, 0], "crop": [0, 255, 0], "weed": [255, 0, 0]}
    patterns = {"images": "images/{id}_image.png", "masks": "annotations/{id}_annotation.png"}
    by_pattern, by_folder = folder.scan(raw, **patterns, classes=colours), folder.scan(raw, masks="annotations", classes=colours)
    assert [(i.id, i.source, i.mask) for i in by_pattern.items] == [(i.id, i.source, i.mask) for i in by_folder.items]


def test_dental_caries_are_a_fraction_of_a_percent(samples: Path) -> None:
    raw = sample(samples, "dental_caries_mlua")
    scan = folder.scan(raw)
    assert [(i.id, i.split) for i in scan.items] == [("1008", "test"), ("1009", "test")]
    assert {i.split for i in folder.scan(raw / "dataset" / "test").items} == {None}, "the folder alone is no split"
    assert [f.kind for f in scan.faults] == ["binary_mask"]
    counts = []
    for item in scan.items:
        mask = encoded(scan, item)
        assert (mask == (pixels(raw / "dataset/test/labels_cut" / f"{item.id}.png") == 255)).all()
        counts.append(int((mask == 1).sum()))
    assert counts == [3212, 1417], "none of the few foreground pixels is lost"


def test_lung_masks_lie_beside_the_images(samples: Path) -> None:
    raw = sample(samples, "lung_cxr")
    scan = folder.scan(raw, classes=["background", "lung"])
    assert [(i.id, i.image.name, i.mask and i.mask.name) for i in scan.items] == [
        ("1", "1.jpg", "1-mask.png"),
        ("2", "2.jpg", "2-mask.png"),
    ]
    assert [c.name for c in scan.classes] == ["background", "lung"] and scan.labels == {0: 0, 255: 1}
    for item in scan.items:
        assert (encoded(scan, item) == (pixels(raw / "Demo/Data" / f"{item.id}-mask.png") == 255)).all()


def test_nyu_image_and_mask_are_both_png_in_one_folder(samples: Path) -> None:
    raw = sample(samples, "nyu40")
    scan = folder.scan(raw, classes=[f"nyu {i}" for i in range(40)], ignore=255)
    (item,) = scan.items
    assert (item.image.name, item.mask and item.mask.name) == ("000972.png", "000972_mask.png") and not scan.faults
    truth = pixels(raw / "000972_mask.png")
    assert (encoded(scan, item) == truth).all() and Counter(truth.ravel().tolist())[255] == 20090
    unnamed = folder.scan(raw)
    assert len(unnamed.classes) == 40 and unnamed.labels[255] == 255 and "255 is ignored" in unnamed.faults[0].what
    with pytest.raises(AssertionError, match="value 255, which is no class"):
        encoded(folder.scan(raw, classes=[f"nyu {i}" for i in range(40)]), item)


def test_person_part_differs_by_the_ending_alone(samples: Path) -> None:
    raw = sample(samples, "person_part")
    names = ["background", "head", "torso", "upper arms", "lower arms", "upper legs", "lower legs"]
    scan = folder.scan(raw, classes=names)
    assert [(i.id, i.image.suffix) for i in scan.items] == [("2008_002176", ".jpg"), ("2009_001521", ".jpg")] and not scan.faults
    for item in scan.items:
        assert (encoded(scan, item) == pixels(raw / f"{item.id}.png")).all()
    assert [c.name for c in folder.scan(raw).classes] == [f"class {i}" for i in range(7)]


def test_loveda_counts_from_one_and_zero_is_no_data(samples: Path) -> None:
    raw = sample(samples, "aerial_samples") / "loveda"
    scan = folder.scan(raw, ignore=0)
    assert [c.name for c in scan.classes] == [f"class {i}" for i in range(1, 8)]
    assert scan.labels == {**{i: i - 1 for i in range(1, 8)}, 0: 255}
    (item,) = scan.items
    truth = pixels(raw / "ann_dir" / "0.png")
    assert (encoded(scan, item) == truth - 1).all()
    named = {"background": 1, "building": 2, "road": 3, "water": 4, "barren": 5, "forest": 6, "agricultural": 7, "ignore": 0}
    scan = folder.scan(raw, classes=named)
    assert (encoded(scan, item) == truth - 1).all() and scan.classes[6].name == "agricultural" and not scan.faults


def test_potsdam(samples: Path) -> None:
    raw = sample(samples, "aerial_samples") / "potsdam"
    scan = folder.scan(raw)
    (item,) = scan.items
    assert item.id == "2_10_0_0_512_512" and len(scan.classes) == 6
    assert (encoded(scan, item) == pixels(raw / "ann_dir" / "2_10_0_0_512_512.png")).all()


def test_pascal_context_by_the_colours_that_the_refusal_lists(samples: Path) -> None:
    raw = sample(samples, "pascal_context")
    with pytest.raises(ValueError, match="is a colour picture") as caught:
        folder.scan(raw)
    table = yaml.safe_load(str(caught.value).partition("):\n")[2])
    scan = folder.scan(raw, classes=table)
    colours = np.array(list(table.values()))
    assert len(colours) == 11 and [i.id for i in scan.items] == ["2009_000637", "2010_003321"]
    for item in scan.items:
        assert (colours[encoded(scan, item)] == pixels(raw / f"{item.id}.png")).all()
