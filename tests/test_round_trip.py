"""Random label images, palettes, sizes, ids and label tables come out of the shards as they went into the source."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from segpipe.convert import convert
from segpipe.datasets.blocks import colours
from segpipe.layout import Item, Raw, Scan
from segpipe.shards import SPLITS, ClassInfo, Split, read_info

ENCODINGS = ("palette", "grey", "sixteen", "colour", "tiff")
IDS = st.text(st.characters(blacklist_categories=("Cs", "Cc")), min_size=1, max_size=20)


@st.composite
def sources(draw: Any) -> dict[str, Any]:
    """Three or more masks of random sizes and values, the values that mean a class, and those that mean ignored."""
    encoding = draw(st.sampled_from(ENCODINGS))
    wide = encoding == "sixteen"
    num_classes = draw(st.integers(1, 300 if wide else 12))
    ignore = 65535 if num_classes > 254 else 255
    largest = {"sixteen": 65535, "colour": 2**24 - 1}.get(encoding, 255)
    values = draw(st.lists(st.integers(0, largest), min_size=num_classes + 1, max_size=num_classes + 1, unique=True))
    sizes = draw(st.lists(st.tuples(st.integers(1, 24), st.integers(1, 24)), min_size=3, max_size=6))
    ids = draw(st.lists(IDS, min_size=len(sizes), max_size=len(sizes), unique=True))
    return {"encoding": encoding, "values": values, "ignore": ignore, "sizes": sizes, "ids": ids, "seed": draw(st.integers(0, 99))}


def save(indices: np.ndarray, values: np.ndarray, encoding: str, path: Path, rng: np.random.Generator) -> None:
    """Write the source's mask: at each pixel the value of its class."""
    source = values[indices]
    if encoding == "colour":
        rgb = np.stack([source >> 16, (source >> 8) & 255, source & 255], -1).astype(np.uint8)
        Image.fromarray(rgb).save(path, "PNG")
    elif encoding == "sixteen":
        Image.fromarray(source.astype(np.uint16)).save(path, "PNG")
    else:
        image = Image.fromarray(source.astype(np.uint8))
        if encoding == "palette":
            image.putpalette(rng.integers(0, 256, 768, np.uint8).tobytes())
        image.save(path, "TIFF" if encoding == "tiff" else "PNG")


def load(item: Item) -> Raw:
    assert item.mask is not None
    with Image.open(item.mask) as mask:
        labels = np.asarray(mask)
    return Raw(image=item.image.read_bytes(), labels=colours.pack(labels) if labels.ndim == 3 else labels)


@settings(max_examples=40, deadline=None)
@given(sources())
def test_masks_survive_the_round_trip(source: dict[str, Any]) -> None:
    rng = np.random.default_rng(source["seed"])
    values = np.array(source["values"], np.int64)
    num_classes = len(values) - 1
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        items, expected = [], {}
        for i, (name, size) in enumerate(zip(source["ids"], source["sizes"], strict=True)):
            indices = rng.integers(0, num_classes + 1, size)
            image, mask = folder / f"{i}.png", folder / f"{i}.mask"
            pixels = rng.integers(0, 256, (*size, 3), np.uint8)
            Image.fromarray(pixels).save(image)
            save(indices, values, source["encoding"], mask, rng)
            expected[name] = (pixels, np.where(indices == num_classes, source["ignore"], indices))
            items.append(Item(id=name, split=SPLITS[i % 3], image=image, mask=mask, group=name, source=f"{i}.png"))
        scan = Scan(
            classes=tuple(ClassInfo(name=f"c{k}", colour=(0, 0, 0)) for k in range(num_classes)),
            items=tuple(items),
            labels={int(v): k for k, v in enumerate(values[:-1])} | {int(values[-1]): source["ignore"]},
            ignore_index=source["ignore"],
            colours=source["encoding"] == "colour",
        )
        off = {"ignore_as_foreground": "off", "leaked_image": "off"}  # tiny random data may look like that
        convert(folder, folder / "out", name="random", scan=scan, load=load, severities=off, workers=1, previews=1)
        info = read_info(folder / "out")
        found = {}
        for split in SPLITS:
            rows = Split(folder / "out", split)
            found |= {name: rows.arrays(i) for i, name in enumerate(rows.ids)}
        assert found.keys() == expected.keys()
        for name, (pixels, mask) in found.items():
            assert (pixels == expected[name][0]).all() and (mask == expected[name][1]).all()
        counted = sum(np.array(info.pixels[split]) for split in SPLITS)
        labels = np.concatenate([mask.ravel() for _, mask in expected.values()])
        assert counted.tolist() == np.bincount(labels[labels != source["ignore"]], minlength=num_classes).tolist()
